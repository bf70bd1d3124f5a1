/**
 * The places for workers in the shared memory of a node: which are taken, and what is left of those who had them.
 *
 * Role: pure. A generation takes a row of places, since the view of who owns topics names a first place and a count; each comes free when
 * its worker has stopped. More than one generation may be at work. Up: supervisor.ts.
 */

/** Two generations of a small node are always possible, also when its number of workers grows. */
const leastPerGeneration = 8;

/** RW_WORKERS_MAX of ffi/core/base/limits.h. */
export const placesMax = 512;

/** How many places a node is set up with. */
export function placesFor(workers: number, cpus: number): number {
  return Math.min(placesMax, 2 * Math.max(workers, cpus, leastPerGeneration));
}

export class Places {
  readonly count: number;
  readonly #taken: boolean[];
  /** Restarts at each place that was ever taken, of those that have left it. */
  readonly #restarts: number[] = [];
  readonly #processes: number[] = [];

  constructor(count: number) {
    this.count = count;
    this.#taken = new Array<boolean>(count).fill(false);
  }

  /** Take a row of places, the lowest there is. ret: the first of them; undefined: there is no row of so many */
  take(count: number): number | undefined {
    let first = 0;
    for (let place = 0; place < this.count && place - first < count; place++) if (this.#taken[place]) first = place + 1;
    if (first + count > this.count) return undefined;
    this.#taken.fill(true, first, first + count);
    while (this.#restarts.length < first + count) this.#restarts.push(0);
    return first;
  }

  /** `restarts`: of the worker that leaves it. */
  free(place: number, restarts: number): void {
    this.#taken[place] = false;
    this.#restarts[place] = this.restarts(place) + restarts;
  }

  /** Places 0..used-1 have had a worker at some time. */
  get used(): number {
    return this.#restarts.length;
  }

  /** Number of the next process at this place, counted from 0 over all that have been there. */
  nextProcess(place: number): number {
    const number = this.#processes[place] ?? 0;
    this.#processes[place] = number + 1;
    return number;
  }

  /** Of those that have left the place. */
  restarts(place: number): number {
    return this.#restarts[place] ?? 0;
  }

  /** The longest row there could be beside one of `count` places from `first` on. */
  longestBeside(first: number, count: number): number {
    return Math.max(first, this.count - first - count);
  }
}
