// What newer versions of the original have and its older build lacks. What the newer build here lacks as well is held against what the
// typings and the documentation say.
import { createHash } from 'node:crypto';
import { frame, opcode } from '../../support/frames.mjs';

const response = (body, head = '') => `HTTP/1.1 200 OK\r\n${head}Date: now\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
const post = (body) => `POST / HTTP/1.1\r\nHost: a\r\nContent-Length: ${body.length}\r\n\r\n${body}`;

export const scenarios = {
  'a parameter is found by its name': {
    server({ uWS, listen, log }) {
      listen(
        uWS.App().get('/:first/x/:second', (res, req) => {
          log('names', req.getParameter('first'), req.getParameter('second'), req.getParameter(new TextEncoder().encode('first')));
          log('none', req.getParameter('third'), req.getParameter(2));
          res.end('x');
        }),
      );
    },
    client: (t) => t.get('/one/x/two', 'answer'),
    differences: [{ id: 'undefined-parameter', event: 'none', original: [['', '']], ours: [['undefined', 'undefined']] }],
    isNewer: true,
  },

  'endWithoutBody tells the length that a body would have': {
    server({ uWS, listen }) {
      listen(
        uWS
          .App()
          .head('/length', (res) => res.writeHeader('a', 'b').endWithoutBody(1234))
          .head('/zero', (res) => res.endWithoutBody(0))
          .get('/closes', (res) => res.endWithoutBody(0, true)),
      );
    },
    async client(t) {
      const wire = await t.connect();
      wire.write('HEAD /length HTTP/1.1\r\nHost: a\r\n\r\nHEAD /zero HTTP/1.1\r\nHost: a\r\n\r\n');
      t.record('length', await wire.response('HEAD'));
      t.record('zero', await wire.response('HEAD'));
      wire.write('GET /closes HTTP/1.1\r\nHost: a\r\n\r\n');
      t.record('closes', [await wire.response(), await wire.closed()]);
    },
    isNewer: true,
  },

  'onDataV2 tells how much is still to come': {
    server({ uWS, listen, log }) {
      listen(
        uWS.App().post('/*', (res) => {
          let bytes = 0;
          res.onAborted(() => log('aborted'));
          const result = res.onDataV2((chunk, maxRemaining) => {
            bytes += chunk.byteLength;
            log('remaining', typeof maxRemaining, String(maxRemaining));
            if (maxRemaining === 0n) res.cork(() => res.end(String(bytes)));
          });
          log('gives itself', result === res);
        }),
      );
    },
    async client(t) {
      await t.exchange('whole', post('0123456789'));
      const wire = await t.connect();
      wire.write(post('0123456789').slice(0, -4));
      await t.logged('remaining', 2);
      wire.write('6789');
      t.record('in two parts', await wire.response());
    },
    ours: {
      client: { whole: response('10'), 'in two parts': response('10') },
      server: [
        ['gives itself', true],
        ['remaining', 'bigint', '0'],
        ['gives itself', true],
        ['remaining', 'bigint', '4'],
        ['remaining', 'bigint', '0'],
      ],
    },
  },

  'collectBody gives the body as a whole, or null when it is too long': {
    server({ uWS, listen, log }) {
      listen(
        uWS.App().post('/*', (res) => {
          res.onAborted(() => log('aborted'));
          const result = res.collectBody(1000, (body) => {
            log('body', body === null ? null : body.byteLength);
            res.cork(() => res.end(body === null ? 'too long' : createHash('sha1').update(Buffer.from(body)).digest('hex').slice(0, 8)));
          });
          log('gives itself', result === res);
        }),
      );
    },
    async client(t) {
      await t.exchange('short', post('abc'));
      await t.exchange('empty', post(''));
      await t.exchange('as long as allowed', post('b'.repeat(1000)));
      await t.exchange('too long', post('b'.repeat(1001)));
    },
    ours: {
      client: {
        short: response('a9993e36'),
        empty: response('da39a3ee'),
        'as long as allowed': response(createHash('sha1').update('b'.repeat(1000)).digest('hex').slice(0, 8)),
        'too long': response('too long'),
      },
      server: [
        ['gives itself', true],
        ['body', 3],
        ['gives itself', true],
        ['body', 0],
        ['gives itself', true],
        ['body', 1000],
        ['gives itself', true],
        ['body', null],
      ],
    },
  },

  'the port of a client is told': {
    server({ uWS, listen, log }) {
      listen(
        uWS
          .App()
          .get('/*', (res) => {
            log('http', res.getProxiedRemotePort());
            res.end(String(res.getRemotePort()));
          })
          .ws('/*', { open: (ws) => void ws.send(String(ws.getRemotePort())) }),
      );
    },
    async client(t) {
      const wire = await t.connect();
      wire.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
      t.record('http', (await wire.response()).endsWith(`\r\n\r\n${wire.socket.localPort}`));
      const socket = await t.websocket();
      t.record('websocket', (await socket.frame()).payload === String(socket.socket.localPort));
    },
    ours: { client: { http: true, websocket: true }, server: [['http', 0]] },
  },

  'an address that a proxy tells is told on': {
    server({ uWS, listen, log }) {
      listen(
        uWS.App().get('/*', (res) => {
          log(
            'proxied',
            Buffer.from(res.getProxiedRemoteAddressAsText()).toString(),
            res.getProxiedRemoteAddress().byteLength,
            res.getProxiedRemotePort(),
          );
          log('own', Buffer.from(res.getRemoteAddressAsText()).toString());
          res.end('x');
        }),
      );
    },
    async client(t) {
      // HAProxy's PROXY protocol, version 2: signature, command, family, length, addresses and ports.
      const signature = Buffer.from('0d0a0d0a000d0a515549540a', 'hex');
      const four = Buffer.concat([signature, Buffer.from([0x21, 0x11, 0, 12, 203, 0, 113, 7, 10, 0, 0, 1, 0x30, 0x39, 0, 80])]);
      const six = Buffer.concat([
        signature,
        Buffer.from([0x21, 0x21, 0, 36]),
        Buffer.from('20010db8000000000000000000000001', 'hex'),
        Buffer.from('20010db8000000000000000000000002', 'hex'),
        Buffer.from([0x30, 0x3a, 0, 80]),
      ]);
      const request = Buffer.from('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
      await t.exchange('IPv4', Buffer.concat([four, request]));
      await t.exchange('IPv6', Buffer.concat([six, request]));
      await t.exchange('none', request);
    },
    ours: {
      client: { IPv4: response('x'), IPv6: response('x'), none: response('x') },
      server: [
        ['proxied', '203.0.113.7', 4, 12345],
        ['own', '127.0.0.1'],
        ['proxied', '2001:0db8:0000:0000:0000:0000:0000:0001', 16, 12346],
        ['own', '127.0.0.1'],
        ['proxied', '', 0, 0],
        ['own', '127.0.0.1'],
      ],
    },
  },

  'a declarative response answers by itself': {
    server({ uWS, listen }) {
      listen(
        uWS
          .App()
          .get('/fixed', new uWS.DeclarativeResponse().writeHeader('x', 'y').end('fixed'))
          .get(
            '/parts/:name',
            new uWS.DeclarativeResponse().write('hello ').writeParameterValue('name').write(', ').writeQueryValue('q').end('!'),
          )
          .get('/header', new uWS.DeclarativeResponse().writeHeaderValue('user-agent').end()),
      );
    },
    async client(t) {
      await t.get('/fixed', 'fixed');
      await t.get('/parts/bob?q=query', 'parts');
      await t.exchange('header', 'GET /header HTTP/1.1\r\nHost: a\r\nUser-Agent: me\r\n\r\n');
    },
    isNewer: true,
  },

  'the constants of listening have their values': {
    server: ({ uWS, log }) => log('values', uWS.LIBUS_LISTEN_DEFAULT, uWS.LIBUS_LISTEN_EXCLUSIVE_PORT),
    async client() {},
    ours: { client: {}, server: [['values', 0, 1]] },
  },

  'connections of one application can be handed to another': {
    server({ uWS, listen, log }) {
      const child = uWS.App().get('/*', (res) => res.end('child'));
      const parent = uWS.App().get('/*', (res) => res.end('parent'));
      const descriptor = child.getDescriptor();
      log('descriptor', descriptor !== undefined);
      log('add gives itself', parent.addChildAppDescriptor(descriptor) === parent);
      listen(parent);
      return { remove: () => void log('remove gives itself', parent.removeChildAppDescriptor(descriptor) === parent) };
    },
    async client(t) {
      await t.get('/', 'with a child');
      await t.command('remove');
      await t.get('/', 'without');
    },
    isNewer: true,
  },

  'a message that is dropped is told to its handler': {
    server({ uWS, listen, log }) {
      listen(
        uWS.App().ws('/*', {
          maxBackpressure: 1024,
          message(ws) {
            let status = 1;
            while (status !== 2) status = ws.send('x'.repeat(100_000), true);
          },
          dropped(ws, message, isBinary) {
            log('dropped', message.byteLength, isBinary, ws.getBufferedAmount() > 1024);
            setImmediate(() => log('later', message.byteLength));
          },
        }),
      );
    },
    async client(t) {
      const wire = await t.websocket();
      wire.pause();
      wire.write(frame(opcode.text, 'go'));
      await t.logged('later');
    },
    isNewer: true,
  },
};
