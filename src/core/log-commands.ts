/**
 * Logged topics: their logs in the shared memory of the node, and subscribers that hear them by position.
 * Role: adds them to topic-commands.ts; all of it is done before the call returns. Up: presence-commands.ts, src/topics/. Down: log-call.ts.
 *
 * A topic is *direct* until something is appended to its log or somebody is attached to it. Every worker delivers a logged topic from its log, in
 * the order of its offsets, whoever has appended.
 */
import { coreCalls, SystemError } from '../../ffi/bindings.ts';
import { noSlot, result } from '../../ffi/layout.ts';
import { bytesOf, type Payload, type Topic } from './command-batch.ts';
import { LogCall, readLog } from './log-call.ts';
import type { Position } from './position.ts';
import type { Outcome } from './socket-commands.ts';
import { TopicCommandQueue } from './topic-commands.ts';

export type { Position } from './position.ts';

/** What a log keeps. */
export interface LogLimits {
  /** Entries. */
  readonly size: number;
  /** How old they may be. */
  readonly seconds: number;
}

/** A connection of this node: its worker's place and `epoch` (`core.epoch`), its slot and generation there. */
export interface Origin {
  readonly worker: number;
  readonly epoch: number;
  readonly slot: number;
  readonly generation: number;
}

export interface Appended extends Position {
  /** The idempotency key was there already: this is the position of the entry that it came with, and nothing was appended. */
  readonly isDuplicate: boolean;
}

export interface LogEntry {
  readonly offset: number;
  /** When it was appended, in milliseconds since 1970. */
  readonly timeMs: number;
  /** `commandFlag.sendText`: text; `sendCompress`; `entryJoin`, `entryLeave`: of a presence log. */
  readonly flags: number;
  /** A copy. */
  readonly payload: Uint8Array;
}

/** A log as it stands: the position of its last entry (offset 0: none yet). */
export interface LogEnd extends Position {
  /** Offset of the first entry that is kept; `offset + 1`: none is. */
  readonly first: number;
  /** The log is a copy of another store's, and whole and live: `logReset` has said so. */
  readonly isFollowed: boolean;
}

export interface LogQuery {
  /** Of entries after this position; without: whatever is kept. Another epoch than the log's: no entries. */
  readonly epoch?: string;
  /** Offset; entries before it with `reverse`. */
  readonly after?: number;
  /** Most entries. */
  readonly limit: number;
  /** The newest first. */
  readonly reverse?: boolean;
}

/** 'old': it was there. 'gap': entries before it are missing; nothing was stored. 'epoch': the log is in another epoch; nothing was stored. */
export type PutOutcome = 'taken' | 'old' | 'gap' | 'epoch';

export type AttachOutcome =
  | {
      readonly kind: 'attached';
      /** Everything after `since` is sent, or will be as the connection takes it; false without `since`, or when some of it is gone. */
      readonly recovered: boolean;
      /** Where the log stood: what is sent from now on comes after it, or, with `recovered`, between `since` and it too. */
      readonly epoch: string;
      readonly offset: number;
      /** Messages that were queued by this call. */
      readonly sent: number;
    }
  /**
   * 'behind': `since` lies before what this node has, and the store may have it. 'unfollowed': the log is a copy that is not live yet. 'full': the
   * connection or the worker has all the topics that it may have, or memory is short. 'closed': the connection is gone, or has begun to close.
   */
  | { readonly kind: 'behind' | 'unfollowed' | 'full' | 'closed' };

/** Called inside a turn. `topic` and `payload` are borrowed for the call. */
export type TopicListener = (
  topic: Uint8Array,
  flags: number,
  payload: Uint8Array,
  /** undefined: of a direct topic. */
  position: Position | undefined,
  /** Some messages before the one that comes next are gone; then `payload` is empty, and `position` (if any) the last one that is missing. */
  lost: boolean,
) => void;

/** As the core is told it. */
const endOfLog: Position = { epoch: '0'.repeat(16), offset: 0 };

export interface LogCommands {
  /**
   * Append to the log of a topic, which begins with it if there is none, and deliver. `flags`: as of `publish`. `origin`: whose connection does not
   * get it. 'full': no memory is left in the node's shared memory. Throws without shared memory for logs.
   */
  logAppend(
    topic: Topic,
    flags: number,
    payload: Payload,
    limits: LogLimits,
    options?: {
      readonly key?: string;
      readonly keySeconds?: number;
      readonly exceptSlot?: number;
      readonly exceptGeneration?: number;
      readonly origin?: Origin;
    },
  ): Appended | 'full';

  /** Store an entry of another store at its position, and deliver. */
  logPut(
    topic: Topic,
    position: Position,
    flags: number,
    payload: Payload,
    limits: LogLimits,
    options?: { readonly origin?: Origin | undefined; readonly timeMs?: number },
  ): PutOutcome | 'full';

