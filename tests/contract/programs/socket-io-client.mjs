// What clients of socket.io see, as lines: node socket-io-client.mjs <port> <transports, with commas> [text]
// `text`: nothing binary is sent to the server.
import { once } from 'node:events';
import { io } from 'socket.io-client';

const [port, transports, content] = process.argv.slice(2);
const url = `http://127.0.0.1:${port}`;
const options = {
  transports: transports.split(','),
  forceNew: true,
  reconnectionDelay: 50,
  reconnectionDelayMax: 100,
  auth: { token: 'right' },
};

const say = (...values) => console.log(JSON.stringify(values));

/** A client that notes what is said to it. */
async function join(name, more = {}) {
  const socket = io(url, { ...options, ...more });
  socket.heard = [];
  socket.on('said', (value) => socket.heard.push(Buffer.isBuffer(value) ? value.toString('hex') : value));
  socket.on('question', (value, answer) => answer(value * 7));
  await once(socket, 'connect');
  const { engine } = socket.io;
  if (options.transports.length > 1 && engine.transport.name === 'polling') await once(engine, 'upgrade');
  say(name, 'connected', engine.transport.name);
  return socket;
}

const one = await join('one');
const two = await join('two');
const three = await join('three');

say('echo', await one.emitWithAck('echo', 'text', 1, null, { deep: [1, 2] }));
if (content !== 'text') {
  const [binary, nested] = await one.emitWithAck('echo', Buffer.from([0, 1, 255]), { inside: Buffer.from('bytes') });
  say('binary', Buffer.from(binary).toString('hex'), Buffer.from(nested.inside).toString());
}
const large = 'x'.repeat(300_000);
say('large', (await one.emitWithAck('echo', large))[0].length);
say('asked by the server', await one.emitWithAck('ask me'));
say('how many', await one.emitWithAck('how many'));

say('join', await one.emitWithAck('join', 'red'), await two.emitWithAck('join', 'red'), await three.emitWithAck('join', 'blue'));
/** Do one thing, then ask everybody for an echo: what was said before it has arrived by then. */
async function step(name, act) {
  act();
  await one.emitWithAck('echo', 'barrier');
  for (const socket of [one, two, three]) await socket.emitWithAck('echo', 'barrier');
  say(name, ...[one, two, three].map((socket) => socket.heard.splice(0)));
}
await step('to others', () => one.emit('to others', 'red', 'from one'));
await step('to the room', () => one.emit('to the room', 'red', { an: 'object' }));
await step('to all', () => one.emit('to all', 'everybody'));
if (content !== 'text') await step('binary to all', () => one.emit('to all', Buffer.from([9, 8, 7])));
await step('to two rooms', () => one.emit('to two rooms', 'both'));
say('leave', await two.emitWithAck('leave', 'red'));
await step('after leaving', () => one.emit('to the room', 'red', 'left'));

const news = io(`${url}/news`, { ...options });
const [headline] = await once(news, 'headline');
say('namespace', headline.text, Buffer.from(headline.at).toString('hex'));
const refused = io(`${url}/news`, { ...options, auth: { token: 'wrong' } });
const [error] = await once(refused, 'connect_error');
say('refused', error.message);
refused.close();
news.close();

three.emit('bye');
const [reason] = await once(three, 'disconnect');
say('disconnected by the server', reason);
three.close();

say('restart me');
const [why] = await once(one, 'disconnect');
say('server gone', why === 'transport close' || why === 'transport error');
if (!one.connected) await once(one, 'connect');
say('again', await one.emitWithAck('echo', 'after the restart'));
one.close();
two.close();
say('done');
process.exit(0);
