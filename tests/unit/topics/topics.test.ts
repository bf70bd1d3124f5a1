import { describe, expect, test } from 'bun:test';
import { ReceivedMessage, SocketArgumentError, sendBinary, sendText } from '../../../src/api/message.ts';
import type { TopicPolicy } from '../../../src/api/topic-policy.ts';
import type { SubscribeResult } from '../../../src/api/topics.ts';
import { resolveTopics } from '../../../src/config/topics.ts';
import type { Core } from '../../../src/core/core.ts';
import { handleFor } from '../../../src/core/handles.ts';
import { Admission, type VerifyTopicToken } from '../../../src/topics/admission.ts';
import { Members } from '../../../src/topics/members.ts';
import { MemoryStore } from '../../../src/topics/memory-store.ts';
import { Policies } from '../../../src/topics/policies.ts';
import { RawTopics } from '../../../src/topics/raw-topics.ts';
import { type LogPage, type LogQuery, StoreUnavailableError, type TopicStore } from '../../../src/topics/store.ts';
import { Subscriptions } from '../../../src/topics/subscriptions.ts';
import { PolicyTopics, TopicPolicyError } from '../../../src/topics/topics.ts';
import { at, connection, epoch, FakeLogs, socket } from './fake-logs.ts';

const history = { size: 3, seconds: 60 };

interface Setup {
  readonly topics?: Readonly<Record<string, TopicPolicy>>;
  readonly verify?: VerifyTopicToken;
  /** In place of the store. */
  readonly store?: Partial<TopicStore>;
}

function made({ topics = { '*': { history, presence: true } }, verify, store: overrides }: Setup = {}) {
  const core = new FakeLogs();
  const counted: string[] = [];
  const failures: [string, unknown][] = [];
  const ends: unknown[] = [];
  const failed = (context: object, sentence: string) => failures.push([sentence, (context as { err: unknown }).err]);
  const memory = new MemoryStore(core, () => counted.push('full'));
  const store = new Proxy(memory, {
    get: (target, name) => {
      const own = overrides?.[name as keyof TopicStore] ?? target[name as keyof TopicStore];
      return own.bind(target);
    },
  }) as TopicStore;
  const complaints: unknown[] = [];
  const policies = new Policies(resolveTopics(topics, (...complaint) => complaints.push(complaint)));
  expect(complaints).toEqual([]);
  const admission = new Admission({ verifyTopicToken: verify, failed });
  const members = new Members({ core, failed, count: (refusal) => counted.push(refusal) });
  const subscriptions = new Subscriptions({
    core,
    store,
    admission,
    members,
    endsAt: (_, topic, expiresAt) => ends.push([topic, expiresAt]),
    count: (counter) => counted.push(counter),
  });
  const raw = new RawTopics(core as unknown as Core);
  const policied = new PolicyTopics({
    ...{ core, raw, policies, store, admission, subscriptions },
    onDropped: () => counted.push('dropped'),
  });
  return { core, counted, failures, ends, topics: policied };
}

const settled = async () => {
  for (let turn = 0; turn < 4; turn++) await new Promise(setImmediate);
};

