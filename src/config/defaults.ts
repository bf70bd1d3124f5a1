/**
 * Every default of the configuration in one place, but for those of WebSockets (websocket-options.ts). Byte counts and times equal those of
 * ffi/core/base/limits.h. The @default tags in api/define.ts quote these values; a test compares them.
 */
export const defaults = {
  listen: { port: 8080, host: '::', hostWithoutIpv6: '0.0.0.0', ipv6Only: false, backlog: 4096, proxyProtocol: false },
  tls: { clientCertificate: 'required', minVersion: 'TLSv1.2', reloadInterval: 60 },
  admin: { port: 9100, host: '127.0.0.1' },
  workers: 'auto',
  http: {
    headTimeout: 10,
    bodyTimeout: 30,
    keepAliveTimeout: 75,
    writeTimeout: 30,
    lingerTimeout: 2,
    minBytesPerSecond: 1024,
    maxHeadBytes: 16384,
    maxTargetBytes: 8192,
    maxHeaders: 100,
    maxBodyBytes: 64 * 1024 * 1024,
    bodyWindowBytes: 256 * 1024,
    responseHighWaterBytes: 256 * 1024,
  },
  limits: {
    maxConnections: 2 ** 20,
    maxConnectionsPerIp: 0,
    upgradesPerSecond: 0,
    maxUnfinishedBytes: 'auto',
    maxInflateBytes: 'auto',
    maxTopicsPerSocket: 1000,
    maxTopics: 2 ** 20,
    maxTopicMemoryBytes: 'auto',
  },
  topics: { history: false, presence: false, token: false },
  topicPresence: { grace: 3, maxInfoBytes: 1024, maxMembers: 10_000 },
  sse: { heartbeat: 15, origins: 'same-host', maxTopics: 32, auth: 'required' },
  auth: {
    from: ['header', 'subprotocol'],
    subprotocol: 'token',
    firstMessageTimeout: 10,
    grace: 10,
    refresh: false,
  },
  jwt: { secretAlgorithms: ['HS256'], clockTolerance: 5, requireExpiry: true },
  jwks: { maxAge: 600, maxStale: 86400, cooldown: 30, timeout: 5 },
  trustedProxies: { header: 'x-forwarded-for' },
  redis: {
    port: 6379,
    sentinelPort: 26379,
    prefix: 'ringway',
    linger: 10,
    partitions: 256,
    probeInterval: 1,
    timeout: 3,
    outboxBytes: 16 * 1024 * 1024,
    onOutboxFull: 'drop-oldest',
    required: false,
  },
  redisTls: { verify: true },
  link: { linger: 10, required: false },
  io: { backend: 'auto', ringEntries: 4096, receiveBuffers: 512, receiveBufferBytes: 8192, sqpoll: false },
  sqpoll: { cpu: undefined, idleMs: 1000 },
  drain: { delay: 'auto', timeout: 30, closeCode: 1001 },
  hangTimeout: 30,
  affinity: true,
  log: { level: 'info', requests: false, requestIdHeader: 'x-request-id' },
} as const;

