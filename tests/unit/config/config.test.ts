import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { z } from 'zod';
import { defineGateway, type FetchEnv, type GatewayConfig, type TlsOptions } from '../../../src/api/define.ts';
import { ConfigError } from '../../../src/config/config-error.ts';
import { defaults, listenersMax, ranges, websocketRoutesMax } from '../../../src/config/defaults.ts';
import { pathText } from '../../../src/config/mistakes.ts';
import { type Environment, resolveConfig } from '../../../src/config/resolve.ts';
import type { gatewaySchema } from '../../../src/config/schema.ts';
import { editDistance, nearest } from '../../../src/config/suggest.ts';
import { compressionDefaults, websocketDefaults } from '../../../src/config/websocket-options.ts';

const ok = () => new Response('ok');

function mistakes(config: unknown, env: Environment = {}): readonly string[] {
  try {
    resolveConfig(config, env);
  } catch (error) {
    if (error instanceof ConfigError) return error.mistakes;
    throw error;
  }
  return [];
}

/** Without readonly and optional, which zod cannot express in the same way; functions are left as they are. */
// biome-ignore lint/suspicious/noExplicitAny: stands for every function
type Plain<T> = T extends (...args: any[]) => unknown
  ? T
  : T extends readonly (infer Item)[]
    ? Plain<Item>[]
    : T extends object
      ? { -readonly [Name in keyof T]-?: Plain<Exclude<T[Name], undefined>> }
      : T;
type Mutual<A, B> = [A] extends [B] ? ([B] extends [A] ? true : false) : false;
type Names<T> = { [Name in keyof T]-?: Exclude<T[Name], undefined> extends readonly unknown[] ? 0 : keyof Exclude<T[Name], undefined> };

describe('types', () => {
  test('the schema accepts what the type GatewayConfig promises, and nothing else', () => {
    type Input = z.input<typeof gatewaySchema>;
    type Checked = Exclude<keyof GatewayConfig, 'fetch' | 'websocket'>;
    const sameOptions: Mutual<keyof Input, keyof GatewayConfig> = true;
    const sameValues: Mutual<Plain<Pick<Input, Checked>>, Plain<Pick<GatewayConfig, Checked>>> = true;
    const sameNames: Mutual<
      Names<Pick<Input, 'http' | 'limits' | 'trustedProxies' | 'io' | 'drain' | 'log'>>,
      Names<Pick<GatewayConfig, 'http' | 'limits' | 'trustedProxies' | 'io' | 'drain' | 'log'>>
    > = true;
    type Entry<T> = Exclude<NonNullable<T>[keyof NonNullable<T>], undefined>;
    type Presence<T extends { presence?: unknown }> = Names<Exclude<T['presence'], boolean | undefined>>;
    const samePolicy: Mutual<Names<Entry<Input['topics']>>, Names<Entry<GatewayConfig['topics']>>> = true;
    const samePresence: Mutual<Presence<Entry<Input['topics']>>, Presence<Entry<GatewayConfig['topics']>>> = true;
    const sameStream: Mutual<Names<Entry<Input['sse']>>, Names<Entry<GatewayConfig['sse']>>> = true;
    type Handler = NonNullable<GatewayConfig['websocket']>[string];
    const sameHandler: Mutual<keyof NonNullable<Input['websocket']>[string], keyof Handler> = true;
    expect([sameOptions, sameValues, sameNames, sameHandler, samePolicy, samePresence, sameStream]).toEqual(Array(7).fill(true));
  });

  test('defineGateway returns its argument itself', () => {
    const config = { fetch: ok };
    expect(defineGateway(config)).toBe(config);
  });
});

