/** Limits and deadlines: each has its status, closes its connection, reaches no handler, and leaves every other client alone. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test';
import { eventually } from '../support/eventually.ts';
import { forEachBackend, type Gateway, startGateway } from '../support/gateway.ts';
import { parseAll, RawClient } from '../support/raw-client.ts';

// Only to end a test that hangs: `eventually` says more, and sooner.
setDefaultTimeout(60_000);

const config = `
  import { defineGateway } from 'ringway';
  const state = { calls: 0 };
  export default defineGateway({
    $OPTIONS,
    http: { headTimeout: 1, bodyTimeout: 1, keepAliveTimeout: 5, writeTimeout: 1, maxHeadBytes: 4096, maxTargetBytes: 256, maxHeaders: 50, maxBodyBytes: 100000 },
    websocket: { '/ws': { message(socket, message) { socket.send(message); } } },
    async fetch(request) {
      const { pathname } = new URL(request.url);
      if (pathname === '/calls') { const { calls } = state; state.calls = 0; return new Response(String(calls)); }
      if (pathname === '/well') return new Response('well');
      if (pathname === '/flood') return new Response(new ReadableStream({ pull(controller) { controller.enqueue(new Uint8Array(65536)); } }));
      state.calls++;
      return new Response('read ' + (await request.text()).length);
    },
  });
`;

const get = (target: string, more = '') => `GET ${target} HTTP/1.1\r\nHost: a\r\n${more}\r\n`;
const post = (more: string) => `POST /x HTTP/1.1\r\nHost: a\r\n${more}\r\n`;
const handshake = 'Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n';

const refusals: readonly [name: string, status: number, bytes: string][] = [
  ['no Host', 400, 'GET / HTTP/1.1\r\n\r\n'],
  ['a Host that no URL can have', 400, 'GET / HTTP/1.1\r\nHost: a b\r\n\r\n'],
  ['a body longer than the limit', 413, post('Content-Length: 100001\r\n')],
  ['a target longer than the limit', 414, get(`/${'x'.repeat(300)}`)],
  ['a target without an end', 414, `GET /${'x'.repeat(5000)}`],
  ['a WebSocket version of the future', 426, get('/ws', `${handshake}Sec-WebSocket-Version: 14\r\n`)],
  ['a head longer than the limit', 431, get('/', `X: ${'y'.repeat(5000)}\r\n`)],
  ['more fields than the limit', 431, get('/', 'X: y\r\n'.repeat(50))],
  ['a coding that is not implemented', 501, post('Transfer-Encoding: gzip, chunked\r\n')],
  ['a version that is not spoken', 505, 'GET / HTTP/2.0\r\nHost: a\r\n\r\n'],
];

forEachBackend('HTTP limits', (backend) => {
  let gateway: Gateway;
  beforeAll(async () => {
    gateway = await startGateway({ config, backend });
  });
  afterAll(() => gateway.stop());
  const connect = () => RawClient.connect(gateway);
  const calls = async () => Number(await (await fetch(`${gateway.url}/calls`)).text());

  for (const [name, status, bytes] of refusals) {
    test(`${name} is answered with ${status}, and the connection closes`, async () => {
      const errors = await gateway.metric('ringway_http_responses_total', { status: `${Math.floor(status / 100)}xx` });
      const client = await connect();
      client.write(bytes + get('/next'));
      const responses = parseAll(await client.closed());
      expect(responses.map((response) => [response.status, response.headers.connection])).toEqual([
        [status, status === 426 ? 'Upgrade, close' : 'close'],
      ]);
      if (status === 426) expect(responses[0]?.headers).toMatchObject({ upgrade: 'websocket', 'sec-websocket-version': '13' });
      expect(await calls()).toBe(0);
      expect(await gateway.metric('ringway_http_responses_total', { status: `${Math.floor(status / 100)}xx` })).toBeGreaterThan(errors);
    });
  }

  test('a chunked body longer than the limit is answered with 413 where it passes it', async () => {
    const client = await connect();
    client.write(post('Transfer-Encoding: chunked\r\n'));
    for (let i = 0; i < 30 && !client.isClosed; i++) client.write(`1000\r\n${'z'.repeat(4096)}\r\n`);
    const responses = parseAll(await client.closed());
    expect(responses.map(({ status }) => status)).toEqual([413]);
    await calls();
  });

  test('a head that does not end in time is answered with 408', async () => {
    const client = await connect();
    client.write('GET / HTTP/1.1\r\nHost');
    expect(parseAll(await client.closed()).map(({ status, headers }) => [status, headers.connection])).toEqual([[408, 'close']]);
  });

  test('a body that stalls is answered with 408', async () => {
    const client = await connect();
    client.write(`${post('Content-Length: 10\r\n')}12345`);
    expect(parseAll(await client.closed()).map(({ status, headers }) => [status, headers.connection])).toEqual([[408, 'close']]);
    await calls();
  });

  test('a body that comes little by little for longer than the body timeout is read whole', async () => {
    const client = await connect();
    client.write(post('Content-Length: 2160\r\nConnection: close\r\n'));
    for (let at = 0; at < 24; at++) {
      client.write('b'.repeat(90));
      await Bun.sleep(100);
    }
    expect(parseAll(await client.closed()).map(({ status, text }) => [status, text])).toEqual([[200, 'read 2160']]);
    await calls();
  });

  test('a connection on which nothing comes is closed without a word, new or used', async () => {
    const fresh = await connect();
    const used = await connect();
    expect((await used.exchange(get('/well'))).status).toBe(200);
    const idle = await gateway.metric('ringway_timeouts_total', { kind: 'idle' });
    expect([(await fresh.closed()).length, (await used.closed()).length]).toEqual([0, 0]);
    await eventually('they are counted', async () => (await gateway.metric('ringway_timeouts_total', { kind: 'idle' })) >= idle + 2);
  });

  test('a client that takes nothing of its response is cut off, and counted', async () => {
    const client = await connect();
    client.socket.pause();
    const before = await gateway.metric('ringway_timeouts_total', { kind: 'write' });
    client.write(get('/flood'));
    await eventually('the write timeout', async () => (await gateway.metric('ringway_timeouts_total', { kind: 'write' })) === before + 1);
    client.destroy();
  });

  test('hundreds of clients that send a byte at a time are reaped; others are served all the while', async () => {
    const heads = await Promise.all(Array.from({ length: 150 }, connect));
    const bodies = await Promise.all(Array.from({ length: 150 }, connect));
    for (const client of bodies) client.write(post('Content-Length: 5000\r\n'));
    let served = 0;
    const keepAlive = await connect();
    for (let at = 0; [...heads, ...bodies].some((client) => !client.isClosed); at++) {
      for (const client of heads) if (!client.isClosed) client.write(get('/slow', `X: ${'y'.repeat(3000)}\r\n`).charAt(at));
      for (const client of bodies) if (!client.isClosed) client.write('b');
      expect((await keepAlive.exchange(get('/well'))).text).toBe('well');
      served++;
      await Bun.sleep(20);
      expect(at).toBeLessThan(2000);
    }
    for (const client of [...heads, ...bodies]) {
      // a byte written after the server's close may have turned it into a reset, which takes the response with it
      const responses = parseAll(await client.closed());
      expect(responses.map(({ status }) => status).filter((status) => status !== 408)).toEqual([]);
    }
    keepAlive.destroy();
    expect(served).toBeGreaterThan(10);
    expect(await calls()).toBe(150);
    await eventually('all have left', async () => (await gateway.metric('ringway_connections', { protocol: 'http' })) <= 2);
  }, 60_000);
});
