import { describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import { sendText } from '../../../../src/api/message.ts';
import type { LogEnd, LogEntry, LogLimits, LogQuery, Origin, Position, PutOutcome } from '../../../../src/core/log-commands.ts';
import {
  LinkUnavailableError,
  type StoredEntry,
  type StoredPage,
  type StoredQuery,
  type StoredRange,
} from '../../../../src/pubsub/link.ts';
import type { Clock } from '../../../../src/pubsub/nodes/clock.ts';
import { FollowedLogs } from '../../../../src/pubsub/nodes/followed-logs.ts';
import { memberOf } from '../../../../src/pubsub/nodes/owned-topic.ts';

const runs = Number(process.env.RUNS ?? 300);
const limits = { size: 20, seconds: 60 };
const node = 'a'.repeat(16);
const other = 'b'.repeat(16);

/** The log of one topic in a node's memory, and what its subscribers hear. */
class NodeLog {
  end: LogEnd | undefined;
  entries: LogEntry[] = [];
  readonly heard: string[] = [];
  readonly origins: (Origin | undefined)[] = [];
  /** Of so many puts in turn there is no memory. */
  full = 0;

  logPut(_: unknown, { epoch, offset }: Position, flags: number, payload: Uint8Array | string, _limits: LogLimits, options?: object) {
    const { origin, timeMs = 0 } = options as { origin?: Origin; timeMs?: number };
    if (this.end?.epoch !== epoch) return 'epoch' as PutOutcome;
    if (offset <= this.end.offset) return 'old' as PutOutcome;
    if (offset > this.end.offset + 1) return 'gap' as PutOutcome;
    if (this.full > 0) {
      this.full -= 1;
      return 'full' as const;
    }
    this.end = { ...this.end, offset };
    this.entries.push({ offset, timeMs, flags, payload: Buffer.from(payload as Uint8Array) });
    this.origins.push(origin);
    if (this.end.isFollowed) this.heard.push(`${Buffer.from(payload as Uint8Array)}`);
    return 'taken' as PutOutcome;
  }

  logReset(_: unknown, { epoch, offset }: Position, isFollowed: boolean) {
    const isSame = this.end?.epoch === epoch && this.end.offset === offset;
    if (!isSame) {
      if (this.end?.isFollowed === true) this.heard.push('lost');
      this.entries = [];
    }
    this.end = { epoch, offset, first: isSame ? (this.end?.first ?? 1) : offset + 1, isFollowed };
  }

  logEnd() {
    return this.end;
  }

  logRead(_: unknown, { limit }: LogQuery) {
    return this.end && { end: this.end, entries: this.entries.slice(-limit) };
  }
}

/** The log at the other side, all that ever was told of it, and how reads of it go. */
class SharedLog {
  epoch = '1'.repeat(16);
  offset = 0;
  entries: StoredEntry[] = [];
  time = 1000;
  number = 0;
  isAway = false;
  /** Reads that wait for their turn. */
  readonly reads: (() => void)[] = [];

  append(count: number, except?: { slot: number; generation: number }): StoredRange {
    const from = this.entries.length;
    this.time += 1;
    for (let i = 0; i < count; i++) {
      const publisher = { node: except === undefined ? other : node, worker: memberOf(3, 7) };
      const payload = Buffer.from(String(++this.number));
      this.entries.push({ offset: ++this.offset, timeMs: this.time, publisher, except, flags: sendText, payload });
    }
    const added = this.entries.slice(from);
    this.entries = this.entries.slice(-limits.size);
    return { epoch: this.epoch, entries: added };
  }

  /** Those who have seen them know. */
  loseEnd(count: number): void {
    this.entries.splice(-count);
    this.offset = this.entries.at(-1)?.offset ?? 0;
  }

  empty(): void {
    this.#renew();
    this.entries = [];
    this.offset = 0;
  }

  #renew(): void {
    this.epoch = String(Number(this.epoch[0]) + 1)
      .repeat(16)
      .slice(0, 16);
    if (this.epoch === node) throw new Error('too many epochs');
  }

  async read(_: Uint8Array, { mode, from, seen, limit }: StoredQuery): Promise<StoredPage> {
    await new Promise<void>((resolve) => this.reads.push(resolve));
    if (this.isAway) throw new LinkUnavailableError('away');
    if (seen !== undefined && seen.epoch === this.epoch) {
      const entry = this.entries.find(({ offset }) => offset === seen.offset);
      if (seen.offset > this.offset || (entry !== undefined && seen.timeMs > 0 && entry.timeMs !== seen.timeMs)) this.#renew();
    }
    // Few at once, so that logs are read in several steps.
    const most = Math.min(limit, 7);
    const entries =
      mode === 'after' ? this.entries.filter(({ offset }) => offset > from).slice(0, most) : this.entries.slice(-most).reverse();
    const page = { epoch: this.epoch, offset: this.offset, entries };
    // What is told meanwhile overtakes the answer.
    await new Promise<void>((resolve) => this.reads.push(resolve));
    return page;
  }
}

