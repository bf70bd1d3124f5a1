/**
 * How the node reaches Redis, as its workers tell in shared memory.
 * Role: pure. Up: the admin listener's /healthz and /readyz.
 */
import { redisStates } from '../core/host-counters.ts';
import type { StatName } from '../core/stat-index.ts';

export interface RedisHealth {
  /** Of the worker that is worst off: 'up' only when every one publishes and receives. */
  readonly state: 'connecting' | 'up' | 'lost';
  /** The latest time from publishing a probe until it came back, of the slowest worker. */
  readonly lagSeconds: number;
  readonly topics: number;
  readonly outboxMessages: number;
  readonly outboxBytes: number;
  /** Since the start of the node: subscriptions that were interrupted, and messages that the outbox could not hold. */
  readonly gaps: number;
  readonly drops: number;
}

/**
 * `workers`: those that serve; `read`: the value of a counter of one.
 * ret: undefined when none of them uses Redis
 */
export function redisHealth(workers: readonly number[], read: (worker: number, field: StatName) => number): RedisHealth | undefined {
  const users = workers.filter((worker) => read(worker, 'redis_state') !== redisStates.none);
  if (users.length === 0) return undefined;
  const values = (field: StatName) => users.map((worker) => read(worker, field));
  const sum = (field: StatName) => values(field).reduce((total, value) => total + value, 0);
  const states = values('redis_state');
  return {
    state: states.includes(redisStates.lost) ? 'lost' : states.includes(redisStates.connecting) ? 'connecting' : 'up',
    lagSeconds: Math.max(...values('redis_lag_us')) / 1e6,
    topics: sum('redis_topics'),
    outboxMessages: sum('redis_outbox_messages'),
    outboxBytes: sum('redis_outbox_bytes'),
    gaps: sum('redis_gaps'),
    drops: sum('redis_drops'),
  };
}
