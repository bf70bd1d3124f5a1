// A server of crossws on uWebSockets.js, as its documentation has it.

import uWS from 'uWebSockets.js';
import crossws from 'crossws/adapters/uws';

const say = (...values) => console.log(JSON.stringify(values));

const sockets = crossws({
  hooks: {
    upgrade(request) {
      const url = new URL(request.url);
      say('upgrade', url.pathname, url.search, request.headers.get('x-client'));
      if (url.pathname === '/denied') return new Response('not here', { status: 403, headers: { 'x-why': 'denied' } });
      if (url.pathname === '/later') return Promise.resolve().then(() => ({ headers: { 'x-late': 'yes' }, context: { from: 'later' } }));
      return { headers: { 'x-powered-by': 'crossws' }, context: { from: url.pathname } };
    },
    open(peer) {
      say('open', peer.remoteAddress, peer.context.from, peer.topics.size);
      peer.subscribe('room');
      peer.send('welcome');
    },
    message(peer, message) {
      const text = message.text();
      say('message', text, message.uint8Array().length, peer.peers.size);
      if (text === 'publish') peer.publish('room', { said: 'to the room' });
      else if (text === 'leave') {
        peer.unsubscribe('room');
        peer.send('left');
      } else if (text === 'close') peer.close(4000, 'as asked');
      else if (text === 'terminate') peer.terminate();
      else if (text === 'binary') peer.send(new Uint8Array([1, 2, 3]));
      else if (text === 'ping') peer.ping('are you there');
      else peer.send(`echo ${text}`);
    },
    pong: (_peer, data) => say('pong', Buffer.from(data).toString()),
    close: (_peer, details) => say('close', details.code),
    error: (_peer, error) => say('error', error.message),
  },
});

const app = uWS
  .App()
  .ws('/*', sockets.websocket)
  .get('/count', (res) => res.end(String(sockets.peers.size)));
app.listen('127.0.0.1', Number(process.env.PORT), (token) => console.log(token ? `port ${uWS.us_socket_local_port(token)}` : 'no port'));
