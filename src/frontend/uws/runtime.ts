/**
 * What all apps of a process share: the frontend that has its core to itself.
 *
 * Role: events of the core → the app, response or socket that they are about. Up: app.ts (listeners and routes register here), process.ts,
 * which makes it and drives it. Down: core.ts.
 */
import type { ConnectionEvents } from '../../core/connection.ts';
import type { BackendName, BehaviorOptions, Core, WebSocketEvents } from '../../core/core.ts';
import { type Handle, handleFor } from '../../core/handles.ts';
import type { RecordEvents, RequestRecordHandler } from '../../core/http.ts';
import type { Frontend, FrontendEntry, FrontendHost } from '../frontend.ts';
import { HttpResponse } from './response.ts';
import { deliverAbort, deliverBody, deliverWritable } from './response-events.ts';
import { nameOf, type ResponseHost } from './response-state.ts';
import type { AppTopics } from './topics.ts';
import {
  isOfApp,
  isSocketOf,
  openSocket,
  type SocketHost,
  type SocketRoute,
  tellControl,
  tellDrained,
  tellEnded,
  tellMessage,
  tellOpened,
  tellPublishDropped,
  type WebSocket,
} from './websocket.ts';

/** Where this process stands in a node of several workers; for who starts them, before the first app is made. */
export interface RuntimeOptions {
  readonly backend?: 'auto' | BackendName;
  /** -1: a core of its own. */
  readonly shmFd?: number;
  /** Worker i's inbox eventfd is `inboxFdFirst + i`. */
  readonly inboxFdFirst?: number;
  readonly workerIndex?: number;
  readonly workerCount?: number;
  readonly maxConnections?: number;
  /** Processes that share the memory of this machine, this one among them. Default 1. */
  readonly workers?: number;
  /**
   * Chooses the port of a listener that has asked for any. `opened`: its number among such listeners of the process; `port`: what the
   * kernel has offered. ret: the port that all workers use
   */
  readonly sharePort?: (opened: number, port: number) => number;
  /** Told of each listening socket from which connections are now taken. */
  readonly onListening?: (fd: number) => void;
}

/** Who is behind a listener. */
export interface ListenerOwner {
  /** In the place of the listener stands the server-name context alone. */
  readonly onRequest: RequestRecordHandler;
  onConnect(slot: number, generation: number): void;
  onDisconnect(slot: number, generation: number, isWebSocket: boolean): void;
  onServerName(name: string): void;
}

interface Closable {
  close(): void;
}

/** The core numbers behaviors and listeners in 8 bits; the last behavior stays free. */
const routesMax = 255;
const listenersMax = 256;

export class Runtime implements Frontend, RecordEvents, WebSocketEvents, ConnectionEvents, ResponseHost, SocketHost {
  readonly handle: Handle<ResponseHost> = handleFor<ResponseHost>(this);
  readonly core: Core;
  readonly options: UwsOptions;
  readonly #host: FrontendHost;
  readonly records: RecordEvents = this;
  readonly sockets: WebSocketEvents = this;
  readonly connections: ConnectionEvents = this;
  /** By slot: the request that is being answered, or the WebSocket. */
  readonly #entries: (HttpResponse | WebSocket | undefined)[] = [];
  /** By slot: whom its last request was for. */
  readonly #askers: ListenerOwner[] = [];
  /** By index of the listener. It stays when the listener closes: its connections live on. */
  readonly #owners: (ListenerOwner | undefined)[] = [];
  readonly #openListeners = new Map<number, Closable>();
  #nextListener = 0;
  #routes = 0;
  #apps = 0;
  #anyPorts = 0;
  /** Requests without an answer and promises of handlers: what they wait for comes through Bun's loop. */
  pending = 0;
  /** Slots that a WebSocket has taken over, while any app has a filter. */
  readonly #upgraded = new Set<number>();
  tracksUpgrades = false;
  /** Read the certificates of each app again. None throws: an app that cannot use the new ones keeps what it has. */
  readonly reloads = new Set<() => void>();
  /** What upgrade handlers are given as context. */
  readonly #contexts = new WeakMap<object, SocketRoute>();
  /** Handshakes to be accepted without compression. */
  readonly #uncompressed = new WeakSet<HttpResponse>();

  constructor(host: FrontendHost, options: UwsOptions) {
    this.#host = host;
    this.core = host.core;
    this.options = options;
  }

  /** Whether anything may still come: there is a listener, or a connection. */
  get isNeeded(): boolean {
    return this.#openListeners.size > 0 || this.core.connections() > 0;
  }

  // ---------------------------------------------------------------- apps, routes, listeners

  get workerCount(): number {
    return this.options.workerCount ?? 1;
  }

  /** ret: the number of an app, in the order of creation */
  addApp(): number {
    return this.#apps++;
  }

