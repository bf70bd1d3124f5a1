/**
 * A core's logs and members as a few arrays, with faults on demand: for what a real core does seldom, or only with a store behind it.
 */

import type { User } from '../../../src/api/user.ts';
import type { AttachOutcome, LogCommands, LogEntry, LogLimits, LogQuery, Position } from '../../../src/core/log-commands.ts';
import type { JoinOutcome, PresenceCommands } from '../../../src/core/presence-commands.ts';

export const epoch = '00c0ffee00c0ffee';

export interface FakeLog {
  epoch: string;
  /** Kept from here on. */
  first: number;
  readonly entries: LogEntry[];
}

export const at = (offset: number, of = epoch): Position => ({ epoch: of, offset });
export const socket = { slot: 7, generation: 3 };

/** Of a connection, as policies see it. */
export const connection = {
  ...socket,
  id: 'id of 7',
  user: undefined as User | undefined,
  data: { name: 'ann' } as unknown,
  remoteAddress: '192.0.2.7',
  kind: 'websocket' as const,
};

type Faked = Pick<
  LogCommands,
  'logAppend' | 'logEnd' | 'logRead' | 'attach' | 'sendLogged' | 'hold' | 'release' | 'onTopicMessage' | 'membersOf' | 'topicNames'
> &
  Pick<PresenceCommands, 'presenceJoin' | 'presenceList' | 'presenceCount'>;

export class FakeLogs implements Faked {
  readonly logs = new Map<string, FakeLog>();
  /** What it was asked to do. */
  readonly calls: (readonly unknown[])[] = [];
  readonly held = new Set<string>();
  onTopicMessage: LogCommands['onTopicMessage'];
  isFull = false;
  isGone = false;
  joins: JoinOutcome = 'joined';
  /** Answers of attach, before it acts as it should. */
  readonly attaches: AttachOutcome['kind'][] = [];
  /** How often it has no room for what is sent. */
  drops = 0;
  waiting = 0;
  readonly sent: unknown[] = [];

  log(topic: string): FakeLog {
    const known = this.logs.get(topic);
    if (known !== undefined) return known;
    const log: FakeLog = { epoch, first: 1, entries: [] };
    this.logs.set(topic, log);
    return log;
  }

  logAppend(topic: string | Uint8Array, flags: number, payload: string | Uint8Array, limits: LogLimits, options = {}) {
    this.calls.push(['append', topic, flags, payload, limits, options]);
    if (this.isFull) return 'full' as const;
    const log = this.log(String(topic));
    const offset = log.first + log.entries.length;
    log.entries.push({ offset, timeMs: 1000 + offset, flags, payload: Buffer.from(payload) });
    while (log.entries.length > limits.size) {
      log.entries.shift();
      log.first++;
    }
    return { epoch: log.epoch, offset, isDuplicate: false };
  }

  logEnd(topic: string | Uint8Array) {
    const log = this.logs.get(String(topic));
    return log && { epoch: log.epoch, offset: log.first + log.entries.length - 1, first: log.first, isFollowed: false };
  }

  logRead(topic: string | Uint8Array, { epoch: of, after, limit, reverse = false }: LogQuery) {
    const end = this.logEnd(topic);
    const log = this.logs.get(String(topic));
    if (end === undefined || log === undefined) return undefined;
    if (of !== undefined && of !== log.epoch) return { end, entries: [] };
    const entries = log.entries.filter(({ offset }) => after === undefined || (reverse ? offset < after : offset > after));
    return { end, entries: (reverse ? entries.toReversed() : entries).slice(0, limit) };
  }

  attach(slot: number, generation: number, topic: string | Uint8Array, options: Parameters<LogCommands['attach']>[3]): AttachOutcome {
    this.calls.push(['attach', slot, generation, topic, options]);
    const kind = this.isGone ? 'closed' : (this.attaches.shift() ?? 'attached');
    if (kind !== 'attached') return { kind };
    const log = this.log(options.isPresence === true ? `\0p${topic}` : String(topic));
    const offset = log.first + log.entries.length - 1;
    const { since } = options;
    const recovered = since !== undefined && since.epoch === log.epoch && since.offset <= offset && since.offset + 1 >= log.first;
    return { kind, recovered, epoch: log.epoch, offset, sent: recovered ? offset - since.offset : 0 };
  }

  sendLogged(
    _slot: number,
    _generation: number,
    _topic: string | Uint8Array,
    position: Position | undefined,
    _flags: number,
    payload: string | Uint8Array,
  ) {
    if (this.isGone) return 'closed' as const;
    if (this.drops > 0) {
      this.drops--;
      return 'dropped' as const;
    }
    this.sent.push([position?.offset, String(payload)]);
    return 'sent' as const;
  }

  hold(topic: string | Uint8Array): boolean {
    if (this.isFull) return false;
    this.held.add(String(topic));
    return true;
  }

  release(topic: string | Uint8Array): void {
    this.held.delete(String(topic));
  }

  membersOf() {
    return [socket];
  }

  topicNames() {
    return ['\0c', 'a/1', 'a/2'].map((name) => Buffer.from(name));
  }

  presenceJoin(
    slot: number,
    generation: number,
    topic: string | Uint8Array,
    user: string,
    info: Uint8Array,
    graceMs: number,
    maxMembers?: number,
  ) {
    this.calls.push(['join', slot, generation, topic, user, Buffer.from(info).toString(), graceMs, maxMembers]);
    return this.joins;
  }

  presenceList(topic: string | Uint8Array) {
    const log = this.log(`\0p${topic}`);
    const members = [
      { user: 'ann', info: Buffer.from('{"name":"Ann"}'), connections: 2 },
      { user: 'bob', info: new Uint8Array(), connections: 1 },
    ];
    return { position: { epoch: log.epoch, offset: log.first + log.entries.length - 1 }, members };
  }

  presenceCount() {
    return { users: 2, connections: 3 };
  }

  // ---------------------------------------------------------------- what a Core has beside

  isOpen(): boolean {
    return !this.isGone;
  }

  isSubscribed(): boolean {
    return true;
  }

  buffered(): number {
    return this.waiting;
  }

  subscribe(slot: number, generation: number, topic: string | Uint8Array): boolean {
    this.calls.push(['subscribe', slot, generation, topic]);
    return !this.isFull && !this.isGone;
  }

  subscribeNow(slot: number, generation: number, topic: string | Uint8Array): number {
    this.calls.push(['subscribeNow', slot, generation, topic]);
    return this.isFull || this.isGone ? -1 : 1;
  }

  unsubscribe(slot: number, generation: number, topic: string | Uint8Array): void {
    this.calls.push(['unsubscribe', slot, generation, topic]);
  }

  /** Say a message as the core tells the host. */
  tell(topic: string, payload: string, position: Position | undefined, lost = false): void {
    this.onTopicMessage?.(Buffer.from(topic), 1, Buffer.from(payload), position, lost);
  }
}
