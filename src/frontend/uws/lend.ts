/**
 * ArrayBuffers that handlers may read until they return.
 *
 * Role: hands out memory of the core without a copy into JavaScript's heap, and takes it back. Up: websocket.ts, response.ts.
 * Down: core.ts (viewPayload).
 *
 * Making an ArrayBuffer over foreign memory costs several times what a short copy does. So for each short length there is one such
 * object over a place of its own behind the payload area, into which payloads are copied: `transfer()` makes it anew over the same
 * memory and detaches the old one in one step. Longer payloads are viewed where they lie, in an area that lives as long as the core: who
 * transfers such a view reads what later batches bring.
 */
import { capacity } from '../../../ffi/layout.ts';
import type { Core } from '../../core/core.ts';

/** Longest payload that is copied: the places for all lengths up to here just fit into `capacity.lendBytes`. */
export const shortBytesMax = 1440;

/** Where the place for payloads of a length begins: behind those for all shorter ones, each rounded up to a multiple of 8. */
function placeOf(bytes: number): number {
  const eights = (bytes - 1) >>> 3;
  const shorter = 32 * eights * (eights + 1) + 8 * (bytes - 1 - 8 * eights) * (eights + 1);
  return capacity.payloadBytes + shorter;
}

interface Lender {
  readonly core: Core;
  /** By length. null: a handler has taken the memory for itself. */
  readonly places: (ArrayBuffer | null | undefined)[];
  /** What is lent now, and where in the payload area it came from. */
  lent: ArrayBuffer | undefined;
  offset: number;
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
    lender = { core, places: [], lent: undefined, offset: 0, isNamed: false };
    lenders.set(core, lender);
  }
  return lender;
}

/** A payload of the present batch, good until `giveBack`. Nothing else may be lent until then. */
export function lend(core: Core, offset: number, bytes: number): ArrayBuffer {
  const own = lenderOf(core);
  const buffer = bytes > shortBytesMax ? core.viewPayload(offset, bytes) : lendShort(own, offset, bytes);
  own.lent = buffer;
  own.offset = offset;
  own.isNamed = false;
  return buffer;
}

function lendShort({ core, places }: Lender, offset: number, bytes: number): ArrayBuffer {
  if (bytes === 0) return new ArrayBuffer(0);
  const known = places[bytes];
  if (known === null) return core.payloadBytes.slice(offset, offset + bytes).buffer as ArrayBuffer;
  core.payloadBytes.copyWithin(placeOf(bytes), offset, offset + bytes);
  if (known !== undefined) return known;
  const buffer = core.viewPayload(placeOf(bytes), bytes);
  places[bytes] = buffer;
  return buffer;
}

/** Detach what `lend` gave. */
export function giveBack(buffer: ArrayBuffer): void {
  const own = lender;
  if (own !== undefined && own.lent === buffer) own.lent = undefined;
  const bytes = buffer.byteLength;
  const known = own?.places[bytes];
  if (own !== undefined && known === buffer && !buffer.detached) {
    own.places[bytes] = buffer.transfer();
  } else if (!buffer.detached) {
    buffer.transfer(0);
  } else if (own !== undefined) {
    forgetTaken(own, buffer);
  }
}

/** A handler has transferred the buffer: whoever holds it now has that memory for good, so nothing may be written there any more. */
function forgetTaken({ places }: Lender, buffer: ArrayBuffer): void {
  const bytes = places.indexOf(buffer);
  if (bytes > 0) places[bytes] = null;
}

/**
 * Where the bytes of a lent buffer lie in the payload area, for a command that takes them from there; -1 when it is not lent now.
 * A handler may write into what it has been lent: the payload becomes what it has written, once commands that mean the former bytes are
 * applied. A payload longer than `shortBytesMax` is no copy: flush behind the command.
 */
export function placeInPayload(core: Core, buffer: unknown): number {
  const own = lender;
  if (own?.lent === undefined || own.lent !== buffer) return -1;
  const bytes = own.lent.byteLength;
  if (bytes > shortBytesMax) return own.offset;
  if (bytes === 0 || own.places[bytes] !== buffer) return -1;
  const place = placeOf(bytes);
  if (!own.isNamed) {
    core.payloadBytes.copyWithin(own.offset, place, place + bytes);
    own.isNamed = true;
  } else if (core.payload.compare(core.payload, place, place + bytes, own.offset, own.offset + bytes) !== 0) {
    core.flush();
    core.payloadBytes.copyWithin(own.offset, place, place + bytes);
  }
  return own.offset;
}
