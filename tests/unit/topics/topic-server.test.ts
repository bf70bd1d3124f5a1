import { describe, expect, test } from 'bun:test';
import { SocketArgumentError, sendText } from '../../../src/api/message.ts';
import { NotInWorkerError, setServerTopics } from '../../../src/api/publish.ts';
import * as functions from '../../../src/api/topic-functions.ts';
import type { HistoryOptions, PresenceEvent, TopicMessageInfo } from '../../../src/api/topics.ts';
import { resolveTopics } from '../../../src/config/topics.ts';
import { commandFlag } from '../../../src/core/abi.ts';
import { ConnectionIds } from '../../../src/core/connection-ids.ts';
import type { Core } from '../../../src/core/core.ts';
import { encodePresenceEntry } from '../../../src/core/presence-commands.ts';
import { Listeners, TopicsFullError } from '../../../src/topics/listeners.ts';
import { MemoryStore } from '../../../src/topics/memory-store.ts';
import { Policies } from '../../../src/topics/policies.ts';
import { RawTopics } from '../../../src/topics/raw-topics.ts';
import { TopicServer, type TopicServerPorts } from '../../../src/topics/topic-server.ts';
import { TopicPolicyError } from '../../../src/topics/topics.ts';
import { at, epoch, FakeLogs, socket } from './fake-logs.ts';

const history = { size: 100, seconds: 60 };

class FakeCore extends FakeLogs {
  readonly ids = new ConnectionIds();

  publish(...args: unknown[]) {
    this.calls.push(['publish', ...args]);
    return 'accepted' as const;
  }

  close(...args: unknown[]): void {
    this.calls.push(['close', ...args]);
  }

  subscribers(): number {
    return 4;
  }

  topicsOf(): Uint8Array[] {
    return ['a', '\0pa'].map((name) => Buffer.from(name));
  }
}

function made(ports: Partial<TopicServerPorts> = {}) {
  const core = new FakeCore();
  const asked: unknown[] = [];
  const failures: unknown[] = [];
  const store = new MemoryStore(core, () => {});
  const topics = { 'chat/:room': { history, presence: true }, quiet: { authorize: () => true } };
  const server: TopicServer = new TopicServer({
    core: core as unknown as TopicServerPorts['core'],
    topics: new RawTopics(core as unknown as Core),
    policies: new Policies(resolveTopics(topics, () => {})),
    store,
    listeners: new Listeners(core),
    control: {
      ask: async <Answer>(what: string, args: unknown) => {
        asked.push([what, args]);
        return [server.answers[what as 'topics'](args as never)] as Answer[];
      },
    },
    streams: () => undefined,
    failed: (context) => failures.push((context as { err: unknown }).err),
    ...ports,
  });
  return { core, server, asked, failures, store };
}

const settled = () => new Promise(setImmediate);

