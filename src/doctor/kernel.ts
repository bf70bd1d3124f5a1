/** Checks of the kernel: its version, whether the core gets an io_uring here, and its clock. */
import { advice, type Finding, ok, problem, type Remedy } from './finding.ts';
import type { Goal } from './goal.ts';
import type { Machine } from './machine.ts';

/** Below it the core does without some of what makes io_uring cheap, or without io_uring. */
const kernelWanted = [6, 1] as const;

export function checkKernel(machine: Machine): Finding {
  const release = machine.text('/proc/sys/kernel/osrelease');
  const [, major, minor] = /^(\d+)\.(\d+)/.exec(release ?? '') ?? [];
  if (release === undefined || major === undefined || minor === undefined)
    return problem('kernel', 'this is not Linux, or /proc is not mounted: Ringway runs on Linux only', {
      where: 'host',
      change: 'mount -t proc proc /proc',
    });
  const isOld = Number(major) < kernelWanted[0] || (Number(major) === kernelWanted[0] && Number(minor) < kernelWanted[1]);
  if (!isOld) return ok('kernel', `Linux ${release}`);
  return advice('kernel', `Linux ${release}: io_uring as Ringway uses it needs ${kernelWanted.join('.')} or later; epoll takes its place`, {
    where: 'host',
    change: 'install a later kernel, such as the one of Debian 12 or Ubuntu 24.04',
  });
}

/** What the core said when it was asked for a ring. */
export interface RingTrial {
  /** Why it has none; undefined: it has one. */
  readonly why: string | undefined;
}

export function checkIoUring(machine: Machine, goal: Goal, { why }: RingTrial): Finding {
  const { backend, ringEntries, sqpoll } = goal.io;
  const kind = sqpoll === false ? '' : ' with a polling thread';
  if (why === undefined) {
    const note = backend === 'epoll' ? "; the config asks for epoll (io.backend: 'epoll')" : '';
    return ok('io_uring', `the core has set up a ring of ${ringEntries} entries${kind}, and received through it${note}`);
  }
  if (backend === 'epoll') return ok('io_uring', `not to be had, and not wanted (io.backend: 'epoll'): ${why}`);
  const verdict = backend === 'io_uring' ? problem : advice;
  const outcome = backend === 'io_uring' ? "workers cannot start (io.backend: 'io_uring')" : 'epoll takes its place';
  return verdict('io_uring', `${outcome}: ${why}`, ...ioUringRemedies(machine, goal, why));
}

function ioUringRemedies(machine: Machine, goal: Goal, why: string): Remedy[] {
  const disabled = machine.sysctl('kernel.io_uring_disabled') ?? 0;
  if (disabled === 1) {
    const group = machine.status('Gid')?.split(/\s+/)[0] ?? '0';
    return [
      { where: 'host', change: `sysctl -w kernel.io_uring_group=${group}` },
      { where: 'host', change: 'sysctl -w kernel.io_uring_disabled=0' },
    ];
  }
  if (disabled > 1) return [{ where: 'host', change: 'sysctl -w kernel.io_uring_disabled=0' }];
  if (why.includes('ENOMEM')) {
    const locked = machine.limit('Max locked memory');
    if (locked !== undefined && locked.hard !== Number.POSITIVE_INFINITY)
      return [
        { where: 'shell', change: 'ulimit -l unlimited' },
        { where: 'systemd', change: 'LimitMEMLOCK=infinity' },
        { where: 'docker', change: 'docker run --ulimit memlock=-1' },
      ];
    return [{ where: 'config', change: `io: { ringEntries: ${Math.max(16, goal.io.ringEntries / 4)} }` }];
  }
  // Mode 2 is a filter (proc_pid_status(5)).
  if (machine.status('Seccomp') === '2')
    return [
      { where: 'docker', change: 'docker run --security-opt seccomp=docker/seccomp.json' },
      { where: 'systemd', change: 'SystemCallFilter=io_uring_setup io_uring_enter io_uring_register' },
    ];
  if (why.includes('ENOSYS') || why.includes('later')) return [{ where: 'host', change: 'install a kernel of version 6.1 or later' }];
  return [{ where: 'config', change: "io: { backend: 'epoll' } silences this" }];
}

const clockFolder = '/sys/devices/system/clocksource/clocksource0';
/** Read without a system call (vdso(7)). */
const fastClocks = ['tsc', 'kvm-clock', 'hyperv_clocksource_tsc_page', 'arch_sys_counter'];

export function checkClock(machine: Machine): Finding | undefined {
  const current = machine.text(`${clockFolder}/current_clocksource`);
  if (current === undefined) return undefined;
  if (fastClocks.includes(current)) return ok('clock', `${current}, which is read without a system call`);
  const available = machine.text(`${clockFolder}/available_clocksource`)?.split(/\s+/) ?? [];
  const better = fastClocks.find((name) => available.includes(name));
  return advice(
    'clock',
    `${current}: each reading of it is a system call, and the event loop reads it every turn`,
    better === undefined
      ? { where: 'host', change: 'boot the kernel with clocksource=tsc, if the CPU and the hypervisor keep that one in step' }
      : { where: 'host', change: `echo ${better} > ${clockFolder}/current_clocksource` },
  );
}
