/**
 * What the rest of the gateway asks about tokens.
 *
 * Role: the seam between whoever lets clients in (frontends, topics) and what verifies tokens (tokens.ts). There is one in a worker whose config
 * has `auth`, and none elsewhere: `undefined` means that nobody is asked for a token.
 */
import type { TokenRefusal, TokenSource, User } from '../api/user.ts';
import type { AuthSettings } from '../config/auth.ts';
import type { RequestHead } from '../core/http.ts';

export interface Refused {
  readonly ok: false;
  readonly reason: TokenRefusal;
}

export type Verified = { readonly ok: true; readonly user: User } | Refused;

/** `expiresAt`: of the topic token, in milliseconds as of Date.now(). */
export type TopicVerified = { readonly ok: true; readonly expiresAt: number | undefined } | Refused;

/** None of these rejects or throws, whatever a client sends; a token that is not believed is counted by its reason. */
export interface Authentication {
  readonly settings: AuthSettings;
  /** Whose token this is. */
  verify(token: string): Promise<Verified>;
  /** The token that came with a request, from the first of these sources that has one; undefined: none. */
  tokenOf(head: RequestHead, from: readonly TokenSource[]): string | undefined;
  /**
   * Whose token came with a request, from where `auth.from` takes them. 'missing': it has none, which is not counted: whoever refuses it for that
   * says so with `refused`.
   */
  authenticateRequest(head: RequestHead): Promise<Verified>;
  /** Whether this token lets that client subscribe to the topic. undefined: there is none, which is counted as 'missing'. */
  verifyTopicToken(token: string | undefined, topic: string, client: { readonly user: User | undefined }): Promise<TopicVerified>;
  /** Count a client that was refused for what `verify` has not counted: 'missing', 'timeout', 'full', 'user'. */
  refused(reason: TokenRefusal): void;
}

/**
 * What WebSockets close with for want of a token: codes that the IANA registers for it, where there are some; that of a token which has ended is one
 * for applications (RFC 6455 §7.4.2), and says that a new connection with a newer token is welcome.
 */
export const authCloseCodes = { unavailable: 1013, refused: 3000, forbidden: 3003, timeout: 3008, ended: 4401 } as const;

/** The status of a refused request, and its WWW-Authenticate line (RFC 6750 §3). */
export function refusalOf(reason: TokenRefusal): { readonly status: 401 | 503; readonly headers: string; readonly text: string } {
  if (reason === 'unavailable' || reason === 'full')
    return { status: 503, headers: 'retry-after: 5\r\n', text: `Service Unavailable: ${refusalTexts[reason]}` };
  if (reason === 'missing') return { status: 401, headers: 'www-authenticate: Bearer\r\n', text: 'Unauthorized: a token is needed' };
  const description = refusalTexts[reason];
  return {
    status: 401,
    headers: `www-authenticate: Bearer error="invalid_token", error_description="${description}"\r\n`,
    text: `Unauthorized: ${description}`,
  };
}

/** For clients: nothing of the token. No quotes, since they stand in a header. */
export const refusalTexts: Readonly<Record<TokenRefusal, string>> = {
  missing: 'a token is needed',
  malformed: 'what came is no token',
  algorithm: 'the token is signed in a way that is not allowed',
  key: 'the token is signed with a key that is not known',
  signature: 'the signature of the token is wrong',
  expired: 'the token has ended',
  early: 'the token is not valid yet',
  issuer: 'the token is of another issuer',
  audience: 'the token is for somebody else',
  claims: 'the token lacks a claim, or has a wrong one',
  user: 'the token is of another user',
  topic: 'the token is for other topics',
  timeout: 'no token came in time',
  full: 'too many clients have yet to send their token',
  unavailable: 'tokens cannot be verified at the moment',
};
