/**
 * What `/healthz` tells of a node: its workers, who is draining, and what became of the last reload.
 * Role: shapes, and how they are made from the supervisor's own objects. Up: supervisor.ts; shown by admin.ts; read by cli/reload.ts.
 */
import type { BackendName } from '../core/options.ts';
import type { Generation } from './generation.ts';
import type { RedisHealth } from './redis-health.ts';
import type { ReloadHealth } from './reload-queue.ts';
import type { WorkerProcess, WorkerState } from './worker-process.ts';

export interface WorkerHealth {
  /** Its place on the node. */
  readonly index: number;
  readonly pid: number | null;
  readonly state: WorkerState;
  readonly backend: BackendName | null;
  /** Why it runs on this backend, when that is not the first choice. */
  readonly note?: string;
  /** It is `ready`, and does not go on: how long. */
  readonly hungSeconds?: number;
  readonly restarts: number;
  /** Since it became ready; 0 when it is not. */
  readonly uptimeSeconds: number;
}

/** A generation that finishes what is in progress. */
export interface DrainingHealth {
  readonly generation: number;
  /** Those that have not stopped. */
  readonly workers: readonly WorkerHealth[];
}

export interface NodeHealth {
  readonly status: 'ok' | 'degraded';
  readonly version: string;
  /** Of the supervisor. */
  readonly pid: number;
  /** Counts the configs that have served, from 1. */
  readonly generation: number;
  /** Those that serve, or are to. */
  readonly workers: readonly WorkerHealth[];
  readonly draining: readonly DrainingHealth[];
  /** Absent without Redis. */
  readonly redis?: RedisHealth;
  readonly reload: ReloadHealth;
}

/** `now`: on the clock of `readySince`. */
export function workerHealth(worker: WorkerProcess, now: number): WorkerHealth {
  return {
    index: worker.index,
    pid: worker.pid ?? null,
    state: worker.state,
    backend: worker.backend ?? null,
    ...(worker.note === undefined ? {} : { note: worker.note }),
    ...(worker.isHung ? { hungSeconds: Math.round(worker.silentMs / 1000) } : {}),
    restarts: worker.restarts,
    uptimeSeconds: worker.readySince === undefined ? 0 : Math.round((now - worker.readySince) / 1000),
  };
}

export function drainingHealth(generations: readonly Generation[], now: number): DrainingHealth[] {
  return generations.map(({ number, workers }) => ({
    generation: number,
    workers: workers.filter(({ state }) => state !== 'stopped').map((worker) => workerHealth(worker, now)),
  }));
}
