// permessage-deflate (RFC 7692): what is agreed for each mode and each offer, and that what is sent can be read.
import { constants, deflateRawSync } from 'node:zlib';
import { frame, handshake, opcode } from '../../support/frames.mjs';
import { text } from '../handlers.mjs';

const offers = {
  plain: 'permessage-deflate',
  browser: 'permessage-deflate; client_max_window_bits',
  'client window': 'permessage-deflate; client_max_window_bits=10',
  'server window': 'permessage-deflate; server_max_window_bits=9',
  'both windows': 'permessage-deflate; client_max_window_bits=12; server_max_window_bits=11',
  'no takeover of the client': 'permessage-deflate; client_no_context_takeover',
  'no takeover of the server': 'permessage-deflate; server_no_context_takeover',
  'no takeover': 'permessage-deflate; server_no_context_takeover; client_no_context_takeover; client_max_window_bits',
  none: undefined,
  other: 'x-webkit-deflate-frame-unknown',
};

const modes = [
  'DISABLED',
  'SHARED_COMPRESSOR',
  'DEDICATED_COMPRESSOR_3KB',
  'DEDICATED_COMPRESSOR_4KB',
  'DEDICATED_COMPRESSOR_8KB',
  'DEDICATED_COMPRESSOR_16KB',
  'DEDICATED_COMPRESSOR_32KB',
  'DEDICATED_COMPRESSOR_64KB',
  'DEDICATED_COMPRESSOR_128KB',
  'DEDICATED_COMPRESSOR_256KB',
  'DEDICATED_COMPRESSOR',
  'SHARED_DECOMPRESSOR',
  'SHARED_COMPRESSOR|SHARED_DECOMPRESSOR',
  'SHARED_COMPRESSOR|DEDICATED_DECOMPRESSOR',
  'SHARED_COMPRESSOR|DEDICATED_DECOMPRESSOR_32KB',
  'SHARED_COMPRESSOR|DEDICATED_DECOMPRESSOR_512B',
  'DEDICATED_COMPRESSOR_4KB|DEDICATED_DECOMPRESSOR_4KB',
  'DEDICATED_COMPRESSOR_256KB|DEDICATED_DECOMPRESSOR_1KB',
  'DEDICATED_COMPRESSOR_8KB|SHARED_DECOMPRESSOR',
];

const option = (uWS, mode) => mode.split('|').reduce((bits, name) => bits | uWS[name], 0);

/** A message as a client compresses it (RFC 7692 §7.2.1), each for itself. */
function deflated(message) {
  const bytes = deflateRawSync(Buffer.from(message), { finishFlush: constants.Z_SYNC_FLUSH, windowBits: 9 });
  return bytes.subarray(0, bytes.length - 4);
}

const json = JSON.stringify(Array.from({ length: 30 }, (_, id) => ({ id, name: `name ${id}`, text: 'the same again and again' })));

/** The modes with a compressor of their own window, and what the original agrees to with each. */
const dedicated = {
  DEDICATED_COMPRESSOR_3KB: 'client_no_context_takeover; server_max_window_bits=9',
  DEDICATED_COMPRESSOR_4KB: 'client_no_context_takeover; server_max_window_bits=9',
  DEDICATED_COMPRESSOR_8KB: 'client_no_context_takeover; server_max_window_bits=10',
  DEDICATED_COMPRESSOR_16KB: 'client_no_context_takeover; server_max_window_bits=11',
  DEDICATED_COMPRESSOR_32KB: 'client_no_context_takeover; server_max_window_bits=12',
  DEDICATED_COMPRESSOR_64KB: 'client_no_context_takeover; server_max_window_bits=13',
  DEDICATED_COMPRESSOR_128KB: 'client_no_context_takeover; server_max_window_bits=14',
  DEDICATED_COMPRESSOR_256KB: 'client_no_context_takeover',
  DEDICATED_COMPRESSOR: 'client_no_context_takeover',
  'DEDICATED_COMPRESSOR_4KB|DEDICATED_DECOMPRESSOR_4KB': 'client_no_context_takeover; server_max_window_bits=9',
  'DEDICATED_COMPRESSOR_256KB|DEDICATED_DECOMPRESSOR_1KB': 'client_no_context_takeover',
  'DEDICATED_COMPRESSOR_8KB|SHARED_DECOMPRESSOR': 'client_no_context_takeover; server_max_window_bits=10',
};

