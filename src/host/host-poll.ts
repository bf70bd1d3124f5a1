/**
 * The epoll descriptor that Bun's own loop waits on.
 *
 * Role: lets a wait in the core end when Bun's loop has something to do. Down: proc_pid_fdinfo(5).
 * Bun does not tell it. It is the one that watches an eventfd which Bun is known to read, by whatever number: Bun duplicates what it opens.
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';

/** `eventfd`: one that Bun's loop reads, and waits for. ret: undefined when there is no such epoll descriptor, or none that can be told from others */
export function findHostPoll(eventfd: number): number | undefined {
  try {
    const id = eventfdId(eventfd);
    if (id === undefined) return undefined;
    const found = readdirSync('/proc/self/fd')
      .filter((fd) => targetOf(fd) === 'anon_inode:[eventpoll]')
      .filter((fd) =>
        [...fdinfo(fd).matchAll(/^tfd:\s+(\d+)/gm)].some(([, watched]) => watched !== undefined && eventfdId(watched) === id),
      );
    return found.length === 1 ? Number(found[0]) : undefined;
  } catch {
    // No /proc, or one that hides this.
    return undefined;
  }
}

function fdinfo(fd: number | string): string {
  return readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1');
}

function targetOf(fd: string): string | undefined {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    // The one that the folder was read through.
    return undefined;
  }
}

/** Tells one eventfd from another, whatever its numbers (Linux 5.2). */
function eventfdId(fd: number | string): string | undefined {
  try {
    return /^eventfd-id:\s*(\d+)/m.exec(fdinfo(fd))?.[1];
  } catch {
    // Closed under this number, though its file is still open under another.
    return undefined;
  }
}
