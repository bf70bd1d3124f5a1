import { afterAll, beforeAll, expect, test } from 'bun:test';
import { Hono } from 'hono';
import { getConnInfo as getConnInfoForBun } from 'hono/bun';
import { proxy } from 'hono/proxy';
import { streamSSE } from 'hono/streaming';
import type { RingwayBindings } from '../../../../src/api/bindings.ts';
import { getConnInfo, installLightGlobals } from '../../../../src/frontend/hono/index.ts';
import { FakeCore, flags, settle } from '../../../support/fake-core.ts';
import { makeSampleApp } from '../../../support/sample-app.ts';

let restore: () => void;
let core: FakeCore;
beforeAll(() => {
  restore = installLightGlobals();
  core = new FakeCore(makeSampleApp().app.fetch);
});
afterAll(() => {
  restore();
  expect([core.errors, core.frontend.pending]).toEqual([[], 0]);
});

test('c.text is sent in one piece before onRequest returns', () => {
  const answer = core.request('/hello');
  expect([answer.state, answer.header('content-type'), answer.text()]).toEqual([
    'complete',
    'text/plain;charset=utf-8',
    'Hello from Ringway',
  ]);
});

test('compress encodes, and leaves alone what the client cannot read', async () => {
  const packed = await core.exchange('/compress/text', { headers: { 'accept-encoding': 'gzip' } });
  expect([packed.header('content-encoding'), packed.header('vary')]).toEqual(['gzip', 'Accept-Encoding']);
  expect(Buffer.from(Bun.gunzipSync(new Uint8Array(Buffer.concat(packed.chunks)))).toString()).toBe('compress me '.repeat(200));
  const plain = await core.exchange('/compress/text');
  expect([plain.header('content-encoding'), plain.text()]).toEqual([null, 'compress me '.repeat(200)]);
});

test('etag answers 304 to a client that has it', async () => {
  const first = await core.exchange('/etag/text');
  const etag = first.header('etag') as string;
  expect(first.text()).toBe('tagged');
  const second = await core.exchange('/etag/text', { headers: { 'if-none-match': etag } });
  expect([second.status, second.text(), second.header('etag')]).toEqual([304, '', etag]);
});

test('cors answers preflights and marks responses', async () => {
  const preflight = await core.exchange('/cors/x', {
    method: 'OPTIONS',
    headers: { origin: 'http://a.example', 'access-control-request-method': 'PUT' },
  });
  expect([preflight.status, preflight.header('access-control-allow-methods'), preflight.header('access-control-max-age')]).toEqual([
    204,
    'PUT',
    '60',
  ]);
  expect((await core.exchange('/cors/x', { headers: { origin: 'http://a.example' } })).header('access-control-allow-origin')).toBe(
    'http://a.example',
  );
});

test.each([
  ['/bearer/x', 'Bearer sesame'],
  ['/basic/x', `Basic ${btoa('u:p')}`],
])('%s lets in who may come in', async (target, authorization) => {
  expect((await core.exchange(target)).status).toBe(401);
  expect((await core.exchange(target, { headers: { authorization } })).text()).toBe('in');
});

test('bodyLimit refuses with and without a length, before the whole body is there', async () => {
  const options = { method: 'POST', flags: flags.hasBody } as const;
  const sized = await core.exchange('/limited', { ...options, headers: { 'content-length': '11' } });
  expect(sized.status).toBe(413);
  const chunked = core.request('/limited', { ...options, headers: { 'transfer-encoding': 'chunked' } });
  core.body(chunked, 'much too long', false);
  await chunked.done;
  expect(chunked.status).toBe(413);
  const short = await core.exchange('/limited', { method: 'POST', body: ['sh', 'ort'], headers: { 'transfer-encoding': 'chunked' } });
  expect([short.status, short.text()]).toEqual([200, 'short']);
});

test('timeout answers 504', async () => {
  expect((await core.exchange('/slow')).status).toBe(504);
});

test('serveStatic sends files, and 404 for what is not there', async () => {
  const file = await core.exchange('/static/package.json');
  expect([file.text(), file.header('content-type')]).toEqual([await Bun.file('package.json').text(), 'application/json']);
  expect((await core.exchange('/static/missing')).status).toBe(404);
});

