/**
 * Topics with policies: each is direct, as the core has it, or logged, by what the config says of it.
 *
 * Role: the door (api/topics.ts) of a worker whose config has `topics`; without, raw-topics.ts alone is it, and nothing here costs anything. Up: sockets,
 * frontends, api/publish.ts. Down: raw-topics.ts; subscriptions.ts, and the store, for topics with a policy.
 */
import { bytesOf, ReceivedMessage, type Sendable, SocketArgumentError, sendBinary, sendText } from '../api/message.ts';
import type {
  Admitted,
  ProtocolSubscribeOptions,
  Published,
  PublishOptions,
  SubscribeOptions,
  SubscribeResult,
  TopicAction,
  TopicConnection,
  Topics,
} from '../api/topics.ts';
import type { ConnectionName } from '../core/connection.ts';
import type { Core } from '../core/core.ts';
import type { PublishResult } from '../core/node.ts';
import { formatPosition, type Position, parsePosition } from '../core/position.ts';
import { presenceTopic } from '../core/presence-commands.ts';
import type { Admission } from './admission.ts';
import type { Policies } from './policies.ts';
import { checkTopic, type RawTopics } from './raw-topics.ts';
import { type NewMessage, StoreUnavailableError, type TopicStore } from './store.ts';
import type { Subscriptions } from './subscriptions.ts';

/** Longest name of a topic with a policy: the names of what is kept about it have two bytes more. */
const loggedTopicBytesMax = 1022;
const keyBytesMax = 128;

/** What cannot be had of this topic, by its policy. */
export class TopicPolicyError extends Error {
  readonly code = 'RW_TOPIC_POLICY';
}

export interface PolicyTopicsPorts {
  readonly core: Pick<Core, 'unsubscribe'>;
  readonly raw: RawTopics;
  readonly policies: Policies;
  readonly store: TopicStore;
  readonly admission: Admission;
  readonly subscriptions: Subscriptions;
  /** A message to a topic with history was not stored: nobody gets it. */
  onDropped(): void;
}

export class PolicyTopics implements Topics {
  readonly #ports: PolicyTopicsPorts;

  constructor(ports: PolicyTopicsPorts) {
    this.#ports = ports;
  }

  subscribe(connection: TopicConnection, topic: string): boolean {
    const found = this.#find(topic);
    return found === undefined
      ? this.#ports.raw.subscribe(connection, topic)
      : this.#ports.subscriptions.subscribe(connection, topic, found);
  }

  async subscribeWith(connection: TopicConnection, topic: string, options: ProtocolSubscribeOptions): Promise<SubscribeResult> {
    const { since, token, presence = false } = checkSubscribeOptions(options);
    const { admitted, history = 0, onPresence } = options;
    const found = this.#find(topic);
    if (presence && (found === undefined || found.policy.presence === false)) throw withoutPresence(topic);
    if (found === undefined) return this.#ports.raw.subscribeWith(connection, topic);
    return this.#ports.subscriptions.subscribeWith(connection, topic, found, { since, token, presence, admitted, history, onPresence });
  }

  async admit(connection: TopicConnection, topic: string, token: string | undefined): Promise<Admitted | 'forbidden' | 'token'> {
    const found = this.#find(topic);
    return found === undefined ? {} : this.#ports.admission.admit(connection, topic, found, token);
  }

  hasPresence(topic: string): boolean {
    const found = this.#find(topic);
    return found !== undefined && found.policy.presence !== false;
  }

  unsubscribe(connection: ConnectionName, topic: string): void {
    const found = this.#find(topic);
    this.#ports.raw.unsubscribe(connection, topic);
    if (found === undefined) return;
    this.#ports.subscriptions.callOff(connection, topic);
    if (found.policy.presence !== false) this.#ports.core.unsubscribe(connection.slot, connection.generation, presenceTopic(topic));
  }

  bindUser(connection: ConnectionName, user: string): void {
    this.#ports.raw.bindUser(connection, user);
  }

  isSubscribed(connection: ConnectionName, topic: string): boolean {
    return this.#ports.raw.isSubscribed(connection, topic);
  }

  publish(topic: string, message: Sendable, except?: ConnectionName): PublishResult {
    const history = this.#find(topic)?.policy.history ?? false;
    if (history === false) return this.#ports.raw.publish(topic, message, except);
    const result = this.#ports.store.submit(topic, newMessage(message, except), history);
    if (result === 'dropped') this.#ports.onDropped();
    return result;
  }

