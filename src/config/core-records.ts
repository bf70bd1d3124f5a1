/**
 * From settings to what the core is set up with: `struct rw_core_config` for a worker, `struct rw_behavior` for a route.
 * Role: the one place where seconds become milliseconds and a node's limits become a worker's. Up: worker/main.ts, frontend/. Down: core/options.ts.
 */
import type { WebSocketHandler } from '../api/websocket.ts';
import { proxyHeader } from '../core/abi.ts';
import type { BehaviorOptions, CoreOptions } from '../core/core.ts';
import { inflateBytesOf, unfinishedBytesOf } from '../process/memory.ts';
import type { ResolvedConfig } from './resolve.ts';
import { recordOf, type WebSocketSettings } from './websocket-options.ts';

const proxyHeaders = { none: proxyHeader.none, 'x-forwarded-for': proxyHeader.xForwardedFor, forwarded: proxyHeader.forwarded };

/** How long a peer may take to answer a close frame. */
const closeTimeoutMs = 5000;

/** A worker's part of what the node may have; never nothing, which would mean no limit. */
function shareOf(total: number, workers: number): number {
  return total === 0 ? 0 : Math.max(1, Math.round(total / workers));
}

const milliseconds = (seconds: number) => Math.round(seconds * 1000);

/** What the config says of a core that is one of `workers`; its place and what it is woken by are beside this. */
export function coreSettings(
  { http, io, limits, trustedProxies }: ResolvedConfig,
  workers: number,
): Pick<CoreOptions, 'backend' | 'maxBodyBytes' | 'numbers'> {
  return {
    backend: io.backend,
    maxBodyBytes: http.maxBodyBytes,
    numbers: {
      maxConnections: limits.maxConnections,
      ringEntries: io.ringEntries,
      recvBuffers: io.receiveBuffers,
      recvBufferBytes: io.receiveBufferBytes,
      sqpoll: io.sqpoll === false ? 0 : 1,
      sqpollCpu: io.sqpoll === false ? -1 : (io.sqpoll.cpu ?? -1),
      sqpollIdleMs: io.sqpoll === false ? 0 : io.sqpoll.idleMs,
      maxHeadBytes: http.maxHeadBytes,
      maxTargetBytes: http.maxTargetBytes,
      maxHeaderCount: http.maxHeaders,
      headTimeoutMs: milliseconds(http.headTimeout),
      bodyTimeoutMs: milliseconds(http.bodyTimeout),
      keepAliveTimeoutMs: milliseconds(http.keepAliveTimeout),
      writeTimeoutMs: milliseconds(http.writeTimeout),
      lingerTimeoutMs: milliseconds(http.lingerTimeout),
      // 0 means the default to the core, and this none.
      minBytesPerSecond: http.minBytesPerSecond || 0xffff_ffff,
      responseHighWaterBytes: http.responseHighWaterBytes,
      bodyWindowBytes: http.bodyWindowBytes,
      maxConnectionsPerIp: limits.maxConnectionsPerIp,
      upgradesPerKilosecond: shareOf(limits.upgradesPerSecond * 1000, workers),
      unfinishedKib: Math.ceil(unfinishedBytesOf(limits.maxUnfinishedBytes, workers) / 1024),
      inflateKib: Math.ceil(inflateBytesOf(limits.maxInflateBytes, workers) / 1024),
      topicsPerSocket: limits.maxTopicsPerSocket,
      topics: limits.maxTopics,
      proxyHeader: proxyHeaders[trustedProxies?.header ?? 'none'],
    },
  };
}

/** `handler`: what the core need not tell is what it has no function for. */
export function behaviorOf(
  settings: WebSocketSettings,
  handler: Pick<WebSocketHandler, 'ping' | 'pong' | 'dropped' | 'drain'>,
): BehaviorOptions {
  return {
    ...recordOf(settings),
    closeTimeoutMs,
    wantsPing: handler.ping !== undefined,
    wantsPong: handler.pong !== undefined,
    wantsDropped: handler.dropped !== undefined,
    wantsDrain: handler.drain !== undefined,
  };
}
