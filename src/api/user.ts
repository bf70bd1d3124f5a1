/**
 * Who a client is, as its token says.
 * Role: the type that handlers see in `socket.user`, `client.user` and `c.env.user()`. Made by src/auth/.
 */

/** Claims of a token that was verified. Frozen: several sockets and requests may share it. */
export interface User {
  /** The claim `sub`: never empty. */
  readonly id: string;
  /** All claims of the token (RFC 7519 §4), `sub` among them. */
  readonly claims: Readonly<Record<string, unknown>>;
  /** When the token ends, in milliseconds as of Date.now(); undefined: it has no `exp`. */
  readonly expiresAt: number | undefined;
}

/**
 * Where a token is taken from. 'header': Authorization, after `Bearer`; 'cookie': the cookie that `auth.cookie` names; 'subprotocol': the offered one
 * that `auth.subprotocol` and a dot begin; 'message': the first message, `{"token":"..."}`; 'query': the parameter that `auth.query` names, which proxies on
 * the way may write to their logs.
 */
export type TokenSource = 'header' | 'cookie' | 'subprotocol' | 'message' | 'query';

/** Why a token is not believed; `ringway_auth_refusals_total` counts by these. docs/tokens.md explains each. */
export type TokenRefusal =
  | 'missing'
  | 'malformed'
  | 'algorithm'
  | 'key'
  | 'signature'
  | 'expired'
  | 'early'
  | 'issuer'
  | 'audience'
  | 'claims'
  | 'user'
  | 'topic'
  | 'timeout'
  | 'full'
  | 'unavailable';

/** What became of a newer token: `user` is whom it says, or nothing has changed for the reason that is told. */
export type Renewal =
  | { readonly renewed: true; readonly user: User }
  | { readonly renewed: false; readonly reason: TokenRefusal | 'anonymous' | 'closed' };
