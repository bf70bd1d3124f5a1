/**
 * HttpResponse: what a route handler answers with, and all that may happen until the answer is complete.
 *
 * Role: one object per request, made by app.ts; programs keep it across awaits and attach properties of their own. Down:
 * response-sending.ts, which sends. What happens to it meanwhile is response-events.ts.
 *
 *   open ──write──> streaming (chunked) ──end──┐
 *    │ └──tryEnd──> streaming (sized) ─────────┤
 *    └───────────────end, upgrade──────────────┴──> dead <── close, the client leaves, a handler fails
 *
 * Dead is final: every call throws. What a program never asks for (handlers, offsets) costs no memory, see `Attached`.
 */
import { eventFlag, method as methodOf } from '../../core/abi.ts';
import { behind, type Handle } from '../../core/handles.ts';
import { inspection, shown } from '../../core/inspection.ts';
import { addressText } from './address.ts';
import { latestRequest } from './request.ts';
import { type BodySink, collectingSink, countedDataSink, dataSink } from './request-body.ts';
import { invalid, isBodiless, knownLine, lengthOf, lineText, statusOf } from './response-head.ts';
import { begin, countOf, endStream, endWith, respondWhole, respondWithout, tryPart, wholeBytes, writeField } from './response-sending.ts';
import {
  type Attached,
  alive,
  attached,
  attachedTo,
  begun,
  block,
  conclude,
  cutOff,
  deadResponse,
  generationOf,
  hostOf,
  is,
  made,
  nameOf,
  type ResponseHost,
  type ResponseState,
  requestOf,
  slotOf,
  state,
  statusText,
  tellAborted,
  type Writable,
} from './response-state.ts';
import { bytesOfArgument, callbackOf, latin1OfArgument, type Texts, textOrBytes } from './strings.ts';
import type { HttpResponseMembers } from './types.ts';

const View = class HttpResponse {};

export class HttpResponse implements HttpResponseMembers, ResponseState {
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
    made.latest = this;
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

/** `keeps`: what it takes is held until the end, as the core is told. */
function attachSink(response: HttpResponse, sink: BodySink, keeps: boolean): void {
  const extras = attachedTo(response);
  extras.body = sink;
  extras.keepsBody = keeps;
}

/** The length of the request's body; known while the request's handler runs. */
function requestLengthOf(response: HttpResponse): number | undefined {
  return made.latest === response ? lengthOf(latestRequest()?.getHeader('content-length') ?? '') : undefined;
}

const nobody: { readonly address: Uint8Array; readonly port: number } = { address: new Uint8Array(0), port: 0 };

function peerOf(response: HttpResponse, proxied: boolean): { readonly address: Uint8Array; readonly port: number } {
  if (response[state] & is.dead) throw new Error(deadResponse);
  return behind(response[hostOf]).core.peer(response[slotOf], response[generationOf], proxied) ?? { ...nobody, address: new Uint8Array(0) };
}
