/**
 * Asynchronous handlers of one socket: one after the other, with what waits bounded, and the end behind all of it.
 */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test';
import { eventually } from '../support/eventually.ts';
import { closePayload, frame, opcode } from '../support/frames.mjs';
import { forEachBackend, type Gateway, startGateway } from '../support/gateway.ts';
import { Wire } from '../support/wire.ts';

// Only ends a test that has failed: nothing here is measured in time.
setDefaultTimeout(60_000);

const config = `
import { Hono } from 'hono';
import { defineGateway, publish, upgradeWebSocket } from 'ringway';

/** What was heard, by socket name. */
const heard = {};
const note = (socket, ...words) => {
  const { name } = socket.params;
  (heard[name] ??= []).push(words.join(' '));
  // Of this one nobody can ask any more.
  if (name === 'end') console.log('end hears', ...words);
};
/** What handlers wait for, by name; a gate that was opened stays open. */
const gates = new Map();
const gate = (name) => {
  if (!gates.has(name)) gates.set(name, Promise.withResolvers());
  return gates.get(name);
};

/** 'sleep 3 x' takes so many milliseconds, 'wait g' waits for a gate, 'now' answers at once; all are answered with themselves. */
async function work(socket, text) {
  const [word, argument] = text.split(' ');
  if (word === 'sleep') await Bun.sleep(Number(argument));
  if (word === 'wait') await gate(argument).promise;
  if (word === 'micro') await null;
  if (word === 'soon') await new Promise(setImmediate);
  if (word === 'fail') throw new Error('on purpose');
  if (word === 'terminate') socket.terminate();
  if (word === 'close') socket.close(4001);
}

let running = new Map();
const callbacks = {
  async message(socket, message) {
    const { name } = socket.params;
    const now = (running.get(name) ?? 0) + 1;
    running.set(name, now);
    const text = message.isBinary ? 'soon' : message.text();
    note(socket, 'begin', text, now);
    try {
      await work(socket, text);
      note(socket, 'end', text);
      if (socket.isOpen) socket.send(message);
    } finally {
      running.set(name, running.get(name) - 1);
    }
  },
  ping(socket, data) { note(socket, 'ping', Buffer.from(data)); },
  close(socket, code, reason) { note(socket, 'close', code, reason); },
};

const app = new Hono();
app.get('/heard/:name', (c) => c.json(heard[c.req.param('name')] ?? []));
app.get('/open/:gate', (c) => { gate(c.req.param('gate')).resolve(); return c.text('open'); });
app.post('/publish', async (c) => { publish('news', await c.req.text()); return c.text('published'); });
const events = () => {
  let now = 0;
  return {
    async onMessage(event, ws) {
      now += 1;
      const most = now;
      await work(ws.raw, event.data);
      now -= 1;
      ws.send(event.data + ' ' + most);
    },
  };
};
app.get('/hono', upgradeWebSocket(events));
app.get('/hono-three', upgradeWebSocket(events, { concurrency: 3 }));
app.get('/bad/:value', (c) => {
  try {
    upgradeWebSocket(() => ({}), { concurrency: JSON.parse(c.req.param('value')) });
    return c.text('taken');
  } catch (error) {
    return c.text(error.code + ' ' + error.message);
  }
});

export default defineGateway({
  $OPTIONS,
  fetch: app,
  drain: { timeout: 20 },
  websocket: {
    // The client of a test may be slower than its handlers.
    '/order/:name': { ...callbacks, maxBackpressureBytes: 64 << 20 },
    '/three/:name': { ...callbacks, concurrency: 3 },
    '/opening/:name': {
      ...callbacks,
      async open(socket) {
        note(socket, 'opening');
        await gate('opening ' + socket.params.name).promise;
        socket.subscribe('news');
        note(socket, 'opened');
      },
    },
    '/draining/:name': {
      maxBackpressureBytes: 64 << 20,
      async message(socket) {
        const chunk = Buffer.alloc(1 << 20);
        while (socket.send(chunk) === 'sent');
        socket.send('held back');
        const drained = Promise.withResolvers();
        socket.data = drained.resolve;
        await drained.promise;
        socket.send('drained');
      },
      drain(socket) { socket.data?.(); },
    },
    '/copies/:name': { async message(socket, message) { await Bun.sleep(1); socket.send(message); }, compression: true, maxPayloadBytes: 4 << 20 },
    '/holding/:name': {
      ...callbacks,
      // Pauses, and begins again long after what had come has been handled.
      async message(socket, message) {
        socket.pause();
        await Bun.sleep(1);
        note(socket, 'handled', message.text());
        setTimeout(() => socket.resume(), 5);
      },
    },
    '/signalled/:name': {
      ...callbacks,
      async message(socket) {
        note(socket, 'waiting', socket.signal.aborted);
        await new Promise((resolve) => socket.signal.addEventListener('abort', resolve));
        note(socket, 'aborted', socket.isOpen, socket.signal.aborted);
      },
      close(socket) { note(socket, 'close', socket.signal.aborted); },
    },
    '/thenable/:name': {
      ...callbacks,
      // Such as the query builders of databases return: they begin when they are awaited.
      message: (socket, message) => ({ then: (resolve) => void callbacks.message(socket, { isBinary: false, text: () => 'sleep 2' }).then(resolve) }),
    },
  },
});
`;

