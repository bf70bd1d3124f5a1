/** `ringway token [user]`: a token for tests, which the gateway of a config believes. */
import { readFileSync } from 'node:fs';
import { type Signer, signerOf, signToken } from '../auth/sign.ts';
import { secretProblem } from '../config/auth.ts';
import { loadConfig } from '../config/load.ts';
import { errorCode, OperatingError } from '../operating-error.ts';
import { provideModules } from '../own-modules.ts';
import { UsageError } from './arguments.ts';

export interface TokenOptions {
  /** The claim `sub`. undefined: none, as in tokens for a topic that anybody may use */
  readonly user: string | undefined;
  readonly configPath: string;
  /** A file with the secret, in place of a config. */
  readonly secretFile: string | undefined;
  /** Seconds. */
  readonly expiresIn: number;
  /** The claim `topic`. */
  readonly topic: string | undefined;
  /** More claims, as JSON. */
  readonly claims: string | undefined;
}

/** ret: the token. Throws ConfigError, OperatingError and UsageError. */
export async function token(options: TokenOptions): Promise<string> {
  const { user, topic, expiresIn } = options;
  if (user === undefined && topic === undefined)
    throw new UsageError("whose token? Write 'ringway token ann', or --topic for a topic that anybody may subscribe to with it");
  const more = options.claims === undefined ? {} : claimsOf(options.claims);
  const signer = options.secretFile === undefined ? await signerOfConfig(options.configPath) : signerOfFile(options.secretFile);
  const claims = { ...(user === undefined ? {} : { sub: user }), ...(topic === undefined ? {} : { topic }), ...more };
  return signToken(signer, claims, expiresIn);
}

function claimsOf(text: string): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  } catch {
    // Said below.
  }
  throw new UsageError(`--claims is '${text}'; write a JSON object such as '{"role":"admin"}'`);
}

async function signerOfConfig(path: string): Promise<Signer> {
  const { auth } = await loadConfig(path, provideModules);
  const instead = 'write auth: { jwt: { secret } } there, or name a file with the secret with --secret-file';
  if (auth === undefined) throw new OperatingError(`${path} has no auth, so it believes no token; ${instead}`);
  const signer = signerOf(auth);
  if (signer === undefined)
    throw new OperatingError(`${path} has public keys, and only the issuer of tokens can sign for them; ask it for a token, or ${instead}`);
  return signer;
}

function signerOfFile(path: string): Signer {
  let secret: string;
  try {
    // Editors end a line that is not a part of it.
    secret = readFileSync(path, 'utf8').replace(/\r?\n$/, '');
  } catch (error) {
    throw new UsageError(`--secret-file ${path} cannot be read (${errorCode(error)}); write the path of a file`);
  }
  const problem = secretProblem(secret, 32);
  if (problem !== undefined) throw new UsageError(`the secret in ${path} ${problem}`);
  return { secret, algorithm: 'HS256', issuer: undefined, audience: undefined };
}
