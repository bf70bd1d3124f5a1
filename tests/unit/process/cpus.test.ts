import { describe, expect, test } from 'bun:test';
import { cgroupCpuQuota, planCpus } from '../../../src/process/cpus.ts';

const files = (contents: Readonly<Record<string, string>>) => (path: string) => contents[path];

describe('cgroupCpuQuota', () => {
  test('version 2: the least of the group and those above it', () => {
    const read = files({
      '/proc/self/cgroup': '0::/kubepods/pod1\n',
      '/sys/fs/cgroup/kubepods/pod1/cpu.max': '400000 100000\n',
      '/sys/fs/cgroup/kubepods/cpu.max': '150000 100000\n',
      '/sys/fs/cgroup/cpu.max': 'max 100000\n',
    });
    expect(cgroupCpuQuota(read)).toBe(1.5);
  });

  test('version 2 in a container, where only the root of the mount is there', () => {
    expect(cgroupCpuQuota(files({ '/proc/self/cgroup': '0::/../../docker/abc\n', '/sys/fs/cgroup/cpu.max': '50000 100000' }))).toBe(0.5);
  });

  test('version 1', () => {
    const folder = '/sys/fs/cgroup/cpu,cpuacct/docker/abc';
    const read = files({
      '/proc/self/cgroup': '12:cpuset:/\n4:cpu,cpuacct:/docker/abc\n',
      [`${folder}/cpu.cfs_quota_us`]: '200000\n',
      [`${folder}/cpu.cfs_period_us`]: '100000\n',
    });
    expect(cgroupCpuQuota(read)).toBe(2);
  });

  test('no limit, no cgroup, and files that make no sense', () => {
    expect(cgroupCpuQuota(files({}))).toBe(Number.POSITIVE_INFINITY);
    expect(
      cgroupCpuQuota(
        files({ '/proc/self/cgroup': '0::/\n1:cpu:/\n', '/sys/fs/cgroup/cpu.max': 'max', '/sys/fs/cgroup/cpu/cpu.cfs_quota_us': '-1' }),
      ),
    ).toBe(Number.POSITIVE_INFINITY);
    expect(cgroupCpuQuota(files({ '/proc/self/cgroup': '0::/a\n', '/sys/fs/cgroup/a/cpu.max': 'x y' }))).toBe(Number.POSITIVE_INFINITY);
  });
});

describe('planCpus', () => {
  test("'auto' takes each CPU of the affinity mask once", () => {
    expect(planCpus('auto', true, [2, 5, 7], Number.POSITIVE_INFINITY)).toEqual({ workers: 3, cpus: [2, 5, 7] });
  });

  test('a quota limits the workers, rounded up, and leaves them unpinned', () => {
    expect(planCpus('auto', true, [0, 1, 2, 3], 1.5)).toEqual({ workers: 2, cpus: [null, null] });
    expect(planCpus('auto', true, [0, 1], 0.1)).toEqual({ workers: 1, cpus: [null] });
  });

  test('more workers than CPUs share them in turn', () => {
    expect(planCpus(3, true, [4, 6], 8).cpus).toEqual([4, 6, 4]);
  });

  test('affinity: false pins none', () => {
    expect(planCpus(2, false, [0, 1], Number.POSITIVE_INFINITY).cpus).toEqual([null, null]);
  });
});
