/**
 * `redis`: which servers, how to speak with them, and what to do when they are gone.
 * Role: a part of resolve.ts. Used by pubsub/. Secrets stand in no message.
 */
import { resolve } from 'node:path';
import type { GatewayConfig, RedisOptions, RedisTlsOptions } from '../api/define.ts';
import { defaults } from './defaults.ts';
import { type Complain, fileProblem } from './tls.ts';

export interface RedisAddress {
  readonly host: string;
  readonly port: number;
}

/** Paths are absolute. */
export interface RedisTlsSettings {
  readonly caFile: string | undefined;
  readonly certFile: string | undefined;
  readonly keyFile: string | undefined;
  readonly serverName: string | undefined;
  readonly verify: boolean;
}

export interface RedisLogin {
  readonly username: string | undefined;
  readonly password: string | undefined;
}

export type RedisServers =
  | ({ readonly kind: 'standalone' } & (RedisAddress | { readonly path: string }))
  | {
      readonly kind: 'sentinel';
      readonly name: string;
      readonly nodes: readonly RedisAddress[];
      readonly login: RedisLogin;
      readonly tls: RedisTlsSettings | undefined;
    }
  | { readonly kind: 'cluster'; readonly nodes: readonly RedisAddress[] };

/** Times in seconds. */
export interface RedisSettings {
  readonly servers: RedisServers;
  readonly login: RedisLogin;
  readonly tls: RedisTlsSettings | undefined;
  readonly prefix: string;
  /** The first signs, each of them is believed; none: nothing is signed. */
  readonly signingKeys: readonly string[];
  readonly linger: number;
  readonly partitions: number;
  readonly probeInterval: number;
  readonly timeout: number;
  readonly outboxBytes: number;
  readonly onOutboxFull: 'drop-oldest' | 'drop-newest';
  readonly required: boolean;
}

interface ParsedUrl {
  readonly address: RedisAddress | { readonly path: string };
  readonly login: RedisLogin;
  readonly isTls: boolean;
}

/** `environmentUrl`: REDIS_URL, when it is set. `folder`: what paths are relative to. */
export function resolveRedis(
  redis: GatewayConfig['redis'],
  environmentUrl: string | undefined,
  folder: string,
  complain: Complain,
): false | RedisSettings {
  if (redis === false || (redis === undefined && environmentUrl === undefined)) return false;
  const options: RedisOptions = typeof redis === 'string' ? { url: redis } : (redis ?? {});
  const place = typeof redis === 'string' ? ['redis'] : ['redis', 'url'];
  const ways = (['url', 'sentinels', 'cluster'] as const).filter((name) => options[name] !== undefined);
  for (const name of ways.slice(1)) complain(['redis', name], `does not go with ${ways[0]}; remove one of them`);
  const parsed = parseServers(options, environmentUrl, place, complain);
  const isTls = options.tls === undefined ? parsed.isTls : options.tls !== false;
  const tls = isTls ? resolveTls(typeof options.tls === 'object' ? options.tls : {}, folder, complain) : undefined;
  const { redis: fallback } = defaults;
  const settings = {
    login: { username: options.username ?? parsed.login.username, password: options.password ?? parsed.login.password },
    tls,
    prefix: options.prefix ?? fallback.prefix,
    signingKeys: options.signingKey === undefined ? [] : [options.signingKey].flat(),
    linger: options.linger ?? fallback.linger,
    partitions: options.partitions ?? fallback.partitions,
    probeInterval: options.probeInterval ?? fallback.probeInterval,
    timeout: options.timeout ?? fallback.timeout,
    outboxBytes: options.outboxBytes ?? fallback.outboxBytes,
    onOutboxFull: options.onOutboxFull ?? fallback.onOutboxFull,
    required: options.required ?? fallback.required,
  };
  if (settings.timeout < settings.probeInterval)
    complain(['redis', 'timeout'], `is ${settings.timeout}, less than probeInterval (${settings.probeInterval}); write at least that much`);
  const { servers } = parsed;
  return {
    ...settings,
    servers: servers.kind === 'sentinel' ? { ...servers, tls: parsed.isTls ? (tls ?? plainTls) : undefined } : servers,
  };
}

/** Nothing of one's own: what the system trusts. */
const plainTls: RedisTlsSettings = {
  caFile: undefined,
  certFile: undefined,
  keyFile: undefined,
  serverName: undefined,
  verify: defaults.redisTls.verify,
};

const noLogin: RedisLogin = { username: undefined, password: undefined };

