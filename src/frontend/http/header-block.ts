/**
 * Header blocks: the fields of a response as the text `Name: value\r\n`... that the core sends.
 *
 * Role: between what handlers give as headers and HttpCommands. A block is immutable and often shared: the block of a response with
 * one constant header is made once. Everything here that is not provably fine as it stands is left to a native Headers
 * object, which normalises it or throws the error that handlers know.
 */
import type { HeadersSource } from '../../api/bindings.ts';

export const blockFlags = {
  /** There is a Content-Type. */
  contentType: 1 << 0,
  /** There is a field that the core writes itself, see `fieldsOfTheCore`. */
  framing: 1 << 1,
} as const;

export class HeaderBlock {
  readonly text: string;
  /** `blockFlags` */
  readonly flags: number;
  constructor(text: string, flags: number) {
    this.text = text;
    this.flags = flags;
  }
}

export const emptyBlock = new HeaderBlock('', 0);

/** RFC 9110 §5.6.2 */
const token = /^[!#$%&'*+\-.^_`|~\w]+$/;
/** What a field value cannot hold: what ends a line, NUL, and what is not an octet (RFC 9110 §5.5). */
const foreignToValue = /[\0\r\n]|[^\0-\xff]/;

/** Framing and Date are the core's; `Connection: close` is passed on as the `close` argument. */
const fieldsOfTheCore = new Set(['connection', 'content-length', 'transfer-encoding', 'keep-alive', 'date']);

/** A field name seen before, and its latest line: applications send the same few lines again and again. */
class Field {
  readonly prefix: string;
  readonly flags: number;
  /** Shared by all spellings of a name; equal to the number of the present record when it was seen in it. */
  readonly seen: { in: number };
  value: string;
  block: HeaderBlock;
  constructor(name: string, flags: number, seen: { in: number }) {
    this.prefix = `${name}: `;
    this.flags = flags;
    this.seen = seen;
    this.value = '\n';
    this.block = emptyBlock;
  }
}

/** Spellings remembered; names are the application's, but one that makes them up must not fill memory. */
const fieldLimit = 512;
const fields = new Map<string, Field>();
const seenByName = new Map<string, { in: number }>();
/** Longer values are not remembered. */
const valueLimit = 256;
let record = 0;

function fieldOf(name: string): Field | undefined {
  const known = fields.get(name);
  if (known !== undefined) return known;
  if (fields.size >= fieldLimit || !token.test(name)) return undefined;
  const lower = name.toLowerCase();
  let seen = seenByName.get(lower);
  if (seen === undefined) {
    seen = { in: 0 };
    seenByName.set(lower, seen);
  }
  const field = new Field(name, flagsOf(lower), seen);
  fields.set(name, field);
  return field;
}

function flagsOf(lower: string): number {
  if (lower === 'content-type') return blockFlags.contentType;
  return fieldsOfTheCore.has(lower) ? blockFlags.framing : 0;
}

/** ret: the block of this line alone, or undefined when the value needs a closer look */
function lineOf(field: Field, value: unknown): HeaderBlock | undefined {
  if (value === field.value) return field.block;
  if (typeof value !== 'string' || foreignToValue.test(value)) return undefined;
  // surrounding whitespace is not part of a value; an empty one has none
  if (value.length > 0 && (value.charCodeAt(0) <= 0x20 || value.charCodeAt(value.length - 1) <= 0x20)) return undefined;
  const block = new HeaderBlock(`${field.prefix}${value}\r\n`, field.flags);
  if (value.length <= valueLimit) {
    field.value = value;
    field.block = block;
  }
  return block;
}

/**
 * The block for the `headers` of a ResponseInit.
 * err: TypeError as native Headers throw it
 */
export function encodeHeaders(headers: unknown): HeaderBlock {
  if (headers instanceof Headers) return encodeNative(headers);
  if (typeof headers === 'object' && headers !== null) {
    const prototype = Object.getPrototypeOf(headers);
    if (prototype === Object.prototype || prototype === null) {
      const block = encodeRecord(headers as Record<string, unknown>);
      if (block !== undefined) return block;
    }
  }
  return encodeNative(new Headers(headers as HeadersSource));
}

/** ret: undefined when the record holds anything out of the ordinary */
function encodeRecord(headers: Record<string, unknown>): HeaderBlock | undefined {
  // starting over is cheap, but never within a record, whose names must be compared
  if (fields.size >= fieldLimit) {
    fields.clear();
    seenByName.clear();
  }
  record += 1;
  let text = '';
  let flags = 0;
  let only: HeaderBlock = emptyBlock;
  for (const name in headers) {
    const field = fieldOf(name);
    // two spellings of one name are combined into one value
    if (field === undefined || field.seen.in === record) return undefined;
    const line = lineOf(field, headers[name]);
    if (line === undefined) return undefined;
    field.seen.in = record;
    if (text === '') only = line;
    text += line.text;
    flags |= line.flags;
  }
  return text.length === only.text.length ? only : new HeaderBlock(text, flags);
}

/** The block of a Headers object, whose names are lower case and whose values are valid. */
export function encodeNative(headers: Headers): HeaderBlock {
  const all = headers.toJSON() as Record<string, string | string[]>;
  let text = '';
  let flags = 0;
  for (const name in all) {
    const value = all[name] as string | string[];
    if (typeof value === 'string') text += `${name}: ${value}\r\n`;
    // RFC 6265 §3: Set-Cookie cannot be folded into one line
    else for (const one of value) text += `${name}: ${one}\r\n`;
    flags |= fields.get(name)?.flags ?? flagsOf(name);
  }
  return text === '' ? emptyBlock : new HeaderBlock(text, flags);
}

/** A Headers object with the fields of a block. */
export function decodeBlock(block: HeaderBlock): Headers {
  const headers = new Headers();
  for (const [name, value] of linesOf(block.text)) headers.append(name, value);
  return headers;
}

/** `block` with one more field. */
export function withField(block: HeaderBlock, name: string, value: string): HeaderBlock {
  const line = encodeHeaders({ [name]: value });
  return block === emptyBlock ? line : new HeaderBlock(block.text + line.text, block.flags | line.flags);
}

/** Whether `block` has a field of this name, given in lower case. */
export function hasField(block: HeaderBlock, lower: string): boolean {
  if (block.text.length < lower.length) return false;
  for (const [name] of linesOf(block.text)) if (name.toLowerCase() === lower) return true;
  return false;
}

/** The value of a field, given in lower case; several are not joined: the first. ret: null when there is none */
export function fieldValue(block: HeaderBlock, lower: string): string | null {
  for (const [name, value] of linesOf(block.text)) if (name.toLowerCase() === lower) return value;
  return null;
}

/** `block` without a field, given in lower case. */
export function withoutField(block: HeaderBlock, lower: string): HeaderBlock {
  let text = '';
  for (const [name, value] of linesOf(block.text)) if (name.toLowerCase() !== lower) text += `${name}: ${value}\r\n`;
  return new HeaderBlock(text, block.flags & ~flagsOf(lower));
}

export interface Framing {
  /** The block without the fields of the core. */
  text: string;
  /** Content-Length, or -1 when there is none or it is not a length. */
  length: number;
  /** The handler asked for `Connection: close`. */
  close: boolean;
}

/** Take the fields of the core out of a block. Only for blocks with `blockFlags.framing`. */
export function separateFraming(block: HeaderBlock): Framing {
  const framing: Framing = { text: '', length: -1, close: false };
  for (const [name, value] of linesOf(block.text)) {
    const lower = name.toLowerCase();
    if (!fieldsOfTheCore.has(lower)) framing.text += `${name}: ${value}\r\n`;
    else if (lower === 'connection') framing.close ||= /(?:^|,)\s*close\s*(?:,|$)/i.test(value);
    else if (lower === 'content-length' && /^\d{1,15}$/.test(value)) framing.length = Number(value);
  }
  return framing;
}

function* linesOf(text: string): Generator<[name: string, value: string]> {
  for (let at = 0; at < text.length; ) {
    const end = text.indexOf('\r\n', at);
    const colon = text.indexOf(': ', at);
    yield [text.slice(at, colon), text.slice(colon + 2, end)];
    at = end + 2;
  }
}
