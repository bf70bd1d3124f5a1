/**
 * Whole gateways that share a Redis: two nodes with two workers each, real clients, and everything that may fail.
 * What a single bus promises is asked in tests/contract/bus.test.ts, what the link does with its servers in redis-link.test.ts.
 */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, setDefaultTimeout, test } from 'bun:test';
import { eventually } from '../support/eventually.ts';
import { frame, opcode } from '../support/frames.mjs';
import { type Backend, type Gateway, startGateway } from '../support/gateway.ts';
import { type RedisServer, startRedis } from '../support/redis-servers.ts';
import { Wire } from '../support/wire.ts';

// Only ends a test that has failed: nothing here is measured in time.
setDefaultTimeout(120_000);

const options = { linger: 1, probeInterval: 0.2, timeout: 3 };

const configFor = (redis: Record<string, unknown>) => `
import { Hono } from 'hono';
import { defineGateway, publish } from 'ringway';
const app = new Hono();
app.get('/', (c) => c.text('up'));
export default defineGateway({
  $OPTIONS,
  redis: ${JSON.stringify(redis)},
  drain: { timeout: 5 },
  fetch: app,
  websocket: {
    '/echo': { message: (socket, message) => void socket.send(message) },
    '/room/:topic': {
      open: (socket) => { socket.subscribe(socket.params.topic); socket.send(String(process.pid)); },
      message: (socket, message) => publish(socket.params.topic, message),
    },
    // Numbered messages, 20 every millisecond or one every so many, until the worker dies or the count is reached.
    '/numbers/:topic': {
      open: (socket) => void socket.send(String(process.pid)),
      message(socket, message) {
        const { name, count, everyMs } = message.json();
        const { topic } = socket.params;
        let next = 0;
        const some = () => {
          for (let i = 0; i < (everyMs === undefined ? 20 : 1) && next < count; i++) publish(topic, name + ' ' + next++ + ' ' + 'x'.repeat(next % 500) + ' end');
          if (next < count) setTimeout(some, everyMs ?? 1);
          else socket.send('done');
        };
        some();
      },
    },
    '/churn': {
      message(socket, message) {
        const { join, leave } = message.json();
        for (const topic of join) socket.subscribe(topic);
        for (const topic of leave) socket.unsubscribe(topic);
        socket.send('done');
      },
    },
  },
});
`;

interface Member {
  readonly wire: Wire;
  readonly pid: number;
  readonly gateway: Gateway;
}

async function member(gateway: Gateway, path: string): Promise<Member> {
  const wire = await Wire.open(gateway.port, path);
  return { wire, gateway, pid: Number((await wire.frame())?.payload) };
}

/** The kernel chooses the worker, so try until it is the one. */
async function memberOn(gateway: Gateway, pid: number, path: string): Promise<Member> {
  return await eventually(`a connection to worker ${pid}`, async () => {
    const found = await member(gateway, path);
    if (found.pid === pid) return found;
    found.wire.destroy();
    return undefined;
  });
}

/** One on every worker of these gateways. */
async function everywhere(gateways: readonly Gateway[], path: string): Promise<Member[]> {
  const members: Member[] = [];
  for (const gateway of gateways) for (const pid of await gateway.workerPids()) members.push(await memberOn(gateway, pid, path));
  return members;
}

async function text(wire: Wire): Promise<string> {
  const next = await wire.frame();
  if (next === undefined) throw new Error(`the connection has ended (${wire.ended})`);
  return next.payload.toString();
}

const say = (wire: Wire, words: unknown) => wire.write(frame(opcode.text, typeof words === 'string' ? words : JSON.stringify(words)));

function close(members: readonly { readonly wire: Wire }[]): void {
  for (const { wire } of members) wire.destroy();
}

/** Of a worker that is just being started there is no process id; 0 would be this process's own group. */
function killHard(pid: number): void {
  if (!(pid > 1)) throw new Error(`there is no such process: ${pid}`);
  process.kill(pid, 'SIGKILL');
}

/** Numbered messages of several publishers, as they come: strictly growing, whole, and for the rest as the caller wants it. */
class Numbers {
  readonly last = new Map<string, number>();
  gaps = 0;

  take(message: string): void {
    const [name = '', number = '', , end] = message.split(' ');
    if (end !== 'end') throw new Error(`this is not whole: ${message}`);
    const before = this.last.get(name) ?? -1;
    if (Number(number) <= before) throw new Error(`${name} ${number} came after ${before}`);
    if (Number(number) !== before + 1) this.gaps += 1;
    this.last.set(name, Number(number));
  }

