import { beforeEach, describe, expect, test } from 'bun:test';
import { type ReloadOutcome, ReloadQueue } from '../../../src/supervisor/reload-queue.ts';

/** Reloads that have begun, each to be ended by the test. */
let begun: { readonly request: number; end(outcome: ReloadOutcome): void; fail(error: Error): void }[];
let told: ReloadOutcome[];
let queue: ReloadQueue;

const reloaded = (generation: number): ReloadOutcome => ({ kind: 'reloaded', generation, upgraded: false });
const postponed: ReloadOutcome = { kind: 'postponed', reason: 'no room' };
/** What was set going by a promise has happened. */
const settle = () => Bun.sleep(0);

beforeEach(() => {
  begun = [];
  told = [];
  queue = new ReloadQueue(
    (request) => {
      const { promise, resolve, reject } = Promise.withResolvers<ReloadOutcome>();
      begun.push({ request, end: resolve, fail: reject });
      return promise;
    },
    (outcome) => told.push(outcome),
  );
});

describe('the queue of reloads', () => {
  test('one request is one reload', async () => {
    const outcome = queue.request();
    expect(queue.health).toEqual({ requests: 1, isRunning: true, last: null });
    begun[0]?.end(reloaded(2));
    expect(await outcome).toEqual(reloaded(2));
    expect(queue.health).toMatchObject({ requests: 1, isRunning: false, last: { kind: 'reloaded', generation: 2, request: 1 } });
    expect(Number.isNaN(Date.parse(queue.health.last?.at ?? ''))).toBe(false);
    expect(told).toEqual([reloaded(2)]);
  });

  test('requests while one is running are answered by one more, which begins after it', async () => {
    const first = queue.request();
    const later = [queue.request(), queue.request(), queue.request()];
    await settle();
    expect(begun.map(({ request }) => request)).toEqual([1]);
    begun[0]?.end(reloaded(2));
    expect(await first).toEqual(reloaded(2));
    await settle();
    expect(begun.map(({ request }) => request)).toEqual([1, 4]);
    expect(queue.health).toMatchObject({ isRunning: true, last: { request: 1 } });
    const alsoLater = queue.request();
    begun[1]?.end(reloaded(3));
    expect(await Promise.all(later)).toEqual([reloaded(3), reloaded(3), reloaded(3)]);
    await settle();
    begun[2]?.end(reloaded(4));
    expect(await alsoLater).toEqual(reloaded(4));
    expect(queue.health).toMatchObject({ requests: 5, isRunning: false, last: { request: 5 } });
  });

  test('one that throws is one that has failed, and the next can be asked for', async () => {
    const outcome = queue.request();
    begun[0]?.fail(new Error('out of memory'));
    expect(await outcome).toEqual({ kind: 'failed', reason: 'out of memory' });
    const next = queue.request();
    begun[1]?.end(reloaded(2));
    expect((await next).kind).toBe('reloaded');
  });

  test('one that is postponed is tried again when there is room, and else nothing is', async () => {
    queue.retry();
    expect(begun).toHaveLength(0);
    const outcome = queue.request();
    begun[0]?.end(postponed);
    expect(await outcome).toEqual(postponed);
    queue.retry();
    // While it is tried again there is nothing more to try.
    queue.retry();
    expect(begun.map(({ request }) => request)).toEqual([1, 1]);
    begun[1]?.end(reloaded(2));
    await settle();
    queue.retry();
    expect(begun).toHaveLength(2);
    expect(told).toEqual([postponed, reloaded(2)]);
  });

  test('once closed it begins nothing more, and says so', async () => {
    const first = queue.request();
    const second = queue.request();
    let isClosed = false;
    const closed = queue.close().then(() => {
      isClosed = true;
    });
    await settle();
    expect(isClosed).toBe(false);
    begun[0]?.end({ kind: 'failed', reason: 'given up' });
    await closed;
    const stopping = { kind: 'failed', reason: 'the node is stopping' } as const;
    expect([await first, await second, await queue.request()]).toEqual([{ kind: 'failed', reason: 'given up' }, stopping, stopping]);
    expect(begun).toHaveLength(1);
  });

  test('a supervisor that takes over goes on with the numbers of the one before', async () => {
    const last = { ...reloaded(5), request: 7, at: '2026-01-01T00:00:00.000Z' };
    const next = new ReloadQueue(
      async () => reloaded(6),
      () => {},
      { requests: 7, last },
    );
    expect(next.health).toEqual({ requests: 7, isRunning: false, last });
    await next.request();
    expect(next.health).toMatchObject({ requests: 8, last: { request: 8, generation: 6 } });
  });
});
