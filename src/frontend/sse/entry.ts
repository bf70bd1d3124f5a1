/**
 * The paths of a config's `sse`: topics as streams of server-sent events.
 *
 * Role: requests of the core → streams/. Up: registry.ts. Down: ask.ts, which reads what is asked for. It stands before `fetch`, so that a catch-all
 * route does not take its paths.
 */
import type { User } from '../../api/user.ts';
import { refusalOf } from '../../auth/authentication.ts';
import { PatternTable } from '../../config/pattern.ts';
import type { ResolvedConfig } from '../../config/resolve.ts';
import { topicGrammar } from '../../config/topic-pattern.ts';
import type { SseSettings } from '../../config/topics.ts';
import { eventFlag, method } from '../../core/abi.ts';
import type { RequestHead } from '../../core/http.ts';
import { headerValues, requestPath } from '../../core/request-target.ts';
import type { Frontend, FrontendEntry, FrontendHost, RequestTaker } from '../frontend.ts';
import { checkOrigin } from '../sockets/handshake.ts';
import { type StreamRefusal, type StreamWishes, streamHeaders } from '../streams/streams.ts';
import { readWishes } from './ask.ts';

const textHeaders = 'content-type: text/plain;charset=utf-8\r\n';
const methods = 'GET, HEAD, OPTIONS';

interface Path extends SseSettings {
  has(topic: string): boolean;
}

class SseFrontend implements Frontend, RequestTaker {
  readonly requests: RequestTaker = this;
  readonly #host: FrontendHost;
  readonly #paths: ReadonlyMap<string, Path>;

  constructor(host: FrontendHost, sse: readonly SseSettings[]) {
    this.#host = host;
    this.#paths = new Map(
      sse.map((settings) => {
        const table = new PatternTable(
          topicGrammar,
          settings.topics.map((pattern) => [pattern, true] as const),
        );
        return [settings.path, { ...settings, has: (topic) => table.match(topic) !== undefined }];
      }),
    );
  }

  /** Streams are counted where they are all known. */
  readonly pending = 0;

  takes(head: RequestHead): boolean {
    const path = this.#paths.get(requestPath(head));
    if (path === undefined) return false;
    this.#answer(head, path);
    return true;
  }

  onAbort(slot: number, request: number): void {
    this.#host.streams.onAbort(slot, request);
  }

  #answer(head: RequestHead, path: Path): void {
    const origin = checkOrigin(head, path.origins);
    const shared = sharedWith(head, path.origins);
    const refuse = (status: number, sentence: string, more = '') => {
      this.#host.count('sse_refused_request');
      this.#refuse(head, status, sentence, shared + more);
    };
    if (origin !== undefined) {
      this.#host.count('sse_refused_origin');
      this.#refuse(head, 403, origin);
    } else if (head.method === method.options) {
      const preflight = `allow: ${methods}\r\n${shared === '' ? '' : preflightHeaders}`;
      this.#host.core.respond(head, 204, shared + preflight + this.#host.requestIds.line(head), null);
    } else if (head.method !== method.get && head.method !== method.head) {
      refuse(405, `Method Not Allowed: a stream of events is read by GET`, `allow: ${methods}\r\n`);
    } else if (head.flags & (eventFlag.requestUpgrade | eventFlag.requestHasBody)) {
      refuse(400, 'Bad Request: this path streams server-sent events: no WebSocket, and no body in the request');
    } else {
      const wishes = readWishes(head, path);
      if ('status' in wishes) refuse(wishes.status, wishes.sentence);
      else void this.#authenticate(head, path, shared, wishes);
    }
  }

  /** Whose token it is that came with the request, if one must or may. */
  async #authenticate(head: RequestHead, path: Path, shared: string, wishes: StreamWishes): Promise<void> {
    const { authentication, streams, core } = this.#host;
    if (authentication === undefined || path.auth === false) {
      this.#open(head, path, shared, wishes, undefined);
      return;
    }
    const verified = await streams.waitFor(authentication.authenticateRequest(head));
    if (!core.isOpen(head.slot, head.generation)) return;
    if (verified.ok) this.#open(head, path, shared, wishes, verified.user);
    else if (verified.reason === 'missing' && path.auth === 'optional') this.#open(head, path, shared, wishes, undefined);
    else if (verified.reason === 'unavailable') {
      // A status would keep an EventSource from ever coming back.
      streams.turnAway(head, this.#headers(head, shared));
    } else {
      if (verified.reason === 'missing') authentication.refused('missing');
      this.#host.count('sse_refused_token');
      const { status, headers, text } = refusalOf(verified.reason);
      this.#refuse(head, status, text, shared + headers);
    }
  }

  #open(head: RequestHead, path: Path, shared: string, wishes: StreamWishes, user: User | undefined): void {
    this.#host.streams.open(
      head,
      wishes,
      { user, data: undefined },
      { headers: this.#headers(head, shared), quietMs: path.heartbeat * 1000, isHead: head.method === method.head },
      ({ status, sentence }: StreamRefusal) => this.#refuse(head, status, sentence, shared),
    );
  }

  #headers(head: RequestHead, shared: string): string {
    return streamHeaders + shared + this.#host.requestIds.line(head);
  }

  #refuse(head: RequestHead, status: number, sentence: string, headers = ''): void {
    const { core, requestIds } = this.#host;
    core.respond(head, status, textHeaders + headers + requestIds.line(head), sentence);
  }
}

/** Fields by which a browser lets a page of another host read the answer (WHATWG Fetch, CORS protocol); '' where there is none. */
function sharedWith(head: RequestHead, origins: SseSettings['origins']): string {
  if (origins === 'same-host') return '';
  // Anybody's page: then without what the browser knows of the client, such as its cookies.
  if (origins === 'any') return 'access-control-allow-origin: *\r\n';
  const [origin] = headerValues(head, 'origin');
  const allowed = origin === undefined ? '' : `access-control-allow-origin: ${origin}\r\naccess-control-allow-credentials: true\r\n`;
  return `vary: origin\r\n${allowed}`;
}

const preflightHeaders =
  `access-control-allow-methods: ${methods}\r\n` +
  'access-control-allow-headers: authorization, cache-control, last-event-id, topic-token\r\naccess-control-max-age: 600\r\n';

export const sseFrontend: FrontendEntry<Pick<ResolvedConfig, 'sse'>> = {
  name: 'sse',
  metrics: ['sse_refused_request', 'sse_refused_origin', 'sse_refused_token', 'sse_refused_forbidden', 'sse_lost', 'sse_given_up'],
  create: (host, { sse }) => new SseFrontend(host, sse),
};
