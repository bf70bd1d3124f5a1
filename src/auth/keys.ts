/**
 * Keys that signatures of tokens are verified with, and which of them a token may be for.
 *
 * Role: from what the config says (config/auth.ts), or an issuer publishes (jwks.ts), to keys of the runtime. Algorithms are pinned to the kind of
 * the key: a public key never verifies an HMAC, nor a secret a signature (RFC 8725 §2.1, §3.1).
 */
import { keyAlgorithms, type PublicKey, readPublicKey, secretAlgorithms } from '../config/auth.ts';
import type { Jose } from './jose.ts';

/** One key. */
export interface VerifyingKey {
  /** undefined: it has no name, and is tried for tokens of any. */
  readonly kid: string | undefined;
  readonly algorithms: readonly string[];
  /** In the form that jose takes for this algorithm, one of `algorithms`. Rejects for a key that cannot be used with it. */
  for(algorithm: string): Promise<CryptoKey | Uint8Array>;
}

/** Where keys come from. */
export interface KeySource {
  /**
   * Keys that a token with this header may be signed with, at most `triedMost`. `[]`: none is known; 'unavailable': no keys could be had, so that
   * nothing can be said.
   */
  find(algorithm: string, kid: string | undefined): Found | Promise<Found>;
  /** A signature did not fit keys that have no name: look whether there are others by now. ret: whether there may be. None: there never are */
  renewed?(): Promise<boolean>;
}

export type Found = readonly VerifyingKey[] | 'unavailable';

/** Keys that are tried for one token: each costs a verification, and a token need not name one. */
const triedMost = 16;

const ofCurve: Readonly<Record<string, readonly string[]>> = {
  'P-256': ['ES256'],
  'P-384': ['ES384'],
  'P-521': ['ES512'],
  Ed25519: ['EdDSA', 'Ed25519'],
};
const ofRsa = keyAlgorithms.filter((name) => name.startsWith('RS') || name.startsWith('PS'));

export function secretKey(secret: string): VerifyingKey {
  const bytes = new TextEncoder().encode(secret);
  return { kid: undefined, algorithms: secretAlgorithms, for: async () => bytes };
}

export function publicKey(jose: Jose, key: PublicKey): VerifyingKey {
  const fitting = key.kty === 'RSA' ? ofRsa : (ofCurve[key.crv ?? ''] ?? []);
  const imported = new Map<string, Promise<CryptoKey | Uint8Array>>();
  return {
    kid: key.kid,
    algorithms: key.alg === undefined ? fitting : fitting.filter((name) => name === key.alg),
    for(algorithm) {
      let found = imported.get(algorithm);
      if (found === undefined) {
        found = jose.importJWK({ ...key } as never, algorithm);
        imported.set(algorithm, found);
      }
      return found;
    },
  };
}

/** Those of `keys` for this header. A key with a name is for tokens with that name; one without, for all. */
export function matching(keys: readonly VerifyingKey[], algorithm: string, kid: string | undefined): readonly VerifyingKey[] {
  const fits = (key: VerifyingKey) => key.algorithms.includes(algorithm) && (kid === undefined || key.kid === undefined || key.kid === kid);
  return keys.filter(fits).slice(0, triedMost);
}

/** Keys of the config. */
export class OwnKeys implements KeySource {
  readonly #keys: readonly VerifyingKey[];

  constructor(keys: readonly VerifyingKey[]) {
    this.#keys = keys;
  }

  find(algorithm: string, kid: string | undefined): readonly VerifyingKey[] {
    return matching(this.#keys, algorithm, kid);
  }
}

/** Keys of one set: more are left out. */
export const setKeysMost = 64;

/**
 * The keys of a JSON Web Key Set that can verify tokens; others, such as those for encryption and secrets, are left out (RFC 7517 §5).
 * Throws Error for what is no such set, or has none of them.
 */
export function keysOfSet(jose: Jose, set: unknown): VerifyingKey[] {
  const list = typeof set === 'object' && set !== null && 'keys' in set ? set.keys : undefined;
  if (!Array.isArray(list)) throw new Error('what came is no JSON Web Key Set: it has no list of keys');
  const keys = list.slice(0, setKeysMost).flatMap((each: unknown) => {
    if (typeof each !== 'object' || each === null || !verifies(each)) return [];
    const read = readPublicKey(each as Readonly<Record<string, unknown>>);
    return typeof read === 'string' ? [] : [publicKey(jose, read)];
  });
  if (keys.length === 0) throw new Error(`none of its ${list.length} keys can verify tokens`);
  return keys;
}

/** RFC 7517 §4.3. */
function verifies(key: object): boolean {
  const operations = 'key_ops' in key ? key.key_ops : undefined;
  return operations === undefined || (Array.isArray(operations) && operations.includes('verify'));
}
