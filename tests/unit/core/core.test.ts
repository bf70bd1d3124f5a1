import { afterEach, beforeEach, describe, expect, test } from 'bun:test';
import { randomBytes } from 'node:crypto';
import { readdirSync } from 'node:fs';
import { GatewaySocket } from '../../../src/api/socket.ts';
import type { BackendName, Outcome } from '../../../src/core/core.ts';
import type { RequestHead } from '../../../src/core/http.ts';
import { frame, opcode } from '../../support/frames.mjs';
import { backends, LiveCore } from '../../support/live-core.ts';

let live: LiveCore;
afterEach(() => live.destroy());

function on(name: string, tests: (backend: BackendName) => void): void {
  for (const backend of backends) describe(`${name} on ${backend}`, () => tests(backend));
}

/** Ask on a connection of its own, and take the whole response: its head, and as much body as that announces. */
async function get(): Promise<{ head: string; body: Buffer }> {
  const wire = await live.connect();
  wire.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
  const head = await live.during(wire.head());
  const bytes = Number(/^content-length: (\d+)/im.exec(head)?.[1] ?? 0);
  await live.until('the whole body', () => wire.received.length >= bytes);
  return { head, body: wire.received };
}

on('sending', (backend) => {
  test('strings, buffers, views of buffers and shared memory go out as their bytes', async () => {
    live = new LiveCore(backend);
    const { wire, socket } = await live.open();
    const bytes = new Uint8Array([9, 8, 7, 6, 5, 4, 3, 2]);
    const shared = new SharedArrayBuffer(2);
    const sendables = ['é€😀', '', 'x'.repeat(400_000), bytes, bytes.buffer, bytes.subarray(2, 4), new DataView(bytes.buffer, 4, 2)];
    for (const each of sendables) expect(socket.send(each)).toBe('sent');
    expect(socket.send(new Uint16Array(bytes.buffer, 2, 1))).toBe('sent');
    expect(socket.send(shared as unknown as ArrayBuffer)).toBe('sent');
    const got: (readonly [number, string])[] = [];
    for (let at = 0; at < 9; at++) {
      const next = await live.during(wire.frame());
      got.push([next?.opcode ?? 0, at < 3 ? (next?.payload.toString() ?? '') : (next?.payload.toString('hex') ?? '')]);
    }
    expect(got).toEqual([
      [1, 'é€😀'],
      [1, ''],
      [1, 'x'.repeat(400_000)],
      [2, '0908070605040302'],
      [2, '0908070605040302'],
      [2, '0706'],
      [2, '0504'],
      [2, '0706'],
      [2, '0000'],
    ]);
  });

  test("after the peer or this side has left, the outcome is 'closed' and nothing is sent", async () => {
    live = new LiveCore(backend);
    const { wire, socket } = await live.open();
    expect(socket.isOpen).toBeTrue();
    socket.close(1000, 'bye');
    expect(socket.isOpen).toBeFalse();
    expect(socket.send('late')).toBe('closed');
    expect(socket.send('x'.repeat(20_000))).toBe('closed');
    expect((await live.during(wire.frame()))?.opcode).toBe(opcode.close);
    wire.destroy();
    await live.until('the close event', () => live.log.some((line) => line.startsWith('close')));
    expect(socket.send('late')).toBe('closed');
    expect(socket.bufferedAmount).toBe(0);
  });

  for (const maxBackpressureBytes of [4096, 100_000]) {
    test(`past ${maxBackpressureBytes} bytes of backpressure: exactly what is said to be dropped does not arrive`, async () => {
      live = new LiveCore(backend, { behavior: { maxBackpressureBytes } });
      const { wire, socket } = await live.open();
      socket.subscribe('t');
      const outcomes = new Map<Outcome, number>();
      const expected: number[] = [];
      // The client is in this thread: it reads nothing until there is an await.
      for (let at = 0; at < 60_000 && (outcomes.get('dropped') ?? 0) < 50; at++) {
        const message = `${at} `.padEnd(1000, 'é');
        const outcome = socket.send(message);
        outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
        if (outcome !== 'dropped') expected.push(at);
        if (at % 12 === 11) live.turn();
      }
      // Two messages fill the small limit: whether one of them meets backpressure depends on where the kernel's buffer ends.
      if (maxBackpressureBytes < 10_000) outcomes.delete('backpressure');
      expect([...outcomes.keys()].sort()).toEqual(
        maxBackpressureBytes < 10_000 ? ['dropped', 'sent'] : ['backpressure', 'dropped', 'sent'],
      );
      expect(socket.bufferedAmount).toBeGreaterThan(0);
      expect(socket.bufferedAmount).toBeLessThanOrEqual(maxBackpressureBytes);
      const texts = await live.texts(wire, expected.length);
      expect(texts.map((text) => Number(text.slice(0, text.indexOf(' '))))).toEqual(expected);
      expect(socket.bufferedAmount).toBe(0);
      expect(live.log.filter((line) => line.startsWith('dropped')).reduce((sum, line) => sum + Number(line.split(' ')[2]), 0)).toBe(50);
      expect(live.log.at(-1)).toBe(`drain ${socket.slot}`);
      expect(socket.send('again')).toBe('sent');
      expect(await live.texts(wire, 1)).toEqual(['again']);
    });
  }

  test("what a publish of the same tick has taken of the limit counts: a send that is dropped is never called 'sent'", async () => {
    live = new LiveCore(backend, { behavior: { maxBackpressureBytes: 17_000 } });
    const { wire, socket } = await live.open();
    socket.subscribe('t');
    let sent = 0;
    for (let round = 0; round < 10; round++) {
      const published = 'p'.repeat(16_900 - 317 * round);
      // The client reads nothing meanwhile: the buffers of the kernel fill, at another byte in each round.
      for (let dropped = 0; dropped < 3; live.turn()) {
        live.topics.publish('t', published);
        if (socket.send('s'.repeat(5000)) === 'dropped') dropped++;
        else sent++;
      }
      await live.until('all is taken', () => socket.bufferedAmount === 0);
    }
    socket.send('end');
    let arrived = 0;
    const count = async () => {
      for (let next = await wire.frame(); next?.payload.toString() !== 'end'; next = await wire.frame()) {
        if (next === undefined) throw new Error('the connection ended');
        if (next.payload.length === 5000) arrived++;
      }
    };
    await live.during(count());
    expect(arrived).toBe(sent);
  });

  test("where the policy is to close, the outcome past the limit is 'closed', and the close event says 1008", async () => {
    live = new LiveCore(backend, { behavior: { maxBackpressureBytes: 100_000, closeOnBackpressure: true } });
    const { socket } = await live.open();
    const chunk = new Uint8Array(60_000);
    let outcome: Outcome;
    do outcome = socket.send(chunk);
    while (outcome === 'sent' || outcome === 'backpressure');
    expect(outcome).toBe('closed');
    await live.until('the close event', () => live.log.includes(`close ${socket.slot} 1008 `));
  });

  test('bufferedAmount counts each byte once: queued, applied, and none once the kernel has it', async () => {
    live = new LiveCore(backend);
    const { socket } = await live.open();
    expect(socket.bufferedAmount).toBe(0);
    socket.send('12345');
    expect(socket.bufferedAmount).toBe(7);
    socket.send('é'.repeat(100));
    expect(socket.bufferedAmount).toBe(7 + 204);
    socket.isSubscribed('flushes');
    expect(socket.bufferedAmount).toBe(7 + 204);
    await live.until('the kernel has it', () => socket.bufferedAmount === 0);
  });

  test('more commands and more data in one batch than their areas hold: nothing is lost, and the order stays', async () => {
    live = new LiveCore(backend);
    const { wire, socket } = await live.open();
    const expected: string[] = [];
    for (let at = 0; at < 1500; at++) {
      const topic = `topic ${at}`;
      const message = `${at}`.padEnd(1000, '.');
      // Three commands and a kilobyte for each: 4,500 commands, 1.5 MB.
      socket.subscribe(topic);
      live.topics.publish(topic, message);
      socket.unsubscribe(topic);
      expected.push(message);
    }
    for (let at = 0; at < 5000; at++) expected.push(`${at}`);
    for (let at = 0; at < 5000; at++) socket.send(`${at}`);
    expect(await live.texts(wire, expected.length)).toEqual(expected);
    expect(live.core.subscribers('topic 0')).toBe(0);
  });

  test('a socket has so many topics and no more: subscribe says so, however they come', async () => {
    live = new LiveCore(backend);
    const { socket } = await live.open();
    const full: string[] = [];
    live.core.onTopicsFull = (whose, most) => void full.push(`${whose} ${most}`);
    for (let at = 0; at < 1000; at++) expect(socket.subscribe(`topic ${at}`)).toBe(true);
    expect(full).toEqual([]);
    expect(socket.subscribe('one more')).toBe(false);
    expect(full).toEqual(['socket 1000']);
    expect(socket.isSubscribed('one more')).toBe(false);
    expect(socket.isSubscribed('topic 999')).toBe(true);
    expect(socket.subscribe('topic 7')).toBe(true);
    socket.unsubscribe('topic 7');
    expect(socket.subscribe('one more')).toBe(true);
    expect(socket.subscribe('topic 7')).toBe(false);
    socket.close();
    expect(socket.subscribe('late')).toBe(false);
    expect(full).toEqual(['socket 1000', 'socket 1000']);
  });

  test('a command without data is taken when the data area is exactly full', async () => {
    live = new LiveCore(backend);
    const { wire, socket } = await live.open();
    socket.subscribe('t');
    live.onRequest = (head) => {
      live.topics.publish('t', new Uint8Array((1 << 20) - 1));
      live.core.respond(head, 204, '', '');
      live.core.close(socket.slot, socket.generation, 0, '');
    };
    expect((await get()).head).toStartWith('HTTP/1.1 204 ');
    expect((await live.during(wire.frame()))?.payload.length).toBe((1 << 20) - 1);
    expect((await live.during(wire.frame()))?.opcode).toBe(opcode.close);
  });
});

