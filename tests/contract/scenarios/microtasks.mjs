// What handlers put off without waiting: microtasks and `process.nextTick`, which run before what a handler was lent is taken back.
import { closePayload, frame, handshake, opcode } from '../../support/frames.mjs';
import { text } from '../handlers.mjs';

const post = (path, body) => `POST ${path} HTTP/1.1\r\nHost: a\r\nContent-Length: ${body.length}\r\n\r\n${body}`;

/** What `look` gives at once, in a microtask, in a tick, and in what these queue; logged together, whatever their order. */
function putOff({ log, attempt }, label, look) {
  const found = {};
  const see = (when) => {
    found[when] = attempt(look);
    const { now, microtask, tick, tickOfMicrotask, microtaskOfTick } = found;
    if (Object.keys(found).length === 5) log(label, now, microtask, tick, tickOfMicrotask, microtaskOfTick);
  };
  see('now');
  void Promise.resolve().then(() => {
    see('microtask');
    process.nextTick(() => see('tickOfMicrotask'));
  });
  process.nextTick(() => {
    see('tick');
    queueMicrotask(() => see('microtaskOfTick'));
  });
}

export const scenarios = {
  'a request may be read, and answered, in what its handler has queued': {
    server(host) {
      const { uWS, listen, log } = host;
      listen(
        uWS
          .App()
          .get('/read/:name', (res, req) => {
            res.onAborted(() => log('aborted'));
            putOff(host, 'read', () => [req.getUrl(), req.getParameter(0), req.getHeader('host'), req.getMethod(), req.getQuery('q')]);
            setImmediate(() => res.end('read'));
          })
          .get('/microtask', (res, req) => {
            void Promise.resolve().then(() => res.end(req.getUrl()));
          })
          .get('/tick', (res, req) => {
            process.nextTick(() => res.end(req.getUrl()));
          })
          .get('/deep', (res, req) => {
            process.nextTick(async () => {
              for (let step = 0; step < 50; step++) await step;
              process.nextTick(() => queueMicrotask(() => res.end(req.getUrl())));
            });
          })
          .get('/later', (res) => {
            process.nextTick(() => res.onAborted(() => log('aborted')));
            setImmediate(() => res.end('later'));
          })
          .get('/async', async (res, req) => {
            await null;
            process.nextTick(() => res.end(req.getUrl()));
          })
          .get('/kept', (res, req) => {
            res.onAborted(() => log('aborted'));
            setImmediate(() => {
              log('kept', host.attempt(() => req.getUrl()) instanceof Error);
              res.end('kept');
            });
          }),
      );
    },
    async client(t) {
      await t.get('/read/name?q=1', 'read');
      for (const path of ['microtask', 'tick', 'deep', 'later', 'async', 'kept']) await t.get(`/${path}`, path);
      const wire = await t.connect();
      wire.write('GET /tick HTTP/1.1\r\nHost: a\r\n\r\nGET /microtask HTTP/1.1\r\nHost: a\r\n\r\n');
      t.record('two in one packet', [await wire.response(), await wire.response()]);
    },
  },

  'a handler may yield in what it has queued': {
    server({ uWS, listen, log }) {
      listen(
        uWS
          .App()
          .get('/:id', (_res, req) => {
            log('first', req.getParameter(0));
            process.nextTick(() => {
              log('queued by the first');
              req.setYield(true);
            });
          })
          .get('/*', (res, req) => {
            log('second', req.getUrl());
            res.end('second');
          }),
      );
    },
    client: (t) => t.get('/x', 'answer'),
  },

  'a request that nobody answers is over after what its handlers have queued': {
    server({ uWS, listen, log, attempt }) {
      listen(
        uWS
          .App()
          .any('/*', null)
          .get('/*', (res, req) => {
            res.onAborted(() => {
              log('aborted');
              process.nextTick(() => log('queued', attempt(() => req.getUrl()) instanceof Error));
            });
            process.nextTick(() => req.setYield(true));
          }),
      );
    },
    async client(t) {
      await t.get('/x', 'answer');
      await t.logged('queued');
    },
  },

  'a body may be asked for, and its parts read, in what a handler has queued': {
    server(host) {
      const { uWS, listen, log } = host;
      const answer = (res, chunk, isLast) => {
        putOff(host, 'part', () => text(chunk));
        if (isLast) process.nextTick(() => res.end(Buffer.from(chunk)));
      };
      listen(
        uWS
          .App()
          .any('/microtask', (res) => {
            res.onAborted(() => log('aborted'));
            void Promise.resolve().then(() => res.onData((chunk, isLast) => answer(res, chunk, isLast)));
          })
          .any('/tick', (res) => {
            res.onAborted(() => log('aborted'));
            process.nextTick(() => res.onData((chunk, isLast) => answer(res, chunk, isLast)));
          }),
      );
    },
    async client(t) {
      for (const path of ['/microtask', '/tick']) {
        await t.exchange(`post ${path}`, post(path, 'a body'));
        await t.exchange(`empty ${path}`, post(path, ''));
        await t.get(path, `get ${path}`);
        const long = 'long '.repeat(1000);
        await t.exchange(`long ${path}`, post(path, long));
      }
    },
  },

  'messages, closes, pings and pongs may be read in what their handlers have queued': {
    server(host) {
      const { uWS, listen } = host;
      listen(
        uWS.App().ws('/*', {
          open: (ws) => putOff(host, 'open', () => ws.getUserData() === ws),
          message(ws, message, isBinary) {
            putOff(host, 'message', () => text(message));
            process.nextTick(() => ws.send(message, isBinary));
            setImmediate(() => host.log('later', message.byteLength));
          },
          ping: (_ws, message) => putOff(host, 'ping', () => text(message)),
          pong: (_ws, message) => putOff(host, 'pong', () => text(message)),
          close(_ws, code, message) {
            putOff(host, `close ${code}`, () => text(message));
            setImmediate(() => host.log('closed', message.byteLength));
          },
        }),
      );
    },
    async client(t) {
      const wire = await t.websocket();
      for (const [index, content] of ['one', '', 'two', 'long '.repeat(600)].entries()) {
        wire.write(frame(index > 1 ? opcode.binary : opcode.text, content));
        t.record(`echo ${index}`, await wire.frame());
        await t.logged('later', index + 1);
      }
      wire.write(Buffer.concat([frame(opcode.ping, 'ping'), frame(opcode.pong, 'pong')]));
      await t.logged('pong');
      wire.write(frame(opcode.close, closePayload(4001, 'good bye')));
      await t.logged('closed');
    },
  },

  'a handshake may be accepted, or refused, in what its handler has queued': {
    server(host) {
      const { uWS, listen, log } = host;
      const upgrade = (res, req, context) => {
        res.upgrade({ url: req.getUrl() }, req.getHeader('sec-websocket-key'), '', req.getHeader('sec-websocket-extensions'), context);
        log('upgraded');
      };
      listen(
        uWS.App().ws('/*', {
          upgrade(res, req, context) {
            log('upgrade');
            if (req.getUrl() === '/microtask') queueMicrotask(() => upgrade(res, req, context));
            else if (req.getUrl() === '/tick') process.nextTick(() => upgrade(res, req, context));
            else process.nextTick(() => res.writeStatus('403 Forbidden').end(req.getUrl()));
          },
          open(ws) {
            log('open', ws.url);
            queueMicrotask(() => log('queued by open'));
          },
        }),
      );
    },
    async client(t) {
      for (const path of ['microtask', 'tick']) await t.websocket(`/${path}`, { label: path });
      const refused = await t.connect();
      refused.write(handshake('/refused'));
      t.record('refused', await refused.response());
    },
    differences: [
      {
        id: 'refused-handshake',
        step: 'refused',
        original: 'HTTP/1.1 403 Forbidden\r\nDate: now\r\nContent-Length: 8\r\n\r\n/refused',
        ours: 'HTTP/1.1 403 Forbidden\r\nConnection: close\r\nDate: now\r\nContent-Length: 8\r\n\r\n/refused',
      },
    ],
  },

  'what a handler queues runs before the next event of the same packet': {
    server({ uWS, listen, log }) {
      listen(
        uWS
          .App()
          .ws('/*', {
            message(_ws, message) {
              log('message', text(message));
              queueMicrotask(() => log('queued'));
            },
          })
          .get('/:id', (res, req) => {
            res.onAborted(() => {});
            log('request', req.getParameter(0));
            process.nextTick(() => res.end('x'));
            queueMicrotask(() => log('queued'));
          }),
      );
    },
    async client(t) {
      const wire = await t.websocket();
      wire.write(Buffer.concat([frame(opcode.text, 'one'), frame(opcode.text, 'two'), frame(opcode.text, 'three')]));
      await t.logged('queued', 3);
      const requests = await t.connect();
      requests.write('GET /one HTTP/1.1\r\nHost: a\r\n\r\nGET /two HTTP/1.1\r\nHost: a\r\n\r\n');
      await requests.response();
      await requests.response();
    },
  },

  'a handler that a call has called returns to it first': {
    server({ uWS, listen, log, attempt }) {
      const say = (label) => {
        log(label);
        queueMicrotask(() => log(`queued by ${label}`));
      };
      const sockets = [];
      const app = uWS
        .App()
        .ws('/*', {
          open(ws) {
            sockets.push(ws);
            say('open');
          },
          message(ws, message) {
            log('message');
            ws.cork(() => say('cork'));
            ws.subscribe('topic');
            if (text(message) === 'end') ws.end(4002, 'reason');
            log('returns');
          },
          subscription: (_ws, _topic, now, before) => say(now > before ? 'subscription' : 'left'),
          close(_ws, _code, message) {
            say('close');
            queueMicrotask(() => log('the reason', message.byteLength));
          },
        })
        .get('/close', (res) => {
          res.onAborted(() => say('onAborted'));
          res.close();
          log('closed');
        });
      listen(app);
      const ended = [];
      return {
        /** In a timer, where nothing but the program has called. */
        end() {
          ended.push(
            new Promise((resolve) => {
              setTimeout(() => {
                attempt(() => sockets.at(-1).end(4003, 'from a timer'));
                log('the timer returns');
                setImmediate(resolve);
              });
            }),
          );
          return Promise.all(ended).then(() => undefined);
        },
      };
    },
    async client(t) {
      const first = await t.websocket();
      first.write(frame(opcode.text, 'end'));
      await t.logged('the reason');
      const second = await t.websocket();
      second.write(frame(opcode.text, 'stay'));
      await t.logged('returns', 2);
      await t.command('end');
      t.record('a request that closes', await t.get('/close', 'closes'));
    },
  },

  'ticks and microtasks of a handler, in their order': {
    server({ uWS, listen, log }) {
      listen(
        uWS.App().get('/*', (res) => {
          const order = ['handler'];
          res.onAborted(() => {});
          void Promise.resolve().then(() => order.push('microtask'));
          process.nextTick(() => {
            order.push('tick');
            queueMicrotask(() => order.push('microtask of a tick'));
            process.nextTick(() => order.push('tick of a tick'));
          });
          queueMicrotask(() => order.push('second microtask'));
          setImmediate(() => {
            log('order', order);
            res.end('x');
          });
        }),
      );
    },
    async client(t) {
      await t.get('/', 'answer');
    },
    differences: [
      {
        id: 'late-ticks',
        event: 'order',
        original: [[['handler', 'tick', 'tick of a tick', 'microtask', 'second microtask', 'microtask of a tick']]],
        ours: [[['handler', 'microtask', 'second microtask', 'tick', 'tick of a tick', 'microtask of a tick']]],
      },
    ],
  },
};