/** And those that compress each message for itself: what is agreed with an offer of 9 bits, and with one of 12 and 11. */
const shared = {
  SHARED_COMPRESSOR: ['client_no_context_takeover', 'client_no_context_takeover'],
  SHARED_DECOMPRESSOR: ['client_no_context_takeover', 'client_no_context_takeover'],
  'SHARED_COMPRESSOR|SHARED_DECOMPRESSOR': ['client_no_context_takeover', 'client_no_context_takeover'],
  'SHARED_COMPRESSOR|DEDICATED_DECOMPRESSOR': ['', 'client_max_window_bits=12'],
  'SHARED_COMPRESSOR|DEDICATED_DECOMPRESSOR_32KB': ['', 'client_max_window_bits=12'],
  'SHARED_COMPRESSOR|DEDICATED_DECOMPRESSOR_512B': ['client_no_context_takeover', 'client_max_window_bits=9'],
};

const answer = (...parameters) => ['permessage-deflate', ...parameters.filter((parameter) => parameter !== '')].join('; ');

/** RFC 7692 §7.1.1.1 and §7.1.2.1: a server that accepts an offer of these parameters says so in its answer. */
const negotiation = [
  ...Object.entries(dedicated).flatMap(([mode, agreed]) => {
    const [client, ...window] = agreed.split('; ');
    return ['no takeover of the server', 'no takeover'].map((offer) => ({
      id: 'deflate-negotiation',
      step: `${mode}: ${offer}`,
      original: answer(agreed),
      ours: answer(client, 'server_no_context_takeover', ...window),
    }));
  }),
  ...Object.entries(shared).flatMap(([mode, agreed]) =>
    ['server window', 'both windows'].map((offer, index) => ({
      id: 'deflate-negotiation',
      step: `${mode}: ${offer}`,
      original: answer(agreed[index], 'server_no_context_takeover'),
      ours: answer(agreed[index], 'server_no_context_takeover', `server_max_window_bits=${[9, 11][index]}`),
    })),
  ),
];

/** A server with a path for each mode. */
function withModes({ uWS, listen, log }, more = {}) {
  const app = uWS.App();
  for (const [index, mode] of modes.entries())
    app.ws(`/${index}`, {
      compression: option(uWS, mode),
      open: (ws) => void ws.subscribe('room'),
      message(ws, message, isBinary) {
        log('message', message.byteLength, isBinary);
        ws.send(message, isBinary, true);
        ws.send(message, isBinary, false);
      },
      close: (_ws, code) => log('close', code),
      ...more,
    });
  listen(app);
  return { publish: (message, compress) => app.publish('room', message, false, compress) };
}

