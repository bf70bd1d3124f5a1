/// <reference path="./buffer-methods.d.ts" />
/**
 * The typed view of the native core: commands out, events in, one call for both.
 *
 * Role: the border between TypeScript and C. Up: host/loop.ts (drives turns), src/frontend/ (handles events, queues commands). Down:
 * ffi/bindings.ts. What may be queued is in http-commands.ts, socket-commands.ts, topic-commands.ts and
 * log-commands.ts, on which this is built.
 */
import { coreCalls, SystemError, type TlsFiles } from '../../ffi/bindings.ts';
import { commandType, listenerFlag, noSlot, result } from '../../ffi/layout.ts';
import type { ConnectionEvents, ServerName } from './connection.ts';
import { ConnectionIds } from './connection-ids.ts';
import type { WebSocketEvents } from './event-batch.ts';
import { type Handle, handleFor } from './handles.ts';
import type { HttpEvents } from './http.ts';
import type { BusEvents, MailOutcome, NodeView } from './node.ts';
import type { Observer } from './observer.ts';
import { type AddressRange, type BehaviorOptions, encodeAddressRanges, encodeBehavior } from './options.ts';
import { PresenceCommandQueue } from './presence-commands.ts';

export type { Payload, Topic } from './command-batch.ts';
export type { WebSocketEvents } from './event-batch.ts';
export type { BusEvents, MailOutcome, NodeView, PublishResult } from './node.ts';
export type { Observer } from './observer.ts';
export type { AddressRange, BackendName, BehaviorOptions, CoreOptions } from './options.ts';
export type { Outcome } from './socket-commands.ts';

export class Core extends PresenceCommandQueue {
  /** Stands for this core in what handlers are given. */
  readonly handle: Handle<Core> = handleFor<Core>(this);
  readonly ids = new ConnectionIds();
  readonly #statWords = new Uint32Array(this.stats.buffer);
  #viewSeen = 0n;
  #view: NodeView | undefined;
  /** Counts batches; wraps like the u32 it is compared with. A payload offset is good as long as this stays. */
  batch = 1;
  /** Told of connections and server names by listeners that ask for it. */
  connectionEvents: ConnectionEvents | undefined;
  /** `interruptBy` was called. */
  isInterruptible = false;
  /** Called when an event handler throws, which is a defect of a frontend: those catch what their own handlers throw. */
  onHandlerError: (error: unknown) => void = reportError;

  destroy(): void {
    coreCalls.destroy(this.pointer);
  }

  // ---------------------------------------------------------------- set-up and life

  setBehavior(index: number, options: BehaviorOptions): void {
    coreCalls.behavior(this.pointer, index, encodeBehavior(options));
    // A unit of a string takes up to three bytes in UTF-8.
    this.certainBytes = Math.min(this.certainBytes, Math.floor((options.maxBackpressureBytes ?? 0) / 3));
  }

  /**
   * Accept from the listening socket `fd`. `flags`: bits of `listenerFlag` in ffi/layout.ts; `name`: what heads of requests call the listener,
   * so that several may be one address.
   */
  listen(fd: number, index: number, flags = 0, name = index): void {
    this.events.listeners[index] = name;
    if ((flags & (listenerFlag.proxyProtocol | listenerFlag.proxyRequired)) !== 0) this.knowsProxies = true;
    coreCalls.listen(this.pointer, fd, index, flags);
    this.onQueued?.();
  }

  /** Believe these about their clients: in the PROXY protocol and, as `proxyHeader` says, in headers. Connections that stand are not judged again. */
  setTrustedProxies(ranges: readonly AddressRange[]): void {
    if (ranges.length > 0) this.knowsProxies = true;
    coreCalls.trustedProxies(this.pointer, encodeAddressRanges(ranges), ranges.length);
  }

  setListenerFlags(index: number, flags: number): void {
    coreCalls.listenerFlags(this.pointer, index, flags);
  }

  /** Stop accepting on one listener; its descriptor may be closed at once, its connections live on. */
  unlisten(index: number): void {
    coreCalls.unlisten(this.pointer, index);
    this.onQueued?.();
  }

  /** End every connection of a listener at once. ret: how many */
  terminateListener(index: number): number {
    this.flush();
    const count = coreCalls.terminateListener(this.pointer, index);
    this.onQueued?.();
    return count;
  }

  /** Make a listener speak TLS, or give it other certificates. Throws TlsError, and then leaves what it has. */
  setTls(index: number, files: TlsFiles): void {
    coreCalls.listenerTls(this.pointer, index, files);
  }

  /** Add or replace the certificate of a server name. Throws TlsError, and then leaves what it has. */
  setServerName(index: number, serverName: ServerName): void {
    coreCalls.serverName(this.pointer, index, serverName.name, serverName.context, serverName.files);
  }

