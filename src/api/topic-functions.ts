/**
 * What a program may ask of topics from anywhere: HTTP handlers, timers, `onOneWorker`.
 * Role: the functions that the package exports; the worker says what is behind them. publish.ts has `publish`.
 */
import type { PublishResult } from '../core/node.ts';
import { jsonText, type Sendable } from './message.ts';
import { serverTopics } from './publish.ts';
import type {
  DisconnectTarget,
  History,
  HistoryOptions,
  Presence,
  PresenceCount,
  PresenceEvent,
  TopicListener,
  TopicListenOptions,
  TopicSubscription,
  TopicsOptions,
} from './topics.ts';

// Each of these throws RW_NOT_IN_WORKER outside of a running gateway: at once, so that a config which calls it while it is loaded fails where it is checked.
// Each rejects, or throws, with RW_INVALID_ARGUMENT for what is no name of a topic, or no option of its own. Those that read what a store keeps reject with RW_TOPIC_STORE_UNAVAILABLE when it cannot be reached.

/**
 * Hear the messages of a topic in this worker, in order: those of every worker and node. With `since`, those after that position first. Of a topic with
 * history none is left out without a word; of others, messages that come faster than they are heard may be.
 * Resolves once it hears. Rejects with RW_TOPIC_POLICY for `since` of a topic without history, RW_TOPICS_FULL.
 */
export function subscribe(topic: string, listener: TopicListener, options: TopicListenOptions = {}): Promise<TopicSubscription> {
  return serverTopics('subscribe').listen(topic, listener, options);
}

/** What was said on a topic. Rejects with RW_TOPIC_POLICY for one without history. */
export function history(topic: string, options: HistoryOptions = {}): Promise<History> {
  return serverTopics('history').history(topic, options);
}

/** Who is on a topic, over all workers and nodes. Rejects with RW_TOPIC_POLICY for one without presence. */
export function presence(topic: string): Promise<Presence> {
  return serverTopics('presence').presence(topic);
}

/** How many are on a topic. Rejects as `presence`. */
export function presenceCount(topic: string): Promise<PresenceCount> {
  return serverTopics('presenceCount').presenceCount(topic);
}

/** Be told of joins and leaves from now on, each once, in order. Rejects as `presence`, and with RW_TOPICS_FULL. */
export function onPresence(topic: string, listener: (event: PresenceEvent) => unknown): Promise<TopicSubscription> {
  return serverTopics('onPresence').onPresence(topic, listener);
}

/** Connections that are subscribed to a topic, over all workers and nodes: those that answer within two seconds. */
export function subscribers(topic: string): Promise<number> {
  return serverTopics('subscribers').subscribers(topic);
}

/** Topics that begin with `prefix` and have subscribers, in alphabetical order; asked as `subscribers`. */
export function topics(prefix = '', options: TopicsOptions = {}): Promise<string[]> {
  return serverTopics('topics').topics(prefix, options);
}

/**
 * End connections, on whichever worker and node: WebSockets with that code and reason, streams of events with their end. Who was a member of a topic has
 * left at once, without grace.
 * ret: how many there were
 */
export function disconnect(target: DisconnectTarget, code = 1000, reason = ''): Promise<number> {
  return serverTopics('disconnect').disconnect(target, code, reason);
}

/** Send to every connection of a user, on whichever worker and node. ret: as `publish` */
export function sendToUser(user: string, message: Sendable): PublishResult {
  return serverTopics('sendToUser').sendToUser(user, message);
}

/** Send a value as JSON text. ret: as `publish` */
export function sendJsonToUser(user: string, value: unknown): PublishResult {
  return sendToUser(user, jsonText(value));
}
