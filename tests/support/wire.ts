/**
 * A WebSocket client that says exactly what a test tells it to, right or wrong.
 *
 * Role: for what a well-behaved client never does. It is strict with the server: a frame that RFC 6455 does not allow fails the test.
 */
import { createHash } from 'node:crypto';
import { Connection, dial } from './connection.ts';
import { handshake, opcode, type ParsedFrame, parseFrame } from './frames.mjs';

export interface Frame {
  readonly fin: boolean;
  readonly opcode: number;
  readonly payload: Buffer;
  /** RSV1: compressed (RFC 7692 §6). Only there when it is, and only where compression was agreed on. */
  readonly compressed?: true;
}

/** What RFC 6455 §4.2.2 wants as the answer to a key. */
export function acceptOf(key: string): string {
  return createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');
}

export class Wire extends Connection {
  /** The head of the answer to the handshake of `open`. */
  answer = '';

  /** `localAddress`: one of 127.0.0.0/8 to come from. */
  static async connect(port: number, localAddress = '127.0.0.1'): Promise<Wire> {
    return new Wire(await dial({ port, localAddress }));
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

  /** Take the head of an HTTP answer. */
  async head(): Promise<string> {
    const head = await this.through('\r\n\r\n');
    if (head === undefined) throw new Error(`the connection ended (${this.ended}) before an answer: ${this.received}`);
    return head.toString('latin1');
  }

  /** Take the next frame; undefined when the connection has ended without one. */
  async frame(): Promise<Frame | undefined> {
    const next = await this.until('a frame, or the end', () => this.#takeFrame() ?? this.ended);
    return typeof next === 'string' ? this.#takeFrame() : next;
  }

  /** Take every frame until the connection has ended. */
  async frames(): Promise<Frame[]> {
    await this.untilEnded();
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

  #takeFrame(): Frame | undefined {
    const parsed = parseFrame(this.received);
    if (parsed === undefined) return undefined;
    this.#refuse(parsed);
    this.take(parsed.bytes);
    const { fin, opcode: code, payload, rsv } = parsed;
    return { fin, opcode: code, payload, ...(rsv === 4 ? { compressed: true } : {}) };
  }

  /** Throw for what a server must not send. */
  #refuse({ isMasked, isMinimal, rsv }: ParsedFrame): void {
    if (isMasked) throw new Error('a frame of the server is masked (RFC 6455 §5.1)');
    if (!isMinimal) throw new Error('a length of the server is not minimal');
    if (rsv !== 0 && !(rsv === 4 && this.answer.includes('permessage-deflate')))
      throw new Error('a frame of the server has reserved bits set');
  }
}
