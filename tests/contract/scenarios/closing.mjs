// How a WebSocket ends, from either side, and what a dead one answers.
import { closePayload, frame, opcode } from '../../support/frames.mjs';
import { logging, text } from '../handlers.mjs';

/** A server that ends a socket in the way its path names. */
const endings = {
  nothing: (ws) => ws.end(),
  code: (ws) => ws.end(4000),
  'code and reason': (ws) => ws.end(4001, 'a reason'),
  bytes: (ws) => ws.end(4002, new TextEncoder().encode('bytes')),
  zero: (ws) => ws.end(0),
  'long reason': (ws) => ws.end(4003, 'r'.repeat(123)),
  close: (ws) => ws.close(),
};

/** The close handler, with the reason apart. */
const told = (log) => (_ws, code, message) => {
  log('close', code);
  log('reason', text(message));
};

const closeFrame = (code, reason = '') => ({ fin: true, rsv: 0, opcode: 8, payload: text(closePayload(code, reason)) });

/** A close frame, and the end: as they come. */
const closed = (code, reason = '') => `\x88${String.fromCharCode(2 + reason.length)}${text(closePayload(code, reason))}<closed>`;
const notUtf8 = 'text that is not UTF-8';
const quietly = '\x88\x00<closed>';
const times = (count, value) => Array.from({ length: count }, () => [value]);

const protocolFault = 'Received invalid WebSocket frame';
const gone = 'Received TCP FIN before WebSocket close frame';

