/**
 * HTTP between the core and a frontend: what a request looks like when it arrives, and what a frontend may say back.
 * Role: the border that frontends (src/frontend/) are written against. Implemented by src/core/http-commands.ts.
 */

import type { TlsInfo } from './tls-info.ts';

/** Values of `RequestHead.method`, equal to `enum rw_method`; OTHER carries its name as the first header, named ":method". */
export const methodNames = ['OTHER', 'GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'CONNECT', 'OPTIONS', 'TRACE', 'PATCH'] as const;

/**
 * A request whose head is complete and valid. A fresh object per request: it may be kept.
 * `slot`, `generation` and `request` together name the request in every later call: more than one of a connection may be open at a time.
 */
export interface RequestHead {
  readonly slot: number;
  readonly generation: number;
  /** Which one of its connection: stream << 16 | number on that (u16, wraps). HTTP/1 has the stream 0 alone. */
  readonly request: number;
  /** What the listener it came in on is called, see `Core.listen`. */
  readonly listener: number;
  /** `RW_REQUEST_*` bits. */
  readonly flags: number;
  /** Index into `methodNames`. */
  readonly method: number;
  /** host, then target, then for each field `name\nvalue\n` with names in lower case; latin1. */
  readonly raw: string;
  readonly hostBytes: number;
  readonly targetBytes: number;
}

/** Names a request in every call about it. */
export interface RequestName {
  readonly slot: number;
  readonly generation: number;
  readonly request: number;
}

/**
 * A request as numbers. The text lies at `core.payload[offset..offset+bytes)` until the next turn. `numbers`:
 * server-name context << 16 | index of the listener << 8 | method; `lengths`: host bytes << 16 | target bytes.
 */
export type RequestRecordHandler = (
  slot: number,
  generation: number,
  request: number,
  flags: number,
  numbers: number,
  offset: number,
  bytes: number,
  lengths: number,
) => void;

/** What the core tells about a request once somebody has it. Called inside a turn; must not block. Payload bytes are borrowed for the call. */
export interface RequestEvents {
  /** A part of the body; `end` with the last (which may be empty). Acknowledge consumed bytes with `bodyAck`, or the client is paused. */
  onBody(slot: number, request: number, bytes: Uint8Array, end: boolean): void;
  /**
   * The response will not be completed: no other event follows for this request. `cause`: of `abortCause`; `status`: what the core has answered,
   * else 0.
   */
  onAbort(slot: number, request: number, cause: number, status: number): void;
  /** A streamed response has drained: more may be written. */
  onResponseDrain(slot: number, request: number): void;
  /**
   * The client of a request that is not answered yet has closed its sending side: it has left, or waits for the answer. Without this the answer is
   * sent, whenever it comes.
   */
  onHalfClosed?(slot: number, generation: number, request: number): void;
}

/** What the core tells about HTTP: each request as an object, or as numbers to whoever decodes nothing before it is asked. */
export type HttpEvents = HeadEvents | RecordEvents;

export interface HeadEvents extends RequestEvents {
  onRequest(head: RequestHead): void;
  readonly onRequestRecord?: undefined;
}

export interface RecordEvents extends RequestEvents {
  readonly onRequestRecord: RequestRecordHandler;
}

/**
 * What a frontend may say. All calls only queue a command for the end of the turn; calls for a request that is over do nothing.
 * `headers` is a header block, `Name: value\r\n` for each field, without Content-Length, Transfer-Encoding, Connection and Date, which
 * the core writes. Strings given as bodies are encoded as UTF-8.
 */
export interface HttpCommands {
  respond(head: RequestHead, status: number, headers: string, body: string | Uint8Array | null, close?: boolean): void;
  /** Begin a streamed response. `length`: body bytes when known, else -1 (chunked). */
  respondBegin(head: RequestHead, status: number, headers: string, length: number, close?: boolean): void;
  /** ret: bytes that wait to be taken by the client, this chunk included; past `highWater` wait for `onResponseDrain`. */
  respondChunk(head: RequestHead, chunk: string | Uint8Array): number;
  respondEnd(head: RequestHead): void;
  /** Break off a streamed response so that the client can tell; the connection closes. */
  respondAbort(head: RequestHead): void;
  /** So many bytes of the body were taken: more may come. `kept`: they are held until the response is complete, and count towards the budget so long. */
  bodyAck(head: RequestHead, bytes: number, kept?: boolean): void;
  /**
   * The client's address, behind trusted proxies as they tell it (port 0 when a header did). Undefined when the connection is gone or came over a
   * Unix socket, and behind proxies once it has another request, which may be another client's.
   */
  remoteAddress(head: RequestHead): { address: string; port: number } | undefined;
  /** Undefined when the connection is gone or not over TLS. */
  tls(head: RequestHead): TlsInfo | undefined;
  readonly highWater: number;
}
