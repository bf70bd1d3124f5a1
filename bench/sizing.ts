/**
 * What one connection costs the gateway and the kernel: the figures of docs/sizing.md. Needs root, for the memory cgroup.
 *
 *   bun bench/sizing.ts [name ...]
 */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { certificateFiles, removeCertificate } from './lib/certificate.ts';
import { freePort } from './lib/free-port.ts';
import { buildLoadClient, killLoadClients, LoadClient } from './lib/load-client.ts';
import { chooseCpus, describeMachine } from './lib/machine.ts';
import { settledMemory } from './lib/measure-held.ts';
import { createMemoryGroup, type MemoryGroup } from './lib/memory-group.ts';
import { memoryBytes } from './lib/process-tree.ts';
import { machineLine } from './lib/report.ts';

interface Case {
  readonly name: string;
  readonly args: readonly string[];
  readonly connections: number;
  readonly tls?: boolean;
  readonly backend?: 'epoll';
}

const greeted = ['--payload', '1024'];
/** Open and at rest before those that are counted: by then a worker has what it needs for any number of them. */
const firstConnections = 1000;

const cases: readonly Case[] = [
  { name: 'websocket', args: ['--path', '/echo'], connections: 17_000 },
  { name: 'websocket-epoll', args: ['--path', '/echo'], connections: 17_000, backend: 'epoll' },
  { name: 'shared-topic', args: ['--path', '/shared-topic'], connections: 17_000 },
  { name: 'own-topic', args: ['--path', '/own-topic'], connections: 17_000 },
  { name: 'greeted', args: ['--path', '/greeted', ...greeted], connections: 17_000 },
  { name: 'tls', args: ['--path', '/echo', '--tls'], connections: 6000, tls: true },
  { name: 'tls-greeted', args: ['--path', '/greeted', '--tls', ...greeted], connections: 6000, tls: true },
  { name: 'shared-window', args: ['--path', '/shared-window', '--deflate', ...greeted], connections: 6000 },
  { name: 'own-window-12', args: ['--path', '/own-window', '--deflate', ...greeted], connections: 6000 },
  { name: 'own-window-15', args: ['--path', '/own-window-15', '--deflate', ...greeted], connections: 2000 },
];

const bench = import.meta.dir;

async function untilReady(port: number, tls: boolean): Promise<void> {
  for (const deadline = performance.now() + 20_000; performance.now() < deadline; await Bun.sleep(25)) {
    const answered = fetch(`http${tls ? 's' : ''}://127.0.0.1:${port}/`, { tls: { rejectUnauthorized: false } });
    if (await answered.then((response) => response.arrayBuffer()).catch(() => undefined)) return;
  }
  throw new Error('the gateway does not listen after 20 s');
}

async function hold(args: readonly string[], port: number, cpu: number, meanwhile: () => Promise<void>): Promise<void> {
  const client = new LoadClient({ args: ['ws-idle', ...args], port, cpu });
  await client.line('open ');
  await meanwhile();
  client.release();
  const { lost } = await client.report();
  if (lost !== 0) throw new Error(`${lost} connections were lost`);
}

async function measureCase({ args, connections, tls = false, backend }: Case, group: MemoryGroup) {
  const cpus = chooseCpus();
  const port = await freePort();
  const files = tls ? certificateFiles() : undefined;
  const server = spawn(
    'sh',
    [
      '-c',
      `echo $$ > "$GROUP" && exec taskset -c ${cpus.server} "$@"`,
      'sh',
      process.execPath,
      join(bench, '../src/main.ts'),
      'start',
      '-c',
      join(bench, 'sizing.config.ts'),
    ],
    {
      stdio: ['ignore', 'ignore', 'inherit'],
      env: {
        ...process.env,
        REDIS_URL: undefined,
        GROUP: group.procsFile,
        PORT: String(port),
        ADMIN_PORT: '0',
        WORKERS: '1',
        BENCH_BACKEND: backend ?? '',
        ...(files === undefined ? {} : { BENCH_KEY: files.key, BENCH_CERT: files.cert }),
      },
    },
  );
  const pid = server.pid as number;
  const ended = new Promise((resolve) => server.once('exit', resolve));
  try {
    await untilReady(port, tls);
    const empty = memoryBytes(pid);
    const reading = async () => ({ own: await settledMemory(pid), kernel: group.kernelBytes() });
    let before = { own: 0, kernel: 0 };
    let after = before;
    await hold([...args, '--connections', String(firstConnections)], port, cpus.client, async () => {
      before = await reading();
      await hold([...args, '--connections', String(connections)], port, cpus.client, async () => {
        after = await reading();
      });
    });
    return { empty, own: (after.own - before.own) / connections, kernel: (after.kernel - before.kernel) / connections };
  } finally {
    server.kill('SIGTERM');
    const killer = setTimeout(() => server.kill('SIGKILL'), 20_000);
    await ended;
    clearTimeout(killer);
  }
}

async function run(): Promise<void> {
  const asked = process.argv.slice(2);
  const unknown = asked.find((name) => !cases.some((each) => each.name === name));
  if (unknown !== undefined) throw new Error(`${unknown}: write some of ${cases.map(({ name }) => name).join(', ')}`);
  buildLoadClient();
  console.log(machineLine(describeMachine()));
  for (const each of cases.filter(({ name }) => asked.length === 0 || asked.includes(name))) {
    const group = createMemoryGroup();
    try {
      const { empty, own, kernel } = await measureCase(each, group);
      const numbers = `gateway ${own.toFixed(0).padStart(6)} B  kernel ${kernel.toFixed(0).padStart(6)} B  of ${each.connections} connections`;
      console.log(`${each.name.padEnd(16)} ${numbers}  (without any: ${(empty / 2 ** 20).toFixed(1)} MiB)`);
    } finally {
      group.remove();
    }
  }
}

process.on('exit', () => {
  killLoadClients();
  removeCertificate();
});
await run();
