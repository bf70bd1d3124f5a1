/**
 * Rooms whose subscribers are on one worker, and a publisher that is on a worker of the bench's choice: the kernel decides where a connection
 * arrives, so that those that come to the wrong worker are refused with 409, and the load client tries again.
 */
import { Hono } from 'hono';
import { defineGateway, publish, type WebSocketHandler } from '../../src/index.ts';
import { readBoot } from '../../src/process/boot.ts';

const app = new Hono();
app.get('/hello', (c) => c.text('Hello from Ringway'));

function onWorker(wanted: string | undefined): WebSocketHandler {
  return {
    upgrade: () => (readBoot(process.env).index === Number(wanted) ? undefined : new Response('not here', { status: 409 })),
    open: (socket) => socket.subscribe(`room/${socket.params.name}`),
    message: (socket, message) => publish(`room/${socket.params.name}`, message),
  };
}

export default defineGateway({
  fetch: app,
  websocket: {
    '/room/:name': onWorker(process.env.BENCH_SUBSCRIBER_WORKER),
    '/publisher/:name': onWorker(process.env.BENCH_PUBLISHER_WORKER),
  },
});
