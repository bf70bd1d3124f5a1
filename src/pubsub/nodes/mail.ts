/**
 * What the workers of a node write to each other about topics and who owns them: letters, and their bytes.
 *
 * Role: pure. Up: bus.ts, interest.ts, ownership.ts. Down: core.mail() carries the bytes.
 * Workers of two releases may live side by side during a reload: a letter of another version, or one that makes no sense, is read as nothing.
 *
 *   letter   version u8 | kind u8 | fields          numbers in little endian
 *   topic    u16 length (1..1024) | its bytes
 *
 * A topic is held as a string with one character for each byte ('latin1'), which is what maps want for a key: see `topicKey`.
 */
import { topicBytesMax } from '../../core/node.ts';
import type { Publisher } from '../link.ts';

const version = 1;
const kinds = { hello: 1, look: 2, want: 3, take: 4, given: 5, pass: 6, passed: 7, held: 8 } as const;

/** A letter of several topics ends past this, so that publishes find room beside it in the ring between two workers. */
export const letterBytesMax = 32768;

export interface Want {
  readonly topic: string;
  /** The sender has subscribers for it. */
  readonly wanted: boolean;
  /** It had told an owner before this one: messages may have been missed since, and that owner may still hold the topic. */
  readonly again: boolean;
}

/** Up to here its former owner has handed on what a publisher has sent. */
export interface Mark {
  readonly publisher: Publisher;
  readonly sequence: number;
}

export interface Given {
  readonly topic: string;
  /** The sender has held it until now. */
  readonly held: boolean;
  readonly marks: readonly Mark[];
}

export type Letter =
  /** The sender is new: it knows nothing of what its reader wants. Answered with `look`. */
  | { readonly kind: 'hello' }
  /** Look at the view: it has changed. Like every letter it says that its sender takes part. */
  | { readonly kind: 'look' }
  /** To the owner of topics: whether the sender has subscribers. The state, not a change: telling it twice changes nothing. */
  | { readonly kind: 'want'; readonly wants: readonly Want[] }
  /**
   * From the new owner of topics to one that may have owned them: let go of them, and say so within `withinMs` of `atMs`, a time that all
   * processes of the machine share; from then on the sender hands them on itself.
   */
  | { readonly kind: 'take'; readonly atMs: number; readonly withinMs: number; readonly topics: readonly string[] }
  /**
   * The answer: the sender hands these topics on no more. `awaited`: workers that have not yet said `passed` with this `pass`; before they have,
   * something that the sender handed on may still be on its way to them.
   */
  | { readonly kind: 'given'; readonly pass: number; readonly awaited: readonly number[]; readonly topics: readonly Given[] }
  /** From the former owner to every worker, behind all that it has handed on: say `passed` to worker `to`. */
  | { readonly kind: 'pass'; readonly pass: number; readonly to: number }
  /** To the new owner: all that worker `from` had handed on before its `pass` has come. */
  | { readonly kind: 'passed'; readonly pass: number; readonly from: number }
  /** To the worker that keeps the leases of partitions: the node has something in these. */
  | { readonly kind: 'held'; readonly partitions: readonly number[] };

/** The key of a topic in maps. */
export function topicKey(topic: Uint8Array): string {
  return Buffer.from(topic.buffer, topic.byteOffset, topic.byteLength).latin1Slice(0, topic.byteLength);
}

export function topicBytes(key: string): Uint8Array {
  return Buffer.from(key, 'latin1');
}

export function encodeLetter(letter: Letter): Uint8Array {
  const out = new LetterWriter(kinds[letter.kind]);
  switch (letter.kind) {
    case 'hello':
    case 'look':
      break;
    case 'want':
      out.u32(letter.wants.length);
      for (const { topic, wanted, again } of letter.wants) {
        out.u8((wanted ? 1 : 0) | (again ? 2 : 0));
        out.topic(topic);
      }
      break;
    case 'take':
      out.u48(letter.atMs);
      out.u32(letter.withinMs);
      out.u32(letter.topics.length);
      for (const topic of letter.topics) out.topic(topic);
      break;
    case 'given':
      out.u32(letter.pass);
      out.u16(letter.awaited.length);
      for (const worker of letter.awaited) out.u16(worker);
      out.u32(letter.topics.length);
      for (const given of letter.topics) writeGiven(out, given);
      break;
    case 'pass':
      out.u32(letter.pass);
      out.u16(letter.to);
      break;
    case 'passed':
      out.u32(letter.pass);
      out.u16(letter.from);
      break;
    case 'held':
      out.u16(letter.partitions.length);
      for (const partition of letter.partitions) out.u16(partition);
      break;
    default:
      letter satisfies never;
  }
  return out.bytes();
}

function writeGiven(out: LetterWriter, { topic, held, marks }: Given): void {
  out.topic(topic);
  out.u8(held ? 1 : 0);
  out.u32(marks.length);
  for (const { publisher, sequence } of marks) {
    out.hex(publisher.node);
    out.u32(publisher.worker);
    out.u48(sequence);
  }
}

