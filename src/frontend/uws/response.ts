/**
 * HttpResponse: what a route handler answers with, and all that may happen until the answer is complete.
 *
 * Role: one object per request, made by app.ts; programs keep it across awaits and attach properties of their own. Down: core.ts, which
 * takes the commands and writes the framing. Up: ResponseHost, which gives bodies, aborts and drains to the functions at the end.
 *
 *   open ──write──> streaming (chunked) ──end──┐
 *    │ └──tryEnd──> streaming (sized) ─────────┤
 *    └───────────────end, upgrade──────────────┴──> dead <── close, the client leaves, a handler fails
 *
 * Dead is final: every call throws. What a program never asks for (handlers, offsets) costs no memory, see `Attached`.
 */
import { commandFlag, eventFlag, method as methodOf } from '../../core/abi.ts';
import type { Core } from '../../core/core.ts';
import { behind, type Handle } from '../../core/handles.ts';
import type { RequestName } from '../../core/http.ts';
import { inspection, shown } from '../../core/inspection.ts';
import { isThenable } from '../http/thenable.ts';
import { addressText } from './address.ts';
import { runMicrotasks } from './microtasks.ts';
import { latestRequest } from './request.ts';
import { type BodySink, collectingSink, countedDataSink, dataSink } from './request-body.ts';
import {
  asksForClose,
  fieldKind,
  fieldLine,
  invalid,
  isBodiless,
  kindOfField,
  knownLine,
  lengthOf,
  lineText,
  statusOf,
} from './response-head.ts';
import { bytesOfArgument, callbackOf, latin1OfArgument, textOrBytes } from './strings.ts';
import type { HttpResponseMembers } from './types.ts';

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
    response: HttpResponse,
    userData: unknown,
    key: string,
    protocol: string,
    extensions: string,
    leadingHeaders: string,
    context: unknown,
  ): boolean;
  /** Ended, closed, aborted or upgraded: forget it. */
  over(response: HttpResponse): void;
}

type Texts = string | ArrayBuffer | SharedArrayBuffer | ArrayBufferView;
type Writable = (offset: number) => unknown;

const deadResponse =
  'uWS.HttpResponse must not be accessed after uWS.HttpResponse.onAborted callback, or after a successful response. See documentation for uWS.HttpResponse and consult the user manual.';
const unanswered = 'Returning from a request handler without responding or attaching an abort handler is forbidden!';

