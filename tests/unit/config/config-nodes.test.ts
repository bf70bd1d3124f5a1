import { afterAll, describe, expect, test } from 'bun:test';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ConfigError } from '../../../src/config/config-error.ts';
import { type Environment, resolveConfig } from '../../../src/config/resolve.ts';

const ok = () => new Response('ok');
const folder = mkdtempSync(join(tmpdir(), 'ringway-config-nodes-'));
writeFileSync(join(folder, 'ca.pem'), 'of no interest here');
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const resolved = (config: object, env: Environment = {}) => resolveConfig({ fetch: ok, ...config }, env, 'config', folder);

function mistakes(config: object, env: Environment = {}): readonly string[] {
  try {
    resolved(config, env);
  } catch (error) {
    if (error instanceof ConfigError) return error.mistakes;
    throw error;
  }
  return [];
}

describe('redis', () => {
  const settings = (config: object, env: Environment = {}) => {
    const { redis } = resolved(config, env);
    if (redis === false) throw new Error('there is no Redis');
    return redis;
  };

  test('is none unless the config or REDIS_URL says where it is; false overrules both', () => {
    expect(resolved({}).redis).toBe(false);
    expect(resolved({}, { REDIS_URL: ' ' }).redis).toBe(false);
    expect(resolved({ redis: false }, { REDIS_URL: 'redis://a' }).redis).toBe(false);
    expect(settings({}, { REDIS_URL: 'redis://a' }).servers).toEqual({ kind: 'standalone', host: 'a', port: 6379 });
    expect(settings({ redis: { prefix: 'x' } }, { REDIS_URL: 'redis://a:1' })).toMatchObject({
      prefix: 'x',
      signingKeys: [],
      servers: { kind: 'standalone', host: 'a', port: 1 },
    });
    expect(settings({ redis: 'redis://b' }, { REDIS_URL: 'not judged' }).servers).toMatchObject({ host: 'b' });
  });

  test('a URL gives host, port, login and TLS; options beside it win', () => {
    expect(settings({ redis: 'rediss://user:p%40ss@[::1]:7000/0' })).toEqual({
      servers: { kind: 'standalone', host: '::1', port: 7000 },
      login: { username: 'user', password: 'p@ss' },
      tls: { caFile: undefined, certFile: undefined, keyFile: undefined, serverName: undefined, verify: true },
      prefix: 'ringway',
      linger: 10,
      partitions: 256,
      probeInterval: 1,
      timeout: 3,
      outboxBytes: 16777216,
      signingKeys: [],
      onOutboxFull: 'drop-oldest',
      required: false,
    });
    expect(settings({ redis: { url: 'rediss://:a@h', password: 'b', tls: false } })).toMatchObject({
      login: { username: undefined, password: 'b' },
      tls: undefined,
    });
    expect(settings({ redis: 'unix:///run/redis.sock' }).servers).toEqual({ kind: 'standalone', path: '/run/redis.sock' });
    expect(settings({ redis: { url: 'redis://h', tls: { ca: 'ca.pem', serverName: 's' } } }).tls).toMatchObject({
      caFile: join(folder, 'ca.pem'),
      serverName: 's',
    });
  });

  test('Sentinels have a login of their own, and the TLS of their URLs', () => {
    const nodes = ['rediss://:sentinel@10.0.0.1', 'rediss://10.0.0.2:1'];
    expect(settings({ redis: { sentinels: { name: 'mymaster', nodes }, password: 'redis' } })).toMatchObject({
      servers: {
        kind: 'sentinel',
        name: 'mymaster',
        nodes: [
          { host: '10.0.0.1', port: 26379 },
          { host: '10.0.0.2', port: 1 },
        ],
        login: { username: undefined, password: 'sentinel' },
        tls: { verify: true },
      },
      login: { password: 'redis' },
      tls: { verify: true },
    });
  });

  test('a Cluster is a list of its nodes', () => {
    expect(settings({ redis: { cluster: ['redis://u:p@a:1', 'redis://b'] } })).toMatchObject({
      servers: {
        kind: 'cluster',
        nodes: [
          { host: 'a', port: 1 },
          { host: 'b', port: 6379 },
        ],
      },
      login: { username: 'u', password: 'p' },
      tls: undefined,
    });
  });

  test('mistakes say what to write, and never show a password', () => {
    const url = `write one such as 'redis://127.0.0.1:6379' or 'rediss://user:password@redis.example.com:6380'`;
    expect(mistakes({ redis: 'http://:secret@h' })).toEqual([`redis: is not a URL of Redis; ${url}`]);
    expect(mistakes({ redis: ':secret' })).toEqual([`redis: is not a URL of Redis; ${url}`]);
    expect(mistakes({}, { REDIS_URL: 'redis:secret' })).toEqual([`env REDIS_URL: is not a URL of Redis; ${url}`]);
    expect(mistakes({ redis: { url: 'redis://h/3' } })).toEqual([
      'redis.url: names a database, and messages know none: they go through all of them; remove what stands behind the port',
    ]);
    expect(mistakes({ redis: {} })).toEqual(['redis: does not say where Redis is; write url, sentinels or cluster, or set REDIS_URL']);
    expect(mistakes({ redis: { url: 'redis://a', prefx: 1 } })).toEqual(['redis.prefx: is not an option; did you mean prefix?']);
    expect(
      mistakes({ redis: { url: 'redis://a', cluster: ['redis://a', 'rediss://b', 'unix:///c', 'd:secret'], probeInterval: 5 } }),
    ).toEqual([
      'redis.cluster: does not go with url; remove one of them',
      "redis.cluster[2]: is the path of a socket; write a URL such as 'redis://10.0.0.1:6379'",
      `redis.cluster[3]: is not a URL of Redis; ${url}`,
      'redis.cluster: mixes redis:// and rediss://; write one of them for all',
      'redis.timeout: is 3, less than probeInterval (5); write at least that much',
    ]);
    expect(mistakes({ redis: { url: 'redis://a', tls: { cert: 'none.pem' } } })).toEqual([
      'redis.tls: has cert and no key; write both',
      `redis.tls.cert: there is no file ${join(folder, 'none.pem')}; paths are relative to the config file`,
    ]);
    expect(mistakes({ redis: { url: 'redis://a', password: 5, prefix: 'a{b}', linger: -1, partitions: 0, onOutboxFull: 'x' } })).toEqual([
      'redis.password: is not a string; write the password',
      `redis.prefix: is "a{b}"; write a prefix without braces and spaces, such as 'ringway'`,
      'redis.linger: is -1; write a number of seconds from 0 to 3600',
      'redis.partitions: is 0; write an integer from 1 to 16384',
      `redis.onOutboxFull: is "x"; write 'drop-oldest' or 'drop-newest'`,
    ]);
    for (const signingKey of ['secret', ['s'.repeat(32), 'secret'], [], 5]) {
      const [mistake, ...more] = mistakes({ redis: { url: 'redis://a', signingKey } });
      expect([mistake?.startsWith('redis.signingKey'), mistake?.includes('; write '), more]).toEqual([true, true, []]);
      expect(mistake).not.toContain('sss');
    }
    expect(mistakes({ redis: { url: 'redis://a', signingKey: 'secret' } })).toEqual([
      'redis.signingKey: is shorter than 32 characters; write one such as the output of `openssl rand -hex 32`',
    ]);
    expect(mistakes({ redis: 5 })).toEqual([
      "redis: is none of these: false, a URL such as 'redis://127.0.0.1:6379', or an object such as { url: 'redis://127.0.0.1:6379' }",
    ]);
  });
});

