/** What handlers may do to their own app while it is calling them, and what becomes of errors that cannot even be printed. */
import { describe, expect, test } from 'bun:test';
import { App } from '../../../../src/frontend/uws/index.ts';
import type { HttpResponse, us_socket_context_t, WebSocket } from '../../../../src/frontend/uws/types.ts';
import { closePayload, frame, handshake, opcode } from '../../../support/frames.mjs';
import { Log, Servers, stderrOf, textOf } from '../../../support/uws-server.ts';

type Data = Record<string, unknown>;

const get = (path: string) => `GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`;
/** What throws when it is made into text. */
const unprintable: readonly (readonly [what: string, make: () => unknown])[] = [
  ['an object without prototype', () => Object.create(null)],
  [
    'an error whose stack throws',
    () =>
      Object.defineProperty(new Error('hidden'), 'stack', {
        get: () => {
          throw new Error('no stack');
        },
      }),
  ],
  [
    'an object that cannot be inspected',
    () =>
      new Proxy(
        {},
        {
          get: () => {
            throw new Error('no properties');
          },
        },
      ),
  ],
];

describe('closing an app', () => {
  test('ends every request and socket, although handlers close others of them meanwhile', async () => {
    using servers = new Servers();
    const responses: HttpResponse[] = [];
    const sockets: WebSocket<Data>[] = [];
    const told = new Log();
    const closeAll = (all: readonly { close(): unknown }[]) => {
      for (const each of all) {
        try {
          each.close();
        } catch {
          // It is closed already.
        }
      }
    };
    const app = App();
    app.get('/held', (response) => {
      responses.push(response);
      response.onAborted(() => {
        told.push('aborted');
        closeAll(responses);
      });
      told.push('held');
    });
    app.ws<Data>('/ws', {
      open: (socket) => void sockets.push(socket),
      close() {
        told.push('closed');
        closeAll(sockets);
        app.close();
      },
    });
    const port = servers.port(app);
    const wires = [];
    for (let index = 0; index < 3; index++) {
      const wire = await servers.connect(port);
      wire.write(get('/held'));
      wires.push(wire, await servers.open(port, '/ws'));
    }
    await told.count(3);
    app.close();
    for (const wire of wires) await wire.untilEnded();
    expect([...told.entries].sort()).toEqual([...Array(3).fill('aborted'), ...Array(3).fill('closed'), ...Array(3).fill('held')]);
  });

  test('within a handler answers nobody any more, and the handler may go on', async () => {
    using servers = new Servers();
    const told = new Log();
    const app = App();
    app.get('/', (response) => {
      response.onAborted(() => told.push('aborted'));
      app.close();
      try {
        response.end('late');
      } catch {
        told.push('dead');
      }
    });
    const wire = await servers.connect(servers.port(app));
    wire.write(get('/'));
    await wire.untilEnded();
    expect(told.entries).toEqual(['aborted', 'dead']);
    expect(wire.received.length).toBe(0);
  });

  test('does not stumble over what a program calls the members of its user data', async () => {
    using servers = new Servers();
    const told = new Log();
    const app = App().ws<Data>('/*', {
      upgrade: (response, _, context) => void response.upgrade({ end: 'of the day', close: 1, send: null }, '', '', '', context),
      open: () => told.push('open') as unknown as undefined,
      message: () => {
        throw new Error('on purpose');
      },
      close: (_, code) => told.push(String(code)) as unknown as undefined,
    });
    const port = servers.port(app);
    const [first, second] = [await servers.open(port), await servers.open(port)];
    expect(
      await stderrOf(async () => {
        first.write(frame(opcode.text, 'x'));
        expect(await first.closeCode()).toBe(1011);
      }),
    ).toContain('on purpose');
    app.close();
    await second.untilEnded();
    expect(told.entries).toEqual(['open', 'open', '1011', '1006']);
  });
});

