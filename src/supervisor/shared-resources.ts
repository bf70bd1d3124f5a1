/**
 * Shared memory and the eventfds by which workers wake each other: what outlives a worker beside its sockets.
 * Role: opened and closed by supervisor.ts. Down: ringway.h rw_shm_*().
 */
import type { SharedStats } from '../../ffi/bindings.ts';
import { statsLayout } from '../../ffi/layout.ts';
import { errorCode, OperatingError } from '../operating-error.ts';
import type { SupervisorNative } from './boot.ts';
import type { StatsField } from './metrics.ts';

const fieldIndex = new Map<StatsField, number>(
  statsLayout.fields.map((field) => [field.name, field.offset / BigUint64Array.BYTES_PER_ELEMENT]),
);

export class SharedResources {
  readonly shmFd: number;
  readonly inboxFds: readonly number[];
  readonly #native: SupervisorNative;
  readonly #shared: SharedStats;
  readonly #counters: readonly BigUint64Array[];

  private constructor(native: SupervisorNative, shmFd: number, shared: SharedStats, inboxFds: readonly number[]) {
    this.#native = native;
    this.shmFd = shmFd;
    this.inboxFds = inboxFds;
    this.#shared = shared;
    this.#counters = inboxFds.map((_, worker) => shared.read(worker));
  }

  static create(native: SupervisorNative, workers: number): SharedResources {
    const fds: number[] = [];
    try {
      const shmFd = native.shmCreate(workers, 0);
      fds.push(shmFd);
      for (let worker = 0; worker < workers; worker++) fds.push(native.eventfdCreate());
      return new SharedResources(native, shmFd, native.shmMap(shmFd), fds.slice(1));
    } catch (error) {
      for (const fd of fds) native.fdClose(fd);
      const reason = error instanceof Error ? error.message : String(error);
      throw new OperatingError(
        `cannot set up the memory that workers share: ${reason} (${errorCode(error)}); are memory or descriptors (ulimit -n) exhausted?`,
        { cause: error },
      );
    }
  }

  counter(worker: number, field: StatsField): number {
    const index = fieldIndex.get(field);
    return index === undefined ? 0 : Number(this.#counters[worker]?.[index] ?? 0n);
  }

  workerGone(worker: number): void {
    this.#shared.workerGone(worker);
  }

  /** Nothing may be read afterwards. */
  close(): void {
    this.#shared.unmap();
    for (const fd of [this.shmFd, ...this.inboxFds]) this.#native.fdClose(fd);
  }
}
