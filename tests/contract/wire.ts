/**
 * The client's end of a TCP or TLS connection: what it writes and reads is exact to the byte.
 *
 * Role: both sides of a comparison are driven by it. It reads HTTP responses and WebSocket frames one by one, as text that two
 * transcripts can be compared by.
 */
import { createHash } from 'node:crypto';
import { connect, type Socket } from 'node:net';
import { type ConnectionOptions, connect as connectTls } from 'node:tls';
import { constants, createInflateRaw, type InflateRaw } from 'node:zlib';
import { patienceMs } from './program.ts';

export interface Frame {
  readonly fin: boolean;
  /** RSV1 to RSV3 as the bits 4, 2, 1. */
  readonly rsv: number;
  readonly opcode: number;
  /** Each byte as one character. */
  readonly payload: string;
}

/** A head with what can never be the same on both sides taken out: the time, and the name the original signs with. */
function normalise(head: string): string {
  return head.replace(/^Date: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\r\n/m, 'Date: now\r\n').replace('uWebSockets: 20\r\n', '');
}

/** Long bytes by their length and hash. */
export function brief(bytes: Buffer): string {
  if (bytes.length <= 2048) return bytes.toString('latin1');
  return `${bytes.length} bytes, sha1 ${createHash('sha1').update(bytes).digest('hex')}`;
}

export interface WireOptions {
  readonly host?: string;
  /** A Unix socket instead of a port. */
  readonly path?: string;
  readonly tls?: ConnectionOptions;
}

