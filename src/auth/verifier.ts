/**
 * Whether a token is one that the config believes, and if not, why.
 *
 * Role: JSON Web Tokens (RFC 7519) → claims, or a reason. Down: jose does the cryptography and the claims; keys.ts says which keys a token may be
 * for. Nothing is believed of a header but how to look for the key: the algorithm must be one that the config allows and the key is for.
 */
import type { TokenRefusal } from '../api/user.ts';
import type { JwtSettings } from '../config/auth.ts';
import type { Refused } from './authentication.ts';
import type { Jose } from './jose.ts';
import type { KeySource, VerifyingKey } from './keys.ts';

export type Claims = Readonly<Record<string, unknown>>;
export type VerifiedClaims = { readonly ok: true; readonly claims: Claims } | Refused;

/** Characters of a token. Heads are bounded too, messages may be longer. */
export const tokenLengthMost = 8192;

const refused = (reason: TokenRefusal): Refused => ({ ok: false, reason });

export class Verifier {
  readonly #jose: Jose;
  readonly #settings: JwtSettings;
  readonly #keys: KeySource;
  /** What jose checks of the claims. */
  readonly #options: NonNullable<Parameters<Jose['jwtVerify']>[2]>;

  constructor(jose: Jose, settings: JwtSettings, keys: KeySource) {
    this.#jose = jose;
    this.#settings = settings;
    this.#keys = keys;
    const { issuer, audience, clockTolerance, requireExpiry } = settings;
    this.#options = {
      clockTolerance,
      requiredClaims: requireExpiry ? ['exp'] : [],
      ...(issuer === undefined ? {} : { issuer: [...issuer] }),
      ...(audience === undefined ? {} : { audience: [...audience] }),
    };
  }

  /** Never rejects. */
  async verify(token: string): Promise<VerifiedClaims> {
    if (token.length > tokenLengthMost || !compact.test(token)) return refused('malformed');
    const header = this.#headerOf(token);
    if (header === undefined) return refused('malformed');
    const { alg, kid } = header;
    if (typeof alg !== 'string' || !(this.#settings.algorithms as readonly string[]).includes(alg)) return refused('algorithm');
    if (kid !== undefined && typeof kid !== 'string') return refused('malformed');
    const first = await this.#try(token, alg, kid);
    if (first.result.ok || first.result.reason !== 'signature' || first.isNamed) return first.result;
    return (await this.#keys.renewed?.()) === true ? (await this.#try(token, alg, kid)).result : first.result;
  }

  #headerOf(token: string): { readonly alg?: unknown; readonly kid?: unknown } | undefined {
    try {
      return this.#jose.decodeProtectedHeader(token);
    } catch {
      return undefined;
    }
  }

  /** ret: what came of it; isNamed: by a key that the token names */
  async #try(token: string, algorithm: string, kid: string | undefined): Promise<{ result: VerifiedClaims; isNamed: boolean }> {
    const keys = await this.#keys.find(algorithm, kid);
    if (keys === 'unavailable') return { result: refused('unavailable'), isNamed: true };
    let result: VerifiedClaims = refused('key');
    for (const key of keys) {
      result = await this.#verifyWith(key, token, algorithm);
      // With another key the signature may be right; with this one it was, whatever else is wrong.
      if (result.ok || result.reason !== 'signature') break;
    }
    return { result, isNamed: kid !== undefined && keys.some((key) => key.kid === kid) };
  }

  async #verifyWith(key: VerifyingKey, token: string, algorithm: string): Promise<VerifiedClaims> {
    try {
      const { payload } = await this.#jose.jwtVerify(token, (await key.for(algorithm)) as never, {
        ...this.#options,
        algorithms: [algorithm],
      });
      return { ok: true, claims: Object.freeze(payload) };
    } catch (error) {
      return refused(this.#reasonOf(error));
    }
  }

  #reasonOf(error: unknown): TokenRefusal {
    const { errors } = this.#jose;
    if (error instanceof errors.JWSSignatureVerificationFailed) return 'signature';
    if (error instanceof errors.JWTExpired) return 'expired';
    if (error instanceof errors.JWTClaimValidationFailed) {
      if (error.claim === 'nbf' && error.reason === 'check_failed') return 'early';
      if (error.claim === 'iss') return 'issuer';
      return error.claim === 'aud' ? 'audience' : 'claims';
    }
    if (error instanceof errors.JOSEAlgNotAllowed) return 'algorithm';
    // What is left is of its form: a header that asks for what nobody understands ("crit"), claims that are no object.
    return 'malformed';
  }
}

/** RFC 7515 §7.1, with a signature. */
const compact = /^[\w-]+\.[\w-]+\.[\w-]+$/;
