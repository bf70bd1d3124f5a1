import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from 'bun:test';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { GatewayConfig } from '../../../src/api/define.ts';
import { resolveConfig } from '../../../src/config/resolve.ts';
import { createLog } from '../../../src/log.ts';
import { gatewayWorkers, type WorkerKind } from '../../../src/process/boot.ts';
import type { NodeHealth } from '../../../src/supervisor/health.ts';
import type { ProbeMessage } from '../../../src/supervisor/probe.ts';
import { ownRelease } from '../../../src/supervisor/release.ts';
import { nodeSettings } from '../../../src/supervisor/settings.ts';
import { Supervisor, type SupervisorOptions } from '../../../src/supervisor/supervisor.ts';
import { FakeNative } from '../../support/fake-native.ts';

// Only ends a test that has failed.
setDefaultTimeout(60_000);

const workerProgram = fileURLToPath(new URL('../../support/mock-worker.ts', import.meta.url));

type Behaviour = 'ok' | 'crash' | 'refuse' | 'stubborn' | 'never' | 'dies';

let native: FakeNative;
let folder: string;
let supervisor: Supervisor;
let lines: string[];
/** How workers that are started from now on behave. */
let behaviour: Behaviour;
/** What the config says now. */
let config: Partial<GatewayConfig>;
let verdict: ProbeMessage | undefined;
let reads: number;

beforeEach(() => {
  native = new FakeNative();
  folder = mkdtempSync(join(tmpdir(), 'ringway-reload-'));
  process.env.MOCK_WORKER_LOG = join(folder, 'log');
  writeFileSync(join(folder, 'log'), '');
  [lines, behaviour, config, verdict, reads] = [[], 'ok', {}, undefined, 0];
  native.onEvent = (event) => writeFileSync(join(folder, 'log'), `supervisor ${event}\n`, { flag: 'a' });
});
afterEach(async () => {
  await supervisor?.kill(0);
  delete process.env.MOCK_WORKER_LOG;
  native.dispose();
  rmSync(folder, { recursive: true });
});

const settings = () =>
  nodeSettings(
    resolveConfig({ fetch: () => new Response(), listen: 8080, admin: { port: 0 }, workers: 2, drain: { timeout: 3600 }, ...config }, {}),
  );

async function start(first: Behaviour = 'ok', options: Partial<SupervisorOptions> = {}, untilReady = true): Promise<void> {
  behaviour = first;
  const kind: WorkerKind = {
    ...gatewayWorkers('ok', workerProgram),
    boot: (listeners, _, holdsBack) => ({ configPath: behaviour, listeners, holdsBack }),
  };
  const log = createLog({ level: 'debug' }, { write: (line) => void lines.push(JSON.parse(line).msg) });
  const readConfig = async (): Promise<ProbeMessage> => {
    reads += 1;
    return verdict ?? { type: 'config', settings: settings(), release: ownRelease };
  };
  supervisor = await Supervisor.start({ config: settings(), kind, native, log, judge: () => [], readConfig, ...options });
  behaviour = 'ok';
  if (untilReady) await until(async () => (await admin('/readyz')).status === 200);
}

const admin = (path: string) => fetch(`${supervisor.adminLabel}${path}`);
const health = async () => (await (await admin('/healthz')).json()) as NodeHealth;
const places = async () => (await health()).workers.map(({ index }) => index);
/** What the worker at a place has found at its start. */
async function found(place: number) {
  const worker = (await health()).workers.find(({ index }) => index === place);
  return JSON.parse(worker?.note ?? 'null');
}
/** Wait for something that must come, however slow the machine. */
async function until(what: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await what())) await Bun.sleep(10);
}
/** What workers were told and the supervisor did, in order. */
const log = () => readFileSync(join(folder, 'log'), 'utf8').trim().split('\n');
const logOf = (place: number | 'supervisor') =>
  log().flatMap((line) => (line.startsWith(`${place} `) ? [line.slice(`${place} `.length)] : []));
