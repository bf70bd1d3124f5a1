import { afterEach, describe, expect, test } from 'bun:test';
import { sendText } from '../../../src/api/message.ts';
import type { LogEnd } from '../../../src/core/log-commands.ts';
import {
  type LinkLogs,
  type LinkState,
  LinkUnavailableError,
  type NewStoredEntry,
  type StoredPage,
  type StoredQuery,
} from '../../../src/pubsub/link.ts';
import { LinkedStore } from '../../../src/topics/linked-store.ts';
import { StoreUnavailableError } from '../../../src/topics/store.ts';

const epoch = '1'.repeat(16);
const other = '2'.repeat(16);
const limits = { size: 100, seconds: 60 };

/** A node's log and the shared one, as a test says. */
class World {
  end: LogEnd | undefined;
  state: LinkState = 'up';
  page: StoredPage = { epoch, offset: 0, entries: [] };
  isAway = false;
  hasRoom = true;
  readonly reads: StoredQuery[] = [];
  readonly wanted: string[] = [];
  readonly appended: NewStoredEntry[] = [];
  readonly own = new Set<string>();
  readonly store: LinkedStore;

  constructor() {
    const world = this;
    const logs: LinkLogs = {
      hasRoom: () => this.hasRoom,
      append: async (_, entry) => {
        if (this.isAway) throw new LinkUnavailableError('away');
        this.appended.push(entry);
        return { epoch, offset: this.appended.length, isDuplicate: false };
      },
      read: async (_, query) => {
        this.reads.push(query);
        if (this.isAway) throw new LinkUnavailableError('away');
        return this.page;
      },
    };
    this.store = new LinkedStore({
      core: { logEnd: () => this.end },
      logs,
      members: undefined,
      bus: {
        get state() {
          return world.state;
        },
        want: (topic) => {
          this.wanted.push(`+${Buffer.from(topic)}`);
          this.own.add(Buffer.from(topic).toString());
        },
        isWanted: (topic) => this.own.has(Buffer.from(topic).toString()),
        unwant: (topic) => void this.wanted.push(`-${Buffer.from(topic)}`),
        flushMembers: async () => {},
      },
    });
    worlds.push(this);
  }

  at(offset: number, isFollowed = true, of = epoch): void {
    this.end = { epoch: of, offset, first: 1, isFollowed };
  }
}

const worlds: World[] = [];
afterEach(async () => {
  for (const { store } of worlds.splice(0)) await store.close();
});

/** Whether it has settled once all that is due has run. */
async function settles(promise: Promise<unknown>): Promise<string> {
  const outcome = promise.then(
    () => 'done',
    (error: unknown) => `failed: ${(error as Error).constructor.name}`,
  );
  return await Promise.race([outcome, Bun.sleep(30).then(() => 'waits')]);
}

describe('following a log that lies elsewhere', () => {
  test('has the node want the topic, and waits until its log is followed', async () => {
    const world = new World();
    const [first, second] = [world.store.follow('t', limits), world.store.follow('t', limits)];
    expect(world.wanted).toEqual(['+t']);
    expect(world.store.isAtHand('t')).toBe(false);
    expect(await settles(first)).toBe('waits');
    world.at(3);
    expect(await settles(Promise.all([first, second]))).toBe('done');
    expect(world.store.isAtHand('t')).toBe(true);
    expect(world.reads).toEqual([]);
    expect(await settles(world.store.follow('t', limits))).toBe('done');
    expect(world.wanted).toEqual(['+t']);
  });

  test('does not believe what a worker has left that died: it is compared with what there is', async () => {
    const world = new World();
    world.at(3);
    world.page = { epoch, offset: 5, entries: [] };
    expect(world.store.isAtHand('t')).toBe(false);
    const followed = world.store.follow('t', limits);
    expect(await settles(followed)).toBe('waits');
    expect(world.reads).toMatchObject([{ mode: 'last', limit: 0 }]);
    world.at(5);
    expect(await settles(followed)).toBe('done');
  });

  test('of another epoch waits for that', async () => {
    const world = new World();
    world.at(30);
    world.page = { epoch: other, offset: 5, entries: [] };
    const followed = world.store.follow('t', limits);
    expect(await settles(followed)).toBe('waits');
    world.at(5, true, other);
    expect(await settles(followed)).toBe('done');
  });

  test('makes do with what is here while nobody can be asked', async () => {
    const world = new World();
    world.at(3);
    world.state = 'lost';
    expect(await settles(world.store.follow('t', limits))).toBe('done');
    expect(world.reads).toEqual([]);
  });

  test('fails as the store does, and when the worker ends', async () => {
    const world = new World();
    world.at(3);
    world.isAway = true;
    expect(await settles(world.store.follow('t', limits))).toBe('failed: StoreUnavailableError');
    world.end = undefined;
    const followed = world.store.follow('u', limits);
    expect(await settles(followed)).toBe('waits');
    await world.store.close();
    expect(await settles(followed)).toBe('failed: StoreUnavailableError');
  });
});

describe('reaching a position of another node', () => {
  test('waits for what the store has, and for nothing else', async () => {
    const world = new World();
    world.own.add('t');
    world.at(3);
    world.page = { epoch, offset: 5, entries: [] };
    const reached = world.store.reach('t', { epoch, offset: 5 }, limits);
    expect(await settles(reached)).toBe('waits');
    world.at(5);
    expect(await settles(reached)).toBe('done');
    expect(await settles(world.store.reach('t', { epoch, offset: 6 }, limits))).toBe('done');
    expect(await settles(world.store.reach('t', { epoch: other, offset: 60 }, limits))).toBe('done');
  });

  test('of an epoch that this node has not heard of waits for that, and not for one that is over again', async () => {
    const world = new World();
    world.own.add('t');
    world.at(30);
    world.page = { epoch: other, offset: 5, entries: [] };
    const [reached, given] = [
      world.store.reach('t', { epoch: other, offset: 4 }, limits),
      world.store.reach('t', { epoch: other, offset: 5 }, limits),
    ];
    expect(await settles(reached)).toBe('waits');
    world.at(4, true, other);
    expect(await settles(reached)).toBe('done');
    expect(await settles(given)).toBe('waits');
    world.at(1, true, '3'.repeat(16));
    expect(await settles(given)).toBe('done');
  });
});

describe('publishing to a log that lies elsewhere', () => {
  const message = { flags: sendText, payload: 'grüße', idempotencyKey: 'key' };

  test('tells at once what is known, and fails as stores do', async () => {
    const world = new World();
    expect(world.store.submit('t', message, limits)).toBe('accepted');
    world.state = 'lost';
    expect(world.store.submit('t', message, limits)).toBe('queued');
    world.hasRoom = false;
    expect(world.store.submit('t', message, limits)).toBe('dropped');
    expect(world.appended.length).toBe(2);
    expect(world.appended[0]).toMatchObject({ payload: Buffer.from('grüße'), key: Buffer.from('key') });
    world.isAway = true;
    await expect(world.store.append('t', message, limits)).rejects.toBeInstanceOf(StoreUnavailableError);
    expect(await world.store.presence('t')).toMatchObject({ members: [] });
    expect(await world.store.presenceCount('t')).toEqual({ users: 0, connections: 0 });
  });
});
