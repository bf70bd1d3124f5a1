/** Checks of CPUs, and of the Bun that runs on them. */
import { advice, type Finding, ok, problem } from './finding.ts';
import type { Goal } from './goal.ts';

export function checkCpus(cpus: readonly number[], quota: number, goal: Goal): Finding {
  const usable = Math.max(1, Math.min(cpus.length, Math.ceil(quota)));
  const limit = quota < cpus.length ? `, of which the cgroup grants ${quota}` : '';
  const workers = `${goal.workers} ${goal.workers === 1 ? 'worker' : 'workers'}${goal.pinned ? ', each on a CPU of its own' : ', not pinned'}`;
  const what = `${cpus.length} by affinity${limit}: ${workers}`;
  const busy = goal.io.sqpoll === false ? 1 : 2;
  if (goal.workers > usable)
    return advice('cpus', `${cpus.length} by affinity${limit}, and ${goal.workers} workers: they take turns, which no client gains by`, {
      where: 'config',
      change: "workers: 'auto'",
    });
  if (goal.workers * busy > usable)
    return advice('cpus', `${what}; io.sqpoll keeps ${goal.workers} more busy, and they are not there`, {
      where: 'config',
      change: 'io: { sqpoll: false }',
    });
  if (quota < 1)
    return advice('cpus', `${what}: with less than one CPU it is stopped again and again within each tenth of a second`, {
      where: 'docker',
      change: 'docker run --cpus 1',
    });
  return ok('cpus', what);
}

export interface BunVersions {
  readonly running: string;
  /** What Ringway is tested with. */
  readonly pinned: string;
}

export function checkBun({ running, pinned }: BunVersions): Finding {
  if (running === pinned) return ok('bun', `${running}, which Ringway is tested with`);
  const remedy = { where: 'install', change: `npm install bun@${pinned}` } as const;
  if (Bun.semver.order(running, pinned) < 0) return problem('bun', `${running} is older than ${pinned}, which Ringway needs`, remedy);
  return advice('bun', `${running}; Ringway is tested with ${pinned}`, remedy);
}