  removeServerName(index: number, name: string): void {
    coreCalls.serverName(this.pointer, index, name, 0, undefined);
  }

  /** Go on with a handshake that `onServerName` told of. */
  continueHandshake(slot: number, generation: number): void {
    this.commands.push(commandType.serverName, 0, slot, generation, 0, 0, 0, 0, 0);
  }

  stopAccepting(): void {
    coreCalls.stopAccepting(this.pointer);
  }

  /**
   * Finish requests, close WebSockets with `code` spread over `overMs`. Keep-alive connections close once they have been idle for `idleMs`;
   * until then requests that come are answered, with `Connection: close`.
   */
  drain(code: number, overMs: number, idleMs = 0): void {
    coreCalls.drain(this.pointer, code, overMs, idleMs);
  }

  connections(): number {
    return coreCalls.connections(this.pointer);
  }

  /** From now on `observer` is told of what passes, beside those before it. */
  observe(observer: Observer): void {
    this.events.observers = [...(this.events.observers ?? []), observer];
  }

  // ---------------------------------------------------------------- the node

  /** Told of this worker's interest and of mail. */
  get busEvents(): BusEvents | undefined {
    return this.events.bus;
  }

  set busEvents(events: BusEvents | undefined) {
    this.events.bus = events;
  }

  /** Which workers own topics; undefined: nobody has said so yet. Cheap; the same object as long as nothing changes. */
  view(): NodeView | undefined {
    const word = this.viewWord?.[0] ?? 0n;
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
    const code = this.commands.direct(commandType.mail, 0, noSlot, 0, bytes, worker, 0, 0);
    if (code === result.stale) return 'gone';
    if (code === result.full) return 'full';
    if (code < 0) throw new SystemError(`cannot send ${bytes.byteLength} bytes to worker ${worker}`, code);
    return 'sent';
  }

  /** A counter of TypeScript's; `index`: what statIndex() says. */
  addStat(index: number, value: number): void {
    this.stats[index] = (this.stats[index] ?? 0n) + BigInt(value);
  }

  /** A gauge of the host's, below 2 ** 32. Allocates nothing. */
  setGauge(index: number, value: number): void {
    this.#statWords[index * 2] = value;
  }

  readStat(index: number): number {
    return Number(this.stats[index] ?? 0n);
  }

  setStat(index: number, value: number): void {
    this.stats[index] = BigInt(value);
  }

  // ---------------------------------------------------------------- the turn

  /** Called when a command is queued after a turn has ended: someone must run the next one. */
  get onQueued(): (() => void) | undefined {
    return this.commands.onQueued;
  }

  set onQueued(callback: (() => void) | undefined) {
    this.commands.onQueued = callback;
  }

  /** Hand over the queued commands, take the next events. ret: how many */
  turn(waitUs: number): number {
    const count = this.commands.take();
    this.batch = (this.batch + 1) >>> 0;
    return coreCalls.turn(this.pointer, count, waitUs);
  }

  /** How many events of input a turn is to bring, at most; the rest comes with the next. */
  pace(events: number): void {
    coreCalls.pace(this.pointer, events);
  }

  /** The wait of a turn also ends when `fd` is readable. Nothing is read from it. Once. Throws SystemError, and then waits end as before. */
  interruptBy(fd: number): void {
    coreCalls.interruptBy(this.pointer, fd);
    this.isInterruptible = true;
  }

  /** Whether the wait of the latest turn was ended by the descriptor of `interruptBy`. */
  get wasInterrupted(): boolean {
    return this.interrupted[0] !== 0;
  }

  get hasCommands(): boolean {
    return !this.commands.isEmpty;
  }

  /** ret: milliseconds until the core has something to do, -1 never, -2 it has already */
  sleep(): number {
    return coreCalls.sleep(this.pointer);
  }

  wake(): void {
    coreCalls.wake(this.pointer);
  }

  /** Give events [0..count) to their handlers. One that throws is reported, and the events after its own are still given. */
  dispatch(count: number, http: HttpEvents, websocket: WebSocketEvents): void {
    this.commands.inTurn = true;
    let next = 0;
    try {
      while (next < count) {
        try {
          while (next < count) this.events.deliver(next++, http, websocket, this.connectionEvents);
        } catch (error) {
          this.onHandlerError(error);
        }
      }
    } finally {
      this.commands.inTurn = false;
    }
  }

  /** A payload of the present batch as an ArrayBuffer over the same memory: no copy, good until the next turn. */
  viewPayload(offset: number, bytes: number): ArrayBuffer {
    return coreCalls.view(this.payloadAddress + offset, bytes);
  }
}
