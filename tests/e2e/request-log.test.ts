/**
 * Request ids from header to log line to response, and one log line for each request and WebSocket, on real gateways.
 */
import { afterAll, beforeAll, beforeEach, describe, expect, setDefaultTimeout, test } from 'bun:test';
import { eventually } from '../support/eventually.ts';
import { closePayload, frame, opcode } from '../support/frames.mjs';
import { RawClient, type RawResponse } from '../support/raw-client.ts';
import { logLines, type Operated, startOperated } from '../support/ringway-command.ts';
import { Wire } from '../support/wire.ts';

// Only ends a test that has failed: nothing here is measured in time.
setDefaultTimeout(60_000);

const config = (log: string) => `
import { Hono } from 'hono';
import { defineGateway, upgradeWebSocket } from 'ringway';
const app = new Hono();
app.get('/ok', (c) => c.text('ok'));
app.get('/later', async (c) => { await Bun.sleep(1); return c.text('ok'); });
app.get('/id', (c) => c.text(c.env.requestId));
app.get('/own', (c) => c.text('ok', 200, { 'X-Request-ID': 'of-the-handler' }));
app.get('/boom', () => { throw new Error('boom'); });
app.get('/boom-later', async () => { await Bun.sleep(1); throw new Error('boom later'); });
app.get('/wait', (c) => new Promise(() => void c.req.raw.signal));
app.post('/echo', async (c) => c.body(await c.req.text(), 201));
app.get('/stream', () => new Response(new ReadableStream({ async pull(c) { await Bun.sleep(1); c.enqueue('x'); c.close(); } })));
app.get('/broken', () => new Response(new ReadableStream({ async pull(c) { c.enqueue('x'); await Bun.sleep(20); c.error(new Error('broken off')); } })));
app.get('/hono-ws', upgradeWebSocket(() => ({ onMessage(event, socket) { socket.send(event.data); } })));
// As Hono's own handler of errors would answer, without its line on stderr.
app.onError((error) => { throw error; });
export default defineGateway({
  $OPTIONS,
  io: { backend: 'auto' },
  http: { bodyTimeout: 1 },
  log: ${log},
  fetch: (request, env) => (new URL(request.url).pathname === '/env' ? new Response(env.requestId) : app.fetch(request, env)),
  websocket: {
    '/ws': { message: (socket, message) => void socket.send(message) },
    '/refused': { upgrade: () => new Response('no', { status: 401, headers: { 'www-authenticate': 'Bearer' } }) },
    '/refused-by-name': { upgrade: () => new Response('no', { status: 403, headers: { 'X-Request-Id': 'of-the-handler' } }) },
    '/fails': { upgrade: () => { throw new Error('no upgrade today'); } },
    '/decides': { upgrade: async () => { await Bun.sleep(1); return {}; } },
    '/never': { upgrade: () => new Promise(() => {}) },
    '/own-origin': { origins: ['https://example.com'], message() {} },
  },
});
`;

const uuid = /^[\da-f]{8}-[\da-f]{4}-4[\da-f]{3}-[89ab][\da-f]{3}-[\da-f]{12}$/;

async function get(gateway: Operated, path: string, headers: Record<string, string> = {}): Promise<RawResponse> {
  const client = await RawClient.connect({ port: gateway.port });
  const fields = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  const response = await client.exchange(`GET ${path} HTTP/1.1\r\nHost: x\r\n${fields.join('')}\r\n`);
  client.destroy();
  return response;
}

function handshake(path: string, headers = ''): string {
  return `GET ${path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n${headers}\r\n`;
}

