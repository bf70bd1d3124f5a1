/**
 * What sockets, and `publish`, ask of topics.
 * Role: the door to src/topics/, which implements it; handed over by whoever puts a worker together.
 */
import type { ConnectionName } from '../core/connection.ts';
import type { PublishResult } from '../core/node.ts';
import type { Sendable } from './message.ts';

/** Each throws SocketArgumentError for what is no name of a topic: a string of 1 to `topicBytesMax` bytes. */
export interface Topics {
  /** ret: whether the socket is subscribed; false: it is closing, or it or the worker has as many topics as may be */
  subscribe(socket: ConnectionName, topic: string): boolean;
  unsubscribe(socket: ConnectionName, topic: string): void;
  isSubscribed(socket: ConnectionName, topic: string): boolean;
  /** To every subscriber on every worker and node, but for the socket that is `except`. The message is borrowed for the call. ret: as `publish` */
  publish(topic: string, message: Sendable, except?: ConnectionName): PublishResult;
}
