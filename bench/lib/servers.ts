/** The servers that are measured, and how each is started and stopped. */
import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import { centrifugoProgram, writeCentrifugoConfig } from './centrifugo.ts';
import { certificateFiles } from './certificate.ts';
import { freePort } from './free-port.ts';
import { whenReady } from './readiness.ts';
import { type RedisServer, startRedis } from './redis.ts';

const bench = join(import.meta.dir, '..');
const root = join(bench, '..');

export type ServerName =
  | 'ringway'
  | 'ringway-uws'
  | 'ringway-cross'
  | 'ringway-same'
  | 'ringway-nodes'
  | 'ringway-reload'
  | 'ringway-many'
  | 'floor'
  | 'bun-serve'
  | 'bun-bare'
  | 'ws'
  | 'uws'
  | 'hono-node'
  | 'socket-io'
  | 'ringway-topics'
  | 'ringway-topics-direct'
  | 'ringway-topics-nodes'
  | 'centrifugo'
  | 'centrifugo-nodes';

/** How a server is started for some workloads: over TLS, with compression, or with a route whose sockets have data of their own. */
export type Mode = 'tls' | 'deflate' | 'user-data';

interface ServerPlan {
  readonly name: ServerName;
  readonly about: string;
  readonly command: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly protocols: readonly ('http' | 'websocket')[];
  readonly modes?: readonly Mode[];
  /** Two processes of it, which a Redis of their own joins. */
  readonly isPair?: boolean;
  /** Of the load client, beside those of the workload. */
  readonly loadOptions?: readonly string[];
  /** Only for the workloads that name it. */
  readonly isSpecial?: boolean;
  /** Its port is told by a file, and its API is on the same one. */
  readonly isCentrifugo?: boolean;
  /** An npm package that is too heavy to install unasked. */
  readonly needs?: string;
}

const bun = process.execPath;
const gatewayProgram = join(root, 'src/main.ts');
/** What `bin/launch.mjs` sets for Bun when a user starts the gateway. */
const launcherSettings = { BUN_GC_TIMER_INTERVAL: '30000' };
/** One program for both: the original's API is what it is written to. */
const uwsProgram = join(bench, 'peers/uws.mjs');
const uwsModes: readonly Mode[] = ['tls', 'deflate', 'user-data'];
const gateway = (config: string) => [bun, gatewayProgram, 'start', '-c', join(bench, 'peers', config)];
/** Two workers, in which sockets stay only where they are wanted: what a client asks for depends on its path. */
const twoWorkers = { command: gateway('two-workers.config.ts'), protocols: ['http'], isSpecial: true } as const;
/** So many that 300,000 connections are below the 20,000 descriptors that many systems give a process. */
const manyWorkers = 18;
const placed = ['--publisher-path', '/publisher/bench', '--retry-refused'];

const topics = { protocols: [], isSpecial: true } as const;

