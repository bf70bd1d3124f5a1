/**
 * What the rest of the gateway asks about tokens.
 *
 * Role: the seam between whoever lets clients in (frontends, topics) and what verifies tokens. There is one in a worker whose config
 * has `auth`, and none elsewhere: `undefined` means that nobody is asked for a token. It counts every refusal by its reason.
 */
import type { TokenRefusal, User } from '../api/user.ts';
import type { RequestHead } from '../core/http.ts';

export interface Refused {
  readonly ok: false;
  readonly reason: TokenRefusal;
}

export type Verified = { readonly ok: true; readonly user: User } | Refused;

/** `expiresAt`: of the topic token, in milliseconds as of Date.now(). */
export type TopicVerified = { readonly ok: true; readonly expiresAt: number | undefined } | Refused;

/** None of these rejects or throws, whatever a client sends. */
export interface Authentication {
  /** Whose token this is. */
  verify(token: string): Promise<Verified>;
  /** Whose token came with a request, from where `auth.from` takes them; 'missing': it has none. */
  authenticateRequest(head: RequestHead): Promise<Verified>;
  /** Whether this token lets that client subscribe to the topic. `token` undefined: 'missing'. */
  verifyTopicToken(token: string | undefined, topic: string, client: { readonly user: User | undefined }): Promise<TopicVerified>;
}
