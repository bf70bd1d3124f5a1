/**
 * Who is on a topic, over all workers of the node: members in its shared memory, by user, each bound to a subscription of a connection.
 * Role: what a core may be asked about members; all of it is done before the call returns. Up: src/topics/, src/pubsub/redis/. Down: ffi/bindings.ts.
 *
 * A *user* is there from the first of its connections to the last one, and its grace beyond. That the one comes and the other goes is an entry of the
 * topic's presence log (`presenceTopic`), appended in the step that changes the members; who follows that log from the position of a list knows
 * exactly who is there. When a connection ends the core itself says so, and nothing here is called.
 */
import type { Topic } from './command-batch.ts';

/**
 * 'joined': the user has come with this connection. 'again': the user was there already, or was away for less than its grace; what is known as
 * its info stays what it came with. 'full': the topic has all the members that it may have, or the node's memory for them is used up; nothing
 * changed. 'closed': the connection is not subscribed to the topic, or is gone.
 */
export type JoinOutcome = 'joined' | 'again' | 'full' | 'closed';

export interface PresentUser {
  readonly user: string;
  /** JSON, or empty. A copy. */
  readonly info: Uint8Array;
  /** Connections of this node; 1 for a user in its grace. */
  readonly connections: number;
}

export interface PresenceList {
  /** Of the presence log: what comes after it are the changes to `members`. */
  readonly position: { readonly epoch: string; readonly offset: number };
  readonly members: readonly PresentUser[];
}

export interface PresenceCount {
  readonly users: number;
  readonly connections: number;
}

/** A user of this node as another store is to have it. */
export interface DirtyUser {
  readonly topic: Uint8Array;
  readonly user: string;
  readonly info: Uint8Array;
  /** Connections on this node; 0: the user has gone from it. */
  readonly count: number;
  /** Grows with every change of `count`, and over all lives of the user on this node. */
  readonly version: number;
}

export interface PresenceCommands {
  /**
   * From now on this connection, which is subscribed to the topic, is there as `user` (1 to 1024 bytes of UTF-8) until its subscription ends. With another
   * user than before, the one before has left. `info`: JSON, at most 16 KiB; it is not looked at. `graceMs`: how long a user stays whose last connection has
   * ended; the latest join says it for the whole topic. `maxMembers`: connections that the topic may have as members, over all workers (10,000).
   */
  presenceJoin(
    slot: number,
    generation: number,
    topic: Topic,
    user: string,
    info: Uint8Array,
    graceMs: number,
    maxMembers?: number,
  ): JoinOutcome;
  /** The connection is not there any more, at once and without grace, though it stays subscribed. */
  presenceLeave(slot: number, generation: number, topic: Topic): void;
  presenceList(topic: Topic): PresenceList;
  presenceCount(topic: Topic): PresenceCount;
  /** Once a second, by every worker: users whose grace is over leave, and those of workers that are gone begin theirs. Bounded; the rest is done the next time. */
  presenceTick(): void;
  /** The worker at place `index` has gone, `epoch` of it: its members begin their grace. What a tick would find by itself. */
  presenceWorkerGone(index: number, epoch: number): void;

  /**
   * Of a node whose members another store has too (`presenceIsShared`): users that have changed and were not taken since, at most `max`. Whoever takes them
   * writes them and acknowledges; what is not acknowledged within 10 s is given out again.
   */
  presenceTakeDirty(max: number): DirtyUser[];
  /** That version is written. A later one stays dirty. */
  presenceAcked(topic: Topic, user: string, version: number): void;
  /**
   * Every user is to be written again, since the store has lost what it had: a step marks some and answers where the next one begins.
   * Begins with 0; ret: 0: all are marked.
   */
  presenceRewrite(cursor: number): number;
}

/** The name of the log that has joins and leaves of a topic. */
export function presenceTopic(topic: string): string {
  return `\0p${topic}`;
}

/** What an entry of a presence log says, of the kind `entryJoin` or `entryLeave`. */
export interface PresenceEntry {
  readonly user: string;
  /** JSON, or empty. */
  readonly info: Uint8Array;
}

/** The payload of such an entry: a u16 (little-endian) with the bytes of the id, the id, the info. */
export function encodePresenceEntry({ user, info }: PresenceEntry): Uint8Array {
  const id = Buffer.from(user);
  const payload = Buffer.allocUnsafe(2 + id.byteLength + info.byteLength);
  payload.writeUInt16LE(id.byteLength, 0);
  payload.set(id, 2);
  payload.set(info, 2 + id.byteLength);
  return payload;
}

/** ret: undefined: it is none. `info` is borrowed from the payload */
export function decodePresenceEntry(payload: Uint8Array): PresenceEntry | undefined {
  const end = 2 + ((payload[0] ?? 0) | ((payload[1] ?? 0) << 8));
  if (end === 2 || end > payload.byteLength) return undefined;
  return { user: Buffer.from(payload.subarray(2, end)).toString(), info: payload.subarray(end) };
}