export const scenarios = {
  'a server ends a socket with a code and a reason, or without a word': {
    server({ uWS, listen, log }) {
      listen(
        uWS.App().ws('/*', {
          message(ws, message) {
            log('ending', text(message));
            log('gives', endings[text(message)](ws));
          },
          close: told(log),
        }),
      );
    },
    async client(t) {
      for (const [index, ending] of Object.keys(endings).entries()) {
        const wire = await t.websocket();
        wire.write(frame(opcode.text, ending));
        t.record(ending, await wire.frame());
        wire.write(frame(opcode.close, closePayload(1000)));
        t.record(`after ${ending}`, await wire.closed());
        await t.logged('gives', index + 1);
      }
    },
  },

  'a client closes with a code and a reason, without, or without a word': {
    server({ uWS, listen, log }) {
      listen(uWS.App().ws('/*', logging(log, { close: told(log) })));
    },
    async client(t) {
      const closes = {
        'code and reason': closePayload(1000, 'done'),
        'only a code': closePayload(1001),
        'nothing in it': Buffer.alloc(0),
        'an application code': closePayload(4999, 'mine'),
        'a code that may not be sent': closePayload(1005),
        'a code of nobody': closePayload(999),
        'no UTF-8': Buffer.concat([closePayload(1000), Buffer.from([0xff])]),
      };
      for (const [index, [label, payload]] of Object.entries(closes).entries()) {
        const wire = await t.websocket();
        wire.write(frame(opcode.close, payload));
        t.record(label, await wire.closed());
        await t.logged('close', index + 1);
      }
      const end = await t.websocket();
      end.end();
      t.record('its half ended', await end.closed());
      await t.logged('reason', 8);
    },
    differences: [
      { id: 'close-echo', step: 'code and reason', original: `\x88\x06${text(closePayload(1000, 'done'))}<closed>`, ours: closed(1000) },
      {
        id: 'close-echo',
        step: 'an application code',
        original: `\x88\x06${text(closePayload(4999, 'mine'))}<closed>`,
        ours: closed(4999),
      },
      ...['a code that may not be sent', 'a code of nobody'].map((step) => ({
        id: 'close-frames',
        step,
        original: quietly,
        ours: closed(1002),
      })),
      { id: 'close-frames', step: 'no UTF-8', original: quietly, ours: closed(1007, notUtf8) },
      {
        id: 'close-reasons',
        event: 'reason',
        original: [['done'], [''], [''], ['mine'], ...times(3, 'Received invalid close payload'), [gone]],
        ours: [['done'], [''], [''], ['mine'], ...times(2, protocolFault), ['Received invalid UTF-8'], [gone]],
      },
    ],
    isNewer: true,
  },

  'a close frame with half a code breaks the protocol': {
    server({ uWS, listen, log }) {
      listen(uWS.App().ws('/*', { close: told(log) }));
    },
    async client(t) {
      const wire = await t.websocket();
      wire.write(frame(opcode.close, Buffer.from([3])));
      t.record('answer', await wire.closed());
      await t.logged('reason');
    },
    // RFC 6455 §5.5.1: a body, if there is one, begins with a code of two bytes.
    differences: [
      { id: 'close-frames', step: 'answer', original: quietly, ours: closed(1002) },
      { id: 'close-frames', event: 'close', original: [[1005]], ours: [[1006]] },
      { id: 'close-reasons', event: 'reason', original: [['']], ours: [[protocolFault]] },
    ],
  },

  'a client that resets its connection is gone': {
    server({ uWS, listen, log }) {
      listen(uWS.App().ws('/*', logging(log)));
    },
    async client(t) {
      const wire = await t.websocket();
      wire.reset();
      await t.logged('close');
    },
  },

  'what breaks the protocol ends the socket': {
    server({ uWS, listen, log }) {
      listen(uWS.App().ws('/*', logging(log, { open: () => {}, close: told(log) })));
    },
    async client(t) {
      const faults = {
        'an unmasked frame': frame(opcode.text, 'x', { masked: false }),
        'a reserved bit': frame(opcode.text, 'x', { rsv: 1 }),
        'RSV1 without compression': frame(opcode.text, 'x', { rsv: 4 }),
        'a reserved opcode': frame(3, 'x'),
        'a reserved control opcode': frame(11, ''),
        'a continuation of nothing': frame(opcode.continuation, 'x'),
        'a message in a message': Buffer.concat([frame(opcode.text, 'a', { fin: false }), frame(opcode.text, 'b')]),
        'a ping in parts': frame(opcode.ping, 'x', { fin: false }),
        'a long ping': frame(opcode.ping, 'x'.repeat(126)),
        'text that is no UTF-8': frame(opcode.text, Buffer.from([0xc3, 0x28])),
        'a long message': frame(opcode.text, 'x'.repeat(16 * 1024 + 1)),
        'a long message in parts': Buffer.concat([
          frame(opcode.text, 'x'.repeat(10_000), { fin: false }),
          frame(opcode.continuation, 'x'.repeat(10_000)),
        ]),
      };
      for (const [index, [label, bytes]] of Object.entries(faults).entries()) {
        const wire = await t.websocket();
        // Whoever lets the fault pass answers the ping.
        wire.write(Buffer.concat([bytes, frame(opcode.ping, label)]));
        t.record(label, await wire.frame());
        wire.destroy();
        await t.logged('reason', index + 1);
      }
    },
    differences: [
      ...[
        'an unmasked frame',
        'a reserved bit',
        'RSV1 without compression',
        'a reserved opcode',
        'a reserved control opcode',
        'a continuation of nothing',
        'a message in a message',
        'a ping in parts',
        'a long ping',
      ].map((step) => ({ id: 'close-frames', step, original: 'closed', ours: closeFrame(1002) })),
      { id: 'close-frames', step: 'text that is no UTF-8', original: 'closed', ours: closeFrame(1007, notUtf8) },
      { id: 'close-frames', step: 'a long message', original: 'closed', ours: closeFrame(1009) },
      { id: 'close-frames', step: 'a long message in parts', original: 'closed', ours: closeFrame(1009) },
      // The original takes the frame for a masked one, and its four bytes of payload and what follows for the key.
      { id: 'unmasked-frames', event: 'message', original: [['L', false]], ours: [] },
    ],
    isNewer: true,
  },

  'a message as long as allowed comes, one byte more does not': {
    server({ uWS, listen, log }) {
      listen(
        uWS.App().ws('/*', { maxPayloadLength: 100, message: (_ws, message) => log('message', message.byteLength), close: told(log) }),
      );
    },
    async client(t) {
      const wire = await t.websocket();
      wire.write(frame(opcode.binary, 'x'.repeat(100)));
      await t.logged('message');
      wire.write(frame(opcode.binary, 'x'.repeat(101)));
      t.record('one more', await wire.closed());
      await t.logged('reason');
    },
    differences: [{ id: 'close-frames', step: 'one more', original: '<closed>', ours: closed(1009) }],
  },

  'a socket that has been ended goes away when its client does not answer': {
    server({ uWS, listen, log }) {
      listen(uWS.App().ws('/*', { idleTimeout: 8, message: (ws) => ws.end(4000, 'bye'), close: (_ws, code) => log('close', code) }));
    },
    async client(t) {
      const wire = await t.websocket();
      wire.write(frame(opcode.text, 'x'));
      t.record('frame', await wire.frame());
      await t.logged('close');
      wire.write(frame(opcode.ping, 'nobody answers'));
      t.record('then', await wire.closed());
    },
  },

  'a dead socket throws at every call': {
    server({ uWS, listen, log, attempt }) {
      const calls = [
        ['send', 'x'],
        ['sendFirstFragment', 'x'],
        ['sendFragment', 'x'],
        ['sendLastFragment', 'x'],
        ['ping'],
        ['end'],
        ['close'],
        ['cork', () => {}],
        ['getBufferedAmount'],
        ['subscribe', 'a'],
        ['unsubscribe', 'a'],
        ['isSubscribed', 'a'],
        ['getTopics'],
        ['publish', 'a', 'b'],
        ['getRemoteAddress'],
        ['getRemoteAddressAsText'],
      ];
      const tryAll = (ws, when) => {
        for (const [member, ...values] of calls)
          log(
            when,
            member,
            attempt(() => ws[member](...values)),
          );
      };
      listen(
        uWS.App().ws('/*', {
          message(ws) {
            ws.end();
            tryAll(ws, 'after end');
          },
          close(ws) {
            tryAll(ws, 'in close');
            log('getUserData', ws.getUserData() === ws);
          },
        }),
      );
    },
    async client(t) {
      const wire = await t.websocket();
      wire.write(frame(opcode.text, 'x'));
      t.record('frame', await wire.frame());
      await t.logged('after end', 16);
    },
  },

  'messages behind the one that ends a socket do not come': {
    server({ uWS, listen, log }) {
      listen(
        uWS.App().ws('/*', {
          message(ws, message) {
            log('message', text(message));
            if (text(message) === 'stop') ws.end(1000, 'stopped');
          },
          close: (_ws, code) => log('close', code),
        }),
      );
    },
    async client(t) {
      const wire = await t.websocket();
      wire.write(Buffer.concat([frame(opcode.text, 'one'), frame(opcode.text, 'stop'), frame(opcode.text, 'two')]));
      t.record('frame', await wire.frame());
      await t.logged('close');
    },
  },

  'a socket that is silent for idleTimeout is ended': {
    server({ uWS, listen, log }) {
      const started = {};
      listen(
        uWS
          .App()
          .ws('/silent', {
            idleTimeout: 8,
            sendPingsAutomatically: false,
            close: (_ws, code, message) => log('close of the silent', code, text(message)),
          })
          .ws('/pinged', {
            idleTimeout: 8,
            close: (_ws, code, message) => log('close of the pinged', code, text(message)),
            pong: () => log('pong of the pinged'),
          }),
      );
      return started;
    },
    async client(t) {
      const silent = await t.websocket('/silent');
      const pinged = await t.websocket('/pinged');
      const ping = await pinged.frame();
      t.record('ping', ping);
      pinged.write(frame(opcode.pong, ping.payload));
      await t.logged('pong of the pinged');
      t.record('silent', await silent.closed());
      await t.logged('close of the silent');
      t.record('the pinged one got no more than a ping so far', t.events('close of the pinged'));
    },
  },

  'a timeout that cannot be is refused': {
    server({ uWS, log, attempt }) {
      for (const idleTimeout of [0, 8, 960])
        log(
          'accepted',
          idleTimeout,
          attempt(() => typeof uWS.App().ws('/*', { idleTimeout })),
        );
      for (const maxLifetime of [0, 1, 240])
        log(
          'accepted',
          maxLifetime,
          attempt(() => typeof uWS.App().ws('/*', { maxLifetime })),
        );
    },
    async client() {},
  },
};
