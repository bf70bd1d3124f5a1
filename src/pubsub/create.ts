/**
 * Which bus a worker has: as much as it needs, and no more.
 * Role: up: worker/main.ts. One worker alone has nobody to talk to; several share memory; with Redis, nodes are joined.
 */
import type { RedisSettings } from '../config/redis.ts';
import type { Core } from '../core/core.ts';
import type { HostCounter } from '../core/host-counters.ts';
import { statIndex } from '../core/stat-index.ts';
import type { Log } from '../log.ts';
import type { NodePlace } from '../process/boot.ts';
import type { Bus } from './bus.ts';
import { MemoryBus } from './memory.ts';
import { NodeBus } from './node.ts';
import { RedisBus } from './nodes/bus.ts';
import { memberOf } from './nodes/owned-topic.ts';
import { createRedisLink } from './redis/redis-link.ts';

/** Where the worker lives. */
export type BusPlace = Pick<NodePlace, 'index' | 'places' | 'workers' | 'nodeId'>;

/** A bus that has something to do with the other processes of its node. */
export interface WorkerBus extends Bus {
  /** The process at this place has ended; `epoch`: which of those that have lived there. */
  workerGone?(worker: number, epoch: number): void;
}

/** What a core must be made with for a bus with these settings. */
export function busNeeds(redis: false | RedisSettings): { readonly wantsInterest: boolean; readonly wantsMail: boolean } {
  return { wantsInterest: redis !== false, wantsMail: redis !== false };
}

export function createBus(core: Core, place: BusPlace, redis: false | RedisSettings, log: Log): WorkerBus {
  if (redis === false) return place.places > 1 ? new NodeBus(core) : new MemoryBus(core);
  const { index, places, workers, nodeId } = place;
  const count = (field: HostCounter, by: number) => core.addStat(statIndex(field), by);
  const gauge = (field: HostCounter, value: number) => core.setStat(statIndex(field), value);
  const identity = { nodeId, worker: memberOf(index, core.epoch) >>> 0 };
  const link = createRedisLink(redis, identity, { log, stats: { count, gauge } });
  return new RedisBus({
    core,
    link,
    nodeId,
    index,
    places,
    workers,
    linger: redis.linger,
    count,
    afterTurn(call) {
      // The loop takes its next turn before this, whether it is asleep or not.
      core.onQueued?.();
      setImmediate(call);
    },
  });
}
