/**
 * Logs that lie at the other side of a link and that this node follows: its own memory has the end of each, whole, and every worker delivers from that.
 *
 * Role: of the worker that owns the topic. What comes by its subscription is put into the node's log; what has not come is read. Up: bus.ts, ownership.ts.
 * Down: the core's logs, the `logs` of a link.
 *
 *   subscribed, restored ──► behind: reads what came after the node's end, holds back what comes ──► whole: followed
 *                              ▲                                                                        │
 *                              └───────── an entry comes that does not follow the last one ─────────────┘
 *
 * The node's log is only ever gone on with, whoever owned the topic before: subscribers stand in it. It begins anew when the other side's has another
 * epoch, or does not have the next entry any more; the core tells subscribers then that something is lost, and what they may have had is not sent again.
 * Entries are numbered: it does no harm that an old and a new owner, or two reads, put the same one.
 */
import type { LogCommands, LogEnd, LogLimits, Origin } from '../../core/log-commands.ts';
import type { LinkLogs, StoredEntry, StoredPage, StoredRange } from '../link.ts';
import type { Clock } from './clock.ts';
import { topicBytes } from './mail.ts';
import { workerOf } from './owned-topic.ts';

/** Repairs: a followed log was read, since something had not come. Breaks: it went on without something. Full: no memory for an entry. */
export type FollowedCounter = 'log_repairs' | 'log_breaks' | 'log_full' | 'messages_in';

export interface FollowedPorts {
  readonly nodeId: string;
  readonly clock: Clock;
  readonly core: Pick<LogCommands, 'logPut' | 'logReset' | 'logEnd' | 'logRead'>;
  readonly logs: Pick<LinkLogs, 'read'>;
  /** What the log of a topic keeps; undefined: it has none here. `key`: one character for each byte. */
  limitsOf(key: string): LogLimits | undefined;
  count(counter: FollowedCounter, by: number): void;
  /** The node follows a log by this worker, or it does not any more. */
  onFollowed?(topic: Uint8Array, isFollowed: boolean): void;
}

/** Topics that are read for at once: some of them may be where nothing can be reached. */
const readingMax = 64;
/** What a log begins with here, and how much is read at once to go on with it. */
const tailEntries = 1000;
const tailBytes = 256 * 1024;
/** Held back while a topic is read for; past it all of it is read again. */
const heldEntriesMax = 512;
const heldBytesMax = 512 * 1024;
/** From a read that failed to the next. */
const retryMs = 500;

interface Followed {
  readonly key: string;
  readonly topic: Uint8Array;
  readonly limits: LogLimits;
  /** Something may be missing: what comes is held back. */
  isBehind: boolean;
  held: StoredRange[];
  heldEntries: number;
  heldBytes: number;
  /** Some of what came was not held: one more read is due. */
  hasMissed: boolean;
  /** Nobody stands in this node's log, and what is missing is much: its end will do. */
  wantsTail: boolean;
}

export class FollowedLogs {
  readonly #ports: FollowedPorts;
  readonly #logs = new Map<string, Followed>();
  /** That are to be read for, in order. */
  readonly #behind = new Set<Followed>();
  #reading = 0;

  constructor(ports: FollowedPorts) {
    this.#ports = ports;
  }

  /** Of topics with logs. */
  get size(): number {
    return this.#logs.size;
  }

  get isIdle(): boolean {
    return this.#behind.size === 0 && this.#reading === 0;
  }

  /** The subscription of a topic stands, for the first time or again. */
  subscribed(key: string): void {
    let log = this.#logs.get(key);
    if (log === undefined) {
      const limits = this.#ports.limitsOf(key);
      if (limits === undefined) return;
      const topic = topicBytes(key);
      log = { key, topic, limits, isBehind: false, held: [], heldEntries: 0, heldBytes: 0, hasMissed: false, wantsTail: false };
      this.#logs.set(key, log);
      this.#ports.onFollowed?.(topic, true);
    }
    if (log.isBehind) log.hasMissed = true;
    else this.#fallBehind(log);
  }

  /** A topic's subscription was interrupted, and stands again. */
  restored(key: string): void {
    const log = this.#logs.get(key);
    if (log === undefined) return;
    // What came before may be of a server that the present one does not know everything of.
    letGo(log);
    this.subscribed(key);
  }

  /** Another worker has the topic now. */
  given(key: string): void {
    this.#forget(key);
  }

