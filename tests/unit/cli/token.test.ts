/** `ringway token`: tokens that the gateway of a config believes. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { decodeJwt, decodeProtectedHeader } from 'jose';
import { runCli } from '../../../src/cli/cli.ts';
import { makeKey, secret, startTokens } from '../../support/tokens.ts';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'ringway-token-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

let files = 0;
function write(text: string, ending = 'config.ts'): string {
  const path = join(folder, `${files++}.${ending}`);
  writeFileSync(path, text);
  return path;
}
const configOf = (auth: unknown) => write(`export default { fetch: () => new Response(), auth: ${JSON.stringify(auth)} };`);

async function ringway(...words: string[]): Promise<{ exitCode: number; out: string; err: string }> {
  const said = { out: [] as string[], err: [] as string[] };
  const exitCode = await runCli(['token', ...words], { out: (text) => void said.out.push(text), err: (text) => void said.err.push(text) });
  return { exitCode, out: said.out.join('\n'), err: said.err.join('\n') };
}

describe('ringway token', () => {
  test('signs as the config wants it: with the first secret, for its issuer and audience', async () => {
    const auth = { jwt: { secret: [secret, `${secret}, the one before`], issuer: ['us', 'others'], audience: 'gateway' } };
    const { exitCode, out } = await ringway('ann', '-c', configOf(auth), '--expires', '60', '--claims', '{"role":"admin"}');
    expect(exitCode).toBe(0);
    const claims = decodeJwt(out);
    expect(claims).toMatchObject({ sub: 'ann', iss: 'us', aud: 'gateway', role: 'admin' });
    expect((claims.exp ?? 0) - (claims.iat ?? 0)).toBe(60);
    const { tokens } = await startTokens(auth);
    expect(await tokens.verify(out)).toMatchObject({ ok: true, user: { id: 'ann' } });
  });

  test('signs with the algorithm of the config, and for a topic', async () => {
    const long = { jwt: { secret: secret.repeat(2), algorithms: ['HS512'] as const } };
    const { out } = await ringway('ann', '-c', configOf(long), '--topic', 'room/secret');
    expect(decodeProtectedHeader(out).alg).toBe('HS512');
    const { tokens } = await startTokens(long);
    expect(await tokens.verifyTopicToken(out, 'room/secret', { user: undefined })).toMatchObject({ ok: true });
    expect(await tokens.verify(out)).toEqual({ ok: false, reason: 'topic' });
  });

  test('claims replace what it would say, so that bad tokens can be made', async () => {
    const auth = { jwt: { secret } };
    const { out } = await ringway('ann', '-c', configOf(auth), '--claims', '{"exp":1}');
    expect(await (await startTokens(auth)).tokens.verify(out)).toEqual({ ok: false, reason: 'expired' });
  });

  test('takes the secret from a file, without the end of its line', async () => {
    const { exitCode, out } = await ringway('ann', '--secret-file', write(`${secret}\n`, 'secret'));
    expect(exitCode).toBe(0);
    expect(await (await startTokens({ jwt: { secret } })).tokens.verify(out)).toMatchObject({ ok: true });
  });

  test('says what is missing', async () => {
    const { jwk } = await makeKey('ES256');
    const cases: readonly (readonly [string[], number, string])[] = [
      [[], 64, "whose token? Write 'ringway token ann'"],
      [['ann', '--claims', '[1]'], 64, 'write a JSON object'],
      [['ann', '--claims', '{'], 64, 'write a JSON object'],
      [['ann', '--expires', '0'], 64, 'write an integer from 1 to 31536000'],
      [['ann', '--secret-file', join(folder, 'nowhere')], 64, 'cannot be read (ENOENT)'],
      [['ann', '--secret-file', write('short', 'secret')], 64, 'has 5 bytes'],
      [['ann', '-c', write('export default { fetch: () => new Response() };')], 1, 'has no auth'],
      [['ann', '-c', configOf({ jwt: { keys: jwk } })], 1, 'only the issuer of tokens can sign'],
      [['ann', '-c', configOf({ jwt: { secret: 'short' } })], 78, 'auth.jwt.secret'],
      [['ann', '-c', join(folder, 'nowhere.ts')], 78, 'there is no such file'],
    ];
    for (const [words, exitCode, text] of cases) {
      const said = await ringway(...words);
      expect([words, said.exitCode, said.out]).toEqual([words, exitCode, '']);
      expect(said.err).toContain(text);
      expect(said.err).not.toContain('short');
    }
  });
});
