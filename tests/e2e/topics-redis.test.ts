/**
 * Whole gateways whose topics remember in a Redis: two nodes with two workers each, clients that come back with a position, and everything that may fail.
 * What a store promises by itself is asked in tests/contract/topic-store.test.ts, what Redis does in redis-logs.test.ts and redis-members.test.ts.
 */
import { afterAll, afterEach, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test';
import { topicHash } from '../../src/pubsub/nodes/owners.ts';
import { slotOf } from '../../src/pubsub/redis/channels.ts';
import { eventually } from '../support/eventually.ts';
import { type Gateway, startGateway } from '../support/gateway.ts';
import { type RedisServer, startCluster, startRedis, startSentinels } from '../support/redis-servers.ts';

// Only ends a test that has failed.
setDefaultTimeout(120_000);

const configFor = (redis: Record<string, unknown>) => `
import { defineGateway, history, presence, presenceCount, publish } from 'ringway';
export default defineGateway({
  $OPTIONS,
  redis: ${JSON.stringify({ linger: 1, probeInterval: 0.2, timeout: 2, ...redis })},
  drain: { timeout: 5 },
  async fetch(request) {
    const { pathname, searchParams } = new URL(request.url);
    const topic = searchParams.get('topic');
    if (pathname === '/history') return Response.json(await history(topic, { limit: 1000 }));
    return Response.json(pathname === '/count' ? await presenceCount(topic) : await presence(topic));
  },
  topics: {
    'chat/:room': { history: { size: 20_000, seconds: 300 }, presence: { member: (client) => client.data.user, grace: 0.2 } },
    'log/:room': { history: { size: 20_000, seconds: 300 } },
  },
  websocket: {
    '/hear/*': {
      positions: true,
      upgrade(request) {
        const { pathname, searchParams } = new URL(request.url);
        return { topic: pathname.slice('/hear/'.length), user: searchParams.get('user') ?? 'nobody', since: searchParams.get('since') ?? undefined };
      },
      async open(socket) {
        const { topic, since } = socket.data;
        socket.sendJson({ answer: await socket.subscribe(topic, { since, presence: topic.startsWith('chat/') }) });
      },
    },
    '/say/*': {
      upgrade: (request) => ({ topic: new URL(request.url).pathname.slice('/say/'.length) }),
      async message(socket, message) {
        const data = message.text();
        try {
          const { epoch, offset } = await publish(socket.data.topic, data, { idempotencyKey: data });
          socket.sendJson({ data, epoch, offset });
        } catch (error) {
          socket.sendJson({ data, error: error.code });
        }
      },
    },
    // Member of many topics at once.
    '/many': {
      upgrade: (request) => ({ user: new URL(request.url).searchParams.get('user') }),
      async open(socket) {
        for (let at = 0; at < 100; at++) await socket.subscribe('chat/many ' + at, {});
        socket.sendJson({ done: true });
      },
    },
  },
});
`;

interface Position {
  readonly epoch: string;
  readonly offset: number;
}

/** A client that hears a topic, and comes back where it was when its connection ends. */
class Listener {
  /** A message as 'epoch:offset data', or 'lost'; joins and leaves as 'join ann'. */
  readonly heard: string[] = [];
  readonly events: string[] = [];
  readonly answers: { recovered: boolean; subscribed: boolean; reason?: string }[] = [];
  present: string[] = [];
  #position: Position | undefined;
  #socket: WebSocket | undefined;
  #isOver = false;
  readonly #path: string;
  gateway: Gateway;

  constructor(gateway: Gateway, path: string) {
    this.gateway = gateway;
    this.#path = path;
  }

  async start(): Promise<this> {
    this.#connect();
    await eventually('it is subscribed', () => this.answers.length > 0);
    expect(this.answers[0]).toMatchObject({ subscribed: true });
    return this;
  }

  #connect(): void {
    const at = this.#position;
    const query = at === undefined ? '' : `${this.#path.includes('?') ? '&' : '?'}since=${at.epoch}:${at.offset}`;
    const socket = new WebSocket(`${this.gateway.wsUrl}/hear/${this.#path}${query}`);
    this.#socket = socket;
    socket.onmessage = ({ data }) => this.#take(JSON.parse(String(data)));
    socket.onclose = () => {
      if (!this.#isOver) setTimeout(() => this.#connect(), 50);
    };
  }

  #take(message: Record<string, unknown>): void {
    const { epoch, offset } = message as unknown as Position;
    if ('answer' in message) {
      const answer = message.answer as (typeof this.answers)[number] & Partial<Position> & { presence?: { users: { id: string }[] } };
      this.answers.push(answer);
      if (!answer.subscribed) this.#socket?.close();
      else if (!answer.recovered) {
        if (this.answers.length > 1) this.heard.push('lost');
        this.#position = { epoch: answer.epoch as string, offset: answer.offset as number };
      }
      if (answer.presence !== undefined) this.present = answer.presence.users.map(({ id }) => id).sort();
      return;
    }
    if ('event' in message) {
      this.events.push(`${message.event} ${message.user}`);
      return;
    }
    // Of the presence log: nothing is asked of it here.
    if (message.lost === true && 'presence' in message) return;
    if (message.lost === true) {
      this.heard.push('lost');
      this.#position = { epoch, offset };
      return;
    }
    this.heard.push(`${epoch}:${offset} ${message.data}`);
    this.#position = { epoch, offset };
  }

  stop(): void {
    this.#isOver = true;
    this.#socket?.close();
  }

  /** Nothing came twice, and nothing is missing in between unless that was said. */
  check(accepted: ReadonlyMap<string, string>): void {
    const seen = new Set<string>();
    let before: { epoch: string; offset: number } | undefined;
    for (const line of this.heard) {
      if (line === 'lost') {
        before = undefined;
        continue;
      }
      const [position = '', data = ''] = line.split(' ');
      const [epoch = '', offset] = position.split(':');
      if (seen.has(data)) throw new Error(`${data} came twice`);
      seen.add(data);
      if (before !== undefined && (epoch !== before.epoch || Number(offset) !== before.offset + 1))
        throw new Error(`${line} came after ${before.epoch}:${before.offset}`);
      before = { epoch, offset: Number(offset) };
      const answered = accepted.get(data);
      if (answered !== undefined && answered !== position) throw new Error(`${data} was answered ${answered}, and came at ${position}`);
    }
  }

  get texts(): string[] {
    return this.heard.filter((line) => line !== 'lost').map((line) => line.split(' ')[1] as string);
  }

  get losses(): number {
    return this.heard.filter((line) => line === 'lost').length;
  }
}