  /**
   * Forget what the log has, unless it stands there: the next entry comes after `position`. Subscribers are told what they cannot get any more. Throws
   * when no memory is left.
   */
  logReset(topic: Topic, position: Position, isFollowed: boolean): void;

  /** Whether this node hears of everything that comes to the log, and nothing else. ret: false: there is no log */
  logFollow(topic: Topic, isFollowed: boolean): boolean;

  /** undefined: there is no log. */
  logEnd(topic: Topic): LogEnd | undefined;

  logRead(topic: Topic, query: LogQuery): { readonly end: LogEnd; readonly entries: LogEntry[] } | undefined;

  /**
   * Subscribe a connection to a logged topic: first what came after `since`, in the form of its dialect, then what comes, without a seam. One that is
   * subscribed already stays as it is, and gets nothing twice. `isPresence`: to the presence log of the topic.
   */
  attach(
    slot: number,
    generation: number,
    topic: Topic,
    options: { readonly since?: Position | undefined; readonly isPresence?: boolean },
  ): AttachOutcome;

  /**
   * Send one connection an entry in the form of its dialect; `position` undefined: as of a direct topic. 'dropped': it has no room for it now, and
   * nothing was sent; `onDrain` follows.
   */
  sendLogged(slot: number, generation: number, topic: Topic, position: Position | undefined, flags: number, payload: Payload): Outcome;

  /**
   * This process hears the topic: `onTopicMessage`. A logged one without loss, from the present end on, or after `since`; of a direct one so much as its bounded
   * queue takes, the rest is counted. 'end': it is a logged one, whose log begins if there is none: nothing is missed of what is said first.
   * ret: false: the worker has all the topics that it may have, or memory is short
   */
  hold(topic: Topic, since?: Position | 'end'): boolean;
  release(topic: Topic): void;
  onTopicMessage: TopicListener | undefined;

  /** Connections of this worker that are subscribed to a topic. */
  membersOf(topic: Topic): { readonly slot: number; readonly generation: number }[];
  /** Topics that begin with `prefix` and have subscribers on this worker (connections, not the host), in no order; at most `limit`. */
  topicNames(prefix: Topic, limit?: number): Uint8Array[];
}

/** By what rw_core_log_put() answers. */
const putOutcomes: readonly PutOutcome[] = ['taken', 'old', 'gap', 'epoch'];
const outOfMemory = -12; // ENOMEM
const empty = new Uint8Array(0);

function check(what: string, code: number): void {
  if (code < 0) throw new SystemError(what, code);
}

const name = (topic: Topic) => JSON.stringify(Buffer.from(bytesOf(topic)).toString());

/** Of the log that has joins and leaves of a topic, as presenceTopic() in presence-commands.ts. */
function presenceName(topic: Topic): Topic {
  return typeof topic === 'string' ? `\0p${topic}` : Buffer.concat([Buffer.from('\0p'), topic]);
}

export abstract class LogCommandQueue extends TopicCommandQueue implements LogCommands {
  readonly #call = new LogCall();

  logAppend(
    topic: Topic,
    flags: number,
    payload: Payload,
    limits: LogLimits,
    options: {
      readonly key?: string;
      readonly keySeconds?: number;
      readonly exceptSlot?: number;
      readonly exceptGeneration?: number;
      readonly origin?: Origin;
    } = {},
  ): Appended | 'full' {
    const call = this.#begin(topic, payload, options.key);
    call.entry(flags, limits, options.keySeconds ?? 0);
    if (options.origin !== undefined) call.origin(options.origin);
    else call.exceptOwn(options.exceptSlot ?? noSlot, options.exceptGeneration ?? 0);
    const code = coreCalls.logAppend(this.pointer, call.record, call.bytes);
    if (code === result.full) return 'full';
    check(`cannot append to the log of ${name(topic)}`, code);
    this.#woken();
    return { ...call.position, isDuplicate: code === 1 };
  }

  logPut(
    topic: Topic,
    position: Position,
    flags: number,
    payload: Payload,
    limits: LogLimits,
    options: { readonly origin?: Origin | undefined; readonly timeMs?: number } = {},
  ): PutOutcome | 'full' {
    const call = this.#begin(topic, payload);
    call.entry(flags, limits, 0);
    call.position = position;
    call.timeMs = options.timeMs ?? 0;
    if (options.origin !== undefined) call.origin(options.origin);
    const code = coreCalls.logPut(this.pointer, call.record, call.bytes);
    if (code === result.full) return 'full';
    check(`cannot put an entry into the log of ${name(topic)}`, code);
    this.#woken();
    return putOutcomes[code] as PutOutcome;
  }

  logReset(topic: Topic, position: Position, isFollowed: boolean): void {
    const call = this.#begin(topic, empty);
    call.position = position;
    call.hasPosition = isFollowed;
    check(`cannot begin the log of ${name(topic)} anew`, coreCalls.logReset(this.pointer, call.record, call.bytes));
    this.#woken();
  }