describe('with log.requests', () => {
  let gateway: Operated;
  let before = 0;
  beforeAll(async () => {
    gateway = await startOperated({ config: config('{ requests: true }') });
  });
  afterAll(() => gateway?.stop());
  beforeEach(() => {
    before = logLines(gateway).length;
  });
  const newLines = () => logLines(gateway).slice(before);
  /** The lines about requests and WebSockets since this was asked last; there are to be `count`. */
  async function requestLines(count: number): Promise<Record<string, unknown>[]> {
    const lines = () => newLines().filter(({ requestId, err }) => requestId !== undefined && err === undefined);
    await eventually(`there are ${count} lines`, () => lines().length >= count);
    // One too many would stand before the next.
    await get(gateway, '/ok', { 'x-request-id': 'behind' });
    await eventually('the line behind them', () => lines().some(({ requestId }) => requestId === 'behind'));
    const found = lines();
    before = logLines(gateway).length;
    expect([found.length, found.at(-1)?.requestId]).toEqual([count + 1, 'behind']);
    return found.slice(0, count);
  }

  test('a request has one line, and its response the id of it', async () => {
    for (const path of ['/ok', '/later', '/stream']) {
      const { headers } = await get(gateway, `${path}?secret=1`, { 'x-request-id': 'edge-1.2:3/4+5=6_7' });
      expect(headers['x-request-id']).toBe('edge-1.2:3/4+5=6_7');
      const [line] = await requestLines(1);
      expect(line).toEqual({
        level: 'info',
        time: expect.any(String),
        worker: 0,
        requestId: 'edge-1.2:3/4+5=6_7',
        method: 'GET',
        path,
        status: 200,
        ms: expect.any(Number),
        address: '127.0.0.1',
        msg: `GET ${path} 200`,
      });
    }
    const { headers } = await get(gateway, '/ok');
    const [line] = await requestLines(1);
    expect([headers['x-request-id'], line?.requestId]).toEqual([expect.stringMatching(uuid), headers['x-request-id']]);
    expect(gateway.output()).not.toContain('secret');
  });

  test('pipelined requests have their lines in order', async () => {
    const client = await RawClient.connect({ port: gateway.port });
    client.write(
      ['/later', '/ok', '/nothing'].map((path, at) => `GET ${path} HTTP/1.1\r\nHost: x\r\nX-Request-Id: p${at}\r\n\r\n`).join('') +
        'POST /echo HTTP/1.1\r\nHost: x\r\nX-Request-Id: p3\r\nContent-Length: 2\r\n\r\nab',
    );
    for (let at = 0; at < 4; at++) expect((await client.response()).headers['x-request-id']).toBe(`p${at}`);
    client.destroy();
    const lines = await requestLines(4);
    expect(lines.map(({ requestId, status }) => [requestId, status]).toSorted()).toEqual([
      ['p0', 200],
      ['p1', 200],
      ['p2', 404],
      ['p3', 201],
    ]);
  });

  test('a handler that fails is told of under the id that its answer carries', async () => {
    for (const [path, message] of [
      ['/boom', 'boom'],
      ['/boom-later', 'boom later'],
    ] as const) {
      const { status, headers } = await get(gateway, path);
      const id = headers['x-request-id'];
      expect([status, id]).toEqual([500, expect.stringMatching(uuid)]);
      await eventually('the error is logged', () => newLines().find(({ err }) => err !== undefined));
      const error = newLines().find(({ err }) => err !== undefined);
      expect([error?.requestId, (error?.err as { message: string } | undefined)?.message]).toEqual([id as string, message]);
      const [line] = await requestLines(1);
      expect([line?.requestId, line?.status]).toEqual([id as string, 500]);
    }
  });

  test('a response that breaks off, and a client that leaves, are told of', async () => {
    const client = await RawClient.connect({ port: gateway.port });
    client.write('GET /broken HTTP/1.1\r\nHost: x\r\nX-Request-Id: broken\r\n\r\n');
    await client.closed();
    const leaver = await RawClient.connect({ port: gateway.port });
    leaver.write('GET /wait HTTP/1.1\r\nHost: x\r\nX-Request-Id: leaver\r\n\r\n');
    await eventually('it waits', async () => (await gateway.metric('ringway_connections', { protocol: 'http' })) > 0);
    await Bun.sleep(50);
    leaver.destroy();
    const lines = await requestLines(2);
    expect(lines.map(({ requestId, status, problem, address }) => [requestId, status, problem, address])).toEqual([
      ['broken', 200, 'the response was broken off', '127.0.0.1'],
      ['leaver', 0, 'the client left', '127.0.0.1'],
    ]);
  });

  test('a body that does not come is told of as what it is', async () => {
    const client = await RawClient.connect({ port: gateway.port });
    client.write('POST /echo HTTP/1.1\r\nHost: x\r\nX-Request-Id: late\r\nContent-Length: 9\r\n\r\nabc');
    expect((await client.response()).status).toBe(408);
    client.destroy();
    const [line] = await requestLines(1);
    expect([line?.requestId, line?.status, line?.problem, line?.address]).toEqual([
      'late',
      408,
      'the body of the request did not come in time (http.bodyTimeout)',
      '127.0.0.1',
    ]);
  });

  test('a WebSocket has a line when it opens and one when it closes, by whichever frontend', async () => {
    for (const path of ['/ws', '/decides', '/hono-ws']) {
      const wire = await Wire.open(gateway.port, `${path}?token=secret`, { 'X-Request-Id': `ws${path}` });
      wire.write(frame(opcode.close, closePayload(4001, 'done')));
      await wire.untilEnded();
      const lines = await requestLines(2);
      expect(lines.map(({ requestId, status, code, msg, address }) => [requestId, status, code, msg, address])).toEqual([
        [`ws${path}`, 101, undefined, `GET ${path} 101`, '127.0.0.1'],
        [`ws${path}`, undefined, 4001, `WebSocket ${path} closed with 4001`, '127.0.0.1'],
      ]);
    }
    const lost = await Wire.open(gateway.port, '/ws');
    lost.destroy();
    const lines = await requestLines(2);
    expect(lines.map(({ status, code }) => status ?? code)).toEqual([101, 1006]);
    expect(lines[0]?.requestId).toMatch(uuid);
    expect(lines[1]?.requestId).toBe(lines[0]?.requestId as string);
  });

  test('a handshake that is refused, or fails, has one line, and its answer the id', async () => {
    const cases: [path: string, headers: string, status: number, id: string | RegExp][] = [
      ['/refused', 'X-Request-Id: r1\r\n', 401, 'r1'],
      ['/refused', '', 401, uuid],
      ['/own-origin', 'Origin: https://example.org\r\nX-Request-Id: r2\r\n', 403, 'r2'],
      ['/fails', 'X-Request-Id: r3\r\n', 500, 'r3'],
      ['/fails', '', 500, uuid],
    ];
    for (const [path, headers, status, id] of cases) {
      const client = await RawClient.connect({ port: gateway.port });
      const answer = await client.exchange(handshake(path, headers));
      client.destroy();
      const shown = answer.headers['x-request-id'] ?? '';
      expect([path, answer.status, shown]).toEqual([path, status, typeof id === 'string' ? id : expect.stringMatching(id)]);
      const [line] = await requestLines(1);
      expect([line?.requestId, line?.status, line?.path]).toEqual([shown, status, path]);
      if (status === 500) {
        const error = logLines(gateway).findLast(({ err }) => err !== undefined);
        expect([error?.requestId, error?.msg]).toEqual([shown, 'the upgrade handler of /fails failed']);
      }
    }
    const client = await RawClient.connect({ port: gateway.port });
    expect((await client.exchange(handshake('/refused-by-name'))).headers['x-request-id']).toBe('of-the-handler');
    client.destroy();
    await requestLines(1);
  });

  test('handshakes whose client leaves leave nothing behind', async () => {
    const client = await RawClient.connect({ port: gateway.port });
    client.write(handshake('/never', 'X-Request-Id: undecided\r\n'));
    await Bun.sleep(50);
    client.destroy();
    const [line] = await requestLines(1);
    expect([line?.requestId, line?.status, line?.problem]).toEqual(['undecided', 0, 'the client left']);
    // Each of them is opened and closed, or never was a request: lines come in pairs or not at all.
    for (let at = 0; at < 50; at++) {
      const hasty = await RawClient.connect({ port: gateway.port });
      hasty.write(handshake('/ws', `X-Request-Id: hasty-${at}\r\n`));
      if (at === 0) await eventually('the first is opened', () => newLines().some(({ requestId }) => requestId === 'hasty-0'));
      else await Bun.sleep(at % 3);
      hasty.destroy();
    }
    await eventually('all have gone', async () => (await gateway.metric('ringway_connections')) === 0);
    await Bun.sleep(50);
    const lines = newLines().filter(({ requestId }) => String(requestId).startsWith('hasty-'));
    const opened = lines.filter(({ status }) => status === 101).map(({ requestId }) => requestId);
    const closed = lines.filter(({ code }) => code !== undefined).map(({ requestId }) => requestId);
    expect(opened.toSorted()).toEqual(closed.toSorted());
    expect(new Set(opened).size).toBe(opened.length);
    before = logLines(gateway).length;
  });

  test('ids that are not fit for a log are not taken over', async () => {
    for (const [given, at] of ['two words', '{"a":1}', 'x'.repeat(129), 'ünïcode', '\x1b[31m', 'a;b', '<script>', ''].map(
      (text, at) => [text, at] as const,
    )) {
      const client = await RawClient.connect({ port: gateway.port });
      client.write(Buffer.from(`GET /id?${at} HTTP/1.1\r\nHost: x\r\nX-Request-Id: ${given}\r\n\r\n`, 'latin1'));
      const { status, headers, text } = await client.response();
      client.destroy();
      // The core refuses control characters.
      if (status === 400) continue;
      expect([given, headers['x-request-id'], text]).toEqual([given, expect.stringMatching(uuid), headers['x-request-id'] as string]);
      const [line] = await requestLines(1);
      expect(line?.requestId).toBe(text);
    }
    // A value that looks like the header, and another header whose name ends like it.
    const { headers } = await get(gateway, '/ok', { 'x-other': 'x-request-id', 'not-x-request-id': 'other', 'x-request-id': 'the-one' });
    expect(headers['x-request-id']).toBe('the-one');
    await requestLines(1);
    expect((await get(gateway, '/own')).headers['x-request-id']).toBe('of-the-handler');
    await requestLines(1);
  });
});

