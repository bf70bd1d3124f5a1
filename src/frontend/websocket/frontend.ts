/**
 * WebSockets by route: decides on handshakes and runs the handlers of the config.
 *
 * Role: events of the core → handlers. Up: handlers in gateway.config.ts, and Hono's through `honoWebSocketHandler`.
 * Down: api/socket.ts; lane.ts, which keeps a socket's handlers in order while one of them has not settled. A handler that throws or rejects is
 * reported, and its socket closes with 1011; the worker lives.
 */

import { ReceivedMessage } from '../../api/message.ts';
import { GatewaySocket, noParams, type Route, SocketExtras } from '../../api/socket.ts';
import type { RouteParams, UpgradeClient, WebSocketHandler } from '../../api/websocket.ts';
import type { CompressionSettings, WebSocketSettings } from '../../config/resolve.ts';
import type { BehaviorOptions, Core, WebSocketEvents } from '../../core/core.ts';
import type { RequestHead } from '../../core/http.ts';
import { inspection, shown } from '../../core/inspection.ts';
import { requestPath } from '../../core/request-target.ts';
import type { TlsInfo } from '../../core/tls-info.ts';
import type { RequestIds } from '../../host/request-ids.ts';
import { encodeHeaders } from '../http/header-block.ts';
import { isThenable } from '../http/thenable.ts';
import { checkOrigin, chooseProtocol, extensionsOffered } from './handshake.ts';
import { Lane, LaneTotals, type Waiting } from './lane.ts';
import { Router } from './router.ts';

export interface RouteDefinition {
  /** undefined: not reached by path, but by index (Hono's sockets). */
  readonly pattern: string | undefined;
  readonly handler: WebSocketHandler<unknown>;
  readonly settings: WebSocketSettings;
  /** Of one socket, by its data; undefined: as in `settings`. */
  readonly concurrencyOf?: (data: unknown) => number | undefined;
}

interface SettledRoute extends Route {
  readonly settings: WebSocketSettings;
  readonly concurrencyOf: RouteDefinition['concurrencyOf'];
  /** Tells it from a GatewaySocket. */
  readonly generation: undefined;
}

export interface WebSocketFrontendOptions {
  readonly core: Core;
  readonly routes: readonly RouteDefinition[];
  /** A handler failed; its socket is being closed. Must not throw. */
  onError(error: unknown, context: { readonly event: string; readonly route: string; readonly requestId?: string }): void;
  /** A handshake was refused for its origin. */
  onOriginRefused(): void;
  readonly requestIds?: RequestIds;
}

/** How long a peer may take to answer a close frame. */
const closeTimeoutMs = 5000;
const textHeaders = 'content-type: text/plain;charset=utf-8\r\n';

const { extrasOf, routeOf } = GatewaySocket;

export class WebSocketFrontend implements WebSocketEvents {
  readonly #core: Core;
  readonly #routes: SettledRoute[];
  readonly #patterns: string[];
  readonly #router: Router<SettledRoute>;
  readonly #options: WebSocketFrontendOptions;
  /**
   * By slot. A socket is good while its generation is that of the slot. A connection that no handler has seen yet has its route here
   * instead of a socket of its own: what only listens and waits costs no object.
   */
  readonly #sockets: (GatewaySocket | SettledRoute | undefined)[] = [];
  readonly #totals: LaneTotals;

