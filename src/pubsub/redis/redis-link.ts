/**
 * The link through Redis: one outbox, one set of wanted topics, and the servers over which they are spread.
 *
 *   publish ──► outbox ──► lane of the topic's partition ──► shard that has the partition ──► PUBLISH | SPUBLISH
 *   onMessage ◄── arrivals ◄── the same shard's other connection, where the topic is subscribed
 *
 * Role: a NodeLink. Up: create.ts. Down: nodes/outbox.ts, nodes/envelope.ts; shard.ts, topology.ts, sentinel.ts. Standalone and Sentinel: one partition, one shard. Cluster: a shard for
 * each primary that has partitions; where the slots are is topology.ts's business, and a partition of which a server says that it has
 * moved is parked until that is known.
 * Invariant: each partition is with one shard at a time, or with none; nothing of a topic is sent while something of it is under way.
 */
import { performance } from 'node:perf_hooks';
import type { RedisAddress, RedisSettings } from '../../config/redis.ts';
import type { PublishResult } from '../../core/node.ts';
import type { LinkContext, LinkCounter, LinkEvents, LinkHealth, LinkState, NodeLink } from '../link.ts';
import { Envelopes, readMessages, type Sender } from '../nodes/envelope.ts';
import { topicBytes, topicKey } from '../nodes/mail.ts';
import { Lane, Outbox } from '../nodes/outbox.ts';
import { Channels, slotOf } from './channels.ts';
import { addressText, type Connection, type ConnectionFactory, connectionFactory } from './connection.ts';
import type { Address } from './connector.ts';
import { type Failure, Failures } from './failure.ts';
import { LinkLog } from './link-log.ts';
import { isNotice, type LogsHost, RedisLogs } from './redis-logs.ts';
import { RedisMembers } from './redis-members.ts';
import { ScriptCalls } from './script-calls.ts';
import { Sentinels } from './sentinel.ts';
import { Shard, type ShardHost } from './shard.ts';
import { type Partition, Subscriptions } from './subscriptions.ts';
import { type SlotOwners, Topology } from './topology.ts';

/** `random`: from 0 to 1. */
export function createRedisLink(settings: RedisSettings, context: LinkContext, random = Math.random): NodeLink {
  return new RedisLink(settings, context, random);
}

/** What is held of calls of scripts, beside the appends, which count by themselves. */
const callBytesMax = 16 * 1024 * 1024;
/** A bulk of Redis is this long at most, as it comes (proto-max-bulk-len). */
const messageBytesMax = 512 * 1024 * 1024 - 1024;

class RedisLink implements NodeLink, ShardHost {
  state: LinkState = 'connecting';
  readonly settings: RedisSettings;
  readonly channels: Channels;
  readonly sender: Sender;
  readonly failures: Failures;
  readonly connect: ConnectionFactory;
  readonly outbox: Outbox;
  readonly calls: ScriptCalls;
  readonly logs: RedisLogs;
  readonly members: RedisMembers;
  readonly lanes: readonly Lane[];
  readonly subscriptions: Subscriptions;
  readonly random: () => number;
  readonly now = () => performance.now();
  readonly #context: LinkContext;
  readonly #say: LinkLog;
  readonly #envelopes: Envelopes;
  #events: LinkEvents | undefined;
  /** By address; the only one by ''. */
  readonly #shards = new Map<string, Shard>();
  readonly #shardOf: (Shard | undefined)[] = [];
  #topology: Topology | undefined;
  readonly #slots: readonly number[];
  /** Partitions that are not where they were; since how long there are any. */
  readonly #parked = new Set<number>();
  #parkedMs = 0;
  #hasFailed = false;
  readonly #tickMs: number;
  #tickTimer: ReturnType<typeof setInterval> | undefined;
  #tickedAt = 0;
  #untoldDrops = 0;
  #isClosed = false;
  #onEmpty: (() => void) | undefined;

