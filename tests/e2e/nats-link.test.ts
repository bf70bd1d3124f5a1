/** Two gateways that are joined by a link of their config's: the one of examples/nats-link, with a real nats-server between them. */
import { afterAll, afterEach, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test';
import { join } from 'node:path';
import { compile } from '../support/compiler.ts';
import { eventually } from '../support/eventually.ts';
import { frame, opcode } from '../support/frames.mjs';
import { type Gateway, startGateway } from '../support/gateway.ts';
import { hasNatsServer, type NatsServer, startNats } from '../support/nats-server.ts';
import { Wire } from '../support/wire.ts';

// Only ends a test that has failed: nothing here is measured in time.
setDefaultTimeout(120_000);

const root = join(import.meta.dir, '../..');
const example = join(root, 'examples/nats-link/nats-link.ts');

const configFor = (url: string) => `
import { defineGateway, publish } from 'ringway';
import { natsLink } from ${JSON.stringify(example)};
export default defineGateway({
  $OPTIONS,
  link: natsLink({ servers: [${JSON.stringify(url)}], linger: 1, required: true }),
  drain: { timeout: 5 },
  fetch: async (request) => new Response(publish(new URL(request.url).pathname.slice(1), await request.text())),
  websocket: {
    '/room/:topic': {
      open: (socket) => { socket.subscribe(socket.params.topic); socket.send(String(process.pid)); },
      message: (socket, message) => { socket.send(socket.publish(socket.params.topic, message)); },
    },
  },
});
`;

/** A client in a room. */
class Member {
  readonly wire: Wire;
  pid = 0;
  /** What has come, but for greetings. */
  readonly heard: string[] = [];
  /** Nodes that have greeted. */
  readonly greeted = new Set<string>();

  private constructor(wire: Wire) {
    this.wire = wire;
  }

  static async join(gateway: Gateway, topic: string): Promise<Member> {
    const member = new Member(await Wire.open(gateway.port, `/room/${topic}`));
    member.pid = Number((await member.wire.frame())?.payload);
    void member.#read();
    return member;
  }

  async #read(): Promise<void> {
    for (;;) {
      const line = (await this.wire.frame().catch(() => undefined))?.payload.toString();
      if (line === undefined) return;
      if (line.startsWith('hello')) this.greeted.add(line);
      else this.heard.push(line);
    }
  }

  /** In any order: the kernel chooses the worker that publishes, and only what one of them publishes has an order. */
  async hears(...lines: string[]): Promise<void> {
    await eventually(`${lines.length} messages`, () => this.heard.length >= lines.length);
    expect(this.heard.splice(0).sort()).toEqual(lines.sort());
  }
}

const hasNats = await hasNatsServer();

test.skipIf(!hasNats)('the example compiles', async () => {
  expect(await compile(['--noEmit', '-p', join(root, 'examples')])).toEqual({ said: '', code: 0 });
});

describe.skipIf(!hasNats)('two gateways that NATS joins', () => {
  let nats: NatsServer;
  let nodes: [Gateway, Gateway];
  const members: Member[] = [];

  beforeAll(async () => {
    nats = await startNats();
    const start = () => startGateway({ backend: 'epoll', workers: 2, config: configFor(nats.url) });
    nodes = await Promise.all([start(), start()]);
    await eventually('both are ready', async () => (await Promise.all(nodes.map(isReady))).every(Boolean));
  });
  afterEach(() => {
    for (const { wire } of members.splice(0)) wire.destroy();
  });
  afterAll(async () => {
    await Promise.all((nodes ?? []).map((gateway) => gateway.stop()));
    await nats?.dispose();
  });

  const isReady = async (gateway: Gateway) => (await fetch(`${gateway.adminUrl}/readyz`)).ok;
  const say = async (gateway: Gateway, topic: string, message: string) =>
    await (await fetch(`${gateway.url}/${topic}`, { method: 'POST', body: message })).text();

  /** On every worker of a gateway: the kernel chooses which one serves. */
  async function everywhere(gateway: Gateway, topic: string): Promise<Member[]> {
    const found = new Map<number, Member>();
    await eventually('a client on every worker', async () => {
      const member = await Member.join(gateway, topic);
      members.push(member);
      found.set(member.pid, member);
      return (await gateway.workerPids()).every((pid) => found.has(pid));
    });
    return [...found.values()];
  }

  /** Clients of both, whose subscriptions are in place. */
  async function room(topic: string): Promise<{ near: Member[]; far: Member[] }> {
    const [near, far] = [await everywhere(nodes[0], topic), await everywhere(nodes[1], topic)];
    await eventually('all hear of both', async () => {
      for (const at of [0, 1] as const) await say(nodes[at], topic, `hello from ${at}`);
      return [...near, ...far].every(({ greeted }) => greeted.size === 2);
    });
    return { near, far };
  }

  test('what is published on one reaches every worker of both, once; who publishes is told what becomes of it', async () => {
    const { near, far } = await room('news');
    expect([await say(nodes[0], 'news', 'from 0'), await say(nodes[1], 'news', 'from 1')]).toEqual(['accepted', 'accepted']);
    for (const member of [...near, ...far]) await member.hears('from 0', 'from 1');
    const [first, ...others] = [...near, ...far] as [Member, ...Member[]];
    first.wire.write(frame(opcode.text, 'from a socket'));
    await first.hears('accepted');
    for (const member of others) await member.hears('from a socket');
    const health = async () => (await (await fetch(`${nodes[0].adminUrl}/healthz`)).json()) as { redis: { topics: number } };
    // Beside those by which workers ask each other: one for all, and one for each of the two. Told several times a second.
    await eventually('the topic is told of', async () => (await health()).redis.topics === 1 + 3);
    expect(await health()).toMatchObject({ status: 'ok', redis: { state: 'up', drops: 0 } });
    expect(await nodes[1].metric('ringway_redis_messages_total', { direction: 'in' })).toBeGreaterThan(0);
  });

  test('goes on within a node while NATS is gone, says that the node is not ready, and sends what has waited', async () => {
    const { near, far } = await room('outage');
    await nats.kill();
    await eventually('neither is ready', async () => !(await Promise.all(nodes.map(isReady))).some(Boolean));
    const waited = ['waits 0', 'waits 1', 'waits 2'];
    for (const text of waited) expect(await say(nodes[0], 'outage', text)).toBe('queued');
    for (const member of near) await member.hears(...waited);
    await nats.start();
    for (const member of far) await member.hears(...waited);
    await eventually('both are ready again', async () => (await Promise.all(nodes.map(isReady))).every(Boolean));
    expect(await nodes[1].metric('ringway_redis_gaps_total')).toBeGreaterThan(0);
  });

  test('hears what is published through a reload', async () => {
    const { near } = await room('reload');
    const before = await nodes[1].workerPids();
    nodes[1].kill('SIGHUP');
    await eventually('the new workers serve', async () => (await nodes[1].workerPids()).every((pid) => !before.includes(pid)));
    const fresh = await everywhere(nodes[1], 'reload');
    await eventually('the new workers hear of the other node', async () => {
      await say(nodes[0], 'reload', 'hello from 0');
      return fresh.every(({ greeted }) => greeted.size > 0);
    });
    expect(await say(nodes[0], 'reload', 'again')).toBe('accepted');
    for (const member of [...near, ...fresh]) await member.hears('again');
  });
});