const allDrained = () => until(async () => (await health()).draining.length === 0);
/** All that a test may find unchanged. */
async function state() {
  const { generation, workers, draining } = await health();
  return {
    generation,
    workers: workers.map(({ index, pid, state: now }) => ({ index, pid, now })),
    draining,
    fds: [...native.openFds].sort(),
  };
}

/** Never process 0: that would be every process of our own group. */
function killHard(pid: number | null | undefined): void {
  if (pid === null || pid === undefined) throw new Error('there is no such process to be killed');
  process.kill(pid, 'SIGKILL');
}

describe('a reload', () => {
  test('puts new workers in the place of the old ones: on trial, ready, view, serve, and then the old ones drain', async () => {
    await start();
    expect(await places()).toEqual([0, 1]);
    const before = await found(0);
    expect(await supervisor.reload()).toEqual({ kind: 'reloaded', generation: 2, upgraded: false });
    const { generation, workers, reload, pid } = await health();
    expect([generation, workers.map(({ index, state: now }) => [index, now]), pid]).toEqual([
      2,
      [
        [2, 'ready'],
        [3, 'ready'],
      ],
      process.pid,
    ]);
    expect(reload).toMatchObject({ requests: 1, isRunning: false, last: { kind: 'reloaded', generation: 2, request: 1 } });
    await allDrained();
    await until(() => [2, 3].every((place) => logOf(place).some((line) => line.startsWith('serve'))));

    const order = log();
    const at = (line: string) => order.findIndex((each) => each.startsWith(line));
    const steps = ['2 start on trial', '2 ready', 'supervisor view 2 2 2', '2 serve', '0 drain'].map(at);
    expect(steps.every((step) => step >= 0)).toBe(true);
    expect(at('3 ready')).toBeLessThan(at('supervisor view 2 2 2'));
    expect(at('supervisor view 2 2 2')).toBeLessThan(Math.min(at('2 serve'), at('3 serve'), at('0 drain'), at('1 drain')));
    expect(at('supervisor view 1 0 2')).toBeLessThan(at('0 start serving'));
    // RFC 6455 §7.4.1: going away; clients that do not know 1012 take it for an error. Spread over four fifths of an hour here; nobody has to serve a queue that others serve.
    const drain = JSON.parse(
      logOf(0)
        .find((line) => line.startsWith('drain'))
        ?.slice('drain '.length) ?? '',
    );
    expect(drain).toEqual({ signal: 'SIGHUP', code: 1001, overMs: 2_880_000, idleMs: 5000, servesQueues: false, deadlineMs: 3_600_000 });

    const after = await found(2);
    expect([after.shm, after.inboxes, after.nodeId, after.holdsBack, after.workers]).toEqual([
      before.shm,
      before.inboxes,
      before.nodeId,
      true,
      2,
    ]);
    expect(after.inboxes).toHaveLength(16);
    expect(after.listeners).toEqual(before.listeners);
  });

  test('keeps the node ready all the time', async () => {
    await start('stubborn');
    const seen: number[] = [];
    let running = true;
    const watching = (async () => {
      while (running) {
        seen.push((await admin('/readyz')).status);
        await Bun.sleep(1);
      }
    })();
    for (let i = 0; i < 3; i++) expect((await supervisor.reload()).kind).toBe('reloaded');
    running = false;
    await watching;
    expect(new Set(seen)).toEqual(new Set([200]));
  });

  test('tells of those that drain until they have stopped', async () => {
    await start('stubborn');
    await supervisor.reload();
    const { draining } = await health();
    expect(draining.map(({ generation, workers }) => [generation, workers.map(({ index, state: now }) => [index, now])])).toEqual([
      [
        1,
        [
          [0, 'draining'],
          [1, 'draining'],
        ],
      ],
    ]);
    killHard(draining[0]?.workers[0]?.pid);
    await until(async () => (await health()).draining[0]?.workers.length === 1);
  });

  test('uses places again, and their processes go on being counted', async () => {
    await start();
    for (const [generation, first] of [
      [2, 2],
      [3, 0],
      [4, 2],
    ] as const) {
      expect(await supervisor.reload()).toMatchObject({ generation });
      expect(await places()).toEqual([first, first + 1]);
      await allDrained();
    }
    expect((await found(2)).generation).toBe(1);
    expect(logOf('supervisor').filter((event) => event.startsWith('view'))).toEqual([
      'view 1 0 2',
      'view 2 2 2',
      'view 3 0 2',
      'view 4 2 2',
    ]);
  });

  test('changes the number of workers, and every socket of an address goes on being served', async () => {
    await start();
    config = { workers: 3 };
    expect((await supervisor.reload()).kind).toBe('reloaded');
    expect(await places()).toEqual([2, 3, 4]);
    const three = await Promise.all([2, 3, 4].map(found));
    const inodes = new Set(three.map(({ listeners }) => listeners[0][1]));
    expect(inodes.size).toBe(3);
    await allDrained();
    config = { workers: 1 };
    await supervisor.reload();
    const one = await found(0);
    expect(new Set(one.listeners.map(([, inode]: [string, number]) => inode))).toEqual(inodes);
    expect(one.indexes).toEqual([0, 0, 0]);
  });

  test('adds and removes addresses; who had one that is gone serves its queue', async () => {
    await start();
    config = { listen: [8080, 8081] };
    await supervisor.reload();
    await allDrained();
    expect(lines).toContain('listening on http://localhost:8081');
    expect(logOf(0).some((line) => line.includes('"servesQueues":false'))).toBe(true);
    // Before anybody may connect all workers are ready.
    const order = log();
    expect(order.indexOf('supervisor begin :: 8081 backlog 4096')).toBeGreaterThan(order.indexOf('3 ready'));
    config = { listen: 8081 };
    await supervisor.reload();
    await allDrained();
    expect(lines).toContain('no longer listening on http://localhost:8080');
    expect(logOf(2).some((line) => line.includes('"servesQueues":true'))).toBe(true);
    expect((await found((await places())[0] ?? 0)).listeners).toEqual([['http://localhost:8081', expect.any(Number)]]);
  });

  test('sets the level of the log', async () => {
    await start();
    config = { log: { level: 'error' } };
    await supervisor.reload();
    const count = lines.length;
    config = { log: { level: 'info' } };
    await supervisor.reload();
    expect(lines.slice(count).filter((line) => line.includes('generation 3 serves'))).toHaveLength(1);
    expect(lines.slice(count).filter((line) => line.includes('reading the config'))).toEqual([]);
  });
});

