/**
 * How a worker is joined to other nodes, if it is: through Redis, or a link that the config brings. Without either the core delivers to the workers of
 * its node, and there is nothing to do here.
 * Role: up: worker/main.ts. Down: nodes/bus.ts, and the link.
 */

import { ConfigError } from '../config/config-error.ts';
import type { LinkSettings } from '../config/link.ts';
import type { ResolvedConfig } from '../config/resolve.ts';
import type { Core } from '../core/core.ts';
import { redisStates } from '../core/host-counters.ts';
import { statIndex } from '../core/stat-index.ts';
import type { Log } from '../log.ts';
import type { NodePlace } from '../process/boot.ts';
import type { LinkContext, NodeLink } from './link.ts';
import { Bus, type BusCounter, type BusLogs } from './nodes/bus.ts';
import { memberOf } from './nodes/owned-topic.ts';

/** Where the worker lives. */
export type BusPlace = Pick<NodePlace, 'index' | 'places' | 'workers' | 'nodeId'>;

/** How nodes are joined; at most one of both. */
export type BusSettings = Pick<ResolvedConfig, 'redis' | 'link'>;

/** What a core must be made with to join nodes with these settings. `topics`: their policies. */
export function busNeeds({ redis, link, topics }: BusSettings & { readonly topics: readonly unknown[] }): {
  readonly wantsInterest: boolean;
  readonly wantsMail: boolean;
  readonly followsLogs: boolean;
} {
  const joins = redis !== false || link !== false;
  return { wantsInterest: joins, wantsMail: joins, followsLogs: joins && topics.length > 0 };
}

/** `logs`: where topics have logs. ret: undefined: the node stands alone. Rejects with ConfigError for a link of the config's that cannot be made, or is none. */
export async function createBus(
  core: Core,
  place: BusPlace,
  { redis, link: own }: BusSettings,
  log: Log,
  logs?: BusLogs,
): Promise<Bus | undefined> {
  const settings = own === false ? redis : own;
  if (settings === false) return undefined;
  const { index, places, workers, nodeId } = place;
  const count = (counter: BusCounter, by: number) => core.addStat(fieldIndex(counter), by);
  const gauge = (field: BusGauge, value: number) => core.setGauge(fieldIndex(field), value);
  const context = { publisher: { node: nodeId, worker: memberOf(index, core.epoch) >>> 0 }, log, count };
  // Its client is a third of what a worker has to load, and most nodes stand alone.
  const link =
    'create' in settings ? createOwnLink(settings, context) : (await import('./redis/redis-link.ts')).createRedisLink(settings, context);
  return new Bus({
    core,
    link,
    nodeId,
    index,
    places,
    workers,
    linger: settings.linger,
    count,
    logs,
    report(state, { topics, outboxMessages, outboxBytes, lagMs }) {
      gauge('state', redisStates[state]);
      gauge('topics', topics);
      gauge('outbox_messages', outboxMessages);
      gauge('outbox_bytes', outboxBytes);
      gauge('lag_us', Math.round(lagMs * 1000));
    },
    afterTurn(call) {
      // The loop takes its next turn before this, whether it is asleep or not.
      core.onQueued?.();
      setImmediate(call);
    },
  });
}

const linkMembers = ['start', 'publish', 'subscribe', 'unsubscribe', 'health', 'close'] as const satisfies readonly (keyof NodeLink)[];

/** What the config has given is not known to be a link before it is looked at. */
function createOwnLink(own: LinkSettings, context: LinkContext): NodeLink {
  const refuse = (problem: string) => new ConfigError('config', [`link: ${problem}`]);
  let link: Partial<NodeLink>;
  try {
    link = own.create(context as never);
  } catch (error) {
    throw refuse(`create() failed: ${error instanceof Error ? error.message : error}`);
  }
  const missing = linkMembers.filter((name) => typeof link?.[name] !== 'function');
  if (missing.length > 0) throw refuse(`create() returned no NodeLink: it has no ${missing.join('(), ')}(); see docs/nodes.md`);
  return link as NodeLink;
}

type BusGauge = 'state' | 'topics' | 'outbox_messages' | 'outbox_bytes' | 'lag_us';

const indexes = new Map<BusCounter | BusGauge, number>();

/** Counters and gauges are named after the first link that there was. */
function fieldIndex(field: BusCounter | BusGauge): number {
  const known = indexes.get(field);
  if (known !== undefined) return known;
  const index = statIndex(`redis_${field}`);
  indexes.set(field, index);
  return index;
}
