/** Routes whose sockets cost different amounts; see sizing.ts. */
import { defineGateway } from '../src/index.ts';

const { BENCH_KEY: key, BENCH_CERT: cert } = process.env;
/** What the load client expects of a first message of 1,024 bytes: its number, then letters that repeat. */
const greeting = `00000000${Array.from({ length: 1016 }, (_, at) => String.fromCharCode(97 + ((at + 8) % 23))).join('')}`;
let sockets = 0;

export default defineGateway({
  io: { backend: process.env.BENCH_BACKEND === 'epoll' ? 'epoll' : 'auto' },
  listen: key !== undefined && cert !== undefined ? { tls: { key, cert } } : {},
  websocket: {
    '/echo': { message: (socket, message) => void socket.send(message) },
    '/shared-topic': { open: (socket) => socket.subscribe('news') },
    '/own-topic': { open: (socket) => socket.subscribe(`users/${sockets++}`) },
    '/greeted': { open: (socket) => void socket.send(greeting) },
    '/shared-window': { compression: { minBytes: 0, window: 'shared' }, open: (socket) => void socket.send(greeting) },
    '/own-window': { compression: { minBytes: 0, window: 'dedicated', windowBits: 12 }, open: (socket) => void socket.send(greeting) },
    '/own-window-15': { compression: { minBytes: 0, window: 'dedicated', windowBits: 15 }, open: (socket) => void socket.send(greeting) },
  },
});