forEachBackend('asynchronous handlers of a WebSocket', (backend) => {
  let gateway: Gateway;
  beforeAll(async () => {
    gateway = await startGateway({ backend, config });
  });
  afterAll(() => gateway?.stop());

  const heard = async (name: string) => (await (await fetch(`${gateway.url}/heard/${name}`)).json()) as string[];
  const open = async (gate: string) => void (await fetch(`${gateway.url}/open/${encodeURIComponent(gate)}`));
  const until = (name: string, word: string) =>
    eventually(`${name} hears ${word}`, async () => {
      const all = await heard(name);
      return all.some((line) => line.startsWith(word)) ? all : undefined;
    }).catch(async (error) => {
      throw new Error(`${error}; heard: ${JSON.stringify(await heard(name))}`);
    });
  const answers = async (wire: Wire, count: number) => {
    const all: string[] = [];
    while (all.length < count) all.push(String((await wire.frame())?.payload));
    return all;
  };
  const send = (wire: Wire, ...texts: string[]) => wire.write(Buffer.concat(texts.map((text) => frame(opcode.text, text))));
  const waiting = () => gateway.metric('ringway_websocket_messages_waiting');
  const pending = () => gateway.metric('ringway_websocket_handlers_pending');
  const dropped = () => gateway.metric('ringway_messages_dropped_total', { reason: 'unhandled' });

  test('run one after the other, in the order of the messages', async () => {
    const wire = await Wire.open(gateway.port, '/order/one');
    const texts = ['sleep 30 a', 'sleep 1 b', 'now c', 'micro d', 'sleep 20 e', 'now f', 'sleep 0 g', 'now h'];
    send(wire, ...texts);
    expect(await answers(wire, texts.length)).toEqual(texts);
    expect(await heard('one')).toEqual(texts.flatMap((text) => [`begin ${text} 1`, `end ${text}`]));
    wire.destroy();
  });

  test('keep their order among pings, and a promise that is no Promise is waited for too', async () => {
    const wire = await Wire.open(gateway.port, '/order/pings');
    wire.write(
      Buffer.concat([
        frame(opcode.text, 'sleep 20'),
        frame(opcode.ping, 'p'),
        frame(opcode.text, 'now'),
        frame(opcode.ping, 'q'),
        frame(opcode.close, closePayload(1000)),
      ]),
    );
    expect(await until('pings', 'close')).toEqual([
      'begin sleep 20 1',
      'end sleep 20',
      'ping p',
      'begin now 1',
      'end now',
      'ping q',
      'close 1000 ',
    ]);
    const other = await Wire.open(gateway.port, '/thenable/thenable');
    send(other, 'x', 'y');
    other.write(frame(opcode.close, closePayload(1000)));
    const once = ['begin sleep 2 1', 'end sleep 2'];
    expect(await until('thenable', 'close')).toEqual([...once, ...once, 'close 1000 ']);
  });

  test('overlap as far as concurrency says, and still begin in order', async () => {
    const wire = await Wire.open(gateway.port, '/three/three');
    send(wire, ...[1, 2, 3, 4, 5, 6, 7].map((n) => `wait three ${n}`));
    await until('three', 'begin wait three 3');
    await eventually('four wait', async () => (await waiting()) === 4);
    expect([await pending(), await heard('three')]).toEqual([3, [1, 2, 3].map((n) => `begin wait three ${n} ${n}`)]);
    await open('three');
    expect(await answers(wire, 7)).toEqual([1, 2, 3, 4, 5, 6, 7].map((n) => `wait three ${n}`));
    const begun = (await heard('three')).filter((line) => line.startsWith('begin'));
    expect(begun.map((line) => Number(line.split(' ')[3]))).toEqual([1, 2, 3, 4, 5, 6, 7]);
    expect(Math.max(...begun.map((line) => Number(line.split(' ')[4])))).toBe(3);
    wire.destroy();
  });

  test('begin only when an asynchronous open has settled: what it subscribes to is not missed', async () => {
    const wire = await Wire.open(gateway.port, '/opening/opening');
    send(wire, 'now a', 'now b');
    await eventually('both wait', async () => (await waiting()) === 2);
    expect(await heard('opening')).toEqual(['opening']);
    await open('opening opening');
    expect(await answers(wire, 2)).toEqual(['now a', 'now b']);
    expect((await heard('opening')).slice(0, 3)).toEqual(['opening', 'opened', 'begin now a 1']);
    await fetch(`${gateway.url}/publish`, { method: 'POST', body: 'news' });
    expect(await answers(wire, 1)).toEqual(['news']);
    wire.destroy();
  });

  test('may wait for drain, which is told at once', async () => {
    const wire = await Wire.open(gateway.port, '/draining/d');
    wire.socket.pause();
    send(wire, 'go');
    await eventually('it is held back', async () => (await gateway.metric('ringway_backpressure_connections')) === 1);
    wire.socket.resume();
    for (;;) {
      const next = await wire.frame();
      if (next === undefined) throw new Error('the end came first');
      if (String(next.payload) === 'drained') break;
    }
    wire.destroy();
  });

  test('find their own bytes, whatever came behind them', async () => {
    const wire = await Wire.open(gateway.port, '/copies/c');
    const payloads = [0, 1, 125, 126, 65535, 65536, 65537, 300_000, 1_000_000, 7].map((bytes, index) => Buffer.alloc(bytes, index + 65));
    for (const payload of payloads) wire.write(frame(opcode.binary, payload));
    for (const payload of payloads) {
      const next = await wire.frame();
      expect([payload.length, next?.payload.equals(payload)]).toEqual([payload.length, true]);
    }
    wire.destroy();
  });

  test('get what came before the close of the client, and close comes last', async () => {
    const wire = await Wire.open(gateway.port, '/order/leaving');
    send(wire, 'wait leaving', 'sleep 1', 'now');
    wire.write(frame(opcode.close, closePayload(3000, 'bye')));
    await wire.untilEnded();
    await until('leaving', 'begin wait');
    expect(await heard('leaving')).toHaveLength(1);
    const before = await dropped();
    await open('leaving');
    expect(await until('leaving', 'close')).toEqual([
      'begin wait leaving 1',
      'end wait leaving',
      'begin sleep 1 1',
      'end sleep 1',
      'begin now 1',
      'end now',
      'close 3000 bye',
    ]);
    expect(await dropped()).toBe(before);
    // Also when there is no close frame, only the end.
    const cut = await Wire.open(gateway.port, '/order/cut');
    send(cut, 'wait cut', 'now');
    await until('cut', 'begin wait');
    await eventually('one waits', async () => (await waiting()) === 1);
    cut.reset();
    await open('cut');
    expect((await until('cut', 'close')).slice(1)).toEqual(['end wait cut', 'begin now 1', 'end now', 'close 1006 ']);
  });

  for (const how of ['fail', 'terminate', 'close']) {
    test(`hear nothing but the close after ${how}: what waited is dropped and counted`, async () => {
      const before = await dropped();
      const wire = await Wire.open(gateway.port, `/order/${how}`);
      send(wire, `wait ${how}`, how, 'now a', 'now b', 'now c');
      await eventually('four wait', async () => (await waiting()) === 4);
      await open(how);
      expect(await wire.closeCode()).toBe({ fail: 1011, terminate: 1006, close: 4001 }[how] as number);
      wire.destroy();
      const all = await until(how, 'close');
      expect(all.filter((line) => line.includes('now'))).toEqual([]);
      expect([(await dropped()) - before, await waiting()]).toEqual([3, 0]);
    });
  }

  test('hold the client back past a bounded queue, and lose nothing', async () => {
    const wires = [await Wire.open(gateway.port, '/order/flood-a'), await Wire.open(gateway.port, '/order/flood-b')];
    // 20 MB from each, and 20,000 messages: the first of them is not done before all the others are written, or held back.
    const payload = Buffer.alloc(1000, 'x');
    const count = 20_000;
    let taken = 0;
    for (const wire of wires) {
      send(wire, 'wait flood');
      const block = Buffer.concat(Array.from({ length: 100 }, () => frame(opcode.binary, payload)));
      for (let i = 0; i < count; i += 100) {
        wire.socket.write(block, () => {
          taken += 100;
        });
      }
    }
    await eventually('the clients are held back', async () => {
      const before = taken;
      await Bun.sleep(200);
      return taken === before && (await gateway.metric('ringway_websocket_handler_pauses_total')) >= 2;
    });
    expect(taken).toBeLessThan(2 * count);
    // What a turn had delivered when the first pause met the core: at most a batch of a MiB and 4,096 messages.
    expect(await waiting()).toBeLessThanOrEqual(4096 + 512);
    expect(await gateway.metric('ringway_websocket_waiting_bytes')).toBeLessThanOrEqual((1 << 20) + (128 << 10));
    await open('flood');
    let most = 0;
    const watch = (async () => {
      // From the second time on the core delivers no more than there is room for: 64 KiB, where a message counts 256 bytes more.
      await eventually('half is answered', async () => wires.every((wire) => wire.receivedBytes > (count / 2) * payload.length));
      while (wires.some((wire) => wire.receivedBytes < (count * 9 * payload.length) / 10)) {
        most = Math.max(most, await waiting());
        await Bun.sleep(20);
      }
    })();
    for (const wire of wires) {
      expect(String((await wire.frame())?.payload)).toBe('wait flood');
      for (let i = 0; i < count; i++) expect((await wire.frame())?.payload.length).toBe(payload.length);
    }
    await watch;
    expect(most).toBeLessThanOrEqual(2 * Math.ceil(65536 / (payload.length + 256)));
    for (const wire of wires) wire.destroy();
    await eventually('nothing is pending', async () => (await waiting()) === 0 && (await pending()) === 0);
    expect(await gateway.metric('ringway_websocket_waiting_bytes')).toBe(0);
  });

  test('that pause and resume by themselves still get every message', async () => {
    const wire = await Wire.open(gateway.port, '/holding/holding');
    const texts = Array.from({ length: 300 }, (_, index) => `${index} ${'x'.repeat(300)}`);
    send(wire, ...texts);
    await eventually('all are handled', async () => (await heard('holding')).length === texts.length);
    expect(await heard('holding')).toEqual(texts.map((text) => `handled ${text}`));
    wire.destroy();
  });

  test('learn from the signal that their client has left, before close is called', async () => {
    for (const how of ['close', 'reset']) {
      const wire = await Wire.open(gateway.port, `/signalled/${how}-signal`);
      send(wire, 'x');
      await until(`${how}-signal`, 'waiting');
      if (how === 'reset') wire.reset();
      else wire.write(frame(opcode.close, closePayload(1000)));
      expect(await until(`${how}-signal`, 'close')).toEqual(['waiting false', 'aborted false true', 'close true']);
      wire.destroy();
    }
  });

  test('of Hono run in order too, or as many at a time as concurrency says', async () => {
    const one = await Wire.open(gateway.port, '/hono');
    send(one, 'sleep 20', 'now', 'sleep 1', 'now');
    expect(await answers(one, 4)).toEqual(['sleep 20 1', 'now 1', 'sleep 1 1', 'now 1']);
    const three = await Wire.open(gateway.port, '/hono-three');
    send(three, 'wait hono', 'wait hono', 'wait hono', 'wait hono');
    await eventually('three are pending', async () => (await pending()) === 3 && (await waiting()) === 1);
    await open('hono');
    expect((await answers(three, 4)).slice(0, 3)).toEqual(['wait hono 1', 'wait hono 2', 'wait hono 3']);
    for (const value of ['0', '1.5', '"two"', '1025'])
      expect(await (await fetch(`${gateway.url}/bad/${encodeURIComponent(value)}`)).text()).toContain('write an integer from 1 to 1024');
    one.destroy();
    three.destroy();
  });

  test('are waited for at the end of the gateway, and so is what waits behind them', async () => {
    const wire = await Wire.open(gateway.port, '/order/end');
    send(wire, 'sleep 1500', 'sleep 1', 'now last');
    await eventually('two wait', async () => (await waiting()) === 2);
    gateway.kill('SIGTERM');
    expect(await wire.closeCode()).toBe(1001);
    wire.write(frame(opcode.close, closePayload(1001)));
    await wire.untilEnded();
    expect(await gateway.exited).toBe(0);
    const told = gateway.output().match(/end hears .*/g) ?? [];
    expect(told.map((line) => line.slice('end hears '.length))).toEqual([
      'begin sleep 1500 1',
      'end sleep 1500',
      'begin sleep 1 1',
      'end sleep 1',
      'begin now last 1',
      'end now last',
      'close 1001 ',
    ]);
  });
});
