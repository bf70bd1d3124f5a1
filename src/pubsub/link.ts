/**
 * What joins nodes: a link carries messages from the node where they are published to all others that want them.
 *
 *   publish() → subscribers of this worker → other workers of the node → other nodes
 *               the core                     rings of the core           nodes/ and a link
 *
 * Role: the seam between nodes/, which knows workers and nothing of connections, and links, which know connections and nothing of workers. Redis is
 * one (redis/); a config may bring another (docs/nodes.md). Each worker has a link of its own, and tells it which topics it holds for its node.
 * Two suites hold for all links: tests/contract/link.test.ts asks the link, tests/contract/bus.test.ts what publish() promises.
 *
 * Guarantee, from publish() to a subscriber: at most once. A message reaches each subscriber once, or not at all; never twice, never in part, and its
 * publisher only when it is itself subscribed. It is not kept: who subscribes later does not get it.
 * Order: what one worker publishes to one topic arrives in that order. Between publishers, and between topics, there is none.
 * Lost are messages for a client past its backpressure limit; between workers, when the receiver dies or its ring and the outbox are full; between
 * nodes, what the link's bounded outbox could not hold while it was down, and what was published while a subscription was interrupted. Each loss is
 * counted.
 * Interest: a message goes only to workers, and to nodes, that have subscribers of its topic. A subscription counts on other nodes a round trip of the
 * link later, and stays there for a while after its last subscriber has left.
 */
import { commandFlag } from '../core/abi.ts';
import type { ConnectionName } from '../core/connection.ts';
import type { Appended, LogLimits, Position } from '../core/log-commands.ts';
import type { PublishResult } from '../core/node.ts';

/** 'up': what is published leaves, and every subscription that is wanted is in place. 'lost': others cannot be reached; this node goes on. */
export type LinkState = 'connecting' | 'up' | 'lost';

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
  /** RW_SEND_*, as they were published. What is marked as text must be UTF-8: clients close their connection for anything else. */
  readonly flags: number;
  /** Good until the handler returns. */
  readonly payload: Uint8Array;
}

/** What a link tells. */
export interface LinkEvents {
  onMessage(message: ArrivedMessage): void;
  /** The subscriptions of so many topics were interrupted and are in place again: messages may have been missed. Counted by who hears it. */
  onGap(topics: number): void;
  /** `state` has changed. */
  onState(state: LinkState): void;
  /** Of a link with `logs`: entries were appended, and come in the order of their offsets, each once or not at all. Good until the handler returns. */
  onEntries?(topic: Uint8Array, range: StoredRange): void;
  /** Of a link with `logs`: the subscription of a topic was interrupted and is in place again. Told for each, beside `onGap`. */
  onRestored?(topic: Uint8Array): void;
}

/** What an entry of a presence log is: above the flags of messages. */
export const entryFlag = { join: commandFlag.entryJoin, leave: commandFlag.entryLeave } as const;

/** An entry of a log that lies at the other side of a link. */
export interface StoredEntry {
  readonly offset: number;
  /** When it was appended, in milliseconds since 1970, by the other side's clock. */
  readonly timeMs: number;
  readonly publisher: Publisher;
  /** Of the publisher: the connection that does not get it. */
  readonly except: ConnectionName | undefined;
  /** RW_SEND_*, and what it is in a presence log. */
  readonly flags: number;
  readonly payload: Uint8Array;
}

/** Entries of one epoch, by offset. Where one is missing in between, it is not to be had: it was not signed, or makes no sense. */
export interface StoredRange {
  readonly epoch: string;
  readonly entries: readonly StoredEntry[];
}

/** What a log is asked. */
export interface StoredQuery {
  /** 'after', 'before': an offset, by `from`. 'last': the newest. Else than 'after' the newest come first. */
  readonly mode: 'after' | 'before' | 'last';
  readonly from: number;
  /** Entries, and bytes of them with what they cost beside their payload; one is read in any case. */
  readonly limit: number;
  readonly bytes: number;
  /** An entry that this side has seen. When it is not there, or not the same, the log gets a new epoch. `timeMs` 0: its time does not matter. */
  readonly seen?: (Position & { readonly timeMs: number }) | undefined;
  /** A log that is not there is begun. */
  readonly begins?: boolean;
}

export interface StoredPage extends StoredRange {
  /** Of the last entry of the log, in `epoch`. Where there is no log: 0, and an epoch of zeros. */
  readonly offset: number;
}

export interface NewStoredEntry {
  readonly flags: number;
  /** Borrowed for the call. */
  readonly payload: Uint8Array;
  readonly except?: ConnectionName | undefined;
  /** What it is repeated by: within two minutes another one with this key adds nothing. At most 1024 bytes. */
  readonly key?: Uint8Array | undefined;
}

/** What is thrown by whatever must wait for the other side of a link, and what that says. */
export class LinkUnavailableError extends Error {
  /** `why`: a part of a sentence. */
  constructor(why: string) {
    super(why);
    this.name = 'LinkUnavailableError';
  }
}

/**
 * Logs that lie at the other side of a link, and are the same for all nodes. Everything rejects with LinkUnavailableError.
 *
 * Guarantee: what `append` has answered is in the log at that position, until its limits take it, or the epoch has changed. An append that rejects was not
 * stored, as far as can be known: its answer may have been lost. Asked again on the way, it is stored once.
 * Order: what one link appends to one topic is stored in that order.
 */
export interface LinkLogs {
  /** Waits for a bounded time while the other side is away, and within bounds of memory. */
  append(topic: Uint8Array, entry: NewStoredEntry, limits: LogLimits): Promise<Appended>;
  /** Whether an entry with so many bytes would be taken now. */
  hasRoom(bytes: number): boolean;
  read(topic: Uint8Array, query: StoredQuery, limits: LogLimits): Promise<StoredPage>;
}

