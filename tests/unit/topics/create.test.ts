/** Topics as workers have them: two cores that share a node, in one process. */
import { afterEach, beforeEach, describe, expect, test } from 'bun:test';
import { native } from '../../../ffi/bindings.ts';
import type { GatewaySocket } from '../../../src/api/socket.ts';
import type { TopicPolicy } from '../../../src/api/topic-policy.ts';
import type { TopicMessageInfo } from '../../../src/api/topics.ts';
import { resolveTopics } from '../../../src/config/topics.ts';
import type { BackendName } from '../../../src/core/core.ts';
import { hostLayout, type StatName, statIndex } from '../../../src/core/stat-index.ts';
import type { VerifyTopicToken } from '../../../src/topics/admission.ts';
import { createTopics, type WorkerTopics } from '../../../src/topics/create.ts';
import { backends, LiveCore } from '../../support/live-core.ts';
import type { Wire } from '../../support/wire.ts';

const places = 3;
const history = { size: 5, seconds: 60 };

let shmFd: number;
let workers: Worker[];

class Worker {
  readonly live: LiveCore;
  readonly own: WorkerTopics;
  readonly said: string[] = [];

  constructor(backend: BackendName, index: number, topics: Readonly<Record<string, TopicPolicy>>, verifyTopicToken?: VerifyTopicToken) {
    const core = { shmFd, workerIndex: index, workerCount: places };
    this.live = new LiveCore(backend, { core, behavior: { positions: true } });
    workers.push(this);
    const say = (_: object | string, sentence?: string) => void this.said.push(sentence ?? String(_));
    this.own = createTopics({
      core: this.live.core,
      policies: resolveTopics(topics, (...complaint) => {
        throw new Error(String(complaint));
      }),
      store: undefined,
      place: { nodeId: '0123456789abcdef', index },
      hasNodes: false,
      verifyTopicToken,
      log: { error: say, warn: say },
    });
  }

  get topics() {
    return this.own.topics;
  }

  get server() {
    return this.own.server;
  }

  async open(): Promise<Member> {
    return new Member(await this.live.open());
  }

  count(name: StatName): number {
    return this.live.core.readStat(statIndex(name));
  }
}

/** A client with what it was sent. */
class Member {
  readonly socket: GatewaySocket;
  readonly wire: Wire;
  readonly heard: { topic: string; epoch?: string; offset?: number; data?: string; lost?: true; event?: string; user?: string }[] = [];
  closed: number | undefined;

  constructor({ socket, wire }: { socket: GatewaySocket; wire: Wire }) {
    this.socket = socket;
    this.wire = wire;
    void this.#listen();
  }

  async #listen(): Promise<void> {
    for (;;) {
      const frame = await this.wire.frame().catch(() => undefined);
      if (frame === undefined) return;
      if (frame.opcode === 8) this.closed = frame.payload.readUInt16BE();
      else this.heard.push(JSON.parse(frame.payload.toString()));
    }
  }

  get offsets(): unknown[] {
    return this.heard.map(({ offset }) => offset);
  }
}

/** Everybody turns until it gives something. */
async function until<Value>(what: string, check: () => Value | false | undefined): Promise<Value> {
  const [first] = workers as [Worker];
  return first.live.until(what, () => {
    for (const { live } of workers.slice(1)) live.turn();
    return check();
  });
}

/** Some turns for whatever may still be under way, such as what workers say when they begin. */
async function settle(): Promise<void> {
  let turns = 0;
  await until('some turns', () => turns++ > 20);
}

async function during<Value>(promise: Promise<Value>): Promise<Value> {
  let isSettled = false;
  const settle = () => {
    isSettled = true;
  };
  promise.then(settle, settle);
  await until('what is waited for', () => isSettled);
  return promise;
}

beforeEach(() => {
  shmFd = native.shmCreate(places, 65536, hostLayout, 64 << 20);
  workers = [];
});
afterEach(async () => {
  for (const { own } of workers) await own.close();
  for (const { live } of workers) live.destroy();
  native.fdClose(shmFd);
});

