import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test';
import { connect as dial } from 'node:net';
import { frame, handshake, handshakeKey, opcode } from '../support/frames.mjs';
import { forEachBackend, type Gateway, startGateway } from '../support/gateway.ts';
import { acceptOf, Wire } from '../support/wire.ts';

// Only ends a test that has failed: nothing here is measured in time.
setDefaultTimeout(60_000);

const config = `
import { Hono } from 'hono';
import { defineGateway, upgradeWebSocket } from 'ringway';

const later = () => new Promise((resolve) => setTimeout(resolve, 5));
const say = (value) => ({ open: (socket) => void socket.send(JSON.stringify(value(socket))) });
const decided = say((socket) => socket.data ?? null);
const waiting = new Map();

const app = new Hono();
app.get('/hono/:room', upgradeWebSocket((c) => ({
  onMessage: (event, ws) => ws.send(c.req.param('room') + ':' + event.data),
}), { protocol: ['v2', 'v1'] }));
app.get('/release', (c) => {
  for (const release of waiting.values()) release();
  return c.text(String(waiting.size));
});
app.all('*', (c) => c.text('http ' + c.req.method + ' ' + c.req.path));

export default defineGateway({
  $OPTIONS,
  fetch: app,
  websocket: {
    '/': say(() => 'root'),
    '/echo': { message: (socket, message) => void socket.send(message) },
    '/protocols': { ...say((socket) => socket.protocol), protocols: ['chat.v2', 'chat.v1'] },
    '/any': { ...decided, origins: 'any' },
    '/same': { ...decided, origins: 'same-host' },
    '/list': { ...decided, origins: ['https://app.example', 'http://localhost:3000'] },
    '/data': { ...decided, upgrade: (request) => ({ path: new URL(request.url).pathname, cookie: request.headers.get('cookie') }) },
    '/refuse': { ...decided, upgrade: () => new Response('no entry', { status: 401, headers: { 'x-why': 'token' } }) },
    '/redirect': { ...decided, upgrade: () => new Response(null, { status: 307, headers: { location: '/echo' } }) },
    '/success': { ...decided, upgrade: () => new Response('fine') },
    '/async': { ...decided, async upgrade() { await later(); return { came: 'later' }; } },
    '/async-refuse': { ...decided, async upgrade() { await later(); return Response.json({ error: 'full' }, { status: 503 }); } },
    '/throws': { ...decided, upgrade() { throw new Error('upgrade went wrong'); } },
    '/rejects': { ...decided, async upgrade() { await later(); throw new Error('upgrade went wrong later'); } },
    '/held': { ...say((socket) => socket.data), upgrade: (request) => new Promise((resolve) => {
      waiting.set(request.headers.get('x-name'), () => resolve({ name: request.headers.get('x-name') }));
    }) },
    '/room/:name/:part': say((socket) => socket.params),
    '/files/*': say((socket) => socket.params),
    '/member/:name': { ...decided, upgrade: (_, client) => ({ asked: client.params }) },
    '/member': { ...decided, upgrade: (_, client) => ({ asked: client.params }) },
  },
});
`;

/** Send bytes, take everything until the server closes. */
function exchange(port: number, bytes: string): Promise<string> {
  return new Promise((resolve) => {
    let answer = '';
    const socket = dial({ port, host: '127.0.0.1' }, () => socket.write(bytes));
    socket.on('data', (chunk) => {
      answer += chunk.toString('latin1');
    });
    socket.on('error', () => resolve(answer));
    socket.on('close', () => resolve(answer));
  });
}

/** The JSON that a route of `say` sends first. */
async function said(port: number, path: string, fields: Record<string, string | undefined> = {}): Promise<unknown> {
  const wire = await Wire.open(port, path, fields);
  const first = await wire.frame();
  wire.destroy();
  return JSON.parse(String(first?.payload));
}

async function answerTo(port: number, head: string): Promise<{ status: number; head: string }> {
  const wire = await Wire.connect(port);
  wire.write(head);
  const answer = await wire.head();
  wire.destroy();
  return { status: Number(answer.split(' ')[1]), head: answer };
}

