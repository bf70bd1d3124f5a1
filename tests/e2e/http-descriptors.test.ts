/** Out of file descriptors: new connections wait, those that are open live on, nothing spins, and it is over when there is room. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test';
import { eventually } from '../support/eventually.ts';
import { forEachBackend, type Gateway, startGateway } from '../support/gateway.ts';
import { cpuSeconds, descriptorCount } from '../support/process-state.ts';
import { RawClient } from '../support/raw-client.ts';

// Only to end a test that hangs: `eventually` says more, and sooner.
setDefaultTimeout(60_000);

const config = `
  import { defineGateway } from 'ringway';
  export default defineGateway({ $OPTIONS, fetch: () => new Response('served') });
`;
/** Room for Bun and the gateway itself, and some connections. */
const descriptors = 96;
const request = 'GET / HTTP/1.1\r\nHost: a\r\n\r\n';

forEachBackend('out of descriptors', (backend) => {
  let gateway: Gateway;
  beforeAll(async () => {
    gateway = await startGateway({ config, backend, wrapper: ['prlimit', `--nofile=${descriptors}:${descriptors}`] });
  });
  afterAll(() => gateway.stop());

  test('open connections are served, accepting rests without a spin, and goes on when there is room', async () => {
    const [pid] = (await gateway.workerPids()) as [number];
    const clients: RawClient[] = [];
    for (let i = 0; i < descriptors + 20; i++) clients.push(await RawClient.connect(gateway));
    await eventually(
      'refusals are counted',
      async () => (await gateway.metric('ringway_connections_refused_total', { reason: 'descriptors' })) > 0,
    );
    expect(descriptorCount(pid)).toBeLessThanOrEqual(descriptors);

    const before = cpuSeconds(pid);
    const began = performance.now();
    await Bun.sleep(1000);
    expect((cpuSeconds(pid) - before) / ((performance.now() - began) / 1000)).toBeLessThan(0.2);

    const open = await gateway.metric('ringway_connections', { protocol: 'http' });
    expect(open).toBeGreaterThan(10);
    expect(open).toBeLessThan(clients.length);
    for (const client of clients) client.write(request);
    const answered = () => clients.filter((client) => client.receivedBytes > 0);
    await eventually('those that are open are answered', () => answered().length >= open);
    const accepted = answered();
    for (const client of accepted.slice(0, 5)) expect((await client.response()).text).toBe('served');

    // closing some lets as many of those that wait in, until all have been served
    for (const client of accepted) client.destroy();
    await eventually('the others are accepted and answered', () => answered().length === clients.length);
    for (const client of clients) client.destroy();
    expect(await gateway.workerPids()).toEqual([pid]);
    const late = await RawClient.connect(gateway);
    expect((await late.exchange(request)).text).toBe('served');
    late.destroy();
  });
});