  constructor(options: WebSocketFrontendOptions) {
    const { core } = options;
    this.#core = core;
    this.#totals = new LaneTotals(core);
    this.#options = options;
    this.#patterns = options.routes.map((route) => route.pattern ?? 'upgradeWebSocket');
    this.#routes = options.routes.map(({ handler, settings, concurrencyOf }, index) => ({
      core,
      index,
      handler,
      settings,
      concurrencyOf,
      generation: undefined,
    }));
    for (const [index, route] of options.routes.entries()) core.setBehavior(index, behaviorOf(route));
    const routed = this.#routes.flatMap((route, index) => {
      const pattern = options.routes[index]?.pattern;
      return pattern === undefined ? [] : [[pattern, route] as const];
    });
    this.#router = new Router(routed);
    core.onUpgrade = (head, headers, handler, data) => this.#accept(head, headers, this.#routes[handler] as SettledRoute, data, undefined);
  }

  /** Promises of handlers that have not settled: while there are some, the worker must give Bun its turns, and must not end if it can help it. */
  get pending(): number {
    return this.#totals.pending;
  }

  /** Whether a path has a WebSocket route. */
  hasRoute(path: string): boolean {
    return this.#router.match(path) !== undefined;
  }

  /** Answer a handshake if its path has a route. ret: false when it has none; a promise while the handler decides */
  takeHandshake(head: RequestHead, request: Request): boolean | Promise<void> {
    const found = this.#router.match(requestPath(head));
    if (found === undefined) return false;
    const { handler, settings } = found.target;
    const refusal = checkOrigin(head, settings.origins);
    if (refusal !== undefined) {
      this.#options.onOriginRefused();
      this.#answer(head, 403, textHeaders, refusal);
      return true;
    }
    const protocol = chooseProtocol(head, settings.protocols);
    const headers = protocol === '' ? '' : `Sec-WebSocket-Protocol: ${protocol}\r\n`;
    const extras = found.params !== undefined || protocol !== '' ? new SocketExtras(found.params, protocol) : undefined;
    if (handler.upgrade === undefined) {
      this.#accept(head, headers, found.target, undefined, extras);
      return true;
    }
    try {
      const decision = handler.upgrade(request, new Client(this.#core, head, found.params));
      if (isThenable(decision)) return this.#decideLater(head, headers, found.target, extras, decision);
      if (decision instanceof Response) return this.#refuse(head, decision, found.target);
      this.#accept(head, headers, found.target, decision, extras);
    } catch (error) {
      this.#upgradeFailed(head, found.target, error);
    }
    return true;
  }

  /** The client left while its handshake waited for an answer. */
  forget(slot: number): void {
    const entry = this.#sockets[slot];
    if (entry === undefined) return;
    if (entry.generation === undefined || !this.#core.isOpen(slot, entry.generation)) this.#sockets[slot] = undefined;
  }

  // ---------------------------------------------------------------- events

  onMessage(slot: number, generation: number, isBinary: boolean, offset: number, bytes: number, large: Uint8Array | undefined): void {
    const socket = this.#find(slot, generation);
    if (socket === undefined || routeOf(socket).handler.message === undefined || this.#core.hasLeft(slot)) return;
    const message = new ReceivedMessage(this.#core, isBinary, offset, bytes, large);
    const lane = laneOf(socket);
    if (lane === undefined || lane.admit()) {
      this.#callMessage(socket, message);
    } else {
      message.detach();
      lane.wait(message);
    }
  }

  onOpen(slot: number, generation: number): void {
    // Where there is a handler for it, `#accept` has made the socket.
    if (this.#isUnseen(slot)) return;
    const socket = this.#find(slot, generation);
    if (socket === undefined) this.#core.terminate(slot, generation);
    else if (routeOf(socket).handler.open !== undefined) this.#run(socket, 'open', () => routeOf(socket).handler.open?.(socket));
  }

  onClose(slot: number, generation: number, code: number, reason: string): void {
    const socket = this.#find(slot, generation);
    if (socket === undefined) return;
    this.#sockets[slot] = undefined;
    extrasOf(socket)?.controller?.abort();
    const lane = laneOf(socket);
    if (lane === undefined) this.#callClose(socket, code, reason);
    else lane.closing = { code, reason };
  }

  // What tells of sending is told at once, since a handler may wait for it; but handlers behind it wait for its own.

  onDrain(slot: number, generation: number): void {
    const socket = this.#find(slot, generation);
    if (socket !== undefined && !this.#core.hasLeft(slot)) this.#run(socket, 'drain', () => routeOf(socket).handler.drain?.(socket));
  }

  onDropped(slot: number, generation: number, count: number): void {
    const socket = this.#find(slot, generation);
    if (socket !== undefined) this.#run(socket, 'dropped', () => routeOf(socket).handler.dropped?.(socket, count));
  }

  onPing(slot: number, generation: number, data: Uint8Array): void {
    this.#onControl(slot, generation, 'ping', data);
  }

  onPong(slot: number, generation: number, data: Uint8Array): void {
    this.#onControl(slot, generation, 'pong', data);
  }

  #onControl(slot: number, generation: number, event: 'ping' | 'pong', borrowed: Uint8Array): void {
    const socket = this.#find(slot, generation);
    if (socket === undefined || routeOf(socket).handler[event] === undefined || this.#core.hasLeft(slot)) return;
    const data = borrowed.slice();
    const lane = laneOf(socket);
    if (lane === undefined || lane.admit()) this.#run(socket, event, () => routeOf(socket).handler[event]?.(socket, data));
    else lane.wait({ event, data, byteLength: data.byteLength });
  }

  // ---------------------------------------------------------------- handshakes

  #accept(head: RequestHead, headers: string, route: SettledRoute, data: unknown, extras: SocketExtras | undefined): void {
    // The client may have left while a promise decided: its slot may be another's by now.
    if (!this.#core.isOpen(head.slot, head.generation)) return;
    const mayWait = data === undefined && extras === undefined && route.handler.open === undefined;
    this.#sockets[head.slot] = mayWait ? route : new GatewaySocket(route, head.slot, head.generation, data, extras);
    const offer = route.settings.compression === false ? '' : extensionsOffered(head);
    this.#core.acceptUpgrade(head, headers, route.index, offer);
  }

  async #decideLater(
    head: RequestHead,
    headers: string,
    route: SettledRoute,
    extras: SocketExtras | undefined,
    decision: PromiseLike<unknown>,
  ): Promise<void> {
    this.#totals.addPending(1);
    try {
      const value = await decision;
      if (value instanceof Response) this.#refuse(head, value, route);
      else this.#accept(head, headers, route, value, extras);
    } catch (error) {
      this.#upgradeFailed(head, route, error);
    } finally {
      this.#totals.addPending(-1);
    }
  }

  #refuse(head: RequestHead, response: Response, route: Route): true {
    // RFC 6455 §4.2.2: any answer but 101 refuses; one that tells of success would only mislead.
    const status = response.status >= 300 ? response.status : 403;
    const headers = refusalHeaders(response);
    const answer = (body: Uint8Array | null) => this.#answer(head, status, headers, body);
    response.bytes().then(answer, (error) => {
      this.#reportUpgrade(head, route, error);
      answer(null);
    });
    return true;
  }

  #upgradeFailed(head: RequestHead, route: Route, error: unknown): void {
    this.#reportUpgrade(head, route, error);
    this.#answer(head, 500, textHeaders, 'Internal Server Error');
  }

  #reportUpgrade(head: RequestHead, route: Route, error: unknown): void {
    const requestId = this.#options.requestIds?.of(head);
    this.#options.onError(error, {
      event: 'upgrade',
      route: this.#patterns[route.index] ?? '',
      ...(requestId === undefined ? {} : { requestId }),
    });
  }

  /** Anything but 101 (RFC 6455 §4.2.2). */
  #answer(head: RequestHead, status: number, headers: string, body: string | Uint8Array | null): void {
    const { requestIds } = this.#options;
    const isNamed = requestIds === undefined || headers.toLowerCase().includes(`${requestIds.header}:`);
    this.#core.respond(head, status, isNamed ? headers : headers + requestIds.line(head), body);
  }

  // ---------------------------------------------------------------- handlers

  #find(slot: number, generation: number): GatewaySocket | undefined {
    const entry = this.#sockets[slot];
    if (entry === undefined) return undefined;
    if (entry.generation !== undefined) return entry.generation === generation ? entry : undefined;
    const socket = new GatewaySocket(entry, slot, generation, undefined, undefined);
    this.#sockets[slot] = socket;
    return socket;
  }

  /** Accepted, and no handler has been given a socket for it. */
  #isUnseen(slot: number): boolean {
    const entry = this.#sockets[slot];
    return entry !== undefined && entry.generation === undefined;
  }

  #callMessage(socket: GatewaySocket, message: ReceivedMessage): void {
    try {
      const result: unknown = routeOf(socket).handler.message?.(socket, message);
      if (typeof result === 'object') this.#goesOn(socket, 'message', result, message);
    } catch (error) {
      this.#failed(socket, 'message', error);
    }
  }

  #callClose(socket: GatewaySocket, code: number, reason: string): void {
    if (routeOf(socket).handler.close !== undefined)
      this.#run(socket, 'close', () => routeOf(socket).handler.close?.(socket, code, reason));
  }

  #callWaiting(socket: GatewaySocket, item: Waiting): void {
    if (item instanceof ReceivedMessage) this.#callMessage(socket, item);
    else this.#run(socket, item.event, () => routeOf(socket).handler[item.event]?.(socket, item.data));
  }

  #run(socket: GatewaySocket, event: string, call: () => unknown): void {
    try {
      const result = call();
      if (typeof result === 'object') this.#goesOn(socket, event, result, undefined);
    } catch (error) {
      this.#failed(socket, event, error);
    }
  }

  /** A handler has returned something: when that is a promise which is pending, what comes next waits for it. */
  #goesOn(socket: GatewaySocket, event: string, result: unknown, message: ReceivedMessage | undefined): void {
    if (!isThenable(result)) return;
    const promise = result instanceof Promise ? result : Promise.resolve(result);
    const status = Bun.peek.status(promise);
    // An async handler that did not really wait.
    if (status === 'fulfilled') return;
    if (status === 'rejected') {
      promise.catch(ignore);
      this.#failed(socket, event, Bun.peek(promise));
      return;
    }
    message?.detach();
    const lane = laneOf(socket) ?? this.#makeLane(socket);
    const isOpen = event === 'open';
    lane.began(isOpen);
    promise.then(
      () => {
        lane.settled(isOpen);
        this.#advance(lane);
      },
      (error: unknown) => {
        lane.settled(isOpen);
        this.#failed(socket, event, error);
        this.#advance(lane);
      },
    );
  }

  #makeLane(socket: GatewaySocket): Lane {
    const { concurrencyOf, settings } = this.#routes[routeOf(socket).index] as SettledRoute;
    const lane = new Lane(socket, concurrencyOf?.(socket.data) ?? settings.concurrency, this.#totals);
    GatewaySocket.moreOf(socket).lane = lane;
    return lane;
  }

  /** A handler has settled: call those that waited for it. */
  #advance(lane: Lane): void {
    const { socket } = lane;
    for (let item = lane.take(); item !== undefined; item = lane.take()) this.#callWaiting(socket, item);
    lane.regulate();
    if (!lane.isIdle) return;
    GatewaySocket.moreOf(socket).lane = undefined;
    if (lane.closing !== undefined) this.#callClose(socket, lane.closing.code, lane.closing.reason);
  }

  #failed(socket: GatewaySocket, event: string, error: unknown): void {
    this.#options.onError(error, { event, route: this.#patterns[routeOf(socket).index] ?? '' });
    this.#core.close(socket.slot, socket.generation, 1011, '');
    GatewaySocket.leave(socket);
  }
}

