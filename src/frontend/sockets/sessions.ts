/**
 * How long WebSockets stay that need a token: until the first message has to have brought it, and until it has ended without a newer one.
 *
 * Role: one object for each socket that has a user or waits for one, and none for others. Up: socket-handlers.ts. Down: auth/, for what tokens say.
 *
 *   waiting ──first message──> verifying ──it is good──> admitted ──expiry and grace──> closed with 4401
 *      └──timeout──> closed with 3008     └──it is not──> closed with 3000     ^ └─ a newer token ─┐
 *                                                                              └───────────────────┘
 *
 * Invariants: no handler but `upgrade` knows of a socket that is not admitted; of a user, a socket only changes to a newer token.
 */
import { GatewaySocket, type SocketSession } from '../../api/socket.ts';
import type { Renewal, User } from '../../api/user.ts';
import { type Authentication, authCloseCodes, refusalTexts } from '../../auth/authentication.ts';
import type { RouteAuthSettings } from '../../config/auth.ts';
import type { Core } from '../../core/core.ts';
import { statIndex } from '../../core/stat-index.ts';
import { everySecond } from '../../host/ticks.ts';
import { Deadlines, type Due } from './deadlines.ts';

const renewals = statIndex('auth_renewals');
const expirations = statIndex('auth_expirations');

export type SessionState = 'waiting' | 'verifying' | 'admitted';

/** What the handshake left to be decided once the user is known. ret: `socket.data`, or a Response that refuses */
export type Admission = (user: User) => unknown;

export class Session implements SocketSession, Due {
  readonly socket: GatewaySocket;
  readonly route: Exclude<RouteAuthSettings, false>;
  readonly #sessions: Sessions;
  state: SessionState;
  /** undefined: none, or it was asked already. */
  admission: Admission | undefined;
  due: number | undefined;
  /** Bytes that are held of its handshake until it is admitted. */
  held = 0;
  /** A newer token that came as a message is being verified. */
  isRenewing = false;

  constructor(sessions: Sessions, socket: GatewaySocket, route: Exclude<RouteAuthSettings, false>, state: SessionState) {
    this.#sessions = sessions;
    this.socket = socket;
    this.route = route;
    this.state = state;
    this.admission = undefined;
    this.due = undefined;
  }

  renew(token: string): Promise<Renewal> {
    return this.#sessions.renew(this, token);
  }
}

/** What clients may make a worker hold who have yet to send their token: their heads, and what a socket costs here. Past it they are refused. */
const heldMost = 64 * 1024 * 1024;
const socketBytes = 1024;

export class Sessions {
  readonly authentication: Authentication;
  readonly #core: Core;
  /** Tokens end by the clock on the wall; a client's time to send one is counted by one that never jumps. */
  readonly #endings = new Deadlines<Session>();
  readonly #firstMessages = new Deadlines<Session>();
  #isTicking = false;
  /** Of sockets that are not admitted. */
  #held = 0;

  constructor(authentication: Authentication, core: Core) {
    this.authentication = authentication;
    this.#core = core;
  }

  /** A socket that is accepted with its user. */
  begin(socket: GatewaySocket, route: Exclude<RouteAuthSettings, false>, user: User): void {
    this.#limit(this.#add(socket, route, 'admitted'), user);
  }

  /** Whether one more client may be waited for, whose handshake has so many bytes. */
  hasRoom(headBytes: number): boolean {
    return this.#held + headBytes + socketBytes <= heldMost;
  }

  /** A socket that is accepted to wait for its first message. `headBytes`: what `admission` holds. */
  wait(socket: GatewaySocket, route: Exclude<RouteAuthSettings, false>, headBytes: number, admission: Admission | undefined): void {
    const session = this.#add(socket, route, 'waiting');
    session.admission = admission;
    session.held = headBytes + socketBytes;
    this.#held += session.held;
    this.#firstMessages.set(session, performance.now() + this.authentication.settings.firstMessageTimeout * 1000);
  }

