/**
 * What /proc and /sys say of this machine and of this process.
 * Role: the only reader of files of the doctor. `root` stands before every path, so that tests can show another machine.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Remedy } from './finding.ts';

export interface ProcessLimit {
  readonly soft: number;
  readonly hard: number;
}

/** capabilities(7) */
const capNetBindService = 10n;

export class Machine {
  readonly #root: string;

  constructor(root = '/') {
    this.#root = root;
  }

  /** A file, or undefined when there is none or this user may not read it. */
  readonly text = (path: string): string | undefined => {
    try {
      return readFileSync(join(this.#root, path), 'utf8').trim();
    } catch {
      return undefined;
    }
  };

  has(path: string): boolean {
    return existsSync(join(this.#root, path));
  }

  /** The number that a file holds; undefined when there is none, or no number in it. */
  number(path: string): number | undefined {
    return this.numbers(path)?.[0];
  }

  /** The numbers that a file holds, apart by spaces; undefined when there is none, or something else in it. */
  numbers(path: string): number[] | undefined {
    const words = this.text(path)?.split(/\s+/).map(Number);
    return words === undefined || words.some(Number.isNaN) ? undefined : words;
  }

  /** `name` as sysctl(8) has it, such as 'net.core.somaxconn'. */
  sysctl(name: string): number | undefined {
    return this.number(sysctlPath(name));
  }

  /** A limit of this process by its name in /proc/PID/limits (proc_pid_limits(5)). Infinity: unlimited. */
  limit(name: string): ProcessLimit | undefined {
    const line = this.text('/proc/self/limits')
      ?.split('\n')
      .find((each) => each.startsWith(`${name} `));
    const [soft, hard] = line?.slice(name.length).trim().split(/\s+/) ?? [];
    if (soft === undefined || hard === undefined) return undefined;
    return { soft: limitNumber(soft), hard: limitNumber(hard) };
  }

  /** A field of /proc/self/status (proc_pid_status(5)). */
  status(field: string): string | undefined {
    return new RegExp(`^${field}:\\s*(.*)$`, 'm').exec(this.text('/proc/self/status') ?? '')?.[1];
  }

  /** A field of /proc/meminfo, in bytes. */
  memory(field: string): number | undefined {
    const kib = new RegExp(`^${field}:\\s+(\\d+) kB$`, 'm').exec(this.text('/proc/meminfo') ?? '')?.[1];
    return kib === undefined ? undefined : Number(kib) * 1024;
  }

  get pageBytes(): number {
    const kib = /^KernelPageSize:\s+(\d+) kB$/m.exec(this.text('/proc/self/smaps') ?? '')?.[1];
    return kib === undefined ? 4096 : Number(kib) * 1024;
  }

  /** The CPUs of the affinity mask. */
  get cpus(): number[] {
    return (this.status('Cpus_allowed_list') ?? '').split(',').flatMap((range) => {
      const [from, to = from] = range.split('-').map(Number);
      if (from === undefined || to === undefined || range === '' || Number.isNaN(from + to)) return [];
      return Array.from({ length: to - from + 1 }, (_, index) => from + index);
    });
  }

  /** Whether this process runs in a container, whose own files these are. */
  get isContainer(): boolean {
    return this.has('/.dockerenv') || this.has('/run/.containerenv') || this.has('/var/run/secrets/kubernetes.io');
  }

  /** Whether this process may listen on ports that are the administrator's. */
  get mayBindLowPorts(): boolean {
    const mask = this.status('CapEff');
    return mask !== undefined && /^[0-9a-f]+$/.test(mask) && ((BigInt(`0x${mask}`) >> capNetBindService) & 1n) === 1n;
  }

  /** How to set a sysctl. Those of the network belong to the container, all others to the host. */
  setSysctl(name: string, value: number | string): Remedy {
    const text = String(value);
    const quoted = text.includes(' ') ? `"${text}"` : text;
    if (this.isContainer && name.startsWith('net.') && !hostOnly.includes(name))
      return { where: 'docker', change: `docker run --sysctl ${name}=${quoted}` };
    return { where: 'host', change: `sysctl -w ${name}=${quoted}` };
  }
}

/** Of the network, and yet of the whole machine. */
const hostOnly = ['net.ipv4.tcp_mem', 'net.netfilter.nf_conntrack_max'];

function sysctlPath(name: string): string {
  return `/proc/sys/${name.replaceAll('.', '/')}`;
}

function limitNumber(text: string): number {
  return text === 'unlimited' ? Number.POSITIVE_INFINITY : Number(text);
}
