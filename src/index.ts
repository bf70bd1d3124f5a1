/** What the package offers to a gateway.config.ts. */
export type {
  AdminOptions,
  CertificateOptions,
  DrainOptions,
  FetchApp,
  FetchEnv,
  FetchHandler,
  GatewayConfig,
  HttpOptions,
  IoOptions,
  LimitOptions,
  ListenOptions,
  LogOptions,
  RedisOptions,
  RedisTlsOptions,
  SentinelOptions,
  SqpollOptions,
  TlsOptions,
  TrustedProxiesOptions,
} from './config/define.ts';
export { defineGateway } from './config/define.ts';
export type { TlsInfo } from './core/tls-info.ts';
export type { CompressionOptions, Message, SendResult, Socket, UpgradeClient, WebSocketHandler } from './core/websocket.ts';
export { getConnInfo, getTlsInfo, type RingwayBindings, upgradeWebSocket } from './frontend/hono/index.ts';
export { publish } from './worker/publish.ts';
