import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test';
import { eventually } from '../support/eventually.ts';
import { closePayload, frame, handshake, opcode } from '../support/frames.mjs';
import { forEachBackend, type Gateway, startGateway } from '../support/gateway.ts';
import { type Balancer, hasBalancer, startBalancer } from '../support/haproxy.ts';
import { RawClient } from '../support/raw-client.ts';
import { Wire } from '../support/wire.ts';

// Only ends a test that has failed: nothing here is measured in time.
setDefaultTimeout(120_000);

/** Answers with the address that the gateway takes for the client's; sockets say theirs when they open, and answer with what they get. */
const app = `
import { defineGateway, getConnInfo } from 'ringway';
import { Hono } from 'hono';
const app = new Hono();
app.get('/ip', (c) => c.json(getConnInfo(c).remote));
export default defineGateway({ $OPTIONS, fetch: app.fetch,
  websocket: {
    '/ws': { open: (socket) => { socket.send(socket.remoteAddress); } },
    '/few': { maxMessagesPerSecond: 5, message: (socket, message) => { socket.send(message); } },
    '/small': { maxBytesPerSecond: 100, message: (socket, message) => { socket.send(message); } },
    '/slow': { maxMessagesPerSecond: 60, onRateLimit: 'pause', message: (socket, message) => { socket.send(message); } },
  },
  SETTINGS
});
`;
const config = (settings: string) => app.replace('SETTINGS', settings);

const get = (fields = '') => `GET /ip HTTP/1.1\r\nHost: a\r\n${fields}\r\n`;

/** A connection from this address that has been served, or undefined when the gateway has closed it without a word. */
async function served(port: number, localAddress: string): Promise<RawClient | undefined> {
  const client = await RawClient.connect({ port, localAddress });
  client.write(get());
  await eventually('an answer, or the end', () => client.isClosed || client.received.length > 0);
  if (client.received.length === 0) return undefined;
  expect((await client.response()).status).toBe(200);
  return client;
}

/** What a handshake from this address is answered with, head and all; the first message when it is accepted. */
async function tryUpgrade(
  port: number,
  localAddress: string,
  fields: Record<string, string> = {},
  prefix = '',
): Promise<{ wire: Wire; head: string; hello?: string }> {
  const wire = await Wire.connect(port, localAddress);
  wire.write(prefix + handshake('/ws', fields));
  const head = await wire.head();
  if (!head.startsWith('HTTP/1.1 101 ')) return { wire, head };
  return { wire, head, hello: (await wire.frame())?.payload.toString() ?? '' };
}

const refused = (gateway: Gateway, reason: string) => gateway.metric('ringway_connections_refused_total', { reason });

forEachBackend('connections of one address', (backend) => {
  const most = 16;
  let gateway: Gateway;
  let clients: RawClient[] = [];
  beforeAll(async () => {
    gateway = await startGateway({ backend, workers: 2, config: config(`limits: { maxConnectionsPerIp: ${most} },`) });
  });
  afterAll(async () => {
    for (const client of clients) client.destroy();
    await gateway?.stop();
  });

  test('are counted over all workers, and each refusal is', async () => {
    for (let i = 0; i < most; i++) clients.push((await served(gateway.port, '127.0.0.2')) as RawClient);
    expect(clients).not.toContain(undefined);
    // Both have some: each would let in twice as many if they counted apart.
    for (const worker of ['0', '1']) expect(await gateway.metric('ringway_connections', { worker })).toBeGreaterThan(0);
    for (let i = 0; i < 20; i++) expect(await served(gateway.port, '127.0.0.2')).toBeUndefined();
    expect(await refused(gateway, 'ip')).toBe(20);
    // Others are not concerned.
    for (const address of ['127.0.0.3', '127.0.0.4']) {
      const { wire, hello } = await tryUpgrade(gateway.port, address);
      expect(hello).toBe(address);
      wire.destroy();
    }
    // Nor are those that are there.
    for (const client of clients) expect((await client.exchange(get())).text).toContain('"127.0.0.2"');
  });

  test('make room when they end', async () => {
    for (const client of clients.splice(0, 3)) client.destroy();
    for (let i = 0; i < 3; i++) clients.push(await eventually('there is room', () => served(gateway.port, '127.0.0.2')));
    expect(await served(gateway.port, '127.0.0.2')).toBeUndefined();
  });

  test('of a worker that was killed count no more', async () => {
    const [first] = await gateway.workerPids();
    process.kill(first as number, 'SIGKILL');
    await eventually('its connections are gone', () => clients.some((client) => client.isClosed));
    await eventually('its successor serves', async () => !(await gateway.workerPids()).includes(first as number));
    await eventually('all that died have room again', async () => {
      clients = clients.filter((client) => !client.isClosed);
      const client = await served(gateway.port, '127.0.0.2');
      if (client !== undefined) clients.push(client);
      return clients.length === most;
    });
    for (let i = 0; i < 5; i++) expect(await served(gateway.port, '127.0.0.2')).toBeUndefined();
  });
});

