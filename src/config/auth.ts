/**
 * `auth`: whose tokens are believed, and where they are taken from.
 * Role: a part of resolve.ts. Keys are read and judged here, so that `ringway check` tells of them; src/auth/ verifies with them.
 */
import { createPublicKey, type KeyObject } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { z } from 'zod';
import type { AuthOptions, JwtAlgorithm, JwtKey, JwtOptions } from '../api/define.ts';
import type { TokenSource } from '../api/user.ts';
import type { RouteAuth, WebSocketHandler } from '../api/websocket.ts';
import { defaults, jwtKeysMax, ranges } from './defaults.ts';
import { show } from './show.ts';
import { type Complain, fileProblem } from './tls.ts';
import { boolean, oneOf, options, type RawIssue, sayInstead, seconds, token } from './values.ts';

/** A public key of RSA, EC or Ed25519 as a JSON Web Key (RFC 7517 §4), with what its issuer says of it. */
export interface PublicKey {
  readonly kty: string;
  readonly kid?: string;
  readonly alg?: string;
  readonly crv?: string;
  readonly n?: string;
}

/** Where keys come from. Algorithms belong to kinds of keys, so that none is believed for a key of another kind (RFC 8725 §3.1). */
export type KeySettings =
  | { readonly kind: 'secret'; readonly secrets: readonly string[] }
  /** Public keys as JSON Web Keys, each sound. */
  | { readonly kind: 'keys'; readonly keys: readonly PublicKey[] }
  | JwksSettings;

/** Times in seconds. */
export interface JwksSettings {
  readonly kind: 'jwks';
  readonly url: string;
  readonly maxAge: number;
  readonly maxStale: number;
  readonly cooldown: number;
  readonly timeout: number;
}

export interface JwtSettings {
  readonly source: KeySettings;
  readonly algorithms: readonly JwtAlgorithm[];
  readonly issuer: readonly string[] | undefined;
  readonly audience: readonly string[] | undefined;
  /** Seconds. */
  readonly clockTolerance: number;
  readonly requireExpiry: boolean;
}

/** Times in seconds. */
export interface AuthSettings {
  readonly jwt: JwtSettings;
  readonly from: readonly TokenSource[];
  readonly cookie: string | undefined;
  readonly subprotocol: string;
  readonly query: string | undefined;
  readonly firstMessageTimeout: number;
  readonly grace: number;
  readonly refresh: boolean;
}

export const tokenSources = ['header', 'cookie', 'subprotocol', 'message', 'query'] as const satisfies readonly TokenSource[];
/** Bytes of a key that are needed at least: as many as the hash has (RFC 7518 §3.2). */
const secretBytesMin: Readonly<Partial<Record<JwtAlgorithm, number>>> = { HS256: 32, HS384: 48, HS512: 64 };
export const secretAlgorithms = ['HS256', 'HS384', 'HS512'] as const satisfies readonly JwtAlgorithm[];
export const keyAlgorithms = [
  'RS256',
  'RS384',
  'RS512',
  'PS256',
  'PS384',
  'PS512',
  'ES256',
  'ES384',
  'ES512',
  'EdDSA',
  'Ed25519',
] as const satisfies readonly JwtAlgorithm[];
const keyTypes = ['RSA', 'EC', 'OKP'];
const curves = ['P-256', 'P-384', 'P-521', 'Ed25519'];
/** RFC 7518 §3.3. */
const rsaBitsMin = 2048;
/** Of a secret: fewer are a word that somebody has typed, or one that stands in examples. */
const secretDistinctMin = 8;

// ---------------------------------------------------------------- one value at a time

