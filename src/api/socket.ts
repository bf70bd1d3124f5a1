/**
 * One WebSocket connection as handlers see it.
 *
 * Role: the object behind `Socket` (websocket.ts). Calls become commands of the core. There is one such object for each connection that a
 * handler has seen, and it is all that a connection costs in JavaScript, so it has few fields: what most sockets do not need lies in
 * `extras`.
 */
import type { Core, Outcome } from '../core/core.ts';
import { controlBytesMax, isCloseCode } from '../core/frame-rules.ts';
import { inspection, shown } from '../core/inspection.ts';
import type { PublishResult } from '../core/node.ts';
import type { TlsInfo } from '../core/tls-info.ts';
import { bytesOf, jsonText, ReceivedMessage, type Sendable, SocketArgumentError, sendBinary, sendText } from './message.ts';
import type { SubscribeOptions, SubscribeResult, TopicConnection, Topics } from './topics.ts';
import type { Renewal, User } from './user.ts';
import type { RouteParams, SendResult, Socket, WebSocketHandler } from './websocket.ts';

/** What the sockets of one route share. */
export interface Route {
  readonly core: Core;
  readonly topics: Topics;
  readonly index: number;
  /** Handlers of this socket wait until then. */
  readonly hold: (socket: GatewaySocket, until: Promise<unknown>) => void;
  // biome-ignore lint/suspicious/noExplicitAny: each route has its own data type
  readonly handler: WebSocketHandler<any>;
}

/** The order of a socket's handlers, while one of them has not settled; see frontend/sockets/lane.ts. */
export interface HandlerOrder {
  /** This side has closed the socket: what waits is not wanted any more. */
  abandon(): void;
  /** The handler wants to receive again; so does the order as far as it has room. */
  resume(): void;
}

/** What a socket with a user, or one that waits for its token, has beside; see frontend/sockets/sessions.ts. */
export interface SocketSession {
  renew(token: string): Promise<Renewal>;
}

/** What most sockets do not need. */
export class SocketExtras {
  readonly params: RouteParams;
  readonly protocol: string;
  lane: HandlerOrder | undefined;
  /** Whose token it has; see `auth` of its route. */
  user: User | undefined;
  session: SocketSession | undefined;
  /** By a handler. */
  isPaused = false;
  /** Of `signal`, once it was asked for. */
  controller: AbortController | undefined;

  constructor(params = noParams, protocol = '') {
    this.params = params;
    this.protocol = protocol;
  }
}

/** Of a route without parameters. */
export const noParams: RouteParams = Object.freeze({});

const View = class Socket {};

export class GatewaySocket implements Socket, TopicConnection {
  // The route leads to the core: nothing that prints or copies a socket may follow. Constructed once for a connection, so that the price of a
  // private field does not matter (handles.ts).
  readonly #route: Route;
  readonly slot: number;
  readonly generation: number;
  data: unknown;
  #extras: SocketExtras | undefined;

  constructor(route: Route, slot: number, generation: number, data: unknown, extras: SocketExtras | undefined) {
    this.#route = route;
    this.slot = slot;
    this.generation = generation;
    this.data = data;
    this.#extras = extras;
  }

  get params(): RouteParams {
    return this.#extras?.params ?? noParams;
  }

  get id(): string {
    // Not kept: whoever is present is asked for it once, and would hold some hundred bytes for it as long as it is connected.
    return this.#route.core.ids.of(this);
  }

  get kind(): 'websocket' {
    return 'websocket';
  }

  get protocol(): string {
    return this.#extras?.protocol ?? '';
  }

  get user(): User | undefined {
    return this.#extras?.user;
  }

  async renew(token: string): Promise<Renewal> {
    const session = this.#extras?.session;
    return session === undefined ? { renewed: false, reason: this.isOpen ? 'anonymous' : 'closed' } : session.renew(token);
  }

