/**
 * What handlers of the uWebSockets.js API queue, microtasks and `process.nextTick`, has run when the event that called them has been told:
 * before what they were lent is taken back, and before the next event. What the original does is in tests/contract/scenarios/microtasks.mjs.
 */
import { describe, expect, spyOn, test } from 'bun:test';
import { AppConnections } from '../../../../src/frontend/uws/connections.ts';
import { App } from '../../../../src/frontend/uws/index.ts';
import { runtime } from '../../../../src/frontend/uws/process.ts';
import { Runtime } from '../../../../src/frontend/uws/runtime.ts';
import type { HttpRequest, HttpResponse, WebSocket } from '../../../../src/frontend/uws/types.ts';
import { closePayload, frame, opcode } from '../../../support/frames.mjs';
import { Log, Servers, textOf } from '../../../support/uws-server.ts';

/** Called in a handler: queues something of each kind, and then looks whether it has run when the event has been told. */
class Queued {
  /** What the handlers that have run are called. */
  readonly told = new Log();
  /** Events that were told while something was still queued. */
  readonly late: string[] = [];
  #queued = 0;

  readonly by = (name: string): void => {
    this.#queued += 3;
    const done = () => {
      this.#queued--;
    };
    void Promise.resolve().then(() => {
      done();
      process.nextTick(done);
    });
    process.nextTick(() => queueMicrotask(done));
    // Not before the event has been told.
    setImmediate(() => this.told.push(name));
  };

