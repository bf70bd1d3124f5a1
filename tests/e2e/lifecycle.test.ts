/** The life of workers as a config sees it: onStart, onStop, onOneWorker, worker.index; and what a socket knows of itself. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { eventually } from '../support/eventually.ts';
import { handshake } from '../support/frames.mjs';
import { forEachBackend, type Gateway, startGateway } from '../support/gateway.ts';
import { isAlive } from '../support/process-state.ts';
import { Wire } from '../support/wire.ts';

/** Each line of the file `events` beside the config: what happened, and in which process. */
const config = `
  import { appendFileSync } from 'node:fs';
  import { defineGateway, onOneWorker, worker } from 'ringway';
  const note = (event) => appendFileSync(new URL('events', import.meta.url), event + ' ' + process.pid + '\\n');
  let isStarted = false;
  onOneWorker(async () => {
    note('begin');
    return async () => {
      // Longer than a worker without connections takes to drain.
      await new Promise((resolve) => setTimeout(resolve, 300));
      note('cleanup');
    };
  });
  onOneWorker(() => { throw new Error('of one task alone'); });
  export default defineGateway({ $OPTIONS,
    async onStart(own) {
      await new Promise((resolve) => setTimeout(resolve, 50));
      isStarted = own.index === worker.index && own.index >= 0;
      note('start');
    },
    async onStop() {
      await new Promise((resolve) => setTimeout(resolve, 50));
      note('stop');
    },
    fetch: () => Response.json({ isStarted, index: worker.index, pid: process.pid }),
  });
`;

class Events {
  readonly #path: string;
  constructor(gateway: Gateway) {
    this.#path = join(gateway.folder, 'events');
  }

