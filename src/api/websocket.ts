/**
 * WebSockets between the core and whoever handles them.
 * Role: the types that handlers see. Implemented by src/api/socket.ts.
 */
import type { PublishResult } from '../core/node.ts';
import type { Position } from '../core/position.ts';
import type { TlsInfo } from '../core/tls-info.ts';
import type { SubscribeOptions, SubscribeResult } from './topics.ts';
import type { Renewal, TokenSource, User } from './user.ts';

/**
 * A received message. Nothing is decoded until it is asked for, and `socket.send(message)` forwards it without touching it.
 * Valid until the handler returns, or until its promise settles; later calls throw RW_MESSAGE_EXPIRED.
 */
export interface Message {
  readonly isBinary: boolean;
  /** Payload bytes. */
  readonly byteLength: number;
  text(): string;
  /** A copy that may be kept. */
  bytes(): Uint8Array;
  json<T = unknown>(): T;
}

/**
 * What became of a message: 'sent' to the kernel or on the way there; 'backpressure': it waits, since the client takes less than it is sent;
 * 'dropped': too much waited already; 'closed': the connection has ended.
 */
export type SendResult = 'sent' | 'backpressure' | 'dropped' | 'closed';

/** Names of the `:name` segments of a path. */
type ParameterNames<Path extends string> = Path extends `${infer First}/${infer Rest}`
  ? ParameterNames<First> | ParameterNames<Rest>
  : Path extends `:${infer Name}`
    ? Name
    : never;

/** What the `:name` segments of a path matched, by name; where the path is not known to the compiler, of any name. */
export type RouteParams<Path = string> = Path extends string
  ? string extends Path
    ? Readonly<Record<string, string>>
    : Readonly<Record<ParameterNames<Path>, string>>
  : never;

/** One WebSocket connection. The same object for all its events; may be kept; calls after it closed do nothing and answer so, but for `publish`. */
export interface Socket<Data = unknown, Params = RouteParams> {
  /** Yours. At first what `upgrade` has returned. @default undefined */
  data: Data;
  /** Names this connection among those of all nodes, and cannot be guessed: a UUID, made when it is first asked for. */
  readonly id: string;
  /** Whose token it came with, or whose it is as `upgrade` has said; else undefined. */
  readonly user: User | undefined;
  /** Parameters of the route, `:name` by name. */
  readonly params: Params;
  /** The subprotocol that was agreed on; '' for none. */
  readonly protocol: string;
  /** Whether messages may be sent: not once either side has begun to close. */
  readonly isOpen: boolean;
  /** Aborted as soon as the connection ends, whoever ends it, and before `close` is called: for what a handler waits for. */
  readonly signal: AbortSignal;
  /** Bytes queued and not yet taken by the client's side of the network. */
  readonly bufferedAmount: number;
  /** The client's address, behind trusted proxies as they tell it; '' once it is gone, or for a Unix socket. */
  readonly remoteAddress: string;
  /** The server name and certificate that the client has shown; undefined without TLS, and once it is gone. */
  readonly tls: TlsInfo | undefined;
  /** Strings go out as text, bytes as binary, a received message as what it was. */
  send(message: Message | string | ArrayBuffer | ArrayBufferView): SendResult;
  /** Send a value as JSON text. Throws SocketArgumentError for what JSON cannot say, such as undefined. */
  sendJson(value: unknown): SendResult;
  /** data: at most 125 bytes, which come back to `pong`. */
  ping(data?: string | Uint8Array): void;
  /** Start the close handshake. code: 1000–1003, 1007–1014 or 3000–4999; reason: at most 123 bytes of UTF-8. */
  close(code?: number, reason?: string): void;
  /** End the connection at once, discarding what is queued. */
  terminate(): void;
  /**
   * ret: whether it is subscribed. false: this socket has `limits.maxTopicsPerSocket` topics already, or the topic would be a new one and the
   * worker has `limits.maxTopics`; or the socket is closing
   */
  subscribe(topic: string): boolean;
  /** Subscribe from a position on, with a token, or to hear why not. */
  subscribe(topic: string, options: SubscribeOptions): Promise<SubscribeResult>;
  /** Leave a topic; one that it is not subscribed to is left alone. */
  unsubscribe(topic: string): void;
  isSubscribed(topic: string): boolean;
  /** Publish to every subscriber of the topic but this socket, on every worker and node. Works after it closed too, to say that it left. */
  publish(topic: string, message: Message | string | ArrayBuffer | ArrayBufferView): PublishResult;
  /**
   * Take a newer token of the same user in place of the one that it came with, so that the connection may outlive that one: for protocols with a
   * message of their own for it. Never rejects.
   */
  renew(token: string): Promise<Renewal>;
  /** Stop receiving, so that TCP pushes back on the client. */
  pause(): void;
  /** Receive again. */
  resume(): void;
}