describe('to hear', () => {
  test('messages come as what they are, with where they lie', async () => {
    const { core, server } = made();
    const heard: [string | Uint8Array, TopicMessageInfo][] = [];
    const { unsubscribe, recovered, offset } = await server.listen('chat/1', (message, info) => heard.push([message, info]), {});
    core.tell('chat/1', 'text', at(1));
    core.onTopicMessage?.(Buffer.from('chat/1'), 0, Uint8Array.from([7]), at(2), false);
    unsubscribe();
    core.tell('chat/1', 'late', at(3));
    expect([recovered, offset]).toEqual([false, undefined]);
    expect(heard).toEqual([
      ['text', { topic: 'chat/1', epoch, offset: 1 }],
      [Uint8Array.from([7]), { topic: 'chat/1', epoch, offset: 2 }],
    ]);
  });

  test('what was missed comes first', async () => {
    const { core, server, store } = made();
    for (const text of ['1', '2', '3']) store.submit('chat/1', { flags: sendText, payload: text }, history);
    const heard: unknown[] = [];
    const { recovered } = await server.listen('chat/1', (message) => heard.push(message), { since: `${epoch}:1` });
    core.tell('chat/1', '4', at(4));
    expect([recovered, heard]).toEqual([true, ['2', '3', '4']]);
  });

  test('a loss is told at once, and with the next message', async () => {
    const { core, server } = made();
    const heard: unknown[] = [];
    await server.listen('chat/1', (_, info) => heard.push(info), { onLost: (info) => heard.push(['lost', info]) });
    core.tell('chat/1', '', at(4), true);
    core.tell('chat/1', 'x', at(5));
    core.tell('chat/1', 'y', at(6));
    const info = { topic: 'chat/1', epoch };
    expect(heard).toEqual([['lost', { ...info, offset: 4, lost: true }], { ...info, offset: 5, lost: true }, { ...info, offset: 6 }]);
  });

  test('topics without history have no positions', async () => {
    const { core, server } = made();
    const heard: unknown[] = [];
    await server.listen('free', (message, info) => heard.push([message, info]), {});
    core.tell('free', 'x', undefined);
    expect(heard).toEqual([['x', { topic: 'free' }]]);
    expect(server.listen('free', () => {}, { since: at(1) })).rejects.toThrow(TopicPolicyError);
  });

  test('a listener that fails is reported, and the others hear', async () => {
    const { core, server, failures } = made();
    const heard: unknown[] = [];
    await server.listen(
      'free',
      () => {
        throw new Error('one');
      },
      {},
    );
    await server.listen('free', () => Promise.reject(new Error('two')), {});
    await server.listen('free', (message) => heard.push(message), {});
    core.tell('free', 'x', undefined);
    await settled();
    expect(heard).toEqual(['x']);
    expect(failures.map(String)).toEqual(['Error: one', 'Error: two']);
  });

  test('joins and leaves come with whom they are about; a loss says so; what is neither does not come', async () => {
    const { core, server } = made();
    const heard: PresenceEvent[] = [];
    const { unsubscribe } = await server.onPresence('chat/1', (event) => heard.push(event));
    const tell = (flags: number, payload: Uint8Array, lost = false) =>
      core.onTopicMessage?.(Buffer.from('\0pchat/1'), flags, payload, at(1), lost);
    const entry = (user: string, info = '') => encodePresenceEntry({ user, info: Buffer.from(info) });
    tell(commandFlag.entryJoin, entry('ann', '{"n":1}'));
    tell(commandFlag.entryLeave, entry('é'));
    tell(commandFlag.entryJoin, entry('bob', '{'));
    tell(0, entry('eve'));
    tell(commandFlag.entryJoin, new Uint8Array(1));
    tell(0, new Uint8Array(), true);
    const topic = 'chat/1';
    expect(heard).toEqual([
      { event: 'join', topic, user: 'ann', info: { n: 1 } },
      { event: 'leave', topic, user: 'é' },
      { event: 'join', topic, user: 'bob' },
      { event: 'lost', topic },
    ]);
    unsubscribe();
    expect(core.held.size).toBe(0);
  });

  test('without room, or presence, nobody hears', async () => {
    const { core, server } = made();
    for (const topic of ['quiet', 'free']) expect(server.onPresence(topic, () => {})).rejects.toThrow(TopicPolicyError);
    core.isFull = true;
    expect(server.listen('free', () => {}, {})).rejects.toThrow(TopicsFullError);
    expect(server.onPresence('chat/1', () => {})).rejects.toThrow(TopicsFullError);
    await settled();
  });
});

