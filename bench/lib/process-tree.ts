/** What a process and all its descendants have used, read from /proc (proc_pid_schedstat, proc_pid_smaps). */
import { readdirSync, readFileSync } from 'node:fs';

/** `root` and its descendants, at this moment. */
export function treeOf(root: number): number[] {
  const pids = [root];
  for (let at = 0; at < pids.length; at++) {
    for (const task of tasksOf(pids[at] as number)) {
      const children = read(`/proc/${pids[at]}/task/${task}/children`);
      pids.push(...children.split(' ').filter(Boolean).map(Number));
    }
  }
  return pids;
}

/** Nanoseconds on a CPU, of every thread of the tree that lives; io_uring's kernel threads are among them. */
export function cpuNs(root: number): number {
  let sum = 0;
  for (const pid of treeOf(root)) {
    for (const task of tasksOf(pid)) sum += Number(read(`/proc/${pid}/task/${task}/schedstat`).split(' ')[0]);
  }
  return sum;
}

/**
 * Proportional set size of the tree (a page that several processes share counts once in the sum), without the pages of files. Those are
 * the program itself: their share of this tree changes whenever another process of the same program starts or ends, the bench among them.
 */
export function memoryBytes(root: number): number {
  let sum = 0;
  for (const pid of treeOf(root)) {
    for (const [, kib] of read(`/proc/${pid}/smaps_rollup`).matchAll(/^Pss_(?:Anon|Shmem):\s+(\d+) kB$/gm)) sum += Number(kib) * 1024;
  }
  return sum;
}

function tasksOf(pid: number): string[] {
  try {
    return readdirSync(`/proc/${pid}/task`);
  } catch {
    return [];
  }
}

/** Empty when the process or thread has ended meanwhile. */
function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
