/**
 * Programs typed by the original, given our module, and the same program typed by ours: both compile.
 *
 * Role: input of the type checker, never run; typings.test.ts runs it.
 */
import type * as original from 'uWebSockets.js';
import type { HttpRequest, HttpResponse, TemplatedApp, us_listen_socket, WebSocket } from '../../../src/frontend/uws/index.ts';
import {
  App,
  DEDICATED_COMPRESSOR_4KB,
  getParts,
  SHARED_DECOMPRESSOR,
  SSLApp,
  us_listen_socket_close,
  us_socket_local_port,
} from '../../../src/frontend/uws/index.ts';

interface User {
  id: number;
  name: string;
}

/** Written for the original; what it is given is ours. */
function writtenForOriginal(app: original.TemplatedApp): original.TemplatedApp {
  const answer = (res: original.HttpResponse, req: original.HttpRequest): void => {
    res
      .writeStatus('200 OK')
      .writeHeader('x', req.getHeader('y'))
      .end(req.getQuery('z') ?? req.getUrl());
  };
  return app
    .get('/*', answer)
    .ws<User>('/*', {
      upgrade: (res, req, context) => res.upgrade<User>({ id: 1, name: 'one' }, req.getHeader('sec-websocket-key'), '', '', context),
      open: (ws) => {
        const user: User = ws.getUserData();
        ws.subscribe(user.name);
      },
      message: (ws, message, isBinary) => {
        const status: number = ws.send(message, isBinary);
        if (status === 2) ws.end(1013, 'slow');
      },
    })
    .listen(9001, (socket) => {
      if (socket !== false) socket satisfies original.us_listen_socket;
    });
}

writtenForOriginal(App());
writtenForOriginal(SSLApp({ key_file_name: 'key.pem', cert_file_name: 'cert.pem', passphrase: 'x' }));

/** Typed by ours throughout. */
const app: TemplatedApp = App();
let listening: us_listen_socket | undefined;
const route = async (res: HttpResponse, req: HttpRequest): Promise<void> => {
  res.onAborted(() => {
    res.aborted = true;
  });
  const name: string | undefined = req.getParameter('name') ?? req.getParameter(0);
  res.onData((chunk, isLast) => {
    if (isLast) for (const part of getParts(chunk, 'multipart/form-data; boundary=x') ?? []) res.write(part.data);
  });
  const [ok, done]: [boolean, boolean] = res.tryEnd(name ?? '', 5);
  if (!ok && !done) res.onWritable((offset) => offset > 0);
};
app
  .post('/:name', route)
  .any('/*', route)
  .ws<User>('/*', {
    compression: DEDICATED_COMPRESSOR_4KB | SHARED_DECOMPRESSOR,
    maxPayloadLength: 1024,
    closeOnBackpressureLimit: true,
    open: (ws: WebSocket<User>) => void ws.cork(() => ws.publish('topic', new Uint8Array(3), true, true)),
    close: (ws, code, message) => console.log(ws.getUserData().id, code, message.byteLength),
    subscription: (_ws, topic, now, before) => console.log(topic.byteLength, now - before),
  })
  .listen('127.0.0.1', 0, (socket) => {
    if (socket === false) return;
    listening = socket;
    console.log(us_socket_local_port(socket));
  });
if (listening !== undefined) us_listen_socket_close(listening);

// What the types refuse.
// @ts-expect-error a number is no text
app.publish('topic', 5);
// @ts-expect-error a handler is a function
app.get('/', 'text');
// @ts-expect-error there is no such option
app.ws('/*', { maxPayload: 5 });
