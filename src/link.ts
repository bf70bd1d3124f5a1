/**
 * What the package offers, as 'ringway/link', to who writes a link of their own (docs/nodes.md): the types, an outbox that keeps what waits in order
 * and within bounds, and envelopes that make bytes of messages and say whose they are.
 */
export type {
  ArrivedMessage,
  LinkContext,
  LinkCounter,
  LinkEvents,
  LinkHealth,
  LinkLogger,
  LinkState,
  NodeLink,
  Publisher,
} from './pubsub/link.ts';
export { type Envelope, Envelopes, type EnvelopesOptions, readMessages } from './pubsub/nodes/envelope.ts';
export { topicBytes, topicKey } from './pubsub/nodes/mail.ts';
export { type Batch, Lane, Outbox, type OutboxSettings } from './pubsub/nodes/outbox.ts';