  #add(socket: GatewaySocket, route: Exclude<RouteAuthSettings, false>, state: SessionState): Session {
    const session = new Session(this, socket, route, state);
    GatewaySocket.moreOf(socket).session = session;
    if (!this.#isTicking) {
      this.#isTicking = true;
      everySecond(() => this.tick());
    }
    return session;
  }

  /** It has closed, or never opened. */
  end(session: Session): void {
    this.#firstMessages.delete(session);
    this.#endings.delete(session);
    this.#letGo(session);
  }

  #letGo(session: Session): void {
    this.#held -= session.held;
    session.held = 0;
    session.admission = undefined;
  }

  /** Its first message has come. */
  verifying(session: Session): void {
    this.#firstMessages.delete(session);
    session.state = 'verifying';
  }

  admitted(session: Session, user: User): void {
    session.state = 'admitted';
    this.#letGo(session);
    GatewaySocket.moreOf(session.socket).user = user;
    this.#limit(session, user);
  }

  async renew(session: Session, token: string): Promise<Renewal> {
    const { socket } = session;
    const before = socket.user;
    if (!socket.isOpen) return { renewed: false, reason: 'closed' };
    if (before === undefined) return { renewed: false, reason: 'anonymous' };
    const verified = await this.authentication.verify(typeof token === 'string' ? token : '');
    if (!verified.ok) return { renewed: false, reason: verified.reason };
    const { user } = verified;
    if (!socket.isOpen) return { renewed: false, reason: 'closed' };
    // Renewed, not exchanged: what it is subscribed to was allowed to the one before.
    if (user.id !== before.id) {
      this.authentication.refused('user');
      return { renewed: false, reason: 'user' };
    }
    GatewaySocket.moreOf(socket).user = user;
    this.#limit(session, user);
    this.#core.addStat(renewals, 1);
    return { renewed: true, user };
  }

  /** A newer token has come as a message: take it, and say what became of it. */
  async renewByMessage(session: Session, token: string): Promise<void> {
    // One at a time, so that a client gets no more than one verification done for it at a time.
    const renewal: Renewal | { readonly renewed: false; readonly reason: 'busy' } = session.isRenewing
      ? { renewed: false, reason: 'busy' }
      : await this.#renewAlone(session, token);
    const { socket } = session;
    if (renewal.renewed) socket.sendJson({ type: 'token', expiresAt: renewal.user.expiresAt ?? null });
    else socket.sendJson({ type: 'token', error: renewal.reason });
  }

  async #renewAlone(session: Session, token: string): Promise<Renewal> {
    session.isRenewing = true;
    try {
      return await this.renew(session, token);
    } finally {
      session.isRenewing = false;
    }
  }

  /** Close what is due. Called once a second. */
  tick(): void {
    for (const { socket } of this.#firstMessages.take(performance.now())) {
      if (!socket.isOpen) continue;
      this.authentication.refused('timeout');
      socket.close(authCloseCodes.timeout, refusalTexts.timeout);
    }
    for (const { socket } of this.#endings.take(Date.now())) {
      if (!socket.isOpen) continue;
      this.#core.addStat(expirations, 1);
      socket.close(authCloseCodes.ended, refusalTexts.expired);
    }
  }

  #limit(session: Session, { expiresAt }: User): void {
    const { jwt, grace } = this.authentication.settings;
    // By the clock that it was judged by.
    if (expiresAt === undefined) this.#endings.delete(session);
    else this.#endings.set(session, expiresAt + (jwt.clockTolerance + grace) * 1000);
  }
}

/** Bytes of a message that may be one with a token. */
export const tokenMessageBytesMost = 8192 + 256;

/** ret: the token of a first message, `{"token":"..."}`, which may say its type as a later one does; undefined for any other */
export function firstToken(text: string): string | undefined {
  const { type, token, ...others } = objectOf(text) ?? {};
  return typeof token === 'string' && (type === undefined || type === 'token') && Object.keys(others).length === 0 ? token : undefined;
}

/** ret: the token of a message that brings a newer one, `{"type":"token","token":"..."}`; undefined for any other */
export function newerToken(text: string): string | undefined {
  // Most messages of a client are others.
  if (!text.includes('"token"')) return undefined;
  const { type, token, ...others } = objectOf(text) ?? {};
  return type === 'token' && typeof token === 'string' && Object.keys(others).length === 0 ? token : undefined;
}

function objectOf(text: string): Readonly<Record<string, unknown>> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}
