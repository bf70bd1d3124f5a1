/**
 * Arguments that may be text or bytes, as the API of uWebSockets.js takes them.
 * Role: pure. Up: every file of this folder that takes a RecognizedString. A text is its UTF-8; undefined is empty.
 */

/** What the original calls RecognizedString. */
export type Texts = string | ArrayBuffer | SharedArrayBuffer | ArrayBufferView;

const refusal = 'Text and data can only be passed by String, ArrayBuffer or TypedArray.';

const empty = new Uint8Array(0);

/** Anything that is not plain ASCII. */
const beyondAscii = /[^\0-\x7f]/;

/** A text as it is, bytes as a view of the same memory. err: Error for anything else */
export function textOrBytes(argument: unknown): string | Uint8Array {
  if (typeof argument === 'string') return argument;
  if (argument instanceof Uint8Array) return argument;
  if (argument === undefined) return '';
  if (argument instanceof ArrayBuffer || argument instanceof SharedArrayBuffer) return new Uint8Array(argument);
  // A DataView is not a typed array.
  if (ArrayBuffer.isView(argument) && !(argument instanceof DataView)) {
    return new Uint8Array(argument.buffer, argument.byteOffset, argument.byteLength);
  }
  throw new Error(refusal);
}

/** The bytes of an argument; those of an ArrayBuffer or typed array are not copied. */
export function bytesOfArgument(argument: unknown): Uint8Array {
  const value = textOrBytes(argument);
  if (typeof value !== 'string') return value;
  return value === '' ? empty : Buffer.from(value);
}

/** The bytes of an argument as characters U+0000 to U+00FF. */
export function latin1OfArgument(argument: unknown): string {
  const value = textOrBytes(argument);
  if (typeof value !== 'string') return bufferOver(value).latin1Slice(0, value.byteLength);
  return beyondAscii.test(value) ? Buffer.from(value).toString('latin1') : value;
}

/** An argument as text; bytes are read as UTF-8. */
export function textOfArgument(argument: unknown): string {
  const value = textOrBytes(argument);
  return typeof value === 'string' ? value : bufferOver(value).utf8Slice(0, value.byteLength);
}

/** Characters U+0000 to U+00FF read as UTF-8. */
export function utf8OfLatin1(text: string): string {
  return beyondAscii.test(text) ? Buffer.from(text, 'latin1').toString() : text;
}

/** A function, or the error of the original. */
export function callbackOf<Callback>(argument: Callback): Callback {
  if (typeof argument !== 'function') throw new Error('Passed callback is not a valid function.');
  return argument;
}

function bufferOver(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
