/**
 * What handlers, routes and workers may ask of topics, whoever is subscribed: to listen, to look back, to see who is there, over all workers and nodes.
 *
 * Role: ServerTopics of the door (api/topics.ts), behind the functions that the package exports. Up: api/topic-functions.ts. Down: listeners.ts, the store,
 * control.ts for what each worker knows of itself.
 */
import { type Sendable, SocketArgumentError } from '../api/message.ts';
import type {
  DisconnectTarget,
  History,
  HistoryMessage,
  HistoryOptions,
  Presence,
  PresenceCount,
  PresenceEvent,
  Published,
  PublishOptions,
  ServerTopics,
  TopicListener,
  TopicListenOptions,
  TopicMessageInfo,
  TopicSubscription,
  Topics,
  TopicsOptions,
} from '../api/topics.ts';
import { commandFlag } from '../core/abi.ts';
import type { ConnectionName } from '../core/connection.ts';
import type { Core } from '../core/core.ts';
import { controlBytesMax, isCloseCode } from '../core/frame-rules.ts';
import type { LogCommands, LogEntry, LogLimits } from '../core/log-commands.ts';
import type { PublishResult } from '../core/node.ts';
import { type Position, parsePosition } from '../core/position.ts';
import { presenceTopic } from '../core/presence-commands.ts';
import type { Control } from './control.ts';
import type { Ear, Listeners, StreamListening } from './listeners.ts';
import { presenceOf } from './members.ts';
import type { Policies } from './policies.ts';
import { presenceEventOf } from './presence-event.ts';
import { checkTopic, publishDirect } from './raw-topics.ts';
import type { TopicStore } from './store.ts';
import { presenceLogLimits } from './subscriptions.ts';
import { checkSince, withoutHistory, withoutPresence } from './topics.ts';
import { isUserId, userIdBytesMax, userTopic } from './users.ts';

/** Messages of one `history`. */
const historyMax = 1000;
const historyDefault = 100;
/** Names of one `topics`. */
const namesMax = 10_000;
const namesDefault = 1000;
/** Of names in the answer of one worker, so that it passes through the rings between workers beside what is published. */
const answerBytesMax = 262_144;
/** A close reason may have as many bytes as a control frame, less the code (RFC 6455 §5.5.1). */
const reasonBytesMax = controlBytesMax - 2;

/** Streams of server-sent events of this worker. */
export interface TopicStreams {
  /** ret: false: the connection is no stream */
  end(connection: ConnectionName, code: number, reason: string): boolean;
  of(user: string): readonly ConnectionName[];
}

export interface TopicServerPorts {
  readonly core: Pick<Core, 'publish' | 'subscribers' | 'topicsOf' | 'unsubscribe' | 'close' | 'ids' | 'isOpen'> &
    Pick<LogCommands, 'membersOf' | 'topicNames'>;
  readonly topics: Topics;
  readonly policies: Policies;
  readonly store: TopicStore;
  readonly listeners: Listeners;
  readonly control: Pick<Control, 'ask'>;
  /** Whoever has them may come later. */
  readonly streams: () => TopicStreams | undefined;
  /** A listener has failed. Counted, and said. */
  failed(context: object, sentence: string): void;
}

export class TopicServer implements ServerTopics {
  readonly #ports: TopicServerPorts;

  constructor(ports: TopicServerPorts) {
    this.#ports = ports;
  }

  publish(topic: string, message: Sendable): PublishResult {
    return this.#ports.topics.publish(topic, message);
  }

  publishWith(topic: string, message: Sendable, options: PublishOptions): Promise<Published> {
    return this.#ports.topics.publishWith(topic, message, options);
  }

  // ---------------------------------------------------------------- to hear

  async listen(topic: string, listener: TopicListener, options: TopicListenOptions): Promise<TopicSubscription> {
    checkFunction('subscribe', listener);
    checkOptions('subscribe', options, '{ since }');
    const { since, onLost } = options;
    checkSince(since);
    const history = this.#historyOf(topic);
    const ear = this.#earOf(topic, listener, onLost);
    if (history === false) {
      if (since !== undefined) throw withoutHistory(topic, 'keeps nothing that could be gone on from');
      const { stop } = this.#ports.listeners.listen(topic, ear);
      return { recovered: false, unsubscribe: stop };
    }
    const { listeners, store } = this.#ports;
    const from = positionOf(since);
    const listening = await listeners.listenFrom(topic, history, from, store, ear);
    return subscriptionOf(listening);
  }

