/**
 * A gateway whose sockets a test works by remote control, to see each callback and the result of each call.
 *
 * Role: the config of the handler tests. A socket connects to /<route>/<name>; what its callbacks hear is written down and fetched by
 * `events`, and `call` runs a method of the server's side of that socket.
 */
import type { Gateway } from './gateway.ts';

export const config = `
import { Hono } from 'hono';
import { defineGateway } from 'ringway';

const events = [];
const sockets = new Map();
let kept;

const note = (socket, event, ...rest) => void events.push([socket.params.name, event, ...rest]);
const callbacks = {
  open(socket) { sockets.set(socket.params.name, socket); note(socket, 'open'); },
  message(socket, message) { note(socket, 'message', message.byteLength < 200 ? message.text() : message.byteLength); },
  close(socket, code, reason) { note(socket, 'close', code, reason); },
};
const control = {
  ...callbacks,
  ping(socket, data) { note(socket, 'ping', String(Buffer.from(data))); },
  pong(socket, data) { note(socket, 'pong', String(Buffer.from(data))); },
  drain(socket) { note(socket, 'drain', socket.bufferedAmount); },
  dropped(socket, count) { note(socket, 'dropped', count); },
};
const fail = (how) => (socket) => {
  sockets.set(socket.params.name, socket);
  note(socket, 'failing');
  if (how === 'throw') throw new Error('thrown on purpose');
  return Promise.reject(new Error('rejected on purpose'));
};
const failing = (how) => Object.fromEntries(
  ['open', 'message', 'close', 'ping', 'pong', 'drain', 'dropped'].map((event) => [
    '/' + how + '/' + event + '/:name',
    { ...control, [event]: fail(how), maxBackpressureBytes: 65536, onBackpressure: 'drop', ...(event === 'close' ? {} : { close: callbacks.close }) },
  ]),
);

const app = new Hono();
app.get('/events', (c) => c.json(events.splice(0)));
app.get('/state/:name', (c) => {
  const { isOpen, bufferedAmount, remoteAddress, protocol } = sockets.get(c.req.param('name'));
  return c.json({ isOpen, bufferedAmount, remoteAddress, protocol });
});
app.post('/call/:name/:method', async (c) => {
  const socket = sockets.get(c.req.param('name'));
  try {
    return c.json({ result: socket[c.req.param('method')](...(await c.req.json())) ?? null });
  } catch (error) {
    return c.json({ code: error.code, error: error.message });
  }
});
app.post('/flood/:name', async (c) => {
  const { count, bytes } = await c.req.json();
  const socket = sockets.get(c.req.param('name'));
  const results = { sent: 0, backpressure: 0, dropped: 0, closed: 0 };
  let most = 0;
  for (let i = 0; i < count; i++) {
    const payload = Buffer.alloc(bytes);
    payload.writeUInt32BE(i);
    results[socket.send(payload)] += 1;
    most = Math.max(most, socket.bufferedAmount);
  }
  return c.json({ results, most });
});
app.get('/expired', (c) => {
  const outcome = {};
  for (const method of ['text', 'bytes', 'json']) {
    try { kept[method](); outcome[method] = 'no error'; } catch (error) { outcome[method] = error.code; }
  }
  return c.json(outcome);
});

export default defineGateway({
  $OPTIONS,
  fetch: app,
  websocket: {
    '/control/:name': control,
    '/dropping/:name': { ...control, maxBackpressureBytes: 262144, onBackpressure: 'drop' },
    '/closing/:name': { ...control, maxBackpressureBytes: 262144, onBackpressure: 'close' },
    '/idle/:name': { ...callbacks, idleTimeout: 1, pingInterval: 0 },
    '/pinged/:name': { ...control, idleTimeout: 2, pingInterval: 0.5 },
    '/short/:name': { ...callbacks, maxLifetime: 1 },
    '/keep/:name': { ...callbacks, message(_socket, message) { kept = message; } },
    '/later/:name': { ...callbacks, async message(socket, message) {
      await new Promise((resolve) => setTimeout(resolve, 5));
      socket.send(message.isBinary ? message.bytes() : message.text());
      socket.send(message);
    } },
    '/twice/:name': { ...callbacks, message(socket, message) {
      note(socket, 'message', message.text());
      if (message.text() === 'close') socket.close(4000, 'enough');
      if (message.text() === 'terminate') socket.terminate();
      if (message.text() === 'state') note(socket, 'state', socket.isOpen, socket.send('x'));
      if (message.text().startsWith('then ')) {
        socket[message.text().slice(5)]();
        note(socket, 'state', socket.isOpen, socket.send('x'));
      }
    } },
    ...failing('throw'),
    ...failing('reject'),
  },
});
`;

/** [name of the socket, callback, its arguments…] */
export type Happening = [string, string, ...unknown[]];

export interface Remote {
  /** What the callbacks have heard since the last call. */
  events(): Promise<Happening[]>;
  call(name: string, method: string, ...args: unknown[]): Promise<{ result?: unknown; code?: string; error?: string }>;
  state(name: string): Promise<{ isOpen: boolean; bufferedAmount: number; remoteAddress: string; protocol: string }>;
  /** Send `count` messages of `bytes` bytes in one go; the first four bytes number them. `most`: highest bufferedAmount seen. */
  flood(
    name: string,
    count: number,
    bytes: number,
  ): Promise<{ results: Record<'sent' | 'backpressure' | 'dropped' | 'closed', number>; most: number }>;
}

export function remoteOf(gateway: Gateway): Remote {
  const post = async (path: string, body: unknown) =>
    (await fetch(gateway.url + path, { method: 'POST', body: JSON.stringify(body) })).json() as Promise<never>;
  const get = async (path: string) => (await fetch(gateway.url + path)).json() as Promise<never>;
  return {
    events: () => get('/events'),
    call: (name, method, ...args) => post(`/call/${name}/${method}`, args),
    state: (name) => get(`/state/${name}`),
    flood: (name, count, bytes) => post(`/flood/${name}`, { count, bytes }),
  };
}