describe('behind trusted proxies', () => {
  let gateway: Gateway;
  beforeAll(async () => {
    const settings = `limits: { maxConnectionsPerIp: 2 }, trustedProxies: { addresses: ['127.0.0.9', '10.0.0.0/8'] },`;
    gateway = await startGateway({ workers: 2, config: config(settings) });
  });
  afterAll(() => gateway?.stop());

  test('the client is whom they tell of, request by request', async () => {
    const proxy = await RawClient.connect({ port: gateway.port, localAddress: '127.0.0.9' });
    const told = { addressType: 'IPv4', transport: 'tcp' };
    expect(JSON.parse((await proxy.exchange(get('X-Forwarded-For: 6.6.6.6, 192.0.2.1, 10.1.2.3\r\n'))).text)).toEqual({
      address: '192.0.2.1',
      ...told,
    });
    expect(JSON.parse((await proxy.exchange(get('X-Forwarded-For: 2001:db8::7\r\n'))).text)).toMatchObject({
      address: '2001:db8::7',
      addressType: 'IPv6',
    });
    expect(JSON.parse((await proxy.exchange(get())).text)).toMatchObject({ address: '127.0.0.9', port: expect.any(Number) });
    proxy.destroy();
  });

  test('WebSockets are counted by it, and told so with 429', async () => {
    const before = await refused(gateway, 'ip');
    const fields = { 'X-Forwarded-For': '192.0.2.77' };
    const open = [await tryUpgrade(gateway.port, '127.0.0.9', fields), await tryUpgrade(gateway.port, '127.0.0.9', fields)];
    expect(open.map(({ hello }) => hello)).toEqual(['192.0.2.77', '192.0.2.77']);
    const third = await tryUpgrade(gateway.port, '127.0.0.9', fields);
    expect(third.head).toStartWith('HTTP/1.1 429 Too Many Requests\r\n');
    expect(third.head).toMatch(/\r\nRetry-After: \d+\r\n/);
    expect(third.head).toContain('\r\nConnection: close\r\n');
    expect((await refused(gateway, 'ip')) - before).toBe(1);
    const other = await tryUpgrade(gateway.port, '127.0.0.9', { 'X-Forwarded-For': '192.0.2.78' });
    expect(other.hello).toBe('192.0.2.78');
    open[0]?.wire.destroy();
    const again = await eventually('there is room', async () => {
      const attempt = await tryUpgrade(gateway.port, '127.0.0.9', fields);
      return attempt.hello === '192.0.2.77' ? attempt : undefined;
    });
    for (const { wire } of [...open, third, other, again]) wire.destroy();
  });

  test('nobody else is believed: a forged header neither hides a client nor gives it room', async () => {
    const forger = async (forged: string) => tryUpgrade(gateway.port, '127.0.0.5', { 'X-Forwarded-For': forged });
    const open = [await forger('192.0.2.1'), await forger('192.0.2.2')];
    expect(open.map(({ hello }) => hello)).toEqual(['127.0.0.5', '127.0.0.5']);
    const before = await refused(gateway, 'ip');
    expect(await served(gateway.port, '127.0.0.5')).toBeUndefined();
    expect((await refused(gateway, 'ip')) - before).toBe(1);
    for (const { wire } of open) wire.destroy();
  });
});