describe('defaults', () => {
  test('a config with only a fetch handler gets every default', () => {
    const config = resolveConfig({ fetch: ok }, {});
    expect(config.listen).toEqual([
      {
        kind: 'tcp',
        host: '::',
        hostWithoutIpv6: '0.0.0.0',
        port: 8080,
        ipv6Only: false,
        backlog: 4096,
        tls: undefined,
        proxyProtocol: false,
      },
    ]);
    expect(config.admin).toEqual({ kind: 'tcp', host: '127.0.0.1', port: 9100, token: undefined });
    expect(config.workers).toBe('auto');
    expect(config.http).toEqual(defaults.http);
    expect(config.io).toEqual(defaults.io);
    expect(config.drain).toEqual({ delay: 'auto', timeout: 30, closeCode: 1001 });
    expect([config.drain.timeout, config.affinity, config.log.level, config.limits.maxConnections]).toEqual([30, true, 'info', 1048576]);
  });

  test('an option written as undefined is left to its default', () => {
    const config = resolveConfig(
      { fetch: ok, http: { headTimeout: undefined }, io: { sqpoll: { cpu: undefined } }, listen: undefined },
      {},
    );
    expect(config.http.headTimeout).toBe(10);
    expect(config.io.sqpoll).toEqual({ cpu: undefined, idleMs: 1000 });
  });

  test('every number in a @default tag is the one in defaults.ts', () => {
    // Names that stand in two groups have two values.
    const flat = new Map<string, unknown[]>();
    for (const group of [
      defaults.listen,
      defaults.tls,
      defaults.http,
      defaults.limits,
      defaults.io,
      defaults.sqpoll,
      defaults.drain,
      { hangTimeout: defaults.hangTimeout },
      websocketDefaults,
      compressionDefaults,
      defaults.redis,
      defaults.topicPresence,
      defaults.sse,
      defaults.auth,
      defaults.jwt,
      defaults.jwks,
    ])
      for (const [name, value] of Object.entries(group)) flat.set(name, [...(flat.get(name) ?? []), value]);
    let compared = 0;
    for (const file of ['api/define.ts', 'api/websocket.ts', 'api/topic-policy.ts']) {
      const source = readFileSync(new URL(`../../../src/${file}`, import.meta.url), 'utf8');
      for (const [, value, name = ''] of source.matchAll(/@default (\d+)(?:, or [^*]*)?[\s*]*\/\s*(\w+)\?:/g)) {
        expect([name, flat.get(name)?.includes(Number(value))]).toEqual([name, true]);
        compared += 1;
      }
    }
    expect(compared).toBeGreaterThan(20);
  });

  test('defaults and bounds are those of the core', () => {
    const header = readFileSync(new URL('../../../ffi/core/base/limits.h', import.meta.url), 'utf8');
    const limit = (name: string): number => {
      const text = new RegExp(`#define RW_${name} (?:\\()?(?:\\(uint64_t\\))?(\\d+)u?(?: << (\\d+))?`).exec(header);
      return Number(text?.[1]) * 2 ** Number(text?.[2] ?? 0);
    };
    const { http, limits, io } = defaults;
    const milliseconds = [http.headTimeout, http.bodyTimeout, http.keepAliveTimeout, http.writeTimeout, http.lingerTimeout].map(
      (time) => time * 1000,
    );
    expect(milliseconds).toEqual(['HEAD', 'BODY', 'KEEP_ALIVE', 'WRITE', 'LINGER'].map((name) => limit(`${name}_TIMEOUT_MS_DEFAULT`)));
    const counts = [
      http.maxHeadBytes,
      http.maxTargetBytes,
      http.maxHeaders,
      http.maxBodyBytes,
      http.bodyWindowBytes,
      http.responseHighWaterBytes,
    ];
    const names = ['HEAD_BYTES', 'TARGET_BYTES', 'HEADER_COUNT', 'BODY_BYTES', 'BODY_WINDOW_BYTES', 'RESPONSE_HIGH_WATER_BYTES'];
    expect(counts).toEqual(names.map((name) => limit(`${name}_DEFAULT`)));
    expect([limits.maxConnections, io.ringEntries, io.receiveBuffers, io.receiveBufferBytes]).toEqual(
      ['CONNECTIONS', 'RING_ENTRIES', 'RECV_BUFFERS', 'RECV_BUFFER_BYTES'].map((name) => limit(`${name}_DEFAULT`)),
    );
    expect([
      ranges.connections[1],
      ranges.headBytes[1],
      ranges.headers[1],
      ranges.workers[1] * 2,
      listenersMax,
      websocketRoutesMax + 1,
    ]).toEqual(['CONNECTIONS', 'HEAD_BYTES', 'HEADER_COUNT', 'WORKERS', 'LISTENERS', 'BEHAVIORS'].map((name) => limit(`${name}_MAX`)));
  });

  test('memory of topics is within what the core can lay out', () => {
    const header = readFileSync(new URL('../../../ffi/core/state/arena.h', import.meta.url), 'utf8');
    const bytes = [...header.matchAll(/RW_STATE_BYTES_(?:MIN|MAX) \(\(uint64_t\)(\d+) << (\d+)\)/g)];
    expect(bytes.map(([, mantissa, shift]) => Number(mantissa) * 2 ** Number(shift))).toEqual([...ranges.topicMemoryBytes]);
  });

  test('pings come often enough for a short idle timeout', () => {
    const [route] = resolveConfig({ websocket: { '/': { idleTimeout: 10 } } }, {}).websocket;
    expect(route?.settings).toMatchObject({ idleTimeout: 10, pingInterval: 5, maxPayloadBytes: 1048576, origins: 'any', protocols: [] });
  });

  test('a target may by default not be longer than the whole head', () => {
    expect(resolveConfig({ fetch: ok, http: { maxHeadBytes: 4096 } }, {}).http.maxTargetBytes).toBe(4096);
  });
});

