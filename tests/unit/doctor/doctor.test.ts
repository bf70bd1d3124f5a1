import { afterAll, describe, expect, test } from 'bun:test';
import { checkDescriptors, checkFileTable, checkOwnLimit } from '../../../src/doctor/descriptors.ts';
import { connectionsAssumed } from '../../../src/doctor/goal.ts';
import { checkClock, checkIoUring, checkKernel } from '../../../src/doctor/kernel.ts';
import { checkHugePages, checkMemory, checkOvercommit, checkSwap } from '../../../src/doctor/memory.ts';
import { checkBun, checkCpus } from '../../../src/doctor/processors.ts';
import { cgroupMemoryLimit } from '../../../src/process/memory.ts';
import { goalOf, limits, machineOf, remediesOf, removeTrees } from '../../support/doctor-trees.ts';

afterAll(removeTrees);

describe('the goal', () => {
  test('is what the command line asks for, spread over the workers with a margin', () => {
    expect(goalOf({ connections: 100_000 })).toMatchObject({
      connections: 100_000,
      isAsked: true,
      workers: 2,
      connectionsPerWorker: 52_500,
    });
    expect(goalOf({ connections: 100_000, cpus: 1 })).toMatchObject({ workers: 1, connectionsPerWorker: 100_000 });
  });

  test('is what limits.maxConnections allows for, else an assumption', () => {
    const limited = goalOf({ config: { limits: { maxConnections: 3000 } } });
    expect(limited).toMatchObject({ connections: 6000, isAsked: true, connectionsPerWorker: 3000 });
    expect(goalOf()).toMatchObject({ connections: connectionsAssumed, isAsked: false });
  });
});

describe('kernel', () => {
  const kernel = (release: string) => checkKernel(machineOf({ '/proc/sys/kernel/osrelease': release }));

  test('6.1 and later are right', () => {
    for (const release of ['6.1.0-37-amd64\n', '6.12.5', '10.0']) expect(kernel(release)).toMatchObject({ verdict: 'ok' });
  });

  test('earlier ones are named, and work', () => {
    for (const release of ['6.0.9', '5.15.0-91-generic', '4.19.0'])
      expect(kernel(release)).toMatchObject({ verdict: 'advice', what: expect.stringContaining(release) });
  });

  test('what is no Linux is a problem', () => {
    expect(checkKernel(machineOf({}))).toMatchObject({ verdict: 'problem' });
    expect(kernel('unknown')).toMatchObject({ verdict: 'problem' });
  });
});

