// Socket.IO on Node with its Redis adapter, as its documentation writes them. Everybody is in one room, and hears what anybody sends as
// event `m`; event `silent` goes to a room that nobody is in.
import { createServer } from 'node:http';
import { createAdapter } from '@socket.io/redis-adapter';
import { Redis } from 'ioredis';
import { Server } from 'socket.io';

const http = createServer((_, response) => {
  response.writeHead(200, { 'content-type': 'text/plain;charset=UTF-8' });
  response.end('Hello from Ringway');
});

const publishing = new Redis(process.env.REDIS_URL ?? 'redis://127.0.0.1:6379');
const io = new Server(http, { adapter: createAdapter(publishing, publishing.duplicate()), transports: ['websocket'] });

io.on('connection', (socket) => {
  socket.join('bench');
  socket.on('m', (data) => io.to('bench').emit('m', data));
  socket.on('silent', (data) => io.to('nobody').emit('m', data));
});

http.listen(Number(process.env.PORT));