// Its value stands in no message: it is a secret.
const secretAlone = z.string({ error: 'is not a string; write a secret such as the output of `openssl rand -hex 32`' });
const key = z.union([z.string(), z.record(z.string(), z.unknown()).refine((value) => !Array.isArray(value))], {
  error:
    "is no key; write the path or the text of a PEM file with a public key, or a JSON Web Key such as { kty: 'EC', crv: 'P-256', ... }",
}) as unknown as z.ZodType<JwtKey, JwtKey>;
const listOf = <Schema extends z.ZodType>(one: Schema) => z.array(one).min(1, { error: 'is an empty list; write one at least' }).readonly();
const orList = <Schema extends z.ZodType>(one: Schema, what: string) =>
  z.union([one, listOf(one)], { error: (issue: RawIssue) => (issue.input === undefined ? what : `is neither ${what} nor a list of them`) });
const name = (example: string) => z.string({ error: sayInstead(example) }).regex(token, { error: sayInstead(example) });
const claim = (what: string) => {
  const one = z.string({ error: sayInstead(what) }).min(1, { error: sayInstead(what) });
  return z.union([one, listOf(one)], { error: sayInstead(`${what}, or a list of them`) });
};
const jwksUrl = z.string({ error: sayInstead("a URL such as 'https://login.example.com/.well-known/jwks.json'") });
const source = oneOf(tokenSources);
const from = z.array(source, { error: sayInstead("a list such as ['header', 'subprotocol']") }).min(1, {
  error: "is an empty list; write one at least, such as ['header']",
});

const routeObject = options({
  mode: oneOf(['required', 'optional']).optional(),
  from: from.readonly().optional(),
  refresh: boolean().optional(),
});
export const routeAuthSchema = z.union([z.literal(false), oneOf(['required', 'optional']), routeObject], {
  error: sayInstead("'required', 'optional', false, or an object such as { from: ['cookie'] }"),
});

export const authSchema = options({
  jwt: options({
    secret: orList(secretAlone, 'a secret').optional(),
    keys: orList(key, 'a key').optional(),
    jwks: z
      .union(
        [
          jwksUrl,
          options({
            url: jwksUrl,
            maxAge: seconds(ranges.jwksMaxAge).optional(),
            maxStale: seconds(ranges.jwksMaxStale).optional(),
            cooldown: seconds(ranges.jwksCooldown).optional(),
            timeout: seconds(ranges.jwksTimeout).optional(),
          }),
        ],
        { error: sayInstead("a URL such as 'https://login.example.com/.well-known/jwks.json', or an object with it as url") },
      )
      .optional(),
    issuer: claim("what the claim iss must be, such as 'https://login.example.com/'").optional(),
    audience: claim("what the claim aud must have, such as 'my-gateway'").optional(),
    algorithms: z
      .array(oneOf([...secretAlgorithms, ...keyAlgorithms]), { error: sayInstead("a list such as ['RS256']") })
      .min(1, { error: "is an empty list; write one at least, such as ['RS256']" })
      .readonly()
      .optional(),
    clockTolerance: seconds(ranges.clockTolerance).optional(),
    requireExpiry: boolean().optional(),
  }),
  from: from.readonly().optional(),
  cookie: name("the name of a cookie, such as 'token'").optional(),
  subprotocol: name("a name such as 'token'").optional(),
  query: name("the name of a parameter, such as 'token'").optional(),
  firstMessageTimeout: seconds(ranges.firstMessageTimeout).optional(),
  grace: seconds(ranges.tokenGrace).optional(),
  refresh: boolean().optional(),
});

// ---------------------------------------------------------------- all together

interface Judging {
  /** Where paths begin. */
  readonly folder: string;
  readonly complain: Complain;
  readonly warn: Complain;
}

/** `options`: each value is sound by itself. ret: as far as it is sound: only for a config without mistakes */
export function resolveAuth(given: AuthOptions | undefined, judging: Judging): AuthSettings | undefined {
  if (given === undefined) return undefined;
  const jwt = resolveJwt(given.jwt, judging);
  return {
    jwt,
    from: sourcesOf(given, ['auth'], given, judging.complain),
    cookie: given.cookie,
    subprotocol: given.subprotocol ?? defaults.auth.subprotocol,
    query: given.query,
    firstMessageTimeout: given.firstMessageTimeout ?? defaults.auth.firstMessageTimeout,
    grace: given.grace ?? defaults.auth.grace,
    refresh: given.refresh ?? defaults.auth.refresh,
  };
}

