import { afterEach, describe, expect, setDefaultTimeout, test } from 'bun:test';
import { rmSync } from 'node:fs';
import { commandFlag } from '../../ffi/layout.ts';
import type { RedisOptions as RedisConfig } from '../../src/api/define.ts';
import { resolveRedis } from '../../src/config/redis.ts';
import { createLog } from '../../src/log.ts';
import type { LinkState, NodeLink } from '../../src/pubsub/link.ts';
import { Channels, slotOf } from '../../src/pubsub/redis/channels.ts';
import { createRedisLink } from '../../src/pubsub/redis/redis-link.ts';
import { createAuthority } from '../support/certificates.ts';
import { eventually } from '../support/eventually.ts';
import { createNetwork, mayCreateNetworks } from '../support/networks.ts';
import { type RedisServer, startCluster, startRedis, startSentinels } from '../support/redis-servers.ts';

// Only ends a test that has failed. Where a time is asserted, it is ten times what is meant.
setDefaultTimeout(120_000);

const probeInterval = 0.2;
const timeout = 0.8;
const detectMsMax = (probeInterval + timeout) * 1000 * 10;

const cleanups: (() => unknown)[] = [];
/** Whatever a test starts ends with it, the last first. */
function later<Thing extends { dispose(): unknown }>(thing: Thing): Thing {
  cleanups.push(() => thing.dispose());
  return thing;
}
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

let nodes = 0;

/** A link as a node has it. Takes from it what the bus takes: nothing that is not newer than what it has had of its publisher. */
class Node {
  readonly link: NodeLink;
  readonly counters: Record<string, number> = {};
  readonly lines: Record<string, unknown>[] = [];
  readonly states: LinkState[] = [];
  /** Numbers by topic, in the order in which they came. */
  readonly heard = new Map<string, number[]>();
  readonly messages: { topic: string; flags: number; payload: Buffer }[] = [];
  gaps = 0;
  /** Came twice, taken once. */
  duplicates = 0;
  readonly #last = new Map<string, number>();
  /** The next number for each topic. */
  readonly #next = new Map<string, number>();

