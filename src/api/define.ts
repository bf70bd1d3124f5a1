/**
 * What may stand in gateway.config.ts: every option, its meaning and its default.
 *
 * Role: the types that people write against. Down: resolve.ts checks values against the same shape (a test keeps the two
 * equal), defaults.ts holds the numbers that the @default tags quote.
 */

import type { RingwayBindings } from './bindings.ts';
import type { Worker } from './lifecycle.ts';
import type { SseOptions, TopicPolicies } from './topic-policy.ts';
import type { TokenSource } from './user.ts';
import type { RouteParams, WebSocketHandler } from './websocket.ts';

/** What a `fetch` handler is given beside the request; Hono hands it on as `c.env`. */
export type FetchEnv = RingwayBindings;

/** Answers HTTP requests. One that throws is logged and answered with 500. */
export type FetchHandler = (request: Request, env: FetchEnv) => Response | Promise<Response>;

/** Anything with a `fetch` method, such as a Hono app. */
export interface FetchApp {
  // biome-ignore lint/suspicious/noExplicitAny: Hono types its second parameter by the bindings of each app
  fetch(request: Request, env: any): Response | Promise<Response>;
}

/**
 * A certificate and its key, and how TLS is spoken with those who are shown it. Files are PEM files, by paths relative to the config file.
 * What a server name does not say itself, but for `cert`, `key`, `passphrase` and `ocsp`, is as for the address; `crl` goes with `ca`.
 */
export interface CertificateOptions {
  /**
   * The certificate, followed by those that link it to its authority. A list: one for each kind of key (RSA, ECDSA), the client takes what it can
   * use.
   */
  cert: string | readonly string[];
  /** Its private key; a list when `cert` is one, in the same order. */
  key: string | readonly string[];
  /** Of the key, or the keys, when they are encrypted. */
  passphrase?: string | undefined;
  /** What the authority says of the certificate (OCSP, in DER form), sent to clients that ask; a list when `cert` is one. @default none */
  ocsp?: string | readonly string[] | undefined;
  /** Authorities: given, every client must show a certificate that one of them has signed. false: clients need none. @default false */
  ca?: string | false | undefined;
  /** With `ca`: lists of revoked certificates, from every authority of a chain. Once one has expired no client is let in. @default none */
  crl?: string | undefined;
  /** With `ca`: 'optional' serves clients without a certificate as well; one that is shown must be signed all the same. @default 'required' */
  clientCertificate?: 'required' | 'optional' | undefined;
  /** Least version of TLS. @default 'TLSv1.2' */
  minVersion?: 'TLSv1.2' | 'TLSv1.3' | undefined;
  /** Parameters for DHE key exchange, with TLS 1.2 only. @default only elliptic curves are spoken: X25519, P-256, P-384 */
  dhParams?: string | undefined;
  /** What is spoken with TLS 1.2, as a list of OpenSSL's. @default ciphers with forward secrecy and authenticated encryption */
  ciphers?: string | undefined;
}

/** TLS of one address: its files are read again when they change; no connection is closed for that. */
export interface TlsOptions extends CertificateOptions {
  /** Certificates for other names that clients may ask for (SNI): 'example.org', or '*.example.org' for one label. @default {} */
  serverNames?: Readonly<Record<string, CertificateOptions>> | undefined;
  /** Seconds between two looks whether a file has changed; 0: never. @default 60 */
  reloadInterval?: number | undefined;
}

/** One address to accept connections on: TCP (`port`, `host`) or a Unix socket (`unix`). */
export interface ListenOptions {
  /** TCP port; 0: the system chooses one. @default the environment variable PORT, else 8080 */
  port?: number | undefined;
  /**
   * IPv4 or IPv6 address.
   * @default '::', which takes IPv4 and IPv6; '0.0.0.0' where the system has no IPv6
   */
  host?: string | undefined;
  /** Path of a Unix socket, at most 107 bytes, instead of `port` and `host`. A stale socket file is replaced. */
  unix?: string | undefined;
  /**
   * Of the Unix socket's file: who may write to it may connect, such as 0o660 for this user and the group.
   * @default 0o660 where `group` is given, else what the umask leaves
   */
  mode?: number | undefined;
  /** Of the Unix socket's file: a name, such as 'www-data', or a number. @default that of this process */
  group?: string | number | undefined;
  /** With an IPv6 host: leave IPv4 to others. @default false */
  ipv6Only?: boolean | undefined;
  /** Connections that may wait to be accepted, for each worker; the system caps it (net.core.somaxconn). @default 4096 */
  backlog?: number | undefined;
  /** Speak TLS: https and wss. @default none */
  tls?: TlsOptions | undefined;
  /**
   * Connections begin with a header of the PROXY protocol, version 1 or 2, that tells the client's address. One without is refused, and
   * so is one of a peer that is not in `trustedProxies`, where that is given. @default false
   */
  proxyProtocol?: boolean | undefined;
}

