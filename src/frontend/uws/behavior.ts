/**
 * What a program says of a WebSocket route, read as the original reads it.
 * Role: pure. Up: app.ts. Down: core/options.ts (`struct rw_behavior`).
 */
import type { BehaviorOptions } from '../../core/core.ts';
import { SHARED_COMPRESSOR } from './constants.ts';
import type { WebSocket } from './websocket.ts';

/** Handlers of a route. ArrayBuffers are lent until the handler and what it has queued are done, but for those of ping, pong and subscription. */
export interface SocketHandlers {
  readonly upgrade: ((response: unknown, request: unknown, context: unknown) => unknown) | undefined;
  readonly open: ((socket: WebSocket) => unknown) | undefined;
  readonly message: ((socket: WebSocket, message: ArrayBuffer, isBinary: boolean) => unknown) | undefined;
  readonly dropped: ((socket: WebSocket, message: ArrayBuffer, isBinary: boolean) => unknown) | undefined;
  readonly drain: ((socket: WebSocket) => unknown) | undefined;
  readonly close: ((socket: WebSocket, code: number, message: ArrayBuffer) => unknown) | undefined;
  readonly ping: ((socket: WebSocket, message: ArrayBuffer) => unknown) | undefined;
  readonly pong: ((socket: WebSocket, message: ArrayBuffer) => unknown) | undefined;
  readonly subscription: ((socket: WebSocket, topic: ArrayBuffer, newCount: number, oldCount: number) => unknown) | undefined;
}

const handlerNames = ['upgrade', 'open', 'message', 'dropped', 'drain', 'close', 'ping', 'pong', 'subscription'] as const;

/** The bits of `compression` that choose a compressor. */
const compressorMask = 0xff;

/** As the original has them: bytes, seconds, and minutes for the lifetime. */
const defaults = { maxPayloadLength: 16384, idleTimeout: 120, maxBackpressure: 65536, maxLifetime: 0 };

/** Seconds. */
const idleTimeoutLeast = 8;
const idleTimeoutMost = 960;
/** Minutes. */
const lifetimeMost = 240;

/** Stands for no limit in the core, which counts what it has queued in 32 bits. */
const backpressureUnlimited = 0x7fffffff;

type Settings = Readonly<Record<string, unknown>>;

export function handlersOf(settings: Settings): SocketHandlers {
  const handlers: Record<string, unknown> = {};
  for (const name of handlerNames) handlers[name] = settings[name] ?? undefined;
  return handlers as unknown as SocketHandlers;
}

/** err: Error with the words with which the original ends the process */
export function behaviorOf(settings: Settings, handlers: SocketHandlers) {
  const idleTimeout = numberOf(settings.idleTimeout, defaults.idleTimeout) & 0xffff;
  if (idleTimeout > 0 && idleTimeout < idleTimeoutLeast) throw new Error('idleTimeout must be either 0 or greater than 8!');
  if (idleTimeout > idleTimeoutMost) throw new Error('idleTimeout must not be greater than 960 seconds!');
  const lifetime = numberOf(settings.maxLifetime, defaults.maxLifetime) & 0xffff;
  if (lifetime > lifetimeMost) throw new Error('maxLifetime must not be greater than 240 minutes!');
  const pongSeconds = pongSecondsOf(idleTimeout);
  const sendsPings = settings.sendPingsAutomatically === undefined || Boolean(settings.sendPingsAutomatically);
  return {
    maxPayloadBytes: numberOf(settings.maxPayloadLength, defaults.maxPayloadLength) >>> 0,
    maxBackpressureBytes: numberOf(settings.maxBackpressure, defaults.maxBackpressure) >>> 0 || backpressureUnlimited,
    idleTimeoutMs: idleTimeout * 1000,
    pingIntervalMs: sendsPings && idleTimeout > 0 ? (idleTimeout - pongSeconds) * 1000 : 0,
    maxLifetimeMs: lifetime * 60_000,
    closeTimeoutMs: pongSeconds * 1000,
    closeOnBackpressure: Boolean(settings.closeOnBackpressureLimit),
    wantsPing: handlers.ping !== undefined,
    wantsPong: handlers.pong !== undefined,
    wantsDropped: false,
    wantsDroppedPayload: handlers.dropped !== undefined,
    wantsDrain: handlers.drain !== undefined,
    limitBefore: true,
    deflate: deflateOf(numberOf(settings.compression, 0)),
    deflateMinBytes: 0,
  } satisfies BehaviorOptions;
}

/** How long the original waits for the answer to a ping, and to a close: a part of the idle timeout, 4, 8 or 16 seconds. */
function pongSecondsOf(idleTimeout: number): number {
  let seconds = 4;
  while (seconds < 16 && idleTimeout >= seconds * 4) seconds *= 2;
  return seconds;
}

/** To the original, a decompressor without a compressor is one with the shared compressor. */
function deflateOf(compression: number): number {
  const modes = compression & 0xfff;
  return modes !== 0 && (modes & compressorMask) === 0 ? modes | SHARED_COMPRESSOR : modes;
}

/** As a 32-bit integer; undefined is the default. */
function numberOf(value: unknown, fallback: number): number {
  return value === undefined ? fallback : Number(value) | 0;
}
