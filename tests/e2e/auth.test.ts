/**
 * Tokens of clients: from wherever they come, renewed in place, ended; by clients that are not ours, and never in a log.
 */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test';
import { WebSocket as WsClient } from 'ws';
import { eventually } from '../support/eventually.ts';
import { closePayload, frame, opcode } from '../support/frames.mjs';
import { forEachBackend, type Gateway, startGateway } from '../support/gateway.ts';
import { inSeconds, secret, tokenOf } from '../support/tokens.ts';
import { Wire } from '../support/wire.ts';

// Only ends a test that has failed: nothing here is measured in time.
setDefaultTimeout(60_000);

const config = `
import { Hono } from 'hono';
import { authenticate, defineGateway, route, upgradeWebSocket } from 'ringway';

const seen = [];
const note = (event, socket, ...more) => void seen.push([event, socket.user?.id ?? null, ...more]);
const handler = {
  open(socket) { note('open', socket); socket.sendJson({ open: socket.user?.id ?? null, data: socket.data ?? null, protocol: socket.protocol }); },
  async message(socket, message) {
    const text = message.text();
    note('message', socket, text);
    if (text.startsWith('renew ')) socket.sendJson(await socket.renew(text.slice(6)));
    else socket.sendJson({ user: socket.user ?? null, text });
  },
  ping: (socket) => note('ping', socket),
  close: (socket, code, reason) => note('close', socket, code, reason),
};
const upgrade = (request, client) => {
  seen.push(['upgrade', client.user?.id ?? null]);
  if (client.user?.id === 'banned') return new Response('no', { status: 403 });
  if (client.user?.id === 'faulty') throw new Error('on purpose');
  return { url: request.url, role: client.user?.claims.role ?? null, address: client.remoteAddress };
};

const app = new Hono();
app.use('/api/*', authenticate());
app.get('/api/who', (c) => c.json(c.get('user')));
app.use('/maybe/*', authenticate({ optional: true }));
app.get('/maybe/who', (c) => c.json(c.get('user') ?? null));
app.get('/env', async (c) => c.json({ user: (await c.env.user()) ?? null, again: (await c.env.user()) ?? null, url: c.req.url }));
app.get('/fail', () => { throw new Error('on purpose'); });
app.get('/seen', (c) => c.json(seen.splice(0)));
const events = (c) => ({
  onOpen: (_, ws) => ws.send(JSON.stringify({ open: ws.raw.user?.id ?? null, protocol: ws.protocol })),
  onMessage: (event, ws) => ws.send(String(event.data)),
});
app.get('/hono', upgradeWebSocket((c) => { seen.push(['events']); return events(c); }));
app.get('/hono-first', upgradeWebSocket(events, { auth: { from: ['message'] } }));
app.get('/hono-open', upgradeWebSocket(events, { auth: false }));
app.get('/hono-within', (c) => upgradeWebSocket(c, events(c)));
app.get('/bun', (c) => c.env.upgrade(c.req.raw, { data: { events: events(c), protocol: c.req.header('sec-websocket-protocol') } }) ? new Response(null) : c.text('no'));
app.get('/bun-known', authenticate(), (c) => c.env.upgrade(c.req.raw, { data: { events: events(c), protocol: c.req.header('sec-websocket-protocol') } }) ? new Response(null) : c.text('no'));

export default defineGateway({
  $OPTIONS,
  log: { requests: true },
  auth: { jwt: { secret: '${secret}', clockTolerance: 0 }, cookie: 'session', query: 'token', grace: 1, firstMessageTimeout: 1 },
  fetch: app,
  websocket: {
    ...route('/required', { ...handler, upgrade }),
    ...route('/bare', { message: handler.message }),
    ...route('/spoken', { ...handler, protocols: ['chat'] }),
    ...route('/optional', { ...handler, close() {}, auth: 'optional' }),
    ...route('/anybody', { ...handler, close() {}, auth: false }),
    ...route('/cookie', { ...handler, auth: { from: ['cookie'] }, origins: 'same-host' }),
    ...route('/first', { ...handler, upgrade, auth: { from: ['header', 'message'], refresh: true } }),
    ...route('/renewed', { ...handler, auth: { refresh: true } }),
  },
});
`;

