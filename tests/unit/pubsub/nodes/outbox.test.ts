import { describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import type { LinkCounter } from '../../../../src/pubsub/link.ts';
import { Opener, readMessages, Sender } from '../../../../src/pubsub/nodes/envelope.ts';
import { type Batch, batchAttemptsMax, batchBytesMax, Lane, Outbox } from '../../../../src/pubsub/nodes/outbox.ts';

const sender = new Sender({ node: '00000000000000aa', worker: 1 }, 'p');
const opener = new Opener();

/** The numbers of the messages in a batch, and the sequence of the first. */
function read(batch: Batch): { numbers: number[]; sequence: number } {
  const envelope = opener.open(batch.envelope as Buffer);
  if (envelope === undefined) throw new Error('not an envelope');
  const numbers: number[] = [];
  readMessages(envelope, Buffer.from(batch.key), ({ payload }) => numbers.push(Buffer.from(payload).readUInt32BE(0)));
  return { numbers, sequence: envelope.sequence };
}

function message(number: number, bytes = 4): Buffer {
  const payload = Buffer.alloc(Math.max(4, bytes));
  payload.writeUInt32BE(number);
  return payload;
}

/** An outbox, and all that is known of it from outside. */
function setUp(bytesMax: number, whenFull: 'drop-oldest' | 'drop-newest', laneCount = 1) {
  const state = { dropped: 0, readyCalls: 0, counted: {} as Partial<Record<LinkCounter, number>> };
  const outbox = new Outbox({ bytesMax, whenFull }, sender, (counter, by) => {
    state.counted[counter] = (state.counted[counter] ?? 0) + by;
    state.dropped = state.counted.drops ?? 0;
  });
  const lanes = Array.from({ length: laneCount }, (_, index) => new Lane(index, () => void state.readyCalls++));
  const [lane] = lanes as [Lane, ...Lane[]];
  const takeAll = () => {
    const numbers: number[] = [];
    for (const each of lanes) {
      for (let batch = outbox.take(each); batch !== undefined; batch = outbox.take(each)) {
        numbers.push(...read(batch).numbers);
        outbox.done(batch);
      }
    }
    return numbers;
  };
  return { outbox, lanes, lane, state, takeAll };
}

describe('outbox', () => {
  test('counts what has gone out, and what never will', () => {
    const { outbox, lane, state } = setUp(1 << 20, 'drop-newest');
    for (let number = 0; number < 5; number++) expect(outbox.add(lane, 'a', 0, message(number))).toBe(true);
    expect(outbox.add(lane, 'a', 0, Buffer.alloc(2 << 20))).toBe(false);
    const batch = outbox.take(lane) as Batch;
    expect(state.counted).toEqual({ drops: 1 });
    outbox.done(batch);
    expect(state.counted).toEqual({ drops: 1, publishes: 1, messages_out: 5, bytes_out: batch.envelope.byteLength });
    outbox.add(lane, 'a', 0, message(5));
    outbox.discard(outbox.take(lane) as Batch);
    expect(state.counted).toMatchObject({ drops: 2, publishes: 1 });
  });

  test('takes nothing more when its link closes, and gives what it has', () => {
    const { outbox, lane, state, takeAll } = setUp(1 << 20, 'drop-oldest');
    outbox.add(lane, 'a', 0, message(1));
    outbox.isOpen = false;
    expect([outbox.add(lane, 'a', 0, message(2)), state.dropped, takeAll()]).toEqual([false, 0, [1]]);
  });

  test('any interleaving of publishing, answers, broken connections and drops keeps the order of each topic, and counts every message', () => {
    const operation = fc.oneof(
      {
        weight: 6,
        arbitrary: fc.record({
          do: fc.constant('add' as const),
          lane: fc.nat(1),
          topic: fc.nat(3),
          bytes: fc.integer({ min: 4, max: 400 }),
        }),
      },
      { weight: 4, arbitrary: fc.record({ do: fc.constant('take' as const), lane: fc.nat(1) }) },
      {
        weight: 3,
        arbitrary: fc.record({
          do: fc.constantFrom('done' as const, 'back' as const, 'moved' as const, 'discard' as const),
          batch: fc.nat(7),
          came: fc.boolean(),
        }),
      },
    );
    fc.assert(
      fc.property(
        fc.array(operation, { maxLength: 200, size: 'max' }),
        fc.constantFrom('drop-oldest' as const, 'drop-newest' as const),
        fc.constantFrom(1_500, 6_000, 1_000_000),
        (operations, whenFull, bytesMax) => {
          const { outbox, lanes, state, takeAll } = setUp(bytesMax, whenFull, 2);
          const underWay: Batch[] = [];
          const returned = new Map<string, Buffer>();
          const lastNumber = new Map<string, number>();
          const lastSequence = new Map<string, number>();
          let added = 0;
          let published = 0;
          let discarded = 0;
          /** What a subscriber takes: nothing twice. Of what came back it may have had all already. */
          const heard = new Map<string, { sequence: number; number: number }>();
          const hear = (batch: Batch) => {
            const name = `${batch.lane.partition} ${batch.key}`;
            const last = heard.get(name) ?? { sequence: 0, number: -1 };
            const { numbers, sequence } = read(batch);
            if (sequence <= last.sequence) {
              expect(numbers.at(-1)).toBeLessThanOrEqual(last.number);
              return;
            }
            expect(numbers[0]).toBeGreaterThan(last.number);
            heard.set(name, { sequence: sequence + numbers.length - 1, number: numbers.at(-1) as number });
          };
          const publish = (batch: Batch) => {
            const name = `${batch.lane.partition} ${batch.key}`;
            const { numbers, sequence } = read(batch);
            expect(numbers.length).toBe(batch.messages);
            expect(sequence).toBeGreaterThan(lastSequence.get(name) ?? 0);
            lastSequence.set(name, sequence + numbers.length - 1);
            for (const number of numbers) {
              expect(number).toBeGreaterThan(lastNumber.get(name) ?? -1);
              lastNumber.set(name, number);
            }
            published += numbers.length;
            hear(batch);
          };
          for (const each of operations) {
            switch (each.do) {
              case 'add':
                outbox.add(lanes[each.lane] as Lane, `topic ${each.topic}`, 0, message(added++, each.bytes));
                break;
              case 'take': {
                const batch = outbox.take(lanes[each.lane] as Lane);
                if (batch === undefined) break;
                const name = `${batch.lane.partition} ${batch.key}`;
                expect(underWay.some((other) => other.lane === batch.lane && other.key === batch.key)).toBe(false);
                const before = returned.get(name);
                // What came back goes out again as it was, before anything newer, unless it was dropped.
                if (before !== undefined && read(batch).sequence <= (opener.open(before)?.sequence ?? 0))
                  expect(batch.envelope).toBe(before);
                returned.delete(name);
                underWay.push(batch);
                break;
              }
              default: {
                if (underWay.length === 0) break;
                const [batch] = underWay.splice(each.batch % underWay.length, 1) as [Batch];
                if (each.do === 'done') {
                  publish(batch);
                  outbox.done(batch);
                } else if (each.do === 'discard') {
                  discarded += batch.messages;
                  outbox.discard(batch);
                } else {
                  if (each.came) hear(batch);
                  returned.set(`${batch.lane.partition} ${batch.key}`, batch.envelope as Buffer);
                  outbox.back(batch, each.do === 'back');
                }
              }
            }
            expect(outbox.bytes).toBeLessThanOrEqual(bytesMax);
            expect(added).toBe(published + state.dropped + outbox.messages);
          }
          for (const batch of underWay.splice(0)) outbox.back(batch, false);
          for (const lane of lanes) {
            for (let batch = outbox.take(lane); batch !== undefined; batch = outbox.take(lane)) {
              publish(batch);
              outbox.done(batch);
            }
          }
          expect(takeAll()).toEqual([]);
          expect([outbox.messages, outbox.bytes, lanes[0]?.topics.size, lanes[1]?.topics.size]).toEqual([0, 0, 0, 0]);
          expect(added).toBe(published + state.dropped);
          if (bytesMax === 1_000_000 && whenFull === 'drop-oldest') expect(state.dropped).toBe(discarded);
        },
      ),
      { numRuns: 400 },
    );
  }, 60_000);

  test('messages of a topic that wait go out together, those of each topic in order, topics by turns', () => {
    const { outbox, lane } = setUp(1e6, 'drop-oldest');
    for (let i = 0; i < 10; i++) outbox.add(lane, i % 2 === 0 ? 'even' : 'odd', 0, message(i));
    const batches = [outbox.take(lane), outbox.take(lane)] as [Batch, Batch];
    expect(batches.map(({ key }) => key)).toEqual(['even', 'odd']);
    expect(batches.map((batch) => read(batch).numbers)).toEqual([
      [0, 2, 4, 6, 8],
      [1, 3, 5, 7, 9],
    ]);
    expect(outbox.take(lane)).toBeUndefined();
  });

  test('nothing of a topic goes out while something of it is under way', () => {
    const { outbox, lane } = setUp(1e6, 'drop-oldest');
    outbox.add(lane, 'a', 0, message(1));
    const first = outbox.take(lane) as Batch;
    outbox.add(lane, 'a', 0, message(2));
    outbox.add(lane, 'b', 0, message(3));
    expect(read(outbox.take(lane) as Batch).numbers).toEqual([3]);
    expect(outbox.take(lane)).toBeUndefined();
    outbox.done(first);
    expect(read(outbox.take(lane) as Batch).numbers).toEqual([2]);
  });

  test('what was under way goes out again first, the same bytes', () => {
    const { outbox, lane } = setUp(1e6, 'drop-oldest');
    outbox.add(lane, 'a', 0, message(1));
    const first = outbox.take(lane) as Batch;
    outbox.add(lane, 'a', 0, message(2));
    outbox.back(first, true);
    const again = outbox.take(lane) as Batch;
    expect(again.envelope).toBe(first.envelope);
    outbox.done(again);
    const second = outbox.take(lane) as Batch;
    expect(read(second)).toEqual({ numbers: [2], sequence: 2 });
  });

  test('drop-oldest drops what has waited longest over all topics, drop-newest what comes', () => {
    const oldest = setUp(2000, 'drop-oldest');
    const newest = setUp(2000, 'drop-newest');
    for (const { outbox, lane } of [oldest, newest]) for (let i = 0; i < 20; i++) outbox.add(lane, i % 3 === 0 ? 'a' : 'b', 0, message(i));
    const kept = oldest.outbox.messages;
    expect(kept).toBeGreaterThan(5);
    expect(oldest.state.dropped).toBe(20 - kept);
    expect(newest.outbox.messages).toBe(kept);
    const numbers = (from: number) => Array.from({ length: kept }, (_, i) => from + i);
    expect(oldest.takeAll().sort((a, b) => a - b)).toEqual(numbers(20 - kept));
    expect(newest.takeAll().sort((a, b) => a - b)).toEqual(numbers(0));
  });

  test('what is under way is never dropped, and counts', () => {
    const { outbox, lane, state } = setUp(2000, 'drop-oldest');
    outbox.add(lane, 'a', 0, message(1, 1500));
    const batch = outbox.take(lane) as Batch;
    outbox.add(lane, 'b', 0, message(2, 1500));
    expect(state.dropped).toBe(1);
    outbox.add(lane, 'b', 0, message(3, 100));
    outbox.back(batch, false);
    expect(outbox.messages).toBe(2);
    outbox.add(lane, 'b', 0, message(4, 1000));
    expect(state.dropped).toBe(2);
  });

  test('a message that never fits is dropped alone', () => {
    const { outbox, lane, state, takeAll } = setUp(2000, 'drop-oldest');
    outbox.add(lane, 'a', 0, message(1));
    outbox.add(lane, 'a', 0, message(2, 5000));
    expect(state.dropped).toBe(1);
    expect(takeAll()).toEqual([1]);
  });

  test('a batch ends at its bounds, and a message longer than those goes alone', () => {
    const { outbox, lane } = setUp(1e9, 'drop-oldest');
    for (let i = 0; i < 3000; i++) outbox.add(lane, 'small', 0, message(i));
    outbox.add(lane, 'large', 0, message(1, batchBytesMax * 3));
    outbox.add(lane, 'large', 0, message(2));
    const small = outbox.take(lane) as Batch;
    expect(small.messages).toBe(1024);
    expect((outbox.take(lane) as Batch).messages).toBe(1);
    for (let i = 0; i < 100; i++) outbox.add(lane, 'middle', 0, message(i, 10_000));
    const middle = outbox.take(lane) as Batch;
    expect(middle.envelope.byteLength).toBeLessThanOrEqual(batchBytesMax + 64);
    expect(middle.messages).toBe(13);
  });

  test('what breaks its connection again and again is dropped in the end', () => {
    const { outbox, lane, state } = setUp(1e6, 'drop-oldest');
    outbox.add(lane, 'a', 0, message(1));
    outbox.add(lane, 'b', 0, message(2));
    for (let attempt = 0; attempt < batchAttemptsMax; attempt++) {
      expect(state.dropped).toBe(0);
      outbox.back(outbox.take(lane) as Batch, true);
    }
    expect(state.dropped).toBe(1);
    expect(read(outbox.take(lane) as Batch).numbers).toEqual([2]);
  });

  test('a lane tells when it has something to send, once', () => {
    const { outbox, lane, state } = setUp(1e6, 'drop-oldest');
    outbox.add(lane, 'a', 0, message(1));
    outbox.add(lane, 'a', 0, message(2));
    outbox.add(lane, 'b', 0, message(3));
    expect(state.readyCalls).toBe(1);
    const batches = [outbox.take(lane), outbox.take(lane)] as Batch[];
    expect(lane.isReady).toBe(false);
    outbox.add(lane, 'a', 0, message(4));
    expect(state.readyCalls).toBe(1);
    for (const batch of batches) outbox.done(batch);
    expect(state.readyCalls).toBe(2);
  });

  test('the payload is copied', () => {
    const { outbox, lane } = setUp(1e6, 'drop-oldest');
    const payload = message(1);
    outbox.add(lane, 'a', 0, payload);
    payload.fill(0xff);
    expect(read(outbox.take(lane) as Batch).numbers).toEqual([1]);
  });
});
