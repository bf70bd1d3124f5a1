import { afterEach, beforeEach, describe, expect, test } from 'bun:test';
import { native, type SharedStats, SystemError } from '../../../ffi/bindings.ts';
import type { GatewaySocket } from '../../../src/api/socket.ts';
import type { BehaviorOptions } from '../../../src/core/core.ts';
import type { DirtyUser } from '../../../src/core/presence-commands.ts';
import { hostLayout, statIndex } from '../../../src/core/stat-index.ts';
import { backends, LiveCore } from '../../support/live-core.ts';
import type { Wire } from '../../support/wire.ts';

const noInfo = new Uint8Array();
const grace = 60_000;

let shmFd: number;
let shared: SharedStats;
let lives: LiveCore[];

const start = (workerIndex = 0, followsLogs = false, behavior: Partial<BehaviorOptions> = {}): LiveCore => {
  const live = new LiveCore('epoll', { behavior, core: { shmFd, workerIndex, workerCount: 3, followsLogs } });
  lives.push(live);
  return live;
};

beforeEach(() => {
  shmFd = native.shmCreate(3, 65536, hostLayout, 16 << 20);
  shared = native.shmMap(shmFd, hostLayout);
  lives = [];
});
afterEach(() => {
  for (const live of lives) live.destroy();
  shared.unmap();
  native.fdClose(shmFd);
});

interface Member {
  readonly wire: Wire;
  readonly socket: GatewaySocket;
}

async function present(live: LiveCore, user: string, options: { topic?: string; info?: string; graceMs?: number } = {}): Promise<Member> {
  const { topic = 'chat', info = '', graceMs = grace } = options;
  const { wire, socket } = await live.open();
  socket.subscribe(topic);
  expect(live.core.presenceJoin(socket.slot, socket.generation, topic, user, Buffer.from(info), graceMs)).not.toBe('closed');
  return { wire, socket };
}

const who = (live: LiveCore, topic = 'chat') =>
  live.core.presenceList(topic).members.map(({ user, info, connections }) => `${user}*${connections}${Buffer.from(info)}`);
const at = (live: LiveCore, topic = 'chat') => live.core.presenceList(topic).position.offset;
const tick = (live: LiveCore) => {
  while (live.core.presenceTick());
};
/** The client goes away, and the core has noticed. */
async function leaves(live: LiveCore, { wire, socket }: Member): Promise<void> {
  wire.destroy();
  await live.until('the end of the connection', () => !live.core.isSubscribed(socket.slot, socket.generation, 'chat'));
}

describe.each(backends.map((backend) => [backend]))('a connection on %s', (backend) => {
  test('is there from its join until it unsubscribes', async () => {
    const live = new LiveCore(backend, { core: { shmFd, workerIndex: 0, workerCount: 3 } });
    lives.push(live);
    const { socket } = await live.open();
    const { core } = live;
    const join = (user: string) => core.presenceJoin(socket.slot, socket.generation, 'chat', user, Buffer.from('{"n":1}'), grace);
    expect(join('ann')).toBe('closed'); // not subscribed
    socket.subscribe('chat');
    expect(join('ann')).toBe('joined');
    expect(join('ann')).toBe('again');
    expect(who(live)).toEqual(['ann*1{"n":1}']);
    expect(core.presenceCount('chat')).toEqual({ users: 1, connections: 1 });
    expect(core.presenceCount('other')).toEqual({ users: 0, connections: 0 });
    expect(join('bob')).toBe('joined'); // it was ann before
    expect(who(live)).toEqual(['bob*1{"n":1}']);
    expect(at(live)).toBe(3);
    socket.unsubscribe('chat');
    expect(who(live)).toEqual([]);
    expect(at(live)).toBe(4);
    expect(core.readStat(statIndex('presence_members'))).toBe(0);
    expect(core.readStat(statIndex('presence_joins'))).toBe(2);
    expect(core.readStat(statIndex('presence_leaves'))).toBe(2);
  });

  test('that ends leaves its user there for the grace, and calls no JavaScript', async () => {
    const live = new LiveCore(backend, { core: { shmFd, workerIndex: 0, workerCount: 3 } });
    lives.push(live);
    const ann = await present(live, 'ann');
    const bob = await present(live, 'bob', { graceMs: 0 });
    await leaves(live, bob); // whose grace is of the topic, and so ann's
    expect(who(live)).toEqual(['ann*1']);
    await present(live, 'eve');
    await leaves(live, ann);
    expect(who(live)).toEqual(['ann*1', 'eve*1']);
    const again = await present(live, 'ann');
    expect(at(live)).toBe(4); // three joins, and bob's leave
    live.core.presenceLeave(again.socket.slot, again.socket.generation, 'chat');
    expect(who(live)).toEqual(['eve*1']);
    expect(live.core.isSubscribed(again.socket.slot, again.socket.generation, 'chat')).toBe(true);
  });
});

