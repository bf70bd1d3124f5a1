/**
 * Hono's `upgradeWebSocket` for Ringway: one WebSocketHandler for all of Hono's sockets, which finds the events of a
 * connection in its `socket.data`.
 *
 * Role: between Hono's WSEvents and our Socket. Upstream: routes; downstream: `Exchange.accept`, and then the events of the socket.
 */
import type { Context, MiddlewareHandler, Next } from 'hono';
import { defineWebSocketHelper, type UpgradeWebSocket, WSContext, type WSEvents, type WSReadyState } from 'hono/ws';
import { SocketArgumentError } from '../../api/message.ts';
import type { Message, Socket, WebSocketHandler, WebSocketOptions } from '../../api/websocket.ts';
import type { Authentication } from '../../auth/authentication.ts';
import { type RouteAuthSettings, routeAuthOf } from '../../config/auth.ts';
import { pathText } from '../../config/mistakes.ts';
import { judgeWebSocketOptions, kindOf, type WebSocketSettings, websocketDefaults } from '../../config/websocket-options.ts';
import { encodeHeaders } from '../http/header-block.ts';
import { tokenProtocol } from '../sockets/handshake.ts';
import { Exchange, hostOf } from './exchange.ts';
import { admitHandshake, unauthorized } from './identity.ts';

/** What the WebSockets of a route may be told, as those of a config's `websocket`. */
export interface UpgradeOptions extends WebSocketOptions {
  /** As `protocols`, or one alone: the name that Hono has for it. @default none */
  protocol?: string | readonly string[];
}

/** `socket.data` of a socket of Hono's. */
export interface HonoSocketData {
  // biome-ignore lint/suspicious/noExplicitAny: each route has its own type of raw socket
  events: WSEvents<any>;
  url?: string | URL;
  /** The subprotocol that was agreed on; '' or undefined: none. */
  protocol?: string;
  /** @internal What the route was given; undefined: nothing. */
  settings?: WebSocketSettings | undefined;
  /** @internal One for all events of the connection. */
  context?: WSContext<HonoSocket>;
  /** @internal */
  readyState?: WSReadyState;
}

/** What `ws.raw` is. */
export type HonoSocket = Socket<HonoSocketData>;

const helper = defineWebSocketHelper<HonoSocket, WebSocketSettings>((c, events, settings) => {
  const exchange = c.env as Partial<Exchange> | undefined;
  if (typeof exchange?.accept !== 'function') {
    throw new TypeError('upgradeWebSocket() needs the env that Ringway passes to fetch() as its second argument');
  }
  if (!exchange.upgradable) return;
  const { authentication } = hostOf(exchange as Exchange);
  const protocol =
    agree(c.req.header('sec-websocket-protocol'), settings?.protocols) ||
    tokenProtocol((exchange as Exchange).head, asksOf(settings, authentication), authentication);
  const headers = protocol === '' ? '' : encodeHeaders({ 'Sec-WebSocket-Protocol': protocol }).text;
  exchange.accept(headers, { events, url: c.req.url, protocol, settings });
  // Middleware may change this as it likes: the exchange is over, so it is not sent.
  return new Response(null);
});

/**
 * Accept a WebSocket in a route: `app.get('/ws', upgradeWebSocket((c) => ({ onMessage(event, ws) { ... } })))`.
 * A request that is no WebSocket handshake goes on to the next handler. Throws SocketArgumentError for options that are none.
 */
export const upgradeWebSocket: UpgradeWebSocket<HonoSocket, UpgradeOptions> = (...args: unknown[]) => {
  // Both forms end with the options: (createEvents, options) and (c, events, options).
  const at = typeof args[0] === 'function' ? 1 : 2;
  const settings = settingsOf(args[at]);
  const upgrade = () => (helper as (...args: unknown[]) => unknown)(...args.slice(0, at), settings);
  if (at === 2) return afterToken(args[0] as Context, settings, upgrade as () => Promise<Response>) as never;
  const middleware = upgrade() as MiddlewareHandler;
  return ((c: Context, next: Next) => afterToken(c, settings, () => middleware(c, next))) as never;
};

function asksOf(settings: WebSocketSettings | undefined, authentication: Authentication | undefined): RouteAuthSettings {
  return authentication === undefined ? false : routeAuthOf((settings ?? websocketDefaults).auth, authentication.settings);
}

