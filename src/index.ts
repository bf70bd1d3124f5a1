/** What the package offers to a gateway.config.ts. */

export type { RingwayBindings } from './api/bindings.ts';
export type {
  AdminOptions,
  AuthOptions,
  CertificateOptions,
  DrainOptions,
  FetchApp,
  FetchEnv,
  FetchHandler,
  GatewayConfig,
  HttpOptions,
  IoOptions,
  JwksOptions,
  JwtAlgorithm,
  JwtKey,
  JwtOptions,
  LimitOptions,
  LinkOptions,
  ListenOptions,
  LogOptions,
  RedisOptions,
  RedisTlsOptions,
  SentinelOptions,
  SqpollOptions,
  TlsOptions,
  TrustedProxiesOptions,
  WebSocketRoutes,
} from './api/define.ts';
export { defineGateway, route } from './api/define.ts';
export { onOneWorker, type Worker, worker } from './api/lifecycle.ts';
export { publish, publishJson } from './api/publish.ts';
export {
  disconnect,
  history,
  onPresence,
  presence,
  presenceCount,
  sendJsonToUser,
  sendToUser,
  subscribe,
  subscribers,
  topics,
} from './api/topic-functions.ts';
export type {
  SseOptions,
  TopicClient,
  TopicHistoryOptions,
  TopicMember,
  TopicPolicies,
  TopicPolicy,
  TopicPresenceOptions,
} from './api/topic-policy.ts';
export type {
  DisconnectTarget,
  History,
  HistoryMessage,
  HistoryOptions,
  Position,
  Presence,
  PresenceCount,
  PresenceEvent,
  PresenceUser,
  Published,
  PublishOptions,
  SubscribeOptions,
  SubscribeRefusal,
  SubscribeResult,
  TopicAction,
  TopicConnection,
  TopicListener,
  TopicListenOptions,
  TopicMessageInfo,
  TopicSubscription,
  TopicsOptions,
} from './api/topics.ts';
export type { Renewal, TokenRefusal, TokenSource, User } from './api/user.ts';
export type {
  CompressionOptions,
  Message,
  RouteAuth,
  RouteParams,
  SendResult,
  Socket,
  UpgradeClient,
  WebSocketHandler,
  WebSocketOptions,
} from './api/websocket.ts';
export type { PublishResult } from './core/node.ts';
export type { TlsInfo } from './core/tls-info.ts';
export {
  authenticate,
  getConnInfo,
  getTlsInfo,
  type TopicEventsOptions,
  topicEvents,
  type UserVariables,
  upgradeWebSocket,
} from './frontend/hono/index.ts';
