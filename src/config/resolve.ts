/**
 * From what a config says to what the gateway does: checks it, applies environment and defaults, normalizes.
 *
 * Role: the only maker of ResolvedConfig. Up: load.ts. Down: schema.ts (one value at a time), defaults.ts. All mistakes are
 * reported at once.
 */
import { isIP } from 'node:net';
import type {
  FetchApp,
  FetchEnv,
  FetchHandler,
  GatewayConfig,
  LimitOptions,
  ListenOptions,
  LogOptions,
  SqpollOptions,
} from '../api/define.ts';
import type { WebSocketHandler } from '../api/websocket.ts';
import { devVariable, portVariable } from '../process/boot.ts';
import { type AuthSettings, judgeRoutes, resolveAuth } from './auth.ts';
import { ConfigError } from './config-error.ts';
import { adminTokenLengthMin, defaults, groupSocketMode, listenersMax, ranges, websocketRoutesMax } from './defaults.ts';
import { type LinkSettings, resolveLink } from './link.ts';
import { type Mistake, mistakesOf, pathText } from './mistakes.ts';
import { patternShape } from './pattern.ts';
import { resolveTrustedProxies, type TrustedProxiesSettings } from './proxies.ts';
import { type RedisSettings, resolveRedis } from './redis.ts';
import { parsePattern } from './route-pattern.ts';
import { gatewaySchema, websocketMembers } from './schema.ts';
import { show } from './show.ts';
import { resolveTls, type TlsSettings } from './tls.ts';
import { keepsState, refuseTokens, resolveSse, resolveTopics, type SseSettings, type TopicPolicySettings } from './topics.ts';
import { unknownKey } from './values.ts';
import { resolveWebSocketOptions, type WebSocketSettings } from './websocket-options.ts';

export interface TcpAddress {
  readonly kind: 'tcp';
  readonly host: string;
  /** What to use where the system has no IPv6; undefined: the config names the host, so it must work. */
  readonly hostWithoutIpv6: string | undefined;
  readonly port: number;
  readonly ipv6Only: boolean;
  readonly backlog: number;
  readonly tls: TlsSettings | undefined;
  readonly proxyProtocol: boolean;
}
/** Of a socket's file; undefined: as it is made. */
export interface UnixPermissions {
  readonly mode?: number | undefined;
  readonly group?: string | number | undefined;
}
export interface UnixAddress extends UnixPermissions {
  readonly kind: 'unix';
  readonly path: string;
  readonly backlog: number;
  readonly tls: TlsSettings | undefined;
  readonly proxyProtocol: boolean;
}
export type ListenAddress = TcpAddress | UnixAddress;
export type AdminAddress =
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number }
  | ({ readonly kind: 'unix'; readonly path: string } & UnixPermissions);
/** `token`: undefined: one is to be made. */
export type AdminSettings = AdminAddress & { readonly token: string | undefined };

export interface WebSocketRoute {
  readonly pattern: string;
  /** As given: call its functions as methods, it may be an instance of a class. */
  readonly handler: WebSocketHandler<unknown>;
  readonly settings: WebSocketSettings;
}

export type HttpSettings = { readonly [Name in keyof typeof defaults.http]: number };

export interface LogSettings {
  readonly level: NonNullable<LogOptions['level']>;
  readonly requests: boolean;
  /** In lower case. */
  readonly requestIdHeader: string | false;
}

export interface ResolvedConfig {
  readonly listen: readonly ListenAddress[];
  readonly admin: false | AdminSettings;
  readonly workers: 'auto' | number;
  readonly fetch: ((request: Request, env: FetchEnv) => Response | Promise<Response>) | undefined;
  /** What `fetch` was given as, when that is an application and no function. */
  readonly app: FetchApp | undefined;
  /** In the order of the config. */
  readonly websocket: readonly WebSocketRoute[];
  /** In the order of the config. */
  readonly topics: readonly TopicPolicySettings[];
  readonly sse: readonly SseSettings[];
  /** Times in seconds. */
  readonly http: HttpSettings;
  readonly limits: Readonly<Required<Defined<LimitOptions>>>;
  readonly auth: AuthSettings | undefined;
  readonly trustedProxies: TrustedProxiesSettings | undefined;
  readonly redis: false | RedisSettings;
  /** What joins nodes in its place; never with it. */
  readonly link: false | LinkSettings;
  readonly io: {
    readonly backend: 'auto' | 'io_uring' | 'epoll';
    readonly ringEntries: number;
    readonly receiveBuffers: number;
    readonly receiveBufferBytes: number;
    readonly sqpoll: false | { readonly cpu: number | undefined; readonly idleMs: number };
  };
  /** `delay`, `timeout`: seconds; 'auto': as long as whoever asks /readyz needs. `closeCode`: of WebSockets, RFC 6455 §7.4. */
  readonly drain: { readonly delay: 'auto' | number; readonly timeout: number; readonly closeCode: number };
  /** Seconds; 0: never. */
  readonly hangTimeout: number;
  readonly affinity: boolean;
  readonly onStart: GatewayConfig['onStart'];
  readonly onStop: GatewayConfig['onStop'];
  readonly log: LogSettings;
  /** What is allowed, and ought to be otherwise: a line each. */
  readonly warnings: readonly string[];
}

