/**
 * What every store of topics promises (src/topics/store.ts), asked of each: the memory of one node with two workers, and Redis in its kinds with two nodes.
 * Real cores, buses and clients, in this process. What becomes of logs in Redis when its servers fail is in tests/e2e/redis-logs.test.ts.
 */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test';
import type { RedisOptions } from '../../src/api/define.ts';
import { sendBinary, sendText } from '../../src/api/message.ts';
import type { GatewaySocket } from '../../src/api/socket.ts';
import type { LogLimits, Position } from '../../src/core/log-commands.ts';
import { decodePresenceEntry, presenceTopic } from '../../src/core/presence-commands.ts';
import type { LogPage, NewMessage } from '../../src/topics/store.ts';
import { eventually } from '../support/eventually.ts';
import { startCluster, startRedis, startSentinels } from '../support/redis-servers.ts';
import { type JoinedWorker, JoinedWorkers, type Subscriber } from './joined-workers.ts';

// Only ends a test that has failed.
setDefaultTimeout(60_000);

const limits = { size: 100, seconds: 300 };
const few = { size: 5, seconds: 2 };
const presenceLimits = { size: 1000, seconds: 300 };
const numbers = (count: number) => Array.from({ length: count }, (_, at) => at);

interface Side {
  readonly redisOptions?: RedisOptions;
  dispose(): Promise<void> | void;
}

const stores: Record<string, () => Promise<Side>> = {
  'in the memory of a node': async () => ({ dispose: () => {} }),
  async 'in one Redis'() {
    const redis = await startRedis();
    return { redisOptions: { url: redis.url }, dispose: () => redis.dispose() };
  },
  async 'in a group of Sentinels'() {
    const group = await startSentinels();
    return { redisOptions: { sentinels: { name: group.name, nodes: group.urls } }, dispose: () => group.dispose() };
  },
  async 'in a Cluster'() {
    const cluster = await startCluster({ replicas: false });
    return { redisOptions: { cluster: cluster.urls, partitions: 16 }, dispose: () => cluster.dispose() };
  },
};

const text = (payload: string, more: Partial<NewMessage> = {}): NewMessage => ({ flags: sendText, payload, ...more });
const textsOf = ({ messages }: LogPage) => messages.map(({ offset, payload }) => `${offset} ${Buffer.from(payload)}`);

