#!/bin/sh
# One would expect: a Response made of a slice of Bun.file() is what it says, status 200 and the bytes of the slice, since the client has asked for
# no range (RFC 9110 §15.3.7: 206 answers a range request).
# What happens: Bun.serve sends 206 with `Content-Range: bytes 1-3/*` to a plain GET; with a Blob in memory the same is 200.
# Seen with Bun 1.4.5 on Linux x86-64, 2026-11-29.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' > package.json
npm install --no-audit --no-fund --silent bun@1.4.5
bun=./node_modules/.bin/bun
printf 'hello file' > file.txt

cat > slice.mjs <<'JS'
const server = Bun.serve({
  port: 0,
  hostname: '127.0.0.1',
  fetch(request) {
    const whole = new URL(request.url).pathname === '/file' ? Bun.file('file.txt') : new Blob(['hello file']);
    return new Response(whole.slice(1, 4));
  },
});
for (const path of ['/file', '/memory']) {
  const response = await fetch(new URL(path, server.url));
  console.log(`${path}: ${response.status} ${response.headers.get('content-range')} ${await response.text()}`);
}
await server.stop(true);
JS

echo "Bun $("$bun" --version)"
"$bun" slice.mjs | tee out
grep -qx '/file: 206 bytes 1-3/\* ell' out
grep -qx '/memory: 200 null ell' out
