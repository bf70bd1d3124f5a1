/** That a server answers as it should, before it is measured. */

export interface Target {
  readonly port: number;
  readonly tls: boolean;
  readonly protocols: readonly ('http' | 'websocket')[];
}

const readyMs = 20_000;
const answerMs = 5000;
const hello = 'Hello from Ringway';
/** The certificate is the bench's own. */
const tls = { rejectUnauthorized: false };

/** Throws when it does not within 20 s, or when `whyEnded` tells why it never will. */
export async function whenReady(target: Target, whyEnded: () => string | undefined): Promise<void> {
  const deadline = performance.now() + readyMs;
  while (!(await answers(target))) {
    const why = whyEnded();
    if (why !== undefined) throw new Error(why);
    if (performance.now() > deadline) throw new Error(`it does not listen after ${readyMs / 1000} s`);
    await Bun.sleep(25);
  }
  if (target.protocols.includes('http')) await checkHello(target);
  if (target.protocols.includes('websocket')) {
    await checkEcho(target);
    await checkRoom(target);
  }
}

function urlOf(scheme: 'http' | 'ws', { port, tls }: Target, path: string): string {
  return `${scheme}${tls ? 's' : ''}://127.0.0.1:${port}${path}`;
}

async function answers(target: Target): Promise<boolean> {
  try {
    await (await fetch(urlOf('http', target, '/hello'), { tls })).arrayBuffer();
    return true;
  } catch {
    return false;
  }
}

async function checkHello(target: Target): Promise<void> {
  const response = await fetch(urlOf('http', target, '/hello'), { tls });
  const body = await response.text();
  if (response.status !== 200 || body !== hello) throw new Error(`GET /hello gave ${response.status} ${JSON.stringify(body.slice(0, 80))}`);
}

async function checkEcho(target: Target): Promise<void> {
  const socket = await connect(target, '/echo');
  socket.send('text \u00e9');
  if ((await next(socket)) !== 'text \u00e9') throw new Error('/echo does not give text back');
  socket.send(new Uint8Array([1, 2, 255]));
  const bytes = await next(socket);
  if (!(bytes instanceof ArrayBuffer) || new Uint8Array(bytes).join() !== '1,2,255') throw new Error('/echo does not give bytes back');
  socket.close();
}

async function checkRoom(target: Target): Promise<void> {
  const sockets = [await connect(target, '/room/check'), await connect(target, '/room/check')] as const;
  // A handshake is answered before the subscription it leads to is made.
  await Bun.sleep(100);
  const received = sockets.map(next);
  sockets[0].send('to all');
  if ((await Promise.all(received)).join() !== 'to all,to all') throw new Error('/room does not give a message to all in it');
  for (const socket of sockets) socket.close();
}

function connect(target: Target, path: string): Promise<WebSocket> {
  const socket = new WebSocket(urlOf('ws', target, path), { tls });
  socket.binaryType = 'arraybuffer';
  return within(`the handshake of ${path}`, (resolve, reject) => {
    socket.onopen = () => resolve(socket);
    socket.onerror = () => reject(new Error(`the handshake of ${path} was refused`));
  });
}

function next(socket: WebSocket): Promise<unknown> {
  return within('a message', (resolve) => {
    socket.onmessage = ({ data }) => resolve(data);
  });
}

function within<Value>(what: string, begin: (resolve: (value: Value) => void, reject: (error: Error) => void) => void): Promise<Value> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`${what} did not come within ${answerMs / 1000} s`)), answerMs);
    begin(
      (value) => {
        clearTimeout(timer);
        resolve(value);
      },
      (error) => {
        clearTimeout(timer);
        reject(error);
      },
    );
  });
}