export interface CompressionOptions {
  /** Shorter messages, in bytes, go out as they are. @default 1024 */
  minBytes?: number | undefined;
  /**
   * Of what is sent. 'shared': each message is compressed by itself, at no memory per connection, and a published one once for all. 'dedicated': each
   * connection has a window of what it sent and received before, so that messages which resemble each other become smaller.
   * @default 'shared'
   */
  window?: 'shared' | 'dedicated' | undefined;
  /** Size of a dedicated window as a power of two, 9 to 15. A connection takes about `2 ** (windowBits + 3)` bytes. @default 12 */
  windowBits?: number | undefined;
}

/** Who asks for a WebSocket. */
export interface UpgradeClient<Params = RouteParams> {
  /** As those of the socket to be. */
  readonly params: Params;
  /**
   * As that of the socket to be. Where no token says whose it is, `upgrade` may: `client.user = { id: 'ann', claims: {}, expiresAt: undefined }`. Throws
   * SocketArgumentError for what is no user, and where a token has said so.
   */
  user: User | undefined;
  /** What the answer is to carry when the handshake is accepted, such as Set-Cookie. Those of the handshake itself may not be set. */
  readonly responseHeaders: Headers;
  /** As that of the socket to be. */
  readonly remoteAddress: string;
  /** As that of the socket to be. */
  readonly tls: TlsInfo | undefined;
}

/**
 * Whether a route asks for a token. 'required': who has none, or a bad one, is refused; 'optional': who has none comes without a user, and a bad one
 * is refused; false: nobody is asked. An object says more than that; what it leaves out is as in `auth` of the config.
 */
export type RouteAuth =
  | 'required'
  | 'optional'
  | false
  | {
      /** @default 'required' */
      readonly mode?: 'required' | 'optional' | undefined;
      readonly from?: readonly TokenSource[] | undefined;
      readonly refresh?: boolean | undefined;
    };

/**
 * How the WebSockets of a route act. What stands here is what editors and docs/configuration.md show; src/config/websocket-options.ts declares for each
 * option its default, how it is judged and what the core is told.
 */