  constructor(settings: RedisSettings, context: LinkContext, random: () => number) {
    const { servers, prefix, signingKeys, outboxBytes, onOutboxFull, probeInterval, timeout } = settings;
    this.settings = settings;
    this.random = random;
    this.#context = context;
    this.#say = new LinkLog(context.log, this.now);
    this.channels = new Channels(prefix, servers.kind === 'cluster' ? settings.partitions : undefined);
    this.#envelopes = new Envelopes(context, { prefix, signingKeys, onDiscard: (why) => this.#say.discarded(why) });
    this.sender = this.#envelopes.sender;
    this.failures = new Failures(settings);
    this.connect = connectionFactory(settings, this.failures, `ringway:${context.publisher.node}:${context.publisher.worker}`);
    this.outbox = new Outbox({ bytesMax: outboxBytes, whenFull: onOutboxFull }, this.sender, (counter, by) => this.#count(counter, by));
    const { partitions } = this.channels;
    this.calls = new ScriptCalls(partitions, callBytesMax, this.now, (partition) => this.#shardOf[partition]?.callSoon());
    const host: LogsHost = {
      channels: this.channels,
      envelopes: this.#envelopes,
      calls: this.calls,
      isSharded: servers.kind === 'cluster',
      prefixBytes: Buffer.byteLength(prefix),
      bytesMax: outboxBytes,
      now: this.now,
      tenureOf: (partition) => this.#shardOf[partition]?.tenure ?? 0,
      count: (counter, by) => this.#context.count(counter, by),
      onDamage: (text) => this.#say.damaged(text),
      isUp: (partition) => this.#shardOf[partition]?.phase === 'up' && !this.#parked.has(partition),
    };
    this.logs = new RedisLogs(host);
    this.members = new RedisMembers(host);
    this.subscriptions = new Subscriptions(partitions);
    this.lanes = Array.from({ length: partitions }, (_, index) => new Lane(index, () => this.#shardOf[index]?.flushSoon()));
    this.#slots = Array.from({ length: partitions }, (_, index) => slotOf(String(index)));
    this.#tickMs = Math.max(25, Math.min(250, (Math.min(probeInterval, timeout) * 1000) / 4));
  }

  // ---- NodeLink

  start(events: LinkEvents): void {
    this.#events = events;
    this.#tickedAt = this.now();
    this.#tickTimer = setInterval(() => this.#tick(), this.#tickMs);
    const { servers } = this.settings;
    if (servers.kind === 'cluster') {
      this.#topology = new Topology(
        {
          liveConnections: () => this.#liveConnections(),
          apply: (owners) => this.#applyTopology(owners),
          onFailure: (failure) => this.#failed('the Cluster', failure),
        },
        servers.nodes,
        this.connect,
        this.random,
      );
      this.#topology.start();
      return;
    }
    const shard = new Shard(this, this.#locator(servers), false);
    this.#shards.set('', shard);
    this.#shardOf[0] = shard;
    shard.reassign(this.subscriptions.partitions, []);
    shard.start();
  }

  publish(topic: Uint8Array, flags: number, payload: Uint8Array): PublishResult {
    if (payload.byteLength > messageBytesMax) {
      this.#count('drops', 1);
      return 'dropped';
    }
    const key = topicKey(topic);
    const isTaken = this.outbox.add(this.lanes[this.channels.partitionOf(key)] as Lane, key, flags, payload);
    if (!isTaken) return 'dropped';
    return this.state === 'up' ? 'accepted' : 'queued';
  }

  subscribe(topic: Uint8Array): Promise<void> {
    if (this.#isClosed) return Promise.resolve();
    const key = topicKey(topic);
    return this.subscriptions.want(this.channels.partitionOf(key), key);
  }

  unsubscribe(topic: Uint8Array): Promise<void> {
    const key = topicKey(topic);
    return this.subscriptions.unwant(this.channels.partitionOf(key), key);
  }

  health(): LinkHealth {
    let lagMs = 0;
    for (const shard of this.#shards.values()) lagMs = Math.max(lagMs, shard.lagMs);
    return { topics: this.subscriptions.count, outboxMessages: this.outbox.messages, outboxBytes: this.outbox.bytes, lagMs };
  }

  async close(deadlineMs: number): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.outbox.isOpen = false;
    this.logs.close();
    for (const shard of this.#shards.values()) shard.hurry();
    if (!this.#isEmpty && this.#events !== undefined) await this.#emptied(deadlineMs);
    clearInterval(this.#tickTimer);
    this.#topology?.stop();
    for (const shard of this.#shards.values()) shard.close();
    this.#shards.clear();
    this.#shardOf.length = 0;
    this.outbox.clear();
    this.calls.close();
    this.subscriptions.releaseAll();
  }

  #emptied(deadlineMs: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, deadlineMs);
      this.#onEmpty = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  // ---- ShardHost

  isParked(partition: number): boolean {
    return this.#parked.has(partition);
  }

  onArrival(shard: Shard, channel: Buffer, bytes: Buffer): void {
    const name = this.channels.parse(channel);
    if (name === undefined) return;
    const topic = channel.subarray(name.topicAt);
    const key = topicKey(topic);
    if (isNotice(bytes)) {
      this.#onNotice(name.partition, topic, key, bytes);
      return;
    }
    const envelope = this.#envelopes.open(bytes, key);
    if (envelope === undefined || envelope.kind === 'entry') return;
    const { publisher } = envelope;
    if (envelope.kind === 'probe') {
      const own = this.sender.publisher;
      if (publisher.node === own.node && publisher.worker === own.worker) shard.onProbe(envelope.sequence);
      return;
    }
    if (!this.subscriptions.isHeard(name.partition, key)) return;
    this.#context.count('bytes_in', bytes.byteLength);
    readMessages(envelope, topic, (message) => this.#events?.onMessage(message));
  }

  #onNotice(partition: number, topic: Buffer, key: string, bytes: Buffer): void {
    if (!this.subscriptions.isHeard(partition, key)) return;
    const range = this.logs.openNotice(bytes, key);
    if (range === undefined) return;
    this.#context.count('bytes_in', bytes.byteLength);
    this.#events?.onEntries?.(topic, range);
  }

  onPublished(): void {
    if (this.#isEmpty) this.#onEmpty?.();
  }

  get #isEmpty(): boolean {
    return this.outbox.messages === 0 && this.logs.isIdle;
  }

  onRestored(key: string): void {
    this.#events?.onRestored?.(topicBytes(key));
  }

  onUp(again: boolean): void {
    if (again) this.#context.count('reconnects', 1);
    this.#judge();
  }

  onLost(shard: Shard, failure: Failure): void {
    this.#topology?.refresh();
    this.#failed(shard.address === undefined ? this.#where() : addressText(shard.address), failure);
  }

  onGap(topics: number): void {
    this.#say.gap(topics);
    this.#events?.onGap(topics);
  }

  onError({ isAnswer }: Failure): void {
    if (isAnswer === true) this.#context.count('errors', 1);
  }

  onMoved(shard: Shard, partition: number | undefined): void {
    if (partition !== undefined) this.#parked.add(partition);
    this.#topology?.refresh(shard.connection);
  }

  // ---- state

  #tick(): void {
    const now = this.now();
    // A handler that blocked takes nobody's time: what has come meanwhile is read before the next tick.
    const ms = Math.min(now - this.#tickedAt, this.#tickMs * 2);
    this.#tickedAt = now;
    for (const shard of [...this.#shards.values()]) shard.tick(ms);
    this.logs.tick();
    this.calls.tick();
    if (this.#isClosed && this.#isEmpty) this.#onEmpty?.();
    this.#parkedMs = this.#parked.size > 0 ? this.#parkedMs + ms : 0;
    this.#judge();
    if (this.#untoldDrops > 0) this.#say.dropped(this.#untoldDrops);
    this.#untoldDrops = 0;
  }

  #failed(where: string, failure: Failure): void {
    if (this.#isClosed) return;
    this.#hasFailed = true;
    this.#judge();
    const isPart = [...this.#shards.values()].some(({ phase }) => phase === 'up');
    this.#say.lost(where, failure, isPart);
  }

  #judge(): void {
    const state = this.#isUp() ? 'up' : this.#hasFailed || this.state === 'up' ? 'lost' : 'connecting';
    if (state === this.state || this.#isClosed) return;
    this.state = state;
    if (state === 'up') this.#say.up(this.#where(), this.subscriptions.count);
    this.#events?.onState(state);
  }

  /** Every partition is with a server that works. */
  #isUp(): boolean {
    if (this.#parkedMs > this.settings.timeout * 1000 || this.#shards.size === 0) return false;
    let partitions = 0;
    for (const shard of this.#shards.values()) {
      if (shard.phase !== 'up') return false;
      partitions += shard.partitionCount;
    }
    return partitions === this.channels.partitions;
  }

  #where(): string {
    const { servers } = this.settings;
    if (servers.kind === 'cluster') return `Cluster of ${servers.nodes.map(addressText).join(', ')}`;
    if (servers.kind === 'sentinel') return `Sentinel group '${servers.name}'`;
    return addressText(servers);
  }

  #count(counter: LinkCounter, by: number): void {
    this.#context.count(counter, by);
    if (counter === 'drops') this.#untoldDrops += by;
  }

  // ---- servers

  #locator(servers: Exclude<RedisSettings['servers'], { kind: 'cluster' }>): () => Promise<Address> {
    if (servers.kind === 'standalone') return async () => servers;
    const sentinels = new Sentinels(servers, this.connect, this.random);
    return () => sentinels.findPrimary();
  }

  #liveConnections(): Connection[] {
    return [...this.#shards.values()].flatMap(({ connection }) => connection ?? []);
  }

  /** Give each partition to the server that has its slot. ret: whether every partition is with one that works */
  #applyTopology(owners: SlotOwners): boolean {
    const changes = new Map<Shard, { readonly taken: Partition[]; readonly released: Partition[] }>();
    const changesOf = (shard: Shard) => {
      const known = changes.get(shard) ?? { taken: [], released: [] };
      changes.set(shard, known);
      return known;
    };
    this.subscriptions.partitions.forEach((partition, index) => {
      const address = owners.ownerOf(this.#slots[index] as number);
      const before = this.#shardOf[index];
      const shard = address === undefined ? undefined : this.#shardAt(address, before?.phase === 'down' || before?.phase === 'opening');
      if (shard === before) return;
      this.#shardOf[index] = shard;
      if (before !== undefined) changesOf(before).released.push(partition);
      if (shard !== undefined) changesOf(shard).taken.push(partition);
      else this.subscriptions.give(partition, undefined);
    });
    for (const [shard, { taken, released }] of changes) shard.reassign(taken, released);
    for (const [text, shard] of this.#shards) {
      if (shard.partitionCount > 0) continue;
      this.#shards.delete(text);
      shard.close();
    }
    const wasParked = this.#parked.size > 0;
    this.#parked.clear();
    if (wasParked) for (const shard of this.#shards.values()) shard.wake();
    if (this.#shardOf.includes(undefined)) {
      this.#failed('the Cluster', { kind: 'later', text: 'it has hash slots that no server serves; look at CLUSTER INFO' });
    }
    this.#judge();
    return this.#isUp();
  }

  #shardAt(address: RedisAddress, takesOver: boolean): Shard {
    const text = addressText(address);
    let shard = this.#shards.get(text);
    if (shard === undefined) {
      shard = new Shard(this, async () => address, takesOver);
      this.#shards.set(text, shard);
      shard.start();
    }
    return shard;
  }
}
