/**
 * Draining a core: serve what is there, take nothing new, end when no connection is left and no handler is busy with what came from one.
 * Role: the steps, for a worker of a gateway and for a program. Up: worker/main.ts, worker/program.ts.
 */
import type { Core } from '../core/core.ts';
import type { DrainMessage } from '../process/boot.ts';

const stepMs = 20;

/** How: as the supervisor says. */
export type DrainTimes = Pick<DrainMessage, 'code' | 'overMs' | 'idleMs' | 'servesQueues'>;

export class Drain {
  readonly #core: Core;
  readonly #isBusy: () => boolean;
  #hasBegun = false;

  /** `isBusy`: whether handlers are still at work for connections that are gone. */
  constructor(core: Core, isBusy: () => boolean = () => false) {
    this.#core = core;
    this.#isBusy = isBusy;
  }

  /**
   * Begin to drain; again: go on with other times. `closeSockets` closes the listening sockets, from which the core does not accept any
   * more; `onDone` is called once, when no connection is left and nothing is busy.
   */
  begin({ code, overMs, idleMs, servesQueues }: DrainTimes, closeSockets: () => void, onDone: () => void): void {
    const core = this.#core;
    core.drain(code, overMs, idleMs);
    if (!this.#hasBegun) {
      this.#hasBegun = true;
      // Connections that are in the accept queue already are served, by us or by others; then the sockets close, so that later ones are
      // refused and go elsewhere.
      setTimeout(() => this.#stopAccepting(closeSockets, onDone), servesQueues ? stepMs : 0);
    }
    // The loop may be asleep: what the drain has queued goes out in the next turn.
    core.onQueued?.();
  }

  #stopAccepting(closeSockets: () => void, onDone: () => void): void {
    const core = this.#core;
    core.stopAccepting();
    // At once: whoever connected in between would not be refused, but cut off when the socket closes.
    closeSockets();
    core.onQueued?.();
    // Connections that the kernel had accepted for us by then have come.
    setTimeout(() => {
      const timer = setInterval(() => {
        if (core.connections() > 0 || this.#isBusy()) return;
        clearInterval(timer);
        onDone();
      }, stepMs);
    }, stepMs * 2);
  }
}
