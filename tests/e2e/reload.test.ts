import { afterEach, describe, expect, setDefaultTimeout, test } from 'bun:test';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { NodeHealth } from '../../src/supervisor/health.ts';
import { createAuthority } from '../support/certificates.ts';
import { eventually } from '../support/eventually.ts';
import { closePayload, frame, opcode } from '../support/frames.mjs';
import { freePort } from '../support/free-port.ts';
import { type Backend, forEachBackend, type Gateway, startGateway } from '../support/gateway.ts';
import { RawClient } from '../support/raw-client.ts';
import type { ClientOptions } from '../support/reload-client.ts';
import { expectWhole, type Load, startLoad } from '../support/reload-load.ts';
import { ringway } from '../support/ringway-command.ts';
import { Wire } from '../support/wire.ts';

// Only ends a test that has failed: nothing here is measured in time.
setDefaultTimeout(180_000);

const root = join(import.meta.dir, '..', '..');

/** The addresses and numbers lie in settings.ts, an answer in answer.ts: both can be written anew. */
const config = `
import { Hono } from 'hono';
import { defineGateway, publish } from 'ringway';
import { answer } from './answer.ts';
import { settings } from './settings.ts';
const app = new Hono();
app.get('/', (c) => c.text(answer));
app.get('/listener', (c) => c.text(String(c.env.listener)));
app.get('/held', async (c) => {
  while (!(await Bun.file(new URL('release', import.meta.url)).exists())) await Bun.sleep(10);
  return c.text('done by ' + answer);
});
app.post('/publish', async (c) => { publish('news', await c.req.text()); return c.text('published by ' + process.pid); });
export default defineGateway({
  ...settings,
  fetch: app,
  websocket: {
    '/echo': { message: (socket, message) => void socket.send(message) },
    '/news': { open: (socket) => { socket.subscribe('news'); socket.send(String(process.pid)); } },
  },
});
`;

interface Settings {
  readonly workers?: number;
  readonly listen?: unknown;
  readonly drainSeconds?: number;
  readonly closeCode?: number;
  readonly backend?: Backend;
}

function settingsText({
  workers = 2,
  listen = { port: 0, host: '127.0.0.1' },
  drainSeconds = 3,
  closeCode = 1001,
  backend = 'epoll',
}: Settings): string {
  const settings = { listen, admin: { port: 0 }, workers, io: { backend }, affinity: false, drain: { timeout: drainSeconds, closeCode } };
  return `export const settings = ${JSON.stringify(settings)} as const;`;
}
const answerText = (answer: string) => `export const answer = '${answer}';`;

let gateway: Gateway | undefined;
let clients: Load[] = [];
afterEach(async () => {
  for (const client of clients) client.kill();
  clients = [];
  await gateway?.stop();
  gateway = undefined;
});

async function start(settings: Settings): Promise<Gateway> {
  gateway = await startGateway({ config, files: { 'settings.ts': settingsText(settings), 'answer.ts': answerText('one') } });
  return gateway;
}
function write(running: Gateway, name: 'settings.ts' | 'answer.ts' | 'release', text: string): void {
  writeFileSync(join(running.folder, name), text);
}
const health = async (running: Gateway) => (await (await fetch(`${running.adminUrl}/healthz`)).json()) as NodeHealth;

/** Run the command to its end. */
const reload = (running: Gateway) => ringway(['reload', '--admin', String(running.adminPort)]);
/** On a connection of its own, so that it comes to those who accept now. */
async function ask(port: number, path = '/'): Promise<string> {
  const client = await RawClient.connect({ port });
  const { text } = await client.exchange(`GET ${path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`);
  client.destroy();
  return text;
}
const oldOnesGone = (running: Gateway) =>
  eventually('the old workers have stopped', async () => (await health(running)).draining.length === 0, 60_000);
const isRefused = (port: number) =>
  new Promise<boolean>((resolve) => {
    const socket = connect({ port, host: '127.0.0.1' });
    socket.once('connect', () => {
      socket.destroy();
      resolve(false);
    });
    socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code === 'ECONNREFUSED'));
  });

async function loadOn(options: ClientOptions): Promise<Load> {
  const load = await startLoad(options);
  clients.push(load);
  return load;
}

