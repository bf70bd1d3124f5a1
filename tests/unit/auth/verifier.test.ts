/** Which tokens are believed: by their keys, algorithms and claims. */
import { describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import { exportSPKI, generateKeyPair } from 'jose';
import type { AuthOptions } from '../../../src/api/define.ts';
import { inSeconds, makeKey, secret, startTokens, tokenOf } from '../../support/tokens.ts';

const text = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');

/** ret: 'ok', or the reason, which was counted once */
async function verdict(auth: AuthOptions, token: string): Promise<string> {
  const { tokens, counts } = await startTokens(auth);
  const verified = await tokens.verify(token);
  if (verified.ok) {
    expect(counts.size).toBe(0);
    return 'ok';
  }
  expect([...counts]).toEqual([[`auth_${verified.reason}`, 1]]);
  return verified.reason;
}

describe('a token with a secret', () => {
  const auth: AuthOptions = { jwt: { secret } };

  test('names its user, its claims and its end; nothing of these can be changed', async () => {
    const { tokens } = await startTokens(auth);
    const exp = inSeconds(60);
    const verified = await tokens.verify(await tokenOf({ exp, role: 'admin' }));
    if (!verified.ok) throw new Error(verified.reason);
    expect(verified.user).toEqual({ id: 'ann', claims: { sub: 'ann', exp, role: 'admin' }, expiresAt: exp * 1000 });
    expect(Object.isFrozen(verified.user) && Object.isFrozen(verified.user.claims)).toBe(true);
  });

  test.each([
    ['another secret', 'signature', () => tokenOf({}, Buffer.from(`${secret}!`))],
    ['an end that has passed', 'expired', () => tokenOf({ exp: inSeconds(-60) })],
    ['an end that has passed within the tolerance', 'ok', () => tokenOf({ exp: inSeconds(-2) })],
    ['no end', 'claims', () => tokenOf({ exp: undefined as never })],
    ['an end that is no number', 'claims', () => tokenOf({ exp: 'tomorrow' as never })],
    ['a beginning in the future', 'early', () => tokenOf({ nbf: inSeconds(60) })],
    ['a beginning in the future within the tolerance', 'ok', () => tokenOf({ nbf: inSeconds(2) })],
    ['no subject', 'claims', () => tokenOf({ sub: undefined as never })],
    ['an empty subject', 'claims', () => tokenOf({ sub: '' })],
    ['a subject that is no string', 'claims', () => tokenOf({ sub: 7 as never })],
    ['a subject with NUL', 'claims', () => tokenOf({ sub: 'a\0b' })],
    ['a subject of 600 bytes', 'claims', () => tokenOf({ sub: 'a'.repeat(600) })],
    ['topics', 'topic', () => tokenOf({ topics: ['news/*'] })],
    ['a topic', 'topic', () => tokenOf({ topic: 'news' })],
    ['an algorithm that is not allowed', 'algorithm', () => tokenOf({}, Buffer.from(secret.repeat(2)), { alg: 'HS512' })],
  ])('%s: %s', async (_, expected, make) => {
    expect(await verdict(auth, await make())).toBe(expected);
  });

  test('a token whose payload or signature was changed is not believed, whichever character it was', async () => {
    const { tokens } = await startTokens(auth);
    const [head = '', payload = '', signature = ''] = (await tokenOf()).split('.');
    const forged = text({ sub: 'root', exp: inSeconds(3600) });
    expect(await tokens.verify(`${head}.${forged}.${signature}`)).toEqual({ ok: false, reason: 'signature' });
    for (const at of [0, 7, signature.length - 2]) {
      const other = signature[at] === 'A' ? 'B' : 'A';
      const changed = signature.slice(0, at) + other + signature.slice(at + 1);
      expect(await tokens.verify(`${head}.${payload}.${changed}`)).toEqual({ ok: false, reason: 'signature' });
    }
  });

  const payload = text({ sub: 'ann', exp: 9e9 });
  const none = text({ alg: 'none' });
  test.each([
    ['nothing', '', 'malformed'],
    ['garbage', 'garbage', 'malformed'],
    ['dots', '..', 'malformed'],
    ['an unsigned token', `${none}.${payload}.`, 'malformed'],
    ['an unsigned token with a signature', `${none}.${payload}.AAAA`, 'algorithm'],
    ['an algorithm in other letters', `${text({ alg: 'hs256' })}.${payload}.AAAA`, 'algorithm'],
    ['an algorithm that is a list', `${text({ alg: ['HS256'] })}.${payload}.AAAA`, 'algorithm'],
    ['no algorithm', `${text({})}.${payload}.AAAA`, 'algorithm'],
    ['a header that is no object', `${text('HS256')}.${payload}.AAAA`, 'malformed'],
    ['a name of a key that is no string', `${text({ alg: 'HS256', kid: 7 })}.${payload}.AAAA`, 'malformed'],
    ['five parts, as of an encrypted one', 'a.b.c.d.e', 'malformed'],
    ['a token in another alphabet', `${none}+.${payload}/.AAAA=`, 'malformed'],
    ['spaces', ` ${none}.${payload}.AAAA`, 'malformed'],
    ['a huge one', `${none}.${'A'.repeat(100_000)}.AAAA`, 'malformed'],
    ['NUL', '\0.\0.\0', 'malformed'],
  ])('what is no token, or not signed: %s', async (_, token, expected) => {
    expect(await verdict(auth, token)).toBe(expected);
  });

  test('whatever a client sends, there is a reason and no error', async () => {
    const { tokens } = await startTokens(auth);
    const part = fc.oneof(
      fc.string(),
      fc.json().map((json) => Buffer.from(json).toString('base64url')),
      fc
        .record({ alg: fc.constantFrom('HS256', 'none', 'RS256', 7), kid: fc.option(fc.string()), crit: fc.option(fc.array(fc.string())) })
        .map(text),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(part, { maxLength: 5 }), async (parts) => {
        expect(await tokens.verify(parts.join('.'))).toEqual({ ok: false, reason: expect.any(String) });
        expect(await tokens.verifyTopicToken(parts.join('.'), 'a', { user: undefined })).toMatchObject({ ok: false });
      }),
    );
  });

  test('a header that asks for what nobody understands is refused, though its signature is right', async () => {
    const { SignJWT } = await import('jose');
    const token = await new SignJWT({ sub: 'ann', exp: inSeconds(60) })
      .setProtectedHeader({ alg: 'HS256', crit: ['x'], x: 1 })
      .sign(Buffer.from(secret), { crit: { x: true } } as never)
      .catch(() => undefined);
    expect(token).toBeString();
    expect(await verdict(auth, token as string)).toBe('malformed');
  });

  test('each secret of a list is believed, and none that has left it', async () => {
    const [older, newer] = ['an older secret, which is to go away', 'a newer secret, with which we sign'] as const;
    const both = { jwt: { secret: [newer, older] } };
    expect(await verdict(both, await tokenOf({}, Buffer.from(older)))).toBe('ok');
    expect(await verdict(both, await tokenOf({}, Buffer.from(newer)))).toBe('ok');
    expect(await verdict({ jwt: { secret: newer } }, await tokenOf({}, Buffer.from(older)))).toBe('signature');
    // A signature that is right is not tried further: what else is wrong is told.
    expect(await verdict(both, await tokenOf({ exp: 1 }, Buffer.from(newer)))).toBe('expired');
  });

  test('issuer and audience are those of the config', async () => {
    const named: AuthOptions = { jwt: { secret, issuer: ['https://a.example/', 'https://b.example/'], audience: 'gateway' } };
    const good = { iss: 'https://b.example/', aud: ['other', 'gateway'] };
    expect(await verdict(named, await tokenOf(good))).toBe('ok');
    expect(await verdict(named, await tokenOf({ ...good, iss: 'https://b.example' }))).toBe('issuer');
    expect(await verdict(named, await tokenOf({ aud: 'gateway' }))).toBe('issuer');
    expect(await verdict(named, await tokenOf({ ...good, aud: 'gateway2' }))).toBe('audience');
    expect(await verdict(named, await tokenOf({ iss: good.iss }))).toBe('audience');
  });

  test('requireExpiry: false takes tokens without an end', async () => {
    const { tokens } = await startTokens({ jwt: { secret, requireExpiry: false } });
    expect(await tokens.verify(await tokenOf({ exp: undefined as never }))).toMatchObject({ ok: true, user: { expiresAt: undefined } });
    expect(await tokens.verify(await tokenOf({ exp: 1 }))).toEqual({ ok: false, reason: 'expired' });
  });
});