/** Publishes numbered messages until it is told to stop, some at a time; says again what was refused or not answered, with its key. */
class Talker {
  /** data → position, as it was answered. */
  readonly accepted = new Map<string, string>();
  refused = 0;
  readonly #waiting = new Set<string>();
  #next = 0;
  #socket: WebSocket | undefined;
  #isOver = false;
  readonly #name: string;
  readonly #gateway: Gateway;
  readonly #topic: string;

  constructor(gateway: Gateway, topic: string, name: string) {
    this.#gateway = gateway;
    this.#topic = topic;
    this.#name = name;
    this.#connect();
  }

  #connect(): void {
    const socket = new WebSocket(`${this.#gateway.wsUrl}/say/${this.#topic}`);
    this.#socket = socket;
    socket.onopen = () => {
      for (const data of this.#waiting) socket.send(data);
      this.#more();
    };
    socket.onmessage = (event) => {
      const { data, epoch, offset, error } = JSON.parse(String(event.data));
      if (error !== undefined) {
        this.refused += 1;
        setTimeout(() => socket.send(data), 20);
        return;
      }
      this.accepted.set(data, `${epoch}:${offset}`);
      this.#waiting.delete(data);
      // Not as fast as it can: others have work to do.
      setTimeout(() => this.#more(), 1);
    };
    socket.onclose = () => {
      if (!this.#isOver || this.#waiting.size > 0) setTimeout(() => this.#connect(), 50);
    };
  }

  #more(): void {
    while (!this.#isOver && this.#waiting.size < 4 && this.#socket?.readyState === WebSocket.OPEN) {
      const data = `${this.#name}-${this.#next++}`;
      this.#waiting.add(data);
      this.#socket.send(data);
    }
  }

  async says(count: number): Promise<void> {
    const until = this.accepted.size + count;
    await eventually(`${count} more are accepted`, () => this.accepted.size >= until);
  }

  /** What is under way is answered. */
  async stop(): Promise<void> {
    this.#isOver = true;
    await eventually('all is answered', () => this.#waiting.size === 0);
    this.#socket?.close();
  }
}

let rooms = 0;
const ends: (() => unknown)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

async function startNodes(redis: Record<string, unknown>, count = 2): Promise<Gateway[]> {
  const nodes = await Promise.all(
    Array.from({ length: count }, () => startGateway({ backend: 'epoll', workers: 2, config: configFor(redis) })),
  );
  ends.push(() => Promise.all(nodes.map((node) => node.stop())));
  return nodes;
}

async function hear(node: Gateway | undefined, path: string): Promise<Listener> {
  const listener = await new Listener(node as Gateway, path).start();
  ends.push(() => listener.stop());
  return listener;
}

async function ask(node: Gateway | undefined, what: string, topic: string): Promise<unknown> {
  const answer = await fetch(`${node?.url}/${what}?topic=${encodeURIComponent(topic)}`);
  if (!answer.ok) throw new Error(`${what} of ${topic}: ${answer.status} ${await answer.text()}`);
  return await answer.json();
}

const acceptedBy = (...talkers: readonly Talker[]) => new Map(talkers.flatMap(({ accepted }) => [...accepted]));

/** All that was accepted has come to each, at the position that was answered. */
async function complete(listeners: readonly Listener[], talkers: readonly Talker[]): Promise<void> {
  const accepted = acceptedBy(...talkers);
  await eventually('all has come', () => listeners.every(({ texts }) => texts.length >= accepted.size));
  for (const listener of listeners) {
    listener.check(accepted);
    expect(listener.losses).toBe(0);
    expect(new Set(listener.texts)).toEqual(new Set(accepted.keys()));
  }
}

describe('topics that remember on two nodes', () => {
  let redis: RedisServer;
  beforeAll(async () => {
    redis = await startRedis({ config: ['appendonly yes', 'appendfsync always'] });
  });
  afterAll(() => redis.dispose());

  /** Listeners on both nodes, and somebody who talks on each. */
  async function scene(nodes: readonly Gateway[], topic = `log/${rooms++}`) {
    const listeners = [await hear(nodes[0], topic), await hear(nodes[1], topic), await hear(nodes[1], topic), await hear(nodes[0], topic)];
    const talkers = nodes.map((node, at) => new Talker(node, topic, `t${at}`));
    await Promise.all(talkers.map((talker) => talker.says(50)));
    return { topic, listeners, talkers };
  }

  test('carry every message to everybody, in one order', async () => {
    const nodes = await startNodes({ url: redis.url });
    const { topic, listeners, talkers } = await scene(nodes);
    await Promise.all(talkers.map((talker) => talker.says(200)));
    await Promise.all(talkers.map((talker) => talker.stop()));
    await complete(listeners, talkers);
    expect(new Set(listeners.map(({ heard }) => heard.join())).size).toBe(1);
    const history = await ask(nodes[1], 'history', topic);
    expect((history as { messages: { data: string }[] }).messages.map(({ data }) => data)).toEqual(
      listeners[0]?.texts.slice(0, 1000) ?? [],
    );
  });

  test('lose nothing when Redis is killed and comes back with its data, or stops for a while', async () => {
    const nodes = await startNodes({ url: redis.url });
    const { listeners, talkers } = await scene(nodes);
    for (let round = 0; round < 3; round++) {
      await redis.kill();
      await Bun.sleep(100);
      await redis.start();
      await Promise.all(talkers.map((talker) => talker.says(50)));
    }
    redis.freeze();
    // Longer than it takes to give the connections up.
    await Bun.sleep(3500);
    redis.thaw();
    await Promise.all(talkers.map((talker) => talker.says(50)));
    await Promise.all(talkers.map((talker) => talker.stop()));
    await complete(listeners, talkers);
  });

  test('lose nothing when workers are killed, or a reload replaces them: who comes back goes on where it was', async () => {
    const nodes = await startNodes({ url: redis.url });
    const { listeners, talkers } = await scene(nodes);
    for (const node of nodes) {
      for (const pid of await node.workerPids()) {
        process.kill(pid, 'SIGKILL');
        await eventually('it is replaced', async () => (await node.workerPids()).every((now) => now > 1 && now !== pid));
        await Promise.all(talkers.map((talker) => talker.says(20)));
      }
    }
    for (const node of nodes) {
      const before = await node.workerPids();
      node.kill('SIGHUP');
      await eventually('it has reloaded', async () => (await node.workerPids()).every((pid) => pid > 1 && !before.includes(pid)));
      await Promise.all(talkers.map((talker) => talker.says(20)));
    }
    await Promise.all(talkers.map((talker) => talker.stop()));
    await complete(listeners, talkers);
    expect(listeners.some(({ answers }) => answers.length > 1)).toBe(true);
    for (const { answers } of listeners) expect(answers.slice(1).every(({ recovered }) => recovered)).toBe(true);
  });

  test('go on with the other node when one is killed: its clients come there with their positions', async () => {
    const nodes = await startNodes({ url: redis.url });
    const [one, two] = nodes as [Gateway, Gateway];
    const topic = `log/${rooms++}`;
    const listeners = [await hear(one, topic), await hear(two, topic)];
    const talker = new Talker(two, topic, 't');
    await talker.says(50);
    for (const listener of listeners) listener.gateway = two;
    const pids = await one.workerPids();
    process.kill(one.pid, 'SIGKILL');
    for (const pid of pids) process.kill(pid, 'SIGKILL');
    await talker.says(100);
    await eventually('its client has come back', () => (listeners[0]?.answers.length ?? 0) > 1);
    await talker.stop();
    await complete(listeners, [talker]);
    expect(listeners[0]?.answers.at(-1)?.recovered).toBe(true);
  });

  test('tell everybody when Redis comes back empty, and go on in a new epoch', async () => {
    const nodes = await startNodes({ url: redis.url });
    const { listeners, talkers } = await scene(nodes);
    await redis.command('FLUSHALL');
    await Promise.all(talkers.map((talker) => talker.says(100)));
    await Promise.all(talkers.map((talker) => talker.stop()));
    const accepted = acceptedBy(...talkers);
    const last = [...accepted].at(-1)?.[1].split(':')[0] as string;
    const late = [...accepted].filter(([, position]) => position.startsWith(last)).map(([data]) => data);
    await eventually('the rest has come', () => listeners.every(({ texts }) => new Set(texts).has(late.at(-1) as string)));
    for (const listener of listeners) {
      listener.check(accepted);
      expect(listener.losses).toBeGreaterThan(0);
    }
  });

  test('know who is there over both nodes, exactly, when one is killed', async () => {
    const nodes = await startNodes({ url: redis.url });
    const [one, two] = nodes as [Gateway, Gateway];
    const room = `chat/${rooms++}`;
    const watcher = await hear(two, `${room}?user=watcher`);
    const here = [await hear(one, `${room}?user=ann`), await hear(one, `${room}?user=both`), await hear(two, `${room}?user=both`)];
    const presence = async () => {
      const { users } = (await ask(two, 'presence', room)) as { users: { id: string; connections: number }[] };
      return users
        .map(({ id, connections }) => `${id} ${connections}`)
        .sort()
        .join();
    };
    await eventually('all are there', async () => (await presence()) === 'ann 1,both 2,watcher 1');
    await eventually('the watcher has heard', () => watcher.events.includes('join both'));
    const pids = await one.workerPids();
    for (const listener of here) if (listener.gateway === one) listener.stop();
    process.kill(one.pid, 'SIGKILL');
    for (const pid of pids) process.kill(pid, 'SIGKILL');
    await eventually('its users have gone', async () => (await presence()) === 'both 1,watcher 1', 40_000);
    await eventually('the watcher has heard', () => watcher.events.includes('leave ann'));
    expect(watcher.events.filter((event) => event !== 'join watcher')).toEqual(['join ann', 'join both', 'leave ann']);
  });

  test('know who is there after Redis was emptied', async () => {
    const nodes = await startNodes({ url: redis.url });
    const room = `chat/${rooms++}`;
    await hear(nodes[0], `${room}?user=ann`);
    await hear(nodes[1], `${room}?user=bob`);
    const count = async () => ((await ask(nodes[0], 'count', room)) as { users: number }).users;
    await eventually('both are there', async () => (await count()) === 2);
    await redis.command('FLUSHALL');
    await eventually('both are there again', async () => (await count()) === 2);
  });

  test('cost Redis little while nothing happens: 10,000 members on 100 topics', async () => {
    // Of its own: what nodes of other tests have left is swept meanwhile.
    const quiet = await startRedis();
    ends.push(() => quiet.dispose());
    const nodes = await startNodes({ url: quiet.url, probeInterval: 1, timeout: 20 });
    const sockets: WebSocket[] = [];
    ends.push(() => sockets.map((socket) => socket.close()));
    await Promise.all(
      Array.from({ length: 100 }, (_, at) => {
        const socket = new WebSocket(`${nodes[at % 2]?.wsUrl}/many?user=user-${at}`);
        sockets.push(socket);
        return new Promise<void>((resolve, reject) => {
          socket.onmessage = () => resolve();
          socket.onclose = () => reject(new Error('closed'));
        });
      }),
    );
    const total = async () => ((await ask(nodes[0], 'count', 'chat/many 99')) as { users: number }).users;
    await eventually('all are there', async () => (await total()) === 100);
    const calls = async () => {
      const info = await quiet.command('INFO', 'commandstats');
      return [...info.matchAll(/^cmdstat_(\S+?):calls=(\d+)/gm)]
        .filter(([, name]) => name !== 'info')
        .reduce((sum, [, , count]) => sum + Number(count), 0);
    };
    let before = 0;
    // What has just come is written and acknowledged.
    await eventually('nothing happens', async () => {
      before = await calls();
      await Bun.sleep(500);
      return (await calls()) - before < 50;
    });
    before = await calls();
    const began = performance.now();
    await Bun.sleep(8000);
    const after = await calls();
    // Those that scripts call are counted, and the probes of four workers.
    expect((after - before) / nodes.length / ((performance.now() - began) / 1000)).toBeLessThanOrEqual(10);
  });
});

test('with Sentinels a failover loses nothing, or says so', async () => {
  const group = await startSentinels({ downAfterMs: 1000 });
  ends.push(() => group.dispose());
  const nodes = await startNodes({ sentinels: { name: group.name, nodes: group.urls } });
  const topic = 'log/failover';
  const listeners = [await hear(nodes[0], topic), await hear(nodes[1], topic)];
  const talkers = nodes.map((node, at) => new Talker(node, topic, `t${at}`));
  await Promise.all(talkers.map((talker) => talker.says(50)));
  await group.primary.kill();
  await Promise.all(talkers.map((talker) => talker.says(50)));
  await Promise.all(talkers.map((talker) => talker.stop()));
  const accepted = acceptedBy(...talkers);
  const [last = '', at = ''] = [...accepted].at(-1) as [string, string];
  await eventually('the rest has come', () => listeners.every(({ texts }) => texts.includes(last)));
  for (const listener of listeners) {
    listener.check(accepted);
    // All of the epoch in which it ends, from where it was told.
    const isOne = new Set([...accepted.values()].map((position) => position.split(':')[0])).size === 1;
    if (isOne) expect(new Set(listener.texts)).toEqual(new Set(accepted.keys()));
    else expect(listener.losses).toBeGreaterThan(0);
    expect(listener.heard.at(-1)?.split(':')[0]).toBe(at.split(':')[0] as string);
  }
});

test('in a Cluster nothing is lost while the slot of a topic moves with its log', async () => {
  const cluster = await startCluster({ replicas: false });
  ends.push(() => cluster.dispose());
  const nodes = await startNodes({ cluster: cluster.urls, partitions: 16 });
  const topic = 'log/moving';
  const listeners = [await hear(nodes[0], topic), await hear(nodes[1], topic)];
  const talkers = nodes.map((node, at) => new Talker(node, topic, `t${at}`));
  await Promise.all(talkers.map((talker) => talker.says(50)));
  const slot = slotOf(String(topicHash(topic) % 16));
  for (let round = 0; round < 3; round++) {
    const from = await cluster.ownerOf(slot);
    await cluster.migrate(slot, cluster.primaries.find((server) => server !== from) as RedisServer);
    await Promise.all(talkers.map((talker) => talker.says(50)));
  }
  await Promise.all(talkers.map((talker) => talker.stop()));
  await complete(listeners, talkers);
});
