/**
 * The link to one Redis server that takes messages: the only one, the primary of a Sentinel group, or a primary of a Cluster.
 *
 * Role: up: redis-link.ts, which gives it partitions. Down: connection.ts, outbox.ts, subscriptions.ts.
 *
 *   down ──► opening ──► restoring ──► proving ──► up        any failure: both connections are given up, and opened again a little later
 *            connect     subscribe     a probe     publish
 *            twice,      what is       has come
 *            log in,     wanted        round
 *            role
 *
 * A probe goes round again and again while it is up. It asks three things, one after the other, and each must be answered in time:
 *   check     subscribing to its channel again, Redis tells how many channels this connection has: as many as stand here
 *   publish   the server still is what it was
 *   echo      the message comes in on the other connection
 * Time is only counted while this process runs: a handler that blocks for seconds makes no server seem dead (`tick`).
 */
import type { RedisSettings } from '../../config/redis.ts';
import type { Sender } from '../nodes/envelope.ts';
import type { Lane, Outbox } from '../nodes/outbox.ts';
import type { Channels } from './channels.ts';
import type { Connection, ConnectionFactory, ServerTraits } from './connection.ts';
import { type Address, silent } from './connector.ts';
import { type Failure, type Failures, LinkError } from './failure.ts';
import { Pipelines } from './pipelines.ts';
import { Retry } from './retry.ts';
import { ScriptCaller, type ScriptCalls } from './script-calls.ts';
import { type Ask, Holder, type Partition, type Subscriptions } from './subscriptions.ts';

/**
 * Channels that one round subscribes or unsubscribes; a millisecond's work, here and in Redis. The next one is asked while less than one is
 * under way, so that Redis has something to do meanwhile.
 */
const roundTopicsMax = 160;
/** Where more is under way than a timeout is meant for, each further byte may take its time. */
const freeBytes = 1024 * 1024;
const slowestBytesPerMs = 1024;
/** However much comes in meanwhile, a probe must have come round in so many timeouts. */
const probeTimeoutsMax = 10;
/** Until the other nodes have most likely heard of a failover. */
const takeOverMs = 1000;
/** Up for so long, it counts as well again. */
const wellMs = 5000;

export interface ShardHost {
  readonly settings: RedisSettings;
  readonly channels: Channels;
  readonly sender: Sender;
  readonly failures: Failures;
  readonly connect: ConnectionFactory;
  readonly outbox: Outbox;
  readonly calls: ScriptCalls;
  /** By partition. */
  readonly lanes: readonly Lane[];
  readonly subscriptions: Subscriptions;
  readonly random: () => number;
  readonly now: () => number;
  /** Partitions, by number, to leave alone until it is known again who has them. */
  isParked(partition: number): boolean;
  onArrival(shard: Shard, channel: Buffer, bytes: Buffer): void;
  /** The outbox has less in it. */
  onPublished(): void;
  /** `again`: after a server was lost. */
  onUp(again: boolean): void;
  /** Not up any more, or not up again. */
  onLost(shard: Shard, failure: Failure): void;
  onGap(topics: number): void;
  /** A topic's subscription was interrupted and stands again. */
  onRestored(key: string): void;
  /** One command failed; what follows is done. */
  onError(failure: Failure): void;
  /** Another server has this partition; undefined: one of them. */
  onMoved(shard: Shard, partition: number | undefined): void;
}

type Phase = 'down' | 'opening' | 'restoring' | 'proving' | 'up';

interface Probe {
  readonly number: number;
  readonly partition: Partition;
  step: 'check' | 'publish' | 'echo';
  sentAt: number;
  /** Since it began. */
  ageMs: number;
  /** Since the connection that is asked has last said anything. */
  quietMs: number;
  bytesRead: number;
  hasEchoed: boolean;
}