/** Where health and metrics are served, and where messages may be published over HTTP. Keep it off public networks. */
export interface AdminOptions {
  /** TCP port; 0: the system chooses one. @default the environment variable ADMIN_PORT, else 9100 */
  port?: number | undefined;
  /** IPv4 or IPv6 address. @default the environment variable ADMIN_HOST, else '127.0.0.1' */
  host?: string | undefined;
  /** Path of a Unix socket, instead of `port` and `host`. */
  unix?: string | undefined;
  /** Of the Unix socket's file: who may write to it may connect. @default 0o660 where `group` is given, else what the umask leaves */
  mode?: number | undefined;
  /** Of the Unix socket's file: a name or a number. @default that of this process */
  group?: string | number | undefined;
  /**
   * What requests that change something (publish, reload) must show, as `Authorization: Bearer <token>`; 16 characters at least.
   * @default the environment variable ADMIN_TOKEN, else a random one in a file that only this user can read, for `ringway publish`
   */
  token?: string | undefined;
}

/** Limits and deadlines of HTTP. Times are in seconds. */
export interface HttpOptions {
  /** From the first byte of a request (or from accept) to the end of its head; then 408. @default 10 */
  headTimeout?: number | undefined;
  /** Between two parts of a request body; then 408. So does one of which less than 1 KiB comes in four times that. @default 30 */
  bodyTimeout?: number | undefined;
  /** How long an idle connection is kept open for the next request. @default 75 */
  keepAliveTimeout?: number | undefined;
  /** How long a client may take none of the bytes that wait for it; then the connection closes. @default 30 */
  writeTimeout?: number | undefined;
  /** How long to read on after the last response of a closing connection, so that the response arrives. @default 2 */
  lingerTimeout?: number | undefined;
  /**
   * What a client must read in a second on average of what is still on its way to it when its connection ends; then the connection is
   * reset. 0: no limit. @default 1024
   */
  minBytesPerSecond?: number | undefined;
  /** Longest request head; then 431. @default 16384 */
  maxHeadBytes?: number | undefined;
  /** Longest request target; then 414. @default 8192, or `maxHeadBytes` when that is less */
  maxTargetBytes?: number | undefined;
  /** Most header fields of a request; then 431. @default 100 */
  maxHeaders?: number | undefined;
  /** Longest request body; then 413. @default 67108864 */
  maxBodyBytes?: number | undefined;
  /** Bytes of a request body that may wait for the handler to read them; then TCP pushes back. @default 262144 */
  bodyWindowBytes?: number | undefined;
  /** Bytes of a streamed response that may wait for the client; then the stream pauses. @default 262144 */
  responseHighWaterBytes?: number | undefined;
}

