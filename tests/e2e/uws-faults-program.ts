/**
 * The program that uws-faults.test.ts sends bad input to: one app, spoken to plainly and over TLS.
 *
 * Role: run by the test in a process of its own, with the backend, a certificate and its key as arguments. Writes the two ports as a line
 * of JSON, then nothing; `/state` tells what has been called and what is held.
 */
import { type StatName, statIndex } from '../../src/core/stat-index.ts';
import { App, SHARED_COMPRESSOR, SHARED_DECOMPRESSOR, SSLApp, us_socket_local_port } from '../../src/frontend/uws/index.ts';
import { activeRuntime, configureRuntime } from '../../src/frontend/uws/process.ts';
import type { HttpRequest, HttpResponse, TemplatedApp, WebSocket, WebSocketBehavior } from '../../src/frontend/uws/types.ts';

type Data = Record<string, unknown>;

const [backend, cert, key] = process.argv.slice(2) as ['io_uring' | 'epoll', string, string];
configureRuntime({ backend });

/** What handlers have seen since the last look. */
let calls: string[] = [];
let closes: number[] = [];
/** Over the life of the process. */
const balance = { open: 0, close: 0, aborted: 0 };

function gauge(name: StatName): number {
  return activeRuntime()?.core.readStat(statIndex(name)) ?? -1;
}

function state(): string {
  const held = [
    'connections_http',
    'connections_websocket',
    'topics',
    'subscriptions',
    'backpressure_bytes',
    'buffers_large_used',
  ] as const;
  const answer = {
    calls,
    closes,
    balance,
    errors: gauge('handler_errors'),
    held: Object.fromEntries(held.map((name) => [name, gauge(name)])),
  };
  [calls, closes] = [[], []];
  return JSON.stringify(answer);
}

/** What fails at a point that the path names: at once, or after something has been awaited. */
function fail(where: string): never {
  throw new Error(`on purpose in ${where}`);
}

async function failLater(where: string): Promise<never> {
  await Bun.sleep(1);
  return fail(where);
}

const sockets: WebSocketBehavior<Data> = {
  compression: SHARED_COMPRESSOR | SHARED_DECOMPRESSOR,
  maxPayloadLength: 100_000,
  open(socket) {
    balance.open++;
    socket.subscribe('all');
  },
  message: (socket, message, isBinary) => void socket.send(message, isBinary, true),
  close(_, code) {
    balance.close++;
    closes.push(code);
  },
};

/** A route whose handler of one event fails. */
const failing = (more: WebSocketBehavior<Data>): WebSocketBehavior<Data> => ({ ...sockets, ...more });

function routes(app: TemplatedApp): TemplatedApp {
  const read = (response: HttpResponse, request: HttpRequest) => {
    calls.push(`${request.getCaseSensitiveMethod()} ${request.getUrl()}`);
    response.onAborted(() => void balance.aborted++);
    response.collectBody(1_000_000, (body) => void response.end(`read ${body?.byteLength}`));
  };
  return app
    .any('/*', read)
    .get('/state', (response) => void response.end(state()))
    .get('/well', (response) => void response.end('well'))
    .get('/throws', () => fail('a route'))
    .get('/rejects', (response) => {
      response.onAborted(() => {});
      return failLater('an async route');
    })
    .get('/silent', () => {})
    .get('/in-a-while', (response) => {
      const answer = setTimeout(() => response.end('late'), 1000);
      response.onAborted(() => {
        clearTimeout(answer);
        balance.aborted++;
      });
    })
    .get('/breaks', (response) => {
      response.write('some of it');
      fail('a response that has begun');
    })
    .post('/body-throws', (response) => void response.onAborted(() => {}).onData(() => fail('onData')))
    .get('/abort-throws', (response) => void response.onAborted(() => fail('onAborted')))
    .ws<Data>('/ws', sockets)
    .ws<Data>('/upgrade-throws', failing({ upgrade: () => fail('upgrade') }))
    .ws<Data>(
      '/upgrade-rejects',
      failing({
        upgrade(response) {
          response.onAborted(() => {});
          return failLater('an async upgrade');
        },
      }),
    )
    .ws<Data>(
      '/open-throws',
      failing({
        open(socket: WebSocket<Data>) {
          void sockets.open?.(socket);
          fail('open');
        },
      }),
    )
    .ws<Data>('/message-throws', failing({ message: () => fail('message') }))
    .ws<Data>('/message-rejects', failing({ message: () => failLater('an async message') }))
    .ws<Data>(
      '/close-throws',
      failing({
        close(socket, code, reason) {
          void sockets.close?.(socket, code, reason);
          fail('close');
        },
      }),
    );
}

const ports = [App(), SSLApp({ cert_file_name: cert, key_file_name: key })].map((app) => {
  let port = -1;
  routes(app).listen('127.0.0.1', 0, (socket) => {
    if (socket) port = us_socket_local_port(socket);
  });
  return port;
});
process.stdout.write(`${JSON.stringify(ports)}\n`);
