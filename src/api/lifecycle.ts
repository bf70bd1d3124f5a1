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
  /** What its begin gives; undefined: it has not been called. */
  cleanup: Promise<unknown> | undefined;
  /** Its begin has settled. */
  hasBegun: boolean;
}

/** This worker lets go of what must run once a node. */
export interface Release {
  /** Resolves when nothing of it runs any more: all that has begun has been cleaned up. */
  readonly done: Promise<void>;
  /** Resolves when what had begun by then has been cleaned up; one that never comes to an end of its own, such as a loop, is not waited for. */
  readonly cleanedUp: Promise<void>;
}

let index = -1;
const tasks: Task[] = [];
let isChosen = false;
let release: Release | undefined;
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
  const task: Task = { begin, cleanup: undefined, hasBegun: false };
  tasks.push(task);
  if (isChosen) run(task);
}

function run(task: Task): void {
  task.cleanup = (async () => task.begin())()
    .catch((error) => {
      report(error);
      return undefined;
    })
    .finally(() => {
      task.hasBegun = true;
    });
}

/** Called once, when the worker knows who it is. `onError`: a begin or cleanup has failed. */
export function bindLifecycle(own: number, onError: (error: unknown) => void): void {
  index = own;
  report = onError;
}

/** This worker is the one. */
export function chosen(): void {
  if (isChosen || release !== undefined) return;
  isChosen = true;
  for (const task of tasks) run(task);
}

/** It is not any more, if it ever was; called again, the answer is the same. */
export function released(): Release {
  if (release !== undefined) return release;
  const begun = tasks.filter(({ hasBegun }) => hasBegun).map(cleanUp);
  const others = tasks.filter(({ hasBegun }) => !hasBegun).map(cleanUp);
  isChosen = false;
  const [cleanedUp, rest] = [begun, others].map(async (cleanups) => void (await Promise.all(cleanups))) as [Promise<void>, Promise<void>];
  release = { cleanedUp, done: cleanedUp.then(() => rest) };
  return release;
}

async function cleanUp(task: Task): Promise<void> {
  const cleanup = await task.cleanup;
  try {
    if (typeof cleanup === 'function') await cleanup();
  } catch (error) {
    report(error);
  }
}