export const scenarios = {
  'what is agreed follows from the mode and the offer': {
    // The sockets are left at once: when the server hears of it is not of interest here.
    server: (host) => withModes(host, { close() {} }),
    async client(t) {
      for (const [index, mode] of modes.entries())
        for (const [name, offer] of Object.entries(offers)) {
          const wire = await t.connect();
          wire.write(handshake(`/${index}`, { 'Sec-WebSocket-Extensions': offer }));
          const head = await wire.head();
          t.record(`${mode}: ${name}`, /^sec-websocket-extensions: (.*)\r$/im.exec(head)?.[1] ?? 'none');
          wire.destroy();
        }
    },
    differences: negotiation,
  },

  'the constants have their values': {
    server({ uWS, log }) {
      for (const name of Object.keys(uWS).sort()) if (typeof uWS[name] === 'number') log(name, uWS[name]);
    },
    async client() {},
    differences: [{ id: 'newer-members', event: 'LIBUS_LISTEN_DEFAULT', original: [], ours: [[0]] }],
  },

  'compressed messages are read and sent in every mode': {
    server: withModes,
    async client(t) {
      for (const [index, mode] of modes.entries()) {
        const wire = await t.websocket(`/${index}`, {
          fields: { 'Sec-WebSocket-Extensions': 'permessage-deflate; client_no_context_takeover; client_max_window_bits' },
        });
        if (mode === 'DISABLED') continue;
        const answers = [];
        for (const message of ['small', json, json, 'x'.repeat(5000)]) {
          wire.write(frame(opcode.text, deflated(message), { rsv: 4 }));
          for (const each of await wire.frames(2))
            answers.push([each.opcode, each.rsv, each.payload === message || each.payload.startsWith(`${message.length} bytes`)]);
        }
        wire.write(frame(opcode.binary, 'not compressed'));
        for (const each of await wire.frames(2)) answers.push([each.opcode, each.rsv, each.payload]);
        t.record(mode, answers);
        wire.destroy();
        await t.logged('close', index);
      }
    },
  },

  'a published message is compressed for those who agreed to it': {
    server: withModes,
    async client(t) {
      const fields = { 'Sec-WebSocket-Extensions': 'permessage-deflate; client_max_window_bits' };
      const [plain, shared, dedicated] = [
        await t.websocket('/1'),
        await t.websocket('/1', { fields }),
        await t.websocket('/5', { fields }),
      ];
      for (const wire of [plain, shared, dedicated]) {
        wire.write(frame(opcode.ping));
        await wire.frame();
      }
      await t.command('publish', json, true);
      await t.command('publish', json, false);
      await t.command('publish', json, true);
      for (const [name, wire] of Object.entries({ plain, shared, dedicated })) {
        const frames = await wire.frames(3);
        t.record(
          name,
          frames.map((each) => [each.rsv, each.payload.length]),
        );
      }
    },
  },

  'a compressed message in fragments is put together': {
    server: withModes,
    async client(t) {
      const wire = await t.websocket('/12', { fields: { 'Sec-WebSocket-Extensions': 'permessage-deflate' } });
      const bytes = deflated(json);
      wire.write(frame(opcode.text, bytes.subarray(0, 20), { fin: false, rsv: 4 }));
      wire.write(frame(opcode.ping, 'between'));
      wire.write(frame(opcode.continuation, bytes.subarray(20)));
      t.record(
        'frames',
        (await wire.frames(3)).map((each) => [each.opcode, each.rsv, each.payload]),
      );
    },
  },

  'a compressed message that grows past the limit ends the socket': {
    server({ uWS, listen, log }) {
      listen(
        uWS.App().ws('/*', {
          compression: uWS.SHARED_COMPRESSOR | uWS.SHARED_DECOMPRESSOR,
          maxPayloadLength: 1000,
          message: (_ws, message) => log('message', message.byteLength),
          close(_ws, code, message) {
            log('close', code);
            log('reason', text(message));
          },
        }),
      );
    },
    async client(t) {
      const fields = { 'Sec-WebSocket-Extensions': 'permessage-deflate' };
      const wire = await t.websocket('/', { fields });
      wire.write(frame(opcode.text, deflated('x'.repeat(900)), { rsv: 4 }));
      await t.logged('message');
      wire.write(frame(opcode.text, deflated('x'.repeat(100_000)), { rsv: 4 }));
      t.record('bomb', await wire.closed());
      await t.logged('close');
      const broken = await t.websocket('/', { fields });
      broken.write(frame(opcode.text, Buffer.from([0xff, 0xff, 0xff, 0xff]), { rsv: 4 }));
      t.record('not deflate', await broken.closed());
      await t.logged('reason', 2);
    },
    differences: [
      { id: 'close-frames', step: 'bomb', original: '<closed>', ours: '\x88\x02\x03\xf1<closed>' },
      {
        id: 'close-frames',
        step: 'not deflate',
        original: '<closed>',
        ours: '\x88\x2c\x03\xefa compressed message that does not inflate<closed>',
      },
      {
        id: 'close-reasons',
        event: 'reason',
        original: [['Received too big message, or other inflation error'], ['Received too big message, or other inflation error']],
        ours: [['Received too big message'], ['Received too big message, or other inflation error']],
      },
    ],
  },
};
