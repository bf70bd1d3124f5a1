/**
 * Logs of topics in Redis: appends in batches, reads, and what is told of appends to who is subscribed.
 *
 * Role: the `logs` of a Redis link. Up: redis-link.ts. Down: script-calls.ts carries what is asked, log-scripts.ts is what Redis does with it.
 *
 *   append() ──► waiting, by topic ──one batch of a topic at a time──► append script ──► answered, each message with its position
 *                                                                           └──► published to the topic's channel: a notice
 *
 * A batch has a number of this publisher's, by which Redis knows it when it is asked again. Since only one of a topic is under way, it remembers one.
 *
 *   notice   3 u8 | prefix bytes u8 | epoch 8 bytes | first offset u48 | milliseconds u48 | count u16, then `count` times: length u32 | envelope
 */
import { randomBytes } from 'node:crypto';
import type { Appended, LogLimits } from '../../core/log-commands.ts';
import {
  type LinkCounter,
  type LinkLogs,
  LinkUnavailableError,
  type NewStoredEntry,
  type StoredEntry,
  type StoredPage,
  type StoredQuery,
  type StoredRange,
} from '../link.ts';
import { type Envelopes, sequenceMax } from '../nodes/envelope.ts';
import { topicKey } from '../nodes/mail.ts';
import type { Channels } from './channels.ts';
import { LinkError } from './failure.ts';
import { appendScript, damagedWord, readScript } from './log-scripts.ts';
import { type Asked, ending, Script, type ScriptCalls, type ScriptWord, tooMuch } from './script-calls.ts';

/** How long an append or a read waits for Redis: longer than a failover takes where it is set up well. */
export const waitMs = 10_000;
/** How long an idempotency key is remembered. */
const onceSeconds = 120;
/** A batch ends past either, unless it is a single message: Redis does nothing else meanwhile. */
const batchBytesMax = 128 * 1024;
const batchMessagesMax = 256;
/** What a message that waits costs beside its envelope, about. */
const messageOverheadBytes = 256;
/** Reads of a partition under way, and all those that wait for their turn. */
const readsUnderWayMax = 16;
const readsWaitingMax = 16_384;
/** Topics of which it is known what was appended last. */
const appendedMax = 16_384;

export const noEpoch = '0000000000000000';

const append = new Script(appendScript);
const read = new Script(readScript);

export interface LogsHost {
  readonly channels: Channels;
  readonly envelopes: Envelopes;
  readonly calls: ScriptCalls;
  readonly isSharded: boolean;
  readonly prefixBytes: number;
  readonly bytesMax: number;
  now(): number;
  /** Counts the connections to the server of a partition. */
  tenureOf(partition: number): number;
  count(counter: LinkCounter, by: number): void;
  /** A step has failed for a reason that somebody must look at. */
  onDamage(text: string): void;
  isUp(partition: number): boolean;
}

interface Message {
  readonly envelope: Buffer;
  readonly once: Buffer | undefined;
  readonly limits: LogLimits;
  readonly untilMs: number;
  readonly resolve: (appended: Appended) => void;
  readonly reject: (error: unknown) => void;
}

interface Topic {
  readonly key: string;
  readonly partition: number;
  waiting: Message[];
  isUnderWay: boolean;
}

/** The last entry of a topic that this link has appended, and when. */
interface Known {
  readonly epoch: string;
  readonly offset: number;
  readonly timeMs: string;
  readonly tenure: number;
}

interface Reading {
  readonly page: Promise<StoredPage>;
}

interface Turns {
  underWay: number;
  readonly waiting: (() => void)[];
}

export class RedisLogs implements LinkLogs {
  readonly #host: LogsHost;
  readonly #publisher: Buffer;
  readonly #topics = new Map<string, Topic>();
  readonly #appended = new Map<string, Known>();
  readonly #reads = new Map<string, Reading>();
  /** By partition: one that cannot be reached holds no other up. */
  readonly #turns = new Map<number, Turns>();
  #readsWaiting = 0;
  #sequence = 1;
  /** Waiting and under way. */
  #bytes = 0;
  #isOpen = true;

