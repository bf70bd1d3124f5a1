import { Hono } from 'hono';
import { streamSSE } from 'hono/streaming';
import { defineGateway, publish } from 'ringway';

const page = Bun.file(new URL('public/index.html', import.meta.url));
const app = new Hono();

// HTTP is Hono: any route, any middleware.
app.get('/', async (c) => c.html(await page.text()));
app.get('/hello', (c) => c.text('Hello from Ringway'));
app.get('/json', (c) => c.json({ message: 'Hello from Ringway' }));

// The request body goes back while it is still arriving.
app.post('/echo', (c) => {
  const type = c.req.header('content-type') ?? 'application/octet-stream';
  return new Response(c.req.raw.body, { headers: { 'content-type': type } });
});

// One event a second until the client leaves.
app.get('/sse', (c) =>
  streamSSE(c, async (stream) => {
    for (let id = 1; !stream.aborted; id++) {
      await stream.writeSSE({ id: String(id), data: new Date().toISOString() });
      await stream.sleep(1000);
    }
  }),
);

export default defineGateway({
  fetch: app,
  topics: {
    // A room keeps its last messages, and knows who is there: by the name in ?user=, where there is one. Streams of events only look on.
    'room/:name': {
      history: { size: 100, seconds: 300 },
      presence: { member: ({ id, data, kind }) => (kind === 'sse' ? undefined : ((data as { user?: string }).user ?? id)) },
    },
  },
  // GET /events?topic=room/lobby: a room for whoever has no WebSocket, from where it was.
  sse: { '/events': { topics: ['room/:name'] } },
  websocket: {
    '/echo': {
      message: (socket, message) => void socket.send(message),
    },
    // Everybody in a room hears what anybody in it says, on whichever worker they are, the speaker included.
    '/room/:name': {
      upgrade: (request: Request) => ({ user: new URL(request.url).searchParams.get('user') ?? undefined }),
      open: (socket) => socket.subscribe(`room/${socket.params.name}`),
      message: (socket, message) => publish(`room/${socket.params.name}`, message),
    },
  },
});