class World {
  readonly node = new NodeLog();
  readonly shared = new SharedLog();
  readonly counted: Record<string, number> = {};
  readonly timers: (() => void)[] = [];
  /** Told, and still on its way. */
  readonly notices: StoredRange[] = [];
  readonly followed: FollowedLogs;

  constructor(hasLog = true) {
    const clock = { later: (_: number, call: () => void) => void this.timers.push(call) } as unknown as Clock;
    this.followed = new FollowedLogs({
      nodeId: node,
      clock,
      core: this.node,
      logs: this.shared,
      limitsOf: () => (hasLog ? limits : undefined),
      count: (counter, by) => {
        this.counted[counter] = (this.counted[counter] ?? 0) + by;
      },
    });
  }

  append(count = 1, except?: { slot: number; generation: number }): void {
    this.notices.push(this.shared.append(count, except));
  }

  /** ret: whether there was one */
  hear(): boolean {
    const notice = this.notices.shift();
    if (notice !== undefined) this.followed.arrived('t', notice);
    return notice !== undefined;
  }

  async read(): Promise<boolean> {
    const read = this.shared.reads.shift();
    read?.();
    // What waits for it goes on.
    for (let i = 0; i < 10; i++) await Promise.resolve();
    return read !== undefined;
  }

  async rest(): Promise<void> {
    while (this.hear());
    for (let quiet = 0; quiet < 3; ) {
      for (const call of this.timers.splice(0)) call();
      quiet = (await this.read()) ? 0 : quiet + 1;
    }
  }
}

