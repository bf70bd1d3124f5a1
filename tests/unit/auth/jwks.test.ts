/** Keys that an issuer publishes: fetched, changed, and an issuer that fails in every way. */
import { afterEach, describe, expect, test } from 'bun:test';
import * as jose from 'jose';
import { JwksKeys } from '../../../src/auth/jwks.ts';
import type { JwksSettings } from '../../../src/config/auth.ts';
import { eventually } from '../../support/eventually.ts';
import { type KeyOfTest, makeKey, startTokens, tokenOf } from '../../support/tokens.ts';

type Answer = (request: Request) => Response | Promise<Response>;

class Issuer {
  keys: readonly KeyOfTest[];
  fetches = 0;
  answer: Answer = () => Response.json({ keys: this.keys.map(({ jwk }) => jwk) });
  readonly #server: ReturnType<typeof Bun.serve>;

  constructor(...keys: KeyOfTest[]) {
    this.keys = keys;
    this.#server = Bun.serve({
      port: 0,
      hostname: '127.0.0.1',
      idleTimeout: 0,
      fetch: (request) => {
        this.fetches += 1;
        return this.answer(request);
      },
    });
  }

  get url(): string {
    return `http://127.0.0.1:${this.#server.port}/keys?secret=in-the-query`;
  }

  end(): Promise<void> {
    return this.#server.stop(true);
  }
}

const ending: (() => unknown)[] = [];
afterEach(async () => {
  for (const end of ending.splice(0)) await end();
});

function issuerWith(...keys: KeyOfTest[]): Issuer {
  const issuer = new Issuer(...keys);
  ending.push(() => issuer.end());
  return issuer;
}

const settings = (url: string, given: Partial<JwksSettings> = {}): JwksSettings => ({
  kind: 'jwks',
  url,
  maxAge: 600,
  maxStale: 86400,
  cooldown: 30,
  timeout: 5,
  ...given,
});

/** `clock.now`: milliseconds, moved by the test. */
function keysOf(jwks: JwksSettings) {
  const clock = { now: 1e6 };
  const told: string[] = [];
  const fetched: boolean[] = [];
  const keys = new JwksKeys(jose, jwks, {
    now: () => clock.now,
    fetched: (isOk) => fetched.push(isOk),
    warn: (sentence) => told.push(sentence),
    info: (sentence) => told.push(sentence),
  });
  ending.push(() => keys.close());
  return { keys, clock, told, fetched };
}

const names = async (keys: JwksKeys, kid: string, alg = 'ES256') => {
  const found = await keys.find(alg, kid);
  return found === 'unavailable' ? found : found.map((key) => key.kid);
};

const first = await makeKey('ES256', 'first');
const second = await makeKey('ES256', 'second');

describe('keys of an issuer', () => {
  test('are there before the first token, and fetched once for all', async () => {
    const issuer = issuerWith(first);
    const { tokens, counts } = await startTokens({ jwt: { jwks: issuer.url } });
    expect(issuer.fetches).toBe(1);
    const token = await tokenOf({}, first.privateKey, { alg: 'ES256', kid: 'first' });
    const all = await Promise.all(Array.from({ length: 50 }, () => tokens.verify(token)));
    expect(all.every(({ ok }) => ok)).toBe(true);
    expect(issuer.fetches).toBe(1);
    expect([...counts]).toEqual([['auth_fetches', 1]]);
  });

  test('a token with a new one has them fetched, once for all who wait, and no more than once within the cooldown', async () => {
    const issuer = issuerWith(first);
    const { keys, clock } = keysOf(settings(issuer.url));
    await keys.refresh();
    issuer.keys = [first, second];
    const both = await Promise.all([names(keys, 'second'), names(keys, 'second'), names(keys, 'third')]);
    expect(both).toEqual([['second'], ['second'], []]);
    expect(issuer.fetches).toBe(2);
    clock.now += 29_000;
    expect(await names(keys, 'third')).toEqual([]);
    expect(issuer.fetches).toBe(2);
    clock.now += 2_000;
    issuer.keys = [second];
    expect(await names(keys, 'third')).toEqual([]);
    expect(issuer.fetches).toBe(3);
    // One that is gone is believed no more.
    expect(await names(keys, 'first')).toEqual([]);
    expect(await names(keys, 'second')).toEqual(['second']);
  });

  test('of a set without names, a signature that fits none has them fetched', async () => {
    const [older, newer] = [await makeKey('ES256'), await makeKey('ES256')] as const;
    const issuer = issuerWith(older);
    const { tokens } = await startTokens({ jwt: { jwks: issuer.url } });
    issuer.keys = [newer];
    expect(await tokens.verify(await tokenOf({}, newer.privateKey, { alg: 'ES256' }))).toMatchObject({ ok: true });
    expect(await tokens.verify(await tokenOf({}, older.privateKey, { alg: 'ES256' }))).toEqual({ ok: false, reason: 'signature' });
    expect(issuer.fetches).toBe(2);
  });

  test('are fetched again when they are old', async () => {
    const issuer = issuerWith(first);
    const { keys } = keysOf(settings(issuer.url, { maxAge: 0.05 }));
    await keys.refresh();
    await eventually('four fetches', () => issuer.fetches > 3);
  });

  test('that cannot verify tokens are left out: for encryption, secrets, private ones, unknown kinds, small ones', async () => {
    const issuer = issuerWith();
    const { privateKey: small } = await jose.generateKeyPair('RS256', { extractable: true });
    const exported = await jose.exportJWK(small);
    const sets = [
      { ...first.jwk, kid: 'enc', use: 'enc' },
      { ...first.jwk, kid: 'ops', key_ops: ['sign'] },
      { kty: 'oct', k: 'c2VjcmV0', kid: 'oct', alg: 'HS256' },
      { ...exported, kid: 'private' },
      { kty: 'RSA', n: 'AQAB', e: 'AQAB', kid: 'small' },
      { kty: 'EC', crv: 'P-256', x: 'AA', y: 'AA', kid: 'not on the curve' },
      { kty: 'martian', kid: 'martian' },
      null,
      7,
      'key',
      first.jwk,
    ];
    issuer.answer = () => Response.json({ keys: sets });
    const { keys } = keysOf(settings(issuer.url));
    await keys.refresh();
    expect(await keys.find('ES256', undefined)).toMatchObject([{ kid: 'first' }]);
    expect(await keys.find('RS256', undefined)).toEqual([]);
    expect(await keys.find('HS256', undefined)).toEqual([]);
  });
});

