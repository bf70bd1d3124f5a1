/**
 * The options of WebSockets, each declared once: its default, how a value is judged, and what the core is told of it.
 *
 * Role: api/websocket.ts has their types and meaning, and this table the rest; the compiler wants the one complete for the other. The schema,
 * settings, defaults and records of the core follow from it. Up: schema.ts, resolve.ts, core-records.ts, Hono's upgradeWebSocket.
 */
import { z } from 'zod';
import type { CompressionOptions, RouteAuth, WebSocketOptions } from '../api/websocket.ts';
import type { BehaviorOptions } from '../core/core.ts';
import { routeAuthSchema } from './auth.ts';
import { type Mistake, mistakesOf } from './mistakes.ts';
import { show } from './show.ts';
import { boolean, integer, oneOf, options, type RawIssue, sayInstead, seconds, token } from './values.ts';

export type CompressionSettings = { readonly [Name in keyof CompressionOptions]-?: NonNullable<CompressionOptions[Name]> };
/** What options come to, with defaults. */
export type WebSocketSettings = Readonly<Required<Omit<WebSocketOptions, 'compression'>>> & {
  readonly compression: false | CompressionSettings;
};

interface Declared<Value, Settled> {
  readonly fallback: Settled;
  readonly schema: z.ZodType<Value | undefined>;
  /** Fields of `struct rw_behavior`; none: TypeScript alone acts on it. */
  readonly record?: ((value: Settled) => BehaviorOptions) | undefined;
}

const protocol = z
  .string({ error: sayInstead("a subprotocol such as 'graphql-transport-ws'") })
  .regex(token, { error: sayInstead("a name without spaces and separators, such as 'graphql-transport-ws'") });

function isOrigin(value: string): boolean {
  if (value === 'null') return true;
  return URL.canParse(value) && new URL(value).origin === value;
}
const origin = z.string({ error: sayInstead("an origin such as 'https://example.com'") }).refine(isOrigin, {
  error: ({ input }: RawIssue) => {
    const exact = typeof input === 'string' && URL.canParse(input) ? new URL(input).origin : 'null';
    return `is ${show(input)}; write ${exact === 'null' ? "scheme and host as browsers send them, such as 'https://example.com'" : `'${exact}'`}`;
  },
});

/** zlib's raw deflate takes no window of 8 bits. */
const windowBits = [9, 15] as const;
const compression = z.union(
  [
    boolean(),
    options({
      minBytes: integer([0, 2 ** 30]).optional(),
      window: oneOf(['shared', 'dedicated']).optional(),
      windowBits: integer(windowBits).optional(),
    }),
  ],
  { error: sayInstead('true, false, or an object such as { minBytes: 1024 }') },
);
export const compressionDefaults: CompressionSettings = { minBytes: 1024, window: 'shared', windowBits: 12 };

/** Seconds, where 0 means never. */
const lifetime = [0, 2592000] as const;
const milliseconds = (value: number) => value * 1000;

const option = <Schema extends z.ZodType, Settled = z.output<Schema>>(
  schema: Schema,
  fallback: NoInfer<Settled>,
  record?: (value: NoInfer<Settled>) => BehaviorOptions,
) => ({ schema: schema.optional(), fallback, record });

export const origins = z.union([oneOf(['any', 'same-host']), z.array(origin).readonly()], {
  error: sayInstead("'any', 'same-host' or a list such as ['https://example.com']"),
});

export const websocketOptions = {
  protocols: option(z.array(protocol, { error: sayInstead("a list such as ['graphql-transport-ws']") }).readonly(), []),
  origins: option(origins, 'any'),
  maxPayloadBytes: option(integer([1, 2 ** 30]), 2 ** 20, (maxPayloadBytes) => ({ maxPayloadBytes })),
  maxBackpressureBytes: option(integer([1024, 2 ** 30]), 2 ** 20, (maxBackpressureBytes) => ({ maxBackpressureBytes })),
  onBackpressure: option(oneOf(['drop', 'close']), 'close', (value) => ({ closeOnBackpressure: value === 'close' })),
  idleTimeout: option(seconds(lifetime, ' (0: never)'), 120, (value) => ({ idleTimeoutMs: milliseconds(value) })),
  pingInterval: option(seconds(lifetime, ' (0: never)'), 30, (value) => ({ pingIntervalMs: milliseconds(value) })),
  maxLifetime: option(seconds(lifetime, ' (0: for ever)'), 0, (value) => ({ maxLifetimeMs: milliseconds(value) })),
  compression: option<typeof compression, false | CompressionSettings>(compression, false, deflateOf),
  maxMessagesPerSecond: option(integer([0, 1_000_000], ' (0: no limit)'), 0, (messagesPerSecond) => ({ messagesPerSecond })),
  maxBytesPerSecond: option(integer([0, 2 ** 30], ' (0: no limit)'), 0, (bytesPerSecond) => ({ bytesPerSecond })),
  onRateLimit: option(oneOf(['close', 'pause']), 'close', (value) => ({ pauseOnRate: value === 'pause' })),
  concurrency: option(integer([1, 1024]), 1),
  positions: option(boolean(), false, (positions) => ({ positions })),
  messageTimeout: option(seconds(lifetime, ' (0: never)'), 120, (value) => ({ messageTimeoutMs: milliseconds(value) })),
  // Means nothing in a config without `auth`.
  auth: option<typeof routeAuthSchema, RouteAuth>(routeAuthSchema, 'required'),
} satisfies { readonly [Name in keyof WebSocketSettings]: Declared<WebSocketOptions[Name], WebSocketSettings[Name]> };

