import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test';
import { eventually } from '../support/eventually.ts';
import { frame, handshake, opcode } from '../support/frames.mjs';
import { forEachBackend, type Gateway, startGateway } from '../support/gateway.ts';
import { descriptorCount, residentBytes } from '../support/process-state.ts';
import { type Happening, type Remote, config as remoteConfig, remoteOf } from '../support/remote-sockets.ts';
import { type Frame, Wire } from '../support/wire.ts';

// Only ends a test that has failed: nothing here is measured in time.
setDefaultTimeout(120_000);

/** The numbers of the messages of a flood that a client has received. */
const numbersOf = (frames: readonly Frame[]) =>
  frames.filter((each) => each.opcode === opcode.binary).map((each) => each.payload.readUInt32BE());

forEachBackend('a client that stops reading', (backend) => {
  let gateway: Gateway;
  let remote: Remote;
  beforeAll(async () => {
    gateway = await startGateway({ backend, config: remoteConfig });
    remote = remoteOf(gateway);
  });
  afterAll(() => gateway?.stop());

  async function slowWire(path: string): Promise<Wire> {
    const wire = await Wire.open(gateway.port, path);
    wire.socket.pause();
    await eventually('it is open', async () => (await remote.events()).some(([, event]) => event === 'open'));
    return wire;
  }

  test('with the policy drop: what is dropped is counted exactly, and all else arrives, in order', async () => {
    const limit = 262144;
    const dropsBefore = await gateway.metric('ringway_messages_dropped_total', { reason: 'backpressure' });
    const wire = await slowWire('/dropping/slow');
    const { results, most } = await remote.flood('slow', 1000, 60_000);
    expect(results.sent + results.backpressure + results.dropped).toBe(1000);
    expect(results.closed).toBe(0);
    expect(results.dropped).toBeGreaterThan(100);
    expect(results.backpressure).toBeGreaterThan(0);
    expect(most).toBeLessThanOrEqual(limit);
    expect(most).toBeGreaterThan(0);
    expect((await remote.state('slow')).bufferedAmount).toBeGreaterThan(0);
    expect(await gateway.metric('ringway_backpressure_connections')).toBe(1);
    expect((await gateway.metric('ringway_messages_dropped_total', { reason: 'backpressure' })) - dropsBefore).toBe(results.dropped);

    wire.socket.resume();
    const happened: Happening[] = [];
    await eventually('it is drained', async () => {
      happened.push(...(await remote.events()));
      return happened.some(([, event]) => event === 'drain');
    });
    expect(happened.filter(([, event]) => event === 'drain')).toEqual([['slow', 'drain', 0]]);
    const told = happened.filter(([, event]) => event === 'dropped').reduce((sum, [, , count]) => sum + (count as number), 0);
    expect(told).toBe(results.dropped);
    await remote.call('slow', 'close', 1000);
    const numbers: number[] = [];
    for (let next = await wire.frame(); next !== undefined && next.opcode !== opcode.close; next = await wire.frame())
      numbers.push(...numbersOf([next]));
    expect(numbers.length).toBe(results.sent + results.backpressure);
    expect(numbers).toEqual(numbers.toSorted((a, b) => a - b));
    wire.destroy();
  });

  test('with the policy close: it fires once, and later sends are told closed', async () => {
    const before = await gateway.metric('ringway_backpressure_closes_total');
    const wire = await slowWire('/closing/slow');
    const { results, most } = await remote.flood('slow', 1000, 60_000);
    expect(results.dropped).toBe(0);
    expect(results.closed).toBeGreaterThan(100);
    expect(most).toBeLessThanOrEqual(262144);
    const happened: Happening[] = [];
    await eventually('it is closed', async () => {
      happened.push(...(await remote.events()));
      return happened.length > 0;
    });
    expect(happened).toEqual([['slow', 'close', 1008, '']]);
    expect((await gateway.metric('ringway_backpressure_closes_total')) - before).toBe(1);
    await eventually('nothing waits for it', async () => (await gateway.metric('ringway_backpressure_bytes')) === 0);
    wire.destroy();
  });

  test('is pinged no further than its limit', async () => {
    const wire = await slowWire('/dropping/pinged');
    await remote.flood('pinged', 1000, 60_000);
    for (let i = 0; i < 20; i++) await remote.call('pinged', 'ping', 'x'.repeat(125));
    await remote.flood('pinged', 100, 60_000);
    expect((await remote.state('pinged')).bufferedAmount).toBeLessThanOrEqual(262144);
    wire.destroy();
  });

  test('does not hold up a handler that forwards what it gets: the sender is held back or the message dropped', async () => {
    const wire = await slowWire('/control/mixed');
    expect((await remote.flood('mixed', 10, 1000)).results.sent).toBe(10);
    wire.socket.resume();
    await eventually('ten messages', () => wire.receivedBytes > 10_000);
    wire.destroy();
  });
});

