/** Topics of every kind, for topics/client.ts: it is told when its subscription has begun, and with which position. */
import { Hono } from 'hono';
import { defineGateway, type Socket, type WebSocketHandler } from '../../src/index.ts';

const app = new Hono();
app.get('/hello', (c) => c.text('Hello from Ringway'));

interface Client {
  readonly since: string | undefined;
}

/** One that comes to be subscribed, with the positions of what it gets. */
const subscriber = (kind: string): WebSocketHandler<Client> => ({
  positions: true,
  upgrade: (request: Request): Client => ({ since: new URL(request.url).searchParams.get('since') ?? undefined }),
  open: async (socket) => {
    const { since } = socket.data;
    const answer = await socket.subscribe(`${kind}/${socket.params.name}`, since === undefined ? {} : { since });
    socket.sendJson({ subscribed: { epoch: answer.epoch, offset: answer.offset, recovered: answer.recovered } });
  },
  message: joinOrLeave,
});

/** `+topic` joins, `-topic` leaves. */
async function joinOrLeave(socket: Socket<unknown>, message: { text(): string }): Promise<void> {
  const text = message.text();
  if (text.startsWith('+')) await socket.subscribe(text.slice(1), {});
  else socket.unsubscribe(text.slice(1));
  socket.sendJson({ done: true });
}

/** As the example's rooms: what anybody says is published. */
const room = (kind: string): WebSocketHandler => ({
  open: (socket) => socket.subscribe(`${kind}/${socket.params.name}`),
  message: (socket, message) => void socket.publish(`${kind}/${socket.params.name}`, message),
});

export default defineGateway({
  fetch: app,
  admin: { token: 'token-of-the-bench' },
  topics: {
    'logged/:name': { history: { size: 100, seconds: 300 } },
    'present/:name': { presence: true },
    'known/:name': { history: { size: 100, seconds: 300 }, presence: true },
  },
  websocket: {
    '/logged/:name': subscriber('logged'),
    '/direct/:name': subscriber('direct'),
    '/present/:name': subscriber('present'),
    '/known/:name': subscriber('known'),
    '/plain/:name': subscriber('plain'),
    '/room/:name': room(process.env.BENCH_ROOM ?? 'logged'),
    '/resting/:name': room('present'),
  },
});
