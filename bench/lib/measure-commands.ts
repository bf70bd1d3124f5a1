/** What nodes ask of Redis while members rest. */
import { LoadClient } from './load-client.ts';
import type { Measurement } from './measurement.ts';
import { portOf, type Server } from './servers.ts';
import type { Workload } from './workloads.ts';

/** Until every join has reached Redis, and nothing of it is asked again. */
const settleMs = 15_000;
const restMs = 30_000;

/** Commands a second of each node. What a script does within Redis is not counted apart. */
export async function measureCommands(
  { load }: Workload,
  { server, clientCpu }: { server: Server; clientCpu: number },
): Promise<Measurement> {
  const { redis } = server;
  if (redis === undefined) throw new Error(`${server.name} has no Redis`);
  const client = new LoadClient({
    program: 'topics',
    args: [...load, '--api-port', String(server.apiPort), ...server.loadOptions],
    port: portOf(server),
    cpu: clientCpu,
  });
  await client.line('open ');
  await Bun.sleep(settleMs);
  const before = await redis.counts();
  await Bun.sleep(restMs);
  const after = await redis.counts();
  client.release();
  await client.report();
  // Calls that a script makes stand beside that of the script.
  const asked = (name: string) =>
    /^(?:eval|evalsha|eval_ro|evalsha_ro|fcall|fcall_ro|publish|spublish|subscribe|ssubscribe|ping|hello|client.*)$/.test(name);
  const rows = [...after.calls]
    .map(([name, calls]) => [name, calls - (before.calls.get(name) ?? 0)] as const)
    .filter(([, calls]) => calls > 0);
  const direct = rows.filter(([name]) => asked(name));
  const total = direct.reduce((sum, [, calls]) => sum + calls, 0);
  const nodes = server.processes.length;
  return {
    value: total / nodes / (restMs / 1000),
    note: rows.map(([name, calls]) => `${name} ${(calls / nodes / (restMs / 1000)).toFixed(1)}`).join(', '),
  };
}
