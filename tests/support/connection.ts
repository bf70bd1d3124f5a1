/**
 * A client's end of a TCP, TLS or Unix connection: writes exactly the bytes it is told to, and keeps all that comes until it is taken.
 *
 * Role: what every client of these tests is made of (wire.ts, raw-client.ts). It shares nothing with src/.
 */
import { connect, type Socket } from 'node:net';
import { type ConnectionOptions, connect as connectTls } from 'node:tls';
import { patienceMs } from './eventually.ts';

export interface Target {
  readonly port?: number;
  readonly host?: string;
  /** One of 127.0.0.0/8 to come from. */
  readonly localAddress?: string;
  /** A Unix socket instead of a port. */
  readonly path?: string;
  /** Over TLS; no certificate is checked unless these say so. */
  readonly tls?: ConnectionOptions;
  /** When the server has ended its half, ours stays open until `end` or `destroy`. */
  readonly allowHalfOpen?: boolean;
}

/** A socket that is connected. */
export async function dial({ port = 0, host = '127.0.0.1', localAddress, path, tls, allowHalfOpen = false }: Target): Promise<Socket> {
  const place = path === undefined ? { port, host, ...(localAddress === undefined ? {} : { localAddress }) } : { path };
  const target = { ...place, allowHalfOpen };
  const socket = tls === undefined ? connect(target) : connectTls({ ...target, rejectUnauthorized: false, ...tls });
  await new Promise<void>((resolve, reject) => {
    socket.once(tls === undefined ? 'connect' : 'secureConnect', () => resolve());
    socket.once('error', reject);
    socket.once('close', () => reject(new Error('closed before it was open')));
  });
  if (path === undefined) socket.setNoDelay(true);
  return socket;
}

export class Connection {
  readonly socket: Socket;
  /** Bytes received so far, those taken included. */
  receivedBytes = 0;
  /** How the server's side has ended: 'end', 'close', or an error such as ECONNRESET. */
  ended: string | undefined;
  /** What was received and not taken lies from `#start` to `#end`. */
  #buffer = Buffer.alloc(0);
  #start = 0;
  #end = 0;
  readonly #waiting: (() => void)[] = [];

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on('data', (chunk: Buffer) => {
      this.#append(chunk);
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

  /** What has been given out stays as it is: what was taken is never written over. */
  #append(chunk: Buffer): void {
    this.receivedBytes += chunk.length;
    if (this.#end + chunk.length > this.#buffer.length) {
      const rest = this.received;
      this.#buffer = Buffer.alloc(2 * (rest.length + chunk.length));
      rest.copy(this.#buffer);
      [this.#start, this.#end] = [0, rest.length];
    }
    chunk.copy(this.#buffer, this.#end);
    this.#end += chunk.length;
  }

  #notify(): void {
    for (const notify of this.#waiting.splice(0)) notify();
  }

  /** What was received and not yet taken. */
  get received(): Buffer {
    return this.#buffer.subarray(this.#start, this.#end);
  }

  /** The server has closed, or reset, the connection. */
  get isClosed(): boolean {
    return this.ended !== undefined;
  }

  write(bytes: string | Uint8Array): void {
    this.socket.write(bytes);
  }

  /** Write, and wait until the kernel has taken it all. */
  async writeAll(bytes: Uint8Array): Promise<void> {
    await new Promise<void>((resolve) => this.socket.write(bytes, () => resolve()));
  }

  /** Read no more, so that the server has to wait. */
  pause(): void {
    this.socket.pause();
  }

  resume(): void {
    this.socket.resume();
  }

  /** Nothing more will be sent; the server may go on. */
  end(): void {
    this.socket.end();
  }

  /** Close with RST instead of FIN, as a client that crashes does. */
  reset(): void {
    this.socket.resetAndDestroy();
  }

  destroy(): void {
    this.socket.destroy();
  }

  /** Look again whenever something has come, until there is what is looked for. */
  protected async until<Value>(what: string, check: () => Value | undefined): Promise<Value> {
    for (;;) {
      const value = check();
      if (value !== undefined) return value;
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      this.#waiting.push(resolve);
      const late = () => reject(new Error(`did not come within ${patienceMs} ms: ${what}; there is ${this.#seen()}`));
      const timer = setTimeout(late, patienceMs);
      await promise.finally(() => clearTimeout(timer));
    }
  }

  #seen(): string {
    const text = JSON.stringify(this.received.toString('latin1', 0, 2000));
    return this.ended === undefined ? text : `${text}, and the end (${this.ended})`;
  }

  /** Wait until the server has ended it. ret: how */
  async untilEnded(): Promise<string> {
    return this.until('the connection ends', () => this.ended);
  }

  protected take(bytes: number): Buffer {
    const taken = this.received.subarray(0, bytes);
    this.#start += taken.length;
    return taken;
  }

  /** Take so many bytes, or what there is when the connection ends before. */
  protected async bytes(count: number): Promise<Buffer> {
    await this.until(`${count} bytes`, () => this.received.length >= count || this.isClosed || undefined);
    return this.take(count);
  }

  /** Take up to and with a delimiter; undefined when the connection ends before it has come. */
  protected async through(delimiter: string): Promise<Buffer | undefined> {
    const end = await this.until(JSON.stringify(delimiter), () => {
      const at = this.received.indexOf(delimiter);
      return at >= 0 ? at + delimiter.length : this.isClosed ? -1 : undefined;
    });
    return end < 0 ? undefined : this.take(end);
  }

  /** Take everything until the connection has ended. */
  async rest(): Promise<Buffer> {
    await this.untilEnded();
    return this.take(this.received.length);
  }
}