on('HTTP responses', (backend) => {
  beforeEach(() => {
    live = new LiveCore(backend);
  });

  const large = new Uint8Array(randomBytes(3_000_000));
  const bodies = {
    'no body': null,
    'an empty text': '',
    'a text': 'plain',
    'a text that is not latin1': 'é€😀'.repeat(3),
    'a text that fills the data area': 'x'.repeat(349_000),
    'a text larger than the data area': '€'.repeat(400_000),
    'no bytes': new Uint8Array(0),
    'a few bytes': large.subarray(1, 100),
    'bytes past the eager size': large.subarray(1, 20_000),
    'bytes larger than the data area': large,
  };
  for (const [name, body] of Object.entries(bodies)) {
    test(`with ${name}`, async () => {
      live.onRequest = (head) => live.core.respond(head, 200, 'x-a: 1\r\n', body);
      const response = await get();
      expect(response.head).toStartWith('HTTP/1.1 200 OK\r\n');
      expect(response.head).toContain('\r\nx-a: 1\r\n');
      expect(response.body.equals(Buffer.from((body ?? '') as string))).toBeTrue();
    });
  }

  test('header values are latin1 bytes, and a header block may be large', async () => {
    const long = 'v'.repeat(10_000);
    live.onRequest = (head) => live.core.respond(head, 200, `x-name: caf\xe9 \xff\r\nx-long: ${long}\r\n`, 'ü');
    const { head, body } = await get();
    expect(head).toContain('\r\nx-name: caf\xe9 \xff\r\n');
    expect(head).toContain(`\r\nx-long: ${long}\r\n`);
    expect(body.toString()).toBe('ü');
  });

  test('the announced length of a streamed response may need more than 32 bits', async () => {
    for (const length of [0, 1, 2 ** 32 - 1, 2 ** 32, 5_000_000_001, 2 ** 47 + 3]) {
      live.onRequest = (head) => live.core.respondBegin(head, 200, 'x-caf: \xe9\r\n', length);
      const wire = await live.connect();
      wire.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
      const head = await live.during(wire.head());
      expect(head.toLowerCase()).toContain(`\r\ncontent-length: ${length}\r\n`);
      expect(head).toContain('\r\nx-caf: \xe9\r\n');
    }
  });

  test('a streamed response tells how much waits, and ends', async () => {
    const chunk = new Uint8Array(100_000);
    const waiting: number[] = [];
    live.onRequest = (head) => {
      live.core.respondBegin(head, 200, '', 300_002);
      for (const part of [chunk, chunk, chunk, 'é']) waiting.push(live.core.respondChunk(head, part));
      live.core.respondEnd(head);
    };
    const { head, body } = await get();
    expect(body.length).toBe(300_002);
    expect(waiting.map((bytes) => bytes - head.length)).toEqual([100_000, 200_000, 300_000, 300_002]);
  });

  test('pipelined requests are answered in order; answers to a request that is over do nothing', async () => {
    const wire = await live.connect();
    live.onRequest = (head) => {
      const [before] = live.requests.slice(-2, -1);
      if (before !== undefined) live.core.respond(before, 200, '', 'again');
      live.core.respond(head, 200, '', `answer ${live.requests.length}`);
      live.core.respond(head, 200, '', 'twice');
    };
    wire.write(
      'GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n',
    );
    await live.during(wire.untilEnded());
    const bodies = wire.received.toString().match(/\r\n\r\n[a-z]+ ?\d?/g);
    expect(bodies).toEqual(['\r\n\r\nanswer 1', '\r\n\r\nanswer 2', '\r\n\r\nanswer 3']);
  });

  test('a request head has its parts, and the address of its client', async () => {
    live.onRequest = (head) => live.core.respond(head, 200, '', '');
    const wire = await live.connect();
    wire.write('POST /p?q=1 HTTP/1.1\r\nHost: A.example:1\r\nX-N: caf\xe9\r\nContent-Length: 3\r\n\r\nabc');
    await live.during(wire.head());
    const [head] = live.requests;
    expect(head).toMatchObject({ method: 3, listener: 0, flags: 1, hostBytes: 11, targetBytes: 6 });
    expect(head?.raw).toStartWith('A.example:1/p?q=1host\nA.example:1\nx-n\n');
    const address = { address: '127.0.0.1', port: wire.socket.localPort as number };
    expect(live.core.remoteAddress(head as RequestHead)).toEqual(address);
    expect(live.core.addressOf(head?.slot as number, head?.generation as number)).toEqual(address);
    expect(live.log).toContain(`body ${head?.slot} 3 true`);
  });
});