describe('a user', () => {
  test('with two tabs on two workers is one', async () => {
    const [one, two] = [start(0), start(1)];
    const first = await present(one, 'ann', { info: '{"tab":1}' });
    const second = await present(two, 'ann', { info: '{"tab":2}' });
    expect(who(one)).toEqual(['ann*2{"tab":1}']); // what it came with
    expect(one.core.presenceList('chat')).toEqual(two.core.presenceList('chat'));
    first.socket.unsubscribe('chat');
    expect(who(one)).toEqual(['ann*1{"tab":1}']);
    expect(who(two)).toEqual(who(one));
    second.socket.unsubscribe('chat');
    expect(who(two)).toEqual([]);
    expect(at(one)).toBe(2);
  });

  test('of any name is listed as it was called', async () => {
    const live = start();
    const names = ['Ænn ☃ 😀', '"\\\n', 'x'.repeat(1024), '\ufeffann'];
    for (const name of names) await present(live, name);
    expect(live.core.presenceList('chat').members.map(({ user }) => user)).toEqual(names);
  });

  test('whose grace is over leaves at a tick of any worker', async () => {
    const [one, two] = [start(0), start(1)];
    const ann = await present(one, 'ann', { graceMs: 1 });
    await leaves(one, ann);
    await two.until('the leave', () => {
      tick(two);
      return two.core.presenceCount('chat').users === 0;
    });
    expect(two.core.readStat(statIndex('presence_leaves'))).toBe(1);
    expect(one.core.readStat(statIndex('presence_leaves'))).toBe(0);
  });
});

describe('a worker', () => {
  test('that is gone leaves its members to their graces', async () => {
    const [one, two] = [start(0), start(1)];
    await present(one, 'ann', { graceMs: 1 });
    await present(two, 'bob', { graceMs: 1 });
    shared.workerGone(0); // as after a kill: what lives in it here is not asked any more
    tick(two);
    await two.until('the leave', () => {
      tick(two);
      return two.core.presenceCount('chat').users === 1;
    });
    expect(who(two)).toEqual(['bob*1']);
  });

  test('that ends by itself has its members in their graces, and another generation goes on with them', async () => {
    const one = start(0);
    await present(one, 'ann');
    lives = [];
    one.destroy();
    const two = start(1);
    tick(two);
    expect(who(two)).toEqual(['ann*1']);
    await present(two, 'ann');
    tick(two);
    expect(who(two)).toEqual(['ann*1']);
    expect(at(two)).toBe(1);
  });
});