/** Go on once it is known whose handshake it is, where the route asks; else answer with a refusal. */
async function afterToken<Result>(
  c: Context,
  settings: WebSocketSettings | undefined,
  go: () => Promise<Result>,
): Promise<Result | Response> {
  const exchange: unknown = c.env;
  const { authentication } = exchange instanceof Exchange && exchange.upgradable ? hostOf(exchange) : {};
  const asks = asksOf(settings, authentication);
  if (authentication === undefined || asks === false) return go();
  const refused = await admitHandshake(exchange as Exchange, asks, authentication);
  return refused === undefined ? go() : unauthorized(authentication, refused);
}

/** The core numbers kinds of WebSockets in 8 bits, and one number is that of routes without options. */
const kindsMost = 255;
const kinds = new Set<string>();

function settingsOf(options: unknown): WebSocketSettings | undefined {
  if (options === undefined) return undefined;
  const { protocol, ...others } = options as UpgradeOptions;
  const isShort = protocol !== undefined;
  const { settings, mistakes } = judgeWebSocketOptions(
    typeof options === 'object' && isShort ? { ...others, protocols: typeof protocol === 'string' ? [protocol] : protocol } : options,
  );
  const lines = mistakes.map(({ path, message }) => {
    const [name, ...rest] = path;
    return `${pathText(isShort && name === 'protocols' ? ['protocol', ...rest] : path) || 'its argument'} ${message}`;
  });
  if (isShort && others.protocols !== undefined) lines.push('protocol says what protocols says too; remove one of them');
  const kind = kindOf(settings);
  if (!kinds.has(kind) && kinds.size === kindsMost)
    lines.push(`differs from ${kindsMost} other sets of options, and there can be no more; give some routes the same`);
  if (lines.length > 0) throw new SocketArgumentError(`upgradeWebSocket: ${lines.join('; ')}`);
  kinds.add(kind);
  return settings;
}

/** RFC 6455 §4.2.2: only a subprotocol that the client offered may be chosen. ret: '' for none */
function agree(offered: string | undefined, spoken: readonly string[] | undefined): string {
  if (offered === undefined || spoken === undefined) return '';
  const offers = offered.split(',').map((name) => name.trim());
  return spoken.find((name) => offers.includes(name)) ?? '';
}

/** Handles every socket that `upgradeWebSocket` accepted. Its route is made by entry.ts. */
export const honoWebSocketHandler: WebSocketHandler<HonoSocketData> = {
  open(socket) {
    const { onOpen } = socket.data.events;
    if (onOpen) return run(socket, (ws) => onOpen(new Event('open'), ws));
  },

  message(socket, message) {
    const { onMessage } = socket.data.events;
    if (onMessage) return run(socket, (ws) => onMessage(new MessageEvent('message', { data: dataOf(message) }), ws));
  },

  close(socket, code, reason) {
    socket.data.readyState = 3;
    const { onClose } = socket.data.events;
    // RFC 6455 §7.4.1: 1006 says that there was no close frame
    if (onClose) return run(socket, (ws) => onClose(new CloseEvent('close', { code, reason, wasClean: code !== 1006 }), ws));
  },
};

/**
 * Call one of the connection's events. An error goes to its onError; without one it goes up, where it closes the socket with 1011.
 */
function run(socket: HonoSocket, event: (ws: WSContext<HonoSocket>) => unknown): void | Promise<void> {
  const ws = contextOf(socket);
  const { onError } = socket.data.events;
  if (!onError) return event(ws) as void | Promise<void>;
  const failed = (error: unknown): void => onError(Object.assign(new Event('error'), { error }), ws);
  try {
    const result = event(ws);
    if (result instanceof Promise) return result.catch(failed);
  } catch (error) {
    failed(error);
  }
}

function contextOf(socket: HonoSocket): WSContext<HonoSocket> {
  const { data } = socket;
  if (data.context !== undefined) return data.context;
  data.context = new WSContext<HonoSocket>({
    raw: socket,
    url: data.url ?? null,
    protocol: data.protocol || null,
    get readyState() {
      return data.readyState ?? (socket.isOpen ? 1 : 2);
    },
    send(source) {
      socket.send(source);
    },
    close(code, reason) {
      data.readyState ??= 2;
      socket.close(code, reason);
    },
  });
  return data.context;
}

function dataOf(message: Message): string | ArrayBuffer {
  if (!message.isBinary) return message.text();
  const bytes = message.bytes();
  const whole = bytes.byteLength === bytes.buffer.byteLength;
  return (whole ? bytes.buffer : bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength)) as ArrayBuffer;
}
