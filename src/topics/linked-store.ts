/**
 * Logs and members that all nodes share: they lie at the other side of the link that joins them.
 *
 * Role: TopicStore over the link's `logs` and `members`, and the bus, which has this node follow logs (pubsub/nodes/followed-logs.ts). What is appended goes out,
 * and comes back to this node as to every other: the subscribers of all hear it in the order of its positions.
 */

import type { TopicPolicySettings } from '../config/topics.ts';
import type { Appended, LogCommands, LogEntry, LogLimits, Position } from '../core/log-commands.ts';
import type { PublishResult } from '../core/node.ts';
import { presenceTopic } from '../core/presence-commands.ts';
import {
  type LinkLogs,
  type LinkMembers,
  type LinkState,
  LinkUnavailableError,
  type StoredPage,
  type StoredQuery,
} from '../pubsub/link.ts';
import type { Bus, BusLogs } from '../pubsub/nodes/bus.ts';
import { noPosition } from './memory-store.ts';
import { Policies } from './policies.ts';
import type { LogPage, LogQuery, NewMessage, PresencePage, TopicStore } from './store.ts';
import { StoreUnavailableError } from './store.ts';
import { presenceLogLimits } from './subscriptions.ts';

export interface LinkedStorePorts {
  readonly core: Pick<LogCommands, 'logEnd'>;
  readonly logs: LinkLogs;
  /** undefined: no topic has presence. */
  readonly members: LinkMembers | undefined;
  readonly bus: {
    readonly state: LinkState;
    want(topic: Uint8Array): void;
    isWanted(topic: Uint8Array): boolean;
    unwant(topic: Uint8Array): void;
    flushMembers(): Promise<void>;
  };
}

/** ret: undefined: the nodes share no logs; it is the memory of each that keeps them */
export function createLinkedStore(core: Pick<LogCommands, 'logEnd'>, bus: Bus | undefined): LinkedStore | undefined {
  if (bus?.logs === undefined) return undefined;
  return new LinkedStore({ core, logs: bus.logs, members: bus.members, bus });
}

/** What the bus is told of topics that remember. ret: undefined: none does */
export function busLogsOf(core: BusLogs['core'], settings: readonly TopicPolicySettings[]): BusLogs | undefined {
  if (!settings.some(({ history, presence }) => history !== false || presence !== false)) return undefined;
  const policies = new Policies(settings);
  return {
    core,
    hasPresence: settings.some(({ presence }) => presence !== false),
    limitsOf(topic) {
      const inner = topic.startsWith(presencePrefix) ? topic.slice(presencePrefix.length) : undefined;
      if (inner !== undefined) return (policies.find(inner)?.policy.presence ?? false) === false ? undefined : presenceLogLimits;
      const history = policies.find(topic)?.policy.history ?? false;
      return history === false ? undefined : history;
    },
  };
}

const presencePrefix = presenceTopic('');

/** How long following waits for the other side. */
const followMs = 10_000;
/** How long the node keeps a topic for who is about to come to it. */
const keepMs = 2000;
/** How often it is looked whether a log is followed, and at how many topics at once. */
const lookMs = 2;
const looksMax = 500;
/** Read at once. */
const pageBytes = 1 << 20;

/** Somebody waits for a log to get as far as this. */
interface Waiting {
  readonly topic: string;
  readonly until: (end: ReturnType<LogCommands['logEnd']>) => boolean;
  readonly deadline: number;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

export class LinkedStore implements TopicStore {
  readonly #ports: LinkedStorePorts;
  readonly #following = new Map<string, Promise<void>>();
  readonly #waiting = new Set<Waiting>();
  #looking: ReturnType<typeof setTimeout> | undefined;
  readonly #keeping = new Set<ReturnType<typeof setTimeout>>();

  constructor(ports: LinkedStorePorts) {
    this.#ports = ports;
  }