describe('the memory of topics', () => {
  const told = () => lines.filter((line) => String(line).startsWith('limits.maxTopicMemoryBytes'));

  test('is as the config says at the start; a reload leaves it, and says so', async () => {
    config = { limits: { maxTopicMemoryBytes: 2 ** 24 } };
    await start();
    expect(native.stateBytes).toBe(2 ** 24);
    expect((await supervisor.reload()).kind).toBe('reloaded');
    expect(told()).toEqual([]);
    config = { limits: { maxTopicMemoryBytes: 2 ** 25 } };
    expect((await supervisor.reload()).kind).toBe('reloaded');
    expect([told(), native.stateBytes]).toEqual([
      ['limits.maxTopicMemoryBytes is another one now: it will be used when the gateway is started again'],
      2 ** 24,
    ]);
  });
});

describe('a reload that cannot be', () => {
  test('for a wrong config changes nothing, and says what is wrong', async () => {
    await start();
    const before = await state();
    verdict = { type: 'mistakes', where: 'gateway.config.ts', mistakes: ['workers: is 0; write more', 'listen: no'] };
    const outcome = { kind: 'wrong config', where: 'gateway.config.ts', mistakes: ['workers: is 0; write more', 'listen: no'] } as const;
    expect(await supervisor.reload()).toEqual(outcome);
    expect(await state()).toEqual(before);
    expect((await health()).reload.last).toMatchObject({ ...outcome, request: 1 });
    expect(lines.at(-1)).toContain('workers: is 0; write more\nlisten: no');
    verdict = { type: 'failed', reason: 'the core was not built' };
    expect(await supervisor.reload()).toEqual(verdict && { kind: 'failed', reason: 'the core was not built' });
    expect(await state()).toEqual(before);
    verdict = undefined;
    expect((await supervisor.reload()).kind).toBe('reloaded');
  });

  for (const [how, expected] of [
    ['crash', { kind: 'failed', reason: 'a new worker ended with code 3 before it was ready' }],
    ['refuse', { kind: 'wrong config', where: '', mistakes: ['the config is wrong'] }],
    ['never', { kind: 'failed', reason: expect.stringMatching(/^1 of 2 new workers were not ready after 1.5 s/) }],
  ] as const) {
    test(`since a new worker does this: ${how}; ends the new ones and leaves the old ones alone`, async () => {
      await start('ok', { readyTimeoutMs: 1500 });
      const before = await state();
      behaviour = how;
      config = { listen: [8080, 8081], workers: 2, admin: { port: 0 } };
      expect(await supervisor.reload()).toEqual(expected);
      expect(await state()).toEqual(before);
      expect(log().filter((line) => line.startsWith('supervisor begin'))).toEqual([]);
      expect(logOf(0).filter((line) => line.startsWith('drain'))).toEqual([]);
      // Its places are free again.
      behaviour = 'ok';
      expect((await supervisor.reload()).kind).toBe('reloaded');
      expect(await places()).toEqual([2, 3]);
    });
  }

  test('for an address that is taken changes nothing', async () => {
    await start();
    const before = await state();
    native.refuse = (_, port) => (port === 8081 ? 'EADDRINUSE' : undefined);
    config = { listen: [8080, 8081] };
    expect(await supervisor.reload()).toEqual({
      kind: 'failed',
      reason: expect.stringContaining('[::]:8081: another process listens there'),
    });
    expect(await state()).toEqual(before);
    // It may also be taken between the claim and the moment when all is ready.
    native.refuse = () => undefined;
    native.refuseBegin = (_, port) => (port === 8081 ? 'EADDRINUSE' : undefined);
    expect(await supervisor.reload()).toMatchObject({ kind: 'failed' });
    expect(await state()).toEqual(before);
    expect(logOf(0).filter((line) => line.startsWith('drain'))).toEqual([]);
  });

  test('for an admin address that is taken changes nothing', async () => {
    await start();
    const other = Bun.serve({ hostname: '127.0.0.1', port: 0, fetch: () => new Response() });
    const before = await state();
    config = { admin: { port: other.port ?? 0 } };
    expect(await supervisor.reload()).toEqual({
      kind: 'failed',
      reason: expect.stringContaining(`cannot listen on 127.0.0.1:${other.port}`),
    });
    expect(await state()).toEqual(before);
    await other.stop(true);
  });

  test('for more workers than ever fit says so; one for which there is no room yet is done when there is', async () => {
    await start('stubborn', {});
    config = { workers: 15 };
    expect(await supervisor.reload()).toEqual({
      kind: 'failed',
      reason: expect.stringMatching(/^15 workers do not fit beside the 2 .* 16 places, which leaves 14 in a row/),
    });
    config = { workers: 7 };
    expect((await supervisor.reload()).kind).toBe('reloaded');
    expect(await places()).toEqual([2, 3, 4, 5, 6, 7, 8]);
    // 9..15 are free, 0 and 1 are not: they drain.
    expect((await supervisor.reload()).kind).toBe('reloaded');
    config = { workers: 4 };
    const waiting = await supervisor.reload();
    const draining = (await health()).draining.find(({ generation }) => generation === 1);
    if (waiting.kind === 'postponed') {
      // Those of generation 2 had not stopped yet: they do by themselves.
      await until(async () => (await health()).generation === 4);
    }
    expect(await places()).toEqual([2, 3, 4, 5]);
    expect(draining?.workers.map(({ index }) => index)).toEqual([0, 1]);
  });

  test('for want of room is postponed, told of, and done when the old ones have stopped', async () => {
    config = { workers: 8 };
    await start('stubborn');
    behaviour = 'stubborn';
    await supervisor.reload();
    const waiting = await supervisor.reload();
    expect(waiting).toEqual({ kind: 'postponed', reason: expect.stringContaining('no room for 8 more') });
    expect(await supervisor.reload()).toMatchObject({ kind: 'postponed' });
    expect((await health()).reload.last).toMatchObject({ kind: 'postponed', request: 3 });
    behaviour = 'ok';
    for (const worker of (await health()).draining[0]?.workers ?? []) killHard(worker.pid);
    await until(async () => (await health()).generation === 3);
    expect((await health()).reload).toMatchObject({ requests: 3, last: { kind: 'reloaded', generation: 3, request: 3 } });
    expect(await places()).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
  });
});

