/**
 * From a Response to commands: the only place that decides how a response is sent.
 *
 * Role: Upstream: index.ts, with whatever the handler returned. Downstream: HttpCommands. Invariant: every exchange gets exactly one
 * respond(), or respondBegin() followed by one respondEnd() or respondAbort(), unless the client left first.
 */
import { method } from '../../core/abi.ts';
import {
  blockFlags,
  type Framing,
  fieldValue,
  HeaderBlock,
  hasField,
  separateFraming,
  withField,
  withoutField,
} from '../http/header-block.ts';
import { isUnchanged, rangeOf } from './byte-range.ts';
import { type Exchange, exchangeState, hostOf } from './exchange.ts';
import { reportFailure, sendFailure } from './failure.ts';
import { type Content, isLightResponse, LightResponse, textType } from './response.ts';
import { ResponsePump } from './response-stream.ts';
import { plannedStream } from './topic-events.ts';

const textLine = `content-type: ${textType}\r\n`;
const bytesLine = 'content-type: application/octet-stream\r\n';

/** The media type, with parameters or without (RFC 9110 §8.3.1). */
const eventStream = /^text\/event-stream[ \t]*(?:;|$)/i;

/** Blobs up to this size are read whole and sent in one piece; larger ones, and files, are streamed with their length. */
const blobWholeBytes = 65536;

/** Send what a handler returned. Never throws: what cannot be sent becomes a 500 and a report. */
export function sendResponse(exchange: Exchange, result: unknown): void {
  if (exchange.state !== exchangeState.open) {
    discard(result);
    return;
  }
  try {
    if (isLightResponse(result)) sendLight(exchange, result);
    else if (result instanceof Response) sendLight(exchange, fromNative(result));
    else sendFailure(exchange, new TypeError(`Expected a Response from the handler, received ${describe(result)}`), 'handler');
  } catch (error) {
    if (exchange.state === exchangeState.open) sendFailure(exchange, error, 'response');
    else reportFailure(exchange, error, 'response');
  }
}

function sendLight(exchange: Exchange, response: LightResponse): void {
  const status = response.code;
  if (status < 200 || status > 599) {
    discard(response);
    sendFailure(exchange, new RangeError(`A response cannot have status ${status}: it must be from 200 to 599`), 'response');
    return;
  }
  // Nobody has said why: a handler that has caught its own error, or an application within a function of the config's.
  if (status === 500) reportFailure(exchange, undefined, 'answer');
  const block = named(exchange, response.currentBlock());
  // RFC 9110 §15.3.5, §15.3.6, §15.4.5: these have no content
  if (status === 204 || status === 205 || status === 304) {
    discard(response);
    respondWhole(exchange, status, block, null);
    return;
  }
  if (exchange.head.method === method.head) {
    respondToHead(exchange, response, status, block);
    return;
  }
  const content = response.take();
  if (content === null || typeof content === 'string' || content instanceof Uint8Array) respondWhole(exchange, status, block, content);
  else if (content instanceof ReadableStream) stream(exchange, status, unheld(block), content, -1);
  else if (status === 200 && content instanceof Blob && isFile(content)) sendFile(exchange, block, content);
  else sendBlob(exchange, status, block, content);
}

/** Bun.file(path), or a slice of one: Bun has one class for these and for what is in memory, but only they have a name without being a File. */
function isFile(blob: Blob): boolean {
  return typeof (blob as Partial<File>).name === 'string' && !(blob instanceof File);
}

/** Of a file a client may ask for a part, to go on with a download or to jump in a video. */
function sendFile(exchange: Exchange, block: HeaderBlock, file: Blob): void {
  const asked = exchange.head.method === method.get ? exchange.request.headers.get('range') : null;
  const { size } = file;
  // the handler may serve parts itself, or none
  if (asked === null || !Number.isSafeInteger(size) || hasField(block, 'content-range') || hasField(block, 'accept-ranges')) {
    sendBlob(exchange, 200, block, file);
    return;
  }
  const condition = exchange.request.headers.get('if-range');
  const range = isUnchanged(condition, fieldValue(block, 'etag'), fieldValue(block, 'last-modified')) ? rangeOf(asked, size) : undefined;
  if (range === undefined) {
    sendBlob(exchange, 200, block, file);
    return;
  }
  const own = withField(block, 'accept-ranges', 'bytes');
  if (range === 'unsatisfiable') {
    respondWhole(exchange, 416, withField(withoutField(own, 'content-type'), 'content-range', `bytes */${size}`), null);
    return;
  }
  const { start, end } = range;
  sendBlob(exchange, 206, withField(own, 'content-range', `bytes ${start}-${end - 1}/${size}`), file.slice(start, end));
}

/** With the id of the request, when it has one to show and the handler has set none. */
function named(exchange: Exchange, block: HeaderBlock): HeaderBlock {
  const { header } = hostOf(exchange).requestIds;
  if (header === '') return block;
  const id = exchange.shownId;
  return id === '' || hasField(block, header) ? block : withField(block, header, id);
}

