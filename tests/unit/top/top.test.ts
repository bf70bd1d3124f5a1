import { describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import { type StatName as Field, stats } from '../../../src/core/stat-index.ts';
import { OperatingError } from '../../../src/operating-error.ts';
import { attachTo } from '../../../src/top/attach.ts';
import { bytes, count, duration, renderTop } from '../../../src/top/render.ts';
import { activityBetween, type CounterReader, type Sample, shownFields, takeSample } from '../../../src/top/sample.ts';

type Values = Partial<Record<Field, number>>;

function readerOf(...places: Values[]): CounterReader {
  return { places: places.length, read: (place, field) => places[place]?.[field] ?? 0 };
}
const sampleOf = (atMs: number, ...places: Values[]): Sample => takeSample(readerOf(...places), shownFields, atMs);

describe('samples', () => {
  test('places where nobody is are left out', () => {
    expect(sampleOf(0, {}, { started_at_ms: 5, requests: 3 }, {}).workers.map(({ place, values }) => [place, values.requests])).toEqual([
      [1, 3],
    ]);
  });

  test('every field that is shown is a counter', () => {
    const known = new Set<string>(stats.map(({ name }) => name));
    expect(shownFields.filter((field) => !known.has(field))).toEqual([]);
    expect(new Set(shownFields).size).toBe(shownFields.length);
  });

  test('rates are per second; gauges are as they are', () => {
    const before = sampleOf(1000, { started_at_ms: 1, requests: 10, connections_websocket: 5, bytes_in: 100 });
    const after = sampleOf(3000, { started_at_ms: 1, requests: 30, connections_websocket: 7, bytes_in: 100, loop_lag_us: 2500 });
    const [worker] = activityBetween(before, after, 61_001).workers;
    expect(worker).toMatchObject({ requests: 10, websocket: 7, bytesIn: 0, lagMs: 2.5, uptimeSeconds: 61 });
  });

  test('the node is the sum of its workers, of lag the worst', () => {
    const place = (factor: number): Values => ({
      started_at_ms: 1,
      drops_backpressure: factor,
      node_drops: factor,
      refused_ip: 3 * factor,
      topics: factor,
      loop_lag_us: 1000 * factor,
    });
    const { node } = activityBetween(sampleOf(0, place(0), place(0)), sampleOf(1000, place(1), place(2)), 0);
    expect(node).toMatchObject({ drops: 6, refusals: 9, topics: 3, lagMs: 2 });
  });

  test('a worker that is new at its place has no rates yet: its counters went on from others', () => {
    const before = sampleOf(0, { started_at_ms: 1, requests: 10 });
    const after = sampleOf(1000, { started_at_ms: 2, requests: 50 }, { started_at_ms: 3, requests: 70 });
    expect(activityBetween(before, after, 0).workers.map(({ requests }) => requests)).toEqual([0, 0]);
  });

  test('Redis is shown when somebody uses it', () => {
    const place = (state: number, messages: number): Values => ({
      started_at_ms: 1,
      redis_state: state,
      redis_messages_in: messages,
      redis_lag_us: 700,
    });
    expect(activityBetween(sampleOf(0, place(0, 0)), sampleOf(1000, place(0, 0)), 0).redis).toBeUndefined();
    expect(activityBetween(sampleOf(0, place(2, 0), place(2, 0)), sampleOf(1000, place(2, 4), place(3, 6)), 0).redis).toMatchObject({
      state: 'lost',
      messagesIn: 10,
      lagMs: 0.7,
    });
  });
});

describe('the screen', () => {
  const busy = (places: number) => {
    const values = Array.from({ length: places }, (): Values => ({ started_at_ms: 1, redis_state: 2, connections_websocket: 123_456 }));
    return activityBetween(sampleOf(0, ...values), sampleOf(1000, ...values), 0);
  };

  test('shows all workers together, then each', () => {
    const lines = renderTop(['title'], busy(2), { columns: 200, rows: 40 });
    expect(lines[0]).toBe('title');
    expect(lines[2]?.trim().split(/\s{2,}/)).toContain('websocket');
    expect(lines.slice(3, 6).map((line) => line.slice(0, 24).trim().replace(/\s+/g, ' '))).toEqual([
      'all 247k',
      'worker 0 123k',
      'worker 1 123k',
    ]);
    expect(lines.at(-1)).toStartWith('Redis up   lag 0.0 ms');
  });

  test('at 60 columns every number is there: what has no column is told of all workers, and nothing is cut off', () => {
    const title = ['ringway 1.2.3', 'process 123456', '2 workers, the oldest up 1d 01:01:01', '(q quits)'];
    const narrow = renderTop(title, busy(2), { columns: 60, rows: 24 });
    const wide = renderTop(title, busy(2), { columns: 250, rows: 24 });
    const names = (wide[2] ?? '').trim().split(/ {2,}| (?=\w+\/s)/);
    expect(names.length).toBeGreaterThan(12);
    const text = narrow.join('\n');
    for (const name of names) expect([name, text.includes(name)]).toEqual([name, true]);
    for (const part of title) expect(text).toContain(part);
    expect(text).toContain('gaps ');
    expect(Math.max(...narrow.map((line) => line.length))).toBeLessThanOrEqual(60);
    // Every worker has a row still.
    expect(narrow.filter((line) => line.startsWith('worker ')).length).toBe(2);
  });

  test('never leaves the terminal, whatever its size', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 250 }),
        fc.integer({ min: 1, max: 30 }),
        fc.integer({ min: 0, max: 40 }),
        (columns, rows, places) => {
          const lines = renderTop(['a title that is', 'rather long for a small terminal'], busy(places), { columns, rows });
          expect(lines.length).toBeLessThanOrEqual(rows);
          for (const line of lines) expect(line.length).toBeLessThanOrEqual(columns);
        },
      ),
    );
  });

  test('says how many workers do not fit', () => {
    const lines = renderTop(['t'], busy(20), { columns: 80, rows: 12 });
    expect(lines.filter((line) => line.startsWith('worker')).length).toBe(4);
    expect(lines[8]).toBe('and 16 more');
  });

  test('numbers are short', () => {
    expect([0, 0.25, 7, 9.99, 9999, 10_000, 123_456, 99_950_000, 5e12].map(count)).toEqual([
      '0',
      '0.3',
      '7',
      '10.0',
      '9999',
      '10.0k',
      '123k',
      '100M',
      '5000G',
    ]);
    expect([0, 1024, 10_240, 5_000_000].map(bytes)).toEqual(['0B', '1024B', '10.0KiB', '4883KiB']);
    expect([5, 3661, 90_061].map(duration)).toEqual(['00:00:05', '01:01:01', '1d 01:01:01']);
  });
});

describe('attaching', () => {
  const never = () => {
    throw new Error('not to be mapped');
  };
  test('says what is wrong', () => {
    const refusal = (pid: number) => {
      try {
        attachTo(pid, never);
      } catch (error) {
        if (error instanceof OperatingError) return error.message;
        throw error;
      }
      return '';
    };
    expect(refusal(2 ** 30)).toBe(`there is no process ${2 ** 30} (any more)`);
    expect(refusal(process.pid)).toBe(`process ${process.pid} is no supervisor of a gateway`);
  });
});
