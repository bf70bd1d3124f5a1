#!/bin/sh
# One would expect: a TLS server sends the certificates that it was given as its own, and no others; `ca` only says which clients it believes.
# What happens: OpenSSL completes a chain that lacks its issuer from the store that clients are verified against, in each handshake. With Node, a
# server whose `cert` is a leaf alone and whose `ca` holds its issuer, for client certificates, sends that issuer as well, the root included.
# (SSL_MODE_NO_AUTO_CHAIN turns it off in C; Node has no option for it.)
# Seen with Node 22.12.0 (OpenSSL 3.0.15), asked by openssl(1) 3.0.19, on Linux x86-64, 2026-11-29.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' > package.json
npm install --no-audit --no-fund --silent node@22.12.0
node=./node_modules/.bin/node

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=authority -keyout ca.key -out ca.pem 2> /dev/null
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=leaf -addext basicConstraints=critical,CA:FALSE \
  -CA ca.pem -CAkey ca.key -keyout leaf.key -out leaf.pem 2> /dev/null

cat > server.mjs <<'JS'
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import tls from 'node:tls';
const [cert, key, ca] = ['leaf.pem', 'leaf.key', 'ca.pem'].map((name) => readFileSync(name));
async function shown(name, more) {
  const server = tls.createServer({ cert, key, ...more }, (socket) => socket.on('error', () => {}).end());
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const args = ['s_client', '-connect', `127.0.0.1:${server.address().port}`, '-showcerts'];
  const out = await new Promise((resolve) => execFile('openssl', args, (_, text) => resolve(text)).stdin.end());
  server.close();
  const count = out.split('-----BEGIN CERTIFICATE-----').length - 1;
  console.log(`${name}: ${count} certificate${count === 1 ? '' : 's'} sent`);
}
console.log(`Node ${process.versions.node}, OpenSSL ${process.versions.openssl}`);
await shown('without ca', {});
await shown('with ca for clients', { ca, requestCert: true, rejectUnauthorized: false });
process.exit();
JS
$node server.mjs | tee seen
grep -q '^without ca: 1 certificate sent$' seen
grep -q '^with ca for clients: 2 certificates sent$' seen