  /** ret: the index of a behavior for another WebSocket route. err: Error when there are too many */
  addBehavior(behavior: BehaviorOptions): number {
    if (this.#routes === routesMax) throw new Error(`a process has at most ${routesMax} WebSocket routes in all its apps`);
    this.#routes++;
    return this.#host.addBehavior(behavior);
  }

  /** `route.index`: as `addBehavior` has said */
  addRoute(route: SocketRoute): void {
    this.#contexts.set(route.context, route);
  }

  /** `port`: what the kernel has given to a listener that takes any. ret: the port to listen on in its place, or the same */
  shareAnyPort(port: number): number {
    return this.options.sharePort?.(this.#anyPorts++, port) ?? port;
  }

  /** ret: an index for a listener of this app. err: Error when all are taken */
  reserveListener(owner: ListenerOwner): number {
    const index = this.#freeListener(owner);
    this.#owners[index] = owner;
    return index;
  }

  /** It has not been used. */
  returnListener(index: number): void {
    this.#owners[index] = undefined;
  }

  /** Accept from `fd`. `index`: as reserved by its app; `socket`: what closes it */
  listen(fd: number, index: number, flags: number, socket: Closable): void {
    this.core.listen(fd, index, flags);
    this.#openListeners.set(index, socket);
    this.options.needsLoop();
    this.options.onListening?.(fd);
  }

  /** Close the listening sockets of all apps; connections live on. */
  closeListeners(): void {
    for (const socket of this.#openListeners.values()) socket.close();
  }

  /** An index that no app has had; or one that this app has left, where its older connections may be. */
  #freeListener(owner: ListenerOwner): number {
    const owners = this.#owners;
    for (let index = 0; index < listenersMax; index++) if (owners[index] === undefined) return index;
    // With no connection left, no event will name a listener that has closed.
    const isQuiet = this.core.connections() === 0;
    for (let tried = 0; tried < listenersMax; tried++) {
      // In turn, since the core is not done with one that has only just closed.
      const index = this.#nextListener++ % listenersMax;
      if (!this.#openListeners.has(index) && (isQuiet || owners[index] === owner)) return index;
    }
    throw new Error(`a process has at most ${listenersMax} listening sockets in all its apps, closed ones with connections included`);
  }

  unlisten(index: number): void {
    if (!this.#openListeners.delete(index)) return;
    this.core.unlisten(index);
  }

  /** End the connections of all listeners that an app has had. */
  terminate(owner: ListenerOwner): void {
    for (const [index, other] of this.#owners.entries()) if (other === owner) this.core.terminateListener(index);
  }

  /** The requests of an app that wait for an answer. */
  responsesOf(owner: ListenerOwner): HttpResponse[] {
    return this.#entries.filter((entry, slot) => entry instanceof HttpResponse && this.#askers[slot] === owner) as HttpResponse[];
  }

  /** The open WebSockets of an app. */
  socketsOf(topics: AppTopics): WebSocket[] {
    return this.#entries.filter((entry) => entry !== undefined && isOfApp(entry, topics)) as WebSocket[];
  }

  // ---------------------------------------------------------------- events of HTTP

  onRequestRecord(
    slot: number,
    generation: number,
    request: number,
    flags: number,
    numbers: number,
    offset: number,
    bytes: number,
    lengths: number,
  ): void {
    this.#owners[(numbers >>> 8) & 0xff]?.onRequest(slot, generation, request, flags, numbers, offset, bytes, lengths);
  }

  onBody(slot: number, request: number, bytes: Uint8Array, end: boolean): void {
    const response = this.#responseOf(slot, request);
    if (response !== undefined) deliverBody(response, bytes, end);
  }

  onAbort(slot: number, request: number): void {
    const response = this.#responseOf(slot, request);
    if (response !== undefined) deliverAbort(response);
  }

  onResponseDrain(slot: number, request: number): void {
    const response = this.#responseOf(slot, request);
    if (response !== undefined) deliverWritable(response);
  }

  #responseOf(slot: number, request: number): HttpResponse | undefined {
    const entry = this.#entries[slot];
    return entry instanceof HttpResponse && nameOf(entry).request === request ? entry : undefined;
  }

  /** From now on events of the slot are about this response, until it is over. */
  adopt(response: HttpResponse, slot: number, owner: ListenerOwner): void {
    this.#entries[slot] = response;
    this.#askers[slot] = owner;
    this.pending++;
  }

  over(response: HttpResponse): void {
    const { slot } = nameOf(response);
    if (this.#entries[slot] !== response) return;
    this.#entries[slot] = undefined;
    this.pending--;
  }

  // ---------------------------------------------------------------- events of WebSockets

  /** The handshake is accepted, and the socket opened, before this returns. */
  upgrade(
    response: HttpResponse,
    userData: unknown,
    _key: string,
    protocol: string,
    extensions: string,
    leadingHeaders: string,
    context: unknown,
  ): boolean {
    const { core } = this;
    const { slot, generation } = nameOf(response);
    const route = this.#contexts.get(context as object);
    if (route === undefined) {
      core.terminate(slot, generation);
      throw new Error('res.upgrade() needs the context that the upgrade handler was given');
    }
    const socket = this.#socketFor(route, slot, generation, userData);
    const offer = route.compresses && !this.#uncompressed.has(response) ? extensions : '';
    const chosen = protocol.split(',', 1)[0] as string;
    const trailing = chosen === '' ? '' : `Sec-WebSocket-Protocol: ${chosen}\r\n`;
    core.acceptUpgradeWith(nameOf(response), route.index, offer, leadingHeaders, trailing, true);
    core.flush();
    // The client may have left while a promise decided.
    if (!core.isOpen(slot, generation)) return false;
    this.#entries[slot] = socket;
    if (this.tracksUpgrades) this.#upgraded.add(slot);
    tellOpened(socket);
    return true;
  }

  #socketFor(route: SocketRoute, slot: number, generation: number, userData: unknown): WebSocket {
    try {
      return openSocket(route, slot, generation, userData);
    } catch (error) {
      // A property of the user data cannot be read.
      this.core.terminate(slot, generation);
      throw error;
    }
  }

  /** The client has said that it can compress, but cannot. */
  acceptUncompressed(response: HttpResponse): void {
    this.#uncompressed.add(response);
  }

  #socketOf(slot: number, generation: number): WebSocket | undefined {
    const entry = this.#entries[slot];
    return entry !== undefined && isSocketOf(entry, generation) ? entry : undefined;
  }

  onOpen(): void {
    // `upgrade` has opened it.
  }

  onMessage(slot: number, generation: number, isBinary: boolean, offset: number, bytes: number, large: Uint8Array | undefined): void {
    const socket = this.#socketOf(slot, generation);
    if (socket !== undefined) tellMessage(socket, isBinary, offset, bytes, large);
  }

  onClose(slot: number, generation: number, code: number, reason: string, cause: number): void {
    const socket = this.#socketOf(slot, generation);
    if (socket !== undefined) tellEnded(socket, code, reason, cause);
  }

  onDrain(slot: number, generation: number): void {
    const socket = this.#socketOf(slot, generation);
    if (socket !== undefined) tellDrained(socket);
  }

  onPing(slot: number, generation: number, data: Uint8Array): void {
    const socket = this.#socketOf(slot, generation);
    if (socket !== undefined) tellControl(socket, 'ping', data);
  }

  onPong(slot: number, generation: number, data: Uint8Array): void {
    const socket = this.#socketOf(slot, generation);
    if (socket !== undefined) tellControl(socket, 'pong', data);
  }

  onDropped(
    slot: number,
    generation: number,
    _count: number,
    message: { readonly bytes: Uint8Array; readonly isBinary: boolean } | undefined,
  ): void {
    const socket = this.#socketOf(slot, generation);
    if (socket !== undefined && message !== undefined) tellPublishDropped(socket, message.bytes, message.isBinary);
  }

  forget(slot: number): void {
    this.#entries[slot] = undefined;
  }

  // ---------------------------------------------------------------- events of connections

  onConnect(slot: number, generation: number, listener: number): void {
    // It may last have been that of a listener whose connections nobody asks for the end of.
    this.#upgraded.delete(slot);
    this.#owners[listener]?.onConnect(slot, generation);
  }

  onDisconnect(slot: number, generation: number, listener: number): void {
    this.#owners[listener]?.onDisconnect(slot, generation, this.#upgraded.delete(slot));
  }

  onServerName(slot: number, generation: number, listener: number, name: string): void {
    this.#owners[listener]?.onServerName(name);
    this.core.continueHandshake(slot, generation);
  }

  // ---------------------------------------------------------------- handlers

  /** A handler of the program has failed: said on stderr with its stack, and counted. */
  report(error: unknown, what: string): void {
    this.#host.failed({ err: error }, `${what} failed`);
  }

  watch(promise: PromiseLike<unknown>, onError: (error: unknown) => void): void {
    this.pending++;
    promise.then(
      () => {
        this.pending--;
      },
      (error: unknown) => {
        this.pending--;
        onError(error);
      },
    );
  }
}

export interface UwsOptions extends RuntimeOptions {
  /** Called when something may come again, so that the core must be driven. */
  needsLoop(): void;
}

/** Takes every request of its process, as records: it stands alone. */
export const uwsFrontend: FrontendEntry<UwsOptions, Runtime> = {
  name: 'uws',
  metrics: ['handler_errors'],
  create: (host, options) => new Runtime(host, options),
};
