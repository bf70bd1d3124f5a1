/** Bodies, both ways: whole, streamed, larger than any buffer, and held back by whichever side is slow. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test';
import { createHash, randomFillSync } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { Client, request } from '../../node_modules/undici/index.js';
import { eventually } from '../support/eventually.ts';
import { forEachBackend, type Gateway, startGateway } from '../support/gateway.ts';
import { RawClient } from '../support/raw-client.ts';

// Only to end a test that hangs: `eventually` says more, and sooner.
setDefaultTimeout(60_000);

const config = `
  import { createHash } from 'node:crypto';
  import { Hono } from 'hono';
  import { serveStatic } from 'hono/bun';
  import { defineGateway } from 'ringway';
  const app = new Hono();
  const hash = (bytes) => createHash('sha256').update(bytes).digest('hex');
  app.post('/echo', (c) => new Response(c.req.raw.body, { headers: { 'content-type': c.req.header('content-type') ?? 'application/octet-stream' } }));
  app.post('/whole', async (c) => c.text(hash(new Uint8Array(await c.req.arrayBuffer()))));
  app.post('/parts', async (c) => {
    const sum = createHash('sha256');
    for await (const part of c.req.raw.body) sum.update(part);
    return c.text(sum.digest('hex'));
  });
  const state = { produced: 0, release: () => {}, calls: 0 };
  app.get('/state', (c) => c.json({ produced: state.produced, calls: state.calls }));
  app.get('/release', (c) => { state.release(); return c.text('released'); });
  app.post('/held', async (c) => {
    const reader = c.req.raw.body.getReader();
    const sum = createHash('sha256');
    const released = new Promise((resolve) => { state.release = resolve; });
    sum.update((await reader.read()).value);
    await released;
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return c.text(sum.digest('hex'));
      sum.update(value);
    }
  });
  app.get('/produce/:mib', (c) => {
    state.produced = 0;
    let left = Number(c.req.param('mib')) * 16;
    return new Response(new ReadableStream({
      pull(controller) {
        if (left-- === 0) return controller.close();
        state.produced += 65536;
        controller.enqueue(new Uint8Array(65536).fill(left));
      },
    }));
  });
  app.post('/secret', (c) => c.text('who are you?', 401));
  app.post('/counted', async (c) => { state.calls++; return c.text(await c.req.text()); });
  app.get('/file', () => new Response(Bun.file(process.env.TEST_FOLDER + '/large.bin')));
  app.use('/static/*', serveStatic({ root: process.env.TEST_FOLDER, rewriteRequestPath: (path) => path.replace('/static', '') }));
  export default defineGateway({ $OPTIONS, fetch: app, http: { maxBodyBytes: 40 * 1024 * 1024 } });
`;

const mebibyte = 1024 * 1024;
const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');

forEachBackend('HTTP bodies', (backend) => {
  let gateway: Gateway;
  let folder: string;
  const payload = randomFillSync(Buffer.alloc(20 * mebibyte));
  const file = randomFillSync(Buffer.alloc(32 * mebibyte));
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'ringway-bodies-'));
    writeFileSync(join(folder, 'large.bin'), file);
    gateway = await startGateway({ config, backend, env: { TEST_FOLDER: folder } });
  });
  afterAll(async () => {
    await gateway.stop();
    rmSync(folder, { recursive: true, force: true });
  });
  const state = async () => (await (await fetch(`${gateway.url}/state`)).json()) as { produced: number; calls: number };
  /** Wait until a number has stopped moving. ret: where */
  const settled = async (read: () => Promise<number>) => {
    let last = -1;
    let same = 0;
    return await eventually('it comes to rest', async () => {
      const now = await read();
      same = now === last && now > 0 ? same + 1 : 0;
      last = now;
      await Bun.sleep(20);
      return same >= 15 ? now : 0;
    });
  };

  for (const size of [0, 1, 1000, 65536, 262144, 262145, 3 * mebibyte, 20 * mebibyte]) {
    test(`a body of ${size} bytes arrives unchanged, sized and chunked, read whole and in parts`, async () => {
      const body = payload.subarray(0, size);
      const expected = sha256(body);
      for (const path of ['/whole', '/parts']) {
        // as in Bun.serve, a request with nothing in it has no stream to read
        if (size === 0 && path === '/parts') continue;
        const sized = await request(gateway.url + path, { method: 'POST', body });
        expect(await sized.body.text()).toBe(expected);
        if (size === 0) continue;
        const chunks = Array.from({ length: Math.ceil(size / 50_000) }, (_, i) => body.subarray(i * 50_000, (i + 1) * 50_000));
        const chunked = await request(gateway.url + path, { method: 'POST', body: Readable.from(chunks) });
        expect(await chunked.body.text()).toBe(expected);
      }
    });
  }

  test('POST /echo gives 20 MiB back while they arrive, with its type', async () => {
    const chunks = Array.from({ length: 320 }, (_, i) => payload.subarray(i * 65536, (i + 1) * 65536));
    const { statusCode, headers, body } = await request(`${gateway.url}/echo`, {
      method: 'POST',
      headers: { 'content-type': 'video/x-test' },
      body: Readable.from(chunks),
    });
    expect([statusCode, headers['content-type']]).toEqual([200, 'video/x-test']);
    expect(sha256(new Uint8Array(await body.arrayBuffer()))).toBe(sha256(payload));
  });

  test('an echo answers what has come before the rest is sent', async () => {
    const client = await RawClient.connect(gateway);
    client.write('POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n');
    await eventually('the first part comes back', () => client.received.includes('first'));
    client.write('6\r\nsecond\r\n0\r\n\r\n');
    expect((await client.response()).text).toBe('firstsecond');
    client.destroy();
  });

  test('curl uploads and downloads 20 MiB unchanged', async () => {
    const child = Bun.spawn(
      ['curl', '-s', '--data-binary', '@-', '-H', 'content-type: a/b', '-o', join(folder, 'back.bin'), `${gateway.url}/echo`],
      {
        stdin: payload,
      },
    );
    expect(await child.exited).toBe(0);
    expect(sha256(await Bun.file(join(folder, 'back.bin')).bytes())).toBe(sha256(payload));
  });

  test('a client that does not read holds the stream back, and loses nothing when it reads on', async () => {
    const client = await RawClient.connect(gateway);
    client.socket.pause();
    client.write('GET /produce/100 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n');
    const produced = await settled(async () => (await state()).produced);
    // the sockets' own buffers, ours, and the high-water mark; 100 MiB would come without backpressure
    expect(produced).toBeLessThan(48 * mebibyte);
    client.socket.resume();
    await eventually('all of it arrives', () => client.receivedBytes >= 100 * mebibyte, 60_000);
    const response = await client.response();
    expect(response.body.length).toBe(100 * mebibyte);
    expect([0, 1, 1599].map((i) => response.body[i * 65536])).toEqual([1599, 1598, 0].map((left) => left & 0xff));
  });

  test('a handler that does not read holds the client back, and loses nothing when it reads on', async () => {
    const body = payload;
    const before = await gateway.metric('ringway_received_bytes_total');
    const client = new Client(gateway.url);
    const answer = client.request({ path: '/held', method: 'POST', body });
    const received = (await settled(async () => (await gateway.metric('ringway_received_bytes_total')) - before)) as number;
    // the window is 256 KiB, and what was received before the pause reached the kernel
    expect(received).toBeLessThan(8 * mebibyte);
    expect(await (await fetch(`${gateway.url}/release`)).text()).toBe('released');
    expect(await (await answer).body.text()).toBe(sha256(body));
    await client.close();
  });

  test('Expect: 100-continue is answered before the body, by raw bytes and by curl', async () => {
    const client = await RawClient.connect(gateway);
    const interim = await client.exchange('POST /counted HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n');
    expect([interim.status, interim.headers]).toEqual([100, {}]);
    expect((await client.exchange('hello')).text).toBe('hello');
    client.destroy();
    const child = Bun.spawn(['curl', '-sv', '-H', 'Expect: 100-continue', '--data-binary', '@-', `${gateway.url}/whole`], {
      stdin: payload,
      stderr: 'pipe',
    });
    const [answer, log] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
    expect(answer).toBe(sha256(payload));
    expect(log).toContain('< HTTP/1.1 100 Continue');
  });

  test('a body that comes without waiting gets no 100', async () => {
    const client = await RawClient.connect(gateway);
    const response = await client.exchange('POST /counted HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello');
    expect([response.status, response.text]).toEqual([200, 'hello']);
    client.destroy();
  });

  test('a handler that refuses at once spares the client its body: no 100, and the connection closes', async () => {
    const client = await RawClient.connect(gateway);
    const response = await client.exchange('POST /secret HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n');
    expect([response.status, response.headers.connection]).toEqual([401, 'close']);
    expect((await client.closed()).length).toBe(0);
  });

  test('a body announced as too long is refused with 413, without 100 and without the handler', async () => {
    const { calls } = await state();
    const client = await RawClient.connect(gateway);
    const response = await client.exchange(
      `POST /counted HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: ${40 * mebibyte + 1}\r\n\r\n`,
    );
    expect([response.status, response.headers.connection]).toEqual([413, 'close']);
    expect((await client.closed()).length).toBe(0);
    expect((await state()).calls).toBe(calls);
    const child = Bun.spawn(['curl', '-s', '-o', '/dev/null', '-w', '%{http_code}', '--data-binary', '@-', `${gateway.url}/counted`], {
      stdin: Buffer.alloc(41 * mebibyte),
    });
    expect(await new Response(child.stdout).text()).toBe('413');
  });

  test('an expectation without a body to wait for gets no 100', async () => {
    const client = await RawClient.connect(gateway);
    const response = await client.exchange('POST /counted HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n');
    expect(response.status).toBe(200);
    client.destroy();
  });

  test('a body that nobody reads is skipped, and the connection serves on', async () => {
    const client = await RawClient.connect(gateway);
    const body = payload.subarray(0, 700_000);
    client.write(`POST /secret HTTP/1.1\r\nHost: a\r\nContent-Length: ${body.length}\r\n\r\n`);
    client.write(body);
    expect((await client.response()).status).toBe(401);
    expect((await client.exchange('POST /counted HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi')).text).toBe('hi');
    client.destroy();
  });

  test('a large file is streamed with its length, to fast and slow clients', async () => {
    for (const path of ['/file', '/static/large.bin']) {
      const response = await fetch(gateway.url + path);
      expect(sha256(await response.bytes())).toBe(sha256(file));
    }
    const head = await fetch(`${gateway.url}/file`, { method: 'HEAD' });
    expect(head.headers.get('content-length')).toBe(String(file.length));
    const slow = Bun.spawn(['curl', '-s', '--limit-rate', '16M', '-o', join(folder, 'slow.bin'), `${gateway.url}/file`]);
    expect(await slow.exited).toBe(0);
    expect(sha256(await Bun.file(join(folder, 'slow.bin')).bytes())).toBe(sha256(file));
  }, 30_000);
});