describe('without log.requests', () => {
  test('only ids that came, or were asked for, are sent back, and there are no lines', async () => {
    const gateway = await startOperated({ config: config('{}') });
    try {
      expect((await get(gateway, '/ok')).headers['x-request-id']).toBeUndefined();
      expect((await get(gateway, '/ok', { 'X-REQUEST-ID': 'mine' })).headers['x-request-id']).toBe('mine');
      for (const path of ['/id', '/env']) {
        const { headers, text } = await get(gateway, path);
        expect([headers['x-request-id'], text]).toEqual([text, expect.stringMatching(uuid)]);
        expect((await get(gateway, path, { 'x-request-id': 'mine' })).text).toBe('mine');
      }
      const { headers } = await get(gateway, '/boom');
      const error = await eventually('the error is logged', () => logLines(gateway).find(({ err }) => err !== undefined));
      expect(error.requestId).toBe(headers['x-request-id'] as string);
      expect(logLines(gateway).filter(({ method, err }) => method !== undefined && err === undefined)).toEqual([]);
    } finally {
      await gateway.stop();
    }
  });

  test('requestIdHeader: false takes and sends none; log lines have ids all the same', async () => {
    const gateway = await startOperated({ config: config('{ requests: true, requestIdHeader: false }') });
    try {
      for (const path of ['/ok', '/id', '/boom'])
        expect((await get(gateway, path, { 'x-request-id': 'mine' })).headers['x-request-id']).toBeUndefined();
      expect((await get(gateway, '/id', { 'x-request-id': 'mine' })).text).toMatch(uuid);
      const lines = await eventually('all have lines', () => {
        const found = logLines(gateway).filter(({ requestId, err }) => requestId !== undefined && err === undefined);
        return found.length === 4 ? found : undefined;
      });
      for (const { requestId } of lines) expect(requestId).toMatch(uuid);
      const error = logLines(gateway).find(({ err }) => err !== undefined);
      expect(lines.map(({ requestId }) => requestId)).toContain(error?.requestId);
      const client = await RawClient.connect({ port: gateway.port });
      expect((await client.exchange(handshake('/fails', 'X-Request-Id: mine\r\n'))).headers['x-request-id']).toBeUndefined();
      client.destroy();
    } finally {
      await gateway.stop();
    }
  });

  test('another header may carry it', async () => {
    const gateway = await startOperated({ config: config("{ requestIdHeader: 'X-Trace-Id' }") });
    try {
      const { headers, text } = await get(gateway, '/id', { 'x-trace-id': 'trace-1', 'x-request-id': 'not this' });
      expect([headers['x-trace-id'], headers['x-request-id'], text]).toEqual(['trace-1', undefined, 'trace-1']);
    } finally {
      await gateway.stop();
    }
  });
});
