/** HTTP/1.1 as clients use it: persistent connections, pipelining, methods, forms of the target, old versions, bodiless answers. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test';
import { type IncomingMessage, request as nodeRequest } from 'node:http';
import { Client } from '../../node_modules/undici/index.js';
import { forEachBackend, type Gateway, startGateway } from '../support/gateway.ts';
import { RawClient } from '../support/raw-client.ts';

// Only to end a test that hangs: `eventually` says more, and sooner.
setDefaultTimeout(60_000);

const config = `
  import { Hono } from 'hono';
  import { defineGateway } from 'ringway';
  const app = new Hono();
  app.get('/sync/:id', (c) => c.text('sync ' + c.req.param('id')));
  app.get('/async/:id', async (c) => {
    await Bun.sleep(Number(c.req.query('ms') ?? 0));
    return c.text('async ' + c.req.param('id'));
  });
  app.get('/status/:code', (c) => new Response(null, { status: Number(c.req.param('code')), headers: { 'x-code': 'yes' } }));
  app.get('/text-with/:code', (c) => new Response('not to be sent', { status: 200 + Number(c.req.param('code')) - 200 }));
  app.get('/stream', () => new Response(new ReadableStream({
    async start(controller) {
      for (const part of ['one', 'two', 'three']) { controller.enqueue(part); await Bun.sleep(5); }
      controller.close();
    },
  })));
  app.post('/text', async (c) => c.text('got ' + (await c.req.text())));
  app.post('/unread', (c) => c.text('not read'));
  app.all('*', (c) => c.json({ method: c.req.method, url: c.req.url, raw: c.req.raw.url, host: c.req.header('host') ?? null }));
  export default defineGateway({ $OPTIONS, fetch: app });
`;

forEachBackend('HTTP', (backend) => {
  let gateway: Gateway;
  beforeAll(async () => {
    gateway = await startGateway({ config, backend });
  });
  afterAll(() => gateway.stop());
  const connect = () => RawClient.connect(gateway);
  const get = (target: string, more = '') => `GET ${target} HTTP/1.1\r\nHost: a\r\n${more}\r\n`;

  test('a connection serves request after request', async () => {
    const client = await connect();
    for (let id = 0; id < 50; id++) {
      const response = await client.exchange(get(`/${id % 2 ? 'sync' : 'async'}/${id}`));
      expect([response.status, response.text]).toEqual([200, `${id % 2 ? 'sync' : 'async'} ${id}`]);
      expect(response.headers.connection).toBeUndefined();
    }
    client.destroy();
  });

  test('pipelined requests are answered in order, slow and fast handlers mixed', async () => {
    const client = await connect();
    const targets = Array.from({ length: 200 }, (_, id) => (id % 3 === 0 ? `/async/${id}?ms=${id % 4}` : `/sync/${id}`));
    client.write(targets.map((target) => get(target)).join(''));
    for (const [id] of targets.entries()) expect((await client.response()).text).toBe(`${id % 3 === 0 ? 'async' : 'sync'} ${id}`);
    client.destroy();
  });

  test('pipelined requests with bodies are told apart, sized and chunked', async () => {
    const client = await connect();
    const sized = (text: string) => `POST /text HTTP/1.1\r\nHost: a\r\nContent-Length: ${text.length}\r\n\r\n${text}`;
    const chunked = (text: string) =>
      `POST /text HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n${[...text].map((c) => `1\r\n${c}\r\n`).join('')}0\r\n\r\n`;
    const unread = `POST /unread HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nwaste`;
    client.write(sized('first') + chunked('second') + unread + sized('third') + get('/sync/last'));
    const texts: string[] = [];
    for (let i = 0; i < 5; i++) texts.push((await client.response()).text);
    expect(texts).toEqual(['got first', 'got second', 'not read', 'got third', 'sync last']);
    client.destroy();
  });

  test('a request that comes byte by byte is one request', async () => {
    const client = await connect();
    const bytes = `POST /text HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Trailer: t\r\n\r\n${get('/sync/next')}`;
    for (const byte of bytes) {
      client.write(byte);
      await Bun.sleep(0);
    }
    expect((await client.response()).text).toBe('got abc');
    expect((await client.response()).text).toBe('sync next');
    client.destroy();
  });

  test('undici, with pipelining, gets every answer to its request', async () => {
    const client = new Client(gateway.url, { pipelining: 8 });
    const texts = await Promise.all(
      Array.from({ length: 100 }, async (_, id) => {
        const { statusCode, body } = await client.request({ path: `/${id % 2 ? 'sync' : 'async'}/${id}`, method: 'GET' });
        return `${statusCode} ${await body.text()}`;
      }),
    );
    expect(texts).toEqual(Array.from({ length: 100 }, (_, id) => `200 ${id % 2 ? 'sync' : 'async'} ${id}`));
    await client.close();
  });

  test('node:http reads a streamed answer', async () => {
    const text = await new Promise<string>((resolve, reject) => {
      nodeRequest(`${gateway.url}/stream`, (response: IncomingMessage) => {
        let collected = '';
        response.on('data', (chunk) => {
          collected += chunk;
        });
        response.on('end', () => resolve(`${response.headers['transfer-encoding']} ${collected}`));
      })
        .on('error', reject)
        .end();
    });
    expect(text).toBe('chunked onetwothree');
  });

  test('curl speaks HTTP/1.1 with it, several requests on one connection', async () => {
    const child = Bun.spawn([
      'curl',
      '-s',
      '-w',
      '%{http_code} %{http_version} %{num_connects}\n',
      `${gateway.url}/sync/1`,
      `${gateway.url}/sync/2`,
    ]);
    expect(await new Response(child.stdout).text()).toBe('sync 1200 1.1 1\nsync 2200 1.1 0\n');
  });

  test('HEAD has the fields of GET and no body', async () => {
    const client = await connect();
    const response = await client.exchange('HEAD /sync/abc HTTP/1.1\r\nHost: a\r\n\r\n', 'HEAD');
    expect([response.status, response.headers['content-length'], response.body.length]).toEqual([200, '8', 0]);
    // a streamed one: its length is not known, and its body is not sent
    const streamed = await client.exchange('HEAD /stream HTTP/1.1\r\nHost: a\r\n\r\n', 'HEAD');
    expect([streamed.status, streamed.body.length]).toEqual([200, 0]);
    expect((await client.exchange(get('/sync/after'))).text).toBe('sync after');
    client.destroy();
  });

  test('every response has the date, as RFC 9110 writes it', async () => {
    const client = await connect();
    for (const target of ['/sync/1', '/status/204', '/stream', '/nothing']) {
      const { date = '' } = (await client.exchange(get(target))).headers;
      expect(date).toMatch(
        /^(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) \d{4} \d\d:\d\d:\d\d GMT$/,
      );
      expect(Math.abs(Date.parse(date) - Date.now())).toBeLessThan(60_000);
    }
    client.destroy();
  });

  test('204 and 304 have no body and leave the connection usable', async () => {
    const client = await connect();
    for (const code of [204, 304]) {
      const response = await client.exchange(get(`/status/${code}`));
      expect([
        response.status,
        response.headers['content-length'],
        response.headers['transfer-encoding'],
        response.headers['x-code'],
      ]).toEqual([code, undefined, undefined, 'yes']);
    }
    expect((await client.exchange(get('/sync/after'))).text).toBe('sync after');
    expect(client.received.length).toBe(0);
    client.destroy();
  });

  test('an absolute-form target says what the host is', async () => {
    const client = await connect();
    const response = await client.exchange(`GET http://example.com:81/a/b?c=d HTTP/1.1\r\nHost: example.com:81\r\n\r\n`);
    expect(JSON.parse(response.text)).toMatchObject({ method: 'GET', url: 'http://example.com:81/a/b?c=d' });
    const bare = await client.exchange('GET http://example.com HTTP/1.1\r\nHost: example.com\r\n\r\n');
    expect(JSON.parse(bare.text)).toMatchObject({ url: 'http://example.com/' });
    client.destroy();
  });

  test('OPTIONS * reaches the handler', async () => {
    const client = await connect();
    const response = await client.exchange('OPTIONS * HTTP/1.1\r\nHost: example.com\r\n\r\n');
    expect(JSON.parse(response.text)).toMatchObject({ method: 'OPTIONS', url: 'http://example.com/*' });
    client.destroy();
  });

  test('any method reaches app.all', async () => {
    const client = await connect();
    for (const method of ['GET', 'PUT', 'DELETE', 'PATCH', 'TRACE', 'OPTIONS', 'PROPFIND', 'M-SEARCH']) {
      const response = await client.exchange(`${method} /any HTTP/1.1\r\nHost: a\r\n\r\n`);
      expect(JSON.parse(response.text)).toMatchObject({ method, url: 'http://a/any' });
    }
    client.destroy();
  });

  test('HTTP/1.0 closes after the answer, unless asked to keep the connection', async () => {
    const closing = await connect();
    expect((await closing.exchange('GET /sync/1 HTTP/1.0\r\n\r\n')).headers.connection).toBe('close');
    expect((await closing.closed()).length).toBe(0);
    const keeping = await connect();
    for (const id of [1, 2]) {
      const response = await keeping.exchange(`GET /sync/${id} HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n`);
      expect([response.text, response.headers.connection]).toEqual([`sync ${id}`, 'keep-alive']);
    }
    keeping.destroy();
  });

  test('HTTP/1.0 gets a streamed body without chunks, ended by the close', async () => {
    const client = await connect();
    const response = await client.exchange('GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n');
    expect([response.headers['transfer-encoding'], response.headers.connection, response.text]).toEqual([
      undefined,
      'close',
      'onetwothree',
    ]);
    await client.closed();
  });

  test('Connection: close is obeyed, and what follows is not served', async () => {
    const client = await connect();
    client.write(get('/sync/1', 'Connection: close\r\n') + get('/sync/2'));
    const response = await client.response();
    expect([response.text, response.headers.connection]).toEqual(['sync 1', 'close']);
    expect((await client.closed()).length).toBe(0);
  });

  test('a client that sends its request and half-closes gets its answer', async () => {
    for (const target of ['/sync/1', '/async/1', '/async/1?ms=100', '/async/1?ms=2500', '/stream']) {
      const client = await connect();
      client.write(get(target));
      client.end();
      const response = await client.response();
      expect(response.text).toBe(target === '/stream' ? 'onetwothree' : target.startsWith('/sync') ? 'sync 1' : 'async 1');
      await client.closed();
    }
  });

  test('a client that pipelines and half-closes gets all its answers', async () => {
    const client = await connect();
    client.write(Array.from({ length: 20 }, (_, id) => get(id % 2 ? `/sync/${id}` : `/async/${id}?ms=1`)).join(''));
    client.end();
    for (let id = 0; id < 20; id++) expect((await client.response()).text).toBe(`${id % 2 ? 'sync' : 'async'} ${id}`);
    expect((await client.closed()).length).toBe(0);
  });

  test('trailers are skipped, whatever they are', async () => {
    const client = await connect();
    client.write(
      'POST /text HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 1\r\nX-Other: 2\r\n\r\n',
    );
    client.write(get('/sync/2'));
    expect((await client.response()).text).toBe('got hi');
    expect((await client.response()).text).toBe('sync 2');
    client.destroy();
  });
});
