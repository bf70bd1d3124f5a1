/**
 * A worker as the owner of topics: it holds their subscriptions while some worker of the node wants them, and hands on what comes, once.
 *
 * Role: wants of members → subscriptions; messages of other nodes → this node. Up: bus.ts. Down: a link, takeover.ts, giveaway.ts, sequences.ts.
 *
 *   first member ──> subscribed (or taken over from its former owner) ──last member gone──> lingers ──> unsubscribed
 *                        └──────────────── asked for by a new owner ──> given away
 *
 * Only workers in the view begin to own a topic; a worker that is not in it any more keeps what it has until it is asked for.
 */
import type { NodeView } from '../../core/node.ts';
import type { ArrivedMessage, NodeLink } from '../link.ts';
import type { Clock } from './clock.ts';
import type { FollowedLogs } from './followed-logs.ts';
import { Giveaway } from './giveaway.ts';
import { type Letter, type Mark, topicBytes, topicKey, type Want } from './mail.ts';
import { type HeldMessage, memberOf, type OwnedTopic, workerOf } from './owned-topic.ts';
import { isIn, ownerOf } from './owners.ts';
import { Publishers, Sequences } from './sequences.ts';
import { Takeover } from './takeover.ts';

/** What is counted here; core/host-counters.ts has them as `redis_…`. */
export type OwnerCounter = 'messages_in' | 'echoes' | 'duplicates' | 'drops' | 'gaps';

export interface OwnershipPorts {
  readonly self: number;
  readonly epoch: number;
  /** All places of the node. */
  readonly places: number;
  readonly nodeId: string;
  readonly lingerMs: number;
  readonly clock: Clock;
  readonly link: Pick<NodeLink, 'subscribe' | 'unsubscribe'>;
  send(to: number, letter: Letter): 'sent' | 'gone';
  /** Call when the core has had a turn: what other workers have sent until now has been read. */
  afterTurn(call: () => void): void;
  /** To every subscriber on this node. */
  deliver(topic: Uint8Array, flags: number, payload: Uint8Array): void;
  count(counter: OwnerCounter, by: number): void;
  /** Of a link with logs: topics that this worker owns. */
  readonly logs?: Pick<FollowedLogs, 'subscribed' | 'given' | 'ended'> | undefined;
}

/**
 * How long sequences are remembered: one to two such periods. A message may come again when its publisher has found its way back to the others, which takes
 * seconds; or as long as it was cut off.
 */
const periodMs = 15 * 60_000;
/** Topics looked at in one tick, when members have died or sequences grow old, and topics unsubscribed in one tick. */
const topicsPerTick = 2000;

/** Topics that nobody wants any more and that are kept for a while; with more, the oldest go at once: sockets may come to new topics without end. */
const lingeringMax = 65_536;

/** What waits for the core's turn, in order. */
type Late = { readonly topic: OwnedTopic } & ({ readonly message: HeldMessage } | { readonly onLeft: () => void });

export class Ownership {
  readonly #ports: OwnershipPorts;
  readonly #topics = new Map<string, OwnedTopic>();
  /** Topics without members, and until when they stay; in that order. */
  readonly #lingering = new Map<string, number>();
  /** The process that lives at each place, by its epoch, as far as it has been heard of. */
  readonly #epochs = new Map<number, number>();
  /** The last process of each place that has ended; epochs of a place grow. */
  readonly #ended = new Map<number, number>();
  readonly #publishers = new Publishers();
  readonly #takeover: Takeover;
  readonly #giveaway: Giveaway;
  #view: NodeView;
  /** The view before, if this process has seen it. */
  #viewBefore: NodeView | undefined;
  /** Workers outside the view, which may hold topics from before. */
  readonly #outside = new Set<number>();
  #late: Late[] = [];
  #periodEndsMs: number;
  /** A walk through all topics that drops dead members and old sequences. */
  #walk: Iterator<OwnedTopic> | undefined;
  #mustWalkAgain = false;