forEachBackend('a reload', (backend) => {
  test('serves what the config and the modules that it imports say now; what is in progress ends as it began', async () => {
    const running = await start({ backend, drainSeconds: 60 });
    const { port } = running;
    const held = await RawClient.connect({ port });
    held.write('GET /held HTTP/1.1\r\nHost: localhost\r\n\r\n');
    const idle = await RawClient.connect({ port });
    await idle.exchange('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n');
    await eventually('the requests are there', async () => (await running.metric('ringway_http_requests_total')) === 2);

    write(running, 'answer.ts', answerText('two'));
    expect(await ask(port)).toBe('one');
    expect(await reload(running)).toEqual({
      exitCode: 0,
      out: 'reloaded: generation 2 serves; older workers finish what is in progress\n',
      err: '',
    });
    expect(await ask(port)).toBe('two');
    // Whoever has an open connection may go on with it, and is told that it ends.
    const last = await idle.exchange('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n');
    expect([last.text, last.headers.connection]).toEqual(['one', 'close']);
    await idle.closed();
    write(running, 'release', '');
    const late = await held.response();
    expect([late.text, late.headers.connection]).toEqual(['done by one', 'close']);
    await oldOnesGone(running);

    write(running, 'settings.ts', settingsText({ backend, workers: 1 }));
    expect((await reload(running)).exitCode).toBe(0);
    expect(await running.workerPids()).toHaveLength(1);
    running.kill('SIGTERM');
    expect(await running.exited).toBe(0);
  });

  test('under load loses nothing: no connection refused or reset, no response lost, WebSockets are told 1001', async () => {
    const running = await start({ backend, workers: 2, drainSeconds: 2 });
    const load = await loadOn({ port: running.port, keepAlive: 20, openEveryMs: 5, webSockets: 40, echoEveryMs: 20 });
    await eventually('all are there', async () => (await running.metric('ringway_connections', { protocol: 'websocket' })) >= 40);
    for (const [index, workers] of [3, 1, 2].entries()) {
      write(running, 'settings.ts', settingsText({ backend, workers, drainSeconds: 2 }));
      write(running, 'answer.ts', answerText(`answer ${index}`));
      expect((await reload(running)).exitCode).toBe(0);
      await oldOnesGone(running);
    }
    const before = await running.metric('ringway_node_http_requests_total');
    await eventually('the load goes on', async () => (await running.metric('ringway_node_http_requests_total')) > before + 50);
    const tally = await load.stop();
    expectWhole(tally);
    expect(Object.keys(tally.bodies).sort()).toEqual(['answer 0', 'answer 1', 'answer 2', 'one']);
    // Each was closed properly three times, except those that had just come back when the next reload began.
    expect(Object.keys(tally.closes)).toEqual(['1001']);
    expect(tally.closes['1001']).toBeGreaterThanOrEqual(80);
    expect(tally.announcedCloses).toBeGreaterThanOrEqual(20);
    expect(running.output()).not.toContain('cut off');
    running.kill('SIGTERM');
    expect(await running.exited).toBe(0);
  });

  test('closes WebSockets one after the other, not all at once, with the code that the config says', async () => {
    const running = await start({ backend, workers: 1, drainSeconds: 60, closeCode: 1012 });
    const sockets = await Promise.all(Array.from({ length: 300 }, () => Wire.open(running.port, '/echo')));
    expect((await reload(running)).exitCode).toBe(0);
    const closed = () => sockets.filter((wire) => wire.received.length > 0 || wire.ended !== undefined);
    await eventually('the first is closed', () => closed().length > 0);
    // Ten milliseconds for each.
    expect(closed().length).toBeLessThan(300);
    for (const wire of sockets) {
      expect(await wire.closeCode()).toBe(1012);
      wire.write(frame(opcode.close, closePayload(1012)));
    }
    await oldOnesGone(running);
  });

  test('brings what is published to subscribers of both generations while the old one drains', async () => {
    const running = await start({ backend, workers: 2, drainSeconds: 60 });
    const subscribe = async () => {
      const wire = await Wire.open(running.port, '/news');
      return { wire, pid: Number((await wire.frame())?.payload) };
    };
    const says = async (client: RawClient, text: string) => {
      const head = `POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: ${text.length}\r\n\r\n`;
      return Number((await client.exchange(head + text)).text.replace('published by ', ''));
    };
    // So many that the closes, one in ten milliseconds, leave time to publish.
    const old = await Promise.all(Array.from({ length: 600 }, subscribe));
    const oldSpeakers = await Promise.all(Array.from({ length: 5 }, () => RawClient.connect({ port: running.port })));
    for (const speaker of oldSpeakers) await speaker.exchange('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n');
    const oldPids = await running.workerPids();
    expect((await reload(running)).exitCode).toBe(0);
    const fresh = await Promise.all(Array.from({ length: 8 }, subscribe));
    const pids = await running.workerPids();
    expect(new Set(old.map(({ pid }) => pid))).toEqual(new Set(oldPids));
    expect(fresh.every(({ pid }) => pids.includes(pid))).toBe(true);

    // Old workers are published through as well as new ones.
    for (const [number, speaker] of oldSpeakers.entries()) expect(oldPids).toContain(await says(speaker, `old ${number}`));
    const speaker = await RawClient.connect({ port: running.port });
    for (let number = 0; number < 20; number++) expect(pids).toContain(await says(speaker, `new ${number}`));
    const all = [...oldSpeakers.map((_, number) => `old ${number}`), ...Array.from({ length: 20 }, (_, number) => `new ${number}`)];
    for (const { wire } of fresh) {
      const heard = [];
      while (heard.length < all.length) heard.push(String((await wire.frame())?.payload));
      expect(heard.toSorted()).toEqual(all.toSorted());
      expect(heard.filter((text) => text.startsWith('new'))).toEqual(all.filter((text) => text.startsWith('new')));
    }
    // An old one gets what comes until its close, in order and without a gap.
    let total = 0;
    for (const { wire } of old) {
      const heard: string[] = [];
      for (let next = await wire.frame(); next?.opcode !== opcode.close; next = await wire.frame()) heard.push(String(next?.payload));
      const fromNew = heard.filter((text) => text.startsWith('new'));
      expect(fromNew).toEqual(fromNew.map((_, number) => `new ${number}`));
      expect(new Set(heard).size).toBe(heard.length);
      total += fromNew.length;
      wire.write(frame(opcode.close, closePayload(1001)));
    }
    expect(total).toBeGreaterThan(0);
    await oldOnesGone(running);
    await says(speaker, 'after');
    for (const { wire } of fresh) {
      expect(String((await wire.frame())?.payload)).toBe('after');
      wire.destroy();
    }
    for (const client of [...oldSpeakers, speaker]) client.destroy();
  });
});

