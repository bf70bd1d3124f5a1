// What a WebSocket client writes and reads, as bytes: written from RFC 6455 alone, shares nothing with src/, and always gives the same for
// the same arguments. Plain JavaScript, since the scenarios of tests/contract are loaded by Node too.

export const opcode = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 };

const key = Buffer.from([0x12, 0x34, 0x56, 0x78]);

/** One frame as its bytes. A string is taken as UTF-8. */
export function frame(code, payload = '', options = {}) {
  const data = Buffer.from(payload);
  const length = options.claim ?? BigInt(data.length);
  const lengthBytes = options.lengthBytes ?? (length < 126n ? 1 : length < 65536n ? 2 : 8);
  const mask = options.masked === false ? 0 : 0x80;
  const head = Buffer.alloc(lengthBytes === 1 ? 2 : 2 + lengthBytes);
  head[0] = ((options.fin ?? true) ? 0x80 : 0) | ((options.rsv ?? 0) << 4) | code;
  if (lengthBytes === 1) {
    head[1] = mask | Number(length);
  } else if (lengthBytes === 2) {
    head[1] = mask | 126;
    head.writeUInt16BE(Number(length), 2);
  } else {
    head[1] = mask | 127;
    head.writeBigUInt64BE(length, 2);
  }
  if (mask === 0) return Buffer.concat([head, data]);
  const masked = Buffer.alloc(data.length);
  for (let i = 0; i < data.length; i++) masked[i] = data[i] ^ key[i & 3];
  return Buffer.concat([head, key, masked]);
}

/** The frame at the start of what a server has sent; undefined until it is whole. */
export function parseFrame(bytes) {
  if (bytes.length < 2) return undefined;
  const [first, second] = bytes;
  const short = second & 0x7f;
  const lengthBytes = short < 126 ? 0 : short === 126 ? 2 : 8;
  const head = 2 + lengthBytes;
  if (bytes.length < head) return undefined;
  const length = lengthBytes === 0 ? short : lengthBytes === 2 ? bytes.readUInt16BE(2) : Number(bytes.readBigUInt64BE(2));
  if (bytes.length < head + length) return undefined;
  return {
    fin: (first & 0x80) !== 0,
    rsv: (first >> 4) & 7,
    opcode: first & 15,
    isMasked: (second & 0x80) !== 0,
    isMinimal: lengthBytes === 0 || length >= (lengthBytes === 2 ? 126 : 65536),
    payload: Buffer.from(bytes.subarray(head, head + length)),
    bytes: head + length,
  };
}

/** The payload of a close frame. */
export function closePayload(code, reason = '') {
  const head = Buffer.alloc(2);
  head.writeUInt16BE(code);
  return Buffer.concat([head, Buffer.from(reason)]);
}

export const handshakeKey = 'dGhlIHNhbXBsZSBub25jZQ==';

/** The head of a handshake; `fields` replace those of a correct one, undefined leaves one out. */
export function handshake(path, fields = {}, requestLine = `GET ${path} HTTP/1.1`) {
  const all = {
    Host: 'localhost',
    Upgrade: 'websocket',
    Connection: 'Upgrade',
    'Sec-WebSocket-Key': handshakeKey,
    'Sec-WebSocket-Version': '13',
    ...fields,
  };
  const lines = Object.entries(all).flatMap(([name, value]) => (value === undefined ? [] : [`${name}: ${value}`]));
  return `${[requestLine, ...lines].join('\r\n')}\r\n\r\n`;
}
