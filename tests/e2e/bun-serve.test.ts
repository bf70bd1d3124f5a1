/**
 * One handler on Bun.serve and on a gateway: what goes over the wire is the same, but for differences that are declared here and told in
 * docs/responses.md. A difference that nobody has declared fails, and so does one that is declared and not there any more.
 */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eventually } from '../support/eventually.ts';
import { type Gateway, startGateway } from '../support/gateway.ts';
import { RawClient, type RawResponse } from '../support/raw-client.ts';
import { routes } from './bun-serve-handler.ts';

// Only ends a test that has failed: nothing here is measured in time.
setDefaultTimeout(60_000);

interface Answer {
  status: string;
  headers: Record<string, string>;
  body: string;
}

interface Case {
  readonly name: string;
  readonly bytes: string;
  readonly isHead: boolean;
}

const get = (target: string, fields = '', method = 'GET'): Case => ({
  name: `${method} ${target}${fields && ` ${fields.trim().replace('\r\n', ', ')}`}`,
  bytes: `${method} ${target} HTTP/1.1\r\nHost: h:1\r\n${fields}\r\n`,
  isHead: method === 'HEAD',
});
const send = (method: string, target: string, fields: string, body: string): Case => ({
  name: `${method} ${target} ${fields.trim().replace('\r\n', ', ')}`,
  bytes: `${method} ${target} HTTP/1.1\r\nHost: h:1\r\n${fields}\r\n${body}`,
  isHead: false,
});

const plain = Object.keys(routes).filter((path) => !path.startsWith('/echo'));
const ranges = [
  'bytes=0-3',
  'bytes=2-',
  'bytes=-3',
  'bytes=0-0,2-3',
  'bytes=20-30',
  'bytes=5-2',
  'chars=1-2',
  'bytes=0-999',
  'bytes=-0',
  'bytes=1',
];
const conditions = [
  'If-None-Match: "e"',
  'If-None-Match: *',
  'If-Modified-Since: Wed, 21 Oct 2035 07:28:00 GMT',
  'If-Match: "zzz"',
  'If-Unmodified-Since: Wed, 21 Oct 2009 07:28:00 GMT',
  'Range: bytes=0-1\r\nIf-Range: "e"',
  'Range: bytes=0-1\r\nIf-Range: "other"',
];
const cases: readonly Case[] = [
  ...plain.map((path) => get(path)),
  ...plain.filter((path) => !path.startsWith('/used')).map((path) => get(path, '', 'HEAD')),
  ...ranges.flatMap((range) =>
    ['/file', '/text', '/blob', '/file-slice', '/file-status', '/file-lm', '/file-big', '/file-range-own'].map((path) =>
      get(path, `Range: ${range}\r\n`),
    ),
  ),
  get('/file-empty', 'Range: bytes=0-3\r\n'),
  get('/file', 'Range: bytes=0-3\r\n', 'HEAD'),
  ...conditions.flatMap((condition) => ['/file', '/etag-text', '/file-lm'].map((path) => get(path, `${condition}\r\n`))),
  ...['/text', '/stream-slow', '/empty', '/file', '/stream'].map((path) => get(path, 'Connection: close\r\n')),
  ...['/echo', '/echo-stream', '/echo-blob'].flatMap((path) => [
    send('POST', path, 'Content-Type: text/x\r\nContent-Length: 3\r\n', 'abc'),
    send('POST', path, 'Content-Length: 0\r\n', ''),
    send('PUT', path, 'Transfer-Encoding: chunked\r\n', '3\r\nabc\r\n0\r\n\r\n'),
    send('DELETE', path, 'Content-Length: 3\r\n', 'abc'),
  ]),
  send('POST', '/echo-form', 'Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 7\r\n', 'a=1&b=2'),
];

interface Difference {
  readonly id: string;
  /** Makes both the same where the difference applies. */
  readonly settle: (bun: Answer, ours: Answer, of: Case) => void;
}

const drop = (answer: Answer, ...names: readonly string[]): void => {
  for (const name of names) delete answer.headers[name];
};