  constructor(host: LogsHost) {
    const { node, worker } = host.envelopes.sender.publisher;
    this.#host = host;
    this.#publisher = Buffer.alloc(12);
    this.#publisher.write(node, 'hex');
    this.#publisher.writeUInt32BE(worker, 8);
  }

  /** Appends that wait, or are under way. */
  get isIdle(): boolean {
    return this.#topics.size === 0;
  }

  /** What waits goes out; nothing more is taken. */
  close(): void {
    this.#isOpen = false;
  }

  // ---- appending

  append(name: Uint8Array, entry: NewStoredEntry, limits: LogLimits): Promise<Appended> {
    const { channels, envelopes } = this.#host;
    const key = topicKey(name);
    const partition = channels.partitionOf(key);
    if (!this.hasRoom(entry.payload.byteLength)) return this.#refuse(this.#isOpen ? tooMuch : ending);
    const envelope = envelopes.sender.entry(key, this.#nextSequence(), entry);
    const once = entry.key && channels.keyOf('once', onceName(key, entry.key), partition);
    return new Promise<Appended>((resolve, reject) => {
      this.#bytes += costOf(envelope);
      let topic = this.#topics.get(key);
      if (topic === undefined) {
        topic = { key, partition, waiting: [], isUnderWay: false };
        this.#topics.set(key, topic);
      }
      topic.waiting.push({ envelope, once, limits, untilMs: this.#host.now() + waitMs, resolve, reject });
      if (!topic.isUnderWay) void this.#send(topic);
    });
  }

  hasRoom(bytes: number): boolean {
    return this.#isOpen && this.#bytes + bytes + messageOverheadBytes <= this.#host.bytesMax;
  }

  #nextSequence(): number {
    const sequence = this.#sequence;
    this.#sequence = sequence === sequenceMax ? 1 : sequence + 1;
    return sequence;
  }

  #refuse(why: string): Promise<never> {
    this.#host.count('log_failures', 1);
    return Promise.reject(new LinkUnavailableError(why));
  }

  async #send(topic: Topic): Promise<void> {
    topic.isUnderWay = true;
    let batch: Message[] = [];
    const sequence = this.#nextSequence();
    const epoch = newEpoch();
    const make = () => {
      // Asked again, it is the same batch.
      if (batch.length === 0) batch = takeBatch(topic);
      return this.#askAppend(topic, batch, sequence, epoch);
    };
    try {
      const answer = await this.#host.calls.call({ partition: topic.partition, make, bytes: 0, withinMs: waitMs });
      this.#appendedBatch(topic, batch, answer);
    } catch (error) {
      // Without an attempt, all that waits has waited as long.
      if (batch.length === 0) batch = takeBatch(topic);
      const why = unavailable(this.#host, error);
      for (const message of batch) message.reject(why);
      this.#host.count('log_failures', batch.length);
    }
    for (const { envelope } of batch) this.#bytes -= costOf(envelope);
    topic.isUnderWay = false;
    if (topic.waiting.length > 0) void this.#send(topic);
    else this.#topics.delete(topic.key);
  }

  #askAppend({ key, partition }: Topic, batch: readonly Message[], sequence: number, candidate: Buffer): Asked {
    const { channels, isSharded, prefixBytes, tenureOf } = this.#host;
    const known = this.#appended.get(key);
    const keys = [channels.keyOf('log', key, partition), channels.keyOf('meta', key, partition)];
    const indexes = new Map<string, number>();
    const entries: ScriptWord[] = [];
    for (const { envelope, once } of batch) {
      let index = 0;
      if (once !== undefined) {
        const name = once.toString('latin1');
        index = indexes.get(name) ?? keys.push(once);
        indexes.set(name, index);
      }
      entries.push(envelope, index);
    }
    const { size, seconds } = (batch[0] as Message).limits;
    const words: ScriptWord[] = [
      channels.nameOf(key, partition),
      isSharded ? 'SPUBLISH' : 'PUBLISH',
      prefixBytes,
      this.#publisher,
      sequence,
      candidate,
      size,
      seconds,
      ...seenWords(known, known === undefined || known.tenure === tenureOf(partition) ? '0' : known.timeMs),
      onceSeconds,
      ...entries,
    ];
    return { script: append, keys, words };
  }

