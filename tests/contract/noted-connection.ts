/**
 * A client's connection whose HTTP answers and WebSocket frames are taken as the texts that transcripts are made of.
 *
 * Role: both sides of a comparison are driven by it. What can never be the same on both is left out, and what is long is noted by its hash.
 */
import { createHash } from 'node:crypto';
import { constants, createInflateRaw, type InflateRaw } from 'node:zlib';
import { Connection, dial, type Target } from '../support/connection.ts';
import { parseFrame } from '../support/frames.mjs';

export type ConnectOptions = Pick<Target, 'host' | 'path' | 'tls'>;

export interface NotedFrame {
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
function brief(bytes: Buffer): string {
  if (bytes.length <= 2048) return bytes.toString('latin1');
  return `${bytes.length} bytes, sha1 ${createHash('sha1').update(bytes).digest('hex')}`;
}

export class NotedConnection extends Connection {
  #inflater: InflateRaw | undefined;

  static async connect(port: number, options: ConnectOptions = {}): Promise<NotedConnection> {
    return new NotedConnection(await dial({ port, ...options }));
  }

  /** Take the head of an HTTP answer; what there is, and that it ended, when it does before the head is whole. */
  async head(): Promise<string> {
    const head = await this.through('\r\n\r\n');
    return head === undefined ? `${(await this.rest()).toString('latin1')}<closed>` : normalise(head.toString('latin1'));
  }

  /** Take a whole HTTP answer. out: head and body as they came, but for the time; `<closed>` where the connection ended too early */
  async response(method = 'GET'): Promise<string> {
    const head = await this.head();
    if (head.endsWith('<closed>') || method === 'HEAD' || /^HTTP\/1\.1 (1\d\d|204|304) /.test(head)) return head;
    if (/^transfer-encoding: chunked\r$/im.test(head)) return head + (await this.#chunked());
    const length = /^content-length: (\d+)\r$/im.exec(head)?.[1];
    const body = length === undefined ? await this.rest() : await this.bytes(Number(length));
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
    const line = await this.through('\r\n');
    if (line === undefined) return '<closed>';
    const size = Number.parseInt(line.toString('latin1'), 16);
    return line.toString('latin1') + brief(await this.bytes(size + 2));
  }

  /** What still comes until the connection has ended, as text. */
  async closed(): Promise<string> {
    return `${normalise(brief(await this.rest()))}<closed>`;
  }

  /** Take the next frame, as it is; 'closed' when the connection has ended without one. */
  async rawFrame(): Promise<NotedFrame | 'closed'> {
    const parsed = await this.until('a frame, or the end', () => parseFrame(this.received) ?? (this.isClosed ? 'closed' : undefined));
    if (parsed === 'closed') return parsed;
    this.take(parsed.bytes);
    const { fin, rsv, opcode, payload } = parsed;
    return { fin, rsv, opcode, payload: payload.toString('latin1') };
  }

  /** Take the next frame; a compressed one is inflated, in the context of those before. */
  async frame(): Promise<NotedFrame | 'closed'> {
    const raw = await this.rawFrame();
    if (raw === 'closed' || (raw.rsv & 4) === 0) return raw;
    return { ...raw, payload: brief(await this.#inflate(Buffer.from(raw.payload, 'latin1'))) };
  }

  /** Take so many frames; fewer when the connection ends. */
  async frames(count: number): Promise<(NotedFrame | 'closed')[]> {
    const all: (NotedFrame | 'closed')[] = [];
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