const fanOutConfig = `
import { Hono } from 'hono';
import { defineGateway, publish } from 'ringway';
const closes = [];
let drains = 0;
const app = new Hono();
app.post('/publish/:topic', async (c) => {
  const { first, count, bytes } = await c.req.json();
  for (let i = first; i < first + count; i++) {
    const payload = Buffer.alloc(bytes);
    payload.writeUInt32BE(i);
    publish(c.req.param('topic'), payload);
  }
  return c.text('ok');
});
app.get('/closes', (c) => c.json(closes));
app.get('/drains', (c) => c.json(drains));
const topic = { open: (socket) => socket.subscribe(socket.params.topic), close: (socket, code) => void closes.push(code) };
export default defineGateway({
  $OPTIONS,
  fetch: app,
  websocket: {
    '/closing/:topic': { ...topic, maxBackpressureBytes: 1_000_000 },
    '/dropping/:topic': { ...topic, maxBackpressureBytes: 1_000_000, onBackpressure: 'drop', dropped: (_socket, count) => void closes.push(-count), drain: () => void drains++ },
  },
});
`;

forEachBackend('a slow reader among the subscribers of a topic', (backend) => {
  let gateway: Gateway;
  let worker: number;
  beforeAll(async () => {
    gateway = await startGateway({ backend, config: fanOutConfig });
    [worker] = (await gateway.workerPids()) as [number];
  });
  afterAll(() => gateway?.stop());

  for (const policy of ['closing', 'dropping']) {
    test(`costs bounded memory and nobody else anything (${policy})`, async () => {
      const metrics = async () => ({
        dropped: await gateway.metric('ringway_messages_dropped_total', { reason: 'backpressure' }),
        closed: await gateway.metric('ringway_backpressure_closes_total'),
        delivered: await gateway.metric('ringway_deliveries_total'),
      });
      const before = await metrics();
      const readers = await Promise.all(Array.from({ length: 4 }, () => Wire.open(gateway.port, `/${policy}/${policy}`)));
      const slow = await Wire.open(gateway.port, `/${policy}/${policy}`);
      slow.socket.pause();
      await eventually('all are subscribed', async () => (await gateway.metric('ringway_subscriptions')) === 5);
      const startRss = residentBytes(worker);
      let worstRss = 0;
      const [rounds, count, bytes] = [110, 8, 60_000];
      const seen = readers.map(() => 0);
      for (let round = 0; round < rounds; round++) {
        await fetch(`${gateway.url}/publish/${policy}`, { method: 'POST', body: JSON.stringify({ first: round * count, count, bytes }) });
        for (const [index, reader] of readers.entries()) {
          for (let i = 0; i < count; i++) {
            expect((await reader.frame())?.payload.readUInt32BE()).toBe(round * count + i);
            seen[index] = (seen[index] as number) + 1;
          }
        }
        if (round % 10 !== 9) continue;
        worstRss = Math.max(worstRss, residentBytes(worker));
        // The gauge is written when the worker is about to wait: it may still say what the others had not read a moment ago.
        await eventually(
          'no more is held than the slow one may',
          async () => (await gateway.metric('ringway_backpressure_bytes')) <= 1_000_000,
        );
      }
      expect(seen).toEqual(readers.map(() => rounds * count));
      // 53 MB were published; five sockets may hold 1 MB each, beside what the allocator keeps.
      expect(worstRss - startRss).toBeLessThan(40 * 1024 * 1024);
      const after = await metrics();
      const toSlow = after.delivered - before.delivered - 4 * rounds * count;
      if (policy === 'closing') {
        expect(after.closed - before.closed).toBe(1);
        expect(after.dropped - before.dropped).toBe(0);
        expect(await (await fetch(`${gateway.url}/closes`)).json()).toEqual([1008]);
        await eventually('the others are still subscribed', async () => (await gateway.metric('ringway_subscriptions')) === 4);
      } else {
        const dropped = after.dropped - before.dropped;
        expect(after.closed - before.closed).toBe(0);
        expect(dropped).toBeGreaterThan(0);
        expect(toSlow).toBe(rounds * count - dropped);
        const told = (await (await fetch(`${gateway.url}/closes`)).json()) as number[];
        expect(told.filter((each) => each < 0).reduce((sum, each) => sum - each, 0)).toBe(dropped);
        slow.socket.resume();
        await eventually('what was not dropped arrives', () => slow.receivedBytes >= toSlow * (bytes + 4));
        await eventually('its drain is heard', async () => ((await (await fetch(`${gateway.url}/drains`)).json()) as number) > 0);
      }
      for (const wire of [...readers, slow]) wire.destroy();
      await eventually('all are gone', async () => (await gateway.metric('ringway_subscriptions')) === 0);
    });
  }
});

const stormConfig = `
import { Hono } from 'hono';
import { defineGateway, publish } from 'ringway';
const counts = { opens: 0, closes: 0 };
const app = new Hono();
app.get('/counts', (c) => c.json(counts));
setInterval(() => publish('storm', Buffer.alloc(2000)), 1);
const counting = {
  open(socket) { counts.opens += 1; socket.subscribe('storm'); socket.subscribe('own/' + Math.random()); },
  close() { counts.closes += 1; },
};
export default defineGateway({
  $OPTIONS,
  fetch: app,
  websocket: {
    '/storm': { ...counting, message(socket, message) { for (let i = 0; i < 20; i++) socket.send(message); } },
    '/slow-upgrade': { ...counting, upgrade: () => new Promise((resolve) => setTimeout(resolve, 2)) },
  },
});
`;

