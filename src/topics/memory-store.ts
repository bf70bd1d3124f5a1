/**
 * Logs and members in the memory that the workers of this node share: the store of a node that stands alone.
 *
 * Role: TopicStore over the core (core/log-commands.ts, core/presence-commands.ts), which does all of it before a call returns. A worker that is killed
 * takes nothing with it. Who asks for nothing to be waited for has `submit`; the promises of the others are kept at once.
 */
import type { Appended, LogCommands, LogEntry, LogLimits, Position } from '../core/log-commands.ts';
import type { PublishResult } from '../core/node.ts';
import type { PresenceCommands } from '../core/presence-commands.ts';
import type { LogPage, LogQuery, NewMessage, PresencePage, TopicStore } from './store.ts';
import { StoreUnavailableError } from './store.ts';

/** Seconds that an idempotency key is remembered. */
const keySeconds = 120;

/** Of what has no log. */
export const noPosition: Position = Object.freeze({ epoch: '0'.repeat(16), offset: 0 });

export type LogCore = Pick<LogCommands, 'logAppend' | 'logEnd' | 'logRead'> & Pick<PresenceCommands, 'presenceList' | 'presenceCount'>;

export class MemoryStore implements TopicStore {
  readonly #core: LogCore;
  /** The memory is full: told each time. */
  readonly #onFull: () => void;

  constructor(core: LogCore, onFull: () => void) {
    this.#core = core;
    this.#onFull = onFull;
  }

  async append(topic: string, message: NewMessage, limits: LogLimits): Promise<Appended> {
    const appended = this.#append(topic, message, limits);
    if (appended === 'full') throw new StoreUnavailableError('the memory of the node for topics is full: raise limits.maxTopicMemoryBytes');
    return appended;
  }

  submit(topic: string, message: NewMessage, limits: LogLimits): PublishResult {
    return this.#append(topic, message, limits) === 'full' ? 'dropped' : 'accepted';
  }

  #append(topic: string, { flags, payload, except, idempotencyKey }: NewMessage, limits: LogLimits): Appended | 'full' {
    const appended = this.#core.logAppend(topic, flags, payload, limits, {
      ...(except === undefined ? {} : { exceptSlot: except.slot, exceptGeneration: except.generation }),
      ...(idempotencyKey === undefined ? {} : { key: idempotencyKey, keySeconds }),
    });
    if (appended === 'full') this.#onFull();
    return appended;
  }

  async read(topic: string, { since, limit, reverse = false }: LogQuery): Promise<LogPage> {
    const end = this.#core.logEnd(topic);
    if (end === undefined) return { position: noPosition, recovered: since === undefined, messages: [] };
    const position = { epoch: end.epoch, offset: end.offset };
    if (since === undefined) return { position, recovered: true, messages: this.#entries(topic, { limit, reverse }) };
    if (since.epoch !== end.epoch || since.offset > end.offset) return { position, recovered: false, messages: [] };
    const recovered = reverse || since.offset + 1 >= end.first;
    return { position, recovered, messages: this.#entries(topic, { epoch: since.epoch, after: since.offset, limit, reverse }) };
  }

  #entries(topic: string, query: Parameters<LogCore['logRead']>[1]): LogEntry[] {
    return query.limit === 0 ? [] : (this.#core.logRead(topic, query)?.entries ?? []);
  }

  async follow(): Promise<void> {}

  isAtHand(): boolean {
    return true;
  }

  async reach(): Promise<void> {}

  async presence(topic: string): Promise<PresencePage> {
    const { position, members } = this.#core.presenceList(topic);
    return { position, members };
  }

  async presenceCount(topic: string): Promise<{ readonly users: number; readonly connections: number }> {
    return this.#core.presenceCount(topic);
  }

  async close(): Promise<void> {}
}
