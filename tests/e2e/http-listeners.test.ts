/** Addresses to listen on, one or several: IPv4, IPv6, Unix sockets. And what the admin listener says of the traffic. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eventually } from '../support/eventually.ts';
import { forEachBackend, type Gateway, startGateway } from '../support/gateway.ts';
import { RawClient } from '../support/raw-client.ts';

// Only to end a test that hangs: `eventually` says more, and sooner.
setDefaultTimeout(60_000);

const handler = `(request, env) => {
  const { pathname } = new URL(request.url);
  if (pathname === '/status') return new Response(null, { status: Number(new URL(request.url).search.slice(1)) });
  if (pathname === '/throw') throw new Error('as asked');
  return Response.json({ listener: env.listener, ip: env.ip() ?? null });
}`;

const several = (backend: string) => `
  import { defineGateway } from 'ringway';
  export default defineGateway({
    listen: [{ port: 0, host: '127.0.0.1' }, { port: 0, host: '127.0.0.1' }, { unix: process.env.TEST_SOCKET }, ...JSON.parse(process.env.TEST_MORE)],
    admin: { port: 0 }, workers: 2, affinity: false, io: { backend: '${backend}' },
    fetch: ${handler},
  });
`;

const canIpv6 = await new Promise<boolean>((resolve) => {
  const server = createServer();
  server.on('error', () => resolve(false));
  server.listen({ port: 0, host: '::1' }, () => server.close(() => resolve(true)));
});

forEachBackend('listeners', (backend) => {
  let gateway: Gateway;
  let folder: string;
  let socketPath: string;
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'ringway-socket-'));
    socketPath = join(folder, 'gateway.sock');
    const more = canIpv6
      ? [
          { port: 0, host: '::1' },
          { port: 0, host: '::' },
        ]
      : [];
    gateway = await startGateway({ config: several(backend), env: { TEST_SOCKET: socketPath, TEST_MORE: JSON.stringify(more) } });
  });
  afterAll(async () => {
    await gateway.stop();
    rmSync(folder, { recursive: true, force: true });
  });
  const labels = () => [...gateway.output().matchAll(/listening on (\S+) \(/g)].map((match) => match[1] as string);
  const ask = async (client: RawClient) => {
    const answer = JSON.parse((await client.exchange('GET / HTTP/1.1\r\nHost: a\r\n\r\n')).text);
    client.destroy();
    return answer;
  };

  test('each address serves, and the handler knows which one it was', async () => {
    for (const [index, label] of labels().slice(0, 2).entries()) {
      const answer = await ask(await RawClient.connect({ port: Number(new URL(label).port) }));
      expect([answer.listener, answer.ip.address]).toEqual([index, '127.0.0.1']);
    }
  });

  test('a Unix socket serves: raw, by curl, and by fetch', async () => {
    for (let i = 0; i < 20; i++) expect(await ask(await RawClient.connect({ path: socketPath }))).toEqual({ listener: 2, ip: null });
    const child = Bun.spawn(['curl', '-s', '--unix-socket', socketPath, 'http://any/']);
    expect(await new Response(child.stdout).json()).toEqual({ listener: 2, ip: null });
    expect(await (await fetch('http://any/', { unix: socketPath })).json()).toEqual({ listener: 2, ip: null });
  });

  test.skipIf(!canIpv6)('IPv6 serves, and an address for both knows IPv4 clients by their IPv4 address', async () => {
    const [, , , loopback = '', both = ''] = labels();
    const six = await ask(await RawClient.connect({ port: Number(new URL(loopback).port), host: '::1' }));
    expect([six.listener, six.ip.address]).toEqual([3, '::1']);
    const four = await ask(await RawClient.connect({ port: Number(new URL(both).port) }));
    expect([four.listener, four.ip.address]).toEqual([4, '127.0.0.1']);
    const answer = (await (await fetch(`http://[::1]:${new URL(both).port}/`)).json()) as { ip: { address: string } };
    expect(answer.ip.address).toBe('::1');
  });

  test('the admin listener answers health, readiness and metrics', async () => {
    const health = (await (await fetch(`${gateway.adminUrl}/healthz`)).json()) as { status: string; workers: { backend: string }[] };
    expect([health.status, health.workers.length, health.workers[0]?.backend]).toEqual(['ok', 2, backend]);
    const ready = await fetch(`${gateway.adminUrl}/readyz`);
    expect([ready.status, await ready.json()]).toEqual([200, { status: 'ready' }]);
    const metrics = await fetch(`${gateway.adminUrl}/metrics`);
    expect(metrics.headers.get('content-type')).toContain('text/plain');
    expect(await metrics.text()).toContain('# TYPE ringway_http_requests_total counter');
    expect((await fetch(`${gateway.adminUrl}/none`)).status).toBe(404);
    expect((await fetch(`${gateway.adminUrl}/metrics`, { method: 'POST' })).status).toBe(405);
  });

  test('the socket file goes when the gateway does', async () => {
    expect(existsSync(socketPath)).toBe(true);
    gateway.kill('SIGTERM');
    expect(await gateway.exited).toBe(0);
    expect(existsSync(socketPath)).toBe(false);
  });
});

forEachBackend('metrics', (backend) => {
  let gateway: Gateway;
  beforeAll(async () => {
    gateway = await startGateway({
      config: `import { defineGateway } from 'ringway'; export default defineGateway({ $OPTIONS, fetch: ${handler} });`,
      backend,
      workers: 2,
    });
  });
  afterAll(() => gateway.stop());

  test('agree with the traffic: connections, requests, statuses, bytes', async () => {
    const asked: readonly [target: string, times: number][] = [
      ['/', 7],
      ['/status?204', 5],
      ['/status?302', 4],
      ['/status?404', 3],
      ['/throw', 2],
    ];
    let sent = 0;
    let received = 0;
    const clients = await Promise.all([0, 1, 2].map(() => RawClient.connect(gateway)));
    let at = 0;
    for (const [target, times] of asked) {
      for (let i = 0; i < times; i++) {
        const client = clients[at++ % clients.length] as RawClient;
        const bytes = `GET ${target} HTTP/1.1\r\nHost: a\r\n\r\n`;
        sent += bytes.length;
        await client.exchange(bytes);
      }
    }
    const refused = await RawClient.connect(gateway);
    refused.write('GET / HTTP/9.9\r\n\r\n');
    sent += 18;
    await refused.closed();
    for (const client of [...clients, refused]) received += client.receivedBytes;
    const responses = (status: string) => gateway.metric('ringway_http_responses_total', { status });
    expect(await Promise.all(['1xx', '2xx', '3xx', '4xx', '5xx'].map(responses))).toEqual([0, 12, 4, 3, 3]);
    expect(await gateway.metric('ringway_http_requests_total')).toBe(21);
    expect(await gateway.metric('ringway_http_errors_total')).toBe(1);
    expect(await gateway.metric('ringway_handler_errors_total')).toBe(2);
    expect(await gateway.metric('ringway_connections_accepted_total')).toBe(4);
    expect(await gateway.metric('ringway_received_bytes_total')).toBe(sent);
    // a send is counted when its completion is seen, which may be after the client has read it
    await eventually('the bytes sent', async () => (await gateway.metric('ringway_sent_bytes_total')) === received);
    expect(await gateway.metric('ringway_node_received_bytes_total')).toBe(sent);
    expect(await gateway.metric('ringway_connections', { protocol: 'http' })).toBeGreaterThanOrEqual(3);
    expect(await gateway.metric('ringway_io_backend_info', { backend })).toBe(2);
    for (const client of clients) client.destroy();
  });
});
