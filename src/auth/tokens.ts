/**
 * Tokens of a worker: verified, made into users, and counted where they are not believed.
 * Role: the Authentication of a config with `auth`. Up: worker/main.ts makes it. Down: verifier.ts, token-source.ts, topic-claims.ts.
 */
import type { TokenRefusal, TokenSource, User } from '../api/user.ts';
import type { AuthSettings } from '../config/auth.ts';
import type { HostCounter } from '../core/host-counters.ts';
import type { RequestHead } from '../core/http.ts';
import type { Authentication, TopicVerified, Verified } from './authentication.ts';
import { type Jose, loadJose } from './jose.ts';
import { JwksKeys } from './jwks.ts';
import { type KeySource, OwnKeys, publicKey, secretKey } from './keys.ts';
import { findToken } from './token-source.ts';
import { allowsTopic, isOfTopics } from './topic-claims.ts';
import { type Claims, Verifier } from './verifier.ts';

export interface TokensHost {
  count(counter: HostCounter): void;
  warn(sentence: string): void;
  info(sentence: string): void;
}

/** Bytes of a user's name: it is a part of names of topics. */
const idBytesMost = 512;

/** Loads what is needed, and keys that have to be fetched, for as long as one fetch may take: without them the worker serves all the same. */
export async function createTokens(settings: AuthSettings, host: TokensHost): Promise<Tokens> {
  const jose = await loadJose();
  return new Tokens(settings, new Verifier(jose, settings.jwt, await keysOf(jose, settings, host)), host);
}

async function keysOf(jose: Jose, { jwt: { source } }: AuthSettings, host: TokensHost): Promise<KeySource> {
  switch (source.kind) {
    case 'secret':
      return new OwnKeys(source.secrets.map(secretKey));
    case 'keys':
      return new OwnKeys(source.keys.map((key) => publicKey(jose, key)));
    case 'jwks': {
      const keys = new JwksKeys(jose, source, {
        fetched: (isOk) => host.count(isOk ? 'auth_fetches' : 'auth_fetch_failures'),
        warn: host.warn.bind(host),
        info: host.info.bind(host),
      });
      await keys.refresh();
      return keys;
    }
    default:
      return source satisfies never;
  }
}

export class Tokens implements Authentication {
  readonly settings: AuthSettings;
  readonly #verifier: Verifier;
  readonly #host: Pick<TokensHost, 'count'>;

  constructor(settings: AuthSettings, verifier: Verifier, host: Pick<TokensHost, 'count'>) {
    this.settings = settings;
    this.#verifier = verifier;
    this.#host = host;
  }

  async verify(token: string): Promise<Verified> {
    const verified = await this.#verifier.verify(token);
    if (!verified.ok) return this.#refuse(verified.reason);
    // Whoever was given one for a topic is not let in with it: it may be the only one that they were to have.
    if (isOfTopics(verified.claims)) return this.#refuse('topic');
    const user = userOf(verified.claims);
    return user === undefined ? this.#refuse('claims') : { ok: true, user };
  }

  tokenOf(head: RequestHead, from: readonly TokenSource[]): string | undefined {
    return findToken(head, from, this.settings);
  }

  async authenticateRequest(head: RequestHead): Promise<Verified> {
    const token = this.tokenOf(head, this.settings.from);
    return token === undefined ? { ok: false, reason: 'missing' } : this.verify(token);
  }

  async verifyTopicToken(token: string | undefined, topic: string, { user }: { readonly user: User | undefined }): Promise<TopicVerified> {
    if (token === undefined) return this.#refuse('missing');
    const verified = await this.#verifier.verify(token);
    if (!verified.ok) return this.#refuse(verified.reason);
    const { claims } = verified;
    if (claims.sub !== undefined && user !== undefined && claims.sub !== user.id) return this.#refuse('user');
    return allowsTopic(claims, topic) ? { ok: true, expiresAt: expiryOf(claims) } : this.#refuse('topic');
  }

  refused(reason: TokenRefusal): void {
    this.#host.count(`auth_${reason}`);
  }

  #refuse(reason: TokenRefusal): { readonly ok: false; readonly reason: TokenRefusal } {
    this.refused(reason);
    return { ok: false, reason };
  }
}

/** ret: undefined when it names nobody */
function userOf(claims: Claims): User | undefined {
  const { sub } = claims;
  if (typeof sub !== 'string' || sub === '' || sub.includes('\0') || Buffer.byteLength(sub) > idBytesMost) return undefined;
  return Object.freeze({ id: sub, claims, expiresAt: expiryOf(claims) });
}

/** RFC 7519 §4.1.4 counts seconds. */
function expiryOf({ exp }: Claims): number | undefined {
  return typeof exp === 'number' ? exp * 1000 : undefined;
}
