/**
 * One log line for each HTTP request and for each WebSocket, when `log.requests` asks for it.
 *
 * Role: stands between the core and the frontends, and notes what passes; a worker that logs no requests has none of it. Requests that the
 * core refuses by itself (400, 408, 431, ...) never come here: they are counted in ringway_http_errors_total.
 */
import { abortCause } from '../core/abi.ts';
import type { WebSocketEvents } from '../core/core.ts';
import type { HttpCommands, HttpEvents, RequestHead } from '../core/http.ts';
import { requestMethod } from '../core/request-target.ts';
import type { Log } from '../log.ts';
import type { RequestIds } from './request-ids.ts';

interface Noted {
  readonly head: RequestHead;
  readonly began: number;
  /** 0 until a response has begun. */
  status: number;
  /** Of the client, once its request waits for something. */
  address: string | undefined;
}

interface NotedSocket {
  readonly generation: number;
  readonly path: string;
  readonly requestId: string;
  readonly began: number;
  readonly address: string | undefined;
}

export class RequestLog {
  readonly #ids: RequestIds;
  readonly #log: Log;
  readonly #address: (head: RequestHead) => string | undefined;
  readonly #now: () => number;
  /** Requests that have no complete response yet, by slot: those of a connection in their order. */
  readonly #requests = new Map<number, Noted[]>();
  readonly #sockets = new Map<number, NotedSocket>();

  /** `address`: the client's; `now`: milliseconds of a clock that never jumps */
  constructor(ids: RequestIds, log: Log, address: (head: RequestHead) => string | undefined, now: () => number = () => performance.now()) {
    this.#ids = ids;
    this.#log = log;
    this.#address = address;
    this.#now = now;
  }

