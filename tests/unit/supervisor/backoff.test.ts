import { describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import { healthyMs, loopCrashes, RestartBackoff } from '../../../src/supervisor/backoff.ts';

const noJitter = () => 0.5;

describe('RestartBackoff', () => {
  test('the first restart is immediate, then delays double from 0.1 s to 10 s', () => {
    const backoff = new RestartBackoff(noJitter);
    const delays = Array.from({ length: 10 }, () => backoff.crashed(1000, undefined).delayMs);
    expect(delays).toEqual([0, 100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
  });

  test('a healthy time forgives earlier crashes', () => {
    const backoff = new RestartBackoff(noJitter);
    for (let crash = 0; crash < 8; crash++) backoff.crashed(1000, undefined);
    expect(backoff.crashed(5000 + healthyMs, 5000)).toEqual({ delayMs: 0, loopBegins: false });
    expect(backoff.crashed(5001 + healthyMs, undefined).delayMs).toBe(100);
  });

  test('a worker that was ready for less than the healthy time backs off', () => {
    const backoff = new RestartBackoff(noJitter);
    backoff.crashed(0, undefined);
    expect(backoff.crashed(healthyMs, 1).delayMs).toBe(100);
  });

  test('a crash loop begins once, and lasts until the worker is healthy', () => {
    const backoff = new RestartBackoff(noJitter);
    const begins = Array.from({ length: loopCrashes + 2 }, (_, index) => backoff.crashed(index * 100, undefined).loopBegins);
    expect(begins).toEqual([false, false, false, false, true, false, false]);
    expect(backoff.isLooping(600_000, undefined)).toBe(true);
    expect(backoff.isLooping(600_000, 599_999)).toBe(true);
    expect(backoff.isLooping(600_000, 600_000 - healthyMs)).toBe(false);
  });

  test('rare crashes are no loop', () => {
    const backoff = new RestartBackoff(noJitter);
    for (let crash = 0; crash < 20; crash++) expect(backoff.crashed(crash * 9000, undefined).loopBegins).toBe(false);
  });

  test('jitter stays within a quarter of the delay and under the longest', () => {
    fc.assert(
      fc.property(fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true }), fc.integer({ min: 1, max: 40 }), (random, crashes) => {
        const backoff = new RestartBackoff(() => random);
        let delay = 0;
        for (let crash = 0; crash <= crashes; crash++) delay = backoff.crashed(0, undefined).delayMs;
        const exact = 100 * 2 ** (crashes - 1);
        expect(delay).toBeGreaterThanOrEqual(Math.min(10_000, Math.floor(exact * 0.75)));
        expect(delay).toBeLessThanOrEqual(Math.min(10_000, Math.ceil(exact * 1.25)));
      }),
    );
  });
});
