/**
 * A WebSocket client that says exactly what a test tells it to, right or wrong, over a plain TCP socket.
 *
 * Role: used by end-to-end tests for what a well-behaved client never does. Written from RFC 6455 alone and shares nothing with src/.
 */
import { createHash, randomBytes } from 'node:crypto';
import { connect, type Socket } from 'node:net';

/** Only ends a test that has failed. */
const patienceMs = 20_000;

export const opcode = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const;

export interface Frame {
  readonly fin: boolean;
  readonly opcode: number;
  readonly payload: Buffer;
  /** RSV1: compressed (RFC 7692 §6). Only there when it is, and only where compression was agreed on. */
  readonly compressed?: true;
}

export interface FrameOptions {
  readonly fin?: boolean;
  /** RSV1 to RSV3 as the bits 4, 2, 1. */
  readonly rsv?: number;
  readonly masked?: boolean;
  /** Claim this length instead of the true one. */
  readonly claim?: bigint;
  /** Write the length in so many bytes (1, 2 or 8), also when fewer would do. */
  readonly lengthBytes?: 1 | 2 | 8;
}

/** One frame as its bytes. */
export function frame(code: number, payload: string | Uint8Array = '', options: FrameOptions = {}): Buffer {
  const data = Buffer.from(payload as string);
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
  const key = randomBytes(4);
  const masked = Buffer.alloc(data.length);
  for (let i = 0; i < data.length; i++) masked[i] = (data[i] as number) ^ (key[i & 3] as number);
  return Buffer.concat([head, key, masked]);
}

/** The payload of a close frame. */
export function closePayload(code: number, reason: string | Uint8Array = ''): Buffer {
  const head = Buffer.alloc(2);
  head.writeUInt16BE(code);
  return Buffer.concat([head, Buffer.from(reason as string)]);
}

export const handshakeKey = 'dGhlIHNhbXBsZSBub25jZQ==';

