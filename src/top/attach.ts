/**
 * Looks into the shared memory of a gateway that runs.
 * Role: from the supervisor's process id to a reader of counters. Down: /proc/<pid>/fd (proc(5)), ringway.h rw_shm_map().
 */
import { closeSync, fstatSync, openSync, readdirSync, readlinkSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { SharedStats } from '../core/native.ts';
import { hostLayout, statIndex } from '../core/stat-index.ts';
import { errorCode, OperatingError } from '../operating-error.ts';
import type { CounterReader } from './sample.ts';

/** What memfd_create(2) was called with in ffi/core/node/shm.c, as /proc shows it. */
const memoryName = '/memfd:ringway (deleted)';

export interface AttachedCounters extends CounterReader {
  /** Whether the process that was attached to still has this memory: not one that has ended, whoever has its number now. */
  isAlive(): boolean;
  detach(): void;
}

/** `map`: maps a descriptor of shared memory. Throws OperatingError. */
export function attachTo(pid: number, map: (fd: number, hostLayout: number) => SharedStats, proc = '/proc'): AttachedCounters {
  const { fd, link } = openMemory(join(proc, String(pid), 'fd'), pid);
  // Memory of another gateway would have another number.
  const own = fstatSync(fd).ino;
  let shared: SharedStats;
  try {
    shared = map(fd, hostLayout);
  } catch (error) {
    throw new OperatingError(`the counters of process ${pid} cannot be read: it runs another version of Ringway than this command`, {
      cause: error,
    });
  } finally {
    closeSync(fd);
  }
  const blocks = Array.from({ length: shared.places }, (_, place) => shared.read(place));
  return {
    places: blocks.length,
    read: (place, field) => Number(blocks[place]?.[statIndex(field)] ?? 0n),
    isAlive() {
      try {
        return statSync(link).ino === own;
      } catch {
        return false;
      }
    },
    detach: () => shared.unmap(),
  };
}

/** ret: undefined: it was closed meanwhile */
function targetOf(link: string): string | undefined {
  try {
    return readlinkSync(link);
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return undefined;
    throw error;
  }
}

function openMemory(folder: string, pid: number): { readonly fd: number; readonly link: string } {
  try {
    for (const name of readdirSync(folder)) {
      const link = join(folder, name);
      if (targetOf(link) === memoryName) return { fd: openSync(link, 'r+'), link };
    }
  } catch (error) {
    const code = errorCode(error);
    if (code === 'ENOENT') throw new OperatingError(`there is no process ${pid} (any more)`, { cause: error });
    if (code === 'EACCES' || code === 'EPERM')
      throw new OperatingError(`process ${pid} belongs to another user: run this command as that user, or as root`, { cause: error });
    throw new OperatingError(`the descriptors of process ${pid} cannot be looked at (${code})`, { cause: error });
  }
  throw new OperatingError(`process ${pid} is no supervisor of a gateway`);
}
