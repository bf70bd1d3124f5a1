/**
 * The typed view of the native core: commands out, events in, one call for both.
 *
 * Role: the border between TypeScript and C. Up: src/worker (drives turns), src/frontend (handles events, queues commands).
 * Down: ffi/bindings.ts. Layouts come from ffi/layout.ts, which is generated from the C headers.
 *
 * Memory that the core owns is read through typed arrays made once; nothing is allocated per event but what a handler asks for.
 */
import { type CoreHandle, coreCalls } from '../../ffi/bindings.ts';
import {
  backend,
  capacity,
  commandFlag,
  commandLayout,
  commandType,
  coreInfoLayout,
  eventFlag,
  eventLayout,
  eventType,
  noSlot,
  slotLayout,
  slotStateMask,
  statsLayout,
} from '../../ffi/layout.ts';
import type { HttpCommands, HttpEvents, RequestHead } from './http.ts';
import { type BackendName, type BehaviorOptions, type CoreOptions, encodeBehavior, encodeConfig } from './options.ts';

const eventWords = eventLayout.bytes / 4;
const commandWords = commandLayout.bytes / 4;
const slotWords = slotLayout.bytes / 4;

const slotGeneration = slotLayout.generation / 4;
const slotState = slotLayout.state / 4;
const slotOutBytes = slotLayout.outBytes / 4;
const slotOutUnflushed = slotLayout.outUnflushed / 4;
const slotHostWord = slotLayout.hostWord / 4;

/** `enum rw_phase` within a slot's state. */
const phaseMask = slotStateMask.phase;
const phaseOpen = 1;
const leftByHost = slotStateMask.leftByHost;

/** Payloads from here on are sent at once, so that the caller learns whether they were taken. */
const eagerBytes = 16384;

/** Longest head of a frame that a server sends (RFC 6455 §5.2). */
const frameHeadBytes = 10;

/** Index of the counter that tells whether a send was dropped. */
const dropsBackpressure = statsLayout.fields.findIndex((field) => field.name === 'drops_backpressure');

const emptyBytes = new Uint8Array(0);

export type { BackendName, BehaviorOptions, CoreOptions } from './options.ts';

/** What the core tells about WebSockets. Payloads lie at `core.payload[offset..offset+bytes)`, or in `large`, until the next turn. */
export interface WebSocketEvents {
  onOpen(slot: number, generation: number): void;
  onMessage(slot: number, generation: number, isBinary: boolean, offset: number, bytes: number, large: Uint8Array | undefined): void;
  onClose(slot: number, generation: number, code: number, reason: string): void;
  onDrain(slot: number, generation: number): void;
  onPing(slot: number, generation: number, data: Uint8Array): void;
  onPong(slot: number, generation: number, data: Uint8Array): void;
  onDropped(slot: number, generation: number, count: number): void;
}

/** What became of a queued send. */
export type Outcome = 'sent' | 'backpressure' | 'dropped' | 'closed';

export type Payload = string | Uint8Array;

export class Core implements HttpCommands {
  readonly #core: CoreHandle;
  readonly #commands: Uint32Array;
  readonly #data: Buffer;
  readonly #events: Uint32Array;
  readonly #slots: Uint32Array;
  readonly #stats: BigUint64Array;
  readonly #record = new Uint8Array(commandLayout.bytes);
  readonly #recordWords = new Uint32Array(this.#record.buffer);
  #count = 0;
  #used = 0;
  /** Counts how often commands were applied; what a slot notes as queued belongs to one such stretch. Wraps. */
  #stretch = 1;
  /** Bytes queued in this stretch that may go to any connection: publishes and pings. */
  #queuedForAny = 0;
  /** Up to here a connection that keeps up takes what is queued for it, whatever its behavior. */
  #certainBytes = eagerBytes;
  /** Counts batches; wraps like the u32 it is compared with. A payload offset is good as long as this stays. */
  batch = 1;
  /** Called when a command is queued after a turn has ended: someone must run the next one. */
  onQueued: (() => void) | undefined;
  #inTurn = false;
  /** Called when an event handler throws, which is a defect of a frontend: those catch what their own handlers throw. */
  onHandlerError: (error: unknown) => void = reportError;
  /** The payload area, for decoding text. */
  readonly payload: Buffer;
  /** The same memory; not a Buffer, whose slice() does not copy. */
  readonly payloadBytes: Uint8Array;
  readonly backend: BackendName;
  /** Why io_uring was not taken, or empty. */
  readonly note: string;
  readonly highWater: number;

