/** Topics that remember, in a gateway of two workers: positions, recovery, idempotency, who hears; and what docs/history.md shows, run. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eventually } from '../support/eventually.ts';
import { forEachBackend, type Gateway, startGateway } from '../support/gateway.ts';
import { readPage, writeBlock } from '../support/markdown.ts';
import { type RedisServer, startRedis } from '../support/redis-servers.ts';

// Only ends a test that has failed: nothing here is measured in time.
setDefaultTimeout(90_000);

const config = `
import { Hono } from 'hono';
import {
  defineGateway, disconnect, history, onOneWorker, onPresence, presence, presenceCount, publish, subscribe, subscribers, topics, worker,
} from 'ringway';

const heard = [];
const joins = [];
onOneWorker(async () => {
  const { unsubscribe } = await subscribe('heard/all', (message, info) => heard.push([String(message), info.offset]));
  await onPresence('seen/1', ({ event, user }) => joins.push(event + ' ' + user));
  console.log('listening in worker', worker.index);
  return unsubscribe;
});

const app = new Hono();
const topic = (c) => c.req.param('topic');
app.get('/pid', (c) => c.text(String(process.pid), { headers: { connection: 'close' } }));
app.post('/publish/:topic{.+}', async (c) =>
  c.json({ pid: process.pid, ...(await publish(topic(c), await c.req.text(), { idempotencyKey: c.req.query('key') })) }, { headers: { connection: 'close' } }));
app.get('/history/:topic{.+}', async (c) => {
  const { since, limit, reverse } = c.req.query();
  return c.json(await history(topic(c), { since, limit: limit === undefined ? undefined : Number(limit), reverse: reverse === 'true' }));
});
app.get('/presence/:topic{.+}', async (c) => c.json({ ...(await presence(topic(c))), counted: await presenceCount(topic(c)) }));
app.get('/subscribers/:topic{.+}', async (c) => c.json(await subscribers(topic(c))));
app.get('/topics', async (c) => c.json(await topics(c.req.query('prefix'))));
app.post('/disconnect', async (c) => c.json(await disconnect(await c.req.json(), 4001, 'bye')));
app.get('/heard', (c) => c.json({ heard, joins }, { headers: { connection: 'close' } }));

export default defineGateway({
  $OPTIONS,
  fetch: app,
  topics: {
    'log/:name': { history: { size: 100, seconds: 300 } },
    'heard/*': { history: { size: 100, seconds: 300 } },
    'seen/:name': { presence: { member: ({ data }) => ({ id: data.user, info: { of: data.user } }), grace: 0 } },
    'closed/:name': { authorize: async ({ data }) => data.user === 'ann' },
    'slow/:name': { authorize: () => Bun.sleep(300).then(() => true) },
  },
  websocket: {
    '/slow/:name': {
      open: (socket) => socket.subscribe('slow/' + socket.params.name),
      message: (socket, message) => publish('slow/' + socket.params.name, message),
    },
    '/ws': {
      positions: true,
      upgrade: (request) => ({ user: new URL(request.url).searchParams.get('user') }),
      open: (socket) => socket.sendJson({ id: socket.id, pid: process.pid }),
      async message(socket, message) {
        const { topic, leave, ...options } = message.json();
        if (leave) return socket.unsubscribe(topic);
        socket.sendJson({ topic, answer: await socket.subscribe(topic, options) });
      },
    },
  },
});
`;

interface Position {
  readonly epoch: string;
  readonly offset: number;
}
interface Said extends Partial<Position> {
  readonly topic: string;
  readonly data?: string;
  readonly lost?: true;
  readonly event?: string;
  readonly user?: string;
  readonly answer?: Partial<Position> & { subscribed: boolean; recovered: boolean; reason?: string; isMember?: boolean; presence?: object };
}

class Client {
  readonly said: Said[] = [];
  id = '';
  pid = 0;
  readonly closed: Promise<number>;
  private readonly socket: WebSocket;

  private constructor(gateway: Gateway, user: string) {
    this.socket = new WebSocket(`${gateway.wsUrl}/ws?user=${user}`);
    this.closed = new Promise((resolve) => this.socket.addEventListener('close', ({ code }) => resolve(code)));
  }

  /** On this worker, when one is said. */
  static async open(gateway: Gateway, user = 'ann', pid?: number): Promise<Client> {
    for (;;) {
      const client = new Client(gateway, user);
      const first = await new Promise<{ id: string; pid: number }>((resolve) => {
        client.socket.onmessage = ({ data }) => resolve(JSON.parse(data));
      });
      Object.assign(client, first);
      client.socket.onmessage = ({ data }) => client.said.push(JSON.parse(data));
      if (pid === undefined || pid === client.pid) return client;
      await client.close();
    }
  }

  async subscribe(topic: string, options: object = {}): Promise<NonNullable<Said['answer']>> {
    const answers = () => this.said.filter((each) => each.topic === topic && each.answer !== undefined);
    const before = answers().length;
    this.socket.send(JSON.stringify({ topic, ...options }));
    return (await eventually(`an answer about ${topic}`, () => answers()[before]?.answer)) as NonNullable<Said['answer']>;
  }

  leave(topic: string): void {
    this.socket.send(JSON.stringify({ topic, leave: true }));
  }

  /** Offsets of a topic's messages, in the order in which they came. */
  offsets(topic: string): number[] {
    return this.said.filter((each) => each.topic === topic && each.data !== undefined).map(({ offset = -1 }) => offset);
  }

  texts(topic: string): string[] {
    return this.said.flatMap((each) => (each.topic === topic && each.data !== undefined ? [each.data] : []));
  }

  async close(): Promise<void> {
    this.socket.close();
    await this.closed;
  }
}

