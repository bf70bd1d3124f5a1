/** The doctor asks the Redis of the config what a worker would ask of it, and says what is missing there. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { doctor } from '../../src/cli/doctor.ts';
import type { Finding } from '../../src/doctor/finding.ts';
import { eventually } from '../support/eventually.ts';
import { freePort } from '../support/free-port.ts';
import { startGateway } from '../support/gateway.ts';
import { type RedisServer, startCluster, startRedis, startSentinels } from '../support/redis-servers.ts';

// Only ends a test that has failed: nothing here is measured in time.
setDefaultTimeout(60_000);

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'ringway-doctor-redis-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function found(redis: string, topics = '{}'): Promise<Finding | undefined> {
  const configPath = join(folder, `${Bun.randomUUIDv7()}.config.ts`);
  writeFileSync(configPath, `export default { fetch: () => new Response(), workers: 1, redis: ${redis}, topics: ${topics} };`);
  const { text, exitCode } = await doctor({ configPath, connections: 100, json: true });
  const finding = (JSON.parse(text) as { findings: Finding[] }).findings.find(({ check }) => check === 'redis');
  if (finding?.verdict === 'problem') expect(exitCode).toBe(1);
  return finding;
}

async function withRedis(config: readonly string[], use: (server: RedisServer) => Promise<void>): Promise<void> {
  const server = await startRedis({ config });
  try {
    await use(server);
  } finally {
    await server.kill();
  }
}

test('one that allows all, none at all, and none that answers', async () => {
  await withRedis([], async ({ url }) => {
    expect(await found(`'${url}'`)).toMatchObject({ verdict: 'ok', what: expect.stringContaining('publish and subscribe below ringway:') });
  });
  expect(await found('false')).toBeUndefined();
  expect(await found(`'redis://127.0.0.1:${freePort()}'`)).toMatchObject({
    verdict: 'problem',
    what: expect.stringContaining('ECONNREFUSED'),
  });
});

test('a command that is renamed away is told of by the doctor and in the log, with what to do', async () => {
  const advice = 'a command is renamed or taken away there (rename-command); Ringway needs PUBLISH, SUBSCRIBE and UNSUBSCRIBE';
  for (const command of ['PUBLISH', 'SUBSCRIBE'])
    await withRedis([`rename-command ${command} ""`], async ({ url }) => {
      expect([command, await found(`'${url}'`)]).toEqual([
        command,
        expect.objectContaining({ verdict: 'problem', what: expect.stringContaining(advice) }),
      ]);
      const gateway = await startGateway({
        config: `import { defineGateway } from 'ringway'; export default defineGateway({ $OPTIONS, redis: '${url}', fetch: () => new Response() });`,
      });
      try {
        await eventually('the log tells', () => gateway.output().includes('Redis cannot be used'));
        expect(gateway.output()).toContain(advice);
        // It serves all the same.
        expect((await fetch(gateway.url)).status).toBe(200);
      } finally {
        await gateway.stop();
      }
    });
});

test('a right that the user does not have is named', async () => {
  for (const [rule, missing] of [
    ['-publish', "run the 'publish' command"],
    ['-subscribe', "run the 'subscribe' command"],
    ['resetchannels &other:*', 'NOPERM'],
  ] as const)
    await withRedis([`user narrow on >secret ~* &* +@all ${rule}`], async ({ url }) => {
      const finding = await found(`{ url: '${url}', username: 'narrow', password: 'secret' }`);
      expect([rule, finding]).toEqual([rule, expect.objectContaining({ verdict: 'problem', what: expect.stringContaining(missing) })]);
      expect(finding?.what).toContain('give it the rights +publish +subscribe +unsubscribe &ringway:*');
      expect(finding?.what).not.toContain('secret');
    });
});

test('where topics remember, the rights of scripts are tried too, and nothing is left behind', async () => {
  const topics = `{ 'chat/:room': { history: { size: 10, seconds: 60 } } }`;
  for (const [rule, missing] of [
    ['', undefined],
    ['-xadd', 'xadd'],
    ['-pexpire', 'pexpire'],
    ['-eval', 'eval'],
    ['resetkeys', 'key'],
  ] as const)
    await withRedis([`user narrow on >secret ~* &* +@all ${rule}`], async (redis) => {
      const finding = await found(`{ url: '${redis.url}', username: 'narrow', password: 'secret' }`, topics);
      if (missing === undefined)
        expect(finding).toMatchObject({ verdict: 'ok', what: expect.stringContaining('keep what topics remember') });
      else
        expect([rule, finding]).toEqual([
          rule,
          expect.objectContaining({ verdict: 'problem', what: expect.stringContaining('docs/nodes.md') }),
        ]);
      if (missing !== undefined) expect(finding?.what.toLowerCase()).toContain(missing.toLowerCase());
      if (missing === undefined) expect(await redis.command('DBSIZE')).toBe('0');
    });
});

test('a Cluster is asked for what a Cluster needs', async () => {
  const cluster = await startCluster({ replicas: false });
  try {
    const seeds = JSON.stringify(cluster.servers.map(({ url }) => url));
    expect(await found(`{ cluster: ${seeds} }`)).toMatchObject({ verdict: 'ok' });
    for (const server of cluster.servers) await server.command('ACL', 'SETUSER', 'default', '-ssubscribe');
    expect((await found(`{ cluster: ${seeds} }`))?.what).toContain('give it the rights +spublish +ssubscribe +sunsubscribe +cluster|slots');
  } finally {
    await cluster.dispose();
  }
});

test('the primary of Sentinels is asked', async () => {
  const sentinels = await startSentinels({ sentinels: 1 });
  try {
    const nodes = JSON.stringify(sentinels.urls);
    expect(await found(`{ sentinels: { name: '${sentinels.name}', nodes: ${nodes} } }`)).toMatchObject({
      verdict: 'ok',
      what: expect.stringContaining(String(sentinels.primary.port)),
    });
  } finally {
    await sentinels.dispose();
  }
});
