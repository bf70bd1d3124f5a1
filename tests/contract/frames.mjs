// What a WebSocket client writes, as bytes: written from RFC 6455 alone, and always the same for the same arguments.
// Plain JavaScript, since a scenario is loaded by the Node or Bun its server runs in too.

export const opcode = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 };

const mask = Buffer.from([0x12, 0x34, 0x56, 0x78]);

/** One frame of a client as its bytes. A string is taken as UTF-8. */
export function frame(code, payload = '', options = {}) {
  const data = Buffer.from(payload);
  const masked = options.masked !== false;
  const lengthBytes = data.length < 126 ? 0 : data.length < 65536 ? 2 : 8;
  const head = Buffer.alloc(2 + lengthBytes);
  head[0] = ((options.fin ?? true) ? 0x80 : 0) | ((options.rsv ?? 0) << 4) | code;
  head[1] = (masked ? 0x80 : 0) | (lengthBytes === 0 ? data.length : lengthBytes === 2 ? 126 : 127);
  if (lengthBytes === 2) head.writeUInt16BE(data.length, 2);
  if (lengthBytes === 8) head.writeBigUInt64BE(BigInt(data.length), 2);
  if (!masked) return Buffer.concat([head, data]);
  return Buffer.concat([head, mask, data.map((byte, index) => byte ^ mask[index & 3])]);
}

/** The payload of a close frame. */
export function closePayload(code, reason = '') {
  const head = Buffer.alloc(2);
  head.writeUInt16BE(code);
  return Buffer.concat([head, Buffer.from(reason)]);
}

/** The head of a handshake; `fields` replace those of a correct one, undefined leaves one out. */
export function handshake(path, fields = {}) {
  const all = {
    Host: 'localhost',
    Upgrade: 'websocket',
    Connection: 'Upgrade',
    'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==',
    'Sec-WebSocket-Version': '13',
    ...fields,
  };
  const lines = Object.entries(all).flatMap(([name, value]) => (value === undefined ? [] : [`${name}: ${value}`]));
  return `${[`GET ${path} HTTP/1.1`, ...lines].join('\r\n')}\r\n\r\n`;
}

/** The bytes of an ArrayBuffer as text, each as one character. */
export function text(buffer) {
  return Buffer.from(buffer).toString('latin1');
}

/** Every handler of a behavior, logging what it gets; `more` replaces some. */
export function logging(log, more = {}) {
  return {
    open: (ws) => log('open', Object.keys(ws)),
    message: (_ws, message, isBinary) => log('message', text(message), isBinary),
    drain: () => log('drain'),
    close: (_ws, code) => log('close', code),
    ping: (_ws, message) => log('ping', text(message)),
    pong: (_ws, message) => log('pong', text(message)),
    subscription: (_ws, topic, now, before) => log('subscription', text(topic), now, before),
    ...more,
  };
}