const text = ({ epoch, offset }: Partial<Position>) => `${epoch}:${offset}`;
const upTo = (last: number, first = 1) => Array.from({ length: last - first + 1 }, (_, index) => first + index);

interface Publication extends Position {
  readonly pid: number;
  readonly result: string;
}
async function publish(gateway: Gateway, topic: string, body: string, key?: string): Promise<Publication> {
  const address = `${gateway.url}/publish/${topic}${key === undefined ? '' : `?key=${key}`}`;
  // Without a limit of time: whatever is killed or reloaded, a request is answered or its connection ends.
  const response = await fetch(address, { method: 'POST', body });
  if (!response.ok) throw new Error(`${response.status} ${await response.text()}`);
  return (await response.json()) as Publication;
}

async function ask<Answer>(gateway: Gateway, path: string, init?: RequestInit): Promise<Answer> {
  const response = await fetch(`${gateway.url}${path}`, init);
  if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`);
  return (await response.json()) as Answer;
}

forEachBackend('topics that remember', (backend) => {
  let gateway: Gateway;
  let pids: number[];
  beforeAll(async () => {
    gateway = await startGateway({ backend, workers: 2, config });
    pids = await gateway.workerPids();
  });
  afterAll(() => gateway?.stop());

  /** One client on each worker. */
  const onBoth = (user = 'ann') => Promise.all(pids.map((pid) => Client.open(gateway, user, pid)));

  test('whoever publishes, on whichever worker, all subscribers hear the same offsets in order', async () => {
    const clients = await onBoth();
    for (const client of clients)
      expect(await client.subscribe('log/order')).toMatchObject({ subscribed: true, recovered: false, offset: 0 });
    const published: Publication[] = [];
    await Promise.all(
      upTo(8).map(async (run) => {
        for (const index of upTo(10)) published.push(await publish(gateway, 'log/order', `${run}/${index}`));
      }),
    );
    expect(published.map(({ offset }) => offset).toSorted((a, b) => a - b)).toEqual(upTo(80));
    expect(new Set(published.map(({ pid }) => pid)).size).toBe(2);
    for (const client of clients) {
      await eventually('all 80 came', () => client.offsets('log/order').length >= 80);
      expect(client.offsets('log/order')).toEqual(upTo(80));
    }
    expect(clients[0]?.texts('log/order')).toEqual(clients[1]?.texts('log/order') as string[]);
    for (const client of clients) await client.close();
  });

  test('what was missed is sent by the other worker, and the stream goes on without a seam', async () => {
    const [one, other] = (await onBoth()) as [Client, Client];
    await one.subscribe('log/seam');
    let last = await publish(gateway, 'log/seam', 'm1');
    await eventually('it came', () => one.offsets('log/seam').length === 1);
    await one.close();
    let isOver = false;
    const publishing = (async () => {
      while (!isOver) last = await publish(gateway, 'log/seam', 'more');
    })();
    await Bun.sleep(20);
    const answer = await other.subscribe('log/seam', { since: text({ ...last, offset: 1 }) });
    expect(answer).toMatchObject({ subscribed: true, recovered: true });
    await Bun.sleep(20);
    isOver = true;
    await publishing;
    await eventually('all came', () => other.offsets('log/seam').at(-1) === last.offset);
    expect(other.offsets('log/seam')).toEqual(upTo(last.offset, 2));
    await other.close();
  });

  test('positions of nowhere are answered as such, and the client hears what comes', async () => {
    const client = await Client.open(gateway);
    const { epoch } = await publish(gateway, 'log/nowhere', 'm1');
    const before = await gateway.metric('ringway_topic_recoveries_total', { result: 'malformed' });
    for (const since of [`${epoch}:99`, 'feedfeedfeedfeed:1', '', 'x', `${epoch}:-1`, `${epoch}:${'9'.repeat(30)}`])
      expect(await client.subscribe('log/nowhere', { since })).toMatchObject({ subscribed: true, recovered: false, epoch, offset: 1 });
    expect(await gateway.metric('ringway_topic_recoveries_total', { result: 'malformed' })).toBe(before + 4);
    await publish(gateway, 'log/nowhere', 'm2');
    await eventually('it came', () => client.offsets('log/nowhere').length === 1);
    expect(client.offsets('log/nowhere')).toEqual([2]);
    await client.close();
  });

  test('a repeated publish with its key adds nothing, and answers where the first one lies', async () => {
    const first = await publish(gateway, 'log/key', 'once', 'k1');
    const seen = new Set<number>();
    for (let tries = 0; seen.size < 2 && tries < 100; tries++) {
      const again = await publish(gateway, 'log/key', 'once', 'k1');
      expect([again.epoch, again.offset]).toEqual([first.epoch, first.offset]);
      seen.add(again.pid);
    }
    expect(seen.size).toBe(2);
    expect((await publish(gateway, 'log/key', 'two', 'k2')).offset).toBe(2);
    expect((await ask<{ messages: unknown[] }>(gateway, '/history/log/key')).messages).toHaveLength(2);
  });

  test('history goes forwards and backwards, and says what is not there', async () => {
    let last: Publication | undefined;
    for (const offset of upTo(120)) last = await publish(gateway, 'log/past', `m${offset}`);
    const { epoch } = last as Publication;
    interface Page extends Position {
      readonly recovered: boolean;
      readonly messages: readonly { offset: number; data: string; time: number }[];
    }
    const page = (query: string) => ask<Page>(gateway, `/history/log/past?${query}`);
    const whole = await page('limit=1000');
    expect([whole.epoch, whole.offset, whole.recovered]).toEqual([epoch, 120, true]);
    expect(whole.messages.map(({ offset }) => offset)).toEqual(upTo(120, 21));
    expect(whole.messages[0]?.data).toBe('m21');
    expect(Math.abs(Date.now() - (whole.messages[0]?.time ?? 0))).toBeLessThan(300_000);
    expect((await page(`since=${epoch}:100&limit=3`)).messages.map(({ offset }) => offset)).toEqual([101, 102, 103]);
    expect((await page('reverse=true&limit=2')).messages.map(({ offset }) => offset)).toEqual([120, 119]);
    expect(await page(`since=${epoch}:3&limit=2`)).toMatchObject({ recovered: false, messages: [{ offset: 21 }, { offset: 22 }] });
    expect(await page('since=nonsense')).toMatchObject({ recovered: false, offset: 120, messages: [] });
  });

  test('functions hear what every worker publishes', async () => {
    await eventually('one worker listens', () => gateway.output().includes('listening in worker'));
    const offsets: number[] = [];
    for (const index of upTo(20)) offsets.push((await publish(gateway, 'heard/all', `m${index}`)).offset);
    type Heard = { heard: [string, number][] };
    const all = await eventually('one worker has heard all', async () => {
      const { heard } = await ask<Heard>(gateway, '/heard');
      return heard.length >= 20 ? heard : undefined;
    });
    expect(all.map(([, offset]) => offset)).toEqual(offsets);
  });

  test('who is there is one answer over both workers, by user; joins and leaves are told once', async () => {
    const [one, other] = (await onBoth('eve')) as [Client, Client];
    const watching = await Client.open(gateway, 'watch');
    expect(await watching.subscribe('seen/1', { presence: true })).toMatchObject({ isMember: true, presence: { count: 1 } });
    expect(await one.subscribe('seen/1')).toMatchObject({ subscribed: true, isMember: true });
    await other.subscribe('seen/1');
    const users = [
      { id: 'eve', connections: 2, info: { of: 'eve' } },
      { id: 'watch', connections: 1, info: { of: 'watch' } },
    ];
    type Seen = { count: number; users: { id: string }[]; counted: object };
    const seen = await ask<Seen>(gateway, '/presence/seen/1');
    expect([seen.count, seen.counted]).toEqual([2, { users: 2, connections: 3 }]);
    expect(seen.users.toSorted((a, b) => (a.id < b.id ? -1 : 1))).toEqual(users);
    await one.close();
    other.leave('seen/1');
    const events = () => watching.said.flatMap(({ event, user }) => (event === undefined ? [] : [`${event} ${user}`]));
    await eventually('eve has left', () => events().includes('leave eve'));
    expect(events()).toEqual(['join eve', 'leave eve']);
    const joins = await eventually('the function has heard it', async () => {
      const { joins } = await ask<{ joins: string[] }>(gateway, '/heard');
      return joins.includes('leave eve') ? joins : undefined;
    });
    expect(joins).toEqual(['join watch', 'join eve', 'leave eve']);
    await Promise.all([other.close(), watching.close()]);
  });

  test('a policy that says no later keeps out, and says why', async () => {
    const [ann, eve] = [await Client.open(gateway, 'ann'), await Client.open(gateway, 'eve')];
    expect(await ann.subscribe('closed/1')).toEqual({ subscribed: true, recovered: false });
    expect(await eve.subscribe('closed/1')).toEqual({ subscribed: false, reason: 'forbidden', recovered: false });
    await Promise.all([ann.close(), eve.close()]);
  });

  test('what a client says while its policy decides waits: it hears itself', async () => {
    const socket = new WebSocket(`ws://127.0.0.1:${gateway.port}/slow/${backend}`);
    const heard: string[] = [];
    socket.onmessage = ({ data }) => heard.push(String(data));
    socket.onopen = () => {
      socket.send('first');
      socket.send('second');
    };
    await eventually('it hears the second', () => heard.includes('second'));
    expect(heard).toEqual(['first', 'second']);
    socket.close();
  });

  test('all workers are asked for topics and subscribers, and disconnect whom they have', async () => {
    const clients = await onBoth();
    for (const client of clients) await client.subscribe('log/asked');
    await clients[0]?.subscribe('plain/asked');
    expect(await ask<number>(gateway, '/subscribers/log/asked')).toBe(2);
    expect(await ask<string[]>(gateway, '/topics?prefix=plain/')).toEqual(['plain/asked']);
    expect((await ask<string[]>(gateway, '/topics?prefix=')).some((name) => name.startsWith('\0'))).toBe(false);
    const end = (target: object) => ask<number>(gateway, '/disconnect', { method: 'POST', body: JSON.stringify(target) });
    for (const client of clients) {
      expect(await end({ socket: client.id })).toBe(1);
      expect(await client.closed).toBe(4001);
      expect(await end({ socket: client.id })).toBe(0);
    }
    const others = await onBoth();
    for (const client of others) await client.subscribe('plain/asked');
    expect(await end({ topic: 'plain/asked' })).toBe(2);
    expect(await Promise.all(others.map(({ closed }) => closed))).toEqual([4001, 4001]);
  });

  test('ten thousand topics on one socket end at its limit, and it stays', async () => {
    const client = await Client.open(gateway);
    const results = await Promise.all(upTo(1100).map((index) => client.subscribe(`log/many-${index}`)));
    expect(results.filter(({ subscribed }) => subscribed)).toHaveLength(1000);
    expect(results.at(-1)).toEqual({ subscribed: false, reason: 'full', recovered: false });
    await publish(gateway, 'log/many-1000', 'still');
    await eventually('it hears', () => client.texts('log/many-1000').includes('still'));
    await client.close();
  });

  test('a reload and a killed worker in the middle: no message twice, none missing', async () => {
    const answered: number[] = [];
    const failures: string[] = [];
    let epoch = '';
    let isOver = false;
    const publishing = (async () => {
      for (let index = 1; !isOver; index++) {
        // Of a worker that is killed the answer may be lost: the key makes the next try safe.
        for (;;) {
          const published = await publish(gateway, 'log/faults', `m${index}`, `f${index}`).catch((error) => {
            failures.push(String(error));
            return undefined;
          });
          if (published === undefined) continue;
          epoch = published.epoch;
          answered.push(published.offset);
          break;
        }
        // The log reaches back a hundred messages.
        await Bun.sleep(10);
      }
    })();
    await eventually('some are published', () => answered.length > 5);
    const heard: number[] = [];
    let client = await Client.open(gateway);
    let since = text({ epoch, offset: 0 });
    const missed: string[] = [];
    const follow = async () => {
      const { recovered } = await client.subscribe('log/faults', { since });
      if (!recovered) missed.push(since);
    };
    const collect = () => {
      for (const { topic, data, lost, ...position } of client.said.splice(0)) {
        if (topic !== 'log/faults' || (data === undefined && lost === undefined)) continue;
        if (lost) missed.push('lost');
        else heard.push(position.offset as number);
        since = text(position);
      }
    };
    for (const fault of ['kill', 'reload', 'kill'] as const) {
      await follow();
      const soFar = answered.length;
      await eventually('some more', () => answered.length > soFar + 5).catch((error) => {
        throw new Error(`${error}, after ${failures.length} failures, such as ${failures.at(-1)}; ${gateway.output().slice(-2000)}`);
      });
      const before = await gateway.workerPids();
      if (fault === 'kill') process.kill(client.pid, 'SIGKILL');
      else gateway.kill('SIGHUP');
      await client.closed;
      collect();
      await eventually('there are two others', async () => {
        const now = await gateway.workerPids().catch(() => [] as number[]);
        return now.length === 2 && now.some((pid) => !before.includes(pid));
      });
      // Not on one that still drains: it may have ended before it is killed.
      client = await Client.open(gateway, 'ann', (await gateway.workerPids())[0]);
    }
    await follow();
    isOver = true;
    await publishing;
    await eventually('all came', () => {
      collect();
      return (heard.at(-1) ?? 0) >= (answered.at(-1) ?? 0);
    });
    expect(missed).toEqual([]);
    expect(heard).toEqual(upTo(heard.length));
    expect(answered).toEqual(upTo(answered.length));
    await client.close();
  });
});