describe('environment', () => {
  test('PORT, ADMIN_PORT and WORKERS apply where the config is silent', () => {
    const config = resolveConfig({ fetch: ok, listen: { host: '127.0.0.1' } }, { PORT: '3000', ADMIN_PORT: '0', WORKERS: '3' });
    expect(config.listen[0]).toMatchObject({ host: '127.0.0.1', port: 3000, hostWithoutIpv6: undefined });
    expect(config.admin).toMatchObject({ port: 0 });
    expect(config.workers).toBe(3);
  });

  test('ADMIN_HOST says where the admin listener is, when it is an address and the config is silent', () => {
    const host = (config: object, value: string) => resolveConfig({ fetch: ok, ...config }, { ADMIN_HOST: value }).admin;
    expect(host({}, ' 0.0.0.0 ')).toMatchObject({ kind: 'tcp', host: '0.0.0.0', port: 9100 });
    expect(host({}, '')).toMatchObject({ host: '127.0.0.1' });
    expect(host({ admin: { host: '::1' } }, 'x')).toMatchObject({ host: '::1' });
    expect(host({ admin: { unix: '/run/admin.sock' } }, 'x')).toMatchObject({ kind: 'unix' });
    expect(mistakes({ fetch: ok }, { ADMIN_HOST: 'localhost' })).toEqual([
      'env ADMIN_HOST: is "localhost"; write an IPv4 or IPv6 address, or unset it',
    ]);
  });

  test('the config wins over the environment, whose value is then not judged', () => {
    const config = resolveConfig(
      { fetch: ok, listen: 4000, admin: false, workers: 1 },
      { PORT: 'tcp://10.0.0.1:80', ADMIN_PORT: 'x', WORKERS: '-1' },
    );
    expect([config.listen[0], config.admin, config.workers]).toMatchObject([{ port: 4000 }, false, 1]);
  });

  test('wrong and empty values', () => {
    expect(mistakes({ fetch: ok }, { PORT: 'abc', ADMIN_PORT: '65536', WORKERS: 'many' })).toEqual([
      'env PORT: is "abc"; write an integer from 0 to 65535, or unset it',
      'env ADMIN_PORT: is "65536"; write an integer from 0 to 65535, or unset it',
      `env WORKERS: is "many"; write 'auto' or an integer from 1 to 256, or unset it`,
    ]);
    expect(mistakes({ fetch: ok }, { PORT: '', ADMIN_PORT: ' ', WORKERS: 'auto' })).toEqual([]);
  });
});

