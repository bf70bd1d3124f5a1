/**
 * The body of one request on its way from the core to whoever reads it.
 *
 * Parts arrive borrowed, with `push`. They are acknowledged when somebody takes them, so that a reader that
 * is slow, or absent, holds back the client and not this process's memory: what waits here is bounded by the core's window. Of what is taken
 * the core is told whether it stays here until the response is complete, which is bounded by its budget for all requests.
 *
 *   waiting ── collect() ──► collecting ──► done        text(), json(), ... : one result, no stream
 *      └────── stream() ───► streaming  ──► done        .body: pulled part by part
 *   any of them ── fail() ─► failed                     the client left, or the response is complete
 */
import { behind, type Handle } from '../../core/handles.ts';
import type { HttpCommands, RequestHead } from '../../core/http.ts';
import { bodyUsedError, NativeResponse } from './natives.ts';

export type BodyKind = 'text' | 'json' | 'bytes' | 'arrayBuffer' | 'blob' | 'formData';

const decoder = new TextDecoder();

export class RequestBody {
  private readonly head: RequestHead;
  private readonly commands: Handle<HttpCommands>;
  private parts: Uint8Array<ArrayBuffer>[] = [];
  private ended = false;
  private failure: unknown = undefined;
  private failed = false;
  private kind: BodyKind | null = null;
  private contentType = '';
  private resolve: ((value: unknown) => void) | null = null;
  private reject: ((reason: unknown) => void) | null = null;
  private streamValue: ReadableStream<Uint8Array<ArrayBuffer>> | null = null;
  private controller: ReadableByteStreamController | null = null;
  private wanted: (() => void) | null = null;
  private touched = false;
  /** What the stream gives is gathered elsewhere, until all has come. */
  private gathered = false;
  private cancelled = false;

  constructor(head: RequestHead, commands: Handle<HttpCommands>) {
    this.head = head;
    this.commands = commands;
  }

  /** Somebody has begun to read. */
  get used(): boolean {
    return this.kind !== null || this.touched;
  }

  /** A part from the core. `bytes` is borrowed; it is copied unless it is turned into the result right here. */
  push(bytes: Uint8Array, end: boolean): void {
    if (this.ended || this.failed) return;
    if (end) this.ended = true;
    if (this.cancelled) return;
    if (this.kind !== null) {
      if (end && this.parts.length === 0) {
        this.acknowledge(bytes.byteLength);
        this.deliver(() => convert(bytes, this.kind as BodyKind, this.contentType));
        return;
      }
      this.keep(bytes);
      this.acknowledge(bytes.byteLength);
      if (end) this.deliverAll();
      return;
    }
    this.keep(bytes);
    if (this.wanted !== null) this.feed();
  }

  /** End everything that still waits for bytes. They will not come. */
  fail(reason: unknown): void {
    if (this.ended || this.failed) return;
    this.failed = true;
    this.failure = reason;
    this.drop();
    this.reject?.(reason);
    this.resolve = this.reject = null;
    if (this.controller !== null && !this.cancelled) this.controller.error(reason);
    this.wanted?.();
    this.wanted = null;
  }

