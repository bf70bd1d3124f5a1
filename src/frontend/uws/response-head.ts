/**
 * Status and header fields as a program writes them, turned into what the core takes.
 *
 * Role: pure but for a bounded table of names. Up: response.ts. The core writes the framing of a response, so that it is never
 * ambiguous (RFC 9112 §6); fields about framing are understood here instead of passed on.
 */
import { textOrBytes } from './strings.ts';

/** RFC 9110 §5.6.2 */
const token = /^[!#$%&'*+\-.^_`|~\w]+$/;
/** Anything that needs a closer look: not plain printable ASCII. */
const unusual = /[^\t\x20-\x7e]/;
/** What would end a line, or the text for many a reader (RFC 9110 §5.5). */
const lineBreaking = /[\0\r\n]/;
const statusShape = /^[1-9]\d\d(?: |$)/;

/** The core takes the length of a status in one byte. */
const statusBytesLimit = 255;

export const fieldKind = {
  plain: 0,
  /** The core writes the true one; remembered for a response that has no body of its own. */
  contentLength: 1,
  /** Known only to the core, and Date written by it. */
  ofTheCore: 2,
  connection: 3,
} as const;

const kinds: ReadonlyMap<string, number> = new Map([
  ['content-length', fieldKind.contentLength],
  ['transfer-encoding', fieldKind.ofTheCore],
  ['date', fieldKind.ofTheCore],
  ['connection', fieldKind.connection],
]);

/** A name met before, and the line that it last stood in: programs write the same few fields again and again. */
interface KnownField {
  readonly kind: number;
  value: string | undefined;
  line: string;
}

/** By spelling. Names are the program's, but one that makes them up must not fill memory. */
const nameLimit = 512;
const known = new Map<string, KnownField>();
/** Longer values are not kept. */
const keptValueLimit = 256;

/** ret: the line of a plain field that was written before with this very value, else undefined */
export function knownLine(name: unknown, value: unknown): string | undefined {
  const field = typeof value === 'string' ? known.get(name as string) : undefined;
  return field !== undefined && field.value === value ? field.line : undefined;
}

/** The line of a plain field, whose name `kindOfField` knows. */
export function fieldLine(name: string, value: string): string {
  const line = `${name}: ${value}\r\n`;
  const field = known.get(name);
  // Octets of anything beyond ASCII are not the text that it is looked up by.
  if (field !== undefined && value.length <= keptValueLimit && !unusual.test(value)) {
    field.value = value;
    field.line = line;
  }
  return line;
}

/** ret: `fieldKind`. err: Error when it is not a name */
export function kindOfField(name: string): number {
  const before = known.get(name);
  if (before !== undefined) return before.kind;
  if (!token.test(name)) throw invalid(`a header cannot have the name ${JSON.stringify(name)}`);
  const kind = kinds.get(name.toLowerCase()) ?? fieldKind.plain;
  if (known.size >= nameLimit) known.clear();
  known.set(name, { kind, value: undefined, line: '' });
  return kind;
}

/** An argument as octets U+0000 to U+00FF for one line of a head. err: Error when it would break the line */
export function lineText(argument: unknown): string {
  const value = textOrBytes(argument);
  if (typeof value === 'string' && !unusual.test(value)) return value;
  const octets = Buffer.from(value as string).toString('latin1');
  if (lineBreaking.test(octets)) throw invalid('a status, header name or header value cannot hold CR, LF or NUL');
  return octets;
}

/** The number in a status such as '200 OK'. err: Error when there is none */
export function statusOf(text: string): number {
  if (!statusShape.test(text) || text.length > statusBytesLimit) {
    throw invalid(`a status begins with three digits, as in '200 OK', and has at most ${statusBytesLimit} bytes`);
  }
  return Number(text.slice(0, 3));
}

/** ret: undefined when it is not a length */
export function lengthOf(value: string): number | undefined {
  return /^\d{1,15}$/.test(value) ? Number(value) : undefined;
}

/** Does this Connection field end the connection (RFC 9110 §7.6.1)? */
export function asksForClose(value: string): boolean {
  return /(?:^|,)[\t ]*close[\t ]*(?:,|$)/i.test(value);
}

/** No body, whatever the program writes (RFC 9110 §8.6, §15.3.5, §15.4.5). */
export function isBodiless(status: number): boolean {
  return status < 200 || status === 204 || status === 304;
}

export function invalid(message: string): Error {
  return Object.assign(new Error(message), { code: 'RW_INVALID_ARGUMENT' });
}
