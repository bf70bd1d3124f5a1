/**
 * WebSocket: one connection as a program sees it, and what happens to it.
 *
 * Role: calls become commands of the core; events of the core, given to the functions at the end, become calls of the program's handlers.
 * Up: programs, and runtime.ts. Down: core.ts, topics.ts.
 *
 * There is one such object per connection, which is all that a connection costs in JavaScript, so it has few fields. The program's user
 * data become properties of it, under any names. It is dead from the beginning of the close handler on: every call but getUserData throws.
 */
import { closeCause, commandFlag, result } from '../../core/abi.ts';
import type { Core, Outcome } from '../../core/core.ts';
import { controlBytesMax, isCloseCode } from '../../core/frame-rules.ts';
import { behind, type Handle } from '../../core/handles.ts';
import { inspection, shown } from '../../core/inspection.ts';
import { addressText } from './address.ts';
import type { SocketHandlers } from './behavior.ts';
import { giveBack, lend, lentBytes, placeInPayload, shortBytesMax } from './lend.ts';
import { runMicrotasks } from './microtasks.ts';
import { bytesOfArgument, callbackOf, textOrBytes } from './strings.ts';
import type { AppTopics } from './topics.ts';

/** What the sockets of one route share. */
export interface SocketRoute {
  /** Stands for it in its sockets, which a program may print or serialise. */
  readonly handle: Handle<SocketRoute>;
  readonly core: Core;
  /** What its upgrade handler is given for `res.upgrade()`: opaque. */
  readonly context: object;
  /** Its behavior in the core. */
  readonly index: number;
  readonly pattern: string;
  readonly handlers: SocketHandlers;
  readonly topics: AppTopics;
  readonly maxBackpressureBytes: number;
  readonly closesOnBackpressure: boolean;
  readonly compresses: boolean;
  readonly host: SocketHost;
}

export interface SocketHost {
  /** A handler has failed. Must not throw. */
  report(error: unknown, what: string): void;
  /** A handler is async: its promise must not be left unheard. */
  watch(promise: PromiseLike<unknown>, onError: (error: unknown) => void): void;
  /** No event is wanted any more for this connection. */
  forget(slot: number): void;
}

type Text = string | ArrayBuffer | SharedArrayBuffer | ArrayBufferView;
type PublishArguments = readonly [topic: Text, message: Text, isBinary?: boolean, compress?: boolean];

const deadSocket = 'Invalid access of closed uWS.WebSocket/SSLWebSocket.';

/** What the original tells the close handler when no close frame has come. */
const goneReason = 'Received TCP FIN before WebSocket close frame';
const inflationReason = 'Received too big message, or other inflation error';
const idleReason = 'WebSocket timed out from inactivity';

/** What `send` answers. */
const sendStatus = { backpressure: 0, success: 1, dropped: 2 } as const;

/** RFC 6455 §7.4.1: stands for the lack of a close frame. */
const abnormalClosure = 1006;
const internalError = 1011;

// Symbols, so that Object.keys() shows what the program has attached and nothing else.
const routeOf = Symbol('route');
const slotOf = Symbol('slot');
const generationOf = Symbol('generation');
const topicsOf = Symbol('topics');

const View = class WebSocket {};

export class WebSocket {
  /** undefined: dead. */
  declare [routeOf]: Handle<SocketRoute> | undefined;
  declare [slotOf]: number;
  declare [generationOf]: number;
  /** undefined: has never subscribed; true: has; a map of its topics where subscriptions are told. */
  declare [topicsOf]: Map<string, Uint8Array> | true | undefined;

  constructor(route: SocketRoute, slot: number, generation: number) {
    this[routeOf] = route.handle;
    this[slotOf] = slot;
    this[generationOf] = generation;
    this[topicsOf] = undefined;
  }

  // ---------------------------------------------------------------- sending

  send(message: Text, isBinary?: boolean, compress?: boolean): number {
    return send(this, message, (isBinary ? 0 : commandFlag.sendText) | (compress ? commandFlag.sendCompress : 0));
  }

