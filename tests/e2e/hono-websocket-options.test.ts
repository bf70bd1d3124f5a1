import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test';
import { eventually } from '../support/eventually.ts';
import { frame, handshake, opcode } from '../support/frames.mjs';
import { forEachBackend, type Gateway, startGateway } from '../support/gateway.ts';
import { Wire } from '../support/wire.ts';

// Only ends a test that has failed: nothing here is measured in time.
setDefaultTimeout(60_000);

const config = `
import { Hono } from 'hono';
import { defineGateway, upgradeWebSocket } from 'ringway';

const events = () => ({ onMessage: (event, ws) => ws.send(event.data) });
const app = new Hono();
const routes = {
  plain: undefined,
  small: { maxPayloadBytes: 10 },
  same: { maxPayloadBytes: 10, concurrency: 4 },
  idle: { idleTimeout: 0.2, pingInterval: 0.1 },
  deflate: { compression: true },
  rate: { maxMessagesPerSecond: 1 },
  origin: { origins: ['https://app.example'] },
  spoken: { protocols: ['v2', 'v1'] },
};
for (const [name, options] of Object.entries(routes)) app.get('/' + name, upgradeWebSocket(events, options));
// The other form, with options that are made for each request.
app.get('/made/:bytes', (c) => upgradeWebSocket(c, events(), { maxPayloadBytes: Number(c.req.param('bytes')) }));
app.post('/define', async (c) => {
  try {
    upgradeWebSocket(events, JSON.parse(await c.req.text()));
    return c.text('taken');
  } catch (error) {
    return c.text(error.code + ' ' + error.message);
  }
});

export default defineGateway({
  $OPTIONS,
  fetch: app,
  // As what the core is told is the same, they take one of its numbers together.
  websocket: Object.fromEntries(Array.from({ length: 200 }, (_, at) => ['/of-the-config/' + at, {}])),
});
`;

forEachBackend('options of upgradeWebSocket', (backend) => {
  let gateway: Gateway;
  beforeAll(async () => {
    gateway = await startGateway({ backend, config, workers: 1 });
  });
  afterAll(() => gateway?.stop());

  /** The close code after a message of so many bytes; 0: it came back. */
  async function after(path: string, bytes: number): Promise<number> {
    const wire = await Wire.open(gateway.port, path);
    wire.write(frame(opcode.text, 'x'.repeat(bytes)));
    const answer = await wire.frame();
    wire.destroy();
    if (answer?.opcode === opcode.text) return 0;
    return answer?.payload.readUInt16BE() ?? 1006;
  }

  test('hold for their route alone', async () => {
    expect([await after('/small', 10), await after('/small', 11), await after('/same', 11), await after('/plain', 11)]).toEqual([
      0, 1009, 1009, 0,
    ]);
  });

  test('reach the core: idle timeout and pings, compression, rates', async () => {
    const idle = await Wire.open(gateway.port, '/idle');
    expect((await idle.frame())?.opcode).toBe(opcode.ping);
    expect(await idle.closeCode()).toBe(1006);
    const offer = { 'Sec-WebSocket-Extensions': 'permessage-deflate' };
    const [deflated, plain] = [await Wire.open(gateway.port, '/deflate', offer), await Wire.open(gateway.port, '/plain', offer)];
    expect([deflated, plain].map((wire) => /permessage-deflate/i.test(wire.answer))).toEqual([true, false]);
    const rated = await Wire.open(gateway.port, '/rate');
    for (let sent = 0; sent < 10; sent++) rated.write(frame(opcode.text, 'again'));
    expect(await rated.closeCode()).toBe(1008);
    for (const wire of [idle, deflated, plain, rated]) wire.destroy();
  });

  test('judge origins, and refuse with 403, which is counted', async () => {
    const refused = () => gateway.metric('ringway_websocket_upgrades_refused_total', { reason: 'origin' });
    const before = await refused();
    const wire = await Wire.connect(gateway.port);
    wire.write(handshake('/origin', { Origin: 'https://elsewhere.example' }));
    expect(await wire.head()).toStartWith('HTTP/1.1 403 ');
    wire.destroy();
    expect(await refused()).toBe(before + 1);
    (await Wire.open(gateway.port, '/origin', { Origin: 'https://app.example' })).destroy();
  });

  test('take protocols, as those of a config', async () => {
    const wire = await Wire.open(gateway.port, '/spoken', { 'Sec-WebSocket-Protocol': 'v1, v2' });
    expect(wire.answer).toMatch(/\r\nSec-WebSocket-Protocol: v2\r\n/i);
    wire.destroy();
  });

  test('that are wrong are told of where the route is defined, in the words of the config', async () => {
    const told = async (options: unknown) =>
      (await fetch(`${gateway.url}/define`, { method: 'POST', body: JSON.stringify(options) })).text();
    const code = 'RW_INVALID_ARGUMENT upgradeWebSocket: ';
    expect(await told({ maxPayloadBytes: 0 })).toBe(`${code}maxPayloadBytes is 0; write an integer from 1 to 1073741824`);
    expect(await told({ maxPayloadByte: 1 })).toBe(`${code}maxPayloadByte is not an option; did you mean maxPayloadBytes?`);
    expect(await told({ idleTimeout: 20, pingInterval: 20 })).toBe(
      `${code}pingInterval is 20, but the connection is given up after idleTimeout (20); write less than that`,
    );
    expect(await told({ compression: { windowBits: 8 }, concurrency: 0 })).toBe(
      `${code}compression.windowBits is 8; write an integer from 9 to 15; concurrency is 0; write an integer from 1 to 1024`,
    );
    expect(await told({ protocol: 'a b' })).toStartWith(`${code}protocol[0] is "a b"; write a name without spaces`);
    expect(await told({ protocol: 'a', protocols: ['b'] })).toBe(`${code}protocol says what protocols says too; remove one of them`);
    expect(await told(3)).toBe(`${code}its argument is 3; write an object such as { protocols: ... }`);
    expect(await told({ protocol: 'a', concurrency: 2 })).toBe('taken');
  });

  test('that differ in too many ways are refused, and the others go on', async () => {
    let served = 0;
    let refusal = '';
    for (let bytes = 1000; refusal === ''; bytes++) {
      const wire = await Wire.connect(gateway.port);
      wire.write(handshake(`/made/${bytes}`));
      const head = await wire.head();
      wire.destroy();
      if (head.startsWith('HTTP/1.1 101 ')) served += 1;
      else refusal = head;
    }
    expect(refusal).toStartWith('HTTP/1.1 500 ');
    const told = 'upgradeWebSocket: differs from 255 other sets of options, and there can be no more';
    await eventually('the log tells why', () => gateway.output().includes(told));
    expect(served).toBeGreaterThan(240);
    expect(served).toBeLessThan(256);
    expect([await after('/made/1000', 1000), await after('/made/1000', 1001), await after('/small', 11)]).toEqual([0, 1009, 1009]);
    expect([await after('/plain', 11), await gateway.metric('ringway_worker_restarts_total')]).toEqual([0, 0]);
  });
});
