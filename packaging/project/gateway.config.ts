import { join } from 'node:path';
import { Hono } from 'hono';
import { serveStatic } from 'hono/bun';
import { defineGateway, publishJson, route, type Socket } from 'ringway';

const app = new Hono();

// HTTP is Hono: any route, any middleware. A backend of yours may publish through a route like this one; let it show a token.
app.post('/say', async (c) => {
  publishJson('chat/lobby', { topic: 'chat/lobby', data: { from: 'HTTP', text: (await c.req.text()).slice(0, 500) } });
  return c.text('said\n');
});
app.use('/*', serveStatic({ root: join(import.meta.dir, 'public') }));

/** What public/connection.js sends. */
interface Call {
  readonly type: 'subscribe' | 'unsubscribe' | 'publish';
  readonly topic: string;
  readonly data?: unknown;
}

/** Clients may use these topics. Ask here who the client is when some may and others may not. */
const isAllowed = (topic: unknown): topic is string => typeof topic === 'string' && /^chat\/[\w-]{1,50}$/.test(topic);

function take(socket: Socket, call: Call | null): void {
  if (!isAllowed(call?.topic)) socket.close(1008, 'no such topic');
  else if (call.type === 'subscribe') socket.subscribe(call.topic);
  else if (call.type === 'unsubscribe') socket.unsubscribe(call.topic);
  // To everybody who is subscribed, on every worker and node, the sender included.
  else if (call.type === 'publish') publishJson(call.topic, { topic: call.topic, data: call.data });
}

export default defineGateway({
  fetch: app,
  websocket: {
    ...route('/ws', {
      origins: 'same-host',
      maxPayloadBytes: 16_384,
      maxMessagesPerSecond: 20,
      message(socket, message) {
        let call: Call | null;
        try {
          call = message.json<Call | null>();
        } catch {
          return socket.close(1007, 'not JSON');
        }
        take(socket, call);
      },
    }),
  },
});