  #earOf(topic: string, listener: TopicListener, onLost: TopicListenOptions['onLost']): Ear {
    let hasLost = false;
    const info = (position: Position | undefined): TopicMessageInfo => ({
      topic,
      ...(position === undefined ? {} : { epoch: position.epoch, offset: position.offset }),
      ...(hasLost ? { lost: true } : {}),
    });
    return {
      onMessage: ({ flags, payload, position }) => {
        const told = info(position);
        hasLost = false;
        this.#call(topic, () => listener(dataOf(flags, payload), told));
      },
      onLost: (position) => {
        hasLost = true;
        if (onLost !== undefined) this.#call(topic, () => onLost(info(position)));
      },
    };
  }

  async onPresence(topic: string, listener: (event: PresenceEvent) => unknown): Promise<TopicSubscription> {
    checkFunction('onPresence', listener);
    this.#checkPresence(topic);
    const { listeners, store } = this.#ports;
    const ear: Ear = {
      onMessage: ({ flags, payload }) => {
        const event = presenceEventOf(topic, flags, payload);
        if (event !== undefined) this.#call(topic, () => listener(event));
      },
      onLost: () => this.#call(topic, () => listener({ event: 'lost', topic })),
    };
    return subscriptionOf(await listeners.listenFrom(presenceTopic(topic), presenceLogLimits, undefined, store, ear));
  }

  #call(topic: string, call: () => unknown): void {
    const failed = (err: unknown) => this.#ports.failed({ err, topic }, `a listener of the topic ${topic} failed`);
    try {
      const result = call();
      if (result instanceof Promise) result.catch(failed);
    } catch (error) {
      failed(error);
    }
  }

  // ---------------------------------------------------------------- to look

  async history(topic: string, options: HistoryOptions): Promise<History> {
    checkOptions('history', options, '{ since, limit }');
    const { since, limit = historyDefault, reverse = false } = options;
    checkSince(since);
    checkCount('limit', limit, 0, historyMax);
    if (typeof reverse !== 'boolean') throw new SocketArgumentError('reverse is true or false');
    const limits = this.#historyOf(topic);
    if (limits === false) throw withoutHistory(topic, 'has no history');
    const from = positionOf(since);
    // Text that is no position is one that nobody knows.
    const isUnknown = since !== undefined && from === undefined;
    const query = { since: from, limit: isUnknown ? 0 : limit, reverse };
    const { position, recovered, messages } = await this.#ports.store.read(topic, query, limits);
    return { epoch: position.epoch, offset: position.offset, recovered: recovered && !isUnknown, messages: messages.map(historyMessage) };
  }

  async presence(topic: string): Promise<Presence> {
    this.#checkPresence(topic);
    return presenceOf(await this.#ports.store.presence(topic));
  }

  async presenceCount(topic: string): Promise<PresenceCount> {
    this.#checkPresence(topic);
    const { users, connections } = await this.#ports.store.presenceCount(topic);
    return { users, connections };
  }

  async subscribers(topic: string): Promise<number> {
    checkTopic(topic);
    const counts = await this.#ports.control.ask<number | null>('subscribers', { topic });
    return sumOf(counts);
  }

  async topics(prefix: string, options: TopicsOptions): Promise<string[]> {
    checkOptions('topics', options, '{ limit }');
    const { limit = namesDefault } = options;
    if (typeof prefix !== 'string' || prefix.startsWith('\0'))
      throw new SocketArgumentError('a prefix is a string that does not begin with NUL');
    checkCount('limit', limit, 1, namesMax);
    const lists = await this.#ports.control.ask<readonly string[] | null>('topics', { prefix, limit });
    const names = new Set(lists.flatMap((list) => (Array.isArray(list) ? list.filter((name) => typeof name === 'string') : [])));
    return [...names].sort().slice(0, limit);
  }

  // ---------------------------------------------------------------- to act

  async disconnect(target: DisconnectTarget, code: number, reason: string): Promise<number> {
    checkTarget(target);
    if (!isCloseCode(code))
      throw new SocketArgumentError(`close code ${code} may not be sent: write 1000 to 1003, 1007 to 1014, or 3000 to 4999`);
    if (typeof reason !== 'string' || Buffer.byteLength(reason) > reasonBytesMax)
      throw new SocketArgumentError(`a close reason is a string of at most ${reasonBytesMax} bytes of UTF-8`);
    const counts = await this.#ports.control.ask<number | null>('disconnect', { target, code, reason });
    return sumOf(counts);
  }

  sendToUser(user: string, message: Sendable): PublishResult {
    if (!isUserId(user)) throw new SocketArgumentError(`the id of a user is a string of 1 to ${userIdBytesMax} bytes of UTF-8`);
    return publishDirect(this.#ports.core, userTopic(user), message);
  }

  // ---------------------------------------------------------------- for this worker alone, when another asks

  /** By name, as control.ts asks for them. What comes from elsewhere is looked at again. */
  get answers() {
    return {
      subscribers: ({ topic }: { readonly topic: string }) => this.#ports.core.subscribers(topic),
      topics: ({ prefix, limit }: { readonly prefix: string; readonly limit: number }) =>
        this.#namesHere(prefix, Math.min(limit, namesMax)),
      disconnect: ({ target, code, reason }: { readonly target: DisconnectTarget; readonly code: number; readonly reason: string }) => {
        checkTarget(target);
        return this.#disconnectHere(target, code, reason);
      },
    };
  }

  #namesHere(prefix: string, limit: number): string[] {
    const names: string[] = [];
    let bytes = 0;
    for (const name of this.#ports.core.topicNames(prefix, limit)) {
      bytes += name.byteLength;
      if (bytes > answerBytesMax) break;
      // Reserved ones, of which the prefix '' would tell.
      if (name[0] !== 0) names.push(Buffer.from(name).toString());
    }
    return names;
  }

  #disconnectHere(target: DisconnectTarget, code: number, reason: string): number {
    const { core } = this.#ports;
    const streams = this.#ports.streams();
    let count = 0;
    for (const connection of this.#connectionsOf(target)) {
      const { slot, generation } = connection;
      if (!core.isOpen(slot, generation)) continue;
      // Whom others are told of leaves at once: it is meant to be gone, and not to come back within its grace.
      for (const name of core.topicsOf(slot, generation)) core.unsubscribe(slot, generation, name);
      if (streams?.end(connection, code, reason) !== true) core.close(slot, generation, code, reason);
      count++;
    }
    return count;
  }

  #connectionsOf(target: DisconnectTarget): readonly ConnectionName[] {
    const { core } = this.#ports;
    if ('socket' in target) {
      const connection = core.ids.find(target.socket);
      return connection === undefined ? [] : [connection];
    }
    if ('topic' in target) return core.membersOf(target.topic);
    return [...core.membersOf(userTopic(target.user)), ...(this.#ports.streams()?.of(target.user) ?? [])];
  }

  #historyOf(topic: string): false | LogLimits {
    checkTopic(topic);
    return this.#ports.policies.find(topic)?.policy.history ?? false;
  }

  #checkPresence(topic: string): void {
    checkTopic(topic);
    if ((this.#ports.policies.find(topic)?.policy.presence ?? false) === false) throw withoutPresence(topic);
  }
}

