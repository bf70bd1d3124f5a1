/**
 * The records that calls about logs go by.
 * Role: TypeScript's values onto `struct rw_log_call`, and logs as the core writes them. Up: log-commands.ts. Down: ffi/bindings.ts.
 * A record and its bytes are used again from call to call.
 */
import { type CoreHandle, coreCalls } from '../../ffi/bindings.ts';
import { logCallLayout, noSlot, result } from '../../ffi/layout.ts';
import { type Payload, roomOf, type Topic } from './command-batch.ts';
import type { LogEnd, LogEntry, LogLimits, LogQuery, Origin } from './log-commands.ts';
import { epochOf, type Position } from './position.ts';

const word = (offset: number) => offset / 4;
const high = 0x1_0000_0000;
/** Bytes that stay from call to call. */
const keptBytes = 65536;

/** A number in 64 bits, low half first. */
const low32 = (value: number) => value >>> 0;
const high32 = (value: number) => Math.floor(value / high);

export class LogCall {
  readonly #words = new Uint32Array(logCallLayout.bytes / 4);
  readonly record = new Uint8Array(this.#words.buffer);
  #room = Buffer.allocUnsafeSlow(keptBytes);
  /** Topic, key and payload, and behind them whatever was there. */
  bytes: Uint8Array = this.#room;

  begin(topic: Topic, payload: Payload, key = ''): void {
    const words = this.#words;
    const room = roomOf(topic) + roomOf(key) + roomOf(payload);
    this.bytes = room <= keptBytes ? this.#room : Buffer.allocUnsafeSlow(room);
    words.fill(0);
    words[word(logCallLayout.originWorker)] = noSlot;
    words[word(logCallLayout.originSlot)] = noSlot;
    const topicBytes = this.#write(topic, 0);
    const keyBytes = key === '' ? 0 : this.#write(key, topicBytes);
    words[word(logCallLayout.topicBytes)] = topicBytes;
    words[word(logCallLayout.keyBytes)] = keyBytes;
    words[word(logCallLayout.payloadBytes)] = this.#write(payload, topicBytes + keyBytes);
  }

  #write(text: Payload, at: number): number {
    if (typeof text === 'string') return text.length === 0 ? 0 : (this.bytes as Buffer).utf8Write(text, at, text.length * 3);
    this.bytes.set(text, at);
    return text.byteLength;
  }

  entry(flags: number, limits: LogLimits | undefined, keySeconds: number): void {
    const words = this.#words;
    words[word(logCallLayout.flags)] = flags;
    words[word(logCallLayout.size)] = limits?.size ?? 0;
    words[word(logCallLayout.seconds)] = limits?.seconds ?? 0;
    words[word(logCallLayout.keySeconds)] = keySeconds;
  }

  origin({ worker, epoch, slot, generation }: Origin): void {
    const words = this.#words;
    words[word(logCallLayout.originWorker)] = worker;
    words[word(logCallLayout.originEpoch)] = epoch;
    words[word(logCallLayout.originSlot)] = slot;
    words[word(logCallLayout.originGeneration)] = generation;
  }

  /** A connection of this worker; `noSlot`: none. */
  exceptOwn(slot: number, generation: number): void {
    this.#words[word(logCallLayout.originSlot)] = slot;
    this.#words[word(logCallLayout.originGeneration)] = generation;
  }

  set timeMs(value: number) {
    this.#words[word(logCallLayout.timeMs)] = low32(value);
    this.#words[word(logCallLayout.timeMs) + 1] = high32(value);
  }

  set hasPosition(value: boolean) {
    this.#words[word(logCallLayout.hasPosition)] = value ? 1 : 0;
  }

  set position({ epoch, offset }: Position) {
    const words = this.#words;
    words[word(logCallLayout.epoch)] = Number.parseInt(epoch.slice(8), 16);
    words[word(logCallLayout.epoch) + 1] = Number.parseInt(epoch.slice(0, 8), 16);
    words[word(logCallLayout.offset)] = low32(offset);
    words[word(logCallLayout.offset) + 1] = high32(offset);
  }

  get position(): Position {
    const words = this.#words;
    const at = word(logCallLayout.epoch);
    const offset = word(logCallLayout.offset);
    return {
      epoch: epochOf(words[at] as number, words[at + 1] as number),
      offset: (words[offset] as number) + (words[offset + 1] as number) * high,
    };
  }

  /** What an attach has told. */
  get attached(): { recovered: boolean; sent: number } {
    const told = this.#words[word(logCallLayout.result)] as number;
    return { recovered: told >>> 16 !== 0, sent: told & 0xffff };
  }
}

// ---------------------------------------------------------------- reading

const headBytes = 32;
const entryBytes = 24;
/** Most entries of one call. */
const entriesAtOnce = 65536;
/** What lies below is no error but the bytes that are needed. */
const neededFrom = -65536;
const roomBytes = 65536;

class Page {
  readonly bytes: Buffer;
  readonly #view: DataView;

  constructor(bytes: Buffer) {
    this.bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  word(at: number): number {
    return this.#view.getUint32(at, true);
  }

  number(at: number): number {
    return this.word(at) + this.word(at + 4) * high;
  }

  get end(): LogEnd {
    return {
      epoch: epochOf(this.word(0), this.word(4)),
      first: this.number(8),
      offset: this.number(16),
      isFollowed: this.word(24) !== 0,
    };
  }

  entries(): LogEntry[] {
    const entries: LogEntry[] = [];
    let at = headBytes;
    for (let rest = this.word(28); rest > 0; rest--) {
      const bytes = this.word(at + 20);
      const from = at + entryBytes;
      entries.push({
        offset: this.number(at),
        timeMs: this.number(at + 8),
        flags: this.word(at + 16),
        payload: Uint8Array.prototype.slice.call(this.bytes, from, from + bytes),
      });
      at = from + ((bytes + 7) & ~7);
    }
    return entries;
  }
}

/** ret: a negative result: why it cannot be read */
export function readLog(core: CoreHandle, topic: Uint8Array, query: LogQuery): { end: LogEnd; entries: LogEntry[] } | number {
  const entries: LogEntry[] = [];
  let end: LogEnd | undefined;
  let epoch = query.epoch === undefined ? 0n : BigInt(`0x${query.epoch}`);
  let after = query.after ?? 0;
  let page = new Page(Buffer.allocUnsafe(query.limit === 0 ? headBytes : roomBytes));
  if (topic.length === 0) return result.stale;
  for (;;) {
    const most = Math.min(query.limit - entries.length, entriesAtOnce);
    const code = coreCalls.logRead(core, topic, epoch, after, most, query.reverse === true, page.bytes);
    if (code < neededFrom) {
      page = new Page(Buffer.allocUnsafe(neededFrom - code));
      continue;
    }
    // Gone in between: what was read was there.
    if (code < 0) return end === undefined ? code : { end, entries };
    end ??= page.end;
    if (page.end.epoch !== end.epoch) return { end, entries };
    const read = page.entries();
    entries.push(...read);
    const last = read.at(-1);
    if (last === undefined || entries.length >= query.limit) return { end, entries };
    if (query.reverse === true ? last.offset <= end.first : last.offset >= end.offset) return { end, entries };
    epoch = BigInt(`0x${end.epoch}`);
    after = last.offset;
  }
}
