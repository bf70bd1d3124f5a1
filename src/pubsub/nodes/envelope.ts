/**
 * What a link carries: some messages of one publisher for one topic, an entry of a log, or a probe, as bytes.
 *
 * Role: up: outbox.ts seals messages, links open what comes. Down: seal.ts. Nodes of several releases share a link's other side during an
 * upgrade: an envelope of another version, or one that makes no sense, is opened as nothing, whole or not at all. So is one with text that is not UTF-8:
 * every client that it reached would close its connection (RFC 6455 §8.1).
 *
 *   version u8 | kind u8 | prefix bytes u8 | node 8 bytes | worker u32 | sequence u48 | count u16      numbers in big endian
 *   then `count` times:  flags u8 | length u32 | payload
 *   an entry:            slot u32 | generation u32 | flags u8 | payload        count is 1; the connection that is left out, 0xffffffff: nobody
 *
 * Version 2 is signed: 32 bytes of signature follow (seal.ts). Version 1 has none.
 * Messages have the sequences sequence, sequence + 1, … A probe has no messages; its sequence is its number. The length of the prefix tells
 * channels apart that look alike: topic 'b:c' under prefix 'a', and topic 'c' under prefix 'a:b'.
 */
import { isUtf8 } from 'node:buffer';
import { commandFlag, noSlot } from '../../core/abi.ts';
import type { ConnectionName } from '../../core/connection.ts';
import { type ArrivedMessage, entryFlag, type LinkContext, type Publisher, type StoredEntry } from '../link.ts';
import { Seal, signatureBytes } from './seal.ts';

const versions = { plain: 1, signed: 2 } as const;
const kinds = { messages: 0, probe: 1, entry: 2 } as const;
const headBytes = 23;
/** Of an entry, behind the head. */
const entryHeadBytes = 9;
/** Of each message, beside its payload. */
export const messageHeadBytes = 5;
/** Counted in 16 bits. */
export const envelopeMessagesMax = 0xffff;
/** Counted in 48 bits. */
export const sequenceMax = 2 ** 48 - 1;

/** Not those of the core, which may change from release to release. */
const wireFlags = { text: 1, compress: 2 } as const;
const wireFlagsAll = wireFlags.text | wireFlags.compress;
/** Of entries too: of presence logs. */
const entryFlags = { ...wireFlags, join: 4, leave: 8 } as const;
const entryFlagsAll = wireFlagsAll | entryFlags.join | entryFlags.leave;

/** Who publishes, under which prefix, and how it signs: the same in every envelope of a link. */
export class Sender {
  readonly publisher: Publisher;
  readonly #head: Buffer;
  readonly #seal: Seal | undefined;

  /** @internal `publisher.node`: 16 hexadecimal digits. `prefix`: at most 255 bytes. */
  constructor(publisher: Publisher, prefix: string, seal?: Seal) {
    if (!/^[0-9a-f]{16}$/.test(publisher.node)) throw new Error(`a node is named by 16 hexadecimal digits, not '${publisher.node}'`);
    this.publisher = publisher;
    this.#seal = seal;
    this.#head = Buffer.alloc(headBytes);
    this.#head[0] = seal === undefined ? versions.plain : versions.signed;
    this.#head[2] = Buffer.byteLength(prefix);
    this.#head.write(publisher.node, 3, 'hex');
    this.#head.writeUInt32BE(publisher.worker, 11);
  }

  /** @internal */
  probe(number: number): Buffer {
    return this.#signed(this.#begin(kinds.probe, number, 0, headBytes), probeTopic);
  }

  /** @internal `messages`: 1 to `envelopeMessagesMax`, `payloadBytes` together. `topic`: one character for each byte. */
  messages(
    topic: string,
    sequence: number,
    messages: Iterable<{ flags: number; payload: Uint8Array }>,
    count: number,
    payloadBytes: number,
  ): Buffer {
    const out = this.#begin(kinds.messages, sequence, count, headBytes + count * messageHeadBytes + payloadBytes);
    let at = headBytes;
    for (const { flags, payload } of messages) {
      out[at] = (flags & commandFlag.sendText ? wireFlags.text : 0) | (flags & commandFlag.sendCompress ? wireFlags.compress : 0);
      out.writeUInt32BE(payload.byteLength, at + 1);
      out.set(payload, at + messageHeadBytes);
      at += messageHeadBytes + payload.byteLength;
    }
    return this.#signed(out, topic);
  }