/** Each has a row in docs/responses.md. */
const differences: readonly Difference[] = [
  {
    id: 'head-fields',
    settle(bun, ours, { isHead }) {
      if (!isHead) return;
      if (!('content-type' in bun.headers)) drop(ours, 'content-type');
      // A body that is empty, or a stream.
      if (!('content-length' in ours.headers)) drop(bun, 'content-length');
      drop(ours, 'transfer-encoding');
      drop(bun, 'transfer-encoding');
    },
  },
  {
    id: 'connection-close',
    settle(bun, ours) {
      if (!('connection' in bun.headers) && ours.headers.connection === 'close') drop(ours, 'connection');
    },
  },
  {
    id: 'keep-alive-fields',
    settle(bun, ours) {
      if ('keep-alive' in bun.headers && !('keep-alive' in ours.headers)) drop(bun, 'keep-alive', 'connection');
    },
  },
  {
    id: 'own-date',
    settle(bun, ours) {
      if (bun.headers.date?.includes('2015') && !ours.headers.date?.includes('2015')) drop(bun, 'date');
    },
  },
  {
    id: 'stream-framing',
    settle(bun, ours, { name }) {
      if (!/stream/.test(name) || bun.body !== ours.body) return;
      for (const answer of [bun, ours]) drop(answer, 'content-length', 'transfer-encoding');
    },
  },
  {
    id: 'events-unheld',
    settle(bun, ours) {
      if (ours.headers['content-type'] === 'text/event-stream' && !('x-accel-buffering' in bun.headers)) drop(ours, 'x-accel-buffering');
    },
  },
  {
    id: 'blob-type',
    settle(bun, ours, { name }) {
      if (/\/(?:blob|echo-blob|object|file-stream)/.test(name) && bun.headers['content-type'] === 'text/plain;charset=utf-8')
        for (const answer of [bun, ours]) drop(answer, 'content-type');
    },
  },
  {
    id: 'file-name',
    settle(bun, ours) {
      if (!('content-disposition' in ours.headers)) drop(bun, 'content-disposition');
    },
  },
  {
    id: 'file-slice',
    settle(bun, ours, { name }) {
      if (!/\/file-slice/.test(name) || bun.status !== '206 Partial Content' || !bun.headers['content-range']?.endsWith('/*')) return;
      // Ours is the whole of what the handler gives, or the part of it that was asked for.
      if (ours.status === '200 OK') bun.status = ours.status;
      else Object.assign(bun, structuredClone(ours));
      for (const answer of [bun, ours]) drop(answer, 'content-range', 'accept-ranges');
    },
  },
  {
    id: 'type-of-416',
    settle(bun, ours) {
      if (bun.status.startsWith('416') && !('content-type' in ours.headers)) drop(bun, 'content-type');
    },
  },
  {
    id: 'length-of-304',
    settle(bun, ours) {
      if (bun.status.startsWith('304') && ours.status === bun.status) drop(bun, 'content-length');
    },
  },
  {
    id: 'reason-phrase',
    settle(bun, ours) {
      const [, number, phrase] = /^(\d+) (.*)$/.exec(bun.status) ?? [];
      if ((phrase === 'HM' || number === '418') && ours.status === `${number} `) bun.status = ours.status;
    },
  },
  {
    id: 'no-response',
    settle(bun, ours, { name }) {
      const isNone = /\/(?:not-a-response|nothing)$/.test(name) && bun.status === '204 No Content';
      const is101 = name.endsWith('/status-101') && bun.status.startsWith('101');
      if ((isNone || is101) && ours.status === '500 Internal Server Error') Object.assign(bun, structuredClone(ours));
    },
  },
  {
    id: 'request-id',
    settle(_bun, ours) {
      if (ours.status.startsWith('500')) drop(ours, 'x-request-id');
    },
  },
];

