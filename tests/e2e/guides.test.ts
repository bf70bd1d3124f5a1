/** What the guides show, run: each gateway as it stands in its page, with clients that try it. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { sign as signToken } from 'hono/jwt';
import { initProject } from '../../src/cli/init-project.ts';
import { compile } from '../support/compiler.ts';
import { EventStream } from '../support/event-stream.ts';
import { eventually } from '../support/eventually.ts';
import { type Page, readPage, writeBlock } from '../support/markdown.ts';
import { RunningProgram } from '../support/running-program.ts';
import { Wire } from '../support/wire.ts';

// Only ends a test that has failed, or a compiler that is very slow.
setDefaultTimeout(120_000);

const root = join(import.meta.dir, '..', '..');
const authentication = readPage('docs/guides/authentication.md');
const broadcasting = readPage('docs/guides/broadcasting.md');
const slowClients = readPage('docs/guides/slow-clients.md');
const smallApp = readPage('docs/guides/small-app.md');
const sse = readPage('docs/sse.md');
const tokens = readPage('docs/tokens.md');
const testing = readPage('docs/guides/testing.md');
const token = 'a-token-of-these-tests';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'ringway-guides-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** A project of `ringway init` with the files of a page in it. */
function projectOf(page: Page): string {
  // With a space: a path is not a URL.
  const name = page.file.replace(/\W/g, ' ');
  const project = join(folder, name);
  initProject(folder, name, undefined);
  // As npm would lay them out.
  mkdirSync(join(project, 'node_modules/.bin'), { recursive: true });
  symlinkSync(root, join(project, 'node_modules/ringway'));
  symlinkSync('../ringway/bin/ringway.mjs', join(project, 'node_modules/.bin/ringway'));
  for (const each of ['hono', 'jose', '@types', 'bun-types', 'typescript'])
    symlinkSync(join(root, 'node_modules', each), join(project, 'node_modules', each));
  for (const block of page.blocks) if (block.path !== undefined) writeBlock(project, block);
  return project;
}

async function typeErrors(project: string): Promise<string> {
  const settings = { extends: './tsconfig.json', include: ['*.ts', 'src', 'tests'] };
  writeFileSync(join(project, 'tsconfig.all.json'), JSON.stringify(settings));
  return (await compile(['-p', 'tsconfig.all.json'], project)).said;
}

/** `ringway start` there, with two workers. */
class Started {
  readonly program: RunningProgram;
  port = 0;
  adminUrl = '';

  constructor(project: string, env: Record<string, string>) {
    const own = { PORT: '0', ADMIN_PORT: '0', WORKERS: '2', ADMIN_TOKEN: token, NO_COLOR: '1' };
    this.program = new RunningProgram([process.execPath, join(root, 'src/main.ts'), 'start'], {
      cwd: project,
      env: { ...process.env, ...own, ...env },
    });
  }

  async ready(): Promise<this> {
    const said = await this.program.finds(/listening on http:\/\/localhost:(\d+)[^\n]*?admin (http:\/\/127\.0\.0\.1:\d+)/);
    this.port = Number(said[1]);
    this.adminUrl = said[2] ?? '';
    return this;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  async stop(): Promise<void> {
    this.program.kill('SIGTERM');
    await Bun.sleep(50);
    this.program.kill('SIGTERM');
    await this.program.ended();
  }
}

class Client {
  readonly heard: string[] = [];
  /** The close code. */
  readonly closed: Promise<number>;
  readonly opened: Promise<unknown>;
  readonly socket: WebSocket;

  constructor(gateway: Started, path: string, options: { headers?: Record<string, string>; protocols?: string[] } = {}) {
    this.socket = new WebSocket(`ws://127.0.0.1:${gateway.port}${path}`, options as never);
    this.socket.onmessage = ({ data }) => this.heard.push(String(data));
    this.opened = new Promise((resolve) => this.socket.addEventListener('open', () => resolve(true)));
    this.closed = new Promise((resolve) => this.socket.addEventListener('close', ({ code }) => resolve(code)));
  }

