/**
 * Workers of one node or of several, in this process: real cores, real buses, shared memory, WebSocket clients, and what joins the nodes.
 *
 * Role: for bus.test.ts. Turned as long as there is something to turn: clients and links live in the same event loop.
 */
import { native, type SharedStats } from '../../ffi/bindings.ts';
import type { RedisOptions } from '../../src/api/define.ts';
import type { GatewaySocket } from '../../src/api/socket.ts';
import { resolveRedis } from '../../src/config/redis.ts';
import type { BackendName } from '../../src/core/core.ts';
import type { LogLimits } from '../../src/core/log-commands.ts';
import type { PublishResult } from '../../src/core/node.ts';
import { hostLayout, type StatName, statIndex } from '../../src/core/stat-index.ts';
import { createLog } from '../../src/log.ts';
import { type BusSettings, busNeeds, createBus } from '../../src/pubsub/create.ts';
import type { LinkContext, NodeLink } from '../../src/pubsub/link.ts';
import type { Bus } from '../../src/pubsub/nodes/bus.ts';
import { topicKey } from '../../src/pubsub/nodes/mail.ts';
import { createLinkedStore } from '../../src/topics/linked-store.ts';
import { MemoryStore } from '../../src/topics/memory-store.ts';
import type { TopicStore } from '../../src/topics/store.ts';
import { eventually } from '../support/eventually.ts';
import { LiveCore } from '../support/live-core.ts';
import type { RedisServer } from '../support/redis-servers.ts';
import type { Frame, Wire } from '../support/wire.ts';

export interface JoinedOptions {
  readonly backend: BackendName;
  /** Workers of each node. */
  readonly nodes: readonly number[];
  /** What joins them; a Redis with its options in a config, or a link. */
  readonly redis?: RedisServer;
  readonly settings?: Record<string, unknown>;
  readonly link?: (context: LinkContext) => NodeLink;
  /** Topics remember: what their logs keep. Where nothing is said of a Redis, in the memory of each node. */
  readonly limitsOf?: (topic: string) => LogLimits | undefined;
  /** In place of `redis`: whatever a config may say of it. */
  readonly redisOptions?: RedisOptions;
}

/** A client that is subscribed to what a test says. */
export interface Subscriber {
  readonly wire: Wire;
  readonly socket: GatewaySocket;
  readonly worker: JoinedWorker;
  frame(): Promise<Frame>;
  /** So many messages as text. */
  texts(count: number): Promise<string[]>;
}

export class JoinedWorker {
  readonly node: number;
  readonly live: LiveCore;
  /** undefined: its node stands alone. */
  readonly bus: Bus | undefined;
  readonly #store: TopicStore | undefined;

  constructor(node: number, live: LiveCore, bus: Bus | undefined, store: TopicStore | undefined) {
    this.node = node;
    this.live = live;
    this.bus = bus;
    this.#store = store;
  }

  /** Where its topics remember. */
  get store(): TopicStore {
    if (this.#store === undefined) throw new Error('topics do not remember here: give limitsOf');
    return this.#store;
  }

  /** As `publish()` of a config does. */
  publish(topic: string, message: string | Uint8Array): PublishResult {
    return this.live.topics.publish(topic, message);
  }

  stat(name: StatName): number {
    return this.live.core.readStat(statIndex(name));
  }
}

export class JoinedWorkers {
  readonly workers: JoinedWorker[] = [];
  readonly #redis: RedisServer | undefined;
  readonly #settings: BusSettings;
  readonly #limitsOf: JoinedOptions['limitsOf'];
  /** Of topics: how many links have a subscription in place. */
  readonly #inPlace = new Map<string, number>();
  readonly #memories: { readonly fd: number; readonly shared: SharedStats }[] = [];
  readonly #wires: Wire[] = [];
  #isOver = false;
  #failure: unknown;

  private constructor({ redis, settings = {}, link, limitsOf, redisOptions }: JoinedOptions) {
    this.#redis = redis;
    this.#limitsOf = limitsOf;
    const complain = (path: readonly PropertyKey[], problem: string) => {
      throw new Error(`${path.join('.')} ${problem}`);
    };
    const options = redisOptions ?? (redis === undefined ? false : { url: redis.url, linger: 0, ...settings });
    this.#settings = {
      redis: resolveRedis(options, undefined, '/', complain),
      link: link === undefined ? false : { linger: 0, required: false, create: (context: LinkContext) => this.#watched(link(context)) },
    };
  }

  static async start(options: JoinedOptions): Promise<JoinedWorkers> {
    const joined = new JoinedWorkers(options);
    for (const [node, count] of options.nodes.entries()) await joined.#startNode(options.backend, node, count);
    joined.#turn();
    await eventually('every bus is up', () => joined.workers.every(({ bus }) => bus === undefined || bus.state === 'up'));
    return joined;
  }

