/**
 * The admin listener: health and metrics, from the supervisor, so that they answer while workers do not; publishing and reloading, for
 * whoever has the token.
 * Role: turns the state of the node into HTTP. Up: operators, orchestrators, Prometheus. Down: supervisor.ts, metrics.ts.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import { lstatSync, unlinkSync } from 'node:fs';
import { type Context, Hono, type MiddlewareHandler } from 'hono';
import { bodyLimit } from 'hono/body-limit';
import type { Registry } from 'prom-client';
import type { AdminSettings } from '../config/resolve.ts';
import type { Log } from '../log.ts';
import { errorCode, listenProblem } from '../operating-error.ts';
import { describeAdmin } from './admin-openapi.ts';
import { addPublishRoutes, type Publish } from './admin-publish.ts';
import { type AdminPlace, type KeptToken, keepToken } from './admin-token.ts';
import type { NodeHealth } from './health.ts';
import { hostText } from './listeners.ts';

/** What the admin listener shows. */
export interface AdminView {
  health(): NodeHealth;
  /** Undefined when ready, else why not. */
  notReady(): string | undefined;
  readonly metrics: Registry;
  readonly publish: Publish;
  /** undefined: what runs here cannot be reloaded. */
  readonly reload: (() => Promise<ReloadAnswer>) | undefined;
}

/** What became of a reload. */
export type ReloadAnswer =
  | { readonly kind: 'reloaded'; readonly generation: number }
  | { readonly kind: 'wrong config'; readonly mistakes: readonly string[] }
  | { readonly kind: 'failed'; readonly reason: string };

const readPaths = ['/healthz', '/readyz', '/metrics', '/openapi.json'];
const writePaths = ['/publish', '/publish/*', '/reload'];

/** Bytes of one request. */
const bodyBytesMax = 8 * 1024 * 1024;

/** `token`: what requests that change something must show; undefined: nobody can. */
export function adminApp(view: AdminView, token: string | undefined): Hono {
  const app = new Hono();
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

  for (const path of writePaths) app.post(path, requireToken(token), bodyLimit({ maxSize: bodyBytesMax, onError: tooLarge }));
  addPublishRoutes(app, view.publish);
  app.post('/reload', async (context) => {
    const answer = await view.reload?.();
    if (answer === undefined) return context.json({ error: 'there is no config here to be loaded again' }, 404);
    if (answer.kind === 'reloaded') return context.json({ generation: answer.generation });
    if (answer.kind === 'failed') return context.json({ error: answer.reason }, 409);
    return context.json({ error: 'the config is wrong; the old one serves on', mistakes: answer.mistakes }, 422);
  });
  for (const path of writePaths) app.all(path, (context) => context.json({ error: 'method not allowed' }, 405, { allow: 'POST' }));

  app.notFound((context) => context.json({ error: 'not found', paths: [...readPaths, '/publish', '/publish/<topic>', '/reload'] }, 404));
  return app;
}

function tooLarge(context: Context): Response {
  return context.json({ error: `the body is larger than ${bodyBytesMax} bytes; send several requests` }, 413);
}

function requireToken(token: string | undefined): MiddlewareHandler {
  const wanted = token === undefined ? undefined : digest(`Bearer ${token}`);
  return async (context, next) => {
    if (wanted === undefined)
      return context.json({ error: 'this gateway has no token; set admin.token in its config, or ADMIN_TOKEN, and start it again' }, 403);
    const shown = context.req.header('authorization') ?? '';
    // Digests are of equal length, so that the comparison tells nothing about the token.
    if (timingSafeEqual(digest(shown), wanted)) return next();
    const what = shown === '' ? 'no token was sent' : 'the token is wrong';
    return context.json({ error: `${what}; send Authorization: Bearer <admin.token>` }, 401, { 'www-authenticate': 'Bearer' });
  };
}

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}

export interface AdminServer {
  /** For people, such as 'http://127.0.0.1:9100'. */
  readonly label: string;
  stop(): void;
}

/** Serve the admin app. Throws OperatingError when the address cannot be had. */
export async function serveAdmin(view: AdminView, address: AdminSettings, log: Log): Promise<AdminServer> {
  // Made when the address is known, which names the file of a token that we make.
  let app: Hono | undefined;
  const common = {
    fetch: (request: Request) => app?.fetch(request) ?? new Response(null, { status: 503 }),
    development: false,
    // A little more than ours, whose answer says more.
    maxRequestBodySize: bodyBytesMax + 65536,
  };
  const serveFrom = (place: AdminPlace): (() => void) => {
    const kept = address.token === undefined ? tryKeepToken(place, log) : undefined;
    app = adminApp(view, address.token ?? kept?.token);
    return () => kept?.remove();
  };
  if (address.kind === 'unix') {
    await removeStaleSocket(address.path);
    const server = attempt(() => Bun.serve({ ...common, unix: address.path }), `the Unix socket ${address.path}`);
    const forgetToken = serveFrom({ path: address.path });
    return {
      label: `unix:${address.path}`,
      stop() {
        void server.stop(true);
        forgetToken();
        removeFile(address.path);
      },
    };
  }
  const host = address.host.includes(':') ? `[${address.host}]` : address.host;
  // Bun's default lets two processes share a port in silence; half of the scrapes would reach the wrong gateway.
  const server = attempt(
    () => Bun.serve({ ...common, hostname: address.host, port: address.port, idleTimeout: 30, reusePort: false }),
    `${host}:${address.port}, for the admin listener`,
  );
  const forgetToken = serveFrom({ port: server.port ?? address.port });
  return {
    label: `http://${hostText(address.host)}:${server.port}`,
    stop() {
      void server.stop(true);
      forgetToken();
    },
  };
}

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

function attempt<Server>(serve: () => Server, address: string): Server {
  try {
    return serve();
  } catch (error) {
    throw listenProblem(error, address, 'admin (or env ADMIN_PORT)');
  }
}

/** A socket file that nobody listens on is left over from a gateway that was killed. */
async function removeStaleSocket(path: string): Promise<void> {
  try {
    if (!lstatSync(path).isSocket()) return;
    const socket = await Bun.connect({ unix: path, socket: { data() {} } });
    socket.end();
  } catch (error) {
    if (errorCode(error) === 'ECONNREFUSED') removeFile(path);
  }
}

function removeFile(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    if (errorCode(error) !== 'ENOENT') throw error;
  }
}
