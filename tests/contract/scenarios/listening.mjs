// Listening, several applications, filters, and the end of an application.
import { existsSync, mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from '../handlers.mjs';

const kind = (token) => (token === false ? 'false' : typeof token);

/** Refused at once, or by the time it has asked for something: which of the two is for the kernel to say. */
async function isServed(t) {
  const wire = await t.connect().catch(() => undefined);
  if (wire === undefined) return false;
  wire.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
  return !(await wire.response()).endsWith('<closed>');
}

export const scenarios = {
  'listen takes a port, a host, options, and calls back at once': {
    server({ uWS, log, attempt }) {
      const app = uWS.App().get('/*', (res) => res.end('here'));
      const order = [];
      log('gives itself', app.listen(0, (token) => order.push(kind(token))) === app, order);
      app.listen(0, uWS.LIBUS_LISTEN_EXCLUSIVE_PORT, (token) => log('port and options', kind(token), uWS.us_socket_local_port(token) > 0));
      app.listen('127.0.0.1', 0, uWS.LIBUS_LISTEN_EXCLUSIVE_PORT, (token) => log('host, port and options', kind(token)));
      app.listen('localhost', 0, (token) => log('a name', kind(token)));
      app.listen(new TextEncoder().encode('127.0.0.1'), 0, (token) => log('host as bytes', kind(token)));
      app.listen('host.invalid', 0, (token) => log('a name that is none', kind(token)));
      app.listen('203.0.113.1', 0, (token) => log('an address of another machine', kind(token)));
      log(
        'port as a string',
        attempt(() => app.listen('127.0.0.1', '0', (token) => log('token', kind(token))) === app),
      );
    },
    async client() {},
  },

  'a port in use gives false, unless it is shared': {
    server({ uWS, log }) {
      const apps = [uWS.App(), uWS.App(), uWS.App()].map((app) => app.get('/*', (res) => res.end('x')));
      apps[0].listen('127.0.0.1', 0, uWS.LIBUS_LISTEN_EXCLUSIVE_PORT, (token) => {
        const port = uWS.us_socket_local_port(token);
        apps[1].listen('127.0.0.1', port, uWS.LIBUS_LISTEN_EXCLUSIVE_PORT, (second) => log('exclusive', kind(second)));
        apps[1].listen('127.0.0.1', port, (second) => log('shared with an exclusive one', kind(second)));
      });
      return {
        share(port) {
          apps[2].listen('127.0.0.1', port, (token) => log('named', kind(token)));
          apps[1].listen('127.0.0.1', port, (token) => log('shared', kind(token)));
          apps[1].listen('127.0.0.1', port, uWS.LIBUS_LISTEN_EXCLUSIVE_PORT, (token) => log('exclusive on a shared one', kind(token)));
        },
      };
    },
    async client(t) {
      // Named: the original does not share a port that the system has chosen.
      await t.command('share', t.freePort());
    },
  },

  'a closed listen socket takes no more connections, and the others live on': {
    server({ uWS, log }) {
      let socket;
      uWS
        .App()
        .get('/*', (res) => res.end('still here'))
        .listen('127.0.0.1', 0, (token) => {
          socket = token;
          process.stdout.write(`${JSON.stringify({ port: uWS.us_socket_local_port(token), label: 'main' })}\n`);
        });
      return { stop: () => void log('closed', uWS.us_listen_socket_close(socket)) };
    },
    async client(t) {
      const wire = await t.connect();
      wire.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
      t.record('before', await wire.response());
      await t.command('stop');
      t.record('new', await isServed(t));
      wire.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
      t.record('after', await wire.response());
    },
  },

  'an application listens on a Unix socket': {
    server({ uWS, log }) {
      const path = join(mkdtempSync(join(tmpdir(), 'contract-')), 'socket');
      const app = uWS.App().get('/*', (res) => {
        log('addresses', res.getRemoteAddress(), res.getRemoteAddressAsText());
        res.end('unix');
      });
      log('gives itself', app.listen_unix((token) => log('token', kind(token)), path) === app, existsSync(path));
      return { path: () => path };
    },
    async client(t) {
      await t.get('/', 'answer', { path: await t.command('path') });
    },
  },

  'several applications live in one process': {
    server({ uWS, listen, log }) {
      for (const name of ['one', 'two']) {
        listen(
          uWS
            .App()
            .get('/*', (res) => res.end(`get of ${name}`))
            .ws('/*', { open: () => log('open', name), close: () => log('close', name) }),
          name,
        );
      }
    },
    async client(t) {
      for (const to of ['one', 'two']) await t.get('/', to, { to });
      (await t.websocket('/', { to: 'two' })).destroy();
      await t.logged('close');
    },
  },

  'an application listens on two ports': {
    server({ uWS, listen }) {
      const app = uWS.App().get('/*', (res, req) => res.end(req.getHeader('host')));
      listen(app, 'one');
      listen(app, 'two');
    },
    async client(t) {
      for (const to of ['one', 'two']) await t.get('/', to, { to });
    },
  },

  'filters are told of each connection and its end': {
    server({ uWS, listen, log, attempt }) {
      const app = uWS.App().get('/*', (res) => res.end('x'));
      log(
        'gives itself',
        app.filter((res, count) => log('filter', count, typeof res, count > 0 ? text(res.getRemoteAddressAsText()) : 'gone')) === app,
      );
      log(
        'no function',
        attempt(() => typeof app.filter()),
      );
      listen(app);
    },
    async client(t) {
      await t.get('/');
      await t.logged('filter', 2);
    },
  },

  'close ends all sockets and takes no more': {
    server({ uWS, listen, log }) {
      let isAborted = false;
      const app = uWS
        .App()
        .get('/*', (res) => res.end('x'))
        .get('/waits', (res) => {
          res.onAborted(() => {
            isAborted = true;
            log('aborted');
          });
          log('waits');
        })
        .ws('/*', { open: () => log('open'), close: (_ws, code) => log('close', code) });
      listen(app);
      return {
        close() {
          log('gives itself', app.close() === app);
          log('aborted by then', isAborted);
        },
      };
    },
    async client(t) {
      const socket = await t.websocket();
      await t.logged('open');
      const waits = await t.connect();
      waits.write('GET /waits HTTP/1.1\r\nHost: a\r\n\r\n');
      await t.logged('waits');
      await t.command('close');
      t.record('socket', await socket.frame());
      t.record('request', await waits.closed());
      t.record('new', await isServed(t));
    },
  },

  'an application may be made anew and listen again after its end': {
    server({ uWS, log }) {
      const make = (name) => uWS.App().get('/*', (res) => res.end(name));
      const say = (token, label) => process.stdout.write(`${JSON.stringify({ port: uWS.us_socket_local_port(token), label })}\n`);
      let first = make('first');
      first.listen('127.0.0.1', 0, (token) => say(token, 'first'));
      return {
        again() {
          first.close();
          first = make('second');
          first.listen('127.0.0.1', 0, (token) => say(token, 'second'));
          log('again');
        },
      };
    },
    async client(t) {
      await t.get('/', 'first', { to: 'first' });
      await t.command('again');
      await t.get('/', 'second', { to: 'second' });
    },
  },
};