describe('a topic with history', () => {
  test('is published to by its log, and says where the message lies', async () => {
    const { core, topics } = made();
    expect(topics.publish('a', 'one', socket)).toBe('accepted');
    expect(await topics.publishWith('a', Uint8Array.from([7]), { idempotencyKey: 'k' })).toEqual({ result: 'accepted', epoch, offset: 2 });
    expect(core.calls).toEqual([
      ['append', 'a', sendText, 'one', history, { exceptSlot: 7, exceptGeneration: 3 }],
      ['append', 'a', sendBinary, Uint8Array.from([7]), history, { key: 'k', keySeconds: 120 }],
    ]);
  });

  test('takes a received message as it lies in the batch, also where the position is waited for', async () => {
    const { core, topics } = made();
    const batch = { batch: 1, payloadBytes: Uint8Array.from([9, 65, 66, 9]) } as unknown as Core;
    const from = Object.assign(batch, { handle: handleFor(batch) }) as Core;
    const published = topics.publishWith('a', new ReceivedMessage(from, false, 1, 2, undefined), {});
    from.payloadBytes.fill(0);
    expect(await published).toMatchObject({ offset: 1 });
    expect(core.logRead('a', { limit: 1 })?.entries[0]?.payload).toEqual(Buffer.from('AB'));
  });

  test('without room it drops, and says so to who waits', async () => {
    const { core, topics, counted } = made();
    core.isFull = true;
    expect(topics.publish('a', 'x')).toBe('dropped');
    expect(topics.publishWith('a', 'x', {})).rejects.toThrow(StoreUnavailableError);
    await settled();
    expect(counted).toEqual(['full', 'dropped', 'full', 'dropped']);
  });

  test('is attached to at once, and the connection is seen there', () => {
    const { core, topics } = made();
    expect(topics.subscribe(connection, 'a')).toBe(true);
    expect(core.calls).toEqual([
      ['attach', 7, 3, 'a', { since: undefined }],
      ['join', 7, 3, 'a', 'id of 7', '', 3000, 10_000],
    ]);
  });

  test('goes on from a position, as text or as it was given', async () => {
    const { core, topics, counted } = made();
    for (const text of ['1', '2', '3', '4']) topics.publish('a', text);
    const whole = { subscribed: true, recovered: true, epoch, offset: 4, isMember: true };
    expect(await topics.subscribeWith(connection, 'a', { since: `${epoch}:2` })).toEqual(whole);
    expect(await topics.subscribeWith(connection, 'a', { since: at(4) })).toEqual(whole);
    // Too old, of the future, of another epoch.
    for (const since of [at(0), at(9), at(2, 'feedfeedfeedfeed')])
      expect(await topics.subscribeWith(connection, 'a', { since })).toEqual({ ...whole, recovered: false });
    expect(await topics.subscribeWith(connection, 'a', {})).toEqual({ ...whole, recovered: false });
    expect(counted).toEqual(['recovered', 'recovered', 'recovery_lost', 'recovery_lost', 'recovery_lost']);
    expect(core.calls.filter(([name]) => name === 'attach')).toHaveLength(6);
  });

  test('text that is no position is one that nobody knows, and counted', async () => {
    const { topics, counted } = made();
    for (const since of ['', 'x', '0:0', `${epoch}:-1`, `${epoch}:1; drop`])
      expect(await topics.subscribeWith(connection, 'a', { since })).toMatchObject({ subscribed: true, recovered: false });
    expect(counted).toEqual(Array.from({ length: 5 }, () => 'recovery_malformed'));
  });

  test('of a policy that does not recover nothing is sent, whatever was asked for', async () => {
    const { topics, counted } = made({ topics: { a: { history, recover: false } } });
    topics.publish('a', 'one');
    expect(await topics.subscribeWith(connection, 'a', { since: at(0) })).toMatchObject({ subscribed: true, recovered: false, offset: 1 });
    expect(counted).toEqual([]);
  });

  test('a connection that has ended is told so', async () => {
    const { core, topics } = made();
    core.isGone = true;
    expect(topics.subscribe(connection, 'a')).toBe(false);
    expect(await topics.subscribeWith(connection, 'a', {})).toEqual({ subscribed: false, reason: 'closed', recovered: false });
    core.isGone = false;
    core.attaches.push('closed');
    expect(await topics.subscribeWith(connection, 'a', {})).toMatchObject({ reason: 'closed' });
  });

  test('where no room is left nobody is subscribed, and it is counted', async () => {
    const { core, topics, counted } = made();
    core.attaches.push('full', 'full');
    expect(topics.subscribe(connection, 'a')).toBe(false);
    expect(await topics.subscribeWith(connection, 'a', {})).toMatchObject({ subscribed: false, reason: 'full' });
    expect(counted).toEqual(['refused_full', 'refused_full']);
  });
});

