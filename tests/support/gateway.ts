/**
 * Starts a real gateway for a test, on ports of its own, and stops it.
 *
 * Role: used by every end-to-end test. A gateway is a supervisor with its workers, as `ringway start` makes them. Tests run for each I/O
 * backend through `forEachBackend`.
 */
import { describe } from 'bun:test';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { native } from '../../ffi/bindings.ts';
import { Core } from '../../src/core/core.ts';
import { RunningProgram } from './running-program.ts';

const root = join(import.meta.dir, '..', '..');

export type Backend = 'io_uring' | 'epoll';

export interface GatewayOptions {
  /**
   * The config module. `$OPTIONS` in it becomes the options that a test gateway needs (listen, admin, workers, io), so write
   * `export default defineGateway({ $OPTIONS, fetch: ... })`.
   */
  readonly config: string;
  readonly backend?: Backend;
  readonly workers?: number;
  /** Instead of one address on 127.0.0.1 with a port that the system chooses; as it stands in a config. The first is `Gateway.port`. */
  readonly listen?: string;
  /** Instead of a port on 127.0.0.1 that the system chooses; as it stands in a config. On no such port, `Gateway.adminPort` is NaN. */
  readonly admin?: string;
  /** Files beside the config, by name. */
  readonly files?: Readonly<Record<string, string>>;
  readonly env?: Record<string, string>;
  /** Folder of the product to start, instead of this one. */
  readonly product?: string;
  /** Command to put before Bun, such as ['prlimit', '--nofile=64:64']. */
  readonly wrapper?: readonly string[];
}

export interface Gateway {
  readonly port: number;
  /** Where its config lies. */
  readonly folder: string;
  readonly adminPort: number;
  /** 'http://127.0.0.1:PORT' */
  readonly url: string;
  readonly wsUrl: string;
  readonly adminUrl: string;
  readonly pid: number;
  /** Everything it has written so far. */
  output(): string;
  /** The sum over all workers of a metric, its labels given in part. */
  metric(name: string, labels?: Record<string, string>): Promise<number>;
  workerPids(): Promise<number[]>;
  /** Resolves with the exit code once it has ended. */
  readonly exited: Promise<number>;
  kill(signal: NodeJS.Signals): void;
  /** SIGKILL to all of it, if it still runs, and clean up. */
  stop(): Promise<void>;
}

/** Run the same tests on each backend; where the kernel or its sandbox forbids io_uring, those tests are reported as skipped. */
export function forEachBackend(name: string, body: (backend: Backend) => void): void {
  for (const backend of ['io_uring', 'epoll'] as const) {
    describe.skipIf(backend === 'io_uring' && !hasIoUring())(`${name} (${backend})`, () => body(backend));
  }
}

let ioUring: boolean | undefined;

/** Asked of the core itself, by making one, so that it is exactly what a worker would find. */
function hasIoUring(): boolean {
  if (ioUring !== undefined) return ioUring;
  try {
    const wakeFd = native.eventfdCreate();
    const numbers = { maxConnections: 1, sqpollCpu: -1 };
    new Core({ backend: 'io_uring', wakeFd, inboxFdFirst: -1, shmFd: -1, workerIndex: 0, workerCount: 1, numbers }).destroy();
    native.fdClose(wakeFd);
    ioUring = true;
  } catch (error) {
    console.warn(`io_uring is not to be had here, its tests are skipped: ${error}`);
    ioUring = false;
  }
  return ioUring;
}

export async function startGateway(options: GatewayOptions): Promise<Gateway> {
  const folder = mkdtempSync(join(tmpdir(), 'ringway-e2e-'));
  const path = join(folder, 'gateway.config.ts');
  const common = [
    `listen: ${options.listen ?? `{ port: 0, host: '127.0.0.1' }`}`,
    `admin: ${options.admin ?? '{ port: 0 }'}`,
    `workers: ${options.workers ?? 1}`,
    `io: { backend: '${options.backend ?? 'io_uring'}' }`,
    'affinity: false',
  ].join(', ');
  writeFileSync(path, options.config.replace('$OPTIONS', common));
  for (const [name, text] of Object.entries(options.files ?? {})) writeFileSync(join(folder, name), text);
  const command = [process.execPath, join(options.product ?? root, 'src', 'main.ts'), 'start', '-c', path];
  const program = new RunningProgram([...(options.wrapper ?? []), ...command], { cwd: root, env: { ...process.env, ...options.env } });
  const says =
    options.admin === undefined
      ? /listening on (\S+?)(?:,| \()[^\n]*?admin http:\/\/127\.0\.0\.1:(\d+)/
      : /listening on (\S+?)(?:,| \()[^\n]*?(?:admin http:\/\/127\.0\.0\.1:(\d+)|\n)/;
  const banner = await program.finds(says).catch(async (error) => {
    program.kill('SIGKILL');
    throw new Error(`the gateway does not say where it listens: ${error}`);
  });
  const port = Number(/:(\d+)$/.exec(banner[1] ?? '')?.[1]);
  const adminPort = Number(banner[2]);
  const adminUrl = `http://127.0.0.1:${adminPort}`;
  return {
    port,
    adminPort,
    folder,
    url: `http://127.0.0.1:${port}`,
    wsUrl: `ws://127.0.0.1:${port}`,
    adminUrl,
    pid: program.pid,
    output: () => program.output(),
    async metric(name, labels = {}) {
      const text = await (await fetch(`${adminUrl}/metrics`)).text();
      return sumMetric(text, name, labels);
    },
    async workerPids() {
      const health = (await (await fetch(`${adminUrl}/healthz`)).json()) as { workers: { pid: number }[] };
      return health.workers.map((worker) => worker.pid);
    },
    exited: program.child.exited,
    kill: (signal) => program.kill(signal),
    async stop() {
      await program.stop();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

function sumMetric(text: string, name: string, labels: Record<string, string>): number {
  let sum = 0;
  for (const line of text.split('\n')) {
    const match = /^([a-z_]+)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (match === null || match[1] !== name) continue;
    const has = Object.entries(labels).every(([key, value]) => match[2]?.includes(`${key}="${value}"`));
    if (has) sum += Number(match[3]);
  }
  return sum;
}
