/**
 * What sockets, and the functions of the package, ask of topics.
 * Role: the door to src/topics/, which implements it; handed over by whoever puts a worker together. Types that handlers see are here too.
 */
import type { ConnectionName } from '../core/connection.ts';
import type { PublishResult } from '../core/node.ts';
import type { Position } from '../core/position.ts';
import type { Sendable } from './message.ts';
import type { User } from './user.ts';

export type { Position } from '../core/position.ts';

/** What `authorize` of a policy is asked about. */
export type TopicAction = 'subscribe' | 'publish' | 'history' | 'presence';

/** A connection that asks for topics: a WebSocket, or a stream of server-sent events. What `authorize` and `member` may look at. */
export interface TopicConnection extends ConnectionName {
  readonly id: string;
  readonly user: User | undefined;
  readonly data: unknown;
  readonly remoteAddress: string;
  readonly kind: 'websocket' | 'sse';
  /**
   * What comes from this client waits until then, as it does for a handler that has not settled: it is being subscribed, and is to hear what it says
   * itself. Absent: it says nothing.
   */
  holdUntil?(subscribed: Promise<unknown>): void;
}

/** How to subscribe. */
export interface SubscribeOptions {
  /**
   * The last position that the client has, as text or as it was given: what came after it is sent first. Text that is no position is one that is not
   * known: the answer says `recovered: false`.
   */
  readonly since?: Position | string | undefined;
  /** Where the policy asks for one: the token for this topic. */
  readonly token?: string | undefined;
  /**
   * Tell this client of joins and leaves too, and say in the answer who is there now; for topics with presence, and routes with `positions`. @default false
   */
  readonly presence?: boolean | undefined;
}

/** Given by `Topics.admit`, and taken by `subscribeWith`. */
export interface Admitted {
  /** Of the token for the topic, in milliseconds as of Date.now(); undefined: for good. */
  readonly expiresAt?: number | undefined;
}

/** What protocols may ask beside it. */
export interface ProtocolSubscribeOptions extends SubscribeOptions {
  /** Nobody is asked again whether it may. */
  readonly admitted?: Admitted | undefined;
  /** Without `since`: so many of the last messages first. @default 0 */
  readonly history?: number | undefined;
  /** With `presence`: told who is there, before the first join or leave is queued for the connection; again when all of it begins anew. */
  readonly onPresence?: ((presence: Presence) => void) | undefined;
}

/**
 * Why it is not subscribed. 'closed': the connection has ended. 'limit': it, or the worker, has as many topics as may be. 'forbidden': `authorize` said
 * no, or failed. 'token': the token is missing, wrong or over. 'full': of topics that remember: as 'limit', or the node's memory for them is used up.
 * 'unavailable': the log cannot be reached now; try again. 'unsubscribed': `unsubscribe` was called meanwhile.
 */
export type SubscribeRefusal = 'closed' | 'limit' | 'forbidden' | 'token' | 'full' | 'unavailable' | 'unsubscribed';

export interface SubscribeResult {
  readonly subscribed: boolean;
  /** When it is not. */
  readonly reason?: SubscribeRefusal;
  /** All that was said since `since` has been sent, and the stream goes on behind it. Without `since`: false. */
  readonly recovered: boolean;
  /** Where the stream goes on, of topics with history: the next message has offset + 1. */
  readonly epoch?: string;
  readonly offset?: number;
  /** Of topics with presence: whether the connection is seen there. */
  readonly isMember?: boolean;
  /** Where `presence` asked for it: who is there. */
  readonly presence?: Presence;
}

export interface PublishOptions {
  /** A repeated publish with the same key within two minutes adds nothing and answers where the first one lies. 1 to 128 bytes of UTF-8. */
  readonly idempotencyKey?: string | undefined;
}

/** `epoch` and `offset`: of topics with history, where the message lies. */
export interface Published {
  readonly result: PublishResult;
  readonly epoch?: string;
  readonly offset?: number;
}

/** What comes with a message to `subscribe(topic, listener)`. */
export interface TopicMessageInfo {
  readonly topic: string;
  /** Of topics with history. */
  readonly epoch?: string;
  readonly offset?: number;
  /** Messages before this one were lost: the log did not have them any more. Of topics without history, they came faster than they were heard. */
  readonly lost?: true;
}

/** Text as a string, bytes as bytes that may be kept. */
export type TopicListener = (message: string | Uint8Array, info: TopicMessageInfo) => unknown;

/** How this worker itself subscribes. */
export interface TopicListenOptions {
  /** The last position that was heard: what came after it is heard first. */
  readonly since?: Position | string | undefined;
  /** Messages were lost: told at once, where `lost` of the next message may be a while off. */
  readonly onLost?: ((info: TopicMessageInfo) => unknown) | undefined;
}

/** That of this worker itself to a topic. */
export interface TopicSubscription {
  readonly recovered: boolean;
  /** Where the stream began, of topics with history. */
  readonly epoch?: string;
  readonly offset?: number;
  unsubscribe(): void;
}