  /** HTTP events on their way to a frontend. */
  events(inner: HttpEvents): HttpEvents {
    return {
      onRequest: (head) => {
        const noted = this.#began(head);
        inner.onRequest(head);
        // Later it may have left. One that was answered at once is asked for its address then.
        if (this.#find(head) === noted) noted.address = this.#address(head);
      },
      onBody: (slot, request, bytes, end) => inner.onBody(slot, request, bytes, end),
      onAbort: (slot, request, cause, status) => {
        const noted = this.#requests.get(slot)?.find(({ head }) => head.request === request);
        inner.onAbort(slot, request, cause, status);
        if (noted !== undefined) this.#ended(noted.head, noted.status || status, abortProblem(cause, status));
      },
      onResponseDrain: (slot, request) => inner.onResponseDrain(slot, request),
      onHalfClosed: (slot, generation, request) => inner.onHalfClosed?.(slot, generation, request),
    };
  }

  /** What a frontend says, on its way to the core. */
  commands(inner: HttpCommands): HttpCommands {
    return {
      respond: (head, status, headers, body, close) => {
        inner.respond(head, status, headers, body, close);
        this.#ended(head, status);
      },
      respondBegin: (head, status, headers, length, close) => {
        const noted = this.#find(head);
        if (noted !== undefined) noted.status = status;
        inner.respondBegin(head, status, headers, length, close);
      },
      respondChunk: (head, chunk) => inner.respondChunk(head, chunk),
      respondEnd: (head) => {
        inner.respondEnd(head);
        this.#ended(head, this.#find(head)?.status ?? 0);
      },
      respondAbort: (head) => {
        inner.respondAbort(head);
        this.#ended(head, this.#find(head)?.status ?? 0, 'the response was broken off');
      },
      bodyAck: (head, bytes, kept) => inner.bodyAck(head, bytes, kept),
      upgrade: (head, headers, handler, data) => inner.upgrade(head, headers, handler, data),
      remoteAddress: (head) => inner.remoteAddress(head),
      tls: (head) => inner.tls(head),
      get highWater() {
        return inner.highWater;
      },
    };
  }

  /** A handshake was answered, other than by a frontend for HTTP. */
  handshake(head: RequestHead, status: number): void {
    const noted = this.#find(head);
    if (status === 101) {
      this.#sockets.set(head.slot, {
        generation: head.generation,
        path: pathOf(head),
        requestId: this.#ids.of(head),
        began: noted?.began ?? this.#now(),
        address: noted?.address ?? this.#address(head),
      });
    }
    this.#ended(head, status);
  }

  /** WebSocket events on their way to a frontend. */
  sockets(inner: WebSocketEvents): WebSocketEvents {
    return {
      onOpen: (slot, generation) => inner.onOpen(slot, generation),
      onMessage: (slot, generation, isBinary, offset, bytes, large) => inner.onMessage(slot, generation, isBinary, offset, bytes, large),
      onClose: (slot, generation, code, reason, cause) => {
        this.#closed(slot, generation, code);
        inner.onClose(slot, generation, code, reason, cause);
      },
      onDrain: (slot, generation) => inner.onDrain(slot, generation),
      onPing: (slot, generation, data) => inner.onPing(slot, generation, data),
      onPong: (slot, generation, data) => inner.onPong(slot, generation, data),
      onDropped: (slot, generation, count, message) => inner.onDropped(slot, generation, count, message),
    };
  }

  #began(head: RequestHead): Noted {
    const noted: Noted = { head, began: this.#now(), status: 0, address: undefined };
    const waiting = this.#requests.get(head.slot);
    // Requests of the connection that had this slot before are over without a word.
    if (waiting === undefined || waiting[0]?.head.generation !== head.generation) this.#requests.set(head.slot, [noted]);
    else waiting.push(noted);
    return noted;
  }

  #find({ slot, generation, request }: RequestHead): Noted | undefined {
    return this.#requests.get(slot)?.find(({ head }) => head.generation === generation && head.request === request);
  }

  #ended(head: RequestHead, status: number, problem?: string): void {
    const noted = this.#find(head);
    if (noted === undefined) return;
    const waiting = this.#requests.get(head.slot) as Noted[];
    if (waiting.length === 1) this.#requests.delete(head.slot);
    else waiting.splice(waiting.indexOf(noted), 1);
    const method = requestMethod(head);
    const path = pathOf(head);
    this.#log.info(
      {
        requestId: this.#ids.of(head),
        method,
        path,
        status,
        ms: this.#since(noted.began),
        address: noted.address ?? this.#address(head),
        ...(problem === undefined ? {} : { problem }),
      },
      `${method} ${path} ${status === 0 ? '-' : status}`,
    );
  }

  #closed(slot: number, generation: number, code: number): void {
    const socket = this.#sockets.get(slot);
    if (socket === undefined || socket.generation !== generation) return;
    this.#sockets.delete(slot);
    const { requestId, path, began, address } = socket;
    this.#log.info({ requestId, path, code, ms: this.#since(began), address }, `WebSocket ${path} closed with ${code}`);
  }

  #since(began: number): number {
    return Math.round((this.#now() - began) * 10) / 10;
  }
}

function abortProblem(cause: number, status: number): string {
  switch (cause) {
    case abortCause.refused:
      if (status === 408) return 'the body of the request did not come in time (http.bodyTimeout)';
      if (status === 413) return 'the body of the request is too large (http.maxBodyBytes)';
      return `the body of the request was refused with status ${status}`;
    case abortCause.writeTimeout:
      return 'the client took nothing of the response for too long (http.writeTimeout)';
    case abortCause.byHost:
      return 'the response was broken off';
    case abortCause.length:
      return 'the body of the response did not have the length that it had announced';
    case abortCause.noMemory:
      return 'there was no memory for the response';
    default:
      return 'the client left';
  }
}

/** Without the query, which may hold secrets; and in ASCII, since a log is looked at in terminals, which act on some other octets. */
function pathOf(head: RequestHead): string {
  const target = head.raw.slice(head.hostBytes, head.hostBytes + head.targetBytes);
  const query = target.indexOf('?');
  return (query < 0 ? target : target.slice(0, query)).replace(notGraphic, (octet) => {
    const code = octet.charCodeAt(0).toString(16).toUpperCase();
    return `%${code.padStart(2, '0')}`;
  });
}

const notGraphic = /[^\x21-\x7e]/g;
