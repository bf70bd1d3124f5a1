/**
 * `npm run bench`: Ringway and its peers under the same load, in turn, on the same two CPUs.
 *
 * Ends with 0 when every run was sound, whether or not targets are reached; with 1 when one broke; with 64 for bad options.
 * bench/README.md tells the method and how to read the result.
 */
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { ensureCentrifugo } from './lib/centrifugo.ts';
import { removeCertificate } from './lib/certificate.ts';
import { buildFloor, buildLoadClient, killLoadClients } from './lib/load-client.ts';
import { type Cpus, chooseCpus, describeMachine } from './lib/machine.ts';
import { measure } from './lib/measure.ts';
import { checkRoom } from './lib/measure-held.ts';
import { measureInTurn } from './lib/measure-turns.ts';
import { type Measurement, Skipped } from './lib/measurement.ts';
import { type BenchOptions, parseOptions, UsageError, usage } from './lib/options.ts';
import { ensurePackages } from './lib/packages.ts';
import { killRedis } from './lib/redis.ts';
import { jsonReport, machineLine, markdownTable, progressLine, type Result, type Round, textTable } from './lib/report.ts';
import { heavyPackageOf, isCentrifugo, killServers, type ServerName, startServer } from './lib/servers.ts';
import { isMeant, serversOf, type Workload, workloads } from './lib/workloads.ts';

/** Above this, something else runs that numbers will show. */
const quietLoadAverage = 0.5;

function stopEverything(): void {
  killLoadClients();
  killServers();
  killRedis();
  removeCertificate();
}

/** Servers are started anew for each round at least: neither heap nor compiled code of an earlier workload is in its numbers. */
async function measureRound(workload: Workload, names: readonly ServerName[], options: BenchOptions, cpus: Cpus): Promise<Round> {
  const start = (name: ServerName) =>
    startServer(name, { cpu: cpus.server, clientCpu: cpus.client, backend: options.backend, mode: workload.mode });
  const measuring = { start, clientCpu: cpus.client, seconds: options.seconds };
  checkRoom(workload);
  const round: Round = {};
  const add = (name: ServerName, measurement: Measurement) => {
    round[name] = measurement;
    console.error(progressLine(workload, name, measurement));
  };
  if (workload.turns !== undefined) {
    for (const [name, measurement] of await measureInTurn(workload, workload.turns, names, measuring)) add(name, measurement);
    return round;
  }
  for (const name of names) {
    const server = await start(name);
    try {
      add(name, await measure(workload, { server, ...measuring }));
    } finally {
      await server.stop();
    }
  }
  return round;
}

async function runWorkload(workload: Workload, options: BenchOptions, cpus: Cpus): Promise<Result> {
  const servers = serversOf(workload, options.peers);
  const rounds: Round[] = [];
  console.error(`\n${workload.name}: ${workload.title}`);
  for (let number = 1; number <= options.rounds; number++) {
    console.error(`  round ${number}`);
    try {
      rounds.push(await measureRound(workload, servers, options, cpus));
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      if (error instanceof Skipped) {
        console.error(`    skipped: ${message}`);
        return { workload, rounds, skipped: message };
      }
      console.error(`    broke: ${message}`);
      return { workload, rounds, error: message };
    }
  }
  return { workload, rounds };
}

async function run(options: BenchOptions): Promise<number> {
  const chosen = workloads.filter((workload) => options.only.length === 0 || options.only.some((part) => isMeant(workload, part)));
  const servers = new Set(chosen.flatMap((workload) => serversOf(workload, options.peers)));
  ensurePackages([...servers].flatMap((name) => heavyPackageOf(name) ?? []));
  buildLoadClient();
  if ([...servers].some(isCentrifugo)) ensureCentrifugo();
  if (servers.has('floor')) buildFloor();
  const machine = describeMachine();
  const cpus = chooseCpus();
  // This process only waits and reads; it must not do so on the server's CPU.
  execFileSync('taskset', ['-p', '-c', String(cpus.client), String(process.pid)], { stdio: 'ignore' });
  console.error(`${machineLine(machine)}; servers on CPU ${cpus.server}, client on CPU ${cpus.client}`);
  if (machine.loadAverage > quietLoadAverage) console.error('The machine is not quiet: take ratios of this run with care.');
  const results: Result[] = [];
  for (const workload of chosen) results.push(await runWorkload(workload, options, cpus));
  console.log(
    options.markdown ? `${machineLine(machine)}\n\n${markdownTable(results, options.peers)}` : `\n${textTable(results, options.peers)}`,
  );
  if (options.json !== undefined) writeFileSync(options.json, jsonReport(machine, results));
  return results.some(({ error }) => error !== undefined) ? 1 : 0;
}

process.on('exit', stopEverything);
for (const [signal, exitCode] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
  ['SIGHUP', 129],
] as const)
  process.on(signal, () => process.exit(exitCode));

try {
  const options = parseOptions(process.argv.slice(2));
  if (options === undefined) console.log(usage);
  process.exitCode = options === undefined ? 0 : await run(options);
} catch (error) {
  console.error(`bench: ${error instanceof Error ? error.message : error}`);
  process.exit(error instanceof UsageError ? 64 : 1);
}
