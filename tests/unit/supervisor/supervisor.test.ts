import { afterEach, beforeEach, describe, expect, test } from 'bun:test';
import { fileURLToPath } from 'node:url';
import { resolveConfig } from '../../../src/config/resolve.ts';
import { createLog } from '../../../src/log.ts';
import { gatewayWorkers } from '../../../src/process/boot.ts';
import { onStopSignals } from '../../../src/supervisor/drain.ts';
import type { WorkerHealth } from '../../../src/supervisor/health.ts';
import { Supervisor } from '../../../src/supervisor/supervisor.ts';
import { version as packageVersion } from '../../../src/version.ts';
import { FakeNative } from '../../support/fake-native.ts';

const workerProgram = fileURLToPath(new URL('../../support/mock-worker.ts', import.meta.url));
const patience = 20_000;

let native: FakeNative;
let supervisor: Supervisor | undefined;
let lines: string[];

beforeEach(() => {
  native = new FakeNative();
  supervisor = undefined;
  lines = [];
});
afterEach(async () => {
  await supervisor?.kill(0);
  native.dispose();
});

async function start(
  behaviour: 'ok' | 'crash' | 'refuse' | 'stubborn',
  options: { workers?: number; delay?: 'auto' | number; drain?: number; adminPort?: number } = {},
): Promise<Supervisor> {
  const config = resolveConfig(
    {
      fetch: () => new Response(),
      listen: [8080, { unix: '/nowhere/a.sock' }],
      admin: { port: options.adminPort ?? 0 },
      workers: options.workers ?? 2,
      drain: { delay: options.delay ?? 0, timeout: options.drain ?? 10 },
    },
    {},
  );
  const log = createLog({ level: 'debug' }, { write: (line) => void lines.push(JSON.parse(line).msg) });
  supervisor = await Supervisor.start({ config, kind: gatewayWorkers(behaviour, workerProgram), native, log, judge: () => [] });
  return supervisor;
}

const admin = (path: string) => fetch(`${supervisor?.adminLabel}${path}`);
async function health(): Promise<{ status: string; workers: WorkerHealth[]; version: string }> {
  return (await (await admin('/healthz')).json()) as { status: string; workers: WorkerHealth[]; version: string };
}
/** Wait for something that must come, however slow the machine. */
async function until(what: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await what())) await Bun.sleep(10);
}
const untilReady = () => until(async () => (await admin('/readyz')).status === 200);

describe('start', () => {
  test(
    'every descriptor has, in each worker, the number it was told',
    async () => {
      await start('ok');
      await untilReady();
      const { workers, status, version } = await health();
      expect([status, version]).toEqual(['ok', packageVersion]);
      const [zero, one] = workers.map((worker) => JSON.parse(worker.note ?? ''));
      expect([zero.shm, zero.inboxes]).toEqual([one.shm, one.inboxes]);
      expect(zero.listeners.map(([label]: [string]) => label)).toEqual(['http://localhost:8080', 'unix:/nowhere/a.sock']);
      expect(zero.listeners[0][1]).not.toBe(one.listeners[0][1]);
      expect(zero.listeners[1][1]).toBe(one.listeners[1][1]);
      const seen = new Set([zero.shm, ...zero.inboxes, ...zero.listeners.map((each: [string, number]) => each[1]), one.listeners[0][1]]);
      expect(seen).toEqual(native.inodes());
    },
    patience,
  );

  test(
    'the banner is written once, when all workers are ready',
    async () => {
      const { adminLabel } = await start('ok');
      await untilReady();
      expect(lines.filter((line) => line.includes('listening'))).toEqual([
        `ringway ${packageVersion}: listening on http://localhost:8080 (2 workers, epoll), admin ${adminLabel}`,
        `ringway ${packageVersion}: listening on unix:/nowhere/a.sock (2 workers, epoll), admin ${adminLabel}`,
      ]);
    },
    patience,
  );

  test(
    'a worker that refuses the config stops everything with 78',
    async () => {
      expect(await (await start('refuse')).finished).toBe(78);
      expect(lines).toContain('the config is wrong');
      expect(native.openFds.size).toBe(0);
    },
    patience,
  );

  test('an admin port in use by another process is a clear error, and nothing stays open', async () => {
    const program = "console.log(Bun.serve({ hostname: '127.0.0.1', port: 0, fetch: () => new Response() }).port)";
    const other = Bun.spawn({ cmd: [process.execPath, '-e', program], stdout: 'pipe' });
    const { value } = await other.stdout.getReader().read();
    const port = Number(new TextDecoder().decode(value));
    const attempt = start('ok', { adminPort: port });
    await expect(attempt).rejects.toThrow(
      `cannot listen on 127.0.0.1:${port}, for the admin listener: another process listens there already`,
    );
    expect(native.openFds.size).toBe(0);
    other.kill();
    await other.exited;
  });

  test('a listening port in use is a clear error, and the admin listener is closed again', async () => {
    native.refuse = (host) => (host === '::' ? 'EADDRINUSE' : undefined);
    const port = Bun.serve({ hostname: '127.0.0.1', port: 0, fetch: () => new Response() });
    await port.stop(true);
    await expect(start('ok', { adminPort: port.port ?? 0 })).rejects.toThrow('cannot listen on [::]:8080: another process');
    await expect(fetch(`http://127.0.0.1:${port.port}/healthz`)).rejects.toThrow();
  });
});