  constructor(redis: string | RedisConfig, more: RedisConfig = {}) {
    const config = { probeInterval, timeout, ...(typeof redis === 'string' ? { url: redis } : redis), ...more };
    const settings = resolveRedis(config, undefined, '/', (path, text) => {
      throw new Error(`${path.join('.')} ${text}`);
    });
    if (settings === false) throw new Error('no Redis');
    const nodeId = (0x1000_0000 + nodes++).toString(16).repeat(2);
    this.link = createRedisLink(settings, {
      publisher: { node: nodeId, worker: 3 },
      log: createLog({ level: 'debug', readable: false }, { write: (line: string) => void this.lines.push(JSON.parse(line)) }),
      count: (counter, by) => {
        this.counters[counter] = (this.counters[counter] ?? 0) + by;
      },
    });
    cleanups.push(() => this.link.close(0));
    this.link.start({
      onMessage: ({ topic, publisher, sequence, flags, payload }) => {
        const name = Buffer.from(topic).toString();
        const key = `${publisher.node} ${publisher.worker} ${name}`;
        if (sequence <= (this.#last.get(key) ?? 0)) {
          this.duplicates += 1;
          return;
        }
        this.#last.set(key, sequence);
        const copy = Buffer.from(payload);
        if (copy.byteLength > 1000 || this.messages.length < 1000) this.messages.push({ topic: name, flags, payload: copy });
        const numbers = this.heard.get(name) ?? [];
        if (numbers.push(Number(copy.toString())) === 1) this.heard.set(name, numbers);
      },
      onGap: (topics) => {
        this.gaps += topics;
      },
      onState: (state) => void this.states.push(state),
    });
  }

  count(name: string): number {
    return this.counters[name] ?? 0;
  }

  subscribe(...topics: string[]): Promise<unknown> {
    return Promise.all(topics.map((topic) => this.link.subscribe(Buffer.from(topic))));
  }

  /** Publish the next number of each topic. */
  publish(...topics: string[]): void {
    for (const topic of topics) {
      const number = this.published(topic);
      this.#next.set(topic, number + 1);
      this.link.publish(Buffer.from(topic), commandFlag.sendText, Buffer.from(String(number)));
    }
  }

  /** How many have been published to a topic. */
  published(topic: string): number {
    return this.#next.get(topic) ?? 0;
  }

  numbers(topic: string): number[] {
    return this.heard.get(topic) ?? [];
  }

  reason(): string {
    return String(this.lines.findLast(({ reason }) => reason !== undefined)?.reason);
  }

  async up(): Promise<this> {
    await eventually('the link is up', () => this.link.state === 'up');
    return this;
  }

  lost(): Promise<boolean> {
    return eventually('the link is lost', () => this.link.state === 'lost');
  }

  async emptied(): Promise<void> {
    await eventually('the outbox is empty', () => this.link.health().outboxMessages === 0 && this.link.health().outboxBytes === 0);
  }

  async heardLast(publisher: Node, ...topics: string[]): Promise<void> {
    for (const topic of topics)
      await eventually(`the last of ${topic} comes`, () => this.numbers(topic).at(-1) === publisher.published(topic) - 1);
  }
}

async function upNodes(redis: string | RedisConfig, more: RedisConfig = {}): Promise<[Node, Node]> {
  return await Promise.all([new Node(redis, more).up(), new Node(redis, more).up()]);
}

function expectIncreasing(node: Node): void {
  for (const [topic, numbers] of node.heard) {
    for (let i = 1; i < numbers.length; i++) {
      if ((numbers[i] as number) <= (numbers[i - 1] as number)) throw new Error(`${topic}: ${numbers[i - 1]} came before ${numbers[i]}`);
    }
  }
}

/** Numbers of a topic that did not come. */
function missing(node: Node, topic: string, published: number): number[] {
  const came = new Set(node.numbers(topic));
  return Array.from({ length: published }, (_, i) => i).filter((i) => !came.has(i));
}

/** Publishes numbers again and again, until it is stopped. */
function keepPublishing(node: Node, topics: readonly string[], everyMs = 5) {
  const timer = setInterval(() => node.publish(...topics), everyMs);
  const stop = () => clearInterval(timer);
  cleanups.push(stop);
  return stop;
}

/** The longest time between two turns of the event loop, in milliseconds. */
function watchLoop() {
  let worst = 0;
  let last = performance.now();
  const timer = setInterval(() => {
    const now = performance.now();
    worst = Math.max(worst, now - last);
    last = now;
  }, 1);
  return () => {
    clearInterval(timer);
    return worst;
  };
}

const topics = ['room/1', 'room/2', 'room/ä', 'a:b'];

/**
 * Publish through a fault and check what comes: strictly increasing numbers; missing is only what was published between the fault and the
 * moment in which the subscriber was up again, and then gaps were counted.
 */
async function throughFault(publisher: Node, subscriber: Node, fault: () => Promise<void>): Promise<number> {
  await subscriber.subscribe(...topics);
  const stop = keepPublishing(publisher, topics);
  await eventually('messages flow', () => topics.every((topic) => subscriber.numbers(topic).length > 20));
  const gapsBefore = subscriber.gaps;
  const dropsBefore = publisher.count('drops');
  const from = new Map(topics.map((topic) => [topic, subscriber.numbers(topic).at(-1) as number]));
  const before = new Map(topics.map((topic) => [topic, new Set(missing(subscriber, topic, (from.get(topic) as number) + 1))]));
  await fault();
  await Promise.all([publisher.up(), subscriber.up()]);
  const until = new Map(topics.map((topic) => [topic, publisher.published(topic)]));
  await eventually('messages flow again', () =>
    topics.every((topic) => (subscriber.numbers(topic).at(-1) ?? 0) > (until.get(topic) as number) + 20),
  );
  stop();
  await subscriber.heardLast(publisher, ...topics);
  expectIncreasing(subscriber);
  let lost = 0;
  for (const topic of topics) {
    const gone = missing(subscriber, topic, publisher.published(topic)).filter((number) => before.get(topic)?.has(number) !== true);
    for (const number of gone) {
      expect(number).toBeGreaterThan(from.get(topic) as number);
      expect(number).toBeLessThan(until.get(topic) as number);
    }
    lost += gone.length;
  }
  const dropped = publisher.count('drops') - dropsBefore;
  if (lost > dropped) expect(subscriber.gaps).toBeGreaterThan(gapsBefore);
  await publisher.emptied();
  return lost;
}

describe('one server', () => {
  test('messages go from node to node, whatever bytes they hold, in order, text as text', async () => {
    const redis = later(await startRedis());
    const [a, b] = await upNodes(redis.url);
    await b.subscribe('bytes', ...topics);
    const all = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
    const large = Buffer.alloc(1024 * 1024, all);
    a.link.publish(Buffer.from('bytes'), 0, all);
    a.link.publish(Buffer.from('bytes'), commandFlag.sendText | commandFlag.sendCompress, new Uint8Array());
    a.link.publish(Buffer.from('bytes'), 0, large);
    await eventually('all three come', () => b.messages.length === 3);
    expect(b.messages.map(({ flags }) => flags)).toEqual([0, commandFlag.sendText | commandFlag.sendCompress, 0]);
    expect(b.messages.map(({ payload }) => payload.byteLength)).toEqual([256, 0, large.byteLength]);
    expect(b.messages[0]?.payload.equals(all) && b.messages[2]?.payload.equals(large)).toBe(true);
    for (let i = 0; i < 5000; i++) a.publish(...topics);
    await b.heardLast(a, ...topics);
    for (const topic of topics) expect(missing(b, topic, 5000)).toEqual([]);
    expectIncreasing(b);
    expect([b.duplicates, b.gaps, b.count('malformed')]).toEqual([0, 0, 0]);
    // Those of one turn go out together.
    expect(a.count('messages_out')).toBe(20_003);
    expect(a.count('publishes')).toBeLessThan(2000);
    expect(b.count('bytes_in')).toBe(a.count('bytes_out'));
  });

  test('topics of any bytes, of one byte and of 1024', async () => {
    const redis = later(await startRedis());
    const [a, b] = await upNodes(redis.url);
    const names = [Buffer.from([0xff]), Buffer.from([0]), Buffer.from('\r\n$1\r\n'), Buffer.alloc(1024, 0xc3), Buffer.from('*')];
    const came: Buffer[] = [];
    await b.link.close(0);
    const c = await new Node(redis.url).up();
    await Promise.all(names.map((name) => c.link.subscribe(name)));
    for (const name of names) a.link.publish(name, 0, name);
    await eventually('each comes', () => c.messages.length === names.length);
    for (const { payload } of c.messages) came.push(payload);
    expect(came.map((payload) => payload.toString('hex')).sort()).toEqual(names.map((name) => name.toString('hex')).sort());
  });

  test('a node hears only what it subscribes to, and nothing of a topic without subscribers leaves Redis', async () => {
    const redis = later(await startRedis());
    const [a, b] = await upNodes(redis.url);
    await b.subscribe('mine');
    expect(await redis.command('PUBSUB', 'NUMSUB', 'ringway:mine')).toBe('ringway:mine\n1');
    a.publish('others', 'mine');
    await b.heardLast(a, 'mine');
    expect([...b.heard.keys()]).toEqual(['mine']);
    await b.link.unsubscribe(Buffer.from('mine'));
    expect(await redis.command('PUBSUB', 'NUMSUB', 'ringway:mine')).toBe('ringway:mine\n0');
    const bytesIn = b.count('bytes_in');
    a.publish('mine');
    await eventually('it is out', () => a.count('messages_out') === 3);
    expect(b.count('bytes_in')).toBe(bytesIn);
    expect(b.link.health().topics).toBe(0);
  });

  test('a prefix is a world of its own, also where channels look alike', async () => {
    const redis = later(await startRedis());
    const [shop, shopEu, other] = await Promise.all(['shop', 'shop:eu', 'other'].map((prefix) => new Node(redis.url, { prefix }).up()));
    if (shop === undefined || shopEu === undefined || other === undefined) throw new Error('three nodes');
    // One and the same channel in Redis: 'shop:eu:news'.
    await Promise.all([shop.subscribe('eu:news', 'news'), shopEu.subscribe('news'), other.subscribe('news', 'eu:news')]);
    const [shop2, shopEu2] = await Promise.all(['shop', 'shop:eu'].map((prefix) => new Node(redis.url, { prefix }).up()));
    shop2?.publish('eu:news');
    shopEu2?.publish('news', 'news');
    await eventually('each hears its own', () => shop.numbers('eu:news').length === 1 && shopEu.numbers('news').length === 2);
    expect([shop.numbers('news'), other.heard.size, shop.count('malformed')]).toEqual([[], 0, 0]);
  });

  test('what is not an envelope is counted and thrown away', async () => {
    const redis = later(await startRedis());
    const [a, b] = await upNodes(redis.url);
    await b.subscribe('x');
    for (const bytes of ['', 'hello', '\x01', '\x02aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'])
      await redis.command('PUBLISH', 'ringway:x', bytes);
    a.publish('x');
    await b.heardLast(a, 'x');
    expect(b.count('malformed')).toBe(4);
    expect(b.link.state).toBe('up');
    expect(b.lines.filter(({ msg }) => String(msg).includes('make no sense'))).toHaveLength(1);
  });

  test('with a key, nodes hear those that sign with it and nobody else, and say so once', async () => {
    const redis = later(await startRedis());
    const [first, second] = ['1'.repeat(32), '2'.repeat(32)] as const;
    const [a, b, stranger, plain, both] = await Promise.all(
      [{ signingKey: first }, { signingKey: first }, { signingKey: second }, {}, { signingKey: [second, first] }].map((more) =>
        new Node(redis.url, more).up(),
      ),
    );
    if (!a || !b || !stranger || !plain || !both) throw new Error('five nodes');
    for (const node of [b, plain, both]) await node.subscribe('x');
    for (const [envelopes, publisher] of [stranger, plain, stranger].entries()) {
      publisher.publish('x');
      await eventually('it is refused', () => b.count('unsigned') === envelopes + 1);
    }
    a.publish('x');
    await eventually(
      'who has the key is heard',
      () => both.numbers('x').length === 3 && plain.numbers('x').length === 4 && b.heard.size > 0,
    );
    expect([b.numbers('x'), b.count('unsigned'), b.count('malformed')]).toEqual([[0], 3, 0]);
    expect([both.numbers('x'), both.count('unsigned')]).toEqual([[0, 1, 0], 1]);
    // Without a key everybody is believed; its own comes back from Redis as well.
    expect([plain.numbers('x'), plain.count('unsigned')]).toEqual([[0, 0, 1, 0], 0]);
    expect(b.lines.filter(({ msg }) => String(msg).includes('redis.signingKey'))).toHaveLength(1);
    expect(JSON.stringify([b.lines, both.lines])).not.toContain(first);
    expect([a, b, both].map(({ link }) => link.state)).toEqual(['up', 'up', 'up']);
  });

  test('over a Unix socket', async () => {
    const redis = later(await startRedis());
    const [a, b] = await upNodes(`unix://${redis.socketPath}`);
    await b.subscribe('x');
    a.publish('x');
    await b.heardLast(a, 'x');
    expect(b.lines[0]).toMatchObject({ redis: redis.socketPath, msg: 'connected to Redis' });
  });

  test('killed and started again: all is subscribed again, in order, nothing twice, what is lost is counted', async () => {
    const redis = later(await startRedis());
    const [a, b] = await upNodes(redis.url);
    await b.subscribe(...Array.from({ length: 1000 }, (_, i) => `more/${i}`));
    let backMs = 0;
    const lost = await throughFault(a, b, async () => {
      await redis.kill();
      await Promise.all([a.lost(), b.lost()]);
      await Bun.sleep(1500);
      await redis.start();
      const started = performance.now();
      await b.up();
      backMs = performance.now() - started;
    });
    console.log(`      back ${backMs.toFixed(0)} ms after the server, ${lost} messages lost`);
    expect(backMs).toBeLessThan(10_000);
    expect(b.gaps).toBe(1004);
    expect(b.gaps).toBe(1004);
    expect(b.count('reconnects')).toBe(1);
    expect(b.states).toEqual(['up', 'lost', 'up']);
    expect((await redis.command('PUBSUB', 'NUMSUB', 'ringway:more/999')).endsWith('\n1')).toBe(true);
    expect(b.lines.filter(({ level }) => level === 'warn').length).toBeLessThan(5);
  });

  test('stopped with SIGSTOP: found in time, the event loop is not held up, and it goes on where it was', async () => {
    const redis = later(await startRedis());
    const [a, b] = await upNodes(redis.url);
    let detectMs = 0;
    let worstMs = 0;
    const lost = await throughFault(a, b, async () => {
      const stopWatching = watchLoop();
      const frozen = performance.now();
      redis.freeze();
      await Promise.all([a.lost(), b.lost()]);
      detectMs = performance.now() - frozen;
      await Bun.sleep(1000);
      worstMs = stopWatching();
      redis.thaw();
    });
    console.log(
      `      found after ${detectMs.toFixed(0)} ms, longest turn ${worstMs.toFixed(1)} ms, ${lost} messages lost, ${b.duplicates} came twice`,
    );
    expect(detectMs).toBeLessThan(detectMsMax);
    expect(worstMs).toBeLessThan(1000);
    expect(b.gaps).toBe(topics.length);
  });

  test.skipIf(!mayCreateNetworks)('cut off without a word: found in time, and back when the network is', async () => {
    const network = later(createNetwork());
    const redis = later(await startRedis({ network }));
    const [a, b] = await upNodes(redis.url);
    let detectMs = 0;
    const lost = await throughFault(a, b, async () => {
      const cut = performance.now();
      network.cut();
      await Promise.all([a.lost(), b.lost()]);
      detectMs = performance.now() - cut;
      await Bun.sleep(500);
      network.heal();
    });
    console.log(`      found after ${detectMs.toFixed(0)} ms, ${lost} messages lost`);
    expect(detectMs).toBeLessThan(detectMsMax);
    expect(a.count('reconnects')).toBe(1);
  });

  test('one of its two connections killed: both are made again', async () => {
    const redis = later(await startRedis());
    const [a, b] = await upNodes(redis.url);
    await throughFault(a, b, async () => {
      await redis.command('CLIENT', 'KILL', 'TYPE', 'pubsub');
      await Promise.all([a.lost(), b.lost()]);
    });
    await throughFault(a, b, async () => {
      await redis.command('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
      await Promise.all([a.lost(), b.lost()]);
    });
    expect(b.count('reconnects')).toBe(2);
  });

  test('what was under way when a server stopped is sent twice, and taken once', async () => {
    const redis = later(await startRedis());
    const [a, b] = await Promise.all([new Node(redis.url).up(), new Node(redis.url, { timeout: 60 }).up()]);
    await b.subscribe('x');
    a.publish('x');
    await b.heardLast(a, 'x');
    redis.freeze();
    a.publish('x', 'x');
    await a.lost();
    a.publish('x');
    // What the first connection had sent is in the server's hands still.
    redis.thaw();
    await a.up();
    await b.heardLast(a, 'x');
    expect(b.numbers('x')).toEqual([0, 1, 2, 3]);
    expect(b.duplicates).toBe(2);
    expect(b.states).toEqual(['up']);
  });

  test.skipIf(!mayCreateNetworks)(
    'a message that takes longer than the timeout on a slow network comes, and nothing is given up',
    async () => {
      const network = later(createNetwork());
      const redis = later(await startRedis({ network }));
      const [a, b] = await upNodes(redis.url);
      await b.subscribe('x');
      network.slow(20);
      const large = Buffer.alloc(6 * 1024 * 1024, 'x');
      const began = performance.now();
      a.link.publish(Buffer.from('x'), 0, large);
      await eventually('it comes', () => b.messages.length === 1, 60_000);
      console.log(`      it took ${(performance.now() - began).toFixed(0)} ms`);
      expect(performance.now() - began).toBeGreaterThan(timeout * 1000);
      expect(b.messages[0]?.payload.equals(large)).toBe(true);
      expect([a.states, b.states]).toEqual([['up'], ['up']]);
    },
  );

  test('through faults of all kinds, one after the other, nothing comes twice and nothing out of order', async () => {
    const redis = later(await startRedis());
    const [a, b] = await upNodes(redis.url);
    await b.subscribe(...topics);
    const stop = keepPublishing(a, topics, 2);
    for (let i = 0; i < 8; i++) {
      await Bun.sleep(150 + ((i * 37) % 100));
      if (i % 4 === 0) {
        await redis.kill();
        await redis.start();
      } else if (i % 4 === 1) {
        redis.freeze();
        await Bun.sleep(i === 1 ? 300 : 1500);
        redis.thaw();
      } else if (i % 4 === 2) {
        await redis.command('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
      } else {
        await redis.command('CLIENT', 'KILL', 'TYPE', 'pubsub');
      }
    }
    await Promise.all([a.up(), b.up()]);
    stop();
    a.publish(...topics);
    await b.heardLast(a, ...topics);
    expectIncreasing(b);
    expect(b.gaps).toBeGreaterThan(0);
    expect(a.count('drops')).toBe(0);
    await a.emptied();
  });

  test('a handler that blocks for longer than the timeout makes no server seem dead', async () => {
    const redis = later(await startRedis());
    const [a, b] = await upNodes(redis.url);
    await b.subscribe('x');
    for (let i = 0; i < 3; i++) {
      a.publish('x');
      // So that a probe is under way when it blocks.
      redis.freeze();
      await Bun.sleep(probeInterval * 1500);
      redis.thaw();
      Bun.sleepSync(timeout * 2500);
      await Bun.sleep(probeInterval * 1500);
    }
    await b.heardLast(a, 'x');
    expect([a.states, b.states]).toEqual([['up'], ['up']]);
    expect(b.numbers('x')).toEqual([0, 1, 2]);
  });

  test.each(['drop-oldest', 'drop-newest'] as const)('while Redis is gone the outbox is bounded: %s', async (onOutboxFull) => {
    const redis = later(await startRedis());
    const [a, b] = await upNodes(redis.url, { outboxBytes: 65_536, onOutboxFull });
    await b.subscribe('x', 'y');
    await redis.kill();
    await Promise.all([a.lost(), b.lost()]);
    for (let i = 0; i < 1000; i++) a.publish('x', 'y');
    const drops = a.count('drops');
    expect(drops).toBeGreaterThan(1000);
    await redis.start();
    await Promise.all([a.up(), b.up()]);
    await a.emptied();
    await eventually('what was kept comes', () => b.numbers('x').length + b.numbers('y').length === 2000 - drops);
    expectIncreasing(b);
    const kept = b.numbers('x').length;
    const first = onOutboxFull === 'drop-oldest' ? 1000 - kept : 0;
    expect(b.numbers('x')).toEqual(Array.from({ length: kept }, (_, i) => first + i));
    expect(Math.max(...a.lines.map(({ messages }) => Number(messages ?? 0)))).toBeGreaterThan(0);
  });

  test('a server that comes later than the node: what was published waits', async () => {
    const redis = later(await startRedis());
    await redis.kill();
    const [a, b] = [new Node(redis.url), new Node(redis.url)];
    const stands = b.subscribe('x');
    a.publish('x', 'x');
    await Promise.all([a.lost(), b.lost()]);
    await redis.start();
    await stands;
    await b.heardLast(a, 'x');
    expect(b.numbers('x')).toEqual([0, 1]);
    expect(b.gaps).toBe(0);
  });

  test('stop publishes what waits, and gives up at its deadline', async () => {
    const redis = later(await startRedis());
    const [a, b] = await upNodes(redis.url);
    await b.subscribe('x');
    for (let i = 0; i < 2000; i++) a.publish('x');
    await a.link.close(30_000);
    await b.heardLast(a, 'x');
    expect(missing(b, 'x', 2000)).toEqual([]);
    a.publish('x');
    const c = await new Node(redis.url).up();
    await redis.kill();
    await c.lost();
    c.publish('x');
    const stood = c.subscribe('never');
    await c.link.close(50);
    await stood;
    expect([c.count('drops'), c.link.health().outboxMessages, a.count('drops')]).toEqual([1, 0, 0]);
  });

  test('thousands of topics are subscribed again in slices that hold nothing up', async () => {
    const redis = later(await startRedis());
    const b = await new Node(redis.url).up();
    const count = 20_000;
    await b.subscribe(...Array.from({ length: count }, (_, i) => `topic/${i}`));
    await redis.kill();
    await b.lost();
    const stopWatching = watchLoop();
    await redis.start();
    const started = performance.now();
    await b.up();
    console.log(
      `      ${count} topics back after ${(performance.now() - started).toFixed(0)} ms, longest turn ${stopWatching().toFixed(1)} ms`,
    );
    expect(stopWatching()).toBeLessThan(1000);
    expect(b.gaps).toBe(count);
    // With the channel of the probes.
    expect((await redis.command('PUBSUB', 'CHANNELS')).split('\n').length).toBe(count + 1);
  });
});

describe('set-ups that somebody has to correct', () => {
  /** Never up; the log says what to do, and the text holds no secret. */
  async function refused(redis: string | RedisConfig, words: string, more: RedisConfig = {}): Promise<Node> {
    const node = new Node(redis, more);
    await node.lost();
    await eventually(`the log says '${words}'`, () => {
      if (node.reason().includes(words)) return true;
      return undefined;
    }).catch((error) => {
      throw new Error(`${error}; it says: ${node.reason()}`);
    });
    expect(JSON.stringify(node.lines)).not.toContain('s3cret');
    expect(node.states).toEqual(['lost']);
    return node;
  }

  test('a user with only the rights that are needed; a wrong password; rights that are missing', async () => {
    const rights = '+publish +subscribe +unsubscribe';
    const redis = later(
      await startRedis({
        config: [
          'requirepass s3cret-admin',
          `user gate on >s3cret-gate ${rights} &ringway:*`,
          `user blind on >s3cret-gate ${rights} &other:*`,
        ],
        login: ['--pass', 's3cret-admin'],
      }),
    );
    const [a, b] = await upNodes(redis.url, { username: 'gate', password: 's3cret-gate' });
    await throughFault(a, b, async () => {
      await redis.command('CLIENT', 'KILL', 'USER', 'gate');
      await Promise.all([a.lost(), b.lost()]);
    });
    await refused(redis.url, 'set redis.password');
    await refused(redis.url.replace('//', '//blind:s3cret-gate@'), '+publish +subscribe +unsubscribe &ringway:*');
    const wrong = await refused(redis.url, 'correct redis.username and redis.password', { username: 'gate', password: 's3cret-wrong' });
    expect(wrong.count('errors')).toBeGreaterThan(0);
    // It goes on trying: once corrected, it is up.
    await redis.command('ACL', 'SETUSER', 'gate', '>s3cret-wrong');
    await wrong.up();
  });

  test.skipIf(!mayCreateNetworks)('protected mode', async () => {
    const network = later(createNetwork());
    const redis = later(await startRedis({ network, config: ['protected-mode yes', 'bind 0.0.0.0'] }));
    await refused(redis.url, 'protected mode');
  });

  test('servers of another kind than the config says', async () => {
    const group = later(await startSentinels());
    const cluster = later(await startCluster({ replicas: false }));
    const [sentinelUrl, clusterUrl] = [group.urls[0], cluster.urls[0]] as [string, string];
    await Promise.all([
      refused(sentinelUrl, 'redis.sentinels instead of redis.url'),
      refused(clusterUrl, 'redis.cluster instead of redis.url'),
      refused(group.replica.url, 'name the primary'),
      refused({ cluster: [group.primary.url] }, 'redis.url instead of redis.cluster'),
      refused({ sentinels: { name: 'nobody', nodes: group.urls } }, 'correct redis.sentinels.name'),
    ]);
  });

  test('a Cluster that is too old for sharded pub/sub', async () => {
    const cluster = later(await startCluster({ replicas: false, config: ['rename-command SSUBSCRIBE ""'] }));
    await refused({ cluster: [cluster.urls[0] as string] }, 'Redis 7');
  });

  test('TLS with an authority of its own; without it, and by another name', async () => {
    const authority = later(createAuthority());
    const files = authority.filesOf(authority.issue('redis', 'DNS:redis.test,DNS:localhost'));
    const redis = later(await startRedis({ tls: { ...files, ca: authority.file } }));
    const url = `rediss://localhost:${redis.tlsPort}`;
    const [a, b] = await upNodes(url, { tls: { ca: authority.file } });
    await throughFault(a, b, async () => {
      await redis.kill();
      await Promise.all([a.lost(), b.lost()]);
      await redis.start();
    });
    await refused(url, 'redis.tls.ca');
    const byAddress = `rediss://127.0.0.1:${redis.tlsPort}`;
    await refused(byAddress, 'redis.tls.serverName', { tls: { ca: authority.file } });
    await new Node(byAddress, { tls: { ca: authority.file, serverName: 'redis.test' } }).up();
    await new Node(byAddress, { tls: { verify: false } }).up();
    await refused(`rediss://localhost:${redis.port}`, 'is this its port for TLS?');
    await refused(`redis://localhost:${redis.tlsPort}`, 'does it want TLS');
    const gone = later(createAuthority());
    const node = new Node(url, { tls: { ca: gone.file } });
    rmSync(gone.file);
    await eventually('it says which file it cannot read', () => node.reason().includes('redis.tls.ca cannot be read'));
  });
});

describe('Sentinel', () => {
  test('the primary is killed: the new one is found, everything is subscribed there', async () => {
    const group = later(await startSentinels({ sentinels: 3 }));
    const [a, b] = await upNodes({ sentinels: { name: group.name, nodes: [...group.urls] } });
    let backMs = 0;
    const lost = await throughFault(a, b, async () => {
      const killed = performance.now();
      await group.primary.kill();
      await Promise.all([a.lost(), b.lost()]);
      await eventually('the Sentinels name the new primary', async () => (await group.primaryPort()) === group.replica.port);
      const namedMs = performance.now() - killed;
      await Promise.all([a.up(), b.up()]);
      backMs = performance.now() - killed;
      console.log(
        `      back ${backMs.toFixed(0)} ms after the kill (the Sentinels took ${namedMs.toFixed(0)}), down-after ${group.downAfterMs}`,
      );
    });
    console.log(`      ${lost} messages lost`);
    expect(backMs).toBeLessThan(group.downAfterMs * 2 * 10);
    expect(await group.primaryPort()).toBe(group.replica.port);
    expect((await group.replica.command('PUBSUB', 'NUMSUB', 'ringway:room/1')).endsWith('\n1')).toBe(true);
    expect(b.gaps).toBe(topics.length);
  });

  test('the primary is stopped, and comes back as a replica', async () => {
    const group = later(await startSentinels({ sentinels: 1 }));
    const [a, b] = await upNodes({ sentinels: { name: group.name, nodes: [...group.urls] } });
    await throughFault(a, b, async () => {
      group.primary.freeze();
      await Promise.all([a.lost(), b.lost()]);
      await eventually('the Sentinel fails over', async () => (await group.primaryPort()) === group.replica.port);
      await Promise.all([a.up(), b.up()]);
      group.primary.thaw();
      await eventually('it is a replica', async () => (await group.primary.command('ROLE')).startsWith('slave'));
    });
    expect([a.link.state, b.link.state]).toEqual(['up', 'up']);
  });
});

describe('Cluster', () => {
  const clusterTopics = Array.from({ length: 60 }, (_, i) => `room/${i}`);

  /** Where a topic is subscribed, by asking all servers. */
  async function holdersOf(servers: readonly RedisServer[], partition: number, topic: string): Promise<RedisServer[]> {
    const name = `ringway:{${partition}}:${topic}`;
    const counts = await Promise.all(servers.map((server) => server.command('PUBSUB', 'SHARDNUMSUB', name).catch(() => '0')));
    return servers.filter((_, i) => counts[i]?.endsWith('\n1'));
  }

  function clusterNodes(urls: readonly string[], more: RedisConfig = {}): Promise<[Node, Node]> {
    return upNodes({ cluster: [...urls] }, { partitions: 16, ...more });
  }

  test('topics spread over all primaries; slots move; a primary is killed; all goes on in order', async () => {
    const cluster = later(await startCluster());
    const [a, b] = await clusterNodes(cluster.urls.slice(0, 2));
    await b.subscribe(...clusterTopics);
    for (let i = 0; i < 50; i++) a.publish(...clusterTopics);
    await b.heardLast(a, ...clusterTopics);
    for (const topic of clusterTopics) expect(missing(b, topic, 50)).toEqual([]);
    const published = await Promise.all(cluster.primaries.map((server) => server.stat('cmdstat_spublish:calls')));
    for (const calls of published) expect(calls).toBeGreaterThan(10);

    // Every slot of a partition moves to the next primary, while messages flow.
    const owners = await Promise.all(Array.from({ length: 16 }, (_, partition) => cluster.ownerOf(slotOf(String(partition)))));
    const lostInMoves = await throughFault(a, b, async () => {
      for (const [partition, owner] of owners.entries()) {
        const next = cluster.primaries[(cluster.primaries.indexOf(owner) + 1) % 3] as RedisServer;
        await cluster.migrate(slotOf(String(partition)), next);
      }
      await eventually('the moves are noticed', () => b.gaps >= clusterTopics.length);
    });
    const gapsOfMoves = b.gaps;
    for (const topic of clusterTopics) {
      const partition = partitionOf(topic);
      const owner = await cluster.ownerOf(slotOf(String(partition)));
      expect(await holdersOf(cluster.primaries, partition, topic)).toEqual([owner]);
    }
    for (let i = 0; i < 10; i++) a.publish(...clusterTopics);
    await b.heardLast(a, ...clusterTopics);
    expectIncreasing(b);

    // A primary dies; its replica takes over.
    const victim = cluster.primaries[1] as RedisServer;
    let backMs = 0;
    const lostInFailover = await throughFault(a, b, async () => {
      const killed = performance.now();
      await victim.kill();
      await Promise.all([a.lost(), b.lost()]);
      await Promise.all([a.up(), b.up()]);
      backMs = performance.now() - killed;
    });
    console.log(
      `      moves: ${lostInMoves} messages lost, ${gapsOfMoves} gaps; failover: back after ${backMs.toFixed(0)} ms with node timeout 2000, ${lostInFailover} lost`,
    );
    expect(b.gaps).toBeGreaterThan(gapsOfMoves);
    for (let i = 0; i < 10; i++) a.publish(...clusterTopics);
    await b.heardLast(a, ...clusterTopics);
    expectIncreasing(b);
    expect(a.count('drops')).toBe(0);
  });

  test('a failover by hand: the old primary lives on as a replica', async () => {
    const cluster = later(await startCluster());
    const [a, b] = await clusterNodes(cluster.urls.slice(0, 1));
    await b.subscribe(...clusterTopics);
    await throughFault(a, b, async () => {
      const replica = cluster.replicas[0] as RedisServer;
      await cluster.failover(replica);
      await eventually('it is the primary', async () => (await replica.command('ROLE')).startsWith('master'));
      await eventually('the links have moved', () => a.states.length >= 3 && b.states.length >= 3);
    });
    for (let i = 0; i < 10; i++) a.publish(...clusterTopics);
    await b.heardLast(a, ...clusterTopics);
    expectIncreasing(b);
  });

  test('a slot that moves away and comes back at once: its topics are subscribed again', async () => {
    const cluster = later(await startCluster({ replicas: false }));
    const [a, b] = await clusterNodes(cluster.urls);
    await b.subscribe(...clusterTopics);
    const topic = 'room/1';
    const partition = partitionOf(topic);
    const slot = slotOf(String(partition));
    const owner = await cluster.ownerOf(slot);
    expect(await holdersOf(cluster.primaries, partition, topic)).toEqual([owner]);
    await cluster.flicker(slot);
    expect(await holdersOf(cluster.primaries, partition, topic)).toEqual([]);
    await eventually('it is subscribed again', async () => (await holdersOf(cluster.primaries, partition, topic)).includes(owner));
    await Promise.all([a.up(), b.up()]);
    await eventually('messages come again', () => {
      a.publish(topic);
      return b.numbers(topic).length > 0;
    });
    expectIncreasing(b);
    expect(b.gaps).toBeGreaterThan(0);
  });

  test('without a part of its slots it is lost, and up again when they are served', async () => {
    const cluster = later(await startCluster({ replicas: false, nodeTimeoutMs: 1000 }));
    const [a, b] = await clusterNodes(cluster.urls);
    await throughFault(a, b, async () => {
      const victim = cluster.primaries[2] as RedisServer;
      await victim.kill();
      await Promise.all([a.lost(), b.lost()]);
      await Bun.sleep(2500);
      await victim.start();
    });
  });

  /** By the name of the channel in which a topic is published. */
  function partitionOf(topic: string): number {
    return new Channels('ringway', 16).partitionOf(topic);
  }
});
