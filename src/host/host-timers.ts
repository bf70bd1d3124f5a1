/**
 * When Bun's own loop has something to do by the clock.
 *
 * Role: lets the worker's loop wait in the core for as long as nothing is due in Bun. Down: the timers of the global scope and of `node:timers`.
 * Bun tells nobody when its next timer is due, so timers are noted as they are made. What is noted and then cleared costs one look at
 * Bun's loop; a timer that Bun makes for itself is not noted, which is why no wait is longer than the loop's longest.
 */
import { createRequire, syncBuiltinESMExports } from 'node:module';
import { promisify } from 'node:util';

const require = createRequire(import.meta.url);

type Callback = (...args: unknown[]) => unknown;

/** As many deadlines are known one by one. */
const deadlinesMax = 4096;

/** While there are more than are known, one may be due within as many ms. */
const uncertainMs = 1;

/** Deadlines, the earliest first; a binary heap. Beyond its room only the latest is kept, until which nothing is certain. */
export class Deadlines {
  readonly #times = new Float64Array(deadlinesMax);
  #count = 0;
  #uncertainUntil = 0;

  /** `time`: as of performance.now(). */
  add(time: number): void {
    const times = this.#times;
    if (this.#count === deadlinesMax) {
      this.#uncertainUntil = Math.max(this.#uncertainUntil, time);
      return;
    }
    let at = this.#count++;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      const above = times[parent] as number;
      if (above <= time) break;
      times[at] = above;
      at = parent;
    }
    times[at] = time;
  }

  /** Milliseconds until the earliest deadline; 0 when one has passed, which is told once. Infinity: none. */
  next(now: number): number {
    const unknown = now < this.#uncertainUntil ? uncertainMs : Number.POSITIVE_INFINITY;
    if (this.#count === 0) return unknown;
    const first = this.#times[0] as number;
    if (first > now) return Math.min(first - now, unknown);
    while (this.#count > 0 && (this.#times[0] as number) <= now) this.#removeFirst();
    return 0;
  }

  #removeFirst(): void {
    const times = this.#times;
    const last = times[--this.#count] as number;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= this.#count) break;
      if (child + 1 < this.#count && (times[child + 1] as number) < (times[child] as number)) child++;
      const below = times[child] as number;
      if (below >= last) break;
      times[at] = below;
      at = child;
    }
    times[at] = last;
  }
}

export class HostTimers {
  readonly #deadlines = new Deadlines();
  /** Grows with each immediate that is set. */
  immediates = 0;

  /** Milliseconds until a timer is due in Bun. 0: one is, which is told once, so Bun's loop must get its turn. Infinity: none is known. */
  next(now: number): number {
    return this.#deadlines.next(now);
  }

  /** A timer has been made that is due in `delay` ms, by whatever rule Bun reads that. */
  note(delay: unknown): void {
    const ms = Number(delay);
    // Bun takes what is no positive number, or more than fits, for 1.
    this.#deadlines.add(performance.now() + (ms >= 1 && ms <= 2 ** 31 - 1 ? ms : 1));
  }
}

let installed: HostTimers | undefined;

/** Note timers from now on; again: the same. For code that runs later, so early is better. */
export function watchHostTimers(): HostTimers {
  installed ??= install(new HostTimers());
  return installed;
}

/** `replacement` with the name, length and other properties of `original`. */
function as<Replacement extends object>(original: object, replacement: Replacement): Replacement {
  for (const [key, descriptor] of Object.entries(Object.getOwnPropertyDescriptors(original)))
    if (key !== 'prototype') Object.defineProperty(replacement, key, descriptor);
  return replacement;
}

function install(timers: HostTimers): HostTimers {
  const real = { setTimeout, setInterval, setImmediate, sleep: Bun.sleep, abortAfter: AbortSignal.timeout };
  const promises = require('node:timers/promises') as Record<'setTimeout' | 'setInterval' | 'setImmediate', Callback> & {
    scheduler: { wait?: Callback; yield?: Callback };
  };

  /** For what takes the delay as its first argument. */
  const delaying = (original: Callback) =>
    as(original, function (this: unknown, ...args: unknown[]) {
      const result = original.apply(this, args);
      timers.note(args[0]);
      return result;
    });
  const atOnce = (original: Callback) =>
    as(original, function (this: unknown, ...args: unknown[]) {
      timers.immediates++;
      return original.apply(this, args);
    });

  const timeout = as(real.setTimeout, ((callback: Callback, delay?: number, ...args: unknown[]) => {
    const timer = args.length === 0 ? real.setTimeout(callback, delay) : real.setTimeout(callback, delay, ...args);
    timers.note(delay);
    return timer;
  }) as typeof setTimeout);
  const interval = as(real.setInterval, ((callback: Callback, delay?: number, ...args: unknown[]) => {
    // Bun would say what is wrong with it.
    if (typeof callback !== 'function') return real.setInterval(callback, delay, ...args);
    const timer = real.setInterval(
      function (this: unknown, ...given: unknown[]) {
        timers.note(delay);
        try {
          return callback.apply(this, given);
        } finally {
          timers.note(delay);
        }
      },
      delay,
      ...args,
    );
    timers.note(delay);
    return timer;
  }) as typeof setInterval);
  const immediate = atOnce(real.setImmediate as Callback) as typeof setImmediate;

  const waits = delaying(promises.setTimeout);
  const yields = atOnce(promises.setImmediate);
  const ticks = promises.setInterval as (delay?: number, value?: unknown, options?: object) => AsyncIterable<unknown>;
  Object.assign(promises, {
    setTimeout: waits,
    setImmediate: yields,
    setInterval: as(ticks, async function* (delay?: number, value?: unknown, options?: object) {
      timers.note(delay);
      for await (const tick of ticks(delay, value, options)) {
        timers.note(delay);
        yield tick;
        timers.note(delay);
      }
    }),
  });
  const { scheduler } = promises;
  if (scheduler?.wait !== undefined) scheduler.wait = delaying(scheduler.wait);
  if (scheduler?.yield !== undefined) scheduler.yield = atOnce(scheduler.yield);
  Object.defineProperty(timeout, promisify.custom, { value: waits, configurable: true, enumerable: true, writable: true });
  Object.defineProperty(immediate, promisify.custom, { value: yields, configurable: true, enumerable: true, writable: true });

  const replaced = { setTimeout: timeout, setInterval: interval, setImmediate: immediate };
  Object.assign(globalThis, replaced);
  Object.assign(require('node:timers') as object, replaced);
  Bun.sleep = as(real.sleep, ((duration: number | Date) => {
    timers.note(duration instanceof Date ? duration.getTime() - Date.now() : duration);
    return real.sleep(duration);
  }) as typeof Bun.sleep);
  AbortSignal.timeout = as(real.abortAfter, (delay: number) => {
    const signal = real.abortAfter(delay);
    timers.note(delay);
    return signal;
  });

  const probe = real.setTimeout(() => {}, 1);
  clearTimeout(probe);
  const prototype = Object.getPrototypeOf(probe) as { refresh: Callback };
  const refresh = prototype.refresh;
  prototype.refresh = as(refresh, function (this: { _idleTimeout?: number }, ...args: unknown[]) {
    const timer = refresh.apply(this, args);
    timers.note(this._idleTimeout);
    return timer;
  });
  syncBuiltinESMExports();
  return timers;
}
