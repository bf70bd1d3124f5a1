/**
 * What the kernel holds for a client that does not read: it is let go in time, by a reset, and a client that reads slowly gets all of it.
 */
import { expect, setDefaultTimeout, test } from 'bun:test';
import { readFileSync } from 'node:fs';
import { eventually } from '../support/eventually.ts';
import { forEachBackend, type Gateway, startGateway } from '../support/gateway.ts';
import { RawClient } from '../support/raw-client.ts';

// Only ends a test that has failed: nothing here is measured in time.
setDefaultTimeout(60_000);

/** More than a client's receive buffer takes at first, less than the kernel takes from the gateway. */
const bytes = 3 << 20;

const start = (backend: 'io_uring' | 'epoll', http: string): Promise<Gateway> =>
  startGateway({
    backend,
    config: `
      import { defineGateway } from 'ringway';
      const body = new Uint8Array(${bytes}).fill(97);
      export default defineGateway({ $OPTIONS, http: { keepAliveTimeout: 0.2, lingerTimeout: 0.2, ${http} }, fetch: () => new Response(body) });
    `,
  });

/** Bytes that the kernel holds for clients of the gateway, those of closed connections included (proc_net_tcp(5)): tx_queue. */
function held(port: number): number {
  const local = `:${port.toString(16).toUpperCase().padStart(4, '0')}`;
  let sum = 0;
  for (const line of readFileSync('/proc/net/tcp', 'utf8').split('\n').slice(1)) {
    const [, address = '', , state, queues = ''] = line.trim().split(/\s+/);
    if (address.endsWith(local) && state !== '0A') sum += Number.parseInt(queues.split(':')[0] ?? '0', 16);
  }
  return sum;
}

async function stalled(gateway: Gateway): Promise<RawClient> {
  const client = await RawClient.connect(gateway);
  client.socket.pause();
  client.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
  await eventually('the kernel holds output', () => held(gateway.port) > 100_000);
  return client;
}

forEachBackend('unread output', (backend) => {
  test('a client that reads nothing is reset once nothing has moved for the write timeout', async () => {
    const gateway = await start(backend, 'writeTimeout: 1, minBytesPerSecond: 1');
    const client = await stalled(gateway);
    try {
      await eventually('the kernel holds nothing any more', () => held(gateway.port) === 0);
    } finally {
      client.destroy();
      await gateway.stop();
    }
  });

  test('a client that reads less than the least rate is reset', async () => {
    const gateway = await start(backend, 'writeTimeout: 600, minBytesPerSecond: 1_000_000');
    const client = await stalled(gateway);
    try {
      await eventually('the kernel holds nothing any more', () => held(gateway.port) === 0);
      expect(await gateway.metric('ringway_timeouts_total', { kind: 'write' })).toBe(1);
    } finally {
      client.destroy();
      await gateway.stop();
    }
  });

  test('a client that reads late, and not too slowly, gets all of it after its connection has ended here', async () => {
    const gateway = await start(backend, 'writeTimeout: 600, minBytesPerSecond: 100');
    const client = await stalled(gateway);
    try {
      await eventually(
        'the connection is idle for too long',
        async () => (await gateway.metric('ringway_timeouts_total', { kind: 'idle' })) > 0,
      );
      client.socket.resume();
      expect((await client.response()).body.length).toBe(bytes);
      await client.closed();
    } finally {
      client.destroy();
      await gateway.stop();
    }
  });
});
