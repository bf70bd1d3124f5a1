/** Commands that ask the admin listener about topics: what they send, and what they print, against a listener that answers as ours does. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { runCli } from '../../../src/cli/cli.ts';
import { exitCodes } from '../../../src/exit-codes.ts';

const epoch = '6fe02d1dbf0a13c9';

interface Asked {
  readonly method: string;
  readonly url: string;
  readonly type: string | null;
  readonly token: string | null;
  readonly key: string | null;
  readonly body: string;
}
let asked: Asked[] = [];
let answer: object = {};
let status = 200;
let server: Bun.Server<undefined>;
const folder = mkdtempSync(join(tmpdir(), 'ringway-cli-topics-'));

beforeAll(() => {
  server = Bun.serve({
    hostname: '127.0.0.1',
    port: 0,
    async fetch(request) {
      const { pathname, search } = new URL(request.url);
      const { headers, method } = request;
      const [type, token] = [headers.get('content-type'), headers.get('authorization')];
      asked.push({ method, url: pathname + search, type, token, key: headers.get('idempotency-key'), body: await request.text() });
      return Response.json(answer, { status });
    },
  });
});
afterAll(async () => {
  await server.stop(true);
  rmSync(folder, { recursive: true });
});
afterEach(() => {
  [asked, answer, status] = [[], {}, 200];
});

async function run(...words: string[]) {
  const [out, err]: [string[], string[]] = [[], []];
  const to = { out: (text: string) => void out.push(text), err: (text: string) => void err.push(text) };
  const exitCode = await runCli([...words, '--admin', String(server.port), '--token', 'of-the-tests'], to);
  return { exitCode, out: out.join('\n'), err: err.join('\n') };
}
const urls = () => asked.map(({ method, url }) => `${method} ${url}`);

describe('ringway history', () => {
  test('asks for what was wanted, and shows it with where it lies', async () => {
    answer = {
      epoch,
      offset: 10,
      recovered: true,
      messages: [
        { offset: 9, data: 'hällo  world' },
        { offset: 10, base64: 'AP8=' },
      ],
    };
    expect(await run('history', 'room/x y')).toEqual({
      exitCode: exitCodes.ok,
      out: `${epoch}:10\n   9  hällo  world\n  10  base64 AP8=`,
      err: '',
    });
    const told = await run('history', 'a', '--since', `${epoch}:8`, '--limit', '2', '--reverse', '--json');
    expect(JSON.parse(told.out)).toEqual(answer);
    expect(urls()).toEqual(['GET /topics/room%2Fx%20y/history', `GET /topics/a/history?since=${epoch}%3A8&limit=2&reverse=true`]);
  });

  test('says when what was missed is gone, and lets no message act on the terminal', async () => {
    answer = { epoch, offset: 4, recovered: false, messages: [{ offset: 4, data: '\u001b[2Jgone\u009b\n' }] };
    const { out } = await run('history', 'a', '--since', `${epoch}:1`);
    expect(out).toBe(`${epoch}:4\nwhat came after ${epoch}:1 is not all there any more\n  4  "\\u001b[2Jgone\\u009b\\n"`);
    answer = { epoch: '0'.repeat(16), offset: 0, recovered: true, messages: [] };
    expect((await run('history', 'a')).out).toBe('0000000000000000:0');
  });

  test('a command line that is wrong is told of before anybody is asked', async () => {
    const cases: readonly (readonly [readonly string[], string])[] = [
      [['--since', '5'], "--since is '5'; write a position as 'ringway history a' shows it, such as 6fe02d1dbf0a13c9:42"],
      [['--limit', '1001'], "--limit is '1001'; write an integer from 0 to 1000"],
      [['--lmit', '1'], "unknown option '--lmit' of 'ringway history'; did you mean '--limit'? ('ringway history --help' explains)"],
      [['b'], "'b' is one word too many for 'ringway history' ('ringway history --help' explains)"],
    ];
    for (const [words, message] of cases)
      expect(await run('history', 'a', ...words)).toEqual({ exitCode: exitCodes.usage, out: '', err: `ringway: ${message}` });
    expect((await run('history', '..')).err).toBe(
      "ringway: the topic '..' cannot stand in a URL; send it as JSON to POST /batch of the admin listener",
    );
    expect((await run('history')).err).toBe("ringway: which topic? ('ringway history --help' explains)");
    expect(asked).toEqual([]);
  });

  test('a refusal is told with its reason and its mistakes', async () => {
    [status, answer] = [404, { error: 'the topic "a" has no history' }];
    const place = `http://127.0.0.1:${server.port}`;
    expect(await run('history', 'a')).toEqual({
      exitCode: exitCodes.failure,
      out: '',
      err: `ringway: ${place} refuses (404): the topic "a" has no history`,
    });
    [status, answer] = [400, { error: 'the query is not in order', mistakes: ['limit: is no number', 'since: is no position'] }];
    expect((await run('history', 'a')).err).toBe(
      `ringway: ${place} refuses (400): the query is not in order\n  limit: is no number\n  since: is no position`,
    );
  });
});

test('ringway presence shows users, with their connections and what is said of them', async () => {
  answer = {
    count: 3,
    users: [
      { id: 'ann', connections: 2, info: { from: 'here' } },
      { id: 'b\u0007', connections: 1 },
    ],
  };
  expect((await run('presence', 'room/x')).out).toBe('3 users\n  ann  2 connections  {"from":"here"}\n  "b\\u0007"  1 connection');
  expect(JSON.parse((await run('presence', 'room/x', '--json')).out)).toEqual(answer);
  expect(urls()).toEqual(Array(2).fill('GET /topics/room%2Fx/presence'));
});

test('ringway topics and subscribers', async () => {
  answer = { topics: ['a', 'b/\n'], subscribers: 7 };
  expect((await run('topics')).out).toBe('a\n"b/\\n"');
  expect((await run('topics', 'room/é', '--limit', '5')).exitCode).toBe(exitCodes.ok);
  expect((await run('topics', '--limit', '0')).exitCode).toBe(exitCodes.usage);
  expect((await run('subscribers', 'a')).out).toBe('7');
  expect(urls()).toEqual(['GET /topics', 'GET /topics?prefix=room%2F%C3%A9&limit=5', 'GET /topics/a/subscribers']);
});

test('ringway topics prints no line where there are no topics', async () => {
  answer = { topics: [] };
  const lines: string[] = [];
  const to = { out: (text: string) => void lines.push(text), err: (text: string) => void lines.push(text) };
  expect(await runCli(['topics', '--admin', String(server.port)], to)).toBe(exitCodes.ok);
  expect(lines).toEqual([]);
  expect(await runCli(['topics', '--json', '--admin', String(server.port)], to)).toBe(exitCodes.ok);
  expect(lines).toEqual(['{"topics":[]}']);
});

test('ringway disconnect says whom', async () => {
  answer = { disconnected: 1 };
  expect((await run('disconnect', '--user', 'ann', '--code', '4001', '--reason', 'enough')).out).toBe('disconnected 1 connection');
  answer = { disconnected: 2 };
  expect((await run('disconnect', '--topic', 'a')).out).toBe('disconnected 2 connections');
  expect((await run('disconnect', '--socket', 'xyz', '--json')).out).toBe('{"disconnected":2}');
  expect(asked.map(({ body }) => JSON.parse(body))).toEqual([
    { user: 'ann', code: 4001, reason: 'enough' },
    { topic: 'a' },
    { socket: 'xyz' },
  ]);
  expect(asked[0]).toMatchObject({ method: 'POST', url: '/disconnect', type: 'application/json', token: 'Bearer of-the-tests' });
  asked = [];
  for (const words of [[], ['--user', 'a', '--topic', 'b']])
    expect((await run('disconnect', ...words)).err).toBe('ringway: whom? Write one of --socket, --user and --topic');
  expect((await run('disconnect', '--user', 'a', '--code', '99')).err).toBe("ringway: --code is '99'; write an integer from 1000 to 4999");
  expect(asked).toEqual([]);
});

test('ringway send takes the message as publish does', async () => {
  answer = { sent: 1 };
  writeFileSync(join(folder, 'message'), 'from a file');
  expect((await run('send', 'ann/b', 'hello')).out).toBe('sent to ann/b');
  expect((await run('send', 'ann', '--file', join(folder, 'message'), '--binary', '--json')).out).toBe('{"sent":1}');
  expect(asked.map(({ url, type, body }) => [url, type, body])).toEqual([
    ['/users/ann%2Fb/send', 'text/plain; charset=utf-8', 'hello'],
    ['/users/ann/send', 'application/octet-stream', 'from a file'],
  ]);
  expect((await run('send', '.', 'x')).exitCode).toBe(exitCodes.usage);
  expect((await run('send', 'ann', 'x', '--file', join(folder, 'message'))).exitCode).toBe(exitCodes.usage);
});

test('ringway publish names the message, and says where it lies', async () => {
  answer = { published: 1, epoch, offset: 3 };
  const told = await run('publish', 'a', 'hello', '--key', 'order "17"');
  expect(told.out).toBe(`published to a at ${epoch}:3`);
  expect(JSON.parse((await run('publish', 'a', 'hello', '--json')).out)).toEqual({ topic: 'a', bytes: 5, epoch, offset: 3 });
  answer = { published: 1 };
  expect((await run('publish', 'a', 'hello')).out).toBe('published to a');
  expect((await run('publish', 'a', 'x', '--key', 'é')).err).toBe(
    "ringway: --key is 'é'; write 1 to 128 letters, digits and signs of ASCII",
  );
  expect(asked.map(({ key }) => key)).toEqual(['"order \\"17\\""', null, null]);
});
