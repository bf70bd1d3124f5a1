/**
 * What publishing promises (src/pubsub/link.ts), asked of one worker alone, of three workers of a node, and of two nodes of one and two workers with each
 * link that there is. What is called is what production calls: `publish` of src/api, and the bus that a worker makes of its config.
 */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, setDefaultTimeout, test } from 'bun:test';
import { sendText } from '../../src/api/message.ts';
import { eventually } from '../support/eventually.ts';
import { opcode } from '../support/frames.mjs';
import { backends } from '../support/live-core.ts';
import { type RedisServer, startRedis } from '../support/redis-servers.ts';
import { JoinedWorkers, type Subscriber } from './joined-workers.ts';
import { links, type OtherSide } from './links.ts';

// Only ends a test that has failed.
setDefaultTimeout(60_000);

const backend = backends[0] ?? 'epoll';

interface Kind {
  readonly name: string;
  /** Workers of each node. */
  readonly nodes: readonly number[];
  /** What joins them. */
  readonly start: (() => Promise<OtherSide>) | undefined;
}

const kinds: readonly Kind[] = [
  { name: 'on one worker', nodes: [1], start: undefined },
  { name: 'on the workers of one node', nodes: [3], start: undefined },
  ...links.map(([name, start]) => ({ name: `on nodes that are joined ${name}`, nodes: [1, 2], start })),
];

