/**
 * The shape of the configuration as a zod schema: kinds, ranges, names; every message says what to write instead.
 *
 * Role: judges one value at a time, transforms nothing. Options of WebSockets are declared in websocket-options.ts. What concerns several values, the environment and the defaults is
 * resolve.ts. Its input type equals GatewayConfig (define.ts); tests/unit/config/config.test.ts fails to compile when they differ.
 */
import { isIP } from 'node:net';
import { z } from 'zod';
import type { FetchApp, FetchHandler, LinkOptions } from '../api/define.ts';
import type { Worker } from '../api/lifecycle.ts';
import type { WebSocketHandler } from '../api/websocket.ts';
import { authSchema } from './auth.ts';
import {
  adminTokenLengthMin,
  drainCloseCodeText,
  groupIdMax,
  isDrainCloseCode,
  ranges,
  redisPrefixLengthMax,
  signingKeyLengthMin,
  unixPathBytesMax,
} from './defaults.ts';
import { show } from './show.ts';
import { sseSchema, topicsSchema } from './topic-schema.ts';
import {
  autoOr,
  autoOrSeconds,
  boolean,
  integer,
  oneOf,
  options,
  powerOfTwo,
  type RawIssue,
  sayInstead,
  seconds,
  token,
} from './values.ts';
import { websocketOptionSchemas } from './websocket-options.ts';

const port = () => integer(ranges.port);
const host = () =>
  z.string({ error: sayInstead("an IP address such as '127.0.0.1' or '::'") }).refine((value) => isIP(value) !== 0, {
    error: ({ input }: RawIssue) => {
      if (input === 'localhost') return "is \"localhost\", which can be two addresses; write '127.0.0.1' or '::1', or list both";
      const bare = typeof input === 'string' ? input.replace(/^\[(.*)\]$/, '$1') : '';
      return `is ${show(input)}, which is not an IP address; write ${bare !== input && isIP(bare) !== 0 ? `'${bare}'` : "one such as '127.0.0.1' or '::'"}`;
    },
  });
const unixPath = () =>
  z
    .string({ error: sayInstead("a path such as '/run/ringway.sock'") })
    .min(1, { error: sayInstead("a path such as '/run/ringway.sock'") })
    .refine((path) => Buffer.byteLength(path) <= unixPathBytesMax, {
      error: `is longer than a socket path can be; write one of at most ${unixPathBytesMax} bytes`,
    })
    .refine((path) => !path.includes('\0'), { error: 'holds a NUL character; write a path without it' });

const socketMode = () => {
  // A mode is written in octal: 660 in decimal digits is another number.
  const error = ({ input }: RawIssue) => {
    const digits = typeof input === 'number' ? String(input) : typeof input === 'string' ? input.replace(/^0o?/, '') : '';
    return `is ${show(input)}; write a mode in octal, such as ${/^[0-7]{3}$/.test(digits) ? `0o${digits}` : '0o660'}`;
  };
  return z.number({ error }).int({ error }).min(0, { error }).max(0o777, { error });
};
const socketGroup = () => {
  const error = sayInstead("the name of a group such as 'www-data', or its number");
  return z.union([z.string().regex(/^[^:,\s\0]+$/, { error }), integer([0, groupIdMax])], { error });
};

/** `or`: what else may be written. */
const notPemFile =
  (example: string, or = '') =>
  ({ input }: RawIssue) => {
    if (typeof input === 'string' && input.includes('-----BEGIN'))
      return `is the text of a PEM file; write the path of the file, such as '${example}'`;
    return `is ${input === undefined ? 'missing' : show(input)}; write the path of a PEM file, such as '${example}'${or}`;
  };
