/**
 * Hono's `upgradeWebSocket` for Ringway: one WebSocketHandler for all of Hono's sockets, which finds the events of a
 * connection in its `socket.data`.
 *
 * Role: between Hono's WSEvents and our Socket. Upstream: routes; downstream: `Exchange.accept`, and then the events of the socket.
 */
import { defineWebSocketHelper, WSContext, type WSEvents, type WSReadyState } from 'hono/ws';
import { SocketArgumentError } from '../../api/socket.ts';
import type { Message, Socket, WebSocketHandler } from '../../api/websocket.ts';
import { judgeWebSocketOptions } from '../../config/websocket-options.ts';
import { encodeHeaders } from '../http/header-block.ts';
import type { Exchange } from './exchange.ts';

export interface UpgradeOptions {
  /** Subprotocols that the route speaks, best first: the first that the client offers is taken. */
  protocol?: string | readonly string[];
  /** So many of a socket's onMessage callbacks may be unsettled at a time; they begin in order. @default 1 */
  concurrency?: number;
}

/** `socket.data` of a socket of Hono's. */
export interface HonoSocketData {
  // biome-ignore lint/suspicious/noExplicitAny: each route has its own type of raw socket
  events: WSEvents<any>;
  url?: string | URL;
  /** The subprotocol that was agreed on; '' or undefined: none. */
  protocol?: string;
  /** @internal See UpgradeOptions. */
  concurrency?: number | undefined;
  /** @internal One for all events of the connection. */
  context?: WSContext<HonoSocket>;
  /** @internal */
  readyState?: WSReadyState;
}

/** What `ws.raw` is. */
export type HonoSocket = Socket<HonoSocketData>;

const helper = defineWebSocketHelper<HonoSocket, UpgradeOptions>((c, events, options) => {
  const exchange = c.env as Partial<Exchange> | undefined;
  if (typeof exchange?.accept !== 'function') {
    throw new TypeError('upgradeWebSocket() needs the env that Ringway passes to fetch() as its second argument');
  }
  if (!exchange.upgradable) return;
  const protocol = agree(c.req.header('sec-websocket-protocol'), options?.protocol);
  const headers = protocol === '' ? '' : encodeHeaders({ 'Sec-WebSocket-Protocol': protocol }).text;
  exchange.accept(headers, { events, url: c.req.url, protocol, concurrency: options?.concurrency });
  // Middleware may change this as it likes: the exchange is over, so it is not sent.
  return new Response(null);
});

/**
 * Accept a WebSocket in a route: `app.get('/ws', upgradeWebSocket((c) => ({ onMessage(event, ws) { ... } })))`.
 * A request that is no WebSocket handshake goes on to the next handler.
 */
export const upgradeWebSocket: typeof helper = (...args: unknown[]) => {
  // Both forms end with the options: (createEvents, options) and (c, events, options).
  const options = args[typeof args[0] === 'function' ? 1 : 2] as UpgradeOptions | undefined;
  checkConcurrency(options?.concurrency);
  return (helper as (...args: unknown[]) => never)(...args);
};

function checkConcurrency(concurrency: unknown): void {
  const [mistake] = judgeWebSocketOptions({ concurrency }).mistakes;
  if (mistake !== undefined) throw new SocketArgumentError(`upgradeWebSocket: concurrency ${mistake.message}`);
}

/** RFC 6455 §4.2.2: only a subprotocol that the client offered may be chosen. ret: '' for none */
function agree(offered: string | undefined, spoken: string | readonly string[] | undefined): string {
  if (offered === undefined || spoken === undefined) return '';
  const offers = offered.split(',').map((name) => name.trim());
  const names = typeof spoken === 'string' ? [spoken] : spoken;
  return names.find((name) => offers.includes(name)) ?? '';
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
