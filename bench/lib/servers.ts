/** The servers that are measured: how each is started, and that it answers as it should before it is measured. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createServer } from 'node:net';
import { join } from 'node:path';

const bench = join(import.meta.dir, '..');
const root = join(bench, '..');

export type ServerName = 'ringway' | 'bun-serve' | 'bun-bare' | 'ws' | 'uws' | 'hono-node';

interface ServerPlan {
  readonly name: ServerName;
  readonly about: string;
  readonly command: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly protocols: readonly ('http' | 'websocket')[];
  /** An npm package that is too heavy to install unasked. */
  readonly needs?: string;
}

const bun = process.execPath;

const plans: readonly ServerPlan[] = [
  {
    name: 'ringway',
    about: 'the example gateway with one worker',
    command: [bun, join(root, 'src/main.ts'), 'start', '-c'],
    env: { WORKERS: '1', ADMIN_PORT: '0' },
    protocols: ['http', 'websocket'],
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
  { name: 'ws', about: 'the ws package on Node', command: ['node', join(bench, 'peers/ws-node.mjs')], protocols: ['websocket'] },
  {
    name: 'uws',
    about: 'uWebSockets.js on Node, installs 257 MB',
    command: ['node', join(bench, 'peers/uws-node.mjs')],
    protocols: ['http', 'websocket'],
    needs: 'uwebsockets',
  },
  { name: 'hono-node', about: 'Hono on Node', command: ['node', join(bench, 'peers/hono-node.mjs')], protocols: ['http'] },
];

/** Those that are measured only when asked for. */
export const peers = plans.filter(({ name }) => name !== 'ringway' && name !== 'bun-serve');

export function servesHttp(name: ServerName): boolean {
  return planOf(name).protocols.includes('http');
}

export function servesWebSocket(name: ServerName): boolean {
  return planOf(name).protocols.includes('websocket');
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
}

const readyMs = 20_000;
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
    env: { ...process.env, ...plan.env, PORT: String(port), NODE_ENV: 'production', BENCH_BACKEND: options.backend ?? '' },
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
    await whenReady(child, port, plan);
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

async function whenReady(child: ChildProcess, port: number, plan: ServerPlan): Promise<void> {
  const deadline = performance.now() + readyMs;
  while (!(await accepts(port))) {
    if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) throw new Error('it ended before it listened');
    if (performance.now() > deadline) throw new Error(`it does not listen after ${readyMs / 1000} s`);
    await Bun.sleep(25);
  }
  if (plan.protocols.includes('http')) await checkHello(port);
  if (plan.protocols.includes('websocket')) {
    await checkEcho(port);
    await checkRoom(port);
  }
}

async function accepts(port: number): Promise<boolean> {
  try {
    await (await fetch(`http://127.0.0.1:${port}/hello`)).arrayBuffer();
    return true;
  } catch {
    return false;
  }
}

const hello = 'Hello from Ringway';

async function checkHello(port: number): Promise<void> {
  const response = await fetch(`http://127.0.0.1:${port}/hello`);
  const body = await response.text();
  if (response.status !== 200 || body !== hello) throw new Error(`GET /hello gave ${response.status} ${JSON.stringify(body.slice(0, 80))}`);
}

async function checkEcho(port: number): Promise<void> {
  const socket = await connect(port, '/echo');
  socket.send('text \u00e9');
  if ((await next(socket)) !== 'text \u00e9') throw new Error('/echo does not give text back');
  socket.send(new Uint8Array([1, 2, 255]));
  const bytes = await next(socket);
  if (!(bytes instanceof ArrayBuffer) || new Uint8Array(bytes).join() !== '1,2,255') throw new Error('/echo does not give bytes back');
  socket.close();
}

async function checkRoom(port: number): Promise<void> {
  const sockets = [await connect(port, '/room/check'), await connect(port, '/room/check')] as const;
  // A handshake is answered before the subscription it leads to is made.
  await Bun.sleep(100);
  const received = sockets.map(next);
  sockets[0].send('to all');
  if ((await Promise.all(received)).join() !== 'to all,to all') throw new Error('/room does not give a message to all in it');
  for (const socket of sockets) socket.close();
}

const answerMs = 5000;

function connect(port: number, path: string): Promise<WebSocket> {
  const socket = new WebSocket(`ws://127.0.0.1:${port}${path}`);
  socket.binaryType = 'arraybuffer';
  return within(`the handshake of ${path}`, (resolve, reject) => {
    socket.onopen = () => resolve(socket);
    socket.onerror = () => reject(new Error(`the handshake of ${path} was refused`));
  });
}

function next(socket: WebSocket): Promise<unknown> {
  return within('a message', (resolve) => {
    socket.onmessage = ({ data }) => resolve(data);
  });
}

function within<Value>(what: string, begin: (resolve: (value: Value) => void, reject: (error: Error) => void) => void): Promise<Value> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`${what} did not come within ${answerMs / 1000} s`)), answerMs);
    begin(
      (value) => {
        clearTimeout(timer);
        resolve(value);
      },
      (error) => {
        clearTimeout(timer);
        reject(error);
      },
    );
  });
}