test('a reload changes what topics remember: a new policy counts for new workers, and what is kept is kept', async () => {
  const gateway = await startGateway({ workers: 1, config });
  const path = join(gateway.folder, 'gateway.config.ts');
  const reload = async (from: string, to: string) => {
    writeFileSync(path, readFileSync(path, 'utf8').replace(from, to));
    const [before] = await gateway.workerPids();
    gateway.kill('SIGHUP');
    await eventually('another worker serves', async () => {
      const [pid] = await gateway.workerPids().catch(() => []);
      if (pid === undefined || pid === before) return false;
      return Number(await (await fetch(`${gateway.url}/pid`)).text()) === pid;
    });
  };
  try {
    const first = await publish(gateway, 'log/kept', 'one');
    expect(await publish(gateway, 'late/1', 'one')).toEqual({ pid: first.pid, result: 'accepted' } as Publication);
    await reload("'heard/*':", "'late/*': { history: { size: 5, seconds: 60 } }, 'heard/*':");
    expect((await publish(gateway, 'late/1', 'two')).offset).toBe(1);
    expect(await publish(gateway, 'log/kept', 'two')).toMatchObject({ epoch: first.epoch, offset: 2 });
    await reload("'late/*': { history: { size: 5, seconds: 60 } },", '');
    expect((await publish(gateway, 'late/1', 'three')).epoch).toBeUndefined();
    expect(await ask(gateway, '/history/log/kept')).toMatchObject({ offset: 2, messages: [{ data: 'one' }, { data: 'two' }] });
  } finally {
    await gateway.stop();
  }
});

