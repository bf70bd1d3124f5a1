/**
 * An app: routes, listeners, topics.
 *
 * Role: what `App()` and `SSLApp()` give. Down: connections.ts (requests), listen.ts, tls.ts, topics.ts, runtime.ts.
 */
import { threadId } from 'node:worker_threads';
import { eventFlag } from '../../core/abi.ts';
import { withHandle } from '../../core/handles.ts';
import { TlsError } from '../../core/native.ts';
import { outputTo } from '../../output.ts';
import { AppListeners } from './app-listeners.ts';
import { behaviorOf, handlersOf } from './behavior.ts';
import { AppConnections, type Filter, type Handler, type HttpRoute, type HttpRouter } from './connections.ts';
import { declarativeHandler } from './declarative-response.ts';
import { type ListenRequest, openTcp, openUnix, readListenArguments } from './listen.ts';
import { runtime } from './process.ts';
import type { HttpRequest } from './request.ts';
import type { HttpResponse } from './response.ts';
import { cutOff } from './response-state.ts';
import { parameterNamesOf, Router } from './router.ts';
import type { Runtime } from './runtime.ts';
import { hasBrokenCompression } from './safari.ts';
import { callbackOf, textOfArgument, textOrBytes } from './strings.ts';
import { Certificates, readTlsOptions } from './tls.ts';
import { AppTopics } from './topics.ts';
import { checkedPublish, closeSocket, countTopics, type SocketRoute } from './websocket.ts';

type Text = string | ArrayBuffer | SharedArrayBuffer | ArrayBufferView;
const notFoundPage = '<html><body><h1>File Not Found</h1><hr><i>uWebSockets/20 Server</i></body></html>';

/** Descriptors of different threads differ. */
const descriptorsPerThread = 2 ** 20;
/** Apps of this thread by descriptor. */
const described = new Map<number, HttpApp>();

export class HttpApp {
  readonly #runtime: Runtime;
  readonly #topics: AppTopics;
  readonly #number: number;
  readonly #connections: AppConnections;
  /** Where routes are added: the app's own router, or that of a server name. */
  #current: HttpRouter;
  /** undefined: plain. */
  readonly #certificates: Certificates | undefined;
  readonly #listeners: AppListeners;
  #hasSockets = false;

  /** err: Error when certificates are given that cannot be used */
  constructor(options: unknown, isTls: boolean) {
    const files = readTlsOptions(options);
    this.#runtime = runtime();
    this.#number = this.#runtime.addApp();
    this.#connections = new AppConnections(this.#runtime);
    this.#current = this.#connections.router;
    this.#topics = new AppTopics(this.#runtime.core, this.#number, this.#runtime.workerCount);
    this.#certificates = isTls ? new Certificates(this.#runtime.core, files) : undefined;
    this.#listeners = new AppListeners(this.#runtime, this.#connections, this.#certificates);
    if (isTls) {
      // Without any it can be made, but not listen.
      if (files.certFile !== undefined || files.keyFile !== undefined) this.#listeners.prepare();
      this.#runtime.reloads.add(() => this.#reloadCertificates());
    }
    this.any('/*', (response: HttpResponse) => response.writeStatus('404 File Not Found').end(notFoundPage));
  }

  // ---------------------------------------------------------------- routes

  get(pattern: Text, handler: unknown): this {
    return this.#route('GET', pattern, handler);
  }

  post(pattern: Text, handler: unknown): this {
    return this.#route('POST', pattern, handler);
  }

  options(pattern: Text, handler: unknown): this {
    return this.#route('OPTIONS', pattern, handler);
  }

  del(pattern: Text, handler: unknown): this {
    return this.#route('DELETE', pattern, handler);
  }

  patch(pattern: Text, handler: unknown): this {
    return this.#route('PATCH', pattern, handler);
  }

  put(pattern: Text, handler: unknown): this {
    return this.#route('PUT', pattern, handler);
  }

