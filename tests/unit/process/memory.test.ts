import { describe, expect, test } from 'bun:test';
import { availableMemory, inflateBytesOf, topicMemoryBytesOf, unfinishedBytesOf } from '../../../src/process/memory.ts';

const gibi = 2 ** 30;
const files = (all: Record<string, string>) => (path: string) => all[path];
const machine = { '/proc/meminfo': 'MemTotal:        8388608 kB\nMemFree:  1 kB\n' };
const grouped = { ...machine, '/proc/self/cgroup': '0::/app\n' };

describe('memory that this process may use', () => {
  test('is that of the machine, or what any cgroup above grants when that is less', () => {
    expect(availableMemory(files(machine))).toBe(8 * gibi);
    expect(availableMemory(files({ ...grouped, '/sys/fs/cgroup/app/memory.max': 'max\n' }))).toBe(8 * gibi);
    expect(availableMemory(files({ ...grouped, '/sys/fs/cgroup/app/memory.max': '536870912\n' }))).toBe(gibi / 2);
    expect(availableMemory(files({ ...grouped, '/sys/fs/cgroup/memory.max': '268435456\n' }))).toBe(gibi / 4);
    expect(availableMemory(files({ ...grouped, '/sys/fs/cgroup/app/memory.max': `${64 * gibi}\n` }))).toBe(8 * gibi);
  });
  test('where nothing tells, it is little', () => {
    expect(availableMemory(() => undefined)).toBe(gibi);
  });
});

describe('what a worker may hold of what is unfinished', () => {
  test('by itself a quarter of the memory, divided by the workers, and never next to nothing', () => {
    const read = files({ ...grouped, '/sys/fs/cgroup/app/memory.max': `${gibi}\n` });
    expect(unfinishedBytesOf('auto', 1, read)).toBe(gibi / 4);
    expect(unfinishedBytesOf('auto', 4, read)).toBe(gibi / 16);
    expect(unfinishedBytesOf('auto', 64, read)).toBe(16 * 2 ** 20);
  });
  test('as it is written, divided by the workers', () => {
    expect(unfinishedBytesOf(gibi, 4)).toBe(gibi / 4);
    expect(unfinishedBytesOf(2 ** 20, 256)).toBe(4096);
  });
});

test('what a worker may hold of windows of clients: an eighth of the memory, or as it is written', () => {
  const read = files({ ...grouped, '/sys/fs/cgroup/app/memory.max': `${gibi}\n` });
  expect(inflateBytesOf('auto', 2, read)).toBe(gibi / 16);
  expect(inflateBytesOf('auto', 64, read)).toBe(4 * 2 ** 20);
  expect(inflateBytesOf(2 ** 20, 4)).toBe(2 ** 18);
});

test('what a node keeps of topics: an eighth of the memory within bounds, or as it is written, in whole pages', () => {
  const read = (bytes: number) => files({ ...grouped, '/sys/fs/cgroup/app/memory.max': `${bytes}\n` });
  expect(topicMemoryBytesOf('auto', read(2 * gibi))).toBe(gibi / 4);
  expect(topicMemoryBytesOf('auto', read(gibi / 4))).toBe(64 * 2 ** 20);
  expect(topicMemoryBytesOf('auto', files({ '/proc/meminfo': 'MemTotal: 99999999 kB\n' }))).toBe(gibi);
  expect(topicMemoryBytesOf(10_000_000)).toBe(2441 * 4096);
});
