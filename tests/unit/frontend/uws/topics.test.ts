/** Topics and backpressure of the uWebSockets.js API. */
import { describe, expect, test } from 'bun:test';
import { App } from '../../../../src/frontend/uws/index.ts';
import type { TemplatedApp, WebSocket, WebSocketBehavior } from '../../../../src/frontend/uws/types.ts';
import { closePayload, frame, opcode } from '../../../support/frames.mjs';
import { bytesOf, Log, Servers, textOf } from '../../../support/uws-server.ts';
import type { Wire } from '../../../support/wire.ts';

type Data = Record<string, unknown>;

interface Member {
  readonly wire: Wire;
  readonly socket: WebSocket<Data>;
}

function serve(servers: Servers, behavior: WebSocketBehavior<Data> = {}) {
  const opened = new Log<WebSocket<Data>>();
  const app = App().ws<Data>('/*', { ...behavior, open: (socket) => opened.push(socket) });
  const port = servers.port(app);
  const join = async (): Promise<Member> => {
    const before = opened.entries.length;
    const wire = await servers.open(port);
    return { wire, socket: (await opened.count(before + 1))[before] as WebSocket<Data> };
  };
  return { app, join };
}

const nextText = async ({ wire }: Member) => (await wire.frame())?.payload.toString();

describe('topics', () => {
  test('a publish of the app reaches every subscriber, one of a socket all but itself', async () => {
    using servers = new Servers();
    const { app, join } = serve(servers);
    const [a, b] = [await join(), await join()];
    expect(a.socket.subscribe('news')).toBe(true);
    expect(b.socket.subscribe('news')).toBe(true);
    expect(app.publish('news', 'to all')).toBe(true);
    expect(a.socket.publish('news', 'to others')).toBe(true);
    expect(app.publish('news', bytesOf('the end'), true)).toBe(true);
    expect([await nextText(a), await nextText(a)]).toEqual(['to all', 'the end']);
    expect([await nextText(b), await nextText(b)]).toEqual(['to all', 'to others']);
    expect((await b.wire.frame())?.opcode).toBe(opcode.binary);
  });

  test('subscribing again is no failure, leaving what one is not in is', async () => {
    using servers = new Servers();
    const { app, join } = serve(servers);
    const { socket } = await join();
    expect([socket.subscribe('t'), socket.subscribe('t')]).toEqual([true, true]);
    expect(app.numSubscribers('t')).toBe(1);
    expect([socket.isSubscribed('t'), socket.isSubscribed('u')]).toEqual([true, false]);
    expect([socket.unsubscribe('t'), socket.unsubscribe('t')]).toEqual([true, false]);
    expect([socket.isSubscribed('t'), app.numSubscribers('t')]).toEqual([false, 0]);
  });

  test('who has never subscribed to anything publishes to nobody; who has left again still may', async () => {
    using servers = new Servers();
    const { join } = serve(servers);
    const [listener, speaker] = [await join(), await join()];
    listener.socket.subscribe('t');
    expect(speaker.socket.publish('t', 'too early')).toBe(false);
    speaker.socket.subscribe('other');
    speaker.socket.unsubscribe('other');
    expect(speaker.socket.publish('t', 'now')).toBe(true);
    expect(await nextText(listener)).toBe('now');
  });

  test('a publish says whether there is anybody else', async () => {
    using servers = new Servers();
    const { app, join } = serve(servers);
    const { socket } = await join();
    expect(app.publish('t', 'x')).toBe(false);
    socket.subscribe('t');
    expect([socket.publish('t', 'x'), socket.publish('u', 'x')]).toEqual([false, false]);
    // As the original has it for what it does not batch.
    expect(socket.publish('t', 'x'.repeat(16384))).toBe(true);
    expect(app.publish('t', 'x')).toBe(true);
  });

  test('a topic may be bytes or nothing, and is the same topic either way', async () => {
    using servers = new Servers();
    const { app, join } = serve(servers);
    const { socket } = await join();
    expect(socket.subscribe(Buffer.from('tøpic'))).toBe(true);
    expect(socket.subscribe('')).toBe(true);
    expect([app.numSubscribers('tøpic'), app.numSubscribers('')]).toEqual([1, 1]);
    expect(socket.getTopics().sort()).toEqual(['', 'tøpic']);
    expect(socket.subscribe('x'.repeat(2000))).toBe(false);
    expect(() => socket.subscribe(7 as never)).toThrow('Text and data can only be passed by String, ArrayBuffer or TypedArray.');
  });

  test('apps of one process do not hear each other, however many there are', async () => {
    using servers = new Servers();
    const others = Array.from({ length: 130 }, () => App());
    const [one, two] = [serve(servers), serve(servers)];
    const [first, second] = [await one.join(), await two.join()];
    first.socket.subscribe('t');
    second.socket.subscribe('t');
    expect(one.app.publish('t', 'one')).toBe(true);
    expect(two.app.publish('t', 'two')).toBe(true);
    expect([await nextText(first), await nextText(second)]).toEqual(['one', 'two']);
    expect([one.app.numSubscribers('t'), two.app.numSubscribers('t')]).toEqual([1, 1]);
    expect(first.socket.getTopics()).toEqual(['t']);
    expect(others.map((app) => app.publish('t', 'x'))).toEqual(others.map(() => false));
  });

  test('topics are left before the close handler is called', async () => {
    using servers = new Servers();
    const counts = new Log<number>();
    const app: TemplatedApp = App().ws<Data>('/*', {
      open: (socket) => void socket.subscribe('t'),
      message: (socket, message) => (textOf(message) === 'end' ? socket.end(1000) : socket.close()),
      close: () => counts.push(app.numSubscribers('t')),
    });
    const port = servers.port(app);
    for (const bytes of [frame(opcode.text, 'close'), frame(opcode.text, 'end'), frame(opcode.close, closePayload(1000))]) {
      const before = counts.entries.length;
      (await servers.open(port)).write(bytes);
      await counts.count(before + 1);
    }
    expect(counts.entries).toEqual([0, 0, 0]);
  });

  test('missing arguments are named', async () => {
    using servers = new Servers();
    const { app, join } = serve(servers);
    const { socket } = await join();
    const bare = (target: object, name: string) => (target as Record<string, (topic?: string) => unknown>)[name]?.bind(target);
    expect(() => bare(socket, 'publish')?.('t')).toThrow('Function requires at least 2 arguments.');
    expect(() => bare(app, 'publish')?.('t')).toThrow('Function requires at least 2 arguments.');
    expect(() => bare(app, 'numSubscribers')?.()).toThrow('Function requires at least 1 arguments.');
  });

  test('an app without WebSocket routes has no topics', () => {
    const app = App();
    expect([app.publish('t', 'x'), app.numSubscribers('t')]).toEqual([false, 0]);
  });
});

