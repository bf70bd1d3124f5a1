/**
 * When to try again after a connection was lost: soon at first, later and later while it fails.
 * Role: pure. Below shard.ts, topology.ts.
 *
 * Every worker of every node loses Redis in the same moment, so each waits a random part of its time: none comes with the others. The time
 * stays short, since a server that is back is found only by trying, and to be refused costs it little. One that says no for a
 * reason that lasts (a password, a certificate) is asked more seldom.
 */

const firstMs = 50;
/** All subscriptions are to be back within a second of the server. */
const longestMs = 700;
const refusedMs = 5000;
/** To connect, and to subscribe again. */
const restoreMs = 300;

export class Retry {
  readonly #random: () => number;
  #failures = 0;

  constructor(random: () => number) {
    this.#random = random;
  }

  /** It has failed (again). ret: milliseconds to wait */
  next(isRefused: boolean): number {
    const ceiling = ceilingAfter(this.#failures++);
    return isRefused ? refusedMs * (1 + this.#random()) * 0.5 : ceiling * this.#random();
  }

  /** Milliseconds after which the others that failed in the same moment have most likely come back too, now that this one has; 0: none failed. */
  get othersMs(): number {
    return this.#failures === 0 ? 0 : ceilingAfter(this.#failures - 1) + restoreMs;
  }

  /** It has worked for a while. */
  forgive(): void {
    this.#failures = 0;
  }
}

function ceilingAfter(failures: number): number {
  return Math.min(longestMs, firstMs * 2 ** Math.min(failures, 16));
}
