/**
 * Text of a few bytes, decoded once for as long as it keeps coming.
 *
 * Role: for request.ts, whose programs are asked for the same paths again and again. A call into the runtime for each new string costs
 * more than comparing it with one seen before, whose hash is known besides when it is looked up in a Map.
 */

/** A power of two. Each place keeps the latest text that fell on it, so that what clients make up only costs them their own misses. */
const placeCount = 256;
const bytesLimit = 64;

const places: string[] = new Array(placeCount).fill('');

/** payload[start..start+bytes) as UTF-8. */
export function shortText(payload: Buffer, start: number, bytes: number): string {
  if (bytes > bytesLimit) return payload.utf8Slice(start, start + bytes);
  const end = start + bytes;
  let hash = bytes;
  for (let at = start; at < end; at += 1) hash = (Math.imul(hash, 31) + (payload[at] as number)) | 0;
  const place = (hash ^ (hash >>> 8)) & (placeCount - 1);
  const known = places[place] as string;
  if (known.length === bytes) {
    let at = 0;
    while (at < bytes && known.charCodeAt(at) === payload[start + at]) at += 1;
    if (at === bytes) return known;
  }
  const text = payload.utf8Slice(start, end);
  // As many characters as bytes: ASCII, or U+FFFD, which no byte is equal to. So what is equal above is the text of these bytes.
  if (text.length === bytes) places[place] = text;
  return text;
}
