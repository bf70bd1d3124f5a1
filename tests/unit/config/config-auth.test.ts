/** What `auth` of a config may say, and what is wrong with it. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { generateKeyPairSync } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { routeAuthOf } from '../../../src/config/auth.ts';
import { ConfigError } from '../../../src/config/config-error.ts';
import { resolveConfig } from '../../../src/config/resolve.ts';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'ringway-auth-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

const secret = 'correct horse battery staple 0123456789';
const ok = () => new Response();
const resolved = (auth: unknown, more: object = {}) => resolveConfig({ fetch: ok, auth, ...more }, {}, 'config', folder);

function mistakes(auth: unknown, more: object = {}): readonly string[] {
  try {
    resolved(auth, more);
    return [];
  } catch (error) {
    if (error instanceof ConfigError) return error.mistakes;
    throw error;
  }
}

const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 });
const pemOf = (key: { export(options: { type: 'spki'; format: 'pem' }): string | Buffer }) =>
  String(key.export({ type: 'spki', format: 'pem' }));

describe('auth', () => {
  test('has defaults for all but the keys', () => {
    expect(resolved({ jwt: { secret } }).auth).toEqual({
      jwt: {
        source: { kind: 'secret', secrets: [secret] },
        algorithms: ['HS256'],
        issuer: undefined,
        audience: undefined,
        clockTolerance: 5,
        requireExpiry: true,
      },
      from: ['header', 'subprotocol'],
      cookie: undefined,
      subprotocol: 'token',
      query: undefined,
      firstMessageTimeout: 10,
      grace: 10,
      refresh: false,
    });
    expect(resolved(undefined).auth).toBeUndefined();
  });

  test('a name for a place is enough to take tokens from there', () => {
    expect(resolved({ jwt: { secret }, cookie: 'session', query: 't' }).auth?.from).toEqual(['header', 'subprotocol', 'cookie', 'query']);
    expect(resolved({ jwt: { secret }, cookie: 'session', from: ['message'] }).auth?.from).toEqual(['message']);
  });

  test('keys of an issuer have their times', () => {
    const url = 'https://login.example.com/keys';
    const plain = { kind: 'jwks', url, maxAge: 600, maxStale: 86400, cooldown: 30, timeout: 5 };
    expect(resolved({ jwt: { jwks: url } }).auth?.jwt.source).toEqual(plain as never);
    expect(resolved({ jwt: { jwks: { url, maxAge: 60, timeout: undefined } } }).auth?.jwt.source).toEqual({
      ...plain,
      maxAge: 60,
    } as never);
  });

  test('public keys are files, texts and JSON Web Keys', () => {
    const pem = pemOf(rsa.publicKey);
    writeFileSync(join(folder, 'key.pem'), pem);
    const jwk = rsa.publicKey.export({ format: 'jwk' });
    const source = resolved({
      jwt: { keys: ['key.pem', pem, pem.replaceAll('\n', '\\n'), { ...jwk, kid: 'a', alg: 'RS256', use: 'sig' }] },
    }).auth?.jwt.source;
    expect(source).toEqual({ kind: 'keys', keys: [jwk, jwk, jwk, { ...jwk, kid: 'a', alg: 'RS256' }] as never });
    expect(resolved({ jwt: { keys: { ...jwk } } }).auth?.jwt.source).toMatchObject({ keys: [jwk] });
  });

  test('is told of a secret that is weak, and never shows it', () => {
    for (const [weak, why] of [
      ['', 'has 0 bytes'],
      ['your-256-bit-secret', 'has 19 bytes'],
      ['0123456789012345678901234567890', 'has 31 bytes'],
      ['a'.repeat(64), 'repeats the same few characters'],
      ['abcabcabc'.repeat(8), 'repeats the same few characters'],
    ] as const) {
      expect(mistakes({ jwt: { secret: weak } })).toEqual([expect.stringContaining(`auth.jwt.secret: ${why}`)]);
      expect(mistakes({ jwt: { secret: [secret, weak] } })).toEqual([expect.stringContaining(`auth.jwt.secret[1]: ${why}`)]);
      if (weak !== '') expect(mistakes({ jwt: { secret: weak } }).join()).not.toContain(weak);
    }
    expect(mistakes({ jwt: { secret, algorithms: ['HS512'] } })).toEqual([expect.stringContaining('write 64 or more')]);
    expect(mistakes({ jwt: { secret: secret.repeat(2), algorithms: ['HS512'] } })).toEqual([]);
    for (const none of [7, null, {}, [7], []]) {
      const [mistake = '', ...others] = mistakes({ jwt: { secret: none } });
      expect([others, mistake]).toEqual([[], expect.stringMatching(/^auth\.jwt\.secret(\[0\])?: /)]);
    }
  });

  test('is told of keys that cannot be', () => {
    const jwk = rsa.publicKey.export({ format: 'jwk' });
    writeFileSync(join(folder, 'private.pem'), String(rsa.privateKey.export({ type: 'pkcs8', format: 'pem' })));
    writeFileSync(join(folder, 'text.pem'), 'no key at all');
    const small = generateKeyPairSync('rsa', { modulusLength: 1024 }).publicKey;
    const x25519 = generateKeyPairSync('x25519').publicKey;
    const odd = generateKeyPairSync('ec', { namedCurve: 'secp224r1' }).publicKey;
    for (const [key, why] of [
      ['nowhere.pem', 'there is no file'],
      ['private.pem', 'has a private key'],
      ['text.pem', 'has no public key'],
      ['-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----', 'has no public key'],
      [pemOf(small), 'is an RSA key of 1024 bits'],
      [pemOf(x25519), 'X25519, which signs no tokens'],
      [pemOf(odd), 'signs no tokens'],
      [{ ...rsa.privateKey.export({ format: 'jwk' }) }, 'is a private key'],
      [{ kty: 'oct', k: 'c2VjcmV0' }, 'write its value as secret'],
      [{ kty: 'RSA' }, 'is no JSON Web Key that can be used'],
      [{}, 'has kty undefined'],
      [{ ...jwk, use: 'enc' }, 'has use "enc"'],
      [{ ...jwk, alg: 'HS256' }, 'has alg "HS256"'],
      [{ ...jwk, alg: 'none' }, 'has alg "none"'],
      [{ ...jwk, kid: 7 }, 'has kid 7'],
    ] as const) {
      const found = mistakes({ jwt: { keys: key } });
      expect(found).toEqual([expect.stringMatching(/^auth\.jwt\.keys: /)]);
      expect(found[0]).toContain(why);
    }
    expect(mistakes({ jwt: { keys: 7 } })).toEqual([expect.stringContaining('auth.jwt.keys: ')]);
    expect(mistakes({ jwt: { keys: [] } })).toHaveLength(1);
    expect(mistakes({ jwt: { keys: Array.from({ length: 17 }, () => ({ ...jwk })) } })).toEqual([
      expect.stringContaining('write at most 16'),
    ]);
  });

  test('is told of more than one kind of keys, of none, and of algorithms that are not theirs', () => {
    const jwks = 'https://login.example.com/keys';
    expect(mistakes({ jwt: { secret, jwks } })).toEqual([expect.stringContaining('auth.jwt.jwks: does not go with secret')]);
    expect(mistakes({ jwt: {} })).toEqual([expect.stringContaining('auth.jwt: has no keys')]);
    expect(mistakes({})).toHaveLength(1);
    expect(mistakes({ jwt: { jwks, algorithms: ['HS256', 'RS256'] } })).toEqual([
      expect.stringContaining('auth.jwt.algorithms: has HS256, which is no algorithm for public keys'),
    ]);
    expect(mistakes({ jwt: { secret, algorithms: ['RS256'] } })).toEqual([expect.stringContaining('no algorithm for a secret')]);
    expect(mistakes({ jwt: { secret, algorithms: ['none'] } })).toEqual([expect.stringContaining('auth.jwt.algorithms[0]: is "none"')]);
    expect(mistakes({ jwt: { secret, algorithms: [] } })).toHaveLength(1);
  });

  test('is told of addresses that cannot be, and warned of those that should not', () => {
    for (const url of ['', 'login.example.com/keys', 'ftp://a/keys', 'file:///etc/passwd', 'https://user:word@a/keys', 7])
      expect([url, mistakes({ jwt: { jwks: url } })]).toEqual([url, [expect.stringMatching(/^auth\.jwt\.jwks: /)]]);
    expect(mistakes({ jwt: { jwks: { url: 'nowhere', cooldown: -1 } } }).length).toBeGreaterThan(0);
    for (const url of ['http://login.example.com/keys', 'http://10.0.0.1/keys', 'http://127.0.0.1.example.com/keys'])
      expect(resolved({ jwt: { jwks: url } }).warnings).toEqual([expect.stringContaining('auth.jwt.jwks: is fetched without TLS')]);
    for (const url of ['https://login.example.com/keys', 'http://127.0.0.1:8081/keys', 'http://[::1]/keys', 'http://localhost/keys'])
      expect(resolved({ jwt: { jwks: url } }).warnings).toEqual([]);
  });

  test('is told of places without a name, and of what no place is', () => {
    expect(mistakes({ jwt: { secret }, from: ['cookie'] })).toEqual([
      expect.stringContaining("has 'cookie', which has no name; write auth: { cookie: 'token' }"),
    ]);
    expect(mistakes({ jwt: { secret }, from: ['query'] })).toHaveLength(1);
    expect(mistakes({ jwt: { secret }, from: ['body'] })).toEqual([expect.stringContaining('auth.from[0]')]);
    expect(mistakes({ jwt: { secret }, from: [] })).toHaveLength(1);
    expect(mistakes({ jwt: { secret }, cookie: 'a b' })).toHaveLength(1);
    expect(mistakes({ jwt: { secret }, subprotocol: '' })).toHaveLength(1);
    expect(mistakes({ jwt: { secret }, grace: -1 })).toHaveLength(1);
    expect(mistakes({ jwt: { secret }, graces: 1 })).toEqual([expect.stringContaining('did you mean grace?')]);
  });
});

describe('auth of a route', () => {
  const auth = { jwt: { secret }, cookie: 'session' };
  const route = (value: unknown, more: object = {}) => ({ websocket: { '/a': { auth: value, ...more } } });

  test('is what it says, with the rest from auth', () => {
    const own = { from: ['header', 'message'] as const, refresh: true };
    expect(routeAuthOf('required', own)).toEqual({ mode: 'required', ...own });
    expect(routeAuthOf('optional', own)).toEqual({ mode: 'optional', from: ['header'], refresh: true });
    expect(routeAuthOf(false, own)).toBe(false);
    expect(routeAuthOf({ from: ['cookie'] }, own)).toEqual({ mode: 'required', from: ['cookie'], refresh: true });
    expect(routeAuthOf({ mode: 'optional', refresh: false }, own)).toEqual({ mode: 'optional', from: ['header'], refresh: false });
  });

  test('is told of what cannot be', () => {
    for (const value of ['maybe', true, 7, { mode: 'no' }, { from: [] }, { form: ['header'] }])
      expect([value, mistakes(auth, route(value))]).toEqual([value, [expect.stringMatching(/^websocket\['\/a'\]\.auth/)]]);
    expect(mistakes(undefined, route('required'))).toEqual([expect.stringContaining('the config does not say whose')]);
    expect(mistakes(undefined, route(false))).toEqual([]);
    expect(mistakes(auth, route({ mode: 'optional', from: ['message'] }))).toEqual([expect.stringContaining('nobody would wait for')]);
    expect(mistakes(auth, route({ from: ['query'] }))).toEqual([expect.stringContaining("has 'query', which has no name")]);
  });

  test('with a cookie and pages of anybody is warned of', () => {
    const warnings = (value: unknown, more: object = {}) => resolved(auth, route(value, more)).warnings;
    expect(warnings('required')).toEqual([expect.stringContaining("websocket['/a']: takes tokens from a cookie")]);
    expect(warnings('optional')).toHaveLength(1);
    for (const none of [warnings(false), warnings({ from: ['header'] }), warnings('required', { origins: 'same-host' })])
      expect(none).toEqual([]);
    expect(resolved({ jwt: { secret } }, route('required')).warnings).toEqual([]);
  });
});