for (const [name, startSide] of Object.entries(stores)) {
  describe(`a store ${name}`, () => {
    let side: Side;
    let joined: JoinedWorkers;
    let one: JoinedWorker;
    let two: JoinedWorker;
    const isShared = name !== 'in the memory of a node';
    beforeAll(async () => {
      side = await startSide();
      const limitsOf = (topic: string): LogLimits | undefined => {
        if (topic.startsWith(presenceTopic(''))) return presenceLimits;
        return topic.startsWith('few') ? few : limits;
      };
      joined = await JoinedWorkers.start({
        backend: 'epoll',
        nodes: isShared ? [1, 1] : [2],
        limitsOf,
        ...(side.redisOptions === undefined ? {} : { redisOptions: { linger: 0, probeInterval: 1, timeout: 5, ...side.redisOptions } }),
      });
      [one, two] = [joined.worker(0), joined.worker(1)];
    });
    afterAll(async () => {
      await joined?.stop();
      await side?.dispose();
    });

    const append = (worker: JoinedWorker, topic: string, payload: string, more: Partial<NewMessage> = {}) =>
      worker.store.append(topic, text(payload, more), topic.startsWith('few') ? few : limits);

    /** Subscribed from a position on, as topics do it. */
    async function attach(worker: JoinedWorker, topic: string, since?: Position): Promise<Subscriber & { readonly recovered: boolean }> {
      const subscriber = await joined.connect(worker);
      const { slot, generation } = subscriber.socket;
      if (since !== undefined) await worker.store.reach(topic, since, limits);
      for (;;) {
        const outcome = worker.live.core.attach(slot, generation, topic, { since });
        if (outcome.kind === 'attached') return { ...subscriber, recovered: outcome.recovered };
        if (outcome.kind !== 'unfollowed') throw new Error(outcome.kind);
        await worker.store.follow(topic, limits);
      }
    }

    function join(worker: JoinedWorker, { slot, generation }: GatewaySocket, topic: string, user: string, graceMs = 0): void {
      worker.live.core.subscribeNow(slot, generation, topic);
      expect(worker.live.core.presenceJoin(slot, generation, topic, user, Buffer.from(`{"of":"${user}"}`), graceMs)).not.toBe('closed');
    }

    const who = async (worker: JoinedWorker, topic: string) =>
      (await worker.store.presence(topic)).members
        .map(({ user, connections, info }) => `${user} ${connections} ${Buffer.from(info)}`)
        .sort();

    test('numbers what is appended from 1 on, in one epoch, and everybody reads the same', async () => {
      const first = await append(one, 'a', '1');
      expect(first).toEqual({ epoch: first.epoch, offset: 1, isDuplicate: false });
      expect(first.epoch).toMatch(/^[0-9a-f]{16}$/);
      const { epoch } = first;
      expect(await append(two, 'a', '2')).toEqual({ epoch, offset: 2, isDuplicate: false });
      for (const { store } of [one, two]) {
        const page = await store.read('a', { limit: 10 }, limits);
        expect(page.position).toEqual({ epoch, offset: 2 });
        expect(page.recovered).toBe(true);
        expect(textsOf(page)).toEqual(['1 1', '2 2']);
      }
    });

    test('keeps bytes as bytes, text as text, whatever they are, and names of topics in any script', async () => {
      const payload = Buffer.from([0, 1, 255, 254]);
      await one.store.append('é/β', { flags: sendBinary, payload }, limits);
      await one.store.append('é/β', text('grüße'), limits);
      const { messages } = await two.store.read('é/β', { limit: 10 }, limits);
      expect(messages.map(({ flags }) => flags)).toEqual([sendBinary, sendText]);
      expect(messages.map((message) => Buffer.from(message.payload))).toEqual([payload, Buffer.from('grüße')]);
      for (const { timeMs } of messages) expect(Math.abs(timeMs - Date.now())).toBeLessThan(60_000);
    });

    test('stores what one worker appends, and submits, in the order of the calls', async () => {
      const answers: Promise<{ readonly offset: number }>[] = [];
      for (const at of numbers(100)) {
        if (at % 3 === 0) expect(one.store.submit('b', text(String(at)), limits)).toBe('accepted');
        else answers.push(append(one, 'b', String(at)));
      }
      const offsets = (await Promise.all(answers)).map(({ offset }) => offset);
      expect(offsets).toEqual(numbers(100).flatMap((at) => (at % 3 === 0 ? [] : [at + 1])));
      await eventually('all are there', async () => (await two.store.read('b', { limit: 0 }, limits)).position.offset === 100);
      expect(textsOf(await two.store.read('b', { limit: 1000 }, limits))).toEqual(numbers(100).map((at) => `${at + 1} ${at}`));
    });

    test('knows an idempotency key again, whoever brings it', async () => {
      const first = await append(one, 'c', 'x', { idempotencyKey: 'key' });
      expect(await append(two, 'c', 'y', { idempotencyKey: 'key' })).toEqual({ ...first, isDuplicate: true });
      expect(await append(two, 'c', 'z', { idempotencyKey: 'other' })).toMatchObject({ offset: 2, isDuplicate: false });
      expect(await append(one, 'c2', 'x', { idempotencyKey: 'key' })).toMatchObject({ offset: 1, isDuplicate: false });
      const same = await Promise.all(numbers(10).map((at) => append(at % 2 ? one : two, 'c3', String(at), { idempotencyKey: 'same' })));
      expect(same.filter(({ isDuplicate }) => !isDuplicate).length).toBe(1);
      expect(new Set(same.map(({ offset }) => offset))).toEqual(new Set([1]));
      expect((await one.store.read('c3', { limit: 10 }, limits)).messages.length).toBe(1);
    });

    test('reads after a position, before one, and from the end; and says whether something is missing', async () => {
      for (const at of numbers(20)) await append(one, 'd', String(at));
      const { position } = await two.store.read('d', { limit: 0 }, limits);
      const { epoch } = position;
      expect(position.offset).toBe(20);
      const read = async (query: { since?: number; limit: number; reverse?: boolean; epoch?: string }) => {
        const since = query.since === undefined ? undefined : { epoch: query.epoch ?? epoch, offset: query.since };
        const page = await two.store.read('d', { limit: query.limit, reverse: query.reverse, since }, limits);
        expect(page.position).toEqual(position);
        return [page.recovered, ...textsOf(page)];
      };
      expect(await read({ since: 17, limit: 10 })).toEqual([true, '18 17', '19 18', '20 19']);
      expect(await read({ since: 2, limit: 2 })).toEqual([true, '3 2', '4 3']);
      expect(await read({ since: 0, limit: 1 })).toEqual([true, '1 0']);
      expect(await read({ since: 20, limit: 10 })).toEqual([true]);
      expect(await read({ since: 5, limit: 0 })).toEqual([true]);
      expect(await read({ since: 21, limit: 10 })).toEqual([false]);
      expect(await read({ since: 3, limit: 10, epoch: 'abcdefabcdefabcd' })).toEqual([false]);
      expect(await read({ limit: 2 })).toEqual([true, '1 0', '2 1']);
      expect(await read({ limit: 2, reverse: true })).toEqual([true, '20 19', '19 18']);
      expect(await read({ since: 3, limit: 10, reverse: true })).toEqual([true, '2 1', '1 0']);
      expect(await read({ since: 1, limit: 10, reverse: true })).toEqual([true]);
    });

    test('of what nobody has said anything to has no position', async () => {
      const zeros = { epoch: '0000000000000000', offset: 0 };
      expect(await one.store.read('none', { limit: 10 }, limits)).toEqual({ position: zeros, recovered: true, messages: [] });
      const since = { epoch: 'abcdefabcdefabcd', offset: 4 };
      expect(await one.store.read('none', { limit: 10, since }, limits)).toEqual({ position: zeros, recovered: false, messages: [] });
    });

    test('keeps so many, and so long; offsets go on, and what is gone is said to be missing', async () => {
      for (const at of numbers(12)) await append(one, 'few/a', String(at));
      const page = await two.store.read('few/a', { limit: 100 }, few);
      expect(textsOf(page)).toEqual(['8 7', '9 8', '10 9', '11 10', '12 11']);
      const { epoch } = page.position;
      const since = (offset: number) => two.store.read('few/a', { since: { epoch, offset }, limit: 100 }, few);
      expect((await since(7)).recovered).toBe(true);
      expect(await since(6)).toMatchObject({ recovered: false });
      await eventually('they are too old', async () => (await two.store.read('few/a', { limit: 100 }, few)).messages.length === 0);
      expect(await since(12)).toMatchObject({ position: { epoch, offset: 12 }, recovered: true });
      expect(await since(11)).toMatchObject({ position: { epoch, offset: 12 }, recovered: false });
      expect(await append(two, 'few/a', 'new')).toMatchObject({ epoch, offset: 13 });
      expect(textsOf(await since(12))).toEqual(['13 new']);
    });

    test('brings what was appended anywhere to subscribers everywhere, in its order, but to who is left out', async () => {
      const [first, second] = [await attach(one, 'e'), await attach(two, 'e')];
      expect(await append(one, 'e', '1')).toMatchObject({ offset: 1 });
      await append(two, 'e', '2');
      await append(one, 'e', '3', { except: first.socket });
      await append(one, 'e', '4');
      expect(await second.texts(4)).toEqual(['1', '2', '3', '4']);
      expect(await first.texts(3)).toEqual(['1', '2', '4']);
    });

    test('recovers who comes back with a position, while others go on publishing: nothing twice, nothing missing', async () => {
      const { epoch } = await append(one, 'f', '0');
      for (const at of numbers(20)) await append(one, 'f', String(at + 1));
      const publishing = (async () => {
        for (const at of numbers(60)) {
          await append(at % 2 ? one : two, 'f', String(at + 21));
          await Bun.sleep(1);
        }
      })();
      const subscribers = [];
      for (const at of numbers(6)) {
        subscribers.push(await attach(at % 2 ? one : two, 'f', { epoch, offset: 5 }));
        await Bun.sleep(5);
      }
      await publishing;
      for (const subscriber of subscribers) {
        expect(subscriber.recovered).toBe(true);
        expect(await subscriber.texts(76)).toEqual(numbers(76).map((at) => String(at + 5)));
      }
    });

    test('says so when somebody cannot recover: of another epoch, from the future, from before what is kept', async () => {
      for (const at of numbers(8)) await append(one, 'few/g', String(at));
      const { epoch } = await append(two, 'few/g', '8');
      expect((await attach(two, 'few/g', { epoch: 'abcdefabcdefabcd', offset: 3 })).recovered).toBe(false);
      const future = await attach(one, 'few/g', { epoch, offset: 20 });
      expect(future.recovered).toBe(false);
      expect((await attach(one, 'few/g', { epoch, offset: 9 })).recovered).toBe(true);
      await append(two, 'few/g', '9');
      expect(await future.texts(1)).toEqual(['9']);
    });

    test('waits for what another node has told already', async () => {
      const second = await attach(two, 'h');
      const positions = [];
      for (const at of numbers(50)) {
        const position = await append(one, 'h', String(at));
        await two.store.reach('h', position, limits);
        positions.push(two.live.core.logEnd('h')?.offset ?? 0);
      }
      positions.forEach((offset, at) => void expect(offset).toBeGreaterThanOrEqual(at + 1));
      expect((await second.texts(50)).length).toBe(50);
      // What the store does not know is not waited for.
      await two.store.reach('h', { epoch: 'abcdefabcdefabcd', offset: 1 }, limits);
      const { epoch, offset } = (await two.store.read('h', { limit: 0 }, limits)).position;
      await two.store.reach('h', { epoch, offset: offset + 10 }, limits);
    });

    test('knows who is there, by user, and counts their connections, wherever they are', async () => {
      const [ann, again, bob] = [await joined.connect(one), await joined.connect(two), await joined.connect(two)];
      join(one, ann.socket, 'p', 'ann');
      join(two, again.socket, 'p', 'ann');
      join(two, bob.socket, 'p', 'bob');
      await eventually(
        'all are there',
        async () => (await who(one, 'p')).length === 2 && (await who(one, 'p'))[0]?.startsWith('ann 2') === true,
      );
      for (const worker of [one, two]) {
        expect(await who(worker, 'p')).toEqual(['ann 2 {"of":"ann"}', 'bob 1 {"of":"bob"}']);
        expect(await worker.store.presenceCount('p')).toEqual({ users: 2, connections: 3 });
      }
      expect(await one.store.presenceCount('nobody')).toEqual({ users: 0, connections: 0 });
      one.live.core.presenceLeave(ann.socket.slot, ann.socket.generation, 'p');
      bob.wire.destroy();
      await eventually('two have gone', async () => (await who(one, 'p')).join() === 'ann 1 {"of":"ann"}');
    });

    test('tells of joins and leaves in the presence log, each once, from the position of a list on', async () => {
      const bob = await joined.connect(two);
      join(two, bob.socket, 'q', 'bob');
      await eventually('bob is there', async () => (await who(one, 'q')).length === 1);
      const events: string[] = [];
      const { position } = await one.store.presence('q');
      const watcher = await joined.connect(one);
      for (let outcome = watch(); outcome.kind !== 'attached'; outcome = watch()) {
        expect(outcome.kind).toBe('unfollowed');
        await one.store.follow(presenceTopic('q'), presenceLimits);
      }
      function watch() {
        const { slot, generation } = watcher.socket;
        return one.live.core.attach(slot, generation, 'q', { since: position, isPresence: true });
      }
      const [ann, again] = [await joined.connect(one), await joined.connect(two)];
      join(one, ann.socket, 'q', 'ann');
      join(two, again.socket, 'q', 'ann');
      await eventually('ann is there', async () => (await who(one, 'q'))[0]?.startsWith('ann 2') === true);
      ann.wire.destroy();
      again.wire.destroy();
      await eventually('ann has gone', async () => (await who(one, 'q')).length === 1);
      await eventually('the log has it', () => (one.live.core.logEnd(presenceTopic('q'))?.offset ?? 0) >= position.offset + 2);
      const { entries = [] } = one.live.core.logRead(presenceTopic('q'), { limit: 100 }) ?? {};
      for (const { payload } of entries) events.push(String(decodePresenceEntry(payload)?.user));
      expect(events).toEqual(['bob', 'ann', 'ann']);
    });
  });
}
