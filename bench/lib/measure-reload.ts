/** A reload under load, and what clients notice of it. */
import { LoadClient } from './load-client.ts';
import type { Measurement } from './measurement.ts';
import { pidOf, portOf, type Server } from './servers.ts';

/** From the first second of full load to the signal. */
const beforeMs = 2000;
/** Until every old worker is gone: the drain of peers/reload.config.ts, and what starts and stops besides. */
const lengthSeconds = 20;

interface Health {
  readonly workers: readonly { readonly pid: number | null; readonly state: string }[];
}

async function workerPids(adminPort: number): Promise<number[]> {
  const response = await fetch(`http://127.0.0.1:${adminPort}/healthz`);
  const { workers } = (await response.json()) as Health;
  return workers.flatMap(({ pid }) => pid ?? []);
}

export async function measureReload(load: readonly string[], server: Server, clientCpu: number): Promise<Measurement> {
  const before = await workerPids(server.adminPort);
  const args = [...load, '--warmup-ms', '500', '--seconds', String(lengthSeconds)];
  const client = new LoadClient({ args, port: portOf(server), cpu: clientCpu });
  await client.line('measure-begin');
  await Bun.sleep(beforeMs);
  process.kill(pidOf(server), 'SIGHUP');
  await client.line('measure-end');
  const report = await client.report();
  const after = await workerPids(server.adminPort);
  if (after.length === 0 || after.some((pid) => before.includes(pid)))
    throw new Error(`nothing was reloaded: workers ${before.join(', ')} before it, ${after.join(', ')} after it`);
  const { failed_connects = 0, failed_handshakes = 0, failed_echoes = 0, lost_requests = 0, cut = 0 } = report;
  const { opened = 0, requests = 0, closed_1001 = 0, closed_1012 = 0, closed_other = 0 } = report;
  return {
    value: failed_connects + failed_handshakes + failed_echoes + lost_requests + cut,
    note:
      `${failed_connects} failed connects, ${failed_handshakes} failed handshakes, ${failed_echoes} lost echoes, ` +
      `${lost_requests} lost requests, ${cut} cut; of ${opened} opened and ${requests} requests; ` +
      `${closed_1001 + closed_1012 + closed_other} sockets told to come back`,
  };
}
