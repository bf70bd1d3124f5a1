#!/bin/sh
# One would expect: either the content of a GET reaches the handler of Bun.serve, or Bun holds to the Fetch Standard, where a Request with
# method GET cannot have a body (its constructor throws a TypeError).
# What happens: `new Request(url, { method: 'GET', body })` is made and its body read, but Bun.serve takes the content of a GET off the
# connection and shows none of it: request.body is null and request.text() gives ''. A search request that is sent by GET with a body, as
# clients of Elasticsearch do, arrives empty and without an error.
# Seen with Bun 1.4.5 on Linux x86-64, 2026-11-29.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' > package.json
npm install --no-audit --no-fund --silent bun@1.4.5
bun=./node_modules/.bin/bun

cat > content.mjs <<'JS'
import { request } from 'node:http';
console.log(`a Request: ${await new Request('http://a/', { method: 'GET', body: 'abc' }).text()}`);
const server = Bun.serve({
  port: 0,
  hostname: '127.0.0.1',
  fetch: async (request) => new Response(`${request.headers.get('content-length')} ${request.body} "${await request.text()}"`),
});
for (const method of ['GET', 'DELETE']) {
  const text = await new Promise((resolve, reject) => {
    const client = request({ port: server.port, host: '127.0.0.1', method, headers: { 'content-length': 3 } }, async (response) => {
      let all = '';
      for await (const part of response) all += part;
      resolve(all);
    });
    client.on('error', reject);
    client.end('abc');
  });
  console.log(`${method}: ${text}`);
}
await server.stop(true);
JS

echo "Bun $("$bun" --version)"
"$bun" content.mjs | tee out
grep -qx 'a Request: abc' out
grep -qx 'GET: 3 null ""' out
grep -qx 'DELETE: 3 \[object ReadableStream\] "abc"' out