describe('io_uring', () => {
  const forbidden = 'io_uring: forbidden (Operation not permitted), most likely by a seccomp profile';
  const uring = { config: { io: { backend: 'io_uring' } } };

  test('a ring that works is right, with the polling thread when that was asked for', () => {
    expect(checkIoUring(machineOf({}), goalOf(), { why: undefined })).toMatchObject({
      verdict: 'ok',
      what: expect.stringContaining('4096 entries'),
    });
    const polled = goalOf({ config: { io: { sqpoll: {} } } });
    expect(checkIoUring(machineOf({}), polled, { why: undefined }).what).toContain('polling thread');
  });

  test('without one epoll takes over, which is advice; a problem when the config insists; nothing when it wants epoll', () => {
    const machine = machineOf({});
    expect(checkIoUring(machine, goalOf(), { why: forbidden })).toMatchObject({
      verdict: 'advice',
      what: `epoll takes its place: ${forbidden}`,
    });
    expect(checkIoUring(machine, goalOf(uring), { why: forbidden }).verdict).toBe('problem');
    expect(checkIoUring(machine, goalOf({ config: { io: { backend: 'epoll' } } }), { why: forbidden }).verdict).toBe('ok');
  });

  const remedies = (files: Record<string, string>, why: string) => remediesOf(checkIoUring(machineOf(files), goalOf(), { why }));

  test('the remedy is that of the cause: a sysctl for all', () => {
    expect(remedies({ '/proc/sys/kernel/io_uring_disabled': '2\n' }, forbidden)).toEqual(['host sysctl -w kernel.io_uring_disabled=0']);
  });

  test('a sysctl for all but one group', () => {
    const files = { '/proc/sys/kernel/io_uring_disabled': '1', '/proc/self/status': 'Gid:\t100\t100\t100\t100\nSeccomp:\t0\n' };
    expect(remedies(files, forbidden)).toEqual(['host sysctl -w kernel.io_uring_group=100', 'host sysctl -w kernel.io_uring_disabled=0']);
  });

  test('a seccomp filter', () => {
    const files = { '/proc/sys/kernel/io_uring_disabled': '0', '/proc/self/status': 'Seccomp:\t2\n' };
    expect(remedies(files, forbidden)).toEqual([
      'docker docker run --security-opt seccomp=docker/seccomp.json',
      'systemd SystemCallFilter=io_uring_setup io_uring_enter io_uring_register',
    ]);
  });

  test('locked memory, or memory altogether', () => {
    const noMemory = 'io_uring: no memory for the queues (ENOMEM)';
    expect(remedies({ '/proc/self/limits': limits('1024', '65536') }, noMemory)).toContain('shell ulimit -l unlimited');
    expect(remedies({ '/proc/self/limits': limits('1024') }, noMemory)).toEqual(['config io: { ringEntries: 1024 }']);
  });

  test('a kernel without it', () => {
    expect(remedies({}, 'io_uring: this kernel has none (ENOSYS)')).toEqual(['host install a kernel of version 6.1 or later']);
  });
});

describe('clock', () => {
  const folder = '/sys/devices/system/clocksource/clocksource0';
  const clock = (current: string, available: string) =>
    checkClock(machineOf({ [`${folder}/current_clocksource`]: `${current}\n`, [`${folder}/available_clocksource`]: `${available} \n` }));

  test('those that need no system call are right', () => {
    expect(clock('tsc', 'tsc hpet')?.verdict).toBe('ok');
    expect(clock('arch_sys_counter', 'arch_sys_counter')?.verdict).toBe('ok');
  });

  test('of others the better one is named, where there is one', () => {
    expect(remediesOf(clock('hpet', 'tsc hpet'))).toEqual([`host echo tsc > ${folder}/current_clocksource`]);
    const alone = clock('acpi_pm', 'acpi_pm');
    expect(alone?.verdict).toBe('advice');
    expect(remediesOf(alone).join()).toContain('clocksource=tsc');
  });

  test('nothing is said where it cannot be seen', () => {
    expect(checkClock(machineOf({}))).toBeUndefined();
  });
});

describe('bun', () => {
  test('the pinned version, a later one, an earlier one', () => {
    expect(checkBun({ running: '1.4.5', pinned: '1.4.5' }).verdict).toBe('ok');
    expect(checkBun({ running: '1.10.0', pinned: '1.4.5' }).verdict).toBe('advice');
    const old = checkBun({ running: '1.3.99', pinned: '1.4.5' });
    expect([old.verdict, ...remediesOf(old)]).toEqual(['problem', 'install npm install bun@1.4.5']);
  });
});

describe('cpus', () => {
  const check = (asked: Parameters<typeof goalOf>[0], cpus: number, quota = Number.POSITIVE_INFINITY) =>
    checkCpus(
      Array.from({ length: cpus }, (_, index) => index),
      quota,
      goalOf({ ...asked, cpus, cpuQuota: quota }),
    );

  test('a worker for each is right, pinned or not', () => {
    expect(check({}, 4)).toMatchObject({ verdict: 'ok', what: '4 by affinity: 4 workers, each on a CPU of its own' });
    expect(check({}, 4, 1.5)).toMatchObject({
      verdict: 'ok',
      what: '4 by affinity, of which the cgroup grants 1.5: 2 workers, not pinned',
    });
  });

  test('more workers than CPUs', () => {
    const finding = check({ config: { workers: 4 } }, 2);
    expect([finding.verdict, ...remediesOf(finding)]).toEqual(['advice', "config workers: 'auto'"]);
  });

  test('polling threads without CPUs of their own', () => {
    expect(remediesOf(check({ config: { io: { sqpoll: {} } } }, 2))).toEqual(['config io: { sqpoll: false }']);
    expect(check({ config: { workers: 1, io: { sqpoll: {} } } }, 2).verdict).toBe('ok');
  });

  test('less than one', () => {
    expect(check({}, 2, 0.5)).toMatchObject({ verdict: 'advice', what: expect.stringContaining('0.5') });
  });
});

