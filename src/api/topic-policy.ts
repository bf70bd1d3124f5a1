/**
 * What the config says of topics: which of them remember, who may use them, who is told of whom, and which paths stream them.
 * Role: the types that people write against. Down: config/topics.ts checks values and fills in defaults, src/topics/ acts on them.
 */
import type { TopicAction } from './topics.ts';
import type { User } from './user.ts';
import type { RouteParams } from './websocket.ts';

/** Who asks something of a topic. */
export interface TopicClient<Params = RouteParams> {
  /** As `socket.id`. */
  readonly id: string;
  /** As `socket.user`. */
  readonly user: User | undefined;
  /** As `socket.data`; of a stream of events what its route gives it. */
  readonly data: unknown;
  /** What the `:name` segments of the pattern matched in the topic. */
  readonly params: Params;
  /** As `socket.remoteAddress`. */
  readonly remoteAddress: string;
  readonly kind: 'websocket' | 'sse';
}

/** What a topic remembers: the last messages, so many and so long. */
export interface TopicHistoryOptions {
  /** Messages that are kept of each topic, 1 to 100000. */
  size: number;
  /** Seconds that a message is kept, 1 to 2592000. */
  seconds: number;
}

/** A member of a topic, as others see it. */
export interface TopicMember {
  /** Names the user: connections with the same one are one member. */
  readonly id: string;
  /** A value that JSON can say, for whoever asks who is there. */
  readonly info?: unknown;
}

/** Who is on a topic. */
export interface TopicPresenceOptions<Params = RouteParams> {
  /**
   * Who a client is on the topic: the id of its user, or that with `info`; undefined: it is not shown, as one who only looks on. Called once it may
   * subscribe, and not awaited. One that throws keeps the client from being a member.
   * @default the id of `client.user`, else `client.id`
   */
  member?(client: TopicClient<Params>): string | TopicMember | undefined;
  /** Seconds after the end of a connection before its user has left; who is back by then has never been away. @default 3 */
  grace?: number | undefined;
  /** Longest `info` as JSON, in bytes; who has more is no member. @default 1024 */
  maxInfoBytes?: number | undefined;
  /** Connections of one topic that are members; further ones are subscribed, but not shown. @default 10000 */
  maxMembers?: number | undefined;
}

/** What topics of a pattern are to do. Topics without a policy keep nothing, and cost nothing but the message. */
export interface TopicPolicy<Params = RouteParams> {
  /** Keep messages; each has a position then, by which subscribers go on where they were. @default false */
  history?: false | TopicHistoryOptions | undefined;
  /** Give subscribers that say where they were what they have missed. @default true with `history`, else false */
  recover?: boolean | undefined;
  /** Tell who is there. @default false */
  presence?: boolean | TopicPresenceOptions<Params> | undefined;
  /**
   * Decide what a client may do: 'subscribe', 'publish', 'history' or 'presence' (to read them, or to be told of joins and leaves). Asked before each of its subscriptions and before what it reads or publishes by a protocol of its own. Code of the
   * server is not asked. One that throws, or returns a promise that rejects, says no. @default all is allowed
   */
  authorize?(client: TopicClient<Params>, topic: string, action: TopicAction): boolean | Promise<boolean>;
  /** Clients need a token for the topic, to subscribe. @default false */
  token?: boolean | undefined;
}

/** Policies by pattern: 'chat/:room', 'news/*', '*'; the most specific one wins. `Patterns`: what they are written as. */
export type TopicPolicies<Patterns extends string = string> = { readonly [Pattern in Patterns]: TopicPolicy<RouteParams<Pattern>> };

/** A path at which topics are streamed as server-sent events. */
export interface SseOptions {
  /** Patterns of the topics that a client may ask for with `?topic=`; their policies decide as for WebSockets. */
  topics: readonly string[];
  /** Seconds without an event after which a comment is sent, so that proxies keep the stream open; 0: never. @default 15 */
  heartbeat?: number | undefined;
  /**
   * Pages that browsers may read the stream from: 'same-host' (those of the gateway itself), 'any', or a list of exact origins. Requests without
   * Origin are not from browsers, or from a page of the same host, and pass. @default 'same-host'
   */
  origins?: 'any' | 'same-host' | readonly string[] | undefined;
  /** Topics of one stream, 1 to 1000. @default 32 */
  maxTopics?: number | undefined;
  /**
   * Whether clients need a token, where the config has `auth`: 'required'; 'optional': who has none comes without a user, and a bad one is refused; false:
   * nobody is asked. A stream ends with its token, and its client comes back with a newer one. @default 'required'
   */
  auth?: 'required' | 'optional' | false | undefined;
}
