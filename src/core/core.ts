/**
 * The typed view of the native core: commands out, events in, one call for both.
 *
 * Role: the border between TypeScript and C. Up: src/worker (drives turns), src/frontend (handles events, queues commands).
 * Down: ffi/bindings.ts. Layouts come from ffi/layout.ts, which is generated from the C headers.
 *
 * Memory that the core owns is read through typed arrays made once; nothing is allocated per event but what a handler asks for.
 */
import { type CoreHandle, coreCalls, SystemError, type TlsFiles } from '../../ffi/bindings.ts';
import {
  backend,
  capacity,
  commandFlag,
  commandLayout,
  commandType,
  coreInfoLayout,
  eventLayout,
  listenerFlag,
  noSlot,
  result,
  slotLayout,
  slotStateMask,
  statsLayout,
} from '../../ffi/layout.ts';
import { addressText } from './address.ts';
import { bytesOf, CommandBatch, type Payload, roomOf, type Topic } from './command-batch.ts';
import type { ConnectionEvents, ConnectionName, ServerName } from './connection.ts';
import { EventBatch, type WebSocketEvents } from './event-batch.ts';
import { type Handle, handleFor } from './handles.ts';
import type { HttpCommands, HttpEvents, RequestHead, RequestName } from './http.ts';
import type { BusEvents, MailOutcome, NodeView } from './node.ts';
import type { Observer } from './observer.ts';
import {
  type AddressRange,
  type BackendName,
  type BehaviorOptions,
  type CoreOptions,
  encodeAddressRanges,
  encodeBehavior,
  encodeConfig,
} from './options.ts';
import { statIndex } from './stat-index.ts';
import { type TlsInfo, tlsInfo } from './tls-info.ts';

const slotWords = slotLayout.bytes / 4;

const slotGeneration = slotLayout.generation / 4;
const slotState = slotLayout.state / 4;
const slotOutBytes = slotLayout.outBytes / 4;
const slotOutUnflushed = slotLayout.outUnflushed / 4;
const slotHostWord = slotLayout.hostWord / 4;
/** Of a WebSocket: whole frames that wait until a message that is being sent in fragments is complete. */
const slotHeldBytes = slotLayout.heldBytes / 4;
/** Of a WebSocket: how many it is subscribed to. */
const slotTopics = slotLayout.topics / 4;
/** Of HTTP, in the lower half: the number of the latest request. */
const slotRequest = slotLayout.request / 4;

/** `enum rw_phase` within a slot's state. */
const phaseMask = slotStateMask.phase;
const phaseOpen = 1;
const leftByHost = slotStateMask.leftByHost;

/** Payloads from here on are sent at once, so that the caller learns whether they were taken. */
const eagerBytes = 16384;

/** Longest head of a frame that a server sends (RFC 6455 §5.2). */
const frameHeadBytes = 10;

/** Index of the counter that tells whether a send was dropped. */
const dropsBackpressure = statIndex('drops_backpressure');
const topicsOfWorker = statIndex('topics');

const emptyBytes = new Uint8Array(0);

export type { Payload, Topic } from './command-batch.ts';
export type { WebSocketEvents } from './event-batch.ts';
export type { BusEvents, MailOutcome, NodeView } from './node.ts';
export type { Observer } from './observer.ts';
export type { AddressRange, BackendName, BehaviorOptions, CoreOptions } from './options.ts';

/** What became of a queued send. */
export type Outcome = 'sent' | 'backpressure' | 'dropped' | 'closed';

