/** The servers that are measured, and how each is started and stopped. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { certificateFiles } from './certificate.ts';
import { whenReady } from './readiness.ts';

const bench = join(import.meta.dir, '..');
const root = join(bench, '..');

export type ServerName = 'ringway' | 'ringway-uws' | 'bun-serve' | 'bun-bare' | 'ws' | 'uws' | 'hono-node';

/** How a server is started for some workloads: over TLS, with compression, or with a route whose sockets have data of their own. */
export type Mode = 'tls' | 'deflate' | 'user-data';

interface ServerPlan {
  readonly name: ServerName;
  readonly about: string;
  readonly command: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly protocols: readonly ('http' | 'websocket')[];
  readonly modes?: readonly Mode[];
  /** An npm package that is too heavy to install unasked. */
  readonly needs?: string;
}

const bun = process.execPath;
/** One program for both: the original's API is what it is written to. */
const uwsProgram = join(bench, 'peers/uws.mjs');
const uwsModes: readonly Mode[] = ['tls', 'deflate', 'user-data'];

const plans: readonly ServerPlan[] = [
  {
    name: 'ringway',
    about: 'the example gateway with one worker',
    command: [bun, join(root, 'src/main.ts'), 'start', '-c'],
    env: { WORKERS: '1', ADMIN_PORT: '0' },
    protocols: ['http', 'websocket'],
  },
  {
    name: 'ringway-uws',
    about: 'a program for uWebSockets.js on Ringway',
    command: [bun, '--preload', 'ringway/register', uwsProgram],
    protocols: ['http', 'websocket'],
    modes: uwsModes,
  },
  {
    name: 'bun-serve',
    about: 'Bun.serve, HTTP through Hono',
    command: [bun, join(bench, 'peers/bun-serve.ts')],
    protocols: ['http', 'websocket'],
  },
  {
    name: 'bun-bare',
    about: 'Bun.serve without Hono',
    command: [bun, join(bench, 'peers/bun-serve.ts')],
    env: { BENCH_BARE: '1' },
    protocols: ['http'],
  },
  {
    name: 'ws',
    about: 'the ws package on Node',
    command: ['node', join(bench, 'peers/ws-node.mjs')],
    protocols: ['websocket'],
    modes: ['deflate'],
  },
  {
    name: 'uws',
    about: 'the same program on uWebSockets.js and Node, installs 257 MB',
    command: ['node', uwsProgram],
    protocols: ['http', 'websocket'],
    modes: uwsModes,
    needs: 'uWebSockets.js',
  },
  { name: 'hono-node', about: 'Hono on Node', command: ['node', join(bench, 'peers/hono-node.mjs')], protocols: ['http'] },
];

/** Those that can be asked for beside the ones a workload always measures. */
export const peers = plans.filter(({ name }) => name !== 'ringway' && name !== 'ringway-uws');

export function serves(name: ServerName, protocol: 'http' | 'websocket', mode: Mode | undefined): boolean {
  const { protocols, modes } = planOf(name);
  return protocols.includes(protocol) && (mode === undefined || modes?.includes(mode) === true);
}

/** The heavy npm package that a server needs, if any. */
export function heavyPackageOf(name: ServerName): string | undefined {
  return planOf(name).needs;
}

function planOf(name: ServerName): ServerPlan {
  return plans.find((plan) => plan.name === name) as ServerPlan;
}

export interface Server {
  readonly name: ServerName;
  readonly pid: number;
  readonly port: number;
  /** Ends it and all it has started, at once. */
  stop(): Promise<void>;
}

export interface StartOptions {
  readonly cpu: number;
  readonly backend: 'io_uring' | 'epoll' | undefined;
  readonly mode: Mode | undefined;
}

/** The end of what a server has written, for the message when it does not work. */
const outputCharsMax = 4000;
const running = new Set<ChildProcess>();

/** A server that answers correctly. Throws when it does not. */
export async function startServer(name: ServerName, options: StartOptions): Promise<Server> {
  const plan = planOf(name);
  const port = await freePort();
  const command = ['taskset', '-c', String(options.cpu), ...plan.command];
  if (name === 'ringway') command.push(options.backend === undefined ? join(root, 'gateway.config.ts') : join(bench, 'ringway.config.ts'));
  // It leads a process group, so that all of it can be ended.
  const child = spawn(command[0] as string, command.slice(1), {
    cwd: root,
    env: {
      ...process.env,
      ...plan.env,
      ...modeEnv(options.mode),
      PORT: String(port),
      NODE_ENV: 'production',
      BENCH_BACKEND: options.backend ?? '',
    },
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true,
  });
  running.add(child);
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk) => {
      output = `${output}${chunk}`.slice(-outputCharsMax);
    });
  }
  const ended = new Promise<void>((resolve) => {
    child.once('error', () => resolve());
    child.once('exit', () => resolve());
  }).then(() => void running.delete(child));
  try {
    await whenReady({ port, tls: options.mode === 'tls', protocols: plan.protocols }, () =>
      child.exitCode !== null || child.signalCode !== null || child.pid === undefined ? 'it ended before it listened' : undefined,
    );
  } catch (error) {
    kill(child);
    throw new Error(`${name} cannot be measured: ${error instanceof Error ? error.message : error}\n${output}`.trim());
  }
  return {
    name,
    pid: child.pid as number,
    port,
    async stop() {
      kill(child);
      await ended;
    },
  };
}

function modeEnv(mode: Mode | undefined): Record<string, string> {
  if (mode === 'deflate') return { BENCH_DEFLATE: '1' };
  if (mode !== 'tls') return {};
  const { key, cert } = certificateFiles();
  return { BENCH_KEY: key, BENCH_CERT: cert };
}

/** Whatever is still running, when the bench ends early. */
export function killServers(): void {
  for (const child of running) kill(child);
}

function kill(child: ChildProcess): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, 'SIGKILL');
  } catch {
    // It has ended already.
  }
}

/** The system's choice, free again for the server: chosen anew for each, so that nothing of an earlier run lingers on it. */
function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const probe = createServer();
    probe.once('error', reject);
    probe.listen(0, '127.0.0.1', () => {
      const address = probe.address();
      probe.close(() => resolve(typeof address === 'object' && address !== null ? address.port : 0));
    });
  });
}
