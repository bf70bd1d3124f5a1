/**
 * One value out of a query string, found and decoded as uWebSockets does it, which differs from URLSearchParams in the corners.
 * Role: pure. Up: request.ts.
 */

const percent = 0x25;
const plus = 0x2b;
const space = 0x20;

/**
 * The value of the first statement named `key` in target[mark..], where target[mark] is the question mark.
 * ret: undefined when there is none, when its last escape is cut off, or when a statement before it that begins with the same character
 *      has no equal sign
 */
export function queryValue(target: string, mark: number, key: string): string | undefined {
  if (key === '') return undefined;
  for (let start = mark + 1; start <= target.length; ) {
    const ampersand = target.indexOf('&', start);
    const end = ampersand < 0 ? target.length : ampersand;
    if (end > start && target[start] === key[0]) {
      const equal = target.indexOf('=', start);
      if (equal < 0 || equal >= end) return undefined;
      if (equal - start === key.length && target.startsWith(key, start)) return decoded(target.slice(equal + 1, end));
    }
    start = end + 1;
  }
  return undefined;
}

function decoded(value: string): string | undefined {
  if (!/[%+]/.test(value)) return value;
  const bytes = Buffer.from(value);
  let written = 0;
  for (let read = 0; read < bytes.length; read += 1) {
    const byte = bytes[read] as number;
    if (byte !== percent) {
      bytes[written++] = byte === plus ? space : byte;
      continue;
    }
    if (read + 2 >= bytes.length) return undefined;
    bytes[written++] = nibble(bytes[read + 1] as number) * 16 + nibble(bytes[read + 2] as number);
    read += 2;
  }
  return bytes.toString('utf8', 0, written);
}

/** The value of a hexadecimal digit; something, but always the same, for any other byte. */
function nibble(byte: number): number {
  const digit = byte - 0x30;
  return digit > 9 ? (digit & 0xdf) - 7 : digit;
}
