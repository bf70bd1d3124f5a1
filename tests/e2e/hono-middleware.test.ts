/** Hono's own middleware and helpers, unmodified, in a gateway that runs: asked by clients that are not ours. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { brotliDecompressSync, gunzipSync } from 'node:zlib';
import { EventSource, request } from '../../node_modules/undici/index.js';
import { eventually } from '../support/eventually.ts';
import { forEachBackend, type Gateway, startGateway } from '../support/gateway.ts';
import { RawClient } from '../support/raw-client.ts';

// Only to end a test that hangs: `eventually` says more, and sooner.
setDefaultTimeout(60_000);

const config = `
  import { Hono } from 'hono';
  import { basicAuth } from 'hono/basic-auth';
  import { bearerAuth } from 'hono/bearer-auth';
  import { bodyLimit } from 'hono/body-limit';
  import { serveStatic } from 'hono/bun';
  import { compress } from 'hono/compress';
  import { getCookie, setCookie } from 'hono/cookie';
  import { cors } from 'hono/cors';
  import { etag } from 'hono/etag';
  import { HTTPException } from 'hono/http-exception';
  import { logger } from 'hono/logger';
  import { requestId } from 'hono/request-id';
  import { secureHeaders } from 'hono/secure-headers';
  import { stream, streamSSE, streamText } from 'hono/streaming';
  import { timeout } from 'hono/timeout';
  import { defineGateway, getConnInfo } from 'ringway';
  const text = 'compress me '.repeat(1000);
  const app = new Hono();
  app.use('/logged/*', logger((line) => process.stdout.write('LOGGER ' + Bun.stripANSI(line) + '\\n')));
  app.get('/logged/x', (c) => c.text('logged'));
  app.use('/compressed/*', compress());
  app.get('/compressed/text', (c) => c.text(text));
  app.get('/compressed/stream', (c) => streamText(c, async (out) => { for (let i = 0; i < 20; i++) { await out.write(text); await out.sleep(1); } }));
  app.use('/cors/*', cors({ origin: 'http://a.example', allowMethods: ['PUT'], credentials: true, maxAge: 60 }));
  app.all('/cors/x', (c) => c.text('cors'));
  app.use('/etag/*', etag());
  app.get('/etag/text', (c) => c.text('tagged'));
  app.use('/bearer/*', bearerAuth({ token: 'sesame' }));
  app.all('/bearer/x', (c) => c.text('in'));
  app.use('/basic/*', basicAuth({ username: 'u', password: 'p' }));
  app.get('/basic/x', (c) => c.text('in'));
  app.post('/limited', bodyLimit({ maxSize: 1000 }), async (c) => c.text('got ' + (await c.req.text()).length));
  app.get('/timeout', timeout(50), async (c) => { await Bun.sleep(60_000); return c.text('too late'); });
  app.get('/secure', secureHeaders(), requestId(), (c) => c.text('secure'));
  app.use('/static/*', serveStatic({ root: process.env.TEST_FOLDER, rewriteRequestPath: (path) => path.replace('/static', '') }));
  app.get('/cookie', (c) => { setCookie(c, 'a', '1', { httpOnly: true }); setCookie(c, 'b', '2'); return c.json(getCookie(c)); });
  app.get('/env', (c) => c.json({ keys: typeof c.env.ip, listener: c.env.listener, ip: c.env.ip(), info: getConnInfo(c) }));
  app.get('/sse', (c) => streamSSE(c, async (out) => {
    for (let id = 1; id <= 3; id++) { await out.writeSSE({ event: 'tick', id: String(id), data: 'line one\\nline ' + id }); await out.sleep(2); }
    await new Promise((resolve) => out.onAbort(resolve));
  }));
  app.get('/stream', (c) => stream(c, async (out) => { await out.write(new Uint8Array([1, 2, 3])); await out.write(new Uint8Array([4])); }));
  app.get('/exception', () => { throw new HTTPException(418, { message: 'teapot' }); });
  app.post('/form', async (c) => {
    const body = await c.req.parseBody();
    return c.json({ name: body.name, file: body.file.name, size: body.file.size });
  });
  app.get('/redirect', (c) => c.redirect('/logged/x'));
  app.all('*', (c) => c.text('caught ' + c.req.method + ' ' + c.req.path));
  export default defineGateway({ $OPTIONS, fetch: app });
`;

const text = 'compress me '.repeat(1000);

forEachBackend('Hono', (backend) => {
  let gateway: Gateway;
  let folder: string;
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'ringway-static-'));
    writeFileSync(join(folder, 'page.html'), '<h1>static</h1>');
    writeFileSync(join(folder, 'script.js'), 'export {};');
    gateway = await startGateway({ config, backend, env: { TEST_FOLDER: folder } });
  });
  afterAll(async () => {
    await gateway.stop();
    rmSync(folder, { recursive: true, force: true });
  });
  const get = (path: string, headers: Record<string, string> = {}) => request(gateway.url + path, { headers });

  test('compress sends gzip to those who accept it, whole and streamed', async () => {
    const packed = await get('/compressed/text', { 'accept-encoding': 'gzip' });
    expect([packed.headers['content-encoding'], gunzipSync(await packed.body.bytes()).toString()]).toEqual(['gzip', text]);
    const streamed = await get('/compressed/stream', { 'accept-encoding': 'gzip' });
    const bytes = await streamed.body.bytes();
    const decode =
      streamed.headers['content-encoding'] === 'gzip'
        ? gunzipSync
        : streamed.headers['content-encoding'] === 'br'
          ? brotliDecompressSync
          : Buffer.from;
    expect(decode(bytes).toString()).toBe(text.repeat(20));
    const plain = await get('/compressed/text');
    expect([plain.headers['content-encoding'], await plain.body.text()]).toEqual([undefined, text]);
  });

  test('curl decodes what compress encodes', async () => {
    const child = Bun.spawn(['curl', '-s', '--compressed', `${gateway.url}/compressed/text`]);
    expect(await new Response(child.stdout).text()).toBe(text);
  });

  test('cors answers preflights and marks answers', async () => {
    const preflight = await request(`${gateway.url}/cors/x`, {
      method: 'OPTIONS',
      headers: { origin: 'http://a.example', 'access-control-request-method': 'PUT' },
    });
    expect([preflight.statusCode, preflight.headers['access-control-allow-methods'], preflight.headers['access-control-max-age']]).toEqual([
      204,
      'PUT',
      '60',
    ]);
    const { headers } = await get('/cors/x', { origin: 'http://a.example' });
    expect([headers['access-control-allow-origin'], headers['access-control-allow-credentials']]).toEqual(['http://a.example', 'true']);
  });

  test('etag answers 304 to those who have it', async () => {
    const first = await get('/etag/text');
    expect(await first.body.text()).toBe('tagged');
    const again = await get('/etag/text', { 'if-none-match': first.headers.etag as string });
    expect([again.statusCode, await again.body.text(), again.headers.etag]).toEqual([304, '', first.headers.etag]);
  });

  test('bearerAuth and basicAuth let in who they should', async () => {
    expect((await get('/bearer/x')).statusCode).toBe(401);
    expect((await get('/bearer/x', { authorization: 'Bearer guess' })).statusCode).toBe(401);
    expect(await (await get('/bearer/x', { authorization: 'Bearer sesame' })).body.text()).toBe('in');
    expect((await get('/basic/x')).headers['www-authenticate']).toContain('Basic');
    expect(await (await get('/basic/x', { authorization: `Basic ${btoa('u:p')}` })).body.text()).toBe('in');
  });

  test('bearerAuth refuses an upload before it is sent', async () => {
    const client = await RawClient.connect(gateway);
    const response = await client.exchange('POST /bearer/x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 100\r\n\r\n');
    expect(response.status).toBe(401);
    client.destroy();
  });

  test('bodyLimit refuses what is too long, announced or not', async () => {
    const post = (body: string | ReadableStream) => fetch(`${gateway.url}/limited`, { method: 'POST', body });
    expect(await (await post('x'.repeat(1000))).text()).toBe('got 1000');
    expect((await post('x'.repeat(1001))).status).toBe(413);
    const client = await RawClient.connect(gateway);
    const chunk = `200\r\n${'x'.repeat(512)}\r\n`;
    expect(
      (await client.exchange(`POST /limited HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n${chunk}${chunk}${chunk}0\r\n\r\n`))
        .status,
    ).toBe(413);
    client.destroy();
  });

  test('timeout answers 504', async () => {
    const response = await get('/timeout');
    expect([response.statusCode, await response.body.text()]).toEqual([504, 'Gateway Timeout']);
  });

  test('logger writes a line for the request and one for the response', async () => {
    await (await get('/logged/x')).body.text();
    await eventually('both lines', () => /LOGGER <-- GET \/logged\/x\n[\s\S]*LOGGER --> GET \/logged\/x 200/.test(gateway.output()));
  });

  test('secureHeaders and requestId add their fields', async () => {
    const { headers } = await get('/secure');
    expect([headers['x-content-type-options'], typeof headers['x-request-id']]).toEqual(['nosniff', 'string']);
  });

  test('serveStatic serves files with their types, and nothing outside its folder', async () => {
    const page = await get('/static/page.html');
    expect([page.headers['content-type'], await page.body.text()]).toEqual(['text/html; charset=utf-8', '<h1>static</h1>']);
    expect((await get('/static/script.js')).headers['content-type']).toContain('text/javascript');
    const missing = await get('/static/none.html');
    expect(await missing.body.text()).toBe('caught GET /static/none.html');
    for (const target of ['/static/../../etc/passwd', '/static/%2e%2e/%2e%2e/etc/passwd', '/static/..%2f..%2fetc/passwd']) {
      const client = await RawClient.connect(gateway);
      const response = await client.exchange(`GET ${target} HTTP/1.1\r\nHost: a\r\n\r\n`);
      expect(response.text).not.toContain('root:');
      client.destroy();
    }
  });

  test('cookies, forms, redirects, exceptions and byte streams work as documented', async () => {
    const cookies = await get('/cookie', { cookie: 'x=1; y=2' });
    expect(cookies.headers['set-cookie']).toEqual(['a=1; Path=/; HttpOnly', 'b=2; Path=/']);
    expect(await cookies.body.json()).toEqual({ x: '1', y: '2' });
    const form = new FormData();
    form.set('name', 'é');
    form.set('file', new File(['0123456789'], 'ten.txt'));
    const posted = await fetch(`${gateway.url}/form`, { method: 'POST', body: form });
    expect(await posted.json()).toEqual({ name: 'é', file: 'ten.txt', size: 10 });
    expect(await (await fetch(`${gateway.url}/redirect`)).text()).toBe('logged');
    expect((await get('/exception')).statusCode).toBe(418);
    expect([...(await (await get('/stream')).body.bytes())]).toEqual([1, 2, 3, 4]);
  });

  test("app.all('*') catches every path and method", async () => {
    for (const method of ['GET', 'POST', 'DELETE', 'OPTIONS'] as const) {
      const { body } = await request(`${gateway.url}/a/b?c`, { method });
      expect(await body.text()).toBe(`caught ${method} /a/b`);
    }
  });

  test('c.env and getConnInfo know the client', async () => {
    const client = await RawClient.connect(gateway);
    const port = client.socket.localPort as number;
    const answer = JSON.parse((await client.exchange('GET /env HTTP/1.1\r\nHost: a\r\n\r\n')).text);
    expect(answer).toEqual({
      keys: 'function',
      listener: 0,
      ip: { address: '127.0.0.1', port },
      info: { remote: { address: '127.0.0.1', addressType: 'IPv4', port, transport: 'tcp' } },
    });
    client.destroy();
  });

  test('streamSSE is understood by an EventSource', async () => {
    const source = new EventSource(`${gateway.url}/sse`);
    const events: string[] = [];
    source.addEventListener('tick', (event) => {
      const { lastEventId, data } = event as MessageEvent;
      events.push(`${lastEventId} ${data}`);
    });
    await eventually('three events', () => events.length >= 3);
    source.close();
    expect(events.slice(0, 3)).toEqual(['1 line one\nline 1', '2 line one\nline 2', '3 line one\nline 3']);
  });
});
