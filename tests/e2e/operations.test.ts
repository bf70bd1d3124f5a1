/**
 * The admin listener and the commands that talk to it, on real gateways: where they find it, what they print, how they end; and that
 * /openapi.json describes just what is answered.
 */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { healthSchema, readySchema } from '../../src/supervisor/admin-schemas.ts';
import { eventually } from '../support/eventually.ts';
import { RawClient } from '../support/raw-client.ts';
import { startRedis } from '../support/redis-servers.ts';
import { type Operated, ringway, startOperated, startRingway } from '../support/ringway-command.ts';

// Only ends a test that has failed: nothing here is measured in time.
setDefaultTimeout(90_000);

const config = `
import { existsSync } from 'node:fs';
import { defineGateway } from 'ringway';
const flag = (name) => existsSync(new URL(name, import.meta.url));
// In a new worker alone: the config is in order for whoever reads it.
if (process.env.RINGWAY_WORKER !== undefined && flag('fails')) process.exit(3);
if (process.env.RINGWAY_WORKER !== undefined && flag('slow')) await Bun.sleep(12_000);
export default defineGateway({
  $OPTIONS,
  io: { backend: 'auto' },
  drain: { timeout: 20 },
  ...(flag('wrong') ? { listen: 'nowhere at all' } : {}),
  fetch: async (request) => {
    // Until its client leaves.
    if (new URL(request.url).pathname === '/slow') await new Promise((resolve) => request.signal.addEventListener('abort', resolve));
    return new Response('ok');
  },
  topics: { kept: { history: { size: 1, seconds: 60 }, presence: true } },
  websocket: { '/join/:topic': { open(socket) { socket.subscribe(socket.params.topic); socket.send('joined'); } } },
});
`;

/** A client of '/join/:topic' that keeps what it gets: text as it is, bytes in hexadecimal behind '0x'. */
async function subscriber(gateway: Operated, topic: string): Promise<string[]> {
  const socket = new WebSocket(`${gateway.wsUrl}/join/${topic}`);
  socket.binaryType = 'arraybuffer';
  const got: string[] = [];
  socket.addEventListener('message', ({ data }) => {
    got.push(typeof data === 'string' ? data : `0x${Buffer.from(data as ArrayBuffer).toString('hex')}`);
  });
  await eventually('it has joined', () => got.shift() === 'joined');
  return got;
}

const jsonOf = async (response: Response) => [response.status, await response.json()];

