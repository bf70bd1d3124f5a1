/**
 * Names of channels in Redis, and the partitions that spread topics over a Cluster.
 *
 *   standalone, Sentinel   <prefix>:<topic>                 one partition
 *   Cluster                <prefix>:{<partition>}:<topic>   as many partitions as configured; what is in braces makes the hash slot
 *
 *   keys                   <prefix>:{<partition>}:<kind>:<topic>    everywhere; a prefix has no braces, so none of another prefix looks alike
 *
 * Role: pure. Up: redis-link.ts, redis-logs.ts, shard.ts. A topic's partition is the same on every node and in every release.
 */
import { presenceTopic } from '../../core/presence-commands.ts';
import type { Publisher } from '../link.ts';
import { topicHash } from '../nodes/owners.ts';

export const slotCount = 16384;

/** Hash slot of what stands in braces: CRC-16/XMODEM (Redis Cluster specification, "Hash tags"). */
export function slotOf(tag: string): number {
  let crc = 0;
  for (const byte of Buffer.from(tag)) {
    crc ^= byte << 8;
    for (let bit = 0; bit < 8; bit++) crc = crc & 0x8000 ? ((crc << 1) ^ 0x1021) & 0xffff : (crc << 1) & 0xffff;
  }
  return crc % slotCount;
}

/** Of a log: log, meta, once (log-scripts.ts). Of members: the rest (member-scripts.ts). */
export type KeyKind = 'log' | 'meta' | 'once' | 'users' | 'nodes' | 'gone' | 'held' | 'leases' | 'sweep';

const presencePrefix = presenceTopic('');

/** A channel's name, taken apart. `topicAt`: where its topic begins. */
export interface ChannelName {
  readonly partition: number;
  readonly topicAt: number;
}

const brace = { open: 0x7b, close: 0x7d } as const;
const colon = 0x3a;
const digit = { zero: 0x30, nine: 0x39 } as const;

export class Channels {
  readonly partitions: number;
  readonly #isSharded: boolean;
  readonly #head: Buffer;

  /** `partitions`: undefined: not a Cluster. `prefix` has no braces. */
  constructor(prefix: string, partitions: number | undefined) {
    this.#head = Buffer.from(`${prefix}:`);
    this.partitions = partitions ?? 1;
    this.#isSharded = partitions !== undefined;
  }

  /** `key`: the topic, one character for each byte. */
  partitionOf(key: string): number {
    if (this.partitions === 1) return 0;
    // The log of who joins and leaves a topic lies with the topic.
    return topicHash(key.startsWith(presencePrefix) ? key.slice(presencePrefix.length) : key) % this.partitions;
  }

  nameOf(key: string, partition: number): Buffer {
    const middle = this.#isSharded ? `{${partition}}:` : '';
    const at = this.#head.byteLength;
    const name = Buffer.allocUnsafe(at + middle.length + key.length);
    this.#head.copy(name);
    name.latin1Write(middle, at, middle.length);
    name.latin1Write(key, at + middle.length, key.length);
    return name;
  }

  /** The key of what Redis keeps of a topic. */
  keyOf(kind: KeyKind, key: string, partition: number): Buffer {
    const head = `{${partition}}:${kind}:`;
    const at = this.#head.byteLength;
    const name = Buffer.allocUnsafe(at + head.length + key.length);
    this.#head.copy(name);
    name.latin1Write(head, at, head.length);
    name.latin1Write(key, at + head.length, key.length);
    return name;
  }

  /**
   * The channel on which a link hears its own probes. It begins as topics do, so that rights given for those hold for it. A topic of the
   * same name does no harm: a probe is known by its envelope.
   */
  probeName(publisher: Publisher, partition: number): Buffer {
    return this.nameOf(`:probe:${publisher.node}:${publisher.worker}`, partition);
  }

  /** ret: undefined: not a channel of ours */
  parse(name: Buffer): ChannelName | undefined {
    let at = this.#head.byteLength;
    if (name.byteLength < at || name.compare(this.#head, 0, at, 0, at) !== 0) return undefined;
    if (!this.#isSharded) return { partition: 0, topicAt: at };
    if (name[at++] !== brace.open) return undefined;
    let partition = 0;
    const digitsAt = at;
    for (let byte = name[at]; byte !== undefined && byte >= digit.zero && byte <= digit.nine; byte = name[++at]) {
      partition = partition * 10 + (byte - digit.zero);
      if (partition >= this.partitions) return undefined;
    }
    if (at === digitsAt || name[at] !== brace.close || name[at + 1] !== colon) return undefined;
    return { partition, topicAt: at + 2 };
  }
}
