// Runs under Node, whose TLS is its own: node node.mjs resume|https|ws PORT CA-FILE. Prints what it saw as one line of JSON.
import { readFileSync } from 'node:fs';
import https from 'node:https';
import tls from 'node:tls';

const [, , what, port, caFile] = process.argv;
const ca = readFileSync(caFile);
const options = { host: '127.0.0.1', port: Number(port), servername: 'localhost', ca };

/** One request on a connection of its own. */
function get(more) {
  return new Promise((resolve, reject) => {
    let session;
    let handshake;
    const socket = tls.connect({ ...options, ...more }, () => {
      // A socket that has closed knows neither any more.
      handshake = { reused: socket.isSessionReused(), protocol: socket.getProtocol() };
      socket.write('GET /pid HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n');
    });
    let text = '';
    socket.on('session', (ticket) => {
      session = ticket;
    });
    socket.on('data', (data) => {
      text += data;
    });
    socket.on('error', reject);
    socket.on('close', () => resolve({ pid: text.split('\r\n\r\n')[1], session, ...handshake }));
  });
}

/** Come back with the session of one worker until another one has taken the connection. */
async function resume(version) {
  const first = await get({ minVersion: version, maxVersion: version });
  const seen = [];
  for (let i = 0; i < 64; i++) {
    const next = await get({ minVersion: version, maxVersion: version, session: first.session });
    seen.push(next.reused);
    if (next.pid !== first.pid) return { other: true, all: seen.every(Boolean), protocol: next.protocol };
  }
  return { other: false };
}

/** As clients do that take no ticket twice: each connection comes with a session that the one before was given. */
async function resumeOnce() {
  const seen = [];
  for (let i = 0, session; i < 20; i++) {
    const { reused, session: next } = await get({ minVersion: 'TLSv1.3', session });
    seen.push(reused);
    session = next;
  }
  return { resumed: seen.filter(Boolean).length };
}

/** Uploads and downloads on kept connections. */
async function echoes() {
  const agent = new https.Agent({ keepAlive: true, maxSockets: 4, ...options });
  const echo = (bytes) =>
    new Promise((resolve, reject) => {
      const request = https.request({ agent, method: 'POST', path: '/echo', headers: { 'content-length': bytes.length } }, (response) => {
        const parts = [];
        response.on('data', (part) => parts.push(part));
        response.on('end', () => resolve(Buffer.concat(parts).equals(bytes)));
      });
      request.on('error', reject);
      request.end(bytes);
    });
  const sizes = [0, 1, 1000, 16384, 16385, 100_000, 1024 * 1024, 3 * 1024 * 1024];
  const results = await Promise.all(sizes.map((size) => echo(Buffer.alloc(size, size % 251))));
  agent.destroy();
  return results.every(Boolean);
}

async function sockets() {
  const { WebSocket } = await import('ws');
  const socket = new WebSocket(`wss://localhost:${port}/echo`, {
    ca,
    lookup: (_, more, done) => (more.all ? done(null, [{ address: '127.0.0.1', family: 4 }]) : done(null, '127.0.0.1', 4)),
  });
  const once = (type) => new Promise((resolve, reject) => socket.once(type, (...all) => resolve(all)).once('error', reject));
  await once('open');
  const wrong = [];
  for (const size of [0, 1, 125, 126, 16383, 16384, 65535, 65536, 1024 * 1024]) {
    const bytes = Buffer.alloc(size, size % 251);
    socket.send(bytes);
    const [data] = await once('message');
    if (!data.equals(bytes)) wrong.push(size);
  }
  socket.close(1000, 'bye');
  const [code] = await once('close');
  return { wrong, code };
}

const result =
  what === 'resume'
    ? { v12: await resume('TLSv1.2'), v13: await resume('TLSv1.3'), once: await resumeOnce() }
    : what === 'https'
      ? { same: await echoes() }
      : await sockets();
console.log(JSON.stringify(result));
