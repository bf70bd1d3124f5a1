/**
 * Members of this node, where they lie at the other side of a link as well: what has changed is written, and the node's leases are renewed.
 *
 * Role: of each worker. Up: bus.ts. Down: the core's members, the `members` of a link.
 *
 *   core ──dirty users──> write, several to a step ──acknowledged──> core          by whichever worker finds them
 *   partitions with members, or with followed presence logs ──letters──> the worker that holds their lease ──renew──> swept, if others are gone
 *
 * One step of a topic is under way at a time. What was written is known by its version, so writing it again is harmless: all of it is, in small pieces, when the
 * link was lost or a lease had ended. A lease is one for all that the node has in a partition: its cost does not grow with members.
 */
import type { NodeView } from '../../core/node.ts';
import type { DirtyUser, PresenceCommands } from '../../core/presence-commands.ts';
import type { LinkMembers } from '../link.ts';
import type { Clock } from './clock.ts';
import { topicKey } from './mail.ts';

export interface NodeMembersPorts {
  readonly self: number;
  /** Of this process at its place: 1 for the first that the node has had there. */
  readonly epoch: number;
  readonly clock: Clock;
  readonly core: Pick<PresenceCommands, 'presenceTakeDirty' | 'presenceAcked' | 'presenceRewrite'>;
  readonly members: LinkMembers;
  /** All of the other side can be reached. */
  isUp(): boolean;
  view(): NodeView;
  /** This worker, or others of its node, have something in these partitions. */
  tell(worker: number, partitions: readonly number[]): void;
}

/** How often it is looked for users that have changed. */
const writeMs = 50;
/** How often leases are thought of. */
const leaseTickMs = 500;
/** Of a lease: renewed so often, at least; and not more often than so many leases in a second. */
const renewMs = 3000;
const renewsPerSecond = 8;
/** Times that a renewal may fail. */
const renewsInLease = 3;
const slackMs = 1000;
/** The holder of a lease is told so often, and forgets a partition that nobody tells of, and where the node has no topics. */
const tellMs = 2000;
const forgetMs = 30_000;
/** What is held there expires after an hour. */
const keepMs = 15 * 60_000;
/** Users taken from the core at a time, and those that are held here. */
const takenAtOnce = 200;
const takenMax = 2000;

/** A step under way, of one topic. */
interface Writing {
  /** To be written after it. */
  next: DirtyUser[];
  /** When that is done too. */
  done: Promise<void>;
}

/** A partition whose lease this worker holds for its node. */
interface Held {
  toldAtMs: number;
  renewAtMs: number;
  keepAtMs: number;
  isRenewing: boolean;
}

export class NodeMembers {
  readonly #ports: NodeMembersPorts;
  readonly #stops: (() => void)[];
  readonly #writing = new Map<string, Writing>();
  #taken = 0;
  /** Shards of the core that are still to be marked; undefined: nothing is to be written again. */
  #rewriteAt: number | undefined;
  /** Up to this one. */
  #rewriteEnd = 0;
  /** What another process of the node may have left to be written again is looked after. */
  #hasSucceeded = false;
  /** undefined: not yet. */
  #wasUp: boolean | undefined;
  /** Partitions where this node has been seen to have a lease. */
  readonly #leased = new Set<number>();
  readonly #held = new Map<number, Held>();
  readonly #toldAtMs = new Map<number, number>();
  /** Partitions of presence logs that this worker follows for its node, and of how many. */
  readonly #observed = new Map<number, number>();

  constructor(ports: NodeMembersPorts) {
    this.#ports = ports;
    const { clock } = ports;
    this.#stops = [clock.every(writeMs, () => this.#write()), clock.every(leaseTickMs, () => this.#tickLeases())];
  }