forEachBackend('a storm of resets', (backend) => {
  let gateway: Gateway;
  beforeAll(async () => {
    gateway = await startGateway({ backend, config: stormConfig });
  });
  afterAll(() => gateway?.stop());

  test('during upgrade, send and publish leaves nothing behind', async () => {
    const [worker] = (await gateway.workerPids()) as [number];
    const counts = async () => (await (await fetch(`${gateway.url}/counts`)).json()) as { opens: number; closes: number };
    await counts();
    const descriptors = descriptorCount(worker);
    const message = frame(opcode.binary, new Uint8Array(10_000));
    const victims: ((wire: Wire) => Promise<void> | void)[] = [
      (wire) => wire.write(handshake('/storm')),
      (wire) => wire.write(handshake('/slow-upgrade')),
      (wire) => wire.write(Buffer.concat([Buffer.from(handshake('/storm')), message, message])),
      async (wire) => {
        wire.write(handshake('/storm'));
        await wire.head();
        wire.write(message);
        await wire.frame();
      },
      async (wire) => {
        wire.write(handshake('/slow-upgrade'));
        await wire.head();
      },
      () => {},
    ];
    const total = 2000;
    const lanes = Array.from({ length: 20 }, async (_, lane) => {
      for (let i = lane; i < total; i += 20) {
        const wire = await Wire.connect(gateway.port);
        await (victims[i % victims.length] as (wire: Wire) => Promise<void> | void)(wire);
        wire.reset();
      }
    });
    await Promise.all(lanes);
    // Connections of fetch, in this process and in the admin page's client, are not in the way: they are on the other protocol.
    await eventually('no WebSocket is left', async () => (await gateway.metric('ringway_connections', { protocol: 'websocket' })) === 0);
    await eventually('every open has had its close', async () => {
      const { opens, closes } = await counts();
      return opens > 0 && opens === closes && opens === (await gateway.metric('ringway_websocket_upgrades_total'));
    });
    await eventually('connections, accepted and closed, are even but for those of this test', async () => {
      const open = await gateway.metric('ringway_connections', { protocol: 'http' });
      const accepted = await gateway.metric('ringway_connections_accepted_total');
      return accepted >= total / 2 && accepted - (await gateway.metric('ringway_connections_closed_total')) === open && open <= 2;
    });
    for (const gauge of ['ringway_subscriptions', 'ringway_topics', 'ringway_backpressure_bytes', 'ringway_backpressure_connections']) {
      await eventually(`${gauge} is zero`, async () => (await gateway.metric(gauge)) === 0);
    }
    await eventually('descriptors are what they were', () => descriptorCount(worker) <= descriptors + 1);
    expect(await gateway.workerPids()).toEqual([worker]);
    expect(await gateway.metric('ringway_handler_errors_total')).toBe(0);
  });
});

forEachBackend('receive buffers that run out', (backend) => {
  test('lose no byte and double none', async () => {
    const config = `
      import { defineGateway } from 'ringway';
      export default defineGateway({
        $OPTIONS,
        websocket: { '/echo': { message: (socket, message) => void socket.send(message), maxBackpressureBytes: 8_000_000 } },
      });
    `.replace('$OPTIONS,', `...{ $OPTIONS }, io: { backend: '${backend}', receiveBuffers: 8, receiveBufferBytes: 512 },`);
    const gateway = await startGateway({ backend, config });
    const senders = 200;
    const wires: Wire[] = [];
    for (let i = 0; i < senders; i++) wires.push(await Wire.open(gateway.port, '/echo'));
    const messages = 40;
    const payload = (sender: number, index: number) => {
      const bytes = Buffer.alloc(8 + ((sender * 37 + index * 101) % 3000), (sender + index) & 255);
      bytes.writeUInt32BE(sender, 0);
      bytes.writeUInt32BE(index, 4);
      return bytes;
    };
    // All at once, so that there is always more to receive than buffers.
    for (const [sender, wire] of wires.entries()) {
      wire.write(Buffer.concat(Array.from({ length: messages }, (_, index) => frame(opcode.binary, payload(sender, index)))));
    }
    for (const [sender, wire] of wires.entries()) {
      for (let index = 0; index < messages; index++) {
        const got = await wire.frame();
        if (got === undefined || !got.payload.equals(payload(sender, index)))
          throw new Error(`message ${index} of sender ${sender} is not what was sent`);
      }
    }
    if (backend === 'io_uring') expect(await gateway.metric('ringway_receive_buffers_exhausted_total')).toBeGreaterThan(0);
    expect(await gateway.metric('ringway_websocket_messages_total', { direction: 'in' })).toBe(senders * messages);
    expect(await gateway.metric('ringway_websocket_errors_total')).toBe(0);
    for (const wire of wires) wire.destroy();
    await gateway.stop();
  });
});
