/**
 * WebSockets by path, as the config's `websocket` has them: decides on handshakes.
 *
 * Role: requests of the core that are handshakes → routes. Up: registry.ts. Down: sockets/, which runs the handlers of what was
 * accepted; router.ts. A handshake for another path is left to the frontends behind.
 */
import { SocketArgumentError } from '../../api/message.ts';
import { noParams, SocketExtras } from '../../api/socket.ts';
import type { TokenRefusal, User } from '../../api/user.ts';
import type { RouteParams, UpgradeClient } from '../../api/websocket.ts';
import { type Authentication, refusalOf } from '../../auth/authentication.ts';
import type { RouteAuthSettings } from '../../config/auth.ts';
import type { ResolvedConfig } from '../../config/resolve.ts';
import { eventFlag } from '../../core/abi.ts';
import type { Core } from '../../core/core.ts';
import type { RequestHead } from '../../core/http.ts';
import { inspection, shown } from '../../core/inspection.ts';
import { requestPath, requestUrl } from '../../core/request-target.ts';
import type { TlsInfo } from '../../core/tls-info.ts';
import { isUserId, userIdBytesMax } from '../../topics/users.ts';
import type { Frontend, FrontendEntry, FrontendHost, RequestTaker } from '../frontend.ts';
import { encodeHeaders } from '../http/header-block.ts';
import { abortReason, LightRequest } from '../http/request.ts';
import { isThenable } from '../http/thenable.ts';
import { checkOrigin, chooseProtocol, tokenProtocol } from '../sockets/handshake.ts';
import type { SettledRoute, SocketHandlers } from '../sockets/socket-handlers.ts';
import { Router } from './router.ts';

const textHeaders = 'content-type: text/plain;charset=utf-8\r\n';

/** One that has a route, and whose page may connect. */
interface Handshake {
  readonly head: RequestHead;
  readonly url: string;
  /** Of the answer. */
  readonly headers: string;
  readonly route: SettledRoute;
  readonly extras: SocketExtras | undefined;
}

export class WebSocketFrontend implements Frontend, RequestTaker {
  readonly requests: RequestTaker = this;
  readonly sockets: SocketHandlers;
  readonly #host: FrontendHost;
  readonly #core: Core;
  readonly #router: Router<SettledRoute>;
  /** By slot: handshakes whose handlers have not decided. */
  readonly #deciding = new Map<number, LightRequest>();

