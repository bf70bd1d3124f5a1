/**
 * Topics that remember, on two nodes of two workers over a Redis: clients come, go and publish while workers, nodes and Redis are killed, frozen and
 * reloaded, as a seed has it; what each of them hears, and what all of it comes to once it has settled, is held against what must always hold.
 *
 * MODEL_SEED=7 bun test --timeout 600000 tests/model/nodes.test.ts runs that seed alone, MODEL_STEPS and MODEL_RUNS more steps and seeds. Processes do not run
 * by a seed, so one that fails may pass when it is run again: what has failed is said, with all that was done.
 */
import { afterEach, expect, setDefaultTimeout, test } from 'bun:test';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { eventually } from '../support/eventually.ts';
import { type Gateway, startGateway } from '../support/gateway.ts';
import { type RedisServer, startRedis } from '../support/redis-servers.ts';
import { type Client, SocketClient, StreamClient } from './gateway-client.ts';
import { type At, Ledger } from './listener.ts';
import { type Step, scheduleOf, shown } from './schedule.ts';

// Only ends a test that has failed.
setDefaultTimeout(300_000);

const first = Number(process.env.MODEL_SEED ?? 1);
const runs = Number(process.env.MODEL_RUNS ?? (process.env.MODEL_SEED === undefined ? 2 : 1));
const length = Number(process.env.MODEL_STEPS ?? 150);
const seeds = Array.from({ length: runs }, (_, at) => first + at);

const config = (redis: RedisServer) => `
import { Hono } from 'hono';
import { defineGateway, history, presence, publish } from 'ringway';

const app = new Hono();
app.post('/publish/:topic{.+}', async (c) => c.json(await publish(c.req.param('topic'), await c.req.text(), { idempotencyKey: c.req.query('key') })));
app.get('/history/:topic{.+}', async (c) => c.json(await history(c.req.param('topic'), { limit: 1000 })));
app.get('/presence/:topic{.+}', async (c) => c.json(await presence(c.req.param('topic'))));

export default defineGateway({
  $OPTIONS,
  fetch: app,
  redis: { url: '${redis.url}', linger: 0.2, probeInterval: 0.2, timeout: 1 },
  drain: { timeout: 2 },
  topics: { 'log/:name': { history: { size: 200, seconds: 300 }, presence: { grace: 0.3, member: ({ data }) => data && data.user } } },
  sse: { '/events': { topics: ['log/*'] } },
  websocket: {
    '/ws': {
      positions: true,
      upgrade: (request) => ({ user: new URL(request.url).searchParams.get('user') }),
      async message(socket, message) {
        const { topic, leave, ...options } = message.json();
        if (leave) socket.unsubscribe(topic);
        else socket.sendJson({ topic, answer: await socket.subscribe(topic, options) });
      },
    },
  },
});
`;

const topics = ['log/a', 'log/b'] as const;
type Topic = (typeof topics)[number];
const weights = {
  publish: 34,
  connect: 26,
  disconnect: 8,
  vanish: 6,
  leave: 6,
  'kill worker': 3,
  'kill node': 1,
  reload: 2,
  'freeze redis': 2,
  'restart redis': 2,
  'empty redis': 1,
} as const;
type Kind = keyof typeof weights;

class World {
  readonly faults: string[] = [];
  readonly done: string[] = [];
  readonly ledgers = new Map<Topic, Ledger>(topics.map((topic) => [topic, new Ledger(topic, this.faults)]));
  readonly clients: Client[] = [];
  readonly nodes: Gateway[] = [];
  readonly #redis: RedisServer;
  readonly #publishing = new Set<Promise<void>>();
  /** Of Redis, and of each node: one fault after the other. */
  readonly #busy: [Promise<void>, Promise<void>, Promise<void>] = [Promise.resolve(), Promise.resolve(), Promise.resolve()];
  #messages = 0;
  readonly #begun = performance.now();