describe('topics that remember, over two nodes', () => {
  let redis: RedisServer;
  let nodes: readonly [Gateway, Gateway];
  beforeAll(async () => {
    redis = await startRedis();
    const start = () => startGateway({ workers: 2, config, env: { REDIS_URL: redis.url } });
    nodes = await Promise.all([start(), start()]);
  });
  afterAll(async () => {
    for (const node of nodes ?? []) await node.stop();
    await redis?.dispose();
  });

  test('whoever publishes, on whichever node, all hear the same offsets; who was away goes on at the other node', async () => {
    const clients = await Promise.all(nodes.map((node) => Client.open(node)));
    for (const client of clients) expect(await client.subscribe('log/nodes')).toMatchObject({ subscribed: true });
    const published: Publication[] = [];
    for (const index of upTo(20)) published.push(await publish(nodes[index % 2] as Gateway, 'log/nodes', `m${index}`));
    expect(published.map(({ offset }) => offset)).toEqual(upTo(20));
    for (const client of clients) {
      await eventually('all came', () => client.offsets('log/nodes').length >= 20);
      expect(client.offsets('log/nodes')).toEqual(upTo(20));
      await client.close();
    }
    const { epoch } = published[0] as Publication;
    const back = await Client.open(nodes[1]);
    expect(await back.subscribe('log/nodes', { since: text({ epoch, offset: 5 }) })).toMatchObject({ subscribed: true, recovered: true });
    await publish(nodes[0], 'log/nodes', 'last');
    await eventually('all came', () => back.offsets('log/nodes').at(-1) === 21);
    expect(back.offsets('log/nodes')).toEqual(upTo(21, 6));
    await back.close();
  });

  test('a key holds for both', async () => {
    const first = await publish(nodes[0], 'log/keys', 'once', 'k');
    const again = await publish(nodes[1], 'log/keys', 'once', 'k');
    expect([again.epoch, again.offset]).toEqual([first.epoch, first.offset]);
  });

  test('all workers of both are asked, and disconnect whom they have; who is there is one answer', async () => {
    const [near, far] = await Promise.all([Client.open(nodes[0], 'ann'), Client.open(nodes[1], 'bob')]);
    for (const client of [near, far]) {
      await client.subscribe('plain/nodes');
      expect(await client.subscribe('seen/nodes')).toMatchObject({ subscribed: true, isMember: true });
    }
    // Workers of other nodes are known once they have been heard of.
    await eventually('both nodes answer', async () => (await ask<number>(nodes[0], '/subscribers/plain/nodes')) === 2);
    await eventually('in both directions', async () => (await ask<number>(nodes[1], '/subscribers/plain/nodes')) === 2);
    expect(await ask<string[]>(nodes[1], '/topics?prefix=plain/')).toEqual(['plain/nodes']);
    for (const node of nodes) {
      const { users } = await ask<{ users: { id: string }[] }>(node, '/presence/seen/nodes');
      expect(users.map(({ id }) => id).toSorted()).toEqual(['ann', 'bob']);
    }
    const body = JSON.stringify({ socket: far.id });
    expect(await ask<number>(nodes[0], '/disconnect', { method: 'POST', body })).toBe(1);
    expect(await far.closed).toBe(4001);
    await eventually('bob has left', async () => {
      const { users } = await ask<{ users: { id: string }[] }>(nodes[0], '/presence/seen/nodes');
      return users.length === 1 && users[0]?.id === 'ann';
    });
    await near.close();
  });

  test('while Redis is away a publish says that nothing was stored, and goes on behind it', async () => {
    await publish(nodes[0], 'log/away', 'before');
    await redis.kill();
    const key = 'again';
    const failed = await fetch(`${nodes[0].url}/publish/log/away?key=${key}`, { method: 'POST', body: 'during' });
    expect(failed.status).toBe(500);
    await redis.start();
    await eventually('it is stored', async () => (await publish(nodes[0], 'log/away', 'during', key).catch(() => undefined)) !== undefined);
    const { messages } = await ask<{ messages: { data: string }[] }>(nodes[1], '/history/log/away');
    expect(messages.map(({ data }) => data)).toContain('during');
    expect(messages.filter(({ data }) => data === 'during')).toHaveLength(1);
  });
});

