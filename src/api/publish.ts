/**
 * Publishing from anywhere in a program: from HTTP handlers, timers, backends' answers.
 * Role: the worker says which core is its own; user code calls `publish`.
 */
import type { Core } from '../core/core.ts';
import { jsonText, publish as publishThrough } from './socket.ts';
import type { Message } from './websocket.ts';

let core: Core | undefined;

export class NotInWorkerError extends Error {
  readonly code = 'RW_NOT_IN_WORKER';
  constructor() {
    super('publish() works in a running gateway: call it from a handler or a timer, not while the config is being loaded');
  }
}

/** Called once, when the worker has its core. */
export function setPublisher(own: Core): void {
  core = own;
}

/**
 * Publish a message to every subscriber of a topic, on every worker of this node, and on other nodes where there is Redis.
 * Strings go out as text, bytes as binary, a received message as what it was.
 */
export function publish(topic: string, message: Message | string | ArrayBuffer | ArrayBufferView): void {
  if (core === undefined) throw new NotInWorkerError();
  publishThrough(core, topic, message);
}

/** Publish a value as JSON text. Throws SocketArgumentError for what JSON cannot say, such as undefined. */
export function publishJson(topic: string, value: unknown): void {
  publish(topic, jsonText(value));
}
