/**
 * The programs of docs/migrating/, before and after, as they stand in the pages: the same client speaks to both and sees the same.
 */
import { afterAll, afterEach, test as anyTest, describe, expect, setDefaultTimeout } from 'bun:test';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { eventually } from '../support/eventually.ts';
import { frame, opcode } from '../support/frames.mjs';
import { freePort } from '../support/free-port.ts';
import { RunningProgram } from '../support/running-program.ts';
import { Wire } from '../support/wire.ts';
import { commandLine, here, whyNot } from './program.ts';

// Only ends a test that has failed: nothing here is measured in time.
setDefaultTimeout(90_000);

const root = join(here, '../..');
const main = join(root, 'src/main.ts');
// Where the packages that the programs import are found.
const folder = mkdtempSync(join(here, 'node_modules/.migrating-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const running: RunningProgram[] = [];
afterEach(async () => {
  await Promise.all(running.splice(0).map((program) => program.stop()));
});

/** The first block of a page below a heading. ret: the path of a file with it */
function program(page: string, heading: string): string {
  const part = readFileSync(join(root, 'docs/migrating', `${page}.md`), 'utf8')
    .split(/^## /m)
    .find((text) => text.startsWith(`${heading}\n`));
  const [, language, text = ''] = /^```(js|ts)\n([\s\S]*?)^```$/m.exec(part ?? '') ?? [];
  if (language === undefined) throw new Error(`docs/migrating/${page}.md has no block below '${heading}'`);
  const path = join(folder, `${page}-${heading.replaceAll(' ', '-')}.${language === 'js' ? 'mjs' : 'ts'}`);
  writeFileSync(path, text);
  return path;
}

/** ret: the port on which it serves */
async function serve(words: readonly string[], workers = 1): Promise<number> {
  const port = freePort();
  const env = { ...process.env, PORT: String(port), ADMIN_PORT: String(freePort()), WORKERS: String(workers) };
  const server = new RunningProgram(words, { env, cwd: folder });
  running.push(server);
  await eventually('it serves', async () => {
    if (server.hasEnded) throw new Error(`it has ended with ${await server.ended()}:\n${server.output()}`);
    return fetch(`http://127.0.0.1:${port}/health`).catch(() => undefined);
  });
  return port;
}

const asConfig = (path: string) => [process.execPath, main, 'start', '-c', path];

class Member {
  readonly wire: Wire;
  private constructor(wire: Wire) {
    this.wire = wire;
  }
  static async join(port: number, room: string, user: string): Promise<Member> {
    return new Member(await Wire.open(port, `/room/${room}?user=${user}`));
  }
  say(text: string): void {
    this.wire.write(frame(opcode.text, text));
  }
  async hears(): Promise<string> {
    return (await this.wire.frame())?.payload.toString() ?? 'the end';
  }
}

/** What a client of the plain program sees. */
async function visit(port: number): Promise<Record<string, unknown>> {
  const seen: Record<string, unknown> = {};
  const get = async (path: string) => {
    const response = await fetch(`http://127.0.0.1:${port}${path}`);
    return [response.status, await response.text()];
  };
  seen.health = await get('/health');
  seen.elsewhere = await get('/elsewhere');
  seen.nobody = await Wire.open(port, '/room/lobby').catch((error) => /HTTP\/1\.1 (\d+)/.exec(String(error))?.[1]);
  const ann = await Member.join(port, 'lobby', 'ann');
  seen.ann = [await ann.hears()];
  const eve = await Member.join(port, 'other', 'eve');
  seen.eve = [await eve.hears()];
  const bob = await Member.join(port, 'lobby', 'bob');
  seen.bob = [await bob.hears(), await ann.hears()];
  ann.say('hi, bob');
  seen.hi = await bob.hears();
  bob.say('ü');
  seen.answer = await ann.hears();
  bob.wire.write(frame(opcode.close, Buffer.from([0x03, 0xe8])));
  seen.left = await ann.hears();
  ann.say('x'.repeat(65537));
  seen.large = await ann.wire.closeCode();
  // What was meant for the lobby has not come here.
  eve.say('nobody hears it');
  const eva = await Member.join(port, 'other', 'eva');
  seen.others = [await eve.hears(), await eva.hears()];
  for (const { wire } of [ann, bob, eve, eva]) wire.destroy();
  return seen;
}

const expected = {
  health: [200, 'ok'],
  elsewhere: [404, 'not found'],
  nobody: '401',
  ann: ['ann joined'],
  eve: ['eve joined'],
  bob: ['bob joined', 'bob joined'],
  hi: 'ann: hi, bob',
  answer: 'bob: ü',
  left: 'bob left',
  large: 1009,
  others: ['eva joined', 'eva joined'],
};
describe('from ws', () => {
  anyTest('before', async () => expect(await visit(await serve(['node', program('ws', 'Before')]))).toEqual(expected));
  anyTest('after', async () => expect(await visit(await serve(asConfig(program('ws', 'After')), 2))).toEqual(expected));
});

describe('from Bun.serve', () => {
  anyTest('before', async () => expect(await visit(await serve([process.execPath, program('bun-serve', 'Before')]))).toEqual(expected));
  anyTest('after', async () => expect(await visit(await serve(asConfig(program('bun-serve', 'After')), 2))).toEqual(expected));
});

describe('from uWebSockets.js', () => {
  const before = () => program('uwebsockets', 'Before');
  anyTest.skipIf(whyNot !== undefined)('before', async () =>
    expect(await visit(await serve(commandLine('original', before())))).toEqual({ ...expected, large: 1006 }),
  );
  anyTest('as it is', async () => expect(await visit(await serve([process.execPath, main, 'run', before()], 2))).toEqual(expected));
  anyTest('as a config', async () =>
    expect(await visit(await serve(asConfig(program('uwebsockets', 'Write it as a config')), 2))).toEqual(expected),
  );
});

/** What clients of Socket.IO see: a program for Node, which has its client. */
const socketIoClient = `
import { io } from 'socket.io-client';
const [port, transport] = process.argv.slice(2);
const join = (auth) => {
  const socket = io('http://127.0.0.1:' + port, { auth, transports: [transport], reconnection: false, forceNew: true });
  const heard = [];
  const waiting = [];
  const note = (...what) => { (waiting.shift() ?? ((value) => heard.push(value)))(what); };
  socket.on('notice', (text) => note('notice', text));
  socket.on('said', (user, text) => note('said', user, text));
  socket.on('connect_error', (error) => note('refused', error.message));
  return { socket, hears: () => heard.length > 0 ? Promise.resolve(heard.shift()) : new Promise((resolve) => waiting.push(resolve)) };
};
const seen = [];
seen.push(await join({ room: 'lobby' }).hears());
const ann = join({ user: 'ann', room: 'lobby' });
seen.push(await ann.hears());
const eve = join({ user: 'eve', room: 'other' });
seen.push(await eve.hears());
const bob = join({ user: 'bob', room: 'lobby' });
seen.push(await ann.hears(), await bob.hears());
ann.socket.emit('say', 'hi, bob');
seen.push(await bob.hears());
bob.socket.disconnect();
seen.push(await ann.hears());
const eva = join({ user: 'eva', room: 'other' });
seen.push(await eve.hears());
console.log(JSON.stringify(seen));
process.exit(0);
`;

describe('from Socket.IO', () => {
  async function visitSocketIo(port: number): Promise<unknown[]> {
    const path = join(folder, 'client.mjs');
    writeFileSync(path, socketIoClient);
    const seen = [];
    for (const transport of ['polling', 'websocket']) {
      const client = new RunningProgram(['node', path, String(port), transport]);
      running.push(client);
      const code = await client.ended();
      expect([code, client.err]).toEqual([0, '']);
      seen.push(JSON.parse(client.out));
    }
    return seen;
  }
  const each = [
    ['refused', 'who are you?'],
    ['notice', 'ann joined'],
    ['notice', 'eve joined'],
    ['notice', 'bob joined'],
    ['notice', 'bob joined'],
    ['said', 'ann', 'hi, bob'],
    ['notice', 'bob left'],
    ['notice', 'eva joined'],
  ];
  const page = 'socket-io';
  anyTest('before', async () => expect(await visitSocketIo(await serve(['node', program(page, 'Before')]))).toEqual([each, each]));
  anyTest('kept', async () => {
    const port = await serve([process.execPath, main, 'run', '--workers', '1', program(page, 'Keep it')]);
    expect(await visitSocketIo(port)).toEqual([each, each]);
  });
  anyTest('moved', async () => expect(await visit(await serve(asConfig(program(page, 'Move to WebSockets')), 2))).toEqual(expected));
});