export interface WebSocketOptions {
  /** Subprotocols this route speaks, best first; the first that the client offers is taken. @default none */
  protocols?: readonly string[];
  /**
   * Origins that browsers may connect from: 'any', 'same-host' (host and port as the browser has asked for them, which `trustedProxies` may
   * tell), or a list of exact origins. Requests without Origin are not from browsers and pass.
   * @default 'any'
   */
  origins?: 'any' | 'same-host' | readonly string[];
  /** Longest message in bytes; longer ones close with 1009. @default 1048576 */
  maxPayloadBytes?: number;
  /** Bytes that may wait for one slow client. @default 1048576 */
  maxBackpressureBytes?: number;
  /** What happens past it: 'drop' the message or 'close' the connection. @default 'close' */
  onBackpressure?: 'drop' | 'close';
  /** Seconds without anything from the client, and nothing read of what waits for it, before it counts as gone; 0: never. @default 120 */
  idleTimeout?: number;
  /** Seconds without anything from the client before a ping is sent; 0: never. @default 30, or half of `idleTimeout` when that is less */
  pingInterval?: number;
  /** Seconds a connection may live; 0: for ever. @default 0 */
  maxLifetime?: number;
  /**
   * Compress messages (permessage-deflate, RFC 7692) for clients that offer it. It costs much CPU, and memory where `window` is
   * 'dedicated' or clients send compressed messages themselves (`limits.maxInflateBytes`). @default false
   */
  compression?: boolean | CompressionOptions;
  /** Messages (and pings) that a client may send in a second on average, twice as many at once; 0: no limit. @default 0 */
  maxMessagesPerSecond?: number;
  /** Bytes of payload, inflated, that a client may send in a second on average, twice as many at once; 0: no limit. @default 0 */
  maxBytesPerSecond?: number;
  /** What happens past it: 'close' the connection with 1008, or 'pause' receiving, so that TCP holds the client back. @default 'close' */
  onRateLimit?: 'close' | 'pause';
  /** So many of a socket's `message`, `ping` and `pong` callbacks may be at work at a time; they begin in order. @default 1 */
  concurrency?: number;
  /**
   * Messages of topics come to clients as JSON objects, so that they know which topic each is of, and where in its history:
   * `{"topic":"chat/1","epoch":"00c0ffee00c0ffee","offset":7,"data":"text"}`, with `"base64"` in the place of `"data"` when it is bytes. What `send`
   * sends is as it is. @default false
   */
  positions?: boolean;
  /**
   * Seconds that a message may take from its first byte to its last, however it is cut into frames; then the connection closes with 1008. 0: for
   * ever. @default 120
   */
  messageTimeout?: number;
  /**
   * Whether clients need a token, where the config has `auth`: 'required', 'optional' or false; or an object such as `{ from: ['cookie'], refresh: true }`,
   * which says where this route takes tokens from, and whether it takes newer ones in messages. @default 'required'
   */
  auth?: RouteAuth;
}

/**
 * What to do with the WebSockets of a route. Every callback may be async; one that throws closes the socket with 1011.
 *
 * The callbacks of one socket are called in order, each when the promise of the one before has settled: `open`, then `message`, `ping` and `pong` as
 * they came, `close` last. `drain`, `dropped` and `lost` tell of what is sent, and are called at once, so that a handler may wait for them. What waits is
 * bounded: past it the socket is not read from, and TCP holds the client back. After `close()`, `terminate()` or a failed handler what waits is dropped.
 */
export interface WebSocketHandler<Data = unknown, Params = RouteParams> extends WebSocketOptions {
  /**
   * Decide on the handshake. Return data for `socket.data`, or a Response to refuse. Write the type of `request`, or use `route()`: then the
   * other callbacks know the type of `socket.data`.
   * @default every handshake is accepted
   */
  upgrade?(request: Request, client: UpgradeClient<Params>): Data | Response | Promise<Data | Response>;
  /** The connection is open: the first callback with a socket. @default nothing is done */
  open?(socket: Socket<Data, Params>): unknown;
  /** A whole message has come. @default messages are received and thrown away */
  message?(socket: Socket<Data, Params>, message: Message): unknown;
  /** The connection has ended; 1006: without a close frame (RFC 6455 §7.4.1). The last callback. @default nothing is done */
  close?(socket: Socket<Data, Params>, code: number, reason: string): unknown;
  /** What waited for the client after a send that answered 'backpressure' is on its way. @default nothing is done */
  drain?(socket: Socket<Data, Params>): unknown;
  /** A ping has come; its answer goes out by itself. @default nothing is done */
  ping?(socket: Socket<Data, Params>, data: Uint8Array): unknown;
  /** A pong has come. @default nothing is done */
  pong?(socket: Socket<Data, Params>, data: Uint8Array): unknown;
  /** `count` messages to this socket were dropped for backpressure since the last call. @default nothing is done */
  dropped?(socket: Socket<Data, Params>, count: number): unknown;
  /**
   * Messages of a topic with history, which this socket is subscribed to, are gone before it could be sent them: all up to `position`. With `positions`
   * the client is told itself, and this is not called. @default nothing is done
   */
  lost?(socket: Socket<Data, Params>, topic: string, position: Position): unknown;
}