on('topics and stale connections', (backend) => {
  beforeEach(() => {
    live = new LiveCore(backend);
  });

  test('subscriptions are known at once, within the same tick', async () => {
    const { socket } = await live.open();
    expect(socket.isSubscribed('t')).toBeFalse();
    expect(live.core.subscribers('t')).toBe(0);
    socket.subscribe('t');
    socket.subscribe('t');
    expect(socket.isSubscribed('t')).toBeTrue();
    expect(live.core.subscribers('t')).toBe(1);
    socket.unsubscribe('t');
    expect([socket.isSubscribed('t'), live.core.subscribers('t')]).toEqual([false, 0]);
    expect(live.core.subscribers('')).toBe(0);
    expect(live.core.isSubscribed(socket.slot, socket.generation, '')).toBeFalse();
  });

  test('a socket publishes to all subscribers but itself, also what is larger than the data area', async () => {
    const [one, two] = [await live.open(), await live.open()];
    for (const { socket } of [one, two]) socket.subscribe('tøpic');
    const large = 'é'.repeat(700_000);
    one.socket.publish('tøpic', large);
    one.socket.publish('tøpic', new Uint8Array([1]));
    live.topics.publish('tøpic', 'to all');
    expect(await live.texts(one.wire, 1)).toEqual(['to all']);
    expect(await live.texts(two.wire, 3)).toEqual([large, '\u0001', 'to all']);
  });

  test('commands for a generation that is over reach nobody, neither the old connection nor the one in its slot', async () => {
    const { wire, socket } = await live.open();
    const stale = new GatewaySocket(GatewaySocket.routeOf(socket), socket.slot, socket.generation - 1, undefined, undefined);
    expect([stale.isOpen, stale.bufferedAmount, stale.remoteAddress, stale.isSubscribed('t')]).toEqual([false, 0, '', false]);
    stale.subscribe('t');
    stale.ping('x');
    stale.pause();
    expect(stale.send('text')).toBe('closed');
    stale.close(1000);
    stale.terminate();
    expect([live.core.subscribers('t'), socket.isOpen]).toEqual([0, true]);
    socket.subscribe('t');
    stale.unsubscribe('t');
    // It is no subscriber, so there is nobody to leave out.
    stale.publish('t', 'published');
    socket.send('sent');
    expect(await live.texts(wire, 2)).toEqual(['published', 'sent']);
    const outside = new GatewaySocket(GatewaySocket.routeOf(socket), 1 << 24, 1, undefined, undefined);
    expect([outside.isOpen, outside.bufferedAmount, outside.send('x')]).toEqual([false, 0, 'closed']);
    outside.terminate();
  });

  test('pings, pongs and the close of the client arrive as events', async () => {
    const { wire, socket } = await live.open();
    socket.ping('hello');
    expect(await live.during(wire.frame())).toMatchObject({ opcode: opcode.ping, payload: Buffer.from('hello') });
    wire.write(
      Buffer.concat([frame(opcode.pong, 'hello'), frame(opcode.ping, 'there'), frame(opcode.close, Buffer.from('\x03\xe8é', 'latin1'))]),
    );
    await live.until('the close event', () => live.log.some((line) => line.startsWith('close')));
    expect(live.log.slice(1, 3)).toEqual([`pong ${socket.slot} hello`, `ping ${socket.slot} there`]);
  });

  test('pause and resume stop and start messages', async () => {
    const { wire, socket } = await live.open();
    const got: string[] = [];
    live.onMessage = (_, message) => got.push(message.text());
    socket.pause();
    live.turn();
    await live.during(wire.writeAll(frame(opcode.text, 'one')));
    for (let turns = 0; turns < 20; turns++) {
      live.turn();
      await new Promise(setImmediate);
    }
    expect(got).toEqual([]);
    socket.resume();
    await live.until('the message', () => got.length === 1);
  });
});

