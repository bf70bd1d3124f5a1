/**
 * Shared memory and the eventfds by which workers wake each other: what outlives a worker beside its sockets.
 * Role: opened and closed by supervisor.ts. Down: ringway.h rw_shm_*().
 */
import type { SharedStats, TopicMemory } from '../core/native.ts';
import { hostLayout, type StatName, statIndex } from '../core/stat-index.ts';
import { errorCode, OperatingError } from '../operating-error.ts';
import type { SupervisorNative } from '../process/boot.ts';

export class SharedResources {
  readonly shmFd: number;
  readonly inboxFds: readonly number[];
  readonly #native: SupervisorNative;
  readonly #shared: SharedStats;
  /** By place; made when first read, since most places of a large node are never used. */
  readonly #counters: BigUint64Array[] = [];

  private constructor(native: SupervisorNative, shmFd: number, shared: SharedStats, inboxFds: readonly number[]) {
    this.#native = native;
    this.shmFd = shmFd;
    this.inboxFds = inboxFds;
    this.#shared = shared;
  }

  /** For so many places of workers, and `stateBytes` of what topics remember, 0: nothing. Throws OperatingError, with nothing left open. */
  static create(native: SupervisorNative, places: number, stateBytes = 0): SharedResources {
    const fds: number[] = [];
    try {
      const shmFd = native.shmCreate(places, 0, hostLayout, stateBytes);
      fds.push(shmFd);
      for (let place = 0; place < places; place++) fds.push(native.eventfdCreate());
      return new SharedResources(native, shmFd, native.shmMap(shmFd, hostLayout), fds.slice(1));
    } catch (error) {
      for (const fd of fds) native.fdClose(fd);
      const reason = error instanceof Error ? error.message : String(error);
      throw new OperatingError(
        `cannot set up the memory that workers share: ${reason} (${errorCode(error)}); are memory or descriptors (ulimit -n) exhausted?`,
        { cause: error },
      );
    }
  }

  /** Of the workers that have had this place, together. */
  counter(place: number, field: StatName): number {
    if (place >= this.inboxFds.length) return 0;
    this.#counters[place] ??= this.#shared.read(place);
    return Number(this.#counters[place]?.[statIndex(field)] ?? 0n);
  }

  /** What topics take of the memory that is theirs; undefined: they remember nothing. */
  topicMemory(): TopicMemory | undefined {
    return this.#shared.topicMemory();
  }

  /** Say which workers own topics: those of `generation`, at places `first` to `first + count - 1`. */
  setView(generation: number, first: number, count: number): void {
    this.#shared.viewSet(generation, first, count);
  }

  /** ret: the epoch of the process that was the last to live there */
  workerGone(worker: number): number {
    const epoch = this.#shared.epoch(worker);
    this.#shared.workerGone(worker);
    // Even: it is known to be gone already.
    return epoch % 2 === 0 ? Math.max(0, epoch - 1) : epoch;
  }

  /** Nothing may be read afterwards. */
  close(): void {
    this.#shared.unmap();
    for (const fd of [this.shmFd, ...this.inboxFds]) this.#native.fdClose(fd);
  }
}
