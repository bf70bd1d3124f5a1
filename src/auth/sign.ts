/**
 * Tokens for tests, signed with the secret that a config believes.
 * Role: behind `ringway token`. Down: jose.
 */
import type { AuthSettings } from '../config/auth.ts';
import { loadJose } from './jose.ts';

/** What a token is signed with, and what else it needs to be believed. */
export interface Signer {
  readonly secret: string;
  readonly algorithm: string;
  readonly issuer: string | undefined;
  readonly audience: string | undefined;
}

/** ret: undefined when the config has keys of others, with which nobody here can sign */
export function signerOf({ jwt: { source, algorithms, issuer, audience } }: AuthSettings): Signer | undefined {
  if (source.kind !== 'secret') return undefined;
  return { secret: source.secrets[0] ?? '', algorithm: algorithms[0] ?? 'HS256', issuer: issuer?.[0], audience: audience?.[0] };
}

/** `claims`: in addition to `iss`, `aud`, `iat` and `exp`, which they replace. `expiresIn`: seconds. */
export async function signToken(signer: Signer, claims: Readonly<Record<string, unknown>>, expiresIn: number): Promise<string> {
  const { SignJWT } = await loadJose();
  const { secret, algorithm, issuer, audience } = signer;
  const now = Math.floor(Date.now() / 1000);
  const all = {
    ...(issuer === undefined ? {} : { iss: issuer }),
    ...(audience === undefined ? {} : { aud: audience }),
    iat: now,
    exp: now + expiresIn,
    ...claims,
  };
  return new SignJWT(all).setProtectedHeader({ alg: algorithm, typ: 'JWT' }).sign(new TextEncoder().encode(secret));
}