export interface LinkHealth {
  /** That are subscribed to, or are to be. */
  readonly topics: number;
  /** Waiting and under way. */
  readonly outboxMessages: number;
  readonly outboxBytes: number;
  /** Latest time from asking the other side until it answered, in milliseconds. */
  readonly lagMs: number;
}

/** What has changed about a user of a topic on one node. */
export interface MemberChange {
  readonly user: string;
  /** JSON, or empty. */
  readonly info: Uint8Array;
  /** Connections there; 0: the user has gone from this node. */
  readonly count: number;
  /** Grows with every change of a node's. */
  readonly version: number;
}

export interface StoredMember {
  readonly user: string;
  readonly info: Uint8Array;
  readonly connections: number;
}

/** `held`: topics of this node in the partition. `gone`: nodes that have lost their lease, for this caller to sweep. */
export interface Lease {
  /** It had not ended since the last time. */
  readonly hadIt: boolean;
  readonly held: number;
  readonly gone: readonly string[];
}

/**
 * Members of topics that lie at the other side of a link: users by node, and a lease for each node in each partition of topics. Joins and leaves are decided
 * there, and are entries of the topics' presence logs. Everything rejects with LinkUnavailableError; everything may be asked again.
 */
export interface LinkMembers {
  readonly partitions: number;
  partitionOf(topic: Uint8Array): number;
  /** Whether it can be reached now. */
  isUp(partition: number): boolean;
  /** Of this node. It has a lease of `leaseMs` at least then. ret: whether it had one before */
  write(topic: Uint8Array, changes: readonly MemberChange[], leaseMs: number): Promise<boolean>;
  /** Nodes without a lease do not count. `position`: of the presence log, which begins if there is none. */
  list(topic: Uint8Array): Promise<{ readonly position: Position; readonly members: readonly StoredMember[] }>;
  count(topic: Uint8Array): Promise<{ readonly users: number; readonly connections: number }>;
  renew(partition: number, leaseMs: number): Promise<Lease>;
  /** A node without a lease leaves all its topics of the partition. */
  sweep(partition: number, node: string): Promise<void>;
  /** Keep what this node holds from expiring; within the hour. */
  keep(partition: number): Promise<void>;
}

/**
 * Carries messages of topics. It never throws and never rejects for what the network does: its state, its counters and the log tell.
 *
 * Guarantee: a message reaches every link that has a subscription of its topic in place, whole, once; or again with the sequence that it had, when its
 * link cannot know whether it has left: nodes/ throws repetitions away. It may come back to the link that published it. It is lost when the outbox is
 * full (counted in 'drops') or while a subscription is interrupted (`onGap`).
 * Order: the messages of one link to one topic arrive in the order of `publish`, through every reconnect. Between links, and between topics, there is none.
 */
export interface NodeLink {
  readonly state: LinkState;
  /** Where logs of topics lie, which Redis alone can keep: without, a config has no topics with history where nodes are joined by this link. */
  readonly logs?: LinkLogs;
  /** And members of topics; with `logs`. */
  readonly members?: LinkMembers;
  /** Connect, and stay connected until `close`. Called once, before all else. */
  start(events: LinkEvents): void;
  /**
   * Queue a message, and return at once. Copies what it needs. `topic`: 1 to 1024 bytes, any. `flags`: RW_SEND_*.
   * ret: 'accepted': it is up; 'queued': it goes out when it is up again, unless more comes than the outbox holds; 'dropped': it never will
   */
  publish(topic: Uint8Array, flags: number, payload: Uint8Array): PublishResult;
  /**
   * Keep a subscription of `topic` from now on, through every reconnect. Resolves when it is in place (at once when it is), so that what is
   * published afterwards, on any node, comes; or when it is not wanted any more.
   */
  subscribe(topic: Uint8Array): Promise<void>;
  /**
   * End it. Messages go on coming until it resolves: when the other side has confirmed, so that all that was published before has come, or soon
   * when it cannot be reached. Another `subscribe` meanwhile wins.
   */
  unsubscribe(topic: Uint8Array): Promise<void>;
  /** As it is now; asked several times a second. */
  health(): LinkHealth;
  /** Publish what waits, for `deadlineMs` at most, then disconnect. Afterwards nothing is told, and what is published is dropped uncounted. */
  close(deadlineMs: number): Promise<void>;
}

/**
 * What a link counts by itself; the metrics `ringway_redis_*` show it. 'publishes': envelopes that have gone out, with so many messages and bytes. 'malformed',
 * 'unsigned': came, and are no envelopes of ours, or have not the signature that is asked for. 'drops': messages that were to go out and never
 * will. 'errors': refusals of the other side. 'log_appends', 'log_reads': steps of logs that the other side has answered. 'log_failures': that were given up;
 * 'log_damaged': of those, for what lay in the other side's keys. 'member_steps', 'member_failures': the same of members.
 */
export type LinkCounter =
  | ('publishes' | 'messages_out' | 'bytes_out' | 'bytes_in')
  | ('malformed' | 'unsigned' | 'drops' | 'reconnects' | 'errors')
  | ('log_appends' | 'log_reads' | 'log_failures' | 'log_damaged')
  | ('member_steps' | 'member_failures');

/** Lines for the worker's log; writing one never throws and never waits. */
export type LinkLogger = Readonly<Record<'info' | 'warn' | 'error', (fields: object, text: string) => void>>;

/** What a link is made with. */
export interface LinkContext {
  /** Stands in what this link publishes. */
  readonly publisher: Publisher;
  readonly log: LinkLogger;
  readonly count: (counter: LinkCounter, by: number) => void;
}