  constructor(ports: OwnershipPorts, view: NodeView) {
    this.#ports = ports;
    this.#view = view;
    this.#periodEndsMs = ports.clock.now() + periodMs;
    this.#epochs.set(ports.self, ports.epoch);
    const { self, places, clock } = ports;
    const common = {
      self,
      places,
      now: () => clock.now(),
      sharedNow: () => clock.sharedNow(),
      soon: (call: () => void) => clock.soon(call),
      send: (to: number, letter: Letter) => ports.send(to, letter),
    };
    this.#takeover = new Takeover({
      ...common,
      afterTurn: (call) => ports.afterTurn(call),
      renew: (topic) => this.#renew(topic),
      release: (topic, messages, isWhole) => this.#onReleased(topic, messages, isWhole),
      onDropped: (count) => ports.count('drops', count),
    });
    this.#giveaway = new Giveaway({
      ...common,
      takesPart: (worker) => this.#epochs.has(worker),
      // What this worker owns by the view it keeps: who asks for it has not seen the view yet.
      find: (key) => (this.#isOwn(key) ? undefined : this.#topics.get(key)),
      leave: (topic, onLeft) => {
        void ports.link.unsubscribe(topicBytes(topic.key)).then(() => this.#afterTurn({ topic, onLeft }));
      },
      remove: (topic) => {
        this.#remove(topic);
        this.#ports.logs?.given(topic.key);
      },
    });
  }

  /** Topics with a subscription, or on the way to one. */
  get size(): number {
    return this.#topics.size;
  }

  has(key: string): boolean {
    return this.#topics.has(key);
  }

  /** Whether other workers rely on topics that this one holds. */
  get isNeeded(): boolean {
    const isOwner = isIn(this.#view, this.#ports.self);
    for (const { members } of this.#topics.values()) {
      // A former owner knows only what was wanted before; it holds all of that until the new owners have asked for it, as they do.
      if (isOwner ? members.some((member) => workerOf(member) !== this.#ports.self && this.#isAlive(member)) : members.length > 0)
        return true;
    }
    return false;
  }

  /** What is on its way between owners. */
  get isHandingOver(): boolean {
    return !this.#takeover.isIdle || this.#late.length > 0;
  }

  // ---------------------------------------------------------------- workers

  /** `outside`: workers that live and are not in the view. */
  viewChanged(view: NodeView, outside: readonly number[]): void {
    this.#viewBefore = this.#view;
    this.#view = view;
    this.#noteOutside(outside);
  }

  /** At the start, when the view is known and nothing has changed. */
  begin(outside: readonly number[]): void {
    this.#noteOutside(outside);
  }

  /** A letter has come: the process at this place is this one. ret: false: it has ended */
  heardOf(worker: number, epoch: number): boolean {
    if (this.#epochs.get(worker) === epoch) return true;
    if (epoch <= (this.#ended.get(worker) ?? 0)) return false;
    if (this.#epochs.has(worker)) this.#walkAll();
    this.#epochs.set(worker, epoch);
    return true;
  }

  /** The process at this place has ended. Its letters must have been read: what it has given away is known then. */
  gone(worker: number, epoch: number): void {
    this.#ended.set(worker, Math.max(epoch, this.#ended.get(worker) ?? 0));
    const known = this.#epochs.get(worker);
    // Its successor has been heard of already.
    if (known !== undefined && known !== epoch) return;
    this.#epochs.delete(worker);
    this.#outside.delete(worker);
    this.#takeover.gone(worker);
    if (known !== undefined) this.#walkAll();
  }

  #noteOutside(outside: readonly number[]): void {
    this.#outside.clear();
    if (!isIn(this.#view, this.#ports.self)) return;
    for (const worker of outside) this.#outside.add(worker);
  }

  #isAlive(member: number): boolean {
    const worker = workerOf(member);
    const epoch = this.#epochs.get(worker);
    return epoch !== undefined && memberOf(worker, epoch) === member;
  }

  /** Who may have the subscription of a topic that is wanted now: its owner in the view before, and anybody whose view is not known. */
  #formerOwners(key: string): number[] {
    if (this.#outside.size === 0) return [];
    const before = this.#viewBefore;
    if (before === undefined) return [...this.#outside];
    const owner = ownerOf(key, before);
    return [...this.#outside].filter((worker) => worker === owner || !isIn(before, worker));
  }

  // ---------------------------------------------------------------- members

  want(worker: number, epoch: number, { topic: key, wanted, again }: Want): void {
    // One that is not wanted any more is taken over all the same: else its former owner would keep it.
    const topic = this.#topics.get(key) ?? (wanted || again ? this.#begin(key) : undefined);
    if (topic === undefined) return;
    const member = memberOf(worker, epoch);
    const at = topic.members.indexOf(member);
    if (wanted) {
      this.#lingering.delete(key);
      if (at >= 0) return;
      topic.members.push(member);
      if (again && !topic.wasInterrupted) this.#noteInterrupted(topic);
    } else {
      if (at >= 0) topic.members.splice(at, 1);
      this.#lingerIfLeft(topic);
    }
  }

  #begin(key: string): OwnedTopic | undefined {
    if (!this.#isOwn(key)) return undefined;
    const topic: OwnedTopic = {
      key,
      members: [],
      wasInterrupted: false,
      isWhole: false,
      seen: undefined,
      taking: undefined,
      giving: undefined,
    };
    this.#topics.set(key, topic);
    const from = this.#formerOwners(key);
    if (from.length > 0) this.#takeover.begin(topic, from);
    const confirmed = this.#ports.link.subscribe(topicBytes(key));
    if (topic.taking !== undefined) void confirmed.then(() => this.#takeover.ask(topic));
    if (this.#ports.logs !== undefined) void confirmed.then(() => this.#subscribed(topic));
    return topic;
  }

  #subscribed(topic: OwnedTopic): void {
    if (this.#topics.get(topic.key) === topic) this.#ports.logs?.subscribed(topic.key);
  }

  #isOwn(key: string): boolean {
    return ownerOf(key, this.#view) === this.#ports.self;
  }

  /** Counted once for a topic, and not while it may still turn out that its former owner kept it going. */
  #noteInterrupted(topic: OwnedTopic): void {
    topic.wasInterrupted = true;
    if (topic.taking === undefined && !topic.isWhole) this.#ports.count('gaps', 1);
  }

  #lingerIfLeft(topic: OwnedTopic): void {
    if (topic.members.length > 0 || this.#lingering.has(topic.key)) return;
    this.#lingering.set(topic.key, this.#ports.clock.now() + this.#ports.lingerMs);
    if (this.#ports.lingerMs === 0 || this.#lingering.size > lingeringMax) this.#endLingering();
  }

  #endLingering(): void {
    const now = this.#ports.clock.now();
    let left = topicsPerTick;
    for (const [key, untilMs] of this.#lingering) {
      if ((untilMs > now && this.#lingering.size <= lingeringMax) || left-- === 0) return;
      this.#lingering.delete(key);
      const topic = this.#topics.get(key);
      // One that is being given away goes its own way.
      if (topic === undefined || topic.giving !== undefined) continue;
      this.#remove(topic);
      this.#ports.logs?.ended(key);
      void this.#ports.link.unsubscribe(topicBytes(key));
    }
  }

  #remove(topic: OwnedTopic): void {
    this.#topics.delete(topic.key);
    this.#lingering.delete(topic.key);
    this.#takeover.abandon(topic);
    topic.seen?.clear();
  }

  // ---------------------------------------------------------------- messages

  arrived(message: ArrivedMessage): void {
    const topic = this.#topics.get(topicKey(message.topic));
    if (topic === undefined) return;
    if (message.publisher.node === this.#ports.nodeId) {
      this.#ports.count('echoes', 1);
      return;
    }
    const publisher = this.#publishers.idOf(message.publisher);
    const { sequence, flags, payload } = message;
    if (topic.taking !== undefined) {
      this.#takeover.hold(topic, { publisher, sequence, flags, payload: payload.slice() });
    } else if (isIn(this.#view, this.#ports.self)) {
      this.#handOn(topic, publisher, sequence, flags, payload);
    } else {
      // The new owner may have asked long ago, and gone on by itself, while this process was not running.
      this.#afterTurn({ topic, message: { publisher, sequence, flags, payload: payload.slice() } });
    }
  }

  #handOn(topic: OwnedTopic, publisher: number, sequence: number, flags: number, payload: Uint8Array): void {
    topic.seen ??= new Sequences(this.#publishers);
    if (topic.seen.take(publisher, sequence)) {
      this.#ports.count('messages_in', 1);
      this.#ports.deliver(topicBytes(topic.key), flags, payload);
    } else {
      this.#ports.count('duplicates', 1);
    }
  }

  #afterTurn(late: Late): void {
    this.#late.push(late);
    if (this.#late.length > 1) return;
    this.#ports.afterTurn(() => {
      const all = this.#late;
      this.#late = [];
      for (const one of all) {
        if ('onLeft' in one) one.onLeft();
        else if (this.#topics.get(one.topic.key) === one.topic && this.#giveaway.mayHandOn(one.topic))
          this.#handOn(one.topic, one.message.publisher, one.message.sequence, one.message.flags, one.message.payload);
      }
    });
  }

  // ---------------------------------------------------------------- handing over

  take(from: number, letter: Extract<Letter, { kind: 'take' }>): void {
    this.#giveaway.take(from, letter);
  }

  given(from: number, letter: Extract<Letter, { kind: 'given' }>): void {
    this.#takeover.given(
      from,
      letter,
      (key) => this.#topics.get(key),
      (topic, marks) => this.#noteMarks(topic, marks),
    );
  }

  passed(letter: Extract<Letter, { kind: 'passed' }>, by: number): void {
    this.#takeover.passed(letter.from, letter.pass, by);
  }

  #noteMarks(topic: OwnedTopic, marks: readonly Mark[]): void {
    if (marks.length > 0) topic.seen ??= new Sequences(this.#publishers);
    for (const { publisher, sequence } of marks) topic.seen?.mark(this.#publishers.idOf(publisher), sequence);
  }

  async #renew(topic: OwnedTopic): Promise<void> {
    const { link } = this.#ports;
    await link.unsubscribe(topicBytes(topic.key));
    if (this.#topics.get(topic.key) !== topic) return;
    await link.subscribe(topicBytes(topic.key));
    this.#subscribed(topic);
  }

  #onReleased(topic: OwnedTopic, messages: readonly HeldMessage[], isWhole: boolean): void {
    topic.isWhole = isWhole;
    // When nobody is left who wants it, nobody has missed anything.
    if (topic.wasInterrupted && !isWhole && topic.members.length > 0) this.#ports.count('gaps', 1);
    for (const { publisher, sequence, flags, payload } of messages) this.#handOn(topic, publisher, sequence, flags, payload);
    this.#giveaway.proceed(topic);
  }

  // ---------------------------------------------------------------- time

  /** Several times a second. */
  tick(): void {
    this.#takeover.tick();
    this.#giveaway.tick();
    this.#endLingering();
    const now = this.#ports.clock.now();
    if (now >= this.#periodEndsMs || this.#publishers.isFull) {
      this.#periodEndsMs = now + periodMs;
      this.#publishers.endPeriod();
      this.#walkAll();
    }
    this.#walkOn();
  }

  #walkAll(): void {
    if (this.#walk === undefined) this.#walk = this.#topics.values();
    else this.#mustWalkAgain = true;
  }

  #walkOn(): void {
    for (let left = topicsPerTick; this.#walk !== undefined && left > 0; left--) {
      const next = this.#walk.next();
      if (next.done !== true) {
        this.#lookAt(next.value);
        continue;
      }
      this.#walk = this.#mustWalkAgain ? this.#topics.values() : undefined;
      this.#mustWalkAgain = false;
    }
  }

  #lookAt(topic: OwnedTopic): void {
    if (topic.seen?.age() === false) topic.seen = undefined;
    if (topic.members.every((member) => this.#isAlive(member))) return;
    const alive = topic.members.filter((member) => this.#isAlive(member));
    topic.members.splice(0, topic.members.length, ...alive);
    this.#lingerIfLeft(topic);
  }
}