export class Shard {
  phase: Phase = 'down';
  /** Where it is, or was last. */
  address: Address | undefined;
  /** Of the latest probe, in milliseconds. */
  lagMs = 0;
  readonly #host: ShardHost;
  readonly #isSharded: boolean;
  readonly #timeoutMs: number;
  readonly #locate: () => Promise<Address>;
  readonly #partitions = new Set<Partition>();
  readonly #pipelines: Pipelines;
  readonly #caller: ScriptCaller;
  readonly #retry: Retry;
  #retryTimer: ReturnType<typeof setTimeout> | undefined;
  /** Counts what is begun anew; what an earlier attempt asked is answered to nobody. */
  #attempt = 0;
  #isClosed = false;
  #publisher: Connection | undefined;
  #subscriber: Connection | undefined;
  #holder: Holder | undefined;
  /** Under way, and their topics. */
  readonly #asks = new Set<Ask>();
  #topicsAsked = 0;
  #isPumpDue = false;
  #probe: Probe | undefined;
  #probes = 0;
  /** Whose channel the probes use, once Redis has confirmed it. */
  #probePartition: Partition | undefined;
  #isChecking = false;
  #mismatches = 0;
  #sinceProbeMs = 0;
  /** What is awaited outside of probes must come within this; undefined: nothing is. */
  #patienceMs: number | undefined;
  #upMs = 0;
  /** Proving. */
  #provingMs = 0;
  readonly #takesOver: boolean;
  #wasUp = false;
  #gaps = 0;

