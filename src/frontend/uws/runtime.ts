/**
 * The one core that all apps of a process share, and the loop that drives it.
 *
 * Role: events of the core → the app, response or socket that they are about. Up: app.ts (listeners and routes register here). Down:
 * core.ts, host/loop.ts. Made when the first app needs it; the loop runs, and keeps the process alive, while there is a listener or a
 * connection.
 */
import { inspect } from 'node:util';
import type { ConnectionEvents } from '../../core/connection.ts';
import { type BackendName, type BehaviorOptions, Core, type WebSocketEvents } from '../../core/core.ts';
import { type Handle, handleFor } from '../../core/handles.ts';
import type { RecordEvents, RequestRecordHandler } from '../../core/http.ts';
import { native } from '../../core/native.ts';
import { statIndex } from '../../core/stat-index.ts';
import { watchHostTimers } from '../../host/host-timers.ts';
import { Loop } from '../../host/loop.ts';
import { releaseMemoryWhenQuiet } from '../../host/release-memory.ts';
import { tellTopicsFull } from '../../host/topics-full.ts';
import { outputTo } from '../../output.ts';
import { unfinishedBytesOf } from '../../process/memory.ts';
import { headLimitName, headLimitOf } from './head-limit.ts';
import { deliverAbort, deliverBody, deliverWritable, HttpResponse, nameOf, type ResponseHost } from './response.ts';
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

/** As the original's: a process whose listeners have closed ends when its clients have been silent for so long. */
const keepAliveTimeoutMs = 10_000;
/** A program may have kept timers from before this module was loaded, which nobody notes: they are no later than this. */
const longestWaitMs = 50;

/** The original has no limit; what is far beyond any use must not fill the memory. */
const topicsPerSocket = 65_536;

const handlerErrors = statIndex('handler_errors');

let configured: RuntimeOptions = {};
let current: Runtime | undefined;

/** Set before the first app is made. */
export function configureRuntime(options: RuntimeOptions): void {
  if (current !== undefined)
    throw new Error('the runtime of uWebSockets.js programs is in use already: configure it before the first App()');
  configured = options;
}

export function runtime(): Runtime {
  current ??= new Runtime(configured);
  return current;
}

/** The runtime if any app has been made; for who ends the process or reloads certificates. */
export function activeRuntime(): Runtime | undefined {
  return current;
}

export class Runtime implements RecordEvents, WebSocketEvents, ConnectionEvents, ResponseHost, SocketHost {
  readonly handle: Handle<ResponseHost> = handleFor<ResponseHost>(this);
  readonly core: Core;
  readonly options: RuntimeOptions;
  readonly #wakeFd = native.eventfdCreate();
  #loop: Loop | undefined;
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
  #pending = 0;
  /** Slots that a WebSocket has taken over, while any app has a filter. */
  readonly #upgraded = new Set<number>();
  tracksUpgrades = false;
  /** Read the certificates of each app again. None throws: an app that cannot use the new ones keeps what it has. */
  readonly reloads = new Set<() => void>();
  /** What upgrade handlers are given as context. */
  readonly #contexts = new WeakMap<object, SocketRoute>();
  /** Handshakes to be accepted without compression. */
  readonly #uncompressed = new WeakSet<HttpResponse>();

  constructor(options: RuntimeOptions) {
    this.options = options;
    const headLimit = headLimitOf(process.env[headLimitName]);
    this.core = new Core({
      backend: options.backend ?? 'auto',
      wakeFd: this.#wakeFd,
      inboxFdFirst: options.inboxFdFirst ?? -1,
      shmFd: options.shmFd ?? -1,
      workerIndex: options.workerIndex ?? 0,
      workerCount: options.workerCount ?? 1,
      // The original has no limit: a program that wants one counts in onData.
      maxBodyBytes: Number.MAX_SAFE_INTEGER,
      numbers: {
        keepAliveTimeoutMs,
        topicsPerSocket,
        unfinishedKib: Math.ceil(unfinishedBytesOf('auto', options.workers ?? 1) / 1024),
        ...(options.maxConnections === undefined ? {} : { maxConnections: options.maxConnections }),
        // The original knows no other limit of a request's target.
        ...(headLimit === undefined ? {} : { maxHeadBytes: headLimit, maxTargetBytes: headLimit }),
      },
    });
    this.core.connectionEvents = this;
    this.core.onHandlerError = (error) => this.report(error, 'the frontend');
    releaseMemoryWhenQuiet(this.core);
    tellTopicsFull(this.core, undefined, (sentence) => void outputTo(2).write(`${sentence}\n`));
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
  nextRoute(): number {
    if (this.#routes === routesMax) throw new Error(`a process has at most ${routesMax} WebSocket routes in all its apps`);
    return this.#routes;
  }

  /** `route.index`: as `nextRoute` has said */
  addRoute(route: SocketRoute, behavior: BehaviorOptions): void {
    this.core.setBehavior(route.index, behavior);
    this.#contexts.set(route.context, route);
    this.#routes++;
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
    this.start();
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

  // ---------------------------------------------------------------- the loop

  get isRunning(): boolean {
    return this.#loop !== undefined;
  }

  start(): void {
    if (this.#loop !== undefined) return;
    const loop = new Loop({
      core: this.core,
      http: this,
      websocket: this,
      wakeFd: this.#wakeFd,
      timers: watchHostTimers(),
      longestWaitMs,
      pending: () => this.#pending,
      isNeeded: () => this.#openListeners.size > 0 || this.core.connections() > 0,
      onStopped: () => {
        this.#loop = undefined;
      },
    });
    this.#loop = loop;
    loop.run().catch((error: unknown) => this.report(error, 'the loop'));
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
    this.#pending++;
  }

  over(response: HttpResponse): void {
    const { slot } = nameOf(response);
    if (this.#entries[slot] !== response) return;
    this.#entries[slot] = undefined;
    this.#pending--;
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
    this.core.addStat(handlerErrors, 1);
    outputTo(2).write(`${what} failed: ${printable(error)}\n`);
  }

  watch(promise: PromiseLike<unknown>, onError: (error: unknown) => void): void {
    this.#pending++;
    promise.then(
      () => {
        this.#pending--;
      },
      (error: unknown) => {
        this.#pending--;
        onError(error);
      },
    );
  }
}

/** Anything can be thrown, also what throws when it is looked at. */
function printable(error: unknown): string {
  try {
    if (error instanceof Error) return String(error.stack ?? error.message);
    return typeof error === 'object' ? inspect(error) : String(error);
  } catch {
    return 'with an error that cannot be printed';
  }
}