  sendFirstFragment(message: Text, isBinary?: boolean, compress?: boolean): number {
    const flags = commandFlag.sendFirst | (isBinary ? 0 : commandFlag.sendText) | (compress ? commandFlag.sendCompress : 0);
    return send(this, message, flags);
  }

  sendFragment(message: Text, compress?: boolean): number {
    return send(this, message, commandFlag.sendContinue | (compress ? commandFlag.sendCompress : 0));
  }

  sendLastFragment(message: Text, compress?: boolean): number {
    return send(this, message, commandFlag.sendContinue | commandFlag.sendLast | (compress ? commandFlag.sendCompress : 0));
  }

  ping(message?: Text): number {
    const route = alive(this);
    const bytes = bytesOfArgument(message);
    if (bytes.byteLength > controlBytesMax) throw new Error(`a ping has at most ${controlBytesMax} bytes (RFC 6455 §5.5)`);
    return statusOf(this, route, route.core.pingNow(this[slotOf], this[generationOf], bytes), bytes, false);
  }

  /** Bytes that the network has not taken yet. */
  getBufferedAmount(): number {
    const { core, maxBackpressureBytes } = alive(this);
    // Once it is gone nothing drains: a program that sends until there is backpressure must see some.
    return core.isOpen(this[slotOf], this[generationOf]) ? core.heldBack(this[slotOf], this[generationOf]) : maxBackpressureBytes;
  }

  /** All that a turn sends goes out together in any case. */
  cork(callback: () => unknown): this {
    alive(this);
    callbackOf(callback)();
    return this;
  }

  // ---------------------------------------------------------------- ending

  /** Sends a close frame. The close handler is called before this returns. */
  end(code?: number, shortMessage?: Text): void {
    alive(this);
    endSocket(this, Number(code ?? 0) >>> 0, textOrBytes(shortMessage));
  }

  /** Ends the connection without a close frame. The close handler is called before this returns. */
  close(): void {
    alive(this);
    closeSocket(this);
  }

  // ---------------------------------------------------------------- topics

  subscribe(topic: Text): boolean {
    const { core, topics } = alive(this);
    const name = topics.nameOf(textOrBytes(topic));
    if (leaving.has(this)) return false;
    const added = core.subscribeNow(this[slotOf], this[generationOf], name);
    if (added === result.invalid || added === result.full) return false;
    this[topicsOf] ??= topics.isCounting ? new Map() : true;
    if (added === 1 && topics.isCounting) joined(this, name);
    // Being subscribed already is no failure.
    return true;
  }

  unsubscribe(topic: Text): boolean {
    const { core, topics } = alive(this);
    const name = topics.nameOf(textOrBytes(topic));
    if (leaving.has(this)) return false;
    const removed = core.unsubscribeNow(this[slotOf], this[generationOf], name) === 1;
    if (removed && topics.isCounting) left(this, name);
    return removed;
  }

  isSubscribed(topic: Text): boolean {
    const { core, topics } = alive(this);
    return core.isSubscribed(this[slotOf], this[generationOf], topics.nameOf(textOrBytes(topic)));
  }

  getTopics(): string[] {
    const { core, topics } = alive(this);
    return core.topicsOf(this[slotOf], this[generationOf]).map((name) => Buffer.from(topics.topicOf(name)).toString());
  }

  /** To all subscribers of the topic but this socket. ret: whether there are any */
  publish(...call: PublishArguments): boolean {
    const { topics } = alive(this);
    const [topic, message, isBinary, compress] = checkedPublish(call);
    // As the original has it, only who has ever subscribed to anything may publish.
    if (this[topicsOf] === undefined) return false;
    return topics.publish(topic, message, isBinary, compress, this[slotOf], this[generationOf]);
  }

  // ---------------------------------------------------------------- the peer

  getRemoteAddress(): ArrayBuffer {
    return peerOf(this).address.slice().buffer as ArrayBuffer;
  }

