import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test';
import { eventually } from '../support/eventually.ts';
import { closePayload, frame, opcode } from '../support/frames.mjs';
import { forEachBackend, type Gateway, startGateway } from '../support/gateway.ts';
import { config, type Happening, type Remote, remoteOf } from '../support/remote-sockets.ts';
import { Wire } from '../support/wire.ts';

// Only ends a test that has failed: nothing here is measured in time.
setDefaultTimeout(60_000);

forEachBackend('handlers of a WebSocket', (backend) => {
  let gateway: Gateway;
  let remote: Remote;
  beforeAll(async () => {
    gateway = await startGateway({ backend, config });
    remote = remoteOf(gateway);
  });
  afterAll(() => gateway?.stop());

  /** Gather what is heard until `done` says that it is enough. */
  async function until(done: (all: Happening[]) => boolean): Promise<Happening[]> {
    const all: Happening[] = [];
    await eventually('the callbacks are called', async () => {
      all.push(...(await remote.events()));
      return done(all);
    }).catch((error) => {
      throw new Error(`${error}; heard: ${JSON.stringify(all)}`);
    });
    return all;
  }
  const heard = (name: string, event: string) => (all: Happening[]) => all.some(([who, what]) => who === name && what === event);

  test('hear open, messages, pings, pongs and close, each once and in order', async () => {
    const wire = await Wire.open(gateway.port, '/control/all');
    wire.write(
      Buffer.concat([frame(opcode.text, 'one'), frame(opcode.ping, 'knock'), frame(opcode.text, 'two'), frame(opcode.pong, 'who')]),
    );
    wire.write(frame(opcode.close, closePayload(3456, 'so long')));
    expect(await until(heard('all', 'close'))).toEqual([
      ['all', 'open'],
      ['all', 'message', 'one'],
      ['all', 'ping', 'knock'],
      ['all', 'message', 'two'],
      ['all', 'pong', 'who'],
      ['all', 'close', 3456, 'so long'],
    ]);
    const state = await remote.state('all');
    expect(state).toMatchObject({ isOpen: false, bufferedAmount: 0 });
    for (const method of ['send', 'publish']) {
      const { result } = await remote.call('all', method, 'x', 'y');
      expect(result).toBe(method === 'send' ? 'closed' : 'accepted');
    }
    expect((await remote.call('all', 'isSubscribed', 'x')).result).toBe(false);
    for (const method of ['ping', 'close', 'terminate', 'pause', 'resume'])
      expect(await remote.call('all', method)).toEqual({ result: null });
  });

  test('reach their client: send, ping, close with a code and a reason', async () => {
    const wire = await Wire.open(gateway.port, '/control/reach');
    await until(heard('reach', 'open'));
    expect(await remote.state('reach')).toEqual({ isOpen: true, bufferedAmount: 0, remoteAddress: '127.0.0.1', protocol: '' });
    expect(await remote.call('reach', 'send', 'hello')).toEqual({ result: 'sent' });
    expect(await wire.frame()).toEqual({ fin: true, opcode: opcode.text, payload: Buffer.from('hello') });
    await remote.call('reach', 'ping', 'tick');
    expect(await wire.frame()).toEqual({ fin: true, opcode: opcode.ping, payload: Buffer.from('tick') });
    await remote.call('reach', 'close', 4002, 'until ñext time');
    expect(await remote.state('reach')).toMatchObject({ isOpen: false });
    expect(await remote.call('reach', 'send', 'too late')).toEqual({ result: 'closed' });
    expect(await wire.frame()).toEqual({ fin: true, opcode: opcode.close, payload: closePayload(4002, 'until ñext time') });
    wire.write(frame(opcode.close, closePayload(4002)));
    expect(await until(heard('reach', 'close'))).toEqual([['reach', 'close', 4002, '']]);
    expect(await wire.untilEnded()).toBe('end');
  });

  test('may not say what RFC 6455 forbids', async () => {
    const wire = await Wire.open(gateway.port, '/control/wrong');
    await until(heard('wrong', 'open'));
    const invalid = { code: 'RW_INVALID_ARGUMENT' };
    for (const code of [0, 999, 1004, 1005, 1006, 1015, 2999, 5000])
      expect(await remote.call('wrong', 'close', code)).toMatchObject(invalid);
    expect(await remote.call('wrong', 'close', 1000, 'x'.repeat(124))).toMatchObject(invalid);
    expect(await remote.call('wrong', 'close', 1000, 'é'.repeat(62))).toMatchObject(invalid);
    expect(await remote.call('wrong', 'ping', 'x'.repeat(126))).toMatchObject(invalid);
    expect(await remote.call('wrong', 'subscribe', '')).toMatchObject(invalid);
    expect(await remote.call('wrong', 'subscribe', 'x'.repeat(1025))).toMatchObject(invalid);
    expect(await remote.call('wrong', 'send', 7)).toMatchObject(invalid);
    expect((await remote.state('wrong')).isOpen).toBe(true);
    wire.destroy();
  });

  test('end a client that does not answer the close, and hear 1006', async () => {
    const wire = await Wire.open(gateway.port, '/control/stubborn');
    await until(heard('stubborn', 'open'));
    await remote.call('stubborn', 'close', 1000);
    expect(await wire.closeCode()).toBe(1000);
    // It goes on talking, and is not heard.
    wire.write(frame(opcode.text, 'la la la'));
    const after = await until(heard('stubborn', 'close'));
    expect(after).toEqual([['stubborn', 'close', 1006, '']]);
    await wire.untilEnded();
  });

  test('terminate at once; the client sees the end without a close frame', async () => {
    const wire = await Wire.open(gateway.port, '/control/doomed');
    await until(heard('doomed', 'open'));
    await remote.call('doomed', 'terminate');
    expect(await wire.closeCode()).toBe(1006);
    expect(await until(heard('doomed', 'close'))).toEqual([['doomed', 'close', 1006, '']]);
  });

  test('hear nothing but the close once they have closed or terminated, though more came in the same segment', async () => {
    for (const [word, code] of [
      ['close', 1006],
      ['terminate', 1006],
    ] as const) {
      const wire = await Wire.open(gateway.port, `/twice/${word}`);
      wire.write(Buffer.concat([frame(opcode.text, word), frame(opcode.text, 'more'), frame(opcode.ping), frame(opcode.text, 'and more')]));
      if (word === 'close') {
        expect(await wire.closeCode()).toBe(4000);
        wire.reset();
      }
      const all = await until(heard(word, 'close'));
      expect(all).toEqual([
        [word, 'open'],
        [word, 'message', word],
        [word, 'close', code, ''],
      ]);
    }
  });

  test('are told closed by isOpen and send from the line after close and terminate', async () => {
    for (const method of ['close', 'terminate']) {
      const wire = await Wire.open(gateway.port, `/twice/${method}-state`);
      wire.write(frame(opcode.text, `then ${method}`));
      const all = await until(heard(`${method}-state`, 'state'));
      expect(all.find(([, event]) => event === 'state')?.slice(2)).toEqual([false, 'closed']);
      wire.destroy();
    }
  });

  test('may be asynchronous and read their message after an await, also a large one', async () => {
    const wire = await Wire.open(gateway.port, '/later/a');
    for (const length of [5, 70_000, 1024 * 1024]) {
      const payload = crypto.getRandomValues(new Uint8Array(Math.min(length, 65536)));
      const bytes = Buffer.alloc(length, payload);
      wire.write(frame(opcode.binary, bytes));
      // Others come meanwhile and take the place of the bytes.
      wire.write(frame(opcode.text, 'in between'));
      const frames = [await wire.frame(), await wire.frame(), await wire.frame(), await wire.frame()];
      const binary = frames.filter((each) => each?.opcode === opcode.binary);
      expect(binary.map((each) => each?.payload.equals(bytes))).toEqual([true, true]);
      expect(frames.filter((each) => each?.opcode === opcode.text).map((each) => String(each?.payload))).toEqual([
        'in between',
        'in between',
      ]);
    }
    wire.destroy();
  });

  test('that keep a message and read it later get RW_MESSAGE_EXPIRED', async () => {
    const wire = await Wire.open(gateway.port, '/keep/k');
    for (const bytes of [10, 500_000]) {
      wire.write(frame(opcode.text, 'x'.repeat(bytes)));
      wire.write(frame(opcode.ping));
      await wire.frame();
      const expired = { text: 'RW_MESSAGE_EXPIRED', bytes: 'RW_MESSAGE_EXPIRED', json: 'RW_MESSAGE_EXPIRED' };
      expect(await (await fetch(`${gateway.url}/expired`)).json()).toEqual(expired);
    }
    wire.destroy();
  });

  test('may pause: nothing is heard, the client is held back, and all of it comes after resume', async () => {
    const wire = await Wire.open(gateway.port, '/control/paused');
    await until(heard('paused', 'open'));
    await remote.call('paused', 'pause');
    const message = frame(opcode.binary, new Uint8Array(64 * 1024));
    let written = 0;
    let taken = 0;
    for (; written < 400; written++) {
      wire.socket.write(message, () => {
        taken += 1;
      });
    }
    await eventually('the client is held back', async () => {
      const before = taken;
      await Bun.sleep(100);
      return taken === before;
    });
    expect(taken).toBeLessThan(written);
    expect((await remote.events()).length).toBe(0);
    await remote.call('paused', 'resume');
    let messages = 0;
    await eventually('every message is heard', async () => {
      messages += (await remote.events()).filter(([, event]) => event === 'message').length;
      return messages === written;
    });
    wire.destroy();
  });

  test('that fail close their socket with 1011, are logged with their stack and counted, and the worker lives', async () => {
    const pids = await gateway.workerPids();
    for (const how of ['throw', 'reject']) {
      const provoke: Record<string, (wire: Wire, name: string) => Promise<unknown>> = {
        open: async () => {},
        message: async (wire) => wire.write(frame(opcode.text, 'x')),
        ping: async (wire) => wire.write(frame(opcode.ping, 'x')),
        pong: async (wire) => wire.write(frame(opcode.pong, 'x')),
        close: async (wire) => wire.write(frame(opcode.close, closePayload(1000))),
      };
      for (const [event, act] of Object.entries(provoke)) {
        const before = await gateway.metric('ringway_handler_errors_total');
        const name = `${how}-${event}`;
        const wire = await Wire.open(gateway.port, `/${how}/${event}/${name}`);
        await act(wire, name);
        expect([name, await wire.closeCode()]).toEqual([name, event === 'close' ? 1000 : 1011]);
        wire.write(frame(opcode.close, closePayload(1011)));
        await until(heard(name, event === 'close' ? 'failing' : 'close'));
        expect([name, (await gateway.metric('ringway_handler_errors_total')) - before]).toEqual([name, 1]);
        const line = `the ${event} handler of /${how}/${event}/:name failed`;
        await eventually(line, () => gateway.output().includes(line));
        wire.destroy();
      }
    }
    expect(gateway.output()).toMatch(/thrown on purpose[\s\S]{0,80}at [\s\S]*gateway\.config\.ts/);
    expect(gateway.output()).toContain('rejected on purpose');
    expect(await gateway.workerPids()).toEqual(pids);
  });

  test('for drain and dropped that fail close their socket too', async () => {
    for (const how of ['throw', 'reject']) {
      for (const event of ['drain', 'dropped']) {
        const before = await gateway.metric('ringway_handler_errors_total');
        const name = `${how}-${event}`;
        const wire = await Wire.open(gateway.port, `/${how}/${event}/${name}`);
        wire.socket.pause();
        await until(heard(name, 'open'));
        const { results } = await remote.flood(name, 400, 60_000);
        expect(results.dropped).toBeGreaterThan(0);
        wire.socket.resume();
        await until(heard(name, 'failing'));
        expect([name, await wire.closeCode()]).toEqual([name, 1011]);
        expect([name, (await gateway.metric('ringway_handler_errors_total')) - before]).toEqual([name, 1]);
        wire.destroy();
      }
    }
  });
});

