/**
 * How many events of input a turn of the core is to bring, so that their handlers take about as long as a visit may last.
 *
 * Role: from the time that batches took to the size of the next. Up: loop.ts. Down: nothing; the clock is the caller's.
 *
 * A batch that took too long is followed by one that is as much smaller, and one that was full and took little by one of twice the size. More than
 * `begin` must have been needed lately: when many events come after a quiet time, nobody knows yet what they cost. Where handlers take no longer than a
 * full batch may, none of this ever limits anything.
 */

/**
 * What one client sends in a burst belongs together, since what its handlers publish leaves as one send to each subscriber. So this many events may
 * take longer than a visit.
 */
const burst = 32;
const burstMs = 10;

export class Pace {
  /** Events of the next batch, at most. */
  limit: number;
  readonly #visitMs: number;
  readonly #begin: number;
  readonly #most: number;

  /** `most`: of a full batch. */
  constructor(visitMs: number, most: number, begin = 512) {
    this.#visitMs = visitMs;
    this.#begin = Math.min(begin, most);
    this.#most = most;
    this.limit = this.#begin;
  }

  /** A batch of `events` took `ms`. ret: whether `limit` has changed */
  note(events: number, ms: number): boolean {
    const before = this.limit;
    if (ms > this.#visitMs) {
      // Fewer events than there might have been say as much about the cost of one.
      const fit = Math.floor((events * this.#visitMs) / ms);
      const inBurst = Math.min(burst, Math.floor((events * burstMs) / ms));
      const target = Math.max(1, fit, inBurst);
      if (target < before) this.limit = target;
      else if (before < burst && events >= before) this.limit = Math.min(target, before * 2);
    } else if (events >= before / 2 && ms <= (before < burst ? this.#visitMs : this.#visitMs / 2)) {
      this.limit = Math.min(this.#most, before * 2);
    } else if (before > this.#begin && events < before / 8) {
      this.limit = Math.max(this.#begin, before >> 1);
    }
    return this.limit !== before;
  }
}