  all(): string[] {
    try {
      return readFileSync(this.#path, 'utf8').trim().split('\n');
    } catch {
      return [];
    }
  }

  of(event: string): number[] {
    return this.all().flatMap((line) => (line.startsWith(`${event} `) ? [Number(line.split(' ')[1])] : []));
  }

  async count(event: string, count: number): Promise<number[]> {
    return eventually(`${count} times ${event}`, () => (this.of(event).length >= count ? this.of(event) : undefined));
  }
}

test('onStart is over before a connection is accepted, onStop before a worker ends; one worker alone does what is for one', async () => {
  const gateway = await startGateway({ config, workers: 2 });
  const events = new Events(gateway);
  try {
    expect(await (await fetch(gateway.url)).json()).toMatchObject({ isStarted: true });
    expect((await events.count('start', 2)).length).toBe(2);
    const [first = 0] = await events.count('begin', 1);
    expect(await gateway.workerPids()).toContain(first);
    await eventually('a task that throws is told of', () => gateway.output().includes('of one task alone'));

    process.kill(first, 'SIGKILL');
    const [, second = 0] = await events.count('begin', 2);
    expect(second).not.toBe(first);
    expect(events.of('cleanup')).toEqual([]);

    // A reload: those before let go before another one begins.
    gateway.kill('SIGHUP');
    const [, , third = 0] = await events.count('begin', 3);
    expect(events.of('cleanup')).toEqual([second]);
    const lines = events.all();
    expect(lines.indexOf(`cleanup ${second}`)).toBeLessThan(lines.indexOf(`begin ${third}`));
    await events.count('stop', 2);
    expect(events.all().indexOf(`cleanup ${second}`)).toBeLessThan(events.all().indexOf(`stop ${second}`));
    expect(await gateway.workerPids()).toContain(third);

    gateway.kill('SIGTERM');
    expect(await gateway.exited).toBe(0);
    expect(events.of('cleanup')).toEqual([second, third]);
    expect(events.of('stop')).toHaveLength(4);
    expect(events.of('begin')).toHaveLength(3);
    for (const pid of events.of('start')) expect(isAlive(pid)).toBe(false);
  } finally {
    await gateway.stop();
  }
});

test('what is for one worker and never comes to an end holds up neither a drain nor the next worker, and never runs twice at a time', async () => {
  const endless = `
    import { appendFileSync } from 'node:fs';
    import { defineGateway, onOneWorker } from 'ringway';
    const note = (event) => appendFileSync(new URL('events', import.meta.url), event + ' ' + process.pid + '\\n');
    onOneWorker(async () => {
      note('begin');
      for (;;) { await Bun.sleep(5); note('works'); }
    });
    export default defineGateway({ $OPTIONS, drain: { timeout: 300 }, fetch: () => new Response('served') });`;
  const gateway = await startGateway({ config: endless, workers: 2 });
  const events = new Events(gateway);
  try {
    for (let reload = 1; reload <= 3; reload++) {
      await events.count('begin', reload);
      gateway.kill('SIGHUP');
      // While it is under way.
      if (reload === 2) process.kill(events.of('begin').at(-1) ?? 0, 'SIGKILL');
    }
    await events.count('begin', 4);
    // Whoever has been succeeded is not heard of again.
    const pids = events.all().map((line) => line.split(' ')[1]);
    expect(pids.filter((pid, at) => pid !== pids[at - 1])).toEqual([...new Set(pids)]);
    gateway.kill('SIGTERM');
    expect(await gateway.exited).toBe(0);
  } finally {
    await gateway.stop();
  }
});

test('a worker whose onStart throws does not serve, says why, and is started again; a reload to it changes nothing', async () => {
  const failing = `import { existsSync } from 'node:fs'; import { defineGateway } from 'ringway';
    export default defineGateway({ $OPTIONS,
      onStart() { if (existsSync(new URL('broken', import.meta.url))) throw new Error('no database'); },
      fetch: () => new Response('served') });`;
  const gateway = await startGateway({ config: failing });
  try {
    await Bun.write(join(gateway.folder, 'broken'), '');
    gateway.kill('SIGHUP');
    await eventually('the reload fails', () => gateway.output().includes('no database'));
    expect(await (await fetch(gateway.url)).text()).toBe('served');
  } finally {
    await gateway.stop();
  }
});

forEachBackend('a socket', (backend) => {
  let gateway: Gateway;
  beforeAll(async () => {
    gateway = await startGateway({
      backend,
      config: `
        import { defineGateway, publishJson } from 'ringway';
        export default defineGateway({ $OPTIONS, websocket: {
          '/id': { open: (socket) => { socket.sendJson({ id: socket.id, again: socket.id, wrong: refusal(() => socket.sendJson(undefined)), object: refusal(() => socket.send({ a: 1 })) }); } },
          '/json': { open: (socket) => { socket.subscribe('t'); publishJson('t', { to: 'all' }); } },
          '/headers': { upgrade(_, client) { client.responseHeaders.append('set-cookie', 'a=1; HttpOnly'); client.responseHeaders.append('set-cookie', 'b=2'); client.responseHeaders.set('x-mine', 'yes'); return {}; } },
          '/later': { async upgrade(_, client) { await Promise.resolve(); client.responseHeaders.set('x-mine', 'later'); return {}; } },
          '/own': { upgrade(_, client) { client.responseHeaders.set('sec-websocket-accept', 'x'); return {}; } },
        } });
        function refusal(run) { try { run(); return 'none'; } catch (error) { return error.code + ': ' + error.message; } }`,
    });
  });
  afterAll(() => gateway.stop());

  const first = (path: string) =>
    new Promise<Record<string, string>>((resolve, reject) => {
      const socket = new WebSocket(gateway.wsUrl + path);
      socket.onerror = reject;
      socket.onmessage = ({ data }) => {
        resolve(JSON.parse(data));
        socket.close();
      };
    });

  test('has an id of its own, and sends JSON', async () => {
    const [one, other] = [await first('/id'), await first('/id')];
    expect(one.id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    expect(one.again).toBe(one.id as string);
    expect(other.id).not.toBe(one.id as string);
    expect(one.wrong).toBe('RW_INVALID_ARGUMENT: JSON cannot say undefined');
    expect(one.object).toContain('for a value as JSON write sendJson(value) or publishJson(topic, value)');
    expect(await first('/json')).toEqual({ to: 'all' });
  });

  /** The head of the answer to a handshake, in lower case. */
  async function answer(path: string): Promise<string> {
    const wire = await Wire.connect(gateway.port);
    wire.write(handshake(path));
    const head = await wire.head();
    wire.destroy();
    return head.toLowerCase();
  }

  test('headers of its own go out with the 101', async () => {
    const head = await answer('/headers');
    expect(head).toStartWith('http/1.1 101 ');
    for (const line of ['set-cookie: a=1; httponly\r\n', 'set-cookie: b=2\r\n', 'x-mine: yes\r\n']) expect(head).toContain(line);
    expect(await answer('/later')).toContain('x-mine: later\r\n');
  });

  test('but those of the handshake itself are refused, and told of', async () => {
    expect(await answer('/own')).toStartWith('http/1.1 500 ');
    await eventually('it is told of', () => gateway.output().includes('the header sec-websocket-accept is one of the handshake'));
  });
});

describe('outside of workers', () => {
  test('ringway check runs none of it', async () => {
    const { ringway } = await import('../support/ringway-command.ts');
    const { mkdtempSync, rmSync, writeFileSync } = await import('node:fs');
    const { tmpdir } = await import('node:os');
    const folder = mkdtempSync(join(tmpdir(), 'ringway-life-'));
    writeFileSync(
      join(folder, 'gateway.config.ts'),
      `import { defineGateway, onOneWorker, worker } from 'ringway';
       onOneWorker(() => console.log('begun'));
       console.log('index', worker.index);
       export default defineGateway({ onStart: () => console.log('started'), fetch: () => new Response() });`,
    );
    const { exitCode, out } = await ringway(['check'], { cwd: folder });
    expect(exitCode).toBe(0);
    expect(out).toContain('index -1');
    expect(out).not.toContain('begun');
    expect(out).not.toContain('started');
    writeFileSync(join(folder, 'gateway.config.ts'), `export default { onStart: 5, fetch: () => new Response() };`);
    expect((await ringway(['check'], { cwd: folder })).err).toContain('onStart: is 5; write a function, such as async () => { ... }');
    rmSync(folder, { recursive: true, force: true });
  });
});