function ignore(): void {}

function laneOf(socket: GatewaySocket): Lane | undefined {
  return extrasOf(socket)?.lane as Lane | undefined;
}

const View = class UpgradeClient {};

/** Asks the core only for what a handler asks for. */
class Client implements UpgradeClient {
  // Both lead to the core: nothing that prints or copies this may follow.
  readonly #core: Core;
  readonly #head: RequestHead;
  readonly params: RouteParams;

  constructor(core: Core, head: RequestHead, params = noParams) {
    this.#core = core;
    this.#head = head;
    this.params = params;
  }

  get remoteAddress(): string {
    return this.#core.remoteAddress(this.#head)?.address ?? '';
  }

  get tls(): TlsInfo | undefined {
    return this.#core.tls(this.#head);
  }

  [inspection](): object {
    return shown(this, View, { params: this.params, remoteAddress: this.remoteAddress });
  }
}

function behaviorOf({ handler, settings }: RouteDefinition): BehaviorOptions {
  return {
    maxPayloadBytes: settings.maxPayloadBytes,
    maxBackpressureBytes: settings.maxBackpressureBytes,
    idleTimeoutMs: settings.idleTimeout * 1000,
    pingIntervalMs: settings.pingInterval * 1000,
    maxLifetimeMs: settings.maxLifetime * 1000,
    closeTimeoutMs,
    closeOnBackpressure: settings.onBackpressure === 'close',
    wantsPing: handler.ping !== undefined,
    wantsPong: handler.pong !== undefined,
    wantsDropped: handler.dropped !== undefined,
    wantsDrain: handler.drain !== undefined,
    messagesPerSecond: settings.maxMessagesPerSecond,
    bytesPerSecond: settings.maxBytesPerSecond,
    pauseOnRate: settings.onRateLimit === 'pause',
    messageTimeoutMs: settings.messageTimeout * 1000,
    ...(settings.compression === false ? {} : compressionOf(settings.compression)),
  };
}

const onlyOffered = 1 << 12;

/** The bits of `struct rw_behavior.deflate`: compressor in bits 0-7, decompressor in bits 8-11, bit 12: answer only what was offered. */
function compressionOf({ window, windowBits, minBytes }: CompressionSettings): Pick<BehaviorOptions, 'deflate' | 'deflateMinBytes'> {
  if (window === 'shared') return { deflate: 1 | (15 << 8) | onlyOffered, deflateMinBytes: minBytes };
  // zlib's memory level grows with the window, so that the hash tables suit it: 15 goes with its default of 8.
  const memLevel = windowBits - 7;
  return { deflate: memLevel | (windowBits << 4) | (windowBits << 8) | onlyOffered, deflateMinBytes: minBytes };
}

/** The header fields of a refusal, without those that the core writes itself. */
function refusalHeaders(response: Response): string {
  const headers = new Headers(response.headers);
  for (const name of ['content-length', 'transfer-encoding', 'connection', 'keep-alive', 'date']) headers.delete(name);
  return encodeHeaders(headers).text;
}