describe('subscription handlers', () => {
  for (const [what, act] of [
    ['closes the socket', (socket: WebSocket<Data>) => socket.close()],
    ['ends the socket', (socket: WebSocket<Data>) => socket.end(4000, 'again')],
    ['subscribes anew', (socket: WebSocket<Data>) => void [socket.unsubscribe('a'), socket.subscribe('a')]],
    ['closes the app', (_: WebSocket<Data>, close: () => void) => close()],
  ] as const) {
    test(`one that ${what} when a socket goes is told once, and so is the close handler`, async () => {
      using servers = new Servers();
      const told = new Log();
      let isLeaving = false;
      const app = App();
      app.ws<Data>('/*', {
        open: (socket) => void ['a', 'b'].map((topic) => socket.subscribe(topic)),
        subscription(socket, topic, now, before) {
          if (!isLeaving || now > before) return;
          told.push(`left ${textOf(topic)}`);
          if (told.entries.length > 10) return;
          try {
            act(socket, () => app.close());
          } catch {
            // A socket that has been left by its client is dead.
          }
        },
        close: (_, code) => told.push(`closed ${code}`) as unknown as undefined,
      });
      const wire = await servers.open(servers.port(app));
      isLeaving = true;
      wire.write(frame(opcode.close, closePayload(4001)));
      await wire.untilEnded();
      await told.until((entries) => entries.some((entry) => entry.startsWith('closed')));
      expect(told.entries.filter((entry) => entry.startsWith('closed'))).toEqual(['closed 4001']);
      expect(told.entries.filter((entry) => entry.startsWith('left')).sort()).toEqual(['left a', 'left b']);
      expect([app.numSubscribers('a'), app.numSubscribers('b')]).toEqual([0, 0]);
    });
  }

  test('of a route that is added later count the subscribers that were there before', async () => {
    using servers = new Servers();
    const told = new Log();
    const app = App();
    const member = { open: (socket: WebSocket<Data>) => void socket.subscribe('room') };
    app.ws<Data>('/early', member);
    const port = servers.port(app);
    const early = [await servers.open(port, '/early'), await servers.open(port, '/early')] as const;
    while (app.numSubscribers('room') < 2) await Bun.sleep(0);
    app.ws<Data>('/late', { ...member, subscription: (_, topic, now, before) => void told.push(`${textOf(topic)} ${before} to ${now}`) });
    const late = [await servers.open(port, '/late'), await servers.open(port, '/late')] as const;
    await told.count(2);
    for (const wire of [...early, late[0]]) {
      wire.write(frame(opcode.close, closePayload(1000)));
      await wire.untilEnded();
    }
    await told.count(3);
    late[1].destroy();
    expect(await told.count(4)).toEqual(['room 2 to 3', 'room 3 to 4', 'room 2 to 1', 'room 1 to 0']);
  });

  test('may publish to the topic that is just being joined or left', async () => {
    using servers = new Servers();
    const app = App();
    app.ws<Data>('/*', {
      open: (socket) => void socket.subscribe('room'),
      message: (socket) => socket.end(1000),
      subscription: (_, topic, now, before) => void app.publish(topic, `${before} to ${now}`),
    });
    const port = servers.port(app);
    const first = await servers.open(port);
    expect((await first.frame())?.payload.toString()).toBe('0 to 1');
    const second = await servers.open(port);
    expect((await second.frame())?.payload.toString()).toBe('1 to 2');
    expect((await first.frame())?.payload.toString()).toBe('1 to 2');
    second.write(frame(opcode.text, 'go'));
    expect((await first.frame())?.payload.toString()).toBe('2 to 1');
  });
});

