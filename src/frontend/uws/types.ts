/**
 * The typings of the module: what programs written for uWebSockets.js compile against.
 *
 * Role: public; types alone, no code. Compatible with the typings of the original in both directions, and with the members that its later
 * versions have added. What is implemented is in the files beside this one.
 */

/** A listening socket, as the callback of `listen` gets it. */
// biome-ignore lint/suspicious/noEmptyInterface: opaque, and so in the original
export interface us_listen_socket {}

/** A connection's socket. */
// biome-ignore lint/suspicious/noEmptyInterface: opaque, and so in the original
export interface us_socket {}

/** The place of a WebSocket route, handed from an upgrade handler to `HttpResponse.upgrade`. */
// biome-ignore lint/suspicious/noEmptyInterface: opaque, and so in the original
export interface us_socket_context_t {}

/** An app as another app may name it, see `TemplatedApp.getDescriptor`. */
// biome-ignore lint/suspicious/noEmptyInterface: opaque, and so in the original
export interface AppDescriptor {}

/** Text, which is sent as UTF-8, or bytes as they are. */
export type RecognizedString =
  | string
  | ArrayBuffer
  | Uint8Array
  | Int8Array
  | Uint16Array
  | Int16Array
  | Uint32Array
  | Int32Array
  | Float32Array
  | Float64Array;

/** A WebSocket, good from the open handler until the close handler begins. */
export interface WebSocket<UserData> {
  /** ret: 1 sent, 0 queued behind backpressure, 2 dropped because it would have gone past `maxBackpressure` */
  send(message: RecognizedString, isBinary?: boolean, compress?: boolean): number;
  /** Bytes queued and not yet taken by the client. */
  getBufferedAmount(): number;
  /** Close with a close frame. The close handler is called before this returns. */
  end(code?: number, shortMessage?: RecognizedString): void;
  /** Close without a close frame. The close handler is called before this returns. */
  close(): void;
  /** ret: as `send` */
  ping(message?: RecognizedString): number;
  /** ret: false when it was refused */
  subscribe(topic: RecognizedString): boolean;
  /** ret: whether it was subscribed */
  unsubscribe(topic: RecognizedString): boolean;
  isSubscribed(topic: RecognizedString): boolean;
  getTopics(): string[];
  /** To all subscribers of the topic but this one. ret: false when it is not subscribed itself or there is nobody */
  publish(topic: RecognizedString, message: RecognizedString, isBinary?: boolean, compress?: boolean): boolean;
  /** Run a callback; what it sends goes out together. */
  cork(cb: () => void): WebSocket<UserData>;
  /** 4 or 16 bytes in network order; empty for a Unix socket. */
  getRemoteAddress(): ArrayBuffer;
  getRemoteAddressAsText(): ArrayBuffer;
  getRemotePort(): number;
  /** The object given to `HttpResponse.upgrade`: this WebSocket itself, which has its properties. */
  getUserData(): UserData;
  /** Begin a message whose rest follows in fragments. ret: as `send` */
  sendFirstFragment(message: RecognizedString, isBinary?: boolean, compress?: boolean): number;
  sendFragment(message: RecognizedString, compress?: boolean): number;
  sendLastFragment(message: RecognizedString, compress?: boolean): number;
}

