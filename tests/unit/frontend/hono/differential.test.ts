import { expect, test } from 'bun:test';
import { createHash } from 'node:crypto';
import { connect } from 'node:net';
import { unzipSync } from 'node:zlib';
import { installLightGlobals } from '../../../../src/frontend/hono/index.ts';
import { FakeCore, type RequestOptions } from '../../../support/fake-core.ts';
import { makeSampleApp } from '../../../support/sample-app.ts';

type Case = [target: string, options?: Omit<RequestOptions, 'flags'> & { chunked?: boolean }];

const multipart = [
  '--B',
  'Content-Disposition: form-data; name="a"',
  '',
  '1',
  '--B',
  'Content-Disposition: form-data; name="f"; filename="x.txt"',
  'Content-Type: text/plain',
  '',
  'file é',
  '--B--',
  '',
].join('\r\n');
const form = { 'content-type': 'application/x-www-form-urlencoded' };
const json = { 'content-type': 'application/json' };
const tag = `"${createHash('sha1').update('tagged').digest('hex')}"`;

const cases: Case[] = [
  ['/hello'],
  ['/hello', { method: 'HEAD' }],
  ['/json'],
  ['/html'],
  ['/raw'],
  ['/bytes'],
  ['/empty'],
  ['/created'],
  ['/redirect'],
  ['/headers'],
  ['/late-header'],
  ['/params/a%20b/x/y?q=1&q=%C3%A9', { headers: { 'user-agent': 'test' } }],
  ['/a/../params/1/%2E%2e?q=<>'],
  ['/not-found'],
  ['/nowhere'],
  ['/hello', { method: 'DELETE' }],
  ['/throws'],
  ['/fails'],
  ['/rejects'],
  ['/echo', { method: 'POST', body: 'echo é', headers: { 'content-type': 'text/x' } }],
  ['/echo', { method: 'POST', body: ['in ', 'chunks'], chunked: true }],
  ['/text', { method: 'POST', body: 'text' }],
  ['/text', { method: 'POST' }],
  ['/parse', { method: 'POST', body: 'a=1&b=2&b=3', headers: form }],
  ['/parse', { method: 'POST', body: multipart, headers: { 'content-type': 'multipart/form-data; boundary=B' } }],
  [
    '/parse',
    {
      method: 'POST',
      body: [multipart.slice(0, 40), multipart.slice(40)],
      headers: { 'content-type': 'multipart/form-data; boundary=B' },
      chunked: true,
    },
  ],
  ['/validated', { method: 'POST', body: '{"name":"n"}', headers: json }],
  ['/validated', { method: 'POST', body: '{"name":1}', headers: json }],
  ['/validated', { method: 'POST', body: '{bad', headers: json }],
  ['/form', { method: 'POST', body: 'a=1', headers: form }],
  ['/clone', { method: 'POST', body: 'cloned' }],
  ['/twice', { method: 'POST', body: 'once' }],
  ['/cors/x', { method: 'OPTIONS', headers: { origin: 'http://a.example', 'access-control-request-method': 'PUT' } }],
  ['/cors/x', { headers: { origin: 'http://a.example' } }],
  ['/etag/text'],
  ['/etag/text', { headers: { 'if-none-match': tag } }],
  ['/etag/json'],
  ['/compress/html', { headers: { 'accept-encoding': 'gzip' } }],
  ['/compress/html', { headers: { 'accept-encoding': 'deflate' } }],
  ['/compress/html'],
  ['/bearer/x'],
  ['/bearer/x', { headers: { authorization: 'Bearer sesame' } }],
  ['/bearer/x', { headers: { authorization: 'Bearer wrong' } }],
  ['/basic/x'],
  ['/basic/x', { headers: { authorization: `Basic ${btoa('u:p')}` } }],
  ['/limited', { method: 'POST', body: 'short' }],
  ['/limited', { method: 'POST', body: ['sh', 'ort'], chunked: true }],
  ['/limited', { method: 'POST', body: 'much too long' }],
  ['/limited', { method: 'POST', body: ['much too ', 'long'], chunked: true }],
  ['/slow'],
  ['/log/x'],
  ['/static/package.json'],
  ['/static/missing.txt'],
  ['/secure/x'],
  ['/cookies', { headers: { cookie: 'in=x; other=y' } }],
  ['/csrf/x', { method: 'POST', body: 'a=1', headers: { ...form, origin: 'http://evil' } }],
  ['/csrf/x', { method: 'POST', body: 'a=1', headers: { ...form, origin: 'http://localhost' } }],
  ['/after/json?pretty'],
  ['/after/stream'],
  ['/replace/x'],
  ['/override', { method: 'POST', body: '_method=DELETE', headers: form }],
  ['/sse'],
  ['/stream'],
  ['/stream-text'],
  ['/body-stream'],
  ['/mounted/deep/x?y', { method: 'POST', body: 'to the mounted' }],
  ['/mounted/deep'],
  ['/sub/y'],
  ['/sub/fails'],
  ['/after/json', { method: 'HEAD' }],
  ['/stream', { method: 'HEAD' }],
];

interface Answer {
  status: number;
  headers: Record<string, string>;
  body: string;
}

/** Fields that are the server's own affair: framing and Date. */
const ownAffairs = new Set(['date', 'connection', 'keep-alive', 'transfer-encoding', 'content-length']);

function comparable(status: number, fields: [string, string][], body: Buffer): Answer {
  const headers: Record<string, string[]> = {};
  for (const [name, value] of fields) {
    const lower = name.toLowerCase();
    if (!ownAffairs.has(lower)) headers[lower] = [...(headers[lower] ?? []), value];
  }
  const encoding = headers['content-encoding']?.[0];
  const combined = Object.entries(headers).map(([name, values]) => [
    name,
    name === 'set-cookie' ? values.sort().join('\n') : values.join(', '),
  ]);
  return {
    status,
    headers: Object.fromEntries(combined.sort()),
    body: (encoding !== undefined && body.length > 0 ? unzipSync(body) : body).toString(),
  };
}

