import { describe, expect, test } from 'bun:test';
import { redisStates } from '../../../src/core/host-counters.ts';
import type { StatName } from '../../../src/core/stat-index.ts';
import { redisHealth } from '../../../src/supervisor/redis-health.ts';

const { none, connecting, up, lost } = redisStates;

function healthOf(...workers: Partial<Record<StatName, number>>[]) {
  return redisHealth([...workers.keys()], (worker, field) => workers[worker]?.[field] ?? 0);
}

describe('redisHealth', () => {
  test('there is none without Redis', () => {
    expect(healthOf()).toBeUndefined();
    expect(healthOf({ redis_state: none, redis_topics: 5 })).toBeUndefined();
  });

  test('the node is as well off as its worst worker', () => {
    const stateOf = (...states: number[]) => healthOf(...states.map((state) => ({ redis_state: state })))?.state;
    expect([stateOf(up), stateOf(up, up), stateOf(up, connecting), stateOf(connecting, lost, up)]).toEqual([
      'up',
      'up',
      'connecting',
      'lost',
    ]);
  });

  test('counts are summed, of lag the worst is shown', () => {
    const worker = { redis_state: up, redis_topics: 2, redis_outbox_messages: 3, redis_outbox_bytes: 40, redis_gaps: 1, redis_drops: 7 };
    expect(healthOf({ ...worker, redis_lag_us: 1500 }, { ...worker, redis_lag_us: 250_000 })).toEqual({
      state: 'up',
      lagSeconds: 0.25,
      topics: 4,
      outboxMessages: 6,
      outboxBytes: 80,
      gaps: 2,
      drops: 14,
    });
  });
});
