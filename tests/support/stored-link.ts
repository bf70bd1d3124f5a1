/**
 * A link to a Redis, and all that it tells, for tests that ask its logs and members: no worker, no core.
 * Role: each is one node; `start` resolves when it is up, and `end` closes all that were started.
 */
import type { RedisOptions } from '../../src/api/define.ts';
import { sendText } from '../../src/api/message.ts';
import { resolveRedis } from '../../src/config/redis.ts';
import type { Appended } from '../../src/core/log-commands.ts';
import type { LinkLogs, LinkMembers, NodeLink, StoredEntry, StoredQuery } from '../../src/pubsub/link.ts';
import { createRedisLink } from '../../src/pubsub/redis/redis-link.ts';
import { eventually } from './eventually.ts';

/** Of every log, where nothing else is said. */
export const limits = { size: 100, seconds: 60 };
let nodes = 0;

export class StoredLink {
  readonly link: NodeLink;
  readonly logs: LinkLogs;
  readonly members: LinkMembers;
  /** 16 hex digits. */
  readonly node: string;
  readonly heard: string[] = [];
  readonly restored: string[] = [];
  readonly said: string[] = [];
  readonly counted: Record<string, number> = {};

  constructor(options: RedisOptions) {
    const complain = (path: readonly PropertyKey[], problem: string) => {
      throw new Error(`${path.join('.')} ${problem}`);
    };
    const settings = resolveRedis({ probeInterval: 0.2, timeout: 2, ...options }, undefined, '/', complain);
    if (settings === false) throw new Error('no Redis');
    const note = (_: object, text: string) => void this.said.push(text);
    const count = (counter: string, by: number) => {
      this.counted[counter] = (this.counted[counter] ?? 0) + by;
    };
    const node = (0x2000_0000 + nodes++).toString(16).repeat(2);
    this.node = node;
    this.link = createRedisLink(settings, { publisher: { node, worker: 1 }, log: { info: note, warn: note, error: note }, count });
    this.logs = this.link.logs as LinkLogs;
    this.members = this.link.members as LinkMembers;
    this.link.start({
      onMessage: () => {},
      onGap: () => {},
      onState: () => {},
      onEntries: (topic, { epoch, entries }) => {
        for (const entry of entries) this.heard.push(`${Buffer.from(topic)} ${epoch}:${entry.offset} ${Buffer.from(entry.payload)}`);
      },
      onRestored: (topic) => void this.restored.push(Buffer.from(topic).toString()),
    });
  }

  append(topic: string, text: string, key?: string): Promise<Appended> {
    const entry = { flags: sendText, payload: Buffer.from(text), key: key === undefined ? undefined : Buffer.from(key) };
    return this.logs.append(Buffer.from(topic), entry, limits);
  }

  async read(topic: string, query: Partial<StoredQuery> = {}, of = limits) {
    const { epoch, offset, entries } = await this.logs.read(
      Buffer.from(topic),
      { mode: 'after', from: 0, limit: 1000, bytes: 1 << 20, ...query },
      of,
    );
    return {
      epoch,
      offset,
      texts: entries.map(textOf),
      entries: entries.map((entry) => ({ ...entry, payload: Buffer.from(entry.payload) })),
    };
  }

  subscribe(topic: string): Promise<void> {
    return this.link.subscribe(Buffer.from(topic));
  }
}

export const textOf = ({ offset, payload }: StoredEntry) => `${offset} ${Buffer.from(payload)}`;

const started: StoredLink[] = [];

export async function startLink(options: RedisOptions): Promise<StoredLink> {
  const link = new StoredLink(options);
  started.push(link);
  await eventually('it is up', () => link.link.state === 'up');
  return link;
}

export async function endLinks(): Promise<void> {
  await Promise.all(started.splice(0).map(({ link }) => link.close(1000)));
}
