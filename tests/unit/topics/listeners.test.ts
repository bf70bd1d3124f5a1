import { describe, expect, test } from 'bun:test';
import type { Position } from '../../../src/core/log-commands.ts';
import { type Ear, Listeners, TopicsFullError } from '../../../src/topics/listeners.ts';
import { MemoryStore } from '../../../src/topics/memory-store.ts';
import type { LogPage, LogQuery, TopicStore } from '../../../src/topics/store.ts';
import { at, FakeLogs } from './fake-logs.ts';

const limits = { size: 1000, seconds: 60 };

class Notes implements Ear {
  readonly heard: string[] = [];
  onMessage({ payload, position }: { payload: Uint8Array; position: Position | undefined }): void {
    this.heard.push(`${position?.offset ?? '-'} ${Buffer.from(payload).toString()}`);
  }
  onLost(position: Position | undefined): void {
    this.heard.push(`lost ${position?.offset ?? '-'}`);
  }
}

function made() {
  const core = new FakeLogs();
  const store = new MemoryStore(core, () => {});
  return { core, store, listeners: new Listeners(core), notes: new Notes() };
}

/** A store in whose reads something happens. */
function reading(store: TopicStore, before: (query: LogQuery) => void, page?: (page: LogPage) => LogPage): TopicStore {
  return {
    ...store,
    follow: async () => {},
    read: async (topic: string, query: LogQuery) => {
      before(query);
      const read = await store.read(topic, query, limits);
      return page === undefined ? read : page(read);
    },
  } as TopicStore;
}

describe('functions that hear topics', () => {
  test('a topic is held as long as somebody listens, once however many', () => {
    const { core, listeners, notes } = made();
    const other = new Notes();
    const first = listeners.listen('a', notes);
    const second = listeners.listen('a', other);
    core.tell('a', 'one', undefined);
    first.stop();
    first.stop();
    core.tell('a', 'two', undefined);
    expect(core.held).toEqual(new Set(['a']));
    second.stop();
    expect(core.held.size).toBe(0);
    core.tell('a', 'three', undefined);
    expect([notes.heard, other.heard]).toEqual([['- one'], ['- one', '- two']]);
  });

  test('one that stops itself, or another, while it hears, keeps nobody else from hearing', () => {
    const { core, listeners, notes } = made();
    const stopper = listeners.listen('a', { onMessage: () => stopper.stop(), onLost() {} });
    listeners.listen('a', notes);
    core.tell('a', 'one', undefined);
    core.tell('a', 'two', undefined);
    expect(notes.heard).toEqual(['- one', '- two']);
  });

  test('where the worker has no room for the topic, nobody listens', () => {
    const { core, listeners, notes } = made();
    core.isFull = true;
    expect(() => listeners.listen('a', notes)).toThrow(TopicsFullError);
    core.isFull = false;
    core.tell('a', 'one', undefined);
    expect([notes.heard, listeners.size]).toEqual([[], 0]);
  });

  test('without a position it begins at the end of the log', async () => {
    const { core, store, listeners, notes } = made();
    core.logAppend('a', 1, 'old', limits);
    const { position, recovered } = await listeners.listenFrom('a', limits, undefined, store, notes);
    core.tell('a', 'new', at(2));
    expect([position?.offset, recovered, notes.heard]).toEqual([1, false, ['2 new']]);
  });

  test('with one it hears what it has missed, then what comes, each once, whatever comes meanwhile', async () => {
    const { core, store, listeners, notes } = made();
    for (let offset = 1; offset <= 1200; offset++) core.logAppend('a', 1, `m${offset}`, limits);
    let reads = 0;
    const append = () => {
      if (++reads > 3) return;
      const { offset } = core.logAppend('a', 1, 'more', limits) as Position;
      core.tell('a', 'more', at(offset));
    };
    const { recovered } = await listeners.listenFrom('a', limits, at(250), reading(store, append), notes);
    core.tell('a', 'live', at(1204));
    expect(recovered).toBe(true);
    expect(notes.heard.map((line) => Number.parseInt(line, 10))).toEqual(Array.from({ length: 954 }, (_, index) => 251 + index));
  });

  test('more than waits while it reads is read from the store as well', async () => {
    const { core, store, listeners, notes } = made();
    const big = { size: 100_000, seconds: 60 };
    core.logAppend('a', 1, 'm1', big);
    let reads = 0;
    const flood = () => {
      if (reads++ > 0) return;
      for (let index = 0; index < 3000; index++) {
        const { offset } = core.logAppend('a', 1, 'flood', big) as Position;
        core.tell('a', 'flood', at(offset));
      }
    };
    await listeners.listenFrom('a', big, at(0), reading(store, flood), notes);
    expect(notes.heard.map((line) => Number.parseInt(line, 10))).toEqual(Array.from({ length: 3001 }, (_, index) => 1 + index));
  });

  test('a hole in the log is told, and so is another epoch', async () => {
    const { core, store, listeners, notes } = made();
    const small = { size: 3, seconds: 60 };
    for (let offset = 1; offset <= 9; offset++) core.logAppend('a', 1, `m${offset}`, small);
    const expired = await listeners.listenFrom('a', small, at(2), store, notes);
    expect([expired.recovered, notes.heard]).toEqual([false, ['lost 6', '7 m7', '8 m8', '9 m9']]);
    const others = new Notes();
    const foreign = await listeners.listenFrom('a', small, at(4, 'feedfeedfeedfeed'), store, others);
    core.tell('a', 'm10', at(10));
    expect([foreign.recovered, others.heard]).toEqual([false, ['lost 9', '10 m10']]);
    expect(foreign.position).toEqual(at(9));
  });

  test('of no log at all it hears the first message that comes', async () => {
    const { core, store, listeners, notes } = made();
    const { recovered } = await listeners.listenFrom('a', limits, at(4), store, notes);
    core.tell('a', 'm1', { epoch: 'feedfeedfeedfeed', offset: 1 });
    expect([recovered, notes.heard]).toEqual([false, ['lost 0', '1 m1']]);
  });

  test('when the core has lost messages for the host, it is told once it is live', async () => {
    const { core, store, listeners, notes } = made();
    core.logAppend('a', 1, 'm1', limits);
    await listeners.listenFrom('a', limits, at(1), store, notes);
    core.tell('a', '', at(5), true);
    core.tell('a', 'm6', at(6));
    core.tell('a', 'm5', at(5));
    expect(notes.heard).toEqual(['lost 5', '6 m6']);
  });

  test('a store that fails leaves nobody listening', async () => {
    const { core, store, listeners, notes } = made();
    const failing = reading(store, () => {
      throw new Error('away');
    });
    expect(listeners.listenFrom('a', limits, at(1), failing, notes)).rejects.toThrow('away');
    await new Promise(setImmediate);
    expect(core.held.size).toBe(0);
    const unfollowed = { ...store, follow: () => Promise.reject(new Error('gone')) } as unknown as TopicStore;
    expect(listeners.listenFrom('a', limits, at(1), unfollowed, notes)).rejects.toThrow('gone');
    expect(listeners.size).toBe(0);
  });
});