describe('a reload of a node that has not got ready', () => {
  test('serves the config that was put right', async () => {
    await start('never', {}, false);
    expect((await admin('/readyz')).status).toBe(503);
    expect((await supervisor.reload()).kind).toBe('reloaded');
    await until(async () => (await admin('/readyz')).status === 200);
    expect(lines.filter((line) => line.includes('listening on'))).toHaveLength(1);
    await allDrained();
    expect(await places()).toEqual([2, 3]);
  });
});

describe('many reloads', () => {
  test('asked for at once are one, and one more for those that came meanwhile', async () => {
    await start();
    const outcomes = await Promise.all(Array.from({ length: 50 }, () => supervisor.reload()));
    expect(outcomes.map((outcome) => outcome.kind === 'reloaded' && outcome.generation)).toEqual([2, ...new Array<number>(49).fill(3)]);
    expect(reads).toBe(2);
    await allDrained();
    expect(log().filter((line) => line.endsWith('start on trial'))).toHaveLength(4);
  });

  test('while a worker of the first generation is being restarted do not start it again', async () => {
    await start();
    killHard((await health()).workers[1]?.pid);
    await supervisor.reload();
    await allDrained();
    expect((await health()).workers.map(({ index, state: now }) => [index, now])).toEqual([
      [2, 'ready'],
      [3, 'ready'],
    ]);
    const startsBefore = logOf(1).filter((line) => line.startsWith('start')).length;
    await Bun.sleep(300);
    expect(logOf(1).filter((line) => line.startsWith('start'))).toHaveLength(startsBefore);
  });
});

