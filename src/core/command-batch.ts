/**
 * Commands for the core, queued until the turn ends: records in one area, their data in another.
 *
 * Role: writes `struct rw_command` records. Up: http-commands.ts and its neighbours, which know what each command means. Down: ffi/bindings.ts.
 * Both areas are bounded: when one is full, what is queued is applied at once, which keeps the order.
 */
import { type CoreHandle, coreCalls } from '../../ffi/bindings.ts';
import { capacity, commandFlag, commandLayout } from '../../ffi/layout.ts';

const commandWords = commandLayout.bytes / 4;

/** Payloads from here on are sent at once, so that the caller learns whether they were taken. */
export const eagerBytes = 16384;

/** Longest head of a frame that a server sends (RFC 6455 §5.2). */
export const frameHeadBytes = 10;

export type Payload = string | Uint8Array;

/** A topic's name: text, or bytes as they are. */
export type Topic = string | Uint8Array;

export class CommandBatch {
  readonly #core: CoreHandle;
  readonly #commands: Uint32Array;
  readonly #data: Buffer;
  readonly #record = new Uint8Array(commandLayout.bytes);
  readonly #recordWords = new Uint32Array(this.#record.buffer);
  #count = 0;
  #used = 0;
  /** Counts how often commands were applied; what a slot notes as queued belongs to one such stretch. Wraps. */
  stretch = 1;
  /** Bytes queued in this stretch that may go to any connection: publishes and pings. */
  queuedForAny = 0;
  /** Subscriptions queued in this stretch. */
  subscribes = 0;
  /** Called when a command is queued outside a turn: someone must run the next one. */
  onQueued: (() => void) | undefined;
  /** Set while events are dispatched: the turn that follows takes the commands. */
  inTurn = false;

  constructor(core: CoreHandle, commands: ArrayBuffer, data: ArrayBuffer) {
    this.#core = core;
    this.#commands = new Uint32Array(commands);
    this.#data = Buffer.from(data);
  }

  get isEmpty(): boolean {
    return this.#count === 0;
  }

  /** The commands go over with the turn that begins now. ret: how many */
  take(): number {
    const count = this.#count;
    this.#begin();
    return count;
  }

  /** Apply the queued commands now; payloads of the present batch stay. */
  flush(): void {
    if (this.#count === 0) return;
    coreCalls.flush(this.#core, this.#count);
    this.#begin();
  }

  #begin(): void {
    this.#count = 0;
    this.#used = 0;
    this.queuedForAny = 0;
    this.subscribes = 0;
    this.stretch = (this.stretch + 1) >>> 0;
  }

  /** Room for `bytes` of data (at most `capacity.dataBytes`). ret: its offset; fill it with the write methods before the next call */
  room(bytes: number): number {
    if (this.#used + bytes > capacity.dataBytes) this.flush();
    return this.#used;
  }

  writeLatin1(text: string, offset: number): number {
    return text.length === 0 ? 0 : this.#data.latin1Write(text, offset, text.length);
  }

  /** ret: bytes written; strings as UTF-8 */
  write(payload: Payload, offset: number): number {
    if (typeof payload === 'string') return payload.length === 0 ? 0 : this.#data.utf8Write(payload, offset, payload.length * 3);
    this.#data.set(payload, offset);
    return payload.byteLength;
  }

  push(
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
    if (this.#count === 0 && !this.inTurn) this.onQueued?.();
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

  /** A command whose data is `payload`. */
  payload(type: number, flags: number, slot: number, generation: number, payload: Payload, request: number): void {
    const room = roomOf(payload);
    if (room > capacity.dataBytes) {
      this.direct(type, flags, slot, generation, bytesOf(payload), 0, 0, request);
      return;
    }
    const offset = this.room(room);
    this.push(type, flags, slot, generation, offset, this.write(payload, offset), 0, 0, request);
  }

  /** A command whose data is a header block. */
  headers(
    type: number,
    flags: number,
    slot: number,
    generation: number,
    headers: string,
    arg0: number,
    arg1: number,
    request: number,
  ): void {
    if (headers.length > capacity.dataBytes) {
      this.direct(type, flags, slot, generation, Buffer.from(headers, 'latin1'), arg0, arg1, request);
      return;
    }
    const offset = this.room(headers.length);
    this.push(type, flags, slot, generation, offset, this.writeLatin1(headers, offset), arg0, arg1, request);
  }

  /** One command with data of its own, applied at once, after those before it. ret: what rw_core_command() answers */
  direct(
    type: number,
    flags: number,
    slot: number,
    generation: number,
    data: Uint8Array,
    arg0: number,
    arg1: number,
    request: number,
  ): number {
    this.flush();
    if (!this.inTurn) this.onQueued?.();
    const words = this.#recordWords;
    words[0] = type | (flags << 16);
    words[1] = slot;
    words[2] = generation;
    words[3] = 0;
    words[4] = 0;
    words[5] = arg0;
    words[6] = arg1;
    words[7] = request;
    return coreCalls.command(this.#core, this.#record, data);
  }
}

/** Most bytes that a payload may take once encoded. */
export function roomOf(payload: Payload): number {
  return typeof payload === 'string' ? payload.length * 3 : payload.byteLength;
}

export function bytesOf(payload: Payload): Uint8Array {
  return typeof payload === 'string' ? Buffer.from(payload) : payload;
}
