/**
 * A client that never stops: keep-alive HTTP, new connections all the time, and WebSockets that come back. It counts what is not as it should be.
 *
 * Role: run as a program of its own beside a gateway that reloads (reload.test.ts), with its options as JSON in its first argument. A line on
 * standard input ends it; then it writes a `Tally` as JSON.
 */
import { connect, type Socket } from 'node:net';
import { closePayload, frame, handshake, opcode } from './frames.mjs';

export interface ClientOptions {
  readonly port: number;
  /** Connections that send one request after the other. */
  readonly keepAlive: number;
  /** Milliseconds between two new connections with one request each. */
  readonly openEveryMs: number;
  readonly webSockets: number;
  /** Milliseconds between two messages of a WebSocket. */
  readonly echoEveryMs: number;
}

export interface Tally {
  /** Responses that came whole. */
  responses: number;
  /** Connections that were made, of every kind. */
  connections: number;
  /** By error: ECONNREFUSED, ECONNRESET and the like, wherever they came. */
  errors: Record<string, number>;
  /** Requests whose connection ended before their response was there. */
  lost: number;
  /** Responses by their body. */
  bodies: Record<string, number>;
  /** Responses that said `Connection: close`. */
  announcedCloses: number;
  /** WebSockets that ended, by close code; 1006: without one. */
  closes: Record<string, number>;
  /** Of those closes: when, in milliseconds since the first. */
  closeTimes: number[];
  echoes: number;
}

const tally: Tally = {
  responses: 0,
  connections: 0,
  errors: {},
  lost: 0,
  bodies: {},
  announcedCloses: 0,
  closes: {},
  closeTimes: [],
  echoes: 0,
};
const options = JSON.parse(process.argv[2] ?? '{}') as ClientOptions;
let running = true;

function count(table: Record<string, number>, key: string): void {
  table[key] = (table[key] ?? 0) + 1;
}