describe('after a reload', () => {
  test('a new worker that crashes is started again, and serves at once', async () => {
    await start();
    await supervisor.reload();
    await allDrained();
    killHard((await health()).workers[0]?.pid);
    await until(async () => (await health()).workers[0]?.restarts === 1 && (await health()).workers[0]?.state === 'ready');
    expect(logOf(2).filter((line) => line.startsWith('start'))).toEqual(['start on trial', 'start serving']);
    expect(await found(2)).toMatchObject({ generation: 1, holdsBack: false });
  });

  test('an old worker that crashes while it drains is not started again, and the log says so', async () => {
    await start('dies');
    await supervisor.reload();
    await allDrained();
    expect(lines).toContain('worker 0 ended with code 3 while it drained; its connections were cut');
    expect(logOf(0).filter((line) => line.startsWith('start'))).toHaveLength(1);
    expect((await health()).generation).toBe(2);
  });

  test('every other worker, draining ones too, hears of one that has ended', async () => {
    await start('stubborn');
    await supervisor.reload();
    killHard((await health()).workers[1]?.pid);
    const hears = (place: number, gone: number) => logOf(place).some((line) => line.startsWith(`worker-gone {"worker":${gone},`));
    await until(() => [0, 1, 2].every((place) => hears(place, 3)));
    await until(async () => (await health()).workers.every(({ state: now }) => now === 'ready'));
    const [oldest] = (await health()).draining[0]?.workers ?? [];
    killHard(oldest?.pid);
    await until(() => [1, 2, 3].every((place) => hears(place, 0)));
    expect(native.events.filter((event) => event.startsWith('gone'))).toEqual(['gone 3', 'gone 0']);
  });

  test('counters go on where they were, nothing is counted twice, and who is gone is not said to be down', async () => {
    await start();
    const metric = async (name: string) =>
      (await (await admin('/metrics')).text()).split('\n').filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `));
    for (const place of [0, 1, 2, 3]) native.counters[place]?.fill(BigInt(place + 1));
    expect(await metric('ringway_node_http_requests_total')).toEqual(['ringway_node_http_requests_total 3']);
    await supervisor.reload();
    await allDrained();
    expect(await metric('ringway_http_requests_total')).toEqual(
      [0, 1, 2, 3].map((place) => `ringway_http_requests_total{worker="${place}"} ${place + 1}`),
    );
    expect(await metric('ringway_node_http_requests_total')).toEqual(['ringway_node_http_requests_total 10']);
    expect(await metric('ringway_worker_up')).toEqual(['ringway_worker_up{worker="2"} 1', 'ringway_worker_up{worker="3"} 1']);
    killHard((await health()).workers[0]?.pid);
    await until(async () => (await metric('ringway_worker_restarts_total')).includes('ringway_worker_restarts_total{worker="2"} 1'));
    await until(async () => (await health()).workers.every(({ state: now }) => now === 'ready'));
    await supervisor.reload();
    await allDrained();
    expect(await places()).toEqual([0, 1]);
    expect(await metric('ringway_worker_restarts_total')).toEqual(
      [0, 0, 1, 0].map((count, place) => `ringway_worker_restarts_total{worker="${place}"} ${count}`),
    );
    expect(await metric('ringway_node_http_requests_total')).toEqual(['ringway_node_http_requests_total 10']);
  });

  test('the admin listener is where the new config says, and for a moment where it was', async () => {
    await start();
    const old = supervisor.adminLabel;
    const free = Bun.serve({ hostname: '127.0.0.1', port: 0, fetch: () => new Response() });
    const port = free.port ?? 0;
    await free.stop(true);
    config = { admin: { port } };
    await supervisor.reload();
    expect(supervisor.adminLabel).toBe(`http://127.0.0.1:${port}`);
    for (const where of [old, supervisor.adminLabel]) {
      const answer = (await (await fetch(`${where}/healthz`)).json()) as NodeHealth;
      expect(answer.reload.last).toMatchObject({ kind: 'reloaded', generation: 2 });
    }
    // The same port on every address cannot be had beside the one that is there: it moves.
    config = { admin: { port, host: '0.0.0.0' } };
    await supervisor.reload();
    await until(() => supervisor.adminLabel === `http://localhost:${port}`);
    expect((await health()).generation).toBe(3);
    config = { admin: false };
    await supervisor.reload();
    expect(supervisor.adminLabel).toBeUndefined();
  });
});

