// Handlers that throw, that answer nothing, and that do what they should not.
import { frame, opcode } from '../../support/frames.mjs';
import { text } from '../handlers.mjs';

const failed =
  'HTTP/1.1 500 Internal Server Error\r\nContent-Type: text/plain\r\nDate: now\r\nContent-Length: 21\r\n\r\nInternal Server Error';
const lives = 'HTTP/1.1 200 OK\r\nDate: now\r\nContent-Length: 5\r\n\r\nlives';

export const scenarios = {
  'a route handler that throws': {
    server({ uWS, listen, log }) {
      listen(
        uWS
          .App()
          .get('/throws', () => {
            throw new Error('thrown in a route');
          })
          .get('/late', (res) => {
            res.onAborted(() => log('aborted'));
            setTimeout(() => res.cork(() => res.end('late')), 5);
          })
          .get('/*', (res) => res.end('lives')),
      );
    },
    async client(t) {
      const wire = await t.connect();
      wire.write('GET /throws HTTP/1.1\r\nHost: a\r\n\r\n');
      await t.stderrHas('thrown in a route');
      t.record('its stack names this file', /faults\.mjs:\d+/.test(t.stderr));
      if (t.side === 'original') return t.processEnds();
      t.record('the request', await wire.response());
      await t.get('/', 'another request');
    },
    differences: [
      { id: 'throwing-handler', process: true, original: 'ended with 1', ours: 'lives' },
      { id: 'throwing-handler', step: 'the request', ours: failed },
      { id: 'throwing-handler', step: 'another request', ours: lives },
    ],
  },

  'a handler of a promise that fails': {
    server({ uWS, listen, log }) {
      listen(
        uWS.App().get('/*', async (res) => {
          res.onAborted(() => log('aborted'));
          await null;
          throw new Error('thrown after a wait');
        }),
      );
    },
    async client(t) {
      const wire = await t.connect();
      wire.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
      if (t.side === 'original') return t.logged('unhandledRejection');
      await t.stderrHas('thrown after a wait');
      t.record('its stack names this file', /faults\.mjs:\d+/.test(t.stderr));
      t.record('answer', await wire.response());
    },
    differences: [
      { id: 'throwing-handler', event: 'unhandledRejection', original: [[{ Error: 'thrown after a wait' }]], ours: [] },
      { id: 'throwing-handler', step: 'its stack names this file', ours: true },
      { id: 'throwing-handler', step: 'answer', ours: failed },
    ],
  },

  'a handler of a socket that throws': {
    server({ uWS, listen, log }) {
      listen(
        uWS.App().ws('/*', {
          message(_ws, message) {
            log('message', text(message));
            throw new Error(`thrown at ${text(message)}`);
          },
          close: (_ws, code) => log('close', code),
        }),
      );
    },
    async client(t) {
      const wire = await t.websocket();
      wire.write(frame(opcode.text, 'one'));
      await t.stderrHas('thrown at one');
      t.record('its stack names this file', /faults\.mjs:\d+/.test(t.stderr));
      if (t.side === 'original') return t.processEnds();
      t.record('the socket', await wire.frame());
      await t.logged('close');
    },
    differences: [
      { id: 'throwing-handler', process: true, original: 'ended with 1', ours: 'lives' },
      { id: 'throwing-handler', step: 'the socket', ours: { fin: true, rsv: 0, opcode: 8, payload: '\x03\xf3' } },
      { id: 'throwing-handler', event: 'close', original: [], ours: [[1011]] },
    ],
  },

  'a handler that neither answers nor asks to be told of an abort': {
    server({ uWS, listen }) {
      listen(
        uWS
          .App()
          .get('/forgets', () => {})
          .get('/*', (res) => res.end('lives')),
      );
    },
    async client(t) {
      const wire = await t.connect();
      wire.write('GET /forgets HTTP/1.1\r\nHost: a\r\n\r\n');
      await t.stderrHas('Returning from a request handler without responding or attaching an abort handler is forbidden!');
      t.record('answer', await wire.response());
      if (t.side === 'original') return t.processEnds();
      await t.get('/', 'another request');
    },
    differences: [
      { id: 'unanswered-request', process: true, original: 'ended with SIGABRT', ours: 'lives' },
      { id: 'unanswered-request', step: 'answer', original: '<closed>', ours: failed },
      { id: 'unanswered-request', step: 'another request', ours: lives },
    ],
  },

  'a function given to cork that throws': {
    server({ uWS, listen, log, attempt }) {
      listen(
        uWS.App().get('/*', (res) => {
          log(
            'cork',
            attempt(
              () =>
                typeof res.cork(() => {
                  throw new Error('thrown in cork');
                }),
            ),
          );
          res.end('after');
        }),
      );
    },
    async client(t) {
      await t.get('/');
    },
  },

  'a function given to forEach that throws': {
    server({ uWS, listen, log, attempt }) {
      listen(
        uWS.App().get('/*', (res, req) => {
          log(
            'forEach',
            attempt(() =>
              req.forEach(() => {
                throw new Error('thrown in forEach');
              }),
            ),
          );
          res.end('after');
        }),
      );
    },
    async client(t) {
      await t.get('/');
    },
  },
};