describe('a log that lies elsewhere', () => {
  test('is waited for until this node follows it', async () => {
    const followed: string[] = [];
    const { core, topics } = made({ store: { follow: async (topic) => void followed.push(topic) } });
    core.attaches.push('unfollowed', 'unfollowed', 'unfollowed');
    expect(topics.subscribe(connection, 'a')).toBe(true);
    await settled();
    expect(followed).toEqual(['a', 'a']);
    expect(core.calls.map(([name]) => name)).toEqual(['attach', 'attach', 'attach', 'attach', 'join']);
  });

  test('that cannot be reached refuses, and is counted', async () => {
    const { core, topics, counted } = made({ store: { follow: () => Promise.reject(new StoreUnavailableError('Redis is away')) } });
    core.attaches.push('unfollowed', 'unfollowed', 'unfollowed');
    expect(await topics.subscribeWith(connection, 'a', {})).toEqual({ subscribed: false, reason: 'unavailable', recovered: false });
    expect(topics.subscribe(connection, 'a')).toBe(true);
    await settled();
    expect(counted).toEqual(['refused_unavailable', 'refused_unavailable']);
  });

  test('is read for who is behind what this node has, in pieces, as fast as the client takes it', async () => {
    const entries = Array.from({ length: 450 }, (_, index) => ({
      offset: index + 1,
      timeMs: 0,
      flags: sendText,
      payload: Buffer.from(`m${index + 1}`),
    }));
    const read = async (_: string, { since, limit }: LogQuery): Promise<LogPage> => ({
      position: at(450),
      recovered: true,
      messages: entries.filter(({ offset }) => offset > (since?.offset ?? 0)).slice(0, limit),
    });
    const { core, topics } = made({ store: { read } });
    for (let offset = 1; offset <= 450; offset++) core.logAppend('a', sendText, `m${offset}`, { size: 1000, seconds: 60 });
    core.attaches.push('behind', 'behind', 'behind');
    core.drops = 3;
    const result = await topics.subscribeWith(connection, 'a', { since: at(20) });
    expect(result).toMatchObject({ subscribed: true, recovered: true, offset: 450 });
    expect(core.sent).toEqual(entries.slice(20).map(({ offset, payload }) => [offset, payload.toString()]));
    expect(core.calls.filter(([name]) => name === 'attach').at(-1)?.[4]).toEqual({ since: at(450) });
  });

  test('that has not got what was missed either says so', async () => {
    const read = async (): Promise<LogPage> => ({ position: at(9), recovered: false, messages: [] });
    const { core, topics, counted } = made({ store: { read } });
    core.attaches.push('behind');
    expect(await topics.subscribeWith(connection, 'a', { since: at(2) })).toMatchObject({ subscribed: true, recovered: false });
    expect(core.calls.filter(([name]) => name === 'attach').at(-1)?.[4]).toEqual({ since: undefined });
    expect(counted).toEqual(['recovery_lost']);
  });

  test('a client that leaves while it is fed is not subscribed', async () => {
    const { core, topics } = made({
      store: {
        read: async () => {
          core.isGone = true;
          return { position: at(1), recovered: true, messages: [{ offset: 1, timeMs: 0, flags: 1, payload: new Uint8Array(1) }] };
        },
      },
    });
    core.attaches.push('behind');
    expect(await topics.subscribeWith(connection, 'a', { since: at(0) })).toMatchObject({ subscribed: false, reason: 'closed' });
  });

  test('unsubscribe calls off what waits, and a subscribe after it goes on by itself', async () => {
    const follows: (() => void)[] = [];
    const { core, topics } = made({ store: { follow: () => new Promise<void>((done) => follows.push(done)) } });
    core.attaches.push('unfollowed', 'unfollowed');
    const first = topics.subscribeWith(connection, 'a', {});
    await settled();
    topics.unsubscribe(connection, 'a');
    const second = topics.subscribeWith(connection, 'a', {});
    await settled();
    for (const follow of follows) follow();
    expect(await first).toEqual({ subscribed: false, reason: 'unsubscribed', recovered: false });
    expect(await second).toMatchObject({ subscribed: true });
    expect(core.calls.filter(([name]) => name === 'join')).toHaveLength(1);
  });

  test('unsubscribe calls off who waits for its place, or for the messages before it, to be known', async () => {
    for (const [method, options] of [
      ['reach', { since: at(3) }],
      ['read', { history: 5 }],
    ] as const) {
      const { promise, resolve } = Promise.withResolvers<void>();
      const answer = async () => {
        await promise;
        return { position: at(0), recovered: true, messages: [] };
      };
      const { core, topics } = made({ store: { [method]: answer } });
      const subscribing = topics.subscribeWith(connection, 'a', options);
      await settled();
      topics.unsubscribe(connection, 'a');
      resolve();
      expect(await subscribing).toEqual({ subscribed: false, reason: 'unsubscribed', recovered: false });
      expect(core.calls.filter(([name]) => name === 'attach' || name === 'join')).toEqual([]);
    }
  });
});