  async publishWith(topic: string, message: Sendable, options: PublishOptions, except?: ConnectionName): Promise<Published> {
    const { idempotencyKey } = checkPublishOptions(options);
    const history = this.#find(topic)?.policy.history ?? false;
    if (history === false) {
      if (idempotencyKey !== undefined) throw withoutHistory(topic, 'remembers no idempotency keys');
      return this.#ports.raw.publishWith(topic, message, options, except);
    }
    try {
      const { epoch, offset } = await this.#ports.store.append(topic, { ...newMessage(message, except), idempotencyKey }, history);
      return { result: 'accepted', epoch, offset };
    } catch (error) {
      if (error instanceof StoreUnavailableError) this.#ports.onDropped();
      throw error;
    }
  }

  authorize(connection: TopicConnection, topic: string, action: TopicAction): boolean | Promise<boolean> {
    const found = this.#find(topic);
    return found === undefined || this.#ports.admission.authorize(connection, topic, action, found);
  }

  /** Throws SocketArgumentError for what is no name of a topic. */
  #find(topic: string) {
    checkTopic(topic);
    const found = this.#ports.policies.find(topic);
    if (found !== undefined && topic.length * 3 > loggedTopicBytesMax && Buffer.byteLength(topic) > loggedTopicBytesMax)
      throw new SocketArgumentError(`a topic with a policy may have at most ${loggedTopicBytesMax} bytes of UTF-8`);
    return found;
  }
}

export function withoutHistory(topic: string, what: string): TopicPolicyError {
  return new TopicPolicyError(
    `the topic ${JSON.stringify(topic)} ${what}: give it a policy with history in the config, as topics: { 'chat/:room': { history: { size: 100, seconds: 300 } } }`,
  );
}

export function withoutPresence(topic: string): TopicPolicyError {
  return new TopicPolicyError(
    `nobody keeps who is on the topic ${JSON.stringify(topic)}: give it a policy with presence in the config, as topics: { 'chat/:room': { presence: true } }`,
  );
}

/** The payload is borrowed as long as the message is. */
function newMessage(message: Sendable, except: ConnectionName | undefined): NewMessage {
  if (typeof message === 'string') return { flags: sendText, payload: message, except };
  if (message instanceof ReceivedMessage) return { flags: message.isBinary ? sendBinary : sendText, payload: message.borrow(), except };
  return { flags: sendBinary, payload: bytesOf(message), except };
}

/** Throws SocketArgumentError for what callers without types may give. */
function checkSubscribeOptions(options: SubscribeOptions): SubscribeOptions {
  if (typeof options !== 'object' || options === null)
    throw new SocketArgumentError('options of subscribe are an object, such as { since }');
  const { since, token, presence } = options;
  checkSince(since);
  if (token !== undefined && typeof token !== 'string') throw new SocketArgumentError('token is a string');
  if (presence !== undefined && typeof presence !== 'boolean') throw new SocketArgumentError('presence is true or false');
  return options;
}

/** Any text may have come from a client; an object is the caller's own. Throws SocketArgumentError. */
export function checkSince(since: SubscribeOptions['since']): void {
  if (since === undefined || typeof since === 'string') return;
  if (typeof since !== 'object' || since === null || !isPosition(since))
    throw new SocketArgumentError('since is a position, { epoch, offset }, or its text, `<epoch>:<offset>`');
}

function isPosition(value: Position): boolean {
  return typeof value.epoch === 'string' && typeof value.offset === 'number' && parsePosition(formatPosition(value)) !== undefined;
}

function checkPublishOptions(options: PublishOptions): PublishOptions {
  if (typeof options !== 'object' || options === null)
    throw new SocketArgumentError('options of publish are an object, such as { idempotencyKey }');
  const { idempotencyKey } = options;
  if (idempotencyKey === undefined) return options;
  const isKey = typeof idempotencyKey === 'string' && idempotencyKey !== '' && Buffer.byteLength(idempotencyKey) <= keyBytesMax;
  if (!isKey) throw new SocketArgumentError(`idempotencyKey is a string of 1 to ${keyBytesMax} bytes of UTF-8`);
  return options;
}