let folder: string;
let gateway: Gateway;
let native: Bun.Subprocess<'ignore', 'pipe', 'inherit'>;
let nativePort: number;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'ringway-files-'));
  const files = {
    'small.txt': 'hello file',
    'big.txt': 'a'.repeat(300_000),
    'page.html': '<p>x</p>',
    'data.json': '{"a":1}',
    'empty.txt': '',
    'data.bin': '\0\x01\x02',
  };
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
  const config = `
    import { defineGateway } from 'ringway';
    import { handler } from '${join(import.meta.dir, 'bun-serve-handler.ts')}';
    export default defineGateway({ $OPTIONS, fetch: handler });
  `;
  gateway = await startGateway({ config, env: { TEST_FILES: folder } });
  native = Bun.spawn([process.execPath, join(import.meta.dir, 'bun-serve-native.ts')], {
    env: { ...process.env, TEST_FILES: folder },
    stdin: 'ignore',
    stdout: 'pipe',
    stderr: 'inherit',
  });
  let output = '';
  void (async () => {
    for await (const chunk of native.stdout) output += Buffer.from(chunk).toString();
  })();
  nativePort = Number((await eventually('Bun.serve listens', () => /port (\d+)/.exec(output)))[1]);
});
afterAll(async () => {
  native?.kill('SIGKILL');
  await native?.exited;
  await gateway?.stop();
  rmSync(folder, { recursive: true, force: true });
});

async function answerOf(port: number, { bytes, isHead }: Case): Promise<Answer> {
  const client = await RawClient.connect({ port });
  try {
    const { status, reason, headers, body }: RawResponse = await client.exchange(bytes, isHead ? 'HEAD' : 'GET');
    const fields = { ...headers };
    if (!fields.date?.includes('2015')) delete fields.date;
    const boundary = /boundary=(\S+)/.exec(fields['content-type'] ?? '')?.[1] ?? '\0';
    const settled = (text: string) => text.replaceAll(boundary, 'BOUNDARY');
    if (fields['content-type'] !== undefined) fields['content-type'] = settled(fields['content-type']);
    return { status: `${status} ${reason}`, headers: fields, body: settled(body.toString('latin1')) };
  } finally {
    client.destroy();
  }
}

test('every response is sent as Bun.serve sends it, but for what is declared', async () => {
  const used = new Set<string>();
  for (const each of cases) {
    const [bun, ours] = await Promise.all([answerOf(nativePort, each), answerOf(gateway.port, each)]);
    for (const { id, settle } of differences) {
      const before = JSON.stringify([bun, ours]);
      if (!Bun.deepEquals(bun, ours)) settle(bun, ours, each);
      if (JSON.stringify([bun, ours]) !== before) used.add(id);
    }
    expect({ of: each.name, ...ours }).toEqual({ of: each.name, ...bun });
  }
  expect([...used].sort()).toEqual(differences.map(({ id }) => id).sort());
});

test('HEAD has the fields of GET, where the handler does not stream', async () => {
  for (const path of [
    '/text',
    '/html',
    '/json',
    '/bytes',
    '/blob-typed',
    '/blob-big',
    '/file',
    '/file-big',
    '/file-typed',
    '/own-length-wrong',
    '/cookies',
    '/redirect-301',
  ]) {
    const [whole, head] = [await answerOf(gateway.port, get(path)), await answerOf(gateway.port, get(path, '', 'HEAD'))];
    // The handler of HEAD may have left the body out: an empty one tells no length.
    if (whole.headers['content-length'] === '0') drop(whole, 'content-length');
    expect({ path, ...head, body: '' }).toEqual({ path, ...whole, body: '' });
  }
});

test('a response that is streamed ends the connection when its handler says so', async () => {
  const answer = await answerOf(gateway.port, get('/stream-close'));
  expect([answer.headers.connection, answer.body]).toEqual(['close', 'ab']);
});

test('each difference is told in the docs, and no other', () => {
  const page = readFileSync(join(import.meta.dir, '..', '..', 'docs', 'responses.md'), 'utf8');
  const told = [...page.matchAll(/^\| `([a-z0-9-]+)` \|/gm)].map((match) => match[1]);
  expect(told.sort()).toEqual(differences.map(({ id }) => id).sort());
});