  say(value: unknown): void {
    this.socket.send(typeof value === 'string' ? value : JSON.stringify(value));
  }

  hears(pattern: RegExp): Promise<unknown> {
    return eventually(`it hears ${pattern}`, () => this.heard.some((text) => pattern.test(text)));
  }
}

describe('server-sent events', () => {
  let project: string;
  let gateway: Started;
  const opened: EventStream[] = [];
  const open = async (path: string, headers: Record<string, string> = {}) => {
    const stream = await EventStream.open(`${gateway.url}${path}`, { headers });
    opened.push(stream);
    return stream;
  };
  const begun = (stream: EventStream) => eventually('the stream has begun', () => stream.lastId !== '');
  beforeAll(async () => {
    project = projectOf(sse);
    gateway = await new Started(project, {}).ready();
  });
  afterAll(async () => {
    for (const stream of opened) stream.close();
    await gateway?.stop();
  });

  const publish = (topic: string, body: string) =>
    fetch(`${gateway.adminUrl}/publish/${encodeURIComponent(topic)}`, {
      method: 'POST',
      body,
      headers: { authorization: `Bearer ${token}`, 'content-type': 'text/plain' },
    }).then((response) => response.json());

  test('compiles', async () => expect(await typeErrors(project)).toBe(''));

  test('a path streams a topic, and a route several of them', async () => {
    const [stream, feed] = await Promise.all([open('/events?topic=news/today'), open('/feed?name=tea')]);
    await Promise.all([begun(stream), begun(feed)]);
    await publish('news/today', 'good morning');
    await publish('room/tea', 'and tea');
    expect(await stream.has(1)).toEqual(['good morning']);
    expect((await feed.has(2)).map((data) => JSON.parse(data).data)).toEqual(['good morning', 'and tea']);
    expect((await open('/feed')).response.status).toBe(400);
    expect((await open('/events?topic=staff/plans')).response.status).toBe(403);
  });

  test('who is in the room, and not who only looks', async () => {
    const ann = new Client(gateway, '/room/tea?user=ann');
    await ann.opened;
    const users = await eventually('she is there', async () => {
      const stream = await open('/events?topic=room/tea&presence=1');
      const { users } = JSON.parse((await stream.hasNamed('presence'))[0] as string) as { users: unknown[] };
      return users.length > 0 && users;
    });
    expect(users).toEqual([{ id: 'ann', connections: 1 }]);
    ann.socket.close();
  });

  test('an answer of a language model is read to its end by who comes late, and by who was away in between', async () => {
    const { write } = await import(join(project, 'answer.mjs'));
    const words = Array.from({ length: 60 }, (_, index) => `word${index} `);
    let release: () => void = () => {};
    const half = new Promise<void>((resolve) => {
      release = resolve;
    });
    async function* pieces() {
      for (const [index, word] of words.entries()) {
        if (index === 30) await half;
        yield word;
      }
    }
    const writing = write(gateway.adminUrl, token, 'a1', pieces());
    const path = '/events?topic=answer/a1&history=1000';
    const first = await open(path);
    await first.has(10);
    first.close();
    release();
    await writing;
    const heard = first.messages;
    const second = await open(path, { 'last-event-id': first.lastId });
    await second.has(words.length + 1 - heard.length);
    const all = [...heard, ...second.messages].map((data) => JSON.parse(data));
    expect(all.map(({ text }) => text ?? '').join('')).toBe(words.join(''));
    expect(all.at(-1)).toEqual({ isDone: true });
    expect((await (await open(path)).has(words.length + 1)).length).toBe(words.length + 1);
  });
});

describe('tokens', () => {
  const secret = 'a secret of thirty-two bytes, at least';
  let project: string;
  let gateway: Started;
  beforeAll(async () => {
    project = projectOf(tokens);
    gateway = await new Started(project, { JWT_SECRET: secret }).ready();
  });
  afterAll(() => gateway?.stop());

  /** What a program of the project prints. */
  async function printed(...cmd: string[]): Promise<string> {
    const child = Bun.spawn({ cmd, cwd: project, env: { ...process.env, JWT_SECRET: secret }, stdout: 'pipe', stderr: 'pipe' });
    const [out, err, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
    if (code !== 0) throw new Error(err);
    return out.trim();
  }
  const ofBackend = (user: string, role: string) =>
    printed(process.execPath, '-e', `import { tokenFor } from './token.ts'; console.log(await tokenFor('${user}', '${role}'))`);

  test('compiles', async () => expect(await typeErrors(project)).toBe(''));

  test('a token of the backend, and one of ringway token, let in whom they name', async () => {
    const ann = await ofBackend('ann', 'admin');
    const bob = await printed('node_modules/.bin/ringway', 'token', 'bob', '--claims', '{"role":"guest"}');
    const chat = new Client(gateway, '/chat', { protocols: ['token', `token.${ann}`] });
    await chat.hears(/"hello":"ann","role":"admin"/);
    expect(chat.socket.protocol).toBe('token');
    const renewed = await ofBackend('ann', 'editor');
    chat.say({ type: 'token', token: renewed });
    await chat.hears(/"type":"token","expiresAt":\d+/);
    const page = new Client(gateway, '/page');
    await page.opened;
    page.say({ token: renewed });
    page.say('still in order');
    await page.hears(/"hello":"ann"/);
    await page.hears(/still in order/);
    const guest = new Client(gateway, '/page');
    await guest.opened;
    guest.say({ token: bob });
    expect(await guest.closed).toBe(3003);
    const news = new Client(gateway, '/news');
    await news.hears(/"hello":"stranger"/);
    await new Client(gateway, '/status').hears(/"up":true/);
    // A page does not see the 401.
    expect(await new Client(gateway, '/chat').closed).toBe(1006);
    for (const client of [chat, page, news]) client.socket.close();
  });

  test('one for a topic lets nobody in', async () => {
    const forTopic = await printed('node_modules/.bin/ringway', 'token', 'ann', '--topic', 'room/secret');
    const client = new Client(gateway, '/page');
    await client.opened;
    client.say({ token: forTopic });
    expect(await client.closed).toBe(3000);
  });
});

describe('authentication', () => {
  const secret = 'a secret of thirty-two bytes, at least';
  let project: string;
  let gateway: Started;
  beforeAll(async () => {
    project = projectOf(authentication);
    gateway = await new Started(project, { JWT_SECRET: secret }).ready();
  });
  afterAll(() => gateway?.stop());

  const sign = (name: string, seconds: number, key = secret) =>
    signToken({ sub: name, exp: Math.floor(Date.now() / 1000) + seconds }, key, 'HS256');

  test('compiles', async () => expect(await typeErrors(project)).toBe(''));

  test('lets in by cookie, by subprotocol and by first message who has a token, and tells them who they are', async () => {
    const jwt = await sign('Ann', 600);
    const byCookie = new Client(gateway, '/by-cookie', { headers: { cookie: `session=${jwt}` } });
    const bySubprotocol = new Client(gateway, '/by-subprotocol', { protocols: ['chat', `token.${jwt}`] });
    const byMessage = new Client(gateway, '/by-message');
    await Promise.all([byCookie.opened, bySubprotocol.opened, byMessage.opened]);
    expect(bySubprotocol.socket.protocol).toBe('chat');
    byMessage.say({ type: 'token', token: jwt });
    await byMessage.hears(/"welcome","name":"Ann"/);
    for (const client of [byCookie, bySubprotocol, byMessage]) {
      // Whoever has heard itself is subscribed; all hear each other.
      await eventually('it hears itself', async () => {
        client.say({ text: 'hello' });
        await Bun.sleep(50);
        return client.heard.includes('{"from":"Ann","text":"hello"}');
      });
    }
  });

  test('lets nobody in without one, with one of somebody else, with one that has ended, and with one without algorithm', async () => {
    const unsigned = `${btoa('{"alg":"none"}')}.${btoa('{"sub":"Eve","exp":9999999999}')}.`.replaceAll('=', '');
    for (const wrong of ['', 'x', await sign('Eve', 600, 'x'.repeat(32)), await sign('Eve', -60), unsigned]) {
      const cookie = new Client(gateway, '/by-cookie', { headers: { cookie: `session=${wrong}` } });
      const protocol = new Client(gateway, '/by-subprotocol', { protocols: ['chat', `token.${wrong}`] });
      const first = new Client(gateway, '/by-message');
      await first.opened;
      first.say({ type: 'token', token: wrong });
      // A handshake that is refused has no close code of the gateway's.
      expect([wrong, await first.closed]).toEqual([wrong, 4401]);
      for (const refused of [cookie, protocol]) expect(await Promise.race([refused.closed.then(() => false), refused.opened])).toBe(false);
    }
    const impatient = new Client(gateway, '/by-message');
    await impatient.opened;
    impatient.say({ text: 'hello?' });
    expect(await impatient.closed).toBe(4401);
    const silent = new Client(gateway, '/by-message');
    expect(await silent.closed).toBe(4401);
  });

  test('ends with the token, unless it is renewed, by the same person', async () => {
    const ends = new Client(gateway, '/by-cookie', { headers: { cookie: `session=${await sign('Ann', 3)}` } });
    const renewed = new Client(gateway, '/by-cookie', { headers: { cookie: `session=${await sign('Ann', 3)}` } });
    const exchanged = new Client(gateway, '/by-cookie', { headers: { cookie: `session=${await sign('Ann', 600)}` } });
    await Promise.all([ends.opened, renewed.opened, exchanged.opened]);
    renewed.say({ type: 'token', token: await sign('Ann', 600) });
    exchanged.say({ type: 'token', token: await sign('Bob', 600) });
    expect(await exchanged.closed).toBe(4401);
    expect(await ends.closed).toBe(4401);
    // Its own token has ended by now.
    await Bun.sleep(1000);
    renewed.say({ text: 'still here' });
    await renewed.hears(/still here/);
    renewed.socket.close();
  });
});

describe('broadcasting', () => {
  let project: string;
  let gateway: Started;
  beforeAll(async () => {
    project = projectOf(broadcasting);
    gateway = await new Started(project, {}).ready();
  });
  afterAll(() => gateway?.stop());

  const programs = [
    ['curl', ['sh', '-e', 'publish.sh']],
    ['Node', ['node', 'publish.mjs']],
    ['Python', ['python3', 'publish.py']],
    ['Go', ['go', 'run', 'publish.go']],
  ] as const;

  test('has a program for each block of its page', () => {
    const files = broadcasting.blocks.flatMap(({ path = '' }) => (path.startsWith('publish.') ? [path] : []));
    expect(files).toEqual(programs.map(([, words]) => words.at(-1) ?? ''));
  });

  for (const [name, words] of programs) {
    const isInstalled = Bun.which(name === 'curl' ? 'curl' : words[0]) !== null;
    if (!isInstalled) console.warn(`publishing with ${name} is not tested: it is not installed`);
    test.skipIf(!isInstalled)(`with ${name}, and what goes wrong ends with an error`, async () => {
      const client = new Client(gateway, '/orders/17');
      await client.opened;
      const run = (adminToken: string) =>
        new RunningProgram(words, { cwd: project, env: { ...process.env, ADMIN_URL: gateway.adminUrl, ADMIN_TOKEN: adminToken } });
      await eventually('it is heard', async () => {
        const program = run(token);
        expect([await program.ended(), program.err]).toEqual([0, '']);
        await Bun.sleep(50);
        return client.heard.includes(`paid, says ${name}`);
      });
      expect(await run('another-token-than-that').ended()).toBeGreaterThan(0);
      client.socket.close();
    });
  }
});

describe('slow clients', () => {
  let gateway: Started;
  let project: string;
  beforeAll(async () => {
    project = projectOf(slowClients);
    gateway = await new Started(project, {}).ready();
  });
  afterAll(() => gateway?.stop());

  test('compiles', async () => expect(await typeErrors(project)).toBe(''));

  test('one that reads nothing for a while is not sent what is old by then, and goes on with the latest', async () => {
    const slow = await Wire.open(gateway.port, '/state');
    const stepOf = (text: string) => JSON.parse(text).step as number;
    const step = async () => stepOf(String((await slow.frame())?.payload));
    const first = await step();
    slow.pause();
    const quick = new Client(gateway, '/state');
    // 40 MB: several times what kernels hold for a socket.
    await eventually('much has come that it has not read', () => stepOf(quick.heard.at(-1) ?? '{"step":0}') > first + 2000);
    quick.socket.close();
    slow.resume();
    let received = 0;
    let last = first;
    let longestJump = 0;
    // Past what the kernel had taken there is a jump to the state of now.
    while (longestJump < 100 && received < 5000) {
      const next = await step();
      expect(next).toBeGreaterThan(last);
      longestJump = Math.max(longestJump, next - last);
      last = next;
      received++;
    }
    expect(longestJump).toBeGreaterThanOrEqual(100);
    slow.end();
  });
});

describe('the app of sixty lines', () => {
  let gateway: Started;
  let project: string;
  beforeAll(async () => {
    project = projectOf(smallApp);
    gateway = await new Started(project, { SECRET: 'x'.repeat(32) }).ready();
  });
  afterAll(() => gateway?.stop());

  const login = async (name: string) => {
    const response = await fetch(`${gateway.url}/login`, { method: 'POST', body: name });
    return { status: response.status, cookie: response.headers.get('set-cookie')?.split(';')[0] ?? '' };
  };

  test('has about sixty lines, and compiles', async () => {
    const config = smallApp.blocks.find(({ path }) => path === 'gateway.config.ts');
    expect(config?.text.split('\n').length).toBeLessThan(66);
    expect(await typeErrors(project)).toBe('');
  });

  test('serves its page, and carries what is said with the name of who logged in', async () => {
    expect(await (await fetch(gateway.url)).text()).toContain('<title>Rooms</title>');
    expect((await login('<b>')).status).toBe(400);
    const ann = new Client(gateway, '/room/tea', { headers: { cookie: (await login('Ann')).cookie } });
    await ann.hears(/^\{"type":"joined","name":"Ann"\}$/);
    const bob = new Client(gateway, '/room/tea', { headers: { cookie: (await login('Bob')).cookie } });
    await bob.hears(/"joined","name":"Bob"/);
    await ann.hears(/"joined","name":"Bob"/);
    bob.say('hello');
    await ann.hears(/^\{"type":"said","name":"Bob","text":"hello"\}$/);
    bob.socket.close();
    await ann.hears(/"left","name":"Bob"/);
  });

  test('refuses who is not logged in and rooms that are none, and closes who says too much', async () => {
    for (const [path, cookie] of [
      ['/room/tea', ''],
      ['/room/tea', 'session=x.y.z'],
      ['/room/a%20b', (await login('Ann')).cookie],
    ] as const) {
      const client = new Client(gateway, path, { headers: { cookie } });
      expect(await Promise.race([client.closed.then(() => false), client.opened])).toBe(false);
    }
    const eager = new Client(gateway, '/room/tea', { headers: { cookie: (await login('Eva')).cookie } });
    await eager.opened;
    for (let index = 0; index < 50; index++) eager.say('and another thing');
    expect(await eager.closed).toBe(1008);
  });
});

test('testing: the tests of the page pass, and fail when the project does not do what they say', async () => {
  const project = projectOf(testing);
  expect(await typeErrors(project)).toBe('');
  const run = async () => {
    const program = new RunningProgram([process.execPath, 'test', '--timeout', '60000'], { cwd: project });
    return { code: await program.ended(), output: program.output() };
  };
  const passed = await run();
  expect([passed.code, passed.output]).toEqual([0, expect.stringMatching(/ 3 pass\n 0 fail/)]);
  writeFileSync(join(project, 'gateway.config.ts'), `export default { fetch: () => new Response('nothing else') };\n`);
  const failed = await run();
  expect([failed.code, failed.output]).toEqual([1, expect.stringMatching(/ 3 fail/)]);
});