describe('a token with a key', () => {
  test.each(['RS256', 'RS512', 'PS256', 'ES256', 'ES384', 'ES512', 'EdDSA', 'Ed25519'])('%s', async (alg) => {
    const { jwk, privateKey } = await makeKey(alg);
    const other = await makeKey(alg);
    const auth: AuthOptions = { jwt: { keys: { ...jwk } } };
    expect(await verdict(auth, await tokenOf({}, privateKey, { alg }))).toBe('ok');
    expect(await verdict(auth, await tokenOf({}, other.privateKey, { alg }))).toBe('signature');
  });

  test('a public key is no secret, however it is written: nobody signs with what everybody has', async () => {
    const { publicKey, privateKey } = await generateKeyPair('RS256', { extractable: true });
    const pem = await exportSPKI(publicKey);
    const auth: AuthOptions = { jwt: { keys: pem } };
    expect(await verdict(auth, await tokenOf({}, privateKey, { alg: 'RS256' }))).toBe('ok');
    for (const guess of [pem, pem.trim(), pem.replaceAll('\n', '')])
      expect(await verdict(auth, await tokenOf({}, Buffer.from(guess)))).toBe('algorithm');
  });

  test('an algorithm for keys of another kind finds no key', async () => {
    const rsa = await makeKey('RS256');
    const ec = await makeKey('ES256');
    expect(await verdict({ jwt: { keys: { ...rsa.jwk } } }, await tokenOf({}, ec.privateKey, { alg: 'ES256' }))).toBe('key');
    expect(await verdict({ jwt: { keys: { ...ec.jwk } } }, await tokenOf({}, rsa.privateKey, { alg: 'RS256' }))).toBe('key');
  });

  test('algorithms of the config, and of the key, are the only ones', async () => {
    const { jwk, privateKey } = await makeKey('RS256');
    const token = await tokenOf({}, privateKey, { alg: 'RS256' });
    expect(await verdict({ jwt: { keys: { ...jwk }, algorithms: ['PS256'] } }, token)).toBe('algorithm');
    expect(await verdict({ jwt: { keys: { ...jwk, alg: 'PS256' } } }, token)).toBe('key');
    expect(await verdict({ jwt: { keys: { ...jwk, alg: 'RS256' } } }, token)).toBe('ok');
  });

  test('of several keys the one that the token names is taken, and each without a name is tried', async () => {
    const [first, second, third] = [await makeKey('ES256', 'first'), await makeKey('ES256', 'second'), await makeKey('ES256')] as const;
    const auth: AuthOptions = { jwt: { keys: [first, second, third].map(({ jwk }) => ({ ...jwk })) } };
    const signed = (key: { privateKey: CryptoKey }, kid?: string) =>
      tokenOf({}, key.privateKey, { alg: 'ES256', ...(kid === undefined ? {} : { kid }) });
    expect(await verdict(auth, await signed(second, 'second'))).toBe('ok');
    expect(await verdict(auth, await signed(second))).toBe('ok');
    expect(await verdict(auth, await signed(third, 'unheard of'))).toBe('ok');
    expect(await verdict(auth, await signed(second, 'first'))).toBe('signature');
  });
});