export class Core implements HttpCommands {
  /** Stands for this core in what handlers are given. */
  readonly handle: Handle<Core> = handleFor<Core>(this);
  readonly #core: CoreHandle;
  readonly #commands: CommandBatch;
  readonly #events: EventBatch;
  readonly #slots: Uint32Array;
  readonly #stats: BigUint64Array;
  /** The same memory. */
  readonly #statWords: Uint32Array;
  readonly #interrupted: Uint32Array;
  /** One word that the supervisor changes; undefined: no shared memory. */
  readonly #viewWord: BigUint64Array | undefined;
  #viewSeen = 0n;
  #view: NodeView | undefined;
  readonly #topicsPerSocket: number;
  readonly #topics: number;
  /** Up to here a connection that keeps up takes what is queued for it, whatever its behavior. */
  #certainBytes = eagerBytes;
  /** Counts batches; wraps like the u32 it is compared with. A payload offset is good as long as this stays. */
  batch = 1;
  /** Told of connections and server names by listeners that ask for it. */
  connectionEvents: ConnectionEvents | undefined;
  /** Called by `publish`, when the message is on its way to the subscribers of this node. Payload and topic are borrowed for the call. */
  onPublish: ((topic: Topic, flags: number, payload: Payload) => void) | undefined;
  /** Called when a subscription is refused, because the socket or the worker has all the topics that it may have. */
  onTopicsFull: ((whose: 'socket' | 'worker', most: number) => void) | undefined;
  /** `interruptBy` was called. */
  isInterruptible = false;
  /** Called when an event handler throws, which is a defect of a frontend: those catch what their own handlers throw. */
  onHandlerError: (error: unknown) => void = reportError;
  /** Proxies may have told of clients. */
  #knowsProxies = false;
  readonly #payloadAddress: number;
  /** The payload area and, from `capacity.payloadBytes` on, `capacity.lendBytes` for the host's own use; for decoding text. */
  readonly payload: Buffer;
  /** The same memory; not a Buffer, whose slice() does not copy. */
  readonly payloadBytes: Uint8Array;
  readonly backend: BackendName;
  /** Why io_uring was not taken, or empty. */
  readonly note: string;
  readonly highWater: number;
  /** This process among those that have had its place; odd. 0: no shared memory. */
  readonly epoch: number;