describe('mistakes', () => {
  test('all are reported at once, each with its path and what to write', () => {
    const config = {
      listen: [8080, 99999, { prot: 1, host: 'localhost' }, 'x'],
      port: 3,
      workers: 1.5,
      fetch: 3,
      http: { headTimout: 3, maxHeaders: 'a', headTimeout: 0 },
      websocket: { chat: {}, '/a/:x': { onmessage() {}, open: 3, origins: ['https://a.b/'] }, '/a/:y': {} },
      io: { sqpoll: true, ringEntries: 100 },
      affinity: 'yes',
      drain: 5,
    };
    expect(mistakes(config, { ADMIN_PORT: 'abc' })).toEqual([
      'listen[1]: is 99999; write an integer from 0 to 65535',
      `listen[2].host: is "localhost", which can be two addresses; write '127.0.0.1' or '::1', or list both`,
      'listen[2].prot: is not an option; did you mean port?',
      `listen[3]: is "x"; write a port such as 8080, or an address such as { port: 8080, host: '127.0.0.1' }`,
      `workers: is 1.5; write 'auto' or an integer from 1 to 256`,
      'fetch: is 3; write a function (request) => Response, or a Hono app',
      `websocket['/a/:x'].open: is 3; write a function open(...) { ... }`,
      `websocket['/a/:x'].origins[0]: is "https://a.b/"; write 'https://a.b'`,
      'http.headTimeout: is 0; write a number of seconds from 0.1 to 86400',
      'http.maxHeaders: is "a"; write an integer from 1 to 256',
      'http.headTimout: is not an option; did you mean headTimeout?',
      'io.ringEntries: is 100; write a power of two from 16 to 32768',
      'io.sqpoll: is true; write false, or an object such as { idleMs: 1000 }',
      'drain: is 5; write an object such as { delay: ... }',
      'affinity: is "yes"; write true or false',
      'port: is not an option; write listen: { port }',
      'env ADMIN_PORT: is "abc"; write an integer from 0 to 65535, or unset it',
      `websocket['/a/:x'].onmessage: is not an option of a WebSocket handler; did you mean message?`,
      `websocket.chat: the pattern does not begin with a slash; write '/chat'`,
      `websocket['/a/:y']: matches the same paths as '/a/:x'; remove one of them`,
    ]);
  });

  const cases: readonly (readonly [string, unknown, string])[] = [
    ['nothing to answer with', {}, 'the config answers nothing: it has neither fetch nor websocket; write at least one of them'],
    [
      'the same address twice',
      { listen: [80, { port: 80, host: '::' }], fetch: ok },
      'listen[1]: is the same address as listen[0] (:: port 80); remove one of them',
    ],
    [
      'the same Unix socket twice',
      { listen: [{ unix: '/a' }, { unix: '/a' }], fetch: ok },
      'listen[1]: is the same address as listen[0] (/a); remove one of them',
    ],
    ...[1000, 1002, 1005, 1006, 1011, 1015, 2999, 5000, 3000.5, '1001'].map(
      (closeCode) =>
        [
          `a drain that closes with ${JSON.stringify(closeCode)}`,
          { drain: { closeCode }, fetch: ok },
          `drain.closeCode: is ${JSON.stringify(closeCode)}; write 1001, 1012, 1013 or an integer from 3000 to 4999`,
        ] as const,
    ),
    [
      'a drain that begins too late',
      { drain: { delay: 3601 }, fetch: ok },
      "drain.delay: is 3601; write 'auto' or a number of seconds from 0 to 3600",
    ],
    ['no address', { listen: [], fetch: ok }, 'listen: is an empty list; write at least one port or address'],
    [
      'Unix and TCP at once',
      { listen: { unix: '/a', port: 1 }, fetch: ok },
      'listen.port: does not go with unix; remove it, or list two addresses',
    ],
    [
      'a mode in decimal digits',
      { listen: { unix: '/a', mode: 660 }, fetch: ok },
      'listen.mode: is 660; write a mode in octal, such as 0o660',
    ],
    ['a mode as text', { admin: { unix: '/a', mode: '0640' }, fetch: ok }, 'admin.mode: is "0640"; write a mode in octal, such as 0o640'],
    [
      'a group that can be none',
      { listen: { unix: '/a', group: '' }, fetch: ok },
      `listen.group: is ""; write the name of a group such as 'www-data', or its number`,
    ],
    [
      'a mode without a file',
      { listen: { port: 1, mode: 0o660 }, fetch: ok },
      'listen.mode: is of the file of a Unix socket; remove it, or write unix',
    ],
    [
      'a group of an abstract socket',
      { listen: { unix: '@a', group: 1 }, fetch: ok },
      'listen.group: does not go with an abstract socket, which has no file; remove it, or write a path',
    ],
    [
      'a socket path that is too long',
      { listen: { unix: `/${'a'.repeat(107)}` }, fetch: ok },
      'listen.unix: is longer than a socket path can be; write one of at most 107 bytes',
    ],
    [
      'an address in brackets',
      { listen: { host: '[::1]' }, fetch: ok },
      `listen.host: is "[::1]", which is not an IP address; write '::1'`,
    ],
    [
      'IPv6 only on IPv4',
      { listen: { host: '0.0.0.0', ipv6Only: true }, fetch: ok },
      'listen.ipv6Only: does not go with the IPv4 address 0.0.0.0; remove it',
    ],
    [
      'the admin port in public',
      { listen: 9100, fetch: ok },
      'admin.port: is 9100, which is also a port to listen on; write another one for either (env ADMIN_PORT, env PORT)',
    ],
    ['a fraction', { http: { maxHeaders: 1.5 }, fetch: ok }, 'http.maxHeaders: is 1.5; write an integer from 1 to 256'],
    [
      'not a number',
      { http: { bodyTimeout: Number.NaN }, fetch: ok },
      'http.bodyTimeout: is NaN; write a number of seconds from 0.1 to 86400',
    ],
    [
      'a target longer than the head',
      { http: { maxHeadBytes: 1024, maxTargetBytes: 2048 }, fetch: ok },
      'http.maxTargetBytes: is 2048, more than maxHeadBytes (1024); write at most that',
    ],
    [
      'SQPOLL without io_uring',
      { io: { backend: 'epoll', sqpoll: {} }, fetch: ok },
      `io.sqpoll: is a feature of io_uring; remove it, or write backend: 'io_uring'`,
    ],
    [
      'an unknown word',
      { log: { level: 'verbose' }, fetch: ok },
      `log.level: is "verbose"; write 'trace' or 'debug' or 'info' or 'warn' or 'error' or 'fatal' or 'silent'`,
    ],
    [
      'a subprotocol with a space',
      { websocket: { '/': { protocols: ['a b'] } } },
      `websocket['/'].protocols[0]: is "a b"; write a name without spaces and separators, such as 'graphql-transport-ws'`,
    ],
    [
      'pings after the idle timeout',
      { websocket: { '/': { idleTimeout: 20, pingInterval: 20 } } },
      `websocket['/'].pingInterval: is 20, but the connection is given up after idleTimeout (20); write less than that`,
    ],
    [
      'a handler that is a function',
      { websocket: { '/': () => {} } },
      `websocket['/']: is a function; write a handler such as { message(socket, message) { ... } }`,
    ],
    [
      'compression of a strange kind',
      { websocket: { '/': { compression: 'gzip' } } },
      `websocket['/'].compression: is "gzip"; write true, false, or an object such as { minBytes: 1024 }`,
    ],
    [
      'a window size for shared windows',
      { websocket: { '/': { compression: { windowBits: 12 } } } },
      `websocket['/'].compression.windowBits: is for dedicated windows; remove it, or write window: 'dedicated'`,
    ],
    [
      'a window that zlib does not have',
      { websocket: { '/': { compression: { window: 'dedicated', windowBits: 8 } } } },
      `websocket['/'].compression.windowBits: is 8; write an integer from 9 to 15`,
    ],
    ['admin switched on with true', { admin: true, fetch: ok }, 'admin: is true; write false, or an object such as { port: 9100 }'],
    ['no object', 3, 'is 3; write an object such as { listen: ... }'],
  ];
  for (const [name, config, message] of cases) {
    test(name, () => expect(mistakes(config)).toEqual([message]));
  }

  test('a parameter as others write it is refused with what to write here', () => {
    for (const [pattern, ours] of [
      ['/room/{id}', '/room/:id'],
      ['/room/{id:[0-9]+}/{user}', '/room/:id/:user'],
      ['/room/[id]', '/room/:id'],
      ['/files/[...path]', '/files/*'],
      ['/room/<id>/x', '/room/:id/x'],
    ] as const)
      expect(() => resolveConfig({ websocket: { [pattern]: { message() {} } } }, {})).toThrow(`write '${ours}'`);
  });

  test('bad patterns of WebSocket routes', () => {
    const patterns = ['/a?b', '/a//b', '/:', '/:a-b', '/:a/:a', '/*/a', '/a*', '/a b', '*', '/*', '/ok/:name/*', '/room/'];
    const found = mistakes({ websocket: Object.fromEntries(patterns.map((pattern) => [pattern, {}])) });
    expect(found.map((line) => line.slice(0, line.indexOf(': ')))).toEqual(
      ['/a?b', '/a//b', '/:', '/:a-b', '/:a/:a', '/*/a', '/a*', '/a b', '/*'].map((pattern) => pathText(['websocket', pattern])),
    );
    expect(found[7]).toContain("percent-encode it, as in 'a%20b'");
  });

  test('one mistake is reported once', () => {
    expect(mistakes({ fetch: ok, workers: -1.5 })).toHaveLength(1);
    expect(
      mistakes({ fetch: ok, listen: [{}, {}, { host: '127.0.0.1' }] }, { PORT: 'x' }).filter((line) => line.startsWith('env')),
    ).toHaveLength(1);
  });
});