const pemFile = (example: string) => {
  const error = notPemFile(example);
  return z
    .string({ error })
    .min(1, { error })
    .refine((path) => !path.includes('-----BEGIN') && !path.includes('\0'), { error });
};
/** One, or one for each kind of key. */
const pemFiles = (example: string) => {
  const one = pemFile(example);
  return z.union([one, z.array(one).min(1).readonly()], { error: notPemFile(example) });
};
// Its value stands in no message: it is a secret.
const passphrase = z.string({ error: 'is not a string; write the passphrase of the key' });
const certificateShape = {
  cert: pemFiles('certificate.pem'),
  key: pemFiles('key.pem'),
  passphrase: passphrase.optional(),
  ocsp: pemFiles('certificate.ocsp').optional(),
  crl: pemFile('ca.crl').optional(),
  ca: z.union([z.literal(false), pemFile('ca.pem')], { error: notPemFile('ca.pem', ', or false') }).optional(),
  clientCertificate: oneOf(['required', 'optional']).optional(),
  minVersion: oneOf(['TLSv1.2', 'TLSv1.3']).optional(),
  dhParams: pemFile('dhparams.pem').optional(),
  ciphers: z.string({ error: sayInstead("a list of OpenSSL's, such as 'ECDHE+AESGCM'") }).optional(),
};
const tls = options({
  ...certificateShape,
  serverNames: z
    .record(z.string(), options(certificateShape), {
      error: sayInstead("an object from names to certificates, such as { 'example.org': { cert: 'cert.pem', key: 'key.pem' } }"),
    })
    .readonly()
    .optional(),
  reloadInterval: seconds(ranges.reloadInterval, ' (0: never)').optional(),
});

const listenOptions = options({
  port: port().optional(),
  host: host().optional(),
  unix: unixPath().optional(),
  mode: socketMode().optional(),
  group: socketGroup().optional(),
  ipv6Only: boolean().optional(),
  backlog: integer(ranges.backlog).optional(),
  tls: tls.optional(),
  proxyProtocol: boolean().optional(),
});
const oneListener = () =>
  z.union([port(), listenOptions], { error: sayInstead("a port such as 8080, or an address such as { port: 8080, host: '127.0.0.1' }") });
const listen = z.union([port(), listenOptions, z.array(oneListener()).readonly()], {
  error: sayInstead('a port such as 8080, an address such as { port: 8080 }, or a list of those'),
});

// Its value stands in no message: it is a secret.
const adminToken = z
  .string({ error: `is not a string; write a token of at least ${adminTokenLengthMin} characters, or leave it to ADMIN_TOKEN` })
  .min(adminTokenLengthMin, { error: `is too short to be safe; write at least ${adminTokenLengthMin} characters` })
  .regex(/^[\x21-\x7e]+$/, { error: 'holds characters that an HTTP header cannot carry; write letters, digits and signs without spaces' });
const adminOptions = options({
  port: port().optional(),
  host: host().optional(),
  unix: unixPath().optional(),
  mode: socketMode().optional(),
  group: socketGroup().optional(),
  token: adminToken.optional(),
});
const admin = z.union([z.literal(false), adminOptions], { error: sayInstead('false, or an object such as { port: 9100 }') });

const workers = autoOr(ranges.workers);

function isFetch(value: unknown): value is FetchHandler | FetchApp {
  if (typeof value === 'function') return true;
  return typeof value === 'object' && value !== null && 'fetch' in value && typeof value.fetch === 'function';
}
const fetch = z.custom<FetchHandler | FetchApp>(isFetch, { error: sayInstead('a function (request) => Response, or a Hono app') });

type Handler = WebSocketHandler<unknown>;
const handlerFunctions = ['upgrade', 'open', 'message', 'close', 'drain', 'ping', 'pong', 'dropped', 'lost'] as const;
function handlerFunction<Name extends (typeof handlerFunctions)[number]>(name: Name) {
  return z
    .custom<NonNullable<Handler[Name]>>((value) => typeof value === 'function', { error: sayInstead(`a function ${name}(...) { ... }`) })
    .optional();
}

const websocketShape = {
  upgrade: handlerFunction('upgrade'),
  open: handlerFunction('open'),
  message: handlerFunction('message'),
  close: handlerFunction('close'),
  drain: handlerFunction('drain'),
  ping: handlerFunction('ping'),
  pong: handlerFunction('pong'),
  dropped: handlerFunction('dropped'),
  lost: handlerFunction('lost'),
  ...websocketOptionSchemas,
};
/** Members of a WebSocket handler. */
export const websocketMembers: readonly string[] = Object.keys(websocketShape);
// Not strict: an instance of a class may have fields of its own. resolve.ts refuses unknown members of plain objects.
const websocketHandler = z.object(websocketShape, { error: sayInstead('a handler such as { message(socket, message) { ... } }') });