  /** Read all of it. contentType: for blob and formData, whose result depends on it. err: TypeError when it was read before */
  collect(kind: BodyKind, contentType: string): Promise<unknown> {
    if (this.used) return Promise.reject(bodyUsedError());
    this.kind = kind;
    this.contentType = contentType;
    if (this.failed) return Promise.reject(this.failure);
    const result = new Promise<unknown>((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
    // a handler that answers without waiting for what it asked for has nobody to hear that it will not come
    result.catch(ignore);
    let waiting = 0;
    for (const part of this.parts) waiting += part.byteLength;
    this.acknowledge(waiting);
    if (this.ended) this.deliverAll();
    return result;
  }

  /** What is read from the stream is held until all has come. */
  gather(): void {
    this.gathered = true;
  }

  /** The body as a stream of bytes; the same stream each time. Nothing is taken before it is read. */
  stream(): ReadableStream<Uint8Array<ArrayBuffer>> {
    if (this.streamValue !== null) return this.streamValue;
    this.streamValue = new ReadableStream({
      type: 'bytes',
      start: (controller) => {
        this.controller = controller as ReadableByteStreamController;
      },
      pull: () => {
        this.touched = true;
        if (this.parts.length > 0 || this.ended) {
          this.feed();
          return;
        }
        if (this.failed) return;
        return new Promise<void>((resolve) => {
          this.wanted = resolve;
        });
      },
      cancel: () => {
        this.touched = true;
        this.cancelled = true;
        this.drop();
        this.wanted?.();
        this.wanted = null;
      },
    });
    if (this.failed) this.controller?.error(this.failure);
    return this.streamValue;
  }

  get streamed(): boolean {
    return this.streamValue !== null;
  }

  private keep(bytes: Uint8Array): void {
    if (bytes.byteLength > 0) this.parts.push(new Uint8Array(bytes));
  }

  private acknowledge(bytes: number): void {
    if (bytes > 0) behind(this.commands).bodyAck(this.head, bytes, this.kind !== null || this.gathered);
  }

  /** Hand one part to the stream, and its end after the last. */
  private feed(): void {
    const controller = this.controller;
    if (controller === null) return;
    const part = this.parts.shift();
    if (part !== undefined) {
      const { byteLength } = part;
      // enqueue() takes over the buffer, so its length must be read before
      controller.enqueue(part);
      this.acknowledge(byteLength);
    }
    if (this.ended && this.parts.length === 0) {
      controller.close();
      // a BYOB read that waits at the end is answered with zero bytes (Streams Standard, ReadableByteStreamControllerRespond)
      controller.byobRequest?.respond(0);
    }
    this.wanted?.();
    this.wanted = null;
  }

  private drop(): void {
    for (const part of this.parts) free(part);
    this.parts = [];
  }

  /** The parts as one. */
  private takeAll(): Uint8Array<ArrayBuffer> {
    const { parts } = this;
    if (parts.length === 1) {
      this.parts = [];
      return parts[0] as Uint8Array<ArrayBuffer>;
    }
    let bytes = 0;
    for (const part of parts) bytes += part.byteLength;
    const whole = new Uint8Array(bytes);
    let at = 0;
    for (const part of parts) {
      whole.set(part, at);
      at += part.byteLength;
    }
    this.drop();
    return whole;
  }

  private deliverAll(): void {
    const bytes = this.takeAll();
    this.deliver(() => convertOwn(bytes, this.kind as BodyKind, this.contentType));
  }

  private deliver(result: () => unknown): void {
    const { resolve, reject } = this;
    this.resolve = this.reject = null;
    try {
      resolve?.(result());
    } catch (error) {
      reject?.(error);
    }
  }
}

/** bytes: borrowed, so every result is a copy. */
export function convert(bytes: Uint8Array, kind: BodyKind, contentType: string): unknown {
  switch (kind) {
    case 'text':
      return decoder.decode(bytes);
    case 'json':
      return JSON.parse(decoder.decode(bytes));
    case 'bytes':
      return new Uint8Array(bytes);
    case 'arrayBuffer':
      return new Uint8Array(bytes).buffer;
    case 'blob':
      return new Blob([bytes as Uint8Array<ArrayBuffer>], { type: contentType });
    case 'formData':
      return new NativeResponse(bytes as Uint8Array<ArrayBuffer>, {
        headers: contentType === '' ? {} : { 'content-type': contentType },
      }).formData();
    default:
      return kind satisfies never;
  }
}

/** As `convert`, of bytes that nobody else has. */
function convertOwn(bytes: Uint8Array<ArrayBuffer>, kind: BodyKind, contentType: string): unknown {
  if (kind === 'bytes') return bytes;
  if (kind === 'arrayBuffer') return bytes.buffer;
  try {
    return convert(bytes, kind, contentType);
  } finally {
    if (kind === 'text' || kind === 'json') free(bytes);
  }
}

/**
 * Give memory that nobody else has seen back at once. To the collector it is a small object, so that it comes late: with bodies that clients begin and
 * leave, several times the budget would wait for it.
 */
function free(bytes: Uint8Array<ArrayBuffer>): void {
  bytes.buffer.transfer(0);
}

function ignore(): void {}
