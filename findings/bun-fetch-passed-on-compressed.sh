#!/bin/sh
# One would expect: a handler of Bun.serve that returns what fetch() has given (a proxy in one line) passes on an answer that its client can read.
# What happens: of an upstream that compresses, fetch() inflates the body and keeps the header fields, as the Fetch Standard has it; Bun.serve then
# corrects Content-Length and sends Content-Encoding: gzip with the inflated body, which no client can inflate.
# With fetch(url, { decompress: false }) the answer arrives as it was.
# Seen with Bun 1.4.5 on Linux x86-64, 2026-11-29.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' > package.json
npm install --no-audit --no-fund --silent bun@1.4.5
bun=./node_modules/.bin/bun

cat > proxy.mjs <<'JS'
import { gunzipSync } from 'node:zlib';
const zipped = Bun.gzipSync(Buffer.from('hello '.repeat(1000)));
const upstream = Bun.serve({ port: 0, fetch: () => new Response(zipped, { headers: { 'content-encoding': 'gzip' } }) });
const proxy = Bun.serve({
  port: 0,
  fetch: (request) => fetch(upstream.url, request.url.endsWith('/raw') ? { decompress: false } : {}),
});
for (const path of ['/', '/raw']) {
  const answer = await fetch(new URL(path, proxy.url), { decompress: false });
  const bytes = await answer.bytes();
  let content = 'is not';
  try {
    gunzipSync(bytes);
    content = 'is';
  } catch {}
  const { headers } = answer;
  console.log(`${path}: Content-Encoding ${headers.get('content-encoding')}, ${bytes.length === 6000 ? 'inflated' : 'as it was'}, and ${content} gzip`);
}
process.exit();
JS

echo "Bun $("$bun" --version)"
"$bun" proxy.mjs | tee out
grep -qx '/: Content-Encoding gzip, inflated, and is not gzip' out
grep -qx '/raw: Content-Encoding gzip, as it was, and is gzip' out
