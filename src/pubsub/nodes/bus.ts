/**
 * A worker as a part of its node, where nodes are joined: what the worker publishes goes out by its own link, what other nodes publish comes in through
 * the owner of its topic, one worker of the node.
 *
 * Role: joins a worker's core to the parts, which know nothing of each other. Up: create.ts. Parts:
 *
 *   core ──topics wanted here──> interest.ts ──letters──> ownership.ts of the owner ──> its link
 *   core <──── publishRemote ─── ownership.ts <──────────────── messages ────────────── its link
 *   core ───── onPublish ─────────────────────────────────────────────────────────────> its link
 */

import { sendText } from '../../api/message.ts';
import type { Payload, Topic } from '../../core/core.ts';
import type { LogCommands, LogLimits } from '../../core/log-commands.ts';
import { type BusEvents, type MailOutcome, type NodeView, type PublishResult, topicBytesMax } from '../../core/node.ts';
import { type PresenceCommands, topicOfPresence } from '../../core/presence-commands.ts';
import type { LinkCounter, LinkHealth, LinkLogs, LinkMembers, LinkState, NodeLink, StoredRange } from '../link.ts';
import { type Clock, systemClock } from './clock.ts';
import { type FollowedCounter, FollowedLogs } from './followed-logs.ts';
import { Interest } from './interest.ts';
import { decodeLetter, type Letter, topicKey } from './mail.ts';
import { NodeMembers } from './node-members.ts';
import { haveSameOwners, isIn } from './owners.ts';
import { type OwnerCounter, Ownership } from './ownership.ts';
import { Post } from './post.ts';

/** What the bus needs of a worker's core; `Core` has it. */
export interface BusCore {
  readonly epoch: number;
  view(): NodeView | undefined;
  publishRemote(topic: Uint8Array, flags: number, payload: Uint8Array): void;
  mail(worker: number, bytes: Uint8Array): MailOutcome;
  onPublish: ((topic: Topic, flags: number, payload: Payload) => PublishResult) | undefined;
  busEvents: BusEvents | undefined;
}

export type BusCounter = OwnerCounter | LinkCounter | FollowedCounter;

export interface BusOptions {
  readonly core: BusCore;
  readonly link: NodeLink;
  readonly nodeId: string;
  /** This worker's place, among so many. */
  readonly index: number;
  readonly places: number;
  /** Workers of its own generation: they own the topics until a view has been set. */
  readonly workers: number;
  /** Seconds. */
  readonly linger: number;
  count(counter: BusCounter, by: number): void;
  /** How its link is: at every change of state, and several times a second. */
  report(state: LinkState, health: LinkHealth): void;
  /** Call when the core has had a turn. */
  afterTurn(call: () => void): void;
  readonly clock?: Clock;
  /** Where topics have logs that lie at the other side of the link, which has `logs` then. */
  readonly logs?: BusLogs | undefined;
}

export interface BusLogs {
  readonly core: Pick<LogCommands, 'logPut' | 'logReset' | 'logEnd' | 'logRead'> &
    Pick<PresenceCommands, 'presenceTakeDirty' | 'presenceAcked' | 'presenceRewrite'>;
  /** Some topics have presence: members lie there too. */
  readonly hasPresence: boolean;
  /** What the log of a topic keeps; undefined: it has none. */
  limitsOf(topic: string): LogLimits | undefined;
}

/** A topic that this worker wants for itself; see `want`. */
interface Wanted {
  count: number;
  /** By subscribers, too. */
  isWantedByCore: boolean;
}

/** How often time is looked at, and the view when nothing else has drawn attention to it. */
const tickMs = 250;
const closePollMs = 20;
/** Kept of the time to close for what waits in the outbox, and how long it may take: the link may be down. */
const outboxShare = 0.2;
const outboxWithinMs = 3000;

export class Bus {
  readonly #options: BusOptions;
  readonly #core: BusCore;
  readonly #link: NodeLink;
  readonly #clock: Clock;
  readonly #post: Post;
  readonly #interest: Interest;
  readonly #ownership: Ownership;
  readonly #followed: FollowedLogs | undefined;
  readonly #members: NodeMembers | undefined;
  readonly #wanted = new Map<string, Wanted>();
  readonly #stopTicking: () => void;
  #view: NodeView;
  #isClosed = false;