describe('ringway reload', () => {
  test('of a wrong config ends with 78 and every mistake, and nothing changes', async () => {
    const running = await start({});
    const before = await running.workerPids();
    for (const [file, text, mistakes] of [
      ['settings.ts', 'export const settings = { workers: 0, listen: { port: 70000 } } as never;', ['workers', 'listen.port']],
      ['answer.ts', 'export const answer = ;', ['answer.ts', 'syntax error']],
      ['answer.ts', "export const answer = 'none';\nthrow new Error('the database is away');", ['the database is away']],
    ] as const) {
      const sound = file === 'answer.ts' ? answerText('one') : settingsText({});
      write(running, file, text);
      const { exitCode: code, out, err } = await reload(running);
      expect([code, out]).toEqual([78, '']);
      for (const mistake of mistakes) expect(err).toContain(mistake);
      expect(running.output()).toContain(mistakes.at(-1) as string);
      expect([await running.workerPids(), await ask(running.port)]).toEqual([before, 'one']);
      write(running, file, sound);
    }
    expect((await health(running)).reload).toMatchObject({ requests: 3, isRunning: false, last: { kind: 'wrong config' } });
    expect((await reload(running)).exitCode).toBe(0);
  });

  test('ends with 1 when workers cannot start or an address is taken, and nothing changes', async () => {
    const running = await start({});
    const before = await running.workerPids();
    write(running, 'answer.ts', "if (process.env.RINGWAY_WORKER) process.exit(9);\nexport const answer = 'two';");
    const crashed = await reload(running);
    expect([crashed.exitCode, crashed.err]).toEqual([1, expect.stringContaining('a new worker ended with code 9 before it was ready')]);
    write(running, 'answer.ts', answerText('two'));
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', () => resolve()));
    const { port } = server.address() as { port: number };
    write(
      running,
      'settings.ts',
      settingsText({
        listen: [
          { port: 0, host: '127.0.0.1' },
          { port, host: '127.0.0.1' },
        ],
      }),
    );
    const taken = await reload(running);
    expect([taken.exitCode, taken.err]).toEqual([1, expect.stringContaining(`127.0.0.1:${port}: another process listens there already`)]);
    expect([await running.workerPids(), await ask(running.port)]).toEqual([before, 'one']);
    await new Promise<void>((resolve) => server.close(() => resolve()));
    expect((await reload(running)).exitCode).toBe(0);
    expect([await ask(running.port), await ask(port)]).toEqual(['two', 'two']);
  });

  test('says why when there is no gateway, or the process is none', async () => {
    const port = freePort();
    const nobody = await ringway(['reload', '--admin', String(port)]);
    expect([nobody.exitCode, nobody.err]).toEqual([1, expect.stringContaining(`no gateway can be reached at http://127.0.0.1:${port}`)]);
    // SIGHUP would end it: it must not get it.
    const other = Bun.spawn(['sleep', '60']);
    const wrong = await ringway(['reload', '--admin', String(port), '--pid', String(other.pid)]);
    expect([wrong.exitCode, wrong.err]).toEqual([1, expect.stringContaining(`process ${other.pid} here is no gateway`)]);
    expect(other.killed).toBe(false);
    other.kill('SIGKILL');
    await other.exited;
    const gone = await ringway(['reload', '--admin', String(port), '--pid', String(other.pid)]);
    expect([gone.exitCode, gone.err]).toEqual([1, expect.stringContaining('there is no such process here')]);
    expect((await ringway(['reload', '--pid', 'me'])).exitCode).toBe(64);
  });

  test('by number alone asks a gateway whose admin listener is elsewhere', async () => {
    const running = await start({});
    const { exitCode: code, out } = await ringway(['reload', '--admin', String(freePort()), '--pid', String(running.pid)]);
    expect([code, out]).toEqual([0, expect.stringContaining(`process ${running.pid} was asked to reload`)]);
    await eventually('it has reloaded', async () => (await health(running)).generation === 2);
  });
});

