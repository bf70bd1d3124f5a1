/** Keys of tokens in a gateway that runs: an issuer that changes them and goes away, and a secret that changes with the config. */
import { expect, setDefaultTimeout, test } from 'bun:test';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { eventually } from '../support/eventually.ts';
import { freePort } from '../support/free-port.ts';
import { type Gateway, startGateway } from '../support/gateway.ts';
import { type KeyOfTest, makeKey, secret, tokenOf } from '../support/tokens.ts';

// Only ends a test that has failed: nothing here is measured in time.
setDefaultTimeout(60_000);

const statusOf = async (gateway: Gateway, token: string): Promise<number> =>
  (await fetch(`${gateway.url}/who`, { headers: { authorization: `Bearer ${token}`, connection: 'close' } })).status;

const app = `
import { Hono } from 'hono';
import { authenticate, defineGateway } from 'ringway';
const app = new Hono();
app.get('/who', authenticate(), (c) => c.json(c.get('user')));
`;

test('of an issuer: new ones are taken, and the last believed while it is away; a worker that starts meanwhile waits for it', async () => {
  const [first, second] = [await makeKey('ES256', 'first'), await makeKey('EdDSA', 'second')] as const;
  const port = await freePort();
  let keys: readonly KeyOfTest[] = [first];
  const issue = () => Bun.serve({ port, hostname: '127.0.0.1', fetch: () => Response.json({ keys: keys.map(({ jwk }) => jwk) }) });
  let issuer = issue();
  const config = `${app}
export default defineGateway({
  $OPTIONS,
  auth: { jwt: { jwks: { url: 'http://127.0.0.1:${port}/keys', cooldown: 0.1, timeout: 0.5 } } },
  fetch: app,
});`;
  const gateway = await startGateway({ config, workers: 2 });
  try {
    const byFirst = await tokenOf({}, first.privateKey, { alg: 'ES256', kid: 'first' });
    const bySecond = await tokenOf({}, second.privateKey, { alg: 'EdDSA', kid: 'second' });
    const all = (token: string) => Promise.all(Array.from({ length: 8 }, () => statusOf(gateway, token)));
    expect(new Set(await all(byFirst))).toEqual(new Set([200]));
    expect(await statusOf(gateway, bySecond)).toBe(401);
    keys = [second];
    await eventually('every worker knows the new key', async () => (await all(bySecond)).every((status) => status === 200));
    expect(new Set(await all(byFirst))).toEqual(new Set([401]));
    await issuer.stop(true);
    expect(new Set(await all(bySecond))).toEqual(new Set([200]));
    for (const pid of await gateway.workerPids()) process.kill(pid, 'SIGKILL');
    await eventually('the new workers cannot know', async () => (await all(bySecond).catch((): number[] => [])).includes(503));
    expect(gateway.output()).toContain(`keys of tokens cannot be fetched from http://127.0.0.1:${port}/keys`);
    issuer = issue();
    await eventually('the new workers know', async () => (await all(bySecond)).every((status) => status === 200));
    expect(await gateway.metric('ringway_auth_key_fetches_total', { result: 'failed' })).toBeGreaterThan(0);
  } finally {
    await gateway.stop();
    await issuer.stop(true);
  }
});

test('of the config: a reload changes the secret, over a time in which both are believed', async () => {
  const newer = 'another secret that nobody will guess, ever';
  const config = (secrets: string) => `${app}
export default defineGateway({ $OPTIONS, auth: { jwt: { secret: ${secrets} } }, fetch: app });`;
  const gateway = await startGateway({ config: config(`'${secret}'`) });
  try {
    const [byOlder, byNewer] = [await tokenOf(), await tokenOf({}, Buffer.from(newer))] as const;
    const path = join(gateway.folder, 'gateway.config.ts');
    const reload = async (secrets: string, expected: readonly [number, number]) => {
      writeFileSync(path, readFileSync(path, 'utf8').replace(/secret: .*? \} \}/, `secret: ${secrets} } }`));
      gateway.kill('SIGHUP');
      await eventually('the reload is done', async () => {
        const statuses = [await statusOf(gateway, byOlder), await statusOf(gateway, byNewer)];
        return statuses.join() === expected.join();
      });
    };
    expect([await statusOf(gateway, byOlder), await statusOf(gateway, byNewer)]).toEqual([200, 401]);
    await reload(`['${newer}', '${secret}']`, [200, 200]);
    await reload(`'${newer}'`, [401, 200]);
  } finally {
    await gateway.stop();
  }
});
