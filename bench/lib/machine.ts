/** The machine that numbers come from, and which of its CPUs serve what. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { loadavg, release } from 'node:os';

export interface Machine {
  readonly cpu: string;
  readonly cpus: number;
  readonly kernel: string;
  readonly bun: string;
  readonly node: string;
  readonly loadAverage: number;
}

export interface Cpus {
  readonly server: number;
  readonly client: number;
}

/** The first two CPUs that this process may use. Throws when there is one only: client and server would take turns on it. */
export function chooseCpus(): Cpus {
  const [server, client] = allowedCpus();
  if (server === undefined || client === undefined)
    throw new Error('a measurement needs two CPUs, one for the server and one for the client');
  return { server, client };
}

function allowedCpus(): number[] {
  const list = /^Cpus_allowed_list:\s+(\S+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '';
  return list.split(',').flatMap((range) => {
    const [from = 0, to = from] = range.split('-').map(Number);
    return Array.from({ length: to - from + 1 }, (_, index) => from + index);
  });
}

export function describeMachine(): Machine {
  const models = [...readFileSync('/proc/cpuinfo', 'utf8').matchAll(/^model name\s*:\s*(.+)$/gm)];
  return {
    cpu: models[0]?.[1] ?? process.arch,
    cpus: allowedCpus().length,
    kernel: release(),
    bun: Bun.version,
    node: nodeVersion(),
    loadAverage: loadavg()[0] ?? 0,
  };
}

function nodeVersion(): string {
  try {
    return execFileSync('node', ['--version'], { encoding: 'utf8' }).trim().slice(1);
  } catch {
    return 'none';
  }
}