  #more(): SocketExtras {
    this.#extras ??= new SocketExtras();
    return this.#extras;
  }

  get signal(): AbortSignal {
    const extras = this.#more();
    if (extras.controller === undefined) {
      extras.controller = new AbortController();
      if (!this.isOpen) extras.controller.abort();
    }
    return extras.controller.signal;
  }

  get isOpen(): boolean {
    return this.#route.core.isOpen(this.slot, this.generation);
  }

  holdUntil(subscribed: Promise<unknown>): void {
    this.#route.hold(this, subscribed);
  }

  get bufferedAmount(): number {
    return this.#route.core.buffered(this.slot, this.generation);
  }

  get remoteAddress(): string {
    return this.#route.core.addressOf(this.slot, this.generation)?.address ?? '';
  }

  get tls(): TlsInfo | undefined {
    return this.#route.core.tls(this);
  }

  send(message: Sendable): SendResult {
    if (message instanceof ReceivedMessage) return message.forward(this.slot, this.generation) satisfies Outcome;
    const { core } = this.#route;
    return typeof message === 'string'
      ? core.send(this.slot, this.generation, sendText, message)
      : core.send(this.slot, this.generation, sendBinary, bytesOf(message));
  }

  sendJson(value: unknown): SendResult {
    return this.send(jsonText(value));
  }

  ping(data: string | Uint8Array = ''): void {
    if (Buffer.byteLength(data) > controlBytesMax)
      throw new SocketArgumentError(`ping data may have at most ${controlBytesMax} bytes (RFC 6455 §5.5)`);
    this.#route.core.ping(this.slot, this.generation, data);
  }

  close(code?: number, reason = ''): void {
    if (code === undefined) {
      if (reason !== '') throw new SocketArgumentError('a close reason needs a code: write close(1000, reason)');
    } else if (!isCloseCode(code)) {
      throw new SocketArgumentError(`close code ${code} may not be sent: write 1000 to 1003, 1007 to 1014, or 3000 to 4999`);
    }
    if (Buffer.byteLength(reason) > 123)
      throw new SocketArgumentError('a close reason may have at most 123 bytes of UTF-8 (RFC 6455 §5.5)');
    this.#route.core.close(this.slot, this.generation, code ?? 0, reason);
    this.#leave();
  }

  terminate(): void {
    this.#route.core.terminate(this.slot, this.generation);
    this.#leave();
  }

  #leave(): void {
    if (this.#extras === undefined) return;
    this.#extras.lane?.abandon();
    this.#extras.controller?.abort();
  }

  subscribe(topic: string): boolean;
  subscribe(topic: string, options: SubscribeOptions): Promise<SubscribeResult>;
  subscribe(topic: string, options?: SubscribeOptions): boolean | Promise<SubscribeResult> {
    const { topics } = this.#route;
    return options === undefined ? topics.subscribe(this, topic) : topics.subscribeWith(this, topic, options);
  }

  unsubscribe(topic: string): void {
    this.#route.topics.unsubscribe(this, topic);
  }

  isSubscribed(topic: string): boolean {
    return this.#route.topics.isSubscribed(this, topic);
  }

  publish(topic: string, message: Sendable): PublishResult {
    return this.#route.topics.publish(topic, message, this);
  }

  pause(): void {
    this.#more().isPaused = true;
    this.#route.core.pause(this.slot, this.generation);
  }

  resume(): void {
    if (this.#extras !== undefined) this.#extras.isPaused = false;
    if (this.#extras?.lane !== undefined) this.#extras.lane.resume();
    else this.#route.core.resume(this.slot, this.generation);
  }

  /** @internal */
  static routeOf(socket: GatewaySocket): Route {
    return socket.#route;
  }

  /** @internal */
  static extrasOf(socket: GatewaySocket): SocketExtras | undefined {
    return socket.#extras;
  }

  /** @internal Made now if need be. */
  static moreOf(socket: GatewaySocket): SocketExtras {
    return socket.#more();
  }

  /** @internal This side has closed: nothing that was received is wanted any more. */
  static leave(socket: GatewaySocket): void {
    socket.#leave();
  }

  [inspection](): object {
    const { data, params, protocol, isOpen } = this;
    return shown(this, View, { data, params, protocol, isOpen });
  }
}