  constructor(options: CoreOptions) {
    const { core, note } = coreCalls.create(encodeConfig(options));
    this.#core = core;
    this.note = note;
    this.highWater = options.numbers.responseHighWaterBytes ?? 262144;
    this.#topicsPerSocket = options.numbers.topicsPerSocket ?? capacity.topicsPerSocket;
    this.#topics = options.numbers.topics ?? capacity.topics;
    const info = new Uint8Array(coreInfoLayout.bytes);
    coreCalls.info(core, info);
    const view = new DataView(info.buffer);
    const address = (offset: number) => Number(view.getBigUint64(offset, true));
    this.#commands = new CommandBatch(
      core,
      coreCalls.view(address(coreInfoLayout.commands), capacity.commandsCapacity * commandLayout.bytes),
      coreCalls.view(address(coreInfoLayout.data), capacity.dataBytes),
    );
    this.#payloadAddress = address(coreInfoLayout.payload);
    this.payloadBytes = new Uint8Array(coreCalls.view(this.#payloadAddress, capacity.payloadBytes + capacity.lendBytes));
    this.payload = Buffer.from(this.payloadBytes.buffer);
    const records = coreCalls.view(address(coreInfoLayout.events), capacity.eventsCapacity * eventLayout.bytes);
    this.#events = new EventBatch(records, this.payloadBytes, this.payload);
    const slots = view.getUint32(coreInfoLayout.maxConnections, true);
    this.#slots = new Uint32Array(coreCalls.view(address(coreInfoLayout.slots), slots * slotLayout.bytes));
    this.#stats = new BigUint64Array(coreCalls.view(address(coreInfoLayout.stats), statsLayout.bytes));
    this.#statWords = new Uint32Array(this.#stats.buffer);
    this.#interrupted = new Uint32Array(coreCalls.view(address(coreInfoLayout.interrupted), 4));
    const viewAddress = address(coreInfoLayout.view);
    this.#viewWord = viewAddress === 0 ? undefined : new BigUint64Array(coreCalls.view(viewAddress, 8));
    this.epoch = view.getUint32(coreInfoLayout.epoch, true);
    this.backend = view.getUint32(coreInfoLayout.backend, true) === backend.ioUring ? 'io_uring' : 'epoll';
  }

  destroy(): void {
    coreCalls.destroy(this.#core);
  }

  // ---------------------------------------------------------------- set-up and life

  setBehavior(index: number, options: BehaviorOptions): void {
    coreCalls.behavior(this.#core, index, encodeBehavior(options));
    // A unit of a string takes up to three bytes in UTF-8.
    this.#certainBytes = Math.min(this.#certainBytes, Math.floor(options.maxBackpressureBytes / 3));
  }

  /**
   * Accept from the listening socket `fd`. `flags`: bits of `listenerFlag` in ffi/layout.ts; `name`: what heads of requests call the listener,
   * so that several may be one address.
   */
  listen(fd: number, index: number, flags = 0, name = index): void {
    this.#events.listeners[index] = name;
    if ((flags & (listenerFlag.proxyProtocol | listenerFlag.proxyRequired)) !== 0) this.#knowsProxies = true;
    coreCalls.listen(this.#core, fd, index, flags);
    this.onQueued?.();
  }

  /** Believe these about their clients: in the PROXY protocol and, as `proxyHeader` says, in headers. Connections that stand are not judged again. */
  setTrustedProxies(ranges: readonly AddressRange[]): void {
    if (ranges.length > 0) this.#knowsProxies = true;
    coreCalls.trustedProxies(this.#core, encodeAddressRanges(ranges), ranges.length);
  }

  setListenerFlags(index: number, flags: number): void {
    coreCalls.listenerFlags(this.#core, index, flags);
  }

  /** Stop accepting on one listener; its descriptor may be closed at once, its connections live on. */
  unlisten(index: number): void {
    coreCalls.unlisten(this.#core, index);
    this.onQueued?.();
  }

  /** End every connection of a listener at once. ret: how many */
  terminateListener(index: number): number {
    this.flush();
    const count = coreCalls.terminateListener(this.#core, index);
    this.onQueued?.();
    return count;
  }

  /** Make a listener speak TLS, or give it other certificates. Throws TlsError, and then leaves what it has. */
  setTls(index: number, files: TlsFiles): void {
    coreCalls.listenerTls(this.#core, index, files);
  }

  /** Add or replace the certificate of a server name. Throws TlsError, and then leaves what it has. */
  setServerName(index: number, serverName: ServerName): void {
    coreCalls.serverName(this.#core, index, serverName.name, serverName.context, serverName.files);
  }

  removeServerName(index: number, name: string): void {
    coreCalls.serverName(this.#core, index, name, 0, undefined);
  }

  /** Go on with a handshake that `onServerName` told of. */
  continueHandshake(slot: number, generation: number): void {
    this.#commands.push(commandType.serverName, 0, slot, generation, 0, 0, 0, 0, 0);
  }

  stopAccepting(): void {
    coreCalls.stopAccepting(this.#core);
  }

  /**
   * Finish requests, close WebSockets with `code` spread over `overMs`. Keep-alive connections close once they have been idle for `idleMs`;
   * until then requests that come are answered, with `Connection: close`.
   */
  drain(code: number, overMs: number, idleMs = 0): void {
    coreCalls.drain(this.#core, code, overMs, idleMs);
  }

  connections(): number {
    return coreCalls.connections(this.#core);
  }

  /** From now on `observer` is told of what passes, beside those before it. */
  observe(observer: Observer): void {
    this.#events.observers = [...(this.#events.observers ?? []), observer];
  }

  // ---------------------------------------------------------------- the node

  /** Told of this worker's interest and of mail. */
  get busEvents(): BusEvents | undefined {
    return this.#events.bus;
  }

  set busEvents(events: BusEvents | undefined) {
    this.#events.bus = events;
  }

  /** Which workers own topics; undefined: nobody has said so yet. Cheap; the same object as long as nothing changes. */
  view(): NodeView | undefined {
    const word = this.#viewWord?.[0] ?? 0n;
    if (word !== this.#viewSeen) {
      this.#viewSeen = word;
      const low = Number(word & 0xffff_ffffn);
      this.#view = word === 0n ? undefined : { generation: Number(word >> 32n), first: low >>> 16, count: low & 0xffff };
    }
    return this.#view;
  }

  /**
   * Send bytes to another worker of the node, behind what has been published before. Throws when `worker` is this one, or when they are more
   * than ever fit.
   */
  mail(worker: number, bytes: Uint8Array): MailOutcome {
    const code = this.#commands.direct(commandType.mail, 0, noSlot, 0, bytes, worker, 0, 0);
    if (code === result.stale) return 'gone';
    if (code === result.full) return 'full';
    if (code < 0) throw new SystemError(`cannot send ${bytes.byteLength} bytes to worker ${worker}`, code);
    return 'sent';
  }

  /** A counter of TypeScript's; `index`: what statIndex() says. */
  addStat(index: number, value: number): void {
    this.#stats[index] = (this.#stats[index] ?? 0n) + BigInt(value);
  }

  /** A gauge of the host's, below 2 ** 32. Allocates nothing. */
  setGauge(index: number, value: number): void {
    this.#statWords[index * 2] = value;
  }

  readStat(index: number): number {
    return Number(this.#stats[index] ?? 0n);
  }

  setStat(index: number, value: number): void {
    this.#stats[index] = BigInt(value);
  }

  // ---------------------------------------------------------------- the turn

  /** Called when a command is queued after a turn has ended: someone must run the next one. */
  get onQueued(): (() => void) | undefined {
    return this.#commands.onQueued;
  }

  set onQueued(callback: (() => void) | undefined) {
    this.#commands.onQueued = callback;
  }

  /** Hand over the queued commands, take the next events. ret: how many */
  turn(waitUs: number): number {
    const count = this.#commands.take();
    this.batch = (this.batch + 1) >>> 0;
    return coreCalls.turn(this.#core, count, waitUs);
  }

  /** How many events of input a turn is to bring, at most; the rest comes with the next. */
  pace(events: number): void {
    coreCalls.pace(this.#core, events);
  }

  /** The wait of a turn also ends when `fd` is readable. Nothing is read from it. Once. Throws SystemError, and then waits end as before. */
  interruptBy(fd: number): void {
    coreCalls.interruptBy(this.#core, fd);
    this.isInterruptible = true;
  }

  /** Whether the wait of the latest turn was ended by the descriptor of `interruptBy`. */
  get wasInterrupted(): boolean {
    return this.#interrupted[0] !== 0;
  }

  get hasCommands(): boolean {
    return !this.#commands.isEmpty;
  }

  /** Apply the queued commands now; payloads of the present batch stay. */
  flush(): void {
    this.#commands.flush();
  }

  /** ret: milliseconds until the core has something to do, -1 never, -2 it has already */
  sleep(): number {
    return coreCalls.sleep(this.#core);
  }

  wake(): void {
    coreCalls.wake(this.#core);
  }

  /** Give events [0..count) to their handlers. One that throws is reported, and the events after its own are still given. */
  dispatch(count: number, http: HttpEvents, websocket: WebSocketEvents): void {
    this.#commands.inTurn = true;
    let next = 0;
    try {
      while (next < count) {
        try {
          while (next < count) this.#events.deliver(next++, http, websocket, this.connectionEvents);
        } catch (error) {
          this.onHandlerError(error);
        }
      }
    } finally {
      this.#commands.inTurn = false;
    }
  }

  // ---------------------------------------------------------------- HTTP commands

  respond(head: RequestHead, status: number, headers: string, body: string | Uint8Array | null, close = false): void {
    this.respondWith(head, status, '', headers, body, close ? commandFlag.respondClose : 0);
  }

  /** A whole response. `statusText`: the status as it stands on the wire, such as '200 OK', or '' for the usual one; `flags`: RW_RESPOND_*. */
  respondWith(
    request: RequestName,
    status: number,
    statusText: string,
    headers: string,
    body: string | Uint8Array | null,
    flags: number,
  ): void {
    const commands = this.#commands;
    const { slot, generation } = request;
    const { observers } = this.#events;
    if (observers !== undefined) {
      for (const each of observers) each.responseBegan?.(request, status);
      for (const each of observers) each.responseEnded?.(request, true);
    }
    const head = withStatus(statusText, headers);
    const allFlags = statusText === '' ? flags : flags | commandFlag.respondStatusText;
    const room = head.length + (body === null ? 0 : roomOf(body));
    if (room > capacity.dataBytes || (typeof body !== 'string' && room > eagerBytes)) {
      const blob = Buffer.concat([Buffer.from(head, 'latin1'), body === null ? emptyBytes : bytesOf(body)]);
      commands.direct(commandType.respond, allFlags, slot, generation, blob, status, headers.length, request.request);
      return;
    }
    const offset = commands.room(room);
    let at = offset + commands.writeLatin1(head, offset);
    if (body !== null) at += commands.write(body, at);
    commands.push(commandType.respond, allFlags, slot, generation, offset, at - offset, status, headers.length, request.request);
  }

  respondBegin(head: RequestHead, status: number, headers: string, length: number, close = false): void {
    this.respondBeginWith(head, status, '', headers, length, close ? commandFlag.respondClose : 0);
  }

  /** Begin a streamed response. `length`: body bytes, or -1 when not known. As `respondWith` otherwise. */
  respondBeginWith(request: RequestName, status: number, statusText: string, headers: string, length: number, flags: number): void {
    const { observers } = this.#events;
    if (observers !== undefined) for (const each of observers) each.responseBegan?.(request, status);
    const sized = length >= 0;
    const high = sized ? Math.floor(length / 0x1_0000_0000) & 0xffff : 0;
    const low = sized ? length >>> 0 : 0;
    const allFlags = flags | (sized ? commandFlag.respondSized : 0) | (statusText === '' ? 0 : commandFlag.respondStatusText);
    const { slot, generation } = request;
    const head = withStatus(statusText, headers);
    this.#commands.headers(commandType.respondBegin, allFlags, slot, generation, head, status | (high << 16), low, request.request);
  }

  /** ret: bytes that wait for the client, these included */
  respondChunk(request: RequestName, chunk: string | Uint8Array): number {
    const { slot, generation } = request;
    this.#commands.payload(commandType.respondChunk, 0, slot, generation, chunk, request.request);
    // Applied at once, so that the answer is exact and a stream never runs ahead of its limit.
    this.flush();
    return this.#isOpen(slot, generation) ? (this.#slots[slot * slotWords + slotOutBytes] as number) : 0;
  }

  /** Queue what the client takes at once of a part of a sized body. ret: bytes accepted; with less than all, `onResponseDrain` follows */
  respondTry(request: RequestName, chunk: Uint8Array): number {
    const { slot, generation } = request;
    return Math.max(0, this.#commands.direct(commandType.respondTry, 0, slot, generation, chunk, 0, 0, request.request));
  }

  /** `close`: and the connection with it. */
  respondEnd(request: RequestName, close = false): void {
    const { observers } = this.#events;
    if (observers !== undefined) for (const each of observers) each.responseEnded?.(request, true);
    this.#commands.push(
      commandType.respondEnd,
      close ? commandFlag.respondClose : 0,
      request.slot,
      request.generation,
      0,
      0,
      0,
      0,
      request.request,
    );
  }

  respondAbort(request: RequestName): void {
    const { observers } = this.#events;
    if (observers !== undefined) for (const each of observers) each.responseEnded?.(request, false);
    this.#commands.push(commandType.respondAbort, 0, request.slot, request.generation, 0, 0, 0, 0, request.request);
  }

  bodyAck(request: RequestName, bytes: number, kept = false): void {
    this.#commands.push(
      commandType.bodyAck,
      kept ? commandFlag.bodyKept : 0,
      request.slot,
      request.generation,
      0,
      0,
      bytes,
      0,
      request.request,
    );
  }

  /** Set by the WebSocket frontend: what `upgrade` means is its business, the command is ours. */
  onUpgrade: ((head: RequestHead, headers: string, handler: number, data: unknown) => void) | undefined;

  upgrade(head: RequestHead, headers: string, handler: number, data: unknown): void {
    this.onUpgrade?.(head, headers, handler, data);
  }

  /** `offer`: the client's Sec-WebSocket-Extensions, '' to do without compression. */
  acceptUpgrade(head: RequestHead, headers: string, behavior: number, offer = ''): void {
    this.acceptUpgradeWith(head, behavior, offer, '', headers, false);
  }

  /** `leading` and `trailing`: header blocks before and behind the handshake's own fields. `quiet`: no `onOpen` follows. */
  acceptUpgradeWith(request: RequestName, behavior: number, offer: string, leading: string, trailing: string, quiet: boolean): void {
    const { slot, generation } = request;
    const { observers } = this.#events;
    if (observers !== undefined) for (const each of observers) each.socketOpened?.(request);
    const data = offer === '' && leading === '' ? trailing : offer + leading + trailing;
    const arg0 = behavior | (leading.length << 8);
    const flags = quiet ? commandFlag.upgradeQuiet : 0;
    this.#commands.headers(commandType.upgrade, flags, slot, generation, data, arg0, offer.length, request.request);
  }

  /**
   * The client's address: as proxies that are trusted have told it, else that of the socket. Of a request it is known until the next one of its
   * connection, which behind a proxy may be another client's.
   */
  remoteAddress(connection: ConnectionName | RequestName): { address: string; port: number } | undefined {
    const { slot, generation } = connection;
    if (this.#knowsProxies) {
      if ('request' in connection && !this.#isLatest(connection)) return undefined;
      const told = coreCalls.peer(this.#core, slot, generation, true);
      if (told !== undefined && told.address.length > 0) return { address: addressText(told.address), port: told.port };
    }
    return coreCalls.remoteAddress(this.#core, slot, generation);
  }

  /** Undefined when the connection has ended or is not over TLS. */
  tls({ slot, generation }: ConnectionName | RequestName): TlsInfo | undefined {
    const found = coreCalls.tls(this.#core, slot, generation);
    return found && tlsInfo(found.version, found.serverName, found.certificate);
  }

  #isLatest({ slot, request }: RequestName): boolean {
    const base = slot * slotWords;
    const isWebSocket = ((this.#slots[base + slotState] as number) & slotStateMask.websocket) !== 0;
    return isWebSocket || ((this.#slots[base + slotRequest] as number) & 0xffff) === request;
  }

  /** The peer's address in binary, of the socket or as a proxy told it; undefined once the connection is gone. */
  peer(slot: number, generation: number, proxied: boolean): { address: Uint8Array; port: number } | undefined {
    return coreCalls.peer(this.#core, slot, generation, proxied);
  }

  // ---------------------------------------------------------------- WebSocket commands

  /** Whether messages may be sent: not once either side has begun to close. */
  isOpen(slot: number, generation: number): boolean {
    return this.#isOpen(slot, generation) && !this.hasLeft(slot);
  }

  /** Whether this side has closed or terminated the connection that an event is about. */
  hasLeft(slot: number): boolean {
    return ((this.#slots[slot * slotWords + slotState] as number) & leftByHost) !== 0;
  }

  /** Bytes queued for this WebSocket, those of the present batch included. */
  buffered(slot: number, generation: number): number {
    if (!this.#isOpen(slot, generation)) return 0;
    this.flush();
    const base = slot * slotWords;
    return this.#isOpen(slot, generation)
      ? (this.#slots[base + slotOutBytes] as number) + (this.#slots[base + slotHeldBytes] as number)
      : 0;
  }

  /** Of them, those that the kernel has refused so far, which `onDrain` follows, or that wait for the end of a message in fragments. */
  heldBack(slot: number, generation: number): number {
    const queued = this.buffered(slot, generation);
    return queued === 0 ? 0 : queued - (this.#slots[slot * slotWords + slotOutUnflushed] as number);
  }

  /** Queue a message; `flags` are RW_SEND_*. */
  send(slot: number, generation: number, flags: number, payload: Payload): Outcome {
    if (!this.isOpen(slot, generation)) return 'closed';
    const length = typeof payload === 'string' ? payload.length : payload.byteLength;
    const exact = this.#mustSendExactly(slot, length);
    if (!exact) {
      this.#commands.payload(commandType.send, flags, slot, generation, payload, 0);
      return 'sent';
    }
    this.flush();
    const dropsBefore = this.#stats[dropsBackpressure];
    this.#commands.payload(commandType.send, flags, slot, generation, payload, 0);
    return this.#outcome(slot, generation, dropsBefore);
  }

  /** Queue a message whose payload lies in the event batch; nothing is copied in JS. */
  sendFromEvent(slot: number, generation: number, flags: number, offset: number, bytes: number): Outcome {
    if (!this.isOpen(slot, generation)) return 'closed';
    const exact = this.#mustSendExactly(slot, bytes);
    if (!exact) {
      this.#commands.push(commandType.send, flags | commandFlag.fromEvent, slot, generation, offset, bytes, 0, 0, 0);
      return 'sent';
    }
    this.flush();
    const dropsBefore = this.#stats[dropsBackpressure];
    this.#commands.push(commandType.send, flags | commandFlag.fromEvent, slot, generation, offset, bytes, 0, 0, 0);
    return this.#outcome(slot, generation, dropsBefore);
  }

  ping(slot: number, generation: number, data: Payload): void {
    this.#commands.payload(commandType.ping, 0, slot, generation, data, 0);
    this.#commands.queuedForAny += data.length + frameHeadBytes;
  }

  /** A ping whose outcome is known at once. `data`: at most 125 bytes. */
  pingNow(slot: number, generation: number, data: Payload): Outcome {
    if (!this.isOpen(slot, generation)) return 'closed';
    this.flush();
    const dropsBefore = this.#stats[dropsBackpressure];
    this.#commands.payload(commandType.ping, 0, slot, generation, data, 0);
    return this.#outcome(slot, generation, dropsBefore);
  }

  close(slot: number, generation: number, code: number, reason: string | Uint8Array): void {
    const commands = this.#commands;
    const offset = commands.room(roomOf(reason));
    commands.push(commandType.wsClose, 0, slot, generation, offset, commands.write(reason, offset), code, 0, 0);
    // Applied at once, so that `isOpen` and `send` tell of it from the next line on.
    this.flush();
  }

  terminate(slot: number, generation: number): void {
    this.#commands.push(commandType.terminate, 0, slot, generation, 0, 0, 0, 0, 0);
    this.flush();
  }

  pause(slot: number, generation: number): void {
    this.#commands.push(commandType.pause, 0, slot, generation, 0, 0, 0, 0, 0);
  }

  /** `window`: what the host takes before it wants to be asked again, as `RW_COMMAND_RESUME` says; 0: no end. */
  resume(slot: number, generation: number, window = 0): void {
    this.#commands.push(commandType.resume, 0, slot, generation, 0, 0, window, 0, 0);
  }

  /** ret: false: refused, or the connection is closing */
  subscribe(slot: number, generation: number, topic: Topic): boolean {
    if (!this.isOpen(slot, generation)) return false;
    const commands = this.#commands;
    const queued = commands.subscribes;
    const ofSocket = this.#slots[slot * slotWords + slotTopics] as number;
    // Only near a limit the core is asked; what is queued may be for any socket, and new.
    if (ofSocket + queued >= this.#topicsPerSocket || Number(this.#stats[topicsOfWorker]) + queued >= this.#topics)
      return this.subscribeNow(slot, generation, topic) >= 0;
    commands.payload(commandType.subscribe, 0, slot, generation, topic, 0);
    commands.subscribes = queued + 1;
    return true;
  }

  unsubscribe(slot: number, generation: number, topic: Topic): void {
    this.#commands.payload(commandType.unsubscribe, 0, slot, generation, topic, 0);
  }

  /** ret: 1 subscribed now, 0 it was already, negative: refused (a name too long, as many topics as may be, a connection that is gone) */
  subscribeNow(slot: number, generation: number, topic: Topic): number {
    const code = this.#commands.direct(commandType.subscribe, 0, slot, generation, bytesOf(topic), 0, 0, 0);
    if (code === result.full) {
      const isOfSocket = (this.#slots[slot * slotWords + slotTopics] as number) >= this.#topicsPerSocket;
      this.onTopicsFull?.(isOfSocket ? 'socket' : 'worker', isOfSocket ? this.#topicsPerSocket : this.#topics);
    }
    return code;
  }

  /** ret: 1 it was subscribed, 0 it was not, negative: refused */
  unsubscribeNow(slot: number, generation: number, topic: Topic): number {
    return this.#commands.direct(commandType.unsubscribe, 0, slot, generation, bytesOf(topic), 0, 0, 0);
  }

  isSubscribed(slot: number, generation: number, topic: Topic): boolean {
    if (topic.length === 0) return false;
    this.flush();
    return coreCalls.isSubscribed(this.#core, slot, generation, bytesOf(topic));
  }

  /** The names of a connection's topics, as bytes. */
  topicsOf(slot: number, generation: number): Uint8Array[] {
    this.flush();
    const list = coreCalls.topics(this.#core, slot, generation);
    const names: Uint8Array[] = [];
    for (let at = 0; list !== undefined && at < list.length; ) {
      const bytes = (list[at] as number) | ((list[at + 1] as number) << 8);
      names.push(list.subarray(at + 2, at + 2 + bytes));
      at += 2 + bytes;
    }
    return names;
  }

  /** Subscribers of a topic on this worker. */
  subscribers(topic: Topic): number {
    if (topic.length === 0) return 0;
    this.flush();
    return coreCalls.subscribers(this.#core, bytesOf(topic));
  }

  /** Whether anybody may be subscribed to a topic, on this worker or on another of the node. */
  isWanted(topic: Topic): boolean {
    if (topic.length === 0) return false;
    this.flush();
    return coreCalls.topicWanted(this.#core, bytesOf(topic));
  }

  /** Queue a publish; `exceptSlot` is left out, `noSlot` for nobody. */
  publish(topic: Topic, flags: number, payload: Payload, exceptSlot: number = noSlot, exceptGeneration = 0): void {
    this.#queuePublish(topic, flags, payload, exceptSlot, exceptGeneration);
    if (this.onPublish !== undefined) this.onPublish(topic, flags, payload);
  }

  /** Queue a publish that another node has made: for the subscribers of this worker and of the others of this node. */
  publishRemote(topic: Uint8Array, flags: number, payload: Uint8Array): void {
    this.#queuePublish(topic, flags | commandFlag.publishRemote, payload, noSlot, 0);
  }

  #queuePublish(topic: Topic, flags: number, payload: Payload, exceptSlot: number, exceptGeneration: number): void {
    const commands = this.#commands;
    const room = roomOf(topic) + roomOf(payload);
    if (room > capacity.dataBytes) {
      const name = bytesOf(topic);
      const blob = Buffer.concat([name, bytesOf(payload)]);
      commands.direct(commandType.publish, flags, exceptSlot, exceptGeneration, blob, name.byteLength, 0, 0);
      return;
    }
    const offset = commands.room(room);
    const topicBytes = commands.write(topic, offset);
    const payloadBytes = commands.write(payload, offset + topicBytes);
    commands.push(commandType.publish, flags, exceptSlot, exceptGeneration, offset, topicBytes + payloadBytes, topicBytes, 0, 0);
    commands.queuedForAny += payload.length + frameHeadBytes;
  }

  /** A payload of the present batch as an ArrayBuffer over the same memory: no copy, good until the next turn. */
  viewPayload(offset: number, bytes: number): ArrayBuffer {
    return coreCalls.view(this.#payloadAddress + offset, bytes);
  }

  // ---------------------------------------------------------------- exactness

  #isOpen(slot: number, generation: number): boolean {
    const base = slot * slotWords;
    return this.#slots[base + slotGeneration] === generation && ((this.#slots[base + slotState] as number) & phaseMask) === phaseOpen;
  }

  /**
   * Is there a doubt whether the core will take this send? While a connection keeps up there is none and the answer is 'sent'
   * without a call; with backpressure, or much queued within a tick, the commands are applied at once and the core is asked.
   * What is queued for a connection is noted in its slot, so that it costs no JS memory.
   */
  #mustSendExactly(slot: number, length: number): boolean {
    const base = slot * slotWords;
    const slots = this.#slots;
    const { stretch, queuedForAny } = this.#commands;
    const before = slots[base + slotHostWord] === stretch ? (slots[base + slotHostWord + 1] as number) : 0;
    const queued = before + length + frameHeadBytes;
    const applied = slots[base + slotOutBytes] as number;
    if ((slots[base + slotHeldBytes] as number) > 0) return true;
    if (applied !== slots[base + slotOutUnflushed] || applied + queuedForAny + queued > this.#certainBytes) return true;
    slots[base + slotHostWord] = stretch;
    slots[base + slotHostWord + 1] = queued;
    return false;
  }

  #outcome(slot: number, generation: number, dropsBefore: bigint | undefined): Outcome {
    this.flush();
    if (!this.#isOpen(slot, generation)) return 'closed';
    // The send was the only command applied since.
    if (this.#stats[dropsBackpressure] !== dropsBefore) return 'dropped';
    const base = slot * slotWords;
    return (this.#slots[base + slotOutBytes] as number) === (this.#slots[base + slotOutUnflushed] as number) ? 'sent' : 'backpressure';
  }
}

/** A status of its own goes before the header block, behind a byte that tells its length (RW_RESPOND_STATUS_TEXT). */
function withStatus(statusText: string, headers: string): string {
  return statusText === '' ? headers : String.fromCharCode(statusText.length) + statusText + headers;
}
