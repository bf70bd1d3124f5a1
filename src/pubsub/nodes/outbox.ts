/**
 * Messages that wait to be published, and those under way to the other side of a link.
 *
 * Role: pure. Up: links, which add and take. Down: envelope.ts.
 *
 *   Lane         of a partition: the topics that have something to send, first come first served
 *   Topic        its waiting messages in order; at most one batch of it is under way, so that nothing can overtake
 *   Batch        several messages of a topic, sealed into one envelope
 *   by age       all that waits and may be dropped, in every lane, the oldest first
 *
 *   add() ──► waiting ──take()──► under way ──done()──► gone
 *                ▲                    │
 *                └──── back(): the same envelope goes out again, before what waits: its receivers know it by its sequence
 *
 * What is held is bounded in bytes, batches under way included. Past the bound the oldest that waits is dropped, or the new one, as configured.
 * Batches under way are never dropped: whether they have been published is not known.
 */
import type { LinkContext } from '../link.ts';
import { messageHeadBytes, type Sender } from './envelope.ts';
import { type Item, List } from './list.ts';

/** What a waiting message costs beside its payload and the name of its topic, about. */
const messageOverheadBytes = 192;
/** A batch ends past this, unless it is a single message. */
export const batchBytesMax = 128 * 1024;
/** An envelope counts them in 16 bits. */
const batchMessagesMax = 1024;
/** A batch that was under way so often when its connection broke is what breaks it. */
export const batchAttemptsMax = 8;

export interface OutboxSettings {
  readonly bytesMax: number;
  readonly whenFull: 'drop-oldest' | 'drop-newest';
}

/** Either waits: what can be dropped. */
interface Waiting extends Item<Waiting> {
  readonly topic: Topic;
  readonly messages: number;
  readonly cost: number;
}

interface Message extends Waiting {
  readonly flags: number;
  readonly payload: Uint8Array;
  /** Behind it in its topic. */
  next: Message | undefined;
}

interface Topic extends Item<Topic> {
  readonly lane: Lane;
  /** One character for each byte. */
  readonly key: string;
  first: Message | undefined;
  last: Message | undefined;
  /** Has been under way, and goes first. */
  returned: HeldBatch | undefined;
  underWay: boolean;
}

export interface Batch {
  readonly key: string;
  readonly lane: Lane;
  readonly envelope: Uint8Array;
  readonly messages: number;
}

interface HeldBatch extends Batch, Waiting {
  attempts: number;
}

/** Of one partition. */
export class Lane {
  readonly partition: number;
  readonly topics = new Map<string, Topic>();
  readonly ready = new List<Topic>();
  readonly #onReady: () => void;

  /** `onReady`: it has something to send, after it had nothing. */
  constructor(partition: number, onReady: () => void) {
    this.partition = partition;
    this.#onReady = onReady;
  }

  get isReady(): boolean {
    return this.ready.first !== undefined;
  }

  add(topic: Topic, first: boolean): void {
    const wasReady = this.isReady;
    if (first) this.ready.unshift(topic);
    else this.ready.push(topic);
    if (!wasReady) this.#onReady();
  }
}

export class Outbox {
  readonly #settings: OutboxSettings;
  readonly #sender: Sender;
  readonly #count: LinkContext['count'];
  readonly #byAge = new List<Waiting>();
  /** 2 ** 48 of them last nine years at a million a second. */
  #nextSequence = 1;
  #underWayBytes = 0;
  /** Else nothing more is added, nor counted: its link closes. */
  isOpen = true;
  /** Waiting and under way. */
  messages = 0;
  bytes = 0;

  /** `count`: told of what has gone out, and of 'drops'. */
  constructor(settings: OutboxSettings, sender: Sender, count: LinkContext['count']) {
    this.#settings = settings;
    this.#sender = sender;
    this.#count = count;
  }

  /** Copies the payload. `key`: the topic, one character for each byte. ret: false: it is dropped, since there was no room, or the link closes */
  add(lane: Lane, key: string, flags: number, payload: Uint8Array): boolean {
    if (!this.isOpen) return false;
    const cost = messageOverheadBytes + key.length + payload.byteLength;
    if (!this.#makeRoom(cost)) {
      this.#count('drops', 1);
      return false;
    }
    let topic = lane.topics.get(key);
    if (topic === undefined) {
      topic = { lane, key, first: undefined, last: undefined, returned: undefined, underWay: false, before: undefined, after: undefined };
      lane.topics.set(key, topic);
    }
    const message = {
      topic,
      messages: 1,
      cost,
      flags,
      payload: Buffer.from(payload),
      next: undefined,
      before: undefined,
      after: undefined,
    };
    const hadNone = !hasWaiting(topic);
    if (topic.last === undefined) topic.first = message;
    else topic.last.next = message;
    topic.last = message;
    this.#byAge.push(message);
    this.messages += 1;
    this.bytes += cost;
    if (hadNone && !topic.underWay) lane.add(topic, false);
    return true;
  }