export type Environment = Readonly<Record<string, string | undefined>>;

/**
 * Check `value` and fill in what it leaves open. `where` names the config in errors, `folder` is what paths in it are relative to.
 * Throws ConfigError with all mistakes.
 */
export function resolveConfig(value: unknown, env: Environment, where = 'config', folder = process.cwd()): ResolvedConfig {
  const parsed = gatewaySchema.safeParse(value);
  const mistakes = new Mistakes(parsed.success ? [] : mistakesOf(parsed.error.issues));
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new ConfigError(where, mistakes.lines());

  // What concerns several values is judged for the parts whose own values are sound, so that everything is said at once.
  const config = Object.fromEntries(Object.entries(value).filter(([key]) => !mistakes.concern(key))) as GatewayConfig;
  const environment = new EnvironmentValues(env, mistakes);
  const listen = mistakes.concern('listen') ? [] : resolveListen(config.listen, { environment, folder, mistakes });
  const admin = mistakes.concern('admin') ? false : resolveAdmin(config.admin, environment, mistakes);
  const workers = mistakes.concern('workers') ? 'auto' : (config.workers ?? environment.workers());
  checkAdminApart(listen, admin, mistakes);
  checkWebSocketMembers('websocket' in value ? value.websocket : undefined, mistakes);
  const websocket = mistakes.concern('websocket') ? [] : resolveWebSocket(config.websocket ?? {}, mistakes);
  const http = resolveHttp(config.http, mistakes);
  const io = resolveIo(config.io, mistakes);
  const complain = mistakes.add.bind(mistakes);
  const topics = mistakes.concern('topics') ? [] : resolveTopics(config.topics ?? {}, complain);
  const sse = mistakes.concern('sse') ? [] : resolveSse(config.sse ?? {}, complain);
  const warnings = new Mistakes([]);
  const warn = warnings.add.bind(warnings);
  const auth = mistakes.concern('auth') ? undefined : resolveAuth(config.auth, { folder, complain, warn });
  if (!mistakes.concern('auth') && !mistakes.concern('websocket')) judgeRoutes(websocket, config.auth, { complain, warn });
  if (!mistakes.concern('auth') && auth === undefined) refuseTokens(topics, complain);
  const trustedProxies = config.trustedProxies === undefined ? undefined : resolveTrustedProxies(config.trustedProxies, complain);
  const link = mistakes.concern('link') ? false : resolveLink(config, complain);
  if (link !== false && keepsState(topics))
    complain(
      ['link'],
      'carries messages between nodes, and has no place for what topics remember, which would differ from node to node; write redis in its place, or remove history and presence from topics',
    );
  const redisUrl = link === false ? environment.text('REDIS_URL') : undefined;
  const redis = mistakes.concern('redis') ? false : resolveRedis(config.redis, redisUrl, folder, complain);
  const has = (name: 'fetch' | 'websocket' | 'sse') => (value as GatewayConfig)[name] !== undefined;
  if (!has('fetch') && !has('websocket') && !has('sse')) {
    mistakes.add([], 'the config answers nothing: it has neither fetch nor websocket; write at least one of them');
  }
  if (mistakes.count > 0) throw new ConfigError(where, mistakes.lines());

  return {
    listen,
    admin,
    workers,
    fetch: resolveFetch(config.fetch),
    app: typeof config.fetch === 'object' ? config.fetch : undefined,
    websocket,
    topics,
    sse,
    http,
    limits: { ...defaults.limits, ...definedOf(config.limits) },
    auth,
    trustedProxies,
    redis,
    link,
    io,
    drain: { ...defaults.drain, ...definedOf(config.drain) },
    hangTimeout: config.hangTimeout ?? defaults.hangTimeout,
    affinity: config.affinity ?? defaults.affinity,
    onStart: config.onStart?.bind(config),
    onStop: config.onStop?.bind(config),
    log: resolveLog(config.log, environment),
    warnings: warnings.lines(),
  };
}

