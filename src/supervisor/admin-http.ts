/**
 * HTTP for the admin listener, by the gateway's own core: the same parser, limits and deadlines as for everybody else.
 *
 * Role: a core and a loop of the supervisor's own, on epoll and small, so that nothing of a node has to work for it. Up: admin.ts.
 * Down: core/core.ts, host/loop.ts, frontend/hono/.
 */

import { Core, type WebSocketEvents } from '../core/core.ts';
import { native } from '../core/native.ts';
import { FetchFrontend } from '../frontend/hono/index.ts';
import { LightResponse } from '../frontend/hono/response.ts';
import { Loop } from '../host/loop.ts';
import { bodyBytesMax } from './admin-body.ts';

const numbers = {
  maxConnections: 1024,
  recvBuffers: 64,
  recvBufferBytes: 4096,
  headTimeoutMs: 10_000,
  bodyTimeoutMs: 30_000,
  writeTimeoutMs: 30_000,
  /** Longer than the usual interval of a scrape is too long: whoever scrapes in between connects again. */
  keepAliveTimeoutMs: 30_000,
  lingerTimeoutMs: 2000,
};

/** Nothing here takes a handshake. */
const noSockets: WebSocketEvents = {
  onOpen() {},
  onMessage() {},
  onClose() {},
  onDrain() {},
  onPing() {},
  onPong() {},
  onDropped() {},
};

/** How often a listener that has stopped looks whether it has ended. */
const endPollMs = 20;

export interface AdminHttp {
  /** Stop listening, and cut what is connected. */
  stop(): void;
}

/** Serve what comes to the listening socket `fd`, which is ours from now on. `onDefect`: told of what `fetch` throws. */
export function serveHttp(
  fd: number,
  fetch: (request: Request) => Response | Promise<Response>,
  onDefect: (error: unknown) => void,
): AdminHttp {
  const wakeFd = native.eventfdCreate();
  const place = { inboxFdFirst: -1, shmFd: -1, workerIndex: 0, workerCount: 1 };
  // A little more than ours, whose answer says more.
  const core = new Core({ backend: 'epoll', wakeFd, ...place, maxBodyBytes: bodyBytesMax + 65536, numbers });
  const http = new FetchFrontend({
    fetch: async (request) => whole(await fetch(withContent(request))),
    commands: core,
    onError(error, { where }) {
      // What was answered with 500 has been told by who has answered.
      if (where !== 'answer') onDefect(error);
    },
  });
  const loop = new Loop({ core, http, websocket: noSockets, wakeFd, pending: () => http.pending });
  core.listen(fd, 0);
  loop.run().catch(onDefect);
  let isStopped = false;
  return {
    stop() {
      if (isStopped) return;
      isStopped = true;
      core.unlisten(0);
      native.listenClose(fd);
      core.terminateListener(0);
      core.onQueued?.();
      // Answers that are still being made have nowhere to go, but must not meet a core that is no more.
      const timer = setInterval(() => {
        // One may have been on its way.
        core.terminateListener(0);
        if (core.connections() > 0 || http.pending > 0) return;
        clearInterval(timer);
        loop.stop();
        native.eventfdSignal(wakeFd);
        core.destroy();
        native.fdClose(wakeFd);
      }, endPollMs);
      timer.unref();
    },
  };
}

/** RFC 9110 §9.3.2: HEAD is answered as GET is; the core leaves the content out, and tells its length. */
function withContent(request: Request): Request {
  return request.method === 'HEAD' ? new Request(request.url, { headers: request.headers }) : request;
}

/** With its content at hand: every answer has a length. */
async function whole(response: Response): Promise<Response> {
  const content = response.body === null ? null : await response.bytes();
  return new LightResponse(content, response) as unknown as Response;
}