/** What a response can do. */
export interface HttpResponseMembers {
  /** Let the client wait with the rest of its body. Parts received before may still be delivered. */
  pause(): void;
  resume(): void;
  /** Such as '200 OK', which is the default. Comes first: later calls change nothing. */
  writeStatus(status: RecognizedString): this;
  /** err: Error when the name is no token, when the value holds CR, LF or NUL, or once the body has begun */
  writeHeader(key: RecognizedString, value: RecognizedString): this;
  /** A part of a chunked body. ret: false when the client does not keep up; `onWritable` tells when it does again */
  write(chunk: RecognizedString): boolean;
  /** The whole body, or the last part of a chunked one. */
  end(body?: RecognizedString, closeConnection?: boolean): this;
  /** `reportedContentLength`: to HEAD, the length that GET would have. */
  endWithoutBody(reportedContentLength?: number, closeConnection?: boolean): this;
  /**
   * As much as the client takes of a body of `totalSize` bytes. `ok` false: go on from `getWriteOffset()` once `onWritable` is called.
   * `hasResponded`: the body is complete, and the response over.
   */
  tryEnd(fullBodyOrChunk: RecognizedString, totalSize: number): [boolean, boolean];
  /** End the connection at once. `onAborted` is called before this returns. */
  close(): this;
  /** Bytes that `tryEnd` has sent. */
  getWriteOffset(): number;
  /** `offset`: as `getWriteOffset()`. Return true unless a `tryEnd` has failed again. */
  onWritable(handler: (offset: number) => boolean): this;
  /** Must be set by the route handler or what it queues, unless the response is over by then. The response is dead when it is called. */
  onAborted(handler: () => void): this;
  /** The request's body, in parts. `chunk` is detached when the handler returns. To be set by the route handler, or what it queues. */
  onData(handler: (chunk: ArrayBuffer, isLast: boolean) => void): this;
  /** As `onData`; `maxRemainingBodyLength`: at most so many bytes follow, 0n with the last part. */
  onDataV2(handler: (chunk: ArrayBuffer, maxRemainingBodyLength: bigint) => void): this;
  /** The whole body at once, or null when it has more than `maxSize` bytes. */
  collectBody(maxSize: number, handler: (fullBody: ArrayBuffer | null) => void): this;
  /** 4 or 16 bytes in network order; empty for a Unix socket. */
  getRemoteAddress(): ArrayBuffer;
  getRemoteAddressAsText(): ArrayBuffer;
  getRemotePort(): number;
  /** As a proxy told it by the PROXY protocol; empty when it did not. */
  getProxiedRemoteAddress(): ArrayBuffer;
  getProxiedRemoteAddressAsText(): ArrayBuffer;
  getProxiedRemotePort(): number;
  /** Run a callback; what it writes goes out together. */
  cork(cb: () => void): this;
  /** Accept a WebSocket, now or after an await. The open handler is called before this returns. */
  upgrade<UserData>(
    userData: UserData,
    secWebSocketKey: RecognizedString,
    secWebSocketProtocol: RecognizedString,
    secWebSocketExtensions: RecognizedString,
    context: us_socket_context_t,
  ): void;
}

/** A response, good until it is complete, closed or aborted. A program may attach properties of its own. */
export interface HttpResponse extends HttpResponseMembers {
  // biome-ignore lint/suspicious/noExplicitAny: so in the original
  [key: string]: any;
}

/**
 * A request, good until its route handler returns or awaits what is not there yet: microtasks and `process.nextTick` callbacks that a
 * handler has queued still count as the handler, here and for all that is detached when a handler returns.
 */
export interface HttpRequest {
  /** The first field of that name, in latin1, or ''. */
  getHeader(lowerCaseKey: RecognizedString): string;
  /** What the path has in the place of a parameter of the route, as it was sent. */
  getParameter(index: number | RecognizedString): string | undefined;
  /** The path without the query. */
  getUrl(): string;
  /** In lower case. */
  getMethod(): string;
  getCaseSensitiveMethod(): string;
  /** The query as it was sent. */
  getQuery(): string;
  /** One value of the query, decoded. */
  getQuery(key: string): string | undefined;
  /** Each field; names in lower case. */
  forEach(cb: (key: string, value: string) => void): void;
  /** true: this route does not handle the request after all, and the next that matches is asked. */
  setYield(_yield: boolean): HttpRequest;
}

/** Settings and handlers of a WebSocket route. */
export interface WebSocketBehavior<UserData> {
  /** Bytes; a longer message ends the connection. @default 16384 */
  maxPayloadLength?: number;
  /** Close a connection instead of dropping what would go past `maxBackpressure`. @default false */
  closeOnBackpressureLimit?: boolean;
  /** Minutes, 0 to 239; 0: no limit. @default 0 */
  maxLifetime?: number;
  /** Seconds without anything from the client, 0 or 8 to 960; 0: no limit. @default 120 */
  idleTimeout?: number;
  /** A compressor and a decompressor, joined by `|`. @default DISABLED */
  compression?: CompressOptions;
  /** Bytes queued for one connection. @default 65536 */
  maxBackpressure?: number;
  /** Ping in time for clients to stay within `idleTimeout`. @default true */
  sendPingsAutomatically?: boolean;
  /** Decides on a handshake by `res.upgrade()` or any other answer. Without it every handshake is accepted. */
  upgrade?: (res: HttpResponse, req: HttpRequest, context: us_socket_context_t) => void | Promise<void>;
  open?: (ws: WebSocket<UserData>) => void | Promise<void>;
  /** `message` is detached when the handler returns. */
  message?: (ws: WebSocket<UserData>, message: ArrayBuffer, isBinary: boolean) => void | Promise<void>;
  /** A message to this connection was dropped for backpressure. */
  dropped?: (ws: WebSocket<UserData>, message: ArrayBuffer, isBinary: boolean) => void | Promise<void>;
  /** Backpressure has gone down. */
  drain?: (ws: WebSocket<UserData>) => void;
  /** The connection has ended, for whatever reason. `ws` may not be used any more. */
  close?: (ws: WebSocket<UserData>, code: number, message: ArrayBuffer) => void;
  /** Answered already. */
  ping?: (ws: WebSocket<UserData>, message: ArrayBuffer) => void;
  pong?: (ws: WebSocket<UserData>, message: ArrayBuffer) => void;
  /** The number of subscribers of a topic has changed through this connection. */
  subscription?: (ws: WebSocket<UserData>, topic: ArrayBuffer, newCount: number, oldCount: number) => void;
}