describe('ringway publish', () => {
  let gateway: Operated;
  let got: string[];
  beforeAll(async () => {
    gateway = await startOperated({ config });
    got = await subscriber(gateway, 'room');
  });
  afterAll(() => gateway?.stop());
  const arrives = async (message: string) => expect(await eventually(`'${message}' arrives`, () => got.shift())).toBe(message);

  test('a message by words, from standard input, from a file and from a pipe; text and bytes', async () => {
    const done = { exitCode: 0, out: 'published to room\n', err: '' };
    expect(await gateway.run(['publish', 'room', 'by wörds'])).toEqual(done);
    await arrives('by wörds');
    expect(await gateway.run(['publish', 'room', '--', '-5'])).toEqual(done);
    await arrives('-5');
    expect(await gateway.run(['publish', 'room'], { input: 'from\ninput\n' })).toEqual(done);
    await arrives('from\ninput\n');
    expect(await gateway.run(['publish', 'room', '-', '--binary'], { input: new Uint8Array([0, 255]) })).toEqual(done);
    await arrives('0x00ff');
    const path = join(gateway.folder, 'message');
    writeFileSync(path, new Uint8Array([1, 2, 254]));
    expect(await gateway.run(['publish', 'room', '--file', path, '--binary'])).toEqual(done);
    await arrives('0x0102fe');
    expect(await gateway.run(['publish', 'room', '--file', '/dev/stdin'], { input: 'through a pipe' })).toEqual(done);
    await arrives('through a pipe');
    expect(got).toEqual([]);
  });

  test('what cannot be published is told of, with the exit code for it', async () => {
    const refusals: [words: string[], exitCode: number, message: string | RegExp][] = [
      [['publish'], 64, "which topic? ('ringway publish --help' explains)"],
      [['publish', 'room', 'a', 'b'], 64, "'b' is one word too many for 'ringway publish'"],
      [['publish', 'room', 'a', '--file', 'b'], 64, 'a message is given by words or by --file; leave one of them out'],
      [['publish', 'room', '--file', '/no/file'], 64, '--file /no/file cannot be read (ENOENT); write the path of a file'],
      [['publish', 'room', '--file', '/dev/zero'], 64, 'the message is larger than 8388608 bytes; publish it in parts'],
      [['publish', '..', 'a'], 64, "the topic '..' cannot stand in a URL"],
      [['publish', '', 'a'], 1, 'refuses (400): the topic in the path is empty; write the name of a topic'],
      [['publish', 'x'.repeat(1025), 'a'], 1, 'refuses (400): the topic in the path is longer than 1024 bytes of UTF-8'],
      [['publish', 'room', '--file', '/bin/true'], 1, 'refuses (400): the body is not UTF-8'],
      [['publish', 'room', 'a', '--token', 'wrong-but-long-enough'], 1, 'refuses (401): the token is wrong'],
      [['publish', 'room', 'a', '--token', 'two words'], 64, '--token is no token: it has spaces, or what is not ASCII'],
      [['publish', 'room', 'a', '--admin', 'http://'], 64, "--admin is 'http://'; write a port such as 9100"],
      [['publish', 'room', 'a', '--admin', '/no/socket'], 1, 'no gateway can be reached at unix:/no/socket: is it running?'],
    ];
    for (const [words, exitCode, message] of refusals) {
      const result = await gateway.run(words);
      expect([words, result.exitCode, result.out, result.err]).toEqual([words, exitCode, '', expect.stringContaining(`ringway: `)]);
      expect(result.err).toContain(message as string);
    }
    const noPort = await ringway(['publish', 'room', 'a'], { env: { ADMIN_PORT: '99999' } });
    expect([noPort.exitCode, noPort.err]).toEqual([64, expect.stringContaining("env ADMIN_PORT is '99999'")]);
    expect(got).toEqual([]);
  });

  test('a proxy for the world outside is not asked', async () => {
    const proxy = { HTTP_PROXY: 'http://127.0.0.1:9', http_proxy: 'http://127.0.0.1:9' };
    expect((await gateway.run(['publish', 'room', 'direct'], { env: proxy })).exitCode).toBe(0);
    await arrives('direct');
    expect((await gateway.run(['health', '--admin', `localhost:${gateway.adminPort}`], { env: proxy })).exitCode).toBe(0);
  });
});

describe('an admin listener on a Unix socket', () => {
  let gateway: Operated;
  let folder: string;
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'ringway-unix-'));
    mkdirSync(join(folder, 'run'));
    symlinkSync(join(folder, 'run'), join(folder, 'var-run'));
    gateway = await startOperated({ config, admin: `{ unix: ${JSON.stringify(join(folder, 'run/admin.sock'))} }` });
  });
  afterAll(async () => {
    await gateway?.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  test('serves every command, however its path is written', async () => {
    const path = join(folder, 'run/admin.sock');
    const got = await subscriber(gateway, 'room');
    for (const [at, where] of [path, `unix:${path}`, `unix://${path}`, join(folder, 'var-run/admin.sock')].entries()) {
      expect(await gateway.run(['publish', 'room', `${at}`, '--admin', where])).toMatchObject({ exitCode: 0, err: '' });
    }
    expect(await gateway.run(['publish', 'room', '4', '--admin', './admin.sock'], { cwd: join(folder, 'run') })).toMatchObject({
      exitCode: 0,
    });
    await eventually('all have come', () => got.length >= 5);
    expect(got).toEqual(['0', '1', '2', '3', '4']);
    const health = await gateway.run(['health', '--admin', path]);
    expect([health.exitCode, JSON.parse(health.out).pid]).toEqual([0, gateway.pid]);
    const top = await gateway.run(['top', '--json', '--once', '--interval', '0.1', '--admin', path]);
    expect([top.exitCode, JSON.parse(top.out).pid]).toEqual([0, gateway.pid]);
    const reload = await gateway.run(['reload', '--admin', path]);
    expect([reload.exitCode, reload.out]).toEqual([0, expect.stringContaining('generation 2 serves')]);
  });

  test('waits for a reload that takes longer than a silent connection may live', async () => {
    const before = JSON.parse((await gateway.run(['health', '--admin', join(folder, 'run/admin.sock')])).out).generation;
    writeFileSync(join(gateway.folder, 'slow'), '');
    const answer = await fetch('http://localhost/reload', {
      method: 'POST',
      unix: join(folder, 'run/admin.sock'),
      headers: { authorization: `Bearer ${gateway.token()}` },
    });
    rmSync(join(gateway.folder, 'slow'));
    expect(await jsonOf(answer)).toEqual([200, { generation: before + 1 }]);
  });

  test('takes its socket and its token with it', async () => {
    gateway.kill('SIGTERM');
    expect(await gateway.exited).toBe(0);
    expect(existsSync(join(folder, 'run/admin.sock'))).toBe(false);
    expect(() => gateway.token()).toThrow();
  });
});

