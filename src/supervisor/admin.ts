/**
 * The admin listener: /healthz, /readyz and /metrics, from the supervisor, so that they answer while workers do not.
 * Role: turns the state of the node into HTTP. Up: operators, orchestrators, Prometheus. Down: supervisor.ts, metrics.ts.
 */
import { lstatSync, unlinkSync } from 'node:fs';
import { Hono } from 'hono';
import type { Registry } from 'prom-client';
import type { AdminAddress } from '../config/resolve.ts';
import { errorCode, listenProblem } from '../operating-error.ts';
import type { BackendName } from './boot.ts';
import { hostText } from './listeners.ts';
import type { WorkerState } from './worker-process.ts';

export interface WorkerHealth {
  readonly index: number;
  readonly pid: number | null;
  readonly state: WorkerState;
  readonly backend: BackendName | null;
  /** Why it runs on this backend, when that is not the first choice. */
  readonly note?: string;
  readonly restarts: number;
  /** Since it became ready; 0 when it is not. */
  readonly uptimeSeconds: number;
}

/** What the admin listener shows. */
export interface AdminView {
  health(): { status: 'ok' | 'degraded'; workers: readonly WorkerHealth[]; version: string };
  /** Undefined when ready, else why not. */
  notReady(): string | undefined;
  readonly metrics: Registry;
}

const paths = ['/healthz', '/readyz', '/metrics'];

export function adminApp(view: AdminView): Hono {
  const app = new Hono();
  // Alive is all that this says: degraded is for people and alerts, a restart by the orchestrator would cut healthy workers.
  app.get('/healthz', (context) => context.json(view.health()));
  app.get('/readyz', (context) => {
    const reason = view.notReady();
    return reason === undefined ? context.json({ status: 'ready' }) : context.json({ status: 'not ready', reason }, 503);
  });
  app.get('/metrics', async (context) => context.body(await view.metrics.metrics(), 200, { 'content-type': view.metrics.contentType }));
  for (const path of paths) app.all(path, (context) => context.json({ error: 'method not allowed' }, 405, { allow: 'GET, HEAD' }));
  app.notFound((context) => context.json({ error: 'not found', paths }, 404));
  return app;
}

export interface AdminServer {
  /** For people, such as 'http://127.0.0.1:9100'. */
  readonly label: string;
  stop(): void;
}

/** Serve the admin app. Throws OperatingError when the address cannot be had. */
export async function serveAdmin(view: AdminView, address: AdminAddress): Promise<AdminServer> {
  const common = { fetch: adminApp(view).fetch, development: false, maxRequestBodySize: 65536 };
  if (address.kind === 'unix') {
    await removeStaleSocket(address.path);
    const server = attempt(() => Bun.serve({ ...common, unix: address.path }), `the Unix socket ${address.path}`);
    return {
      label: `unix:${address.path}`,
      stop() {
        void server.stop(true);
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
  return { label: `http://${hostText(address.host)}:${server.port}`, stop: () => void server.stop(true) };
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