describe('a stop', () => {
  test('while new workers are on trial ends those, and drains the old ones', async () => {
    await start();
    behaviour = 'never';
    const reload = supervisor.reload();
    await until(() => logOf(3).includes('start on trial'));
    await supervisor.drain('SIGTERM');
    expect(await supervisor.finished).toBe(0);
    expect(await reload).toEqual({ kind: 'failed', reason: 'the node is stopping' });
    expect(native.openFds.size).toBe(0);
    expect(logOf(0).some((line) => line.startsWith('drain') && line.includes('"code":1001'))).toBe(true);
    expect(logOf(2).some((line) => line.startsWith('drain') || line.startsWith('serve'))).toBe(false);
  });

  test('while the config is being read does not wait for it', async () => {
    let gaveUp = false;
    await start('ok', {
      readConfig: (giveUp) =>
        new Promise((resolve) => {
          giveUp.addEventListener('abort', () => {
            gaveUp = true;
            resolve({ type: 'failed', reason: 'the node is stopping' });
          });
        }),
    });
    const reload = supervisor.reload();
    await supervisor.drain('SIGTERM');
    expect(await supervisor.finished).toBe(0);
    expect([gaveUp, (await reload).kind]).toEqual([true, 'failed']);
  });

  test('while old workers drain drains all, each told the time that is left', async () => {
    await start('stubborn');
    config = { drain: { delay: 0, timeout: 0.5, closeCode: 4321 } };
    behaviour = 'stubborn';
    await supervisor.reload();
    expect((await health()).draining).toHaveLength(1);
    await supervisor.drain('SIGTERM');
    expect(await supervisor.finished).toBe(0);
    expect(native.openFds.size).toBe(0);
    const drains = (place: number) =>
      logOf(place)
        .filter((line) => line.startsWith('drain'))
        .map((line) => JSON.parse(line.slice('drain '.length)));
    expect(drains(0).map(({ code, deadlineMs }) => [code, deadlineMs])).toEqual([
      [4321, 500],
      [4321, 500],
    ]);
    expect(drains(2).map(({ code, deadlineMs, idleMs, servesQueues }) => [code, deadlineMs, idleMs, servesQueues])).toEqual([
      [4321, 500, 400, true],
    ]);
  });

  test('at once ends every generation', async () => {
    await start('stubborn');
    await supervisor.reload();
    behaviour = 'never';
    void supervisor.reload();
    await until(() => log().filter((line) => line.endsWith('start on trial')).length === 4);
    const pids = log().length;
    await supervisor.kill(143);
    expect(await supervisor.finished).toBe(143);
    expect(native.openFds.size).toBe(0);
    await Bun.sleep(50);
    expect(log().filter((line) => !line.startsWith('supervisor'))).toHaveLength(log().length - logOf('supervisor').length);
    expect(pids).toBeGreaterThan(0);
  });
});

