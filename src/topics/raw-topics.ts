/**
 * Topics as the core has them: whoever asks is subscribed, and what is published is gone once it was sent.
 * Role: between sockets and the core's subscriptions. Up: api/socket.ts and api/publish.ts, through `Topics`. Down: core/topic-commands.ts.
 */
import { bytesOf, ReceivedMessage, type Sendable, SocketArgumentError, sendBinary, sendText } from '../api/message.ts';
import type { Topics } from '../api/topics.ts';
import type { ConnectionName } from '../core/connection.ts';
import type { Core } from '../core/core.ts';
import { type PublishResult, topicBytesMax } from '../core/node.ts';

export class RawTopics implements Topics {
  readonly #core: Core;

  constructor(core: Core) {
    this.#core = core;
  }

  subscribe({ slot, generation }: ConnectionName, topic: string): boolean {
    checkTopic(topic);
    return this.#core.subscribe(slot, generation, topic);
  }

  unsubscribe({ slot, generation }: ConnectionName, topic: string): void {
    checkTopic(topic);
    this.#core.unsubscribe(slot, generation, topic);
  }

  isSubscribed({ slot, generation }: ConnectionName, topic: string): boolean {
    checkTopic(topic);
    return this.#core.isSubscribed(slot, generation, topic);
  }

  publish(topic: string, message: Sendable, except?: ConnectionName): PublishResult {
    checkTopic(topic);
    const core = this.#core;
    if (typeof message === 'string') return core.publish(topic, sendText, message, except?.slot, except?.generation);
    if (message instanceof ReceivedMessage)
      return core.publish(topic, message.isBinary ? sendBinary : sendText, message.borrow(), except?.slot, except?.generation);
    return core.publish(topic, sendBinary, bytesOf(message), except?.slot, except?.generation);
  }
}

function checkTopic(topic: string): void {
  if (typeof topic !== 'string' || topic === '') throw new SocketArgumentError('a topic is a string that is not empty');
  if (topic.length * 3 > topicBytesMax && Buffer.byteLength(topic) > topicBytesMax) {
    throw new SocketArgumentError(`a topic may have at most ${topicBytesMax} bytes of UTF-8`);
  }
}