interface ParsedServers {
  readonly servers: RedisServers;
  readonly login: RedisLogin;
  readonly isTls: boolean;
}

function parseServers(
  options: RedisOptions,
  environmentUrl: string | undefined,
  place: readonly PropertyKey[],
  complain: Complain,
): ParsedServers {
  if (options.sentinels !== undefined) {
    const { name, nodes, username, password } = options.sentinels;
    const list = parseNodes(nodes, ['redis', 'sentinels', 'nodes'], defaults.redis.sentinelPort, complain);
    const login = { username: username ?? list.login.username, password: password ?? list.login.password };
    return { servers: { kind: 'sentinel', name, nodes: list.nodes, login, tls: undefined }, login: noLogin, isTls: list.isTls };
  }
  if (options.cluster !== undefined) {
    const list = parseNodes(options.cluster, ['redis', 'cluster'], defaults.redis.port, complain);
    return { servers: { kind: 'cluster', nodes: list.nodes }, login: list.login, isTls: list.isTls };
  }
  const written = options.url ?? environmentUrl;
  if (written === undefined) {
    complain(['redis'], 'does not say where Redis is; write url, sentinels or cluster, or set REDIS_URL');
    return { servers: { kind: 'standalone', host: '', port: 0 }, login: noLogin, isTls: false };
  }
  const parsed = parseUrl(written, defaults.redis.port);
  if (typeof parsed === 'string') {
    if (options.url === undefined) complain([], `env REDIS_URL: ${parsed}`);
    else complain(place, parsed);
    return { servers: { kind: 'standalone', host: '', port: 0 }, login: noLogin, isTls: false };
  }
  return { servers: { kind: 'standalone', ...parsed.address }, login: parsed.login, isTls: parsed.isTls };
}

function parseNodes(urls: readonly string[], path: readonly PropertyKey[], port: number, complain: Complain) {
  const parsed = urls.flatMap((url, index): (ParsedUrl & { readonly address: RedisAddress })[] => {
    const one = parseUrl(url, port);
    if (typeof one === 'string') complain([...path, index], one);
    else if ('path' in one.address) complain([...path, index], "is the path of a socket; write a URL such as 'redis://10.0.0.1:6379'");
    else return [{ ...one, address: one.address }];
    return [];
  });
  if (new Set(parsed.map(({ isTls }) => isTls)).size > 1) complain(path, 'mixes redis:// and rediss://; write one of them for all');
  return { nodes: parsed.map(({ address }) => address), login: parsed[0]?.login ?? noLogin, isTls: parsed[0]?.isTls ?? false };
}

/** ret: what it says, or what is wrong with it, without showing it: it may hold a password */
function parseUrl(written: string, fallbackPort: number): ParsedUrl | string {
  const wrong = "is not a URL of Redis; write one such as 'redis://127.0.0.1:6379' or 'rediss://user:password@redis.example.com:6380'";
  if (!URL.canParse(written)) return wrong;
  const url = new URL(written);
  const login = { username: decode(url.username), password: decode(url.password) };
  if (url.protocol === 'unix:')
    return url.pathname.length > 1 ? { address: { path: decode(url.pathname) ?? '' }, login, isTls: false } : wrong;
  if ((url.protocol !== 'redis:' && url.protocol !== 'rediss:') || url.hostname === '') return wrong;
  if (!/^\/?0?$/.test(url.pathname))
    return 'names a database, and messages know none: they go through all of them; remove what stands behind the port';
  const host = url.hostname.replace(/^\[(.*)\]$/, '$1');
  return { address: { host, port: url.port === '' ? fallbackPort : Number(url.port) }, login, isTls: url.protocol === 'rediss:' };
}

function decode(text: string): string | undefined {
  if (text === '') return undefined;
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function resolveTls(tls: RedisTlsOptions, folder: string, complain: Complain): RedisTlsSettings {
  const file = (name: 'ca' | 'cert' | 'key'): string | undefined => {
    const written = tls[name];
    if (written === undefined) return undefined;
    const absolute = resolve(folder, written);
    const problem = fileProblem(absolute);
    if (problem !== undefined) complain(['redis', 'tls', name], problem);
    return absolute;
  };
  if ((tls.cert === undefined) !== (tls.key === undefined))
    complain(['redis', 'tls'], `has ${tls.cert === undefined ? 'key and no cert' : 'cert and no key'}; write both`);
  return {
    caFile: file('ca'),
    certFile: file('cert'),
    keyFile: file('key'),
    serverName: tls.serverName,
    verify: tls.verify ?? defaults.redisTls.verify,
  };
}