  head(pattern: Text, handler: unknown): this {
    return this.#route('HEAD', pattern, handler);
  }

  connect(pattern: Text, handler: unknown): this {
    return this.#route('CONNECT', pattern, handler);
  }

  trace(pattern: Text, handler: unknown): this {
    return this.#route('TRACE', pattern, handler);
  }

  any(pattern: Text, handler: unknown): this {
    return this.#route('*', pattern, handler);
  }

  #route(method: string, pattern: Text, handler: unknown): this {
    const path = textOfArgument(pattern);
    if (handler === null) {
      this.#current.remove(method, path);
      return this;
    }
    const handle = handler instanceof ArrayBuffer ? declarativeHandler(handler) : callbackOf(handler as Handler);
    this.#current.add(method, path, { parameterNames: parameterNamesOf(path), handle });
    return this;
  }

  ws(...values: readonly unknown[]): this {
    if (values.length < 2) throw new Error('Function requires at least 2 arguments.');
    const pattern = textOfArgument(values[0]);
    const settings = (values[1] ?? {}) as Readonly<Record<string, unknown>>;
    const handlers = handlersOf(settings);
    const behavior = behaviorOf(settings, handlers);
    const route = withHandle<SocketRoute>({
      core: this.#runtime.core,
      context: Object.freeze({}),
      index: this.#runtime.addBehavior(behavior),
      pattern,
      handlers,
      topics: this.#topics,
      maxBackpressureBytes: behavior.maxBackpressureBytes,
      closesOnBackpressure: behavior.closeOnBackpressure,
      compresses: behavior.deflate !== 0,
      host: this.#runtime,
    });
    this.#runtime.addRoute(route);
    if (handlers.subscription !== undefined) this.#countSubscribers();
    this.#hasSockets = true;
    const handle: HttpRoute['handle'] = (response, request, flags) => this.#upgrade(route, response, request, flags);
    this.#current.add('GET', pattern, { parameterNames: parameterNamesOf(pattern), handle }, true);
    return this;
  }

  /** From now on; also those that sockets have subscribed to before the route was added. */
  #countSubscribers(): void {
    if (this.#topics.isCounting) return;
    this.#topics.count();
    for (const socket of this.#runtime.socketsOf(this.#topics)) countTopics(socket);
  }

  /** A request for the path of a WebSocket route: a handshake, or none of its business. */
  #upgrade(route: SocketRoute, response: HttpResponse, request: HttpRequest, flags: number): unknown {
    if (!(flags & eventFlag.requestUpgrade)) return request.setYield(true);
    if (route.compresses && hasBrokenCompression(request.getHeader('user-agent'))) this.#runtime.acceptUncompressed(response);
    const { upgrade } = route.handlers;
    if (upgrade !== undefined) return upgrade(response, request, route.context);
    const field = (name: string) => request.getHeader(`sec-websocket-${name}`);
    return response.upgrade({}, field('key'), field('protocol'), field('extensions'), route.context);
  }

  // ---------------------------------------------------------------- topics

  publish(...call: readonly [topic: Text, message: Text, isBinary?: boolean, compress?: boolean]): boolean {
    const [topic, message, isBinary, compress] = checkedPublish(call);
    return this.#hasSockets && this.#topics.publish(topic, message, isBinary, compress);
  }

  numSubscribers(...values: readonly [topic: Text]): number {
    if (values.length < 1) throw new Error('Function requires at least 1 arguments.');
    const topic = textOrBytes(values[0]);
    return this.#hasSockets ? this.#topics.subscribers(topic) : 0;
  }

  // ---------------------------------------------------------------- listening

  listen(...values: readonly unknown[]): this {
    const request = readListenArguments(values);
    const opened = openTcp(this.#runtime, request);
    request.callback(opened === undefined ? false : this.#listeners.open(opened.fd, opened.port));
    return this;
  }

  listen_unix(...values: readonly unknown[]): this {
    if (values.length < 2) throw new Error('Function requires at least 2 arguments.');
    const path = textOfArgument(values[values.length - 1]);
    const fd = openUnix(path);
    (values[0] as ListenRequest['callback'])(fd === undefined ? false : this.#listeners.open(fd, -1));
    return this;
  }

  filter(filter: Filter): this {
    this.#connections.filters.push(callbackOf(filter));
    this.#runtime.tracksUpgrades = true;
    this.#listeners.update();
    return this;
  }

  /** Ends all connections and listeners. */
  close(): this {
    this.#listeners.close();
    // Handlers that are told of one may close others.
    for (const response of this.#runtime.responsesOf(this.#connections)) cutOff(response);
    for (const socket of this.#runtime.socketsOf(this.#topics)) closeSocket(socket);
    this.#runtime.terminate(this.#connections);
    return this;
  }

  // ---------------------------------------------------------------- server names

  addServerName(hostname: Text, options?: unknown): this {
    const name = textOfArgument(hostname);
    const certificates = this.#certificates;
    // A name that is known keeps what it has, until it is removed.
    if (certificates === undefined || certificates.contextOf(name) !== undefined) return this;
    try {
      this.#connections.domains[certificates.add(name, options, this.#listeners.indexes())] = new Router();
    } catch (error) {
      if (!(error instanceof TlsError)) throw error;
      outputTo(2).write(`addServerName('${name}'): ${error.message}\n`);
    }
    return this;
  }

  removeServerName(hostname: Text): this {
    const name = textOfArgument(hostname);
    const context = this.#certificates?.contextOf(name);
    if (context === undefined) return this;
    const { domains, router } = this.#connections;
    if (this.#current === domains[context]) this.#current = router;
    domains[context] = undefined;
    this.#certificates?.remove(name, this.#listeners.indexes());
    return this;
  }

  missingServerName(handler: (name: string) => unknown): this {
    this.#connections.missingServerName = callbackOf(handler);
    this.#listeners.update();
    return this;
  }

  /** Routes added from here on are those of this server name; of the app itself when there is no such name. */
  domain(...values: readonly [serverName: Text]): this {
    if (values.length < 1) throw new Error('Function requires at least 1 arguments.');
    const name = textOfArgument(values[0]);
    const context = this.#certificates?.contextOf(name);
    const { domains, router } = this.#connections;
    this.#current = (context === undefined ? undefined : domains[context]) ?? router;
    return this;
  }

  /** Read the certificates again; connections that stand keep what they have. */
  #reloadCertificates(): void {
    try {
      // Before any listener has been given one: all of them change, or none.
      this.#certificates?.try();
      for (const index of this.#listeners.indexes()) this.#certificates?.apply(index);
    } catch (error) {
      this.#runtime.report(error, 'reading the certificates of an SSLApp again');
    }
  }

  // ---------------------------------------------------------------- child apps

  /** Names this app to another one of its thread, see `addChildAppDescriptor`. */
  getDescriptor(): number {
    const descriptor = threadId * descriptorsPerThread + this.#number + 1;
    described.set(descriptor, this);
    return descriptor;
  }

  /** Connections are handed to child apps in turn. */
  addChildAppDescriptor(descriptor: unknown): this {
    this.#connections.addChild(appOf(descriptor).#connections);
    this.#listeners.update();
    return this;
  }

  removeChildAppDescriptor(descriptor: unknown): this {
    this.#connections.removeChild(appOf(descriptor).#connections);
    this.#listeners.update();
    return this;
  }
}

// As it calls itself where the original runs; programs print it.
Object.defineProperty(HttpApp, 'name', { value: 'uWS.App' });

function appOf(descriptor: unknown): HttpApp {
  const app = described.get(descriptor as number);
  if (app !== undefined) return app;
  // A connection cannot change its core, and each thread has one.
  throw new Error(
    'no app of this thread has this descriptor. Apps of other threads cannot be children: start one process for each CPU with `ringway run`',
  );
}