  getRemoteAddressAsText(): ArrayBuffer {
    return addressText(peerOf(this).address);
  }

  getRemotePort(): number {
    return peerOf(this).port;
  }

  getUserData(): this {
    return this;
  }

  /** What is printed: the program's own properties, and not all that hangs on the route. */
  [inspection](): object {
    return shown(this, View, Object.fromEntries(Object.entries(this)));
  }
}

const noBytes = new Uint8Array(0);
/** Sockets that have ended and whose subscription handlers are being told: still alive to them, but only for asking and publishing. */
const leaving = new Set<WebSocket>();
const nobody = { address: noBytes, port: 0 };

/** The arguments of a publish, of a socket or an app, as the core takes them. */
export function checkedPublish(call: PublishArguments): [topic: string | Uint8Array, message: string | Uint8Array, unknown, unknown] {
  if (call.length < 2) throw new Error('Function requires at least 2 arguments.');
  return [textOrBytes(call[0]), textOrBytes(call[1]), call[2], call[3]];
}

/** ret: undefined when it is dead, or when there is no socket */
function routeBehind(socket: Partial<WebSocket>): SocketRoute | undefined {
  const handle = socket[routeOf];
  return handle === undefined ? undefined : behind(handle);
}

function alive(socket: WebSocket): SocketRoute {
  const route = routeBehind(socket);
  if (route === undefined) throw new Error(deadSocket);
  return route;
}

function peerOf(socket: WebSocket): { readonly address: Uint8Array; readonly port: number } {
  return alive(socket).core.peer(socket[slotOf], socket[generationOf], false) ?? nobody;
}

function endSocket(socket: WebSocket, code: number, reason: string | Uint8Array): void {
  const route = routeBehind(socket);
  if (route === undefined || leaving.has(socket)) return;
  const hasCode = isCloseCode(code);
  route.core.close(socket[slotOf], socket[generationOf], hasCode ? code : 0, hasCode ? reason.slice(0, controlBytesMax) : '');
  tellClosed(socket, route, code, typeof reason === 'string' ? Buffer.from(reason) : reason);
}

/** End the connection without a close frame, unless the socket is dead. */
export function closeSocket(socket: WebSocket): void {
  const route = routeBehind(socket);
  if (route === undefined || leaving.has(socket)) return;
  route.core.terminate(socket[slotOf], socket[generationOf]);
  tellClosed(socket, route, abnormalClosure, noBytes);
}

Object.defineProperty(WebSocket, 'name', { value: 'uWS.WebSocket' });

function send(socket: WebSocket, message: Text, flags: number): number {
  const route = alive(socket);
  const { core } = route;
  const slot = socket[slotOf];
  const generation = socket[generationOf];
  const allFlags = flags | commandFlag.sendOwn;
  const place = typeof message === 'string' ? -1 : placeInPayload(core, message);
  let outcome: Outcome;
  if (place < 0) {
    outcome = core.send(slot, generation, allFlags, textOrBytes(message));
  } else {
    const bytes = lentBytes();
    outcome = core.sendFromEvent(slot, generation, allFlags, place, bytes);
    // Its handler may write into it after this.
    if (bytes > shortBytesMax) core.flush();
  }
  return outcome === 'sent' ? sendStatus.success : statusOf(socket, route, outcome, message, !(flags & commandFlag.sendText));
}

function statusOf(socket: WebSocket, route: SocketRoute, outcome: Outcome, message: Text, isBinary: boolean): number {
  if (outcome === 'sent') return sendStatus.success;
  if (outcome === 'backpressure') return sendStatus.backpressure;
  if (outcome === 'dropped' || route.closesOnBackpressure) tellDropped(socket, route, textOrBytes(message), isBinary);
  return sendStatus.dropped;
}

// ------------------------------------------------------------------ events, for the host

/** `userData`: its own properties become the socket's. */
export function openSocket(route: SocketRoute, slot: number, generation: number, userData: unknown): WebSocket {
  const socket = new WebSocket(route, slot, generation);
  if (typeof userData === 'object' && userData !== null) Object.assign(socket, userData);
  return socket;
}