  look(event: string): void {
    if (this.#queued > 0) this.late.push(`${event} with ${this.#queued} to run`);
  }
}

const events = [
  'onRequestRecord',
  'onBody',
  'onAbort',
  'onResponseDrain',
  'onMessage',
  'onClose',
  'onDrain',
  'onPing',
  'onPong',
  'onDropped',
  'onConnect',
  'onDisconnect',
] as const;

/** Look after each event of the core. */
function watchEvents(queued: Queued): Disposable {
  const host = runtime() as unknown as Record<string, unknown>;
  for (const event of events) {
    const tell = Runtime.prototype[event] as (...values: unknown[]) => void;
    host[event] = (...values: unknown[]) => {
      tell.apply(host, values);
      queued.look(event);
    };
  }
  return {
    [Symbol.dispose]() {
      for (const event of events) delete host[event];
    },
  };
}

const post = 'POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody';
const has =
  (...names: string[]) =>
  (entries: readonly string[]) =>
    names.every((name) => entries.includes(name));

describe('what a handler has queued runs before its event is over', () => {
  test('of requests and their bodies', async () => {
    using servers = new Servers();
    const queued = new Queued();
    using _watched = watchEvents(queued);
    const wholes: (string | null)[] = [];
    const app = App()
      .post('/body', (_: HttpResponse, req: HttpRequest) => {
        queued.by('route');
        req.setYield(true);
      })
      .post('/*', (res) => {
        queued.by('second route');
        res.onAborted(() => {});
        res.onData((_, isLast) => {
          queued.by('onData');
          if (isLast) process.nextTick(() => res.end('x'));
        });
      })
      .post('/v2', (res) => {
        res
          .onAborted(() => {})
          .onDataV2((_, remaining) => {
            queued.by('onDataV2');
            if (remaining === 0n) process.nextTick(() => res.end('x'));
          });
      })
      .post('/collect/:bytes', (res, req) => {
        const most = Number(req.getParameter(0));
        res
          .onAborted(() => {})
          .collectBody(most, (body) => {
            queued.by('collectBody');
            process.nextTick(() => {
              wholes.push(body && textOf(body));
              res.end('x');
            });
          });
      })
      .get('/empty', (res) => {
        res
          .onAborted(() => {})
          .onData(() => {
            queued.by('onData of no body');
            process.nextTick(() => res.end('x'));
          });
      })
      .get('/wait', (res) => {
        res.onAborted(() => queued.by('onAborted'));
        queued.by('wait');
      })
      .get('/large', (res) => {
        const chunk = 'x'.repeat(1 << 20);
        res
          .onAborted(() => {})
          .onWritable(() => {
            queued.by('onWritable');
            res.end();
            return true;
          });
        while (res.write(chunk));
      });
    const port = servers.port(app.filter((_, count) => queued.by(`filter ${count}`)));
    const wire = await servers.connect(port);
    wire.write(post);
    expect(await wire.head()).toStartWith('HTTP/1.1 200 OK');
    wire.write(post.slice(0, -2));
    await queued.told.until((entries) => entries.filter((entry) => entry === 'onData').length === 2);
    wire.write('dy');
    for (const path of ['v2', 'collect/4', 'collect/3']) wire.write(post.replace('/body', `/${path}`));
    wire.write('GET /empty HTTP/1.1\r\nHost: a\r\n\r\nGET /wait HTTP/1.1\r\nHost: a\r\n\r\n');
    await queued.told.until(has('route', 'second route', 'onDataV2', 'collectBody', 'onData of no body', 'wait'));
    // In two parts the body is the program's own.
    const parts = await servers.connect(port);
    parts.write(post.replace('/body', '/collect/4').slice(0, -2));
    await Bun.sleep(5);
    parts.write('dy');
    expect(await parts.head()).toStartWith('HTTP/1.1 200 OK');
    expect(wholes).toEqual(['body', null, 'body']);
    wire.reset();
    await queued.told.until(has('onAborted', 'filter 1', 'filter -1'));
    const slow = await servers.connect(port);
    slow.socket.pause();
    slow.write('GET /large HTTP/1.1\r\nHost: a\r\n\r\n');
    await Bun.sleep(5);
    slow.socket.resume();
    await queued.told.until(has('onWritable'));
    // Nobody answers: the connection is cut off.
    const nobody = App().any('/*', null as never);
    nobody.get('/*', (res, req) => {
      res.onAborted(() => queued.by('onAborted of nobody'));
      req.setYield(true);
    });
    (await servers.connect(servers.port(nobody))).write('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
    await queued.told.until(has('onAborted of nobody'));
    expect(queued.late).toEqual([]);
  });

  test('of WebSockets', async () => {
    using servers = new Servers();
    const queued = new Queued();
    using _watched = watchEvents(queued);
    const lent: string[] = [];
    const lend = (name: string, buffer: ArrayBuffer) => {
      queued.by(name);
      process.nextTick(() => Promise.resolve().then(() => lent.push(textOf(buffer).slice(0, 9))));
    };
    const sockets: WebSocket<unknown>[] = [];
    const app = App().ws('/*', {
      maxBackpressure: 1024,
      upgrade(res, req, context) {
        queued.by('upgrade');
        const [key, protocol, extensions] = ['key', 'protocol', 'extensions'].map((name) => req.getHeader(`sec-websocket-${name}`));
        process.nextTick(() => res.upgrade({}, key as string, protocol as string, extensions as string, context));
      },
      open(ws) {
        sockets.push(ws);
        queued.by('open');
        ws.subscribe('topic');
      },
      subscription: (_ws, topic, now, before) => lend(now > before ? 'subscribed' : 'left', topic),
      message: (_ws, message) => lend('message', message),
      ping: (_ws, message) => lend('ping', message),
      pong: (_ws, message) => lend('pong', message),
      dropped: (_ws, message) => lend('dropped', message),
      drain: () => queued.by('drain'),
      close: (_ws, _code, reason) => lend('close', reason),
    });
    const port = servers.port(app);
    const wire = await servers.open(port);
    wire.write(
      Buffer.concat([
        frame(opcode.text, 'message 1'),
        frame(opcode.text, 'm'.repeat(2000)),
        frame(opcode.ping, 'ping 1'),
        frame(opcode.pong, 'pong 1'),
        frame(opcode.close, closePayload(4000, 'bye')),
      ]),
    );
    await queued.told.until(has('close'));
    expect(queued.told.entries.slice(0, 3)).toEqual(['upgrade', 'open', 'subscribed']);
    expect(lent).toEqual(['topic', 'message 1', 'mmmmmmmmm', 'ping 1', 'pong 1', 'topic', 'bye']);
    const slow = await servers.open(port);
    slow.socket.pause();
    await queued.told.until(() => sockets.length === 2);
    while (!queued.told.entries.includes('dropped')) {
      app.publish('topic', 'd'.repeat(100_000));
      await Bun.sleep(1);
    }
    slow.socket.resume();
    await queued.told.until(has('drain'));
    slow.destroy();
    await queued.told.until((entries) => entries.filter((entry) => entry === 'close').length === 2);
    expect(queued.late).toEqual([]);
    expect(lent).toContain('ddddddddd');
  });

  test('of a server name that is missing', () => {
    const queued = new Queued();
    const connections = new AppConnections(runtime());
    connections.missingServerName = () => queued.by('missingServerName');
    connections.onServerName('name.test');
    queued.look('onServerName');
    expect(queued.late).toEqual([]);
  });

  test('and when it fails', async () => {
    const silent = spyOn(process.stderr, 'write').mockImplementation(() => true);
    using servers = new Servers();
    const order: string[] = [];
    const app = App()
      .get('/fails', (res, req) => {
        res.onAborted(() => {});
        process.nextTick(() => order.push(`the request is readable: ${req.getUrl()}`));
        throw new Error('thrown on purpose');
      })
      .get('/*', async (_, req) => {
        await null;
        order.push(`and here: ${req.getUrl()}`);
        throw new Error('rejected on purpose');
      });
    const port = servers.port(app);
    for (const path of ['/fails', '/rejects']) {
      const wire = await servers.connect(port);
      wire.write(`GET ${path} HTTP/1.1\r\nHost: a\r\n\r\n`);
      expect(await wire.head()).toStartWith('HTTP/1.1 500 ');
    }
    silent.mockRestore();
    expect(order).toEqual(['the request is readable: /fails', 'and here: /rejects']);
  });
});

test('a handler that a call of the program has called returns to the program first', async () => {
  using servers = new Servers();
  const order: string[] = [];
  const sockets: WebSocket<unknown>[] = [];
  const app = App().ws('/*', {
    open: (ws) => void sockets.push(ws),
    close: (_ws, _code, reason) => {
      order.push(`close: ${textOf(reason)}`);
      queueMicrotask(() => order.push(`queued: ${reason.byteLength}`));
    },
  });
  await servers.open(servers.port(app));
  const { promise, resolve } = Promise.withResolvers<void>();
  setTimeout(() => {
    sockets[0]?.end(4000, 'reason');
    order.push('returned');
    setImmediate(resolve);
  });
  await promise;
  expect(order).toEqual(['close: reason', 'returned', 'queued: 0']);
});
