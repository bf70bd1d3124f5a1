/** Trees of /proc and /sys as other machines have them, and what the doctor is asked about them. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { resolveConfig } from '../../src/config/resolve.ts';
import type { Finding } from '../../src/doctor/finding.ts';
import { type Goal, setGoal } from '../../src/doctor/goal.ts';
import { Machine } from '../../src/doctor/machine.ts';

const folders: string[] = [];

export type Tree = Readonly<Record<string, string>>;

/** A folder with these files; call `removeTrees` when all is done. */
export function makeTree(files: Tree): string {
  const root = mkdtempSync(join(tmpdir(), 'ringway-doctor-'));
  folders.push(root);
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  }
  return root;
}

export function machineOf(files: Tree): Machine {
  return new Machine(makeTree(files));
}

export function removeTrees(): void {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
}

export interface Asked {
  /** Options of a config beside `fetch`. */
  readonly config?: object;
  readonly connections?: number;
  /** CPUs of the affinity mask. */
  readonly cpus?: number;
  readonly cpuQuota?: number;
}

export function goalOf({ config = {}, connections, cpus = 2, cpuQuota = Number.POSITIVE_INFINITY }: Asked = {}): Goal {
  const wishes = resolveConfig({ fetch: () => new Response(), ...config }, {});
  return setGoal(
    wishes,
    connections,
    Array.from({ length: cpus }, (_, index) => index),
    cpuQuota,
  );
}

/** Its remedies, as 'where change'. */
export function remediesOf(finding: Finding | undefined): string[] {
  return (finding?.remedies ?? []).map(({ where, change }) => `${where} ${change}`);
}

/** /proc/self/limits with one line of each kind that the doctor reads. */
export function limits(files: string, memory = 'unlimited'): string {
  return [
    'Limit                     Soft Limit           Hard Limit           Units     ',
    `Max locked memory         ${memory}             ${memory}             bytes     `,
    `Max open files            ${files}                ${files}                files     `,
    'Max file locks            unlimited            unlimited            locks     ',
  ].join('\n');
}

/** A machine on which nothing is wrong. */
export const healthyTree: Tree = {
  '/proc/sys/kernel/osrelease': '6.12.5-amd64\n',
  '/proc/sys/kernel/io_uring_disabled': '0\n',
  '/proc/self/limits': limits('1048576'),
  '/proc/self/status': 'Name:\tbun\nGid:\t1000\t1000\t1000\t1000\nCapEff:\t0000000000000000\nSeccomp:\t0\nCpus_allowed_list:\t0-3\n',
  '/proc/self/cgroup': '0::/\n',
  '/proc/self/smaps': '00400000-00401000 r--p 00000000 00:00 0\nSize:  4 kB\nKernelPageSize:        4 kB\n',
  '/proc/meminfo': 'MemTotal:       16000000 kB\nMemFree:        8000000 kB\nSwapTotal:             0 kB\nSwapFree:              0 kB\n',
  '/proc/net/if_inet6': '00000000000000000000000000000001 01 80 10 80       lo\n',
  '/proc/sys/fs/file-max': '9223372036854775807\n',
  '/proc/sys/fs/file-nr': '2112\t0\t9223372036854775807\n',
  '/proc/sys/fs/nr_open': '1048576\n',
  '/proc/sys/net/core/somaxconn': '4096\n',
  '/proc/sys/net/ipv4/ip_local_port_range': '32768\t60999\n',
  '/proc/sys/net/ipv4/ip_local_reserved_ports': '\n',
  '/proc/sys/net/ipv4/ip_unprivileged_port_start': '1024\n',
  '/proc/sys/net/ipv4/tcp_max_syn_backlog': '4096\n',
  '/proc/sys/net/ipv4/tcp_mem': '188000\t251000\t376000\n',
  '/proc/sys/net/ipv4/tcp_syncookies': '1\n',
  '/proc/sys/net/ipv6/conf/all/disable_ipv6': '0\n',
  '/proc/sys/vm/overcommit_memory': '0\n',
  '/sys/devices/system/clocksource/clocksource0/available_clocksource': 'tsc hpet acpi_pm\n',
  '/sys/devices/system/clocksource/clocksource0/current_clocksource': 'tsc\n',
  '/sys/kernel/mm/transparent_hugepage/enabled': 'always [madvise] never\n',
};