  /** The topic is about to be unsubscribed: nobody here wants it. */
  ended(key: string): void {
    const log = this.#forget(key);
    if (log === undefined) return;
    const end = this.#ports.core.logEnd(log.topic);
    if (end?.isFollowed === true) this.#ports.core.logReset(log.topic, end, false);
  }

  #forget(key: string): Followed | undefined {
    const log = this.#logs.get(key);
    if (log === undefined) return undefined;
    this.#logs.delete(key);
    this.#ports.onFollowed?.(log.topic, false);
    this.#behind.delete(log);
    letGo(log);
    return log;
  }

  /** Entries have come by the subscription. They are borrowed. ret: false: the topic has no log on this node */
  arrived(key: string, range: StoredRange): boolean {
    const log = this.#logs.get(key);
    // Before its subscription is confirmed nothing counts: all of it is read then.
    if (log === undefined) return this.#ports.limitsOf(key) !== undefined;
    if (log.isBehind) {
      hold(log, range);
    } else if (!this.#putAll(log, range)) {
      hold(log, range);
      this.#fallBehind(log);
    }
    return true;
  }

  // ---------------------------------------------------------------- putting

  /** ret: false: something is missing in front of one of them, or they are of another epoch */
  #putAll(log: Followed, { epoch, entries }: StoredRange): boolean {
    for (const entry of entries) if (!this.#put(log, epoch, entry)) return false;
    return true;
  }

  #put(log: Followed, epoch: string, entry: StoredEntry): boolean {
    const outcome = this.#tryPut(log, epoch, entry);
    if (outcome === 'taken' && entry.publisher.node !== this.#ports.nodeId) this.#ports.count('messages_in', 1);
    if (outcome !== 'full') return outcome === 'taken' || outcome === 'old';
    // What this log has goes, to make room for what comes; else the entry is left out, and who is subscribed is told.
    this.#ports.count('log_full', 1);
    this.#break(log, epoch, entry.offset - 1);
    if (this.#tryPut(log, epoch, entry) !== 'taken') this.#break(log, epoch, entry.offset);
    return true;
  }

  #tryPut(log: Followed, epoch: string, entry: StoredEntry) {
    const { offset, flags, payload, timeMs } = entry;
    return this.#ports.core.logPut(log.topic, { epoch, offset }, flags, payload, log.limits, { origin: this.#originOf(entry), timeMs });
  }

  #originOf({ publisher, except }: StoredEntry): Origin | undefined {
    if (except === undefined || publisher.node !== this.#ports.nodeId) return undefined;
    const worker = workerOf(publisher.worker);
    return { worker, epoch: (publisher.worker - worker) / placesMax, ...except };
  }

  /** The log goes on after `offset`, whatever is missing. */
  #break(log: Followed, epoch: string, offset: number): void {
    const isFollowed = this.#ports.core.logEnd(log.topic)?.isFollowed ?? false;
    if (isFollowed) this.#ports.count('log_breaks', 1);
    this.#ports.core.logReset(log.topic, { epoch, offset }, isFollowed);
  }

  // ---------------------------------------------------------------- reading

  #fallBehind(log: Followed): void {
    log.isBehind = true;
    this.#behind.add(log);
    this.#readSome();
  }

  #readSome(): void {
    for (const log of this.#behind) {
      if (this.#reading >= readingMax) return;
      this.#behind.delete(log);
      this.#reading += 1;
      void this.#catchUp(log).then((isWhole) => {
        this.#reading -= 1;
        if (!isWhole && this.#isPresent(log)) this.#ports.clock.later(retryMs, () => this.#readAgain(log));
        this.#readSome();
      });
    }
  }

  #readAgain(log: Followed): void {
    if (!this.#isPresent(log)) return;
    this.#behind.add(log);
    this.#readSome();
  }

  #isPresent(log: Followed): boolean {
    return this.#logs.get(log.key) === log;
  }

  /** ret: whether nothing is missing any more; or nobody wants it */
  async #catchUp(log: Followed): Promise<boolean> {
    if (this.#ports.core.logEnd(log.topic)?.isFollowed === true) this.#ports.count('log_repairs', 1);
    while (this.#isPresent(log)) {
      log.hasMissed = false;
      let page: StoredPage;
      const end = this.#ports.core.logEnd(log.topic);
      try {
        page = await this.#read(log, end);
      } catch {
        return false;
      }
      if (!this.#isPresent(log)) return true;
      if (!this.#goOn(log, end, page) || !this.#release(log)) continue;
      log.isBehind = false;
      this.#follow(log);
      return true;
    }
    return true;
  }

  #read(log: Followed, end: LogEnd | undefined): Promise<StoredPage> {
    const bounds = { limit: tailEntries, bytes: tailBytes, begins: true };
    if (end === undefined || log.wantsTail) return this.#ports.logs.read(log.topic, { mode: 'last', from: 0, ...bounds }, log.limits);
    const { epoch, offset } = end;
    const last = this.#ports.core.logRead(log.topic, { epoch, limit: 1, reverse: true })?.entries[0];
    const timeMs = last?.offset === offset ? last.timeMs : 0;
    return this.#ports.logs.read(log.topic, { mode: 'after', from: offset, seen: { epoch, offset, timeMs }, ...bounds }, log.limits);
  }

  /** Put what was read. `end`: of the log, when reading began. ret: whether that was all */
  #goOn(log: Followed, end: LogEnd | undefined, page: StoredPage): boolean {
    const { core } = this.#ports;
    const { epoch, offset } = page;
    if (end === undefined || log.wantsTail) {
      log.wantsTail = false;
      const entries = [...page.entries].reverse();
      // Another worker may have begun it meanwhile.
      if (core.logEnd(log.topic)?.epoch !== epoch) this.#break(log, epoch, (entries[0]?.offset ?? offset + 1) - 1);
      return this.#putRead(log, { epoch, entries }) && this.#endsAt(log, epoch, offset);
    }
    const isAll = (page.entries.at(-1)?.offset ?? 0) >= offset || end.offset >= offset;
    if (!end.isFollowed && (epoch !== end.epoch || !isAll)) {
      log.wantsTail = true;
      return false;
    }
    if (epoch !== end.epoch) {
      // Subscribers have had what came before, or cannot know whether they have; what has come by the subscription since is new to them.
      const first = log.held.find((range) => range.epoch === epoch)?.entries[0]?.offset;
      this.#break(log, epoch, first === undefined ? offset : Math.min(first - 1, offset));
      return first !== undefined || this.#endsAt(log, epoch, offset);
    }
    if (!this.#putRead(log, page)) return false;
    // The rest is too old, or cannot be read.
    if (page.entries.length === 0 && !this.#endsAt(log, epoch, offset)) this.#break(log, epoch, offset);
    return this.#endsAt(log, epoch, offset);
  }

  /** What is missing between entries that were read is not to be had. ret: false: the log has changed meanwhile */
  #putRead(log: Followed, { epoch, entries }: StoredRange): boolean {
    for (const entry of entries) {
      if (this.#put(log, epoch, entry)) continue;
      const end = this.#ports.core.logEnd(log.topic);
      if (end?.epoch !== epoch) return false;
      this.#break(log, epoch, entry.offset - 1);
      this.#put(log, epoch, entry);
    }
    return true;
  }

  #endsAt(log: Followed, epoch: string, offset: number): boolean {
    const end = this.#ports.core.logEnd(log.topic);
    return end?.epoch === epoch && end.offset >= offset;
  }

  /** Put what was held back. ret: false: something is missing in front of it */
  #release(log: Followed): boolean {
    const { held, hasMissed } = log;
    letGo(log);
    let isWhole = !hasMissed;
    // What is of another epoch came before the read, or tells of one that has begun since.
    for (const range of held) if (!this.#putAll(log, range)) isWhole = false;
    return isWhole;
  }

  #follow(log: Followed): void {
    const end = this.#ports.core.logEnd(log.topic);
    if (end !== undefined && !end.isFollowed) this.#ports.core.logReset(log.topic, end, true);
  }
}

/** Of `memberOf` in owned-topic.ts. */
const placesMax = 512;

function hold(log: Followed, { epoch, entries }: StoredRange): void {
  for (const { payload } of entries) log.heldBytes += payload.byteLength;
  log.heldEntries += entries.length;
  if (log.heldBytes > heldBytesMax || log.heldEntries > heldEntriesMax) {
    letGo(log);
    log.hasMissed = true;
    return;
  }
  log.held.push({ epoch, entries: entries.map((entry) => ({ ...entry, payload: entry.payload.slice() })) });
}

function letGo(log: Followed): void {
  log.held = [];
  log.heldEntries = 0;
  log.heldBytes = 0;
}
