/**
 * Addresses of peers as the API of uWebSockets.js gives them.
 * Role: pure. Up: response.ts, websocket.ts.
 */

/** A binary address as text in an ArrayBuffer: dotted for 4 bytes, eight full groups of hexadecimal digits for 16, else empty. */
export function addressText(address: Uint8Array): ArrayBuffer {
  const hex = Buffer.from(address.buffer, address.byteOffset, address.byteLength).toString('hex');
  const text = address.byteLength === 4 ? address.join('.') : (hex.match(/.{4}/g) ?? []).join(':');
  // Copied out of Buffer's pool, so that the ArrayBuffer holds the text and nothing else.
  return new Uint8Array(Buffer.from(text, 'latin1')).buffer;
}