test('changes to c.res after next() are sent', async () => {
  const answer = await core.exchange('/after/json?pretty');
  expect([answer.header('cache-control'), answer.header('vary'), answer.header('x-powered-by'), answer.text()]).toEqual([
    'no-store',
    'Accept, Origin',
    'Hono',
    '{\n  "a": [\n    1\n  ]\n}',
  ]);
});

test('several cookies are several fields', async () => {
  const answer = await core.exchange('/cookies', { headers: { cookie: 'in=x; other=y' } });
  expect(answer.headers.filter(([name]) => name === 'set-cookie').length).toBe(4);
  expect(answer.text()).toBe('{"in":"x","other":"y"}');
});

test('a HEAD request has the length that GET has', async () => {
  const answer = await core.exchange('/hello', { method: 'HEAD' });
  expect([answer.status, answer.text(), answer.header('content-length')]).toEqual([200, '', '18']);
});

test('server-sent events go out as they are written, and stop when the client leaves', async () => {
  let aborted = false;
  let written = 0;
  const app = new Hono().get('/sse', (c) =>
    streamSSE(c, async (sse) => {
      sse.onAbort(() => {
        aborted = true;
      });
      while (!sse.aborted) {
        written += 1;
        await sse.writeSSE({ data: `${written}` });
        await sse.sleep(1);
      }
    }),
  );
  const fake = new FakeCore(app.fetch);
  const answer = fake.request('/sse');
  while (answer.chunks.length < 3) await Bun.sleep(1);
  expect([answer.header('content-type'), answer.length, answer.text().startsWith('data: 1\n\ndata: 2\n\n')]).toEqual([
    'text/event-stream',
    -1,
    true,
  ]);
  fake.leave(answer);
  await settle();
  expect([aborted, fake.frontend.pending, fake.errors.length]).toEqual([true, 0, 0]);
  await Bun.sleep(5);
  const before = written;
  await Bun.sleep(5);
  expect(written).toBe(before);
});

test('the proxy helper passes requests and responses on', async () => {
  using origin = Bun.serve({
    port: 0,
    fetch: async (request) =>
      new Response(`${request.method} ${await request.text()}`, {
        headers: { 'X-Origin': request.headers.get('x-forwarded-for') ?? '', 'Set-Cookie': 'a=b' },
      }),
  });
  const app = new Hono();
  app.all('/raw', (c) => proxy(`${origin.url}`, c.req.raw as Request & { json(): Promise<unknown> }));
  app.all('/picked', (c) => proxy(`${origin.url}`, { ...c.req, headers: { 'X-Forwarded-For': '192.0.2.1' } }));
  const fake = new FakeCore(app.fetch);
  for (const target of ['/raw', '/picked']) {
    const answer = await fake.exchange(target, { method: 'POST', body: ['one', 'two'], headers: { 'content-type': 'text/plain' } });
    expect([target, answer.status, answer.text(), answer.header('set-cookie')]).toEqual([target, 200, 'POST onetwo', 'a=b']);
  }
  expect(fake.errors).toEqual([]);
});

test('c.env and getConnInfo know the client, through hono/bun as well', async () => {
  const app = new Hono<{ Bindings: RingwayBindings }>();
  app.get('/env', (c) => c.json([c.env.ip(), c.env.listener, c.env.upgrade(c.req.raw, { data: { events: {} } })]));
  app.get('/info', (c) => c.json([getConnInfo(c), getConnInfoForBun(c)]));
  const fake = new FakeCore(app.fetch);
  expect(JSON.parse((await fake.exchange('/env', { listener: 3 })).text())).toEqual([{ address: '192.0.2.7', port: 4711 }, 3, false]);
  const remote = { address: '192.0.2.7', addressType: 'IPv4', port: 4711 };
  expect(JSON.parse((await fake.exchange('/info')).text())).toEqual([{ remote: { ...remote, transport: 'tcp' } }, { remote }]);
  fake.address = { address: '2001:db8::1', port: 1 };
  expect(JSON.parse((await fake.exchange('/info')).text())[0].remote.addressType).toBe('IPv6');
  // As a header of a trusted proxy tells it.
  fake.address = { address: '192.0.2.8', port: 0 };
  expect(JSON.parse((await fake.exchange('/info')).text())[0]).toEqual({
    remote: { address: '192.0.2.8', addressType: 'IPv4', transport: 'tcp' },
  });
  fake.address = undefined;
  expect(JSON.parse((await fake.exchange('/info')).text())).toEqual([{ remote: {} }, { remote: {} }]);
});
