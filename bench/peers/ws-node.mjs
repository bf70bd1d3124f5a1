// The `ws` package on Node. It has no topics: a room is a set, and what is published is framed once for each member, as its
// documentation shows. BENCH_DEFLATE=1: compress everything.
import { createServer } from 'node:http';
import { WebSocketServer } from 'ws';

/** @type {Map<string, Set<import('ws').WebSocket>>} */
const rooms = new Map();

const http = createServer((request, response) => {
  const found = request.url === '/hello';
  response.writeHead(found ? 200 : 404, { 'content-type': 'text/plain;charset=UTF-8' });
  response.end(found ? 'Hello from Ringway' : 'Not Found');
});

const perMessageDeflate = process.env.BENCH_DEFLATE === '1' && { threshold: 0 };

new WebSocketServer({ server: http, perMessageDeflate }).on('connection', (socket, request) => {
  const name = request.url ?? '/';
  socket.on('error', () => socket.terminate());
  if (!name.startsWith('/room/')) {
    socket.on('message', (message, isBinary) => socket.send(message, { binary: isBinary }));
    return;
  }
  const room = rooms.get(name) ?? new Set();
  rooms.set(name, room.add(socket));
  socket.on('close', () => room.delete(socket));
  socket.on('message', (message, isBinary) => {
    for (const member of room) member.send(message, { binary: isBinary });
  });
});

http.listen(Number(process.env.PORT));
