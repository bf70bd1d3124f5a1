/**
 * Runs the way of a message and of a request some hundred times before a worker serves, so that the first clients do not pay for code that
 * the JavaScript engine has yet to compile.
 *
 * Role: a core, a frontend and a loop of their own, with this process as the client, all thrown away afterwards: nothing of it shows in
 * counters, logs or handlers of the worker. Up: main.ts. Down: core/core.ts, host/loop.ts, frontend/. What fails here only makes the start
 * of the worker colder, so it is not told.
 */
import { readSync, writeSync } from 'node:fs';
import type { WebSocketHandler } from '../api/websocket.ts';
import { websocketDefaults } from '../config/websocket-options.ts';
import { Core } from '../core/core.ts';
import { native } from '../core/native.ts';
import { honoFrontend } from '../frontend/hono/entry.ts';
import { Frontends } from '../frontend/registry.ts';
import { webSocketFrontend } from '../frontend/websocket/entry.ts';
import { Loop } from '../host/loop.ts';
import { RequestIds } from '../host/request-ids.ts';
import { RawTopics } from '../topics/raw-topics.ts';

/**
 * The engine compiles a function after tens of calls, and optimises it after hundreds, by what it has seen: the more is done here, the more is done
 * by the example of a client that never lets us wait.
 */
const messages = 300;
const requests = 150;
/** No start waits longer for this. */
const longestStartMs = 100;

const numbers = { maxConnections: 8, recvBuffers: 16, recvBufferBytes: 4096 };
const target = '/';
const handshake = `GET ${target} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n`;
const request = `GET ${target} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: warm-up\r\nAccept: */*\r\n\r\n`;
/** A masked frame of 20 bytes (RFC 6455 §5.2). */
const frame = Buffer.from([0x82, 0x80 | 20, 1, 2, 3, 4, ...Array.from({ length: 20 }, (_, at) => at)]);

/** One connection to ourselves: sends the same again for each answer. */
class OwnClient {
  readonly #fd: number;
  readonly #bytes = Buffer.alloc(4096);

  constructor(listeningFd: number) {
    this.#fd = native.connectLocal(listeningFd);
  }

  send(what: Uint8Array | string): void {
    if (typeof what === 'string') writeSync(this.#fd, what);
    else writeSync(this.#fd, what, 0, what.byteLength);
  }

  /** Throw away what has been answered: it is there, since answers go out before what comes next is looked at. */
  drop(): void {
    readSync(this.#fd, this.#bytes, 0, this.#bytes.byteLength, null);
  }

  close(): void {
    native.fdClose(this.#fd);
  }
}

export interface WarmUp {
  readonly messages: number;
  readonly requests: number;
}

/**
 * `longestMs`: given up after that.
 * ret: what was served, when nothing of it is open any more. Never rejects. Only after the worker's own core has been made, which sets the
 * secrets that a process has once.
 */
export async function warmUp(longestMs = longestStartMs): Promise<WarmUp> {
  const served = { messages: 0, requests: 0 };
  const ends: (() => void)[] = [];
  const { promise, resolve } = Promise.withResolvers<void>();
  const giveUp = setTimeout(resolve, longestMs);
  try {
    const wakeFd = native.eventfdCreate();
    ends.push(() => native.fdClose(wakeFd));
    // An abstract name: nothing is left in a file system.
    const listeningFd = native.listenSocket(`@ringway-${process.pid}-${crypto.randomUUID()}`, undefined, 4, 0);
    ends.push(() => native.fdClose(listeningFd));
    const core = new Core({ backend: 'epoll', wakeFd, inboxFdFirst: -1, shmFd: -1, workerIndex: 0, workerCount: 1, numbers });
    ends.push(() => core.destroy());
    const clients = { websocket: new OwnClient(listeningFd), http: new OwnClient(listeningFd) };
    ends.push(
      () => clients.websocket.close(),
      () => clients.http.close(),
    );
    const frontends = frontendsOf(core, clients, served, resolve);
    // Not run, but driven by what is queued: there is always something at hand, so it never sleeps.
    const loop = new Loop({ core, ...frontends.events(), wakeFd, pending: () => frontends.pending });
    ends.push(() => loop.stop());
    clients.websocket.send(handshake);
    core.listen(listeningFd, 0);
    await promise;
    // What resolves it does so within a visit of the loop, which must not find its core gone.
    await new Promise((ended) => setImmediate(ended));
  } catch {
    // What is not allowed here, or short, the worker itself meets or does without.
  }
  clearTimeout(giveUp);
  for (const end of ends.reverse()) end();
  return served;
}

/** An echo, which ends in requests, which end with `done`. */
function frontendsOf(
  core: Core,
  clients: { readonly websocket: OwnClient; readonly http: OwnClient },
  served: { messages: number; requests: number },
  done: () => void,
): Frontends {
  const frontends = new Frontends({ core, topics: new RawTopics(core), requestIds: new RequestIds(false), onFailure: done });
  const handler: WebSocketHandler<unknown> = {
    open: () => clients.websocket.send(frame),
    message(socket, message) {
      socket.send(message);
      clients.websocket.drop();
      if (++served.messages < messages) clients.websocket.send(frame);
      else clients.http.send(request);
    },
  };
  frontends.add(webSocketFrontend, { websocket: [{ pattern: target, handler, settings: websocketDefaults }] });
  frontends.add(honoFrontend, {
    app: undefined,
    fetch(got) {
      if (served.requests++ > 0) clients.http.drop();
      if (served.requests < requests) clients.http.send(request);
      else done();
      return new Response(got.url);
    },
  });
  return frontends;
}
