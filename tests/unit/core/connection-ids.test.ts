import { describe, expect, test } from 'bun:test';
import { ConnectionIds } from '../../../src/core/connection-ids.ts';

describe('ids of connections', () => {
  const names = [
    { slot: 0, generation: 0 },
    { slot: 0, generation: 1 },
    { slot: 7, generation: 3 },
    { slot: 0xffff_ffff, generation: 0xffff_ffff },
    ...Array.from({ length: 500 }, (_, slot) => ({ slot: slot + 100, generation: slot * 7919 })),
  ];

  test('lead back to the connection, in the process that gave them alone', () => {
    const [own, other] = [new ConnectionIds(), new ConnectionIds()];
    for (const name of names) {
      expect(own.find(own.of(name))).toEqual(name);
      expect(other.find(own.of(name))).toBeUndefined();
    }
  });

  test('are random UUIDs to whoever looks at them, the same each time, and no two alike', () => {
    const ids = new ConnectionIds();
    const all = names.map((name) => ids.of(name));
    expect(names.map((name) => ids.of(name))).toEqual(all);
    expect(new Set(all).size).toBe(names.length);
    for (const id of all) expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  });

  test('what is none, or was changed in one place, leads nowhere', () => {
    const ids = new ConnectionIds();
    const id = ids.of({ slot: 3, generation: 4 });
    const digits = [...id].flatMap((digit, at) =>
      digit === '-' ? [] : [`${id.slice(0, at)}${digit === '0' ? '1' : '0'}${id.slice(at + 1)}`],
    );
    for (const text of ['', 'a', `${id}0`, id.toUpperCase(), id.replaceAll('-', ''), crypto.randomUUID(), ...digits])
      expect(ids.find(text)).toBeUndefined();
  });
});
