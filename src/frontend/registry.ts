/**
 * The frontends of a process, made into what a loop drives.
 *
 * Role: entries (frontend.ts) → the events of core.ts. Up: worker/main.ts. What one frontend serves alone goes to it
 * straight from the core; what several serve is told apart by slot.
 */
import type { Topics } from '../api/topics.ts';
import type { Authentication } from '../auth/authentication.ts';
import { takeQueryToken } from '../auth/token-source.ts';
import type { BehaviorOptions, Core, WebSocketEvents } from '../core/core.ts';
import type { HeadEvents, HttpEvents, RequestHead } from '../core/http.ts';
import { statIndex } from '../core/stat-index.ts';
import type { RequestIds } from '../host/request-ids.ts';
import type { Frontend, FrontendEntry, FrontendHost, Metric } from './frontend.ts';
import { SocketHandlers } from './sockets/socket-handlers.ts';
import { Streams } from './streams/streams.ts';

const registered: FrontendEntry[] = [];

/** Let gateways of this process have one more frontend, which is offered requests before the others. Before they are started. */
export function registerFrontend(entry: FrontendEntry): void {
  registered.push(entry);
}

export function registeredFrontends(): readonly FrontendEntry[] {
  return registered;
}

/** The core numbers behaviors in 8 bits. */
const behaviorsMax = 256;

const textHeaders = 'content-type: text/plain;charset=utf-8\r\n';

/** Of frontends that serve none. */
const noSockets: WebSocketEvents = {
  onOpen() {},
  onMessage() {},
  onClose() {},
  onDrain() {},
  onPing() {},
  onPong() {},
  onDropped() {},
};

export interface FrontendsOptions {
  readonly core: Core;
  readonly topics: Topics;
  readonly requestIds: RequestIds;
  /** @default undefined: nobody is asked for a token */
  readonly authentication?: Authentication | undefined;
  /** Says that a handler has failed; it was counted. Must not throw. */
  onFailure(context: object, sentence: string): void;
}

export class Frontends implements FrontendHost {
  readonly core: Core;
  readonly topics: Topics;
  readonly requestIds: RequestIds;
  readonly authentication: Authentication | undefined;
  readonly #onFailure: FrontendsOptions['onFailure'];
  readonly #all: Frontend[] = [];
  #sockets: SocketHandlers | undefined;
  #streams: Streams | undefined;
  /** Indexes, by what the core was told: the same takes one. */
  readonly #behaviors = new Map<string, number>();

  constructor({ core, topics, requestIds, authentication, onFailure }: FrontendsOptions) {
    this.core = core;
    this.topics = topics;
    this.requestIds = requestIds;
    this.authentication = authentication;
    this.#onFailure = onFailure;
  }