describe('a policy that is asked', () => {
  type Authorize = NonNullable<TopicPolicy['authorize']>;
  const asking = (authorize: Authorize) => made({ topics: { 'room/:name': { authorize } } });

  test('is told who asks, of which topic, for what', async () => {
    const asked: unknown[] = [];
    const { topics } = asking((client, topic, action) => {
      asked.push([client.id, client.user, client.data, { ...client.params }, client.remoteAddress, client.kind, topic, action]);
      return true;
    });
    expect(topics.subscribe(connection, 'room/7')).toBe(true);
    expect(await topics.authorize(connection, 'room/7', 'publish')).toBe(true);
    expect(asked).toEqual(
      ['subscribe', 'publish'].map((action) => [
        'id of 7',
        undefined,
        { name: 'ann' },
        { name: '7' },
        '192.0.2.7',
        'websocket',
        'room/7',
        action,
      ]),
    );
    expect(topics.authorize(connection, 'elsewhere', 'publish')).toBe(true);
  });

  for (const [what, authorize, isLater] of [
    ['says no', () => false, false],
    [
      'throws',
      () => {
        throw new Error('broken');
      },
      false,
    ],
    ['says no later', async () => false, true],
    [
      'rejects',
      async () => {
        throw new Error('broken');
      },
      true,
    ],
    ['gives what is neither', () => 'yes' as never, true],
    ['promises what is neither', async () => 1 as never, true],
  ] as const satisfies readonly [string, Authorize, boolean][])
    test(`and ${what} keeps the client out`, async () => {
      const { core, topics, counted, failures } = asking(authorize);
      expect(topics.subscribe(connection, 'room/7')).toBe(isLater);
      expect(await topics.subscribeWith(connection, 'room/7', {})).toEqual({ subscribed: false, reason: 'forbidden', recovered: false });
      expect(await topics.authorize(connection, 'room/7', 'history')).toBe(false);
      expect(core.calls).toEqual([]);
      expect(counted).toEqual(['refused_forbidden', 'refused_forbidden']);
      expect(failures).toHaveLength(what.startsWith('says no') ? 0 : 3);
    });

  test('and says yes later lets the client in then, unless it has unsubscribed or left', async () => {
    const { core, topics } = asking(async () => true);
    expect(topics.subscribe(connection, 'room/7')).toBe(true);
    expect(core.calls).toEqual([]);
    await settled();
    expect(core.calls).toEqual([['subscribe', 7, 3, 'room/7']]);
    topics.subscribe(connection, 'room/8');
    topics.unsubscribe(connection, 'room/8');
    await settled();
    expect(core.calls.slice(1)).toEqual([['unsubscribe', 7, 3, 'room/8']]);
    topics.subscribe(connection, 'room/9');
    core.isGone = true;
    await settled();
    expect(await topics.subscribeWith(connection, 'room/9', {})).toMatchObject({ reason: 'closed' });
  });

  test('for a token is given it, and says when it ends', async () => {
    const asked: unknown[] = [];
    const { topics, counted, ends } = made({
      topics: { a: { token: true } },
      verify: async (token, topic, { user }) => {
        asked.push([token, topic, user]);
        return token === 'good' ? { ok: true, expiresAt: 99 } : { ok: false };
      },
    });
    expect(topics.subscribe(connection, 'a')).toBe(true);
    expect(await topics.subscribeWith(connection, 'a', { token: 'bad' })).toMatchObject({ subscribed: false, reason: 'token' });
    expect(await topics.subscribeWith(connection, 'a', { token: 'good' })).toEqual({ subscribed: true, recovered: false });
    expect([asked, ends]).toEqual([
      [
        [undefined, 'a', undefined],
        ['bad', 'a', undefined],
        ['good', 'a', undefined],
      ],
      [['a', 99]],
    ]);
    expect(counted).toEqual(['refused_token', 'refused_token']);
  });

  test('for a token, where nothing verifies any, keeps all out', async () => {
    const { topics } = made({ topics: { a: { token: true } } });
    expect(await topics.subscribeWith(connection, 'a', { token: 'good' })).toMatchObject({ subscribed: false, reason: 'token' });
  });
});

