/**
 * Which server of a Cluster has which hash slots: asked at the start, whenever something says that it has changed, and now and then.
 *
 * Role: below redis-link.ts. Above connection.ts. One question is under way at a time; asked are servers that are connected anyway, best the one
 * that has just said that a slot has moved, since it knows where to; else servers by their addresses.
 */
import { performance } from 'node:perf_hooks';
import type { RedisAddress } from '../../config/redis.ts';
import { slotCount } from './channels.ts';
import { addressText, type Connection, type ConnectionFactory } from './connection.ts';
import { silent } from './connector.ts';
import { type Failure, LinkError } from './failure.ts';
import { Retry } from './retry.ts';

/** Not asked more often. */
const gapMs = 100;
/** While a part of the Cluster is not in order. */
const unsettledMs = 250;
/** Against what nobody tells. */
const idleMs = 30_000;
const answerMs = 2000;
/** Connections, known addresses and configured ones that one search asks, of each. */
const askedMax = 3;

export interface TopologyHost {
  /** Connections that work, `preferred` first where it does. */
  liveConnections(): Connection[];
  /** ret: whether all is in order with it */
  apply(topology: SlotOwners): boolean;
  onFailure(failure: Failure): void;
}

/** Which server has which slot. */
export class SlotOwners {
  readonly addresses: readonly RedisAddress[];
  readonly #bySlot: Int32Array;

  constructor(addresses: readonly RedisAddress[], bySlot: Int32Array) {
    this.addresses = addresses;
    this.#bySlot = bySlot;
  }

  ownerOf(slot: number): RedisAddress | undefined {
    return this.addresses[this.#bySlot[slot] ?? -1];
  }
}

/** Read the answer to CLUSTER SLOTS: [first, last, [host, port, …] of the primary, …replicas] for each range. */
export function parseSlots(answer: unknown, askedHost: string): SlotOwners {
  const bySlot = new Int32Array(slotCount).fill(-1);
  const addresses: RedisAddress[] = [];
  const indexes = new Map<string, number>();
  for (const range of Array.isArray(answer) ? answer : []) {
    const [first, last, primary] = Array.isArray(range) ? range : [];
    const [host, port] = Array.isArray(primary) ? primary : [];
    if (!isSlot(first) || !isSlot(last) || first > last || !Number.isInteger(port)) throw new LinkError(senseless);
    // A server that does not know its own name leaves it out: it is the one that was asked.
    const address = { host: typeof host === 'string' && host !== '' && host !== '?' ? host : askedHost, port: port as number };
    const text = addressText(address);
    let index = indexes.get(text);
    if (index === undefined) {
      index = addresses.push(address) - 1;
      indexes.set(text, index);
    }
    bySlot.fill(index, first, last + 1);
  }
  if (addresses.length === 0) throw new LinkError({ kind: 'later', text: 'the Cluster has given its slots to nobody yet' });
  return new SlotOwners(addresses, bySlot);
}

const senseless: Failure = { kind: 'later', text: 'it answers CLUSTER SLOTS in a form that is not known' };

function isSlot(value: unknown): value is number {
  return Number.isInteger(value) && (value as number) >= 0 && (value as number) < slotCount;
}

export class Topology {
  readonly #host: TopologyHost;
  readonly #seeds: readonly RedisAddress[];
  readonly #connect: ConnectionFactory;
  readonly #random: () => number;
  readonly #retry: Retry;
  #known: readonly RedisAddress[] = [];
  #preferred: Connection | undefined;
  #isAsking = false;
  #askedAt = -gapMs;
  /** Something has changed since the question was asked. */
  #again = false;
  #isStopped = false;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(host: TopologyHost, seeds: readonly RedisAddress[], connect: ConnectionFactory, random: () => number) {
    this.#host = host;
    this.#seeds = seeds;
    this.#connect = connect;
    this.#random = random;
    this.#retry = new Retry(random);
  }

  start(): void {
    this.#schedule(0);
  }

  stop(): void {
    this.#isStopped = true;
    clearTimeout(this.#timer);
  }

  /** Something has changed. `preferred`: a connection to a server that knows. */
  refresh(preferred?: Connection): void {
    this.#preferred = preferred ?? this.#preferred;
    if (this.#isAsking) this.#again = true;
    else this.#schedule(Math.max(0, this.#askedAt + gapMs - performance.now()));
  }

  #schedule(ms: number): void {
    if (this.#isStopped) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.#run(), ms);
  }

  async #run(): Promise<void> {
    this.#isAsking = true;
    this.#again = false;
    const found = await this.#find();
    this.#isAsking = false;
    this.#askedAt = performance.now();
    if (this.#isStopped) return;
    if (found instanceof SlotOwners) {
      this.#known = found.addresses;
      this.#retry.forgive();
      const isSettled = this.#host.apply(found);
      this.#schedule(this.#again ? gapMs : (isSettled ? idleMs : unsettledMs) * (0.75 + this.#random() * 0.5));
    } else {
      this.#host.onFailure(found);
      this.#schedule(Math.max(gapMs, this.#retry.next(found.kind === 'refused')));
    }
  }

  async #find(): Promise<SlotOwners | Failure> {
    let worst: Failure | undefined;
    const preferred = this.#preferred;
    this.#preferred = undefined;
    const live = shuffle(this.#host.liveConnections(), this.#random);
    if (preferred !== undefined && live.includes(preferred)) live.unshift(preferred);
    for (const connection of new Set(live.slice(0, askedMax))) {
      const answer = await this.#ask(connection);
      if (answer instanceof SlotOwners) return answer;
      worst = answer;
    }
    const some = (list: readonly RedisAddress[]) => shuffle([...list], this.#random).slice(0, askedMax);
    const addresses = new Map([...some(this.#known), ...some(this.#seeds)].map((address) => [addressText(address), address]));
    for (const [text, address] of addresses) {
      if (this.#isStopped) break;
      const answer = await this.#askAt(address);
      if (answer instanceof SlotOwners) return answer;
      const failure = { ...answer, text: `${text}: ${answer.text}` };
      if (worst === undefined || worst.kind !== 'refused') worst = failure;
    }
    return worst ?? { kind: 'gone', text: 'no server of the Cluster answers' };
  }

  async #askAt(address: RedisAddress): Promise<SlotOwners | Failure> {
    let connection: Connection | undefined;
    try {
      connection = this.#connect.toServer(address, 'slots', () => {});
      await connection.ready;
      return await this.#ask(connection);
    } catch (error) {
      return connection?.failureOf(error) ?? this.#connect.failures.of(error);
    } finally {
      connection?.destroy();
    }
  }

  async #ask(connection: Connection): Promise<SlotOwners | Failure> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    try {
      const late = new Promise<never>((_, reject) => {
        timer = setTimeout(() => reject(new LinkError(silent(answerMs))), answerMs);
      });
      const answer: unknown = await Promise.race([connection.redis.call('CLUSTER', 'SLOTS'), late]);
      return parseSlots(answer, 'host' in connection.address ? connection.address.host : '');
    } catch (error) {
      return connection.failureOf(error);
    } finally {
      clearTimeout(timer);
    }
  }
}

function shuffle<T>(list: T[], random: () => number): T[] {
  for (let i = list.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [list[i], list[j]] = [list[j] as T, list[i] as T];
  }
  return list;
}
