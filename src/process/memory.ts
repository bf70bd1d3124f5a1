/**
 * How much memory this process may use: that of the machine, or what its cgroup grants (docker --memory, Kubernetes limits, MemoryMax).
 * Role: asked by workers for their budgets, and by the doctor.
 */
import { join } from 'node:path';
import { type ReadText, readText, smallestInGroups } from './cpus.ts';

/** Bytes that the cgroup of this process, or one above it, grants; Infinity: no limit. */
export function cgroupMemoryLimit(read: ReadText = readText): number {
  const limitOf = (file: string) => (folder: string) => {
    const bytes = Number(read(join(folder, file)) ?? 'max');
    return bytes > 0 ? bytes : Number.POSITIVE_INFINITY;
  };
  return smallestInGroups(read, 'memory', limitOf('memory.max'), limitOf('memory.limit_in_bytes'));
}

/** Bytes of memory for this process and what shares its cgroup. Where nothing tells, 1 GiB. */
export function availableMemory(read: ReadText = readText): number {
  const total = Number(/^MemTotal:\s+(\d+) kB/m.exec(read('/proc/meminfo') ?? '')?.[1] ?? 2 ** 20) * 1024;
  return Math.min(total, cgroupMemoryLimit(read));
}

interface Budget {
  /** Of the memory that there is; the rest is for everything else. */
  readonly share: number;
  /** Bytes of a worker: less would refuse what is harmless. */
  readonly least: number;
}
const unfinished: Budget = { share: 1 / 4, least: 16 * 2 ** 20 };
const inflate: Budget = { share: 1 / 8, least: 4 * 2 ** 20 };
/** Of a node. */
const topicMemory = { share: 1 / 8, least: 64 * 2 ** 20, most: 2 ** 30 } as const;

/** Bytes that one of so many workers may hold of what clients have begun. `wanted`: for all of them, or what is left to us. */
export function unfinishedBytesOf(wanted: 'auto' | number, workers: number, read: ReadText = readText): number {
  return bytesOf(unfinished, wanted, workers, read);
}

/** The same for windows of clients that send compressed messages. */
export function inflateBytesOf(wanted: 'auto' | number, workers: number, read: ReadText = readText): number {
  return bytesOf(inflate, wanted, workers, read);
}

function bytesOf({ share, least }: Budget, wanted: 'auto' | number, workers: number, read: ReadText): number {
  if (wanted !== 'auto') return Math.max(1024, Math.floor(wanted / workers));
  return Math.max(least, Math.floor((availableMemory(read) * share) / workers));
}

/** Bytes that the workers of a node share for what topics remember. */
export function topicMemoryBytesOf(wanted: 'auto' | number, read: ReadText = readText): number {
  const { share, least, most } = topicMemory;
  const bytes = wanted === 'auto' ? Math.min(most, Math.max(least, availableMemory(read) * share)) : wanted;
  // Whole pages: it is mapped.
  return Math.floor(bytes / 4096) * 4096;
}