/** ret: undefined for what is not a letter of this version; whatever the bytes are, nothing is thrown */
export function decodeLetter(bytes: Uint8Array): Letter | undefined {
  const input = new LetterReader(bytes);
  if (input.u8() !== version) return undefined;
  const letter = readLetter(input, input.u8());
  return input.isWhole() ? letter : undefined;
}

function readLetter(input: LetterReader, kind: number): Letter | undefined {
  switch (kind) {
    case kinds.hello:
      return { kind: 'hello' };
    case kinds.look:
      return { kind: 'look' };
    case kinds.want: {
      const wants = input.list(input.u32(), () => {
        const flags = input.u8();
        return { topic: input.topic(), wanted: (flags & 1) !== 0, again: (flags & 2) !== 0 };
      });
      return { kind: 'want', wants };
    }
    case kinds.take: {
      const atMs = input.u48();
      const withinMs = input.u32();
      return { kind: 'take', atMs, withinMs, topics: input.list(input.u32(), () => input.topic()) };
    }
    case kinds.given: {
      const pass = input.u32();
      const awaited = input.list(input.u16(), () => input.u16());
      return { kind: 'given', pass, awaited, topics: input.list(input.u32(), () => readGiven(input)) };
    }
    case kinds.pass:
      return { kind: 'pass', pass: input.u32(), to: input.u16() };
    case kinds.passed:
      return { kind: 'passed', pass: input.u32(), from: input.u16() };
    case kinds.held:
      return { kind: 'held', partitions: input.list(input.u16(), () => input.u16()) };
    default:
      return undefined;
  }
}

function readGiven(input: LetterReader): Given {
  const topic = input.topic();
  const held = input.u8() === 1;
  const marks = input.list(input.u32(), () => {
    const publisher = { node: input.hex(), worker: input.u32() };
    return { publisher, sequence: input.u48() };
  });
  return { topic, held, marks };
}

class LetterWriter {
  #buffer = Buffer.allocUnsafe(256);
  #at = 0;

  constructor(kind: number) {
    this.u8(version);
    this.u8(kind);
  }

  #room(bytes: number): number {
    const at = this.#at;
    if (at + bytes > this.#buffer.length) {
      const larger = Buffer.allocUnsafe(Math.max(this.#buffer.length * 2, at + bytes));
      larger.set(this.#buffer.subarray(0, at));
      this.#buffer = larger;
    }
    this.#at += bytes;
    return at;
  }

  u8(value: number): void {
    const at = this.#room(1);
    this.#buffer[at] = value;
  }
  u16(value: number): void {
    const at = this.#room(2);
    this.#buffer.writeUInt16LE(value, at);
  }
  u32(value: number): void {
    const at = this.#room(4);
    this.#buffer.writeUInt32LE(value, at);
  }
  u48(value: number): void {
    const at = this.#room(6);
    this.#buffer.writeUIntLE(value, at, 6);
  }
  hex(digits: string): void {
    const at = this.#room(8);
    this.#buffer.fill(0, at, at + 8);
    this.#buffer.write(digits, at, 8, 'hex');
  }
  topic(key: string): void {
    this.u16(key.length);
    const at = this.#room(key.length);
    this.#buffer.latin1Write(key, at, key.length);
  }
  bytes(): Uint8Array {
    return this.#buffer.subarray(0, this.#at);
  }
}

/** Reads past the end give zeros, and then `isWhole` is false. */
class LetterReader {
  readonly #buffer: Buffer;
  #at = 0;
  #isSound = true;

  constructor(bytes: Uint8Array) {
    this.#buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** Everything was there, and nothing is left over. */
  isWhole(): boolean {
    return this.#isSound && this.#at === this.#buffer.length;
  }

  /** ret: where the bytes begin, or -1 */
  #take(bytes: number): number {
    const at = this.#at;
    if (!this.#isSound || at + bytes > this.#buffer.length) {
      this.#isSound = false;
      return -1;
    }
    this.#at += bytes;
    return at;
  }

  /** `count` is what the letter claims: reading ends with the bytes, whatever it is. */
  list<Item>(count: number, read: () => Item): Item[] {
    const items: Item[] = [];
    for (let i = 0; i < count && this.#isSound; i++) items.push(read());
    return items;
  }

  u8(): number {
    const at = this.#take(1);
    return at < 0 ? 0 : (this.#buffer[at] as number);
  }
  u16(): number {
    const at = this.#take(2);
    return at < 0 ? 0 : this.#buffer.readUInt16LE(at);
  }
  u32(): number {
    const at = this.#take(4);
    return at < 0 ? 0 : this.#buffer.readUInt32LE(at);
  }
  u48(): number {
    const at = this.#take(6);
    return at < 0 ? 0 : this.#buffer.readUIntLE(at, 6);
  }
  hex(): string {
    const at = this.#take(8);
    return at < 0 ? '' : this.#buffer.toString('hex', at, at + 8);
  }
  topic(): string {
    const bytes = this.u16();
    if (bytes === 0 || bytes > topicBytesMax) this.#isSound = false;
    const at = this.#take(bytes);
    return at < 0 ? '' : this.#buffer.latin1Slice(at, at + bytes);
  }
}
