/**
 * Who is on a topic, over all workers of the node: members in its shared memory, by user, each bound to a subscription of a connection.
 * Role: what a core may be asked about members; all of it is done before the call returns. Up: src/topics/, src/pubsub/redis/. Down: ffi/bindings.ts.
 *
 * A *user* is there from the first of its connections to the last one, and its grace beyond. That the one comes and the other goes is an entry of the
 * topic's presence log (`presenceTopic`), appended in the step that changes the members; who follows that log from the position of a list knows
 * exactly who is there. When a connection ends the core itself says so, and nothing here is called.
 */
import { coreCalls, SystemError } from '../../ffi/bindings.ts';
import { result } from '../../ffi/layout.ts';
import { bytesOf, type Topic } from './command-batch.ts';
import { LogCommandQueue } from './log-commands.ts';
import type { Position } from './position.ts';

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
  readonly position: Position;
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
  /**
   * Once a second, by every worker, and when one has gone: users whose grace is over leave, and those of workers that are gone begin theirs.
   * ret: there is more to do now, since a call does about a millisecond of it
   */
  presenceTick(): boolean;

  /**
   * Of a node whose logs another store has (`followsLogs`): users that have changed and were not taken since, at most `max`. Whoever takes them writes
   * them and acknowledges; what is not acknowledged within 10 s is given out again. Looks where this worker has changed something, and everywhere
   * after a tick.
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

/** Room for what is taken at a time. */
const takenBytes = 1 << 18;

export abstract class PresenceCommandQueue extends LogCommandQueue implements PresenceCommands {
  #taken: Uint8Array | undefined;

  /** Observers may have been sent something: a loop that sleeps has a turn. */
  #queued(): void {
    if (!this.commands.inTurn) this.commands.onQueued?.();
  }

  presenceJoin(
    slot: number,
    generation: number,
    topic: Topic,
    user: string,
    info: Uint8Array,
    graceMs: number,
    maxMembers = 10_000,
  ): JoinOutcome {
    if (!this.isLive(slot, generation)) return 'closed';
    const [name, id] = [bytesOf(topic), bytesOf(user)];
    this.flush();
    this.#queued();
    const data = Buffer.concat([name, id, info]);
    const code = coreCalls.presenceJoin(this.pointer, slot, generation, data, name.length, id.length, info.length, graceMs, maxMembers);
    if (code >= 0) return code === 1 ? 'joined' : 'again';
    if (code === result.stale) return 'closed';
    if (code === result.invalid || code === result.unsupported) throw new SystemError('a connection cannot be a member of a topic', code);
    return 'full';
  }

  presenceLeave(slot: number, generation: number, topic: Topic): void {
    if (topic.length === 0) return;
    this.flush();
    this.#queued();
    coreCalls.presenceLeave(this.pointer, slot, generation, bytesOf(topic));
  }

  presenceList(topic: Topic): PresenceList {
    this.flush();
    const { records, epoch, offset } = coreCalls.presenceList(this.pointer, nameOf(topic));
    const members: PresentUser[] = [];
    // Text by Buffer, which leaves a byte order mark as it is.
    const bytes = Buffer.from(records.buffer, records.byteOffset, records.byteLength);
    for (let at = 0; at < bytes.length; ) {
      const id = at + 8;
      const info = id + bytes.readUInt16LE(at + 4);
      const end = info + bytes.readUInt16LE(at + 6);
      members.push({ user: bytes.toString('utf8', id, info), info: records.slice(info, end), connections: bytes.readUInt32LE(at) });
      at = end;
    }
    return { position: { epoch: epoch.toString(16).padStart(16, '0'), offset: Number(offset) }, members };
  }

  presenceCount(topic: Topic): PresenceCount {
    this.flush();
    return coreCalls.presenceCount(this.pointer, nameOf(topic));
  }

  presenceTick(): boolean {
    this.flush();
    const hasMore = coreCalls.presenceTick(this.pointer);
    this.#queued();
    return hasMore;
  }

  presenceTakeDirty(max: number): DirtyUser[] {
    this.flush();
    this.#taken ??= new Uint8Array(takenBytes);
    const { bytes: used } = coreCalls.presenceTake(this.pointer, max, this.#taken);
    const bytes = Buffer.from(this.#taken.buffer, 0, used);
    const users: DirtyUser[] = [];
    for (let at = 0; at < used; ) {
      const topic = at + 18;
      const user = topic + bytes.readUInt16LE(at + 12);
      const info = user + bytes.readUInt16LE(at + 14);
      const end = info + bytes.readUInt16LE(at + 16);
      users.push({
        topic: this.#taken.slice(topic, user),
        user: bytes.toString('utf8', user, info),
        info: this.#taken.slice(info, end),
        count: bytes.readUInt32LE(at),
        version: Number(bytes.readBigUInt64LE(at + 4)),
      });
      at = end;
    }
    return users;
  }

  presenceAcked(topic: Topic, user: string, version: number): void {
    const [name, id] = [nameOf(topic), bytesOf(user)];
    const code = coreCalls.presenceAcknowledge(this.pointer, Buffer.concat([name, id]), name.length, id.length, version);
    // Else it is given out again in its time.
    if (code === result.invalid) throw new SystemError('no such member', code);
  }

  presenceRewrite(cursor: number): number {
    const next = coreCalls.presenceRewrite(this.pointer, cursor);
    if (next < 0) throw new SystemError('members cannot be marked', next);
    return next;
  }
}

/** The C side reads no empty array. */
function nameOf(topic: Topic): Uint8Array {
  if (topic.length === 0) throw new RangeError('a topic has at least one byte');
  return bytesOf(topic);
}

/** The name of the log that has joins and leaves of a topic. */
export function presenceTopic(topic: string): string {
  return `\0p${topic}`;
}

/** ret: the topic whose presence log has this name; undefined: it is no such name */
export function topicOfPresence(name: Uint8Array): Uint8Array | undefined {
  return name.length > 2 && name[0] === 0 && name[1] === 0x70 ? name.subarray(2) : undefined;
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
