/**
 * What the Redis bus needs of Redis: channels that carry messages of other nodes, whatever happens to the connections.
 *
 * Role: the interface between subscriptions (interest, owners: redis/bus side) and connections (standalone, Sentinel, Cluster).
 * A link never throws and never rejects for what Redis does: its state, its counters and the log tell.
 */
import type { BusState } from '../bus.ts';

/** Who published: unique for each process of each node; lets a receiver drop what it has had already. */
export interface Publisher {
  /** 16 hexadecimal digits. */
  readonly node: string;
  /** Counts the worker processes of that node. */
  readonly worker: number;
}

export interface ArrivedMessage {
  readonly topic: Uint8Array;
  readonly publisher: Publisher;
  /** Grows from message to message of one publisher; not by one within a topic. */
  readonly sequence: number;
  /** RW_SEND_*. */
  readonly flags: number;
  /** Good until the handler returns. */
  readonly payload: Uint8Array;
}

export interface RedisLinkEvents {
  onMessage(message: ArrivedMessage): void;
  /** The subscription of these topics was interrupted and is in place again: messages may have been missed. */
  onGap(topics: number): void;
  onState(state: BusState): void;
}

export interface RedisLink {
  readonly state: BusState;
  /** Connect, and stay connected until `stop`. */
  start(events: RedisLinkEvents): void;
  /** Queue a message. Past the bounds of the outbox the oldest, or this one, is dropped and counted. Copies what it needs. */
  publish(topic: Uint8Array, flags: number, payload: Uint8Array): void;
  /**
   * Keep a subscription of `topic` from now on, through every reconnect. Resolves when Redis has confirmed it (at once when it stands), or
   * when it is not wanted any more.
   */
  subscribe(topic: Uint8Array): Promise<void>;
  /**
   * End it. Messages go on coming until it resolves: when Redis has confirmed, so that all that was published before has come, or at once when it
   * cannot be reached. Another `subscribe` meanwhile wins.
   */
  unsubscribe(topic: Uint8Array): Promise<void>;
  /** Publish what waits, for `deadlineMs` at most, then disconnect. */
  stop(deadlineMs: number): Promise<void>;
}
