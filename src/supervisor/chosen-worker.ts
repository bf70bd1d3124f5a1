/**
 * Which worker does what must be done once a node (`onOneWorker`): one that serves, until it ends or lets go; never two at a time.
 * Role: up: supervisor.ts, which says when to look again. Down: worker-process.ts.
 */
import type { WorkerProcess } from './worker-process.ts';

export class ChosenWorker {
  readonly #candidates: () => readonly WorkerProcess[];
  #chosen: WorkerProcess | undefined;

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
    queueMicrotask(() => this.look());
  }
}