export class Wire {
  readonly socket: Socket;
  #received: Buffer = Buffer.alloc(0);
  #chunks: Buffer[] = [];
  readonly #waiting: (() => void)[] = [];
  #ended = false;
  #inflater: InflateRaw | undefined;

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on('data', (chunk: Buffer) => {
      this.#chunks.push(chunk);
      this.#notify();
    });
    const ends = () => {
      this.#ended = true;
      this.#notify();
    };
    socket.on('end', ends);
    // By a proper end or by a reset: which of the two a client sees depends on what was under way.
    socket.on('error', ends);
    socket.on('close', ends);
  }

  static async connect(port: number, options: WireOptions = {}): Promise<Wire> {
    const target = options.path === undefined ? { port, host: options.host ?? '127.0.0.1' } : { path: options.path };
    const socket = options.tls === undefined ? connect(target) : connectTls({ ...target, rejectUnauthorized: false, ...options.tls });
    const wire = new Wire(socket);
    await new Promise<void>((resolve, reject) => {
      socket.once(options.tls === undefined ? 'connect' : 'secureConnect', () => resolve());
      socket.once('error', reject);
      socket.once('close', () => reject(new Error('closed before it was open')));
    });
    if (options.path === undefined) socket.setNoDelay(true);
    return wire;
  }

  #notify(): void {
    for (const notify of this.#waiting.splice(0)) notify();
  }

  get received(): Buffer {
    if (this.#chunks.length > 0) {
      this.#received = Buffer.concat([this.#received, ...this.#chunks]);
      this.#chunks = [];
    }
    return this.#received;
  }

  /** Look again whenever something has come, until there is what is looked for. */
  async #until<Value>(what: string, check: () => Value | undefined): Promise<Value> {
    for (;;) {
      const value = check();
      if (value !== undefined) return value;
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      this.#waiting.push(resolve);
      const timer = setTimeout(() => reject(new Error(`did not come: ${what}; there is ${brief(this.received)}`)), patienceMs);
      await promise.finally(() => clearTimeout(timer));
    }
  }

  write(bytes: string | Uint8Array): void {
    this.socket.write(bytes);
  }

  pause(): void {
    this.socket.pause();
  }

  resume(): void {
    this.socket.resume();
  }

  /** End our half. */
  end(): void {
    this.socket.end();
  }

  /** Close with RST, as a client that crashes does. */
  reset(): void {
    this.socket.resetAndDestroy();
  }

  destroy(): void {
    this.socket.destroy();
  }

  #take(count: number): Buffer {
    const all = this.received;
    this.#received = all.subarray(count);
    return all.subarray(0, count);
  }

  /** Take so many bytes, or what there is when the connection ends before. */
  async #bytes(count: number): Promise<Buffer> {
    const length = await this.#until(`${count} bytes`, () =>
      this.received.length >= count ? count : this.#ended ? this.received.length : undefined,
    );
    return this.#take(length);
  }

  /** Take up to and with a delimiter; undefined when the connection ends before it has come. */
  async #through(delimiter: string): Promise<Buffer | undefined> {
    const end = await this.#until(JSON.stringify(delimiter), () => {
      const at = this.received.indexOf(delimiter);
      return at >= 0 ? at + delimiter.length : this.#ended ? -1 : undefined;
    });
    return end < 0 ? undefined : this.#take(end);
  }

  /** Take the head of an HTTP answer; what there is, and that it ended, when it does before the head is whole. */
  async head(): Promise<string> {
    const head = await this.#through('\r\n\r\n');
    return head === undefined ? `${this.#take(this.received.length).toString('latin1')}<closed>` : normalise(head.toString('latin1'));
  }

  /** Take a whole HTTP answer. out: head and body as they came, but for the time; `<closed>` where the connection ended too early */
  async response(method = 'GET'): Promise<string> {
    const head = await this.head();
    if (head.endsWith('<closed>') || method === 'HEAD' || /^HTTP\/1\.1 (1\d\d|204|304) /.test(head)) return head;
    if (/^transfer-encoding: chunked\r$/im.test(head)) return head + (await this.#chunked());
    const length = /^content-length: (\d+)\r$/im.exec(head)?.[1];
    const body = length === undefined ? await this.rest() : await this.#bytes(Number(length));
    return head + brief(body) + (length !== undefined && body.length < Number(length) ? '<closed>' : '');
  }

  async #chunked(): Promise<string> {
    let text = '';
    for (;;) {
      const chunk = await this.chunk();
      text += chunk;
      if (chunk.startsWith('0\r\n') || chunk.endsWith('<closed>')) return text;
    }
  }

  /** Take a chunk of a chunked body, with its size before it. */
  async chunk(): Promise<string> {
    const line = await this.#through('\r\n');
    if (line === undefined) return '<closed>';
    const size = Number.parseInt(line.toString('latin1'), 16);
    return line.toString('latin1') + brief(await this.#bytes(size + 2));
  }

  /** Take everything until the connection has ended. */
  async rest(): Promise<Buffer> {
    await this.#until('the end of the connection', () => (this.#ended ? true : undefined));
    return this.#take(this.received.length);
  }

  /** What still comes until the connection has ended, as text. */
  async closed(): Promise<string> {
    return `${normalise(brief(await this.rest()))}<closed>`;
  }

  /** Take the next frame, as it is; 'closed' when the connection has ended without one. */
  async rawFrame(): Promise<Frame | 'closed'> {
    const head = await this.#bytes(2);
    if (head.length < 2) return 'closed';
    const [first, second] = [head[0] as number, head[1] as number];
    const long =
      second === 126 ? (await this.#bytes(2)).readUInt16BE() : second === 127 ? (await this.#bytes(8)).readBigUInt64BE() : second;
    const payload = await this.#bytes(Number(long));
    return { fin: (first & 0x80) !== 0, rsv: (first >> 4) & 7, opcode: first & 15, payload: payload.toString('latin1') };
  }

  /** Take the next frame; a compressed one is inflated, in the context of those before. */
  async frame(): Promise<Frame | 'closed'> {
    const raw = await this.rawFrame();
    if (raw === 'closed' || (raw.rsv & 4) === 0) return raw;
    return { ...raw, payload: brief(await this.#inflate(Buffer.from(raw.payload, 'latin1'))) };
  }

  /** Take so many frames; fewer when the connection ends. */
  async frames(count: number): Promise<(Frame | 'closed')[]> {
    const all: (Frame | 'closed')[] = [];
    while (all.length < count && all.at(-1) !== 'closed') all.push(await this.frame());
    return all;
  }

  /** RFC 7692 §7.2.2: the four bytes of an empty block are left out of what is sent. */
  async #inflate(payload: Buffer): Promise<Buffer> {
    this.#inflater ??= createInflateRaw({ finishFlush: constants.Z_SYNC_FLUSH });
    const inflater = this.#inflater;
    const parts: Buffer[] = [];
    const keep = (part: Buffer) => parts.push(part);
    inflater.on('data', keep);
    await new Promise<void>((resolve, reject) => {
      inflater.once('error', reject);
      inflater.write(Buffer.concat([payload, Buffer.from([0, 0, 0xff, 0xff])]));
      inflater.flush(constants.Z_SYNC_FLUSH, () => resolve());
    });
    inflater.off('data', keep);
    return Buffer.concat(parts);
  }
}