  /** `locate`: where the server is now; rejects with a LinkError. `takesOver`: from a server that is gone. */
  constructor(host: ShardHost, locate: () => Promise<Address>, takesOver: boolean) {
    this.#host = host;
    this.#locate = locate;
    this.#takesOver = takesOver;
    this.#isSharded = host.settings.servers.kind === 'cluster';
    this.#timeoutMs = host.settings.timeout * 1000;
    this.#retry = new Retry(host.random);
    this.#pipelines = new Pipelines(host, this.#isSharded, {
      onMoved: (failure, partition) => this.#moved(failure, partition),
      onFailure: (failure) => this.#giveUp(failure),
    });
    this.#caller = new ScriptCaller(host.calls, {
      isParked: (partition) => host.isParked(partition),
      onMoved: (failure, partition) => this.#moved(failure, partition),
      onFailure: (failure) => this.#giveUp(failure),
    });
  }

  /** Counts the times that this server was connected to. */
  get tenure(): number {
    return this.#attempt;
  }

  get partitionCount(): number {
    return this.#partitions.size;
  }

  /** The connection that publishes, where it works. */
  get connection(): Connection | undefined {
    return this.phase === 'down' || this.phase === 'opening' ? undefined : this.#publisher;
  }

  start(): void {
    void this.#open();
  }

  /** Let go of connections, for good. What is under way goes back into the outbox. */
  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#retryTimer);
    this.#end(false);
  }

  /** Take partitions over, or let them go, because somebody else has them now. */
  reassign(taken: readonly Partition[], released: readonly Partition[]): void {
    for (const partition of released) {
      this.#partitions.delete(partition);
      if (this.#probePartition === partition) this.#probePartition = undefined;
      if (this.#probe?.partition === partition) this.#probe = undefined;
    }
    for (const partition of taken) {
      this.#partitions.add(partition);
      this.#host.subscriptions.give(partition, this.#holder);
    }
    this.#pipelines.setLanes(Array.from(this.#partitions, ({ index }) => this.#host.lanes[index] as Lane));
    this.#caller.setPartitions(Array.from(this.#partitions, ({ index }) => index));
    this.wake();
  }

  /** Nothing is parked any more. */
  wake(): void {
    this.flushSoon();
    this.#pumpSoon();
  }

  /** There is something to send. */
  flushSoon(): void {
    this.#pipelines.flushSoon();
    this.#caller.flushSoon();
  }

  /** There is something to ask. */
  callSoon(): void {
    this.#caller.flushSoon();
  }

  /** `ms`: time in which this process could do its work. */
  tick(ms: number): void {
    if (this.#patienceMs !== undefined) {
      this.#patienceMs -= ms;
      if (this.#patienceMs <= 0) this.#giveUp(silent(this.#timeoutMs));
    }
    this.#provingMs = this.phase === 'proving' ? this.#provingMs + ms : 0;
    if (this.#provingMs > this.#timeoutMs * probeTimeoutsMax) this.#giveUp({ kind: 'later', text: 'its hash slots do not come to rest' });
    if (this.#probe !== undefined) this.#tickProbe(this.#probe, ms);
    else if (this.phase === 'proving' || this.phase === 'up') {
      this.#sinceProbeMs += ms;
      if (this.phase === 'proving' || this.#sinceProbeMs >= this.#host.settings.probeInterval * 1000) this.#beginProbe();
    }
    if (this.phase === 'up') {
      this.#upMs += ms;
      if (this.#upMs >= wellMs) this.#retry.forgive();
      this.#pipelines.tick(ms);
    }
  }

  /** A probe of this link has come in by this shard's connection. */
  onProbe(number: number): void {
    const probe = this.#probe;
    if (probe?.number !== number) return;
    this.lagMs = this.#host.now() - probe.sentAt;
    probe.hasEchoed = true;
    if (probe.step === 'echo') this.#probed();
  }

  /** Publish what waits at once. */
  hurry(): void {
    this.#pipelines.hold(0);
  }

  // ---- connections

  async #open(): Promise<void> {
    const attempt = ++this.#attempt;
    const isPast = () => attempt !== this.#attempt;
    this.phase = 'opening';
    try {
      const address = await this.#locate();
      if (isPast()) return;
      this.address = address;
      const onLost = (failure: Failure) => {
        if (!isPast()) this.#giveUp(failure);
      };
      const publisher = this.#host.connect.toServer(address, 'publish', onLost);
      this.#publisher = publisher;
      const subscriber = this.#host.connect.toServer(address, 'subscribe', onLost);
      this.#subscriber = subscriber;
      await Promise.all([publisher.ready, subscriber.ready]);
      if (isPast()) return;
      this.#patienceMs = this.#timeoutMs;
      this.#judge(await publisher.traits());
      if (isPast()) return;
      this.#listen(subscriber);
      this.#restore();
    } catch (error) {
      if (!isPast()) this.#giveUp(this.#failureOf(error));
    }
  }

  #failureOf(error: unknown): Failure {
    return error instanceof LinkError ? error.failure : (this.#publisher?.failureOf(error) ?? this.#host.failures.of(error));
  }

  /** Throws where messages sent to this server would not reach everybody. */
  #judge({ mode, role }: ServerTraits): void {
    const refuse = (text: string) => new LinkError({ kind: 'refused', text });
    const { kind } = this.#host.settings.servers;
    if (mode === 'sentinel') throw refuse('it is a Sentinel, not a server; write redis.sentinels instead of redis.url');
    if (mode === 'cluster' && kind !== 'cluster') throw refuse('it belongs to a Redis Cluster; write redis.cluster instead of redis.url');
    if (role !== 'replica' && role !== 'slave') return;
    if (kind === 'standalone')
      throw refuse('it is a replica, and what is published there reaches only its own subscribers; name the primary');
    throw new LinkError({ kind: 'later', text: 'it is a replica now' });
  }

  #listen(subscriber: Connection): void {
    const { redis } = subscriber;
    redis.on(this.#isSharded ? 'smessageBuffer' : 'messageBuffer', (channel: Buffer, bytes: Buffer) => {
      this.#host.onArrival(this, channel, bytes);
    });
    redis.on('moved', () => this.#host.onMoved(this, undefined));
  }

  #giveUp(failure: Failure): void {
    this.#end(failure.kind === 'gone');
    this.#host.onError(failure);
    if (this.#isClosed) return;
    this.#retryTimer = setTimeout(() => void this.#open(), this.#retry.next(failure.kind === 'refused'));
    this.#host.onLost(this, failure);
  }

  /** `isBroken`: what was under way may have broken it. */
  #end(isBroken: boolean): void {
    const { subscriptions } = this.#host;
    this.#attempt += 1;
    this.phase = 'down';
    this.#publisher?.destroy();
    this.#subscriber?.destroy();
    this.#publisher = undefined;
    this.#subscriber = undefined;
    this.#patienceMs = undefined;
    this.#probe = undefined;
    this.#probePartition = undefined;
    this.#isChecking = false;
    this.#mismatches = 0;
    this.#upMs = 0;
    this.#pipelines.end(isBroken);
    this.#caller.end(isBroken);
    const holder = this.#holder;
    this.#holder = undefined;
    if (holder === undefined) return;
    for (const ask of this.#asks) holder.settle(ask, false);
    this.#asks.clear();
    this.#topicsAsked = 0;
    this.#gaps += holder.gaps;
    for (const partition of this.#partitions) subscriptions.give(partition, undefined);
  }

  // ---- subscriptions

  #restore(): void {
    this.phase = 'restoring';
    this.#patienceMs = undefined;
    const holder = new Holder(
      () => this.#pumpSoon(),
      (key) => this.#host.onRestored(key),
    );
    this.#holder = holder;
    for (const partition of this.#partitions) this.#host.subscriptions.give(partition, holder);
    this.#pump();
  }

  #pumpSoon(): void {
    if (this.#isPumpDue || this.#holder === undefined) return;
    this.#isPumpDue = true;
    setImmediate(() => {
      this.#isPumpDue = false;
      this.#pump();
    });
  }

  /** Ask the next round. */
  #pump(): void {
    const holder = this.#holder;
    if (holder === undefined || this.#isChecking || this.#topicsAsked >= roundTopicsMax) return;
    if (this.#probe?.step === 'check') {
      // What stands can be counted when nothing is about to change.
      if (this.#asks.size === 0) this.#check(this.#probe);
      return;
    }
    const isParked = (partition: Partition) => this.#host.isParked(partition.index);
    this.#settled(holder);
    const asks = holder.next(roundTopicsMax, isParked);
    if (asks.length > 0) {
      this.#patienceMs = this.#timeoutMs;
      // All are noted before the first is sent, since sending may fail at once.
      for (const ask of asks) {
        this.#asks.add(ask);
        this.#topicsAsked += ask.subscriptions.length;
      }
      for (const ask of asks) this.#ask(holder, ask);
    } else if (holder.hasWork(isParked)) {
      this.#pumpSoon();
    } else {
      this.#settled(holder);
    }
  }

  #settled(holder: Holder): void {
    if (holder.isRestoring) return;
    if (this.phase === 'restoring') {
      this.phase = 'proving';
      this.#beginProbe();
    } else if (this.phase === 'up') {
      this.#tellGaps(holder);
    }
  }

  #tellGaps(holder: Holder): void {
    const gaps = this.#gaps + holder.gaps;
    this.#gaps = 0;
    holder.gaps = 0;
    if (gaps > 0) this.#host.onGap(gaps);
  }

  #ask(holder: Holder, ask: Ask): void {
    const attempt = this.#attempt;
    const names = ask.subscriptions.map(({ key }) => this.#host.channels.nameOf(key, ask.partition.index));
    const answered = (failure: Failure | undefined) => {
      if (attempt !== this.#attempt) return;
      this.#asks.delete(ask);
      this.#topicsAsked -= ask.subscriptions.length;
      this.#patienceMs = this.#asks.size > 0 ? this.#timeoutMs : undefined;
      if (failure?.kind === 'moved') this.#moved(failure, ask.partition.index);
      holder.settle(ask, failure === undefined);
      if (failure !== undefined && failure.kind !== 'moved') this.#giveUp(lasting(failure));
      else this.#pump();
    };
    this.#command(ask.kind, names).then(
      () => answered(undefined),
      (error: unknown) => answered(this.#subscriber?.failureOf(error)),
    );
  }

  /** ret: how many channels this connection is then subscribed to */
  #command(kind: Ask['kind'], names: Buffer[]): Promise<unknown> {
    const { redis } = this.#subscriber as Connection;
    if (kind === 'subscribe') return this.#isSharded ? redis.ssubscribe(...names) : redis.subscribe(...names);
    return this.#isSharded ? redis.sunsubscribe(...names) : redis.unsubscribe(...names);
  }

  #moved(failure: Failure, partition: number): void {
    this.#host.onError(failure);
    this.#host.onMoved(this, partition);
  }

  // ---- probes

  #beginProbe(): void {
    const partition = this.#choosePartition();
    // Every partition is about to move: those who know that are asked already.
    if (partition === undefined || this.#probe !== undefined) return;
    this.#sinceProbeMs = 0;
    const number = ++this.#probes;
    this.#probe = { number, partition, step: 'check', sentAt: 0, ageMs: 0, quietMs: 0, bytesRead: 0, hasEchoed: false };
    this.#pumpSoon();
  }

  #choosePartition(): Partition | undefined {
    const isParked = ({ index }: Partition) => this.#host.isParked(index);
    const present = this.#probePartition;
    if (present !== undefined) return isParked(present) ? undefined : present;
    for (const partition of this.#partitions) if (!isParked(partition)) return partition;
    return undefined;
  }

  #nameOf({ partition }: Probe): Buffer {
    return this.#host.channels.probeName(this.#host.sender.publisher, partition.index);
  }

  #check(probe: Probe): void {
    const attempt = this.#attempt;
    const holder = this.#holder as Holder;
    // Where its partition has changed, the channel of the former one went with that.
    this.#probePartition = probe.partition;
    const { standing } = holder;
    const answered = (count: number, failure: Failure | undefined) => {
      if (attempt !== this.#attempt) return;
      this.#isChecking = false;
      if (failure !== undefined) this.#probeFailed(probe, failure);
      else if (this.#probe === probe) this.#checked(probe, count, standing + 1);
      this.#pump();
    };
    this.#isChecking = true;
    this.#command('subscribe', [this.#nameOf(probe)]).then(
      (count) => answered(Number(count), undefined),
      (error: unknown) => answered(0, this.#subscriber?.failureOf(error)),
    );
  }

  #checked(probe: Probe, count: number, expected: number): void {
    if (count === expected) {
      this.#mismatches = 0;
    } else {
      // A slot that has just moved takes its channels along; nothing else may. What is then still missing is subscribed anew.
      this.#mismatches += 1;
      if (!this.#isSharded || this.#mismatches > 1) {
        this.#giveUp({ kind: 'gone', text: `it has ${count - 1} of the ${expected - 1} subscriptions that it confirmed` });
        return;
      }
      this.#host.onMoved(this, undefined);
    }
    this.#publishProbe(probe);
  }

  #publishProbe(probe: Probe): void {
    const attempt = this.#attempt;
    const publisher = this.#publisher as Connection;
    probe.step = 'publish';
    probe.quietMs = 0;
    probe.sentAt = this.#host.now();
    const bytes = this.#host.sender.probe(probe.number);
    const { redis } = publisher;
    const published = this.#isSharded ? redis.spublish(this.#nameOf(probe), bytes) : redis.publish(this.#nameOf(probe), bytes);
    Promise.all([published, publisher.traits()]).then(
      ([, traits]) => {
        if (attempt !== this.#attempt || this.#probe !== probe) return;
        try {
          this.#judge(traits);
        } catch (error) {
          return this.#giveUp(this.#failureOf(error));
        }
        probe.step = 'echo';
        probe.quietMs = 0;
        if (probe.hasEchoed) this.#probed();
      },
      (error: unknown) => {
        if (attempt === this.#attempt) this.#probeFailed(probe, publisher.failureOf(error));
      },
    );
  }

  #probeFailed(probe: Probe, failure: Failure): void {
    if (failure.kind !== 'moved') {
      this.#giveUp(lasting(failure));
      return;
    }
    if (this.#probe === probe) this.#probe = undefined;
    if (this.#probePartition === probe.partition) this.#probePartition = undefined;
    this.#moved(failure, probe.partition.index);
  }

  #probed(): void {
    this.#probe = undefined;
    if (this.phase !== 'proving') return;
    this.phase = 'up';
    this.#upMs = 0;
    this.#pipelines.begin(this.#publisher as Connection, Math.max(this.#retry.othersMs, this.#takesOver ? takeOverMs : 0));
    this.#caller.begin(this.#publisher as Connection);
    if (this.#holder !== undefined) this.#tellGaps(this.#holder);
    this.#host.onUp(this.#wasUp || this.#takesOver);
    this.#wasUp = true;
  }

  #tickProbe(probe: Probe, ms: number): void {
    const { bytesRead } = (probe.step === 'publish' ? this.#publisher : this.#subscriber) as Connection;
    probe.ageMs += ms;
    probe.quietMs = bytesRead === probe.bytesRead ? probe.quietMs + ms : 0;
    probe.bytesRead = bytesRead;
    const slowMs = Math.max(0, this.#pipelines.bytes - freeBytes) / slowestBytesPerMs;
    if (probe.quietMs > this.#timeoutMs + slowMs || probe.ageMs > this.#timeoutMs * probeTimeoutsMax + slowMs) {
      this.#giveUp(silent(this.#timeoutMs));
    }
  }
}

/** What is wrong with a subscription stays wrong until somebody changes something. */
function lasting(failure: Failure): Failure {
  return failure.kind === 'rejected' ? { ...failure, kind: 'refused' } : failure;
}
