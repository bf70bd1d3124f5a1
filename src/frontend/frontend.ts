/**
 * What a frontend is: a protocol, or a way to write handlers, that a process serves through its core.
 *
 * Role: the seam between a core and whoever answers. Each folder beside this file has an entry.ts; registry.ts puts entries together, for a worker
 * of a gateway (hono/, websocket/) and for a program (uws/). docs/hacking.md says which files a new one touches.
 */
import type { ResolvedConfig } from '../config/resolve.ts';
import type { ConnectionEvents } from '../core/connection.ts';
import type { BehaviorOptions, Core, WebSocketEvents } from '../core/core.ts';
import type { RecordEvents, RequestEvents, RequestHead } from '../core/http.ts';
import type { statIndex } from '../core/stat-index.ts';
import type { RequestIds } from '../host/request-ids.ts';
import type { SocketHandlers, SocketHost } from './sockets/socket-handlers.ts';
import type { Streams } from './streams/streams.ts';

/** The name of a counter or gauge. */
export type Metric = Parameters<typeof statIndex>[0];

/** What a frontend serves is told by what it has. All of it is called inside a turn, and must not block. */
export interface Frontend {
  /** Requests, WebSocket handshakes among them, one at a time as objects. */
  readonly requests?: RequestTaker;
  /** Or every request of the process, as numbers, by whoever decodes nothing before it is asked. No other frontend can stand beside it. */
  readonly records?: RecordEvents;
  /** What happens to the WebSockets whose handshakes it took. `FrontendHost.sockets` for one that accepts through that. */
  readonly sockets?: WebSocketEvents;
  /** What listeners tell of connections, whatever these speak. */
  readonly connections?: ConnectionEvents;
  /** Whether it would take a handshake for this path: any other request there may be told so (426). */
  speaksAt?(path: string): boolean;
  /** Promises of handlers that have not settled: while there are some, Bun's loop gets its turns. Asked often. */
  readonly pending: number;
  /** Of these, the ones that may outlive their connections: the end of a drain waits for them. */
  readonly outliving?: number;
}

/** Of a request that it took, a frontend is told all that follows; `core` has what it may say. */
export interface RequestTaker extends Partial<RequestEvents> {
  /**
   * Offered to each frontend in turn. `flags` has RW_REQUEST_UPGRADE for a handshake, which the core has checked.
   * ret: whether it is taken: then it is answered, now or later, and the frontends behind do not see it
   */
  takes(head: RequestHead): boolean;
}

/** What a frontend is given. */
export interface FrontendHost extends SocketHost {
  readonly core: Core;
  readonly requestIds: RequestIds;
  /** Runs the handlers of WebSockets, each socket's in order; shared by all who accept through it. */
  readonly sockets: SocketHandlers;
  /** Answers requests with streams of server-sent events of topics. */
  readonly streams: Streams;
  /** Limits and wishes of one kind of WebSockets. ret: its index, for `core.acceptUpgrade`. err: Error when all are taken */
  addBehavior(options: BehaviorOptions): number;
  count(metric: Metric): void;
  /** A handler has failed: counted, and said with what is known of it, `err` if there is one. */
  failed(context: object, sentence: string): void;
  /** Whether any frontend would take a handshake for this path. */
  speaksAt(path: string): boolean;
}

/** `Options`: what it reads of the config. */
export interface FrontendEntry<Options = ResolvedConfig, Made extends Frontend = Frontend> {
  readonly name: string;
  /** What it counts by itself, declared in core/host-counters.ts. */
  readonly metrics: readonly Metric[];
  create(host: FrontendHost, options: Options): Made;
}