describe('descriptors', () => {
  const check = (limit: string, asked: Parameters<typeof goalOf>[0], more: Record<string, string> = {}) =>
    checkDescriptors(machineOf({ '/proc/self/limits': limits(limit), ...more }), goalOf(asked));

  test('room for the goal is right, and so is no limit', () => {
    expect(check('30000', { connections: 50_000 })).toMatchObject({ verdict: 'ok', what: expect.stringContaining('29,741') });
    expect(check('unlimited', { connections: 10_000_000 })?.verdict).toBe('ok');
  });

  test('too few for what was asked for is a problem, for what is assumed advice', () => {
    const asked = check('20000', { connections: 50_000 });
    expect(asked?.verdict).toBe('problem');
    expect(remediesOf(asked)).toEqual([
      'shell ulimit -Hn 26509   # as root, in the shell that starts it',
      'systemd LimitNOFILE=26509',
      'docker docker run --ulimit nofile=26509:26509',
    ]);
    expect(check('20000', {})?.verdict).toBe('advice');
  });

  test('so few that no gateway works well are a problem in any case', () => {
    expect(check('1024', {})?.verdict).toBe('problem');
  });

  test('fs.nr_open comes first where it is in the way', () => {
    const finding = check('1048576', { connections: 3_000_000 }, { '/proc/sys/fs/nr_open': '1048576\n' });
    expect(remediesOf(finding)[0]).toBe('host sysctl -w fs.nr_open=1575259');
  });

  test('nothing is said where limits cannot be read', () => {
    expect(checkDescriptors(machineOf({}), goalOf())).toBeUndefined();
  });

  const fileTable = (most: string, connections: number) =>
    checkFileTable(machineOf({ '/proc/sys/fs/file-max': most, '/proc/sys/fs/file-nr': '5000\t0\t1\n' }), goalOf({ connections }));

  test('the table of the kernel has room, or not', () => {
    expect(fileTable('200000\n', 100_000)?.verdict).toBe('ok');
    const full = fileTable('100000\n', 100_000);
    expect(full?.verdict).toBe('problem');
    expect(remediesOf(full)).toEqual(['host sysctl -w fs.file-max=221036']);
    expect(checkFileTable(machineOf({}), goalOf())).toBeUndefined();
  });

  test("the config's own limit bears the goal, or not", () => {
    expect(checkOwnLimit(goalOf({ connections: 100_000 })).verdict).toBe('ok');
    const tight = checkOwnLimit(goalOf({ connections: 100_000, config: { limits: { maxConnections: 1000 } } }));
    expect([tight.verdict, ...remediesOf(tight)]).toEqual(['problem', 'config limits: { maxConnections: 52500 }']);
  });
});

