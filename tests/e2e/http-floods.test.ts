/** Floods and noise: what is no request, too much of one, or too many at once costs its sender, and nobody else. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test';
import { connect as connectTls } from 'node:tls';
import { eventually } from '../support/eventually.ts';
import { forEachBackend, type Gateway, startGateway } from '../support/gateway.ts';
import { parseAll, RawClient } from '../support/raw-client.ts';

// Only to end a test that hangs: `eventually` says more, and sooner.
setDefaultTimeout(60_000);

const config = `
  import { defineGateway } from 'ringway';
  const state = { calls: 0, release: () => {} };
  export default defineGateway({
    $OPTIONS,
    http: { maxHeadBytes: 4096, maxTargetBytes: 256, maxHeaders: 50 },
    websocket: { '/ws': { message(socket, message) { socket.send(message); } } },
    async fetch(request) {
      const { pathname } = new URL(request.url);
      if (pathname === '/calls') { const { calls } = state; state.calls = 0; return new Response(String(calls)); }
      if (pathname === '/well') return new Response('well');
      if (pathname === '/held') { await new Promise((resolve) => { state.release = resolve; }); return new Response('held'); }
      if (pathname === '/release') { state.release(); return new Response('released'); }
      if (pathname.startsWith('/nr/')) return new Response(pathname.slice(4));
      state.calls++;
      return new Response('read ' + (await request.text()).length);
    },
  });
`;

const get = (target: string, more = '') => `GET ${target} HTTP/1.1\r\nHost: a\r\n${more}\r\n`;
const handshake =
  'Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n';

forEachBackend('floods and noise', (backend) => {
  let gateway: Gateway;
  beforeAll(async () => {
    gateway = await startGateway({ config, backend });
  });
  afterAll(() => gateway.stop());
  const connect = () => RawClient.connect(gateway);
  const calls = async () => Number(await (await fetch(`${gateway.url}/calls`)).text());
  const isWell = async () => expect(await (await fetch(`${gateway.url}/well`)).text()).toBe('well');

  test('floods in the head are refused, and cost nobody else anything', async () => {
    const floods: readonly [string, number[]][] = [
      [`GET / HTTP/1.1\r\nHost: a\r\n${'A: b\r\n'.repeat(10_000)}\r\n`, [431]],
      [`GET / HTTP/1.1\r\nHost: a\r\n${'n'.repeat(100_000)}: b\r\n\r\n`, [431]],
      [`GET /${'t'.repeat(100_000)} HTTP/1.1\r\nHost: a\r\n\r\n`, [414]],
      [`${'G'.repeat(100_000)} / HTTP/1.1\r\n\r\n`, [400, 414]],
      ['\r\n'.repeat(50_000), [400]],
    ];
    for (const [bytes, allowed] of floods) {
      const client = await connect();
      client.write(bytes);
      const responses = parseAll(await client.closed());
      // the rest of the flood may meet a socket that is closed, and then the reset outruns the answer
      expect(responses.length).toBeLessThanOrEqual(1);
      for (const { status } of responses) expect(allowed).toContain(status);
      await isWell();
    }
    expect(await calls()).toBe(0);
  });

  test('a head of one byte a segment is served, or refused at the limit', async () => {
    const client = await connect();
    for (const byte of get('/nr/1', `X: ${'y'.repeat(500)}\r\n`)) {
      client.write(byte);
      if (Math.random() < 0.1) await Bun.sleep(0);
    }
    expect((await client.response()).text).toBe('1');
    client.destroy();
    const long = await connect();
    for (let i = 0; i < 6000 && !long.isClosed; i++) {
      long.write(i < 16 ? 'GET / HTTP/1.1\r\n'.charAt(i) : 'x');
      if (i % 50 === 0) await Bun.sleep(0);
    }
    for (const { status } of parseAll(await long.closed())) expect([431, 408]).toContain(status);
    await isWell();
  });

  test('10,000 pipelined requests wait in bounded memory behind a response that is held back, and keep their order', async () => {
    const client = await connect();
    const before = await gateway.metric('ringway_received_bytes_total');
    const padding = `X: ${'p'.repeat(400)}\r\n`;
    client.write(get('/held') + Array.from({ length: 10_000 }, (_, id) => get(`/nr/${id}`, padding)).join(''));
    let last = -1;
    const received = await eventually('receiving stops', async () => {
      await Bun.sleep(200);
      const now = (await gateway.metric('ringway_received_bytes_total')) - before;
      const same = now === last && now > 0;
      last = now;
      return same && now;
    });
    // 4.4 MB were written; what is held back is about 16 KiB, and what was received before the pause reached the kernel
    expect(received).toBeLessThan(2_000_000);
    await isWell();
    expect(await (await fetch(`${gateway.url}/release`)).text()).toBe('released');
    expect((await client.response()).text).toBe('held');
    const expected = Array.from({ length: 10_000 }, (_, id) => String(id));
    await eventually('all answers', () => client.received.includes(`\r\n\r\n${expected.at(-1)}`), 60_000);
    expect(parseAll(client.received).map(({ text }) => text)).toEqual(expected);
    client.destroy();
  }, 60_000);

  test('bytes that are no HTTP get 400 or a close', async () => {
    const random = new Uint8Array(4096);
    const junk: Uint8Array[] = [
      new Uint8Array(4096),
      Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
      Buffer.from('{"json":true}\r\n\r\n'),
    ];
    for (let i = 0; i < 40; i++) junk.push(crypto.getRandomValues(random).slice());
    for (const bytes of junk) {
      const client = await connect();
      client.write(bytes);
      for (const { status } of parseAll(await client.closed())) expect([400, 408, 414, 431, 505]).toContain(status);
    }
    await isWell();
    expect(await calls()).toBe(0);
  }, 60_000);

  test('TLS to a plain port is answered with 400', async () => {
    const error = await new Promise<Error>((resolve, reject) => {
      const socket = connectTls({ port: gateway.port, host: '127.0.0.1', rejectUnauthorized: false });
      socket.on('error', resolve);
      socket.on('secureConnect', () => reject(new Error('TLS was spoken')));
    });
    expect(error).toBeInstanceOf(Error);
    const client = await connect();
    client.write('\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03');
    expect(parseAll(await client.closed()).map(({ status }) => status)).toEqual([400]);
    await isWell();
  });

  test('garbage after an upgrade ends the WebSocket and nothing else', async () => {
    for (const garbage of ['\xff'.repeat(500), '\0'.repeat(500), get('/smuggled')]) {
      const client = await connect();
      client.write(get('/ws', handshake));
      expect((await client.response()).status).toBe(101);
      client.write(garbage);
      const frames = await client.closed();
      // one close frame, 1002 (RFC 6455 §5.1: an unmasked frame, or reserved bits)
      expect([frames[0], frames.readUInt16BE(2)]).toEqual([0x88, 1002]);
    }
    await isWell();
    expect(await calls()).toBe(0);
  });
});
