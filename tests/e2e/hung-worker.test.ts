/**
 * A worker that does not go on: told of, replaced, and gone with its supervisor.
 */
import { afterEach, expect, setDefaultTimeout, test } from 'bun:test';
import { join } from 'node:path';
import { eventually } from '../support/eventually.ts';
import { freePort } from '../support/free-port.ts';
import { forEachBackend, type Gateway, startGateway } from '../support/gateway.ts';
import { isAlive } from '../support/process-state.ts';
import { RawClient } from '../support/raw-client.ts';

// Only ends a test that has failed: nothing here is measured in time.
setDefaultTimeout(60_000);

const root = join(import.meta.dir, '..', '..');
const config = `
import { defineGateway } from 'ringway';
export default defineGateway({
  $OPTIONS,
  hangTimeout: 2,
  fetch(request) {
    if (request.url.endsWith('/hang')) for (;;);
    return new Response('ok');
  },
});
`;

const cleanUps: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp();
});

forEachBackend('a worker that does not go on', (backend) => {
  async function start(): Promise<Gateway> {
    const gateway = await startGateway({ config, backend });
    cleanUps.push(() => gateway.stop());
    return gateway;
  }

  async function expectReplaced(gateway: Gateway, pid: number): Promise<void> {
    const notReady = await eventually('the node is not ready', async () => {
      const response = await fetch(`${gateway.adminUrl}/readyz`);
      return response.status === 503 && ((await response.json()) as { reason: string }).reason;
    });
    expect(notReady).toMatch(/^worker 0 is /);
    await eventually('another process has its place', async () => {
      const [next] = await gateway.workerPids();
      return next !== undefined && next !== null && next !== pid;
    });
    await eventually('the node is ready', async () => (await fetch(`${gateway.adminUrl}/readyz`)).ok);
    expect(await (await fetch(`${gateway.url}/`)).text()).toBe('ok');
    expect(await gateway.metric('ringway_worker_restarts_total')).toBe(1);
    expect(gateway.output()).toMatch(new RegExp(`worker 0 \\(process ${pid}\\) does not go on since \\d+ s and serves nobody`));
  }

  test('because a handler never returns, is replaced', async () => {
    const gateway = await start();
    const [pid = 0] = await gateway.workerPids();
    const client = await RawClient.connect({ port: gateway.port });
    client.write('GET /hang HTTP/1.1\r\nHost: x\r\n\r\n');
    await expectReplaced(gateway, pid);
    client.destroy();
  });

  test('because it was stopped, is replaced', async () => {
    const gateway = await start();
    const [pid = 0] = await gateway.workerPids();
    process.kill(pid, 'SIGSTOP');
    await expectReplaced(gateway, pid);
    expect(gateway.output()).toContain('it was stopped by a signal, or by a debugger');
  });

  test('ends with a supervisor that is killed', async () => {
    const gateway = await start();
    const [pid = 0] = await gateway.workerPids();
    process.kill(pid, 'SIGSTOP');
    gateway.kill('SIGKILL');
    await eventually('the worker has ended', () => !isAlive(pid));
  });
});

test('a gateway whose launcher is killed stops at once, so that the next start finds its ports free', async () => {
  const [port, adminPort] = [freePort(), freePort()];
  const gateway = await startGateway({ config, listen: `{ port: ${port}, host: '127.0.0.1' }`, admin: `{ port: ${adminPort} }` });
  const { folder } = gateway;
  cleanUps.push(() => gateway.stop());
  gateway.kill('SIGTERM');
  await gateway.exited;
  const start = () => {
    const child = Bun.spawn(['node', join(root, 'bin/ringway.mjs'), 'start', '-c', join(folder, 'gateway.config.ts')], {
      stdio: ['ignore', 'ignore', 'ignore'],
    });
    cleanUps.push(() => child.kill('SIGTERM'));
    return child;
  };
  const health = async () => {
    try {
      const response = await fetch(`http://127.0.0.1:${adminPort}/healthz`, { keepalive: false });
      return (await response.json()) as { pid: number; workers: { pid: number; state: string }[] };
    } catch {
      return undefined;
    }
  };
  const ready = async () => {
    const found = await health();
    return found?.workers.every(({ state }) => state === 'ready') ? found : undefined;
  };
  const first = start();
  const { pid, workers } = await eventually('the gateway is ready', ready);
  expect(pid).not.toBe(first.pid);
  // A connection that is open does not hold it up.
  const client = await RawClient.connect({ port });
  first.kill('SIGKILL');
  await eventually('supervisor and workers have ended', () => ![pid, ...workers.map((worker) => worker.pid)].some(isAlive));
  client.destroy();
  const second = start();
  const next = await eventually('another gateway is ready', ready);
  expect(next.pid).not.toBe(pid);
  second.kill('SIGTERM');
  expect(await second.exited).toBe(0);
});