describe('upgrading', () => {
  test('a request that is no handshake, or has an answer already, is refused with an error', async () => {
    using servers = new Servers();
    const told = new Log();
    let known: us_socket_context_t | undefined;
    const app = App();
    app.ws<Data>('/ws', {
      upgrade(response, request, context) {
        known = context;
        if (request.getQuery() === 'begun') response.onAborted(() => {}).write('some');
        try {
          response.upgrade({}, '', '', '', context);
        } catch (error) {
          told.push(String(error));
          throw error;
        }
      },
      open: () => told.push('open') as unknown as undefined,
      close: () => told.push('close') as unknown as undefined,
    });
    app.get('/plain', (response) => void response.upgrade({}, '', '', '', known as us_socket_context_t));
    const port = servers.port(app);
    const socket = await servers.open(port, '/ws');
    const plain = await servers.connect(port);
    const begun = await servers.connect(port);
    const said = await stderrOf(async () => {
      plain.write(get('/plain'));
      expect(await plain.head()).toStartWith('HTTP/1.1 500 ');
      begun.write(handshake('/ws?begun'));
      await begun.untilEnded();
    });
    expect(said.match(/needs a WebSocket handshake that waits for its answer/g)?.length).toBe(2);
    expect(told.entries.filter((entry) => entry === 'open').length).toBe(1);
    socket.destroy();
    await told.until((entries) => entries.includes('close'));
  });

  test('when the client has just left gives a socket that is closed, or the abort: never neither', async () => {
    using servers = new Servers();
    const told = new Log();
    let waiting: (() => void) | undefined;
    const app = App();
    app.get('/now', (response) => {
      try {
        waiting?.();
      } catch {
        told.push('dead');
      }
      response.end();
    });
    app.ws<Data>('/ws', {
      upgrade(response, _, context) {
        response.onAborted(() => told.push('aborted'));
        waiting = () => response.upgrade({}, '', '', '', context);
        told.push('waits');
      },
      open: () => told.push('open') as unknown as undefined,
      close: () => told.push('close') as unknown as undefined,
    });
    const port = servers.port(app);
    for (let round = 0; round < 20; round++) {
      told.entries.length = 0;
      const [client, other] = [await servers.connect(port), await servers.connect(port)];
      client.write(handshake('/ws'));
      await told.count(1);
      const leave = () => (round % 4 < 2 ? client.reset() : client.socket.end());
      if (round % 2 === 0) leave();
      other.write(get('/now'));
      if (round % 2 === 1) leave();
      await other.head();
      await told.until((entries) => entries.includes('close') || entries.includes('aborted'));
      expect(['waits,open,close', 'waits,aborted', 'waits,aborted,dead']).toContain(told.entries.join());
    }
  });

  test('twice throws, and the socket lives', async () => {
    using servers = new Servers();
    const told = new Log();
    const app = App().ws<Data>('/*', {
      upgrade(response, _, context) {
        response.upgrade({}, '', '', '', context);
        try {
          response.upgrade({}, '', '', '', context);
        } catch {
          told.push('refused');
        }
      },
      message: (socket, message) => void socket.send(message),
    });
    const wire = await servers.open(servers.port(app));
    wire.write(frame(opcode.text, 'alive'));
    expect((await wire.frame())?.payload.toString()).toBe('alive');
    expect(told.entries).toEqual(['refused']);
  });

  test('with a protocol that would break the line is refused with an error', async () => {
    using servers = new Servers();
    const app = App().ws<Data>('/*', {
      upgrade: (response, request, context) =>
        void response.upgrade({}, '', request.getQuery('protocol') ?? '', request.getHeader('sec-websocket-extensions'), context),
    });
    const wire = await servers.connect(servers.port(app));
    const said = await stderrOf(async () => {
      wire.write(handshake('/?protocol=chat%0d%0aSet-Cookie:%20a=b'));
      expect(await wire.head()).toStartWith('HTTP/1.1 500 ');
    });
    expect(wire.received.toString()).not.toContain('Set-Cookie');
    expect(said).toContain('CR, LF or NUL');
  });

  test('with user data that cannot be read fails the request', async () => {
    using servers = new Servers();
    const app = App().ws<Data>('/*', {
      upgrade: (response, _, context) =>
        void response.upgrade(
          {
            get name() {
              throw new Error('no name');
            },
          },
          '',
          '',
          '',
          context,
        ),
    });
    const wire = await servers.connect(servers.port(app));
    const said = await stderrOf(async () => {
      wire.write(handshake('/'));
      await wire.untilEnded();
    });
    expect(said).toContain('no name');
    expect(wire.received.toString()).not.toContain('101');
  });
});

