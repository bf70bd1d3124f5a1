#!/bin/sh
# One would expect: a reverse proxy that streams hands every byte of a request body on, also when the origin begins its answer while the body
# still comes (an echo, a converter); and where it cannot, the client sees an error.
# What happens: of 16 MiB echoed by the origin, one piece of 256 KiB and one byte is missing from the middle of an answer that is 200 and ends in
# order: when caddy begins the answer, Go's HTTP/1 server reads and throws away that much of the body before it writes the head, and the rest is
# handed on behind the gap. Neither the origin nor the client is told. Straight to the origin every byte comes back.
# Seen with caddy 2.6.2-5 of Debian 12, Node 18 or later, Linux x86-64, 2026-11-29.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
chmod 755 .
(apt-get download caddy=2.6.2-5 || { apt-get -q update && apt-get download caddy=2.6.2-5; }) > log 2>&1 || { cat log; exit 1; }
dpkg-deb --extract caddy_*.deb program

cat > echo.mjs <<'JS'
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { createServer, request } from 'node:http';

const origin = createServer((incoming, answer) => {
  answer.writeHead(200);
  incoming.pipe(answer);
}).listen(0, '127.0.0.1');
const free = createServer().listen(0, '127.0.0.1');
await Promise.all([once(origin, 'listening'), once(free, 'listening')]);
const { port } = free.address();
await new Promise((resolve) => free.close(resolve));
const straight = origin.address().port;

writeFileSync('Caddyfile', `{
	admin off
}
http://127.0.0.1:${port} {
	reverse_proxy 127.0.0.1:${straight} {
		flush_interval -1
	}
}
`);
const caddy = spawn('program/usr/bin/caddy', ['run', '--adapter', 'caddyfile', '--config', 'Caddyfile'], {
  stdio: 'ignore',
  env: { ...process.env, XDG_DATA_HOME: process.cwd(), XDG_CONFIG_HOME: process.cwd() },
});
process.on('exit', () => caddy.kill('SIGTERM'));
for (let tries = 0; ; tries++) {
  const isThere = await fetch(`http://127.0.0.1:${port}/`).then(() => true, () => false);
  if (isThere) break;
  if (tries > 400) throw new Error('caddy does not serve');
  await new Promise((resolve) => setTimeout(resolve, 50));
}

/** 64 parts of 256 KiB, in which no four bytes come twice. */
const parts = Array.from({ length: 64 }, (_, part) => {
  const bytes = Buffer.alloc(256 * 1024);
  for (let at = 0; at < bytes.length; at += 4) bytes.writeUInt32BE(part * bytes.length + at, at);
  return bytes;
});
async function echoed(at) {
  const sent = request({ host: '127.0.0.1', port: at, method: 'POST' });
  for (const part of parts) sent.write(part);
  sent.end();
  const [answer] = await once(sent, 'response');
  const chunks = [];
  for await (const chunk of answer) chunks.push(chunk);
  const body = Buffer.concat(chunks);
  const whole = Buffer.concat(parts);
  const missing = whole.length - body.length;
  let same = 0;
  while (same < body.length && body[same] === whole[same]) same += 1;
  const isOnePiece = body.subarray(same).equals(whole.subarray(same + missing));
  return `${answer.statusCode}, complete: ${answer.complete}, ${missing} of ${whole.length} bytes are missing${missing > 0 && isOnePiece ? ' in one piece' : ''}`;
}
console.log(`straight: ${await echoed(straight)}`);
console.log(`through caddy: ${await echoed(port)}`);
process.exit(0);
JS

program/usr/bin/caddy version
node echo.mjs | tee out
grep -qx 'straight: 200, complete: true, 0 of 16777216 bytes are missing' out
grep -qx 'through caddy: 200, complete: true, 262145 of 16777216 bytes are missing in one piece' out
