// Runs under Node, where `ws` is itself: node deflate-client.mjs URL. Prints what it saw as one line of JSON.
import { randomBytes } from 'node:crypto';
import { WebSocket } from 'ws';

const [, , url] = process.argv;
const results = {};

function open(path, options) {
  const socket = new WebSocket(url + path, options);
  return new Promise((resolve, reject) => {
    socket.once('upgrade', ({ headers }) => {
      socket.agreed = headers['sec-websocket-extensions'] ?? '';
    });
    socket.once('open', () => resolve(socket));
    socket.once('error', reject);
  });
}

const next = (socket) =>
  new Promise((resolve, reject) => {
    socket.once('message', (data, isBinary) => resolve({ data, isBinary }));
    socket.once('close', (code) => reject(new Error(`closed with ${code}`)));
  });

/** Text that compresses well, and bytes that do not. */
function samples() {
  const texts = [0, 1, 1023, 1024, 5000, 70_000, 1_000_000].map((length) =>
    'words that come again, é '.repeat(length / 20 + 1).slice(0, length),
  );
  const noise = [10, 3000, 200_000].map((length) => randomBytes(length));
  return [...texts, ...noise];
}

/** Everything comes back as it was, twice, so that windows are in use. ret: what was agreed on, and bytes per message sent and received */
async function echo(path, perMessageDeflate) {
  const socket = await open(path, { perMessageDeflate });
  const wrong = [];
  for (const sample of [...samples(), ...samples()]) {
    socket.send(sample);
    const { data, isBinary } = await next(socket);
    const same = typeof sample === 'string' ? !isBinary && String(data) === sample : isBinary && data.equals(sample);
    if (!same) wrong.push(sample.length);
  }
  const before = socket._socket.bytesRead;
  const text = JSON.stringify(Array.from({ length: 100 }, (_, i) => ({ id: i, name: 'a name', state: 'open' })));
  socket.send(text);
  await next(socket);
  const first = socket._socket.bytesRead - before;
  socket.send(text);
  await next(socket);
  const again = socket._socket.bytesRead - before - first;
  socket.terminate();
  return { extensions: socket.agreed, wrong, plain: text.length, first, again };
}

const offers = {
  usual: {},
  none: false,
  noTakeover: { serverNoContextTakeover: true, clientNoContextTakeover: true },
  small: { serverMaxWindowBits: 10, clientMaxWindowBits: 10 },
};
for (const path of ['/shared', '/dedicated', '/plain']) {
  results[path] = {};
  for (const [name, offer] of Object.entries(offers))
    results[path][name] = await echo(path, offer === false ? false : { threshold: 0, ...offer });
}

/** A published message reaches those who compress and those who do not. */
const members = await Promise.all(
  [{ threshold: 0 }, false, { threshold: 0 }].map((perMessageDeflate) => open('/room', { perMessageDeflate })),
);
const heard = members.map(next);
members[0].send('published '.repeat(500));
results.room = (await Promise.all(heard)).map(({ data }) => data.length);
for (const member of members) member.terminate();

/** 16 MB of zeros in 16 KB: closed before it is inflated. */
const bomb = await open('/shared', { perMessageDeflate: { threshold: 0 } });
bomb.send(Buffer.alloc(16 * 1024 * 1024));
results.bomb = await new Promise((resolve) => bomb.once('close', (code) => resolve(code)));

console.log(JSON.stringify(results));