describe('presence', () => {
  const joinsOf = (core: FakeLogs) => core.calls.filter(([name]) => name === 'join').map((call) => call.slice(4));

  test('a member is who the policy says, else the user, else the connection', () => {
    const told = made({
      topics: {
        ':name': { presence: { member: ({ data, params }) => ({ id: (data as { name: string }).name, info: { params } }), grace: 1 } },
      },
    });
    told.topics.subscribe(connection, 'a');
    expect(joinsOf(told.core)).toEqual([['ann', '{"params":{"name":"a"}}', 1000, 10_000]]);
    const own = made({ topics: { a: { presence: true } } });
    own.topics.subscribe({ ...connection, user: { id: 'eve', claims: {}, expiresAt: undefined } }, 'a');
    own.topics.subscribe(connection, 'a');
    expect(joinsOf(own.core).map(([user]) => user)).toEqual(['eve', 'id of 7']);
  });

  const circle: { self?: unknown } = {};
  circle.self = circle;
  for (const [what, member] of [
    ['is nobody', () => ''],
    ['is no text', () => 7 as never],
    ['is null', () => null as never],
    ['has a long name', () => 'é'.repeat(513)],
    ['has no id', () => ({ info: 1 }) as never],
    ['has an info over its limit', () => ({ id: 'ann', info: 'x'.repeat(31) })],
    ['has an info that JSON cannot say', () => ({ id: 'ann', info: () => 1 })],
    ['has an info that leads to itself', () => ({ id: 'ann', info: circle })],
    [
      'throws',
      () => {
        throw new Error('broken');
      },
    ],
  ] as const satisfies readonly [string, () => string | { id: string; info?: unknown }][])
    test(`a member that ${what} stays subscribed, and is not seen`, async () => {
      const { core, topics, counted, failures } = made({ topics: { a: { presence: { member, maxInfoBytes: 32 } } } });
      expect(await topics.subscribeWith(connection, 'a', {})).toEqual({ subscribed: true, recovered: false, isMember: false });
      expect([joinsOf(core), counted, failures.length]).toEqual([[], ['member_invalid'], 1]);
    });

  test('one who only looks on is not shown, and nothing is wrong with that', async () => {
    const { core, topics, counted, failures } = made({ topics: { a: { presence: { member: () => undefined } } } });
    expect(await topics.subscribeWith(connection, 'a', {})).toEqual({ subscribed: true, recovered: false, isMember: false });
    expect([joinsOf(core), counted, failures]).toEqual([[], [], []]);
  });

  test('where no more members fit the client is subscribed, and not seen', async () => {
    const { core, topics, counted } = made({ topics: { a: { presence: true } } });
    core.joins = 'full';
    expect(await topics.subscribeWith(connection, 'a', {})).toEqual({ subscribed: true, recovered: false, isMember: false });
    expect(counted).toEqual(['members_full']);
  });

  test('a protocol is told who is there before the connection hears of the first join or leave', async () => {
    const { core, topics } = made({ topics: { a: { presence: true } } });
    const attached = () => core.calls.some(([name, ...rest]) => name === 'attach' && JSON.stringify(rest).includes('isPresence":true'));
    const order: unknown[] = [];
    await topics.subscribeWith(connection, 'a', { presence: true, onPresence: ({ count }) => order.push([count, attached()]) });
    expect([order, attached()]).toEqual([[[expect.any(Number), false]], true]);
  });

  test('who was asked already whether it may is not asked again, and the last messages may come first', async () => {
    let asked = 0;
    const policy = { history: { size: 10, seconds: 60 }, authorize: () => asked++ < 1 };
    const { core, topics } = made({ topics: { a: policy } });
    for (let i = 1; i <= 5; i++) topics.publish('a', `m${i}`);
    const admitted = await topics.admit(connection, 'a', undefined);
    if (typeof admitted === 'string') throw new Error(admitted);
    const before = core.calls.length;
    expect(await topics.subscribeWith(connection, 'a', { admitted, history: 2 })).toMatchObject({
      subscribed: true,
      recovered: true,
      offset: 5,
    });
    expect(core.calls.slice(before).find(([name]) => name === 'attach')).toMatchObject([
      'attach',
      7,
      expect.anything(),
      'a',
      { since: { offset: 3 } },
    ]);
    expect([await topics.admit(connection, 'a', undefined), asked]).toEqual(['forbidden', 2]);
  });

  test('who is to be told of joins and leaves is told who is there, and attached behind that', async () => {
    const { core, topics } = made({ topics: { a: { presence: true } } });
    const result = (await topics.subscribeWith(connection, 'a', { presence: true })) as SubscribeResult;
    expect(result.presence).toEqual({
      epoch,
      offset: 0,
      count: 2,
      users: [
        { id: 'ann', connections: 2, info: { name: 'Ann' } },
        { id: 'bob', connections: 1 },
      ],
    });
    expect(core.calls.at(-1)).toEqual(['attach', 7, 3, 'a', { since: at(0), isPresence: true }]);
    topics.unsubscribe(connection, 'a');
    expect(core.calls.slice(-2)).toEqual([
      ['unsubscribe', 7, 3, 'a'],
      ['unsubscribe', 7, 3, '\0pa'],
    ]);
  });

  test('a list that is older than what this node has is asked for again', async () => {
    const { core, topics } = made({ topics: { a: { presence: true } } });
    core.attaches.push('unfollowed');
    expect(await topics.subscribeWith(connection, 'a', { presence: true })).toMatchObject({ subscribed: true, presence: { count: 2 } });
    expect(core.calls.filter(([name]) => name === 'attach')).toHaveLength(2);
  });

  test('a list that is newer than what this node has waits for that before it is told', async () => {
    const order: unknown[] = [];
    const reach = async (topic: string, position: object) => void order.push([topic, position]);
    const { topics } = made({ topics: { a: { presence: true } }, store: { reach } });
    const onPresence = ({ count }: { count: number }) => void order.push(count);
    expect(await topics.subscribeWith(connection, 'a', { presence: true, onPresence })).toMatchObject({ subscribed: true });
    expect(order).toEqual([['\0pa', at(0)], 2]);
  });

  test('whoever cannot be told who is there is not subscribed, and not half', async () => {
    const presence = () => Promise.reject(new StoreUnavailableError('away'));
    const { core, topics } = made({ topics: { '*': { history, presence: true } }, store: { presence } });
    const result = await topics.subscribeWith(connection, 'a', { presence: true });
    expect(result).toEqual({ subscribed: false, reason: 'unavailable', recovered: false });
    expect(core.calls.slice(-2)).toEqual([
      ['unsubscribe', 7, 3, 'a'],
      ['unsubscribe', 7, 3, '\0pa'],
    ]);
  });

  test('of a topic without it nobody can be told', async () => {
    const { topics } = made({ topics: { a: { history } } });
    for (const topic of ['a', 'b']) expect(topics.subscribeWith(connection, topic, { presence: true })).rejects.toThrow(TopicPolicyError);
  });
});

