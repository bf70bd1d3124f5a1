/**
 * Logged topics: their logs in the shared memory of the node, and subscribers that hear them by position.
 * Role: what a core may be asked about logs; all of it is done before the call returns. Up: src/topics/. Down: ffi/bindings.ts.
 *
 * A topic is *direct* until something is appended to its log or somebody is attached to it. Every worker delivers a logged topic from its log, in
 * the order of its offsets, whoever has appended.
 */
import type { Payload, Topic } from './command-batch.ts';
import type { Position } from './position.ts';
import type { Outcome } from './socket-commands.ts';

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

  /** Forget what the log has: the next entry comes after `position`. Subscribers are told what they cannot get any more. */
  logReset(topic: Topic, position: Position, isFollowed: boolean): void;

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
   * queue takes, the rest is counted. ret: false: the worker has all the topics that it may have, or memory is short
   */
  hold(topic: Topic, since?: Position): boolean;
  release(topic: Topic): void;
  onTopicMessage: TopicListener | undefined;

  /** A connection that cannot be told in its dialect has missed messages of a logged topic: `position` is the last one that is missing. */
  onLost: ((slot: number, generation: number, topic: Uint8Array, position: Position) => void) | undefined;

  /** Connections of this worker that are subscribed to a topic. */
  membersOf(topic: Topic): { readonly slot: number; readonly generation: number }[];
  /** Topics that begin with `prefix` and have subscribers on this worker (connections, not the host), in no order; at most `limit`. */
  topicNames(prefix: Topic, limit?: number): Uint8Array[];
}