/** Bounds of numbers, as [least, most]; equal to what the core can hold. */
export const ranges = {
  port: [0, 65535],
  backlog: [1, 65535],
  workers: [1, 256],
  /** Seconds. The core counts milliseconds in 32 bits and rounds up to ticks of 64 ms. */
  timeout: [0.1, 86400],
  drain: [0, 3600],
  /** RFC 6455 §7.4.2: registered ones, and those of applications. */
  applicationCloseCode: [3000, 4999],
  hang: [0, 3600],
  reloadInterval: [0, 86400],
  /** Lengths within a request head are 16 bits wide. */
  headBytes: [512, 65535],
  targetBytes: [64, 65535],
  headers: [1, 256],
  bodyBytes: [1, Number.MAX_SAFE_INTEGER],
  windowBytes: [4096, 2 ** 30],
  connections: [1, 2 ** 24],
  /** Counted in 16 bits. */
  connectionsPerIp: [0, 65534],
  upgradesPerSecond: [0, 1_000_000],
  minBytesPerSecond: [0, 1_000_000],
  /** The core counts KiB in 32 bits, of each worker. */
  unfinishedBytes: [1_048_576, 2 ** 41],
  inflateBytes: [65_536, 2 ** 41],
  topics: [1, 2 ** 28],
  /** RW_STATE_BYTES_MIN, RW_STATE_BYTES_MAX of ffi/core/state/arena.h. */
  topicMemoryBytes: [2 ** 23, 2 ** 38],
  historySize: [1, 100_000],
  /** Thirty days. */
  historySeconds: [1, 2_592_000],
  presenceGrace: [0, 300],
  presenceInfoBytes: [0, 16_384],
  presenceMembers: [1, 1_000_000],
  heartbeat: [0, 3600],
  sseTopics: [1, 1000],
  /** Seconds. */
  clockTolerance: [0, 300],
  firstMessageTimeout: [1, 300],
  tokenGrace: [0, 3600],
  jwksMaxAge: [1, 86400],
  jwksMaxStale: [1, 2592000],
  jwksCooldown: [0.1, 3600],
  jwksTimeout: [0.1, 60],
  linger: [0, 3600],
  /** Of 16384 hash slots. */
  partitions: [1, 16384],
  probeInterval: [0.1, 60],
  redisTimeout: [0.2, 300],
  outboxBytes: [65536, 2 ** 31],
  ringEntries: [16, 32768],
  receiveBuffers: [8, 32768],
  receiveBufferBytes: [512, 65536],
  cpu: [0, 1023],
  sqpollIdle: [1, 60000],
} as const satisfies Record<string, readonly [number, number]>;

/** Of the close codes that RFC 6455 §7.4.1 and the IANA registry define, those that tell a client to come back. */
export const drainCloseCodes: readonly number[] = [1001, 1012, 1013];

/** What may stand in `drain.closeCode`, for people. */
export const drainCloseCodeText = `${drainCloseCodes.join(', ')} or an integer from ${ranges.applicationCloseCode.join(' to ')}`;

export function isDrainCloseCode(code: number): boolean {
  const [least, most] = ranges.applicationCloseCode;
  return drainCloseCodes.includes(code) || (Number.isInteger(code) && code >= least && code <= most);
}

/** sun_path of a Unix socket address holds 108 bytes with its final NUL (unix(7)). */
export const unixPathBytesMax = 107;

/** Of a Unix socket's file that is given to a group. */
export const groupSocketMode = 0o660;

/** The last one, (gid_t) -1, means "leave it" to chown(2). */
export const groupIdMax = 0xffff_fffe;
/** Routes of WebSockets: the core numbers them in 8 bits, and one number is Hono's. */
export const websocketRoutesMax = 255;
/** Policies of topics: a topic that is not known yet is compared with each. */
export const topicPoliciesMax = 256;
/** Paths at which topics are streamed. */
export const ssePathsMax = 256;
/** Characters of a server name (RFC 1035 §2.3.4). */
export const serverNameLengthMax = 253;
/** Server names of one address: the core numbers them in 16 bits, and 0 is the address's own certificate. */
export const serverNamesMax = 65535;
/** Listening addresses: the core numbers them in 8 bits. */
export const listenersMax = 256;
/** Characters of a token that nobody guesses. */
export const adminTokenLengthMin = 16;
/** Characters of a prefix; it is part of the name of every channel. */
export const redisPrefixLengthMax = 64;
/** As many characters as its hash has bytes (RFC 2104 §3). */
export const signingKeyLengthMin = 32;
/** Secrets, or keys, of a config: a token that names none is tried with each. */
export const jwtKeysMax = 16;
/** Ranges of trusted proxies. */
export const trustedProxiesMax = 4096;

/** Where commands look for the config. */
export const defaultConfigPath = 'gateway.config.ts';