forEachBackend('tokens', (backend) => {
  let gateway: Gateway;
  /** All that was sent: none of it may be in a log. */
  const sent: string[] = [];
  beforeAll(async () => {
    gateway = await startGateway({ backend, config });
  });
  afterAll(() => gateway?.stop());

  const make = async (...args: Parameters<typeof tokenOf>) => {
    const token = await tokenOf(...args);
    sent.push(token);
    return token;
  };
  const bearer = (token: string) => ({ authorization: `Bearer ${token}` });
  const get = (path: string, headers: Record<string, string> = {}) => fetch(gateway.url + path, { headers });
  /** What handlers were called for of these users, or of nobody; the sockets of other tests may end whenever they like. */
  const seen = async (...users: string[]) =>
    ((await (await get('/seen')).json()) as unknown[][]).filter(([, user]) => user == null || users.includes(String(user)));

  /** The answer to a handshake that is refused. */
  async function refused(
    path: string,
    headers: Record<string, string> = {},
  ): Promise<{ status: number; challenge: string | null; text: string }> {
    const response = await fetch(gateway.url + path, {
      headers: {
        ...headers,
        connection: 'upgrade',
        upgrade: 'websocket',
        'sec-websocket-version': '13',
        'sec-websocket-key': 'AAAAAAAAAAAAAAAAAAAAAA==',
      },
    });
    return { status: response.status, challenge: response.headers.get('www-authenticate'), text: await response.text() };
  }

  async function closed(wire: Wire): Promise<[number, string]> {
    for (;;) {
      const next = await wire.frame();
      if (next === undefined) throw new Error('the connection ended without a close frame');
      if (next.opcode !== opcode.close) continue;
      wire.write(frame(opcode.close, next.payload));
      return [next.payload.readUInt16BE(0), next.payload.subarray(2).toString()];
    }
  }
  const json = async (wire: Wire) => JSON.parse((await wire.frame())?.payload.toString() ?? 'null');

  test('in Authorization: the user is in upgrade and in the socket', async () => {
    const wire = await Wire.open(gateway.port, '/required?a=1', bearer(await make({ role: 'admin' })));
    expect(await json(wire)).toEqual({
      open: 'ann',
      data: { url: 'http://localhost/required?a=1', role: 'admin', address: '127.0.0.1' },
      protocol: '',
    });
    wire.end();
  });

  test('a handshake without a token, or with a bad one, is refused before it is answered, and counted', async () => {
    await seen();
    const before = await gateway.metric('ringway_auth_refusals_total', { reason: 'missing' });
    expect(await refused('/required')).toEqual({ status: 401, challenge: 'Bearer', text: 'Unauthorized: a token is needed' });
    expect(await gateway.metric('ringway_auth_refusals_total', { reason: 'missing' })).toBe(before + 1);
    for (const [token, reason, description] of [
      [await make({ exp: inSeconds(-60) }), 'expired', 'the token has ended'],
      [await make({}, Buffer.from('another secret of another gateway')), 'signature', 'the signature of the token is wrong'],
      ['garbage', 'malformed', 'what came is no token'],
    ] as const) {
      const counted = await gateway.metric('ringway_auth_refusals_total', { reason });
      expect(await refused('/required', bearer(token))).toEqual({
        status: 401,
        challenge: `Bearer error="invalid_token", error_description="${description}"`,
        text: `Unauthorized: ${description}`,
      });
      expect(await refused('/optional', bearer(token))).toMatchObject({ status: 401 });
      expect(await gateway.metric('ringway_auth_refusals_total', { reason })).toBe(counted + 2);
    }
    expect(await seen()).toEqual([]);
  });

  test('what upgrade refuses or fails with is answered as ever', async () => {
    expect(await refused('/required', bearer(await make({ sub: 'banned' })))).toMatchObject({ status: 403, text: 'no' });
    expect(await refused('/required', bearer(await make({ sub: 'faulty' })))).toMatchObject({ status: 500 });
  });

  test('a route without any other handler has its user in message', async () => {
    const wire = await Wire.open(gateway.port, '/bare', bearer(await make()));
    wire.write(frame(opcode.text, 'hi'));
    expect(await json(wire)).toMatchObject({ user: { id: 'ann' }, text: 'hi' });
    wire.end();
  });

  test('in a cookie, for pages of the host', async () => {
    const token = await make();
    const fields = { cookie: `a=1; session=${token}`, origin: 'http://localhost' };
    const wire = await Wire.open(gateway.port, '/cookie', fields);
    expect(await json(wire)).toMatchObject({ open: 'ann' });
    wire.end();
    expect(await refused('/cookie', { ...fields, origin: 'http://evil.example' })).toMatchObject({ status: 403 });
    expect(await refused('/cookie', { ...bearer(token) })).toMatchObject({ status: 401 });
  });

  test.each([
    ['/required', [], 'token'],
    ['/spoken', ['chat'], 'chat'],
    ['/spoken', ['chatter'], 'token'],
    ['/hono', [], 'token'],
    ['/hono-within', [], 'token'],
  ])('among the subprotocols of ws and of the browser’s WebSocket, at %s with %j', async (path, others, agreed) => {
    const token = await make();
    const offered = [`token.${token}`, ...others, 'token'];
    const ws = new WsClient(gateway.wsUrl + path, offered);
    const first = await new Promise<string>((resolve, reject) => {
      ws.once('message', (data) => resolve(String(data)));
      ws.once('error', reject);
    });
    expect(JSON.parse(first)).toMatchObject({ open: 'ann', protocol: agreed });
    expect(ws.protocol).toBe(agreed);
    ws.terminate();
    const browser = new WebSocket(gateway.wsUrl + path, offered);
    const second = await new Promise<string>((resolve, reject) => {
      browser.onmessage = ({ data }) => resolve(String(data));
      browser.onclose = ({ code, reason }) => reject(new Error(`closed with ${code} ${reason}`));
    });
    expect(JSON.parse(second)).toMatchObject({ open: 'ann', protocol: agreed });
    expect(browser.protocol).toBe(agreed);
    browser.close();
    const wire = await Wire.open(gateway.port, path, { 'sec-websocket-protocol': `token.${token}` });
    expect(wire.answer).not.toContain(token);
    expect(wire.answer.toLowerCase()).not.toContain('sec-websocket-protocol');
    wire.end();
  });

  test('in the query: gone from the URL before a handler sees it', async () => {
    const token = await make();
    const wire = await Wire.open(gateway.port, `/required?a=1&token=${token}&b=2`);
    expect(await json(wire)).toMatchObject({ data: { url: 'http://localhost/required?a=1&b=2' } });
    wire.end();
    expect(await (await get(`/env?token=${token}`)).json()).toMatchObject({
      user: { id: 'ann' },
      again: { id: 'ann' },
      url: `${gateway.url}/env`,
    });
    const failed = await get(`/fail?token=${token}&x=1`);
    expect(failed.status).toBe(500);
    // Its line and its failure are found by what the client was told.
    const id = failed.headers.get('x-request-id') ?? 'none';
    await eventually('the request is told of', () => gateway.output().split(id).length > 2);
    await eventually('the failure is told', () => gateway.output().includes('/fail?x=1'));
  });

  test('optional and false let anybody in', async () => {
    for (const path of ['/optional', '/anybody', '/hono-open']) {
      const wire = await Wire.open(gateway.port, path);
      expect(await json(wire)).toMatchObject({ open: null });
      wire.end();
    }
    const known = await Wire.open(gateway.port, '/optional', bearer(await make()));
    expect(await json(known)).toMatchObject({ open: 'ann' });
    known.end();
    const unasked = await Wire.open(gateway.port, '/anybody', bearer('garbage'));
    expect(await json(unasked)).toMatchObject({ open: null });
    unasked.write(frame(opcode.text, `renew ${await make()}`));
    expect(await json(unasked)).toEqual({ renewed: false, reason: 'anonymous' });
    unasked.end();
  });

  test('as the first message: nothing is handled before, all that follows is in order', async () => {
    await seen();
    const wire = await Wire.open(gateway.port, '/first');
    wire.write(frame(opcode.ping, 'knock'));
    expect((await wire.frame())?.opcode).toBe(opcode.pong);
    expect(await seen()).toEqual([]);
    const token = await make({ sub: 'fay', role: 'admin' });
    // At once, as a client does that has more to say.
    wire.write(Buffer.concat([frame(opcode.text, JSON.stringify({ token })), frame(opcode.text, 'one'), frame(opcode.text, 'two')]));
    expect(await json(wire)).toEqual({
      open: 'fay',
      data: { url: 'http://localhost/first', role: 'admin', address: '127.0.0.1' },
      protocol: '',
    });
    expect(await json(wire)).toMatchObject({ user: { id: 'fay' }, text: 'one' });
    expect(await json(wire)).toMatchObject({ text: 'two' });
    wire.write(frame(opcode.close, closePayload(1000, 'bye')));
    await closed(wire);
    await eventually('close is told', async () => {
      const events = (await seen('fay')).map(([event]) => event);
      return events.length > 0 ? (expect(events).toEqual(['upgrade', 'open', 'message', 'message', 'close']) ?? true) : false;
    });
  });

  test('a first message that is no token, or not one that is believed, closes with 3000, and no handler hears of it', async () => {
    await seen();
    const first = async (...frames: Buffer[]) => {
      const wire = await Wire.open(gateway.port, '/first');
      wire.write(Buffer.concat(frames));
      return closed(wire);
    };
    const wrong = [3000, 'the first message must be {"token":"..."}'] as const;
    for (const text of [
      'hello',
      '{}',
      '[]',
      'null',
      '{"token":7}',
      '{"token":"x","more":1}',
      '{"type":"other","token":"x"}',
      '{"token":',
      '',
    ])
      expect(await first(frame(opcode.text, text))).toEqual([...wrong]);
    expect(await first(frame(opcode.binary, JSON.stringify({ token: await make() })))).toEqual([...wrong]);
    expect(await first(frame(opcode.text, JSON.stringify({ token: 'x'.repeat(20_000) })))).toEqual([...wrong]);
    const expired = await make({ exp: 1 });
    expect(await first(frame(opcode.text, JSON.stringify({ type: 'token', token: expired })), frame(opcode.text, 'more'))).toEqual([
      3000,
      'the token has ended',
    ]);
    expect(await seen()).toEqual([]);
    expect(await first(frame(opcode.text, JSON.stringify({ token: await make({ sub: 'banned' }) })))).toEqual([3003, 'not allowed']);
    expect((await first(frame(opcode.text, JSON.stringify({ token: await make({ sub: 'faulty' }) }))))[0]).toBe(1011);
    expect(await seen('banned', 'faulty')).toEqual([
      ['upgrade', 'banned'],
      ['upgrade', 'faulty'],
    ]);
  });

  test('who sends none in time is closed with 3008; who leaves meanwhile is not told of', async () => {
    await seen();
    const before = await gateway.metric('ringway_auth_refusals_total', { reason: 'timeout' });
    const [late, leaving] = [await Wire.open(gateway.port, '/first'), await Wire.open(gateway.port, '/first')] as const;
    leaving.write(
      Buffer.concat([frame(opcode.text, JSON.stringify({ token: await make({ sub: 'lea' }) })), frame(opcode.text, 'never heard')]),
    );
    leaving.destroy();
    expect(await closed(late)).toEqual([3008, 'no token came in time']);
    expect(await gateway.metric('ringway_auth_refusals_total', { reason: 'timeout' })).toBe(before + 1);
    const events = await seen('lea');
    // It was there when its token was verified, or it was not; but nobody has heard of half of it.
    if (events.length > 0) expect(events.map(([event]) => event).slice(0, 2)).toEqual(['upgrade', 'open']);
  });

  test('who has one in the handshake need not send it', async () => {
    const wire = await Wire.open(gateway.port, '/first', bearer(await make()));
    expect(await json(wire)).toMatchObject({ open: 'ann' });
    wire.end();
  });

  test('a token that ends closes with 4401 after the grace, unless a newer one has come', async () => {
    await seen();
    const before = await gateway.metric('ringway_auth_expirations_total');
    const short = await make({ sub: 'eve', exp: inSeconds(2) });
    const [left, renewed, byHandler] = (await Promise.all(
      ['/renewed', '/renewed', '/required'].map((path) => Wire.open(gateway.port, path, bearer(short))),
    )) as [Wire, Wire, Wire];
    for (const wire of [left, renewed, byHandler]) await json(wire);
    const exp = inSeconds(3600);
    renewed.write(frame(opcode.text, JSON.stringify({ type: 'token', token: await make({ sub: 'eve', exp }) })));
    expect(await json(renewed)).toEqual({ type: 'token', expiresAt: exp * 1000 });
    byHandler.write(frame(opcode.text, `renew ${await make({ sub: 'eve', exp, role: 'new' })}`));
    expect(await json(byHandler)).toMatchObject({ renewed: true, user: { id: 'eve', claims: { role: 'new' }, expiresAt: exp * 1000 } });
    expect(await closed(left)).toEqual([4401, 'the token has ended']);
    for (const wire of [renewed, byHandler]) {
      wire.write(frame(opcode.text, 'still here'));
      expect(await json(wire)).toMatchObject({ user: { expiresAt: exp * 1000 }, text: 'still here' });
      wire.end();
    }
    expect(await gateway.metric('ringway_auth_expirations_total')).toBe(before + 1);
    const events: unknown[][] = [];
    await eventually('close is told', async () => {
      events.push(...(await seen('eve')));
      return events.some(([event, , code]) => event === 'close' && code === 4401);
    });
    expect(events.filter(([event]) => event === 'message').map(([, , text]) => String(text).slice(0, 5))).toEqual([
      'renew',
      'still',
      'still',
    ]);
  });

  test('a newer token of another user, or a bad one, changes nothing', async () => {
    const wire = await Wire.open(gateway.port, '/renewed', bearer(await make()));
    await json(wire);
    const tell = async (token: unknown) => {
      wire.write(frame(opcode.text, JSON.stringify({ type: 'token', token })));
      return json(wire);
    };
    expect(await tell(await make({ sub: 'bob' }))).toEqual({ type: 'token', error: 'user' });
    expect(await tell('garbage')).toEqual({ type: 'token', error: 'malformed' });
    expect(await tell(await make({ exp: 1 }))).toEqual({ type: 'token', error: 'expired' });
    // What has another form is the handler's.
    expect(await tell(7)).toMatchObject({ user: { id: 'ann' }, text: '{"type":"token","token":7}' });
    wire.end();
    const other = await Wire.open(gateway.port, '/required', bearer(await make()));
    await json(other);
    const message = JSON.stringify({ type: 'token', token: await make() });
    other.write(frame(opcode.text, message));
    expect(await json(other)).toMatchObject({ text: message });
    other.end();
  });

  test('requests of fetch: authenticate() and c.env.user()', async () => {
    const token = await make();
    expect((await get('/api/who')).status).toBe(401);
    expect((await get('/api/who')).headers.get('www-authenticate')).toBe('Bearer');
    expect((await get('/api/who', bearer('garbage'))).headers.get('www-authenticate')).toContain('invalid_token');
    expect(await (await get('/api/who', bearer(token))).json()).toMatchObject({ id: 'ann' });
    expect(await (await get('/api/who', { cookie: `session=${token}` })).json()).toMatchObject({ id: 'ann' });
    expect(await (await get('/maybe/who')).json()).toBeNull();
    expect((await get('/maybe/who', bearer('garbage'))).status).toBe(401);
    expect(await (await get('/env')).json()).toMatchObject({ user: null });
    expect(await (await get('/env', bearer('garbage'))).json()).toMatchObject({ user: null });
  });

  test('upgradeWebSocket asks as the routes of the config do', async () => {
    await seen();
    expect(await refused('/hono')).toMatchObject({ status: 401, challenge: 'Bearer' });
    expect(await refused('/hono', bearer('garbage'))).toMatchObject({ status: 401 });
    expect(await refused('/hono-within')).toMatchObject({ status: 401 });
    expect(await seen()).toEqual([]);
    const wire = await Wire.open(gateway.port, '/hono', bearer(await make()));
    expect(await json(wire)).toEqual({ open: 'ann', protocol: null });
    wire.end();
    const first = await Wire.open(gateway.port, '/hono-first');
    first.write(Buffer.concat([frame(opcode.text, JSON.stringify({ token: await make() })), frame(opcode.text, 'hello')]));
    expect(await json(first)).toMatchObject({ open: 'ann' });
    expect((await first.frame())?.payload.toString()).toBe('hello');
    first.end();
  });

  test('c.env.upgrade lets in who is known, and nobody else; the token is not told back', async () => {
    const token = await make();
    expect(await refused('/bun', bearer(token))).toMatchObject({ status: 401 });
    const wire = await Wire.open(gateway.port, '/bun-known', { 'sec-websocket-protocol': `token.${token}` });
    expect(wire.answer).not.toContain(token);
    expect(await json(wire)).toMatchObject({ open: 'ann' });
    wire.end();
  });

  test('no log has any of the tokens', async () => {
    // Something of every test above, so that there is something to find.
    expect(sent.length).toBeGreaterThan(20);
    const output = gateway.output();
    expect(['GET /fail 500', 'closed with 4401', 'closed with 3000'].filter((text) => !output.includes(text))).toEqual([]);
    for (const token of sent) {
      const [head = '', payload = '', signature = ''] = token.split('.');
      const parts = [`${head}.${payload.slice(0, 8)}`, payload, signature];
      expect(parts.filter((part) => output.includes(part))).toEqual([]);
    }
  });
});
