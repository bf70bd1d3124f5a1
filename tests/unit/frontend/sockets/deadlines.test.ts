/** Times by which many things are to happen, compared with a list that is searched. */
import { describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import { Deadlines, type Due } from '../../../../src/frontend/sockets/deadlines.ts';

interface Item extends Due {
  readonly name: number;
}
const item = (name: number): Item => ({ name, due: undefined });

describe('Deadlines', () => {
  test('what is due is taken once, at the second after its time at the latest', () => {
    const deadlines = new Deadlines<Item>();
    const [a, b] = [item(1), item(2)] as const;
    deadlines.set(a, 10_500);
    deadlines.set(b, 11_000);
    expect(deadlines.take(10_999)).toEqual([]);
    expect(deadlines.take(11_000).map(({ name }) => name)).toEqual([1, 2]);
    expect(deadlines.take(99_000)).toEqual([]);
    expect([a.due, b.due]).toEqual([undefined, undefined]);
  });

  test('an item has one time: the last, be it sooner or later', () => {
    const deadlines = new Deadlines<Item>();
    const [sooner, later] = [item(1), item(2)] as const;
    for (const each of [sooner, later]) deadlines.set(each, 20_000);
    deadlines.set(sooner, 5_000);
    deadlines.set(later, 30_000);
    expect(deadlines.take(5_000)).toEqual([sooner]);
    expect(deadlines.take(20_000)).toEqual([]);
    expect(deadlines.take(30_000)).toEqual([later]);
  });

  test('nothing is kept of what was taken out: a million that come and go leave no trace', () => {
    const deadlines = new Deadlines<Item>();
    const one = item(1);
    for (let round = 0; round < 100_000; round++) {
      deadlines.set(one, round * 1000);
      deadlines.delete(one);
    }
    deadlines.delete(one);
    expect(deadlines.take(Number.MAX_SAFE_INTEGER)).toEqual([]);
  });

  test('one that another lists is left there', () => {
    const [first, second] = [new Deadlines<Item>(), new Deadlines<Item>()] as const;
    const [a, b] = [item(1), item(2)] as const;
    first.set(a, 5_000);
    second.set(b, 5_000);
    second.delete(a);
    first.delete(a);
    expect(first.take(9_000)).toEqual([]);
    expect(second.take(9_000)).toEqual([b]);
  });

  test('a time that no clock reaches does no harm, and one that has passed is due at once', () => {
    const deadlines = new Deadlines<Item>();
    deadlines.set(item(1), 1e300);
    deadlines.set(item(2), -5);
    expect(deadlines.take(0).map(({ name }) => name)).toEqual([2]);
    expect(deadlines.take(8.64e15)).toEqual([]);
  });

  test('does as a list that is searched does, whichever way the clock jumps', () => {
    const step = fc.oneof(
      fc.record({ kind: fc.constant('set' as const), name: fc.nat(9), at: fc.integer({ min: -5_000, max: 60_000 }) }),
      fc.record({ kind: fc.constant('delete' as const), name: fc.nat(9), at: fc.constant(0) }),
      fc.record({ kind: fc.constant('take' as const), name: fc.constant(0), at: fc.integer({ min: -5_000, max: 60_000 }) }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const deadlines = new Deadlines<Item>();
        const items = Array.from({ length: 10 }, (_, name) => item(name));
        const model = new Map<number, number>();
        for (const { kind, name, at } of steps) {
          const one = items[name] as Item;
          if (kind === 'set') {
            deadlines.set(one, at);
            model.set(name, Math.ceil(at / 1000));
          } else if (kind === 'delete') {
            deadlines.delete(one);
            model.delete(name);
          } else {
            const due = [...model].filter(([, second]) => second <= Math.floor(at / 1000)).map(([each]) => each);
            for (const each of due) model.delete(each);
            expect(
              deadlines
                .take(at)
                .map((each) => each.name)
                .toSorted(),
            ).toEqual(due.toSorted());
          }
          expect(items.filter(({ due }) => due !== undefined).map((each) => each.name)).toEqual([...model.keys()].toSorted());
        }
      }),
    );
  });
});