export interface HistoryOptions {
  /** Only what came after this position; with `reverse`: only what came before it. */
  readonly since?: Position | string | undefined;
  /** Messages at most, 0 to 1000; 0 asks for the position alone. @default 100 */
  readonly limit?: number | undefined;
  /** The latest first. @default false */
  readonly reverse?: boolean | undefined;
}

export interface HistoryMessage {
  readonly offset: number;
  /** Text as a string. */
  readonly data: string | Uint8Array;
  /** When it was published, in milliseconds since 1970. */
  readonly time: number;
}

/** `epoch` and `offset`: of the latest message there is; an epoch of zeros, and 0, where nothing was said yet or all is long gone. */
export interface History {
  readonly epoch: string;
  readonly offset: number;
  /** Nothing is missing between `since` and the first of `messages`. True without `since`. */
  readonly recovered: boolean;
  readonly messages: HistoryMessage[];
}

export interface PresenceUser {
  readonly id: string;
  /** How many of their connections are there, over all nodes. */
  readonly connections: number;
  /** What the policy's `member` gave with it. */
  readonly info?: unknown;
}

/** `epoch` and `offset`: of the events of joins and leaves; those after it are not in here. */
export interface Presence {
  readonly epoch: string;
  readonly offset: number;
  /** Of users. */
  readonly count: number;
  readonly users: PresenceUser[];
}

export interface PresenceCount {
  readonly users: number;
  readonly connections: number;
}

/** 'lost': events were missed; ask `presence(topic)` who is there. */
export type PresenceEvent =
  | { readonly event: 'join' | 'leave'; readonly topic: string; readonly user: string; readonly info?: unknown }
  | { readonly event: 'lost'; readonly topic: string };

/** Whom to disconnect: one connection by its `socket.id`, all of a user, or all subscribers of a topic. */
export type DisconnectTarget = { readonly socket: string } | { readonly user: string } | { readonly topic: string };

export interface TopicsOptions {
  /** At most so many names, 1 to 10000; which ones, where there are more, is not said. @default 1000 */
  readonly limit?: number | undefined;
}

/** Each throws SocketArgumentError for what is no name of a topic: a string of 1 to `topicBytesMax` bytes that does not begin with NUL. */
export interface Topics {
  /**
   * ret: whether the socket is subscribed; false: it is closing, or it or the worker has as many topics as may be, or the policy says no. Where that has to
   * be waited for: true; the socket is subscribed when it has said yes.
   */
  subscribe(socket: TopicConnection, topic: string): boolean;
  /** As `subscribe`, waits for what must be waited for, and goes on from a position. */
  subscribeWith(socket: TopicConnection, topic: string, options: ProtocolSubscribeOptions): Promise<SubscribeResult>;
  /** Whether it may subscribe, asked by a protocol that must know before it can. Never rejects. */
  admit(socket: TopicConnection, topic: string, token: string | undefined): Promise<Admitted | 'forbidden' | 'token'>;
  /** Whether it is kept who is on the topic. */
  hasPresence(topic: string): boolean;
  unsubscribe(socket: ConnectionName, topic: string): void;
  /** The connection, which was just accepted, is this user's: `sendToUser` and `disconnect({ user })` find it. */
  bindUser(socket: ConnectionName, user: string): void;
  isSubscribed(socket: ConnectionName, topic: string): boolean;
  /** To every subscriber on every worker and node, but for the socket that is `except`. The message is borrowed for the call. ret: as `publish` */
  publish(topic: string, message: Sendable, except?: ConnectionName): PublishResult;
  /** As `publish`, and says where the message lies. Rejects with StoreUnavailableError when it was not stored, and then nobody gets it. */
  publishWith(topic: string, message: Sendable, options: PublishOptions, except?: ConnectionName): Promise<Published>;
  /** What the policy of the topic says of what a client asks by a protocol of its own; true for topics without one. Never rejects. */
  authorize(socket: TopicConnection, topic: string, action: TopicAction): boolean | Promise<boolean>;
}

/** What the functions of the package ask, from any handler of a worker. */
export interface ServerTopics extends Pick<Topics, 'publish' | 'publishWith'> {
  listen(topic: string, listener: TopicListener, options: TopicListenOptions): Promise<TopicSubscription>;
  history(topic: string, options: HistoryOptions): Promise<History>;
  presence(topic: string): Promise<Presence>;
  presenceCount(topic: string): Promise<PresenceCount>;
  onPresence(topic: string, listener: (event: PresenceEvent) => unknown): Promise<TopicSubscription>;
  subscribers(topic: string): Promise<number>;
  topics(prefix: string, options: TopicsOptions): Promise<string[]>;
  disconnect(target: DisconnectTarget, code: number, reason: string): Promise<number>;
  sendToUser(user: string, message: Sendable): PublishResult;
}