/** Certificates and settings of an SSLApp. Files are PEM. */
export interface AppOptions {
  key_file_name?: RecognizedString;
  cert_file_name?: RecognizedString;
  /** Given: clients must show a certificate signed by one of these. */
  ca_file_name?: RecognizedString;
  passphrase?: RecognizedString;
  dh_params_file_name?: RecognizedString;
  ssl_ciphers?: RecognizedString;
  /** Taken and without effect: idle connections give their buffers back in any case. */
  ssl_prefer_low_memory_usage?: boolean;
}

export declare enum ListenOptions {
  LIBUS_LISTEN_DEFAULT = 0,
  LIBUS_LISTEN_EXCLUSIVE_PORT = 1,
}

type RouteHandler = (res: HttpResponse, req: HttpRequest) => void | Promise<void>;
type ListenCallback = (listenSocket: us_listen_socket | false) => void | Promise<void>;

/** Routes and listeners. Every method that registers something returns the app. */
export interface TemplatedApp {
  listen(host: RecognizedString, port: number, cb: ListenCallback): TemplatedApp;
  listen(host: RecognizedString, port: number, options: ListenOptions, cb: ListenCallback): TemplatedApp;
  listen(port: number, cb: ListenCallback): TemplatedApp;
  listen(port: number, options: ListenOptions, cb: ListenCallback): TemplatedApp;
  listen_unix(cb: (listenSocket: us_listen_socket) => void | Promise<void>, path: RecognizedString): TemplatedApp;
  /** A handler may also be what `DeclarativeResponse.end()` returned. */
  get(pattern: RecognizedString, handler: RouteHandler | ArrayBuffer): TemplatedApp;
  post(pattern: RecognizedString, handler: RouteHandler | ArrayBuffer): TemplatedApp;
  options(pattern: RecognizedString, handler: RouteHandler | ArrayBuffer): TemplatedApp;
  del(pattern: RecognizedString, handler: RouteHandler | ArrayBuffer): TemplatedApp;
  patch(pattern: RecognizedString, handler: RouteHandler | ArrayBuffer): TemplatedApp;
  put(pattern: RecognizedString, handler: RouteHandler | ArrayBuffer): TemplatedApp;
  head(pattern: RecognizedString, handler: RouteHandler | ArrayBuffer): TemplatedApp;
  connect(pattern: RecognizedString, handler: RouteHandler | ArrayBuffer): TemplatedApp;
  trace(pattern: RecognizedString, handler: RouteHandler | ArrayBuffer): TemplatedApp;
  /** Any method. */
  any(pattern: RecognizedString, handler: RouteHandler | ArrayBuffer): TemplatedApp;
  ws<UserData>(pattern: RecognizedString, behavior: WebSocketBehavior<UserData>): TemplatedApp;
  /** To all subscribers of the topic. ret: false when there are none */
  publish(topic: RecognizedString, message: RecognizedString, isBinary?: boolean, compress?: boolean): boolean;
  numSubscribers(topic: RecognizedString): number;
  /** Another certificate, for clients that ask for this name. */
  addServerName(hostname: string, options: AppOptions): TemplatedApp;
  /** Routes registered from here on are those of this server name. */
  domain(domain: string): TemplatedApp;
  removeServerName(hostname: string): TemplatedApp;
  /** Called for a name without certificate; may add one, and the handshake goes on with it. */
  missingServerName(cb: (hostname: string) => void): TemplatedApp;
  /** Called with 1 for each connection that comes and -1 for each that goes. */
  // biome-ignore lint/complexity/noBannedTypes: so in the original
  filter(cb: (res: HttpResponse, count: Number) => void | Promise<void>): TemplatedApp;
  /** End all connections and listeners. */
  close(): TemplatedApp;
  getDescriptor(): AppDescriptor;
  /** Hand connections to a child app, in turn with others. */
  addChildAppDescriptor(descriptor: AppDescriptor): void;
  removeChildAppDescriptor(descriptor: AppDescriptor): void;
}

/** A part of a multipart/form-data body. */
export interface MultipartField {
  data: ArrayBuffer;
  name: string;
  type?: string;
  filename?: string;
}

/** One of the module's constants, or two of them joined by `|`. */
export type CompressOptions = number;