describe('a token for topics', () => {
  const auth: AuthOptions = { jwt: { secret } };
  const ann = { user: { id: 'ann', claims: {}, expiresAt: undefined } };
  const nobody = { user: undefined };

  async function forTopic(
    topic: string,
    claims: Record<string, unknown>,
    client: Parameters<Awaited<ReturnType<typeof startTokens>>['tokens']['verifyTopicToken']>[2] = ann,
  ) {
    const { tokens } = await startTokens(auth);
    const verified = await tokens.verifyTopicToken(await tokenOf(claims), topic, client);
    return verified.ok ? 'ok' : verified.reason;
  }

  test.each([
    ['chat/1', { topic: 'chat/1' }, 'ok'],
    ['chat/1', { topic: 'chat/2' }, 'topic'],
    // A name is no pattern.
    ['chat/1', { topic: 'chat/:room' }, 'topic'],
    ['chat/1', { topic: '*' }, 'topic'],
    ['chat/:room', { topic: 'chat/:room' }, 'ok'],
    ['chat/1', { topics: ['news/*', 'chat/:room'] }, 'ok'],
    ['chat/1/2', { topics: ['chat/:room'] }, 'topic'],
    ['chat/', { topics: ['chat/:room'] }, 'topic'],
    ['news/a/b', { topics: ['news/*'] }, 'ok'],
    ['anything', { topics: ['*'] }, 'ok'],
    ['chat/1', { topics: 'chat/1' }, 'topic'],
    ['chat/1', { topics: [7, null, '/chat/1', 'chat/{x}'] }, 'topic'],
    ['chat/1', {}, 'topic'],
    ['chat/1', { topic: 'chat/1', exp: 1 }, 'expired'],
  ] as const)('%s with %j: %s', async (topic, claims, expected) => {
    expect(await forTopic(topic, claims)).toBe(expected);
  });

  test('is for the user that it names, when both have one', async () => {
    expect(await forTopic('a', { topic: 'a', sub: 'bob' })).toBe('user');
    expect(await forTopic('a', { topic: 'a', sub: undefined })).toBe('ok');
    expect(await forTopic('a', { topic: 'a', sub: 'bob' }, nobody)).toBe('ok');
  });

  test('tells when it ends; without one the refusal is counted too', async () => {
    const { tokens, counts } = await startTokens(auth);
    const exp = inSeconds(60);
    expect(await tokens.verifyTopicToken(await tokenOf({ topic: 'a', exp }), 'a', ann)).toEqual({ ok: true, expiresAt: exp * 1000 });
    expect(await tokens.verifyTopicToken(undefined, 'a', ann)).toEqual({ ok: false, reason: 'missing' });
    expect([...counts]).toEqual([['auth_missing', 1]]);
  });
});
