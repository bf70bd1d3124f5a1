#!/bin/sh
# One would expect: an MQTT client over WebSockets sends each of its packets as one binary message. (MQTT 3.1.1 §6 allows any cut, and clients
# commonly do not make use of it.)
# What happens: mqtt.js writes each field of CONNECT as a WebSocket message of its own: nine for a client without credentials, of one to four
# bytes each, thirteen with user name and password. A server that takes a message for a packet refuses it, and limits of messages a second count
# each of them.
# Seen with mqtt 5.16.0 (npm), ws 8.23.0, Node 18 or later, 2026-11-29.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true, "type": "module" }' > package.json
npm install --no-audit --no-fund --silent mqtt@5.16.0 ws@8.23.0

cat > count.mjs <<'JS'
import { once } from 'node:events';
import mqtt from 'mqtt';
import { WebSocketServer } from 'ws';

/** The messages that make up CONNECT: its fixed header says how many bytes it has (MQTT 3.1.1 §2.2.3; below 128 here). */
async function connectMessages(options) {
  const server = new WebSocketServer({ port: 0, host: '127.0.0.1', handleProtocols: () => 'mqtt' });
  await once(server, 'listening');
  const client = mqtt.connect(`ws://127.0.0.1:${server.address().port}`, { clientId: 'c', reconnectPeriod: 0, ...options });
  client.on('error', () => {});
  const [socket] = await once(server, 'connection');
  const messages = [];
  await new Promise((resolve) => {
    socket.on('message', (data) => {
      messages.push(data);
      const packet = Buffer.concat(messages);
      if (packet.length >= 2 && packet.length === 2 + packet[1]) resolve();
    });
  });
  client.end(true);
  socket.terminate();
  server.close();
  return messages.map(({ length }) => length);
}
for (const [name, options] of [['without credentials', {}], ['with user name and password', { username: 'u', password: 'p' }]]) {
  const sizes = await connectMessages(options);
  console.log(`CONNECT ${name}: ${sizes.length} messages of ${sizes.join(', ')} bytes`);
}
process.exit(0);
JS

echo "mqtt $(node -p "JSON.parse(require('fs').readFileSync('node_modules/mqtt/package.json')).version")"
node count.mjs | tee out
grep -q '^CONNECT without credentials: 9 messages ' out
grep -q '^CONNECT with user name and password: 13 messages ' out
