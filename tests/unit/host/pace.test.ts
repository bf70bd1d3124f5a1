import { describe, expect, test } from 'bun:test';
import { Pace } from '../../../src/host/pace.ts';

/** Batches as a flood makes them: always as many as are let in, each event of so many microseconds. */
function flood(pace: Pace, us: number, batches: number): void {
  for (let i = 0; i < batches; i++) pace.note(pace.limit, (pace.limit * us) / 1000);
}

describe('the size of a batch', () => {
  test('lets handlers of 20 µs run for about the time of a visit', () => {
    const pace = new Pace(2, 4096);
    flood(pace, 20, 20);
    expect(pace.limit).toBeGreaterThan(48);
    expect(pace.limit).toBeLessThanOrEqual(100);
  });

  test('is found in one batch when handlers are dear', () => {
    const pace = new Pace(2, 4096);
    flood(pace, 50, 1);
    expect(pace.limit).toBe(40);
  });

  test('leaves a burst of one client together, unless that takes far longer than a visit', () => {
    const pace = new Pace(2, 4096);
    flood(pace, 200, 5);
    expect(pace.limit).toBe(32);
    flood(pace, 1000, 5);
    expect(pace.limit).toBe(10);
    pace.note(10, 500); // the process has lost its CPU
    expect(pace.limit).toBe(1);
    flood(pace, 200, 10);
    expect(pace.limit).toBe(32);
  });

  test('never limits handlers that a full batch of takes no longer', () => {
    const pace = new Pace(2, 4096);
    flood(pace, 0.2, 4);
    expect(pace.limit).toBe(4096);
    flood(pace, 0.2, 1000);
    expect(pace.limit).toBe(4096);
  });

  test('is one event at least, and comes back once they are cheap again', () => {
    const pace = new Pace(2, 4096);
    flood(pace, 50_000, 5);
    expect(pace.limit).toBe(1);
    flood(pace, 0.2, 13);
    expect(pace.limit).toBe(4096);
  });

  test('begins anew after a quiet time, since nobody knows what comes then', () => {
    const pace = new Pace(2, 4096);
    flood(pace, 0.2, 10);
    for (let i = 0; i < 10; i++) pace.note(1, 0.02);
    expect(pace.limit).toBe(512);
  });

  test('is not made smaller by a lone event, however cold', () => {
    const pace = new Pace(2, 4096);
    for (let i = 0; i < 100; i++) pace.note(1, 0.5);
    expect(pace.limit).toBe(512);
    expect(pace.note(1, 0.5)).toBe(false);
  });
});
