#!/bin/sh
# One would expect: server.upgrade(request) of Bun.serve, which names no subprotocol, agrees on none (RFC 6455 §4.2.2 lets a server do so), as ws does
# without handleProtocols: what the application does not know of it does not claim to speak.
# What happens: the answer agrees on the first one that the client has offered, whatever that is. A page that offers its token there, since it can send
# no header (new WebSocket(url, ['token.' + token, 'chat'])), gets the token back as the subprotocol that was agreed on, and shows it in ws.protocol;
# an answer is more readily logged than a request's Authorization.
# With the header Sec-WebSocket-Protocol among the options of upgrade() that one is agreed on.
# Seen with Bun 1.4.5 on Linux x86-64, 2026-11-29.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' > package.json
npm install --no-audit --no-fund --silent bun@1.4.5
bun=./node_modules/.bin/bun

cat > agree.mjs <<'JS'
const server = Bun.serve({
  port: 0,
  websocket: { message() {} },
  fetch(request, server) {
    const headers = { 'sec-websocket-protocol': 'chat' };
    server.upgrade(request, request.url.endsWith('/named') ? { headers } : {});
  },
});
for (const path of ['/unnamed', '/named']) {
  const ws = new WebSocket(`ws://127.0.0.1:${server.port}${path}`, ['token.abc', 'chat']);
  await new Promise((resolve, reject) => {
    ws.onopen = resolve;
    ws.onerror = ({ message }) => reject(new Error(message));
  });
  console.log(`${path}: agreed on ${JSON.stringify(ws.protocol)}`);
}
process.exit();
JS

echo "Bun $("$bun" --version)"
"$bun" agree.mjs | tee out
grep -qx '/unnamed: agreed on "token.abc"' out
grep -qx '/named: agreed on "chat"' out