const text = (example: string) => z.string({ error: sayInstead(example) }).min(1, { error: sayInstead(example) });
// Values of these stand in no message: they hold secrets.
const redisUrl = z.string({ error: "is not a string; write a URL such as 'redis://127.0.0.1:6379'" });
const secret = (what: string) => z.string({ error: `is not a string; write the ${what}` });
const redisTls = options({
  ca: pemFile('ca.pem').optional(),
  cert: pemFile('certificate.pem').optional(),
  key: pemFile('key.pem').optional(),
  serverName: text("a name such as 'redis.example.com'").optional(),
  verify: boolean().optional(),
});
const signingKey = z
  .string({ error: 'is not a string; write a secret such as the output of `openssl rand -hex 32`' })
  .min(signingKeyLengthMin, {
    error: `is shorter than ${signingKeyLengthMin} characters; write one such as the output of \`openssl rand -hex 32\``,
  });
const redisNodes = () =>
  z
    .array(redisUrl, { error: sayInstead("a list of URLs such as ['redis://10.0.0.1:6379', 'redis://10.0.0.2:6379']") })
    .min(1, { error: "is an empty list; write URLs such as 'redis://10.0.0.1:6379'" })
    .readonly();
const redisOptions = options({
  url: redisUrl.optional(),
  sentinels: options({
    name: text("the name of the group, such as 'mymaster'"),
    nodes: redisNodes(),
    username: secret('user name').optional(),
    password: secret('password').optional(),
  }).optional(),
  cluster: redisNodes().optional(),
  username: secret('user name').optional(),
  password: secret('password').optional(),
  tls: z.union([boolean(), redisTls], { error: sayInstead("true, false, or an object such as { ca: 'ca.pem' }") }).optional(),
  prefix: z
    .string({ error: sayInstead("a prefix such as 'ringway'") })
    .regex(/^[^{}\s]+$/, { error: sayInstead("a prefix without braces and spaces, such as 'ringway'") })
    .max(redisPrefixLengthMax, { error: `is longer than ${redisPrefixLengthMax} characters; write a shorter one` })
    .optional(),
  signingKey: z
    .union([signingKey, z.array(signingKey).min(1, { error: 'is an empty list; write a secret, or leave it out' }).readonly()], {
      error: 'is neither a secret nor a list of them; write a string of 32 characters or more',
    })
    .optional(),
  linger: seconds(ranges.linger).optional(),
  partitions: integer(ranges.partitions).optional(),
  probeInterval: seconds(ranges.probeInterval).optional(),
  timeout: seconds(ranges.redisTimeout).optional(),
  outboxBytes: integer(ranges.outboxBytes).optional(),
  onOutboxFull: oneOf(['drop-oldest', 'drop-newest']).optional(),
  required: boolean().optional(),
});
const redis = z.union([z.literal(false), redisUrl, redisOptions], {
  error: "is none of these: false, a URL such as 'redis://127.0.0.1:6379', or an object such as { url: 'redis://127.0.0.1:6379' }",
});

// Not strict: what makes a link may have fields of its own.
const ownLink = z.object(
  {
    create: z.custom<LinkOptions['create']>((value) => typeof value === 'function', {
      error: sayInstead('a function create(context) that returns a NodeLink'),
    }),
    linger: seconds(ranges.linger).optional(),
    required: boolean().optional(),
  },
  { error: sayInstead('false, or a link such as natsLink({ servers: [...] }); docs/nodes.md says how to make one') },
);
const link = z.union([z.literal(false), ownLink], {
  error: sayInstead('false, or a link such as natsLink({ servers: [...] }); docs/nodes.md says how to make one'),
});

const trustedProxies = options({
  addresses: z
    .array(z.string({ error: sayInstead("an address or range such as '10.0.0.0/8'") }), {
      error: sayInstead("a list such as ['10.0.0.0/8']"),
    })
    .readonly(),
  header: oneOf(['x-forwarded-for', 'forwarded', 'none']).optional(),
});