function subscriptionOf({ recovered, position, stop }: StreamListening): TopicSubscription {
  return { recovered, unsubscribe: stop, ...(position === undefined ? {} : { epoch: position.epoch, offset: position.offset }) };
}

/** Of what workers have answered; whoever had no answer, or none that is a number, counts as none. */
function sumOf(counts: readonly (number | null)[]): number {
  return counts.reduce<number>((sum, count) => sum + (Number.isSafeInteger(count) ? Number(count) : 0), 0);
}

function positionOf(since: Position | string | undefined): Position | undefined {
  return typeof since === 'string' ? parsePosition(since) : since;
}

function dataOf(flags: number, payload: Uint8Array): string | Uint8Array {
  return (flags & commandFlag.sendText) === 0 ? payload : Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength).toString();
}

function historyMessage({ offset, flags, payload, timeMs }: LogEntry): HistoryMessage {
  return { offset, data: dataOf(flags, payload), time: timeMs };
}

function checkFunction(what: string, listener: unknown): void {
  if (typeof listener !== 'function') throw new SocketArgumentError(`${what} takes a topic and a function that is called with what comes`);
}

function checkOptions(what: string, options: unknown, example: string): void {
  if (typeof options !== 'object' || options === null)
    throw new SocketArgumentError(`options of ${what} are an object, such as ${example}`);
}

function checkCount(name: string, value: number, least: number, most: number): void {
  if (!Number.isSafeInteger(value) || value < least || value > most)
    throw new SocketArgumentError(`${name} is a whole number from ${least} to ${most}`);
}

/** Throws SocketArgumentError. */
function checkTarget(target: DisconnectTarget): void {
  const given = typeof target === 'object' && target !== null ? (target as Partial<Record<'socket' | 'user' | 'topic', unknown>>) : {};
  const { socket, user, topic } = given;
  if ([socket, user, topic].filter((name) => name !== undefined).length !== 1)
    throw new SocketArgumentError('disconnect takes one of { socket }, { user } and { topic }');
  if (topic !== undefined) checkTopic(topic as string);
  if (user !== undefined && !isUserId(user)) throw new SocketArgumentError(`user is a string of 1 to ${userIdBytesMax} bytes of UTF-8`);
  if (socket !== undefined && typeof socket !== 'string') throw new SocketArgumentError('socket is the id of a socket');
}
