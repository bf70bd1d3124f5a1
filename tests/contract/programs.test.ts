/**
 * Programs that others wrote for uWebSockets.js, unedited: the same server runs on the original under Node and on Ringway under Bun, the
 * library's own client speaks to it under Node, and both see the same.
 */
import { afterEach, test as anyTest, describe, expect } from 'bun:test';
import { join } from 'node:path';
import { freePort } from '../support/free-port.ts';
import { commandLine, here, Program, type Side, whyNot, whyNotNewer } from './program.ts';

const timeoutMs = 90_000;
const test = anyTest.skipIf(whyNot !== undefined);
const running: Program[] = [];
afterEach(async () => {
  await Promise.all(running.splice(0).map((program) => program.stop()));
});

const path = (name: string) => join(here, 'programs', `${name}.mjs`);

async function serve(
  side: Side,
  name: string,
  port = 0,
  env: Readonly<Record<string, string>> = {},
): Promise<{ server: Program; port: number }> {
  const server = new Program(commandLine(side, path(name)), { env: { PORT: String(port), ...env } });
  running.push(server);
  const [, chosen] = await server.line(/^port (\d+)$/);
  return { server, port: Number(chosen) };
}

function client(name: string, ...args: (string | number)[]): Program {
  const program = new Program(['node', path(name), ...args.map(String)]);
  running.push(program);
  return program;
}

const parsed = (program: Program) => program.lines.filter((line) => line.startsWith('[')).map((line) => JSON.parse(line));

interface SocketIo {
  readonly transports: string;
  /** The version, by its name in package.json. */
  readonly version?: string;
  /** Of its server. */
  readonly options?: object;
  /** Before engine.io 6.6.3 it gives the buffer of a WebSocket's message on, which the original has detached by then. */
  readonly content?: 'text';
}

/** What the client of socket.io says, whose server is killed and started again when it asks for that. */
async function socketIo(side: Side, { transports, version = 'socket.io', options = {}, content }: SocketIo): Promise<unknown[]> {
  const env = { PACKAGE: version, OPTIONS: JSON.stringify(options) };
  // Chosen here: the original cannot take a port again that it has first asked the system for.
  const { server, port } = await serve(side, 'socket-io-server', freePort(), env);
  const peer = client('socket-io-client', port, transports, ...(content === undefined ? [] : [content]));
  await peer.line(/restart me/);
  await server.stop();
  await serve(side, 'socket-io-server', port, env);
  expect(await peer.outcome(), peer.err).toBe(0);
  return parsed(peer);
}

describe('socket.io', () => {
  const said = (value: unknown) => [[value], [value], [value]];
  for (const transports of ['polling', 'websocket', 'polling,websocket'])
    test(
      `serves its clients by ${transports}`,
      async () => {
        const [original, ours] = await Promise.all([socketIo('original', { transports }), socketIo('ringway', { transports })]);
        expect(ours).toEqual(original);
        expect(ours).toContainEqual(['binary', '0001ff', 'bytes']);
        expect(ours).toContainEqual(['to all', ...said('everybody')]);
        expect(ours).toContainEqual(['to others', [], ['from one'], []]);
        expect(ours.at(-1)).toEqual(['done']);
      },
      timeoutMs,
    );

  const cors = { cors: { origin: true, credentials: true } };
  const others: Readonly<Record<string, SocketIo>> = {
    '4.6 by polling': { version: 'socket.io-4.6', transports: 'polling' },
    '4.6 by both': { version: 'socket.io-4.6', transports: 'polling,websocket', content: 'text' },
    '4.7 by polling': { version: 'socket.io-4.7', transports: 'polling', options: cors },
    '4.7 by both': { version: 'socket.io-4.7', transports: 'polling,websocket', content: 'text' },
    '4.8.1 by polling': { version: 'socket.io-4.8.1', transports: 'polling' },
    '4.8.1 by both': { version: 'socket.io-4.8.1', transports: 'polling,websocket', content: 'text', options: cors },
    '4.8.4 with cors by polling': { transports: 'polling', options: cors },
  };
  for (const [name, options] of Object.entries(others))
    test(
      `${name} serves its clients`,
      async () => {
        const [original, ours] = await Promise.all([socketIo('original', options), socketIo('ringway', options)]);
        expect(ours).toEqual(original);
        expect(ours).toContainEqual(['to all', ...said('everybody')]);
        expect(ours.at(-1)).toEqual(['done']);
      },
      timeoutMs,
    );
});

describe('Fastify', () => {
  for (const adapter of ['@geut/fastify-uws', 'fastify-uws'])
    anyTest.skipIf(whyNotNewer !== undefined)(
      `serves requests and their bodies through ${adapter}`,
      async () => {
        const run = async (side: Side) => {
          const { port } = await serve(side, 'fastify-server', freePort(), { PACKAGE: adapter });
          const peer = client('fastify-client', port);
          expect(await peer.outcome(), peer.err).toBe(0);
          return parsed(peer);
        };
        const [original, ours] = await Promise.all([run('original'), run('ringway')]);
        expect(ours).toEqual(original);
        expect(ours).toContainEqual(['POST', '/checked', 200, 'text/plain; charset=utf-8', '7', '/checked', 'checked']);
        expect(ours.at(-1)).toEqual(['done']);
      },
      timeoutMs,
    );
});

describe('graphql-ws', () => {
  test(
    'serves queries, subscriptions and errors',
    async () => {
      const run = async (side: Side) => {
        const { server, port } = await serve(side, 'graphql-server');
        const peer = client('graphql-client', port);
        expect(await peer.outcome(), peer.err).toBe(0);
        await server.line(/^stopped$/);
        await server.until('both are gone', () => server.lines.filter((line) => line.startsWith('disconnected')).length >= 1);
        return { seen: parsed(peer), disconnected: server.lines.filter((line) => line.startsWith('disconnected')).slice(0, 1) };
      };
      const [original, ours] = await Promise.all([run('original'), run('ringway')]);
      expect(ours).toEqual(original);
      expect(ours.seen).toContainEqual(['subscription', [{ data: { count: 1 } }, { data: { count: 2 } }, { data: { count: 3 } }]]);
      expect(ours.seen.at(-1)).toEqual(['done']);
    },
    timeoutMs,
  );
});

describe('crossws', () => {
  test(
    'serves its peers through its uWebSockets.js adapter',
    async () => {
      const run = async (side: Side) => {
        const { server, port } = await serve(side, 'crossws-server');
        const peer = client('crossws-client', port);
        expect(await peer.outcome(), peer.err).toBe(0);
        await server.until('both are closed', () => server.lines.filter((line) => line.startsWith('["close"')).length >= 2);
        return { seen: parsed(peer), served: parsed(server) };
      };
      const [original, ours] = await Promise.all([run('original'), run('ringway')]);
      expect(ours).toEqual(original);
      expect(ours.seen).toContainEqual(['published', '{"said":"to the room"}']);
      expect(ours.seen).toContainEqual(['denied', 403, 'denied', 'not here']);
      expect(ours.seen.at(-1)).toEqual(['done']);
    },
    timeoutMs,
  );
});