for (const { name, nodes, start } of kinds) {
  describe(`publishing ${name}`, () => {
    let other: OtherSide | undefined;
    let joined: JoinedWorkers;
    beforeAll(async () => {
      other = await start?.();
    });
    afterAll(() => other?.dispose());
    beforeEach(async () => {
      // Probes are messages too, and here messages are counted.
      const settings = { probeInterval: 60, timeout: 60 };
      const how = other?.redis !== undefined ? { redis: other.redis, settings } : other !== undefined ? { link: other.create } : {};
      joined = await JoinedWorkers.start({ backend, nodes, ...how });
    });
    afterEach(() => joined.stop());

    test('joins nodes where there is something to join them, and says what becomes of a message', () => {
      for (const worker of joined.workers) {
        expect(worker.bus?.state).toBe(start === undefined ? undefined : 'up');
        expect(worker.publish('nobody', 'x')).toBe('accepted');
      }
    });

    test('delivers to every subscriber once, wherever it is published', async () => {
      const subscribers = await joined.subscribeEverywhere('news', 2);
      for (const [at, worker] of joined.workers.entries()) worker.publish('news', `from ${at}`);
      for (const subscriber of subscribers) {
        const got = await subscriber.texts(joined.workers.length);
        expect(got.sort()).toEqual(joined.workers.map((_, at) => `from ${at}`));
      }
      await joined.expectNothingMore('news', subscribers);
    });

    test('leaves out the publisher when told to, and only there', async () => {
      const subscribers = await joined.subscribeEverywhere('room', 2);
      const [first, ...others] = subscribers as [Subscriber, ...Subscriber[]];
      // As a handler does: its own socket is left out. Then as one that wants its own message too.
      first.socket.publish('room', 'to the others');
      first.worker.publish('room', 'to all');
      expect(await first.texts(1)).toEqual(['to all']);
      for (const subscriber of others) expect(await subscriber.texts(2)).toEqual(['to the others', 'to all']);
      const { slot, generation } = first.socket;
      first.worker.live.topics.publish('room', 'again', { slot, generation });
      for (const subscriber of others) expect(await subscriber.texts(1)).toEqual(['again']);
      await joined.expectNothingMore('room', subscribers);
    });

    test('keeps the order of each publisher and topic, and loses nothing, under load from all', async () => {
      const count = 4000;
      const topics = ['order/a', 'order/b'];
      const all: { readonly topic: string; readonly subscribers: readonly Subscriber[] }[] = [];
      for (const topic of topics) all.push({ topic, subscribers: await joined.subscribeEverywhere(topic) });
      const publishAll = async () => {
        for (let at = 0; at < count; at++) {
          for (const [who, worker] of joined.workers.entries())
            for (const topic of topics) worker.publish(topic, `${who} ${at} ${'x'.repeat(at % 300)}`);
          if (at % 100 === 99) await Bun.sleep(1);
        }
      };
      const receive = async ({ topic, subscribers }: (typeof all)[number]): Promise<void> => {
        for (const subscriber of subscribers) {
          const next = joined.workers.map(() => 0);
          for (let i = 0; i < count * next.length; i++) {
            const [who = 0, number] = (await subscriber.frame()).payload.toString().split(' ').map(Number);
            if (number === undefined || number !== next[who])
              throw new Error(`${topic}: ${number} of worker ${who} came when ${next[who]} was due`);
            next[who] = number + 1;
          }
          expect(next).toEqual(joined.workers.map(() => count));
        }
      };
      await Promise.all([publishAll(), ...all.map(receive)]);
      expect([joined.sum('node_drops'), joined.sum('redis_drops'), joined.sum('redis_duplicates')]).toEqual([0, 0, 0]);
    });

    test('carries any bytes of any length, as text or as binary', async () => {
      const subscribers = await joined.subscribeEverywhere('bytes');
      const payloads = [
        Buffer.alloc(0),
        Buffer.from(Array.from({ length: 256 }, (_, byte) => byte)),
        Buffer.alloc(65_536, 'abcdefg'),
        Buffer.alloc(1 << 20, crypto.getRandomValues(new Uint8Array(1021))),
      ];
      const texts = ['', 'héllo', '\u0000', '😀'.repeat(1000), 'z'.repeat(1 << 20)];
      const publisher = joined.worker(1);
      for (const payload of payloads) publisher.publish('bytes', payload);
      for (const text of texts) publisher.publish('bytes', text);
      for (const subscriber of subscribers) {
        for (const payload of payloads) {
          const got = await subscriber.frame();
          expect(got.opcode).toBe(opcode.binary);
          expect(got.payload.equals(payload)).toBe(true);
        }
        for (const text of texts) {
          const got = await subscriber.frame();
          expect(got.opcode).toBe(opcode.text);
          expect(got.payload.toString() === text).toBe(true);
        }
      }
    });

    test('carries topics of any name', async () => {
      const topics = ['a', ' ', '\n\t\u0000\r', 'ünï/🦊', '{braces}:*?[x]', 'é'.repeat(512), '\u{10ffff}'.repeat(256)];
      for (const topic of topics) {
        const subscribers = await joined.subscribeEverywhere(topic);
        joined.worker(2).publish(topic, 'here');
        joined.worker(2).publish(`${topic.slice(1)}x`, 'elsewhere');
        for (const subscriber of subscribers) expect(await subscriber.texts(1)).toEqual(['here']);
        await joined.expectNothingMore(topic, subscribers);
      }
    });

    test('carries bytes that are no text for a name, and publishes to names that are too long for nobody', async () => {
      const topic = Uint8Array.from([0xff, 0x00, 0xc3, 0x28, 0x80]);
      const all: Subscriber[] = [];
      for (const worker of joined.workers) {
        const subscriber = await joined.connect(worker);
        worker.live.core.subscribe(subscriber.socket.slot, subscriber.socket.generation, topic);
        all.push(subscriber);
      }
      await joined.inPlace(topic, all);
      // As the uWebSockets.js API does; `publish` takes no such names.
      const { core } = joined.worker(1).live;
      core.publish('', sendText, 'nobody');
      core.publish('x'.repeat(1025), sendText, 'nobody');
      core.publish(topic, sendText, 'somebody');
      for (const subscriber of all) expect(await subscriber.texts(1)).toEqual(['somebody']);
    });

    test('stops when somebody unsubscribes, for them alone', async () => {
      const subscribers = await joined.subscribeEverywhere('leave', 2);
      const [gone, ...rest] = subscribers as [Subscriber, ...Subscriber[]];
      gone.socket.subscribe('private');
      gone.socket.unsubscribe('leave');
      gone.worker.live.turn();
      for (const worker of joined.workers) worker.publish('leave', 'x');
      for (const subscriber of rest) expect(await subscriber.texts(joined.workers.length)).toEqual(joined.workers.map(() => 'x'));
      gone.worker.publish('private', 'only this');
      expect(await gone.texts(1)).toEqual(['only this']);
    });

    test('reaches again who comes back, with nothing of what was missed', async () => {
      const subscribers = await joined.subscribeEverywhere('again');
      for (const { socket } of subscribers) socket.unsubscribe('again');
      await joined.inPlace('again', []);
      const out = joined.sum('redis_messages_out');
      joined.worker(0).publish('again', 'missed');
      // Between nodes a message is on its way until the other side has it.
      if (start !== undefined) await eventually('it is out', () => joined.sum('redis_messages_out') === out + 1);
      for (const { socket } of subscribers) socket.subscribe('again');
      await joined.inPlace('again', subscribers);
      joined.worker(2).publish('again', 'heard');
      // Within the node what was published before may still be on its way; it goes to nobody who was not subscribed then.
      for (const subscriber of subscribers) expect(await subscriber.texts(1)).toEqual(['heard']);
    });

    test('floods without a loss that is not counted', async () => {
      const count = 24_000;
      const subscribers = await joined.subscribeEverywhere('flood');
      const publisher = joined.worker(0);
      const payload = 'x'.repeat(1000);
      for (let at = 0; at < count; at++) publisher.publish('flood', `${at} ${payload}`);
      await eventually('everything is out', () => joined.sum('node_outbox_bytes') + joined.sum('redis_outbox_bytes') === 0);
      publisher.publish('flood', 'the end');
      const lost = new Map<Subscriber, number>();
      for (const subscriber of subscribers) {
        let received = 0;
        for (let last = -1; ; received++) {
          const text = (await subscriber.frame()).payload.toString();
          if (text === 'the end') break;
          const number = Number.parseInt(text, 10);
          if (number <= last) throw new Error(`${number} came after ${last}`);
          last = number;
        }
        lost.set(subscriber, count - received);
      }
      const isNear = ({ worker }: Subscriber) => worker.node === publisher.node;
      const sum = (some: readonly Subscriber[]) => some.reduce((all, subscriber) => all + (lost.get(subscriber) ?? 0), 0);
      const far = subscribers.filter((subscriber) => !isNear(subscriber));
      expect(lost.get(subscribers[0] as Subscriber)).toBe(0);
      expect(sum(subscribers.filter(isNear))).toBe(publisher.stat('node_drops'));
      const farDrops = joined.sum('node_drops') - publisher.stat('node_drops');
      expect(sum(far)).toBe(far.length * publisher.stat('redis_drops') + farDrops);
    });

    test('goes on within its node after it is closed', async () => {
      const subscribers = await joined.subscribeEverywhere('closed');
      const closed = joined.worker(0);
      await closed.bus?.close(1000);
      expect(closed.publish('closed', 'still here')).toBe(start === undefined ? 'accepted' : 'dropped');
      for (const subscriber of subscribers.filter(({ worker }) => worker.node === closed.node))
        expect(await subscriber.texts(1)).toEqual(['still here']);
      await closed.bus?.close(1000);
    });
  });
}