  /** @internal What a log keeps: one message, and which connection of the publisher does not get it. `topic`: one character for each byte. */
  entry(topic: string, sequence: number, { flags, payload, except }: NewEntry): Buffer {
    const out = this.#begin(kinds.entry, sequence, 1, headBytes + entryHeadBytes + payload.byteLength);
    out.writeUInt32BE(except?.slot ?? noSlot, headBytes);
    out.writeUInt32BE(except?.generation ?? 0, headBytes + 4);
    out[headBytes + 8] = toWire(flags);
    out.set(payload, headBytes + entryHeadBytes);
    return this.#signed(out, topic);
  }

  #signed(envelope: Buffer, topic: string): Buffer {
    return this.#seal === undefined ? envelope : Buffer.concat([envelope, this.#seal.sign(envelope, topic)]);
  }

  #begin(kind: number, sequence: number, count: number, bytes: number): Buffer {
    const out = Buffer.allocUnsafe(bytes);
    this.#head.copy(out);
    out[1] = kind;
    out.writeUIntBE(sequence, 15, 6);
    out.writeUInt16BE(count, 21);
    return out;
  }
}

/** `flags`: RW_SEND_*, and of presence logs RW_ENTRY_*. */
interface NewEntry {
  readonly flags: number;
  readonly payload: Uint8Array;
  readonly except?: ConnectionName | undefined;
}

function toWire(flags: number): number {
  return (
    (flags & commandFlag.sendText ? entryFlags.text : 0) |
    (flags & commandFlag.sendCompress ? entryFlags.compress : 0) |
    (flags & entryFlag.join ? entryFlags.join : 0) |
    (flags & entryFlag.leave ? entryFlags.leave : 0)
  );
}

function fromWire(wire: number): number {
  return (
    (wire & entryFlags.text ? commandFlag.sendText : 0) |
    (wire & entryFlags.compress ? commandFlag.sendCompress : 0) |
    (wire & entryFlags.join ? entryFlag.join : 0) |
    (wire & entryFlags.leave ? entryFlag.leave : 0)
  );
}

/** Probes have channels of their own. No topic is empty. */
const probeTopic = '';

export interface Envelope {
  readonly kind: keyof typeof kinds;
  /** Of the publisher's prefix. */
  readonly prefixBytes: number;
  readonly publisher: Publisher;
  /** Of the first message; or the number of the probe. */
  readonly sequence: number;
  readonly count: number;
  /** @internal Without the signature. */
  readonly bytes: Buffer;
  /** @internal Not looked at yet. */
  readonly signature: Buffer | undefined;
}

/** `topic`: the one it came for. ret: whether the envelope is one of those who have the key */
export function isSealed({ kind, bytes, signature }: Envelope, seal: Seal, topic: string): boolean {
  return signature !== undefined && seal.isOf(bytes, kind === 'probe' ? probeTopic : topic, signature);
}

/** Publishers whose names are kept as objects, so that each message does not make one. */
const publishersMax = 4096;

export class Opener {
  readonly #publishers = new Map<string, Publisher>();

  /** ret: undefined: not an envelope of this version */
  open(whole: Buffer): Envelope | undefined {
    const isSigned = whole[0] === versions.signed;
    const end = isSigned ? whole.byteLength - signatureBytes : whole.byteLength;
    if (end < headBytes || (whole[0] !== versions.plain && !isSigned)) return undefined;
    const bytes = isSigned ? whole.subarray(0, end) : whole;
    const kind = bytes[1];
    const sequence = bytes.readUIntBE(15, 6);
    const count = bytes.readUInt16BE(21);
    if (kind === kinds.probe) {
      if (count !== 0 || bytes.byteLength !== headBytes) return undefined;
    } else if (kind === kinds.entry) {
      if (count !== 1 || !holdsEntry(bytes)) return undefined;
    } else if (kind === kinds.messages) {
      if (count === 0 || sequence + count - 1 > sequenceMax || !holdsMessages(bytes, count)) return undefined;
    } else {
      return undefined;
    }
    return {
      kind: kind === kinds.probe ? 'probe' : kind === kinds.entry ? 'entry' : 'messages',
      prefixBytes: bytes[2] as number,
      publisher: this.#publisherIn(bytes),
      sequence,
      count,
      bytes,
      signature: isSigned ? whole.subarray(end) : undefined,
    };
  }

  #publisherIn(bytes: Buffer): Publisher {
    const name = bytes.latin1Slice(3, 15);
    const known = this.#publishers.get(name);
    if (known !== undefined) return known;
    const publisher = { node: bytes.toString('hex', 3, 11), worker: bytes.readUInt32BE(11) };
    if (this.#publishers.size === publishersMax) this.#publishers.clear();
    this.#publishers.set(name, publisher);
    return publisher;
  }
}