describe('who follows joins and leaves', () => {
  /** A connection that hears of them, from what a list says on. */
  async function watch(live: LiveCore) {
    const { wire, socket } = await live.open();
    const { position } = live.core.presenceList('chat');
    expect(live.core.attach(socket.slot, socket.generation, 'chat', { since: position, isPresence: true })).toMatchObject({
      recovered: true,
    });
    return { wire, socket, position };
  }

  /** Everybody turns until so many have come; they follow each other without a gap. ret: 'join ann', 'leave ann' */
  async function heard({ wire }: Pick<Member, 'wire'>, count: number): Promise<string[]> {
    const got: Record<string, unknown>[] = [];
    const take = async () => {
      while (got.length < count) got.push(JSON.parse((await wire.frame())?.payload.toString() ?? '{"event":"the end"}'));
    };
    const taken = take();
    await (lives[0] as LiveCore).until('joins and leaves', () => {
      for (const live of lives) live.turn();
      return got.length === count;
    });
    await taken;
    const [{ offset: first } = {}] = got;
    got.forEach(({ offset, topic }, n) => {
      expect(offset).toBe((first as number) + n);
      expect(topic).toBe('chat');
    });
    return got.map(({ event, user, info }) => `${event} ${user}${info === undefined ? '' : ` ${JSON.stringify(info)}`}`);
  }

  test('hears them on any worker, in the order in which they happened', async () => {
    const positions = { positions: true };
    const [one, two] = [start(0, false, positions), start(1, false, positions)];
    const watchers = [await watch(one), await watch(two)];
    const ann = await present(one, 'ann', { info: '{"n":1}', graceMs: 0 });
    const bob = await present(two, 'bob', { graceMs: 0 });
    const annToo = await present(two, 'ann', { graceMs: 0 });
    ann.socket.unsubscribe('chat');
    one.core.flush();
    await leaves(two, bob); // without grace: told by the turn in which it ends
    annToo.socket.unsubscribe('chat');
    const expected = ['join ann {"n":1}', 'join bob', 'leave bob', 'leave ann {"n":1}'];
    for (const watcher of watchers) expect(await heard(watcher, 4)).toEqual(expected);
    // Who comes now goes on from what a list says.
    const late = await watch(two);
    expect(late.position.offset).toBe(4);
    await present(one, 'eve');
    for (const watcher of [...watchers, late]) expect(await heard(watcher, 1)).toEqual(['join eve']);
  });

  test('hears of the end of a grace from whichever worker has noticed', async () => {
    const positions = { positions: true };
    const [one, two] = [start(0, false, positions), start(1, false, positions)];
    const watcher = await watch(one);
    await leaves(two, await present(two, 'ann', { graceMs: 1 }));
    await present(two, 'bob', { graceMs: 1 });
    await two.until('the leave', () => {
      tick(two);
      return two.core.presenceCount('chat').users === 1;
    });
    expect(await heard(watcher, 3)).toEqual(['join ann', 'join bob', 'leave ann']);
    shared.workerGone(1);
    await one.until('the leave of who was on a worker that is gone', () => {
      tick(one);
      return one.core.presenceCount('chat').users === 0;
    });
    lives.splice(1);
    expect(await heard(watcher, 1)).toEqual(['leave bob']);
    two.destroy();
  });

  test('hears of members that a delivery has ended, and is ended itself, without harm to others', async () => {
    // A limit that one message goes past: whoever does not read is closed in the middle of a delivery.
    const live = start(0, false, { positions: true, maxBackpressureBytes: 1 << 20, closeOnBackpressure: true });
    const watcher = await watch(live);
    const members: Member[] = [];
    for (const user of ['ann', 'bob', 'eve']) members.push(await present(live, user, { graceMs: 0 }));
    expect(await heard(watcher, 3)).toEqual(['join ann', 'join bob', 'join eve']);
    for (const { wire } of members) wire.pause();
    const message = new Uint8Array(800_000);
    for (let n = 0; n < 40 && live.core.presenceCount('chat').users > 0; n++) {
      live.core.publish('chat', 0, message);
      live.turn();
    }
    expect(live.core.presenceCount('chat')).toEqual({ users: 0, connections: 0 });
    expect((await heard(watcher, 3)).sort()).toEqual(['leave ann', 'leave bob', 'leave eve']);
  });
});

