/**
 * getParts: the parts of a multipart/form-data body (RFC 7578, RFC 2046 §5.1).
 * Role: pure; exported by index.ts. Reading stops at what cannot be read, and what came before stands. Takes time in proportion to the body.
 */
import { bytesOfArgument, latin1OfArgument, utf8OfLatin1 } from './strings.ts';
import type { MultipartField, RecognizedString } from './types.ts';

/** RFC 2046 §5.1.1 */
const boundaryBytesLimit = 70;
/** Of one part. */
const headerCountLimit = 10;

const quotedOrPlain = /;[\t ]*boundary[\t ]*=[\t ]*(?:"([^"]*)"|([^\s;]+))/i;

/** ret: undefined when `contentType` is not that of a multipart body */
export function getParts(body: RecognizedString, contentType: RecognizedString): MultipartField[] | undefined {
  const bytes = bytesOfArgument(body);
  const boundary = boundaryOf(latin1OfArgument(contentType));
  if (boundary === undefined) return undefined;
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const delimiter = Buffer.from(`--${boundary}`, 'latin1');
  const fields: MultipartField[] = [];
  const first = text.indexOf(delimiter);
  if (first < 0) return fields;
  for (let start = first + delimiter.length; ; ) {
    const end = text.indexOf(delimiter, start);
    // Each part lies between CRLFs that belong to the delimiters.
    if (end < 0 || end - start < 4) return fields;
    const field = fieldOf(text.subarray(start + 2, end - 2));
    if (field === undefined) return fields;
    fields.push(field);
    start = end + delimiter.length;
  }
}

function boundaryOf(contentType: string): string | undefined {
  if (!contentType.startsWith('multipart/')) return undefined;
  const found = quotedOrPlain.exec(contentType);
  const boundary = found?.[1] ?? found?.[2] ?? '';
  return boundary === '' || boundary.length > boundaryBytesLimit ? undefined : boundary;
}

/** ret: undefined when its headers cannot be read */
function fieldOf(part: Buffer): MultipartField | undefined {
  const headers = headersOf(part);
  if (headers === undefined) return undefined;
  const data = new Uint8Array(part.subarray(headers.bytes)).buffer;
  // A part without a name is given as it is, as in the original: whether that is a mistake is for the program to say.
  const field = { data } as MultipartField;
  for (const [name, value] of headers.list) {
    if (name === 'content-type') field.type = utf8OfLatin1(value);
    else if (name === 'content-disposition') describe(field, value);
  }
  return field;
}

interface Headers {
  readonly list: readonly (readonly [name: string, value: string])[];
  /** With the empty line that ends them. */
  readonly bytes: number;
}

function headersOf(part: Buffer): Headers | undefined {
  const list: [string, string][] = [];
  for (let at = 0; list.length < headerCountLimit; ) {
    const end = part.indexOf('\r\n', at);
    if (end < 0) return undefined;
    if (end === at) return { list, bytes: end + 2 };
    const line = part.latin1Slice(at, end);
    const colon = line.indexOf(':');
    // What has no colon is a field without value: nothing that is asked for.
    if (colon >= 0) list.push([line.slice(0, colon).toLowerCase(), line.slice(colon + 1).replace(/^[:\0-\x20]+/, '')]);
    else list.push([line.toLowerCase(), '']);
    at = end + 2;
  }
  return undefined;
}

/** A parameter's name and, behind an equal sign, its value, plain or in quotes. */
const parameter = /[\s;]*([^\s;="]+)\s*(?:=\s*(?:"([^"]*)"|([^\s;="]*)))?/gy;

function describe(field: MultipartField, disposition: string): void {
  for (const [, name, quoted, plain] of disposition.matchAll(parameter)) {
    if (name !== 'name' && name !== 'filename') continue;
    const value = quoted ?? plain;
    if (value !== undefined) field[name] = utf8OfLatin1(value);
  }
}