class Mistakes {
  readonly #found: Mistake[];
  constructor(found: Mistake[]) {
    this.#found = found;
  }
  get count(): number {
    return this.#found.length;
  }
  add(path: readonly PropertyKey[], message: string): void {
    this.#found.push({ path, message });
  }
  /** Whether anything within this option is wrong. */
  concern(option: string): boolean {
    return this.#found.some((mistake) => mistake.path[0] === option);
  }
  lines(): string[] {
    const lines = this.#found.map(({ path, message }) => (path.length === 0 ? message : `${pathText(path)}: ${message}`));
    return [...new Set(lines)];
  }
}

/** Values from the environment. Each is judged only where the config leaves it to the environment. */
class EnvironmentValues {
  readonly #env: Environment;
  readonly #mistakes: Mistakes;
  constructor(env: Environment, mistakes: Mistakes) {
    this.#env = env;
    this.#mistakes = mistakes;
  }
  port(name: 'PORT' | 'ADMIN_PORT', fallback: number): number {
    return this.#read(name, ranges.port, '') ?? fallback;
  }
  workers(): 'auto' | number {
    if (this.#env.WORKERS?.trim() === 'auto') return 'auto';
    return this.#read('WORKERS', ranges.workers, "'auto' or ") ?? defaults.workers;
  }
  /** Of the first address with a port, whatever the config says. */
  forcedPort(): number | undefined {
    return this.#read(portVariable, ranges.port, '');
  }
  isDev(): boolean {
    return this.#env[devVariable] !== undefined;
  }
  text(name: 'REDIS_URL' | 'ADMIN_HOST' | 'ADMIN_TOKEN'): string | undefined {
    return this.#env[name]?.trim() || undefined;
  }
  adminHost(): string {
    const address = this.text('ADMIN_HOST');
    if (address === undefined || isIP(address) !== 0) return address ?? defaults.admin.host;
    this.#mistakes.add([], `env ADMIN_HOST: is ${show(address)}; write an IPv4 or IPv6 address, or unset it`);
    return defaults.admin.host;
  }
  /** Its value stands in no message: it is a secret. */
  adminToken(): string | undefined {
    const token = this.text('ADMIN_TOKEN');
    if (token === undefined) return undefined;
    if (token.length >= adminTokenLengthMin && /^[\x21-\x7e]+$/.test(token)) return token;
    this.#mistakes.add(
      [],
      `env ADMIN_TOKEN: is no safe token; write at least ${adminTokenLengthMin} letters, digits and signs, or unset it`,
    );
    return undefined;
  }
  #read(name: string, [least, most]: readonly [number, number], also: string): number | undefined {
    const text = this.#env[name]?.trim();
    if (text === undefined || text === '') return undefined;
    const number = Number(text);
    if (/^\d+$/.test(text) && number >= least && number <= most) return number;
    this.#mistakes.add([], `env ${name}: is ${show(text)}; write ${also}an integer from ${least} to ${most}, or unset it`);
    return undefined;
  }
}

type Listen = GatewayConfig['listen'];

/** What values are resolved with. */
interface Context {
  readonly environment: EnvironmentValues;
  readonly folder: string;
  readonly mistakes: Mistakes;
}

function resolveListen(listen: Listen, context: Context): ListenAddress[] {
  const { mistakes } = context;
  const isList = Array.isArray(listen);
  const entries: readonly (number | ListenOptions)[] = isList ? listen : [(listen as number | ListenOptions | undefined) ?? {}];
  if (entries.length === 0) mistakes.add(['listen'], 'is an empty list; write at least one port or address');
  if (entries.length > listenersMax) mistakes.add(['listen'], `has ${entries.length} addresses; write at most ${listenersMax}`);
  const seen = new Map<string, string>();
  const port = context.environment.forcedPort();
  const forced = port === undefined ? -1 : entries.findIndex((entry) => typeof entry === 'number' || entry.unix === undefined);
  if (port !== undefined && forced < 0) mistakes.add(['listen'], 'has no address with a port, which --port is for; leave --port out');
  return entries.map((entry, index) => {
    const path = isList ? ['listen', index] : ['listen'];
    const options = { ...(typeof entry === 'number' ? { port: entry } : entry), ...(index === forced ? { port } : {}) };
    const address = resolveAddress(options, path, context);
    const key = address.kind === 'unix' ? address.path : `${address.host.toLowerCase()} port ${address.port}`;
    const earlier = seen.get(key);
    const isChosenBySystem = address.kind === 'tcp' && address.port === 0;
    if (earlier !== undefined && !isChosenBySystem) mistakes.add(path, `is the same address as ${earlier} (${key}); remove one of them`);
    seen.set(key, pathText(path));
    return address;
  });
}

