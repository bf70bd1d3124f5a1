// What a socket whose client does not read does to send, to publish and to the handlers.
import { frame, opcode } from '../../support/frames.mjs';

const part = 'b'.repeat(64 * 1024);

/** Send until it says no; how often is for the kernel to say. */
function fill(ws) {
  let status = 1;
  let sent = 0;
  while (status === 1 && sent < 1000) {
    status = ws.send(part);
    sent += 1;
  }
  return status;
}

/** A client that does not read, of a server that starts when it is told. */
async function stuck(t, path = '/') {
  const wire = await t.websocket(path);
  wire.write(frame(opcode.text, 'go'));
  wire.pause();
  return wire;
}

export const scenarios = {
  'a message longer than the limit goes out when nothing waits before it': {
    server({ uWS, listen, log }) {
      listen(
        uWS.App().ws('/*', {
          maxBackpressure: 1024,
          message(ws) {
            log('long', ws.send('l'.repeat(100_000)));
            setTimeout(
              () => log('longer than the network takes at once', ws.send('m'.repeat(30_000_000)), ws.getBufferedAmount() > 1024),
              1,
            );
          },
        }),
      );
    },
    async client(t) {
      const wire = await t.websocket();
      wire.write(frame(opcode.text, 'go'));
      t.record(
        'lengths',
        (await wire.frames(2)).map((each) => each.payload.length),
      );
    },
  },

  'send says 0 when the client is slow and 2 when the limit is reached': {
    server({ uWS, listen, log }) {
      listen(
        uWS.App().ws('/*', {
          maxBackpressure: 1024 * 1024,
          message(ws) {
            log('filled', fill(ws));
            log('more than nothing waits', ws.getBufferedAmount() > 0);
            let last = 0;
            for (let i = 0; i < 40 && last === 0; i++) last = ws.send(part);
            log('then', last);
            const before = ws.getBufferedAmount();
            log('the limit is passed by no more than one message', before > 1024 * 1024, before <= 1024 * 1024 + part.length + 16);
            log('again', ws.send('small'), ws.getBufferedAmount() === before);
            log('a ping', ws.ping('p'));
            log('ready');
          },
          drain: (ws) => {
            if (ws.getBufferedAmount() === 0) log('drained');
          },
          dropped: (_ws, message, isBinary) => log('dropped', message.byteLength, isBinary),
          close: (_ws, code) => log('close', code),
        }),
      );
    },
    async client(t) {
      const wire = await stuck(t);
      await t.logged('ready');
      wire.resume();
      await t.logged('drained');
    },
  },

  'everything that was taken arrives, in order': {
    server({ uWS, listen, log }) {
      listen(
        uWS.App().ws('/*', {
          maxBackpressure: 0,
          message(ws) {
            for (let i = 0; i < 200; i++) ws.send(`${i} ${part}`);
            ws.send('last');
            log('ready', ws.getBufferedAmount() > 0);
          },
          drain: (ws) => {
            if (ws.getBufferedAmount() === 0) log('drained');
          },
        }),
      );
    },
    async client(t) {
      const wire = await stuck(t);
      await t.logged('ready');
      wire.resume();
      const frames = await wire.frames(201);
      t.record('frames', frames.map((each) => `${each.payload.split(' ')[0]} ${each.payload.length}`).join());
      await t.logged('drained');
    },
  },

  'the limit can end the socket': {
    server({ uWS, listen, log }) {
      listen(
        uWS.App().ws('/*', {
          maxBackpressure: 1024,
          closeOnBackpressureLimit: true,
          message(ws) {
            let status = 1;
            for (let i = 0; i < 1000 && status !== 2; i++) status = ws.send(part);
            log('last', status);
          },
          close: (_ws, code) => log('close', code),
        }),
      );
    },
    async client(t) {
      const wire = await stuck(t);
      await t.logged('close');
      wire.resume();
      t.record('cut off', (await wire.closed()).endsWith('<closed>'));
    },
  },

  'a slow subscriber is skipped and the others are not': {
    server({ uWS, listen, log }) {
      const app = uWS.App();
      listen(
        app.ws('/*', {
          maxBackpressure: 64 * 1024,
          open: (ws) => void ws.subscribe('room'),
          message(ws) {
            log('filled', fill(ws));
            log('and past the limit', ws.send(part), ws.send(part));
          },
        }),
      );
      return { publish: (message) => app.publish('room', message) };
    },
    async client(t) {
      const quick = await t.websocket();
      await stuck(t);
      await t.logged('and past the limit');
      t.record('published', await t.command('publish', 'to whom it may concern'));
      t.record('quick', await quick.frame());
    },
  },

  'a socket with much to send can still be ended': {
    server({ uWS, listen, log }) {
      listen(
        uWS.App().ws('/*', {
          maxBackpressure: 0,
          message(ws) {
            for (let i = 0; i < 100; i++) ws.send(part);
            log('buffered', ws.getBufferedAmount() > 0);
            ws.end(4000, 'enough');
          },
          close: (_ws, code) => log('close', code),
        }),
      );
    },
    async client(t) {
      const wire = await stuck(t);
      await t.logged('close');
      wire.resume();
      const frames = await wire.frames(101);
      t.record('frames', [frames.length, frames.filter((each) => each.payload?.length === part.length).length, frames.at(-1)]);
    },
  },
};
