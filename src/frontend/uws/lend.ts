/**
 * ArrayBuffers that handlers, and what they queue, may read until they return.
 *
 * Role: hands out memory of the core without a copy into JavaScript's heap, and takes it back. Up: websocket.ts, response.ts.
 * Down: core.ts (viewPayload).
 *
 * Making an ArrayBuffer over foreign memory costs several times what a short copy does. So for each short length there is one such
 * object over a place of its own behind the payload area, into which payloads are copied: `transfer()` makes it anew over the same
 * memory and detaches the old one in one step. Longer payloads are viewed where they lie, in an area that lives as long as the core: who
 * transfers such a view reads what later batches bring.
 */
import { capacity } from '../../core/abi.ts';
import type { Core } from '../../core/core.ts';

/** Longest payload that is copied: the places for all lengths up to here just fit into `capacity.lendBytes`. */
export const shortBytesMax = 1440;

/** Where the place for payloads of a length begins: behind those for all shorter ones, each rounded up to a multiple of 8. */
function placeOf(bytes: number): number {
  const eights = (bytes - 1) >>> 3;
  const shorter = 32 * eights * (eights + 1) + 8 * (bytes - 1 - 8 * eights) * (eights + 1);
  return capacity.payloadBytes + shorter;
}

/** Up to here a loop over words costs less than `copyWithin`, which costs much to call. Measured. */
const loopBytesMax = 256;

interface Lender {
  readonly core: Core;
  /** The payload area and what lies behind it. Of integers: a floating point number may not keep all its bits. */
  readonly words: Int32Array;
  /** By length. null: a handler has taken the memory for itself. */
  readonly places: (ArrayBuffer | null | undefined)[];
  /** What is lent now, how long it is, and where in the payload area it came from. */
  lent: ArrayBuffer | undefined;
  bytes: number;
  offset: number;
  /** Where the copy lies; -1: there is none, or it has memory of its own. */
  place: number;
  /** A command that has not been applied may name the payload. */
  isNamed: boolean;
}

/** Of each core, and the one used last: a process has one core, but for tests. */
const lenders = new WeakMap<Core, Lender>();
let lender: Lender | undefined;

function lenderOf(core: Core): Lender {
  if (lender?.core === core) return lender;
  lender = lenders.get(core);
  if (lender === undefined) {
    const words = new Int32Array(core.payloadBytes.buffer);
    lender = { core, words, places: [], lent: undefined, bytes: 0, offset: 0, place: -1, isNamed: false };
    lenders.set(core, lender);
  }
  return lender;
}

/** Both places begin at a multiple of 8 and have room up to the next one. */
function copy(own: Lender, to: number, from: number, bytes: number): void {
  if (bytes > loopBytesMax) {
    own.core.payloadBytes.copyWithin(to, from, from + bytes);
    return;
  }
  const { words } = own;
  const shift = (to - from) >> 2;
  const end = (from + bytes + 3) >> 2;
  for (let at = from >> 2; at < end; at++) words[at + shift] = words[at] as number;
}

/** A payload of the present batch, good until `giveBack`. Nothing else may be lent until then. */
export function lend(core: Core, offset: number, bytes: number): ArrayBuffer {
  const own = lenderOf(core);
  own.place = -1;
  own.bytes = bytes;
  own.offset = offset;
  own.isNamed = false;
  own.lent = bytes > shortBytesMax ? core.viewPayload(offset, bytes) : lendShort(own, offset, bytes);
  return own.lent;
}

function lendShort(own: Lender, offset: number, bytes: number): ArrayBuffer {
  if (bytes === 0) return new ArrayBuffer(0);
  const known = own.places[bytes];
  if (known === null) return own.core.payloadBytes.slice(offset, offset + bytes).buffer as ArrayBuffer;
  own.place = placeOf(bytes);
  copy(own, own.place, offset, bytes);
  if (known !== undefined) return known;
  const buffer = own.core.viewPayload(own.place, bytes);
  own.places[bytes] = buffer;
  return buffer;
}

/** Detach what `lend` gave, or any other buffer. */
export function giveBack(buffer: ArrayBuffer): void {
  const own = lender;
  if (own === undefined || own.lent !== buffer) {
    if (!buffer.detached) buffer.transfer(0);
    return;
  }
  own.lent = undefined;
  try {
    if (own.place < 0) buffer.transfer(0);
    else own.places[own.bytes] = buffer.transfer();
  } catch {
    // A handler has transferred it: whoever holds it now has that memory for good, so nothing may be written there any more.
    if (own.place >= 0) own.places[own.bytes] = null;
  }
}

/** Payload bytes of what is lent now. */
export function lentBytes(): number {
  return lender?.bytes ?? 0;
}

/**
 * Where the bytes of a lent buffer lie in the payload area, for a command that takes them from there; -1 when it is not lent now.
 * A handler may write into what it has been lent: the payload becomes what it has written, once commands that mean the former bytes are
 * applied. A payload longer than `shortBytesMax` is no copy: flush behind the command.
 */
export function placeInPayload(core: Core, buffer: unknown): number {
  const own = lender;
  if (own?.lent === undefined || own.lent !== buffer) return -1;
  const { bytes, place, offset } = own;
  // Detached already when its handler has transferred it.
  if (bytes > shortBytesMax) return (buffer as ArrayBuffer).detached ? -1 : offset;
  if (place < 0 || (buffer as ArrayBuffer).detached) return -1;
  if (!own.isNamed) {
    copy(own, offset, place, bytes);
    own.isNamed = true;
  } else if (core.payload.compare(core.payload, place, place + bytes, offset, offset + bytes) !== 0) {
    core.flush();
    copy(own, offset, place, bytes);
  }
  return offset;
}