  async #startNode(backend: BackendName, node: number, count: number): Promise<void> {
    const fd = native.shmCreate(count, 0, hostLayout, this.#limitsOf === undefined ? 0 : 16 << 20);
    const shared = native.shmMap(fd, hostLayout);
    shared.viewSet(1, 0, count);
    this.#memories.push({ fd, shared });
    const nodeId = Bun.hash(`${process.pid} ${performance.now()} ${node}`).toString(16).padStart(16, '0');
    for (let index = 0; index < count; index++) {
      const limitsOf = this.#limitsOf;
      const needs = busNeeds({ ...this.#settings, topics: limitsOf === undefined ? [] : [{}] });
      const live = new LiveCore(backend, { core: { shmFd: fd, workerIndex: index, workerCount: count, ...needs } });
      const log = createLog({ level: 'fatal' });
      const logs = limitsOf && { core: live.core, hasPresence: true, limitsOf };
      const bus = await createBus(live.core, { index, places: count, workers: count, nodeId }, this.#settings, log, logs);
      const store = limitsOf && (createLinkedStore(live.core, bus) ?? new MemoryStore(live.core, () => {}));
      this.workers.push(new JoinedWorker(node, live, bus, store));
    }
  }

  /** Every core has a turn, again and again, between all else that this process does. */
  #turn(): void {
    if (this.#isOver) return;
    try {
      for (const { live } of this.workers) {
        live.turn();
        if (this.#limitsOf !== undefined) live.core.presenceTick();
      }
    } catch (error) {
      this.#failure ??= error;
    }
    setTimeout(() => this.#turn(), 1);
  }

  worker(at: number): JoinedWorker {
    return this.workers[at % this.workers.length] as JoinedWorker;
  }

  async connect(worker: JoinedWorker): Promise<Subscriber> {
    const { wire, socket } = await worker.live.open();
    this.#wires.push(wire);
    const frame = async () => {
      const next = await wire.frame();
      if (next === undefined) throw new Error('the connection has ended');
      return next;
    };
    const texts = async (count: number) => {
      const all: string[] = [];
      while (all.length < count) all.push((await frame()).payload.toString());
      return all;
    };
    return { wire, socket, worker, frame, texts };
  }

  /** A client on each worker, subscribed to this topic, whose messages come from everywhere when this resolves. */
  async subscribeEverywhere(topic: string, perWorker = 1): Promise<Subscriber[]> {
    const subscribers: Subscriber[] = [];
    for (const worker of this.workers) for (let i = 0; i < perWorker; i++) subscribers.push(await this.connect(worker));
    for (const { socket } of subscribers) socket.subscribe(topic);
    await this.inPlace(topic, subscribers);
    return subscribers;
  }

  /** What is published to a topic reaches all of these, and on other nodes nobody else. */
  async inPlace(topic: string | Uint8Array, subscribers: readonly Subscriber[]): Promise<void> {
    for (const { live } of this.workers) live.turn();
    const nodes = new Set(subscribers.map(({ worker }) => worker.node)).size;
    const key = topicKey(Buffer.from(topic as string));
    if (this.#settings.link !== false) await eventually('the nodes are subscribed', () => (this.#inPlace.get(key) ?? 0) === nodes);
    if (this.#redis === undefined) return;
    const prefix = Buffer.from('ringway:');
    const channel = Buffer.concat([prefix, Buffer.from(topic as string)]);
    await eventually('the nodes are subscribed in Redis', async () => (await this.#subscriptionsOf(channel)) === nodes);
  }

  /** A link that tells which of its subscriptions are in place. */
  #watched(link: NodeLink): NodeLink {
    const note = (topic: Uint8Array, by: number) => {
      const key = topicKey(topic);
      this.#inPlace.set(key, (this.#inPlace.get(key) ?? 0) + by);
    };
    return {
      get state() {
        return link.state;
      },
      start: (events) => link.start(events),
      publish: (topic, flags, payload) => link.publish(topic, flags, payload),
      subscribe: (topic) => link.subscribe(topic).then(() => note(topic, 1)),
      unsubscribe: (topic) => link.unsubscribe(topic).then(() => note(topic, -1)),
      health: () => link.health(),
      close: (deadlineMs) => link.close(deadlineMs),
    };
  }

  async #subscriptionsOf(channel: Buffer): Promise<number> {
    // redis-cli takes no argument with a NUL in it: as a script, which reads escapes.
    const escaped = [...channel].map((byte) => `\\${byte}`).join('');
    const answer = await this.#redis?.command('EVAL', `return redis.call('PUBSUB', 'NUMSUB', "${escaped}")[2]`, '0');
    return Number(answer);
  }

  /** Nothing but what has been read already comes to anybody: seen by a last message that all get. */
  async expectNothingMore(topic: string, subscribers: readonly Subscriber[]): Promise<void> {
    for (const worker of this.workers) worker.publish(topic, `last of ${this.workers.indexOf(worker)}`);
    const expected = this.workers.map((_, at) => `last of ${at}`).sort();
    for (const subscriber of subscribers) {
      const got = (await subscriber.texts(expected.length)).sort();
      if (got.join() !== expected.join()) throw new Error(`something came that nobody expected: ${got.join()}`);
    }
  }

  sum(name: StatName): number {
    return this.workers.reduce((sum, worker) => sum + worker.stat(name), 0);
  }

  async stop(): Promise<void> {
    // A bus with something that other workers rely on waits for them.
    for (const wire of this.#wires) wire.destroy();
    await eventually('all connections are gone', () => this.workers.every(({ live }) => live.core.connections() === 0));
    await Promise.all(this.workers.map(({ bus }) => bus?.close(2000)));
    if (this.#limitsOf !== undefined) await Promise.all(this.workers.map(({ store }) => store.close()));
    this.#isOver = true;
    await Bun.sleep(5);
    for (const { live } of this.workers) live.destroy();
    for (const { fd, shared } of this.#memories) {
      shared.unmap();
      native.fdClose(fd);
    }
    if (this.#failure !== undefined) throw this.#failure;
  }
}
