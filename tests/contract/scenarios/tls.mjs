// SSLApp: what is agreed in the handshake, which certificate is shown for which name, and that the rest is as without TLS.

import { frame, opcode } from '../../support/frames.mjs';
import { writeCertificate } from '../certificates.mjs';
import { text } from '../handlers.mjs';

/** What a client sees of a connection by TLS for a server name, over which it then asks for a path. */
async function look(t, label, servername, path = '/') {
  const wire = await t.connect({ tls: { servername } }).catch(() => undefined);
  if (wire === undefined) return t.record(label, 'no connection');
  const shown = wire.socket.getPeerCertificate().subject?.CN;
  wire.write(`GET ${path} HTTP/1.1\r\nHost: ${servername}\r\n\r\n`);
  t.record(label, [shown, await wire.response()]);
  wire.destroy();
}

export const scenarios = {
  'requests, bodies and sockets work over TLS': {
    server({ uWS, listen, log }) {
      listen(
        uWS
          .SSLApp(writeCertificate('localhost'))
          .get('/', (res) => {
            log('address', text(res.getRemoteAddressAsText()));
            res.end('over TLS');
          })
          .get('/large', (res) => res.end('L'.repeat(1_000_000)))
          .post('/*', (res) => {
            let bytes = 0;
            res.onAborted(() => log('aborted'));
            res.onData((chunk, isLast) => {
              bytes += chunk.byteLength;
              if (isLast) res.cork(() => res.end(String(bytes)));
            });
          })
          .ws('/*', {
            maxPayloadLength: 1024 * 1024,
            open: (ws) => log('open', ws.subscribe('room')),
            message: (ws, message, isBinary) => void ws.send(message, isBinary),
            close: (_ws, code) => log('close', code),
          }),
      );
    },
    async client(t) {
      const tls = {};
      await t.get('/', 'small', { tls });
      await t.get('/large', 'large', { tls });
      await t.exchange('post', `POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n${'b'.repeat(200_000)}`, { tls });
      const socket = await t.websocket('/', { tls, label: 'handshake' });
      socket.write(frame(opcode.text, 'echo'));
      t.record('echo', await socket.frame());
      socket.write(frame(opcode.binary, 'z'.repeat(500_000)));
      const large = await socket.frame();
      t.record('large echo', [large.payload.length, large.opcode]);
      socket.write(frame(opcode.close, Buffer.from([3, 232])));
      t.record('close', await socket.closed());
      await t.logged('close');
    },
  },

  'TLS 1.2 and 1.3 are spoken': {
    server({ uWS, listen }) {
      listen(uWS.SSLApp(writeCertificate('localhost')).get('/*', (res) => res.end('x')));
    },
    async client(t) {
      for (const version of ['TLSv1.2', 'TLSv1.3']) {
        const wire = await t.connect({ tls: { minVersion: version, maxVersion: version } });
        wire.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
        t.record(version, [wire.socket.getProtocol(), await wire.response()]);
      }
    },
  },

  'each server name has its certificate, and others the first': {
    server({ uWS, listen, log }) {
      const app = uWS.SSLApp(writeCertificate('first.test'));
      log('gives itself', app.addServerName('a.test', writeCertificate('a.test')) === app);
      app.addServerName('*.b.test', writeCertificate('*.b.test'));
      listen(app.get('/*', (res, req) => res.end(req.getHeader('host'))));
    },
    async client(t) {
      for (const name of ['first.test', 'a.test', 'x.b.test', 'b.test', 'x.y.b.test', 'A.TEST', 'unknown.test']) await look(t, name, name);
    },
    differences: [
      {
        id: 'server-name-case',
        step: 'A.TEST',
        original: ['first.test', 'HTTP/1.1 200 OK\r\nDate: now\r\nContent-Length: 6\r\n\r\nA.TEST'],
        ours: ['a.test', '<closed>'],
      },
    ],
  },

  'routes belong to a domain': {
    server({ uWS, listen, log }) {
      const app = uWS.SSLApp(writeCertificate('first.test'));
      app.get('/*', (res) => res.end('of the first'));
      app.addServerName('a.test', writeCertificate('a.test'));
      app.addServerName('b.test', writeCertificate('b.test'));
      log('gives itself', app.domain('a.test') === app);
      app.get('/*', (res) => res.end('of a'));
      app.domain('b.test').get('/only', (res) => res.end('only of b'));
      listen(app);
    },
    async client(t) {
      for (const name of ['first.test', 'a.test', 'b.test', 'unknown.test']) {
        await look(t, `${name} /`, name);
        await look(t, `${name} /only`, name, '/only');
      }
    },
  },

  'a server name that is missing can be added when it is asked for': {
    server({ uWS, listen, log }) {
      const app = uWS.SSLApp(writeCertificate('first.test'));
      const result = app.missingServerName((name) => {
        log('missing', name);
        if (name === 'late.test') app.addServerName(name, writeCertificate(name));
      });
      log('gives itself', result === app);
      listen(app.get('/*', (res) => res.end('x')));
    },
    async client(t) {
      await look(t, 'added', 'late.test');
      await look(t, 'added before', 'late.test');
      await look(t, 'not added', 'other.test');
    },
  },

  'a server name can be removed': {
    server({ uWS, listen, log }) {
      const app = uWS.SSLApp(writeCertificate('first.test'));
      app.addServerName('a.test', writeCertificate('a.test'));
      listen(app.get('/*', (res) => res.end('x')));
      return { remove: () => void log('gives itself', app.removeServerName('a.test') === app, app.removeServerName('never.test') === app) };
    },
    async client(t) {
      await look(t, 'before', 'a.test');
      await t.command('remove');
      await look(t, 'after', 'a.test');
    },
  },

  'an encrypted key is opened by its passphrase': {
    server({ uWS, listen }) {
      listen(uWS.SSLApp(writeCertificate('localhost', 'secret')).get('/*', (res) => res.end('opened')));
    },
    async client(t) {
      await t.get('/', 'answer', { tls: {} });
    },
  },

  'files that are none throw': {
    server({ uWS, log, attempt }) {
      const files = writeCertificate('localhost');
      const locked = writeCertificate('localhost', 'secret');
      log(
        'no such file',
        attempt(() => typeof uWS.SSLApp({ ...files, cert_file_name: '/nowhere/cert.pem' })),
      );
      log(
        'a key that is none',
        attempt(() => typeof uWS.SSLApp({ ...files, key_file_name: files.cert_file_name })),
      );
      log(
        'a wrong passphrase',
        attempt(() => typeof uWS.SSLApp({ ...locked, passphrase: 'wrong' })),
      );
      log(
        'a key of another certificate',
        attempt(() => typeof uWS.SSLApp({ ...files, key_file_name: writeCertificate('other').key_file_name })),
      );
      log(
        'a number',
        attempt(() => typeof uWS.SSLApp({ key_file_name: 5 })),
      );
      log(
        'options without TLS are let be',
        attempt(() => typeof uWS.App({ key_file_name: '/nowhere' })),
      );
    },
    async client() {},
  },

  'plain HTTP to a TLS port': {
    server({ uWS, listen }) {
      listen(uWS.SSLApp(writeCertificate('localhost')).get('/*', (res) => res.end('x')));
    },
    async client(t) {
      const wire = await t.connect();
      wire.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
      t.record('answer', await wire.closed());
      await t.get('/', 'by TLS', { tls: {} });
    },
    differences: [
      {
        id: 'plain-http-to-tls',
        step: 'answer',
        original: '<closed>',
        ours: 'HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 57\r\nConnection: close\r\nDate: now\r\n\r\nThis port speaks TLS: use https, or wss for a WebSocket.\n<closed>',
      },
    ],
  },
};