/**
 * Events are for now: nginx keeps them until it has a buffer full, with TLS and clients of HTTP/1.1 for as long as the stream lasts,
 * unless this field forbids it (ngx_http_proxy_module, proxy_buffering). What the handler says of it stands.
 */
function unheld(block: HeaderBlock): HeaderBlock {
  const type = block.flags & blockFlags.contentType ? fieldValue(block, 'content-type') : null;
  if (type === null || !eventStream.test(type) || hasField(block, 'x-accel-buffering')) return block;
  return withField(block, 'x-accel-buffering', 'no');
}

/** The whole response in one command. */
function respondWhole(exchange: Exchange, status: number, block: HeaderBlock, content: string | Uint8Array | null): void {
  const { commands } = hostOf(exchange);
  let { text } = block;
  let close = false;
  if (block.flags & blockFlags.framing) ({ text, close } = separateFraming(block));
  text = withDefaultType(text, block, content);
  if (close) commands.respond(exchange.head, status, text, content, true);
  else commands.respond(exchange.head, status, text, content);
  exchange.finish();
}

/** A body without a type is sent with the one that follows from what it is. */
function withDefaultType(text: string, block: HeaderBlock, content: string | Uint8Array | null): string {
  if (block.flags & blockFlags.contentType || content === null || content.length === 0) return text;
  const type = typeof content === 'string' ? textLine : bytesLine;
  return text === '' ? type : text + type;
}

/**
 * RFC 9110 §9.3.2: the fields that GET would have, and no content. The core suppresses the body of respond() and takes its length from it;
 * streams are not read, and their length is known only when the handler gave it.
 */
function respondToHead(exchange: Exchange, response: LightResponse, status: number, block: HeaderBlock): void {
  const { commands } = hostOf(exchange);
  const { template } = response;
  const source = response.content === null && template !== null && template.code === status ? template : response;
  const plain = source.plainContent();
  const framing = block.flags & blockFlags.framing ? separateFraming(block) : undefined;
  // A length that the handler gives tells of a body which is not there, or cannot be measured: of one that is there GET would send the real one.
  const length = plain === null || plain === undefined ? (framing?.length ?? -1) : -1;
  if (length < 0 && (plain === null || typeof plain === 'string' || plain instanceof Uint8Array)) {
    respondWhole(exchange, status, block, plain);
    return;
  }
  let text = framing?.text ?? block.text;
  if (plain === undefined) ({ text } = unheld(new HeaderBlock(text, block.flags)));
  commands.respondBegin(exchange.head, status, text, plain instanceof Blob ? sizeOf(plain) : length, framing?.close);
  commands.respondEnd(exchange.head);
  discard(source);
  exchange.finish();
}

/** ret: bytes; -1: the size of a file that is not there, or is no regular file, is no number to promise */
function sizeOf(blob: Blob): number {
  return Number.isSafeInteger(blob.size) ? blob.size : -1;
}

function sendBlob(exchange: Exchange, status: number, block: HeaderBlock, blob: Blob): void {
  const size = sizeOf(blob);
  if (size > blobWholeBytes || size < 0 || isFile(blob)) {
    stream(exchange, status, block, blob.stream(), size > 0 ? size : -1);
    return;
  }
  exchange.state = exchangeState.streaming;
  blob
    .arrayBuffer()
    .then((buffer) => {
      if (exchange.state === exchangeState.streaming) respondWhole(exchange, status, block, new Uint8Array(buffer));
    })
    .catch((error) => {
      if (exchange.state === exchangeState.streaming) sendFailure(exchange, error, 'response');
    });
}

function stream(exchange: Exchange, status: number, block: HeaderBlock, body: ReadableStream, length: number): void {
  const planned = plannedStream(body);
  if (planned !== undefined) {
    hostOf(exchange).openStream(exchange, block, planned);
    exchange.finish();
    return;
  }
  const framing: Framing = block.flags & blockFlags.framing ? separateFraming(block) : { text: block.text, length: -1, close: false };
  if (length >= 0) framing.length = length;
  const pump = new ResponsePump(exchange, status, framing, body);
  exchange.state = exchangeState.streaming;
  exchange.stream = pump;
  pump.start();
}

/** A native Response in the form that is sent. It is used up, as it would be by a native server. */
function fromNative(response: Response): LightResponse {
  if (response.bodyUsed) throw new TypeError('Body already used');
  return new LightResponse(response.status === 0 ? null : response.body, response);
}

/** Let go of a response that will not be sent, so that what feeds its body can stop. */
function discard(result: unknown): void {
  if (!(result instanceof Response)) return;
  const content: Content = isLightResponse(result) ? result.content : result.body;
  if (content instanceof ReadableStream && !content.locked) content.cancel().catch(ignore);
}

function ignore(): void {}

function describe(value: unknown): string {
  if (value === null || value === undefined) return String(value);
  return typeof value === 'object' ? `an object of ${value.constructor?.name ?? 'no class'}` : `a ${typeof value}`;
}
