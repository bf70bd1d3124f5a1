import { describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import { Places, placesFor, placesMax } from '../../../src/supervisor/places.ts';

describe('places', () => {
  test('there are enough for two generations, of a small node for more workers too', () => {
    expect([placesFor(1, 1), placesFor(2, 64), placesFor(20, 4), placesFor(256, 8)]).toEqual([16, 128, 40, 512]);
    expect(placesFor(1, 4096)).toBe(placesMax);
  });

  test('a generation has a row of them, the lowest there is', () => {
    const places = new Places(8);
    expect([places.take(2), places.take(3), places.take(3)]).toEqual([0, 2, 5]);
    expect(places.take(1)).toBeUndefined();
    places.free(0, 0);
    places.free(3, 0);
    places.free(4, 0);
    expect([places.take(3), places.take(2), places.take(1)]).toEqual([undefined, 3, 0]);
    expect(places.used).toBe(8);
  });

  test('the longest row beside one is before or behind it', () => {
    const places = new Places(16);
    expect([places.longestBeside(0, 2), places.longestBeside(12, 4), places.longestBeside(5, 2)]).toEqual([14, 12, 9]);
  });

  test('restarts and processes of a place are counted over all that were there', () => {
    const places = new Places(2);
    places.take(1);
    expect([places.nextProcess(0), places.nextProcess(0)]).toEqual([0, 1]);
    places.free(0, 1);
    places.take(1);
    expect([places.nextProcess(0), places.restarts(0)]).toEqual([2, 1]);
    places.free(0, 3);
    expect([places.restarts(0), places.restarts(1), places.used]).toEqual([4, 0, 1]);
  });

  test('however generations come and go, no place has two at once, and what is free can be had', () => {
    const steps = fc.array(fc.oneof(fc.record({ take: fc.integer({ min: 1, max: 6 }) }), fc.record({ leave: fc.nat() })), {
      maxLength: 60,
    });
    fc.assert(
      fc.property(steps, (all) => {
        const places = new Places(12);
        const owner = new Map<number, number>();
        const rows: number[][] = [];
        const isFreeRow = (first: number, count: number) => Array.from({ length: count }, (_, i) => !owner.has(first + i)).every(Boolean);
        for (const [id, step] of all.entries()) {
          if ('take' in step) {
            const first = places.take(step.take);
            if (first === undefined) {
              for (let at = 0; at + step.take <= 12; at++) expect(isFreeRow(at, step.take)).toBe(false);
              continue;
            }
            expect(first >= 0 && first + step.take <= 12 && isFreeRow(first, step.take)).toBe(true);
            const row = Array.from({ length: step.take }, (_, i) => first + i);
            for (const place of row) owner.set(place, id);
            rows.push(row);
          } else if (rows.length > 0) {
            const [row] = rows.splice(step.leave % rows.length, 1);
            for (const place of row ?? []) {
              owner.delete(place);
              places.free(place, 0);
            }
          }
          expect([...owner.keys()].every((place) => place < places.used)).toBe(true);
        }
      }),
    );
  });
});