/** The head of a handshake; `fields` replace those of a correct one, undefined leaves one out. */
export function handshake(
  path: string,
  fields: Readonly<Record<string, string | undefined>> = {},
  requestLine = `GET ${path} HTTP/1.1`,
): string {
  const all: Record<string, string | undefined> = {
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

/** What RFC 6455 §4.2.2 wants as the answer to a key. */
export function acceptOf(key: string): string {
  return createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');
}

/** A TCP connection that keeps all it receives. */
export class Wire {
  readonly socket: Socket;
  #received: Buffer = Buffer.alloc(0);
  #chunks: Buffer[] = [];
  readonly #waiting: (() => void)[] = [];
  /** Bytes received so far, those of the answer's head included. */
  receivedBytes = 0;
  /** The connection has ended: by a proper end, or an error such as ECONNRESET. */
  ended: 'end' | string | undefined;
  /** The head of the answer to the handshake of `open`. */
  answer = '';

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on('data', (chunk: Buffer) => {
      this.receivedBytes += chunk.length;
      this.#chunks.push(chunk);
      this.#notify();
    });
    const ends = (how: string) => {
      this.ended ??= how;
      this.#notify();
    };
    socket.on('end', () => ends('end'));
    socket.on('error', (error: NodeJS.ErrnoException) => ends(error.code ?? String(error)));
    socket.on('close', () => ends('close'));
  }

  #notify(): void {
    for (const notify of this.#waiting.splice(0)) notify();
  }

  /** Look again whenever something has come, until there is what is looked for. */
  async #until<Value>(what: string, check: () => Value | undefined): Promise<Value> {
    for (;;) {
      const value = check();
      if (value !== undefined) return value;
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      this.#waiting.push(resolve);
      const timer = setTimeout(() => reject(new Error(`did not come within ${patienceMs} ms: ${what}`)), patienceMs);
      await promise.finally(() => clearTimeout(timer));
    }
  }

  /** `localAddress`: one of 127.0.0.0/8 to come from. */
  static async connect(port: number, localAddress = '127.0.0.1'): Promise<Wire> {
    const socket = connect({ port, host: '127.0.0.1', localAddress, noDelay: true });
    const wire = new Wire(socket);
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', () => resolve());
      socket.once('error', reject);
    });
    return wire;
  }

  /** A connection after its handshake; nothing of the answer's head is left in it. */
  static async open(
    port: number,
    path: string,
    fields: Readonly<Record<string, string | undefined>> = {},
    localAddress?: string,
  ): Promise<Wire> {
    const wire = await Wire.connect(port, localAddress);
    wire.write(handshake(path, fields));
    const head = await wire.head();
    if (!head.startsWith('HTTP/1.1 101 ')) throw new Error(`the handshake was refused: ${head}`);
    wire.answer = head;
    return wire;
  }

  write(bytes: string | Uint8Array): void {
    this.socket.write(bytes);
  }

  /** Write, and wait until the kernel has taken it all. */
  async writeAll(bytes: Uint8Array): Promise<void> {
    await new Promise<void>((resolve) => this.socket.write(bytes, () => resolve()));
  }

  get received(): Buffer {
    if (this.#chunks.length > 0) {
      this.#received = Buffer.concat([this.#received, ...this.#chunks]);
      this.#chunks = [];
    }
    return this.#received;
  }

  /** Take the head of an HTTP answer. */
  async head(): Promise<string> {
    const end = await this.#until('the head of an answer', () => {
      const at = this.received.indexOf('\r\n\r\n');
      if (at >= 0) return at + 4;
      if (this.ended !== undefined) throw new Error(`the connection ended (${this.ended}) before an answer: ${this.received}`);
      return undefined;
    });
    return this.#take(end).toString('latin1');
  }

  /** Take the next frame; undefined when the connection has ended without one. */
  async frame(): Promise<Frame | undefined> {
    const next = await this.#until('a frame, or the end', () => this.#takeFrame() ?? this.ended);
    return typeof next === 'string' ? this.#takeFrame() : next;
  }

  /** Take every frame until the connection has ended. */
  async frames(): Promise<Frame[]> {
    await this.end();
    const all: Frame[] = [];
    for (;;) {
      const next = this.#takeFrame();
      if (next === undefined) return all;
      all.push(next);
    }
  }

  /** Take frames up to the close frame. ret: its code, 1005 for one without; 1006 when the connection ended without one */
  async closeCode(): Promise<number> {
    for (;;) {
      const next = await this.frame();
      if (next === undefined) return 1006;
      if (next.opcode === opcode.close) return next.payload.length >= 2 ? next.payload.readUInt16BE() : 1005;
    }
  }

  async end(): Promise<string> {
    return this.#until('the connection ends', () => this.ended);
  }

  /** Close with RST instead of FIN, as a client that crashes does. */
  reset(): void {
    this.socket.resetAndDestroy();
  }

  destroy(): void {
    this.socket.destroy();
  }

  #take(bytes: number): Buffer {
    const all = this.received;
    this.#received = all.subarray(bytes);
    return all.subarray(0, bytes);
  }

  #takeFrame(): Frame | undefined {
    const all = this.received;
    if (all.length < 2) return undefined;
    const [first, second] = [all[0] as number, all[1] as number];
    if ((second & 0x80) !== 0) throw new Error('a frame of the server is masked (RFC 6455 §5.1)');
    const compressed = (first & 0x40) !== 0;
    if ((first & 0x30) !== 0 || (compressed && !this.answer.includes('permessage-deflate')))
      throw new Error('a frame of the server has reserved bits set');
    let length = second & 0x7f;
    let head = 2;
    if (length === 126) {
      if (all.length < 4) return undefined;
      length = all.readUInt16BE(2);
      head = 4;
      if (length < 126) throw new Error('a length of the server is not minimal');
    } else if (length === 127) {
      if (all.length < 10) return undefined;
      length = Number(all.readBigUInt64BE(2));
      head = 10;
      if (length < 65536) throw new Error('a length of the server is not minimal');
    }
    if (all.length < head + length) return undefined;
    const payload = Buffer.from(all.subarray(head, head + length));
    this.#received = all.subarray(head + length);
    return { fin: (first & 0x80) !== 0, opcode: first & 0x0f, payload, ...(compressed ? { compressed } : {}) };
  }
}

/** Resident memory of a process, in bytes. */
export async function residentBytes(pid: number): Promise<number> {
  const status = await Bun.file(`/proc/${pid}/status`).text();
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1] ?? 0) * 1024;
}
