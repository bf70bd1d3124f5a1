/**
 * Whose token a request of `fetch` has: verified once, when somebody asks.
 * Role: what is behind `c.env.user()`, `authenticate()` and handshakes of `upgradeWebSocket`. Down: auth/. Requests that nobody asks about have none of it.
 */
import type { User } from '../../api/user.ts';
import type { Refused } from '../../auth/authentication.ts';
import { type Authentication, refusalOf, type Verified } from '../../auth/authentication.ts';
import type { RouteAuthSettings } from '../../config/auth.ts';
import type { RequestHead } from '../../core/http.ts';

/** What is asked about: an exchange. */
interface Asked {
  readonly head: RequestHead;
}

interface Identity {
  readonly verified: Promise<Verified>;
  user: User | undefined;
}

const identities = new WeakMap<Asked, Identity>();

/** Whose token it is, from where the config takes them. `authentication`: of the exchange's frontend */
export function identify(exchange: Asked, authentication: Authentication): Promise<Verified> {
  return remember(exchange, () => authentication.authenticateRequest(exchange.head));
}

function remember(exchange: Asked, verify: () => Promise<Verified>): Promise<Verified> {
  const known = identities.get(exchange);
  if (known !== undefined) return known.verified;
  const identity: Identity = {
    user: undefined,
    verified: verify().then((verified) => {
      if (verified.ok) identity.user = verified.user;
      return verified;
    }),
  };
  identities.set(exchange, identity);
  return identity.verified;
}

/** Who has been found out to have sent this request; undefined: nobody has asked, or it is not known. */
export function knownUser(exchange: Asked): User | undefined {
  return identities.get(exchange)?.user;
}

/**
 * Find out whose handshake this is, where the route asks. ret: why it is refused; undefined: it is not, or is let in to send its token as the first
 * message
 */
export async function admitHandshake(
  exchange: Asked,
  asks: Exclude<RouteAuthSettings, false>,
  authentication: Authentication,
): Promise<Refused | undefined> {
  const token = authentication.tokenOf(exchange.head, asks.from);
  if (token === undefined) return mayComeWithout(asks) ? undefined : { ok: false, reason: 'missing' };
  const verified = await remember(exchange, () => authentication.verify(token));
  return verified.ok ? undefined : verified;
}

/** Whether a handshake without a token is accepted, to wait for it or without. */
export function mayComeWithout(asks: Exclude<RouteAuthSettings, false>): boolean {
  return asks.mode === 'optional' || asks.from.includes('message');
}

/** The answer to who is refused. */
export function unauthorized(authentication: Authentication, { reason }: Refused): Response {
  if (reason === 'missing') authentication.refused('missing');
  const { status, headers, text } = refusalOf(reason);
  const answer = new Response(text, { status, headers: { 'content-type': 'text/plain;charset=utf-8' } });
  for (const line of headers.trimEnd().split('\r\n')) {
    const at = line.indexOf(': ');
    answer.headers.set(line.slice(0, at), line.slice(at + 2));
  }
  return answer;
}
