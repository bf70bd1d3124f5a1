/**
 * Sends a streamed body: reads the handler's stream no faster than the client takes the bytes.
 *
 *   undecided ── a second chunk, or the turn ends ──► begun ── end ──► over
 *       └── the end, after one chunk or none: sent whole, with its length ──► over
 *
 * Role: between a ReadableStream and respondBegin/Chunk/End. Upstream: response-sender.ts; the exchange passes on drain and abort.
 */

import type { Framing } from '../http/header-block.ts';
import type { Reader, ReadResult } from '../http/natives.ts';
import { type Exchange, exchangeState, hostOf, type ResponseStream } from './exchange.ts';
import { reportFailure, sendFailure } from './failure.ts';

type Chunk = string | Uint8Array;

/** Chunks taken before everything else gets its turn: a source that always has more must not keep the news that its client left from arriving. */
const chunksPerTurn = 64;

export class ResponsePump implements ResponseStream {
  private readonly exchange: Exchange;
  private readonly status: number;
  private readonly framing: Framing;
  private readonly reader: Reader;
  private held: Chunk | null = null;
  private begun = false;
  /** Of a body whose length was announced. */
  private sent = 0;
  /** The client is behind: nothing is read until drain(). */
  private full = false;
  /** A read is under way, or will be, so that drain() must not begin another. */
  private reading = false;
  private turnLeft = chunksPerTurn;

  constructor(exchange: Exchange, status: number, framing: Framing, body: ReadableStream) {
    this.exchange = exchange;
    this.status = status;
    this.framing = framing;
    this.reader = body.getReader();
  }

  start(): void {
    this.run();
    // A body that is complete by the end of this turn goes out in one piece, with its length. Whoever waits for headers,
    // as an EventSource does, must not wait for more than that.
    if (this.undecided) {
      setImmediate(() => {
        if (this.undecided) this.begin();
      });
    }
  }

  drain(): void {
    if (!this.full) return;
    this.full = false;
    if (!this.reading) this.run();
  }

  /** The client left: tell the stream's source, so that it stops. */
  cancel(reason: unknown): void {
    this.held = null;
    this.reader.cancel(reason).catch(ignore);
  }

  private get live(): boolean {
    return this.exchange.state === exchangeState.streaming;
  }

  private get undecided(): boolean {
    return this.live && !this.begun;
  }

  /** Take what was read, if anything was, and read on as long as the stream has something at hand and the client keeps up. */
  private run(first?: ReadResult): void {
    try {
      if (first !== undefined) this.accept(first);
      while (this.live && !this.full) {
        if (this.turnLeft === 0) {
          this.rest();
          return;
        }
        this.turnLeft -= 1;
        const promise = this.reader.read();
        if (Bun.peek.status(promise) !== 'fulfilled') {
          this.reading = true;
          promise.then(this.onRead, this.onFailure);
          return;
        }
        this.accept(Bun.peek(promise) as ReadResult);
      }
    } catch (error) {
      if (this.live) this.fail(error);
    }
  }

  private rest(): void {
    this.reading = true;
    setImmediate(() => {
      this.reading = false;
      this.turnLeft = chunksPerTurn;
      this.run();
    });
  }

  private readonly onRead = (result: ReadResult): void => {
    this.reading = false;
    if (this.live) this.run(result);
  };

  private readonly onFailure = (error: unknown): void => {
    this.reading = false;
    if (this.live) this.fail(error);
  };

  private accept(result: ReadResult): void {
    if (result.done) {
      this.end();
      return;
    }
    const chunk = toChunk(result.value);
    if (chunk === undefined) {
      this.fail(new TypeError('A response body can hold only strings and bytes'));
      this.reader.cancel().catch(ignore);
      return;
    }
    if (chunk.length === 0) return;
    if (!this.begun && this.held === null) {
      this.held = chunk;
      return;
    }
    if (!this.begun) this.begin();
    this.write(chunk);
  }

  private begin(): void {
    const { commands } = hostOf(this.exchange);
    this.begun = true;
    commands.respondBegin(this.exchange.head, this.status, this.framing.text, this.framing.length, this.framing.close);
    const { held } = this;
    if (held === null) return;
    this.held = null;
    this.write(held);
  }

  private write(chunk: Chunk): void {
    const { commands } = hostOf(this.exchange);
    const { length } = this.framing;
    if (length >= 0) {
      const bytes = byteLength(chunk);
      if (this.sent + bytes > length) {
        this.overrun(chunk, bytes);
        return;
      }
      this.sent += bytes;
    }
    this.full = commands.respondChunk(this.exchange.head, chunk) > commands.highWater;
  }

  /** More than was announced: the client gets what it was promised, which is all that it would take for this response. */
  private overrun(chunk: Chunk, bytes: number): void {
    const { exchange, framing, sent } = this;
    const { commands } = hostOf(exchange);
    const whole = typeof chunk === 'string' ? Buffer.from(chunk) : chunk;
    if (sent < framing.length) commands.respondChunk(exchange.head, whole.subarray(0, framing.length - sent));
    commands.respondEnd(exchange.head);
    exchange.finish();
    this.reader.cancel().catch(ignore);
    const error = new RangeError(
      `The body is longer than its Content-Length of ${framing.length}: it has ${sent + bytes} bytes or more, and was cut off`,
    );
    reportFailure(exchange, error, 'response');
  }

  private end(): void {
    const { exchange, framing, held } = this;
    const { commands } = hostOf(exchange);
    if (this.begun && framing.length > this.sent) {
      // The client must be able to tell.
      commands.respondAbort(exchange.head);
      exchange.finish();
      const error = new RangeError(
        `The body has ${this.sent} bytes and its Content-Length says ${framing.length}: the response was broken off`,
      );
      reportFailure(exchange, error, 'response');
      return;
    }
    // A length that is wrong and was not sent yet is left out, as of bodies that are no streams.
    if (!this.begun && framing.length >= 0 && framing.length !== byteLength(held)) {
      const error = new RangeError(
        `The body has ${byteLength(held)} bytes and its Content-Length says ${framing.length}: it was sent with its own length`,
      );
      this.nameAnswer();
      reportFailure(exchange, error, 'response');
    }
    if (this.begun) commands.respondEnd(exchange.head);
    else if (framing.close) commands.respond(exchange.head, this.status, framing.text, held, true);
    else commands.respond(exchange.head, this.status, framing.text, held);
    exchange.finish();
  }

  /** Let the answer carry the id that the report names. */
  private nameAnswer(): void {
    const { exchange, framing } = this;
    const { header } = hostOf(exchange).requestIds;
    if (header === '' || exchange.shownId !== '' || framing.text.toLowerCase().includes(`${header}: `)) return;
    framing.text += `${header}: ${exchange.requestId}\r\n`;
  }

  private fail(error: unknown): void {
    const { exchange } = this;
    const { commands } = hostOf(exchange);
    if (!this.begun) {
      sendFailure(exchange, error, 'stream');
      return;
    }
    commands.respondAbort(exchange.head);
    exchange.finish();
    reportFailure(exchange, error, 'stream');
  }
}

function toChunk(value: unknown): Chunk | undefined {
  if (typeof value === 'string' || value instanceof Uint8Array) return value;
  if (value instanceof ArrayBuffer) return new Uint8Array(value);
  if (ArrayBuffer.isView(value)) return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
  return undefined;
}

function byteLength(chunk: Chunk | null): number {
  if (chunk === null) return 0;
  return typeof chunk === 'string' ? Buffer.byteLength(chunk) : chunk.byteLength;
}

function ignore(): void {}