describe('without an admin listener', () => {
  test('nobody is asked, no token is made, and commands say how else', async () => {
    const gateway = await startOperated({ config, admin: 'false' });
    try {
      expect(existsSync(join(gateway.runtimeFolder, 'ringway'))).toBe(false);
      const closed = await eventually('a port where nobody is', async () => {
        const probe = Bun.listen({ hostname: '127.0.0.1', port: 0, socket: { data() {} } });
        probe.stop(true);
        return probe.port;
      });
      for (const words of [['publish', 't', 'x'], ['health'], ['top', '--once'], ['reload']]) {
        const result = await ringway(words, { env: { ...gateway.env, ADMIN_PORT: String(closed) } });
        expect([words, result.exitCode, result.err]).toEqual([
          words,
          1,
          `ringway: no gateway can be reached at http://127.0.0.1:${closed}: is it running? Say with --admin, or ADMIN_PORT, where its admin listener is.\n`,
        ]);
      }
      const top = await gateway.run(['top', '--json', '--once', '--interval', '0.1', '--pid', String(gateway.pid)]);
      expect([top.exitCode, JSON.parse(top.out).workers.length]).toEqual([0, 1]);
    } finally {
      await gateway.stop();
    }
  });
});

describe('ringway health', () => {
  test('tells of a node that serves, that drains, and that is gone', async () => {
    const gateway = await startOperated({ config });
    try {
      const alive = await gateway.run(['health']);
      expect([alive.exitCode, JSON.parse(alive.out).status]).toEqual([0, 'ok']);
      expect(await gateway.run(['health', '--ready'])).toEqual({ exitCode: 0, out: '{"status":"ready"}\n', err: '' });
      // Holds the node in its drain.
      const slow = await RawClient.connect({ port: gateway.port });
      slow.write('GET /slow HTTP/1.1\r\nHost: x\r\n\r\n');
      await eventually('the request is being served', async () => (await gateway.metric('ringway_http_requests_total')) > 0);
      gateway.kill('SIGTERM');
      await eventually('it drains', async () => (await fetch(`${gateway.adminUrl}/readyz`)).status === 503);
      expect(await gateway.run(['health', '--ready'])).toEqual({
        exitCode: 1,
        out: '{"status":"not ready","reason":"draining"}\n',
        err: '',
      });
      expect((await gateway.run(['health'])).exitCode).toBe(0);
      slow.destroy();
      expect(await gateway.exited).toBe(0);
      const gone = await gateway.run(['health', '--ready']);
      expect([gone.exitCode, gone.out, gone.err]).toEqual([
        1,
        '',
        expect.stringContaining('no gateway can be reached at http://127.0.0.1:'),
      ]);
    } finally {
      await gateway.stop();
    }
  });

  test('gives up on a gateway that does not answer', async () => {
    const gateway = await startOperated({ config });
    try {
      process.kill(gateway.pid, 'SIGSTOP');
      const hung = await gateway.run(['health']);
      expect([hung.exitCode, hung.err]).toEqual([1, expect.stringContaining('it does not answer within 10 s')]);
    } finally {
      process.kill(gateway.pid, 'SIGCONT');
      await gateway.stop();
    }
  });
});

