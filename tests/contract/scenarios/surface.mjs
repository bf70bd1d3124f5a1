// The names there are: of the module, and of each kind of object.
import { frame, opcode } from '../../support/frames.mjs';

/** Every name an object answers to, its own or inherited short of Object's, with its type. */
function members(object) {
  const all = {};
  for (let at = object; at !== null && at !== Object.prototype; at = Object.getPrototypeOf(at))
    for (const name of Object.getOwnPropertyNames(at)) if (name !== 'constructor') all[name] ??= typeof object[name];
  return all;
}

/** One event for each name, so that a difference can be declared for one. */
function logMembers(log, kind, object) {
  for (const [name, type] of Object.entries(members(object)).sort(([a], [b]) => (a < b ? -1 : 1)))
    if (type === 'function') log(`${kind}.${name}`, type);
  log(`a ${kind} is`, Object.prototype.toString.call(object), Object.keys(object));
  log(`the class of ${kind}`, object.constructor.name);
}

/** A function that the original's build lacks, and later versions of it have. */
const newer = (event) => ({ id: 'newer-members', event, original: [], ours: [['function']] });

/** What the original has and neither its typings nor its documentation tell of. */
const undocumented = (event) => ({ id: 'undocumented-members', event, original: [['function']], ours: [] });

export const scenarios = {
  'the module has these names': {
    server({ uWS, log }) {
      for (const [name, type] of Object.entries(members(uWS)).sort(([a], [b]) => (a < b ? -1 : 1)))
        if (name !== 'default') log(`module.${name}`, type);
    },
    async client() {},
    differences: [
      { ...newer('module.LIBUS_LISTEN_DEFAULT'), ours: [['number']] },
      { id: 'no-http3', event: 'module.H3App', original: [['function']], ours: [] },
      ...[
        'arm',
        'clearTimeout',
        'deleteInteger',
        'deleteIntegerCollection',
        'deleteString',
        'deleteStringCollection',
        'getInteger',
        'getIntegerKeys',
        'getString',
        'getStringKeys',
        'incInteger',
        'lock',
        'setInteger',
        'setString',
        'setTimeout',
        'unlock',
      ].map((name) => undocumented(`module.${name}`)),
    ],
    isNewer: true,
  },

  'every kind of object has these names': {
    server({ uWS, listen, log }) {
      const app = uWS.App();
      logMembers(log, 'App', app);
      listen(
        app
          .get('/*', (res, req) => {
            logMembers(log, 'HttpRequest', req);
            logMembers(log, 'HttpResponse', res);
            res.end();
          })
          .ws('/*', {
            open: (ws) => {
              logMembers(log, 'WebSocket', ws);
              ws.send('x');
            },
          }),
      );
    },
    async client(t) {
      await t.get('/');
      const wire = await t.websocket();
      t.record('frame', await wire.frame());
      wire.write(frame(opcode.close));
    },
    differences: [
      'HttpResponse.collectBody',
      'HttpResponse.getProxiedRemotePort',
      'HttpResponse.getRemotePort',
      'HttpResponse.onDataV2',
      'WebSocket.getRemotePort',
    ]
      .map(newer)
      .concat(
        ['adoptSocket', 'getIdleTimeout', 'getResponseTimeout', 'setIdleTimeout', 'setResponseTimeout'].map((name) =>
          undocumented(`App.${name}`),
        ),
      )
      .concat([
        {
          id: 'request-fields',
          event: 'a HttpRequest is',
          original: [['[object Object]', []]],
          ours: [['[object Object]', ['parameters', 'parameterNames', 'yielded']]],
        },
      ]),
    isNewer: true,
  },

  'the module can be imported in every way': {
    async server({ uWS, log }) {
      const { createRequire } = await import('node:module');
      const required = createRequire(import.meta.url)('uWebSockets.js');
      const imported = await import('uWebSockets.js');
      log('require', required.App === uWS.App, typeof required.SSLApp);
      log('import', imported.default.App === uWS.App);
      log('import of a name', typeof imported.App);
    },
    async client() {},
    isNewer: true,
  },
};