describe('limits', () => {
  test('a topic has as many members as it may', async () => {
    const live = start();
    const outcomes: string[] = [];
    for (const user of ['ann', 'bob', 'eve']) {
      const { socket } = await live.open();
      socket.subscribe('chat');
      outcomes.push(live.core.presenceJoin(socket.slot, socket.generation, 'chat', user, noInfo, grace, 2));
      expect(live.core.isSubscribed(socket.slot, socket.generation, 'chat')).toBe(true);
    }
    expect(outcomes).toEqual(['joined', 'joined', 'full']);
    expect(who(live)).toEqual(['ann*1', 'bob*1']);
  });

  test('a list comes whole, however long it is', async () => {
    const live = start();
    const info = JSON.stringify('x'.repeat(16_000));
    for (let n = 0; n < 30; n++) await present(live, `user ${n}`, { info });
    expect(who(live)).toEqual(Array.from({ length: 30 }, (_, n) => `user ${n}*1${info}`));
  });

  test('what makes no sense is refused', async () => {
    const live = start();
    const { socket } = await live.open();
    const join = (topic: string, user: string, info: Uint8Array = noInfo) =>
      live.core.presenceJoin(socket.slot, socket.generation, topic, user, info, grace);
    socket.subscribe('chat');
    expect(() => join('chat', '')).toThrow(SystemError);
    expect(() => join('chat', 'x'.repeat(1025))).toThrow(SystemError);
    expect(() => join('chat', 'ann', new Uint8Array(16_385))).toThrow(SystemError);
    expect(() => live.core.presenceList('')).toThrow('at least one byte');
    expect(() => live.core.presenceCount('x'.repeat(1023))).toThrow(SystemError);
    expect(live.core.presenceJoin(socket.slot, socket.generation + 1, 'chat', 'ann', noInfo, grace)).toBe('closed');
    expect(who(live)).toEqual([]);
  });

  test('a node without memory for it says so', async () => {
    const live = new LiveCore('epoll');
    lives.push(live);
    const { socket } = await live.open();
    socket.subscribe('chat');
    expect(() => live.core.presenceJoin(socket.slot, socket.generation, 'chat', 'ann', noInfo, grace)).toThrow('RW_ERR_UNSUPPORTED');
    expect(live.core.presenceTick()).toBe(false);
  });
});

describe('members that another store has too', () => {
  const named = (users: readonly DirtyUser[]) => users.map(({ topic, user, count }) => `${Buffer.from(topic)} ${user} ${count}`);

  test('are dirty until they are acknowledged, in whichever worker they have changed', async () => {
    const [one, two] = [start(0, true), start(1, true)];
    const ann = await present(one, 'ann', { info: '{}' });
    await present(two, 'bob', { topic: 'news' });
    const [first] = one.core.presenceTakeDirty(10);
    expect(first).toMatchObject({ user: 'ann', count: 1 });
    expect(Buffer.from(first?.info ?? []).toString()).toBe('{}');
    expect(named(two.core.presenceTakeDirty(10))).toEqual(['news bob 1']);
    expect([...one.core.presenceTakeDirty(10), ...two.core.presenceTakeDirty(10)]).toEqual([]);
    two.core.presenceAcked('chat', 'ann', first?.version ?? 0);
    two.core.presenceAcked('chat', 'nobody', 7);
    ann.socket.unsubscribe('chat');
    const [gone] = one.core.presenceTakeDirty(10);
    expect(gone).toMatchObject({ user: 'ann', count: 0 });
    expect(gone?.version).toBeGreaterThan(first?.version as number);
    expect(who(one)).toEqual([]);
    // The log is the store's.
    expect(one.core.presenceList('chat').position).toEqual({ epoch: '0000000000000000', offset: 0 });
  });

  test('are given out again when the store has lost them', async () => {
    const live = start(0, true);
    for (const user of ['ann', 'bob', '\ufeffann']) await present(live, user);
    const taken = live.core.presenceTakeDirty(10);
    expect(named(taken)).toEqual(['chat ann 1', 'chat bob 1', 'chat \ufeffann 1']);
    for (const { topic, user, version } of taken) live.core.presenceAcked(topic, user, version);
    expect(live.core.presenceTakeDirty(10)).toEqual([]);
    let cursor = 0;
    do cursor = live.core.presenceRewrite(cursor);
    while (cursor !== 0);
    expect(live.core.presenceTakeDirty(2)).toHaveLength(2);
    expect(live.core.presenceTakeDirty(2)).toHaveLength(1);
  });
});