on('arguments', (backend) => {
  test('that may not be are refused with RW_INVALID_ARGUMENT, and do nothing', async () => {
    live = new LiveCore(backend);
    const { wire, socket } = await live.open();
    const long = 'é'.repeat(513);
    const refused: (() => unknown)[] = [
      ...[0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 1008.5, Number.NaN, -1].map((code) => () => socket.close(code)),
      () => socket.close(1000, 'é'.repeat(62)),
      () => socket.close(undefined, 'why'),
      () => socket.ping('é'.repeat(63)),
      () => socket.ping(new Uint8Array(126)),
      ...['', long, undefined as unknown as string].flatMap((topic) => [
        () => socket.subscribe(topic),
        () => socket.unsubscribe(topic),
        () => socket.isSubscribed(topic),
        () => socket.publish(topic, 'x'),
      ]),
      () => socket.send(5 as unknown as string),
      () => socket.send(null as unknown as string),
      () => socket.publish('t', {} as unknown as string),
      () => socket.send(Promise.resolve('x') as unknown as string),
      () => socket.sendJson(Promise.resolve('x')),
    ];
    for (const call of refused) expect(call).toThrow(expect.objectContaining({ code: 'RW_INVALID_ARGUMENT', name: 'TypeError' }));
    for (const call of [() => socket.send(Promise.resolve() as never), () => socket.sendJson(Promise.resolve())])
      expect(call).toThrow('is an await missing');
    const accepted = 'é'.repeat(512);
    socket.subscribe(accepted);
    expect(socket.isSubscribed(accepted)).toBeTrue();
    socket.ping('x'.repeat(125));
    expect((await live.during(wire.frame()))?.payload.length).toBe(125);
    expect(live.log).toEqual([`open ${socket.slot}`]);
  });

  test('close codes and reasons that may be sent are', async () => {
    live = new LiveCore(backend);
    for (const [code, reason] of [
      [1000, ''],
      [1002, 'x'.repeat(123)],
      [1014, 'é'],
      [3000, ''],
      [4999, '😀'.repeat(30)],
    ] as const) {
      const { wire, socket } = await live.open();
      socket.close(code, reason);
      const { payload } = (await live.during(wire.frame())) as { payload: Buffer };
      expect([payload.readUInt16BE(), payload.subarray(2).toString()]).toEqual([code, reason]);
    }
    const { wire, socket } = await live.open();
    socket.close();
    expect(await live.during(wire.frame())).toMatchObject({ opcode: opcode.close, payload: Buffer.alloc(0) });
  });
});

