/**
 * Subscriptions and publishes.
 * Role: adds them to socket-commands.ts. Up: core.ts.
 */
import { coreCalls } from '../../ffi/bindings.ts';
import { capacity, commandFlag, commandType, noSlot, result, slotLayout } from '../../ffi/layout.ts';
import { bytesOf, frameHeadBytes, type Payload, roomOf, type Topic } from './command-batch.ts';
import { slotWords } from './core-memory.ts';
import type { PublishResult } from './node.ts';
import type { CoreOptions } from './options.ts';
import { SocketCommandQueue } from './socket-commands.ts';
import { statIndex } from './stat-index.ts';

/** Of a WebSocket: how many it is subscribed to. */
const slotTopics = slotLayout.topics / 4;
const topicsOfWorker = statIndex('topics');

export abstract class TopicCommandQueue extends SocketCommandQueue {
  readonly #topicsPerSocket: number;
  readonly #topics: number;
  /** Called by `publish`, when the message is on its way to the subscribers of this node: sends it to others. Payload and topic are borrowed. */
  onPublish: ((topic: Topic, flags: number, payload: Payload) => PublishResult) | undefined;
  /** Called when a subscription is refused, because the socket or the worker has all the topics that it may have. */
  onTopicsFull: ((whose: 'socket' | 'worker', most: number) => void) | undefined;

  constructor(options: CoreOptions) {
    super(options);
    this.#topicsPerSocket = options.numbers.topicsPerSocket ?? capacity.topicsPerSocket;
    this.#topics = options.numbers.topics ?? capacity.topics;
  }

  /** ret: false: refused, or the connection is closing */
  subscribe(slot: number, generation: number, topic: Topic): boolean {
    if (!this.isOpen(slot, generation)) return false;
    const commands = this.commands;
    const queued = commands.subscribes;
    const ofSocket = this.slots[slot * slotWords + slotTopics] as number;
    // Only near a limit the core is asked; what is queued may be for any socket, and new.
    if (ofSocket + queued >= this.#topicsPerSocket || Number(this.stats[topicsOfWorker]) + queued >= this.#topics)
      return this.subscribeNow(slot, generation, topic) >= 0;
    commands.payload(commandType.subscribe, 0, slot, generation, topic, 0);
    commands.subscribes = queued + 1;
    return true;
  }

  unsubscribe(slot: number, generation: number, topic: Topic): void {
    this.commands.payload(commandType.unsubscribe, 0, slot, generation, topic, 0);
  }

  /** ret: 1 subscribed now, 0 it was already, negative: refused (a name too long, as many topics as may be, a connection that is gone) */
  subscribeNow(slot: number, generation: number, topic: Topic): number {
    const code = this.commands.direct(commandType.subscribe, 0, slot, generation, bytesOf(topic), 0, 0, 0);
    if (code === result.full) this.tellTopicsFull(slot);
    return code;
  }

  /** A subscription of this connection was refused. */
  protected tellTopicsFull(slot: number): void {
    const isOfSocket = (this.slots[slot * slotWords + slotTopics] as number) >= this.#topicsPerSocket;
    this.onTopicsFull?.(isOfSocket ? 'socket' : 'worker', isOfSocket ? this.#topicsPerSocket : this.#topics);
  }

  /** ret: 1 it was subscribed, 0 it was not, negative: refused */
  unsubscribeNow(slot: number, generation: number, topic: Topic): number {
    return this.commands.direct(commandType.unsubscribe, 0, slot, generation, bytesOf(topic), 0, 0, 0);
  }

  isSubscribed(slot: number, generation: number, topic: Topic): boolean {
    if (topic.length === 0) return false;
    this.flush();
    return coreCalls.isSubscribed(this.pointer, slot, generation, bytesOf(topic));
  }

  /** The names of a connection's topics, as bytes. */
  topicsOf(slot: number, generation: number): Uint8Array[] {
    this.flush();
    const list = coreCalls.topics(this.pointer, slot, generation);
    const names: Uint8Array[] = [];
    for (let at = 0; list !== undefined && at < list.length; ) {
      const bytes = (list[at] as number) | ((list[at + 1] as number) << 8);
      names.push(list.subarray(at + 2, at + 2 + bytes));
      at += 2 + bytes;
    }
    return names;
  }

  /** Subscribers of a topic on this worker. */
  subscribers(topic: Topic): number {
    if (topic.length === 0) return 0;
    this.flush();
    return coreCalls.subscribers(this.pointer, bytesOf(topic));
  }

  /** Whether anybody may be subscribed to a topic, on this worker or on another of the node. */
  isWanted(topic: Topic): boolean {
    if (topic.length === 0) return false;
    this.flush();
    return coreCalls.topicWanted(this.pointer, bytesOf(topic));
  }

  /** Queue a publish; `exceptSlot` is left out, `noSlot` for nobody. */
  publish(topic: Topic, flags: number, payload: Payload, exceptSlot: number = noSlot, exceptGeneration = 0): PublishResult {
    this.#queuePublish(topic, flags, payload, exceptSlot, exceptGeneration);
    return this.onPublish === undefined ? 'accepted' : this.onPublish(topic, flags, payload);
  }

  /** Queue a publish that another node has made: for the subscribers of this worker and of the others of this node. */
  publishRemote(topic: Uint8Array, flags: number, payload: Uint8Array): void {
    this.#queuePublish(topic, flags | commandFlag.publishRemote, payload, noSlot, 0);
  }

  #queuePublish(topic: Topic, flags: number, payload: Payload, exceptSlot: number, exceptGeneration: number): void {
    const commands = this.commands;
    const room = roomOf(topic) + roomOf(payload);
    if (room > capacity.dataBytes) {
      const name = bytesOf(topic);
      const blob = Buffer.concat([name, bytesOf(payload)]);
      commands.direct(commandType.publish, flags, exceptSlot, exceptGeneration, blob, name.byteLength, 0, 0);
      return;
    }
    const offset = commands.room(room);
    const topicBytes = commands.write(topic, offset);
    const payloadBytes = commands.write(payload, offset + topicBytes);
    commands.push(commandType.publish, flags, exceptSlot, exceptGeneration, offset, topicBytes + payloadBytes, topicBytes, 0, 0);
    commands.queuedForAny += payload.length + frameHeadBytes;
  }
}