export interface LimitOptions {
  /** Open connections of one worker; further ones are refused and counted. Memory is only touched as they come. @default 1048576 */
  maxConnections?: number | undefined;
  /**
   * Open connections of one client address (IPv6: of one /64) on this node; 0: no limit. Behind a trusted proxy WebSockets are counted,
   * by the address that the proxy tells. @default 0
   */
  maxConnectionsPerIp?: number | undefined;
  /** WebSocket handshakes that this node accepts in a second, each worker its share; further ones get 503. 0: no limit. @default 0 */
  upgradesPerSecond?: number | undefined;
  /**
   * Bytes that this node holds, each worker its share, of what clients have begun and not finished: heads, bodies that handlers read whole,
   * WebSocket messages. Past it, whoever asks for more is refused. 'auto': a quarter of the memory that the machine, or its cgroup, gives, and at
   * least 16 MiB a worker. @default 'auto'
   */
  maxUnfinishedBytes?: 'auto' | number | undefined;
  /**
   * Bytes that this node holds, each worker its share, of windows with which compressed messages are inflated: 40 KB for each WebSocket that sends
   * such messages and takes over from one to the next. When little is left, new WebSockets go without compression; past it one that begins to send
   * compressed messages is closed with 1013. 'auto': an eighth of the memory that the machine, or its cgroup, gives, and at least 4 MiB a worker.
   * @default 'auto'
   */
  maxInflateBytes?: 'auto' | number | undefined;
  /** Topics that one WebSocket may be subscribed to; further `subscribe` calls return false, and are counted. @default 1000 */
  maxTopicsPerSocket?: number | undefined;
  /** Topics that one worker has subscribers for; a `subscribe` to another one returns false, and is counted. @default 1048576 */
  maxTopics?: number | undefined;
  /**
   * Bytes of memory that the workers of this node share for what topics remember and who is on them; past it those that were not used for the longest time
   * are forgotten first. Taken at the start of the gateway, and touched as it is used. 'auto': an eighth of the memory that the machine, or its cgroup,
   * gives, at least 64 MiB and at most 1 GiB. @default 'auto'
   */
  maxTopicMemoryBytes?: 'auto' | number | undefined;
}

/** Proxies in front of the gateway that are believed about their clients' addresses. */
export interface TrustedProxiesOptions {
  /** Their addresses, or ranges such as '10.0.0.0/8'. */
  addresses: readonly string[];
  /**
   * The header in which they tell the client's address. It must be one that every one of them sets or extends: a header that they hand on
   * as it came is the client's own word. With it go the fields that tell the host that `origins: 'same-host'` compares: X-Forwarded-Host and
   * X-Forwarded-Port, or `host` in Forwarded. 'none': only the PROXY protocol is believed. @default 'x-forwarded-for'
   */
  header?: 'x-forwarded-for' | 'forwarded' | 'none' | undefined;
}

/** TLS to Redis. Files are PEM files, by paths relative to the config file. */
export interface RedisTlsOptions {
  /** Authorities that may have signed the server's certificate. @default those that the system trusts */
  ca?: string | undefined;
  /** A certificate to show to the server, with its `key`. */
  cert?: string | undefined;
  key?: string | undefined;
  /** The name that the server's certificate must have. @default the host that is connected to */
  serverName?: string | undefined;
  /** Refuse servers whose certificate is not in order. @default true */
  verify?: boolean | undefined;
}

/** A Redis primary that Sentinels know. */
export interface SentinelOptions {
  /** What the Sentinels call the group of servers, such as 'mymaster'. */
  name: string;
  /** The Sentinels: 'redis://host:26379', or 'rediss://' for TLS. */
  nodes: readonly string[];
  /** Of the Sentinels, when they ask for it; that of Redis is beside `sentinels`. */
  username?: string | undefined;
  password?: string | undefined;
}

/** Redis carries messages between nodes. One of `url`, `sentinels` and `cluster` says where it is. */
export interface RedisOptions {
  /** 'redis://user:password@host:6379', 'rediss://' for TLS, or 'unix:///path'. @default the environment variable REDIS_URL */
  url?: string | undefined;
  sentinels?: SentinelOptions | undefined;
  /** Some nodes of a Redis Cluster: 'redis://host:6379', or 'rediss://' for TLS. Needs Redis 7, for sharded pub/sub. */
  cluster?: readonly string[] | undefined;
  username?: string | undefined;
  password?: string | undefined;
  /** @default as the URLs say */
  tls?: boolean | RedisTlsOptions | undefined;
  /** What the names of all channels begin with. Gateways with different prefixes never see each other. @default 'ringway' */
  prefix?: string | undefined;
  /**
   * A secret that all nodes have, of 32 characters or more: messages are signed with it (HMAC-SHA-256), and those of others thrown away. Of a list the
   * first one signs, and each is believed, so that keys can be changed one node after the other. @default none: whoever may publish in Redis is believed
   */
  signingKey?: string | readonly string[] | undefined;
  /** Seconds that a subscription in Redis is kept after its last subscriber has left. @default 10 */
  linger?: number | undefined;
  /** Into how many hash slots a Cluster spreads the topics; the same on every node. @default 256 */
  partitions?: number | undefined;
  /** Seconds between two probes of each connection. @default 1 */
  probeInterval?: number | undefined;
  /** Seconds without an answer after which a connection is given up and made again. @default 3 */
  timeout?: number | undefined;
  /** Bytes that may wait in a worker while Redis cannot be reached. @default 16777216 */
  outboxBytes?: number | undefined;
  /** Which messages are dropped, and counted, when more wait. @default 'drop-oldest' */
  onOutboxFull?: 'drop-oldest' | 'drop-newest' | undefined;
  /** Whether /readyz says no while Redis cannot be reached; else it only tells, since messages within this node go on. @default false */
  required?: boolean | undefined;
}