on('turns', (backend) => {
  beforeEach(() => {
    live = new LiveCore(backend);
  });

  test('a command queued outside of dispatch asks for a turn, once a batch; within dispatch it does not', async () => {
    const { wire, socket } = await live.open();
    let calls = 0;
    live.core.onQueued = () => {
      calls++;
    };
    socket.send('a');
    socket.send('b');
    expect([calls, live.core.hasCommands]).toEqual([1, true]);
    live.turn();
    expect(live.core.hasCommands).toBeFalse();
    socket.send('c');
    expect(calls).toBe(2);
    let callsWithin = -1;
    live.onMessage = (from) => {
      const before = calls;
      from.send('answer');
      from.send(new Uint8Array(2_000_000));
      callsWithin = calls - before;
    };
    wire.write(frame(opcode.text, 'x'));
    expect(await live.texts(wire, 4)).toEqual(['a', 'b', 'c', 'answer']);
    expect(callsWithin).toBe(0);
  });

  test('a command that goes past the areas asks for a turn too: nothing else would send it', async () => {
    const { wire, socket } = await live.open();
    socket.subscribe('t');
    live.turn();
    let calls = 0;
    live.core.onQueued = () => {
      calls++;
    };
    const large = new Uint8Array(2_000_000);
    socket.send(large);
    expect(calls).toBe(1);
    live.topics.publish('t', large);
    expect(calls).toBe(2);
    for (let at = 0; at < 2; at++) expect((await live.during(wire.frame()))?.payload.length).toBe(large.length);
    const asked = await live.connect();
    asked.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
    await live.until('the request', () => live.requests.at(-1)?.flags === 0);
    calls = 0;
    live.core.respond(live.requests.at(-1) as never, 200, '', large);
    expect(calls).toBe(1);
    await live.during(asked.head());
  });

  test('a handler that throws is reported; the other events of its batch, and later turns, go on', async () => {
    const { wire } = await live.open();
    const reported: unknown[] = [];
    const got: string[] = [];
    live.core.onHandlerError = (error) => reported.push((error as Error).message);
    live.onMessage = (socket, message) => {
      got.push(message.text());
      if (message.text().startsWith('bad')) throw new Error(message.text());
      socket.send(message);
    };
    wire.write(Buffer.concat(['bad 1', 'good 1', 'bad 2', 'bad 3', 'good 2', 'bad 4'].map((text) => frame(opcode.text, text))));
    expect(await live.texts(wire, 2)).toEqual(['good 1', 'good 2']);
    await live.until('every message', () => got.length === 6);
    expect(reported).toEqual(['bad 1', 'bad 2', 'bad 3', 'bad 4']);
    let calls = 0;
    live.core.onQueued = () => {
      calls++;
    };
    live.sockets[0]?.send('after');
    expect(calls).toBe(1);
  });

  test('when even the report throws, commands outside of dispatch still ask for a turn', async () => {
    const { wire, socket } = await live.open();
    live.core.onHandlerError = (error) => {
      throw error;
    };
    live.onMessage = () => {
      throw new Error('twice');
    };
    wire.write(frame(opcode.text, 'x'));
    const failed = live.until('never', () => false);
    expect(await failed.catch((error: Error) => error.message)).toBe('twice');
    let calls = 0;
    live.core.onQueued = () => {
      calls++;
    };
    socket.send('after');
    expect(calls).toBe(1);
  });

  test('destroying a core gives all descriptors back', async () => {
    await live.open();
    live.destroy();
    const count = () => readdirSync('/proc/self/fd').length;
    await new Promise(setImmediate);
    const before = count();
    for (let at = 0; at < 3; at++) {
      live = new LiveCore(backend);
      await live.open();
      await live.connect();
      live.destroy();
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    expect(count()).toBe(before);
    live = new LiveCore(backend);
  });
});
