/**
 * Serves HTTP with a fetch function, such as a Hono application's.
 *
 * Role: takes requests, for a worker (entry.ts) and for the admin listener. Upstream: the core, by events; downstream: the handler, then
 * response-sender.ts.
 * A request that is answered before the handler returns touches no table: only one that has to wait, for its body or for
 * its answer, is listed, so that later events find it. Request numbers wrap and slots are reused, so a list holds one generation of a
 * slot only.
 */

import type { RingwayBindings } from '../../api/bindings.ts';
import type { User } from '../../api/user.ts';
import type { Authentication } from '../../auth/authentication.ts';
import { eventFlag, method as methodNumber } from '../../core/abi.ts';
import { type Handle, handleFor } from '../../core/handles.ts';
import type { HeadEvents, HttpCommands, RequestHead } from '../../core/http.ts';
import { requestUrl } from '../../core/request-target.ts';
import { RequestIds } from '../../host/request-ids.ts';
import type { RequestTaker } from '../frontend.ts';
import { blockFlags, HeaderBlock, separateFraming, withoutField } from '../http/header-block.ts';
import { abortReason, LightRequest } from '../http/request.ts';
import { RequestBody } from '../http/request-body.ts';
import { isThenable } from '../http/thenable.ts';
import type { Streams } from '../streams/streams.ts';
import { type ErrorContext, Exchange, type ExchangeHost, exchangeState } from './exchange.ts';
import { isOfLeaving, reportFailure, sendFailure } from './failure.ts';
import { knownUser } from './identity.ts';
import { sendResponse } from './response-sender.ts';
import type { PlannedStream } from './topic-events.ts';
import type { HonoSocketData } from './upgrade-websocket.ts';

export { watchAppErrors } from './app-errors.ts';
export { authenticate, type UserVariables } from './authenticate.ts';
export { type ConnInfo, getConnInfo, getTlsInfo } from './connection-info.ts';
export type { ErrorContext } from './exchange.ts';
export { installLightGlobals } from './globals.ts';
export { type TopicEventsOptions, topicEvents } from './topic-events.ts';
export { type HonoSocketData, honoWebSocketHandler, type UpgradeOptions, upgradeWebSocket } from './upgrade-websocket.ts';

/** A fetch handler. `env` is what Hono passes on as `c.env`. */
export type FetchHandler = (request: Request, env: RingwayBindings) => unknown;

export interface FetchFrontendOptions {
  fetch: FetchHandler;
  commands: HttpCommands;
  /** Accepts handshakes for `honoWebSocketHandler`. Default: none can be accepted. */
  sockets?: {
    accept(head: RequestHead, headers: string, data: HonoSocketData, user: User | undefined): void;
    /** The client left before that came about. */
    forget(slot: number): void;
  };
  /** Answers in the place of responses of `topicEvents`. Default: these fail. */
  streams?: Pick<Streams, 'open' | 'onAbort'>;
  /** Told of every request that failed, once. It was, or is being, answered; the worker logs and counts. Must not throw. */
  onError(error: unknown, context: ErrorContext): void;
  /** Default: nobody is asked for a token. */
  authentication?: Authentication | undefined;
  /** Default: ids are made here, and no header carries them. */
  requestIds?: RequestIds;
  /**
   * Ends a connection whose client has closed its sending side while a handler heeds `request.signal`: it wants to know of clients that may
   * have left. Default: all handlers are heard to the end.
   */
  terminate?(slot: number, generation: number): void;
}

const textHeaders = 'content-type: text/plain;charset=utf-8\r\n';

export class FetchFrontend implements HeadEvents, RequestTaker, ExchangeHost {
  readonly handle: Handle<ExchangeHost> = handleFor<ExchangeHost>(this);
  readonly commands: HttpCommands;
  /** Stands for them in the bodies of requests. */
  private readonly commandsHandle: Handle<HttpCommands>;
  readonly requestIds: RequestIds;
  readonly authentication: Authentication | undefined;
  private readonly fetch: FetchHandler;
  private readonly onError: FetchFrontendOptions['onError'];
  private readonly sockets: FetchFrontendOptions['sockets'];
  private readonly streams: FetchFrontendOptions['streams'];
  private readonly terminate: FetchFrontendOptions['terminate'];
  /** Exchanges that wait for something, by slot. */
  private readonly waiting = new Map<number, Exchange>();

  constructor(options: FetchFrontendOptions) {
    this.commands = options.commands;
    this.commandsHandle = handleFor(options.commands);
    this.fetch = options.fetch;
    this.onError = options.onError;
    this.sockets = options.sockets;
    this.streams = options.streams;
    this.terminate = options.terminate;
    this.authentication = options.authentication;
    this.requestIds = options.requestIds ?? new RequestIds(false);
  }