  constructor(host: FrontendHost, routes: ResolvedConfig['websocket']) {
    this.#host = host;
    this.#core = host.core;
    this.sockets = host.sockets;
    this.#router = new Router(
      routes.map(({ pattern, handler, settings }) => [pattern, this.sockets.add({ name: pattern, handler, settings })] as const),
    );
  }

  get pending(): number {
    return this.sockets.pending;
  }

  get outliving(): number {
    return this.sockets.pending;
  }

  speaksAt(path: string): boolean {
    return this.#router.match(path) !== undefined;
  }

  takes(head: RequestHead): boolean {
    if (!(head.flags & eventFlag.requestUpgrade)) return false;
    const found = this.#router.match(requestPath(head));
    const url = found === undefined ? '' : requestUrl(head);
    // Of a host that a URL cannot have the answer is that of any other request.
    if (found === undefined || url === '') return false;
    const { settings } = found.target;
    const refusal = checkOrigin(head, settings.origins);
    if (refusal !== undefined) {
      this.#host.count('refused_origin');
      this.#answer(head, 403, textHeaders, refusal);
      return true;
    }
    const { target: route, params } = found;
    const protocol = chooseProtocol(head, settings.protocols) || tokenProtocol(head, route.auth, this.#host.authentication);
    const headers = protocol === '' ? '' : `Sec-WebSocket-Protocol: ${protocol}\r\n`;
    const extras = params !== undefined || protocol !== '' ? new SocketExtras(params, protocol) : undefined;
    const handshake = { head, url, headers, route, extras };
    const { authentication } = this.#host;
    if (authentication === undefined || route.auth === false) void this.#decide(handshake);
    else this.#authenticate(handshake, route.auth, authentication);
    return true;
  }

  onAbort(slot: number, request: number, cause: number, status: number): void {
    this.sockets.forget(slot);
    const deciding = this.#deciding.get(slot);
    if (deciding?.head.request !== request) return;
    this.#deciding.delete(slot);
    deciding.abort(abortReason(cause, status), true);
  }

  onHalfClosed(slot: number, generation: number): void {
    // As of any other request: who has asked for the signal wants to know of clients that may have left.
    if (this.#deciding.get(slot)?.hasSignal) this.#core.terminate(slot, generation);
  }

  /** Find out who it is, then decide. */
  #authenticate(handshake: Handshake, asks: Exclude<RouteAuthSettings, false>, authentication: Authentication): void {
    const { head, url, headers, route } = handshake;
    const token = authentication.tokenOf(head, asks.from);
    if (token !== undefined) {
      const request = new LightRequest(head, url, null);
      void this.#later(request, route, async () => {
        const verified = await authentication.verify(token);
        // Nobody is there any more to be told, and no handler need know.
        if (!this.#core.isOpen(head.slot, head.generation)) return;
        if (!verified.ok) return this.#unauthorized(head, verified.reason);
        const extras = handshake.extras ?? new SocketExtras();
        extras.user = verified.user;
        await this.#decide({ ...handshake, extras }, request);
      });
    } else if (asks.mode === 'optional') {
      void this.#decide(handshake);
    } else if (asks.from.includes('message')) {
      // Where nothing asks for the handshake later it is not kept.
      const admission = route.handler.upgrade === undefined ? undefined : (user: User) => this.#decideOpen(handshake, user);
      if (!this.sockets.acceptWaiting(head, headers, route, handshake.extras, admission)) this.#refuseFor('full', head, authentication);
    } else {
      this.#refuseFor('missing', head, authentication);
    }
  }

  /** `request`: when there is one already, of a handshake that is being decided. ret: when it is decided, which is at once unless a promise */
  #decide(handshake: Handshake, request?: LightRequest): undefined | Promise<void> {
    const { head, url, headers, route, extras } = handshake;
    const { upgrade } = route.handler;
    if (upgrade === undefined) {
      this.sockets.accept(head, headers, route, undefined, extras);
      return undefined;
    }
    const asked = request ?? new LightRequest(head, url, null);
    try {
      const client = new Client(this.#core, head, extras);
      const decision = upgrade.call(route.handler, asked as unknown as Request, client);
      const settle = (value: unknown) => {
        if (value instanceof Response) this.#refuse(head, value, route);
        else this.sockets.accept(head, headers + client.headerBlock(), route, value, client.extrasFor(extras));
      };
      if (!isThenable(decision)) settle(decision);
      else if (request === undefined) void this.#later(asked, route, async () => settle(await decision));
      else return Promise.resolve(decision).then(settle);
    } catch (error) {
      this.#failed(head, route, error);
    }
    return undefined;
  }

  /** The handshake was accepted before it was known whose it is. ret: as of `upgrade` */
  #decideOpen({ head, url, route, extras }: Handshake, user: User): unknown {
    const { upgrade } = route.handler;
    if (upgrade === undefined) return undefined;
    const known = new SocketExtras(extras?.params, extras?.protocol);
    known.user = user;
    return upgrade.call(route.handler, new LightRequest(head, url, null) as unknown as Request, new Client(this.#core, head, known, true));
  }

  /** A handshake waits for `decide`, which answers it. */
  async #later(request: LightRequest, route: SettledRoute, decide: () => Promise<void>): Promise<void> {
    const { head } = request;
    // One of the connection that had this slot before is over without a word.
    this.#deciding.get(head.slot)?.abort(abortReason(), true);
    this.#deciding.set(head.slot, request);
    const { totals } = this.sockets;
    totals.addPending(1);
    try {
      await decide();
    } catch (error) {
      this.#failed(head, route, error);
    } finally {
      totals.addPending(-1);
      if (this.#deciding.get(head.slot) === request) this.#deciding.delete(head.slot);
    }
  }

  #refuseFor(reason: TokenRefusal, head: RequestHead, authentication: Authentication): void {
    authentication.refused(reason);
    this.#unauthorized(head, reason);
  }

  #unauthorized(head: RequestHead, reason: TokenRefusal): void {
    const { status, headers, text } = refusalOf(reason);
    this.#answer(head, status, textHeaders + headers, text);
  }

  #refuse(head: RequestHead, response: Response, route: SettledRoute): void {
    // RFC 6455 §4.2.2: any answer but 101 refuses; one that tells of success would only mislead.
    const status = response.status >= 300 ? response.status : 403;
    const headers = refusalHeaders(response);
    const answer = (body: Uint8Array | null) => this.#answer(head, status, headers, body);
    response.bytes().then(answer, (error) => {
      this.#report(head, route, error);
      answer(null);
    });
  }

  #failed(head: RequestHead, route: SettledRoute, error: unknown): void {
    this.#report(head, route, error);
    this.#answer(head, 500, textHeaders, 'Internal Server Error');
  }

  #report(head: RequestHead, { name }: SettledRoute, error: unknown): void {
    const context = { err: error, event: 'upgrade', route: name, requestId: this.#host.requestIds.of(head) };
    this.#host.failed(context, `the upgrade handler of ${name} failed`);
  }

  /** Anything but 101 (RFC 6455 §4.2.2). */
  #answer(head: RequestHead, status: number, headers: string, body: string | Uint8Array | null): void {
    const { requestIds } = this.#host;
    const isNamed = headers.toLowerCase().includes(`${requestIds.header}:`);
    this.#core.respond(head, status, isNamed ? headers : headers + requestIds.line(head), body);
  }
}

