/**
 * Members of topics in Redis, as links have them: users by node, leases, and what becomes of nodes that are gone. No worker, no core; a server alone, and a
 * Cluster. What a store of topics promises is asked in tests/contract/topic-store.test.ts.
 */
import { afterAll, afterEach, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test';
import { decodePresenceEntry, presenceTopic } from '../../src/core/presence-commands.ts';
import { entryFlag } from '../../src/pubsub/link.ts';
import { type RedisServer, startCluster, startRedis } from '../support/redis-servers.ts';
import { endLinks, type StoredLink, startLink } from '../support/stored-link.ts';

// Only ends a test that has failed.
setDefaultTimeout(60_000);

const numbers = (count: number) => Array.from({ length: count }, (_, at) => at);
const nothing = new Uint8Array();
let version = 0;

/** `count`: connections there; none: it has gone. */
function write(link: StoredLink, topic: string, user: string, count: number, info = nothing, leaseMs = 60_000): Promise<boolean> {
  return link.members.write(Buffer.from(topic), [{ user, info, count, version: ++version }], leaseMs);
}

async function members(link: StoredLink, topic: string): Promise<string[]> {
  const { members: all } = await link.members.list(Buffer.from(topic));
  return all.map(({ user, connections, info }) => `${user} ${connections}${Buffer.from(info)}`).sort();
}

/** What the presence log says, by its offsets. */
async function events(link: StoredLink, topic: string): Promise<string[]> {
  const { entries } = await link.read(presenceTopic(topic));
  return entries.map(({ offset, flags, payload }) => {
    const entry = decodePresenceEntry(payload);
    const kind = flags & entryFlag.join ? 'join' : flags & entryFlag.leave ? 'leave' : '?';
    return `${offset} ${kind} ${entry?.user}${Buffer.from(entry?.info ?? nothing)}`;
  });
}

afterEach(endLinks);

describe('members in one Redis', () => {
  let redis: RedisServer;
  const pair = () => Promise.all([startLink({ url: redis.url }), startLink({ url: redis.url })]);
  beforeAll(async () => {
    redis = await startRedis();
  });
  afterAll(() => redis.dispose());

  test('a user is there from the first of its connections on any node to the last one, with one join and one leave', async () => {
    const [one, two] = await pair();
    await two.subscribe(presenceTopic('a'));
    await write(one, 'a', 'ann', 1, Buffer.from('{"x":1}'));
    await write(two, 'a', 'ann', 2, Buffer.from('{"x":2}'));
    await write(one, 'a', 'bob', 1);
    expect(await members(one, 'a')).toEqual(['ann 3{"x":1}', 'bob 1']);
    expect(await two.members.count(Buffer.from('a'))).toEqual({ users: 2, connections: 4 });
    await write(one, 'a', 'ann', 0);
    expect(await members(two, 'a')).toEqual(['ann 2{"x":1}', 'bob 1']);
    await write(two, 'a', 'ann', 0, Buffer.from('{"x":2}'));
    await write(two, 'a', 'ann', 1);
    expect(await events(one, 'a')).toEqual(['1 join ann{"x":1}', '2 join bob', '3 leave ann{"x":2}', '4 join ann']);
    expect(two.heard.length).toBe(4);
    const { position } = await one.members.list(Buffer.from('a'));
    expect(position.offset).toBe(4);
  });

  test('what is written again, or too late, changes nothing', async () => {
    const [one] = await pair();
    const topic = Buffer.from('b');
    const change = { user: 'ann', info: nothing, count: 1, version: 1_000_001 };
    await one.members.write(topic, [change], 60_000);
    await one.members.write(topic, [change], 60_000);
    await one.members.write(topic, [{ ...change, count: 3, version: 1_000_003 }], 60_000);
    await one.members.write(topic, [{ ...change, count: 2, version: 1_000_002 }], 60_000);
    expect(await members(one, 'b')).toEqual(['ann 3']);
    await one.members.write(topic, [{ ...change, count: 0, version: 1_000_005 }], 60_000);
    await one.members.write(topic, [{ ...change, count: 1, version: 1_000_004 }], 60_000);
    expect(await members(one, 'b')).toEqual([]);
    expect(await one.members.count(topic)).toEqual({ users: 0, connections: 0 });
    await one.members.write(topic, [{ ...change, count: 1, version: 1_000_006 }], 60_000);
    expect(await events(one, 'b')).toEqual(['1 join ann', '2 leave ann', '3 join ann']);
  });

  test('who has changed several times in one step comes and goes as often', async () => {
    const [one] = await pair();
    const topic = Buffer.from('b2');
    const changes = (...counts: number[]) => counts.map((count) => ({ user: 'ann', info: nothing, count, version: ++version }));
    await one.members.write(topic, changes(1, 2), 60_000);
    expect(await members(one, 'b2')).toEqual(['ann 2']);
    expect(await one.members.count(topic)).toEqual({ users: 1, connections: 2 });
    await one.members.write(topic, changes(0, 1), 60_000);
    expect(await one.members.count(topic)).toEqual({ users: 1, connections: 1 });
    await one.members.write(topic, changes(0, 1, 0), 60_000);
    expect(await one.members.count(topic)).toEqual({ users: 0, connections: 0 });
    const kinds = ['join', 'leave', 'join', 'leave', 'join', 'leave'];
    expect(await events(one, 'b2')).toEqual(kinds.map((kind, at) => `${at + 1} ${kind} ann`));
  });

  test('many users go in few steps', async () => {
    const [one] = await pair();
    const changes = numbers(1000).map((at) => ({ user: `user ${at}`, info: nothing, count: 1, version: ++version }));
    await one.members.write(Buffer.from('c'), changes, 60_000);
    expect(await one.members.count(Buffer.from('c'))).toEqual({ users: 1000, connections: 1000 });
    expect((await one.members.list(Buffer.from('c'))).members.length).toBe(1000);
    expect(one.counted.member_steps).toBe(7);
    expect((await one.read(presenceTopic('c'))).offset).toBe(1000);
  });

  test('a node without a lease does not count, and whoever sweeps says that its users have left, once', async () => {
    const [one, two] = await pair();
    await write(one, 'd', 'ann', 1, Buffer.from('{}'), 50);
    await write(one, 'd', 'both', 1, nothing, 50);
    await write(one, 'd2', 'ann', 1, nothing, 50);
    await write(two, 'd', 'both', 1);
    expect(await two.members.renew(0, 60_000)).toMatchObject({ hadIt: true, held: 1 });
    await Bun.sleep(60);
    expect(await two.members.count(Buffer.from('d'))).toEqual({ users: 1, connections: 1 });
    expect(await two.members.count(Buffer.from('d2'))).toEqual({ users: 0, connections: 0 });
    const { gone } = await two.members.renew(0, 60_000);
    expect(gone).toContain(one.node);
    // One of those who ask does it.
    expect((await two.members.renew(0, 60_000)).gone).toEqual([]);
    await Promise.all([two.members.sweep(0, one.node), two.members.sweep(0, one.node)]);
    expect(await events(two, 'd')).toEqual(['1 join ann{}', '2 join both', '3 leave ann{}']);
    expect(await events(two, 'd2')).toEqual(['1 join ann', '2 leave ann']);
    expect(await redis.command('EXISTS', `ringway:{0}:held:${one.node}`)).toBe('0');
    expect(await redis.command('HGETALL', 'ringway:{0}:nodes:d2')).toBe('');
    // It is back.
    expect(await write(one, 'd', 'ann', 1)).toBe(false);
    expect(await write(one, 'd', 'both', 1)).toBe(true);
    expect(await members(two, 'd')).toEqual(['ann 1', 'both 2']);
  });

  test('a lease that is renewed before anybody has swept has cost nobody anything', async () => {
    const [one, two] = await pair();
    await write(one, 'e', 'ann', 1, nothing, 30);
    await Bun.sleep(40);
    expect(await two.members.count(Buffer.from('e'))).toEqual({ users: 0, connections: 0 });
    expect(await one.members.renew(0, 60_000)).toMatchObject({ hadIt: false });
    await two.members.sweep(0, one.node);
    expect(await members(two, 'e')).toEqual(['ann 1']);
    expect(await events(two, 'e')).toEqual(['1 join ann']);
  });

  test('who asks for a list sees the leaves of nodes that are gone before it: list and log agree', async () => {
    const [one, two] = await pair();
    await write(one, 'f', 'ann', 1, nothing, 30);
    await write(two, 'f', 'bob', 1);
    await Bun.sleep(40);
    const { position, members: all } = await two.members.list(Buffer.from('f'));
    expect(all.map(({ user }) => user)).toEqual(['bob']);
    expect(position.offset).toBe(3);
    expect(await events(two, 'f')).toEqual(['1 join ann', '2 join bob', '3 leave ann']);
  });

  test('no key is without an expiry, and what a node holds can be kept', async () => {
    const [one] = await pair();
    await write(one, 'g', 'ann', 1);
    await write(one, 'g', 'bob', 1);
    await write(one, 'g', 'bob', 0);
    await one.members.renew(0, 60_000);
    await redis.command('PEXPIRE', 'ringway:{0}:users:g', '50000');
    await one.members.keep(0);
    expect(Number(await redis.command('PTTL', 'ringway:{0}:users:g'))).toBeGreaterThan(50_000);
    // redis-cli takes no name with a NUL in it.
    const lasting = `local all = {} for _, key in ipairs(redis.call('KEYS', '*')) do if redis.call('PTTL', key) <= 0 then all[#all + 1] = key end end return all`;
    expect(await redis.command('EVAL', lasting, '0')).toBe('');
    expect(Number(await redis.command('DBSIZE'))).toBeGreaterThan(8);
  });

  test('keys that hold something else are told of, and left alone', async () => {
    const [one] = await pair();
    await redis.command('SET', 'ringway:{0}:users:h', 'x');
    await redis.command('HSET', 'ringway:{0}:users:i', 'ann', 'x');
    await expect(write(one, 'h', 'ann', 1)).rejects.toThrow('ringway:{0}:users:h in Redis holds something');
    await expect(one.members.list(Buffer.from('h'))).rejects.toThrow('remove it');
    await expect(one.members.count(Buffer.from('h'))).rejects.toThrow('remove it');
    await expect(write(one, 'i', 'ann', 1)).rejects.toThrow('remove it');
    expect(await members(one, 'i')).toEqual([]);
    expect(await one.members.count(Buffer.from('i'))).toEqual({ users: 1, connections: 0 });
    expect(one.counted.member_failures).toBe(4);
    expect(one.link.state).toBe('up');
  });
});

test('in a Cluster members and their log lie with their topic', async () => {
  const cluster = await startCluster({ replicas: false });
  try {
    const options = { cluster: cluster.urls, partitions: 16 };
    const [one, two] = await Promise.all([startLink(options), startLink(options)]);
    const topics = numbers(32).map((at) => `room/${at}`);
    await Promise.all(topics.map((topic) => two.subscribe(presenceTopic(topic))));
    await Promise.all(topics.map((topic) => write(one, topic, 'ann', 1)));
    for (const topic of topics) {
      expect(await members(two, topic)).toEqual(['ann 1']);
      expect(await events(two, topic)).toEqual(['1 join ann']);
      expect(one.members.partitionOf(Buffer.from(topic))).toBe(one.members.partitionOf(Buffer.from(presenceTopic(topic))));
    }
    expect(two.heard.length).toBe(32);
    const partition = one.members.partitionOf(Buffer.from('room/0'));
    expect(await one.members.renew(partition, 60_000)).toMatchObject({ hadIt: true, gone: [] });
    await one.members.keep(partition);
  } finally {
    await cluster.dispose();
  }
});