describe('compression', () => {
  const settingsOf = (compression: NonNullable<GatewayConfig['websocket']>[string]['compression']) =>
    resolveConfig({ websocket: { '/': { compression } } }, {}).websocket[0]?.settings.compression;

  test('is off unless asked for, and has defaults', () => {
    expect(settingsOf(undefined)).toBe(false);
    expect(settingsOf(false)).toBe(false);
    expect(settingsOf(true)).toEqual({ minBytes: 1024, window: 'shared', windowBits: 12 });
    expect(settingsOf({ minBytes: 0, window: 'dedicated' })).toEqual({ minBytes: 0, window: 'dedicated', windowBits: 12 });
  });
});

describe('tls', () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'ringway-config-'));
    for (const name of ['a.pem', 'a.key', 'b.pem', 'b.key']) writeFileSync(join(folder, name), 'PEM');
    mkdirSync(join(folder, 'folder'));
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  function tlsMistakes(tls: unknown): readonly string[] {
    try {
      resolveConfig({ fetch: ok, listen: { tls } }, {}, 'config', folder);
    } catch (error) {
      if (error instanceof ConfigError) return error.mistakes;
      throw error;
    }
    return [];
  }

  test('paths are relative to the config, versions are those of the protocol', () => {
    const tls: TlsOptions = {
      cert: 'a.pem',
      key: join(folder, 'a.key'),
      minVersion: 'TLSv1.3',
      serverNames: { '*.b.test': { cert: './b.pem', key: 'b.key', passphrase: 'secret' } },
    };
    const [address] = resolveConfig({ fetch: ok, listen: [{ port: 1, tls }] }, {}, 'config', folder).listen;
    expect(address?.tls).toMatchObject({
      path: ['listen', 0, 'tls'],
      files: { certFile: join(folder, 'a.pem'), keyFile: join(folder, 'a.key'), minVersion: 0x0304 },
      serverNames: [
        {
          name: '*.b.test',
          files: { certFile: join(folder, 'b.pem'), keyFile: join(folder, 'b.key'), passphrase: 'secret', minVersion: 0x0304 },
        },
      ],
      reloadInterval: 60,
    });
  });

  test('a server name is as its address, unless it says otherwise', () => {
    const own = { cert: 'b.pem', key: 'b.key' };
    const tls: TlsOptions = {
      ...{
        cert: 'a.pem',
        key: 'a.key',
        passphrase: 'of a',
        ca: 'a.pem',
        minVersion: 'TLSv1.3',
        ciphers: 'ECDHE+AESGCM',
        dhParams: 'a.pem',
      },
      serverNames: {
        'same.test': own,
        'open.test': { ...own, ca: false },
        'other.test': { ...own, ca: 'b.pem', minVersion: 'TLSv1.2', ciphers: 'ECDHE+CHACHA20', dhParams: 'b.pem' },
      },
    };
    const [address] = resolveConfig({ fetch: ok, listen: [{ port: 1, tls }] }, {}, 'config', folder).listen;
    const [a, b] = [join(folder, 'a.pem'), join(folder, 'b.pem')];
    const files = { certFile: b, keyFile: join(folder, 'b.key') };
    const shared = { ...files, caFile: a, minVersion: 0x0304, ciphers: 'ECDHE+AESGCM', dhParamsFile: a };
    expect(address?.tls?.serverNames.map((name) => name.files)).toEqual([
      shared,
      { ...shared, caFile: undefined },
      { ...files, caFile: b, minVersion: 0x0303, ciphers: 'ECDHE+CHACHA20', dhParamsFile: b },
    ]);
  });

  test('a name has a certificate for each kind of key, and what its authority says of each', () => {
    const tls: TlsOptions = {
      ...{ cert: ['a.pem', 'b.pem'], key: ['a.key', 'b.key'], passphrase: 'of both', ocsp: ['a.pem', 'b.pem'], ca: 'a.pem', crl: 'b.pem' },
      serverNames: { 'one.test': { cert: 'b.pem', key: 'b.key' }, 'own.test': { cert: 'b.pem', key: 'b.key', ca: 'b.pem' } },
    };
    const [address] = resolveConfig({ fetch: ok, listen: [{ port: 1, tls }] }, {}, 'config', folder).listen;
    const at = (name: string) => join(folder, name);
    const one = { certFile: at('a.pem'), keyFile: at('a.key'), ocspFile: at('a.pem'), passphrase: 'of both' };
    const also = { certFile: at('b.pem'), keyFile: at('b.key'), ocspFile: at('b.pem'), passphrase: 'of both' };
    expect(address?.tls?.files).toEqual({ ...one, also, caFile: at('a.pem'), crlFile: at('b.pem'), minVersion: 0x0303 });
    // What belongs to a certificate or to authorities does not go to those of a name.
    const own = { certFile: at('b.pem'), keyFile: at('b.key'), minVersion: 0x0303 };
    expect(address?.tls?.serverNames.map(({ files }) => files)).toEqual([
      { ...own, caFile: at('a.pem'), crlFile: at('b.pem') },
      { ...own, caFile: at('b.pem'), crlFile: undefined },
    ]);
    expect(tlsMistakes({ cert: ['a.pem', 'b.pem'], key: 'a.key', ocsp: 'a.pem', crl: 'a.pem' })).toEqual([
      'listen.tls.key: has 1 and cert 2; write one for each certificate, in the same order',
      'listen.tls.ocsp: has 1 and cert 2; write one for each certificate, in the same order',
      'listen.tls.crl: needs ca, the authorities of client certificates',
    ]);
    expect(tlsMistakes({ cert: ['a.pem', 'none.pem'], key: ['a.key', 'b.key'] })).toEqual([
      `listen.tls.cert[1]: there is no file ${folder}/none.pem; paths are relative to the config file`,
    ]);
  });

  test('every file that is not there is reported, with its path in the config', () => {
    expect(
      tlsMistakes({ cert: 'none.pem', key: 'folder', ca: 'a.pem/x', serverNames: { 'b.test': { cert: 'b.pem', key: 'none.key' } } }),
    ).toEqual([
      `listen.tls.cert: there is no file ${folder}/none.pem; paths are relative to the config file`,
      `listen.tls.key: ${folder}/folder is not a file; write the path of a PEM file`,
      `listen.tls.ca: there is no file ${folder}/a.pem/x; paths are relative to the config file`,
      `listen.tls.serverNames['b.test'].key: there is no file ${folder}/none.key; paths are relative to the config file`,
    ]);
  });

  test('options that are missing, misspelt, or of the wrong kind', () => {
    expect(
      tlsMistakes({ cert: '-----BEGIN CERTIFICATE-----', kye: 'a.key', minVersion: 'TLSv1.1', reloadInterval: -1, passphrase: 7 }),
    ).toEqual([
      "listen.tls.cert: is the text of a PEM file; write the path of the file, such as 'certificate.pem'",
      "listen.tls.key: is missing; write the path of a PEM file, such as 'key.pem'",
      'listen.tls.passphrase: is not a string; write the passphrase of the key',
      "listen.tls.minVersion: is \"TLSv1.1\"; write 'TLSv1.2' or 'TLSv1.3'",
      'listen.tls.reloadInterval: is -1; write a number of seconds from 0 to 86400 (0: never)',
      'listen.tls.kye: is not an option; did you mean key?',
    ]);
    expect(tlsMistakes(true)).toEqual(['listen.tls: is true; write an object such as { cert: ... }']);
    expect(tlsMistakes({ cert: 'a.pem', key: 'a.key', serverNames: { 'b.test': { cert: 'b.pem', key: 'b.key', cipher: 'x' } } })).toEqual([
      "listen.tls.serverNames['b.test'].cipher: is not an option; did you mean ciphers?",
    ]);
    expect(tlsMistakes({ cert: 'a.pem', key: 'a.key', ca: '-----BEGIN CERTIFICATE-----' })).toEqual([
      "listen.tls.ca: is the text of a PEM file; write the path of the file, such as 'ca.pem'",
    ]);
    const optional = { cert: 'b.pem', key: 'b.key', clientCertificate: 'optional' };
    expect(tlsMistakes({ ...optional, ca: 'a.pem', serverNames: { 'b.test': optional, 'c.test': { ...optional, ca: false } } })).toEqual([
      "listen.tls.serverNames['c.test'].clientCertificate: needs ca, the authorities of client certificates",
    ]);
    expect(tlsMistakes(optional)).toEqual(['listen.tls.clientCertificate: needs ca, the authorities of client certificates']);
    expect(tlsMistakes({ cert: 'a.pem', key: 'a.key', ca: true, dhParams: false })).toEqual([
      "listen.tls.ca: is true; write the path of a PEM file, such as 'ca.pem', or false",
      "listen.tls.dhParams: is false; write the path of a PEM file, such as 'dhparams.pem'",
    ]);
  });

  test('names that no client can ask for', () => {
    const files = { cert: 'b.pem', key: 'b.key' };
    const names = ['', 'a b', '*', 'a.*.test', 'a..test', 'https://a.test', `${'a'.repeat(254)}`, '[::1]'];
    const found = tlsMistakes({ cert: 'a.pem', key: 'a.key', serverNames: Object.fromEntries(names.map((name) => [name, files])) });
    expect(found).toHaveLength(names.length);
    for (const line of found) expect(line).toContain("is no server name; write one such as 'example.org' or '*.example.org'");
    expect(tlsMistakes({ cert: 'a.pem', key: 'a.key', serverNames: { 'A.test': files, 'a.TEST': files } })).toEqual([
      "listen.tls.serverNames['a.TEST']: is the same name as 'A.test'; remove one of them",
    ]);
  });
});