describe('what callers may get wrong', () => {
  test('is refused, and the core not asked', async () => {
    const { core, topics } = made();
    for (const name of ['', '\0pa', 'x'.repeat(1023), 'é'.repeat(512), 3 as unknown as string])
      for (const ask of [
        async () => topics.subscribe(connection, name),
        () => topics.subscribeWith(connection, name, {}),
        async () => topics.unsubscribe(connection, name),
        async () => topics.publish(name, 'x'),
        () => topics.publishWith(name, 'x', {}),
        async () => topics.authorize(connection, name, 'publish'),
      ])
        expect(ask()).rejects.toThrow(SocketArgumentError);
    for (const options of [
      null,
      7,
      { since: 7 },
      { since: {} },
      { since: { epoch, offset: -1 } },
      { since: at(1.5) },
      { token: 7 },
      { presence: 1 },
    ])
      expect(topics.subscribeWith(connection, 'a', options as never)).rejects.toThrow(SocketArgumentError);
    for (const options of [null, 'key', { idempotencyKey: '' }, { idempotencyKey: 7 }, { idempotencyKey: 'x'.repeat(129) }])
      expect(topics.publishWith('a', 'x', options as never)).rejects.toThrow(SocketArgumentError);
    for (const message of [undefined, 7, {}, Promise.resolve('x')])
      expect(topics.publishWith('a', message as never, {})).rejects.toThrow(SocketArgumentError);
    await settled();
    expect(core.calls).toEqual([]);
  });

  test('an idempotency key where nothing remembers it', async () => {
    const { topics } = made({ topics: { a: { presence: true } } });
    for (const topic of ['a', 'b']) expect(topics.publishWith(topic, 'x', { idempotencyKey: 'k' })).rejects.toThrow(TopicPolicyError);
    await settled();
  });

  test('topics of no policy stay as they are', async () => {
    const { core, topics } = made({ topics: { a: { history } } });
    core.calls.length = 0;
    expect(topics.subscribe(connection, 'x'.repeat(1024))).toBe(true);
    expect(await topics.subscribeWith(connection, 'b', { since: at(3) })).toEqual({ subscribed: true, recovered: false });
    expect(core.calls.map(([name]) => name)).toEqual(['subscribe', 'subscribe']);
  });
});
