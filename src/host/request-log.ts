/**
 * One log line for each HTTP request and for each WebSocket, when `log.requests` asks for it.
 *
 * Role: an observer of the core (core/observer.ts), which notes what passes; a worker that logs no requests has none of it. Requests that the
 * core refuses by itself (400, 408, 431, ...) never come here: they are counted in ringway_http_errors_total.
 */
import { abortCause, eventFlag } from '../core/abi.ts';
import type { RequestHead, RequestName } from '../core/http.ts';
import type { Observer } from '../core/observer.ts';
import { requestMethod, requestPath } from '../core/request-target.ts';
import type { Log } from '../log.ts';
import type { RequestIds } from './request-ids.ts';

interface Noted {
  readonly head: RequestHead;
  readonly began: number;
  /** 0 until a response has begun. */
  status: number;
  /** Of the client. Later it may have left. */
  readonly address: string | undefined;
}

interface NotedSocket {
  readonly generation: number;
  readonly path: string;
  readonly requestId: string;
  readonly began: number;
  readonly address: string | undefined;
}

export class RequestLog implements Observer {
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

  requestBegan(head: RequestHead): void {
    // Every response is to carry the id that its line has.
    this.#ids.of(head);
    const noted: Noted = { head, began: this.#now(), status: 0, address: this.#address(head) };
    const waiting = this.#requests.get(head.slot);
    // Requests of the connection that had this slot before are over without a word.
    if (waiting === undefined || waiting[0]?.head.generation !== head.generation) this.#requests.set(head.slot, [noted]);
    else waiting.push(noted);
  }

  responseBegan(request: RequestName, status: number): void {
    const noted = this.#find(request);
    if (noted !== undefined) noted.status = status;
  }

  responseEnded(request: RequestName, isWhole: boolean): void {
    this.#ended(request, isWhole ? undefined : 'the response was broken off');
  }

  requestAborted(request: RequestName, cause: number, status: number): void {
    this.#ended(request, abortProblem(cause, status), status);
  }

  socketOpened(request: RequestName): void {
    const noted = this.#find(request);
    if (noted === undefined) return;
    const { head, began, address } = noted;
    noted.status = 101;
    this.#sockets.set(head.slot, { generation: head.generation, path: pathOf(head), requestId: this.#ids.of(head), began, address });
    this.#ended(request);
  }

  socketClosed(slot: number, generation: number, code: number): void {
    const socket = this.#sockets.get(slot);
    if (socket === undefined || socket.generation !== generation) return;
    this.#sockets.delete(slot);
    const { requestId, path, began, address } = socket;
    this.#log.info({ requestId, path, code, ms: this.#since(began), address }, `WebSocket ${path} closed with ${code}`);
  }

  #find({ slot, generation, request }: RequestName): Noted | undefined {
    return this.#requests.get(slot)?.find(({ head }) => head.generation === generation && head.request === request);
  }

  /** `status`: unless a response has begun. */
  #ended(request: RequestName, problem?: string, status = 0): void {
    const noted = this.#find(request);
    if (noted === undefined) return;
    const waiting = this.#requests.get(request.slot) as Noted[];
    if (waiting.length === 1) this.#requests.delete(request.slot);
    else waiting.splice(waiting.indexOf(noted), 1);
    const { head, began, address } = noted;
    const method = requestMethod(head);
    const path = pathOf(head);
    const sent = noted.status || status;
    const line = { requestId: this.#ids.of(head), method, path, status: sent, ms: this.#since(began), address };
    // A browser says nothing of a status: that it was a WebSocket which was not let in is to be seen here.
    const kind = (head.flags & eventFlag.requestUpgrade) !== 0 && sent !== 101 ? ' to a WebSocket handshake' : '';
    this.#log.info(problem === undefined ? line : { ...line, problem }, `${method} ${path} ${sent === 0 ? '-' : sent}${kind}`);
  }

  #since(began: number): number {
    return Math.round((this.#now() - began) * 10) / 10;
  }
}

/** ret: undefined: it is none */
function abortProblem(cause: number, status: number): string | undefined {
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
    case abortCause.drained:
      return undefined;
    default:
      return 'the client left';
  }
}

/** Without the query, which may hold secrets; and in ASCII, since a log is looked at in terminals, which act on some other octets. */
function pathOf(head: RequestHead): string {
  return requestPath(head).replace(notGraphic, (octet) => {
    const code = octet.charCodeAt(0).toString(16).toUpperCase();
    return `%${code.padStart(2, '0')}`;
  });
}

const notGraphic = /[^\x21-\x7e]/g;
