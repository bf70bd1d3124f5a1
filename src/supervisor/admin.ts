/**
 * The admin listener: health and metrics, from the supervisor, so that they answer while workers do not; publishing and reloading, for
 * whoever has the token.
 * Role: turns the state of the node into HTTP. Up: operators, orchestrators, Prometheus. Down: supervisor.ts, metrics.ts, admin-http.ts.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import { unlinkSync } from 'node:fs';
import { type Context, Hono, type MiddlewareHandler } from 'hono';
import type { Registry } from 'prom-client';
import type { AdminSettings } from '../config/resolve.ts';
import { listenFlag } from '../core/abi.ts';
import { native } from '../core/native.ts';
import type { Log } from '../log.ts';
import { listenProblem } from '../operating-error.ts';
import { type AdminEnv, readBody } from './admin-body.ts';
import { serveHttp } from './admin-http.ts';
import { describeAdmin } from './admin-openapi.ts';
import { addPublishRoutes, type Publish } from './admin-publish.ts';
import { type AdminPlace, type KeptToken, keepToken } from './admin-token.ts';
import type { NodeHealth } from './health.ts';
import { hostText } from './listeners.ts';
import { applySocketFileMode, bindPrivately, socketFileMode } from './socket-file.ts';

/** What the admin listener shows. */
export interface AdminView {
  health(): NodeHealth;
  /** Undefined when ready, else why not. */
  notReady(): string | undefined;
  readonly metrics: Registry;
  /** undefined: what runs here takes no messages from outside. */
  readonly publish: Publish | undefined;
  /** undefined: what runs here cannot be reloaded. */
  readonly reload: (() => Promise<ReloadAnswer>) | undefined;
}

/** What became of a reload. */
export type ReloadAnswer =
  | { readonly kind: 'reloaded'; readonly generation: number }
  | { readonly kind: 'wrong config'; readonly mistakes: readonly string[] }
  | { readonly kind: 'failed'; readonly reason: string };

const readPaths = ['/healthz', '/readyz', '/metrics', '/openapi.json'];
const writePaths = ['/publish/*', '/reload'];

/**
 * `token`: what requests that change something must show; undefined: nobody can. `onDefect`: told of what went wrong without being anybody's
 * mistake but ours.
 */
export function adminApp(view: AdminView, token: string | undefined, onDefect: (error: unknown) => void): Hono<AdminEnv> {
  const app = new Hono<AdminEnv>();
  // Alive is all that this says: degraded is for people and alerts, a restart by the orchestrator would cut healthy workers.
  app.get('/healthz', (context) => context.json(view.health()));
  app.get('/readyz', (context) => {
    const reason = view.notReady();
    if (reason !== undefined) return context.json({ status: 'not ready', reason }, 503);
    const { redis } = view.health();
    return context.json({ status: 'ready', ...(redis === undefined ? {} : { redis: redis.state }) });
  });
  app.get('/metrics', async (context) => context.body(await view.metrics.metrics(), 200, { 'content-type': view.metrics.contentType }));
  app.get('/openapi.json', (context) => context.json(describeAdmin(view.health().version)));
  for (const path of readPaths) app.all(path, (context) => context.json({ error: 'method not allowed' }, 405, { allow: 'GET, HEAD' }));

  const { publish, reload } = view;
  // Before the token: programs have none.
  const absent = (error: string) => (context: Context) => context.json({ error }, 404);
  if (publish === undefined) app.post('/publish/*', absent('what runs here takes no messages from outside: it is a program'));
  if (reload === undefined) app.post('/reload', absent('there is no config here to be loaded again'));
  for (const path of writePaths) app.post(path, requireToken(token));
  if (publish !== undefined) {
    app.post('/publish/*', readBody());
    addPublishRoutes(app, publish);
  }
  if (reload !== undefined) addReloadRoute(app, reload);
  for (const path of writePaths) app.all(path, (context) => context.json({ error: 'method not allowed' }, 405, { allow: 'POST' }));

  app.notFound((context) => context.json({ error: 'not found', paths: [...readPaths, '/publish', '/publish/<topic>', '/reload'] }, 404));
  app.onError((error, context) => {
    // Nobody reads the answer to a client that has left in the middle of its request.
    if (!context.req.raw.signal.aborted) onDefect(error);
    return context.json({ error: 'the gateway has failed to answer; its log says why' }, 500);
  });
  return app;
}

function addReloadRoute(app: Hono<AdminEnv>, reload: () => Promise<ReloadAnswer>): void {
  app.post('/reload', async (context) => {
    const answer = await reload();
    if (answer.kind === 'reloaded') return context.json({ generation: answer.generation });
    if (answer.kind === 'failed') return context.json({ error: answer.reason }, 409);
    return context.json({ error: 'the config is wrong; the old one serves on', mistakes: answer.mistakes }, 422);
  });
}

function requireToken(token: string | undefined): MiddlewareHandler {
  const wanted = token === undefined ? undefined : digest(token);
  return async (context, next) => {
    if (wanted === undefined)
      return context.json({ error: 'this gateway has no token; set admin.token in its config, or ADMIN_TOKEN, and start it again' }, 403);
    const header = context.req.header('authorization') ?? '';
    // RFC 9110 §11.1: the name of a scheme is written in any case.
    const shown = /^bearer +(\S+)$/i.exec(header)?.[1];
    // Digests are of equal length, so that the comparison tells nothing about the token.
    if (shown !== undefined && timingSafeEqual(digest(shown), wanted)) return next();
    const what = header === '' ? 'no token was sent' : 'the token is wrong';
    return context.json({ error: `${what}; send Authorization: Bearer <admin.token>` }, 401, { 'www-authenticate': 'Bearer' });
  };
}

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}

