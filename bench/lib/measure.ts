/** One measurement of one workload on one server. */
import { LoadClient, type LoadOptions, type LoadProgram, type LoadReport } from './load-client.ts';
import { measureCommands } from './measure-commands.ts';
import { measureIdle, measureMemory } from './measure-held.ts';
import { measureReload } from './measure-reload.ts';
import { measureSilence } from './measure-silence.ts';
import type { Measurement } from './measurement.ts';
import { cpuNs } from './process-tree.ts';
import { portOf, type Server } from './servers.ts';
import type { Workload } from './workloads.ts';

export interface MeasureOptions {
  readonly server: Server;
  readonly clientCpu: number;
  readonly seconds: number;
}

/** Long enough for Bun's and Node's compilers to have seen the hot paths. */
const warmupMs = 2000;
/** Of a server that has warmed up before: until its connections have come to rest. */
const sliceWarmupMs = 500;
/** Of a server that is measured from its beginning on: after that it is not what it was. */
const freshSecondsMax = 6;
/** Until the server has taken note of connections that have ended. */
const afterwardsMs = 500;
/** How far below the rate that was asked for a load may be: what came back late still counts in full. */
const rateTolerance = 0.1;

export function measure(workload: Workload, options: MeasureOptions): Promise<Measurement> {
  switch (workload.kind) {
    case 'cpu':
    case 'latency':
      return measureTraffic(workload, options);
    case 'connect':
      return measureConnect(workload, options);
    case 'memory':
      return measureMemory(workload, options);
    case 'idle':
      return measureIdle(workload, options);
    case 'silence':
      return measureSilence(options.server);
    case 'commands':
      return measureCommands(workload, options);
    case 'faults':
      return measureReload(workload.load, options.server, options.clientCpu);
    default:
      return workload.kind satisfies never;
  }
}

function loadOptions({ server, clientCpu }: MeasureOptions, args: readonly string[], program: LoadProgram = 'load'): LoadOptions {
  const api = program === 'topics' ? ['--api-port', String(server.apiPort)] : [];
  return { program, args: [...args, ...api, ...server.loadOptions], port: portOf(server), cpu: clientCpu };
}

/** Of all processes of a server together. */
function cpuNsOf(server: Server): number {
  return server.processes.reduce((sum, { pid }) => sum + cpuNs(pid), 0);
}

async function measureTraffic(workload: Workload, options: MeasureOptions): Promise<Measurement> {
  const { server } = options;
  const isFresh = workload.turns?.servers === 'fresh';
  const seconds = isFresh ? Math.min(options.seconds, freshSecondsMax) : options.seconds;
  const warmup = workload.turns === undefined ? warmupMs : isFresh ? 0 : sliceWarmupMs;
  const args = [...workload.load, '--warmup-ms', String(warmup), '--seconds', String(seconds)];
  const client = new LoadClient(loadOptions(options, args, workload.program));
  await client.line('measure-begin');
  const beganNs = cpuNsOf(server);
  const began = performance.now();
  await client.line('measure-end');
  const usedNs = cpuNsOf(server) - beganNs;
  const elapsedMs = performance.now() - began;
  const report = await client.report();
  const messages = report.deliveries === undefined ? (report.messages ?? 0) : report.deliveries + (report.publisher_deliveries ?? 0);
  if (messages === 0) throw new Error(`${server.name}: nothing came back while it was measured`);
  checkRate(workload, report, server);
  const { p50_us: p50, p99_us: p99 = Number.NaN, p999_us: p999 = Number.NaN } = report;
  const value = workload.kind === 'cpu' ? usedNs / 1000 / messages : (p50 ?? Number.NaN);
  // The load client of topics measures no latencies.
  const latencies = p50 === undefined ? {} : { p50, p99, p999 };
  return { value, perSecond: (messages / elapsedMs) * 1000, busy: usedNs / 1e6 / elapsedMs, ...latencies };
}

/** A message more or less is no fault. */
function checkRate({ rate }: Workload, { per_second: reached = 0, seconds = 1 }: LoadReport, { name }: Server): void {
  if (rate !== undefined && rate - reached > rate * rateTolerance + 2 / seconds)
    throw new Error(`${name}: ${Math.round(reached)} a second came back instead of ${rate}: it, or the load client, does not keep up`);
}

/** What a server that is kept has to do before it is measured. */
export async function warmUp(load: readonly string[], options: MeasureOptions): Promise<void> {
  await new LoadClient(loadOptions(options, [...load, '--warmup-ms', '0', '--seconds', String(warmupMs / 1000)])).report();
  await Bun.sleep(afterwardsMs);
}

/** Messages a second that come back of a closed loop. */
export async function highestRate(load: readonly string[], options: MeasureOptions): Promise<number> {
  const args = [...load, '--warmup-ms', String(sliceWarmupMs), '--seconds', String(options.seconds)];
  const { per_second = Number.NaN } = await new LoadClient(loadOptions(options, args)).report();
  return per_second;
}

async function measureConnect(workload: Workload, options: MeasureOptions): Promise<Measurement> {
  const { server } = options;
  // Before the client is there: the first of its connections come at once. Unless it says that it prepares something.
  let beganNs = cpuNsOf(server);
  const client = new LoadClient(loadOptions(options, workload.load, workload.program));
  if (workload.program === 'topics') {
    await client.line('measure-begin');
    beganNs = cpuNsOf(server);
  }
  await client.line('measure-end');
  const usedNs = cpuNsOf(server) - beganNs;
  const { messages = 0, seconds = Number.NaN } = await client.report();
  await Bun.sleep(afterwardsMs);
  return { value: usedNs / 1000 / messages, perSecond: messages / seconds, busy: usedNs / 1e9 / seconds };
}
