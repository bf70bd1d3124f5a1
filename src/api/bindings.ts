/**
 * What handlers of HTTP find beside the request: Hono's `c.env`, the second argument of a plain `fetch`.
 * Role: the type that handlers see. Implemented by src/frontend/hono/exchange.ts.
 */
import type { WSEvents } from 'hono/ws';
import type { TlsInfo } from '../core/tls-info.ts';
import type { User } from './user.ts';

export interface PeerAddress {
  address: string;
  port: number;
}

/** What `new Headers()` takes as fields. */
export type HeadersSource = ConstructorParameters<typeof Headers>[0];

/** `options` of `RingwayBindings.upgrade`. */
export interface UpgradeRequest {
  // biome-ignore lint/suspicious/noExplicitAny: each route has its own type of raw socket
  data: { events: WSEvents<any>; url?: string | URL; protocol?: string };
  headers?: HeadersSource;
}

/** What handlers find in `c.env`: `new Hono<{ Bindings: RingwayBindings }>()`. */
export interface RingwayBindings {
  /**
   * The client's address, behind trusted proxies as they tell it (port 0 when a header did); undefined when it left, or came over a Unix socket.
   * Behind proxies to be asked before the response is complete: then the next client's request may come on the same connection.
   */
  ip(): PeerAddress | undefined;
  /** The version of TLS, and the server name and certificate that the client has shown; undefined without TLS, or when it left. */
  tls(): TlsInfo | undefined;
  /**
   * Whose token the request has, from where `auth` of the config takes them; undefined: it has none that is believed, or the config has no `auth`.
   * Verified once a request, when it is first asked for. Never rejects.
   */
  user(): Promise<User | undefined>;
  /** Index of the listener that the request came in on. */
  readonly listener: number;
  /** What this request is called in logs: as it came in its `log.requestIdHeader`, or made when first asked for. Sent with the response. */
  readonly requestId: string;
  /**
   * Accept the WebSocket handshake of this request, as Bun's `server.upgrade` does; `data.events` are Hono's WSEvents.
   * ret: false when the request is no valid handshake, or was answered
   */
  upgrade(request: Request, options: UpgradeRequest): boolean;
  /** The client's address in the form of Bun's `server.requestIP`, which code written for Bun.serve asks for. */
  requestIP(request?: Request): { address: string; port: number; family: 'IPv4' | 'IPv6' } | null;
}
