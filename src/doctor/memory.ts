/** Checks of memory: enough for the connections, and what the system does with it. */
import { cgroupMemoryLimit } from '../process/memory.ts';
import { advice, count, type Finding, ok, problem, short, size } from './finding.ts';
import type { Goal } from './goal.ts';
import type { Machine } from './machine.ts';

/** Bytes of one connection that is open and at rest, the kernel's own included, and of one worker without any: docs/sizing.md tells how they were measured. */
export const costs = { connection: 4608, tlsConnection: 18_432, worker: 32 * 2 ** 20 } as const;
/** The part of the memory that connections at rest may fill: messages, garbage and everything else need the rest. */
const shareAtRest = 0.7;
/** A slot of the core (docs/architecture.md). */
const slotBytes = 256;

export function checkMemory(machine: Machine, goal: Goal): Finding | undefined {
  const total = machine.memory('MemTotal');
  if (total === undefined) return undefined;
  const granted = cgroupMemoryLimit(machine.text);
  const isCgroup = granted < total;
  const limit = Math.min(granted, total);
  const isTls = goal.listen.some(({ tls }) => tls !== undefined);
  const each = isTls ? costs.tlsConnection : costs.connection;
  const needed = goal.connections * each + goal.workers * costs.worker;
  const what = `${size(limit)}${isCgroup ? ' by the cgroup' : ''}; ${count(goal.connections)} connections at rest${isTls ? ', over TLS,' : ''} take about ${size(needed)}`;
  if (needed <= limit * shareAtRest) return ok('memory', what);
  const affordable = Math.max(1, Math.floor((limit * shareAtRest - goal.workers * costs.worker) / each / goal.workers));
  const wanted = `${Math.ceil(needed / shareAtRest / 2 ** 20)}M`;
  return short(
    goal.isAsked,
    'memory',
    what,
    ...(isCgroup
      ? ([
          { where: 'docker', change: `docker run --memory ${wanted.toLowerCase()}` },
          { where: 'systemd', change: `MemoryMax=${wanted}` },
        ] as const)
      : []),
    { where: 'config', change: `limits: { maxConnections: ${affordable} }` },
  );
}

const hugePages = '/sys/kernel/mm/transparent_hugepage/enabled';

export function checkHugePages(machine: Machine): Finding | undefined {
  const mode = /\[(\w+)\]/.exec(machine.text(hugePages) ?? '')?.[1];
  if (mode === undefined) return undefined;
  if (mode !== 'always') return ok('huge-pages', `transparent huge pages: ${mode}`);
  return advice('huge-pages', 'transparent huge pages: always, so that memory is taken 2 MiB at a time where 4 KiB are used', {
    where: 'host',
    change: `echo madvise > ${hugePages}`,
  });
}

/** With vm.overcommit_memory=2 the slots of a worker are charged when they are reserved, not when they are used (proc_sys_vm(5)). */
export function checkOvercommit(machine: Machine, goal: Goal): Finding | undefined {
  if (machine.sysctl('vm.overcommit_memory') !== 2) return undefined;
  const room = (machine.memory('CommitLimit') ?? 0) - (machine.memory('Committed_AS') ?? 0);
  const reserved = goal.workers * (goal.maxConnections * slotBytes + costs.worker);
  const what = `vm.overcommit_memory is 2, with room for ${size(Math.max(0, room))}: the slots of ${count(goal.workers)} workers are charged at once, ${size(reserved)}`;
  if (room >= reserved) return ok('overcommit', what);
  return problem('overcommit', what, machine.setSysctl('vm.overcommit_memory', 0), {
    where: 'config',
    change: `limits: { maxConnections: ${goal.connectionsPerWorker} }`,
  });
}

/** Of all memory; a little is always swapped out where there is swap. */
const swappedShareMax = 0.05;

export function checkSwap(machine: Machine): Finding | undefined {
  const [total, free, memory] = [machine.memory('SwapTotal'), machine.memory('SwapFree'), machine.memory('MemTotal')];
  if (total === undefined || free === undefined || memory === undefined || total === 0) return undefined;
  const used = total - free;
  if (used <= memory * swappedShareMax) return ok('swap', `${size(used)} of ${size(total)} are in use`);
  return advice(
    'swap',
    `${size(used)} are swapped out: a page that has to come back holds up every connection of its worker`,
    machine.setSysctl('vm.swappiness', 10),
    { where: 'systemd', change: 'MemorySwapMax=0' },
  );
}