  /** Take until `name` has come to `number`. */
  async until(wire: Wire, name: string, number: number): Promise<void> {
    while ((this.last.get(name) ?? -1) < number) this.take(await text(wire));
  }
}

describe('two nodes with a Redis', () => {
  const backend: Backend = 'epoll';
  let redis: RedisServer;
  let nodes: [Gateway, Gateway];
  let topics = 0;
  /** Of this test alone. */
  let topic = '';
  const channel = () => `ringway:${topic}`;

  beforeAll(async () => {
    redis = await startRedis();
    const start = () => startGateway({ backend, workers: 2, config: configFor({ url: redis.url, ...options }) });
    nodes = await Promise.all([start(), start()]);
  });
  afterAll(async () => {
    await Promise.all((nodes ?? []).map((gateway) => gateway.stop()));
    await redis?.dispose();
  });
  beforeEach(async () => {
    topic = `topic-${topics++}`;
    await allUp();
  });
  afterEach(() => redis.thaw());

  const allUp = () =>
    eventually('every worker has Redis', async () => {
      const up = await Promise.all(nodes.map((gateway) => gateway.metric('ringway_redis_up')));
      const pids = (await Promise.all(nodes.map((gateway) => gateway.workerPids()))).flat();
      return up.every((count) => count === 2) && pids.every((pid) => pid > 1);
    });
  const subscribers = async (name = channel()) => Number((await redis.command('PUBSUB', 'NUMSUB', name)).split('\n')[1]);
  const inPlace = (count: number) => eventually(`${count} nodes are subscribed`, async () => (await subscribers()) === count);
  const sum = async (name: string, labels: Record<string, string> = {}) =>
    (await Promise.all(nodes.map((gateway) => gateway.metric(name, labels)))).reduce((all, one) => all + one, 0);

  /** Whoever is asked, all hear it: everything is in place again. */
  async function expectJoined(members: readonly Member[]): Promise<void> {
    await eventually('a message of each reaches all', async () => {
      const mark = `mark ${Math.random()}`;
      for (const { wire } of members) say(wire, mark);
      // What was under way before comes before it.
      const heard = await Promise.all(
        members.map(async ({ wire }) => {
          let count = 0;
          const timer = setTimeout(() => say(wire, `over ${mark}`), 1000);
          for (;;) {
            const message = await text(wire);
            if (message === mark && ++count === members.length) break;
            if (message === `over ${mark}`) return false;
          }
          clearTimeout(timer);
          return true;
        }),
      );
      return heard.every(Boolean);
    });
  }

  test('a room spans both: each message reaches each member once', async () => {
    const members = await everywhere(nodes, `/room/${topic}`);
    await inPlace(2);
    for (const [at, { wire }] of members.entries()) say(wire, `from ${at}`);
    const expected = members.map((_, at) => `from ${at}`);
    for (const { wire } of members) {
      const got: string[] = [];
      while (got.length < expected.length) got.push(await text(wire));
      expect(got.sort()).toEqual(expected);
    }
    for (const { wire } of members) say(wire, 'last');
    for (const { wire } of members) for (const _ of members) expect(await text(wire)).toBe('last');
    close(members);
    await inPlace(0);
  });

  test('binary messages of a megabyte cross as they are', async () => {
    const members = await everywhere(nodes, `/room/${topic}`);
    await inPlace(2);
    const payload = Buffer.alloc(1 << 20, crypto.getRandomValues(new Uint8Array(997)));
    members[0]?.wire.write(frame(opcode.binary, payload));
    for (const { wire } of members) {
      const got = await wire.frame();
      expect(got?.opcode).toBe(opcode.binary);
      expect(got?.payload.equals(payload)).toBe(true);
    }
    close(members);
  });

  test('while Redis is gone each node goes on by itself; then all interest is back, and what was missed is counted', async () => {
    const members = await everywhere(nodes, `/room/${topic}`);
    const near = members.filter(({ gateway }) => gateway === nodes[0]);
    const far = members.filter(({ gateway }) => gateway !== nodes[0]);
    await inPlace(2);
    const [gaps, reconnects] = [await sum('ringway_redis_gaps_total'), await sum('ringway_redis_reconnects_total')];
    await redis.kill();
    await eventually('it is missed', async () => (await sum('ringway_redis_up')) === 0);
    for (let i = 0; i < 50; i++) {
      say((near[0] as Member).wire, `alone ${i}`);
      for (const { wire } of near) expect(await text(wire)).toBe(`alone ${i}`);
    }
    await redis.start();
    await allUp();
    await inPlace(2);
    // The outbox has kept them: the other node gets them late, in order, and once.
    for (const { wire } of far) for (let i = 0; i < 50; i++) expect(await text(wire)).toBe(`alone ${i}`);
    await expectJoined(members);
    expect(await sum('ringway_redis_gaps_total')).toBeGreaterThan(gaps);
    expect(await sum('ringway_redis_reconnects_total')).toBeGreaterThanOrEqual(reconnects + 4);
    close(members);
  });

  test('a Redis that has stopped does not slow anybody down', async () => {
    const members = await everywhere(nodes, `/room/${topic}`);
    await inPlace(2);
    const echo = await Wire.open(nodes[0].port, '/echo');
    redis.freeze();
    let worst = 0;
    const lost = eventually('it is noticed', async () => (await sum('ringway_redis_up')) === 0);
    let isLost = false;
    void lost.then(() => {
      isLost = true;
    });
    for (let i = 0; i < 200 || !isLost; i++) {
      const began = performance.now();
      say(echo, `${i}`);
      expect(await text(echo)).toBe(`${i}`);
      worst = Math.max(worst, performance.now() - began);
      say((members[0] as Member).wire, `room ${i}`);
      expect(await text((members[1] as Member).wire)).toBe(`room ${i}`);
      await Bun.sleep(2);
    }
    await lost;
    // An echo takes some tenths of a millisecond; waiting for Redis would take as long as its timeout of three seconds.
    expect(worst).toBeLessThan(2500);
    redis.thaw();
    await allUp();
    await expectJoined(members);
    echo.destroy();
    close(members);
  });

  test('a worker that is killed while it publishes: nothing comes twice, half or out of order, and the others go on', async () => {
    const members = await everywhere(nodes, `/room/${topic}`);
    await inPlace(2);
    const [victim = 0, witness = 0] = await nodes[0].workerPids();
    const dying = await memberOn(nodes[0], victim, `/numbers/${topic}`);
    const other = await memberOn(nodes[0], witness, `/numbers/${topic}`);
    say(dying.wire, { name: 'dying', count: 1e6 });
    say(other.wire, { name: 'other', count: 3000 });
    const survivors = members.filter(({ pid }) => pid !== victim);
    const seen = survivors.map(() => new Numbers());
    // On its way through all of them.
    await Promise.all(survivors.map(({ wire }, at) => seen[at]?.until(wire, 'dying', 500)));
    killHard(victim);
    await Promise.all(
      survivors.map(async ({ wire }, at) => {
        const numbers = seen[at] as Numbers;
        // On its own node nothing is missing but what passed through the dead worker's subscription, which is nothing of its own node.
        await numbers.until(wire, 'other', 2999);
      }),
    );
    expect(await text(other.wire)).toBe('done');
    for (const [at, { gateway }] of survivors.entries()) if (gateway === nodes[0]) expect((seen[at] as Numbers).gaps).toBe(0);
    await eventually('there is another worker', async () => {
      const pids = await nodes[0].workerPids();
      return pids.length === 2 && !pids.includes(victim);
    });
    await allUp();
    await expectJoined(survivors.filter(({ pid }) => pid !== victim).concat(await everywhere([nodes[0]], `/room/${topic}`)));
    close([...survivors, other]);
  });

  test('what a dead worker wanted is forgotten after the linger, and what it owned goes on', async () => {
    const [victim = 0, other = 0] = await nodes[0].workerPids();
    // Enough topics for each worker to own some of either kind.
    const names = Array.from({ length: 20 }, (_, at) => `${topic}-${at}`);
    const doomed = await Promise.all(names.map((name) => memberOn(nodes[0], victim, `/room/${name}`)));
    const kept = await Promise.all(names.slice(0, 10).map((name) => memberOn(nodes[0], other, `/room/${name}`)));
    const channels = async () => (await redis.command('PUBSUB', 'CHANNELS', `ringway:${topic}-*`)).split('\n').filter(Boolean).sort();
    await eventually('all are subscribed', async () => (await channels()).length === names.length);
    killHard(victim);
    const expected = names
      .slice(0, 10)
      .map((name) => `ringway:${name}`)
      .sort();
    await eventually('what nobody wants any more is gone', async () => (await channels()).join() === expected.join());
    await allUp();
    for (const [at, { wire }] of kept.entries()) {
      const sender = await member(nodes[1], `/room/${names[at]}`);
      await eventually('it is subscribed', async () => (await subscribers(`ringway:${names[at]}`)) === 2);
      say(sender.wire, 'still here');
      expect(await text(wire)).toBe('still here');
      close([sender]);
    }
    close([...doomed, ...kept]);
    await eventually('nothing is left', async () => (await channels()).length === 0);
  });

  test('members get each message once while others come and go on every worker', async () => {
    const members = await everywhere(nodes, `/room/${topic}`);
    await inPlace(2);
    const publishers = await everywhere(nodes, `/numbers/${topic}`);
    const count = 1500;
    let isOver = false;
    const churn = async (gateway: Gateway) => {
      const wire = await Wire.open(gateway.port, '/churn');
      for (let i = 0; !isOver; i++) {
        const others = Array.from({ length: 20 }, (_, at) => `${topic}-other-${(i + at) % 50}`);
        say(wire, { join: [topic, ...others], leave: [] });
        say(wire, { join: [], leave: [topic, ...others] });
        // It was a member itself for a moment, so messages of the topic may lie between the answers.
        for (let done = 0; done < 2; ) if ((await text(wire)) === 'done') done++;
      }
      wire.destroy();
    };
    const churning = Promise.all([...nodes, ...nodes].map(churn));
    for (const [at, { wire }] of publishers.entries()) say(wire, { name: `p${at}`, count });
    await Promise.all(
      members.map(async ({ wire }) => {
        const numbers = new Numbers();
        for (let taken = 0; taken < count * publishers.length; taken++) numbers.take(await text(wire));
        expect(numbers.gaps).toBe(0);
      }),
    );
    isOver = true;
    await churning;
    for (const { wire } of publishers) expect(await text(wire)).toBe('done');
    close([...members, ...publishers]);
    await eventually('nothing is left', async () => (await redis.command('PUBSUB', 'CHANNELS', `ringway:${topic}*`)) === '');
  });

  test('a thousand sockets that come back at once find everything in place', async () => {
    const rooms = 50;
    const connect = (gateway: Gateway) =>
      Promise.all(Array.from({ length: 500 }, (_, at) => member(gateway, `/room/${topic}-${at % rooms}`)));
    const before = await connect(nodes[0]);
    const channels = async () =>
      (await redis.command('PUBSUB', 'NUMSUB', ...names))
        .split('\n')
        .filter((_, at) => at % 2 === 1)
        .map(Number);
    const names = Array.from({ length: rooms }, (_, at) => `ringway:${topic}-${at}`);
    await eventually('all are subscribed', async () => (await channels()).every((count) => count === 1));
    for (const { wire } of before) wire.reset();
    const after = (await Promise.all(nodes.map(connect))).flat();
    await eventually('on both nodes', async () => (await channels()).every((count) => count === 2));
    const senders = after.slice(0, rooms);
    for (const [at, { wire }] of senders.entries()) say(wire, `hello ${at}`);
    await Promise.all(after.map(async ({ wire }, at) => expect(await text(wire)).toBe(`hello ${at % rooms}`)));
    // And only once.
    for (const [at, { wire }] of senders.entries()) say(wire, `bye ${at}`);
    await Promise.all(after.map(async ({ wire }, at) => expect(await text(wire)).toBe(`bye ${at % rooms}`)));
    close(after);
    await eventually('nothing is left', async () => (await channels()).every((count) => count === 0));
  });

  test('a node that dies whole leaves nothing behind, and the other never sees a message twice', async () => {
    const third = await startGateway({ backend, workers: 2, config: configFor({ url: redis.url, ...options }) });
    const members = await everywhere([nodes[0]], `/room/${topic}`);
    const doomed = await everywhere([third], `/room/${topic}`);
    await inPlace(2);
    const publisher = await member(third, `/numbers/${topic}`);
    say(publisher.wire, { name: 'dying', count: 1e6 });
    const seen = members.map(() => new Numbers());
    await Promise.all(members.map(({ wire }, at) => seen[at]?.until(wire, 'dying', 1000)));
    for (const pid of [third.pid, ...(await third.workerPids())]) killHard(pid);
    await inPlace(1);
    say((members[0] as Member).wire, 'over 0 x end');
    await Promise.all(members.map(({ wire }, at) => seen[at]?.until(wire, 'over', 0)));
    await third.stop();
    close([...members, ...doomed, publisher]);
    await inPlace(0);
  });

  test('another prefix is another world', async () => {
    const third = await startGateway({ backend, workers: 1, config: configFor({ url: redis.url, ...options, prefix: 'other' }) });
    const [here, there] = [await member(nodes[0], `/room/${topic}`), await member(third, `/room/${topic}`)];
    await inPlace(1);
    await eventually('the other is subscribed too', async () => (await subscribers(`other:${topic}`)) === 1);
    say(here.wire, 'here');
    say(there.wire, 'there');
    expect([await text(here.wire), await text(there.wire)]).toEqual(['here', 'there']);
    say(here.wire, 'here again');
    say(there.wire, 'there again');
    expect([await text(here.wire), await text(there.wire)]).toEqual(['here again', 'there again']);
    close([here, there]);
    await third.stop();
  });

  test('a drain that takes its time loses nothing for those who are still there', async () => {
    const third = await startGateway({ backend, workers: 2, config: configFor({ url: redis.url, ...options }) });
    const members = await everywhere([third], `/room/${topic}`);
    await inPlace(1);
    const publisher = await member(nodes[0], `/numbers/${topic}`);
    say(publisher.wire, { name: 'steady', count: 1e5 });
    const seen = members.map(() => new Numbers());
    await Promise.all(members.map(({ wire }, at) => seen[at]?.until(wire, 'steady', 100)));
    third.kill('SIGTERM');
    await Promise.all(
      members.map(async ({ wire }, at) => {
        for (let next = await wire.frame(); next !== undefined && next.opcode !== opcode.close; next = await wire.frame())
          seen[at]?.take(next.payload.toString());
        wire.destroy();
      }),
    );
    for (const numbers of seen) expect(numbers.gaps).toBe(0);
    expect(await third.exited).toBe(0);
    await third.stop();
    close([publisher]);
    await inPlace(0);
  });

  test('a reload hands the topics over to the new workers: nothing is missed, nothing comes twice', async () => {
    const third = await startGateway({ backend, workers: 2, config: configFor({ url: redis.url, ...options }) });
    const old = await everywhere([third], `/room/${topic}`);
    // More topics, so that each old worker owns some and each new one takes some over.
    const names = Array.from({ length: 30 }, (_, at) => `${topic}-${at}`);
    const others = await Promise.all(names.map((name) => member(third, `/room/${name}`)));
    await inPlace(1);
    const before = { gaps: await third.metric('ringway_redis_gaps_total'), lost: await third.metric('ringway_messages_dropped_total') };
    const publisher = await member(nodes[0], `/numbers/${topic}`);
    say(publisher.wire, { name: 'steady', count: 1e5, everyMs: 1 });
    const side = await Promise.all(names.map((name) => member(nodes[1], `/numbers/${name}`)));
    for (const { wire } of side) say(wire, { name: 'side', count: 1e5, everyMs: 20 });
    const seen = [...old, ...others].map(() => new Numbers());
    await Promise.all([...old, ...others].map(({ wire }, at) => seen[at]?.until(wire, at < old.length ? 'steady' : 'side', 100)));
    third.kill('SIGHUP');
    // The old sockets hear everything, without a gap, until they are told to come back.
    const untilClosed = Promise.all(
      [...old, ...others].map(async ({ wire }, at) => {
        for (let next = await wire.frame(); next !== undefined; next = await wire.frame()) {
          if (next.opcode === opcode.close) {
            expect(next.payload.readUInt16BE()).toBe(1001);
            break;
          }
          seen[at]?.take(next.payload.toString());
        }
        wire.destroy();
      }),
    );
    const pids = old.map(({ pid }) => pid);
    await eventually('there are new workers', async () => (await third.workerPids()).every((pid) => !pids.includes(pid)), 60_000);
    const fresh = await everywhere([third], `/room/${topic}`);
    const heard = fresh.map(({ wire }) => {
      const numbers = new Numbers();
      return { numbers, taken: text(wire).then((message) => numbers.take(message)), wire };
    });
    for (const { numbers, taken, wire } of heard) {
      await taken;
      const first = numbers.last.get('steady') as number;
      await numbers.until(wire, 'steady', first + 500);
      // After the first that they heard there is none missing.
      expect(numbers.gaps).toBe(1);
    }
    await untilClosed;
    for (const numbers of seen) expect(numbers.gaps).toBe(0);
    // Each topic has one subscription on the node, whatever has changed hands.
    expect(await subscribers()).toBe(1);
    await eventually('the old workers are gone', async () => {
      const health = (await (await fetch(`${third.adminUrl}/healthz`)).json()) as { draining: unknown[] };
      return health.draining.length === 0;
    });
    expect(await third.metric('ringway_redis_gaps_total')).toBe(before.gaps);
    expect(await third.metric('ringway_messages_dropped_total')).toBe(before.lost);
    await eventually('nobody wants the other topics', async () => (await redis.command('PUBSUB', 'CHANNELS', `ringway:${topic}-*`)) === '');
    close([...fresh, publisher, ...side]);
    await inPlace(0);
    await third.stop();
  });
});