/** A link of one's own, which joins nodes when Redis does not. Its `create` is typed by `NodeLink` and `LinkContext` of 'ringway/link'. */
export interface LinkOptions {
  /** Makes the link of one worker: called once in each, with a `LinkContext`; returns a `NodeLink`. */
  create(context: never): object;
  /** Seconds that a subscription is kept after its last subscriber has left. @default 10 */
  linger?: number | undefined;
  /** Whether /readyz says no while other nodes cannot be reached; else it only tells, since messages within this node go on. @default false */
  required?: boolean | undefined;
}

/** How tokens may be signed (RFC 7518 §3.1, RFC 8037 §3.1, RFC 9864 §2.2). */
export type JwtAlgorithm =
  | 'HS256'
  | 'HS384'
  | 'HS512'
  | 'RS256'
  | 'RS384'
  | 'RS512'
  | 'PS256'
  | 'PS384'
  | 'PS512'
  | 'ES256'
  | 'ES384'
  | 'ES512'
  | 'EdDSA'
  | 'Ed25519';

/** A public key: the path of a PEM file, relative to the config file; the text of one; or a JSON Web Key (RFC 7517). */
export type JwtKey = string | Readonly<Record<string, unknown>>;

/** Keys that an identity provider publishes (RFC 7517 §5). Times are in seconds. */
export interface JwksOptions {
  /** Such as 'https://login.example.com/.well-known/jwks.json'. */
  url: string;
  /** How old keys may be before they are fetched again, beside whatever they are used for. @default 600 */
  maxAge?: number | undefined;
  /** How long the last ones are believed while no others can be had; then nobody is let in. @default 86400 */
  maxStale?: number | undefined;
  /** Least time between two fetches that tokens with an unknown key ask for. @default 30 */
  cooldown?: number | undefined;
  /** For an answer. @default 5 */
  timeout?: number | undefined;
}

/** Whose tokens are believed: exactly one of `secret`, `keys` and `jwks`. */
export interface JwtOptions {
  /**
   * A secret that issuer and gateway share (HMAC), of 32 bytes or more. Of a list each is believed, and `ringway token` signs with the first, so that
   * secrets can be changed without a break.
   */
  secret?: string | readonly string[] | undefined;
  /** Public keys of the issuer. */
  keys?: JwtKey | readonly JwtKey[] | undefined;
  /** Where the issuer publishes its keys. */
  jwks?: string | JwksOptions | undefined;
  /** What the claim `iss` must be, or one of several. @default any, or none */
  issuer?: string | readonly string[] | undefined;
  /** What the claim `aud` must have, or one of several. @default any, or none */
  audience?: string | readonly string[] | undefined;
  /** How tokens may be signed. @default ['HS256'] with `secret`, else whatever suits the kind of each key */
  algorithms?: readonly JwtAlgorithm[] | undefined;
  /** Seconds by which the clocks of issuer and gateway may differ. @default 5 */
  clockTolerance?: number | undefined;
  /** Refuse tokens without `exp`: they would be good for ever. @default true */
  requireExpiry?: boolean | undefined;
}

