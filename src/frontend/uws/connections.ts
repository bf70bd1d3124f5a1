/**
 * The connections of an app: which router, filter or child app is asked.
 *
 * Role: stands behind the app's listeners. Up: runtime.ts gives it events; app.ts adds routes, filters and children. Down: router.ts,
 * request.ts, response.ts.
 */
import { runMicrotasks } from './microtasks.ts';
import { expire, HttpRequest } from './request.ts';
import { HttpResponse } from './response.ts';
import { afterHandler, failHandler, watch } from './response-events.ts';
import { cutOff } from './response-state.ts';
import { Router } from './router.ts';
import type { ListenerOwner, Runtime } from './runtime.ts';

export type Handler = (response: HttpResponse, request: HttpRequest) => unknown;
export type Filter = (response: HttpResponse, count: number) => unknown;

export interface HttpRoute {
  readonly parameterNames: readonly string[];
  /** `flags`: RW_REQUEST_* */
  readonly handle: (response: HttpResponse, request: HttpRequest, flags: number) => unknown;
}

export type HttpRouter = Router<HttpRoute, HttpResponse, HttpRequest>;

/** RW_REQUEST_* of the request that is being routed. */
let flagsNow = 0;

function attempt(route: HttpRoute, parameters: readonly string[], response: HttpResponse, request: HttpRequest): boolean {
  request.yielded = false;
  request.parameters = parameters;
  request.parameterNames = route.parameterNames;
  let hasFailed = false;
  try {
    const result = route.handle(response, request, flagsNow);
    if (result !== undefined) watch(response, result);
  } catch (error) {
    hasFailed = true;
    failHandler(response, error);
  }
  runMicrotasks();
  return hasFailed || !request.yielded;
}

export class AppConnections implements ListenerOwner {
  readonly #runtime: Runtime;
  readonly router: HttpRouter = new Router();
  /** By context of the server name. */
  readonly domains: (HttpRouter | undefined)[] = [];
  readonly filters: Filter[] = [];
  missingServerName: ((name: string) => unknown) | undefined;
  /** Connections are handed to these in turn. */
  readonly #children: AppConnections[] = [];
  #turn = 0;
  /** By slot: the child that a connection has been handed to. */
  readonly #handed = new Map<number, AppConnections>();

  constructor(runtime: Runtime) {
    this.#runtime = runtime;
  }

  get hasChildren(): boolean {
    return this.#children.length > 0;
  }

  addChild(child: AppConnections): void {
    this.#children.push(child);
  }

  removeChild(child: AppConnections): void {
    const index = this.#children.indexOf(child);
    if (index >= 0) this.#children.splice(index, 1);
    this.#turn = 0;
  }

  // ---------------------------------------------------------------- events

  onRequest(
    slot: number,
    generation: number,
    number: number,
    flags: number,
    numbers: number,
    offset: number,
    bytes: number,
    lengths: number,
  ): void {
    const host = this.#runtime;
    const method = numbers & 0xff;
    const context = numbers >>> 16;
    const request = new HttpRequest(host.core, flags, method, offset, bytes, lengths);
    const response = new HttpResponse(host, slot, generation, number, flags, method);
    host.adopt(response, slot, this);
    flagsNow = flags;
    const router = this.#handed.size === 0 ? this.#routerOf(context) : this.#ownerOf(slot).#routerOf(context);
    if (router.route(method, request.url, attempt, response, request)) {
      afterHandler(response);
      expire(request);
    } else {
      // As the original: nobody answers, so the client is told by the end of the connection.
      expire(request);
      cutOff(response);
      runMicrotasks();
    }
  }

  #routerOf(context: number): HttpRouter {
    return context === 0 ? this.router : (this.domains[context] ?? this.router);
  }

  onConnect(slot: number, generation: number): void {
    if (this.hasChildren) this.#handOver(slot);
    this.#ownerOf(slot).#filter(slot, generation, 1);
  }

  onDisconnect(slot: number, generation: number, isWebSocket: boolean): void {
    const owner = this.#ownerOf(slot);
    this.#handed.delete(slot);
    // To the original, a connection that becomes a WebSocket leaves HTTP without a word.
    if (!isWebSocket) owner.#filter(slot, generation, -1);
  }

  onServerName(name: string): void {
    try {
      this.missingServerName?.(name);
    } catch (error) {
      this.#runtime.report(error, 'the missingServerName handler');
    }
    runMicrotasks();
  }

  #filter(slot: number, generation: number, change: number): void {
    for (const filter of this.filters) {
      try {
        filter(new HttpResponse(this.#runtime, slot, generation, -1, 0), change);
      } catch (error) {
        this.#runtime.report(error, 'a filter');
      }
      runMicrotasks();
    }
  }

  #handOver(slot: number): void {
    this.#handed.set(slot, this.#children[this.#turn] as AppConnections);
    this.#turn = (this.#turn + 1) % this.#children.length;
  }

  #ownerOf(slot: number): AppConnections {
    return this.#handed.get(slot) ?? this;
  }
}