/** Bits of `state`. */
const is = {
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
const begun = is.chunked | is.sized;

/** A whole body up to this goes out in one command: the core would take it at once in any case. */
const wholeBytes = 16384;
/** Lengths go to the core in 48 bits. */
const countLimit = 2 ** 48 - 1;
/** Most that one `respondTry` is given; it counts in 31 bits. */
const tryBytes = 1 << 30;

/** What only some responses need. */
class Attached {
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
const hostOf = Symbol('host');
const slotOf = Symbol('slot');
const generationOf = Symbol('generation');
const requestOf = Symbol('request');
const state = Symbol('state');
const statusText = Symbol('status');
const block = Symbol('headers');
const attached = Symbol('attached');

/** The response made last; made together with the request that `latestRequest` gives. */
let latest: HttpResponse | undefined;

const View = class HttpResponse {};

export class HttpResponse implements HttpResponseMembers {
  declare [hostOf]: Handle<ResponseHost>;
  declare [slotOf]: number;
  declare [generationOf]: number;
  declare [requestOf]: number;
  declare [state]: number;
  declare [statusText]: string;
  declare [block]: string;
  declare [attached]: Attached | undefined;
  /** The name of the request, for the host; a program may keep something of its own under these names. */
  declare readonly slot: number;
  declare readonly generation: number;
  declare readonly request: number;

  /**
   * `request`: -1 for a filter, which may only ask for addresses and close. `flags`: RW_REQUEST_*. `method`: an index into
   * `methodNames`; HEAD lets a response without body report the length of one.
   */
  constructor(host: ResponseHost, slot: number, generation: number, request: number, flags: number, method: number = methodOf.other) {
    this[hostOf] = host.handle;
    this[slotOf] = slot;
    this[generationOf] = generation;
    this[requestOf] = request;
    this[state] =
      request < 0
        ? is.connectionOnly
        : (flags & eventFlag.requestHasBody ? is.withBody : 0) |
          (flags & eventFlag.requestUpgrade ? is.handshake : 0) |
          (method === methodOf.head ? is.head : 0);
    this[statusText] = '';
    this[block] = '';
    this[attached] = undefined;
    latest = this;
  }

  // ---------------------------------------------------------------- the head

  writeStatus(status: Texts): this {
    const bits = alive(this);
    const text = lineText(status);
    const number = statusOf(text);
    // The first wins, and a header before it has said 200.
    if (bits & is.statusCalled) return this;
    this[state] = bits | is.statusCalled | (isBodiless(number) ? is.bodiless : 0);
    if (text !== '200 OK') this[statusText] = text;
    return this;
  }

  writeHeader(key: Texts, value: Texts): this {
    const bits = alive(this);
    const line = knownLine(key, value);
    if (line === undefined || bits & begun) {
      writeField(this, bits, key, value);
    } else {
      this[state] = bits | is.statusCalled;
      this[block] += line;
    }
    return this;
  }

  // ---------------------------------------------------------------- the body

  write(chunk: Texts): boolean {
    const bits = alive(this);
    const content = textOrBytes(chunk);
    this[state] = bits | is.statusCalled;
    // An empty chunk would end the body (RFC 9112 §7.1).
    if (content.length === 0) return true;
    const { core } = behind(this[hostOf]);
    if (!(bits & begun)) begin(this, -1, is.chunked);
    if (bits & is.bodiless) return true;
    const extras = this[attached];
    if (bits & is.sized && extras !== undefined) {
      extras.offset += typeof content === 'string' ? Buffer.byteLength(content) : content.byteLength;
    }
    return core.respondChunk(nameOf(this), content) <= core.highWater;
  }

  end(body?: Texts, closeConnection?: boolean): this {
    const bits = alive(this);
    const content = textOrBytes(body);
    if (closeConnection) this[state] = bits | is.closing;
    endWith(this, content);
    return this;
  }

  endWithoutBody(reportedContentLength?: number, closeConnection?: boolean): this {
    const bits = alive(this);
    const reported = reportedContentLength === undefined ? this[attached]?.contentLength : countOf(reportedContentLength);
    if (closeConnection) this[state] = bits | is.closing;
    if (bits & begun) endStream(this, '');
    else respondWithout(this, reported);
    conclude(this);
    return this;
  }

  tryEnd(fullBodyOrChunk: Texts, totalSize?: number): [ok: boolean, hasResponded: boolean] {
    const bits = alive(this);
    const bytes = bytesOfArgument(fullBodyOrChunk);
    if (bits & is.chunked) {
      endWith(this, bytes);
      return [true, true];
    }
    if (!(bits & is.sized)) {
      const total = countOf(totalSize) || bytes.byteLength;
      if (bytes.byteLength === 0 || (bytes.byteLength >= total && total <= wholeBytes)) {
        if (bytes.byteLength === 0) respondWithout(this, total);
        else respondWhole(this, bytes.subarray(0, total));
        conclude(this);
        return [true, true];
      }
      begin(this, total, is.sized);
      attachedTo(this).total = total;
    }
    return tryPart(this, bytes);
  }

  getWriteOffset(): number {
    alive(this);
    return this[attached]?.offset ?? 0;
  }

  /** Ends the connection at once; `onAborted` is called before this returns. */
  close(): this {
    if (this[state] & is.dead) throw new Error(deadResponse);
    cutOff(this);
    return this;
  }

  // ---------------------------------------------------------------- what happens

  onWritable(handler: Writable): this {
    alive(this);
    attachedTo(this).onWritable = callbackOf(handler);
    return this;
  }

  onAborted(handler: () => unknown): this {
    alive(this);
    attachedTo(this).onAborted = callbackOf(handler);
    return this;
  }

  onData(handler: (chunk: ArrayBuffer, isLast: boolean) => unknown): this {
    alive(this);
    attachSink(this, dataSink(callbackOf(handler)), false);
    return this;
  }

  onDataV2(handler: (chunk: ArrayBuffer, maxRemainingBodyLength: bigint) => unknown): this {
    alive(this);
    attachSink(this, countedDataSink(callbackOf(handler), requestLengthOf(this)), false);
    return this;
  }

  collectBody(maxSize: number, handler: (fullBody: ArrayBuffer | null) => unknown): this {
    alive(this);
    attachSink(this, collectingSink(countOf(maxSize), callbackOf(handler), requestLengthOf(this)), true);
    return this;
  }

  pause(): this {
    this[state] = alive(this) | is.paused;
    behind(this[hostOf]).core.pause(this[slotOf], this[generationOf]);
    return this;
  }

  resume(): this {
    this[state] = alive(this) & ~is.paused;
    behind(this[hostOf]).core.resume(this[slotOf], this[generationOf]);
    return this;
  }

  /** All that a turn writes goes out together in any case. */
  cork(callback: () => unknown): this {
    alive(this);
    callbackOf(callback)();
    return this;
  }

  /** The older name of `cork`. */
  collect(callback: () => unknown): this {
    alive(this);
    callbackOf(callback)();
    return this;
  }

  /** With anything but five arguments nothing happens. */
  upgrade(...values: readonly unknown[]): void {
    const bits = alive(this);
    if (values.length !== 5) return;
    // The core would take neither, and the program would have a socket that nothing ever happens to.
    if (!(bits & is.handshake) || bits & begun) throw invalid('upgrade() needs a WebSocket handshake that waits for its answer');
    const [userData, key, protocol, extensions, context] = values;
    // The protocol goes into a line of the answer.
    const texts = [latin1OfArgument(key), lineText(protocol), latin1OfArgument(extensions)] as const;
    const host = behind(this[hostOf]);
    const onAborted = this[attached]?.onAborted;
    conclude(this);
    if (!host.upgrade(this, userData, ...texts, this[block], context)) tellAborted(host, onAborted);
  }

  // ---------------------------------------------------------------- the peer

  getRemoteAddress(): ArrayBuffer {
    return peerOf(this, false).address.buffer as ArrayBuffer;
  }

  getRemoteAddressAsText(): ArrayBuffer {
    return addressText(peerOf(this, false).address);
  }

  getRemotePort(): number {
    return peerOf(this, false).port;
  }

  getProxiedRemoteAddress(): ArrayBuffer {
    return peerOf(this, true).address.buffer as ArrayBuffer;
  }

  getProxiedRemoteAddressAsText(): ArrayBuffer {
    return addressText(peerOf(this, true).address);
  }

  getProxiedRemotePort(): number {
    return peerOf(this, true).port;
  }

  /** What is printed: the program's own properties. */
  [inspection](): object {
    return shown(this, View, Object.fromEntries(Object.entries(this)));
  }
}

// The name that programs and their logs know.
Object.defineProperty(HttpResponse, 'name', { value: 'uWS.HttpResponse' });

for (const [field, symbol] of [['slot', slotOf] as const, ['generation', generationOf] as const, ['request', requestOf] as const]) {
  Object.defineProperty(HttpResponse.prototype, field, {
    get(this: HttpResponse): number {
      return this[symbol];
    },
    set(this: HttpResponse, value: unknown) {
      Object.defineProperty(this, field, { value, writable: true, enumerable: true, configurable: true });
    },
    configurable: true,
  });
}

// ------------------------------------------------------------------ for the host

/** A part of the request's body; `bytes` lie in the payload area. */
export function deliverBody(response: HttpResponse, bytes: Uint8Array, end: boolean): void {
  const host = behind(response[hostOf]);
  const extras = response[attached];
  // A part that nobody asks for is lost: a handler is attached before the first await.
  if (extras?.body !== undefined) {
    give(response, extras.body, bytes, end);
    if (end) extras.body = undefined;
  }
  if (bytes.byteLength > 0 && !(response[state] & is.dead)) host.core.bodyAck(nameOf(response), bytes.byteLength, extras?.keepsBody);
}

/** End the connection at once, unless the response is over. */
export function cutOff(response: HttpResponse): void {
  if (response[state] & is.dead) return;
  const onAborted = response[attached]?.onAborted;
  const host = behind(response[hostOf]);
  conclude(response);
  host.core.terminate(response[slotOf], response[generationOf]);
  tellAborted(host, onAborted);
}

/** The client has left before the response was complete. */
export function deliverAbort(response: HttpResponse): void {
  if (response[state] & is.dead) return;
  const onAborted = response[attached]?.onAborted;
  conclude(response);
  tellAborted(behind(response[hostOf]), onAborted);
  runMicrotasks();
}

/** What was queued for the client has drained. */
export function deliverWritable(response: HttpResponse): void {
  const extras = response[attached];
  if (response[state] & is.dead || extras?.onWritable === undefined) return;
  try {
    watch(response, extras.onWritable(extras.offset));
  } catch (error) {
    failHandler(response, error);
  }
  runMicrotasks();
}

/** The route handler has returned, and what it has queued has run. The request must not have expired yet. */
export function afterHandler(response: HttpResponse): void {
  const extras = response[attached];
  if (!(response[state] & is.dead) && extras?.onAborted === undefined) {
    refuseSilence(response);
    return;
  }
  // A request without body has an empty last part.
  if (extras?.body === undefined || response[state] & is.withBody) return;
  give(response, extras.body, behind(response[hostOf]).core.payloadBytes.subarray(0, 0), true);
  extras.body = undefined;
}

/** A handler has thrown or rejected. */
export function failHandler(response: HttpResponse, error: unknown): void {
  behind(response[hostOf]).report(error, 'an HTTP handler');
  answerFailure(response);
}

/** Names the request, or the connection, for commands. Good until the next call. */
export function nameOf(response: HttpResponse): RequestName {
  name.slot = response[slotOf];
  name.generation = response[generationOf];
  name.request = response[requestOf];
  return name;
}

const name = { slot: 0, generation: 0, request: 0 };

// ------------------------------------------------------------------ parts

/** ret: the bits of its state. err: Error when it is dead */
function alive(response: HttpResponse): number {
  const bits = response[state];
  if (bits & (is.dead | is.connectionOnly)) throw new Error(deadResponse);
  return bits;
}

function attachedTo(response: HttpResponse): Attached {
  response[attached] ??= new Attached();
  return response[attached];
}

/** `keeps`: what it takes is held until the end, as the core is told. */
function attachSink(response: HttpResponse, sink: BodySink, keeps: boolean): void {
  const extras = attachedTo(response);
  extras.body = sink;
  extras.keepsBody = keeps;
}

/** What is no count is none; Infinity is as good as no limit. */
function countOf(value: unknown): number {
  const number = Math.floor(Number(value));
  return number > 0 ? Math.min(number, countLimit) : 0;
}

function writeField(response: HttpResponse, bits: number, key: Texts, value: Texts): void {
  const name = lineText(key);
  const text = lineText(value);
  const kind = kindOfField(name);
  if (bits & begun) throw invalid('a header cannot be written once the body has begun');
  response[state] = bits | is.statusCalled;
  if (kind === fieldKind.plain) response[block] += fieldLine(name, text);
  else writeFraming(response, kind, name, text);
}

function writeFraming(response: HttpResponse, kind: number, fieldName: string, value: string): void {
  if (kind === fieldKind.contentLength) attachedTo(response).contentLength = lengthOf(value);
  if (kind !== fieldKind.connection) return;
  if (asksForClose(value)) response[state] |= is.closing;
  else response[block] += `${fieldName}: ${value}\r\n`;
}

function statusNumberOf(response: HttpResponse): number {
  const text = response[statusText];
  return text === '' ? 200 : statusOf(text);
}

function closeFlagOf(response: HttpResponse): number {
  return response[state] & is.closing ? commandFlag.respondClose : 0;
}

function respondWhole(response: HttpResponse, body: string | Uint8Array | null): void {
  const { core } = behind(response[hostOf]);
  core.respondWith(nameOf(response), statusNumberOf(response), response[statusText], response[block], body, closeFlagOf(response));
}

/**
 * A response without body. `reported`: the length that GET would have had; only an answer to HEAD may tell it, since any other client
 * would wait for that many bytes (RFC 9110 §8.6).
 */
function respondWithout(response: HttpResponse, reported: number | undefined): void {
  if (reported === undefined || !(response[state] & is.head)) {
    respondWhole(response, null);
    return;
  }
  begin(response, reported, is.sized);
  behind(response[hostOf]).core.respondEnd(nameOf(response));
}

/** `length`: of the body, -1 when it is not known. */
function begin(response: HttpResponse, length: number, mode: number): void {
  const { core } = behind(response[hostOf]);
  const status = statusNumberOf(response);
  core.respondBeginWith(nameOf(response), status, response[statusText], response[block], length, closeFlagOf(response));
  response[state] |= mode | is.statusCalled;
  response[block] = '';
}

/** The rest of the response. */
function endWith(response: HttpResponse, content: string | Uint8Array): void {
  if (response[state] & begun) endStream(response, content);
  else if (content.length === 0) respondWithout(response, response[attached]?.contentLength);
  else respondWhole(response, content);
  conclude(response);
}

/** The last part, `content`, of a body that has begun. */
function endStream(response: HttpResponse, content: string | Uint8Array): void {
  const { core } = behind(response[hostOf]);
  if (content.length > 0 && !(response[state] & is.bodiless)) core.respondChunk(nameOf(response), content);
  core.respondEnd(nameOf(response), (response[state] & is.closing) !== 0);
}

/** As much of `bytes` as the client takes now; what is beyond the total is cut off. */
function tryPart(response: HttpResponse, bytes: Uint8Array): [ok: boolean, hasResponded: boolean] {
  const { core } = behind(response[hostOf]);
  const extras = attachedTo(response);
  const wanted = Math.min(bytes.byteLength, extras.total - extras.offset);
  let taken = response[state] & is.bodiless ? wanted : 0;
  while (taken < wanted) {
    const part = bytes.subarray(taken, Math.min(wanted, taken + tryBytes));
    const accepted = core.respondTry(nameOf(response), part);
    taken += accepted;
    if (accepted < part.byteLength) break;
  }
  extras.offset += taken;
  if (extras.offset < extras.total) return [taken === wanted, false];
  core.respondEnd(nameOf(response));
  conclude(response);
  return [true, true];
}

/** From here on it is dead, and its handlers are free to go. */
function conclude(response: HttpResponse): void {
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

function tellAborted(host: ResponseHost, onAborted: (() => unknown) | undefined): void {
  try {
    onAborted?.();
  } catch (error) {
    host.report(error, 'an onAborted handler');
  }
}

function give(response: HttpResponse, sink: BodySink, bytes: Uint8Array, end: boolean): void {
  try {
    watch(response, sink(behind(response[hostOf]).core, bytes, end));
  } catch (error) {
    failHandler(response, error);
  }
}

/** A handler that is async fails when its promise rejects, or when what it has returned cannot even be asked for `then`. */
export function watch(response: HttpResponse, result: unknown): void {
  try {
    if (isThenable(result)) result.then(undefined, (error: unknown) => failHandler(response, error));
  } catch (error) {
    failHandler(response, error);
  }
}

function refuseSilence(response: HttpResponse): void {
  const request = latest === response ? latestRequest() : undefined;
  const about = request && `\n\tMethod: "${request.getCaseSensitiveMethod()}"\n\tURL: "${request.getUrl()}"`;
  behind(response[hostOf]).report(new Error(unanswered + (about ?? '')), 'an HTTP handler');
  answerFailure(response);
}

/** 500 when nothing has gone out; else the client can tell by the end of the connection. */
function answerFailure(response: HttpResponse): void {
  const bits = response[state];
  if (bits & is.dead) return;
  const host = behind(response[hostOf]);
  if (!(bits & begun)) {
    const reason = 'Internal Server Error';
    host.core.respondWith(nameOf(response), 500, '', 'Content-Type: text/plain\r\n', reason, closeFlagOf(response));
    conclude(response);
    return;
  }
  const onAborted = response[attached]?.onAborted;
  host.core.respondAbort(nameOf(response));
  conclude(response);
  tellAborted(host, onAborted);
}

/** The length of the request's body; known while the request's handler runs. */
function requestLengthOf(response: HttpResponse): number | undefined {
  return latest === response ? lengthOf(latestRequest()?.getHeader('content-length') ?? '') : undefined;
}

const nobody: { readonly address: Uint8Array; readonly port: number } = { address: new Uint8Array(0), port: 0 };

function peerOf(response: HttpResponse, proxied: boolean): { readonly address: Uint8Array; readonly port: number } {
  if (response[state] & is.dead) throw new Error(deadResponse);
  return behind(response[hostOf]).core.peer(response[slotOf], response[generationOf], proxied) ?? { ...nobody, address: new Uint8Array(0) };
}
