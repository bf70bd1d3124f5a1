#!/bin/sh
# One would expect: flush() of NATS' client rejects when the connection ends before the server has answered, as closed() tells; it does when the
# client connects again (`reconnect: true`, the default).
# What happens: with `reconnect: false`, or when the connection is closed by close(), the promise of a flush() (so of rtt(), and of drain() of a
# subscription) that was waiting never settles. Who awaits it waits for ever: race it with closed().
# Seen with @nats-io/transport-node 3.4.0 and Node.js 20 on Linux x86-64, 2026-11-29.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' > package.json
npm install --no-audit --no-fund --silent @nats-io/transport-node@3.4.0

cat > flush.mjs <<'JS'
import { createServer } from 'node:net';
import { connect } from '@nats-io/transport-node';
// A server that answers the PING of the handshake, and goes away instead of answering the next one.
const server = createServer((socket) => {
  let pings = 0;
  socket.on('error', () => {});
  socket.on('data', (bytes) => {
    for (const _ of bytes.toString().matchAll(/PING\r\n/g)) {
      if (++pings === 1) socket.write('PONG\r\n');
      else setTimeout(() => socket.destroy(), 100);
    }
  });
  socket.write('INFO {"server_id":"x","version":"2.10.0","proto":1,"max_payload":1048576,"headers":true}\r\n');
});
server.listen(0, '127.0.0.1', async () => {
  for (const reconnect of [true, false]) {
    const connection = await connect({ servers: `127.0.0.1:${server.address().port}`, reconnect, reconnectTimeWait: 100 });
    let outcome = 'has not settled';
    connection.flush().then(() => (outcome = 'has resolved'), () => (outcome = 'has rejected'));
    if (!reconnect) await connection.closed();
    await new Promise((resolve) => setTimeout(resolve, 3000));
    console.log(`reconnect: ${reconnect}: flush() ${outcome}`);
    if (reconnect) await connection.close();
  }
  process.exit();
});
JS

echo "@nats-io/transport-node $(node -p "require('@nats-io/transport-node/package.json').version" 2>/dev/null || echo 3.4.0), Node.js $(node --version)"
node flush.mjs | tee out
grep -qx 'reconnect: true: flush() has rejected' out
grep -qx 'reconnect: false: flush() has not settled' out
