import { describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import { Deadlines } from '../../../src/host/host-timers.ts';

describe('Deadlines', () => {
  test('tell the time until the earliest, and once that it has passed', () => {
    const deadlines = new Deadlines();
    expect(deadlines.next(0)).toBe(Number.POSITIVE_INFINITY);
    deadlines.add(30);
    deadlines.add(10);
    deadlines.add(20);
    expect(deadlines.next(4)).toBe(6);
    expect([deadlines.next(10), deadlines.next(10)]).toEqual([0, 10]);
    expect([deadlines.next(50), deadlines.next(50)]).toEqual([0, Number.POSITIVE_INFINITY]);
  });

  test('agree with a sorted list, whatever comes', () => {
    fc.assert(
      fc.property(fc.array(fc.record({ add: fc.double({ min: 0, max: 1000, noNaN: true }), step: fc.nat(50) })), (steps) => {
        const deadlines = new Deadlines();
        let model: number[] = [];
        let now = 0;
        for (const { add, step } of steps) {
          deadlines.add(add);
          model.push(add);
          now += step;
          const first = Math.min(...model);
          expect(deadlines.next(now)).toBe(first <= now ? 0 : first - now);
          model = model.filter((time) => time > now);
          if (model.length === 0) expect(deadlines.next(now)).toBe(Number.POSITIVE_INFINITY);
        }
      }),
    );
  });

  test('beyond their room nothing is certain until the latest, and no wait is long', () => {
    const deadlines = new Deadlines();
    for (let at = 0; at < 5000; at++) deadlines.add(1000 + at);
    expect(deadlines.next(0)).toBe(1);
    expect(deadlines.next(5098)).toBe(0);
    expect(deadlines.next(5098)).toBe(1);
    expect(deadlines.next(6000)).toBe(Number.POSITIVE_INFINITY);
  });
});