for (const backend of backends) {
  describe(`topics of workers on ${backend}`, () => {
    const two = (topics: Readonly<Record<string, TopicPolicy>> = { 'log/*': { history }, 'seen/*': { presence: { grace: 0 } } }) =>
      [new Worker(backend, 0, topics), new Worker(backend, 1, topics)] as const;

    test('one log, whoever publishes: the same offsets in the same order on both', async () => {
      const [a, b] = two();
      const [one, other] = [await a.open(), await b.open()];
      expect(a.topics.subscribe(one.socket, 'log/1')).toBe(true);
      expect(b.topics.subscribe(other.socket, 'log/1')).toBe(true);
      for (const index of [1, 2, 3, 4]) (index % 2 === 0 ? a : b).topics.publish('log/1', `m${index}`);
      await until('both have all', () => one.heard.length === 4 && other.heard.length === 4);
      expect(one.heard.map(({ offset, data }) => [offset, data])).toEqual([
        [1, 'm1'],
        [2, 'm2'],
        [3, 'm3'],
        [4, 'm4'],
      ]);
      expect(other.heard).toEqual(one.heard);
    });

    test('socket.publish leaves out the socket itself, also in the log', async () => {
      const [a, b] = two();
      const [one, other] = [await a.open(), await b.open()];
      a.topics.subscribe(one.socket, 'log/1');
      b.topics.subscribe(other.socket, 'log/1');
      a.topics.publish('log/1', 'mine', one.socket);
      a.topics.publish('log/1', 'all');
      await until('the other has both', () => other.heard.length === 2);
      await until('the one has its', () => one.heard.length === 1);
      expect([one.offsets, other.offsets]).toEqual([[2], [1, 2]]);
    });

    test('who comes with a position gets what was missed from the other worker', async () => {
      const [a, b] = two();
      const [{ epoch }] = [await a.topics.publishWith('log/1', 'm1', {})] as [{ epoch: string }];
      for (const index of [2, 3]) a.topics.publish('log/1', `m${index}`);
      const late = await b.open();
      const result = await b.topics.subscribeWith(late.socket, 'log/1', { since: `${epoch}:1` });
      expect(result).toEqual({ subscribed: true, recovered: true, epoch, offset: 3 });
      a.topics.publish('log/1', 'm4');
      await until('it has all', () => late.heard.length === 3);
      expect(late.offsets).toEqual([2, 3, 4]);
      const lost = await a.open();
      for (const index of [5, 6, 7, 8]) b.topics.publish('log/1', `m${index}`);
      for (const since of [`${epoch}:1`, `${epoch}:99`, 'feedfeedfeedfeed:1', 'what?'])
        expect(await a.topics.subscribeWith(lost.socket, 'log/1', { since })).toMatchObject({
          subscribed: true,
          recovered: false,
          offset: 8,
        });
      expect([a.count('topic_recovery_lost'), a.count('topic_recovery_malformed'), b.count('topic_recovered')]).toEqual([3, 1, 1]);
    });

    test('a key makes a publish one, on whichever worker', async () => {
      const [a, b] = two();
      const first = await a.topics.publishWith('log/1', 'once', { idempotencyKey: 'k' });
      expect(await b.topics.publishWith('log/1', 'once', { idempotencyKey: 'k' })).toEqual(first);
      expect((await b.server.history('log/1', {})).messages.map(({ data }) => data)).toEqual(['once']);
    });

    test('functions hear both workers, from a position on, and topics without history too', async () => {
      const [a, b] = two();
      const { epoch = '' } = await a.topics.publishWith('log/1', 'm1', {});
      const heard: [string | Uint8Array, TopicMessageInfo][] = [];
      const listener = (message: string | Uint8Array, info: TopicMessageInfo) => heard.push([message, info]);
      const listening = await during(b.server.listen('log/1', listener, { since: `${epoch}:0` }));
      await during(b.server.listen('plain', listener, {}));
      expect(listening.recovered).toBe(true);
      a.topics.publish('log/1', 'm2');
      b.topics.publish('log/1', Uint8Array.from([3]));
      a.topics.publish('plain', 'free');
      await until('all are heard', () => heard.length === 4);
      expect(heard.filter(([, { topic }]) => topic === 'log/1')).toEqual([
        ['m1', { topic: 'log/1', epoch, offset: 1 }],
        ['m2', { topic: 'log/1', epoch, offset: 2 }],
        [Uint8Array.from([3]), { topic: 'log/1', epoch, offset: 3 }],
      ]);
      expect(heard.filter(([, { topic }]) => topic === 'plain')).toEqual([['free', { topic: 'plain' }]]);
      listening.unsubscribe();
      a.topics.publish('log/1', 'late');
      a.topics.publish('plain', 'more');
      await until('the other goes on', () => heard.length === 5);
      expect(heard.at(-1)?.[0]).toBe('more');
    });

    test('who is there is one answer, by user; an observer is told of each once', async () => {
      const [a, b] = two();
      const events: string[] = [];
      await during(b.server.onPresence('seen/1', (event) => events.push(`${event.event} ${'user' in event ? event.user : ''}`)));
      const [one, other, watching] = [await a.open(), await b.open(), await a.open()];
      const connection = ({ socket }: Member, id: string) => ({
        slot: socket.slot,
        generation: socket.generation,
        id: socket.id,
        user: { id, claims: {}, expiresAt: undefined },
        data: undefined,
        remoteAddress: '',
        kind: 'websocket' as const,
      });
      expect(await a.topics.subscribeWith(connection(one, 'ann'), 'seen/1', {})).toEqual({
        subscribed: true,
        recovered: false,
        isMember: true,
      });
      await b.topics.subscribeWith(connection(other, 'ann'), 'seen/1', {});
      const watched = await a.topics.subscribeWith(connection(watching, 'bob'), 'seen/1', { presence: true });
      expect(watched.presence?.users.map(({ id, connections }) => [id, connections])).toEqual([
        ['ann', 2],
        ['bob', 1],
      ]);
      expect(await b.server.presenceCount('seen/1')).toEqual({ users: 2, connections: 3 });
      a.topics.unsubscribe(one.socket, 'seen/1');
      b.topics.unsubscribe(other.socket, 'seen/1');
      await until('ann has left', () => events.includes('leave ann'));
      expect(events).toEqual(['join ann', 'join bob', 'leave ann']);
      await until('the client is told', () => watching.heard.some(({ event }) => event === 'leave'));
      expect(watching.heard.map(({ event, user }) => `${event} ${user}`)).toEqual(['leave ann']);
      expect((await b.server.presence('seen/1')).users.map(({ id }) => id)).toEqual(['bob']);
    });

    test('questions are answered by both; a connection is found by its id, its user, its topic', async () => {
      const [a, b] = two({});
      const members = [await a.open(), await b.open(), await b.open()] as const;
      for (const [index, { socket }] of members.entries()) {
        const { topics } = index === 0 ? a : b;
        topics.subscribe(socket, 'plain/1');
        topics.bindUser(socket, index === 2 ? 'bob' : 'ann');
      }
      b.topics.subscribe(members[1].socket, 'plain/2');
      await settle();
      expect(await during(a.server.subscribers('plain/1'))).toBe(3);
      expect(await during(a.server.topics('plain/', {}))).toEqual(['plain/1', 'plain/2']);
      expect((await during(b.server.topics('', {}))).filter((name) => name.startsWith('\0'))).toEqual([]);
      expect(b.server.sendToUser('ann', '{"topic":"you"}')).toBe('accepted');
      await until('both of ann hear it', () => members[0].heard.length === 1 && members[1].heard.length === 1);
      // As it was sent, on a route with positions too: it is of no topic.
      expect(members[0].heard).toEqual([{ topic: 'you' }]);
      expect(members[2].heard).toEqual([]);
      expect(await during(a.server.disconnect({ socket: members[2].socket.id }, 4001, 'bye'))).toBe(1);
      expect(await during(a.server.disconnect({ user: 'ann' }, 4002, 'bye'))).toBe(2);
      await until('all are closed', () => members.every(({ closed }) => closed !== undefined));
      expect(members.map(({ closed }) => closed)).toEqual([4002, 4002, 4001]);
      expect(await during(b.server.disconnect({ topic: 'plain/1' }, 4003, ''))).toBe(0);
    });

    test('a worker that has gone is not waited for', async () => {
      const [a, b] = two({});
      await settle();
      expect(await during(a.server.subscribers('x'))).toBe(0);
      await b.own.close();
      await settle();
      const began = performance.now();
      expect(await during(a.server.subscribers('x'))).toBe(0);
      expect(performance.now() - began).toBeLessThan(2000);
      const c = new Worker(backend, 2, {});
      await settle();
      await during(a.server.subscribers('x'));
      // As after kill -9: the supervisor says so.
      a.own.workerGone(2, c.live.core.epoch);
      workers.pop();
      expect(await during(a.server.subscribers('x'))).toBe(0);
      workers.push(c);
      expect(a.count('topic_control_incomplete')).toBe(0);
    });

    test('who is on a topic by a token of it leaves when that ends, unless it has brought a newer one', async () => {
      const ends: Record<string, number | undefined> = { short: Date.now() + 50, long: undefined };
      const worker = new Worker(backend, 0, { secret: { token: true } }, async (token) =>
        token !== undefined && token in ends ? { ok: true, expiresAt: ends[token] } : { ok: false },
      );
      const [one, other, stranger] = [await worker.open(), await worker.open(), await worker.open()];
      for (const { socket } of [one, other])
        expect(await worker.topics.subscribeWith(socket, 'secret', { token: 'short' })).toMatchObject({ subscribed: true });
      expect(await worker.topics.subscribeWith(other.socket, 'secret', { token: 'long' })).toMatchObject({ subscribed: true });
      expect(await worker.topics.subscribeWith(stranger.socket, 'secret', {})).toMatchObject({ subscribed: false, reason: 'token' });
      await until('the one is closed', () => one.closed !== undefined);
      expect(one.closed).toBe(4401);
      worker.topics.publish('secret', 'still');
      await until('the other hears', () => other.heard.length === 1);
      expect([worker.count('topic_tokens_ended'), worker.count('topic_refused_token'), stranger.closed]).toEqual([1, 1, undefined]);
    });

    test('without memory for another message it is dropped, counted and said once', async () => {
      const [a] = two();
      const large = new Uint8Array(8 << 20);
      const results = Array.from({ length: 40 }, (_, index) => a.topics.publish(`log/${index}`, large));
      expect(results).toContain('dropped');
      const dropped = results.filter((result) => result === 'dropped').length;
      expect(a.count('topic_publishes_full')).toBe(dropped);
      expect(a.said).toEqual([expect.stringContaining('limits.maxTopicMemoryBytes')]);
    });

    test('without policies sockets have the topics of the core, and nothing else', () => {
      const [a] = two({});
      expect(a.topics.constructor.name).toBe('RawTopics');
      // What workers ask each other is nobody's topic.
      a.live.turn();
      expect(a.count('topics')).toBe(0);
    });
  });
}
