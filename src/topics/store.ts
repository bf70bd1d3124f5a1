/**
 * Where the logs and members of topics lie: the memory of this node, or Redis, which all nodes share.
 *
 * Role: the seam between src/topics/ and stores. Whatever the store, this node's core has the log of a topic that somebody here follows, and sends
 * from that; so a store says where messages lie, and the core who gets them.
 *
 * Guarantee: what `append` has answered is in the log at that position, on every node the same, until size or time takes it, or the epoch has changed.
 */
import type { ConnectionName } from '../core/connection.ts';
import type { Appended, LogEntry, LogLimits, Position } from '../core/log-commands.ts';
import type { PublishResult } from '../core/node.ts';

export interface NewMessage {
  /** RW_SEND_*. */
  readonly flags: number;
  /** Borrowed for the call. */
  readonly payload: Uint8Array | string;
  /** The connection that is left out, of this worker. */
  readonly except?: ConnectionName | undefined;
  /** 1 to 128 bytes of UTF-8. */
  readonly idempotencyKey?: string | undefined;
}

export interface LogQuery {
  /** After it; with `reverse`: before it. Without: from the first that is kept; with `reverse`: from the last. */
  readonly since?: Position | undefined;
  readonly limit: number;
  readonly reverse?: boolean | undefined;
}

export interface LogPage {
  /** The last of the log. Where there is none: offset 0 of an epoch of zeros. */
  readonly position: Position;
  /** Nothing is missing between `since` and the first message. True without `since`. */
  readonly recovered: boolean;
  readonly messages: readonly LogEntry[];
}

export interface PresentMember {
  readonly user: string;
  /** JSON, or nothing. */
  readonly info: Uint8Array;
  readonly connections: number;
}

/** `position`: of the presence log, of which this is the sum. */
export interface PresencePage {
  readonly position: Position;
  readonly members: readonly PresentMember[];
}

export class StoreUnavailableError extends Error {
  readonly code = 'RW_TOPIC_STORE_UNAVAILABLE';
  constructor(why: string, options?: ErrorOptions) {
    super(`the log of the topic cannot be reached (${why}): nothing was stored, and nobody has got the message; try again`, options);
  }
}

export interface TopicStore {
  /** Store a message, and have it delivered on every node. Rejects with StoreUnavailableError: it was not stored, as far as can be known. */
  append(topic: string, message: NewMessage, limits: LogLimits): Promise<Appended>;
  /**
   * The same for who does not wait: 'accepted': it lies in the log, or is on the way there; 'queued': it waits until the store can be reached; 'dropped':
   * it was not taken. What is not stored after all is counted. Messages of one worker to one topic are stored in the order of the calls.
   */
  submit(topic: string, message: NewMessage, limits: LogLimits): PublishResult;
  /** Rejects with StoreUnavailableError. */
  read(topic: string, query: LogQuery, limits: LogLimits): Promise<LogPage>;
  /**
   * Resolves when this node's core has the end of the topic's log and whatever is appended from now on comes to it. Asked again whenever the core says
   * that it does not follow. Rejects with StoreUnavailableError.
   */
  follow(topic: string, limits: LogLimits): Promise<void>;
  /**
   * Whether what the core says of following the topic's log can be believed at once: some worker that died may have followed it, for nobody else. Else
   * `follow` finds out.
   */
  isAtHand(topic: string): boolean;
  /**
   * Resolves when this node's core has the log up to a position that somebody has had of another node; at once when it has, or when the store itself does
   * not know the position. Rejects with StoreUnavailableError.
   */
  reach(topic: string, position: Position, limits: LogLimits): Promise<void>;
  /** Who is there, over all nodes. */
  presence(topic: string): Promise<PresencePage>;
  presenceCount(topic: string): Promise<{ readonly users: number; readonly connections: number }>;
  close(): Promise<void>;
}