const named = ['cookie', 'query'] as const;

/** `given`: what says where tokens are taken from, which stands at `path`; else it follows from which places have a name. */
function sourcesOf(
  given: { readonly from?: readonly TokenSource[] | undefined },
  path: readonly PropertyKey[],
  names: Pick<AuthOptions, 'from' | 'cookie' | 'query'>,
  complain: Complain,
): readonly TokenSource[] {
  for (const source of named)
    if (given.from?.includes(source) && names[source] === undefined)
      complain([...path, 'from'], `has '${source}', which has no name; write auth: { ${source}: 'token' }`);
  return given.from ?? names.from ?? [...defaults.auth.from, ...named.filter((source) => names[source] !== undefined)];
}

function resolveJwt(jwt: JwtOptions, { folder, complain, warn }: Judging): JwtSettings {
  const path = ['auth', 'jwt'];
  const given = (['secret', 'keys', 'jwks'] as const).filter((each) => jwt[each] !== undefined);
  if (given.length === 0) complain(path, 'has no keys; write secret, keys or jwks');
  if (given.length > 1)
    complain([...path, given[1] as string], `does not go with ${given[0]}, since nobody could say which one a token is for; remove one`);
  const isSecret = jwt.secret !== undefined;
  const fitting: readonly JwtAlgorithm[] = isSecret ? secretAlgorithms : keyAlgorithms;
  for (const algorithm of given.length === 1 ? (jwt.algorithms ?? []) : [])
    if (!fitting.includes(algorithm))
      complain(
        [...path, 'algorithms'],
        `has ${algorithm}, which is no algorithm for ${isSecret ? 'a secret' : 'public keys'}; write ${isSecret ? secretAlgorithms.join(', ') : "those of the keys, such as 'RS256' or 'ES256'"}`,
      );
  const algorithms = jwt.algorithms ?? (isSecret ? defaults.jwt.secretAlgorithms : keyAlgorithms);
  return {
    source: resolveSource(jwt, algorithms, folder, complain, warn),
    algorithms,
    issuer: listed(jwt.issuer),
    audience: listed(jwt.audience),
    clockTolerance: jwt.clockTolerance ?? defaults.jwt.clockTolerance,
    requireExpiry: jwt.requireExpiry ?? defaults.jwt.requireExpiry,
  };
}

function listed<Value>(value: Value | readonly Value[] | undefined): readonly Value[] | undefined {
  if (value === undefined) return undefined;
  return Array.isArray(value) ? value : [value as Value];
}

function resolveSource(
  { secret, keys, jwks }: JwtOptions,
  algorithms: readonly JwtAlgorithm[],
  folder: string,
  complain: Complain,
  warn: Complain,
): KeySettings {
  const tooMany = (name: string, count: number) => {
    if (count > jwtKeysMax)
      complain(['auth', 'jwt', name], `has ${count}; write at most ${jwtKeysMax}, since each may be tried for a token`);
  };
  const at = (name: string, value: unknown, index: number) => ['auth', 'jwt', name, ...(Array.isArray(value) ? [index] : [])];
  if (secret !== undefined) {
    const secrets = listed(secret) ?? [];
    tooMany('secret', secrets.length);
    const least = Math.max(...algorithms.map((algorithm) => secretBytesMin[algorithm] ?? 0));
    for (const [index, each] of secrets.entries()) {
      const problem = secretProblem(each, least);
      if (problem !== undefined) complain(at('secret', secret, index), problem);
    }
    return { kind: 'secret', secrets };
  }
  if (keys !== undefined) {
    const list = (listed(keys) ?? []) as readonly JwtKey[];
    tooMany('keys', list.length);
    const sound = list.flatMap((each, index) => {
      const read = readKey(each, folder);
      if (typeof read !== 'string') return [read];
      complain(at('keys', keys, index), read);
      return [];
    });
    return { kind: 'keys', keys: sound };
  }
  const { url, ...given } = typeof jwks === 'object' ? jwks : { url: jwks ?? '' };
  if (jwks !== undefined)
    judgeJwksUrl(url, typeof jwks === 'object' ? ['auth', 'jwt', 'jwks', 'url'] : ['auth', 'jwt', 'jwks'], complain, warn);
  const defined = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
  return { kind: 'jwks', url, ...defaults.jwks, ...defined };
}