const plans: readonly ServerPlan[] = [
  {
    name: 'ringway',
    about: 'the example gateway with one worker',
    command: [bun, gatewayProgram, 'start', '-c'],
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
    ...twoWorkers,
    name: 'ringway-cross',
    about: 'the publisher on one worker, all subscribers on another',
    env: { WORKERS: '2', ADMIN_PORT: '0', BENCH_PUBLISHER_WORKER: '0', BENCH_SUBSCRIBER_WORKER: '1' },
    loadOptions: placed,
  },
  {
    ...twoWorkers,
    name: 'ringway-same',
    about: 'as many workers, publisher and subscribers on the same one',
    env: { WORKERS: '2', ADMIN_PORT: '0', BENCH_PUBLISHER_WORKER: '1', BENCH_SUBSCRIBER_WORKER: '1' },
    loadOptions: placed,
  },
  {
    name: 'ringway-nodes',
    about: 'two nodes of one worker, joined by Redis',
    command: gateway('nodes.config.ts'),
    env: { WORKERS: '1', ADMIN_PORT: '0' },
    protocols: ['http', 'websocket'],
    isPair: true,
    isSpecial: true,
  },
  {
    name: 'ringway-reload',
    about: 'two workers that are replaced',
    command: gateway('reload.config.ts'),
    env: { WORKERS: '2' },
    protocols: ['http', 'websocket'],
    isSpecial: true,
  },
  {
    name: 'ringway-many',
    about: `the example gateway with ${manyWorkers} workers`,
    command: [bun, gatewayProgram, 'start', '-c', join(root, 'gateway.config.ts')],
    env: { WORKERS: String(manyWorkers), ADMIN_PORT: '0' },
    protocols: ['http', 'websocket'],
    isSpecial: true,
  },
  {
    name: 'bun-serve',
    about: 'Bun.serve, HTTP through Hono',
    command: [bun, join(bench, 'peers/bun-serve.ts')],
    protocols: ['http', 'websocket'],
  },
  {
    name: 'floor',
    about: 'a C program on io_uring that receives and sends, and does nothing else',
    command: [join(bench, 'floor/build/floor')],
    protocols: ['http', 'websocket'],
    isSpecial: true,
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
  {
    name: 'socket-io',
    about: 'two processes of Socket.IO on Node, joined by its Redis adapter',
    command: ['node', join(bench, 'peers/socket-io.mjs')],
    protocols: ['http'],
    isPair: true,
    loadOptions: ['--path', '/socket.io/?EIO=4&transport=websocket', '--socket-io'],
    isSpecial: true,
  },
  {
    ...topics,
    name: 'ringway-topics',
    about: 'a gateway with topics of every kind, one worker',
    command: gateway('topics.config.ts'),
    env: { WORKERS: '1' },
  },
  {
    ...topics,
    name: 'ringway-topics-direct',
    about: 'the same, where rooms are topics without a policy',
    command: gateway('topics.config.ts'),
    env: { WORKERS: '1', BENCH_ROOM: 'direct' },
  },
  {
    ...topics,
    name: 'ringway-topics-nodes',
    about: 'two such nodes of one worker, joined by Redis',
    command: gateway('topics.config.ts'),
    env: { WORKERS: '1' },
    isPair: true,
  },
  {
    ...topics,
    name: 'centrifugo',
    about: 'Centrifugo 6 with the same kinds of channels, in memory',
    command: [centrifugoProgram],
    isCentrifugo: true,
    loadOptions: ['--protocol', 'centrifugo'],
  },
  {
    ...topics,
    name: 'centrifugo-nodes',
    about: 'two nodes of Centrifugo, joined by Redis',
    command: [centrifugoProgram],
    isCentrifugo: true,
    isPair: true,
    loadOptions: ['--protocol', 'centrifugo'],
  },
  { name: 'hono-node', about: 'Hono on Node', command: ['node', join(bench, 'peers/hono-node.mjs')], protocols: ['http'] },
];

/** Those that can be asked for beside the ones a workload always measures. */
export const peers = plans.filter(({ name, isSpecial }) => name !== 'ringway' && name !== 'ringway-uws' && isSpecial !== true);

export function serves(name: ServerName, protocol: 'http' | 'websocket', mode: Mode | undefined): boolean {
  const { protocols, modes } = planOf(name);
  return protocols.includes(protocol) && (mode === undefined || modes?.includes(mode) === true);
}

/** How many processes share the connections of a server. */
export function workersOf(name: ServerName): number {
  return Number(planOf(name).env?.WORKERS ?? 1);
}

export function isSpecial(name: ServerName): boolean {
  return planOf(name).isSpecial === true;
}

export function isCentrifugo(name: ServerName): boolean {
  return planOf(name).isCentrifugo === true;
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
  /** One, or one for each of a pair. */
  readonly processes: readonly { readonly pid: number; readonly port: number }[];
  /** Of the load client, beside those of the workload. */
  readonly loadOptions: readonly string[];
  /** Where the gateway's administrator asks. */
  readonly adminPort: number;
  /** Where messages are published over HTTP. */
  readonly apiPort: number;
  /** What joins a pair. */
  readonly redis: RedisServer | undefined;
  /** Ends it and all it has started, at once. */
  stop(): Promise<void>;
}

/** Of the first process, which is all there is of most servers. */
export const pidOf = ({ processes }: Server): number => processes[0]?.pid ?? 0;
export const portOf = ({ processes }: Server): number => processes[0]?.port ?? 0;

export interface StartOptions {
  readonly cpu: number;
  /** Redis is no part of what is measured: it runs beside the client. */
  readonly clientCpu: number;
  readonly backend: 'io_uring' | 'epoll' | undefined;
  readonly mode: Mode | undefined;
}

/** The end of what a server has written, for the message when it does not work. */
const outputCharsMax = 4000;
const running = new Set<ChildProcess>();

/** A server that answers correctly. Throws when it does not. */
export async function startServer(name: ServerName, options: StartOptions): Promise<Server> {
  const plan = planOf(name);
  const redis = plan.isPair ? await startRedis(options.clientCpu) : undefined;
  const processes: ServerProcess[] = [];
  const stop = async () => {
    await Promise.all(processes.map((each) => each.stop()));
    await redis?.stop();
  };
  const adminPort = await freePort();
  try {
    for (let count = plan.isPair ? 2 : 1; count > 0; count--)
      processes.push(
        await startProcess(plan, options, {
          // Of a pair the first has it.
          ADMIN_PORT: String(processes.length === 0 ? adminPort : 0),
          ...plan.env,
          ...(redis ? { REDIS_URL: redis.url } : {}),
        }),
      );
  } catch (error) {
    await stop();
    throw error;
  }
  const other = processes[1] === undefined ? [] : ['--other-port', String(processes[1].port)];
  const apiPort = plan.isCentrifugo === true ? (processes[0]?.port ?? 0) : adminPort;
  return { name, processes, loadOptions: [...(plan.loadOptions ?? []), ...other], adminPort, apiPort, redis, stop };
}

interface ServerProcess {
  readonly pid: number;
  readonly port: number;
  stop(): Promise<void>;
}

async function startProcess(plan: ServerPlan, options: StartOptions, env: Readonly<Record<string, string>>): Promise<ServerProcess> {
  const { name } = plan;
  const port = await freePort();
  const command = ['taskset', '-c', String(options.cpu), ...plan.command];
  if (plan.isCentrifugo === true) command.push('-c', writeCentrifugoConfig(port, env.REDIS_URL));
  if (name === 'ringway') command.push(options.backend === undefined ? join(root, 'gateway.config.ts') : join(bench, 'ringway.config.ts'));
  // It leads a process group, so that all of it can be ended.
  const child = spawn(command[0] as string, command.slice(1), {
    cwd: root,
    env: {
      ...process.env,
      // Nobody else's Redis.
      REDIS_URL: undefined,
      ...(command.includes(gatewayProgram) ? launcherSettings : {}),
      ...env,
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