function resolveAddress(entry: ListenOptions, path: readonly PropertyKey[], context: Context): ListenAddress {
  const { environment, folder, mistakes } = context;
  const backlog = entry.backlog ?? defaults.listen.backlog;
  const complain = mistakes.add.bind(mistakes);
  const proxyProtocol = entry.proxyProtocol ?? defaults.listen.proxyProtocol;
  const tls = entry.tls === undefined ? undefined : resolveTls(entry.tls, [...path, 'tls'], folder, complain);
  if (entry.unix !== undefined) {
    for (const name of ['port', 'host', 'ipv6Only'] as const) {
      if (entry[name] !== undefined) mistakes.add([...path, name], 'does not go with unix; remove it, or list two addresses');
    }
    return { kind: 'unix', path: entry.unix, ...permissionsOf(entry, entry.unix, path, mistakes), backlog, tls, proxyProtocol };
  }
  refusePermissions(entry, path, mistakes);
  if (entry.ipv6Only === true && entry.host !== undefined && !entry.host.includes(':')) {
    mistakes.add([...path, 'ipv6Only'], `does not go with the IPv4 address ${entry.host}; remove it`);
  }
  const ipv6Only = entry.ipv6Only ?? defaults.listen.ipv6Only;
  return {
    kind: 'tcp',
    host: entry.host ?? defaults.listen.host,
    hostWithoutIpv6: entry.host === undefined && !ipv6Only ? defaults.listen.hostWithoutIpv6 : undefined,
    port: entry.port ?? environment.port('PORT', defaults.listen.port),
    ipv6Only,
    backlog,
    tls,
    proxyProtocol,
  };
}

type PermissionOptions = Pick<ListenOptions, 'mode' | 'group'>;
const permissionNames = ['mode', 'group'] as const;

/** ret: nothing where the config says nothing */
function permissionsOf(
  { mode, group }: PermissionOptions,
  unix: string,
  path: readonly PropertyKey[],
  mistakes: Mistakes,
): UnixPermissions {
  // unix(7): such a name lies in no folder, and anybody may connect to it.
  if (unix.startsWith('@'))
    refusePermissions(
      { mode, group },
      path,
      mistakes,
      'does not go with an abstract socket, which has no file; remove it, or write a path',
    );
  if (group === undefined) return mode === undefined ? {} : { mode };
  return { mode: mode ?? groupSocketMode, group };
}

function refusePermissions(
  options: PermissionOptions,
  path: readonly PropertyKey[],
  mistakes: Mistakes,
  why = 'is of the file of a Unix socket; remove it, or write unix',
): void {
  for (const name of permissionNames) if (options[name] !== undefined) mistakes.add([...path, name], why);
}

function resolveAdmin(admin: GatewayConfig['admin'], environment: EnvironmentValues, mistakes: Mistakes): false | AdminSettings {
  if (admin === false) return false;
  const token = admin?.token ?? environment.adminToken();
  if (admin?.unix !== undefined) {
    for (const name of ['port', 'host'] as const) {
      if (admin[name] !== undefined) mistakes.add(['admin', name], 'does not go with unix; remove one of them');
    }
    return { kind: 'unix', path: admin.unix, ...permissionsOf(admin, admin.unix, ['admin'], mistakes), token };
  }
  refusePermissions(admin ?? {}, ['admin'], mistakes);
  return {
    kind: 'tcp',
    host: admin?.host ?? environment.adminHost(),
    port: admin?.port ?? environment.port('ADMIN_PORT', defaults.admin.port),
    token,
  };
}

/** The admin listener must not be one of the public addresses, nor be covered by one that takes every address. */
function checkAdminApart(listen: readonly ListenAddress[], admin: false | AdminAddress, mistakes: Mistakes): void {
  if (admin === false) return;
  for (const address of listen) {
    if (admin.kind === 'unix' || address.kind === 'unix') {
      if (admin.kind === 'unix' && address.kind === 'unix' && admin.path === address.path)
        mistakes.add(['admin', 'unix'], `is also in listen (${admin.path}); write another path`);
      continue;
    }
    const wildcards = ['::', '0.0.0.0'];
    const overlap = address.host === admin.host || wildcards.includes(address.host) || wildcards.includes(admin.host);
    if (admin.port !== 0 && admin.port === address.port && overlap) {
      mistakes.add(
        ['admin', 'port'],
        `is ${admin.port}, which is also a port to listen on; write another one for either (env ADMIN_PORT, env PORT)`,
      );
      return;
    }
  }
}

