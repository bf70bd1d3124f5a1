/**
 * One request and its response.
 *
 *   open ──► streaming ──► over        a response was begun, and ended
 *    ├──────────────────► over         it was sent whole, or broken off, or the client left
 *    └──────────────────► over         a WebSocket took over the connection; whatever the handler returns is not sent
 *
 * Role: what `c.env` is in handlers, and the name under which frontend events find their request.
 */
import type { PeerAddress, RingwayBindings, UpgradeRequest } from '../../api/bindings.ts';
import type { User } from '../../api/user.ts';
import type { Authentication } from '../../auth/authentication.ts';
import { eventFlag } from '../../core/abi.ts';
import { behind, type Handle } from '../../core/handles.ts';
import type { HttpCommands, RequestHead } from '../../core/http.ts';
import { inspection, shown } from '../../core/inspection.ts';
import type { TlsInfo } from '../../core/tls-info.ts';
import type { RequestIds } from '../../host/request-ids.ts';
import { encodeHeaders, type HeaderBlock } from '../http/header-block.ts';
import { abortReason, type LightRequest } from '../http/request.ts';
import { identify } from './identity.ts';
import type { PlannedStream } from './topic-events.ts';
import type { HonoSocketData } from './upgrade-websocket.ts';

/** What an exchange needs of the frontend that it belongs to. */
export interface ExchangeHost {
  /** Stands for it in exchanges, which handlers may print: it leads to those of other clients. */
  readonly handle: Handle<ExchangeHost>;
  readonly commands: HttpCommands;
  readonly requestIds: RequestIds;
  /** undefined: nobody is asked for a token. */
  readonly authentication: Authentication | undefined;
  /** Accept a handshake, of which Hono's events are told. */
  accept(exchange: Exchange, headers: string, data: HonoSocketData): void;
  /** Answer with a stream of events of topics. */
  openStream(exchange: Exchange, block: HeaderBlock, planned: PlannedStream): void;
  report(error: unknown, exchange: Exchange, where: ErrorContext['where']): void;
  forget(exchange: Exchange): void;
}

/** Where an error came from, for the log. */
export interface ErrorContext {
  /**
   * handler: it threw, or returned what is no response; response: what it returned cannot be sent, or not as it is; stream: its body failed
   * half-way; answer: it answered 500 by itself, and why is not known.
   */
  where: 'handler' | 'response' | 'stream' | 'answer';
  method: string;
  url: string;
  requestId: string;
}

/** What sends a streamed body, seen from the exchange. */
export interface ResponseStream {
  drain(): void;
  cancel(reason: unknown): void;
}

/** What reads of a request body reject with once nothing more of it will be handed over. */
const responseComplete = new DOMException('The response is complete: the rest of the request is not read', 'AbortError');

export const exchangeState = { open: 0, streaming: 1, over: 2 } as const;

const View = class RingwayBindings {};

export class Exchange implements RingwayBindings {
  /** @internal See `hostOf`. */ readonly host: Handle<ExchangeHost>;
  /** @internal */ readonly head: RequestHead;
  /** @internal */ readonly request: LightRequest;
  /** @internal `exchangeState` */ state: number;
  /** @internal */ stream: ResponseStream | null;
  /** @internal Listed in the frontend: events can find it. */
  listed: boolean;
  /** @internal The next exchange of the same slot. */
  next: Exchange | undefined;
  /** '' until somebody asks. */
  private id: string;

  constructor(host: ExchangeHost, head: RequestHead, request: LightRequest) {
    this.host = host.handle;
    this.head = head;
    this.request = request;
    this.state = exchangeState.open;
    this.stream = null;
    this.listed = false;
    this.next = undefined;
    this.id = '';
  }

  get listener(): number {
    return this.head.listener;
  }

  get requestId(): string {
    if (this.id === '') this.id = hostOf(this).requestIds.of(this.head);
    return this.id;
  }

  /** @internal The id that the response is to carry: one that came with the request, or that somebody has asked for; else ''. */
  get shownId(): string {
    return this.id === '' ? hostOf(this).requestIds.shown(this.head) : this.id;
  }

  ip(): PeerAddress | undefined {
    return hostOf(this).commands.remoteAddress(this.head);
  }

  tls(): TlsInfo | undefined {
    return hostOf(this).commands.tls(this.head);
  }

  async user(): Promise<User | undefined> {
    const { authentication } = hostOf(this);
    if (authentication === undefined) return undefined;
    const verified = await identify(this, authentication);
    return verified.ok ? verified.user : undefined;
  }

  requestIP(): { address: string; port: number; family: 'IPv4' | 'IPv6' } | null {
    const peer = this.ip();
    return peer === undefined ? null : { ...peer, family: peer.address.includes(':') ? 'IPv6' : 'IPv4' };
  }

  upgrade(_request: Request, options: UpgradeRequest): boolean {
    if (!this.upgradable) return false;
    let headers = options.headers === undefined ? '' : encodeHeaders(options.headers).text;
    // Bun answers with the first subprotocol that the client offers unless told otherwise, and Hono's adapter for it relies on that
    if (options.data.protocol && !/^sec-websocket-protocol:/im.test(headers)) {
      headers += encodeHeaders({ 'Sec-WebSocket-Protocol': options.data.protocol }).text;
    }
    this.accept(headers, options.data);
    return true;
  }

  /** @internal A valid handshake that was not answered yet. */
  get upgradable(): boolean {
    return this.state === exchangeState.open && (this.head.flags & eventFlag.requestUpgrade) !== 0;
  }

  /** @internal Only while `upgradable`. */
  accept(headers: string, data: HonoSocketData): void {
    hostOf(this).accept(this, headers, data);
    this.finish();
  }

  /** @internal The response is complete. A body that was not read to its end will never be. */
  finish(): void {
    this.state = exchangeState.over;
    this.stream = null;
    if (this.request.incoming !== null) this.request.abort(responseComplete, false);
    if (this.listed) hostOf(this).forget(this);
  }

  /** @internal The core has ended it. `reason`: what reads of the body, and `request.signal`, are told. */
  abandon(reason: DOMException = abortReason()): void {
    const { stream } = this;
    this.state = exchangeState.over;
    this.stream = null;
    if (this.listed) hostOf(this).forget(this);
    this.request.abort(reason, true);
    stream?.cancel(reason);
  }

  [inspection](): object {
    return shown(this, View, { listener: this.listener, ...(this.id === '' ? {} : { requestId: this.id }) });
  }
}

/** The frontend that an exchange belongs to. */
export function hostOf(exchange: Exchange): ExchangeHost {
  return behind(exchange.host);
}
