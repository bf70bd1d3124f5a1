/**
 * How many CPUs this process may use: by affinity (taskset, cpusets) and by the CPU quota of its cgroup (docker --cpus,
 * Kubernetes limits), which no affinity call shows.
 */
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

/** Reads a file, or returns undefined when there is none. Injected by tests. */
export type ReadText = (path: string) => string | undefined;

export function readText(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}

/** CPUs' worth of time that the cgroup grants, such as 1.5; Infinity: no limit. */
export function cgroupCpuQuota(read: ReadText = readText): number {
  return smallestInGroups(
    read,
    'cpu',
    (folder) => quotaV2(read(join(folder, 'cpu.max'))),
    (folder) => quotaV1(read(join(folder, 'cpu.cfs_quota_us')), read(join(folder, 'cpu.cfs_period_us'))),
  );
}

/** The least limit of `controller` for this process, asked of each folder that may hold one, in version 2 of cgroups and in version 1. */
export function smallestInGroups(
  read: ReadText,
  controller: string,
  limitV2: (folder: string) => number,
  limitV1: (folder: string) => number,
): number {
  let limit = Number.POSITIVE_INFINITY;
  for (const line of (read('/proc/self/cgroup') ?? '').split('\n')) {
    // hierarchy-ID:controllers:path (cgroups(7)); version 2 has no controllers here.
    const [, controllers = '', ...rest] = line.split(':');
    const path = rest.join(':');
    if (line.startsWith('0::')) limit = Math.min(limit, smallest(path, ['/sys/fs/cgroup', '/sys/fs/cgroup/unified'], limitV2));
    else if (controllers.split(',').includes(controller))
      limit = Math.min(limit, smallest(path, [`/sys/fs/cgroup/${controller}`, `/sys/fs/cgroup/${controllers}`], limitV1));
  }
  return limit;
}

/** A limit of any group above holds as well. Within a container the path may be that of the host: then only the mount's root is there. */
function smallest(path: string, mounts: readonly string[], limitAt: (folder: string) => number): number {
  let limit = Number.POSITIVE_INFINITY;
  for (const mount of mounts) {
    for (let group = path; ; group = dirname(group)) {
      limit = Math.min(limit, limitAt(join(mount, group)));
      if (group === '/' || group === '.' || group === '') break;
    }
  }
  return limit;
}

/** cpu.max: "max 100000" or "150000 100000". */
function quotaV2(text: string | undefined): number {
  const [quota = 'max', period = ''] = (text ?? '').trim().split(/\s+/);
  return quota === 'max' ? Number.POSITIVE_INFINITY : ratio(Number(quota), Number(period));
}

/** cpu.cfs_quota_us: -1 for none. */
function quotaV1(quota: string | undefined, period: string | undefined): number {
  return ratio(Number(quota ?? -1), Number(period ?? 0));
}

function ratio(quota: number, period: number): number {
  return quota > 0 && period > 0 ? quota / period : Number.POSITIVE_INFINITY;
}

export interface CpuPlan {
  readonly workers: number;
  /** The CPU of each worker; null: not pinned. */
  readonly cpus: readonly (number | null)[];
}

/** Decide the number of workers and where they run. `allowed` are the CPUs of the affinity mask. */
export function planCpus(wanted: 'auto' | number, pin: boolean, allowed: readonly number[], quota: number): CpuPlan {
  const usable = Math.max(1, Math.min(allowed.length, Math.ceil(quota)));
  const workers = wanted === 'auto' ? Math.min(usable, 256) : wanted;
  // Limited by a quota, all containers of a machine see the same CPUs: pinned, they would crowd on the first ones.
  const pinned = pin && allowed.length > 0 && quota >= allowed.length;
  return { workers, cpus: Array.from({ length: workers }, (_, index) => (pinned ? (allowed[index % allowed.length] ?? null) : null)) };
}