describe('restart', () => {
  test(
    'a killed worker is replaced, the others are not touched',
    async () => {
      await start('ok');
      await untilReady();
      const before = (await health()).workers;
      process.kill(before[1]?.pid ?? Number.NaN, 'SIGKILL');
      await until(async () => (await health()).workers[1]?.restarts === 1);
      await untilReady();
      const after = await health();
      expect(after.status).toBe('ok');
      expect(after.workers[0]).toMatchObject({ pid: before[0]?.pid ?? 0, restarts: 0, state: 'ready' });
      expect(after.workers[1]?.pid).not.toBe(before[1]?.pid);
      expect(JSON.parse(after.workers[1]?.note ?? '').generation).toBe(1);
      expect(native.events.filter((event) => event.startsWith('gone'))).toEqual(['gone 1']);
      expect(lines).toContain('worker 1 serves again');
    },
    patience,
  );

  test(
    'a crash loop is reported and makes the node degraded, the other worker serves on',
    async () => {
      await start('crash');
      await until(async () => (await health()).status === 'degraded');
      const { workers } = await health();
      expect(workers[0]).toMatchObject({ state: 'ready', restarts: 0 });
      expect(workers[1]?.restarts).toBeGreaterThanOrEqual(4);
      expect(lines.filter((line) => line.startsWith('worker 1 has crashed 5 times in a row'))).toHaveLength(1);
      const ready = await admin('/readyz');
      expect([ready.status, await ready.json()]).toEqual([
        503,
        { status: 'not ready', reason: expect.stringMatching(/^starting: worker 1 is (waiting|starting)$/) },
      ]);
    },
    patience,
  );
});