describe('errors that cannot be printed', () => {
  for (const [what, make] of unprintable) {
    test(`${what}: thrown or rejected, the client gets 500, or 1011, and the process lives`, async () => {
      using servers = new Servers();
      const rejections: unknown[] = [];
      const onRejection = (reason: unknown) => rejections.push(reason);
      process.on('unhandledRejection', onRejection);
      const app = App();
      app.get('/thrown', () => {
        throw make();
      });
      app.get('/rejected', async (response) => {
        response.onAborted(() => {});
        await Bun.sleep(0);
        throw make();
      });
      app.ws<Data>('/thrown', {
        message: () => {
          throw make();
        },
      });
      app.ws<Data>('/rejected', {
        async message() {
          await Bun.sleep(0);
          throw make();
        },
      });
      const port = servers.port(app);
      const said = await stderrOf(async () => {
        for (const path of ['/thrown', '/rejected']) {
          const wire = await servers.connect(port);
          wire.write(get(path));
          expect(await wire.head()).toStartWith('HTTP/1.1 500 ');
          const socket = await servers.open(port, path);
          socket.write(frame(opcode.text, 'x'));
          expect(await socket.closeCode()).toBe(1011);
        }
      });
      process.off('unhandledRejection', onRejection);
      expect(rejections).toEqual([]);
      expect(said.match(/handler.* failed: /g)?.length).toBe(4);
    });
  }
});

describe('what a handler returns', () => {
  test('answers 500 when it cannot be asked whether it is a promise', async () => {
    using servers = new Servers();
    const app = App().get('/', (response) => {
      response.onAborted(() => {});
      return Object.defineProperty({}, 'then', {
        get: () => {
          throw new Error('no then');
        },
      }) as never;
    });
    const wire = await servers.connect(servers.port(app));
    const said = await stderrOf(async () => {
      wire.write(get('/'));
      expect(await wire.head()).toStartWith('HTTP/1.1 500 ');
    });
    expect(said).toContain('no then');
  });
});

describe('filters', () => {
  test('count right when a slot was last a WebSocket of an app without filter', async () => {
    using servers = new Servers();
    const counts = new Log<number>();
    const plain = App().ws<Data>('/*', {});
    const filtered = App();
    const count = (_: HttpResponse, change: unknown) => counts.push(change as number);
    filtered.filter(count);
    const [plainPort, filteredPort] = [servers.port(plain), servers.port(filtered)];
    for (let index = 0; index < 3; index++) {
      const socket = await servers.open(plainPort);
      socket.write(frame(opcode.close, closePayload(1000)));
      await socket.untilEnded();
      socket.destroy();
      const wire = await servers.connect(filteredPort);
      await counts.count(2 * index + 1);
      wire.destroy();
      await counts.count(2 * index + 2);
    }
    expect(counts.entries).toEqual([1, -1, 1, -1, 1, -1]);
  });
});

describe('a method that a program has replaced', () => {
  test('is not called by the others', async () => {
    using servers = new Servers();
    const calls: string[] = [];
    const app = App().get('/', (response) => {
      const replaced = response as unknown as Record<string, unknown>;
      for (const name of ['end', 'close', 'write', 'cork']) replaced[name] = () => calls.push(name);
      Object.getPrototypeOf(response).write.call(response, 'first ');
      response.tryEnd('last', 4);
    });
    const wire = await servers.connect(servers.port(app));
    wire.write(get('/').replace('\r\n\r\n', '\r\nConnection: close\r\n\r\n'));
    await wire.untilEnded();
    expect(wire.received.toString()).toContain('last');
    expect(calls).toEqual([]);
  });
});
