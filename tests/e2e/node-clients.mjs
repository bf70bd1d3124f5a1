// Runs under Node, where `ws` and `undici` are themselves (Bun replaces both with its own client): node node-clients.mjs ws|undici URL
// Echoes, closes and pings against the gateway's test routes, and prints what it saw as one line of JSON.
const [, , client, url] = process.argv;
const { WebSocket: Client } = await import(client);
const lengths = [0, 1, 125, 126, 127, 1000, 65535, 65536, 65537, 1024 * 1024];

function once(socket, type) {
  const { promise, resolve, reject } = withResolvers();
  const failed = (event) => reject(event.error ?? new Error(event.message));
  socket.addEventListener(type, resolve, { once: true });
  socket.addEventListener('error', failed, { once: true });
  return promise.finally(() => socket.removeEventListener('error', failed));
}

function withResolvers() {
  const all = {};
  all.promise = new Promise((resolve, reject) => Object.assign(all, { resolve, reject }));
  return all;
}

async function open(path, ...options) {
  const socket = new Client(url + path, ...options);
  socket.binaryType = 'arraybuffer';
  await once(socket, 'open');
  return socket;
}

async function closeOf(socket) {
  const { code, reason, wasClean } = await once(socket, 'close');
  return { code, reason, wasClean };
}

async function echoes() {
  const socket = await open('/echo');
  const wrong = [];
  for (const length of lengths) {
    const text = 'é'.repeat(length >> 1) + 'x'.repeat(length & 1);
    socket.send(text);
    if ((await once(socket, 'message')).data !== text) wrong.push(`text ${length}`);
    const bytes = Uint8Array.from({ length }, (_, i) => (i * 31) & 255);
    socket.send(bytes);
    const { data } = await once(socket, 'message');
    if (!(data instanceof ArrayBuffer) || Buffer.compare(Buffer.from(data), bytes) !== 0) wrong.push(`binary ${length}`);
  }
  socket.close(1000);
  await once(socket, 'close');
  return wrong;
}

async function burst() {
  const socket = await open('/echo');
  const count = 5000;
  const seen = [];
  const done = new Promise((resolve) => {
    socket.addEventListener('message', (event) => {
      seen.push(event.data);
      if (seen.length === count) resolve();
    });
  });
  for (let i = 0; i < count; i++) socket.send(`message ${i}`);
  await done;
  socket.close();
  await once(socket, 'close');
  return seen.every((text, i) => text === `message ${i}`);
}

async function closes() {
  const after = async (path, act) => {
    const socket = await open(path);
    act(socket);
    return closeOf(socket);
  };
  return {
    mine: await after('/echo', (socket) => socket.close(3001, 'I leave')),
    bare: await after('/echo', (socket) => socket.close()),
    theirs: await after('/goodbye', (socket) => socket.send(JSON.stringify([4001, 'see you']))),
    silent: await after('/goodbye', (socket) => socket.send('[]')),
  };
}

async function wsOnly() {
  const socket = await open('/echo');
  const pong = new Promise((resolve) => socket.once('pong', (data) => resolve(String(data))));
  socket.ping('are you there');
  const answer = await pong;
  socket.send('one ', { fin: false });
  socket.ping();
  socket.send('two ', { fin: false });
  socket.send('three', { fin: true });
  const { data } = await once(socket, 'message');
  socket.terminate();
  return { pong: answer, fragments: data };
}

const protocol = async () => {
  const socket = await open('/protocols', ['v1', 'v2']);
  const chosen = socket.protocol;
  socket.close();
  await once(socket, 'close');
  return chosen;
};

const result = { wrong: await echoes(), inOrder: await burst(), closes: await closes(), protocol: await protocol() };
if (client === 'ws') Object.assign(result, await wsOnly());
console.log(JSON.stringify(result));