describe('stop', () => {
  test(
    'a drain ends with 0, with everything closed and the shared memory told',
    async () => {
      const running = await start('ok');
      await untilReady();
      await running.drain('SIGTERM');
      expect(await running.finished).toBe(0);
      expect(native.openFds.size).toBe(0);
      expect(native.events.slice(-3).toSorted()).toEqual(['gone 0', 'gone 1', 'unmap']);
    },
    patience,
  );

  test(
    'while draining it is not ready, and says so',
    async () => {
      const running = await start('stubborn', { drain: 3600 });
      await untilReady();
      const drained = running.drain('SIGTERM');
      const ready = await admin('/readyz');
      expect([ready.status, await ready.json()]).toEqual([503, { status: 'not ready', reason: 'draining' }]);
      await running.kill(130);
      await drained;
      expect(await running.finished).toBe(130);
    },
    patience,
  );

  test(
    'what does not finish within drain.timeout is killed, and the exit code is still 0',
    async () => {
      const running = await start('stubborn', { drain: 0.2 });
      await untilReady();
      await running.drain('SIGTERM');
      expect(await running.finished).toBe(0);
      expect(lines).toContain('2 of 2 workers had connections left after 0.2 s (drain.timeout); cut off');
    },
    patience,
  );

  test(
    'drain.delay leaves workers and sockets as they are, and only says that the node is not ready; then it drains',
    async () => {
      const running = await start('ok', { delay: 1 });
      await untilReady();
      const sockets = native.openFds.size;
      const drained = running.drain('SIGTERM');
      const ready = await admin('/readyz');
      expect([ready.status, await ready.json()]).toEqual([503, { status: 'not ready', reason: 'draining' }]);
      const { workers } = await health();
      // However slow the machine: as long as the workers are ready nothing may have been closed.
      if (workers.every(({ state }) => state === 'ready')) expect(native.openFds.size).toBe(sockets);
      await drained;
      expect(await running.finished).toBe(0);
    },
    patience,
  );

  test(
    'by default a drain waits when somebody asks whether the node is ready, and only then',
    async () => {
      const asked = await start('ok', { delay: 'auto' });
      await untilReady();
      await admin('/healthz');
      expect(asked.delaySeconds('SIGTERM')).toBeGreaterThanOrEqual(1);
      expect(asked.delaySeconds('SIGINT')).toBe(0);
      await asked.kill(1);
      const unasked = await start('ok', { delay: 'auto' });
      const isUp = async () => (await health()).workers.every(({ state }) => state === 'ready');
      for (const end = Date.now() + 10_000; !(await isUp()) && Date.now() < end; ) await Bun.sleep(10);
      expect(unasked.delaySeconds('SIGTERM')).toBe(0);
      await unasked.kill(1);
    },
    patience,
  );

  test(
    'drain.delay is cut short by the next signal, and SIGINT does not wait for it',
    async () => {
      const running = await start('ok', { delay: 3600 });
      await untilReady();
      const drained = running.drain('SIGTERM');
      expect((await health()).workers.map(({ state }) => state)).toEqual(['ready', 'ready']);
      await running.kill(143);
      await drained;
      expect(await running.finished).toBe(143);

      const other = await start('ok', { delay: 3600 });
      await untilReady();
      await other.drain('SIGINT');
      expect(await other.finished).toBe(0);
    },
    patience,
  );

  test(
    'drain.timeout 0 does not wait',
    async () => {
      const running = await start('stubborn', { drain: 0 });
      await untilReady();
      await running.drain('SIGTERM');
      expect(await running.finished).toBe(0);
      expect(lines.filter((line) => line.includes('cut off'))).toEqual([]);
    },
    patience,
  );

  test(
    'a worker that waits for its restart does not hold up the stop',
    async () => {
      const running = await start('crash');
      await until(async () => (await health()).workers[1]?.state === 'waiting');
      await running.drain('SIGTERM');
      expect(await running.finished).toBe(0);
    },
    patience,
  );

  test('the first signal drains, one a second later forces its exit code, and one that only repeats the first does nothing', () => {
    const calls: (string | number)[] = [];
    let time = 0;
    const off = onStopSignals(
      (signal) => calls.push(signal),
      (exitCode) => calls.push(exitCode),
      () => time,
    );
    process.emit('SIGTERM');
    time = 999;
    process.emit('SIGTERM');
    expect(calls).toEqual(['SIGTERM']);
    time = 1000;
    process.emit('SIGINT');
    process.emit('SIGTERM');
    off();
    expect(calls).toEqual(['SIGTERM', 130, 143]);
  });
});

describe('admin', () => {
  test(
    'counters of workers come from shared memory',
    async () => {
      await start('ok', { workers: 1 });
      await untilReady();
      native.counters[0]?.fill(7n);
      const response = await admin('/metrics');
      expect(response.headers.get('content-type')).toStartWith('text/plain; version=0.0.4');
      expect(await response.text()).toContain('ringway_http_requests_total{worker="0"} 7\n');
    },
    patience,
  );

  test(
    'other paths and methods',
    async () => {
      await start('ok', { workers: 1 });
      const missing = await admin('/nope');
      const { paths } = (await missing.json()) as { paths: string[] };
      expect([missing.status, paths.slice(0, 3)]).toEqual([404, ['/healthz', '/readyz', '/metrics']]);
      const post = await fetch(`${supervisor?.adminLabel}/healthz`, { method: 'POST' });
      expect([post.status, post.headers.get('allow')]).toEqual([405, 'GET, HEAD']);
    },
    patience,
  );
});
