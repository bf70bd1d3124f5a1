/**
 * What a response of the uWebSockets.js API is made of, and how it ends.
 *
 * Role: the fields that response.ts has methods for, response-sending.ts sends from, and response-events.ts tells events to. Down: core.ts, by
 * ResponseHost.
 */
import type { Core } from '../../core/core.ts';
import { behind, type Handle } from '../../core/handles.ts';
import type { RequestName } from '../../core/http.ts';
import type { BodySink } from './request-body.ts';

export interface ResponseHost {
  /** Stands for it in responses, which a program may print or serialise. */
  readonly handle: Handle<ResponseHost>;
  readonly core: Core;
  report(error: unknown, what: string): void;
  /**
   * From `upgrade()`; the texts are octets. `leadingHeaders`: the header block written before. ret: false when the client has left, and then
   * there is no socket. err: Error when there can be none, and then the connection has ended
   */
  upgrade(
    response: ResponseState,
    userData: unknown,
    key: string,
    protocol: string,
    extensions: string,
    leadingHeaders: string,
    context: unknown,
  ): boolean;
  /** Ended, closed, aborted or upgraded: forget it. */
  over(response: ResponseState): void;
}

export type Writable = (offset: number) => unknown;

export const deadResponse =
  'uWS.HttpResponse must not be accessed after uWS.HttpResponse.onAborted callback, or after a successful response. See documentation for uWS.HttpResponse and consult the user manual.';

/** Bits of `state`. */
export const is = {
  dead: 1 << 0,
  /** Made for a filter: there is a connection, but no request. */
  connectionOnly: 1 << 1,
  statusCalled: 1 << 2,
  chunked: 1 << 3,
  sized: 1 << 4,
  /** No body goes out, whatever is written. */
  bodiless: 1 << 5,
  closing: 1 << 6,
  paused: 1 << 7,
  head: 1 << 8,
  withBody: 1 << 9,
  /** It asks for a WebSocket. */
  handshake: 1 << 10,
} as const;
export const begun = is.chunked | is.sized;

/** What only some responses need. */
export class Attached {
  onAborted: (() => unknown) | undefined;
  onWritable: Writable | undefined;
  body: BodySink | undefined;
  /** What `body` takes it holds until the end. */
  keepsBody = false;
  /** Of a sized body: bytes that the core has accepted, and all. */
  offset = 0;
  total = 0;
  /** As the program wrote it. */
  contentLength: number | undefined;
}

// Symbols, so that Object.keys() shows what the program has attached and nothing else, and that neither meets the other.
export const hostOf: unique symbol = Symbol('host');
export const slotOf: unique symbol = Symbol('slot');
export const generationOf: unique symbol = Symbol('generation');
export const requestOf: unique symbol = Symbol('request');
export const state: unique symbol = Symbol('state');
export const statusText: unique symbol = Symbol('status');
export const block: unique symbol = Symbol('headers');
export const attached: unique symbol = Symbol('attached');

/** What every response has. Its methods are those of HttpResponse. */
export interface ResponseState {
  readonly [hostOf]: Handle<ResponseHost>;
  readonly [slotOf]: number;
  readonly [generationOf]: number;
  readonly [requestOf]: number;
  [state]: number;
  [statusText]: string;
  [block]: string;
  [attached]: Attached | undefined;
}

/** `latest`: the response made last; made together with the request that `latestRequest` gives. */
export const made: { latest: ResponseState | undefined } = { latest: undefined };

/** Names the request, or the connection, for commands. Good until the next call. */
export function nameOf(response: ResponseState): RequestName {
  name.slot = response[slotOf];
  name.generation = response[generationOf];
  name.request = response[requestOf];
  return name;
}

const name = { slot: 0, generation: 0, request: 0 };

/** ret: the bits of its state. err: Error when it is dead */
export function alive(response: ResponseState): number {
  const bits = response[state];
  if (bits & (is.dead | is.connectionOnly)) throw new Error(deadResponse);
  return bits;
}

export function attachedTo(response: ResponseState): Attached {
  response[attached] ??= new Attached();
  return response[attached];
}

/** From here on it is dead, and its handlers are free to go. */
export function conclude(response: ResponseState): void {
  const bits = response[state];
  response[state] = bits | is.dead;
  const host = behind(response[hostOf]);
  const extras = response[attached];
  if (extras !== undefined) {
    extras.onAborted = undefined;
    extras.onWritable = undefined;
  }
  // The next request on the connection has not asked to wait.
  if (bits & is.paused) host.core.resume(response[slotOf], response[generationOf]);
  if (!(bits & is.connectionOnly)) host.over(response);
}

/** End the connection at once, unless the response is over. */
export function cutOff(response: ResponseState): void {
  if (response[state] & is.dead) return;
  const onAborted = response[attached]?.onAborted;
  const host = behind(response[hostOf]);
  conclude(response);
  host.core.terminate(response[slotOf], response[generationOf]);
  tellAborted(host, onAborted);
}

export function tellAborted(host: ResponseHost, onAborted: (() => unknown) | undefined): void {
  try {
    onAborted?.();
  } catch (error) {
    host.report(error, 'an onAborted handler');
  }
}
