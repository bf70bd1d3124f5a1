/**
 * Runs the handlers of WebSockets: those of a config's routes, of Hono's `upgradeWebSocket`, and of any frontend that accepts through it.
 *
 * Role: events of the core → handlers. Up: frontends, and registry.ts, which makes one for a worker. Down: api/socket.ts; lane.ts, which keeps a
 * socket's handlers in order while one of them has not settled. A handler that throws or rejects is reported, and its socket closes with 1011;
 * the worker lives.
 */
import { ReceivedMessage } from '../../api/message.ts';
import { GatewaySocket, type Route, type SocketExtras } from '../../api/socket.ts';
import type { Topics } from '../../api/topics.ts';
import type { WebSocketHandler } from '../../api/websocket.ts';
import { type Authentication, authCloseCodes, refusalTexts } from '../../auth/authentication.ts';
import { type RouteAuthSettings, routeAuthOf } from '../../config/auth.ts';
import { behaviorOf } from '../../config/core-records.ts';
import type { WebSocketSettings } from '../../config/websocket-options.ts';
import type { BehaviorOptions, Core, WebSocketEvents } from '../../core/core.ts';
import type { RequestHead } from '../../core/http.ts';
import type { Position } from '../../core/position.ts';
import { isThenable } from '../http/thenable.ts';
import { extensionsOffered } from './handshake.ts';
import { Lane, LaneTotals, type Waiting } from './lane.ts';
import { type Admission, firstToken, newerToken, type Session, Sessions, tokenMessageBytesMost } from './sessions.ts';

/** What is needed of the frontends' host (frontend.ts). */
export interface SocketHost {
  readonly core: Core;
  readonly topics: Topics;
  /** undefined: nobody is asked for a token. */
  readonly authentication: Authentication | undefined;
  addBehavior(options: BehaviorOptions): number;
  failed(context: object, sentence: string): void;
}

export interface RouteDefinition {
  /** Of its sockets, in reports: a path, as a rule. */
  readonly name: string;
  readonly handler: WebSocketHandler<unknown>;
  readonly settings: WebSocketSettings;
}

/** A route that sockets can be accepted for. */
export interface SettledRoute extends Route {
  readonly name: string;
  readonly settings: WebSocketSettings;
  /** What it asks of clients. */
  readonly auth: RouteAuthSettings;
  /** Tells it from a GatewaySocket. */
  readonly generation: undefined;
}

const { extrasOf, routeOf } = GatewaySocket;

export class SocketHandlers implements WebSocketEvents {
  readonly #host: SocketHost;
  readonly #core: Core;
  /**
   * By slot. A socket is good while its generation is that of the slot. A connection that no handler has seen yet has its route here
   * instead of a socket of its own: what only listens and waits costs no object.
   */
  readonly #sockets: (GatewaySocket | SettledRoute | undefined)[] = [];
  /** By their settings, which are those of one route each. */
  readonly #variants = new WeakMap<WebSocketSettings, SettledRoute>();
  /** Of handlers, and of those that decide on handshakes. */
  readonly totals: LaneTotals;
  readonly #sessions: Sessions | undefined;

  constructor(host: SocketHost) {
    this.#host = host;
    this.#core = host.core;
    this.totals = new LaneTotals(host.core);
    this.#sessions = host.authentication === undefined ? undefined : new Sessions(host.authentication, host.core);
  }