  close(): void {
    for (const stop of this.#stops) stop();
  }

  /** How long a lease of this node lasts. */
  get leaseMs(): number {
    return this.#renewEveryMs * renewsInLease + slackMs;
  }

  get #renewEveryMs(): number {
    return Math.max(renewMs, (this.#held.size / renewsPerSecond) * 1000);
  }

  /** A presence log is followed by this worker, or is not any more. */
  observe(topic: Uint8Array, isFollowed: boolean): void {
    const partition = this.#ports.members.partitionOf(topic);
    const count = (this.#observed.get(partition) ?? 0) + (isFollowed ? 1 : -1);
    if (count > 0) this.#observed.set(partition, count);
    else this.#observed.delete(partition);
    if (isFollowed) this.#note([partition]);
  }

  /** Another worker has told: its node has something there. */
  told(partitions: readonly number[]): void {
    const now = this.#ports.clock.now();
    for (const partition of partitions) {
      if (partition >= this.#ports.members.partitions) continue;
      const held = this.#held.get(partition);
      if (held !== undefined) held.toldAtMs = now;
      else this.#held.set(partition, { toldAtMs: now, renewAtMs: now, keepAtMs: now + keepMs, isRenewing: false });
    }
  }

  /** Resolves when what has changed on this worker until now is written, or cannot be. */
  async flush(): Promise<void> {
    this.#write();
    await Promise.all(Array.from(this.#writing.values(), ({ done }) => done));
  }

  // ---------------------------------------------------------------- writing

  #write(): void {
    const { core } = this.#ports;
    const isUp = this.#ports.isUp();
    if (isUp) this.#beginIfDue();
    if (isUp || this.#wasUp !== undefined) this.#wasUp = isUp;
    // While some of it can be, what belongs there is not to wait for the rest.
    if (!isUp && !this.#isPartlyUp()) return;
    this.#markSome();
    while (this.#taken < takenMax) {
      const users = core.presenceTakeDirty(takenAtOnce);
      const topics = new Map<string, DirtyUser[]>();
      for (const user of users) {
        const key = topicKey(user.topic);
        const list = topics.get(key);
        if (list === undefined) topics.set(key, [user]);
        else list.push(user);
      }
      this.#taken += users.length;
      for (const [key, list] of topics) this.#writeTopic(key, list);
      if (users.length === 0) return;
    }
  }

  /** The link is up. All that the node has may have to be written again; one worker does it for the node. */
  #beginIfDue(): void {
    const { self, epoch, view } = this.#ports;
    const { first, generation } = view();
    if (first === self && this.#wasUp === false) this.#rewrite();
    // Who was here before may have been about to, and its end was the end of that.
    const isSuccessor = epoch > 1 || (first === self && generation > 1);
    if (isSuccessor && !this.#hasSucceeded) {
      this.#hasSucceeded = true;
      this.#rewrite();
    }
  }

  #isPartlyUp(): boolean {
    const { members } = this.#ports;
    for (let partition = 0; partition < members.partitions; partition++) if (members.isUp(partition)) return true;
    return false;
  }

  #rewrite(): void {
    // What was marked before may be gone again: once round from here.
    this.#rewriteEnd = this.#rewriteAt ?? 0;
    this.#rewriteAt ??= 0;
  }

  /** One shard at a time: what it has is written before the next one is marked. */
  #markSome(): void {
    if (this.#rewriteAt === undefined || this.#taken > 0) return;
    try {
      const next = this.#ports.core.presenceRewrite(this.#rewriteAt);
      this.#rewriteAt = next === this.#rewriteEnd ? undefined : next;
    } catch {
      // The shard was busy: it is asked for again.
    }
  }

  #writeTopic(key: string, users: DirtyUser[]): void {
    const present = this.#writing.get(key);
    if (present !== undefined) {
      present.next.push(...users);
      return;
    }
    const writing: Writing = { next: [], done: Promise.resolve() };
    writing.done = this.#writeAll(key, users, writing);
    this.#writing.set(key, writing);
  }

  async #writeAll(key: string, first: DirtyUser[], writing: Writing): Promise<void> {
    for (let users = first; users.length > 0; ) {
      await this.#writeUsers(users);
      this.#taken -= users.length;
      users = writing.next;
      writing.next = [];
    }
    this.#writing.delete(key);
  }

  async #writeUsers(users: readonly DirtyUser[]): Promise<void> {
    const { members, core } = this.#ports;
    const { topic } = users[0] as DirtyUser;
    const partition = members.partitionOf(topic);
    this.#note([partition]);
    try {
      const hadLease = await members.write(topic, users, this.leaseMs);
      this.#leaseSeen(partition, hadLease);
    } catch {
      // The link counts it. The core gives them out again.
      return;
    }
    for (const { user, version } of users) core.presenceAcked(topic, user, version);
  }

  /** What the node had there may be gone when it has lost its lease. */
  #leaseSeen(partition: number, hadIt: boolean): void {
    if (!hadIt && this.#leased.has(partition)) this.#rewrite();
    this.#leased.add(partition);
  }

  // ---------------------------------------------------------------- leases

  /** Whoever holds the lease of a partition is to go on with it. */
  #note(partitions: Iterable<number>): void {
    const { self, clock, tell } = this.#ports;
    const now = clock.now();
    const { first, count } = this.#ports.view();
    const letters = new Map<number, number[]>();
    for (const partition of partitions) {
      if (now - (this.#toldAtMs.get(partition) ?? Number.NEGATIVE_INFINITY) < tellMs) continue;
      this.#toldAtMs.set(partition, now);
      const worker = first + (partition % count);
      const list = letters.get(worker);
      if (list === undefined) letters.set(worker, [partition]);
      else list.push(partition);
    }
    for (const [worker, list] of letters) {
      if (worker === self) this.told(list);
      else tell(worker, list);
    }
  }

  #tickLeases(): void {
    const { self, clock, members } = this.#ports;
    const now = clock.now();
    const { first, count } = this.#ports.view();
    this.#note(this.#observed.keys());
    for (const [partition, held] of this.#held) {
      // Another worker has it since a reload.
      if (first + (partition % count) !== self) this.#held.delete(partition);
      else if (held.renewAtMs <= now && !held.isRenewing && members.isUp(partition)) void this.#renew(partition, held);
      else if (held.keepAtMs <= now) {
        held.keepAtMs = now + keepMs;
        members.keep(partition).catch(() => {
          held.keepAtMs = clock.now() + renewMs;
        });
      }
    }
  }

  async #renew(partition: number, held: Held): Promise<void> {
    const { clock, members } = this.#ports;
    held.isRenewing = true;
    // From when it was asked: with a part of the others, so that not all are due at once.
    held.renewAtMs = clock.now() + this.#renewEveryMs;
    try {
      const lease = await members.renew(partition, this.leaseMs);
      // Whoever told of the partition has written there before, and so had a lease.
      if (!lease.hadIt) this.#rewrite();
      this.#leased.add(partition);
      for (const node of lease.gone) members.sweep(partition, node).catch(() => {});
      if (lease.held === 0 && clock.now() - held.toldAtMs > forgetMs) {
        this.#held.delete(partition);
        this.#leased.delete(partition);
      }
    } catch {
      // Counted by the link; soon again.
      held.renewAtMs = clock.now() + leaseTickMs;
    } finally {
      held.isRenewing = false;
    }
  }
}