describe('memory', () => {
  const meminfo = (kib: number) => ({ '/proc/meminfo': `MemTotal: ${kib} kB\n` });

  test('enough of it, or not', () => {
    expect(checkMemory(machineOf(meminfo(8_000_000)), goalOf({ connections: 100_000 }))?.verdict).toBe('ok');
    const scarce = checkMemory(machineOf(meminfo(512 * 1024)), goalOf({ connections: 100_000 }));
    expect(scarce).toMatchObject({ verdict: 'problem', what: expect.stringContaining('512 MiB; 100,000 connections') });
    expect(remediesOf(scarce)[0]).toMatch(/^config limits: \{ maxConnections: \d+ \}$/);
    expect(checkMemory(machineOf(meminfo(256 * 1024)), goalOf())?.verdict).toBe('advice');
  });

  test('TLS takes more', () => {
    const tls = goalOf({ connections: 100_000, config: { listen: { tls: { cert: import.meta.path, key: import.meta.path } } } });
    expect(checkMemory(machineOf(meminfo(1_900_000)), goalOf({ connections: 100_000 }))?.verdict).toBe('ok');
    expect(checkMemory(machineOf(meminfo(1_900_000)), tls)).toMatchObject({
      verdict: 'problem',
      what: expect.stringContaining('over TLS'),
    });
  });

  test('the cgroup counts, in both versions, with those above it', () => {
    const v2 = { '/proc/self/cgroup': '0::/a/b\n', '/sys/fs/cgroup/a/memory.max': '300000000\n', '/sys/fs/cgroup/a/b/memory.max': 'max\n' };
    expect(cgroupMemoryLimit(machineOf(v2).text)).toBe(300_000_000);
    const v1 = { '/proc/self/cgroup': '4:memory:/docker/abc\n', '/sys/fs/cgroup/memory/memory.limit_in_bytes': '9223372036854771712\n' };
    expect(cgroupMemoryLimit(machineOf(v1).text)).toBeGreaterThan(2 ** 60);
    const limit = { '/sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes': '268435456' };
    expect(cgroupMemoryLimit(machineOf({ ...v1, ...limit }).text)).toBe(268_435_456);
    const finding = checkMemory(machineOf({ ...v2, ...meminfo(16_000_000) }), goalOf({ connections: 100_000 }));
    expect(finding?.what).toContain('by the cgroup');
    expect(remediesOf(finding).slice(0, 2)).toEqual([
      expect.stringMatching(/^docker docker run --memory \d+m$/),
      expect.stringMatching(/^systemd MemoryMax=\d+M$/),
    ]);
  });

  test('what the remedy proposes passes', () => {
    const machine = machineOf(meminfo(512 * 1024));
    const proposed = /maxConnections: (\d+)/.exec(remediesOf(checkMemory(machine, goalOf({ connections: 100_000 }))).join())?.[1];
    expect(checkMemory(machine, goalOf({ config: { limits: { maxConnections: Number(proposed) } } }))?.verdict).toBe('ok');
  });

  test('transparent huge pages', () => {
    const check = (text: string) => checkHugePages(machineOf({ '/sys/kernel/mm/transparent_hugepage/enabled': text }));
    expect(check('always [madvise] never\n')?.verdict).toBe('ok');
    expect(check('always madvise [never]\n')?.verdict).toBe('ok');
    expect(check('[always] madvise never\n')?.verdict).toBe('advice');
    expect(checkHugePages(machineOf({}))).toBeUndefined();
  });

  test('strict overcommit is only told of where it is on, and judged by the room that is left', () => {
    const check = (mode: string, limitKib: number) =>
      checkOvercommit(
        machineOf({
          '/proc/sys/vm/overcommit_memory': mode,
          '/proc/meminfo': `CommitLimit: ${limitKib} kB\nCommitted_AS: 100000 kB\n`,
        }),
        goalOf(),
      );
    expect(check('0\n', 0)).toBeUndefined();
    expect(check('2\n', 8_000_000)?.verdict).toBe('ok');
    const tight = check('2\n', 500_000);
    expect([tight?.verdict, ...remediesOf(tight)]).toEqual([
      'problem',
      'host sysctl -w vm.overcommit_memory=0',
      'config limits: { maxConnections: 26250 }',
    ]);
  });

  test('swap is only told of where there is some, and judged by what is in use', () => {
    const check = (total: number, free: number) =>
      checkSwap(machineOf({ '/proc/meminfo': `MemTotal: 1000000 kB\nSwapTotal: ${total} kB\nSwapFree: ${free} kB\n` }));
    expect(check(0, 0)).toBeUndefined();
    expect(check(500_000, 480_000)?.verdict).toBe('ok');
    expect(check(500_000, 100_000)?.verdict).toBe('advice');
  });
});