describe('subscription handlers', () => {
  test('are told of every change, with the counts before and after', async () => {
    using servers = new Servers();
    const log = new Log();
    const { join } = serve(servers, {
      subscription: (_, topic, now, before) => log.push(`${textOf(topic)} ${before}->${now}`),
    });
    const [a, b] = [await join(), await join()];
    a.socket.subscribe('t');
    b.socket.subscribe('t');
    b.socket.subscribe('t');
    a.socket.unsubscribe('t');
    a.socket.unsubscribe('t');
    expect(log.entries).toEqual(['t 0->1', 't 1->2', 't 2->1']);
  });

  test('are told of each topic of a socket that ends, before its close handler', async () => {
    using servers = new Servers();
    const log = new Log();
    const { join } = serve(servers, {
      subscription: (_, topic, now, before) => log.push(`${textOf(topic)} ${before}->${now}`),
      message: (socket) => socket.end(4000),
      close: (_, code) => log.push(`close ${code}`),
    });
    const [a, b] = [await join(), await join()];
    for (const topic of ['s', 't']) a.socket.subscribe(topic);
    b.socket.subscribe('t');
    log.entries.length = 0;
    a.wire.write(frame(opcode.close, closePayload(4001)));
    expect(await log.count(3)).toEqual(['s 1->0', 't 2->1', 'close 4001']);
    b.wire.write(frame(opcode.text, 'x'));
    expect((await log.count(5)).slice(3)).toEqual(['t 1->0', 'close 4000']);
  });

  test('count each of several sockets that end in one batch', async () => {
    using servers = new Servers();
    const log = new Log();
    const { join } = serve(servers, { subscription: (_, __, now, before) => log.push(`${before}->${now}`) });
    const members = [await join(), await join(), await join()];
    for (const { socket } of members) socket.subscribe('t');
    log.entries.length = 0;
    for (const { wire } of members) wire.write(frame(opcode.close));
    expect(await log.count(3)).toEqual(['3->2', '2->1', '1->0']);
  });
});

