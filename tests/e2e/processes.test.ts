import { afterAll, describe, expect, setDefaultTimeout, test } from 'bun:test';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eventually } from '../support/eventually.ts';
import { closePayload, frame, opcode } from '../support/frames.mjs';
import { type Backend, forEachBackend, startGateway } from '../support/gateway.ts';
import { isAlive } from '../support/process-state.ts';
import { type CommandOptions, ringway as runCommand } from '../support/ringway-command.ts';
import { Wire } from '../support/wire.ts';

// Only ends a test that has failed: nothing here is measured in time.
setDefaultTimeout(120_000);

const root = join(import.meta.dir, '..', '..');
const folder = mkdtempSync(join(tmpdir(), 'ringway-processes-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const config = `
import { Hono } from 'hono';
import { defineGateway, publish } from 'ringway';
const app = new Hono();
// Answers once the file exists: a gateway that drains takes no connection that could tell it to.
app.get('/held', async (c) => {
  while (!(await Bun.file(process.env.RELEASE_FILE).exists())) await Bun.sleep(10);
  return c.text('done');
});
app.get('/', (c) => c.text('hello'));
export default defineGateway({
  $OPTIONS,
  fetch: app,
  drain: { timeout: Number(process.env.DRAIN_SECONDS ?? 60), delay: Number(process.env.DRAIN_DELAY ?? 0) },
  websocket: {
    '/echo': { open: (socket) => void socket.send(String(process.pid)), message: (socket, message) => void socket.send(message) },
    '/room': {
      open: (socket) => { socket.subscribe('room'); socket.send(String(process.pid)); },
      message: (socket, message) => publish('room', message),
    },
  },
});
`;

interface Member {
  readonly wire: Wire;
  readonly pid: number;
}

async function member(port: number, path: string): Promise<Member> {
  const wire = await Wire.open(port, path);
  return { wire, pid: Number((await wire.frame())?.payload) };
}

/** At least `each` members on each of two workers. */
async function membersOnBoth(port: number, path: string, each: number): Promise<Member[]> {
  const all: Member[] = [];
  const byPid = new Map<number, number>();
  while (byPid.size < 2 || [...byPid.values()].some((count) => count < each)) {
    const next = await member(port, path);
    all.push(next);
    byPid.set(next.pid, (byPid.get(next.pid) ?? 0) + 1);
  }
  return all;
}

/** A gateway that it starts listens on ports that the system chooses. */
const ringway = (words: readonly string[], options: CommandOptions = {}) =>
  runCommand(words, { cwd: folder, ...options, env: { PORT: '0', ADMIN_PORT: '0' } });

forEachBackend('a worker that is killed', (backend) => {
  test('takes only its own sockets with it; a successor serves, and nobody writes to the dead', async () => {
    const gateway = await startGateway({ backend, workers: 2, config });
    const all = await membersOnBoth(gateway.port, '/room', 6);
    const victim = all[0]?.pid as number;
    const [doomed, others] = [all.filter(({ pid }) => pid === victim), all.filter(({ pid }) => pid !== victim)];
    const echoes = await membersOnBoth(gateway.port, '/echo', 4);
    const survivors = echoes.filter(({ pid }) => pid !== victim);

    // Load: every survivor echoes one message after the other while the kill happens.
    let running = true;
    let rounds = 0;
    const load = survivors.map(async ({ wire }, who) => {
      for (let i = 0; running; i++) {
        wire.write(frame(opcode.text, `${who}/${i}`));
        const answer = await wire.frame();
        if (String(answer?.payload) !== `${who}/${i}`) throw new Error(`survivor ${who} lost message ${i}: ${wire.ended}`);
        rounds += 1;
      }
    });
    await eventually('the load runs', () => rounds > 20);
    process.kill(victim, 'SIGKILL');
    for (const { wire } of [...doomed, ...echoes.filter(({ pid }) => pid === victim)]) await wire.untilEnded();
    const after = rounds;
    await eventually('the load goes on', () => rounds > after + 50);
    running = false;
    await Promise.all(load);
    for (const { wire } of [...others, ...survivors]) expect(wire.ended).toBeUndefined();

    // More than the ring between two workers holds: a publisher that waited for the dead one would stop here.
    const bulk = frame(opcode.binary, new Uint8Array(60_000));
    for (let i = 0; i < 100; i++) {
      others[0]?.wire.write(bulk);
      for (const { wire } of others) expect((await wire.frame())?.payload.length).toBe(60_000);
    }

    await eventually('a successor is ready', async () => {
      const pids = await gateway.workerPids();
      return pids.length === 2 && !pids.includes(victim) && (await gateway.metric('ringway_worker_up')) === 2;
    });
    expect(await gateway.metric('ringway_worker_restarts_total')).toBe(1);
    // The interest of the dead went with it: nothing is sent to a worker without subscribers.
    const toOthers = () => gateway.metric('ringway_bus_messages_total', { direction: 'out' });
    const sentBefore = await toOthers();
    for (let i = 0; i < 20; i++) {
      others[0]?.wire.write(frame(opcode.text, 'here only'));
      for (const { wire } of others) expect(String((await wire.frame())?.payload)).toBe('here only');
    }
    expect((await toOthers()) - sentBefore).toBe(0);
    const fresh = await membersOnBoth(gateway.port, '/room', 3);
    await eventually('all are subscribed', async () => (await gateway.metric('ringway_subscriptions')) === fresh.length + others.length);
    for (const speaker of [fresh[0], others[0], fresh.at(-1)]) {
      speaker?.wire.write(frame(opcode.text, 'together again'));
      for (const { wire } of [...others, ...fresh]) expect(String((await wire.frame())?.payload)).toBe('together again');
    }
    expect(gateway.output()).toMatch(/worker \d ended by signal SIGKILL; starting it again/);
    for (const { wire } of [...all, ...echoes, ...fresh]) wire.destroy();
    await gateway.stop();
  });
});

forEachBackend('SIGTERM', (backend) => {
  const isRefused = (port: number) =>
    new Promise<boolean>((resolve) => {
      const socket = connect({ port, host: '127.0.0.1' });
      socket.once('connect', () => {
        socket.destroy();
        resolve(false);
      });
      socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code === 'ECONNREFUSED'));
    });

  test('stops accepting, finishes requests, closes WebSockets with 1001 one after the other, and ends with 0', async () => {
    const file = join(folder, `release-${backend}`);
    const gateway = await startGateway({ backend, config, env: { RELEASE_FILE: file } });
    const sockets: Wire[] = [];
    for (let i = 0; i < 100; i++) sockets.push((await member(gateway.port, '/echo')).wire);
    const held = await Wire.connect(gateway.port);
    held.write('GET /held HTTP/1.1\r\nHost: localhost\r\n\r\n');
    const idle = await Wire.connect(gateway.port);
    idle.write('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n');
    await idle.head();
    await eventually('the requests are handled', async () => (await gateway.metric('ringway_http_requests_total')) >= 102);

    gateway.kill('SIGTERM');
    await eventually('new connections are refused', () => isRefused(gateway.port));
    expect((await fetch(`${gateway.adminUrl}/readyz`)).status).toBe(503);
    const closing = () => sockets.filter((wire) => wire.received.length > 0);
    await eventually('the first is closed', () => closing().length > 0);
    // The closes are spread over ten milliseconds for each socket.
    expect(closing().length).toBeLessThan(100);
    for (const wire of sockets) {
      expect(await wire.closeCode()).toBe(1001);
      wire.write(frame(opcode.close, closePayload(1001)));
      expect(await wire.untilEnded()).toBe('end');
    }
    expect((await idle.untilEnded()) && idle.ended).toBe('end');
    // The request is still in progress, so the gateway is, too.
    expect(isAlive(gateway.pid)).toBe(true);
    expect(held.ended).toBeUndefined();
    writeFileSync(file, '');
    expect(await held.head()).toMatch(/^HTTP\/1\.1 200 [\s\S]*\r\nConnection: close\r\n/i);
    expect(await held.untilEnded()).toBe('end');
    expect(String(held.received)).toBe('done');
    expect(await gateway.exited).toBe(0);
    expect(gateway.output()).toContain('"msg":"stopped"');
    await gateway.stop();
  });

  test('serves on for as long as drain.delay says, so that a balancer that asks /readyz is not ahead of it', async () => {
    const gateway = await startGateway({ backend, config, env: { DRAIN_DELAY: '3600' } });
    const { wire } = await member(gateway.port, '/echo');
    gateway.kill('SIGTERM');
    await eventually('it is not ready', async () => (await fetch(`${gateway.adminUrl}/readyz`)).status === 503);
    // Longer than it took to refuse without a delay.
    await Bun.sleep(300);
    const answer = await fetch(`http://127.0.0.1:${gateway.port}/`, { keepalive: false });
    expect([answer.status, answer.headers.get('connection'), await answer.text()]).toEqual([200, null, 'hello']);
    const { wire: late } = await member(gateway.port, '/echo');
    for (const each of [wire, late]) {
      each.write(frame(opcode.text, 'still here'));
      expect(String((await each.frame())?.payload)).toBe('still here');
    }
    // One more a second later is another wish.
    await Bun.sleep(1100);
    gateway.kill('SIGTERM');
    expect(await gateway.exited).toBe(143);
    expect(gateway.output()).toContain('serving on for 3600 s');
    await gateway.stop();
  });

  test('drains when drain.delay is over', async () => {
    const gateway = await startGateway({ backend, config, env: { DRAIN_DELAY: '1' } });
    const { wire } = await member(gateway.port, '/echo');
    gateway.kill('SIGTERM');
    expect(await wire.closeCode()).toBe(1001);
    wire.write(frame(opcode.close, closePayload(1001)));
    expect(await gateway.exited).toBe(0);
    expect(gateway.output()).toContain('"msg":"stopped"');
    await gateway.stop();
  });

  test('cuts off at the deadline what does not finish, says so, and ends with 0', async () => {
    const gateway = await startGateway({ backend, config, env: { RELEASE_FILE: join(folder, 'never'), DRAIN_SECONDS: '1' } });
    const held = await Wire.connect(gateway.port);
    held.write('GET /held HTTP/1.1\r\nHost: localhost\r\n\r\n');
    const { wire: silent } = await member(gateway.port, '/echo');
    await eventually('the request is handled', async () => (await gateway.metric('ringway_http_requests_total')) >= 2);
    gateway.kill('SIGTERM');
    expect(await silent.closeCode()).toBe(1001);
    expect(await gateway.exited).toBe(0);
    expect(gateway.output()).toContain('had connections left after 1 s');
    await held.untilEnded();
    expect(held.receivedBytes).toBe(0);
    await gateway.stop();
  });

  test('twice within a moment, as npm and a process group send it, is one wish', async () => {
    const gateway = await startGateway({ backend, config });
    const { wire } = await member(gateway.port, '/echo');
    gateway.kill('SIGTERM');
    gateway.kill('SIGTERM');
    gateway.kill('SIGINT');
    expect(await wire.closeCode()).toBe(1001);
    wire.write(frame(opcode.close, closePayload(1001)));
    expect(await gateway.exited).toBe(0);
    await gateway.stop();
  });
});