  async append(topic: string, message: NewMessage, limits: LogLimits): Promise<Appended> {
    return await told(this.#append(topic, message, limits));
  }

  submit(topic: string, message: NewMessage, limits: LogLimits): PublishResult {
    const { logs, bus } = this.#ports;
    // UTF-8 has three bytes at most for a character of a string.
    if (!logs.hasRoom(message.payload.length * (typeof message.payload === 'string' ? 3 : 1))) return 'dropped';
    // The link counts what fails.
    this.#append(topic, message, limits).catch(() => {});
    return bus.state === 'up' ? 'accepted' : 'queued';
  }

  #append(topic: string, { flags, payload, except, idempotencyKey }: NewMessage, limits: LogLimits): Promise<Appended> {
    const bytes = typeof payload === 'string' ? Buffer.from(payload) : payload;
    const key = idempotencyKey === undefined ? undefined : Buffer.from(idempotencyKey);
    return this.#ports.logs.append(Buffer.from(topic), { flags, payload: bytes, except, key }, limits);
  }

  async read(topic: string, { since, limit, reverse = false }: LogQuery, limits: LogLimits): Promise<LogPage> {
    const name = Buffer.from(topic);
    const entries: LogEntry[] = [];
    let query: Pick<StoredQuery, 'mode' | 'from'> = firstQuery(since, reverse);
    // Whether the first one is there is seen by it.
    const most = Math.max(limit, 1);
    let page: StoredPage | undefined;
    do {
      const next = await told(this.#ports.logs.read(name, { ...query, limit: most - entries.length, bytes: pageBytes }, limits));
      // Another epoch has begun between two pages: what was read is gone.
      if (page !== undefined && next.epoch !== page.epoch) return this.read(topic, { since, limit, reverse }, limits);
      page = next;
      if (since !== undefined && page.epoch !== since.epoch) break;
      for (const { offset, timeMs, flags, payload } of page.entries) entries.push({ offset, timeMs, flags, payload });
      query = { mode: reverse ? 'before' : 'after', from: entries.at(-1)?.offset ?? 0 };
    } while (entries.length < most && page.entries.length > 0 && !isAtEnd(query, page));
    const { epoch, offset } = page;
    const position = { epoch, offset };
    if (since === undefined) return { position, recovered: true, messages: entries.slice(0, limit) };
    if (since.epoch !== epoch || since.offset > offset) return { position, recovered: false, messages: [] };
    const recovered = reverse || since.offset === offset || entries[0]?.offset === since.offset + 1;
    return { position, recovered, messages: entries.slice(0, limit) };
  }

  isAtHand(topic: string): boolean {
    return !this.#following.has(topic) && this.#ports.bus.isWanted(Buffer.from(topic));
  }

  follow(topic: string, limits: LogLimits): Promise<void> {
    if (this.isAtHand(topic) && this.#ports.core.logEnd(topic)?.isFollowed === true) return Promise.resolve();
    const present = this.#following.get(topic);
    if (present !== undefined) return present;
    const { bus } = this.#ports;
    const name = Buffer.from(topic);
    const wasFollowed = this.#ports.core.logEnd(topic)?.isFollowed === true;
    bus.want(name);
    const followed = this.#followed(topic, limits, wasFollowed).finally(() => {
      this.#following.delete(topic);
      const timer = setTimeout(() => {
        this.#keeping.delete(timer);
        bus.unwant(name);
      }, keepMs);
      this.#keeping.add(timer);
    });
    this.#following.set(topic, followed);
    return followed;
  }

  /** `wasFollowed`: before the topic was wanted; then that is compared with what there is. */
  async #followed(topic: string, limits: LogLimits, wasFollowed: boolean): Promise<void> {
    const deadline = performance.now() + followMs;
    await this.#until(topic, (end) => end?.isFollowed === true, deadline);
    // While nobody can be asked, what is here is all there is.
    if (!wasFollowed || this.#ports.bus.state !== 'up') return;
    const { epoch, offset } = await this.#end(topic, limits);
    // Nothing was ever said there, or nothing since it was emptied.
    const isThere: Waiting['until'] = (end) => end?.isFollowed === true && (offset === 0 || (end.epoch === epoch && end.offset >= offset));
    await this.#until(topic, isThere, deadline);
  }