  #appendedBatch(topic: Topic, batch: readonly Message[], answer: unknown): void {
    const [time, positions] = answer as [Buffer, Buffer];
    let last: Appended | undefined;
    for (const [i, message] of batch.entries()) {
      const at = i * 15;
      const isDuplicate = positions[at] === 1;
      const appended = { epoch: positions.toString('hex', at + 1, at + 9), offset: positions.readUIntBE(at + 9, 6), isDuplicate };
      if (!isDuplicate) last = appended;
      message.resolve(appended);
    }
    this.#host.count('log_appends', batch.length);
    if (last === undefined) return;
    const { epoch, offset } = last;
    this.#appended.delete(topic.key);
    this.#appended.set(topic.key, { epoch, offset, timeMs: time.toString('latin1'), tenure: this.#host.tenureOf(topic.partition) });
    if (this.#appended.size > appendedMax) this.#appended.delete(this.#appended.keys().next().value as string);
  }

  /** Messages whose time is over wait no longer, though others of their topic are under way. */
  tick(): void {
    const now = this.#host.now();
    for (const topic of this.#topics.values()) {
      const over = topic.waiting.findIndex(({ untilMs }) => untilMs > now);
      const late = topic.waiting.splice(0, over < 0 ? topic.waiting.length : over);
      if (late.length === 0) continue;
      for (const { envelope, reject } of late) {
        this.#bytes -= costOf(envelope);
        reject(new LinkUnavailableError('Redis does not answer'));
      }
      this.#host.count('log_failures', late.length);
    }
  }

  // ---- reading

  read(name: Uint8Array, query: StoredQuery, limits: LogLimits): Promise<StoredPage> {
    const key = topicKey(name);
    const joint = JSON.stringify([key, query, limits]);
    const present = this.#reads.get(joint);
    if (present !== undefined) return present.page;
    if (this.#readsWaiting >= readsWaitingMax) return this.#refuse('too many reads wait already');
    const page = this.#read(key, query, limits).finally(() => this.#reads.delete(joint));
    this.#reads.set(joint, { page });
    return page;
  }

  async #read(key: string, query: StoredQuery, limits: LogLimits): Promise<StoredPage> {
    const { channels, calls } = this.#host;
    const partition = channels.partitionOf(key);
    await this.#turn(partition);
    try {
      const { mode, from, limit, bytes, seen, begins } = query;
      const keys = [channels.keyOf('log', key, partition), channels.keyOf('meta', key, partition)];
      const make = (): Asked => ({
        script: read,
        keys,
        words: [
          begins === true || seen !== undefined ? newEpoch() : '',
          limits.size,
          limits.seconds,
          ...seenWords(seen, String(seen?.timeMs ?? 0)),
          mode,
          from,
          limit,
          bytes,
        ],
      });
      const answer = await calls.call({ partition, make, bytes: 0, withinMs: waitMs });
      this.#host.count('log_reads', 1);
      return this.#pageOf(key, answer as Buffer[]);
    } catch (error) {
      this.#host.count('log_failures', 1);
      throw unavailable(this.#host, error);
    } finally {
      this.#endTurn(partition);
    }
  }

  async #turn(partition: number): Promise<void> {
    let turns = this.#turns.get(partition);
    if (turns === undefined) {
      turns = { underWay: 0, waiting: [] };
      this.#turns.set(partition, turns);
    }
    if (turns.underWay < readsUnderWayMax) {
      turns.underWay += 1;
      return;
    }
    this.#readsWaiting += 1;
    await new Promise<void>((resume) => turns.waiting.push(resume));
    this.#readsWaiting -= 1;
  }