describe('an address with the PROXY protocol', () => {
  const line = (address: string) => `PROXY TCP4 ${address} 127.0.0.1 4711 443\r\n`;
  let gateway: Gateway;
  beforeAll(async () => {
    gateway = await startGateway({
      workers: 2,
      listen: `{ port: 0, host: '127.0.0.1', proxyProtocol: true }`,
      config: config(`limits: { maxConnectionsPerIp: 2 }, trustedProxies: { addresses: ['127.0.0.9'], header: 'none' },`),
    });
  });
  afterAll(() => gateway?.stop());

  test('refuses whoever comes without a header, and whoever is no proxy', async () => {
    const plain = await RawClient.connect({ port: gateway.port, localAddress: '127.0.0.9' });
    plain.write(get());
    expect((await plain.closed()).length).toBe(0);
    const stranger = await RawClient.connect({ port: gateway.port, localAddress: '127.0.0.5' });
    stranger.write(line('192.0.2.1') + get());
    expect((await stranger.closed()).length).toBe(0);
    expect(await refused(gateway, 'proxy')).toBe(2);
  });

  test('counts the clients that its proxies tell of', async () => {
    const connect = async (address: string) => {
      const client = await RawClient.connect({ port: gateway.port, localAddress: '127.0.0.9' });
      // A header in the request is not believed here.
      client.write(line(address) + get('X-Forwarded-For: 6.6.6.6\r\n'));
      return client;
    };
    const open = [await connect('192.0.2.1'), await connect('192.0.2.1'), await connect('192.0.2.2')];
    const remotes = await Promise.all(open.map(async (client) => JSON.parse((await client.response()).text)));
    expect(remotes.map(({ address, port }) => `${address} ${port}`)).toEqual(['192.0.2.1 4711', '192.0.2.1 4711', '192.0.2.2 4711']);
    expect((await (await connect('192.0.2.1')).closed()).length).toBe(0);
    expect(await refused(gateway, 'ip')).toBe(1);
    for (const client of open) client.destroy();
  });
});

describe.skipIf(!hasBalancer())('behind haproxy', () => {
  let gateway: Gateway;
  let balancer: Balancer;
  const healthCheck = ['option httpchk', 'http-check send meth GET uri /ip ver HTTP/1.1 hdr Host a', 'http-check expect status 200'];
  beforeAll(async () => {
    gateway = await startGateway({
      workers: 2,
      listen: `[{ port: 0, host: '127.0.0.1', proxyProtocol: true }, { unix: new URL('plain.socket', import.meta.url).pathname }]`,
      config: config(`limits: { maxConnectionsPerIp: 2 }, trustedProxies: { addresses: ['127.0.0.1'] },`),
    });
    balancer = await startBalancer({
      v1: { mode: 'tcp', options: healthCheck, server: `127.0.0.1:${gateway.port} send-proxy check inter 50ms` },
      v2: { mode: 'tcp', options: healthCheck, server: `127.0.0.1:${gateway.port} send-proxy-v2 check inter 50ms` },
      connecting: { mode: 'tcp', server: `127.0.0.1:${gateway.port} send-proxy-v2 check inter 50ms` },
      http: { mode: 'http', options: ['option forwardfor'], server: `unix@${gateway.folder}/plain.socket` },
      both: { mode: 'http', options: ['option forwardfor'], server: `127.0.0.1:${gateway.port} send-proxy-v2` },
    });
  });
  afterAll(async () => {
    await balancer?.stop();
    await gateway?.stop();
  });

  for (const name of ['v1', 'v2', 'http'] as const) {
    test(`the client is known, counted and told apart from others (${name})`, async () => {
      const port = balancer.ports[name] as number;
      const client = await RawClient.connect({ port, localAddress: '127.0.0.21' });
      // Forged, and with a mode that reads no HTTP handed on as it is.
      const remote = JSON.parse((await client.exchange(get('X-Forwarded-For: 6.6.6.6\r\n'))).text);
      expect(remote.address).toBe('127.0.0.21');
      client.destroy();
      const before = await refused(gateway, 'ip');
      const open: Wire[] = [];
      for (let i = 0; i < 2; i++) {
        const { wire, hello } = await eventually('there is room', async () => {
          const attempt = await tryUpgrade(port, '127.0.0.22').catch(() => undefined);
          return attempt?.hello === undefined ? undefined : attempt;
        });
        expect(hello).toBe('127.0.0.22');
        open.push(wire);
      }
      const third = await tryUpgrade(port, '127.0.0.22').catch(() => undefined);
      // A connection is closed without a word; a request is answered.
      if (name === 'http') expect(third?.head).toStartWith('HTTP/1.1 429 ');
      else expect(third).toBeUndefined();
      expect((await refused(gateway, 'ip')) - before).toBeGreaterThanOrEqual(1);
      const { wire, hello } = await tryUpgrade(port, '127.0.0.23');
      expect(hello).toBe('127.0.0.23');
      for (const each of [...open, wire]) each.destroy();
    });
  }

  test('with both, the connection tells of the client and its header is not needed', async () => {
    const client = await RawClient.connect({ port: balancer.ports.both as number, localAddress: '127.0.0.24' });
    expect(JSON.parse((await client.exchange(get('X-Forwarded-For: 6.6.6.6\r\n'))).text).address).toBe('127.0.0.24');
    client.destroy();
  });

  test('its health checks are let in, and nothing of all this was refused as no proxy', async () => {
    // With LOCAL and UNKNOWN headers; the third kind only looks whether somebody accepts, and resets.
    const before = await gateway.metric('ringway_http_requests_total');
    await eventually('health checks', async () => (await gateway.metric('ringway_http_requests_total')) >= before + 20);
    expect(await refused(gateway, 'proxy')).toBe(0);
    expect(balancer.output()).not.toMatch(/ is DOWN/);
  });
});