describe('publishing through Redis', () => {
  let redis: RedisServer;
  beforeAll(async () => {
    redis = await startRedis();
  });
  afterAll(() => redis.dispose());
  const settings = { probeInterval: 60, timeout: 60 };

  test('costs a PUBLISH for a topic that nobody wants, and nothing is received', async () => {
    const joined = await JoinedWorkers.start({ backend, nodes: [1, 2], redis, settings });
    const other = await joined.subscribeEverywhere('other');
    const count = 50;
    const [publishes, commands, received] = [
      await redis.stat('cmdstat_publish:calls'),
      joined.sum('redis_publishes'),
      joined.sum('redis_bytes_in'),
    ];
    for (let at = 0; at < count; at++) {
      joined.worker(0).publish('nobody', 'x');
      // One by one: what waits together goes out together.
      await eventually('it is out', () => joined.sum('redis_publishes') === commands + at + 1);
    }
    expect((await redis.stat('cmdstat_publish:calls')) - publishes).toBe(count);
    expect(joined.sum('redis_bytes_in')).toBe(received);
    expect(await redis.command('PUBSUB', 'CHANNELS', 'ringway:nobody')).toBe('');
    await joined.expectNothingMore('other', other);
    await joined.stop();
  });

  test('subscribes once for a node, and brings a message into it once', async () => {
    const joined = await JoinedWorkers.start({ backend, nodes: [1, 3], redis, settings });
    const subscribers = await joined.subscribeEverywhere('once', 3);
    expect(await redis.command('PUBSUB', 'NUMSUB', 'ringway:once')).toBe('ringway:once\n2');
    const before = joined.workers.map((worker) => worker.stat('redis_messages_in'));
    for (let at = 0; at < 10; at++) joined.worker(0).publish('once', String(at));
    for (const subscriber of subscribers) expect(await subscriber.texts(10)).toEqual(Array.from({ length: 10 }, (_, at) => String(at)));
    const came = joined.workers.map((worker, at) => worker.stat('redis_messages_in') - (before[at] ?? 0));
    // The far node has it once; the near one throws its own away.
    expect(came.reduce((sum, one) => sum + one)).toBe(10);
    expect(came[0]).toBe(0);
    expect(joined.worker(0).stat('redis_echoes')).toBe(10);
    await joined.stop();
  });

  test('spreads topics over the workers of a node, and lets go of them after the linger', async () => {
    const joined = await JoinedWorkers.start({ backend, nodes: [4], redis, settings: { ...settings, linger: 1 } });
    const topics = Array.from({ length: 400 }, (_, at) => `spread/${at}`);
    const subscriber = await joined.connect(joined.worker(0));
    for (const topic of topics) subscriber.socket.subscribe(topic);
    const channels = async () => (await redis.command('PUBSUB', 'CHANNELS', 'ringway:spread/*')).split('\n').filter(Boolean).length;
    await eventually('all are subscribed', async () => (await channels()) === topics.length);
    // Gauges are told several times a second.
    await eventually('all have told', () => joined.sum('redis_topics') === topics.length);
    const shares = joined.workers.map((worker) => worker.stat('redis_topics'));
    expect(shares.reduce((sum, share) => sum + share)).toBe(topics.length);
    for (const share of shares) expect(share).toBeGreaterThan(40);
    subscriber.wire.destroy();
    await eventually('all are let go', async () => (await channels()) === 0);
    await eventually('all have told', () => joined.sum('redis_topics') === 0);
    await joined.stop();
  });

  test('keeps configs with different prefixes apart', async () => {
    const [one, two] = await Promise.all([
      JoinedWorkers.start({ backend, nodes: [1], redis, settings }),
      JoinedWorkers.start({ backend, nodes: [1, 1], redis, settings: { ...settings, prefix: 'ringway:2' } }),
    ]);
    const here = await one.subscribeEverywhere('same');
    const there: Subscriber[] = [];
    for (const worker of two.workers) {
      const subscriber = await two.connect(worker);
      subscriber.socket.subscribe('same');
      // What the other prefix would look like as a topic of the first.
      here[0]?.socket.subscribe('2:same');
      there.push(subscriber);
    }
    await eventually('both are subscribed', async () => (await redis.command('PUBSUB', 'NUMSUB', 'ringway:2:same')).endsWith('\n3'));
    one.worker(0).publish('same', 'one');
    one.worker(0).publish('2:same', 'one, of the same channel');
    two.worker(0).publish('same', 'two');
    expect(await (here[0] as Subscriber).texts(2)).toEqual(['one', 'one, of the same channel']);
    for (const subscriber of there) expect(await subscriber.texts(1)).toEqual(['two']);
    await two.expectNothingMore('same', there);
    one.worker(0).publish('same', 'the end');
    expect(await (here[0] as Subscriber).texts(1)).toEqual(['the end']);
    await Promise.all([one.stop(), two.stop()]);
  });
});