/** Who may connect: whoever has a token of an issuer that is believed. Times are in seconds. */
export interface AuthOptions {
  jwt: JwtOptions;
  /**
   * Where tokens are taken from; the first that there is counts. Routes may say otherwise.
   * @default ['header', 'subprotocol'], with 'cookie' where `cookie` is given, and 'query' where `query` is
   */
  from?: readonly TokenSource[] | undefined;
  /** The name of a cookie with a token. @default none */
  cookie?: string | undefined;
  /**
   * What stands before the token, and a dot, in a subprotocol: `new WebSocket(url, ['token', 'token.' + token])`. The name alone is what is agreed on
   * where no other is; a token never is. @default 'token'
   */
  subprotocol?: string | undefined;
  /**
   * The name of a query parameter with a token. It is taken out of the URL before handlers, errors or the log see that; but proxies in front may write it
   * to theirs. @default none
   */
  query?: string | undefined;
  /** How long a client may take to send its token as the first message; then its WebSocket closes with 3008. @default 10 */
  firstMessageTimeout?: number | undefined;
  /** How long a WebSocket stays open after its token has ended, for a newer one to come; then it closes with 4401. @default 10 */
  grace?: number | undefined;
  /** Take newer tokens in messages `{"type":"token","token":"..."}`, which are not handed to `message`. Routes may say otherwise. @default false */
  refresh?: boolean | undefined;
}

/** A kernel thread that submits for io_uring: lower latency for a CPU that is then always busy. */
export interface SqpollOptions {
  /** CPU to pin that thread to. @default not pinned */
  cpu?: number | undefined;
  /** Milliseconds without work after which it sleeps. @default 1000 */
  idleMs?: number | undefined;
}

export interface IoOptions {
  /** 'auto' takes io_uring where the kernel has and allows it, else epoll. @default 'auto' */
  backend?: 'auto' | 'io_uring' | 'epoll' | undefined;
  /** Submission entries of a worker's ring, a power of two. @default 4096 */
  ringEntries?: number | undefined;
  /** Receive buffers that the connections of a worker share, a power of two. @default 512 */
  receiveBuffers?: number | undefined;
  /** Size of each receive buffer. @default 8192 */
  receiveBufferBytes?: number | undefined;
  /** @default false */
  sqpoll?: false | SqpollOptions | undefined;
}

export interface DrainOptions {
  /**
   * Seconds after SIGTERM in which everything is still served and only `/readyz` says no: a load balancer sends new connections until it has
   * asked. SIGINT and reloads do not wait. 'auto': 2 when somebody has asked `/readyz` within the last 30 s, else 0. @default 'auto'
   */
  delay?: 'auto' | number | undefined;
  /**
   * Seconds that a stop may take, after `delay`: requests finish, WebSockets close spread over this time, what is left is cut off.
   * 0: cut off at once. @default 30
   */
  timeout?: number | undefined;
  /**
   * What WebSockets close with when the node stops or reloads: 1001, 1012, 1013, or a code of the application's own (3000 to 4999). Several
   * clients do not know 1012 and take it for a protocol error. @default 1001
   */
  closeCode?: number | undefined;
}

export interface LogOptions {
  /** Least level that is written. @default 'info' */
  level?: 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'fatal' | 'silent' | undefined;
  /** Write one line for each HTTP request and each WebSocket, at level 'info'. @default false */
  requests?: boolean | undefined;
  /**
   * The header that names a request. One that comes with a request is taken over, when it is at most 128 letters, digits and any of `._:+/=-`;
   * else a random one is made once a log line or a handler (`c.env.requestId`) asks for it. Every log line about the request has it, and so has
   * the response. @default 'x-request-id'
   */
  requestIdHeader?: string | false | undefined;
}

/** WebSocket handlers by path. `Datas`: the type of `socket.data` for each path. */
export type WebSocketRoutes<Datas> = { readonly [Path in keyof Datas]: WebSocketHandler<Datas[Path], RouteParams<Path>> };

/**
 * What the default export of gateway.config.ts may hold. At least one of `fetch` and `websocket` is needed. `Datas`: the type of `socket.data`
 * for each path of `websocket`, `Patterns`: those of `topics`; `defineGateway` finds both.
 */