export function tellOpened(socket: WebSocket): void {
  const open = routeBehind(socket)?.handlers.open;
  if (open !== undefined) run(socket, 'open', () => open(socket));
}

/** Whether an event of this connection is about this socket. */
export function isSocketOf(entry: object, generation: number): entry is WebSocket {
  return (entry as Partial<WebSocket>)[generationOf] === generation && (entry as Partial<WebSocket>)[routeOf] !== undefined;
}

/** The app has begun to count subscribers. */
export function countTopics(socket: WebSocket): void {
  const route = routeBehind(socket);
  if (route === undefined || socket[topicsOf] !== true) return;
  const names = route.core.topicsOf(socket[slotOf], socket[generationOf]);
  for (const name of names) route.topics.found(keyOf(name), name);
  socket[topicsOf] = new Map(names.map((name) => [keyOf(name), name]));
}

/** Whether it is an open socket of the app that has these topics. */
export function isOfApp(entry: object, topics: AppTopics): entry is WebSocket {
  return routeBehind(entry as Partial<WebSocket>)?.topics === topics;
}

/** A message that lies in the payload area, or in memory of its own. */
export function tellMessage(socket: WebSocket, isBinary: boolean, offset: number, bytes: number, large: Uint8Array | undefined): void {
  const route = routeBehind(socket) as SocketRoute;
  const { message } = route.handlers;
  if (message === undefined) return;
  // Memory that the core frees is copied: a handler may transfer what it gets, and keep it.
  const buffer = large === undefined ? lend(route.core, offset, bytes) : copyOf(large);
  try {
    const value = message(socket, buffer, isBinary);
    if (value !== undefined) watch(socket, route, 'message', value);
  } catch (error) {
    failed(socket, route, 'message', error);
  }
  runMicrotasks();
  giveBack(buffer);
}

export function tellDrained(socket: WebSocket): void {
  const drain = routeBehind(socket)?.handlers.drain;
  if (drain === undefined) return;
  run(socket, 'drain', () => drain(socket));
  runMicrotasks();
}

/** `data` is borrowed for the call; the program may keep its copy. */
export function tellControl(socket: WebSocket, kind: 'ping' | 'pong', data: Uint8Array): void {
  const handler = routeBehind(socket)?.handlers[kind];
  if (handler === undefined) return;
  run(socket, kind, () => handler(socket, copyOf(data)));
  runMicrotasks();
}

/** A message that a publish has dropped. */
export function tellPublishDropped(socket: WebSocket, message: Uint8Array, isBinary: boolean): void {
  tellDropped(socket, routeBehind(socket) as SocketRoute, message, isBinary, runMicrotasks);
}

/** The connection has ended without a call of the program. */
export function tellEnded(socket: WebSocket, code: number, reason: string, cause: number): void {
  const route = routeBehind(socket) as SocketRoute;
  const [ownCode, ownReason] = originalClose(code, reason, cause);
  tellClosed(socket, route, ownCode, Buffer.from(ownReason), runMicrotasks);
}

/** What the original says of such an end. The core answers faults of the peer with a close frame where the original just hangs up. */
function originalClose(code: number, reason: string, cause: number): [code: number, reason: string] {
  switch (cause) {
    case closeCause.peerGone:
    case closeCause.backpressure:
      return [abnormalClosure, goneReason];
    case closeCause.protocolError:
      return [abnormalClosure, 'Received invalid WebSocket frame'];
    case closeCause.invalidUtf8:
      return [abnormalClosure, 'Received invalid UTF-8'];
    case closeCause.tooBig:
      return [abnormalClosure, 'Received too big message'];
    case closeCause.invalidDeflate:
      return [abnormalClosure, inflationReason];
    case closeCause.idle:
    case closeCause.writeTimeout:
      return [abnormalClosure, idleReason];
    case closeCause.lifetime:
      return [1000, 'please reconnect'];
    default:
      return [code, reason];
  }
}