  /** err: Error when there are too many */
  add({ name, handler, settings }: RouteDefinition): SettledRoute {
    const index = this.#host.addBehavior(behaviorOf(settings, handler));
    const { authentication, topics } = this.#host;
    const auth = authentication === undefined ? false : routeAuthOf(settings.auth, authentication.settings);
    return { core: this.#core, topics, index, hold: this.#hold, name, handler, settings, auth, generation: undefined };
  }

  /** The same route with other settings. err: as of add() */
  variantOf(route: SettledRoute, settings: WebSocketSettings): SettledRoute {
    const known = this.#variants.get(settings);
    if (known !== undefined) return known;
    const variant = this.add({ ...route, settings });
    this.#variants.set(settings, variant);
    return variant;
  }

  /** Promises of handlers that have not settled: while there are some, the worker must give Bun its turns, and must not end if it can help it. */
  get pending(): number {
    return this.totals.pending;
  }

  /**
   * Accept a handshake. `headers`: of the answer; `data`: becomes `socket.data`; `extras` has its user, if it has one. Nothing comes of it when the
   * client has left.
   */
  accept(head: RequestHead, headers: string, route: SettledRoute, data?: unknown, extras?: SocketExtras): void {
    // The client may have left while a promise decided: its slot may be another's by now.
    if (!this.#core.isOpen(head.slot, head.generation)) return;
    const mayWait = data === undefined && extras === undefined && route.handler.open === undefined;
    const socket = mayWait ? undefined : new GatewaySocket(route, head.slot, head.generation, data, extras);
    if (socket?.user !== undefined && route.auth !== false) this.#sessions?.begin(socket, route.auth, socket.user);
    this.#answer(head, headers, route, socket);
  }

  /**
   * Accept the handshake of a client whose token is to be its first message, on a route that waits for that. `admission`: asked then, before `open`:
   * what it answers becomes `socket.data`, a Response refuses. ret: false: too many are waited for already, and the handshake is to be refused as 'full'
   */
  acceptWaiting(head: RequestHead, headers: string, route: SettledRoute, extras: SocketExtras | undefined, admission?: Admission): boolean {
    if (!this.#core.isOpen(head.slot, head.generation) || this.#sessions === undefined || route.auth === false) return true;
    const headBytes = admission === undefined ? 0 : head.raw.length;
    if (!this.#sessions.hasRoom(headBytes)) return false;
    const socket = new GatewaySocket(route, head.slot, head.generation, undefined, extras);
    this.#sessions.wait(socket, route.auth, headBytes, admission);
    this.#answer(head, headers, route, socket);
    return true;
  }

  #answer(head: RequestHead, headers: string, route: SettledRoute, socket: GatewaySocket | undefined): void {
    this.#leaveSlot(head.slot);
    this.#sockets[head.slot] = socket ?? route;
    const offer = route.settings.compression === false ? '' : extensionsOffered(head);
    this.#core.acceptUpgrade(head, headers, route.index, offer);
    if (socket?.user !== undefined) this.#host.topics.bindUser(socket, socket.user.id);
  }

  /** The client left while its handshake waited for an answer. */
  forget(slot: number): void {
    const entry = this.#sockets[slot];
    if (entry === undefined) return;
    if (entry.generation !== undefined && this.#core.isOpen(slot, entry.generation)) return;
    this.#leaveSlot(slot);
    this.#sockets[slot] = undefined;
  }

  /** What had this slot is over, maybe without a word. */
  #leaveSlot(slot: number): void {
    const entry = this.#sockets[slot];
    if (entry === undefined || entry.generation === undefined) return;
    const session = sessionOf(entry);
    if (session !== undefined) this.#sessions?.end(session);
  }

  // ---------------------------------------------------------------- events

  onMessage(slot: number, generation: number, isBinary: boolean, offset: number, bytes: number, large: Uint8Array | undefined): void {
    const socket = this.#find(slot, generation);
    if (socket === undefined || this.#core.hasLeft(slot)) return;
    const session = sessionOf(socket);
    if (session === undefined && routeOf(socket).handler.message === undefined) return;
    const message = new ReceivedMessage(this.#core, isBinary, offset, bytes, large);
    if (session !== undefined && (this.#isOfSession(session, message) || routeOf(socket).handler.message === undefined)) return;
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
    else if (isAdmitted(socket) && routeOf(socket).handler.open !== undefined)
      this.#run(socket, 'open', () => routeOf(socket).handler.open?.(socket));
  }

  onClose(slot: number, generation: number, code: number, reason: string): void {
    const socket = this.#find(slot, generation);
    if (socket === undefined) return;
    this.#sockets[slot] = undefined;
    extrasOf(socket)?.controller?.abort();
    const session = sessionOf(socket);
    if (session !== undefined) this.#sessions?.end(session);
    // Handlers do not know of it.
    if (!isAdmitted(socket)) return;
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

  onLost(slot: number, generation: number, topic: Uint8Array, position: Position): void {
    const socket = this.#find(slot, generation);
    if (socket === undefined || routeOf(socket).handler.lost === undefined || this.#core.hasLeft(slot)) return;
    const name = Buffer.from(topic).toString();
    this.#run(socket, 'lost', () => routeOf(socket).handler.lost?.(socket, name, position));
  }

  onPing(slot: number, generation: number, data: Uint8Array): void {
    this.#onControl(slot, generation, 'ping', data);
  }

  onPong(slot: number, generation: number, data: Uint8Array): void {
    this.#onControl(slot, generation, 'pong', data);
  }

  #onControl(slot: number, generation: number, event: 'ping' | 'pong', borrowed: Uint8Array): void {
    const socket = this.#find(slot, generation);
    if (socket === undefined || routeOf(socket).handler[event] === undefined || this.#core.hasLeft(slot) || !isAdmitted(socket)) return;
    const data = borrowed.slice();
    const lane = laneOf(socket);
    if (lane === undefined || lane.admit()) this.#run(socket, event, () => routeOf(socket).handler[event]?.(socket, data));
    else lane.wait({ event, data, byteLength: data.byteLength });
  }

  // ---------------------------------------------------------------- sockets

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

  // ---------------------------------------------------------------- tokens

  /** Whether a message is not for the handler, since it brings a token, or has to and does not. */
  #isOfSession(session: Session, message: ReceivedMessage): boolean {
    if (session.state === 'waiting') {
      this.#takeFirst(session, message);
      return true;
    }
    if (session.state !== 'admitted' || !session.route.refresh || message.isBinary || message.byteLength > tokenMessageBytesMost)
      return false;
    const token = newerToken(message.text());
    if (token === undefined) return false;
    void this.#sessions?.renewByMessage(session, token);
    return true;
  }

  #takeFirst(session: Session, message: ReceivedMessage): void {
    const { socket } = session;
    const token = message.isBinary || message.byteLength > tokenMessageBytesMost ? undefined : firstToken(message.text());
    this.#sessions?.verifying(session);
    if (token === undefined) {
      this.#host.authentication?.refused('malformed');
      socket.close(authCloseCodes.refused, 'the first message must be {"token":"..."}');
    } else {
      // As `open` that takes its time: what comes behind waits for it, in order and bounded.
      this.#goesOn(socket, 'open', this.#admit(session, token), undefined);
    }
  }

  async #admit(session: Session, token: string): Promise<void> {
    const { socket } = session;
    const verified = await this.#host.authentication?.verify(token);
    if (verified === undefined || !socket.isOpen) return;
    if (!verified.ok) {
      const { reason } = verified;
      socket.close(reason === 'unavailable' ? authCloseCodes.unavailable : authCloseCodes.refused, refusalTexts[reason]);
      return;
    }
    const { user } = verified;
    try {
      const data = await session.admission?.(user);
      if (!socket.isOpen) return;
      if (data instanceof Response) {
        socket.close(authCloseCodes.forbidden, 'not allowed');
        return;
      }
      socket.data = data;
    } catch (error) {
      this.#failed(socket, 'upgrade', error);
      return;
    }
    this.#sessions?.admitted(session, user);
    this.#host.topics.bindUser(session.socket, user.id);
    await routeOf(socket).handler.open?.(socket);
  }

  // ---------------------------------------------------------------- handlers

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
    // Its token was not believed, or it left before that was known.
    if (!isAdmitted(socket)) return;
    if (item instanceof ReceivedMessage) {
      const session = sessionOf(socket);
      if (session === undefined || !this.#isOfSession(session, item)) this.#callMessage(socket, item);
    } else this.#run(socket, item.event, () => routeOf(socket).handler[item.event]?.(socket, item.data));
  }

  #run(socket: GatewaySocket, event: string, call: () => unknown): void {
    try {
      const result = call();
      if (typeof result === 'object') this.#goesOn(socket, event, result, undefined);
    } catch (error) {
      this.#failed(socket, event, error);
    }
  }

  readonly #hold = (socket: GatewaySocket, until: Promise<unknown>): void => this.#goesOn(socket, 'subscribe', until, undefined);

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
    const lane = new Lane(socket, (routeOf(socket) as SettledRoute).settings.concurrency, this.totals);
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
    const { name } = routeOf(socket) as SettledRoute;
    this.#host.failed({ err: error, event, route: name }, `the ${event} handler of ${name} failed`);
    this.#core.close(socket.slot, socket.generation, 1011, '');
    GatewaySocket.leave(socket);
  }
}

function ignore(): void {}

/** undefined: no token has to do with it. */
function sessionOf(socket: GatewaySocket): Session | undefined {
  return extrasOf(socket)?.session as Session | undefined;
}

/** Whether handlers may know of it: not while its token is yet to come. */
function isAdmitted(socket: GatewaySocket): boolean {
  const session = sessionOf(socket);
  return session === undefined || session.state === 'admitted';
}

function laneOf(socket: GatewaySocket): Lane | undefined {
  return extrasOf(socket)?.lane as Lane | undefined;
}
