/**
 * What a link says in the log: that Redis is lost and why, that it is back, what was missed. Few lines, however often it comes and goes.
 * Role: below redis-link.ts. Failures hold no secrets (failure.ts), and nothing else of what Redis says is written.
 */
import type { LinkLogger } from '../link.ts';
import type { Failure } from './failure.ts';

/** So many lines at once, and one more every so often. */
const burst = 10;
const everyMs = 15_000;
/** Texts about keys; they hold names of topics. */
const damagesMax = 100;
/** While it stays lost. */
const reminderMs = 60_000;

const discards = {
  malformed:
    'messages in Redis make no sense, or are text that is not UTF-8, and are thrown away: does somebody else publish under this prefix?',
  unsigned: 'messages in Redis are not signed with redis.signingKey, and are thrown away: does every node have the same?',
} as const;

export class LinkLog {
  readonly #log: LinkLogger;
  readonly #now: () => number;
  #lines = burst;
  #refilledAt = 0;
  #leftOut = 0;
  #lostAt: number | undefined;
  #saidAt = 0;
  #said = '';
  readonly #damages = new Set<string>();
  readonly #discards = new Set<keyof typeof discards>();

  constructor(log: LinkLogger, now: () => number) {
    this.#log = log;
    this.#now = now;
    this.#refilledAt = now();
  }

  /** It cannot be used, or still not. `isPart`: other servers of the Cluster can. */
  lost(where: string, failure: Failure, isPart: boolean): void {
    const now = this.#now();
    const isNew = this.#lostAt === undefined;
    this.#lostAt ??= now;
    // Why it cannot be reached changes from attempt to attempt; what somebody has to do about it does not.
    const isNews = failure.kind === 'refused' && failure.text !== this.#said;
    if (!isNew && !isNews && now - this.#saidAt < reminderMs) return;
    this.#saidAt = now;
    this.#said = failure.text;
    const level = failure.kind === 'refused' ? 'error' : 'warn';
    const text = isPart
      ? 'a part of Redis cannot be used: messages of some topics reach only this node; trying again'
      : 'Redis cannot be used: messages reach only this node; trying again';
    this.#write(level, { redis: where, reason: failure.text }, text);
  }

  /** `topics`: subscribed to. */
  up(where: string, topics: number): void {
    const lostMs = this.#lostAt === undefined ? 0 : this.#now() - this.#lostAt;
    this.#lostAt = undefined;
    if (this.#said === '') this.#write('info', { redis: where }, 'connected to Redis');
    else
      this.#write(
        'info',
        { redis: where, topics, seconds: Math.round(lostMs / 100) / 10 },
        'Redis is back, and every subscription with it',
      );
    this.#said = ' ';
  }

  gap(topics: number): void {
    this.#write('warn', { topics }, 'subscriptions in Redis were interrupted: what other nodes published meanwhile is lost');
  }

  dropped(messages: number): void {
    this.#write('warn', { messages }, 'messages for other nodes were dropped: the outbox was full, or Redis refused them');
  }

  /** What comes is thrown away. Said once, however much of it comes: counters tell how much. */
  discarded(why: keyof typeof discards): void {
    if (this.#discards.has(why)) return;
    this.#discards.add(why);
    this.#write('warn', {}, discards[why]);
  }

  /** Redis refuses what topics that remember need. Said once for each text, of a few. */
  damaged(text: string): void {
    if (this.#damages.has(text) || this.#damages.size === damagesMax) return;
    this.#damages.add(text);
    this.#write('error', {}, `what topics remember cannot be kept in Redis: ${text}`);
  }

  #write(level: 'info' | 'warn' | 'error', fields: Record<string, unknown>, text: string): void {
    const refill = Math.floor((this.#now() - this.#refilledAt) / everyMs);
    if (refill > 0) {
      this.#lines = Math.min(burst, this.#lines + refill);
      this.#refilledAt += refill * everyMs;
    }
    if (this.#lines === 0) {
      this.#leftOut += 1;
      return;
    }
    this.#lines -= 1;
    this.#log[level](this.#leftOut === 0 ? fields : { ...fields, linesLeftOut: this.#leftOut }, text);
    this.#leftOut = 0;
  }
}