describe('trustedProxies', () => {
  test('addresses and ranges become IPv6 ranges', () => {
    const { trustedProxies } = resolved({ trustedProxies: { addresses: ['10.0.0.0/8', '192.0.2.1', 'fd00::/8', '::1'] } });
    expect(trustedProxies?.header).toBe('x-forwarded-for');
    expect(trustedProxies?.ranges.map(({ address, prefixBits }) => [Buffer.from(address).toString('hex'), prefixBits])).toEqual([
      ['00000000000000000000ffff0a000000', 104],
      ['00000000000000000000ffffc0000201', 128],
      ['fd000000000000000000000000000000', 8],
      ['00000000000000000000000000000001', 128],
    ]);
  });

  test('mistakes', () => {
    const wrong = (value: string) => `is "${value}"; write an IP address or a range such as '10.0.0.0/8' or 'fd00::/8'`;
    expect(mistakes({ trustedProxies: { addresses: ['10.1', '10.0.0.0/33', 'proxy', '::1/129', '1.2.3.4/', 'fe80::1%eth0/64'] } })).toEqual(
      ['10.1', '10.0.0.0/33', 'proxy', '::1/129', '1.2.3.4/', 'fe80::1%eth0/64'].map(
        (value, index) => `trustedProxies.addresses[${index}]: ${wrong(value)}`,
      ),
    );
    expect(mistakes({ trustedProxies: { addresses: [], header: 'via' } })).toEqual([
      `trustedProxies.header: is "via"; write 'x-forwarded-for' or 'forwarded' or 'none'`,
    ]);
    expect(mistakes({ trustedProxies: { addresses: [] } })).toEqual([
      'trustedProxies.addresses: is an empty list; write the addresses of your proxies, or remove trustedProxies',
    ]);
  });
});