function requestFields(options: NonNullable<Case[1]>): [string, string][] {
  const fields = Object.entries(options.headers ?? {}) as [string, string][];
  const parts = [options.body ?? []].flat();
  if (options.chunked) fields.push(['transfer-encoding', 'chunked']);
  else if (options.body !== undefined) fields.push(['content-length', String(Buffer.byteLength(parts.join('')))]);
  return fields;
}

/** One request over a socket, read until the server closes: a client that shows the bytes as they are. */
async function overSocket(port: number, target: string, options: NonNullable<Case[1]>): Promise<Answer> {
  const method = options.method ?? 'GET';
  const parts = [options.body ?? []].flat() as string[];
  const lines = [
    `${method} ${target} HTTP/1.1`,
    'host: localhost',
    'connection: close',
    ...requestFields(options).map(([name, value]) => `${name}: ${value}`),
  ];
  const content = options.chunked
    ? `${parts.map((part) => `${Buffer.byteLength(part).toString(16)}\r\n${part}\r\n`).join('')}0\r\n\r\n`
    : parts.join('');
  const received: Buffer[] = [];
  await new Promise<void>((resolve, reject) => {
    const socket = connect(port, '127.0.0.1', () => socket.write(`${lines.join('\r\n')}\r\n\r\n${content}`));
    socket.on('data', (bytes: Buffer) => void received.push(bytes));
    socket.on('close', () => resolve());
    socket.on('error', reject);
  });
  const all = Buffer.concat(received);
  const headEnd = all.indexOf('\r\n\r\n');
  const [statusLine = '', ...fieldLines] = all.subarray(0, headEnd).toString('latin1').split('\r\n');
  const fields = fieldLines.map((line): [string, string] => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1).trim()]);
  const body = all.subarray(headEnd + 4);
  const chunked = fields.some(([name, value]) => name.toLowerCase() === 'transfer-encoding' && value === 'chunked');
  return comparable(Number(statusLine.split(' ')[1]), fields, chunked ? unchunk(body) : body);
}

function unchunk(bytes: Buffer): Buffer {
  const parts: Buffer[] = [];
  for (let at = 0; at < bytes.length; ) {
    const lineEnd = bytes.indexOf('\r\n', at);
    const size = Number.parseInt(bytes.subarray(at, lineEnd).toString(), 16);
    if (!(size > 0)) break;
    parts.push(bytes.subarray(lineEnd + 2, lineEnd + 2 + size));
    at = lineEnd + 2 + size + 2;
  }
  return Buffer.concat(parts);
}

async function throughFrontend(core: FakeCore, target: string, options: NonNullable<Case[1]>): Promise<Answer> {
  const answer = await core.exchange(target, {
    ...options,
    host: 'localhost',
    headers: [['connection', 'close'], ...requestFields(options)],
  });
  expect(answer.state).toBe('complete');
  return comparable(answer.status, answer.headers, Buffer.concat(answer.chunks));
}

/**
 * Where we answer otherwise than Bun.serve, on purpose:
 * a response that middleware wrapped again loses, natively, what its untyped body was; HEAD has the fields that GET has; a stream of events is
 * not to be held back by proxies.
 */
function allowed(target: string, options: NonNullable<Case[1]>, bun: Answer, ours: Answer): void {
  const type = 'content-type';
  if (bun.headers[type] === 'application/octet-stream' && ours.headers[type] === 'text/plain;charset=utf-8') {
    delete bun.headers[type];
    delete ours.headers[type];
  }
  if (options.method === 'HEAD' && bun.headers[type] === undefined && target === '/hello') delete ours.headers[type];
  if (ours.headers[type] === 'text/event-stream' && ours.headers['x-accel-buffering'] === 'no') delete ours.headers['x-accel-buffering'];
}

test(`a Hono application answers ${cases.length} requests as it does under Bun.serve, with and without our globals`, async () => {
  const expected: Answer[] = [];
  {
    const { app } = makeSampleApp();
    using server = Bun.serve({ port: 0, fetch: app.fetch });
    for (const [target, options = {}] of cases) expected.push(await overSocket(server.port as number, target, options));
  }
  const { app, log } = makeSampleApp();
  const core = new FakeCore(app.fetch);
  const differences: unknown[] = [];
  const compare = async (light: boolean) => {
    for (const [index, [target, options = {}]] of cases.entries()) {
      const bun = structuredClone(expected[index] as Answer);
      const ours = await throughFrontend(core, target, options);
      allowed(target, options, bun, ours);
      // a native response does not tell what its untyped body is
      if (!light && ours.headers['content-type'] === undefined) delete bun.headers['content-type'];
      if (!Bun.deepEquals(ours, bun)) differences.push({ light, target, options, bun, ours });
    }
  };
  await compare(false);
  const restore = installLightGlobals();
  try {
    await compare(true);
  } finally {
    restore();
  }
  expect(differences).toEqual([]);
  expect(log).toEqual(['<-- GET /log/x', '--> GET /log/x 200', '<-- GET /log/x', '--> GET /log/x 200']);
  // Hono answers these by itself: the status is all that is known of them.
  const failed = core.errors.map(({ error, context }) => [error, context.where, new URL(context.url).pathname]);
  const twice = ['/fails', '/sub/fails', '/fails', '/sub/fails'].map((path) => [undefined, 'answer', path]);
  expect([core.frontend.pending, failed]).toEqual([0, twice]);
});
