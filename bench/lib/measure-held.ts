/** What connections cost that are held and say nothing. */
import { readFileSync } from 'node:fs';
import { LoadClient } from './load-client.ts';
import { type Measurement, Skipped } from './measurement.ts';
import { cpuNs, memoryBytes } from './process-tree.ts';
import { pidOf, portOf, type Server, workersOf } from './servers.ts';
import type { Workload } from './workloads.ts';

export interface HeldOptions {
  readonly server: Server;
  readonly clientCpu: number;
}

/** Connections that are opened and closed before memory is read: what the first ones cost a server is not what each costs. */
const warmupConnections = 500;
/** Until a server has done what it does after many connections have come or gone: Bun collects garbage, and gives memory back, seconds later. */
const settleMs = 15_000;
/** Memory that changes by less than this for so long has settled. */
const settledBytes = 128 * 1024;
const settledMs = 10_000;
const settleMostMs = 25_000;
/** Of a slope both ends are read when every socket has been pinged: what the answers have left behind is in both, or it would be in the difference. */
const pingedMs = 36_000;
/** The least that is read meanwhile: what a collector has not come to yet is nobody's. */
const leastMs = 12_000;
/** A whole ping interval, so that every socket is pinged once within the window and no more. */
const idleMs = 30_000;

/** Of one load client: below the 20,000 descriptors that many systems give a process. */
const clientConnectionsMost = 18_000;
const connectionsPerAddress = 4000;
const addressesPerClient = Math.ceil(clientConnectionsMost / connectionsPerAddress);

interface Held {
  release(): Promise<{ pings: number }>;
}

/** Opens `count` connections beside `before` others, by one load client for each 18,000. ret: when all are open */
async function hold(load: readonly string[], count: number, before: number, { server, clientCpu }: HeldOptions): Promise<Held> {
  const clients: LoadClient[] = [];
  for (let left = count; left > 0; left -= clientConnectionsMost) {
    // No two clients share a source address, which has ports for 28,000 connections.
    const firstAddress = (Math.ceil(before / clientConnectionsMost) + clients.length) * addressesPerClient;
    const args = ['--connections', String(Math.min(left, clientConnectionsMost)), '--per-address', String(connectionsPerAddress)];
    const client = new LoadClient({
      args: [...load, ...args, '--first-address', String(firstAddress), ...server.loadOptions],
      port: portOf(server),
      cpu: clientCpu,
    });
    await client.line('open ');
    clients.push(client);
  }
  return {
    async release() {
      for (const client of clients) client.release();
      const reports = await Promise.all(clients.map((client) => client.report()));
      const sum = (field: 'lost' | 'pings') => reports.reduce((total, report) => total + (report[field] ?? 0), 0);
      if (sum('lost') > 0) throw new Error(`${server.name}: ${sum('lost')} idle connections were lost`);
      return { pings: sum('pings') };
    },
  };
}

/** Memory once it has not changed for a while: runtimes give back what they do not need in steps, many seconds apart. */
export async function settledMemory(pid: number): Promise<number> {
  const began = performance.now();
  let bytes = memoryBytes(pid);
  let changed = began;
  for (;;) {
    await Bun.sleep(1000);
    const now = performance.now();
    const present = memoryBytes(pid);
    if (Math.abs(present - bytes) > settledBytes) {
      bytes = present;
      changed = now;
    }
    if (now - changed > settledMs || now - began > settleMostMs) return present;
  }
}

async function leastMemory(pid: number): Promise<number> {
  await Bun.sleep(pingedMs);
  let least = Number.POSITIVE_INFINITY;
  for (let read = 0; read < leastMs; read += 1000) {
    await Bun.sleep(1000);
    least = Math.min(least, memoryBytes(pid));
  }
  return least;
}

/** Bytes per connection, of those between the smaller and the larger number. */
export async function measureMemory({ load, sockets }: Workload, options: HeldOptions): Promise<Measurement> {
  const { from = 0, to } = socketsOf(sockets);
  const memory = from === 0 ? settledMemory : leastMemory;
  const pid = pidOf(options.server);
  await (await hold(load, warmupConnections, 0, options)).release();
  const first = await hold(load, from, 0, options);
  const before = await memory(pid);
  const rest = await hold(load, to - from, from, options);
  const after = await memory(pid);
  await rest.release();
  await first.release();
  return { value: (after - before) / (to - from) };
}

/** µs of CPU a second for each socket, all of which are pinged once meanwhile. */
export async function measureIdle({ load, sockets }: Workload, options: HeldOptions): Promise<Measurement> {
  const { to } = socketsOf(sockets);
  const pid = pidOf(options.server);
  const held = await hold(load, to, 0, options);
  await Bun.sleep(settleMs);
  const usedNs = cpuNs(pid);
  const began = performance.now();
  await Bun.sleep(idleMs);
  const used = cpuNs(pid) - usedNs;
  const elapsedMs = performance.now() - began;
  const { pings } = await held.release();
  if (pings !== to) throw new Error(`${options.server.name}: ${pings} pings came to ${to} sockets, and each should have got one`);
  return { value: used / elapsedMs / to, busy: used / 1e6 / elapsedMs };
}

function socketsOf(sockets: Workload['sockets']): NonNullable<Workload['sockets']> {
  if (sockets === undefined) throw new Error('a workload that holds sockets says how many');
  return sockets;
}

/** For one connection: the kernel's memory for both of its ends, the gateway's and the load client's own. */
const bytesPerConnection = 12 * 1024;
const bytesPerWorker = 100 * 2 ** 20;
/** Beside connections: a library here, a pipe there. */
const otherDescriptors = 500;
/** The kernel spreads connections over several workers by hash. */
const unevenness = (workers: number) => (workers === 1 ? 1 : 1.1);

/** Throws Skipped where this machine cannot hold both ends of so many. */
export function checkRoom({ sockets, subject }: Workload): void {
  if (sockets === undefined) return;
  const workers = workersOf(subject);
  const most = (name: string) =>
    Number(new RegExp(`^${name}\\s+\\S+\\s+(\\d+)`, 'm').exec(readFileSync('/proc/self/limits', 'utf8'))?.[1] ?? Infinity);
  const descriptors = Math.ceil((sockets.to / workers) * unevenness(workers)) + otherDescriptors;
  if (most('Max open files') < descriptors)
    throw new Skipped(`a worker needs ${descriptors} descriptors; the limit is ${most('Max open files')} (ulimit -Hn)`);
  const [used = 0, , filesMost = Infinity] = readFileSync('/proc/sys/fs/file-nr', 'utf8').split('\t').map(Number);
  if (filesMost - used < sockets.to * 2) throw new Skipped(`${sockets.to * 2} files need a higher fs.file-max than ${filesMost}`);
  const available = Number(/^MemAvailable:\s+(\d+) kB$/m.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1] ?? Infinity) * 1024;
  const needed = sockets.to * bytesPerConnection + workers * bytesPerWorker;
  if (available < needed) throw new Skipped(`it needs ${gib(needed)} GiB of memory; ${gib(available)} are free`);
}

const gib = (bytes: number) => (bytes / 2 ** 30).toFixed(1);
