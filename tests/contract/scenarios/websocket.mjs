// WebSocket: the handshake, messages, and what the handlers get, in which order.
import { closePayload, frame, handshake, opcode } from '../../support/frames.mjs';
import { logging, text } from '../handlers.mjs';

const plain = (body) => `HTTP/1.1 200 OK\r\nDate: now\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
const badRequest = (why) =>
  `HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\nDate: now\r\nContent-Length: ${why.length + 13}\r\n\r\nBad Request: ${why}`;
/** What answers a handshake but 101: the same but for its end. */
const ending = (response) => response.replace('Date:', 'Connection: close\r\nDate:');
const forbidden = 'HTTP/1.1 403 Forbidden\r\nwhy: because\r\nDate: now\r\nContent-Length: 2\r\n\r\nno';
const accepted =
  'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nDate: now\r\n\r\n';

export const scenarios = {
  'a handshake is accepted without an upgrade handler': {
    server({ uWS, listen, log }) {
      listen(
        uWS
          .App()
          .ws('/*', logging(log))
          .any('/*', (res) => res.end('http')),
      );
    },
    async client(t) {
      const first = await t.websocket('/', { label: 'plain' });
      await t.logged('open');
      first.destroy();
      await t.logged('close');
      (await t.websocket('/', { label: 'with a protocol', fields: { 'Sec-WebSocket-Protocol': 'one, two' } })).destroy();
      await t.logged('close', 2);
      (await t.websocket('/', { label: 'with an extension', fields: { 'Sec-WebSocket-Extensions': 'permessage-deflate' } })).destroy();
      await t.logged('close', 3);
      await t.get('/', 'without upgrade');
    },
  },

  'the upgrade handler chooses user data, protocol and headers': {
    server({ uWS, listen, log, attempt }) {
      listen(
        uWS.App().ws('/:room', {
          ...logging(log),
          upgrade(res, req, context) {
            log('upgrade', req.getParameter(0), req.getQuery('token'), req.getHeader('sec-websocket-protocol'), typeof context);
            if (req.getParameter(0) === 'refused') {
              res.writeStatus('403 Forbidden').writeHeader('why', 'because').end('no');
              return;
            }
            if (req.getParameter(0) === 'headers')
              res.writeStatus('101 Switching Protocols').writeHeader('Set-Cookie', 'a=b').writeHeader('X-Two', '2');
            const result = res.upgrade(
              { room: req.getParameter(0), nested: { a: 1 } },
              req.getHeader('sec-websocket-key'),
              req.getHeader('sec-websocket-protocol'),
              req.getHeader('sec-websocket-extensions'),
              context,
            );
            log(
              'upgrade gives',
              result,
              attempt(() => res.end('x')),
            );
          },
          open(ws) {
            log('open', ws.room, ws.nested, ws.getUserData() === ws, Object.keys(ws));
          },
        }),
      );
    },
    async client(t) {
      const protocols = { 'Sec-WebSocket-Protocol': 'one, two,three' };
      for (const room of ['plain', 'headers']) {
        const wire = await t.websocket(`/${room}?token=t`, { label: room, fields: protocols });
        await t.logged('upgrade gives', room === 'plain' ? 1 : 2);
        wire.destroy();
        await t.logged('close', room === 'plain' ? 1 : 2);
      }
      const refused = await t.connect();
      refused.write(handshake('/refused'));
      t.record('refused', await refused.response());
    },
    differences: [{ id: 'refused-handshake', step: 'refused', original: forbidden, ours: ending(forbidden) }],
  },

  'an upgrade may come later, and what the client has sent meanwhile is not lost': {
    server({ uWS, listen, log }) {
      let go;
      listen(
        uWS.App().ws('/*', {
          ...logging(log),
          upgrade(res, req, context) {
            const [key, protocol, extensions] = ['key', 'protocol', 'extensions'].map((name) => req.getHeader(`sec-websocket-${name}`));
            res.onAborted(() => log('aborted'));
            go = () => res.cork(() => res.upgrade({ late: true }, key, protocol, extensions, context));
            log('upgrade');
          },
          open: (ws) => log('open', ws.late),
        }),
      );
      return { go: () => void go() };
    },
    async client(t) {
      const wire = await t.connect();
      wire.write(handshake('/'));
      await t.logged('upgrade');
      await t.command('go');
      t.record('answer', await wire.head());
      wire.write(frame(opcode.text, 'after'));
      await t.logged('message');
      const gone = await t.connect();
      gone.write(handshake('/'));
      await t.logged('upgrade', 2);
      gone.destroy();
      await t.logged('aborted');
    },
  },

  'an asynchronous upgrade handler may use the request until it really waits': {
    server({ uWS, listen, log }) {
      listen(
        uWS.App().ws('/*', {
          ...logging(log),
          async upgrade(res, req, context) {
            let aborted = false;
            res.onAborted(() => {
              aborted = true;
            });
            await Promise.resolve();
            if (aborted) return;
            res.cork(() => {
              res.upgrade(
                { url: req.getUrl() },
                req.getHeader('sec-websocket-key'),
                '',
                req.getHeader('sec-websocket-extensions'),
                context,
              );
            });
          },
          open: (ws) => log('open', ws.url),
        }),
      );
    },
    async client(t) {
      const wire = await t.websocket('/async', { label: 'answer' });
      wire.write(frame(opcode.text, 'x'));
      await t.logged('message');
    },
  },

  'bad handshakes do not open': {
    server({ uWS, listen }) {
      listen(
        uWS
          .App()
          .ws('/ws', {})
          .any('/*', (res, req) => res.end(`http ${req.getUrl()}`)),
      );
    },
    async client(t) {
      await t.exchange('no key', handshake('/ws', { 'Sec-WebSocket-Key': undefined }));
      await t.exchange('no upgrade', handshake('/ws', { Upgrade: undefined }));
      await t.exchange('another path', handshake('/other'));
      await t.exchange('POST', handshake('/ws').replace('GET', 'POST').replace('Host', 'Content-Length: 0\r\nHost'));
    },
    differences: [
      {
        id: 'strict-handshake',
        step: 'no key',
        original: plain('http /ws'),
        ours: badRequest('Sec-WebSocket-Key is not 16 bytes in base64 (RFC 6455, 4.1)'),
      },
      { id: 'strict-handshake', step: 'no upgrade', original: accepted, ours: plain('http /ws') },
      {
        id: 'strict-handshake',
        step: 'POST',
        original: plain('http /ws'),
        ours: badRequest('a WebSocket handshake is a GET request (RFC 6455, 4.1)'),
      },
      { id: 'refused-handshake', step: 'another path', original: plain('http /other'), ours: ending(plain('http /other')) },
    ],
  },

  'messages are ArrayBuffers, of text or binary, and detached afterwards': {
    server({ uWS, listen, log }) {
      listen(
        uWS.App().ws('/*', {
          ...logging(log),
          message(ws, message, isBinary) {
            log('message', message, isBinary, message instanceof ArrayBuffer, message.byteLength);
            log('send gives', ws.send(message, isBinary));
            setImmediate(() => log('later', message.byteLength));
          },
        }),
      );
    },
    async client(t) {
      const wire = await t.websocket();
      const messages = [
        [opcode.text, 'hello'],
        [opcode.binary, '\x00\x01\x02'],
        [opcode.text, ''],
        [opcode.binary, ''],
        [opcode.text, 'x'.repeat(126)],
      ];
      for (const [index, [code, payload]] of messages.entries()) {
        wire.write(frame(code, payload));
        t.record(`echo ${index}`, await wire.frame());
        await t.logged('later', index + 1);
      }
      wire.write(frame(opcode.binary, 'y'.repeat(16_000)));
      t.record('echo of 16000', await wire.frame());
      await t.logged('later', 6);
    },
  },

  'a message still lives in what an asynchronous handler does before it really waits': {
    server({ uWS, listen, log }) {
      listen(
        uWS.App().ws('/*', {
          async message(_ws, message) {
            log('at once', message.byteLength);
            await null;
            log('after a resolved promise', message.byteLength);
            await new Promise((resolve) => setImmediate(resolve));
            log('after a turn of the loop', message.byteLength);
          },
        }),
      );
    },
    async client(t) {
      const wire = await t.websocket();
      wire.write(frame(opcode.text, 'abc'));
      await t.logged('after a turn of the loop');
    },
  },

  'send takes text and bytes, and says 1 when it has gone out': {
    server({ uWS, listen, log, attempt }) {
      listen(
        uWS.App().ws('/*', {
          open(ws) {
            log('text', ws.send('text'));
            log('binary text', ws.send('text', true));
            log('buffer', ws.send(new TextEncoder().encode('buffer').buffer));
            log('bytes', ws.send(new TextEncoder().encode('xbytesx').subarray(1, 6), true));
            log('empty', ws.send(''));
            log('nothing', ws.send());
            log('words', ws.send(new Uint16Array([0x4241]), true, false));
            log('utf-8', ws.send('€'));
            log('large', ws.send('l'.repeat(20_000)));
            log('compressed where nothing was agreed', ws.send('plain', false, true));
            log(
              'a number',
              attempt(() => ws.send(5)),
            );
            log(
              'null',
              attempt(() => ws.send(null)),
            );
            log(
              'an object',
              attempt(() => ws.send({})),
            );
            log(
              'a number as a ping',
              attempt(() => ws.ping(5)),
            );
            log(
              'subscribe a number',
              attempt(() => ws.subscribe(5)),
            );
            log(
              'unsubscribe a number',
              attempt(() => ws.unsubscribe(5)),
            );
            log(
              'isSubscribed a number',
              attempt(() => ws.isSubscribed(5)),
            );
            log(
              'publish one',
              attempt(() => ws.publish('a')),
            );
            log(
              'publish a number',
              attempt(() => ws.publish('a', 5)),
            );
            log('buffered', ws.getBufferedAmount());
            log(
              'end with a number',
              attempt(() => ws.end(1000, 5)),
            );
            ws.send('last');
          },
        }),
      );
    },
    async client(t) {
      const wire = await t.websocket();
      const frames = await wire.frames(11);
      t.record(
        'frames',
        frames.map((each) => (each.payload.length > 1000 ? { ...each, payload: each.payload.length } : each)),
      );
    },
  },

  'fragments are sent as they are given': {
    server({ uWS, listen, log }) {
      listen(
        uWS.App().ws('/*', {
          message(ws, _message, isBinary) {
            log('first', ws.sendFirstFragment('one', isBinary));
            log('middle', ws.sendFragment('two'));
            log('last', ws.sendLastFragment('three'));
            log('empty', ws.sendFirstFragment('', isBinary), ws.sendLastFragment(''));
          },
        }),
      );
    },
    async client(t) {
      const wire = await t.websocket();
      wire.write(frame(opcode.text, 'x'));
      t.record('text', await wire.frames(5));
      wire.write(frame(opcode.binary, 'x'));
      t.record('binary', await wire.frames(5));
    },
  },

  'fragments that come are put together, with control frames between them': {
    server({ uWS, listen, log }) {
      listen(uWS.App().ws('/*', logging(log)));
    },
    async client(t) {
      const wire = await t.websocket();
      wire.write(frame(opcode.text, 'one ', { fin: false }));
      wire.write(frame(opcode.continuation, 'two ', { fin: false }));
      wire.write(frame(opcode.ping, 'between'));
      wire.write(frame(opcode.continuation, 'three'));
      await t.logged('message');
      t.record('pong', await wire.frame());
      wire.write(frame(opcode.binary, '', { fin: false }));
      wire.write(frame(opcode.continuation, ''));
      await t.logged('message', 2);
      const bytes = frame(opcode.text, 'byte by byte');
      for (const byte of bytes) wire.write(Buffer.from([byte]));
      await t.logged('message', 3);
      wire.write(Buffer.concat([frame(opcode.text, 'a'), frame(opcode.text, 'b'), frame(opcode.pong, 'unasked'), frame(opcode.text, 'c')]));
      await t.logged('message', 6);
    },
  },

  'pings are answered and pongs are told': {
    server({ uWS, listen, log }) {
      listen(
        uWS.App().ws('/*', {
          ...logging(log),
          message(ws, message) {
            log('ping gives', ws.ping(message), ws.ping());
          },
        }),
      );
    },
    async client(t) {
      const wire = await t.websocket();
      wire.write(frame(opcode.ping, 'payload'));
      t.record('pong', await wire.frame());
      wire.write(frame(opcode.ping));
      t.record('empty pong', await wire.frame());
      wire.write(frame(opcode.text, 'ask'));
      t.record('pings', await wire.frames(2));
      wire.write(frame(opcode.pong, 'ask'));
      await t.logged('pong');
    },
  },

  'cork runs its function at once and gives the socket': {
    server({ uWS, listen, log }) {
      listen(
        uWS.App().ws('/*', {
          open(ws) {
            const order = [];
            const result = ws.cork(() => {
              order.push('inside');
              ws.send('one');
              ws.send('two');
            });
            order.push('after');
            log('cork', order, result === ws);
          },
        }),
      );
    },
    async client(t) {
      const wire = await t.websocket();
      t.record('frames', await wire.frames(2));
    },
  },

  'properties can be kept on a socket': {
    server({ uWS, listen, log }) {
      const seen = new Set();
      listen(
        uWS.App().ws('/*', {
          open(ws) {
            ws.count = 0;
            seen.add(ws);
          },
          message(ws) {
            ws.count += 1;
            log('message', ws.count, seen.has(ws));
          },
          close(ws) {
            log('close', ws.count, seen.has(ws), ws.getUserData() === ws);
          },
        }),
      );
    },
    async client(t) {
      const wire = await t.websocket();
      wire.write(Buffer.concat([frame(opcode.text, 'a'), frame(opcode.text, 'b')]));
      await t.logged('message', 2);
      wire.destroy();
      await t.logged('close');
    },
  },

  'the addresses of a socket are bytes and text': {
    server({ uWS, listen, log }) {
      listen(
        uWS.App().ws('/*', {
          open: (ws) => log('open', ws.getRemoteAddress(), ws.getRemoteAddressAsText()),
        }),
      );
    },
    async client(t) {
      await t.websocket();
      await t.logged('open');
    },
  },

  'an application may speak first, in open': {
    server({ uWS, listen, log }) {
      listen(
        uWS.App().ws('/*', {
          open: (ws) => log('open', ws.send('welcome')),
          message: (_ws, message) => log('message', text(message)),
        }),
      );
    },
    async client(t) {
      const wire = await t.connect();
      // The first frame in one write with the handshake: nothing of it may be lost.
      wire.write(Buffer.concat([Buffer.from(handshake('/')), frame(opcode.text, 'eager')]));
      await wire.head();
      t.record('first', await wire.frame());
      if (t.side === 'ringway') await t.logged('message');
    },
    differences: [{ id: 'eager-frames', event: 'message', original: [], ours: [['eager']] }],
  },

  'a socket that ends in open never gets a message': {
    server({ uWS, listen, log }) {
      listen(
        uWS.App().ws('/*', {
          ...logging(log),
          open(ws) {
            log('open');
            ws.end(4001, 'not you');
            log('after end');
          },
        }),
      );
    },
    async client(t) {
      const wire = await t.websocket();
      t.record('frame', await wire.frame());
      wire.write(Buffer.concat([frame(opcode.text, 'too late'), frame(opcode.close, closePayload(4001))]));
      t.record('end', await wire.closed());
      await t.logged('close');
    },
  },

  'the paths of sockets and of requests are told apart': {
    server({ uWS, listen, log }) {
      listen(
        uWS
          .App()
          .get('/same', (res) => res.end('get'))
          .ws('/same', logging(log))
          .ws('/param/:x', {
            ...logging(log),
            upgrade: (res, req, context) => res.upgrade({ x: req.getParameter(0) }, req.getHeader('sec-websocket-key'), '', '', context),
          })
          .ws('/*', logging(log, { open: () => log('open of the wildcard') }))
          .any('/*', (res) => res.end('any')),
      );
    },
    async client(t) {
      await t.get('/same');
      (await t.websocket('/same')).destroy();
      await t.logged('close');
      (await t.websocket('/param/value')).destroy();
      await t.logged('close', 2);
      (await t.websocket('/else')).destroy();
      await t.logged('close', 3);
      await t.get('/else');
    },
  },

  'an upgrade handler may yield to the next route': {
    server({ uWS, listen, log }) {
      listen(
        uWS
          .App()
          .ws('/a', {
            ...logging(log),
            upgrade(_res, req) {
              log('yields');
              req.setYield(true);
            },
          })
          .ws('/*', logging(log, { open: () => log('open of the wildcard') }))
          .any('/*', (res) => res.end('any')),
      );
    },
    async client(t) {
      (await t.websocket('/a')).destroy();
      await t.logged('close');
    },
  },
};
