/**
 * Logs of topics in Redis, as a link has them: appended, read, told of, and what becomes of them when servers fail. No worker, no core; a server alone,
 * Sentinels and a Cluster. What a store of topics promises is asked in tests/contract/topic-store.test.ts.
 */
import { afterAll, afterEach, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test';
import { sendBinary, sendText } from '../../src/api/message.ts';
import type { Appended } from '../../src/core/log-commands.ts';
import { LinkUnavailableError, type StoredQuery } from '../../src/pubsub/link.ts';
import { slotOf } from '../../src/pubsub/redis/channels.ts';
import { eventually } from '../support/eventually.ts';
import { type RedisServer, startCluster, startRedis, startSentinels } from '../support/redis-servers.ts';
import { endLinks, limits, startLink } from '../support/stored-link.ts';

// Only ends a test that has failed.
setDefaultTimeout(60_000);

const numbers = (count: number) => Array.from({ length: count }, (_, at) => at);

afterEach(endLinks);

describe('logs in one Redis', () => {
  let redis: RedisServer;
  const pair = () => Promise.all([startLink({ url: redis.url }), startLink({ url: redis.url })]);
  beforeAll(async () => {
    redis = await startRedis();
  });
  afterAll(() => redis.dispose());

  test('an append answers its position, is read by all, and is told to who is subscribed', async () => {
    const [one, two] = await pair();
    await two.subscribe('a');
    const first = await one.append('a', 'first');
    expect(first).toMatchObject({ offset: 1, isDuplicate: false });
    const { epoch } = first;
    expect(epoch).toMatch(/^[0-9a-f]{16}$/);
    expect(await two.append('a', 'second')).toEqual({ epoch, offset: 2, isDuplicate: false });
    await eventually('they come', () => two.heard.length === 2);
    expect(two.heard).toEqual([`a ${epoch}:1 first`, `a ${epoch}:2 second`]);
    expect(await two.read('a')).toMatchObject({ epoch, offset: 2, texts: ['1 first', '2 second'] });
  });

  test('appends of one turn go together, in order, each with its own position', async () => {
    const [one, two] = await pair();
    await two.subscribe('b');
    const answers = await Promise.all(numbers(500).map((at) => one.append('b', String(at))));
    expect(answers.map(({ offset }) => offset)).toEqual(numbers(500).map((at) => at + 1));
    await eventually('they come', () => two.heard.length === 500);
    expect(two.heard.map((line) => line.split(' ')[2])).toEqual(numbers(500).map(String));
    expect(await redis.stat('cmdstat_evalsha:calls')).toBeLessThan(100);
  });

  test('a repeated key answers the first position, from any node, in one batch too', async () => {
    const [one, two] = await pair();
    const first = await one.append('c', 'x', 'key');
    expect(await two.append('c', 'other', 'key')).toEqual({ ...first, isDuplicate: true });
    const both = await Promise.all([one.append('c', 'y', 'again'), one.append('c', 'z', 'again'), one.append('c', 'w')]);
    expect(both.map(({ offset, isDuplicate }) => [offset, isDuplicate])).toEqual([
      [2, false],
      [2, true],
      [3, false],
    ]);
    // The same key of another topic is another key.
    expect(await one.append('c2', 'v', 'key')).toMatchObject({ offset: 1, isDuplicate: false });
    expect((await one.read('c')).texts).toEqual(['1 x', '2 y', '3 w']);
  });

  test('size and time take the oldest; what is read is never more, and offsets go on', async () => {
    const [one] = await pair();
    const few = { size: 5, seconds: 1 };
    const topic = Buffer.from('d');
    for (const at of numbers(300)) await one.logs.append(topic, { flags: sendBinary, payload: Buffer.from(String(at)) }, few);
    expect((await one.read('d', {}, few)).texts).toEqual(numbers(5).map((at) => `${296 + at} ${295 + at}`));
    // As far as Redis keeps whole nodes of a stream.
    expect(Number(await redis.command('XLEN', 'ringway:{0}:log:d'))).toBeLessThan(210);
    const { epoch } = await one.read('d');
    await Bun.sleep(1100);
    expect(await one.read('d', {}, few)).toMatchObject({ epoch, offset: 300, texts: [] });
    await one.logs.append(topic, { flags: sendBinary, payload: Buffer.from('new') }, few);
    expect(await one.read('d', {}, few)).toMatchObject({ epoch, offset: 301, texts: ['301 new'] });
    expect(Number(await redis.command('XLEN', 'ringway:{0}:log:d'))).toBe(1);
  });

  test('entries that are too old go though others come', async () => {
    const [one] = await pair();
    const topic = Buffer.from('young');
    const of = { size: 1000, seconds: 2 };
    for (const at of numbers(40)) await one.logs.append(topic, { flags: sendText, payload: Buffer.from(`old ${at}`) }, of);
    await Bun.sleep(1000);
    await one.logs.append(topic, { flags: sendText, payload: Buffer.from('young') }, of);
    await Bun.sleep(1100);
    expect((await one.read('young', {}, of)).texts).toEqual(['41 young']);
    expect((await one.read('young', { mode: 'last' }, of)).texts).toEqual(['41 young']);
    await one.logs.append(topic, { flags: sendText, payload: Buffer.from('youngest') }, of);
    expect(Number(await redis.command('XLEN', 'ringway:{0}:log:young'))).toBe(2);
  });

  test('is read forwards from an offset, backwards before one, and from the end, within bounds of number and bytes', async () => {
    const [one] = await pair();
    await Promise.all(numbers(90).map((at) => one.append('e', `${at}`)));
    const texts = async (query: Partial<StoredQuery>) => (await one.read('e', query)).texts;
    expect(await texts({ from: 85 })).toEqual(['86 85', '87 86', '88 87', '89 88', '90 89']);
    expect(await texts({ from: 10, limit: 2 })).toEqual(['11 10', '12 11']);
    expect(await texts({ mode: 'before', from: 4 })).toEqual(['3 2', '2 1', '1 0']);
    expect(await texts({ mode: 'before', from: 1 })).toEqual([]);
    expect(await texts({ mode: 'last', from: 0, limit: 2 })).toEqual(['90 89', '89 88']);
    expect((await texts({ mode: 'last', from: 0 })).length).toBe(90);
    expect(await texts({ from: 90 })).toEqual([]);
    expect(await texts({ from: 1000 })).toEqual([]);
    expect(await texts({ limit: 0 })).toEqual([]);
    expect((await texts({ bytes: 10 })).length).toBe(1);
    expect(await texts({ mode: 'last', from: 0, bytes: 100 })).toEqual(['90 89', '89 88']);
  });

  test('a log that is not there has no epoch, unless reading begins it', async () => {
    const [one] = await pair();
    expect(await one.read('f')).toEqual({ epoch: '0000000000000000', offset: 0, texts: [], entries: [] });
    expect(await redis.command('EXISTS', 'ringway:{0}:meta:f')).toBe('0');
    const { epoch } = await one.read('f', { begins: true });
    expect(epoch).toMatch(/^[0-9a-f]{16}$/);
    expect(await one.append('f', 'x')).toMatchObject({ epoch, offset: 1 });
  });

  test('reads of one range are one command', async () => {
    const [one] = await pair();
    await one.append('g', 'x');
    const before = one.counted.log_reads ?? 0;
    const pages = await Promise.all(numbers(50).map(() => one.read('g')));
    expect(new Set(pages.map(({ texts }) => texts.join()))).toEqual(new Set(['1 x']));
    expect((one.counted.log_reads ?? 0) - before).toBe(1);
  });

  test('no key is without an expiry', async () => {
    const [one] = await pair();
    await one.append('h', 'x', 'key');
    await one.read('h2', { begins: true });
    const keys = (await redis.command('KEYS', '*')).split('\n');
    expect(keys.length).toBeGreaterThan(4);
    for (const key of keys) expect([key, Number(await redis.command('PTTL', key)) > 0]).toEqual([key, true]);
  });

  test('publisher, excepted connection, flags and bytes come as they were', async () => {
    const [one, two] = await pair();
    const payload = Buffer.from([0, 255, 1, 2]);
    await one.logs.append(Buffer.from('i'), { flags: sendBinary, payload, except: { slot: 7, generation: 9 } }, limits);
    await one.logs.append(Buffer.from('i'), { flags: sendText | (1 << 16), payload: Buffer.from('{}') }, limits);
    const { entries } = await two.read('i');
    expect(entries[0]).toMatchObject({ flags: sendBinary, payload, except: { slot: 7, generation: 9 } });
    expect(entries[0]?.publisher.worker).toBe(1);
    expect(Math.abs((entries[0]?.timeMs ?? 0) - Date.now())).toBeLessThan(60_000);
    expect(entries[1]).toMatchObject({ flags: sendText | (1 << 16), except: undefined });
  });

  test('a Redis that has forgotten its scripts is given them again', async () => {
    const [one] = await pair();
    const { epoch } = await one.append('j', '1');
    await one.append('j', '2');
    await redis.command('SCRIPT', 'FLUSH');
    expect(await one.append('j', '3')).toEqual({ epoch, offset: 3, isDuplicate: false });
    expect((await one.read('j')).texts).toEqual(['1 1', '2 2', '3 3']);
  });

  test('keys that hold something else are told of, counted, and left alone', async () => {
    const [one] = await pair();
    await redis.command('SET', 'ringway:{0}:meta:k', 'x');
    await redis.command('RPUSH', 'ringway:{0}:log:l', 'x');
    await redis.command('HSET', 'ringway:{0}:meta:m', 'e', 'short');
    await redis.command('SET', 'ringway:{0}:once:1:nkey', 'x');
    await redis.command('XADD', 'ringway:{0}:log:o', '50-1', 'm', 'x');
    await one.append('p', 'x');
    await redis.command('XADD', 'ringway:{0}:log:p', '50-1', 'm', 'x');
    for (const [topic, key] of [['k'], ['l'], ['m'], ['n', 'key'], ['p']] as const) {
      const error = await one.append(topic, 'x', key).then(
        () => undefined,
        (reason: unknown) => reason,
      );
      expect([topic, error]).toEqual([topic, expect.any(LinkUnavailableError)]);
      expect(String(error)).toContain(`:${topic}`);
      expect(String(error)).toContain('remove it');
    }
    expect(one.counted.log_damaged).toBe(5);
    await expect(one.read('k')).rejects.toThrow('remove it');
    // A stream of ours without its other half is begun anew.
    expect(await one.append('o', 'x')).toMatchObject({ offset: 1 });
    // What is no envelope of ours is left out.
    expect((await one.read('p')).texts).toEqual(['1 x']);
    expect(await redis.command('GET', 'ringway:{0}:meta:k')).toBe('x');
    expect(await one.append('q', 'fine')).toMatchObject({ offset: 1 });
    expect(one.link.state).toBe('up');
  });
});

test('the rights that the documentation names are enough', async () => {
  const docs = await Bun.file(new URL('../../docs/nodes.md', import.meta.url)).text();
  const rules = [...docs.matchAll(/^ACL SETUSER ringway (.*)$/gm)].map(([, rule]) =>
    (rule ?? '').replace('>PASSWORD', '>secret').split(' '),
  );
  expect(rules.length).toBe(2);
  const redis = await startRedis();
  try {
    for (const rule of rules) await redis.command('ACL', 'SETUSER', 'ringway', ...rule);
    const one = await startLink({ url: redis.url, username: 'ringway', password: 'secret' });
    await one.subscribe('a');
    await one.append('a', 'x', 'key');
    expect((await one.read('a')).texts).toEqual(['1 x']);
    await eventually('it comes', () => one.heard.length === 1);
    const topic = Buffer.from('a');
    const change = { user: 'ann', info: new Uint8Array(), count: 1, version: 1 };
    await one.members.write(topic, [change], 50);
    await one.members.write(topic, [{ ...change, user: 'bob' }], 50);
    await one.members.write(topic, [{ ...change, count: 0, version: 2 }], 50);
    await one.members.keep(0);
    expect(await one.members.count(topic)).toEqual({ users: 1, connections: 1 });
    await Bun.sleep(60);
    expect(await one.members.count(topic)).toEqual({ users: 0, connections: 0 });
    await one.members.sweep(0, one.node);
    await one.members.renew(0, 1000);
    expect((await one.members.list(topic)).members).toEqual([]);
    // What is missing is named, and messages of other topics go on.
    await redis.command('ACL', 'SETUSER', 'ringway', '-eval', '-evalsha');
    await expect(one.append('a', 'y')).rejects.toThrow('give it the rights');
    expect(one.link.state).toBe('up');
  } finally {
    await redis.dispose();
  }
});

test('with a key only what is signed is read and heard', async () => {
  const redis = await startRedis();
  try {
    const [one, two, other] = await Promise.all([
      startLink({ url: redis.url, signingKey: 'of all nodes, 32 characters long.' }),
      startLink({ url: redis.url, signingKey: 'of all nodes, 32 characters long.' }),
      startLink({ url: redis.url }),
    ]);
    await two.subscribe('a');
    await one.append('a', 'signed');
    await other.append('a', 'forged');
    await one.append('a', 'signed too');
    await eventually('they come', () => two.heard.length === 2);
    expect((await two.read('a')).texts).toEqual(['1 signed', '3 signed too']);
    expect(two.counted.unsigned).toBe(2);
  } finally {
    await redis.dispose();
  }
});

describe('when Redis goes away', () => {
  let redis: RedisServer;
  beforeAll(async () => {
    redis = await startRedis({ config: ['appendonly yes', 'appendfsync always'] });
  });
  afterAll(() => redis.dispose());

  test('appends wait, and are stored once, in order, when it is back; answers that were lost are asked for again', async () => {
    const [one, two] = await Promise.all([startLink({ url: redis.url }), startLink({ url: redis.url })]);
    await two.subscribe('a');
    const { epoch } = await one.append('a', 'before');
    const answers: Promise<Appended>[] = [];
    // What is under way when it dies may be stored and not answered.
    for (const round of numbers(5)) {
      for (const at of numbers(200)) answers.push(one.append('a', `${round} ${at}`));
      await redis.kill();
      for (const at of numbers(200)) answers.push(one.append('a', `${round} ${200 + at}`));
      await redis.start();
      await eventually('both are back', () => one.link.state === 'up' && two.link.state === 'up');
    }
    const positions = await Promise.all(answers);
    expect(positions.map(({ offset }) => offset)).toEqual(numbers(2000).map((at) => at + 2));
    expect(new Set(positions.map((position) => position.epoch))).toEqual(new Set([epoch]));
    const { texts } = await two.read('a', { mode: 'after', from: 1901 }, limits);
    expect(texts).toEqual(numbers(100).map((at) => `${1902 + at} 4 ${300 + at}`));
    expect(two.restored.filter((topic) => topic === 'a').length).toBe(5);
  });

  test('an empty Redis begins a new epoch', async () => {
    const one = await startLink({ url: redis.url });
    const { epoch } = await one.append('b', 'before');
    await redis.command('FLUSHALL');
    const after = await one.append('b', 'after');
    expect(after).toMatchObject({ offset: 1 });
    expect(after.epoch).not.toBe(epoch);
  });

  test('who has seen an entry that is not there makes a new epoch of what is there', async () => {
    const one = await startLink({ url: redis.url });
    const { epoch } = await one.append('c', 'kept');
    const at = (await one.read('c')).entries[0]?.timeMs ?? 0;
    const same = await one.read('c', { seen: { epoch, offset: 1, timeMs: at } });
    expect(same).toMatchObject({ epoch, texts: ['1 kept'] });
    const other = await one.read('c', { seen: { epoch, offset: 1, timeMs: at + 1 } });
    expect(other).toMatchObject({ offset: 1, texts: ['1 kept'] });
    expect(other.epoch).not.toBe(epoch);
    const ahead = await one.read('c', { seen: { epoch: other.epoch, offset: 2, timeMs: 0 } });
    expect([epoch, other.epoch]).not.toContain(ahead.epoch);
    // Of another epoch nothing can be said.
    expect((await one.read('c', { seen: { epoch, offset: 9, timeMs: 0 } })).epoch).toBe(ahead.epoch);
  });

  test('appends are refused past what may wait, and after a while', async () => {
    const one = await startLink({ url: redis.url, outboxBytes: 1 << 16 });
    await one.append('d', 'before');
    redis.freeze();
    try {
      const large = 'x'.repeat(10_000);
      const appends = numbers(20).map(() =>
        one.append('d', large).then(
          () => 'stored',
          (error: unknown) => String(error),
        ),
      );
      const results = await Promise.all(appends);
      expect(results.filter((result) => /too much waits/.test(result)).length).toBe(14);
      expect(results.filter((result) => /does not answer/.test(result)).length).toBe(6);
      expect(one.counted.log_failures).toBe(20);
    } finally {
      redis.thaw();
    }
    await eventually('it is up', () => one.link.state === 'up');
    // Nothing is held of what was given up.
    await Promise.all(numbers(5).map(() => one.append('d', 'x'.repeat(10_000))));
  });
});

describe('logs over Sentinels', () => {
  test('a failover to a replica that lacks the end of a log is a new epoch for who has seen that end', async () => {
    const group = await startSentinels();
    try {
      const one = await startLink({ sentinels: { name: group.name, nodes: group.urls } });
      const { epoch } = await one.append('a', 'kept');
      await one.append('full', 'kept');
      await eventually('the replica has it', async () => (await group.replica.command('XLEN', 'ringway:{0}:log:full')) === '1');
      group.replica.freeze();
      // What is sent to it now does not wait in its socket.
      await group.primary.command('CLIENT', 'KILL', 'TYPE', 'replica');
      expect(await one.append('a', 'lost')).toMatchObject({ epoch, offset: 2 });
      await group.primary.kill();
      group.replica.thaw();
      const after = await one.append('a', 'after');
      expect(after.epoch).not.toBe(epoch);
      expect((await one.read('a')).texts).toEqual(['1 kept', '2 after']);
      // What has lost nothing goes on.
      expect(await one.append('full', 'more')).toMatchObject({ offset: 2 });
    } finally {
      await group.dispose();
    }
  });
});

describe('logs in a Cluster', () => {
  test('lie in the slots of their partitions, over all servers, and go on when slots move with their keys', async () => {
    const cluster = await startCluster({ replicas: false });
    try {
      const options = { cluster: cluster.urls, partitions: 16 };
      const [one, two] = await Promise.all([startLink(options), startLink(options)]);
      const topics = numbers(48).map((at) => `room/${at}`);
      await Promise.all(topics.map((topic) => two.subscribe(topic)));
      const before = await Promise.all(topics.map((topic) => one.append(topic, 'before', 'key')));
      expect(new Set(before.map(({ offset }) => offset))).toEqual(new Set([1]));
      for (const partition of numbers(16)) {
        const slot = slotOf(String(partition));
        const from = await cluster.ownerOf(slot);
        const to = cluster.primaries.find((server) => server !== from) as RedisServer;
        const moving = cluster.migrate(slot, to);
        const answers = await Promise.all(topics.map((topic) => one.append(topic, `moving ${partition}`)));
        expect(new Set(answers.map(({ offset }) => offset))).toEqual(new Set([partition + 2]));
        await moving;
      }
      expect(await Promise.all(topics.map((topic) => one.append(topic, 'again', 'key')))).toEqual(
        before.map((position) => ({ ...position, isDuplicate: true })),
      );
      const pages = await Promise.all(topics.map((topic) => two.read(topic)));
      for (const { texts } of pages) expect(texts).toEqual(['1 before', ...numbers(16).map((at) => `${at + 2} moving ${at}`)]);
    } finally {
      await cluster.dispose();
    }
  });

  test('go on when a primary dies: its topics wait for the replica, all others for nothing', async () => {
    const cluster = await startCluster({ nodeTimeoutMs: 1000 });
    try {
      const [one, two] = await Promise.all([
        startLink({ cluster: cluster.urls, partitions: 16 }),
        startLink({ cluster: cluster.urls, partitions: 16 }),
      ]);
      const topics = numbers(32).map((at) => `room/${at}`);
      await Promise.all(topics.map((topic) => two.subscribe(topic)));
      const before = await Promise.all(topics.map((topic) => one.append(topic, 'before')));
      const [primary] = cluster.primaries;
      const isOnIt = await Promise.all(
        topics.map(async (topic) => (await cluster.ownerOf(slotOf(String(one.members.partitionOf(Buffer.from(topic)))))) === primary),
      );
      await primary?.kill();
      const others = topics.filter((_, at) => !isOnIt[at]);
      await Promise.all(others.map((topic) => one.append(topic, 'meanwhile')));
      expect(one.link.state).not.toBe('connecting');
      const after = await Promise.all(topics.map((topic) => one.append(topic, 'after')));
      after.forEach(({ offset, epoch }, at) => {
        // What the replica did not have yet is gone with its epoch; this publisher was answered.
        if (epoch === before[at]?.epoch) expect([topics[at], offset]).toEqual([topics[at], isOnIt[at] ? 2 : 3]);
      });
      await eventually('both are back', () => one.link.state === 'up' && two.link.state === 'up');
      const pages = await Promise.all(topics.map((topic) => two.read(topic)));
      for (const { texts } of pages) expect(texts.at(-1)?.endsWith(' after')).toBe(true);
    } finally {
      await cluster.dispose();
    }
  });
});