  #end(topic: string, limits: LogLimits): Promise<StoredPage> {
    return told(this.#ports.logs.read(Buffer.from(topic), { mode: 'last', from: 0, limit: 0, bytes: 0 }, limits));
  }

  async reach(topic: string, position: Position, limits: LogLimits): Promise<void> {
    await this.follow(topic, limits);
    const { core } = this.#ports;
    const before = core.logEnd(topic)?.epoch;
    const isThere: Waiting['until'] = (end) => end?.epoch === position.epoch && end.offset >= position.offset;
    if (isThere(core.logEnd(topic))) return;
    const { epoch, offset } = await this.#end(topic, limits);
    // What is not there will not come.
    if (epoch !== position.epoch || offset < position.offset) return;
    // The log may have begun anew, and this node not have seen that; or it begins anew once more.
    const isGone: Waiting['until'] = (end) => end === undefined || (end.epoch !== before && end.epoch !== epoch);
    await this.#until(topic, (end) => isThere(end) || isGone(end), performance.now() + followMs);
  }

  async presence(topic: string): Promise<PresencePage> {
    const { members, bus } = this.#ports;
    if (members === undefined) return { position: noPosition, members: [] };
    // Who has just joined here is to see itself.
    await bus.flushMembers();
    return await told(members.list(Buffer.from(topic)));
  }

  async presenceCount(topic: string): Promise<{ readonly users: number; readonly connections: number }> {
    const { members, bus } = this.#ports;
    if (members === undefined) return { users: 0, connections: 0 };
    await bus.flushMembers();
    return await told(members.count(Buffer.from(topic)));
  }

  async close(): Promise<void> {
    for (const timer of this.#keeping) clearTimeout(timer);
    this.#keeping.clear();
    clearTimeout(this.#looking);
    for (const { reject } of this.#waiting) reject(new StoreUnavailableError('this worker is about to end'));
    this.#waiting.clear();
  }

  // ---- waiting for the node's logs, which another worker may fill

  #until(topic: string, until: Waiting['until'], deadline: number): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiting.add({ topic, until, deadline, resolve, reject });
      this.#looking ??= setTimeout(() => this.#look(), lookMs);
    });
  }

  #look(): void {
    const now = performance.now();
    let left = looksMax;
    const some: Waiting[] = [];
    for (const waiting of this.#waiting) if (left-- > 0) some.push(waiting);
    for (const waiting of some) {
      this.#waiting.delete(waiting);
      if (waiting.until(this.#ports.core.logEnd(waiting.topic))) waiting.resolve();
      else if (waiting.deadline <= now) waiting.reject(new StoreUnavailableError('Redis does not answer'));
      // Behind all others.
      else this.#waiting.add(waiting);
    }
    this.#looking = this.#waiting.size === 0 ? undefined : setTimeout(() => this.#look(), lookMs);
  }
}

function firstQuery(since: Position | undefined, isReverse: boolean): Pick<StoredQuery, 'mode' | 'from'> {
  if (since === undefined) return { mode: isReverse ? 'last' : 'after', from: 0 };
  return { mode: isReverse ? 'before' : 'after', from: since.offset };
}

function isAtEnd({ mode, from }: Pick<StoredQuery, 'mode' | 'from'>, { offset }: StoredPage): boolean {
  return mode === 'after' ? from >= offset : from <= 1;
}

/** What links say, as who asks a store is told. */
async function told<T>(answer: Promise<T>): Promise<T> {
  try {
    return await answer;
  } catch (error) {
    if (error instanceof LinkUnavailableError) throw new StoreUnavailableError(error.message);
    throw error;
  }
}