describe('/openapi.json', () => {
  /** Every status that was ever answered, as 'POST /publish 200'. */
  const seen = new Set<string>();
  async function call(gateway: Operated, method: string, path: string, options: RequestInit = {}): Promise<Response> {
    const headers = new Headers(options.headers);
    if (!headers.has('authorization') && existsSync(join(gateway.runtimeFolder, 'ringway')))
      headers.set('authorization', `Bearer ${gateway.token()}`);
    const response = await fetch(gateway.adminUrl + path, { ...options, method, headers });
    const described = path
      .replace(/\?.*/, '')
      .replace(/^\/publish\/.*/, '/publish/{topic}')
      .replace(/^\/topics\/.*\//, '/topics/{topic}/')
      .replace(/^\/users\/.*\//, '/users/{id}/');
    seen.add(`${method} ${described} ${response.status}`);
    return response;
  }
  const asJson = { 'content-type': 'application/json' };
  /** What changes something of topics. `batch`: as it answers in its turn, where that differs. */
  const writes = async (gateway: Operated, status: number, more: RequestInit = {}, batch = status) => {
    const of = (path: string, body: string, headers = {}) =>
      call(gateway, 'POST', path, { body, ...more, headers: { ...headers, ...(more.headers as Record<string, string>) } });
    const answers = await Promise.all([
      of('/publish', '{"topic":"t","data":"x"}', asJson),
      of('/publish/t', 'x'),
      of('/disconnect', '{"user":"ann"}', asJson),
      of('/users/ann/send', 'x'),
      of('/batch', '{"operations":[{"operation":"subscribers","topic":"t"}]}', asJson),
    ]);
    expect(answers.map((answer) => answer.status)).toEqual([status, status, status, status, batch]);
  };
  const reads = async (gateway: Operated, status: number, query = '') => {
    for (const path of ['/topics', '/topics/kept/history', '/topics/kept/presence', '/topics/kept/subscribers'])
      expect([path, (await call(gateway, 'GET', path + query)).status]).toEqual([path, status]);
  };

  test('everything that it describes is answered by some gateway, and nothing else is', async () => {
    const gateway = await startOperated({ config });
    const tokenless = await startOperated({ config, env: { XDG_RUNTIME_DIR: '/dev/null/nowhere' } });
    const flag = (name: string) => writeFileSync(join(gateway.folder, name), '');
    const unflag = (name: string) => rmSync(join(gateway.folder, name));
    try {
      await writes(gateway, 200);
      await writes(gateway, 401, { headers: { authorization: 'Bearer wrong' } });
      await writes(tokenless, 403);
      await writes(gateway, 413, { body: new Uint8Array(8 * 1024 * 1024 + 1) });
      for (const path of ['/publish', '/disconnect', '/batch']) {
        expect((await call(gateway, 'POST', path, { body: 'x' })).status).toBe(415);
        expect((await call(gateway, 'POST', path, { body: '{', headers: asJson })).status).toBe(400);
      }
      for (const path of ['/publish/%ff', '/users/%ff/send']) expect((await call(gateway, 'POST', path)).status).toBe(400);
      // As many bodies as are held at once, and none of them comes.
      const head = `Host: localhost\r\nAuthorization: Bearer ${gateway.token()}\r\nContent-Length: ${8 * 1024 * 1024}\r\n\r\n`;
      const holders = await Promise.all(Array.from({ length: 8 }, () => RawClient.connect({ port: gateway.adminPort })));
      for (const holder of holders) holder.write(`POST /publish/t HTTP/1.1\r\n${head}`);
      await eventually(
        'there is no room',
        async () => (await call(gateway, 'POST', '/batch', { body: '{}', headers: asJson })).status === 503,
      );
      for (const holder of holders) holder.destroy();
      await eventually('there is', async () => (await call(gateway, 'POST', '/batch', { body: '{}', headers: asJson })).status === 400);
      await reads(gateway, 200);
      await reads(gateway, 400, '?limit=some&x');
      for (const path of ['/topics/t/history', '/topics/t/presence']) expect((await call(gateway, 'GET', path)).status).toBe(404);

      expect((await call(gateway, 'POST', '/reload', { headers: { authorization: 'Bearer wrong' } })).status).toBe(401);
      expect((await call(tokenless, 'POST', '/reload')).status).toBe(403);
      flag('wrong');
      const wrong = await call(gateway, 'POST', '/reload');
      expect(await jsonOf(wrong)).toEqual([
        422,
        { error: 'the config is wrong; the old one serves on', mistakes: [expect.stringContaining('listen')] },
      ]);
      unflag('wrong');
      flag('fails');
      expect(await jsonOf(await call(gateway, 'POST', '/reload'))).toEqual([409, { error: expect.stringContaining('ended with code 3') }]);
      unflag('fails');
      expect((await call(gateway, 'POST', '/reload')).status).toBe(200);

      for (const path of ['/healthz', '/readyz', '/metrics', '/openapi.json']) expect((await call(gateway, 'GET', path)).status).toBe(200);

      // A worker that hangs; then none.
      const [pid = 0] = await gateway.workerPids();
      process.kill(pid, 'SIGSTOP');
      await writes(gateway, 504, {}, 200);
      flag('fails');
      process.kill(pid, 'SIGKILL');
      await eventually('no worker is ready', async () => (await call(gateway, 'GET', '/readyz')).status === 503);
      await writes(gateway, 503, {}, 200);
      await reads(gateway, 503);

      const described = (await (await fetch(`${gateway.adminUrl}/openapi.json`)).json()) as {
        paths: Record<string, Record<string, { responses: Record<string, unknown> }>>;
      };
      const promised = Object.entries(described.paths).flatMap(([path, methods]) =>
        Object.entries(methods).flatMap(([method, { responses }]) =>
          Object.keys(responses).map((status) => `${method.toUpperCase()} ${path} ${status}`),
        ),
      );
      // Programs, which the tests of `ringway run` start.
      const posts = ['/publish', '/publish/{topic}', '/reload', '/disconnect', '/users/{id}/send', '/batch'];
      const ofPrograms = [...posts.map((path) => `POST ${path} 404`), 'GET /topics 404', 'GET /topics/{topic}/subscribers 404'];
      expect([...seen, ...ofPrograms].toSorted()).toEqual(promised.toSorted());
    } finally {
      await Promise.all([gateway.stop(), tokenless.stop()]);
    }
  });

  test('programs cannot be published to, nor reloaded', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'ringway-program-'));
    writeFileSync(
      join(folder, 'app.js'),
      `require('ringway/uws').App().get('/*', (res) => res.end('ok')).listen('127.0.0.1', 0, () => {});`,
    );
    const words = ['run', join(folder, 'app.js'), '--workers', '1', '--admin-port', '0'];
    const program = startRingway(words, { env: { XDG_RUNTIME_DIR: folder } });
    try {
      let output = '';
      void (async () => {
        for await (const chunk of program.stderr) output += new TextDecoder().decode(chunk);
      })();
      const [, admin = ''] = await eventually('it serves', () => /admin (http:\/\/[^"\s]+)/.exec(output));
      for (const path of ['/topics', '/topics/t/history', '/topics/t/presence', '/topics/t/subscribers'])
        expect((await fetch(admin + path)).status).toBe(404);
      for (const path of ['/publish', '/publish/t', '/reload', '/disconnect', '/users/ann/send', '/batch']) {
        const headers = { 'content-type': 'application/json' };
        const answer = await fetch(admin + path, { method: 'POST', headers, body: '{"topic":"t","data":""}' });
        expect([path, ...(await jsonOf(answer))]).toEqual([path, 404, { error: expect.any(String) }]);
      }
      expect(readdirSync(folder)).toEqual(['app.js']);
    } finally {
      program.kill('SIGKILL');
      await program.exited;
      rmSync(folder, { recursive: true, force: true });
    }
  });

  test('health is as described, with workers that drain, after reloads of every kind', async () => {
    const gateway = await startOperated({ config, workers: 2 });
    try {
      const health = async () => {
        const body = await (await fetch(`${gateway.adminUrl}/healthz`)).json();
        // What is not described would be left out.
        expect(healthSchema.parse(body)).toEqual(body as never);
        return healthSchema.parse(body);
      };
      expect(await health()).toMatchObject({
        status: 'ok',
        pid: gateway.pid,
        generation: 1,
        draining: [],
        reload: { requests: 0, last: null },
      });
      writeFileSync(join(gateway.folder, 'wrong'), '');
      await gateway.post('/reload', '');
      expect((await health()).reload.last?.kind).toBe('wrong config');
      rmSync(join(gateway.folder, 'wrong'));
      const slow = await RawClient.connect({ port: gateway.port });
      slow.write('GET /slow HTTP/1.1\r\nHost: x\r\n\r\n');
      await eventually('the request is being served', async () => (await gateway.metric('ringway_http_requests_total')) > 0);
      await gateway.post('/reload', '');
      const draining = await eventually('one worker is left behind', async () => {
        const now = await health();
        return now.draining[0]?.workers.length === 1 ? now : undefined;
      });
      expect(draining).toMatchObject({
        generation: 2,
        draining: [{ generation: 1, workers: [{ state: 'draining' }] }],
        reload: { requests: 2, isRunning: false, last: { kind: 'reloaded', generation: 2 } },
      });
      expect(draining.workers.map(({ state }) => state)).toEqual(['ready', 'ready']);
      slow.destroy();
      await eventually('nobody is left behind', async () => (await health()).draining.length === 0);
    } finally {
      await gateway.stop();
    }
  });

  test.skipIf(Bun.which('redis-server') === null)('health and readiness tell of Redis as described', async () => {
    const redis = await startRedis();
    const gateway = await startOperated({ config, workers: 2, env: { REDIS_URL: redis.url } });
    try {
      const read = async (path: string) => (await fetch(gateway.adminUrl + path)).json();
      const up = await eventually('Redis is up', async () => {
        const body: unknown = await read('/healthz');
        return healthSchema.parse(body).redis?.state === 'up' ? body : undefined;
      });
      // One answer, since uptime goes on: the description leaves nothing of it out.
      expect<unknown>(healthSchema.parse(up)).toEqual(up);
      expect(await read('/readyz')).toEqual({ status: 'ready', redis: 'up' });
      await redis.kill();
      await eventually('Redis is lost', async () => healthSchema.parse(await read('/healthz')).redis?.state === 'lost');
      expect(healthSchema.parse(await read('/healthz')).status).toBe('degraded');
      const ready = await fetch(`${gateway.adminUrl}/readyz`);
      const body = await ready.json();
      expect([ready.status, body, readySchema.parse(body)]).toEqual([200, { status: 'ready', redis: 'lost' }, body as never]);
      // A message is published on this node all the same.
      const got = await subscriber(gateway, 'room');
      expect((await gateway.post('/publish/room', 'to ourselves')).status).toBe(200);
      expect(await eventually('it arrives', () => got.shift())).toBe('to ourselves');
    } finally {
      await gateway.stop();
      await redis.dispose();
    }
  });
});

describe('ADMIN_TOKEN and files', () => {
  test('the token of a gateway that was killed opens nothing and is replaced', async () => {
    const first = await startOperated({ config });
    const stale = first.token();
    first.kill('SIGKILL');
    await first.exited;
    expect(first.token()).toBe(stale);
    const second = await startOperated({ config, env: { XDG_RUNTIME_DIR: first.runtimeFolder } });
    try {
      const post = (token: string) =>
        fetch(`${second.adminUrl}/publish/t`, { method: 'POST', body: 'x', headers: { authorization: `Bearer ${token}` } });
      expect((await post(stale)).status).toBe(401);
      const own = readFileSync(join(first.runtimeFolder, 'ringway', `admin-127.0.0.1-${second.adminPort}.token`), 'utf8');
      expect((await post(own)).status).toBe(200);
    } finally {
      await Promise.all([first.stop(), second.stop()]);
    }
  });
});