  private constructor(redis: RedisServer) {
    this.#redis = redis;
    for (let at = 0; at < 16; at++) {
      const topic = topics[at % 2] as Topic;
      // Two connections of one user, and then some that are one's only one.
      const user = `user-${at < 8 ? at >> 2 : at}`;
      this.clients.push(new SocketClient(`socket ${at}`, user, topic, this.#ledger(topic), this.faults));
    }
    for (let at = 0; at < 6; at++) {
      const topic = topics[at % 2] as Topic;
      this.clients.push(new StreamClient(`stream ${at}`, topic, this.#ledger(topic), this.faults));
    }
  }

  static async start(): Promise<World> {
    const redis = await startRedis({ config: ['appendonly yes', 'appendfsync always'] });
    const world = new World(redis);
    world.nodes.push(...(await Promise.all([world.#startNode(), world.#startNode()])));
    return world;
  }

  #startNode(): Promise<Gateway> {
    return startGateway({ workers: 2, config: config(this.#redis) });
  }

  #ledger(topic: Topic): Ledger {
    return this.ledgers.get(topic) as Ledger;
  }

  note(what: string): void {
    this.done.push(`${((performance.now() - this.#begun) / 1000).toFixed(2)} ${what}`);
  }

  step({ kind, a, b }: Step<Kind>): void {
    const node = b % 2;
    const client = this.clients[a % this.clients.length] as Client;
    switch (kind) {
      case 'publish': {
        const topic = topics[a % 2] as Topic;
        for (let left = 1 + (b % 5); left > 0; left--) void this.publish(topic, (a + left) % 2, b % 3 === 0);
        return;
      }
      case 'connect':
        this.note(`${client.name} comes to node ${node}${client.isOn ? ', and was here' : ''}`);
        client.connect(node, this.nodes[node] as Gateway);
        return;
      case 'disconnect':
      case 'vanish':
        client.disconnect(kind === 'vanish');
        return;
      case 'leave':
        if (client instanceof SocketClient) client.leave();
        return;
      case 'kill worker':
        this.#fault(node, async (gateway) => {
          const pids = await gateway.workerPids().catch(() => []);
          const pid = pids[a % 2];
          if (pid === undefined || pid <= 0) return;
          this.note(`worker ${a % 2} of node ${node} is killed`);
          process.kill(pid, 'SIGKILL');
        });
        return;
      case 'kill node':
        this.#fault(node, async (gateway) => {
          this.note(`node ${node} is killed`);
          await gateway.stop();
          this.nodes[node] = await this.#startNode();
          this.note(`node ${node} is back`);
        });
        return;
      case 'reload':
        this.#fault(node, async (gateway) => {
          this.note(`node ${node} is reloaded`);
          const ends = () => gateway.output().match(/workers of generation \d+ have stopped/g)?.length ?? 0;
          const before = ends();
          gateway.kill('SIGHUP');
          // Until then old workers close the connections that come to them.
          await eventually('the old workers have ended', () => ends() > before, 60_000);
          this.note(`node ${node} has been reloaded`);
        });
        return;
      default:
        this.#busy[2] = this.#busy[2].then(() => this.#redisFault(kind, b));
    }
  }

  #fault(node: number, fault: (gateway: Gateway) => Promise<void>): void {
    const before = this.#busy[node] as Promise<void>;
    this.#busy[node] = before.then(() => fault(this.nodes[node] as Gateway)).catch((error) => void this.faults.push(String(error)));
  }

  async #redisFault(kind: 'freeze redis' | 'restart redis' | 'empty redis', b: number): Promise<void> {
    const redis = this.#redis;
    const ms = b % 1500;
    this.note(`${kind}, for ${ms} ms`);
    if (kind === 'freeze redis') {
      redis.freeze();
      await Bun.sleep(ms);
      redis.thaw();
    } else {
      const folder = (await redis.command('CONFIG', 'GET', 'dir')).split('\n')[1] as string;
      await redis.kill();
      if (kind === 'empty redis') rmSync(join(folder, 'appendonlydir'), { recursive: true, force: true });
      await Bun.sleep(ms);
      await redis.start();
    }
    this.note('redis is back');
  }

  /** Not waited for. With a key it is tried until it is answered, on the one node and the other. */
  publish(topic: Topic, node: number, hasKey: boolean): Promise<void> {
    const text = `m${this.#messages++}`;
    const publishing = this.#publish(topic, text, node, hasKey).finally(() => this.#publishing.delete(publishing));
    this.#publishing.add(publishing);
    return publishing;
  }

  async #publish(topic: Topic, text: string, node: number, hasKey: boolean): Promise<void> {
    for (let tries = 0; tries < (hasKey ? 40 : 1); tries++) {
      const gateway = this.nodes[(node + tries) % 2] as Gateway;
      const url = `${gateway.url}/publish/${topic}${hasKey ? `?key=${text}` : ''}`;
      const response = await fetch(url, { method: 'POST', body: text, keepalive: false }).catch(() => undefined);
      const answer = response?.ok === true ? ((await response.json().catch(() => undefined)) as At | undefined) : undefined;
      if (answer !== undefined) {
        this.#ledger(topic).accept(answer, text);
        return;
      }
      if (hasKey) await Bun.sleep(150);
    }
  }