describe('a reload', () => {
  test('adds and removes addresses, of TCP and of Unix; who waits at one that goes is still served', async () => {
    const running = await start({});
    const { port, folder } = running;
    const second = freePort();
    const path = join(folder, 'gateway.sock');
    const first = { port: 0, host: '127.0.0.1' };
    const load = await loadOn({ port, keepAlive: 4, openEveryMs: 10, webSockets: 0, echoEveryMs: 20 });
    write(running, 'settings.ts', settingsText({ listen: [first, { port: second, host: '127.0.0.1' }, { unix: path }] }));
    expect((await reload(running)).exitCode).toBe(0);
    expect([await ask(port, '/listener'), await ask(second, '/listener')]).toEqual(['0', '1']);
    const local = await RawClient.connect({ path });
    expect((await local.exchange('GET /listener HTTP/1.1\r\nHost: localhost\r\n\r\n')).text).toBe('2');
    local.destroy();

    write(running, 'settings.ts', settingsText({ listen: [first] }));
    expect((await reload(running)).exitCode).toBe(0);
    await eventually('the address is gone', () => isRefused(second));
    expect(existsSync(path)).toBe(false);
    expect(await ask(port)).toBe('one');
    expectWhole(await load.stop());
    await oldOnesGone(running);
  });

  test('from many workers to one and back serves every socket there is, with TLS too', async () => {
    const authority = createAuthority('Reloads');
    const files = authority.filesOf(authority.issue('localhost', 'DNS:localhost,IP:127.0.0.1'));
    const listen = [
      { port: 0, host: '127.0.0.1' },
      { port: 0, host: '127.0.0.1', tls: files },
    ];
    const running = await start({ workers: 4, listen });
    // A line for each address, and the first is enough for a gateway to count as started.
    const secure = await eventually('it says where it speaks TLS', () => /https:\/\/127\.0\.0\.1:(\d+)/.exec(running.output())?.[1]);
    const askSecurely = async () => {
      const url = `https://127.0.0.1:${secure}/listener`;
      return (await fetch(url, { headers: { connection: 'close' }, tls: { ca: authority.cert } })).text();
    };
    for (const workers of [1, 3, 1]) {
      write(running, 'settings.ts', settingsText({ workers, listen }));
      expect((await reload(running)).exitCode).toBe(0);
      await oldOnesGone(running);
      // The kernel chooses one of four sockets by the client's port: one that nobody serves would be met.
      const answers = await Promise.all(Array.from({ length: 64 }, () => ask(running.port, '/listener')));
      expect(new Set(answers)).toEqual(new Set(['0']));
      const secret = await Promise.all(Array.from({ length: 32 }, askSecurely));
      expect(new Set(secret)).toEqual(new Set(['1']));
    }
    authority.dispose();
  });

  test('asked for by SIGHUP to the launcher is handed on', async () => {
    const path = join(mkdtempSync(join(tmpdir(), 'ringway-launcher-')), 'gateway.config.ts');
    const text = `export default { listen: { port: 0, host: '127.0.0.1' }, admin: { port: 0 }, workers: 1, fetch: () => new Response('x') };`;
    writeFileSync(path, text);
    const child = Bun.spawn(['node', join(root, 'bin', 'ringway.mjs'), 'start', '-c', path], { stdout: 'pipe' });
    let output = '';
    void (async () => {
      for await (const chunk of child.stdout) output += new TextDecoder().decode(chunk);
    })();
    const admin = await eventually('it listens', () => /admin (http:\S+?)"/.exec(output)?.[1]);
    child.kill('SIGHUP');
    await eventually('it has reloaded', async () => ((await (await fetch(`${admin}/healthz`)).json()) as NodeHealth).generation === 2);
    const done = await ringway(['reload', '--admin', admin]);
    expect([done.exitCode, done.out]).toEqual([0, expect.stringContaining('generation 3 serves')]);
    child.kill('SIGTERM');
    expect(await child.exited).toBe(0);
    rmSync(dirname(path), { recursive: true });
  });

  test('asked for three times in a row while the first still drain lets all of them finish', async () => {
    const running = await start({ drainSeconds: 60 });
    const held = await RawClient.connect({ port: running.port });
    held.write('GET /held HTTP/1.1\r\nHost: localhost\r\n\r\n');
    await eventually('the request is there', async () => (await running.metric('ringway_http_requests_total')) === 1);
    for (const generation of [2, 3, 4]) {
      expect((await reload(running)).out).toContain(`generation ${generation} serves`);
      expect((await fetch(`${running.adminUrl}/readyz`)).status).toBe(200);
    }
    expect((await health(running)).draining.map(({ generation }) => generation)).toContain(1);
    write(running, 'release', '');
    expect((await held.response()).text).toBe('done by one');
    await oldOnesGone(running);
  });

  test('asked for by a storm of signals loses nothing either', async () => {
    const running = await start({ drainSeconds: 2 });
    const load = await loadOn({ port: running.port, keepAlive: 5, openEveryMs: 10, webSockets: 5, echoEveryMs: 20 });
    for (let i = 0; i < 40; i++) {
      running.kill('SIGHUP');
      await Bun.sleep(i % 4 === 0 ? 50 : 1);
    }
    await eventually('all are answered', async () => {
      const { reload: seen } = await health(running);
      return !seen.isRunning && seen.last?.request === seen.requests && seen.requests > 1;
    });
    // Far fewer generations than signals: those that came while one was running had one together.
    expect((await health(running)).generation).toBeLessThan(40);
    expectWhole(await load.stop());
    running.kill('SIGTERM');
    expect(await running.exited).toBe(0);
  });

  test('and then SIGTERM drains every generation', async () => {
    const running = await start({ drainSeconds: 30 });
    const held = await RawClient.connect({ port: running.port });
    held.write('GET /held HTTP/1.1\r\nHost: localhost\r\n\r\n');
    await eventually('the request is there', async () => (await running.metric('ringway_http_requests_total')) === 1);
    expect((await reload(running)).exitCode).toBe(0);
    const socket = await Wire.open(running.port, '/echo');
    running.kill('SIGTERM');
    expect(await socket.closeCode()).toBe(1001);
    socket.write(frame(opcode.close, closePayload(1001)));
    write(running, 'release', '');
    expect((await held.response()).text).toBe('done by one');
    expect(await running.exited).toBe(0);
  });

  test('moves the admin listener', async () => {
    const running = await start({});
    const port = freePort();
    write(running, 'settings.ts', settingsText({}).replace('"admin":{"port":0}', `"admin":{"port":${port}}`));
    expect((await reload(running)).exitCode).toBe(0);
    expect(((await (await fetch(`http://127.0.0.1:${port}/healthz`)).json()) as NodeHealth).generation).toBe(2);
  });
});