  /** The next batch of a lane, which is then under way until `done`, `discard` or `back`. */
  take(lane: Lane): Batch | undefined {
    const topic = lane.ready.first;
    if (topic === undefined) return undefined;
    lane.ready.remove(topic);
    topic.underWay = true;
    let batch = topic.returned;
    if (batch === undefined) {
      batch = this.#seal(topic);
    } else {
      topic.returned = undefined;
      this.#byAge.remove(batch);
    }
    this.#underWayBytes += batch.cost;
    return batch;
  }

  /** It has arrived at the other side. */
  done(batch: Batch): void {
    this.#end(batch as HeldBatch);
    this.#count('publishes', 1);
    this.#count('messages_out', batch.messages);
    this.#count('bytes_out', batch.envelope.byteLength);
  }

  #end(held: HeldBatch): void {
    const { topic } = held;
    this.#underWayBytes -= held.cost;
    this.#forget(held);
    topic.underWay = false;
    if (hasWaiting(topic)) topic.lane.add(topic, false);
    else topic.lane.topics.delete(topic.key);
  }

  /** The other side will not have it: dropped. */
  discard(batch: Batch): void {
    this.#end(batch as HeldBatch);
    this.#count('drops', batch.messages);
  }

  /** Its connection broke, or it must be sent elsewhere. `isAttempt`: it may have been what broke the connection. */
  back(batch: Batch, isAttempt: boolean): void {
    const held = batch as HeldBatch;
    const { topic } = held;
    if (isAttempt && ++held.attempts === batchAttemptsMax) {
      this.discard(held);
      return;
    }
    this.#underWayBytes -= held.cost;
    topic.underWay = false;
    topic.returned = held;
    this.#byAge.unshift(held);
    topic.lane.add(topic, true);
  }

  /** Drop all that waits. */
  clear(): void {
    for (let oldest = this.#byAge.first; oldest !== undefined; oldest = this.#byAge.first) this.#drop(oldest);
  }

  /** ret: false: there is no room */
  #makeRoom(cost: number): boolean {
    const { bytesMax, whenFull } = this.#settings;
    if (this.bytes + cost <= bytesMax) return true;
    if (whenFull === 'drop-newest' || this.#underWayBytes + cost > bytesMax) return false;
    for (let oldest = this.#byAge.first; this.bytes + cost > bytesMax; oldest = this.#byAge.first) {
      if (oldest === undefined) return false;
      this.#drop(oldest);
    }
    return true;
  }

  /** `waiting`: the oldest of all, and so the first of its topic. */
  #drop(waiting: Waiting): void {
    const { topic } = waiting;
    this.#byAge.remove(waiting);
    this.#forget(waiting);
    if (topic.returned === waiting) topic.returned = undefined;
    else this.#shift(topic);
    if (!hasWaiting(topic) && !topic.underWay) {
      topic.lane.ready.remove(topic);
      topic.lane.topics.delete(topic.key);
    }
    this.#count('drops', waiting.messages);
  }

  #forget({ messages, cost }: Waiting): void {
    this.messages -= messages;
    this.bytes -= cost;
  }

  #shift(topic: Topic): Message | undefined {
    const message = topic.first;
    topic.first = message?.next;
    if (topic.first === undefined) topic.last = undefined;
    return message;
  }

  #seal(topic: Topic): HeldBatch {
    const messages: Message[] = [];
    let payloadBytes = 0;
    let cost = 0;
    for (let next = topic.first; next !== undefined; next = topic.first) {
      const bytes = messageHeadBytes + next.payload.byteLength;
      if (
        messages.length > 0 &&
        (messages.length === batchMessagesMax || payloadBytes + messages.length * messageHeadBytes + bytes > batchBytesMax)
      )
        break;
      this.#shift(topic);
      this.#byAge.remove(next);
      messages.push(next);
      payloadBytes += next.payload.byteLength;
      cost += next.cost;
    }
    const { lane, key } = topic;
    const count = messages.length;
    const sequence = this.#nextSequence;
    this.#nextSequence += count;
    const envelope = this.#sender.messages(key, sequence, messages, count, payloadBytes);
    return { topic, key, lane, envelope, messages: count, cost, attempts: 0, before: undefined, after: undefined };
  }
}

function hasWaiting(topic: Topic): boolean {
  return topic.returned !== undefined || topic.first !== undefined;
}
