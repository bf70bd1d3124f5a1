/** Checks of descriptors: a connection is one. */
import { count, type Finding, ok, problem, short } from './finding.ts';
import type { Goal } from './goal.ts';
import type { Machine } from './machine.ts';

/** A worker's own: its ring, its files, Bun's, one for each worker and listener; generously. */
const ownDescriptors = 256;
/** Less than this is short for any gateway. */
const descriptorsMin = 2048;

function neededPerWorker(goal: Goal): number {
  return goal.connectionsPerWorker + ownDescriptors + goal.workers + goal.listen.length;
}

/** Bun raises its soft limit to the hard one when it starts. */
export function checkDescriptors(machine: Machine, goal: Goal): Finding | undefined {
  const limit = machine.limit('Max open files')?.hard;
  if (limit === undefined) return undefined;
  const needed = neededPerWorker(goal);
  const room = Math.max(0, limit - ownDescriptors - goal.workers - goal.listen.length);
  const what =
    limit === Number.POSITIVE_INFINITY
      ? 'no hard limit'
      : `the hard limit is ${count(limit)} for each process: room for ${count(room)} connections in each worker`;
  if (limit >= needed) return ok('descriptors', what);
  const most = machine.sysctl('fs.nr_open');
  const asked = `${what}, and ${count(goal.connectionsPerWorker)} are ${goal.isAsked ? 'asked for' : 'assumed'}`;
  return short(
    goal.isAsked || limit < descriptorsMin,
    'descriptors',
    asked,
    ...(most !== undefined && most < needed ? [{ where: 'host', change: `sysctl -w fs.nr_open=${needed}` } as const] : []),
    { where: 'shell', change: `ulimit -Hn ${needed}   # as root, in the shell that starts it` },
    { where: 'systemd', change: `LimitNOFILE=${needed}` },
    { where: 'docker', change: `docker run --ulimit nofile=${needed}:${needed}` },
  );
}

/** What the kernel holds open for all processes together. Only root's processes may go past it. */
export function checkFileTable(machine: Machine, goal: Goal): Finding | undefined {
  const most = machine.sysctl('fs.file-max');
  if (most === undefined) return undefined;
  const used = machine.numbers('/proc/sys/fs/file-nr')?.[0] ?? 0;
  const needed = used + neededPerWorker(goal) * goal.workers;
  const what = `fs.file-max is ${count(most)}, ${count(used)} are open`;
  if (most >= needed) return ok('file-table', what);
  return short(
    goal.isAsked,
    'file-table',
    `${what}; ${count(goal.connections)} connections need more`,
    machine.setSysctl('fs.file-max', needed * 2),
  );
}

/** Connections past the config's own limit are refused, whatever the machine could bear. */
export function checkOwnLimit(goal: Goal): Finding {
  const total = goal.maxConnections * goal.workers;
  const what = `limits.maxConnections is ${count(goal.maxConnections)} for each of ${count(goal.workers)} ${goal.workers === 1 ? 'worker' : 'workers'}`;
  if (goal.maxConnections >= goal.connectionsPerWorker) return ok('limits', what);
  return problem('limits', `${what}: ${count(total)} in all, and ${count(goal.connections)} are asked for`, {
    where: 'config',
    change: `limits: { maxConnections: ${goal.connectionsPerWorker} }`,
  });
}
