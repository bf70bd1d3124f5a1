/** Bun.serve with the routes that the bench asks for, as its documentation writes them. HTTP through Hono, or bare with BENCH_BARE=1. */
import { Hono } from 'hono';

interface SocketData {
  readonly room: string | undefined;
}

const app = new Hono();
app.get('/hello', (c) => c.text('Hello from Ringway'));

const bare = (request: Request): Response =>
  request.url.endsWith('/hello') ? new Response('Hello from Ringway') : new Response('Not Found', { status: 404 });
const answer = process.env.BENCH_BARE === '1' ? bare : (request: Request) => app.fetch(request);

const server = Bun.serve<SocketData>({
  port: Number(process.env.PORT),
  fetch(request, server) {
    const { url } = request;
    const room = url.indexOf('/room/');
    if (room > 0 && server.upgrade(request, { data: { room: url.slice(room + 1) } })) return undefined;
    if (url.endsWith('/echo') && server.upgrade(request, { data: { room: undefined } })) return undefined;
    return answer(request);
  },
  websocket: {
    // A ping after 30 s without a word, as Ringway does it, and an end 16 s later (the default is 104 s and 16 s).
    idleTimeout: 46,
    open(socket) {
      if (socket.data.room !== undefined) socket.subscribe(socket.data.room);
    },
    message(socket, message) {
      if (socket.data.room === undefined) socket.send(message);
      else server.publish(socket.data.room, message);
    },
  },
});
