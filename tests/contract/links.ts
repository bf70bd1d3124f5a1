/**
 * The links that there are, each with what it needs on its other side, for the suites that hold for all of them.
 *
 * Role: for bus.test.ts and link.test.ts. A link that cannot be had here is left out; why stands on standard error.
 */
import type { RedisOptions } from '../../src/api/define.ts';
import { resolveRedis } from '../../src/config/redis.ts';
import type { LinkContext, NodeLink } from '../../src/pubsub/link.ts';
import { createRedisLink } from '../../src/pubsub/redis/redis-link.ts';
import { InProcessNetwork } from '../support/in-process-link.ts';
import { hasNatsServer, startNats } from '../support/nats-server.ts';
import { type RedisServer, startCluster, startRedis } from '../support/redis-servers.ts';

/** What joins nodes: one for all links of a test. */
export interface OtherSide {
  create(context: LinkContext): NodeLink;
  /** A Redis, which a config names by its URL. */
  readonly redis?: RedisServer;
  /** Nobody can be reached until `mend` has resolved. */
  cut(): Promise<void> | void;
  mend(): Promise<void> | void;
  dispose(): Promise<void> | void;
}

function redisLink(options: RedisOptions) {
  const complain = (path: readonly PropertyKey[], problem: string) => {
    throw new Error(`${path.join('.')} ${problem}`);
  };
  // Probes are messages too, and here messages are counted.
  const settings = resolveRedis({ probeInterval: 60, timeout: 60, ...options }, undefined, '/', complain);
  if (settings === false) throw new Error('no Redis');
  return (context: LinkContext) => createRedisLink(settings, context);
}

const all: Record<string, () => Promise<OtherSide>> = {
  async 'in one process'() {
    const network = new InProcessNetwork();
    return {
      create: (context) => network.link().create(context),
      cut: () => network.cut(),
      mend: () => network.mend(),
      dispose: () => {},
    };
  },
  async 'through Redis'() {
    const redis = await startRedis();
    return {
      redis,
      create: redisLink({ url: redis.url }),
      cut: () => redis.kill(),
      mend: () => redis.start(),
      dispose: () => redis.dispose(),
    };
  },
  async 'through a Redis Cluster'() {
    const cluster = await startCluster({ replicas: false });
    const { primaries } = cluster;
    return {
      create: redisLink({ cluster: primaries.map(({ url }) => url), partitions: 16 }),
      cut: async () => void (await Promise.all(primaries.map((server) => server.kill()))),
      mend: async () => void (await Promise.all(primaries.map((server) => server.start()))),
      dispose: () => cluster.dispose(),
    };
  },
};

if (await hasNatsServer()) {
  // By its path alone: who has not installed its client has no types for it.
  const example = '../../examples/nats-link/nats-link.ts';
  const { natsLink } = (await import(example)) as { natsLink(options: object): { create(context: LinkContext): NodeLink } };
  all['through NATS'] = async () => {
    const server = await startNats(['max_payload: 8MB']);
    return {
      create: (context) => natsLink({ servers: [server.url] }).create(context),
      cut: () => server.kill(),
      mend: () => server.start(),
      dispose: () => server.dispose(),
    };
  };
}

/** By name, in the order of their weight. */
export const links: readonly (readonly [name: string, start: () => Promise<OtherSide>])[] = Object.entries(all);