export const webSocketFrontend: FrontendEntry<Pick<ResolvedConfig, 'websocket'>, WebSocketFrontend> = {
  name: 'websocket',
  metrics: [
    'handler_errors',
    'refused_origin',
    'ws_handlers_pending',
    'ws_messages_waiting',
    'ws_waiting_bytes',
    'pauses_handlers',
    'drops_unhandled',
  ],
  create: (host, { websocket }) => new WebSocketFrontend(host, websocket),
};

/** Fields that say how the connection goes on (RFC 6455 §4.2.2, RFC 9110 §7.6.1). */
const ofHandshake = /^(?:connection|upgrade|content-length|transfer-encoding|trailer|date|sec-websocket-.*)$/;
const View = class UpgradeClient {};

/** Asks the core only for what a handler asks for. */
class Client implements UpgradeClient {
  // Both lead to the core: nothing that prints or copies this may follow.
  readonly #core: Core;
  readonly #head: RequestHead;
  readonly params: RouteParams;
  /** As a token says. */
  readonly #known: User | undefined;
  /** As `upgrade` has said. */
  #said: User | undefined;
  /** The handshake was, since the token was to come as the first message. */
  readonly #isAnswered: boolean;
  #responseHeaders: Headers | undefined;

  constructor(core: Core, head: RequestHead, extras: SocketExtras | undefined, isAnswered = false) {
    this.#isAnswered = isAnswered;
    this.#core = core;
    this.#head = head;
    this.params = extras?.params ?? noParams;
    this.#known = extras?.user;
  }

  get user(): User | undefined {
    return this.#known ?? this.#said;
  }

  set user(user: User | undefined) {
    if (this.#known !== undefined) throw new SocketArgumentError('client.user: whose socket it is, its token says');
    if (user !== undefined && !isUserId((user as Partial<User> | null)?.id))
      throw new SocketArgumentError(
        `client.user is { id, claims, expiresAt }, and its id a string of 1 to ${userIdBytesMax} bytes of UTF-8`,
      );
    this.#said = user;
  }

  /** `extras` of the socket to be, which knows whose it is. */
  extrasFor(extras: SocketExtras | undefined): SocketExtras | undefined {
    if (this.#said === undefined) return extras;
    const own = extras ?? new SocketExtras();
    own.user = this.#said;
    return own;
  }

  get responseHeaders(): Headers {
    if (this.#isAnswered)
      throw new SocketArgumentError(
        "responseHeaders: the handshake was answered before the token came; leave 'message' out of what auth of this route takes tokens from",
      );
    this.#responseHeaders ??= new Headers();
    return this.#responseHeaders;
  }

  /** Header lines for the answer. Throws SocketArgumentError for those that are the handshake's own. */
  headerBlock(): string {
    if (this.#responseHeaders === undefined) return '';
    const own = [...this.#responseHeaders.keys()].find((name) => ofHandshake.test(name));
    if (own !== undefined)
      throw new SocketArgumentError(`the header ${own} is one of the handshake, which Ringway writes: leave it out of responseHeaders`);
    return encodeHeaders(this.#responseHeaders).text;
  }

  get remoteAddress(): string {
    const { slot, generation } = this.#head;
    return (this.#isAnswered ? this.#core.addressOf(slot, generation) : this.#core.remoteAddress(this.#head))?.address ?? '';
  }

  get tls(): TlsInfo | undefined {
    return this.#core.tls(this.#head);
  }

  [inspection](): object {
    return shown(this, View, { params: this.params, user: this.user, remoteAddress: this.remoteAddress });
  }
}

/** The header fields of a refusal, without those that the core writes itself. */
function refusalHeaders(response: Response): string {
  const headers = new Headers(response.headers);
  for (const name of ['content-length', 'transfer-encoding', 'connection', 'keep-alive', 'date']) headers.delete(name);
  return encodeHeaders(headers).text;
}