describe('an issuer that fails', () => {
  const failures: readonly (readonly [string, Answer, RegExp])[] = [
    ['answers 500', () => new Response('no', { status: 500 }), /answered 500/],
    ['sends elsewhere', () => Response.redirect('http://127.0.0.1:1/keys'), /answered 302/],
    ['says that nothing has changed', () => new Response(null, { status: 304 }), /answered 304/],
    ['answers garbage', () => new Response('<html>'), /JSON|parse/i],
    ['answers nothing', () => new Response(''), /JSON|Unexpected/i],
    ['answers bytes that are no text', () => new Response(new Uint8Array([0xff, 0xfe])), /./],
    ['has no set', () => Response.json([]), /no JSON Web Key Set/],
    ['has an empty set', () => Response.json({ keys: [] }), /none of its 0 keys/],
    ['answers null', () => Response.json(null), /no JSON Web Key Set/],
    ['answers more than anybody reads', () => new Response('x'.repeat(400_000)), /more than 262144 bytes/],
    ['never answers', () => new Promise<Response>(() => {}), /no answer within 0\.2 s/],
    [
      'never ends its answer',
      () => new Response(new ReadableStream({ start: (controller) => controller.enqueue(Buffer.from('{"keys":[')) })),
      /no answer within 0\.2 s/,
    ],
  ];

  test.each(failures)('%s: its last keys are believed, it is told of once, and asked again', async (_, answer, why) => {
    const issuer = issuerWith(first);
    const good = issuer.answer;
    const { keys, clock, told, fetched } = keysOf(settings(issuer.url, { timeout: 0.2 }));
    await keys.refresh();
    issuer.answer = answer;
    await keys.refresh();
    await keys.refresh();
    expect(fetched).toEqual([true, false, false]);
    expect(told).toHaveLength(1);
    expect(told[0]).toMatch(why);
    expect(told[0]).toContain(`/keys: `);
    expect(told[0]).not.toContain('in-the-query');
    expect(await names(keys, 'first')).toEqual(['first']);
    clock.now += 86_401_000;
    expect(await names(keys, 'first')).toBe('unavailable');
    issuer.answer = good;
    clock.now += 2000;
    expect(await names(keys, 'first')).toEqual(['first']);
    expect(told).toHaveLength(2);
    expect(told[1]).toContain('again');
  });

  test('is not there when the worker starts: who has a token is told so, and let in once it is back', async () => {
    const issuer = issuerWith(first);
    const good = issuer.answer;
    issuer.answer = () => new Response('no', { status: 503 });
    const { tokens, counts, told } = await startTokens({ jwt: { jwks: { url: issuer.url, cooldown: 1 } } });
    const token = await tokenOf({}, first.privateKey, { alg: 'ES256', kid: 'first' });
    expect(await tokens.verify(token)).toEqual({ ok: false, reason: 'unavailable' });
    // What needs no key to be refused is.
    expect(await tokens.verify('garbage')).toEqual({ ok: false, reason: 'malformed' });
    issuer.answer = good;
    await eventually('the token is believed', async () => (await tokens.verify(token)).ok);
    expect(counts.get('auth_unavailable')).toBeGreaterThan(0);
    expect(told).toHaveLength(2);
    expect(told[0]).toContain('nobody with a token is let in');
  });

  test('nobody listens: it is asked no more often than once a second, however many tokens come', async () => {
    const issuer = issuerWith(first);
    const { url } = issuer;
    await issuer.end();
    const { keys, fetched } = keysOf(settings(url, { timeout: 1 }));
    const all = await Promise.all(Array.from({ length: 100 }, () => names(keys, 'first')));
    expect(new Set(all)).toEqual(new Set(['unavailable']));
    for (let round = 0; round < 20; round++) await names(keys, 'first');
    expect(fetched).toEqual([false]);
  });
});