  constructor(options: BusOptions) {
    const { core, link, index, places, nodeId } = options;
    const clock = options.clock ?? systemClock;
    this.#options = options;
    this.#core = core;
    this.#link = link;
    this.#clock = clock;
    this.#view = this.#readView();
    this.#followed = this.#followLogs(options);
    this.#post = new Post((to, bytes) => core.mail(to, bytes), clock);
    this.#ownership = new Ownership(
      {
        self: index,
        epoch: core.epoch,
        places,
        nodeId,
        lingerMs: options.linger * 1000,
        clock,
        link,
        send: (to, letter) => this.#post.send(to, letter),
        afterTurn: options.afterTurn,
        // Only the bits that mean something here, whoever has sent it.
        deliver: (topic, flags, payload) => core.publishRemote(topic, flags & sendText, payload),
        count: options.count,
        logs: this.#followed,
      },
      this.#view,
    );
    this.#interest = new Interest(
      {
        self: index,
        clock,
        trySend: (to, letter) => this.#post.trySend(to, letter),
        tellSelf: (want) => this.#ownership.want(index, core.epoch, want),
      },
      this.#view,
    );
    core.busEvents = {
      onInterest: (topic, wanted) => {
        this.#lookAtView();
        const key = topicKey(topic);
        const own = this.#wanted.get(key);
        if (own !== undefined) own.isWantedByCore = wanted;
        else this.#interest.set(key, wanted);
      },
      onMail: (from, epoch, bytes) => this.#onMail(from, epoch, bytes),
    };
    core.onPublish = (topic, flags, payload) => this.#toOthers(topic, flags, payload);
    link.start({
      onMessage: (message) => {
        this.#lookAtView();
        this.#ownership.arrived(message);
      },
      onGap: (topics) => options.count('gaps', topics),
      onState: () => this.#report(),
      onEntries: (topic, range) => {
        this.#lookAtView();
        this.#entriesCame(topic, range);
      },
      onRestored: (topic) => this.#followed?.restored(topicKey(topic)),
    });
    this.#members = this.#keepMembers(options);
    this.#report();
    this.#ownership.begin(this.#writeToAll({ kind: 'hello' }));
    this.#stopTicking = clock.every(tickMs, () => {
      this.#lookAtView();
      this.#ownership.tick();
      this.#report();
    });
  }

  get state(): LinkState {
    return this.#link.state;
  }

  /** Logs that all nodes share, if the link has them and topics use them. */
  get logs(): LinkLogs | undefined {
    return this.#followed === undefined ? undefined : this.#link.logs;
  }

  /** Members that all nodes share, as this one has written its own. */
  get members(): LinkMembers | undefined {
    return this.#members === undefined ? undefined : this.#link.members;
  }

  /** Resolves when what has changed of this worker's members is written, or cannot be. */
  async flushMembers(): Promise<void> {
    await this.#members?.flush();
  }

  /**
   * The node is to have the topic, as if somebody here were subscribed, until as many `unwant` have been called: its log is followed then. `topic`: bytes.
   */
  want(topic: Uint8Array): void {
    const key = topicKey(topic);
    const own = this.#wanted.get(key);
    if (own !== undefined) {
      own.count += 1;
      return;
    }
    this.#lookAtView();
    this.#wanted.set(key, { count: 1, isWantedByCore: this.#interest.isWanted(key) });
    this.#interest.set(key, true);
  }

  /** This worker has told the topic's owner that it wants it. */
  isWanted(topic: Uint8Array): boolean {
    return this.#interest.isWanted(topicKey(topic));
  }

  unwant(topic: Uint8Array): void {
    const key = topicKey(topic);
    const own = this.#wanted.get(key);
    if (own === undefined || --own.count > 0) return;
    this.#wanted.delete(key);
    if (!this.#isClosed && !own.isWantedByCore) this.#interest.set(key, false);
  }

  /** The process at this place has ended; `epoch`: which. */
  workerGone(worker: number, epoch: number): void {
    this.#options.afterTurn(() => this.#ownership.gone(worker, epoch));
  }

  /**
   * Send what waits, and let go of the link; what is published afterwards stays on this node. As long as other workers of the node rely on topics
   * that this one holds, it goes on; but not past the deadline.
   */
  async close(deadlineMs: number): Promise<void> {
    const began = this.#clock.now();
    const left = () => deadlineMs - (this.#clock.now() - began);
    // Owners hear of the topics of connections that have just gone.
    await this.#turn();
    const isNeeded = () => this.#link.state === 'up' && (this.#ownership.isNeeded || this.#ownership.isHandingOver);
    while (left() > deadlineMs * outboxShare && isNeeded()) await new Promise<void>((done) => this.#clock.later(closePollMs, done));
    this.#isClosed = true;
    this.#stopTicking();
    this.#members?.close();
    await this.#link.close(Math.max(0, Math.min(left(), outboxWithinMs)));
    this.#report();
    // The last letters lie in rings; their readers are woken by the turn.
    await this.#turn();
    this.#core.busEvents = undefined;
  }

  #turn(): Promise<void> {
    return new Promise((done) => this.#options.afterTurn(done));
  }

  #report(): void {
    this.#options.report(this.#link.state, this.#link.health());
  }

  #followLogs({ logs, link, nodeId, count }: BusOptions): FollowedLogs | undefined {
    if (logs === undefined || link.logs === undefined) return undefined;
    return new FollowedLogs({
      nodeId,
      clock: this.#clock,
      core: logs.core,
      logs: link.logs,
      limitsOf: (key) => logs.limitsOf(Buffer.from(key, 'latin1').toString()),
      count,
      onFollowed: (topic, isFollowed) => {
        const inner = topicOfPresence(topic);
        if (inner !== undefined) this.#members?.observe(inner, isFollowed);
      },
    });
  }

  #keepMembers({ core, logs, link, index }: BusOptions): NodeMembers | undefined {
    if (logs?.hasPresence !== true || link.members === undefined) return undefined;
    return new NodeMembers({
      self: index,
      epoch: core.epoch,
      clock: this.#clock,
      core: logs.core,
      members: link.members,
      isUp: () => link.state === 'up',
      view: () => this.#view,
      tell: (worker, partitions) => void this.#post.send(worker, { kind: 'held', partitions }),
    });
  }

  /** Another node may know a log of a topic that has none here, while their configs differ: its messages come all the same. */
  #entriesCame(topic: Uint8Array, range: StoredRange): void {
    const key = topicKey(topic);
    if (this.#followed?.arrived(key, range) === true || !this.#ownership.has(key)) return;
    for (const { publisher, flags, payload } of range.entries)
      if (publisher.node !== this.#options.nodeId) this.#core.publishRemote(topic, flags & sendText, payload);
  }

  // ---------------------------------------------------------------- to other nodes

  /** The core has queued a message for this node already. */
  #toOthers(topic: Topic, flags: number, payload: Payload): PublishResult {
    const name = typeof topic === 'string' ? Buffer.from(topic) : topic;
    if (name.byteLength === 0 || name.byteLength > topicBytesMax) return 'dropped';
    return this.#link.publish(name, flags & sendText, typeof payload === 'string' ? Buffer.from(payload) : payload);
  }

  // ---------------------------------------------------------------- between workers

  #onMail(from: number, epoch: number, bytes: Uint8Array): void {
    if (this.#isClosed) return;
    const letter = decodeLetter(bytes);
    if (letter === undefined) return;
    this.#lookAtView();
    if (!this.#ownership.heardOf(from, epoch)) return;
    switch (letter.kind) {
      case 'hello':
        this.#post.send(from, { kind: 'look' });
        this.#interest.greeted(from);
        return;
      case 'look':
        return;
      case 'want':
        for (const want of letter.wants) this.#ownership.want(from, epoch, want);
        return;
      case 'take':
        this.#ownership.take(from, letter);
        return;
      case 'given':
        this.#ownership.given(from, letter);
        return;
      case 'pass':
        if (letter.to < this.#options.places && letter.to !== this.#options.index)
          this.#post.send(letter.to, { kind: 'passed', pass: letter.pass, from });
        return;
      case 'passed':
        this.#ownership.passed(letter, from);
        return;
      case 'held':
        this.#members?.told(letter.partitions);
        return;
      default:
        letter satisfies never;
    }
  }

  /** ret: the living workers that are not in the view */
  #writeToAll(letter: Letter): number[] {
    const outside: number[] = [];
    for (let worker = 0; worker < this.#options.places; worker++) {
      if (worker === this.#options.index || this.#post.send(worker, letter) === 'gone') continue;
      if (!isIn(this.#view, worker)) outside.push(worker);
    }
    return outside;
  }

  #readView(): NodeView {
    return this.#core.view() ?? { generation: 0, first: 0, count: this.#options.workers };
  }

  #lookAtView(): void {
    const view = this.#readView();
    if (view.generation === this.#view.generation) return;
    const isSame = haveSameOwners(view, this.#view);
    this.#view = view;
    if (isSame) return;
    // Who owns topics now wants to know of them soon.
    const outside = isIn(view, this.#options.index) ? this.#writeToAll({ kind: 'look' }) : [];
    this.#ownership.viewChanged(view, outside);
    this.#interest.viewChanged(view);
  }
}