describe('admin.token', () => {
  test('comes from the config, else from ADMIN_TOKEN, else it is made later', () => {
    const env = { ADMIN_TOKEN: 'of-the-environment' };
    expect(resolved({}).admin).toMatchObject({ token: undefined });
    expect(resolved({}, env).admin).toMatchObject({ token: 'of-the-environment' });
    expect(resolved({ admin: { unix: '/run/a', token: 'of-the-config-it-is' } }, env).admin).toEqual({
      kind: 'unix',
      path: '/run/a',
      token: 'of-the-config-it-is',
    });
  });

  test('one that is not safe is refused, and not shown', () => {
    expect(mistakes({ admin: { token: 'short' } })).toEqual(['admin.token: is too short to be safe; write at least 16 characters']);
    expect(mistakes({ admin: { token: 'with spaces, and so no token' } })).toEqual([
      'admin.token: holds characters that an HTTP header cannot carry; write letters, digits and signs without spaces',
    ]);
    expect(mistakes({}, { ADMIN_TOKEN: 'short' })).toEqual([
      'env ADMIN_TOKEN: is no safe token; write at least 16 letters, digits and signs, or unset it',
    ]);
  });
});

describe('limits, rates and logs', () => {
  test('defaults limit nothing', () => {
    expect(resolved({}).limits).toEqual({
      maxConnections: 1048576,
      maxConnectionsPerIp: 0,
      upgradesPerSecond: 0,
      maxUnfinishedBytes: 'auto',
      maxInflateBytes: 'auto',
      maxTopicsPerSocket: 1000,
      maxTopics: 1048576,
      maxTopicMemoryBytes: 'auto',
    });
    const [route] = resolved({ websocket: { '/': {} } }).websocket;
    expect(route?.settings).toMatchObject({
      maxMessagesPerSecond: 0,
      maxBytesPerSecond: 0,
      onRateLimit: 'close',
      concurrency: 1,
      messageTimeout: 120,
    });
    expect(resolved({}).log).toEqual({ level: 'info', requests: false, requestIdHeader: 'x-request-id' });
  });

  test('what is written is taken over', () => {
    expect(resolved({ limits: { maxConnectionsPerIp: 20, upgradesPerSecond: undefined } }).limits).toMatchObject({
      maxConnectionsPerIp: 20,
      upgradesPerSecond: 0,
    });
    const [route] = resolved({ websocket: { '/': { maxMessagesPerSecond: 5, onRateLimit: 'pause', concurrency: 8 } } }).websocket;
    expect(route?.settings).toMatchObject({ maxMessagesPerSecond: 5, onRateLimit: 'pause', concurrency: 8 });
    expect(resolved({ log: { requestIdHeader: 'X-Trace', requests: true } }).log).toMatchObject({
      requestIdHeader: 'x-trace',
      requests: true,
    });
    expect(resolved({ log: { requestIdHeader: false } }).log.requestIdHeader).toBe(false);
    expect(resolved({ listen: { port: 1, proxyProtocol: true } }).listen[0]).toMatchObject({ proxyProtocol: true });
  });

  test('mistakes', () => {
    expect(
      mistakes({
        limits: { maxConnectionsPerIp: 1.5, upgradesPerSecond: -1, maxUnfinishedBytes: '1 GB', maxInflateBytes: 1, maxTopicsPerSocket: 0 },
        log: { requestIdHeader: 'no header' },
        websocket: { '/': { maxBytesPerSecond: 'many', onRateLimit: 'drop', concurrency: 0, messageTimeout: -1 } },
      }),
    ).toEqual([
      `websocket['/'].maxBytesPerSecond: is "many"; write an integer from 0 to 1073741824 (0: no limit)`,
      `websocket['/'].onRateLimit: is "drop"; write 'close' or 'pause'`,
      `websocket['/'].concurrency: is 0; write an integer from 1 to 1024`,
      "websocket['/'].messageTimeout: is -1; write a number of seconds from 0 to 2592000 (0: never)",
      'limits.maxConnectionsPerIp: is 1.5; write an integer from 0 to 65534 (0: no limit)',
      'limits.upgradesPerSecond: is -1; write an integer from 0 to 1000000 (0: no limit)',
      `limits.maxUnfinishedBytes: is "1 GB"; write 'auto' or an integer from 1048576 to 2199023255552`,
      'limits.maxInflateBytes: is 1; write an integer from 65536 to 2199023255552',
      'limits.maxTopicsPerSocket: is 0; write an integer from 1 to 268435456',
      'log.requestIdHeader: is "no header"; write false, or a header such as \'x-request-id\'',
    ]);
  });
});

