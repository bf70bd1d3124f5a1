/** Tokens and keys for tests, made by jose; and what a worker gives to whoever verifies them. */
import { exportJWK, generateKeyPair, type JWK, type JWTPayload, SignJWT } from 'jose';
import type { AuthOptions } from '../../src/api/define.ts';
import { createTokens, type Tokens } from '../../src/auth/tokens.ts';
import { resolveConfig } from '../../src/config/resolve.ts';

export const secret = 'correct horse battery staple 0123456789';

/** Seconds from now, as claims count. */
export const inSeconds = (seconds: number): number => Math.floor(Date.now() / 1000) + seconds;

type Key = Parameters<SignJWT['sign']>[0];

/** Of ann, good for an hour, unless `claims` say otherwise; `undefined` leaves a claim out. */
export function tokenOf(
  claims: JWTPayload = {},
  key: Key = Buffer.from(secret),
  header: { alg?: string; kid?: string } = {},
): Promise<string> {
  return new SignJWT({ sub: 'ann', exp: inSeconds(3600), ...claims }).setProtectedHeader({ alg: 'HS256', ...header }).sign(key);
}

export interface KeyOfTest {
  readonly privateKey: CryptoKey;
  /** Its public half. */
  readonly jwk: JWK;
}

export async function makeKey(alg: string, kid?: string): Promise<KeyOfTest> {
  const { publicKey, privateKey } = await generateKeyPair(alg, { extractable: true });
  return { privateKey, jwk: { ...(await exportJWK(publicKey)), ...(kid === undefined ? {} : { kid, alg }) } };
}

export interface TokensOfTest {
  readonly tokens: Tokens;
  /** What was counted, by the name of the counter. */
  readonly counts: Map<string, number>;
  /** What was logged. */
  readonly told: string[];
}

/** As a worker with this config has them. Throws ConfigError. */
export async function startTokens(auth: AuthOptions): Promise<TokensOfTest> {
  const { auth: settings } = resolveConfig({ fetch: () => new Response(), auth }, {});
  if (settings === undefined) throw new Error('a config with auth has settings for it');
  const counts = new Map<string, number>();
  const told: string[] = [];
  const tokens = await createTokens(settings, {
    count: (name) => counts.set(name, (counts.get(name) ?? 0) + 1),
    warn: (sentence) => told.push(sentence),
    info: (sentence) => told.push(sentence),
  });
  return { tokens, counts, told };
}
