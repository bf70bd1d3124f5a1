/**
 * The life of a worker as a config sees it: which one it is, and what must run once a node.
 * Role: user code calls `onOneWorker` while its config is loaded or later; the worker binds it. Elsewhere, such as in the process that checks
 * a config, nothing of it runs.
 */

/** The worker that runs this code. */
export interface Worker {
  /**
   * Its place on the node, from 0; no two workers that live have the same. After a reload there are others than before. -1 outside of workers,
   * as while `ringway check` loads the config.
   */
  readonly index: number;
}

type Begin = () => unknown;

interface Task {
  readonly begin: Begin;
  /** Of what has begun. */
  cleanup: Promise<unknown> | undefined;
}

let index = -1;
const tasks: Task[] = [];
let isChosen = false;
let report: (error: unknown) => void = () => {};

export const worker: Worker = {
  get index() {
    return index;
  },
};

/**
 * Run `begin` in one worker of this node alone: timers, and whatever must not run in each. When that worker ends, another one runs it; when it is to
 * end, the function that `begin` has returned, if any, is called before, and awaited. What throws is logged.
 */
export function onOneWorker(begin: () => unknown): void {
  const task: Task = { begin, cleanup: undefined };
  tasks.push(task);
  if (isChosen) run(task);
}

function run(task: Task): void {
  task.cleanup = (async () => task.begin())().catch((error) => {
    report(error);
    return undefined;
  });
}

/** Called once, when the worker knows who it is. `onError`: a begin or cleanup has failed. */
export function bindLifecycle(own: number, onError: (error: unknown) => void): void {
  index = own;
  report = onError;
}

/** This worker is the one. */
export function chosen(): void {
  if (isChosen) return;
  isChosen = true;
  for (const task of tasks) run(task);
}

/** It is not any more. Resolves when everything has been cleaned up. */
export async function released(): Promise<void> {
  if (!isChosen) return;
  isChosen = false;
  await Promise.all(
    tasks.map(async (task) => {
      const cleanup = await task.cleanup;
      task.cleanup = undefined;
      try {
        if (typeof cleanup === 'function') await cleanup();
      } catch (error) {
        report(error);
      }
    }),
  );
}
