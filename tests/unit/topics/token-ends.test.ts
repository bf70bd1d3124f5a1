import { afterEach, describe, expect, test } from 'bun:test';
import { TokenEnds } from '../../../src/topics/token-ends.ts';

const socket = (slot: number) => ({ slot, generation: 1 });

describe('ends of topic tokens', () => {
  const made: TokenEnds[] = [];
  afterEach(() => {
    for (const each of made.splice(0)) each.close();
  });

  function noted() {
    const clock = { now: 0 };
    const gone = new Set<number>();
    const ended: string[] = [];
    const ends = new TokenEnds({
      now: () => clock.now,
      isSubscribed: ({ slot }) => !gone.has(slot),
      onEnd: ({ slot }, topic) => ended.push(`${slot} ${topic}`),
    });
    made.push(ends);
    return { ends, clock, gone, ended };
  }

  test('come once, when they are over and not before', () => {
    const { ends, clock, ended } = noted();
    ends.note(socket(1), 'a', 5000);
    ends.note(socket(2), 'a', 9000);
    clock.now = 4999;
    ends.tick();
    expect(ended).toEqual([]);
    clock.now = 5000;
    ends.tick();
    ends.tick();
    expect([ended, ends.size]).toEqual([['1 a'], 1]);
  });

  test('are those of the newest token', () => {
    const { ends, clock, ended } = noted();
    ends.note(socket(1), 'a', 5000);
    ends.note(socket(1), 'a', 9000);
    ends.note(socket(2), 'a', 5000);
    ends.note(socket(2), 'a', undefined);
    clock.now = 8000;
    ends.tick();
    expect(ended).toEqual([]);
    clock.now = 9000;
    ends.tick();
    expect([ended, ends.size]).toEqual([['1 a'], 0]);
  });

  test('of connections that have left come to nothing, and are not kept', () => {
    const { ends, gone, ended } = noted();
    for (let slot = 0; slot < 50_000; slot++) {
      ends.note(socket(slot), 'a', Number.MAX_SAFE_INTEGER);
      gone.add(slot);
    }
    for (let tick = 0; tick < 60; tick++) ends.tick();
    expect([ended, ends.size]).toEqual([[], 0]);
  });
});