function checkWebSocketMembers(websocket: unknown, mistakes: Mistakes): void {
  if (typeof websocket !== 'object' || websocket === null) return;
  for (const [pattern, handler] of Object.entries(websocket)) {
    if (typeof handler !== 'object' || handler === null || Object.getPrototypeOf(handler) !== Object.prototype) continue;
    for (const key of Object.keys(handler)) {
      if (!websocketMembers.includes(key))
        mistakes.add(['websocket', pattern, key], unknownKey(key, websocketMembers, 'option of a WebSocket handler'));
    }
  }
  checkPatterns(Object.keys(websocket), mistakes);
}

function checkPatterns(patterns: readonly string[], mistakes: Mistakes): void {
  if (patterns.length > websocketRoutesMax)
    mistakes.add(['websocket'], `has ${patterns.length} routes; write at most ${websocketRoutesMax}`);
  const seen = new Map<string, string>();
  for (const pattern of patterns) {
    const parsed = parsePattern(pattern);
    if ('problem' in parsed) {
      mistakes.add(['websocket', pattern], `the pattern ${parsed.problem}`);
      continue;
    }
    const shape = patternShape(parsed.segments);
    const earlier = seen.get(shape);
    if (earlier !== undefined) mistakes.add(['websocket', pattern], `matches the same paths as '${earlier}'; remove one of them`);
    seen.set(shape, pattern);
  }
}

function resolveWebSocket(websocket: NonNullable<GatewayConfig['websocket']>, mistakes: Mistakes): WebSocketRoute[] {
  return Object.entries(websocket).map(([pattern, handler]) => {
    const settings = resolveWebSocketOptions(handler, (path, message) => mistakes.add(['websocket', pattern, ...path], message));
    return { pattern, handler, settings };
  });
}

function resolveHttp(http: GatewayConfig['http'], mistakes: Mistakes): HttpSettings {
  const settings = { ...defaults.http, ...definedOf(http) };
  if (http?.maxTargetBytes === undefined) return { ...settings, maxTargetBytes: Math.min(settings.maxTargetBytes, settings.maxHeadBytes) };
  if (http.maxTargetBytes > settings.maxHeadBytes) {
    mistakes.add(
      ['http', 'maxTargetBytes'],
      `is ${http.maxTargetBytes}, more than maxHeadBytes (${settings.maxHeadBytes}); write at most that`,
    );
  }
  return settings;
}

function resolveIo(io: GatewayConfig['io'], mistakes: Mistakes): ResolvedConfig['io'] {
  if (io?.backend === 'epoll' && io.sqpoll)
    mistakes.add(['io', 'sqpoll'], "is a feature of io_uring; remove it, or write backend: 'io_uring'");
  const { sqpoll, ...rest } = { ...defaults.io, ...definedOf(io) };
  return { ...rest, sqpoll: sqpoll === false ? false : resolveSqpoll(sqpoll) };
}

function resolveLog(log: LogOptions | undefined, environment: EnvironmentValues): LogSettings {
  const settings = { ...defaults.log, requests: environment.isDev() || defaults.log.requests, ...definedOf(log) };
  const { requestIdHeader } = settings;
  return { ...settings, requestIdHeader: requestIdHeader === false ? false : requestIdHeader.toLowerCase() };
}

function resolveSqpoll(sqpoll: SqpollOptions): { cpu: number | undefined; idleMs: number } {
  return { ...defaults.sqpoll, ...definedOf(sqpoll) };
}

type Defined<Options> = { [Name in keyof Options]?: Exclude<Options[Name], undefined> };

/** Only the options that have a value: one written as undefined is left to its default. */
function definedOf<Options extends object>(options: Options | undefined): Defined<Options> {
  return Object.fromEntries(Object.entries(options ?? {}).filter(([, value]) => value !== undefined)) as Defined<Options>;
}

function resolveFetch(fetch: FetchHandler | FetchApp | undefined): ResolvedConfig['fetch'] {
  if (fetch === undefined || typeof fetch === 'function') return fetch;
  return (request, env) => fetch.fetch(request, env);
}
