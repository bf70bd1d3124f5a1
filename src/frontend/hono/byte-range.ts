/**
 * Ranges of a file that a client asks for (RFC 9110 §14), as Bun.serve answers them: one range of bytes of a file that is sent whole otherwise.
 * Role: pure. Up: response-sender.ts.
 */

/** Bytes from `start` up to and without `end`; 'unsatisfiable': none of them are there (§15.5.17). */
export type ByteRange = { readonly start: number; readonly end: number } | 'unsatisfiable';

/** More digits are no offset in any file. */
const oneRange = /^bytes=[ \t]*(?:(\d{1,15})-(\d{0,15})|-(\d{1,15}))[ \t]*$/i;

/**
 * `value`: of the Range field; `size`: bytes of the file.
 * ret: undefined: the whole file, for want of a range, or because it is malformed, in other units, or several (§14.2 lets a server ignore it)
 */
export function rangeOf(value: string | null, size: number): ByteRange | undefined {
  const parts = value === null ? null : oneRange.exec(value);
  if (parts === null) return undefined;
  const [, first, last, suffix] = parts;
  if (suffix !== undefined) {
    const bytes = Math.min(Number(suffix), size);
    return bytes === 0 ? 'unsatisfiable' : { start: size - bytes, end: size };
  }
  const start = Number(first);
  // §14.1.1: with the last before the first it is no range at all
  if (last !== '' && Number(last) < start) return undefined;
  if (start >= size) return 'unsatisfiable';
  return { start, end: last === '' ? size : Math.min(Number(last) + 1, size) };
}

/**
 * Whether what the client has a part of is still what it would get (RFC 9110 §13.1.5). `condition`: of If-Range; `etag` and `lastModified`: of the
 * response. Both are compared as they stand, and a weak entity tag is never the same.
 */
export function isUnchanged(condition: string | null, etag: string | null, lastModified: string | null): boolean {
  if (condition === null) return true;
  if (condition.startsWith('"')) return condition === etag;
  return !condition.startsWith('W/') && condition === lastModified;
}
