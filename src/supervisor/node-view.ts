/**
 * What a node shows of itself on its admin listener: health, readiness, metrics.
 * Role: reads the supervisor's state, changes nothing. Up: supervisor.ts. Down: health.ts, redis-health.ts, metrics.ts.
 */
import type { TopicMemory } from '../core/native.ts';
import type { StatName } from '../core/stat-index.ts';
import { linesLost } from '../output.ts';
import { version } from '../version.ts';
import type { AdminView } from './admin.ts';
import type { Generation } from './generation.ts';
import { drainingHealth, type NodeHealth, workerHealth } from './health.ts';
import type { MetricsSource, WorkerFacts } from './metrics.ts';
import type { Places } from './places.ts';
import { type RedisHealth, redisHealth } from './redis-health.ts';
import type { ReloadCounts, ReloadHealth } from './reload-queue.ts';
import type { NodeSettings } from './settings.ts';
import type { WorkerProcess } from './worker-process.ts';

/** starting → running → draining → stopped; or, when another supervisor has taken over, handed over → stopped. */
export type Phase = 'starting' | 'running' | 'draining' | 'handed over' | 'stopped';

/** The state of a node, read live. */
export interface NodeState {
  readonly startedAtMs: number;
  readonly phase: Phase;
  readonly isProgram: boolean;
  readonly settings: NodeSettings;
  /** What serves, or is to; undefined: nothing was made yet. */
  readonly generation: Generation | undefined;
  readonly draining: readonly Generation[];
  readonly places: Places | undefined;
  /** Of every generation. */
  readonly workers: Iterable<WorkerProcess>;
  readonly reload: ReloadHealth;
  readonly reloads: ReloadCounts;
  /** Of all workers that have had this place. */
  counter(place: number, field: StatName): number;
  topicMemory(): TopicMemory | undefined;
}

/** Workers that are to serve, and do not. A program may end by itself. */
export function absentWorkers({ generation, isProgram }: Pick<NodeState, 'generation' | 'isProgram'>): readonly WorkerProcess[] {
  return (generation?.workers ?? []).filter(({ state }) => state !== 'ready' && !(isProgram && state === 'stopped'));
}

export function viewOf(state: NodeState, actions: Pick<AdminView, 'perform' | 'reload'>): AdminView {
  let registry: ReturnType<AdminView['metrics']> | undefined;
  return {
    ...actions,
    metrics() {
      registry ??= import('./metrics.ts').then(({ createMetrics }) => createMetrics(metricsSource(state)));
      return registry;
    },
    notReady: () => notReady(state),
    health: () => health(state),
  };
}

function health(state: NodeState): NodeHealth {
  const now = performance.now();
  const workers = state.generation?.workers ?? [];
  const redis = redisOf(state);
  const isDegraded = workers.some((worker) => worker.isLooping(now) || worker.isHung) || (redis !== undefined && redis.state !== 'up');
  return {
    status: isDegraded ? 'degraded' : 'ok',
    version,
    pid: process.pid,
    generation: state.generation?.number ?? 0,
    workers: workers.map((worker) => workerHealth(worker, now)),
    draining: drainingHealth(state.draining, now),
    ...(redis === undefined ? {} : { redis }),
    reload: state.reload,
  };
}

function redisOf(state: NodeState): RedisHealth | undefined {
  const serving = (state.generation?.workers ?? []).filter((worker) => worker.state === 'ready').map(({ index }) => index);
  return redisHealth(serving, (place, field) => state.counter(place, field));
}

function notReady(state: NodeState): string | undefined {
  const { phase, generation } = state;
  if (phase === 'draining' || phase === 'stopped') return 'draining';
  if (phase === 'handed over') return undefined;
  const absent = absentWorkers(state);
  const hung = (generation?.workers ?? []).filter(({ isHung }) => isHung);
  if (generation !== undefined && absent.length === 0 && hung.length === 0) return missingRedis(state);
  const states = [
    ...absent.map((worker) => `worker ${worker.index} is ${worker.state}`),
    ...hung.map((worker) => `worker ${worker.index} is hung (for ${Math.round(worker.silentMs / 1000)} s)`),
  ].join(', ');
  return phase === 'starting' ? `starting: ${states}` : states;
}

/** ret: why the node is not ready, where the config says that it needs Redis */
function missingRedis(state: NodeState): string | undefined {
  if (state.settings.needsRedis !== true) return undefined;
  const found = redisOf(state)?.state ?? 'connecting';
  return found === 'up' ? undefined : `Redis, which the config requires: ${found}`;
}

/** Series are by place: a place that is used again goes on from the counts that it has, so that no counter ever goes back. */
function metricsSource(state: NodeState): MetricsSource {
  return {
    startedAtMs: state.startedAtMs,
    version,
    get generation() {
      return state.generation?.number ?? 0;
    },
    get reloads() {
      return { ...state.reloads };
    },
    get linesLost() {
      return linesLost();
    },
    get workers() {
      const { places } = state;
      const byPlace = new Map([...state.workers].map((worker) => [worker.index, worker]));
      return Array.from({ length: places?.used ?? 0 }, (_, place): WorkerFacts => {
        const worker = byPlace.get(place);
        const restarts = (places?.restarts(place) ?? 0) + (worker?.restarts ?? 0);
        return { isReady: worker?.serves === true, silentSeconds: (worker?.silentMs ?? 0) / 1000, restarts, isEmpty: worker === undefined };
      });
    },
    topicMemory: () => state.topicMemory(),
    read: (place, field) => state.counter(place, field),
  };
}