describe('an upgrade', () => {
  const other = { ...ownRelease, abi: ownRelease.abi + 1 };

  test('that cannot start leaves all as it was', async () => {
    await start('ok', { successorCommand: ['-e', 'process.exit(3)'] });
    const before = await state();
    verdict = { type: 'config', settings: settings(), release: other };
    expect(await supervisor.reload()).toEqual({ kind: 'failed', reason: 'the new supervisor ended with code 3 before it was ready' });
    expect(await state()).toEqual(before);
    expect((await admin('/readyz')).status).toBe(200);
  });

  test('whose supervisor finds the config wrong says so', async () => {
    const program = "process.send({ type: 'failed', reason: 'listen: no', exitCode: 78 }); setTimeout(() => process.exit(78), 50)";
    await start('ok', { successorCommand: ['-e', program] });
    verdict = { type: 'config', settings: settings(), release: other };
    expect(await supervisor.reload()).toEqual({ kind: 'wrong config', where: '', mistakes: ['listen: no'] });
  });

  test('that is under way when the node is to stop is given up', async () => {
    await start('ok', {
      successorCommand: ['-e', `require('node:fs').writeFileSync('${folder}/pid', String(process.pid)); setInterval(() => {}, 1000)`],
    });
    verdict = { type: 'config', settings: settings(), release: other };
    const reload = supervisor.reload();
    await until(() => existsText(join(folder, 'pid')));
    await supervisor.drain('SIGTERM');
    expect(await supervisor.finished).toBe(0);
    expect(await reload).toEqual({ kind: 'failed', reason: 'the node is stopping' });
    const pid = Number(readFileSync(join(folder, 'pid'), 'utf8'));
    expect(() => process.kill(pid, 0)).toThrow();
  });

  test('that ends between ready and serving leaves all as it was', async () => {
    const program = "process.on('message', () => process.exit(4)); process.send({ type: 'ready', kept: [0] })";
    await start('ok', { successorCommand: ['-e', program] });
    const before = await state();
    verdict = { type: 'config', settings: settings(), release: other };
    expect(await supervisor.reload()).toEqual({ kind: 'failed', reason: 'the new supervisor ended before it served' });
    expect(await state()).toEqual(before);
  });

  test('of one that cannot be replaced says to restart it', async () => {
    await start();
    verdict = { type: 'config', settings: settings(), release: other };
    expect(await supervisor.reload()).toMatchObject({ kind: 'failed', reason: expect.stringContaining('restart it') });
  });
});

function existsText(path: string): boolean {
  try {
    return readFileSync(path, 'utf8') !== '';
  } catch {
    return false;
  }
}