  /** Requests that wait for a body, an answer or a stream. The worker's loop asks in every idle turn, so it is counted and not found out. */
  pending = 0;

  /** All that there are. */
  takes(head: RequestHead): boolean {
    this.onRequest(head);
    return true;
  }

  onRequest(head: RequestHead): void {
    if (head.method === methodNumber.connect) {
      // RFC 9110 §9.3.6: a success would promise a tunnel, which no Response can be
      this.commands.respond(head, 501, textHeaders, 'Not Implemented: this is no proxy', true);
      return;
    }
    const url = requestUrl(head);
    if (url === '') {
      this.commands.respond(head, 400, textHeaders, 'Bad Request: a URL cannot have this Host', true);
      return;
    }
    const hasBody = (head.flags & eventFlag.requestHasBody) !== 0;
    const request = new LightRequest(head, url, hasBody ? new RequestBody(head, this.commandsHandle) : null);
    const exchange = new Exchange(this, head, request);
    try {
      const result = this.fetch(request as unknown as Request, exchange);
      if (isThenable(result)) this.settle(exchange, result);
      else sendResponse(exchange, result);
    } catch (error) {
      this.handlerFailed(exchange, error);
    }
    if (exchange.state !== exchangeState.over) this.list(exchange);
  }

  onBody(slot: number, request: number, bytes: Uint8Array, end: boolean): void {
    this.find(slot, request)?.request.incoming?.push(bytes, end);
  }

  onAbort(slot: number, request: number, cause: number, status: number): void {
    this.sockets?.forget(slot);
    this.streams?.onAbort(slot, request);
    this.find(slot, request)?.abandon(abortReason(cause, status));
  }

  onHalfClosed(slot: number, generation: number, request: number): void {
    if (this.find(slot, request)?.request.hasSignal) this.terminate?.(slot, generation);
  }

  onResponseDrain(slot: number, request: number): void {
    this.find(slot, request)?.stream?.drain();
  }

  /** @internal */
  accept(exchange: Exchange, headers: string, data: HonoSocketData): void {
    this.sockets?.accept(exchange.head, headers, data, knownUser(exchange));
  }

  /** @internal */
  openStream({ head }: Exchange, block: HeaderBlock, { wishes, client, quietMs }: PlannedStream): void {
    if (this.streams === undefined) throw new TypeError('topicEvents() works in the config of a gateway alone');
    const headers = block.flags & blockFlags.framing ? separateFraming(block).text : block.text;
    this.streams.open(head, wishes, client, { headers, quietMs, isHead: false }, ({ status, sentence }) => {
      const others = withoutField(withoutField(new HeaderBlock(headers, block.flags), 'content-type'), 'x-accel-buffering');
      this.commands.respond(head, status, textHeaders + others.text, sentence);
    });
  }

  /** @internal */
  report(error: unknown, exchange: Exchange, where: ErrorContext['where']): void {
    const { request } = exchange;
    this.onError(error, { where, method: request.method, url: request.url, requestId: exchange.requestId });
  }

  /** @internal */
  forget(exchange: Exchange): void {
    const { slot } = exchange.head;
    exchange.listed = false;
    this.pending -= 1;
    const first = this.waiting.get(slot);
    if (first === exchange) {
      if (exchange.next === undefined) this.waiting.delete(slot);
      else this.waiting.set(slot, exchange.next);
    } else {
      for (let at = first; at !== undefined; at = at.next) if (at.next === exchange) at.next = exchange.next;
    }
    exchange.next = undefined;
  }

  private list(exchange: Exchange): void {
    const { slot, generation } = exchange.head;
    let first = this.waiting.get(slot);
    // an exchange of the connection that had this slot before was over without a word
    while (first !== undefined && first.head.generation !== generation) {
      first.abandon();
      first = this.waiting.get(slot);
    }
    exchange.listed = true;
    this.pending += 1;
    exchange.next = first;
    this.waiting.set(slot, exchange);
  }

  private find(slot: number, request: number): Exchange | undefined {
    let exchange = this.waiting.get(slot);
    while (exchange !== undefined && exchange.head.request !== request) exchange = exchange.next;
    return exchange;
  }

  private settle(exchange: Exchange, result: PromiseLike<unknown>): void {
    result.then(
      (response) => sendResponse(exchange, response),
      (error) => this.handlerFailed(exchange, error),
    );
  }

  private handlerFailed(exchange: Exchange, error: unknown): void {
    if (exchange.state === exchangeState.open) sendFailure(exchange, error, 'handler');
    else if (!isOfLeaving(exchange, error)) reportFailure(exchange, error, 'handler');
  }
}
