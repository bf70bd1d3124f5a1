import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test';
import { eventually } from '../support/eventually.ts';
import { frame, opcode } from '../support/frames.mjs';
import { forEachBackend, type Gateway, startGateway } from '../support/gateway.ts';
import { Wire } from '../support/wire.ts';

// Only ends a test that has failed: nothing here is measured in time.
setDefaultTimeout(60_000);

const config = `
import { Hono } from 'hono';
import { defineGateway, publish } from 'ringway';
const app = new Hono();
app.post('/publish/:topic', async (c) => {
  const body = await c.req.text();
  publish(c.req.param('topic'), body);
  publish(c.req.param('topic'), Buffer.from(body));
  return c.text(String(process.pid));
});
app.get('/pid', (c) => c.text(String(process.pid), { headers: { connection: 'close' } }));
export default defineGateway({
  $OPTIONS,
  fetch: app,
  websocket: {
    '/pid': { open: (socket) => void socket.send(String(process.pid)) },
    '/join/:topic': {
      open: (socket) => { socket.subscribe(socket.params.topic); socket.send(String(process.pid)); },
      message: (socket, message) => socket.publish(socket.params.topic, message),
    },
    '/room/:topic': {
      open: (socket) => { socket.subscribe(socket.params.topic); socket.send(String(process.pid)); },
      message: (socket, message) => publish(socket.params.topic, message),
    },
    '/switch': {
      message(socket, message) {
        const [method, topic] = message.text().split(' ');
        socket[method](topic);
        socket.send(method + ' ' + socket.isSubscribed(topic));
      },
    },
  },
});
`;

interface Member {
  readonly wire: Wire;
  readonly pid: number;
}