forEachBackend('the opening handshake', (backend) => {
  let gateway: Gateway;
  beforeAll(async () => {
    gateway = await startGateway({ backend, config });
  });
  afterAll(() => gateway?.stop());

  test('is answered as RFC 6455 §4.2.2 says', async () => {
    const { head } = await answerTo(gateway.port, handshake('/echo'));
    expect(head).toStartWith('HTTP/1.1 101 Switching Protocols\r\n');
    expect(head).toMatch(/\r\nUpgrade: websocket\r\n/i);
    expect(head).toMatch(/\r\nConnection: Upgrade\r\n/i);
    expect(head).toContain(`: ${acceptOf(handshakeKey)}\r\n`);
    expect(head).not.toMatch(/content-length|transfer-encoding|sec-websocket-protocol|sec-websocket-extensions/i);
  });

  test('takes the tokens in any case, and among others', async () => {
    for (const fields of [{ Upgrade: 'WebSocket' }, { Connection: 'keep-alive, upgrade' }]) {
      expect((await answerTo(gateway.port, handshake('/echo', fields))).status).toBe(101);
    }
  });

  test('is refused with 400 and the connection closed when it is malformed', async () => {
    const before = await gateway.metric('ringway_websocket_upgrades_refused_total', { reason: 'handshake' });
    const malformed = {
      'no key': handshake('/echo', { 'Sec-WebSocket-Key': undefined }),
      'a key of 15 bytes': handshake('/echo', { 'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25j' }),
      'a key that is not base64': handshake('/echo', { 'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZ*==' }),
      'no version': handshake('/echo', { 'Sec-WebSocket-Version': undefined }),
      'POST instead of GET': handshake('/echo', {}, 'POST /echo HTTP/1.1'),
      'a body': `${handshake('/echo', { 'Content-Length': '5' })}hello`,
      'a chunked body': `${handshake('/echo', { 'Transfer-Encoding': 'chunked' })}0\r\n\r\n`,
    };
    for (const [what, head] of Object.entries(malformed)) {
      const answer = await exchange(gateway.port, head);
      expect(`${what}: ${answer.split('\r\n')[0]}`).toMatch(/: HTTP\/1\.1 400 /);
      expect(answer).toMatch(/\r\nConnection: close\r\n/i);
    }
    const after = await gateway.metric('ringway_websocket_upgrades_refused_total', { reason: 'handshake' });
    expect(after - before).toBe(Object.keys(malformed).length);
    const twoKeys = handshake('/echo').replace('\r\n\r\n', `\r\nSec-WebSocket-Key: ${handshakeKey}\r\n\r\n`);
    expect(await exchange(gateway.port, twoKeys)).toStartWith('HTTP/1.1 400 ');
  });

  test('of another version gets 426 and the version that is spoken', async () => {
    for (const version of ['8', '0', '14', '13, 8']) {
      const { status, head } = await answerTo(gateway.port, handshake('/echo', { 'Sec-WebSocket-Version': version }));
      expect([version, status]).toEqual([version, 426]);
      expect(head).toMatch(/\r\nSec-WebSocket-Version: 13\r\n/i);
    }
  });

  test('is none with HTTP/1.0, or without Connection: Upgrade, or without Upgrade: websocket', async () => {
    for (const head of [
      handshake('/echo', {}, 'GET /echo HTTP/1.0'),
      handshake('/echo', { Connection: 'keep-alive' }),
      handshake('/echo', { Connection: undefined }),
      handshake('/echo', { Upgrade: undefined }),
      handshake('/echo', { Upgrade: 'h2c' }),
    ]) {
      const { status } = await answerTo(gateway.port, head);
      // RFC 9110 §7.8: a server may ignore Upgrade; never may it switch.
      expect([200, 400, 426]).toContain(status);
    }
  });

  test('goes on with frames that came in the same segment as the handshake', async () => {
    const wire = await Wire.connect(gateway.port);
    wire.write(Buffer.concat([Buffer.from(handshake('/echo')), frame(opcode.text, 'early'), frame(opcode.text, 'birds')]));
    expect(await wire.head()).toStartWith('HTTP/1.1 101 ');
    expect(String((await wire.frame())?.payload)).toBe('early');
    expect(String((await wire.frame())?.payload)).toBe('birds');
    wire.destroy();
  });

  test('may come one byte at a time', async () => {
    const wire = await Wire.connect(gateway.port);
    for (const byte of Buffer.concat([Buffer.from(handshake('/echo')), frame(opcode.text, 'slow')]))
      await wire.writeAll(Buffer.from([byte]));
    expect(await wire.head()).toStartWith('HTTP/1.1 101 ');
    expect(String((await wire.frame())?.payload)).toBe('slow');
    wire.destroy();
  });

  test('is refused on a connection only for that connection: plain requests before it are answered', async () => {
    const wire = await Wire.connect(gateway.port);
    wire.write(`GET /first HTTP/1.1\r\nHost: localhost\r\n\r\n${handshake('/echo')}`);
    expect(await wire.head()).toStartWith('HTTP/1.1 200 ');
    expect(wire.received.subarray(0, 15).toString()).toBe('http GET /first');
    wire.destroy();
  });

  test('chooses the best subprotocol of ours that the client offers', async () => {
    const offer = (value: string | undefined) => said(gateway.port, '/protocols', { 'Sec-WebSocket-Protocol': value });
    expect(await offer('chat.v1, chat.v2')).toBe('chat.v2');
    expect(await offer('other,chat.v1')).toBe('chat.v1');
    expect(await offer('other')).toBe('');
    expect(await offer(undefined)).toBe('');
    const { head } = await answerTo(gateway.port, handshake('/protocols', { 'Sec-WebSocket-Protocol': 'chat.v1' }));
    expect(head).toMatch(/\r\nSec-WebSocket-Protocol: chat\.v1\r\n/i);
    const none = await answerTo(gateway.port, handshake('/protocols', { 'Sec-WebSocket-Protocol': 'other' }));
    expect(none.head).not.toMatch(/sec-websocket-protocol/i);
  });

  test('is judged by its origin', async () => {
    const before = await gateway.metric('ringway_websocket_upgrades_refused_total', { reason: 'origin' });
    const statusOf = async (path: string, Origin: string | undefined, Host = 'shop.example:8080') =>
      (await answerTo(gateway.port, handshake(path, { Origin, Host }))).status;
    expect(await statusOf('/any', 'https://evil.example')).toBe(101);
    expect(await statusOf('/same', 'http://shop.example:8080')).toBe(101);
    expect(await statusOf('/same', undefined)).toBe(101);
    expect(await statusOf('/same', 'http://shop.example')).toBe(403);
    expect(await statusOf('/same', 'http://shop.example.evil.example:8080')).toBe(403);
    expect(await statusOf('/same', 'null')).toBe(403);
    expect(await statusOf('/same', 'https://shop.example', 'shop.example')).toBe(101);
    expect(await statusOf('/list', 'https://app.example')).toBe(101);
    expect(await statusOf('/list', 'http://localhost:3000')).toBe(101);
    expect(await statusOf('/list', undefined)).toBe(101);
    expect(await statusOf('/list', 'http://app.example')).toBe(403);
    expect(await statusOf('/list', 'https://app.example.evil.example')).toBe(403);
    const after = await gateway.metric('ringway_websocket_upgrades_refused_total', { reason: 'origin' });
    expect(after - before).toBe(5);
  });

  test('may be decided by the route: data, refusal, at once or later', async () => {
    const { port } = gateway;
    expect(await said(port, '/data?x=1', { Cookie: 'id=7' })).toEqual({ path: '/data', cookie: 'id=7' });
    expect(await said(port, '/async')).toEqual({ came: 'later' });
    expect(await answerTo(port, handshake('/refuse'))).toMatchObject({ status: 401, head: expect.stringMatching(/x-why: token/i) });
    expect(await answerTo(port, handshake('/redirect'))).toMatchObject({ status: 307, head: expect.stringMatching(/location: \/echo/i) });
    expect((await answerTo(port, handshake('/success'))).status).toBe(403);
    expect((await answerTo(port, handshake('/async-refuse'))).status).toBe(503);
  });

  test('that makes its handler throw or reject gets 500, and is logged and counted', async () => {
    const before = await gateway.metric('ringway_handler_errors_total');
    expect((await answerTo(gateway.port, handshake('/throws'))).status).toBe(500);
    expect((await answerTo(gateway.port, handshake('/rejects'))).status).toBe(500);
    expect((await gateway.metric('ringway_handler_errors_total')) - before).toBe(2);
    expect(gateway.output()).toContain('upgrade went wrong');
    expect(gateway.output()).toContain('upgrade went wrong later');
    expect(gateway.output()).toMatch(/upgrade handler of \/throws/);
  });

  test('whose client left before the decision does not disturb the next connection in its place', async () => {
    const left = await Wire.connect(gateway.port);
    left.write(handshake('/held', { 'X-Name': 'left' }));
    await Bun.sleep(20);
    left.reset();
    // The slot that is free again is the first to be handed out.
    await Bun.sleep(50);
    const next = await Wire.connect(gateway.port);
    next.write(handshake('/echo'));
    await next.head();
    await (await fetch(`${gateway.url}/release`)).text();
    next.write(frame(opcode.text, 'still here'));
    expect(String((await next.frame())?.payload)).toBe('still here');
    next.destroy();
  });

  test('finds its route: fixed, parameters, any rest, and / beside a catch-all of Hono', async () => {
    const { port } = gateway;
    expect(await said(port, '/')).toBe('root');
    expect(await said(port, '/room/caf%C3%A9%20x/1?q')).toEqual({ name: 'café x', part: '1' });
    expect(await said(port, '/files/a/b/c')).toEqual({});
    // `upgrade` knows them already.
    expect(await said(port, '/member/anna')).toEqual({ asked: { name: 'anna' } });
    expect(await said(port, '/member')).toEqual({ asked: {} });
    expect(await (await fetch(`${gateway.url}/`)).text()).toBe('http GET /');
    expect(await (await fetch(`${gateway.url}/echo`)).text()).toBe('http GET /echo');
    // No WebSocket route: the request is Hono's, as any other.
    expect((await answerTo(port, handshake('/nowhere'))).status).toBe(200);
  });

  test("works through Hono's upgradeWebSocket, with its parameters and subprotocol", async () => {
    const wire = await Wire.connect(gateway.port);
    wire.write(handshake('/hono/blue', { 'Sec-WebSocket-Protocol': 'v1, v2' }));
    expect(await wire.head()).toMatch(/\r\nSec-WebSocket-Protocol: v2\r\n/i);
    wire.write(frame(opcode.text, 'hi'));
    expect(String((await wire.frame())?.payload)).toBe('blue:hi');
    wire.destroy();
    // Not a handshake: it goes on to the next handler.
    expect(await (await fetch(`${gateway.url}/hono/blue`)).text()).toBe('http GET /hono/blue');
  });
});