// biome-ignore lint/suspicious/noExplicitAny: each route has its own data type
export interface GatewayConfig<Datas = Record<string, any>, Patterns extends string = string> {
  /** Where to accept connections: a port, an address, or several. @default the port in the environment variable PORT, else 8080, on every address */
  listen?: number | ListenOptions | readonly (number | ListenOptions)[] | undefined;
  /** Health, readiness and metrics over HTTP; false: none. @default port ADMIN_PORT, else 9100, on 127.0.0.1 */
  admin?: false | AdminOptions | undefined;
  /**
   * Worker processes. 'auto': as many as the CPUs this process may use, by its affinity and by its cgroup's quota.
   * @default the environment variable WORKERS, else 'auto'
   */
  workers?: 'auto' | number | undefined;
  /** Answers HTTP requests: a function, or a Hono app. @default every request is answered with 404 */
  fetch?: FetchHandler | FetchApp | undefined;
  /**
   * WebSocket handlers by path: '/chat', '/room/:name' (in `socket.params.name`), '/files/*' (any rest), '*' (any path).
   * @default {}
   */
  websocket?: WebSocketRoutes<Datas> | undefined;
  /**
   * What topics do, by pattern: 'chat/:room' (in `client.params.room`), 'news/*' (any rest), '*' (any topic); the most specific one wins.
   * @default topics keep nothing
   */
  topics?: TopicPolicies<Patterns> | undefined;
  /** Topics as streams of server-sent events, by path. @default {} */
  sse?: Readonly<Record<string, SseOptions>> | undefined;
  /** Limits and deadlines of HTTP. */
  http?: HttpOptions | undefined;
  limits?: LimitOptions | undefined;
  /** Whose tokens are believed, and where they are taken from; WebSockets need one then, unless `auth` of their route says otherwise. @default none */
  auth?: AuthOptions | undefined;
  /** Proxies that are believed about their clients. @default none */
  trustedProxies?: TrustedProxiesOptions | undefined;
  /**
   * Redis, which carries messages between nodes: its URL, or more about it; false: none, whatever the environment says.
   * @default the environment variable REDIS_URL, else none: messages stay on this node
   */
  redis?: false | string | RedisOptions | undefined;
  /** What carries messages between nodes in place of Redis: a link of your own, docs/nodes.md says how to make one. @default none */
  link?: false | LinkOptions | undefined;
  /** How the kernel is asked for input and output. */
  io?: IoOptions | undefined;
  drain?: DrainOptions | undefined;
  /**
   * Seconds after which a worker whose event loop does not go on (a handler that never returns) is killed and started again; 0: never.
   * @default 30
   */
  hangTimeout?: number | undefined;
  /**
   * Pin each worker to one of the CPUs this process may use. Not done where a cgroup's quota, rather than a set of CPUs, is
   * the limit: the containers of one machine would all pin themselves to the same CPUs. @default true
   */
  affinity?: boolean | undefined;
  /**
   * Called in every worker before it accepts connections, and awaited: connect to what handlers need. When it throws, the worker is started
   * again after a while, and a reload changes nothing. @default nothing is done
   */
  onStart?: ((worker: Worker) => unknown) | undefined;
  /**
   * Called in every worker that drains, when its last connection has ended, and awaited within `drain.timeout`: close what `onStart` has opened.
   * Not called when a worker is killed. @default nothing is done
   */
  onStop?: ((worker: Worker) => unknown) | undefined;
  log?: LogOptions | undefined;
}

/** Gives the config its types; returns it unchanged. */
export function defineGateway<Datas, Patterns extends string = string>(
  config: GatewayConfig<Datas, Patterns>,
): GatewayConfig<Datas, Patterns> {
  return config;
}

/**
 * One WebSocket route, with the types that its path and its `upgrade` give the other callbacks: `websocket: { ...route('/room/:name', { … }) }`.
 * Returns an object with this route alone.
 */
export function route<const Path extends string, Data = undefined>(
  path: Path,
  handler: WebSocketHandler<Data, RouteParams<Path>>,
): { readonly [P in Path]: WebSocketHandler<Data, RouteParams<Path>> } {
  return { [path]: handler } as { readonly [P in Path]: WebSocketHandler<Data, RouteParams<Path>> };
}