/** What is wrong with a secret that should have so many bytes; nothing of it is told. */
export function secretProblem(secret: string, least: number): string | undefined {
  const bytes = Buffer.byteLength(secret);
  if (bytes < least)
    return `has ${bytes} bytes, and whoever has a token could find it out by trying; write ${least} or more, such as the output of \`openssl rand -hex 32\``;
  if (new Set(secret).size < secretDistinctMin)
    return 'repeats the same few characters, and whoever has a token could find it out by trying; write the output of `openssl rand -hex 32`';
  return undefined;
}

/** ret: the key, or what is wrong with it */
function readKey(key: JwtKey, folder: string): PublicKey | string {
  if (typeof key === 'object') return readPublicKey(key);
  // In an environment variable line ends are often written as two characters.
  const isText = key.includes('-----BEGIN');
  const path = resolve(folder, key);
  const problem = isText ? undefined : key.includes('\0') ? 'is no path' : fileProblem(path);
  if (problem !== undefined) return problem;
  const text = isText ? key.replaceAll('\\n', '\n') : readFileSync(path, 'utf8');
  const what = isText ? 'this PEM text' : path;
  if (/-----BEGIN [A-Z ]*PRIVATE KEY-----/.test(text))
    return `${what} has a private key, which only the issuer of tokens should have; write the public one`;
  return sound(() => createPublicKey(text), `${what} has no public key; write a PEM file that begins with -----BEGIN PUBLIC KEY-----`);
}

/** A public key that tokens may be signed for. ret: it, or what is wrong with it and what to write instead */
export function readPublicKey(jwk: Readonly<Record<string, unknown>>): PublicKey | string {
  if (jwk.kty === 'oct') return 'is a secret as a JSON Web Key; write its value as secret';
  if (!keyTypes.includes(String(jwk.kty))) return `has kty ${show(jwk.kty)}; write a public key of kty 'RSA', 'EC' or 'OKP'`;
  if ('d' in jwk) return 'is a private key, which only the issuer of tokens should have; write the public one';
  if (jwk.use !== undefined && jwk.use !== 'sig') return `has use ${show(jwk.use)}; write a key for signatures`;
  if (jwk.kid !== undefined && typeof jwk.kid !== 'string') return `has kid ${show(jwk.kid)}; write a string, or leave it out`;
  if (jwk.alg !== undefined && !(keyAlgorithms as readonly unknown[]).includes(jwk.alg))
    return `has alg ${show(jwk.alg)}; write one of ${keyAlgorithms.join(', ')}, or leave it out`;
  const read = sound(
    () => createPublicKey({ key: jwk as never, format: 'jwk' }),
    'is no JSON Web Key that can be used; write it as its issuer shows it',
  );
  if (typeof read === 'string') return read;
  const told = Object.fromEntries(['kid', 'alg'].flatMap((name) => (jwk[name] === undefined ? [] : [[name, jwk[name]]])));
  return { ...read, ...told };
}

function sound(read: () => KeyObject, problem: string): PublicKey | string {
  let found: KeyObject;
  try {
    found = read();
  } catch {
    return problem;
  }
  let jwk: PublicKey;
  try {
    jwk = found.export({ format: 'jwk' }) as PublicKey;
  } catch {
    return `is a key of a kind that signs no tokens (${found.asymmetricKeyType}); write one of RSA, EC or Ed25519`;
  }
  if (jwk.kty !== 'RSA' && !curves.includes(jwk.crv ?? ''))
    return `is a key on the curve ${jwk.crv}, which signs no tokens; write one of ${curves.join(', ')}`;
  const bits = jwk.kty === 'RSA' ? bitsOf(jwk.n ?? '') : rsaBitsMin;
  if (bits < rsaBitsMin) return `is an RSA key of ${bits} bits; write one of ${rsaBitsMin} or more`;
  return jwk;
}