describe('to look', () => {
  test('back, from a position, forwards or backwards', async () => {
    const { server, store } = made();
    for (const text of ['1', '2', '3', '4']) store.submit('chat/1', { flags: sendText, payload: text }, history);
    store.submit('chat/1', { flags: 0, payload: Uint8Array.from([5]) }, history);
    const offsets = async (options: HistoryOptions) => {
      const { messages, recovered, offset } = await server.history('chat/1', options);
      return [messages.map((message) => message.offset), recovered, offset];
    };
    expect(await offsets({})).toEqual([[1, 2, 3, 4, 5], true, 5]);
    expect(await offsets({ limit: 2 })).toEqual([[1, 2], true, 5]);
    expect(await offsets({ limit: 0 })).toEqual([[], true, 5]);
    expect(await offsets({ reverse: true, limit: 2 })).toEqual([[5, 4], true, 5]);
    expect(await offsets({ since: `${epoch}:3` })).toEqual([[4, 5], true, 5]);
    expect(await offsets({ since: at(3), reverse: true })).toEqual([[2, 1], true, 5]);
    // Of the future, of another epoch, no position.
    for (const since of [at(6), at(1, 'feedfeedfeedfeed'), 'x', '']) expect(await offsets({ since })).toEqual([[], false, 5]);
    const { messages } = await server.history('chat/1', { since: at(3) });
    expect(messages).toEqual([
      { offset: 4, data: '4', time: 1004 },
      { offset: 5, data: Buffer.from([5]), time: 1005 },
    ]);
    expect(await server.history('chat/new', {})).toEqual({ epoch: '0'.repeat(16), offset: 0, recovered: true, messages: [] });
  });

  test('at who is there', async () => {
    const { server } = made();
    expect(await server.presence('chat/1')).toEqual({
      epoch,
      offset: 0,
      count: 2,
      users: [
        { id: 'ann', connections: 2, info: { name: 'Ann' } },
        { id: 'bob', connections: 1 },
      ],
    });
    expect(await server.presenceCount('chat/1')).toEqual({ users: 2, connections: 3 });
  });

  test('at topics and their subscribers, of all workers', async () => {
    const { server, asked } = made({ control: { ask: async <Answer>() => [2, null, 'x', 3] as Answer[] } });
    expect(await server.subscribers('a')).toBe(5);
    expect(asked).toEqual([]);
    const lists = made({ control: { ask: async <Answer>() => [['b', 'a'], null, ['c', 'a', 7]] as Answer[] } });
    expect(await lists.server.topics('', {})).toEqual(['a', 'b', 'c']);
    expect(await lists.server.topics('', { limit: 2 })).toEqual(['a', 'b']);
    const here = made();
    expect(await here.server.subscribers('a')).toBe(4);
    expect(await here.server.topics('', {})).toEqual(['a/1', 'a/2']);
    expect(here.asked).toEqual([
      ['subscribers', { topic: 'a' }],
      ['topics', { prefix: '', limit: 1000 }],
    ]);
  });
});

describe('to act', () => {
  test('connections are disconnected by id, user or topic, and have left before they close', async () => {
    const { core, server } = made();
    for (const target of [{ socket: core.ids.of(socket) }, { user: 'ann' }, { topic: 'a' }]) {
      core.calls.length = 0;
      expect(await server.disconnect(target, 4000, 'bye')).toBe(1);
      expect(core.calls).toEqual([
        ['unsubscribe', 7, 3, Buffer.from('a')],
        ['unsubscribe', 7, 3, Buffer.from('\0pa')],
        ['close', 7, 3, 4000, 'bye'],
      ]);
    }
    core.calls.length = 0;
    expect(await server.disconnect({ socket: new ConnectionIds().of(socket) }, 4000, '')).toBe(0);
    core.isGone = true;
    expect(await server.disconnect({ topic: 'a' }, 4000, '')).toBe(0);
    expect(core.calls).toEqual([]);
  });

  test('a stream of events is ended by who serves it, and found by its user', async () => {
    const ended: unknown[] = [];
    const stream = { slot: 9, generation: 1 };
    const { core, server } = made({
      streams: () => ({
        end: (connection) => {
          if (connection.slot === stream.slot) ended.push(connection);
          return connection.slot === stream.slot;
        },
        of: (user) => (user === 'ann' ? [stream] : []),
      }),
    });
    expect(await server.disconnect({ user: 'ann' }, 1000, '')).toBe(2);
    expect(ended).toEqual([stream]);
    expect(core.calls.filter(([name]) => name === 'close')).toEqual([['close', 7, 3, 1000, '']]);
    expect(await server.disconnect({ user: 'bob' }, 1000, '')).toBe(1);
  });

  test('a user is sent to by the topic that all of its connections have', () => {
    const { core, server } = made();
    expect(server.sendToUser('ann', 'hello')).toBe('accepted');
    expect(core.calls).toEqual([['publish', '\0uann', sendText, 'hello', undefined, undefined]]);
  });
});