const onlyOffered = 1 << 12;

/** The bits of `struct rw_behavior.deflate`: compressor in bits 0-7, decompressor in bits 8-11, bit 12: answer only what was offered. */
function deflateOf(settings: false | CompressionSettings): BehaviorOptions {
  if (settings === false) return {};
  const { window, windowBits: bits, minBytes } = settings;
  if (window === 'shared') return { deflate: 1 | (15 << 8) | onlyOffered, deflateMinBytes: minBytes };
  // zlib's memory level grows with the window, so that the hash tables suit it: 15 goes with its default of 8.
  return { deflate: (bits - 7) | (bits << 4) | (bits << 8) | onlyOffered, deflateMinBytes: minBytes };
}

type Table = typeof websocketOptions;
export type WebSocketOptionName = keyof Table;
const entries = Object.entries(websocketOptions) as [WebSocketOptionName, Declared<unknown, unknown>][];

const each = <Result>(part: (declared: Declared<unknown, unknown>) => unknown) =>
  Object.fromEntries(entries.map(([name, declared]) => [name, part(declared)])) as Result;

export const websocketDefaults: WebSocketSettings = each(({ fallback }) => fallback);
/** By name: part of the schema of a handler, and the schema of `upgradeWebSocket`. */
export const websocketOptionSchemas: { readonly [Name in WebSocketOptionName]: Table[Name]['schema'] } = each(({ schema }) => schema);

/** What of `struct rw_behavior` follows from the options. */
export function recordOf(settings: WebSocketSettings): BehaviorOptions {
  return Object.assign({}, ...entries.map(([name, { record }]) => record?.(settings[name])));
}

/** The same for settings of which the core is told the same. */
export function kindOf(settings: WebSocketSettings): string {
  return JSON.stringify(recordOf(settings));
}

/** With defaults, and judged together. `options`: each sound by itself. */
export function resolveWebSocketOptions(
  given: WebSocketOptions,
  complain: (path: readonly PropertyKey[], message: string) => void,
): WebSocketSettings {
  const plain = Object.fromEntries(entries.map(([name, { fallback }]) => [name, given[name] ?? fallback])) as typeof websocketDefaults;
  const { idleTimeout } = plain;
  if (given.pingInterval !== undefined && idleTimeout > 0 && given.pingInterval >= idleTimeout)
    complain(
      ['pingInterval'],
      `is ${given.pingInterval}, but the connection is given up after idleTimeout (${idleTimeout}); write less than that`,
    );
  // A ping must have time to come back before the connection counts as gone.
  const pingInterval = given.pingInterval ?? (idleTimeout > 0 ? Math.min(plain.pingInterval, idleTimeout / 2) : plain.pingInterval);
  return { ...plain, pingInterval, compression: resolveCompression(given.compression ?? false, complain) };
}

function resolveCompression(
  given: boolean | CompressionOptions,
  complain: (path: readonly PropertyKey[], message: string) => void,
): false | CompressionSettings {
  if (typeof given === 'boolean') return given && compressionDefaults;
  const defined = Object.entries(given).filter(([, value]) => value !== undefined);
  const settings: CompressionSettings = { ...compressionDefaults, ...Object.fromEntries(defined) };
  if (given.windowBits !== undefined && settings.window !== 'dedicated')
    complain(['compression', 'windowBits'], "is for dedicated windows; remove it, or write window: 'dedicated'");
  return settings;
}

const optionsAlone = options(websocketOptionSchemas);

/** Options that stand in no config: judged as those of one. */
export function judgeWebSocketOptions(given: unknown): { readonly settings: WebSocketSettings; readonly mistakes: readonly Mistake[] } {
  const parsed = optionsAlone.safeParse(given);
  const mistakes = parsed.success ? [] : mistakesOf(parsed.error.issues);
  if (mistakes.length > 0) return { settings: websocketDefaults, mistakes };
  const settings = resolveWebSocketOptions(given as WebSocketOptions, (path, message) => mistakes.push({ path, message }));
  return { settings, mistakes };
}