  /** Make a frontend, which is offered requests behind those before it. err: Error when it cannot stand beside them */
  add<Options, Made extends Frontend>(entry: FrontendEntry<Options, Made>, options: Options): Made {
    for (const metric of entry.metrics) statIndex(metric);
    const made = entry.create(this, options);
    this.#all.push(made);
    if (this.#all.length > 1 && this.#all.some(({ records, connections }) => records !== undefined || connections !== undefined))
      throw new Error(`the frontend ${entry.name} cannot serve beside others: one of them takes all that comes to the process`);
    return made;
  }

  // ---------------------------------------------------------------- for frontends

  get sockets(): SocketHandlers {
    this.#sockets ??= new SocketHandlers(this);
    return this.#sockets;
  }

  get streams(): Streams {
    this.#streams ??= new Streams(this);
    return this.#streams;
  }

  addBehavior(options: BehaviorOptions): number {
    const key = JSON.stringify(options);
    const known = this.#behaviors.get(key);
    if (known !== undefined) return known;
    const index = this.#behaviors.size;
    if (index === behaviorsMax)
      throw new Error(`a process has at most ${behaviorsMax} kinds of WebSockets: give some routes the same options`);
    this.core.setBehavior(index, options);
    this.#behaviors.set(key, index);
    return index;
  }

  count(metric: Metric): void {
    this.core.addStat(statIndex(metric), 1);
  }

  failed(context: object, sentence: string): void {
    this.count('handler_errors');
    this.#onFailure(context, sentence);
  }

  speaksAt(path: string): boolean {
    return this.#all.some((frontend) => frontend.speaksAt?.(path));
  }

  // ---------------------------------------------------------------- for the loop; once all are added

  /** See Frontend. */
  get pending(): number {
    let sum = this.#streams?.pending ?? 0;
    for (const frontend of this.#all) sum += frontend.pending;
    return sum;
  }

  get outliving(): number {
    let sum = 0;
    for (const frontend of this.#all) sum += frontend.outliving ?? 0;
    return sum;
  }

  /** What the core is to tell. */
  events(): { readonly http: HttpEvents; readonly websocket: WebSocketEvents } {
    this.core.connectionEvents = this.#all[0]?.connections;
    const sockets = [...new Set(this.#all.flatMap((frontend) => frontend.sockets ?? []))];
    const offers = new Offers(this, this.#all);
    return {
      http: this.#all[0]?.records ?? offers,
      websocket: sockets.length > 1 ? byOwner(offers.owners) : (sockets[0] ?? noSockets),
    };
  }
}

/** Offers each request to frontends in turn, and tells what follows to the one that took it: a connection has one request at a time. */
class Offers implements HeadEvents {
  readonly #host: FrontendHost;
  readonly #takers: readonly Frontend[];
  /** By slot: who took the latest request, and so has the WebSocket that it may have become. */
  readonly owners: (Frontend | undefined)[] = [];

  constructor(host: FrontendHost, all: readonly Frontend[]) {
    this.#host = host;
    this.#takers = all.filter(({ requests }) => requests !== undefined);
  }

  onRequest(head: RequestHead): void {
    const { owners } = this;
    const query = this.#host.authentication?.settings.query;
    if (query !== undefined) takeQueryToken(head, query);
    try {
      for (const frontend of this.#takers) {
        owners[head.slot] = frontend;
        if (frontend.requests?.takes(head)) return;
      }
      this.#refuse(head, 404, 'Not Found');
    } catch (error) {
      // A defect, since frontends catch what their handlers throw; no client is to wait for it.
      this.#host.failed({ err: error }, 'a frontend failed to take a request');
      this.#refuse(head, 500, 'Internal Server Error');
    }
  }

  #refuse(head: RequestHead, status: number, reason: string): void {
    this.owners[head.slot] = undefined;
    this.#host.core.respond(head, status, textHeaders, reason);
  }

  onBody(slot: number, request: number, bytes: Uint8Array, end: boolean): void {
    this.owners[slot]?.requests?.onBody?.(slot, request, bytes, end);
  }

  onAbort(slot: number, request: number, cause: number, status: number): void {
    this.owners[slot]?.requests?.onAbort?.(slot, request, cause, status);
  }

  onResponseDrain(slot: number, request: number): void {
    this.owners[slot]?.requests?.onResponseDrain?.(slot, request);
  }

  onHalfClosed(slot: number, generation: number, request: number): void {
    this.owners[slot]?.requests?.onHalfClosed?.(slot, generation, request);
  }
}

/** WebSockets of several frontends: each has those whose handshakes it took. */
function byOwner(owners: readonly (Frontend | undefined)[]): WebSocketEvents {
  const of = (slot: number) => owners[slot]?.sockets;
  return {
    onOpen: (slot, ...rest) => of(slot)?.onOpen(slot, ...rest),
    onMessage: (slot, ...rest) => of(slot)?.onMessage(slot, ...rest),
    onClose: (slot, ...rest) => of(slot)?.onClose(slot, ...rest),
    onDrain: (slot, ...rest) => of(slot)?.onDrain(slot, ...rest),
    onPing: (slot, ...rest) => of(slot)?.onPing(slot, ...rest),
    onPong: (slot, ...rest) => of(slot)?.onPong(slot, ...rest),
    onDropped: (slot, ...rest) => of(slot)?.onDropped(slot, ...rest),
    onLost: (slot, ...rest) => of(slot)?.onLost?.(slot, ...rest),
  };
}