  logFollow(topic: Topic, isFollowed: boolean): boolean {
    const code = coreCalls.logFollow(this.pointer, bytesOf(topic), isFollowed);
    if (code === result.stale) return false;
    check(`cannot follow the log of ${name(topic)}`, code);
    return true;
  }

  logEnd(topic: Topic): LogEnd | undefined {
    return this.logRead(topic, { limit: 0 })?.end;
  }

  logRead(topic: Topic, query: LogQuery): { readonly end: LogEnd; readonly entries: LogEntry[] } | undefined {
    const read = readLog(this.pointer, bytesOf(topic), query);
    if (typeof read === 'number') {
      if (read === result.stale) return undefined;
      throw new SystemError(`cannot read the log of ${name(topic)}`, read);
    }
    return read;
  }

  attach(
    slot: number,
    generation: number,
    topic: Topic,
    options: { readonly since?: Position | undefined; readonly isPresence?: boolean },
  ): AttachOutcome {
    const call = this.#begin(options.isPresence === true ? presenceName(topic) : topic, empty);
    if (options.since !== undefined) {
      call.position = options.since;
      call.hasPosition = true;
    }
    const code = coreCalls.attach(this.pointer, slot, generation, call.record, call.bytes);
    this.#woken();
    switch (code) {
      case result.behind:
        return { kind: 'behind' };
      case result.unfollowed:
        return { kind: 'unfollowed' };
      case result.stale:
        return { kind: 'closed' };
      case result.full:
        this.tellTopicsFull(slot);
        return { kind: 'full' };
      default:
        if (code === outOfMemory) return { kind: 'full' };
        check(`cannot attach to the log of ${name(topic)}`, code);
        return { kind: 'attached', ...call.attached, ...call.position };
    }
  }

  sendLogged(slot: number, generation: number, topic: Topic, position: Position | undefined, flags: number, payload: Payload): Outcome {
    const call = this.#begin(topic, payload);
    call.entry(flags, undefined, 0);
    if (position !== undefined) call.position = position;
    const code = coreCalls.sendLogged(this.pointer, slot, generation, call.record, call.bytes);
    if (code === result.stale) return 'closed';
    if (code === result.full) return 'dropped';
    check(`cannot send a message of ${name(topic)}`, code);
    this.#woken();
    return this.heldBack(slot, generation) > 0 ? 'backpressure' : 'sent';
  }

  hold(topic: Topic, since?: Position | 'end'): boolean {
    const call = this.#begin(topic, empty);
    if (since !== undefined) {
      call.position = since === 'end' ? endOfLog : since;
      call.hasPosition = true;
    }
    const code = coreCalls.hold(this.pointer, call.record, call.bytes);
    if (code === result.full || code === outOfMemory) return false;
    check(`cannot hold ${name(topic)}`, code);
    this.#woken();
    return true;
  }

  release(topic: Topic): void {
    this.flush();
    if (topic.length > 0) coreCalls.release(this.pointer, bytesOf(topic));
  }

  get onTopicMessage(): TopicListener | undefined {
    return this.events.onTopicMessage;
  }

  set onTopicMessage(listener: TopicListener | undefined) {
    this.events.onTopicMessage = listener;
  }

  membersOf(topic: Topic): { readonly slot: number; readonly generation: number }[] {
    if (topic.length === 0) return [];
    this.flush();
    const bytes = bytesOf(topic);
    let pairs = new Uint32Array(64);
    let count = coreCalls.members(this.pointer, bytes, pairs);
    if (count * 2 > pairs.length) {
      pairs = new Uint32Array(count * 2);
      count = coreCalls.members(this.pointer, bytes, pairs);
    }
    return Array.from({ length: count }, (_, at) => ({ slot: pairs[at * 2] as number, generation: pairs[at * 2 + 1] as number }));
  }

  topicNames(prefix: Topic, limit = Number.POSITIVE_INFINITY): Uint8Array[] {
    this.flush();
    const names: Uint8Array[] = [];
    const cursor = new Uint32Array(1);
    const list = new Uint8Array(65536);
    do {
      const most = Math.min(limit - names.length, 0xffff_ffff);
      const bytes = coreCalls.topicNames(this.pointer, bytesOf(prefix), most, cursor, list);
      for (let at = 0; at < bytes; ) {
        const length = (list[at] as number) | ((list[at + 1] as number) << 8);
        names.push(list.slice(at + 2, at + 2 + length));
        at += 2 + length;
      }
    } while (cursor[0] !== 0 && names.length < limit);
    return names;
  }

  /** What is queued is applied before. */
  #begin(topic: Topic, payload: Payload, key?: string): LogCall {
    this.flush();
    this.#call.begin(topic, payload, key);
    return this.#call;
  }

  /** Messages may have been queued outside a turn: someone must run the next one. */
  #woken(): void {
    if (!this.commands.inTurn) this.commands.onQueued?.();
  }
}
