/**
 * The admin listener: health and metrics, from the supervisor, so that they answer while workers do not; publishing and reloading, for
 * whoever has the token.
 * Role: where it listens, and who may ask. Up: operators, orchestrators, Prometheus. Down: admin-app.ts, which answers, admin-http.ts.
 */
import { unlinkSync } from 'node:fs';
import type { Registry } from 'prom-client';
import type { AdminSettings } from '../config/resolve.ts';
import { listenFlag } from '../core/abi.ts';
import { native } from '../core/native.ts';
import type { Log } from '../log.ts';
import { listenProblem } from '../operating-error.ts';
import type { Perform } from './admin-answers.ts';
import { serveHttp } from './admin-http.ts';
import { type AdminPlace, type KeptToken, keepToken } from './admin-token.ts';
import type { NodeHealth } from './health.ts';
import { hostText } from './listeners.ts';
import { applySocketFileMode, bindPrivately, socketFileMode } from './socket-file.ts';

/** What the admin listener shows. */
export interface AdminView {
  health(): NodeHealth;
  /** Undefined when ready, else why not. */
  notReady(): string | undefined;
  /** Made at the first call. */
  metrics(): Promise<Registry>;
  /** undefined: what runs here takes no messages from outside, and tells of no topics. */
  readonly perform: Perform | undefined;
  /** undefined: what runs here cannot be reloaded. */
  readonly reload: (() => Promise<ReloadAnswer>) | undefined;
}

/** What became of a reload. */
export type ReloadAnswer =
  | { readonly kind: 'reloaded'; readonly generation: number }
  | { readonly kind: 'wrong config'; readonly mistakes: readonly string[] }
  | { readonly kind: 'failed'; readonly reason: string };

type AdminApp = ReturnType<typeof import('./admin-app.ts').adminApp>;

export interface AdminServer {
  /** For people, such as 'http://127.0.0.1:9100'. */
  readonly label: string;
  /** From now on. undefined: one is made. */
  setToken(token: string | undefined): void;
  /** Load all that answers need, with the code that this supervisor was started from: what lies on the disk may be another release later. */
  prepare(): Promise<void>;
  stop(): void;
}

/** Serve the admin app. Throws OperatingError when the address cannot be had. */
export async function serveAdmin(view: AdminView, address: AdminSettings, log: Log): Promise<AdminServer> {
  // Made when it is asked for the first time, or the node has nothing more urgent to do: it is half of what a supervisor has to load.
  let app: (() => Promise<AdminApp>) | undefined;
  const isLoopback = address.kind === 'tcp' && isLoopbackAddress(address.host);
  const onDefect = (error: unknown) => log.error({ err: error }, 'the admin listener has failed to answer a request');
  const fetch = async (request: Request) => {
    if (isLoopback && !isLocalName(request)) return misdirected();
    return app === undefined ? new Response(null, { status: 503 }) : (await app()).fetch(request);
  };
  let end = () => {};
  const begin = (place: AdminPlace, token: string | undefined) => {
    const needsToken = token === undefined && (view.perform !== undefined || view.reload !== undefined);
    const kept = needsToken ? tryKeepToken(place, log) : undefined;
    const timer = setInterval(() => kept?.refresh(), refreshMs);
    timer.unref();
    const shown = token ?? kept?.token;
    let made: Promise<AdminApp> | undefined;
    app = () => {
      made ??= import('./admin-app.ts').then(({ adminApp }) => adminApp(view, shown, onDefect));
      return made;
    };
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
      async prepare() {
        await Promise.all([app?.(), view.metrics()]);
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