  /** The turn goes to the next one. */
  #endTurn(partition: number): void {
    const turns = this.#turns.get(partition);
    if (turns === undefined) return;
    const next = turns.waiting.shift();
    if (next !== undefined) next();
    else if (--turns.underWay === 0) this.#turns.delete(partition);
  }

  #pageOf(key: string, [epoch, offset, ...rest]: Buffer[]): StoredPage {
    const entries: StoredEntry[] = [];
    for (let i = 0; i + 1 < rest.length; i += 2) {
      const [at = 0, timeMs = 0] = (rest[i] as Buffer).toString('latin1').split('-').map(Number);
      const opened = this.#host.envelopes.openEntry(rest[i + 1] as Buffer, key);
      if (opened !== undefined) entries.push({ offset: at, timeMs, ...opened });
    }
    return { epoch: (epoch?.byteLength ?? 0) === 8 ? (epoch as Buffer).toString('hex') : noEpoch, offset: Number(offset), entries };
  }

  // ---- notices

  /** ret: undefined: these bytes are none, or somebody else's */
  openNotice(bytes: Buffer, key: string): StoredRange | undefined {
    if (bytes.byteLength < noticeHeadBytes || bytes[1] !== this.#host.prefixBytes) return undefined;
    const epoch = bytes.toString('hex', 2, 10);
    const first = bytes.readUIntBE(10, 6);
    const timeMs = bytes.readUIntBE(16, 6);
    const count = bytes.readUInt16BE(22);
    const entries: StoredEntry[] = [];
    let at = noticeHeadBytes;
    for (let i = 0; i < count; i++) {
      if (at + 4 > bytes.byteLength) return undefined;
      const end = at + 4 + bytes.readUInt32BE(at);
      if (end > bytes.byteLength) return undefined;
      const opened = this.#host.envelopes.openEntry(bytes.subarray(at + 4, end), key);
      if (opened !== undefined) entries.push({ offset: first + i, timeMs, ...opened });
      at = end;
    }
    return at === bytes.byteLength && epoch !== noEpoch ? { epoch, entries } : undefined;
  }
}

/** Why a step was given up, as whoever waits for it is told. */
export function unavailable(host: LogsHost, error: unknown): LinkUnavailableError {
  if (error instanceof LinkUnavailableError) return error;
  const text = error instanceof LinkError ? error.failure.text : String(error);
  const damaged = new RegExp(`^${damagedWord} (\\S*)`).exec(text)?.[1];
  if (damaged === undefined && !text.startsWith('WRONGTYPE')) {
    host.onDamage(text);
    return new LinkUnavailableError(text);
  }
  host.count('log_damaged', 1);
  const why = `the key ${damaged ?? 'of this topic'} in Redis holds something that is not Ringway's; remove it, or give Ringway a prefix of its own`;
  host.onDamage(why);
  return new LinkUnavailableError(why);
}

const noticeHeadBytes = 24;

/** Whether what came on a channel is a notice of a log, and no envelope. */
export function isNotice(bytes: Buffer): boolean {
  return bytes[0] === 3;
}

function takeBatch(topic: Topic): Message[] {
  let bytes = 0;
  let count = 0;
  for (const { envelope } of topic.waiting) {
    if (count > 0 && (count === batchMessagesMax || bytes + envelope.byteLength > batchBytesMax)) break;
    count += 1;
    bytes += envelope.byteLength;
  }
  return topic.waiting.splice(0, count);
}

function costOf(envelope: Buffer): number {
  return messageOverheadBytes + envelope.byteLength;
}

/** The length stands in front, so that no two topics with keys make one name. */
function onceName(topic: string, key: Uint8Array): string {
  return `${topic.length}:${topic}${Buffer.from(key).toString('latin1')}`;
}

function seenWords(seen: { readonly epoch: string; readonly offset: number } | undefined, timeMs: string): ScriptWord[] {
  return seen === undefined || seen.epoch === noEpoch ? ['', 0, 0] : [Buffer.from(seen.epoch, 'hex'), seen.offset, timeMs];
}

export function newEpoch(): Buffer {
  for (;;) {
    const epoch = randomBytes(8);
    if (epoch.some((byte) => byte !== 0)) return epoch;
  }
}