describe('the supervisor', () => {
  test('that is killed takes its workers with it', async () => {
    const gateway = await startGateway({ workers: 2, backend: 'epoll', config });
    const pids = await gateway.workerPids();
    expect(pids.every(isAlive)).toBe(true);
    gateway.kill('SIGKILL');
    await eventually('the workers are gone', () => !pids.some(isAlive));
    await gateway.stop();
  });

  test('reports a crash loop, slows it down, and says so in /healthz', async () => {
    const crashing = `
      import { defineGateway } from 'ringway';
      if (process.env.RINGWAY_WORKER?.includes('"index":1')) setTimeout(() => process.exit(3), 100);
      export default defineGateway({ $OPTIONS, fetch: () => new Response('hello') });
    `;
    const gateway = await startGateway({ workers: 2, backend: 'epoll', config: crashing });
    await eventually('the loop is reported', () => gateway.output().includes('has crashed 5 times in a row'), 60_000);
    expect(gateway.output()).toMatch(/worker 1 ended with code 3/);
    const health = (await (await fetch(`${gateway.adminUrl}/healthz`)).json()) as {
      status: string;
      workers: { state: string; restarts: number }[];
    };
    expect(health.status).toBe('degraded');
    expect(health.workers[0]).toMatchObject({ state: 'ready', restarts: 0 });
    expect(health.workers[1]?.restarts).toBeGreaterThanOrEqual(4);
    gateway.kill('SIGTERM');
    expect(await gateway.exited).toBe(0);
    await gateway.stop();
  });

  test('ends with 78 and every mistake of a bad config', async () => {
    const path = join(folder, 'bad.config.ts');
    writeFileSync(
      path,
      `import { defineGateway } from 'ringway';
       export default defineGateway({ listen: { port: 70000 }, workers: 0, io: { backend: 'kqueue' }, websocket: { 'chat': { idleTimout: 5 } } } as never);`,
    );
    const { exitCode: code, err } = await ringway(['start', '-c', path]);
    expect(code).toBe(78);
    for (const mistake of ['listen', 'workers', 'io.backend', 'websocket', 'chat']) expect(err).toContain(mistake);
    expect((await ringway(['check', '-c', path])).exitCode).toBe(78);
    expect((await ringway(['start', '-c', join(folder, 'missing.ts')])).exitCode).toBe(78);
  });

  test('ends with 1 and one sentence when its port is taken, for traffic and for admin', async () => {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', () => resolve()));
    const { port } = server.address() as { port: number };
    for (const [listen, admin] of [
      [port, 0],
      [0, port],
    ]) {
      const path = join(folder, `taken-${listen}.config.ts`);
      const text = `export default { listen: { port: ${listen}, host: '127.0.0.1' }, admin: { port: ${admin} }, workers: 1, fetch: () => new Response('x') };`;
      writeFileSync(path, text);
      const { exitCode: code, err, out } = await ringway(['start', '-c', path]);
      expect(code).toBe(1);
      expect(err + out).toContain(String(port));
      expect(err + out).toMatch(/in use|another|taken/i);
      expect(err).not.toMatch(/\n\s+at /);
    }
    server.close();
  });

  test('starts what `ringway init` writes, in an empty folder', async () => {
    const empty = mkdtempSync(join(folder, 'empty-'));
    const made = await ringway(['init'], { cwd: empty });
    expect(made).toMatchObject({ exitCode: 0, err: '' });
    expect(existsSync(join(empty, 'gateway.config.ts'))).toBe(true);
    // A second init does not overwrite what may have been edited.
    expect((await ringway(['init'], { cwd: empty })).exitCode).not.toBe(0);
    expect((await ringway(['check'], { cwd: empty })).exitCode).toBe(0);
    const child = Bun.spawn([process.execPath, join(root, 'src', 'main.ts'), 'start', '--workers', '1'], {
      cwd: empty,
      env: { ...process.env, PORT: '0', ADMIN_PORT: '0' },
      stdout: 'pipe',
      stderr: 'inherit',
    });
    let output = '';
    void (async () => {
      for await (const chunk of child.stdout) output += new TextDecoder().decode(chunk);
    })();
    const port = await eventually('it listens', () => /listening on \S*?:(\d+)\b(?:\/| )/.exec(output)?.[1]);
    expect((await fetch(`http://127.0.0.1:${port}/`)).status).toBe(200);
    child.kill('SIGTERM');
    expect(await child.exited).toBe(0);
  });
});

