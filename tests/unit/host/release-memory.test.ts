import { beforeEach, expect, test } from 'bun:test';
import type { Core } from '../../../src/core/core.ts';
import { statIndex } from '../../../src/core/stat-index.ts';
import { releaseMemoryWhenQuiet } from '../../../src/host/release-memory.ts';

const accepts = statIndex('accepts');
const messages = statIndex('ws_messages_in');
let counters: Map<number, number>;
let released: number;
let tick: () => void;

const add = (index: number, count: number) => counters.set(index, (counters.get(index) ?? 0) + count);
const pass = (seconds: number) => {
  for (let at = 0; at < seconds; at++) tick();
};

beforeEach(() => {
  counters = new Map();
  released = 0;
  const core = { readStat: (index: number) => counters.get(index) ?? 0 } as unknown as Core;
  const every = (call: () => void) => {
    tick = call;
    return () => {};
  };
  releaseMemoryWhenQuiet(core, () => released++, every);
});

test('a burst of connections is followed by one release, once it has been quiet for a while', () => {
  add(accepts, 5000);
  pass(2);
  expect(released).toBe(0);
  pass(4);
  expect(released).toBe(1);
  pass(600);
  expect(released).toBe(1);
});

test('a few connections are not worth it', () => {
  add(accepts, 499);
  pass(60);
  expect(released).toBe(0);
  add(accepts, 1);
  pass(10);
  expect(released).toBe(1);
});

test('while messages go to and fro nothing is released', () => {
  add(accepts, 5000);
  for (let second = 0; second < 60; second++) {
    add(messages, 51);
    pass(1);
  }
  expect(released).toBe(0);
  pass(4);
  expect(released).toBe(1);
});

test('each burst has its release', () => {
  for (let burst = 1; burst <= 3; burst++) {
    add(accepts, 500);
    pass(6);
    expect(released).toBe(burst);
  }
});
