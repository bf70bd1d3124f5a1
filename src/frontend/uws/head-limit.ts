/**
 * How long the head of a request may be: what the environment says in UWS_HTTP_MAX_HEADERS_SIZE, as the original reads it.
 * Role: pure. Up: process.ts.
 */

/** Lengths within a head are 16 bits wide in the core (RW_HEAD_BYTES_MAX). */
const mostBytes = 0xffff;

export const headLimitName = 'UWS_HTTP_MAX_HEADERS_SIZE';

/**
 * `value`: of the variable. ret: most bytes of a request's head, the empty line included; undefined: what the core has by default.
 * err: Error that says what to write. The original would refuse every request, or take heads of any length
 */
export function headLimitOf(value: string | undefined): number | undefined {
  if (value === undefined || value === '') return undefined;
  const bytes = Number(value);
  if (!Number.isSafeInteger(bytes) || bytes < 1)
    throw new Error(`${headLimitName} is "${value}"; write the most bytes that the head of a request may have, up to ${mostBytes}`);
  return Math.min(bytes, mostBytes);
}