// ------------------------------------------------------------------ handlers

/** What follows a handler that a call of the program has called: nothing, see microtasks.ts. */
function nothing(): void {}

/** Subscriptions first, then the close handler, which is the last to see the socket. */
function tellClosed(socket: WebSocket, route: SocketRoute, code: number, reason: Uint8Array, afterEach = nothing): void {
  route.host.forget(socket[slotOf]);
  const topics = socket[topicsOf];
  if (topics instanceof Map) {
    leaving.add(socket);
    for (const [key, name] of topics) {
      tellSubscription(socket, route, name, route.topics.left(key), -1);
      afterEach();
    }
    leaving.delete(socket);
  }
  if (topics !== undefined) leaveAll(socket, route.core);
  socket[routeOf] = undefined;
  const { close } = route.handlers;
  if (close === undefined) return;
  const buffer = copyOf(reason);
  guard(route, socket, 'close', () => close(socket, code, buffer));
  afterEach();
  giveBack(buffer);
}

/** The core forgets topics only with the connection, which may wait for the client's answer to a close frame. */
function leaveAll(socket: WebSocket, core: Core): void {
  const slot = socket[slotOf];
  const generation = socket[generationOf];
  for (const name of core.topicsOf(slot, generation)) core.unsubscribeNow(slot, generation, name);
  socket[topicsOf] = undefined;
}

function tellDropped(socket: WebSocket, route: SocketRoute, message: string | Uint8Array, isBinary: boolean, after = nothing): void {
  const { dropped } = route.handlers;
  if (dropped === undefined) return;
  const buffer = copyOf(typeof message === 'string' ? Buffer.from(message) : message);
  guard(route, socket, 'dropped', () => dropped(socket, buffer, isBinary));
  after();
  giveBack(buffer);
}

function joined(socket: WebSocket, name: Uint8Array): void {
  const route = routeBehind(socket) as SocketRoute;
  const key = keyOf(name);
  const topics = socket[topicsOf];
  if (topics instanceof Map) topics.set(key, name);
  tellSubscription(socket, route, name, route.topics.joined(key, name), 1);
}

function left(socket: WebSocket, name: Uint8Array): void {
  const route = routeBehind(socket) as SocketRoute;
  const key = keyOf(name);
  const topics = socket[topicsOf];
  if (topics instanceof Map) topics.delete(key);
  tellSubscription(socket, route, name, route.topics.left(key), -1);
}

/** `change`: 1 or -1, that has led to `count`. */
function tellSubscription(socket: WebSocket, route: SocketRoute, name: Uint8Array, count: number, change: number): void {
  const { subscription } = route.handlers;
  if (subscription === undefined) return;
  const topic = copyOf(route.topics.topicOf(name));
  guard(route, socket, 'subscription', () => subscription(socket, topic, count, count - change));
}

function keyOf(name: Uint8Array): string {
  return Buffer.from(name.buffer, name.byteOffset, name.byteLength).latin1Slice(0, name.byteLength);
}

/** In memory of its own, whatever the source. */
function copyOf(bytes: Uint8Array): ArrayBuffer {
  return new Uint8Array(bytes).buffer;
}

function run(socket: WebSocket, event: string, call: () => unknown): void {
  const route = routeBehind(socket);
  if (route !== undefined) guard(route, socket, event, call);
}

function guard(route: SocketRoute, socket: WebSocket, event: string, call: () => unknown): void {
  try {
    const value = call();
    if (value !== undefined) watch(socket, route, event, value);
  } catch (error) {
    failed(socket, route, event, error);
  }
}

function watch(socket: WebSocket, route: SocketRoute, event: string, value: unknown): void {
  if (value instanceof Promise) route.host.watch(value, (error) => failed(socket, route, event, error));
}

/** A handler has failed: it is reported, and the socket closes. */
function failed(socket: WebSocket, route: SocketRoute, event: string, error: unknown): void {
  route.host.report(error, `the ${event} handler of ${route.pattern}`);
  endSocket(socket, internalError, '');
}