forEachBackend('time and a WebSocket', (backend) => {
  let gateway: Gateway;
  let remote: Remote;
  beforeAll(async () => {
    gateway = await startGateway({ backend, config });
    remote = remoteOf(gateway);
  });
  afterAll(() => gateway?.stop());

  const closeOf = async (name: string): Promise<Happening> => {
    let found: Happening | undefined;
    await eventually(`${name} is closed`, async () => {
      found = (await remote.events()).find(([who, event]) => who === name && event === 'close');
      return found;
    });
    return found as Happening;
  };

  test('a silent client is closed after the idle timeout, and counted', async () => {
    const before = await gateway.metric('ringway_timeouts_total', { kind: 'idle' });
    const wire = await Wire.open(gateway.port, '/idle/silent');
    expect(await wire.closeCode()).toBe(1006);
    expect(await closeOf('silent')).toEqual(['silent', 'close', 1006, '']);
    expect((await gateway.metric('ringway_timeouts_total', { kind: 'idle' })) - before).toBe(1);
  });

  test('pings keep a client that answers them alive past its idle timeout, and end one that does not', async () => {
    const alive = await Wire.open(gateway.port, '/pinged/alive');
    const dead = await Wire.open(gateway.port, '/pinged/dead');
    let answered = 0;
    // More than the idle timeout of 2 s in pings that come half a second apart or more.
    while (answered < 6) {
      const next = await alive.frame();
      expect(next?.opcode).toBe(opcode.ping);
      alive.write(frame(opcode.pong, next?.payload));
      answered += 1;
    }
    expect(await dead.closeCode()).toBe(1006);
    expect((await remote.state('alive')).isOpen).toBe(true);
    alive.destroy();
  });

  test('a connection that has lived its lifetime is closed with 1000', async () => {
    const wire = await Wire.open(gateway.port, '/short/life');
    expect(await wire.closeCode()).toBe(1000);
    wire.write(frame(opcode.close, closePayload(1000)));
    expect(await closeOf('life')).toEqual(['life', 'close', 1000, '']);
  });

  test('a paused client is not silent: its idle time begins at resume', async () => {
    const wire = await Wire.open(gateway.port, '/idle/held');
    await eventually('it is open', async () => (await remote.events()).some(([who]) => who === 'held'));
    await remote.call('held', 'pause');
    wire.write(frame(opcode.text, 'waiting'));
    // Longer than its idle timeout of 1 s, judged by another connection that is ended by it.
    const other = await Wire.open(gateway.port, '/idle/other');
    await other.closeCode();
    expect((await remote.state('held')).isOpen).toBe(true);
    await remote.call('held', 'resume');
    await eventually('its message is heard', async () =>
      (await remote.events()).some(([who, event]) => who === 'held' && event === 'message'),
    );
    expect(await closeOf('held')).toEqual(['held', 'close', 1006, '']);
    wire.destroy();
  });
});