/** Of a number in base64url. */
export function bitsOf(text: string): number {
  const bytes = Buffer.from(text, 'base64url');
  const first = bytes.findIndex((byte) => byte !== 0);
  return first < 0 ? 0 : (bytes.length - first) * 8 - Math.clz32(bytes[first] as number) + 24;
}

function judgeJwksUrl(text: string, path: readonly PropertyKey[], complain: Complain, warn: Complain): void {
  const url = URL.parse(text);
  const instead = "write a URL such as 'https://login.example.com/.well-known/jwks.json'";
  if (url === null) complain(path, `is ${show(text)}, which is no URL; ${instead}`);
  else if (url.protocol !== 'https:' && url.protocol !== 'http:') complain(path, `is ${show(text)}; ${instead}`);
  else if (url.username !== '' || url.password !== '')
    complain(path, 'has a user name or a password, which would show in logs; write it without');
  else if (url.protocol === 'http:' && !isLoopback(url.hostname))
    warn(path, `is fetched without TLS from ${url.host}: whoever is on the way can hand out keys of their own; write https://`);
}

/** As a URL has it. */
function isLoopback(host: string): boolean {
  return host === 'localhost' || host.endsWith('.localhost') || host === '[::1]' || /^127(?:\.\d+){3}$/.test(host);
}

/** What a route asks for; `false`: nothing. */
export type RouteAuthSettings =
  | false
  | { readonly mode: 'required' | 'optional'; readonly from: readonly TokenSource[]; readonly refresh: boolean };

export function routeAuthOf(given: RouteAuth, auth: Pick<AuthSettings, 'from' | 'refresh'>): RouteAuthSettings {
  if (given === false) return false;
  const { mode = 'required', from = auth.from, refresh = auth.refresh } = typeof given === 'string' ? { mode: given } : given;
  // Whoever may come without a token is not made to wait for one.
  return { mode, from: mode === 'optional' ? from.filter((source) => source !== 'message') : from, refresh };
}

interface JudgedRoute {
  readonly pattern: string;
  readonly handler: Pick<WebSocketHandler, 'auth'>;
  readonly settings: { readonly origins: 'any' | 'same-host' | readonly string[]; readonly auth: RouteAuth };
}

/** What the routes say of tokens, together with what `auth` says. */
export function judgeRoutes(
  routes: readonly JudgedRoute[],
  auth: AuthOptions | undefined,
  { complain, warn }: Omit<Judging, 'folder'>,
): void {
  for (const { pattern, handler, settings } of routes) {
    const path = ['websocket', pattern, 'auth'];
    if (auth === undefined) {
      if (handler.auth !== undefined && handler.auth !== false)
        complain(path, 'asks for tokens, but the config does not say whose; write auth: { jwt: { ... } }, or leave it out');
      continue;
    }
    const from = sourcesOf(typeof handler.auth === 'object' ? handler.auth : {}, path, auth, complain);
    if (typeof handler.auth === 'object' && handler.auth.mode === 'optional' && handler.auth.from?.includes('message'))
      complain(
        [...path, 'from'],
        "has 'message', which nobody would wait for where tokens are optional; remove it, or write mode: 'required'",
      );
    const asks = routeAuthOf(settings.auth, { from, refresh: false });
    if (asks !== false && asks.from.includes('cookie') && settings.origins === 'any')
      warn(
        ['websocket', pattern],
        "takes tokens from a cookie, which browsers send for pages of anybody: write origins: 'same-host', or a list of your own pages",
      );
  }
}