describe('where io_uring is forbidden', () => {
  async function wrapper(): Promise<string> {
    const path = join(folder, 'no-io-uring');
    if (existsSync(path)) return path;
    const compiler = Bun.spawn([process.env.CC ?? 'cc', '-O1', '-o', path, join(import.meta.dir, 'no-io-uring.c')], { stderr: 'pipe' });
    const problem = await new Response(compiler.stderr).text();
    if ((await compiler.exited) !== 0) throw new Error(`the compiler that builds the core cannot build this: ${problem}`);
    return path;
  }
  const choosing = (backend: 'auto' | Backend) => config.replace('$OPTIONS,', `...{ $OPTIONS }, io: { backend: '${backend}' },`);

  test('epoll is taken by itself, and the log, /healthz and a metric say so', async () => {
    const gateway = await startGateway({ workers: 2, config: choosing('auto'), wrapper: [await wrapper()] });
    expect(gateway.output()).toMatch(/\(2 workers, epoll\)/);
    await eventually('the log says why', () => /"level":"warn"[^\n]*io_uring[^\n]*(seccomp|forbid|not permitted)/i.test(gateway.output()));
    const health = (await (await fetch(`${gateway.adminUrl}/healthz`)).json()) as {
      status: string;
      workers: { backend: string; note: string }[];
    };
    expect(health.status).toBe('ok');
    for (const worker of health.workers) {
      expect(worker.backend).toBe('epoll');
      expect(worker.note).toContain('io_uring');
    }
    expect(await gateway.metric('ringway_io_backend_info', { backend: 'epoll' })).toBe(2);
    expect(await gateway.metric('ringway_io_backend_info', { backend: 'io_uring' })).toBe(0);
    const { wire } = await member(gateway.port, '/echo');
    wire.write(frame(opcode.text, 'all the same'));
    expect(String((await wire.frame())?.payload)).toBe('all the same');
    wire.destroy();
    await gateway.stop();
  });

  test('a config that insists on io_uring is refused with the cause', async () => {
    const path = join(folder, 'insists.config.ts');
    writeFileSync(path, choosing('io_uring').replace('$OPTIONS', `listen: { port: 0, host: '127.0.0.1' }, admin: { port: 0 }, workers: 1`));
    const child = Bun.spawn([await wrapper(), process.execPath, join(root, 'src', 'main.ts'), 'start', '-c', path], {
      stdout: 'pipe',
      stderr: 'pipe',
    });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) {
      void (async () => {
        for await (const chunk of stream) output += new TextDecoder().decode(chunk);
      })();
    }
    await eventually('the cause is named', () => /io_uring[^\n]*(seccomp|forbid|not permitted)/i.test(output));
    child.kill('SIGKILL');
    await child.exited;
  });
});