describe('logs that a node follows', () => {
  test('begin with the end of what is there, which is nothing new to anybody, and go on with what comes', async () => {
    const world = new World();
    world.append(12);
    world.notices.length = 0;
    world.followed.subscribed('t');
    await world.rest();
    expect(world.node.end).toMatchObject({ offset: 12, isFollowed: true });
    expect(world.node.entries.map(({ offset }) => offset)).toEqual([6, 7, 8, 9, 10, 11, 12]);
    world.append(2);
    await world.rest();
    expect(world.node.heard).toEqual(['13', '14']);
    expect(world.counted).toEqual({ messages_in: 9 });
  });

  test('are not followed before all is there that came meanwhile', async () => {
    const world = new World();
    world.append();
    world.followed.subscribed('t');
    await world.read();
    world.append();
    world.hear();
    world.hear();
    expect(world.node.end).toBe(undefined);
    await world.read();
    expect(world.node.end).toMatchObject({ offset: 2, isFollowed: true });
    expect(world.node.heard).toEqual([]);
  });

  test('read what has not come before they go on', async () => {
    const world = new World();
    world.followed.subscribed('t');
    await world.rest();
    world.append();
    world.append(10);
    world.notices.shift();
    world.notices.shift();
    world.append();
    await world.rest();
    expect(world.node.heard).toEqual(Array.from({ length: 12 }, (_, at) => String(at + 1)));
    expect(world.counted.log_repairs).toBe(1);
    expect(world.counted.log_breaks).toBe(undefined);
  });

  test('tell that something is lost when the other side does not have it any more', async () => {
    const world = new World();
    world.followed.subscribed('t');
    await world.rest();
    for (let i = 0; i < 30; i++) world.append();
    world.notices.length = 0;
    world.followed.restored('t');
    await world.rest();
    expect(world.node.heard).toEqual(['lost', ...Array.from({ length: 20 }, (_, at) => String(at + 11))]);
    expect(world.counted).toMatchObject({ log_breaks: 1 });
  });

  test('of an empty other side are those of a new epoch: what is said there comes, behind the word that something is lost', async () => {
    const world = new World();
    world.append(3);
    world.followed.subscribed('t');
    await world.rest();
    world.shared.empty();
    world.append();
    world.append();
    await world.rest();
    expect(world.node.heard).toEqual(['lost', '4', '5']);
  });

  test('are not sent again when the other side has lost their end', async () => {
    const world = new World();
    world.followed.subscribed('t');
    await world.rest();
    world.append(10);
    await world.rest();
    world.shared.loseEnd(4);
    world.followed.restored('t');
    await world.rest();
    world.append();
    await world.rest();
    expect(world.node.heard).toEqual([...Array.from({ length: 10 }, (_, at) => String(at + 1)), 'lost', '11']);
    expect(world.node.end).toMatchObject({ epoch: '2'.repeat(16), offset: 7 });
  });

  test('of nobody begin with the end again, however much was missed', async () => {
    const world = new World();
    world.append(3);
    world.followed.subscribed('t');
    await world.rest();
    world.followed.ended('t');
    expect(world.node.end).toMatchObject({ offset: 3, isFollowed: false });
    world.append(15);
    world.notices.length = 0;
    world.followed.subscribed('t');
    await world.rest();
    expect(world.node.end).toMatchObject({ offset: 18, isFollowed: true });
    expect(world.node.entries.map(({ offset }) => offset)).toEqual([12, 13, 14, 15, 16, 17, 18]);
    expect(world.counted.log_breaks).toBe(undefined);
  });

  test('that are given to another worker stay followed', async () => {
    const world = new World();
    world.followed.subscribed('t');
    await world.rest();
    world.followed.given('t');
    expect(world.node.end).toMatchObject({ isFollowed: true });
    expect(world.followed.size).toBe(0);
  });

  test('make room when there is no memory for an entry, or leave it out and say so', async () => {
    const world = new World();
    world.followed.subscribed('t');
    await world.rest();
    world.append();
    await world.rest();
    world.node.full = 1;
    world.append();
    await world.rest();
    world.node.full = 2;
    world.append();
    world.append();
    await world.rest();
    expect(world.node.heard).toEqual(['1', '2', 'lost', '4']);
    expect(world.counted.log_full).toBe(2);
  });

  test('wait while the other side cannot be asked', async () => {
    const world = new World();
    world.append(2);
    world.shared.isAway = true;
    world.followed.subscribed('t');
    await world.read();
    expect(world.node.end).toBe(undefined);
    expect(world.timers.length).toBe(1);
    world.shared.isAway = false;
    await world.rest();
    expect(world.node.end).toMatchObject({ offset: 2, isFollowed: true });
  });

  test('know which connection of this node does not get its own message', async () => {
    const world = new World();
    world.followed.subscribed('t');
    await world.rest();
    world.append(1, { slot: 5, generation: 6 });
    world.append();
    await world.rest();
    expect(world.node.origins).toEqual([{ worker: 3, epoch: 7, slot: 5, generation: 6 }, undefined]);
    expect(world.counted).toEqual({ messages_in: 1 });
  });

  test('hold back a bounded amount while they wait', async () => {
    const world = new World();
    world.followed.subscribed('t');
    const large = Buffer.alloc(300_000);
    for (let i = 0; i < 5; i++) {
      world.append();
      const [notice] = world.notices.splice(0) as [StoredRange];
      world.followed.arrived('t', { epoch: notice.epoch, entries: [{ ...(notice.entries[0] as StoredEntry), payload: large }] });
    }
    await world.rest();
    expect(world.node.end).toMatchObject({ offset: 5, isFollowed: true });
    expect(world.node.entries.every(({ payload }) => payload.byteLength === 1)).toBe(true);
  });

  test('are none where the policy keeps nothing', () => {
    const world = new World(false);
    world.followed.subscribed('t');
    expect(world.followed.size).toBe(0);
    expect(world.followed.arrived('t', world.shared.append(1))).toBe(false);
  });

  const step = fc.oneof(
    { weight: 6, arbitrary: fc.record({ kind: fc.constant('append' as const), by: fc.integer({ min: 1, max: 4 }) }) },
    { weight: 6, arbitrary: fc.record({ kind: fc.constant('hear' as const), by: fc.integer({ min: 1, max: 4 }) }) },
    { weight: 6, arbitrary: fc.record({ kind: fc.constant('read' as const), by: fc.integer({ min: 1, max: 4 }) }) },
    fc.record({
      kind: fc.constantFrom('gap', 'away', 'back', 'loseEnd', 'empty', 'full', 'timers', 'quit', 'join'),
      by: fc.integer({ min: 1, max: 4 }),
    }),
  );

  test('whatever happens in whatever order: no message twice, none out of order, none missing without a word, and all is there in the end', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
        const world = new World();
        const { shared, followed } = world;
        followed.subscribed('t');
        await world.rest();
        let epochs = 0;
        for (const { kind, by } of steps) {
          if (kind === 'append') world.append(by);
          for (let i = 0; kind === 'hear' && i < by; i++) world.hear();
          for (let i = 0; kind === 'read' && i < by; i++) await world.read();
          if (kind === 'gap') {
            world.notices.length = 0;
            followed.restored('t');
          }
          if (kind === 'away') shared.isAway = true;
          if (kind === 'back') shared.isAway = false;
          // A failover interrupts subscriptions; what was on its way is lost.
          if ((kind === 'loseEnd' || kind === 'empty') && epochs++ < 4) {
            if (kind === 'empty') shared.empty();
            else shared.loseEnd(by);
            world.notices.length = 0;
            followed.restored('t');
          }
          if (kind === 'full') world.node.full = by;
          if (kind === 'timers') for (const call of world.timers.splice(0)) call();
          if (kind === 'quit') {
            followed.ended('t');
            world.node.heard.push('quit');
          }
          if (kind === 'join') followed.subscribed('t');
        }
        shared.isAway = false;
        world.node.full = 0;
        followed.subscribed('t');
        await world.rest();
        expect(world.node.end).toMatchObject({ epoch: shared.epoch, offset: shared.offset, isFollowed: true });
        const kept = new Map(shared.entries.map(({ offset, payload }) => [offset, String(payload)]));
        for (const { offset, payload } of world.node.entries)
          if (kept.has(offset)) expect(String(payload)).toBe(kept.get(offset) as string);
        let last = 0;
        // What nobody has seen when its end is lost leaves no trace for who follows: its publisher knows.
        let isTold = steps.some(({ kind }) => kind === 'loseEnd');
        for (const line of world.node.heard) {
          const number = Number(line);
          if (Number.isNaN(number)) {
            isTold = true;
            continue;
          }
          expect(number).toBeGreaterThan(last);
          if (!isTold) expect(number).toBe(last + 1);
          isTold = steps.some(({ kind }) => kind === 'loseEnd');
          last = number;
        }
        expect(followed.isIdle).toBe(true);
      }),
      { numRuns: runs },
    );
  });
});