describe('what callers may get wrong is refused, and nobody asked', () => {
  const { core, server, asked } = made();
  const wrong: readonly [string, () => unknown][] = [
    ['no function', () => server.listen('a', 'x' as never, {})],
    ['no function for presence', () => server.onPresence('chat/1', {} as never)],
    ['no position', () => server.listen('chat/1', () => {}, { since: 3 as never })],
    ['a position of fractions', () => server.history('chat/1', { since: at(0.5) })],
    ['options of history that are none', () => server.history('chat/1', null as never)],
    ['options of topics that are none', () => server.topics('', null as never)],
    ['options of subscribe that are none', () => server.listen('chat/1', () => {}, 7 as never)],
    ['a limit below none', () => server.history('chat/1', { limit: -1 })],
    ['a limit over the most', () => server.history('chat/1', { limit: 1001 })],
    ['a limit that is no number', () => server.history('chat/1', { limit: '3' as never })],
    ['an order that is none', () => server.history('chat/1', { reverse: 'yes' as never })],
    ['no name', () => server.history('', {})],
    ['a reserved name', () => server.presence('\0pchat/1')],
    ['a reserved name to hear', () => server.listen('\0c', () => {}, {})],
    ['a reserved prefix', () => server.topics('\0', {})],
    ['no prefix', () => server.topics(3 as never, {})],
    ['no names', () => server.topics('', { limit: 0 })],
    ['nobody', () => server.disconnect({} as never, 1000, '')],
    ['two', () => server.disconnect({ user: 'a', topic: 'b' } as never, 1000, '')],
    ['no target', () => server.disconnect(null as never, 1000, '')],
    ['an empty user', () => server.disconnect({ user: '' }, 1000, '')],
    ['a code that may not be sent', () => server.disconnect({ user: 'a' }, 1006, '')],
    ['a long reason', () => server.disconnect({ user: 'a' }, 1000, 'x'.repeat(124))],
    ['no user', () => server.sendToUser('', 'x')],
    ['a long user', () => server.sendToUser('x'.repeat(1023), 'x')],
    ['no message', () => server.sendToUser('a', 7 as never)],
  ];
  for (const [what, ask] of wrong)
    test(what, async () => {
      expect((async () => ask())()).rejects.toThrow(SocketArgumentError);
      await settled();
      expect([core.calls, asked, core.held.size]).toEqual([[], [], 0]);
    });

  test('what the policy does not keep', async () => {
    for (const topic of ['quiet', 'free']) {
      expect(server.history(topic, {})).rejects.toThrow(/has no history: give it a policy/);
      expect(server.presence(topic)).rejects.toThrow(/presence: true/);
      expect(server.presenceCount(topic)).rejects.toThrow(TopicPolicyError);
    }
    await settled();
  });
});

describe('the functions of the package', () => {
  test('outside of a worker say so, and in one ask what it has', async () => {
    const calls: Record<string, () => unknown> = {
      subscribe: () => functions.subscribe('free', () => {}),
      history: () => functions.history('chat/1'),
      presence: () => functions.presence('chat/1'),
      presenceCount: () => functions.presenceCount('chat/1'),
      onPresence: () => functions.onPresence('chat/1', () => {}),
      subscribers: () => functions.subscribers('a'),
      topics: () => functions.topics(),
      disconnect: () => functions.disconnect({ topic: 'a' }),
      sendToUser: () => functions.sendToUser('ann', 'x'),
      sendJsonToUser: () => functions.sendJsonToUser('ann', { x: 1 }),
    };
    for (const [name, call] of Object.entries(calls)) {
      // Thrown at once: a rejection would be nobody's while a config is loaded.
      expect(call).toThrow(NotInWorkerError);
      expect(call).toThrow(new RegExp(`^${name === 'sendJsonToUser' ? 'sendToUser' : name}\\(\\) works in a running gateway`));
    }
    await settled();
    const { server, core } = made();
    setServerTopics(server);
    for (const call of Object.values(calls)) await call();
    expect(core.calls.filter(([name]) => name === 'publish').map((call) => call[3])).toEqual(['x', '{"x":1}']);
    expect(core.held).toEqual(new Set(['free', '\0pchat/1']));
  });
});