forEachBackend('rates of a WebSocket', (backend) => {
  let gateway: Gateway;
  beforeAll(async () => {
    gateway = await startGateway({ backend, config: config('') });
  });
  afterAll(() => gateway?.stop());

  const numbered = (count: number, bytes = 4) =>
    Buffer.concat(
      Array.from({ length: count }, (_, i) => {
        const payload = Buffer.alloc(bytes);
        payload.writeUInt32BE(i);
        return frame(opcode.binary, payload);
      }),
    );

  test('more messages than allowed: 1008, with a reason, counted', async () => {
    const wire = await Wire.open(gateway.port, '/few');
    // Five in a second: no machine takes so long for these that they are within it.
    wire.write(numbered(5000));
    const frames = await wire.frames();
    const closes = frames.filter((each) => each.opcode === opcode.close);
    expect(closes.map((each) => each.payload)).toEqual([closePayload(1008, 'more messages a second than allowed')]);
    expect(await gateway.metric('ringway_websocket_rate_closes_total', { reason: 'messages' })).toBe(1);
    expect(await gateway.metric('ringway_websocket_messages_total', { direction: 'in' })).toBeGreaterThanOrEqual(10);
    expect(await gateway.metric('ringway_websocket_errors_total')).toBe(0);
  });

  test('more bytes than allowed: the same', async () => {
    const wire = await Wire.open(gateway.port, '/small');
    wire.write(frame(opcode.binary, Buffer.alloc(60_000)));
    expect((await wire.frame())?.payload.length).toBe(60_000);
    wire.write(frame(opcode.text, 'more'));
    expect((await wire.frame())?.payload).toEqual(closePayload(1008, 'more bytes a second than allowed'));
    await wire.untilEnded();
    expect(await gateway.metric('ringway_websocket_rate_closes_total', { reason: 'bytes' })).toBe(1);
  });

  test('pause: every message arrives, in order, and nobody is closed', async () => {
    const wire = await Wire.open(gateway.port, '/slow');
    const count = 240;
    wire.write(numbered(count, 2000));
    for (let i = 0; i < count; i++) {
      const echoed = await wire.frame();
      expect(echoed?.payload.length).toBe(2000);
      expect(echoed?.payload.readUInt32BE()).toBe(i);
    }
    expect(await gateway.metric('ringway_websocket_rate_pauses_total')).toBeGreaterThan(0);
    expect(await gateway.metric('ringway_websocket_rate_closes_total')).toBe(2);
    wire.write(frame(opcode.close, closePayload(1000)));
    expect(await wire.closeCode()).toBe(1000);
  });
});

describe('upgrades a second', () => {
  let gateway: Gateway;
  beforeAll(async () => {
    gateway = await startGateway({ workers: 2, config: config('limits: { upgradesPerSecond: 1 },') });
  });
  afterAll(() => gateway?.stop());

  test('further ones get 503 and when to come again, each counted', async () => {
    const start = performance.now();
    const attempts = await Promise.all(Array.from({ length: 40 }, (_, i) => tryUpgrade(gateway.port, `127.0.0.${30 + i}`)));
    const seconds = (performance.now() - start) / 1000;
    const accepted = attempts.filter(({ hello }) => hello !== undefined);
    // One at once on each worker, then one in two seconds.
    expect(accepted.length).toBeGreaterThanOrEqual(1);
    expect(accepted.length).toBeLessThanOrEqual(2 + seconds);
    const rejected = attempts.filter(({ hello }) => hello === undefined);
    for (const { head } of rejected) {
      expect(head).toStartWith('HTTP/1.1 503 Service Unavailable\r\n');
      expect(head).toContain('\r\nRetry-After: 1\r\n');
      expect(head).toContain('\r\nConnection: close\r\n');
    }
    expect(await gateway.metric('ringway_websocket_upgrades_refused_total', { reason: 'rate' })).toBe(rejected.length);
    for (const { wire } of attempts) wire.destroy();
  });
});
