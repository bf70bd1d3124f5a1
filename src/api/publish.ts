/**
 * Publishing from anywhere in a program: from HTTP handlers, timers, backends' answers.
 * Role: the worker says which topics are its own; user code calls `publish`.
 */
import type { PublishResult } from '../core/node.ts';
import { jsonText, type Sendable } from './message.ts';
import type { Topics } from './topics.ts';

let topics: Topics | undefined;

export class NotInWorkerError extends Error {
  readonly code = 'RW_NOT_IN_WORKER';
  constructor() {
    super('publish() works in a running gateway: call it from a handler or a timer, not while the config is being loaded');
  }
}

/** Called once, when the worker has its topics. */
export function setPublisher(own: Topics): void {
  topics = own;
}

/**
 * Publish a message to every subscriber of a topic, on every worker of this node, and on every node that it is joined to.
 * Strings go out as text, bytes as binary, a received message as what it was.
 * ret: what becomes of it as far as is known at once: 'accepted', 'queued' for other nodes while they cannot be reached, or 'dropped' for them.
 * Throws RW_NOT_IN_WORKER outside of a running gateway, RW_INVALID_ARGUMENT for what is no topic or no message.
 */
export function publish(topic: string, message: Sendable): PublishResult {
  if (topics === undefined) throw new NotInWorkerError();
  return topics.publish(topic, message);
}

/** Publish a value as JSON text. ret: as that of `publish`. Throws SocketArgumentError for what JSON cannot say, such as undefined. */
export function publishJson(topic: string, value: unknown): PublishResult {
  return publish(topic, jsonText(value));
}