describe('backpressure', () => {
  const megabyte = 'x'.repeat(1 << 20);

  /** A member that reads nothing, sent to until the kernel takes no more. */
  async function clog({ wire, socket }: Member): Promise<number[]> {
    wire.socket.pause();
    const statuses: number[] = [];
    // The kernel's buffers hold a few megabytes.
    for (let sent = 0; sent < 64 && statuses.at(-1) !== 2; sent++) statuses.push(socket.send(megabyte));
    return statuses;
  }

  test('send says 1 while it goes out, 0 when it waits, 2 when it is dropped, and dropped and drain are called', async () => {
    using servers = new Servers();
    const dropped: [bytes: number, isBinary: boolean][] = [];
    const kept: ArrayBuffer[] = [];
    const drained = new Log<number>();
    const { join } = serve(servers, {
      maxBackpressure: 4 << 20,
      dropped(_, message, isBinary) {
        dropped.push([message.byteLength, isBinary]);
        kept.push(message);
      },
      drain: (socket) => drained.push(socket.getBufferedAmount()),
    });
    const member = await join();
    expect(member.socket.getBufferedAmount()).toBe(0);
    const statuses = await clog(member);
    expect(statuses[0]).toBe(1);
    expect(statuses).toContain(0);
    expect(statuses.at(-1)).toBe(2);
    expect([...statuses].sort((a, b) => (a === 1 ? -1 : a) - (b === 1 ? -1 : b))).toEqual(statuses);
    expect(dropped).toEqual([[1 << 20, false]]);
    expect(kept[0]?.byteLength).toBe(0);
    expect(member.socket.getBufferedAmount()).toBeGreaterThan(0);
    member.wire.socket.resume();
    expect(await drained.count(1)).toEqual([0]);
  });

  test('the limit is measured before a message: one may go past it, and the next is dropped, a ping too', async () => {
    using servers = new Servers();
    const dropped: number[] = [];
    const { join } = serve(servers, { maxBackpressure: 1024, dropped: (_, message) => void dropped.push(message.byteLength) });
    const { wire, socket } = await join();
    wire.socket.pause();
    // More than the kernel takes at once.
    const long = 'x'.repeat(32 << 20);
    expect(socket.send(long)).toBe(0);
    expect(socket.getBufferedAmount()).toBeGreaterThan(1024);
    expect([socket.send('next'), socket.ping('p')]).toEqual([2, 2]);
    expect(dropped).toEqual([4, 1]);
    wire.socket.resume();
    expect((await wire.frame())?.payload.byteLength).toBe(long.length);
  });

  test('what a publish drops is told as well', async () => {
    using servers = new Servers();
    const dropped = new Log<[text: string, isBinary: boolean]>();
    const { app, join } = serve(servers, {
      maxBackpressure: 4 << 20,
      dropped: (_, message, isBinary) => dropped.push([message.byteLength > 100 ? 'long' : textOf(message), isBinary]),
    });
    const member = await join();
    member.socket.subscribe('t');
    await clog(member);
    // What is short may still find room: only what does not is dropped.
    for (let sent = 0; sent < 8; sent++) app.publish('t', megabyte, true);
    expect((await dropped.count(2)).slice(0, 2)).toEqual([
      ['long', false],
      ['long', true],
    ]);
  });

  test('with closeOnBackpressureLimit the socket ends instead', async () => {
    using servers = new Servers();
    const closes = new Log<[number, string]>();
    let drops = 0;
    const { join } = serve(servers, {
      maxBackpressure: 4 << 20,
      closeOnBackpressureLimit: true,
      dropped: () => void drops++,
      close: (_, code, reason) => closes.push([code, textOf(reason)]),
    });
    const member = await join();
    const statuses = await clog(member);
    expect(statuses.at(-1)).toBe(2);
    expect(drops).toBe(1);
    // A program that sends until there is backpressure comes to an end with a socket that is gone.
    expect(member.socket.getBufferedAmount()).toBeGreaterThanOrEqual(4 << 20);
    expect(await closes.count(1)).toEqual([[1006, 'Received TCP FIN before WebSocket close frame']]);
  });

  test('a program that sends until there is backpressure is called again when it has drained', async () => {
    using servers = new Servers();
    let rounds = 0;
    const finished = new Log<number>();
    const fill = (socket: WebSocket<Data>) => {
      while (socket.getBufferedAmount() < 1024) socket.send('y'.repeat(30_000));
      rounds++;
    };
    const port = servers.port(
      App().ws<Data>('/*', {
        open: fill,
        drain(socket) {
          if (rounds < 3) fill(socket);
          else finished.push(rounds);
        },
      }),
    );
    const wire = await servers.open(port);
    wire.socket.resume();
    expect(await finished.count(1)).toEqual([3]);
  });
});

describe('settings', () => {
  const route = (behavior: WebSocketBehavior<Data>) => () => App().ws('/*', behavior);

  test('are refused with the words of the original when they are out of range', () => {
    expect(route({ idleTimeout: 7 })).toThrow('idleTimeout must be either 0 or greater than 8!');
    expect(route({ idleTimeout: 961 })).toThrow('idleTimeout must not be greater than 960 seconds!');
    expect(route({ maxLifetime: 241 })).toThrow('maxLifetime must not be greater than 240 minutes!');
    for (const behavior of [{ idleTimeout: 0 }, { idleTimeout: 8 }, { idleTimeout: 960 }, { maxLifetime: 240 }]) {
      expect(route(behavior)).not.toThrow();
    }
  });

  test('a route needs a pattern and settings', () => {
    const app = App() as unknown as { ws(...values: unknown[]): unknown };
    expect(() => app.ws('/*')).toThrow('Function requires at least 2 arguments.');
    expect(() => app.ws(5, {})).toThrow('Text and data can only be passed by String, ArrayBuffer or TypedArray.');
  });
});