forEachBackend('topics', (backend) => {
  let gateway: Gateway;
  let pids: number[];
  beforeAll(async () => {
    gateway = await startGateway({ backend, workers: 2, config });
    pids = await gateway.workerPids();
  });
  afterAll(() => gateway?.stop());

  async function member(path: string): Promise<Member> {
    const wire = await Wire.open(gateway.port, path);
    return { wire, pid: Number((await wire.frame())?.payload) };
  }

  /** Members on both workers: the kernel spreads connections, so open until it has. */
  async function members(path: string, least: number): Promise<Member[]> {
    const all: Member[] = [];
    while (all.length < least || new Set(all.map((each) => each.pid)).size < 2) all.push(await member(path));
    return all;
  }

  /** A member on the given worker. */
  async function memberOn(pid: number, path: string): Promise<Member> {
    for (;;) {
      const candidate = await member(path);
      if (candidate.pid === pid) return candidate;
      candidate.wire.destroy();
    }
  }

  const leave = async (all: readonly Member[]) => {
    for (const { wire } of all) wire.destroy();
    await eventually('all have left', async () => (await gateway.metric('ringway_connections', { protocol: 'websocket' })) === 0);
  };

  test('reach every subscriber on every worker, the publisher left out by socket.publish and not by publish', async () => {
    for (const route of ['join', 'room']) {
      const all = await members(`/${route}/everyone`, 16);
      for (const [index, { wire }] of all.entries()) {
        wire.write(frame(opcode.text, `from ${index}`));
        for (const [other, receiver] of all.entries()) {
          if (route === 'join' && other === index) continue;
          expect(await receiver.wire.frame()).toEqual({ fin: true, opcode: opcode.text, payload: Buffer.from(`from ${index}`) });
        }
      }
      // Nothing more has come: no duplicates.
      for (const { wire } of all) wire.write(frame(opcode.ping, 'last'));
      for (const { wire } of all) expect((await wire.frame())?.opcode).toBe(opcode.pong);
      await leave(all);
    }
  });

  test('are published to from HTTP handlers, text as text and bytes as binary', async () => {
    const all = await members('/join/http', 4);
    const answered = await (await fetch(`${gateway.url}/publish/http`, { method: 'POST', body: 'héllo' })).text();
    expect(pids).toContain(Number(answered));
    for (const { wire } of all) {
      expect(await wire.frame()).toEqual({ fin: true, opcode: opcode.text, payload: Buffer.from('héllo') });
      expect(await wire.frame()).toEqual({ fin: true, opcode: opcode.binary, payload: Buffer.from('héllo') });
    }
    await leave(all);
  });

  test('keep the order of each publisher, lose nothing and double nothing, under load from both workers', async () => {
    const listeners = await members('/room/order', 6);
    const publishers = [await memberOn(pids[0] as number, '/room/order'), await memberOn(pids[1] as number, '/room/order')];
    await eventually('all are subscribed', async () => (await gateway.metric('ringway_subscriptions')) === listeners.length + 2);
    const count = 3000;
    for (const [who, { wire }] of publishers.entries()) {
      for (let at = 0; at < count; at += 100) {
        wire.write(
          Buffer.concat(Array.from({ length: 100 }, (_, i) => frame(opcode.text, `${who} ${at + i} ${'x'.repeat((at + i) % 200)}`))),
        );
      }
    }
    for (const { wire } of [...listeners, ...publishers]) {
      const next = [0, 0];
      for (let i = 0; i < 2 * count; i++) {
        const [who, number] = String((await wire.frame())?.payload)
          .split(' ')
          .map(Number) as [number, number];
        expect(number).toBe(next[who] as number);
        next[who] = number + 1;
      }
      expect(next).toEqual([count, count]);
    }
    expect(await gateway.metric('ringway_messages_dropped_total')).toBe(0);
    await leave([...listeners, ...publishers]);
  });

  test('of large messages cross workers whole', async () => {
    const all = await members('/room/large', 2);
    for (const bytes of [10_000, 70_000, 1024 * 1024]) {
      const payload = Buffer.alloc(bytes, crypto.getRandomValues(new Uint8Array(997)));
      all[0]?.wire.write(frame(opcode.binary, payload));
      for (const { wire } of all) expect((await wire.frame())?.payload.equals(payload)).toBe(true);
    }
    await leave(all);
  });

  test('go to another worker only when it has a subscriber', async () => {
    const sent = () => gateway.metric('ringway_bus_messages_total', { direction: 'out' });
    const home = pids[0] as number;
    const [a, b] = [await memberOn(home, '/room/local'), await memberOn(home, '/room/local')];
    // Candidates on the other worker have come and gone: their interest has, too.
    await eventually('only two are left', async () => (await gateway.metric('ringway_connections', { protocol: 'websocket' })) === 2);
    const before = await sent();
    for (let i = 0; i < 50; i++) a.wire.write(frame(opcode.text, `${i}`));
    for (let i = 0; i < 50; i++) expect(String((await b.wire.frame())?.payload)).toBe(`${i}`);
    expect((await sent()) - before).toBe(0);
    for (let i = 0; i < 50; i++) await a.wire.frame();
    const far = await memberOn(pids[1] as number, '/room/local');
    a.wire.write(frame(opcode.text, 'to both'));
    for (const { wire } of [a, b, far]) expect(String((await wire.frame())?.payload)).toBe('to both');
    expect((await sent()) - before).toBe(1);
    await leave([a, b, far]);
  });

  test('are joined and left by name; leaving twice or joining twice changes nothing', async () => {
    const wire = await Wire.open(gateway.port, '/switch');
    const say = async (text: string) => {
      wire.write(frame(opcode.text, text));
      return String((await wire.frame())?.payload);
    };
    expect(await say('unsubscribe a')).toBe('unsubscribe false');
    expect(await say('subscribe a')).toBe('subscribe true');
    expect(await say('subscribe a')).toBe('subscribe true');
    await eventually('one topic with one subscription', async () => {
      return (await gateway.metric('ringway_topics')) === 1 && (await gateway.metric('ringway_subscriptions')) === 1;
    });
    await fetch(`${gateway.url}/publish/a`, { method: 'POST', body: 'once' });
    expect(String((await wire.frame())?.payload)).toBe('once');
    expect(String((await wire.frame())?.payload)).toBe('once');
    expect(await say('unsubscribe a')).toBe('unsubscribe false');
    await fetch(`${gateway.url}/publish/a`, { method: 'POST', body: 'never' });
    expect(await say(`subscribe ${'é'.repeat(512)}`)).toBe('subscribe true');
    await eventually('it has left the first topic', async () => (await gateway.metric('ringway_topics')) === 1);
    wire.destroy();
    await eventually('its topics are gone with it', async () => (await gateway.metric('ringway_topics')) === 0);
  });

  test('count publishes and deliveries', async () => {
    const metric = async () => [
      await gateway.metric('ringway_publishes_total', { origin: 'local' }),
      await gateway.metric('ringway_publishes_total', { origin: 'remote' }),
      await gateway.metric('ringway_deliveries_total'),
    ];
    const all = await members('/room/count', 5);
    const before = await metric();
    for (let i = 0; i < 10; i++) all[0]?.wire.write(frame(opcode.text, 'x'));
    for (const { wire } of all) for (let i = 0; i < 10; i++) await wire.frame();
    const after = await metric();
    expect(after.map((value, index) => value - (before[index] as number))).toEqual([10, 10, 10 * all.length]);
    await leave(all);
  });
});