describe('docs/history.md', () => {
  const page = readPage('docs/history.md');
  let folder: string;
  let gateways: Gateway[] = [];

  function start(path: string, redis?: RedisServer): Promise<Gateway> {
    const { text: source = '' } = page.blocks.find((block) => block.path === path) ?? {};
    const env = redis === undefined ? {} : { env: { REDIS_URL: redis.url } };
    return startGateway({ workers: 2, config: source.replace('defineGateway({', 'defineGateway({ $OPTIONS,'), ...env });
  }

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'ringway-history-'));
    for (const block of page.blocks) if (block.path !== undefined) writeBlock(folder, block);
    gateways = await Promise.all([start('gateway.config.ts'), start('answers/gateway.config.ts')]);
  });
  afterAll(async () => {
    for (const gateway of gateways) await gateway.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  test('a client that comes back has every message once', async () => {
    const [gateway] = gateways as [Gateway];
    const { joinRoom } = (await import(join(folder, 'chat-client.mjs'))) as {
      joinRoom(url: string, on: object): { say(text: string): void; leave(): void };
    };
    const heard: string[] = [];
    let missed = 0;
    const room = joinRoom(`${gateway.wsUrl}/chat/lobby`, { message: (said: string) => heard.push(said), missed: () => missed++ });
    const other = joinRoom(`${gateway.wsUrl}/chat/lobby`, { message: () => {}, missed: () => {} });
    await Bun.sleep(100);
    const say = (words: string) =>
      eventually(`it is said: ${words}`, () => {
        try {
          other.say(words);
          return true;
        } catch {
          return false;
        }
      });
    await say('first');
    await eventually('it came', () => heard.includes('first'));
    for (const pid of await gateway.workerPids()) {
      process.kill(pid, 'SIGKILL');
      await eventually('another has taken its place', async () => {
        const now = await gateway.workerPids().catch(() => [] as number[]);
        return now.length === 2 && !now.includes(pid);
      });
      const words = `after ${pid}`;
      // What is said into a connection that has just broken is lost: it is the chat's to say it again.
      await eventually('it came', async () => {
        await say(words);
        await Bun.sleep(50);
        return heard.includes(words);
      });
    }
    expect(missed).toBe(0);
    expect(heard[0]).toBe('first');
    room.leave();
    other.leave();
  });

  test('a client that hears of new messages before the answer to its subscription comes back behind the last of them', async () => {
    const { joinRoom } = (await import(join(folder, 'chat-client.mjs'))) as {
      joinRoom(url: string, on: object, since?: string): { leave(): void };
    };
    /** Each connection hears `script` of its turn, and ends. */
    const scripts = [
      [
        { epoch: 'e', offset: 8, data: 'early' },
        { subscribed: true, recovered: false, since: 'e:7' },
      ],
      [
        { subscribed: true, recovered: true, since: 'e:8' },
        { epoch: 'e', offset: 90, lost: true },
      ],
      [],
    ];
    const urls: string[] = [];
    const server = Bun.serve({
      port: 0,
      fetch: (request, at) => (at.upgrade(request) ? undefined : new Response(null, { status: 400 })),
      websocket: {
        open(socket) {
          const script = scripts[urls.length - 1] ?? [];
          for (const message of script) socket.send(JSON.stringify(message));
          if (script.length > 0) socket.close();
        },
        message() {},
      },
    });
    const Real = globalThis.WebSocket;
    globalThis.WebSocket = class extends Real {
      constructor(url: string) {
        super(url);
        urls.push(url.split('?')[1] ?? '');
      }
    } as typeof Real;
    const heard: string[] = [];
    let missed = 0;
    const room = joinRoom(`ws://localhost:${server.port}/`, { message: (said: string) => heard.push(said), missed: () => missed++ });
    try {
      await eventually('it has come back twice', () => urls.length === 3);
      expect({ urls, heard, missed }).toEqual({ urls: ['', 'since=e:8', 'since=e:90'], heard: ['early'], missed: 1 });
    } finally {
      room.leave();
      globalThis.WebSocket = Real;
      await server.stop(true);
    }
  });

  type Read = (url: () => string, answer: object) => AsyncIterable<string>;

  /** What is asked of one gateway is read from all of them in turn, while connections are cut off. `cutEvery`: so many pieces. */
  async function readAll(asked: Gateway, from: readonly Gateway[], cutEvery: readonly number[]): Promise<string[]> {
    const { readAnswer } = (await import(join(folder, 'answers/read-answer.mjs'))) as { readAnswer: Read };
    const response = await fetch(`${asked.url}/answers`, { method: 'POST', body: 'who are you?' });
    const answer = (await response.json()) as { path: string; since: string };
    /** Connections of readers, which are cut off under them. */
    const opened: WebSocket[] = [];
    const Real = globalThis.WebSocket;
    globalThis.WebSocket = class extends Real {
      constructor(url: string) {
        super(url);
        opened.push(this);
      }
    } as typeof Real;
    let turn = 0;
    const read = async (every: number) => {
      const pieces: string[] = [];
      for await (const piece of readAnswer(() => (from[turn++ % from.length] as Gateway).wsUrl, answer)) {
        pieces.push(piece);
        if (pieces.length % every === 0) for (const socket of opened.splice(0)) (socket as { terminate?(): void }).terminate?.();
      }
      return pieces.join('');
    };
    try {
      const whileWritten = await Promise.all(cutEvery.map(read));
      return [...whileWritten, await read(9)];
    } finally {
      globalThis.WebSocket = Real;
    }
  }

  const whole = 'You asked: who are you? '.repeat(10);

  test('an answer is read whole and in order, whatever happens to the connection', async () => {
    const [, gateway] = gateways as [Gateway, Gateway];
    expect(await readAll(gateway, [gateway], [7, 1000])).toEqual([whole, whole, whole]);
  });

  test('and from another node than the one that writes it, over Redis', async () => {
    const redis = await startRedis();
    const nodes = await Promise.all([start('answers/gateway.config.ts', redis), start('answers/gateway.config.ts', redis)]);
    try {
      expect(await readAll(nodes[0], nodes, [7, 11])).toEqual([whole, whole, whole]);
    } finally {
      for (const node of nodes) await node.stop();
      await redis.dispose();
    }
  });
});