describe('link', () => {
  /** As a class would be written: `create` uses `this`. */
  class Maker {
    readonly made: unknown[] = [];
    create(context: unknown) {
      this.made.push(context);
      return this;
    }
  }

  test('is none unless the config brings one, whose create is called as a method', () => {
    expect([resolved({}).link, resolved({ link: false }).link]).toEqual([false, false]);
    const maker = new Maker();
    const { link, redis } = resolved({ link: maker });
    if (link === false) throw new Error('there is no link');
    expect([link.linger, link.required, redis]).toEqual([10, false, false]);
    link.create('context' as never);
    expect(maker.made).toEqual(['context']);
    expect(resolved({ link: Object.assign(new Maker(), { linger: 0, required: true }) }).link).toMatchObject({ linger: 0, required: true });
  });

  test('goes before REDIS_URL, and not with redis', () => {
    expect(resolved({ link: new Maker() }, { REDIS_URL: 'redis://a' }).redis).toBe(false);
    expect(resolved({ link: new Maker(), redis: false }).link).not.toBe(false);
    for (const policy of [{ history: { size: 1, seconds: 1 } }, { presence: true }])
      expect(mistakes({ link: new Maker(), topics: { a: policy } })).toEqual([
        expect.stringMatching(/^link: carries messages between nodes, and has no place for what topics remember/),
      ]);
    expect(resolved({ link: new Maker(), topics: { a: { authorize: () => true } } }).link).not.toBe(false);
    expect(mistakes({ link: new Maker(), redis: 'redis://a' })).toEqual([
      'link: does not go with redis, since one of them joins nodes; remove one of them',
    ]);
  });

  test('that is none is refused, with what to write', () => {
    const instead = 'write false, or a link such as natsLink({ servers: [...] }); docs/nodes.md says how to make one';
    expect(mistakes({ link: 'nats://a' })).toEqual([`link: is "nats://a"; ${instead}`]);
    expect(mistakes({ link: {} })).toEqual(['link.create: is undefined; write a function create(context) that returns a NodeLink']);
    expect(mistakes({ link: { create: () => ({}), linger: -1, required: 'yes' } })).toEqual([
      'link.linger: is -1; write a number of seconds from 0 to 3600',
      'link.required: is "yes"; write true or false',
    ]);
  });
});