function holdsMessages(bytes: Buffer, count: number): boolean {
  let at = headBytes;
  for (let left = count; left > 0; left--) {
    const flags = bytes[at] as number;
    if (at + messageHeadBytes > bytes.byteLength || (flags & ~wireFlagsAll) !== 0) return false;
    const payloadAt = at + messageHeadBytes;
    at = payloadAt + bytes.readUInt32BE(at + 1);
    if (at > bytes.byteLength || ((flags & wireFlags.text) !== 0 && !isUtf8(bytes.subarray(payloadAt, at)))) return false;
  }
  return at === bytes.byteLength;
}

function holdsEntry(bytes: Buffer): boolean {
  const payloadAt = headBytes + entryHeadBytes;
  if (bytes.byteLength < payloadAt) return false;
  const flags = bytes[headBytes + 8] as number;
  return (flags & ~entryFlagsAll) === 0 && ((flags & entryFlags.text) === 0 || isUtf8(bytes.subarray(payloadAt)));
}

/** What an envelope of an entry holds. `payload` is a part of it. */
function readEntry({ bytes, publisher }: Envelope): Pick<StoredEntry, 'publisher' | 'except' | 'flags' | 'payload'> {
  const slot = bytes.readUInt32BE(headBytes);
  return {
    publisher,
    except: slot === noSlot ? undefined : { slot, generation: bytes.readUInt32BE(headBytes + 4) },
    flags: fromWire(bytes[headBytes + 8] as number),
    payload: bytes.subarray(headBytes + entryHeadBytes),
  };
}

/** Each message of an envelope that came for `topic`, in order. `payload` is a part of it. */
export function readMessages(envelope: Envelope, topic: Uint8Array, visit: (message: ArrivedMessage) => void): void {
  const { bytes, publisher, sequence, count } = envelope;
  let at = headBytes;
  for (let i = 0; i < count; i++) {
    const wire = bytes[at] as number;
    const end = at + messageHeadBytes + bytes.readUInt32BE(at + 1);
    const flags = (wire & wireFlags.text ? commandFlag.sendText : 0) | (wire & wireFlags.compress ? commandFlag.sendCompress : 0);
    visit({ topic, publisher, sequence: sequence + i, flags, payload: bytes.subarray(at + messageHeadBytes, end) });
    at = end;
  }
}

export interface EnvelopesOptions {
  /** Stands in front of every topic's name; at most 255 bytes. Links with different ones never hear each other. */
  readonly prefix: string;
  /** The first signs, each of them is believed; none: nothing is signed. @default [] */
  readonly signingKeys?: readonly string[];
  /** Told of each that is thrown away. */
  onDiscard?(why: 'malformed' | 'unsigned'): void;
}

/** What a link has to do with envelopes: its outbox seals with `sender`, and what comes is opened here. */
export class Envelopes {
  readonly sender: Sender;
  readonly #opener = new Opener();
  /** undefined: nothing is signed, and signatures are not looked at. */
  readonly #seal: Seal | undefined;
  readonly #prefixBytes: number;
  readonly #discard: (why: 'malformed' | 'unsigned') => undefined;

  constructor(context: Pick<LinkContext, 'publisher' | 'count'>, { prefix, signingKeys = [], onDiscard }: EnvelopesOptions) {
    this.#seal = signingKeys.length === 0 ? undefined : new Seal(signingKeys, prefix);
    this.sender = new Sender(context.publisher, prefix, this.#seal);
    this.#prefixBytes = Buffer.byteLength(prefix);
    this.#discard = (why) => {
      context.count(why, 1);
      onDiscard?.(why);
    };
  }

  /** @internal An entry of a log. `topic`: the one of the log. ret: undefined: it is thrown away */
  openEntry(bytes: Buffer, topic: string): Pick<StoredEntry, 'publisher' | 'except' | 'flags' | 'payload'> | undefined {
    const envelope = this.open(bytes, topic);
    if (envelope === undefined) return undefined;
    return envelope.kind === 'entry' ? readEntry(envelope) : this.#discard('malformed');
  }

  /** `topic`: the one it came for, one character for each byte. ret: undefined: it is thrown away */
  open(bytes: Uint8Array, topic: string): Envelope | undefined {
    const envelope = this.#opener.open(bytes instanceof Buffer ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength));
    if (envelope === undefined) return this.#discard('malformed');
    // A longer or a shorter prefix whose channels look like these.
    if (envelope.prefixBytes !== this.#prefixBytes) return undefined;
    return this.#seal === undefined || isSealed(envelope, this.#seal, topic) ? envelope : this.#discard('unsigned');
  }
}
