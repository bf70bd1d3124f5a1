/**
 * Which worker does what must be done once a node (`onOneWorker`): one that serves, until it ends or lets go; never two at a time.
 * Role: up: supervisor.ts, which says when to look again. Down: worker-process.ts.
 */
import type { WorkerProcess } from './worker-process.ts';

export class ChosenWorker {
  readonly #candidates: () => readonly WorkerProcess[];
  #chosen: WorkerProcess | undefined;
  readonly #waiting: (() => void)[] = [];

  /** `candidates`: the workers of what serves. */
  constructor(candidates: () => readonly WorkerProcess[]) {
    this.#candidates = candidates;
  }

  /** Who serves may have changed. */
  look(): void {
    if (this.#chosen !== undefined) return;
    this.#chosen = this.#candidates().find(({ serves }) => serves);
    this.#chosen?.tell({ type: 'chosen' });
  }

  /** Its process has ended, or has let go. */
  gone(worker: WorkerProcess): void {
    if (this.#chosen !== worker) return;
    this.#chosen = undefined;
    // Behind whatever else its end means.
    queueMicrotask(() => {
      this.look();
      if (this.#chosen === undefined) for (const resolve of this.#waiting.splice(0)) resolve();
    });
  }

  /** Resolves when no worker is the chosen one, as when there are no candidates any more. */
  none(): Promise<void> {
    if (this.#chosen === undefined) return Promise.resolve();
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiting.push(resolve);
    return promise;
  }
}
