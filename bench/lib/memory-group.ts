/**
 * A memory cgroup (cgroups(7)) around a server: the only place that tells what the kernel keeps for its sockets, without those of the load
 * client on the same machine. Needs root, and a cgroup file system that may be written to.
 */
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export interface MemoryGroup {
  /** A process that writes its id here belongs to the group, with all that it starts. */
  readonly procsFile: string;
  /** What the kernel keeps for the group: objects such as sockets and files, and the buffers of its sockets. */
  kernelBytes(): number;
  /** Call when its processes have ended. */
  remove(): void;
}

/** Throws when it cannot be made. */
export function createMemoryGroup(): MemoryGroup {
  const isV1 = existsSync('/sys/fs/cgroup/memory/memory.usage_in_bytes');
  const folder = join(isV1 ? '/sys/fs/cgroup/memory' : '/sys/fs/cgroup', `ringway-sizing-${process.pid}`);
  try {
    mkdirSync(folder);
  } catch (error) {
    throw new Error(`a memory cgroup is needed, and cannot be made: ${error instanceof Error ? error.message : error}`);
  }
  // Version 1 charges sockets to a group only once it has a limit for them, however high.
  if (isV1) writeFileSync(join(folder, 'memory.kmem.tcp.limit_in_bytes'), String(2 ** 40));
  const read = (file: string) => readFileSync(join(folder, file), 'utf8');
  return {
    procsFile: join(folder, 'cgroup.procs'),
    kernelBytes: () =>
      isV1 ? Number(read('memory.kmem.usage_in_bytes')) + Number(read('memory.kmem.tcp.usage_in_bytes')) : kernelOf(read('memory.stat')),
    remove: () => rmdirSync(folder),
  };
}

/** memory.stat of version 2: buffers of sockets are not among `kernel`. */
function kernelOf(stat: string): number {
  const field = (name: string) => Number(new RegExp(`^${name} (\\d+)$`, 'm').exec(stat)?.[1] ?? Number.NaN);
  return field('kernel') + field('sock');
}