  async #ask<T>(gateway: Gateway, path: string): Promise<T | undefined> {
    const response = await fetch(`${gateway.url}${path}`, { keepalive: false }).catch(() => undefined);
    return response?.ok === true ? ((await response.json()) as T) : undefined;
  }

  /** Nothing is broken any more, all are there, and the last word of each topic is heard by all: then everything is exact. */
  async settle(): Promise<void> {
    await Promise.all(this.#busy);
    for (const [at, gateway] of this.nodes.entries())
      await eventually(`both workers of node ${at} are there`, async () => {
        const pids = await gateway.workerPids().catch(() => []);
        return pids.length === 2 && pids.every((pid) => pid > 0) && (await this.#ask(gateway, '/history/log/a')) !== undefined;
      });
    await Promise.all(this.#publishing);
    this.note('all is whole');
    for (const [at, client] of this.clients.entries())
      await eventually(`${client.name} is there`, async () => {
        const isBlind = client instanceof SocketClient && client.observer?.isLost === true;
        if (client.isOn && !isBlind) return true;
        const node = (at >> 1) % 2;
        client.connect(node, this.nodes[node] as Gateway);
        await client.settled();
        return client.isOn;
      });
    this.note('all are there');
    for (const topic of topics) {
      await this.publish(topic, 0, true);
      await this.publish(topic, 1, true);
      interface Page extends At {
        readonly messages: { offset: number; data: string }[];
      }
      const [one, two] = (await Promise.all(this.nodes.map((gateway) => this.#ask<Page>(gateway, `/history/${topic}`)))) as [Page, Page];
      expect(two).toEqual(one);
      this.#ledger(topic).compare('a node', one);
      for (const client of this.clients)
        if (this.#isOf(client, topic))
          await eventually(
            `${client.name} has heard all of ${topic} up to ${one.epoch}:${one.offset}`,
            () => client.listener.at?.epoch === one.epoch && client.listener.at.offset === one.offset,
          ).catch((error) => void this.faults.push(`${error.message}: it is at ${JSON.stringify(client.listener.at)}`));
    }
    await Promise.all(topics.map((topic) => this.#settlePresence(topic)));
    for (const client of this.clients) if (!client.isOn) this.faults.push(`${client.name} was cut off when nothing was broken any more`);
  }

  #isOf(client: Client, topic: Topic): boolean {
    return this.clients.indexOf(client) % 2 === topics.indexOf(topic);
  }

  async #settlePresence(topic: Topic): Promise<void> {
    const members = this.clients.filter((client): client is SocketClient => client instanceof SocketClient && this.#isOf(client, topic));
    const connections = new Map<string, number>();
    for (const { user } of members) connections.set(user, (connections.get(user) ?? 0) + 1);
    const expected = [...connections].map(([user, count]) => `${user}*${count}`).sort();
    interface Presence {
      readonly users: readonly { id: string; connections: number }[];
    }
    let seen: string[][] = [];
    // A node that was killed counts until its lease has ended.
    await eventually(
      `${topic} has those who are there`,
      async () => {
        const pages = await Promise.all(this.nodes.map((gateway) => this.#ask<Presence>(gateway, `/presence/${topic}`)));
        seen = pages.map((page) => (page?.users ?? []).map(({ id, connections: count }) => `${id}*${count}`).sort());
        return seen.every((list) => list.join() === expected.join());
      },
      40_000,
    ).catch((error) => void this.faults.push(`${error.message}: ${expected} are, ${seen.join(' and ')} are said to be`));
    this.note(`${topic} has those who are there`);
    for (const member of members)
      await eventually(
        `${member.name} knows who is there`,
        () =>
          member.observer?.isLost === true || [...(member.observer?.there ?? [])].sort().join() === [...connections.keys()].sort().join(),
      ).catch((error) => void this.faults.push(`${error.message}: ${expected} are, it knows of ${[...(member.observer?.there ?? [])]}`));
  }

  async stop(): Promise<void> {
    for (const client of this.clients) client.disconnect(true);
    await Promise.all(this.nodes.map((gateway) => gateway.stop()));
    await this.#redis.dispose();
  }
}

let world: World | undefined;
afterEach(() => world?.stop());

for (const seed of seeds)
  test(`seed ${seed}: whatever is killed, nothing is heard twice, nothing is missing without a word, and who is there is seen`, async () => {
    const steps = scheduleOf<Kind>(seed, length, weights, 90);
    world = await World.start();
    for (const client of world.clients) client.connect(0, world.nodes[world.clients.indexOf(client) % 2] as Gateway);
    for (const step of steps) {
      world.step(step);
      await Bun.sleep(step.pause);
    }
    await world.settle().catch((error) => world?.faults.push(String(error)));
    for (const gateway of world.nodes)
      for (const line of gateway.output().match(/.*(?:Assertion|panic|Sanitizer).*/g) ?? []) world.faults.push(line);
    const { clients, faults, done } = world;
    const sum = (of: 'breaks' | 'recovered') => clients.reduce((total, { listener }) => total + listener[of], 0);
    console.log(`seed ${seed}: ${sum('recovered')} recovered, ${sum('breaks')} breaks told`);
    const output = world.nodes.map((gateway) => gateway.output().slice(-3000)).join('\n\n');
    if (faults.length > 0)
      throw new Error(`MODEL_SEED=${seed}\n${faults.slice(0, 40).join('\n')}\n${done.join('\n')}\n${shown(steps)}\n${output}`);
  });