  constructor(options: CoreOptions) {
    const { core, note } = coreCalls.create(encodeConfig(options));
    this.#core = core;
    this.note = note;
    this.highWater = options.numbers.responseHighWaterBytes ?? 262144;
    const info = new Uint8Array(coreInfoLayout.bytes);
    coreCalls.info(core, info);
    const view = new DataView(info.buffer);
    const address = (offset: number) => Number(view.getBigUint64(offset, true));
    this.#events = new Uint32Array(coreCalls.view(address(coreInfoLayout.events), capacity.eventsCapacity * eventLayout.bytes));
    this.#commands = new Uint32Array(coreCalls.view(address(coreInfoLayout.commands), capacity.commandsCapacity * commandLayout.bytes));
    this.payloadBytes = new Uint8Array(coreCalls.view(address(coreInfoLayout.payload), capacity.payloadBytes));
    this.payload = Buffer.from(this.payloadBytes.buffer);
    this.#data = Buffer.from(coreCalls.view(address(coreInfoLayout.data), capacity.dataBytes));
    const slots = view.getUint32(coreInfoLayout.maxConnections, true);
    this.#slots = new Uint32Array(coreCalls.view(address(coreInfoLayout.slots), slots * slotLayout.bytes));
    this.#stats = new BigUint64Array(coreCalls.view(address(coreInfoLayout.stats), statsLayout.bytes));
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

  /** Accept from the listening socket `fd`; `index` comes back in request heads. */
  listen(fd: number, index: number): void {
    coreCalls.listen(this.#core, fd, index);
  }

  stopAccepting(): void {
    coreCalls.stopAccepting(this.#core);
  }

  /** Finish requests, close WebSockets with `code` spread over `overMs`. */
  drain(code: number, overMs: number): void {
    coreCalls.drain(this.#core, code, overMs);
  }

  connections(): number {
    return coreCalls.connections(this.#core);
  }

  /** Counters written by the host, by name: `handlerErrors`, `loopLagUs`, `loopLagMaxUs`. */
  addStat(index: number, value: number): void {
    this.#stats[index] = (this.#stats[index] ?? 0n) + BigInt(value);
  }

  setStat(index: number, value: number): void {
    this.#stats[index] = BigInt(value);
  }

  // ---------------------------------------------------------------- the turn

  /** Hand over the queued commands, take the next events. ret: how many */
  turn(waitUs: number): number {
    const count = this.#count;
    this.#begin();
    this.batch = (this.batch + 1) >>> 0;
    return coreCalls.turn(this.#core, count, waitUs);
  }

  get hasCommands(): boolean {
    return this.#count > 0;
  }

  /** Apply the queued commands now; payloads of the present batch stay. */
  flush(): void {
    if (this.#count === 0) return;
    coreCalls.flush(this.#core, this.#count);
    this.#begin();
  }

  /** All commands are with the core: both areas are free. */
  #begin(): void {
    this.#count = 0;
    this.#used = 0;
    this.#queuedForAny = 0;
    this.#stretch = (this.#stretch + 1) >>> 0;
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
    this.#inTurn = true;
    let next = 0;
    try {
      while (next < count) {
        try {
          while (next < count) this.#deliver(next++ * eventWords, http, websocket);
        } catch (error) {
          this.onHandlerError(error);
        }
      }
    } finally {
      this.#inTurn = false;
    }
  }

  /** Give the event at words[at..] to its handler. */
  #deliver(at: number, http: HttpEvents, websocket: WebSocketEvents): void {
    const words = this.#events;
    const head = words[at] as number;
    const flags = head >>> 16;
    const slot = words[at + 1] as number;
    const generation = words[at + 2] as number;
    const offset = words[at + 3] as number;
    const bytes = words[at + 4] as number;
    const arg0 = words[at + 5] as number;
    const arg1 = words[at + 6] as number;
    switch (head & 0xffff) {
      case eventType.message: {
        const large = flags & eventFlag.large ? largePayload(arg0, arg1, bytes) : undefined;
        websocket.onMessage(slot, generation, (flags & eventFlag.wsBinary) !== 0, offset, bytes, large);
        break;
      }
      case eventType.request:
        http.onRequest({
          slot,
          generation,
          request: arg1 >>> 16,
          listener: words[at + 7] as number,
          flags,
          method: arg1 & 0xffff,
          raw: this.payload.latin1Slice(offset, offset + bytes),
          hostBytes: arg0 >>> 16,
          targetBytes: arg0 & 0xffff,
        });
        break;
      case eventType.body:
        http.onBody(slot, arg1 >>> 16, this.payloadBytes.subarray(offset, offset + bytes), (flags & eventFlag.bodyEnd) !== 0);
        break;
      case eventType.abort:
        http.onAbort(slot, arg1 >>> 16);
        break;
      case eventType.responseDrain:
        http.onResponseDrain(slot, arg1 >>> 16);
        break;
      case eventType.open:
        websocket.onOpen(slot, generation);
        break;
      case eventType.close:
        websocket.onClose(slot, generation, arg0, bytes === 0 ? '' : this.payload.utf8Slice(offset, offset + bytes));
        break;
      case eventType.wsDrain:
        websocket.onDrain(slot, generation);
        break;
      case eventType.ping:
        websocket.onPing(slot, generation, this.payloadBytes.subarray(offset, offset + bytes));
        break;
      case eventType.pong:
        websocket.onPong(slot, generation, this.payloadBytes.subarray(offset, offset + bytes));
        break;
      case eventType.dropped:
        websocket.onDropped(slot, generation, arg0);
        break;
      default: // NONE: a place the core reserved and did not need
    }
  }

  // ---------------------------------------------------------------- HTTP commands

  respond(head: RequestHead, status: number, headers: string, body: string | Uint8Array | null, close = false): void {
    const flags = close ? commandFlag.respondClose : 0;
    const bodyRoom = body === null ? 0 : typeof body === 'string' ? body.length * 3 : body.byteLength;
    const room = headers.length + bodyRoom;
    if (room > capacity.dataBytes || (typeof body !== 'string' && room > eagerBytes)) {
      const blob = Buffer.concat([Buffer.from(headers, 'latin1'), typeof body === 'string' ? Buffer.from(body) : (body ?? emptyBytes)]);
      this.#sendLarge(commandType.respond, flags, head.slot, head.generation, blob, status, headers.length, head.request);
      return;
    }
    const offset = this.#room(room);
    this.#data.latin1Write(headers, offset, headers.length);
    const at = offset + headers.length;
    let bytes = headers.length;
    if (typeof body === 'string') {
      if (body.length > 0) bytes += this.#data.utf8Write(body, at, bodyRoom);
    } else if (body !== null) {
      this.#data.set(body, at);
      bytes += bodyRoom;
    }
    this.#push(commandType.respond, flags, head.slot, head.generation, offset, bytes, status, headers.length, head.request);
  }

  respondBegin(head: RequestHead, status: number, headers: string, length: number): void {
    const sized = length >= 0;
    const high = sized ? Math.floor(length / 0x1_0000_0000) & 0xffff : 0;
    const low = sized ? length >>> 0 : 0;
    this.#headerCommand(commandType.respondBegin, sized ? commandFlag.respondSized : 0, head, headers, status | (high << 16), low);
  }

  respondChunk(head: RequestHead, chunk: string | Uint8Array): number {
    this.#payloadCommand(commandType.respondChunk, 0, head.slot, head.generation, chunk, head.request);
    // Applied at once, so that the answer is exact and a stream never runs ahead of its limit.
    this.flush();
    return this.#isOpen(head.slot, head.generation) ? (this.#slots[head.slot * slotWords + slotOutBytes] as number) : 0;
  }

  respondEnd(head: RequestHead): void {
    this.#push(commandType.respondEnd, 0, head.slot, head.generation, 0, 0, 0, 0, head.request);
  }

  respondAbort(head: RequestHead): void {
    this.#push(commandType.respondAbort, 0, head.slot, head.generation, 0, 0, 0, 0, head.request);
  }

  bodyAck(head: RequestHead, bytes: number): void {
    this.#push(commandType.bodyAck, 0, head.slot, head.generation, 0, 0, bytes, 0, head.request);
  }

  /** Set by the WebSocket frontend: what `upgrade` means is its business, the command is ours. */
  onUpgrade: ((head: RequestHead, headers: string, handler: number, data: unknown) => void) | undefined;

  upgrade(head: RequestHead, headers: string, handler: number, data: unknown): void {
    this.onUpgrade?.(head, headers, handler, data);
  }

  acceptUpgrade(head: RequestHead, headers: string, behavior: number): void {
    this.#headerCommand(commandType.upgrade, 0, head, headers, behavior, 0);
  }

  remoteAddress(connection: { readonly slot: number; readonly generation: number }): { address: string; port: number } | undefined {
    return coreCalls.remoteAddress(this.#core, connection.slot, connection.generation);
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

  /** Bytes queued for this connection, those of the present batch included. */
  buffered(slot: number, generation: number): number {
    if (!this.#isOpen(slot, generation)) return 0;
    this.flush();
    return this.#isOpen(slot, generation) ? (this.#slots[slot * slotWords + slotOutBytes] as number) : 0;
  }

  /** Queue a message; `flags` are RW_SEND_*. */
  send(slot: number, generation: number, flags: number, payload: Payload): Outcome {
    if (!this.isOpen(slot, generation)) return 'closed';
    const length = typeof payload === 'string' ? payload.length : payload.byteLength;
    const exact = this.#mustSendExactly(slot, length);
    if (!exact) {
      this.#payloadCommand(commandType.send, flags, slot, generation, payload, 0);
      return 'sent';
    }
    this.flush();
    const dropsBefore = this.#stats[dropsBackpressure];
    this.#payloadCommand(commandType.send, flags, slot, generation, payload, 0);
    return this.#outcome(slot, generation, dropsBefore);
  }

  /** Queue a message whose payload lies in the event batch; nothing is copied in JS. */
  sendFromEvent(slot: number, generation: number, flags: number, offset: number, bytes: number): Outcome {
    if (!this.isOpen(slot, generation)) return 'closed';
    const exact = this.#mustSendExactly(slot, bytes);
    if (!exact) {
      this.#push(commandType.send, flags | commandFlag.fromEvent, slot, generation, offset, bytes, 0, 0, 0);
      return 'sent';
    }
    this.flush();
    const dropsBefore = this.#stats[dropsBackpressure];
    this.#push(commandType.send, flags | commandFlag.fromEvent, slot, generation, offset, bytes, 0, 0, 0);
    return this.#outcome(slot, generation, dropsBefore);
  }

  ping(slot: number, generation: number, data: Payload): void {
    this.#payloadCommand(commandType.ping, 0, slot, generation, data, 0);
    this.#queuedForAny += data.length + frameHeadBytes;
  }

  close(slot: number, generation: number, code: number, reason: string): void {
    const room = reason.length * 3;
    const offset = this.#room(room);
    const bytes = room === 0 ? 0 : this.#data.utf8Write(reason, offset, room);
    this.#push(commandType.wsClose, 0, slot, generation, offset, bytes, code, 0, 0);
    // Applied at once, so that `isOpen` and `send` tell of it from the next line on.
    this.flush();
  }

  terminate(slot: number, generation: number): void {
    this.#push(commandType.terminate, 0, slot, generation, 0, 0, 0, 0, 0);
    this.flush();
  }

  pause(slot: number, generation: number): void {
    this.#push(commandType.pause, 0, slot, generation, 0, 0, 0, 0, 0);
  }

  resume(slot: number, generation: number): void {
    this.#push(commandType.resume, 0, slot, generation, 0, 0, 0, 0, 0);
  }

  subscribe(slot: number, generation: number, topic: string): void {
    this.#payloadCommand(commandType.subscribe, 0, slot, generation, topic, 0);
  }

  unsubscribe(slot: number, generation: number, topic: string): void {
    this.#payloadCommand(commandType.unsubscribe, 0, slot, generation, topic, 0);
  }

  isSubscribed(slot: number, generation: number, topic: string): boolean {
    if (topic === '') return false;
    this.flush();
    return coreCalls.isSubscribed(this.#core, slot, generation, Buffer.from(topic));
  }

  /** Subscribers of a topic on this worker. */
  subscribers(topic: string): number {
    if (topic === '') return 0;
    this.flush();
    return coreCalls.subscribers(this.#core, Buffer.from(topic));
  }

  /** Queue a publish; `exceptSlot` is left out, `noSlot` for nobody. */
  publish(topic: string, flags: number, payload: Payload, exceptSlot: number = noSlot, exceptGeneration = 0): void {
    const topicRoom = topic.length * 3;
    const payloadRoom = typeof payload === 'string' ? payload.length * 3 : payload.byteLength;
    if (topicRoom + payloadRoom > capacity.dataBytes) {
      const name = Buffer.from(topic);
      const blob = Buffer.concat([name, typeof payload === 'string' ? Buffer.from(payload) : payload]);
      this.#sendLarge(commandType.publish, flags, exceptSlot, exceptGeneration, blob, name.byteLength, 0, 0);
      return;
    }
    const offset = this.#room(topicRoom + payloadRoom);
    const topicBytes = this.#data.utf8Write(topic, offset, topicRoom);
    const payloadBytes = this.#write(payload, offset + topicBytes, payloadRoom);
    this.#push(commandType.publish, flags, exceptSlot, exceptGeneration, offset, topicBytes + payloadBytes, topicBytes, 0, 0);
    this.#queuedForAny += payload.length + frameHeadBytes;
  }

  // ---------------------------------------------------------------- queueing

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
    const before = slots[base + slotHostWord] === this.#stretch ? (slots[base + slotHostWord + 1] as number) : 0;
    const queued = before + length + frameHeadBytes;
    const applied = slots[base + slotOutBytes] as number;
    if (applied !== slots[base + slotOutUnflushed] || applied + this.#queuedForAny + queued > this.#certainBytes) return true;
    slots[base + slotHostWord] = this.#stretch;
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

  #room(bytes: number): number {
    if (this.#used + bytes > capacity.dataBytes) this.flush();
    return this.#used;
  }

  #write(payload: Payload, offset: number, room: number): number {
    if (typeof payload === 'string') return room === 0 ? 0 : this.#data.utf8Write(payload, offset, room);
    this.#data.set(payload, offset);
    return payload.byteLength;
  }

  #payloadCommand(type: number, flags: number, slot: number, generation: number, payload: Payload, request: number): void {
    const room = typeof payload === 'string' ? payload.length * 3 : payload.byteLength;
    if (room > capacity.dataBytes) {
      this.#sendLarge(type, flags, slot, generation, typeof payload === 'string' ? Buffer.from(payload) : payload, 0, 0, request);
      return;
    }
    const offset = this.#room(room);
    this.#push(type, flags, slot, generation, offset, this.#write(payload, offset, room), 0, 0, request);
  }

  /** A command whose data is a header block. */
  #headerCommand(type: number, flags: number, head: RequestHead, headers: string, arg0: number, arg1: number): void {
    if (headers.length > capacity.dataBytes) {
      this.#sendLarge(type, flags, head.slot, head.generation, Buffer.from(headers, 'latin1'), arg0, arg1, head.request);
      return;
    }
    const offset = this.#room(headers.length);
    this.#data.latin1Write(headers, offset, headers.length);
    this.#push(type, flags, head.slot, head.generation, offset, headers.length, arg0, arg1, head.request);
  }

  #push(
    type: number,
    flags: number,
    slot: number,
    generation: number,
    offset: number,
    bytes: number,
    arg0: number,
    arg1: number,
    request: number,
  ): void {
    if (this.#count === capacity.commandsCapacity) {
      // The data of this command is already in the area: apply the others, but keep the area as it is.
      coreCalls.flush(this.#core, this.#count);
      this.#count = 0;
    }
    if (this.#count === 0 && !this.#inTurn) this.onQueued?.();
    const words = this.#commands;
    const at = this.#count++ * commandWords;
    words[at] = type | (flags << 16);
    words[at + 1] = slot;
    words[at + 2] = generation;
    words[at + 3] = offset;
    words[at + 4] = bytes;
    words[at + 5] = arg0;
    words[at + 6] = arg1;
    words[at + 7] = request;
    if (!(flags & commandFlag.fromEvent)) this.#used = Math.max(this.#used, offset + bytes);
  }

  /** One command with data of its own, applied at once, after those before it. */
  #sendLarge(
    type: number,
    flags: number,
    slot: number,
    generation: number,
    data: Uint8Array,
    arg0: number,
    arg1: number,
    request: number,
  ): void {
    this.flush();
    if (!this.#inTurn) this.onQueued?.();
    const words = this.#recordWords;
    words[0] = type | (flags << 16);
    words[1] = slot;
    words[2] = generation;
    words[3] = 0;
    words[4] = 0;
    words[5] = arg0;
    words[6] = arg1;
    words[7] = request;
    coreCalls.command(this.#core, this.#record, data);
  }
}

function largePayload(low: number, high: number, bytes: number): Uint8Array {
  return bytes === 0 ? emptyBytes : new Uint8Array(coreCalls.view(high * 0x1_0000_0000 + low, bytes));
}