export interface AdminServer {
  /** For people, such as 'http://127.0.0.1:9100'. */
  readonly label: string;
  /** From now on. undefined: one is made. */
  setToken(token: string | undefined): void;
  stop(): void;
}

/** Serve the admin app. Throws OperatingError when the address cannot be had. */
export async function serveAdmin(view: AdminView, address: AdminSettings, log: Log): Promise<AdminServer> {
  // Made when the address is known, which names the file of a token that we make.
  let app: Hono<AdminEnv> | undefined;
  const isLoopback = address.kind === 'tcp' && isLoopbackAddress(address.host);
  const onDefect = (error: unknown) => log.error({ err: error }, 'the admin listener has failed to answer a request');
  const fetch = (request: Request) => {
    if (isLoopback && !isLocalName(request)) return misdirected();
    return app?.fetch(request) ?? new Response(null, { status: 503 });
  };
  let end = () => {};
  const begin = (place: AdminPlace, token: string | undefined) => {
    const needsToken = token === undefined && (view.publish !== undefined || view.reload !== undefined);
    const kept = needsToken ? tryKeepToken(place, log) : undefined;
    const timer = setInterval(() => kept?.refresh(), refreshMs);
    timer.unref();
    app = adminApp(view, token ?? kept?.token, onDefect);
    end = () => {
      clearInterval(timer);
      kept?.remove();
    };
  };
  const servedAt = (place: AdminPlace, label: string, stop: () => void): AdminServer => {
    begin(place, address.token);
    return {
      label,
      setToken(token) {
        end();
        begin(place, token);
      },
      stop() {
        // Before the address is free for another gateway, which puts its own token there.
        end();
        stop();
      },
    };
  };
  if (address.kind === 'unix') {
    const fileMode = socketFileMode(address, 'admin');
    const listen = () => native.listenSocket(address.path, undefined, backlog, 0);
    const fd = attempt(fileMode === undefined ? listen : () => bindPrivately(listen), `the Unix socket ${address.path}`, address.path);
    try {
      if (fileMode !== undefined) applySocketFileMode(address.path, fileMode, 'admin');
    } catch (error) {
      native.listenClose(fd);
      removeFile(address.path);
      throw error;
    }
    const server = serveHttp(fd, fetch, onDefect);
    return servedAt({ path: address.path }, `unix:${address.path}`, () => {
      server.stop();
      removeFile(address.path);
    });
  }
  const host = address.host.includes(':') ? `[${address.host}]` : address.host;
  // Exclusive: were two processes to share the port in silence, half of the scrapes would reach the wrong gateway.
  const fd = attempt(
    () => native.listenSocket(address.host, address.port, backlog, listenFlag.exclusive),
    `${host}:${address.port}, for the admin listener`,
  );
  const port = native.socketPort(fd);
  const server = serveHttp(fd, fetch, onDefect);
  return servedAt({ host: address.host, port }, `http://${hostText(address.host)}:${port}`, () => server.stop());
}

/** Connections that may wait to be accepted. */
const backlog = 128;

function isLoopbackAddress(host: string): boolean {
  return host.startsWith('127.') || host === '::1';
}

/**
 * Whether a request to a loopback address was meant for one. A page in a browser of this machine can have its own name resolve to 127.0.0.1, and
 * read what is answered there as if it were its own (DNS rebinding). Clients that send no Host, as with HTTP/1.0, are no browsers.
 */
function isLocalName(request: Request): boolean {
  const host = request.headers.get('host') ?? '';
  if (host === '') return true;
  const name = host.replace(/:\d*$/, '').toLowerCase();
  return /^(?:.+\.)?localhost\.?$/.test(name) || /^\d+\.\d+\.\d+\.\d+$/.test(name) || /^\[[\da-f:.]+\]$/.test(name);
}

/** RFC 9110 §15.5.20 */
function misdirected(): Response {
  const error =
    'this address answers requests for localhost and for addresses; send such a Host, or set admin.host to where others may connect';
  return Response.json({ error }, { status: 421 });
}

/** More often than any cleaner of temporary files takes something away. */
const refreshMs = 6 * 3600 * 1000;

function tryKeepToken(place: AdminPlace, log: Log): KeptToken | undefined {
  try {
    return keepToken(place);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    log.warn(
      `no token for the admin listener can be kept (${reason}): 'ringway publish' is refused until admin.token or ADMIN_TOKEN is set`,
    );
    return undefined;
  }
}

function attempt<Server>(serve: () => Server, address: string, path?: string): Server {
  try {
    return serve();
  } catch (error) {
    throw listenProblem(error, address, 'admin (or env ADMIN_PORT)', path);
  }
}

/** One that cannot be removed is in the way of the next gateway, which says so; it must not keep this one from stopping. */
function removeFile(path: string): void {
  try {
    unlinkSync(path);
  } catch {
    // Gone already, or not ours.
  }
}