describe('handlers', () => {
  test('a Hono app is called as a method', async () => {
    const app = {
      greeting: 'hello',
      fetch() {
        return new Response(this.greeting);
      },
    };
    const response = await resolveConfig({ fetch: app }, {}).fetch?.(new Request('http://a/'), {} as FetchEnv);
    expect(await response?.text()).toBe('hello');
  });

  test('a WebSocket handler may be an instance of a class with fields of its own', () => {
    class Chat {
      rooms = new Map();
      message() {}
    }
    const chat = new Chat();
    expect(resolveConfig({ websocket: { '/chat': chat } }, {}).websocket[0]?.handler).toBe(chat);
  });
});

describe('did you mean', () => {
  test('distance counts swapped neighbours once', () => {
    expect(editDistance('prot', 'port')).toBe(1);
    expect(editDistance('', 'abc')).toBe(3);
    expect(editDistance('kitten', 'sitting')).toBe(3);
  });

  test('nothing is suggested for a word that is like none', () => {
    expect(nearest('zebra', ['port', 'host'])).toBeUndefined();
    expect(nearest('WORKERS', ['workers'])).toBe('workers');
    expect(nearest('onMessage', ['open', 'message'])).toBe('message');
    expect(nearest('timeout', ['headTimeout', 'maxHeaders'])).toBe('headTimeout');
    expect(nearest('maxPayload', ['upgrade', 'maxPayloadBytes', 'maxLifetime'])).toBe('maxPayloadBytes');
    expect(nearest('maxMessages', ['maxBytesPerSecond', 'maxMessagesPerSecond'])).toBe('maxMessagesPerSecond');
    expect(nearest('max', ['maxPayloadBytes'])).toBeUndefined();
  });
});