forEachBackend('limits of topics', (backend) => {
  let gateway: Gateway;
  beforeAll(async () => {
    gateway = await startGateway({
      backend,
      config: `
import { defineGateway } from 'ringway';
export default defineGateway({ $OPTIONS,
  limits: { maxTopicsPerSocket: 3, maxTopics: 5 },
  websocket: { '/': { message(socket, message) {
    const [method, topic] = message.text().split(' ');
    socket.send(String(socket[method](topic)));
  } } },
});`,
    });
  });
  afterAll(() => gateway?.stop());

  async function ask(wire: Wire, text: string): Promise<string | undefined> {
    wire.write(frame(opcode.text, text));
    return (await wire.frame())?.payload.toString();
  }

  test('past them subscribe returns false, it is counted, and said once', async () => {
    const one = await Wire.open(gateway.port, '/');
    const other = await Wire.open(gateway.port, '/');
    for (const topic of ['a', 'b', 'c']) expect(await ask(one, `subscribe ${topic}`)).toBe('true');
    for (const topic of ['d', 'e', 'f']) expect(await ask(one, `subscribe ${topic}`)).toBe('false');
    expect(await ask(one, 'isSubscribed d')).toBe('false');
    expect(await ask(one, 'subscribe a')).toBe('true');
    for (const topic of ['d', 'e']) expect(await ask(other, `subscribe ${topic}`)).toBe('true');
    for (const topic of ['f', 'g']) expect(await ask(other, `subscribe ${topic}`)).toBe('false');
    expect(await ask(other, 'subscribe c')).toBe('true');
    expect(await gateway.metric('ringway_subscriptions_refused_total', { reason: 'socket' })).toBe(3);
    expect(await gateway.metric('ringway_subscriptions_refused_total', { reason: 'worker' })).toBe(2);
    await eventually('both are said', () => gateway.output().includes('limits.maxTopics)'));
    expect(gateway.output().split('limits.maxTopicsPerSocket').length - 1).toBe(1);
    expect(gateway.output().split('limits.maxTopics)').length - 1).toBe(1);
    // What one leaves is room for the other.
    one.socket.destroy();
    await eventually('its topics are gone', async () => (await gateway.metric('ringway_topics')) === 3);
    const third = await Wire.open(gateway.port, '/');
    for (const topic of ['f', 'g']) expect(await ask(third, `subscribe ${topic}`)).toBe('true');
    expect(await ask(third, 'subscribe h')).toBe('false');
    other.socket.destroy();
    third.socket.destroy();
  });
});
