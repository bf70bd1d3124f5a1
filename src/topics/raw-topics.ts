/**
 * Topics as the core has them: whoever asks is subscribed, and what is published is gone once it was sent.
 * Role: between sockets and the core's subscriptions. Up: api/socket.ts and api/publish.ts, through `Topics`. Down: core/topic-commands.ts.
 */
import { bytesOf, ReceivedMessage, type Sendable, SocketArgumentError, sendBinary, sendText } from '../api/message.ts';
import type { Admitted, Published, SubscribeResult, TopicConnection, Topics } from '../api/topics.ts';
import type { ConnectionName } from '../core/connection.ts';
import type { Core } from '../core/core.ts';
import { type PublishResult, topicBytesMax } from '../core/node.ts';
import { bindUser } from './users.ts';

export class RawTopics implements Topics {
  readonly #core: Core;

  constructor(core: Core) {
    this.#core = core;
  }

  subscribe({ slot, generation }: ConnectionName, topic: string): boolean {
    checkTopic(topic);
    return this.#core.subscribe(slot, generation, topic);
  }

  async subscribeWith(connection: ConnectionName, topic: string): Promise<SubscribeResult> {
    if (this.subscribe(connection, topic)) return { subscribed: true, recovered: false };
    const isOpen = this.#core.isOpen(connection.slot, connection.generation);
    return { subscribed: false, reason: isOpen ? 'limit' : 'closed', recovered: false };
  }

  unsubscribe({ slot, generation }: ConnectionName, topic: string): void {
    checkTopic(topic);
    this.#core.unsubscribe(slot, generation, topic);
  }

  bindUser(connection: ConnectionName, user: string): void {
    bindUser(this.#core, connection, user);
  }

  isSubscribed({ slot, generation }: ConnectionName, topic: string): boolean {
    checkTopic(topic);
    return this.#core.isSubscribed(slot, generation, topic);
  }

  publish(topic: string, message: Sendable, except?: ConnectionName): PublishResult {
    checkTopic(topic);
    return publishDirect(this.#core, topic, message, except);
  }

  async publishWith(topic: string, message: Sendable, _options: unknown, except?: ConnectionName): Promise<Published> {
    return { result: this.publish(topic, message, except) };
  }

  async admit(_connection: TopicConnection, topic: string): Promise<Admitted> {
    checkTopic(topic);
    return {};
  }

  hasPresence(_topic: string): boolean {
    return false;
  }

  authorize(): boolean {
    return true;
  }
}

/** To whoever is subscribed now. Reserved topics are topics here. */
export function publishDirect(core: Pick<Core, 'publish'>, topic: string, message: Sendable, except?: ConnectionName): PublishResult {
  if (typeof message === 'string') return core.publish(topic, sendText, message, except?.slot, except?.generation);
  if (message instanceof ReceivedMessage)
    return core.publish(topic, message.isBinary ? sendBinary : sendText, message.borrow(), except?.slot, except?.generation);
  return core.publish(topic, sendBinary, bytesOf(message), except?.slot, except?.generation);
}

/** Throws SocketArgumentError. */
export function checkTopic(topic: string): void {
  if (typeof topic !== 'string' || topic === '') throw new SocketArgumentError('a topic is a string that is not empty');
  if (topic.length * 3 > topicBytesMax && Buffer.byteLength(topic) > topicBytesMax) {
    throw new SocketArgumentError(`a topic may have at most ${topicBytesMax} bytes of UTF-8`);
  }
  if (topic.charCodeAt(0) === 0)
    throw new SocketArgumentError("topics that begin with NUL are Ringway's own: begin with another character");
}