const requestIdHeader = z.union(
  [
    z.literal(false),
    z
      .string({ error: sayInstead("false, or a header such as 'x-request-id'") })
      .regex(token, { error: sayInstead("false, or a header such as 'x-request-id'") }),
  ],
  { error: sayInstead("false, or a header such as 'x-request-id'") },
);

/** The others tell of an error or that all is done, so that clients do not come back; 1005, 1006 and 1015 are never sent. */
const drainCloseCode = z
  .number({ error: sayInstead(drainCloseCodeText) })
  .refine(isDrainCloseCode, { error: sayInstead(drainCloseCodeText) });

const lifecycle = z.custom<(worker: Worker) => unknown>((value) => typeof value === 'function', {
  error: sayInstead('a function, such as async () => { ... }'),
});

export const gatewaySchema = options({
  listen: listen.optional(),
  admin: admin.optional(),
  workers: workers.optional(),
  fetch: fetch.optional(),
  websocket: z
    .record(z.string(), websocketHandler, {
      error: sayInstead("an object from paths to handlers, such as { '/chat': { message(socket, message) { ... } } }"),
    })
    .optional(),
  topics: topicsSchema.optional(),
  sse: sseSchema.optional(),
  http: options({
    headTimeout: seconds(ranges.timeout).optional(),
    bodyTimeout: seconds(ranges.timeout).optional(),
    keepAliveTimeout: seconds(ranges.timeout).optional(),
    writeTimeout: seconds(ranges.timeout).optional(),
    lingerTimeout: seconds(ranges.timeout).optional(),
    minBytesPerSecond: integer(ranges.minBytesPerSecond, ' (0: no limit)').optional(),
    maxHeadBytes: integer(ranges.headBytes).optional(),
    maxTargetBytes: integer(ranges.targetBytes).optional(),
    maxHeaders: integer(ranges.headers).optional(),
    maxBodyBytes: integer(ranges.bodyBytes).optional(),
    bodyWindowBytes: integer(ranges.windowBytes).optional(),
    responseHighWaterBytes: integer(ranges.windowBytes).optional(),
  }).optional(),
  limits: options({
    maxConnections: integer(ranges.connections).optional(),
    maxConnectionsPerIp: integer(ranges.connectionsPerIp, ' (0: no limit)').optional(),
    upgradesPerSecond: integer(ranges.upgradesPerSecond, ' (0: no limit)').optional(),
    maxUnfinishedBytes: autoOr(ranges.unfinishedBytes).optional(),
    maxInflateBytes: autoOr(ranges.inflateBytes).optional(),
    maxTopicsPerSocket: integer(ranges.topics).optional(),
    maxTopics: integer(ranges.topics).optional(),
    maxTopicMemoryBytes: autoOr(ranges.topicMemoryBytes).optional(),
  }).optional(),
  auth: authSchema.optional(),
  trustedProxies: trustedProxies.optional(),
  redis: redis.optional(),
  link: link.optional(),
  io: options({
    backend: oneOf(['auto', 'io_uring', 'epoll']).optional(),
    ringEntries: powerOfTwo(ranges.ringEntries).optional(),
    receiveBuffers: powerOfTwo(ranges.receiveBuffers).optional(),
    receiveBufferBytes: integer(ranges.receiveBufferBytes).optional(),
    sqpoll: z
      .union(
        [
          z.literal(false),
          options({ cpu: integer(ranges.cpu).optional(), idleMs: integer(ranges.sqpollIdle, ' (milliseconds)').optional() }),
        ],
        {
          error: sayInstead('false, or an object such as { idleMs: 1000 }'),
        },
      )
      .optional(),
  }).optional(),
  drain: options({
    delay: autoOrSeconds(ranges.drain).optional(),
    timeout: seconds(ranges.drain, ' (0: at once)').optional(),
    closeCode: drainCloseCode.optional(),
  }).optional(),
  hangTimeout: seconds(ranges.hang, ' (0: never)').optional(),
  affinity: boolean().optional(),
  onStart: lifecycle.optional(),
  onStop: lifecycle.optional(),
  log: options({
    level: oneOf(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent']).optional(),
    requests: boolean().optional(),
    requestIdHeader: requestIdHeader.optional(),
  }).optional(),
});
