/**
 * Publishing from anywhere in a program: from HTTP handlers, timers, backends' answers.
 * Role: the worker says which topics are its own; user code calls `publish`.
 */
import type { PublishResult } from '../core/node.ts';
import { jsonText, type Sendable } from './message.ts';
import type { Published, PublishOptions, ServerTopics, Topics } from './topics.ts';

let topics: Pick<Topics, 'publish' | 'publishWith'> | undefined;
let server: ServerTopics | undefined;

export class NotInWorkerError extends Error {
  readonly code = 'RW_NOT_IN_WORKER';
  constructor(what = 'publish') {
    super(
      `${what}() works in a running gateway: call it from a handler, onStart, onOneWorker or a timer, not while the config is being loaded`,
    );
  }
}

/** Called once, when the worker has its topics. */
export function setPublisher(own: Pick<Topics, 'publish' | 'publishWith'>): void {
  topics = own;
}

/** Called once, when the worker can answer about them. */
export function setServerTopics(own: ServerTopics): void {
  server = own;
}

/** What answers `what`. Throws NotInWorkerError. */
export function serverTopics(what: string): ServerTopics {
  if (server === undefined) throw new NotInWorkerError(what);
  return server;
}

/**
 * Publish a message to every subscriber of a topic, on every worker of this node, and on every node that it is joined to.
 * Strings go out as text, bytes as binary, a received message as what it was.
 * ret: what becomes of it as far as is known at once: 'accepted', 'queued' for other nodes while they cannot be reached, or 'dropped' for them. Of a topic
 * with history: 'accepted': it lies in the log, or is on the way there; 'dropped': nobody gets it.
 * Throws RW_NOT_IN_WORKER outside of a running gateway, RW_INVALID_ARGUMENT for what is no topic or no message.
 */
export function publish(topic: string, message: Sendable): PublishResult;
/**
 * The same, and wait until it is known where the message lies in the log of its topic, if that has history.
 * Rejects with RW_TOPIC_STORE_UNAVAILABLE when it was not stored: then nobody gets it. With RW_TOPIC_POLICY for an idempotency key where nothing remembers it.
 */
export function publish(topic: string, message: Sendable, options: PublishOptions): Promise<Published>;
export function publish(topic: string, message: Sendable, options?: PublishOptions): PublishResult | Promise<Published> {
  if (topics === undefined) throw new NotInWorkerError();
  return options === undefined ? topics.publish(topic, message) : topics.publishWith(topic, message, options);
}

/** Publish a value as JSON text. ret: as that of `publish`. Throws SocketArgumentError for what JSON cannot say, such as undefined. */
export function publishJson(topic: string, value: unknown): PublishResult;
export function publishJson(topic: string, value: unknown, options: PublishOptions): Promise<Published>;
export function publishJson(topic: string, value: unknown, options?: PublishOptions): PublishResult | Promise<Published> {
  return options === undefined ? publish(topic, jsonText(value)) : publish(topic, jsonText(value), options);
}
