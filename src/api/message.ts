/**
 * A received message that is decoded only when asked for.
 *
 * Role: what WebSocket handlers get. It names bytes in the event batch of the core; when the turn is over they are gone, so the
 * frontend detaches the message of an asynchronous handler before that.
 */
import { commandFlag } from '../core/abi.ts';
import type { Core, Outcome } from '../core/core.ts';
import { behind, type Handle } from '../core/handles.ts';
import { inspection, shown } from '../core/inspection.ts';
import type { Message } from './websocket.ts';

/** How messages are sent. Compressed where that was negotiated, which the core knows for each connection. */
export const sendText = commandFlag.sendText | commandFlag.sendCompress;
export const sendBinary = commandFlag.sendCompress;

export class MessageExpiredError extends Error {
  readonly code = 'RW_MESSAGE_EXPIRED';
  constructor() {
    super('the message is read after its handler returned: call text(), bytes() or json() within the handler, or make the handler async');
  }
}

/** `code` is stable; docs/errors.md has a heading for each. */
export class SocketArgumentError extends TypeError {
  readonly code = 'RW_INVALID_ARGUMENT';
}

/** What may be sent and published. */
export type Sendable = Message | string | ArrayBuffer | ArrayBufferView;

const View = class Message {};

export class ReceivedMessage implements Message {
  // Not #private: an object with such fields takes ten times as long to construct in Bun, and there is one for each message.
  private readonly core: Handle<Core>;
  readonly isBinary: boolean;
  readonly byteLength: number;
  private readonly batch: number;
  private readonly offset: number;
  /** Bytes outside the batch: of a large message until it expires, or our own copy after `detach`. */
  private outside: Uint8Array | undefined;
  private detached: boolean;

  constructor(core: Core, isBinary: boolean, offset: number, byteLength: number, large: Uint8Array | undefined) {
    this.core = core.handle;
    this.isBinary = isBinary;
    this.byteLength = byteLength;
    this.batch = core.batch;
    this.offset = offset;
    this.outside = large;
    this.detached = false;
  }

  text(): string {
    const bytes = this.view();
    if (bytes === undefined) return behind(this.core).payload.utf8Slice(this.offset, this.offset + this.byteLength);
    return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).utf8Slice(0, bytes.byteLength);
  }

  bytes(): Uint8Array {
    return (this.view() ?? this.inBatch()).slice();
  }

  json<T = unknown>(): T {
    return JSON.parse(this.text()) as T;
  }

  /** So that `${message}` and String(message) are what was sent, as they are where messages are strings or Buffers. */
  toString(): string {
    return this.text();
  }

  /** Within a value that becomes JSON it is its text too, and never what it is made of here. */
  toJSON(): string {
    return this.text();
  }

  /** Copy the bytes out of the batch, so that the message stays good. */
  detach(): void {
    if (this.detached) return;
    this.outside = this.bytes();
    this.detached = true;
  }

  /** Send this message on, without copying it in JavaScript while it is in the batch. */
  forward(slot: number, generation: number): Outcome {
    const flags = this.isBinary ? sendBinary : sendText;
    const bytes = this.view();
    return bytes === undefined
      ? behind(this.core).sendFromEvent(slot, generation, flags, this.offset, this.byteLength)
      : behind(this.core).send(slot, generation, flags, bytes);
  }

  /** The payload without a copy, good until the turn is over. */
  borrow(): Uint8Array {
    return this.view() ?? this.inBatch();
  }

  /** ret: the bytes when they are not in the batch, undefined when they are. Throws MessageExpiredError. */
  private view(): Uint8Array | undefined {
    if (!this.detached && this.batch !== behind(this.core).batch) throw new MessageExpiredError();
    return this.outside;
  }

  private inBatch(): Uint8Array {
    return behind(this.core).payloadBytes.subarray(this.offset, this.offset + this.byteLength);
  }

  [inspection](): object {
    return shown(this, View, { isBinary: this.isBinary, byteLength: this.byteLength });
  }
}

/** What a promise in place of a message is told: without this word the mistake is hard to see. */
const awaitIt = 'a promise was given: is an await missing before it?';

/** Throws SocketArgumentError. */
export function jsonText(value: unknown): string {
  let text: string | undefined;
  try {
    text = JSON.stringify(value);
  } catch (error) {
    throw new SocketArgumentError(`JSON cannot say this value: ${error instanceof Error ? error.message : String(error)}`, {
      cause: error,
    });
  }
  if (text === '{}' && value instanceof Promise) throw new SocketArgumentError(awaitIt);
  if (text === undefined) throw new SocketArgumentError(`JSON cannot say ${typeof value === 'function' ? 'a function' : String(value)}`);
  return text;
}

/** The bytes of a binary message, borrowed. Throws SocketArgumentError. */
export function bytesOf(message: Message | ArrayBuffer | ArrayBufferView): Uint8Array {
  if (message instanceof Uint8Array) return message;
  if (ArrayBuffer.isView(message)) return new Uint8Array(message.buffer, message.byteOffset, message.byteLength);
  if (message instanceof ArrayBuffer || message instanceof SharedArrayBuffer) return new Uint8Array(message);
  if ((message as unknown) instanceof Promise) throw new SocketArgumentError(awaitIt);
  throw new SocketArgumentError(
    'a message is a string, an ArrayBuffer, a typed array, or a received message; for a value as JSON write sendJson(value) or publishJson(topic, value)',
  );
}
