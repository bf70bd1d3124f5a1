// What clients of a crossws server see, as lines: node crossws-client.mjs <port>
import { once } from 'node:events';
import { WebSocket } from 'ws';

const url = `ws://127.0.0.1:${process.argv[2]}`;
const say = (...values) => console.log(JSON.stringify(values));

async function open(path) {
  const socket = new WebSocket(url + path, { headers: { 'x-client': 'ws' }, perMessageDeflate: false });
  // Listened for at once: the first message may come with the handshake.
  socket.inbox = [];
  socket.on('message', (data, isBinary) => {
    socket.inbox.push(isBinary ? data.toString('hex') : data.toString());
    socket.emit('inbox');
  });
  socket.next = async () => {
    while (socket.inbox.length === 0) await once(socket, 'inbox');
    return socket.inbox.shift();
  };
  const [[response]] = await Promise.all([once(socket, 'upgrade'), once(socket, 'open')]);
  say(path, response.headers['x-powered-by'], response.headers['x-late']);
  say('first', await socket.next());
  return socket;
}

const one = await open('/one?a=b');
const two = await open('/later');

one.send('hello');
say('echo', await one.next());
one.send('binary');
say('binary', await one.next());
one.send('publish');
say('published', await two.next());
one.send('after');
say('not to itself', await one.next());
const pinged = once(one, 'ping');
one.send('ping');
const [payload] = await pinged;
say('ping', payload.toString());
// The pong has gone out before this, so that the server has it when it answers.
one.send('ponged');
say('ponged', await one.next());
two.send('leave');
say('left', await two.next());
one.send('publish');
one.send('barrier');
say('barrier', await one.next());
two.send('still here');
say('nothing published', await two.next());

one.send('close');
const [code, reason] = await once(one, 'close');
say('closed', code, reason.toString());
two.send('terminate');
say('terminated', (await once(two, 'close'))[0]);

const denied = new WebSocket(`${url}/denied`);
const [, response] = await once(denied, 'unexpected-response');
let body = '';
for await (const chunk of response) body += chunk;
say('denied', response.statusCode, response.headers['x-why'], body);
say('done');
process.exit(0);