/** A socket whose received bytes and end can be awaited. */
class Peer {
  readonly #socket: Socket;
  #bytes = Buffer.alloc(0);
  #hasEnded = false;
  #wake: (() => void) | undefined;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', (chunk: Buffer) => {
      this.#bytes = Buffer.concat([this.#bytes, chunk]);
      this.#wake?.();
    });
    const end = () => {
      this.#hasEnded = true;
      this.#wake?.();
    };
    socket.on('end', end);
    socket.on('close', end);
    socket.on('error', (error: NodeJS.ErrnoException) => {
      count(tally.errors, error.code ?? String(error));
      end();
    });
  }

  static async open(): Promise<Peer | undefined> {
    const socket = connect({ port: options.port, host: '127.0.0.1', noDelay: true });
    const isOpen = await new Promise<boolean>((resolve) => {
      socket.once('connect', () => resolve(true));
      socket.once('error', (error: NodeJS.ErrnoException) => {
        count(tally.errors, error.code ?? String(error));
        resolve(false);
      });
    });
    if (!isOpen) return undefined;
    tally.connections += 1;
    return new Peer(socket);
  }

  write(bytes: string | Uint8Array): void {
    this.#socket.write(bytes);
  }

  close(): void {
    this.#socket.destroy();
  }

  get hasEnded(): boolean {
    return this.#hasEnded;
  }

  /** Wait until `parse` takes bytes from the front. ret: undefined: the end came first */
  async take<Value>(parse: (bytes: Buffer) => { value: Value; bytes: number } | undefined): Promise<Value | undefined> {
    for (;;) {
      const parsed = parse(this.#bytes);
      if (parsed !== undefined) {
        this.#bytes = this.#bytes.subarray(parsed.bytes);
        return parsed.value;
      }
      if (this.#hasEnded) return undefined;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }
}

interface Response {
  readonly head: string;
  readonly body: string;
}

function parseResponse(bytes: Buffer): { value: Response; bytes: number } | undefined {
  const end = bytes.indexOf('\r\n\r\n');
  if (end < 0) return undefined;
  const head = bytes.toString('latin1', 0, end);
  const length = Number(/^content-length: (\d+)/im.exec(head)?.[1] ?? Number.NaN);
  if (!head.startsWith('HTTP/1.1 200 ') || Number.isNaN(length)) throw new Error(`not the response that was expected: ${head}`);
  const whole = end + 4 + length;
  return bytes.length < whole ? undefined : { value: { head, body: bytes.toString('latin1', end + 4, whole) }, bytes: whole };
}

/** One request. ret: whether the connection can be used again */
async function exchange(peer: Peer, extra = ''): Promise<boolean> {
  peer.write(`GET / HTTP/1.1\r\nHost: localhost\r\n${extra}\r\n`);
  const response = await peer.take(parseResponse);
  if (response === undefined) {
    tally.lost += 1;
    return false;
  }
  tally.responses += 1;
  count(tally.bodies, response.body);
  const closes = /^connection: close/im.test(response.head);
  if (closes && extra === '') tally.announcedCloses += 1;
  return !closes;
}

async function keepAlive(): Promise<void> {
  while (running) {
    const peer = await Peer.open();
    if (peer === undefined) continue;
    while (running && !peer.hasEnded && (await exchange(peer))) await Bun.sleep(2);
    peer.close();
  }
}

async function openOne(): Promise<void> {
  const peer = await Peer.open();
  if (peer === undefined) return;
  await exchange(peer, 'Connection: close\r\n');
  peer.close();
}

function parseHead(bytes: Buffer): { value: string; bytes: number } | undefined {
  const end = bytes.indexOf('\r\n\r\n');
  return end < 0 ? undefined : { value: bytes.toString('latin1', 0, end), bytes: end + 4 };
}

/** Frames of up to 125 bytes, which is all that this gateway sends. */
function parseFrame(bytes: Buffer): { value: { code: number; payload: Buffer }; bytes: number } | undefined {
  const length = bytes[1];
  if (length === undefined || bytes.length < 2 + length) return undefined;
  return { value: { code: (bytes[0] ?? 0) & 0x0f, payload: Buffer.from(bytes.subarray(2, 2 + length)) }, bytes: 2 + length };
}

let firstCloseAt: number | undefined;

/** Echo one message after the other until the server closes; then come back. */
async function webSocket(): Promise<void> {
  while (running) {
    const peer = await Peer.open();
    if (peer === undefined) continue;
    peer.write(handshake('/echo'));
    const head = await peer.take(parseHead);
    if (head === undefined || !head.startsWith('HTTP/1.1 101 ')) {
      tally.lost += 1;
      peer.close();
      continue;
    }
    await echoUntilClosed(peer);
    peer.close();
  }
}

async function echoUntilClosed(peer: Peer): Promise<void> {
  for (let number = 0; running; number++) {
    const text = `message ${number}`;
    peer.write(frame(opcode.text, text));
    const answer = await peer.take(parseFrame);
    if (answer === undefined || answer.code === opcode.close) {
      const now = performance.now();
      firstCloseAt ??= now;
      tally.closeTimes.push(Math.round(now - firstCloseAt));
      count(tally.closes, String(answer === undefined || answer.payload.length < 2 ? 1006 : answer.payload.readUInt16BE()));
      peer.write(frame(opcode.close, closePayload(1000)));
      return;
    }
    if (String(answer.payload) !== text) throw new Error(`the echo of '${text}' is '${answer.payload}'`);
    tally.echoes += 1;
    await Bun.sleep(options.echoEveryMs);
  }
}

const lives = [...Array.from({ length: options.keepAlive }, keepAlive), ...Array.from({ length: options.webSockets }, webSocket)];
const opened = new Set<Promise<void>>();
const opening = setInterval(() => {
  const one = openOne().finally(() => opened.delete(one));
  opened.add(one);
}, options.openEveryMs);
console.log('running');
for await (const _ of Bun.stdin.stream()) break;
running = false;
clearInterval(opening);
await Promise.all([...lives, ...opened]);
console.log(JSON.stringify(tally));
process.exit();
