/**
 * The worker's loop: poll → dispatch → flush, in turns, inside Bun's event loop.
 *
 * Role: drives the core. Up: worker/main.ts. Down: core/core.ts, host-timers.ts, host-poll.ts.
 *
 *   asleep ──wake_fd readable, timer due, or a command queued──> awake: visits of several turns ──quiet for a while──> asleep
 *
 * Bun's loop stays master: whatever it has to do ends a visit. A visit that has work is bounded in time. One that has none waits in the kernel, which
 * costs no CPU and answers the next packet with one system call, where waking Bun's loop takes several; the wait ends when a
 * packet comes, when Bun's own epoll descriptor is readable, when a timer is due, and after `longestWaitMs` in any case, for what Bun does by
 * its own clocks. So the worker sleeps, which wakes for nothing at all, only after a long silence.
 *
 * Between Bun's callbacks and its next look at the clock there may be more to run than can be seen from here: immediates, and what a handler that
 * awaits has started. After each of these Bun's loop gets two whole passes before the worker waits again.
 */
import { drainMicrotasks } from 'bun:jsc';
import { capacity } from '../core/abi.ts';
import type { Core, WebSocketEvents } from '../core/core.ts';
import type { HttpEvents } from '../core/http.ts';
import { findHostPoll } from './host-poll.ts';
import type { HostTimers } from './host-timers.ts';
import { Pace } from './pace.ts';

/** Longest work in the core before Bun's loop gets a turn. */
const visitMs = 2;
const turnsPerVisit = 32;
/** How long a wait may be, and how long the worker stays awake, when nobody can tell that Bun has something to do. */
const blindWaitMs = 1;
/** How long after the last event the worker stays awake when events are rarer than its patience. */
const awakeMsMin = 2;
/** A wait that has lasted longer was one: what follows has the whole time of a visit. */
const restMs = 0.1;
/** Passes of Bun's loop until all that was to run has run: what is queued while one goes on is run by the next. */
const passesToSettle = 2;
/** Looks for Bun's epoll descriptor: it watches the eventfd once something has been read from it. */
const looksForHost = 20;
/** Visits are not among the immediates that are watched. */
const schedule = setImmediate;

export interface LoopOptions {
  readonly core: Core;
  readonly http: HttpEvents;
  readonly websocket: WebSocketEvents;
  /** The eventfd given to the core as wakeFd. */
  readonly wakeFd: number;
  /** What Bun is due to do. undefined: not known, so no wait is long. */
  readonly timers?: HostTimers | undefined;
  /** Milliseconds after which Bun's loop gets its turn although nothing is known to be due; default 200. */
  readonly longestWaitMs?: number;
  /** How long the worker stays awake after the last event, when events come more often than that; default 250. */
  readonly awakeMs?: number;
  /** Promises of handlers that have not settled. */
  pending(): number;
  /** Asked before going to sleep: whether anything may still come. When not, the loop stops and lets the process end. */
  isNeeded?(): boolean;
  onStopped?(): void;
}

export class Loop {
  readonly #core: Core;
  readonly #http: HttpEvents;
  readonly #websocket: WebSocketEvents;
  readonly #options: LoopOptions;
  readonly #pace = new Pace(visitMs, capacity.eventsCapacity);
  readonly #timers: HostTimers | undefined;
  readonly #longestWaitMs: number;
  readonly #awakeMs: number;
  #asleep = false;
  #scheduled = false;
  #stopped = false;
  #lastEvent = 0;
  /** Mean of the latest silences that were long enough to be one, in ms. */
  #silence = 0;
  /** Passes of Bun's loop, which are visits. */
  #passes = 0;
  /** From this pass on the worker may wait. */
  #settled = 0;
  #immediates = 0;
  #looks = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #timerDue = Number.POSITIVE_INFINITY;
  #wakes: { cancel(): Promise<void> } | undefined;
  readonly #visit = () => this.#onVisit();

  constructor(options: LoopOptions) {
    this.#core = options.core;
    this.#http = options.http;
    this.#websocket = options.websocket;
    this.#options = options;
    this.#core.pace(this.#pace.limit);
    this.#timers = options.timers;
    this.#longestWaitMs = options.longestWaitMs ?? 200;
    this.#awakeMs = options.awakeMs ?? 250;
    options.core.onQueued = () => this.#schedule();
  }

  /** Run until `stop`; then the wake descriptor is not read any more. */
  async run(): Promise<void> {
    this.#schedule();
    const wakes = Bun.file(this.#options.wakeFd).stream().getReader();
    this.#wakes = wakes;
    while (!this.#stopped) {
      const { done } = await wakes.read();
      if (done) break;
      if (this.#asleep) this.#onVisit();
    }
  }

  /** Nothing is polled: a packet wakes the worker through its descriptor. */
  get isAsleep(): boolean {
    return this.#asleep;
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
    void this.#wakes?.cancel();
    this.#options.onStopped?.();
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    schedule(this.#visit);
  }

  #onVisit(): void {
    this.#scheduled = false;
    if (this.#stopped) return;
    if (this.#asleep) this.#wake();
    const core = this.#core;
    this.#passes++;
    const began = performance.now();
    let worked = began;
    let now = began;
    let count = 0;
    for (let turns = 0; turns < turnsPerVisit && now - worked < visitMs; turns++) {
      const waitMs = this.#mayWait(began, now);
      count = core.turn(waitMs * 1000);
      const before = now;
      now = performance.now();
      if (waitMs > 0 && now - before > restMs) {
        worked = now;
        turns = 0;
      }
      if (count > 0) {
        core.dispatch(count, this.#http, this.#websocket);
        // Handlers that await something already settled answer within this visit.
        drainMicrotasks();
        this.#onEvents(now);
        const given = now;
        now = performance.now();
        if (this.#pace.note(count, now - given)) core.pace(this.#pace.limit);
      } else if (
        !core.hasCommands &&
        (waitMs === 0 || core.wasInterrupted || !core.isInterruptible || now - began >= this.#longestWaitMs)
      ) {
        break;
      }
    }
    const isBusy = count > 0 || core.hasCommands || core.wasInterrupted;
    if (isBusy || (now - this.#lastEvent < this.#awakeFor() && this.#isNeeded())) this.#schedule();
    else this.#sleep();
  }

  #onEvents(now: number): void {
    const silence = now - this.#lastEvent;
    if (silence > 1 && this.#lastEvent > 0) this.#silence += (Math.min(silence, 4 * this.#awakeMs) - this.#silence) / 8;
    this.#lastEvent = now;
    // What handlers await may have been started and not yet be anywhere that ends a wait.
    if (this.#options.pending() > 0) this.#settled = this.#passes + passesToSettle;
  }

  /** ret: milliseconds that a turn may wait now; 0: Bun's loop comes first */
  #mayWait(began: number, now: number): number {
    const timers = this.#timers;
    if (timers === undefined || !this.#hearsHost()) return this.#options.pending() === 0 ? blindWaitMs : 0;
    if (timers.immediates !== this.#immediates) {
      this.#immediates = timers.immediates;
      this.#settled = this.#passes + passesToSettle;
    }
    if (this.#passes < this.#settled || !this.#isNeeded()) return 0;
    const untilSleep = this.#lastEvent + this.#awakeFor() - now;
    if (untilSleep <= 0) return 0;
    const untilPass = began + this.#longestWaitMs - now;
    const untilTimer = timers.next(now);
    // That is told once: whatever else comes in this visit, Bun has its turn before the next wait.
    if (untilTimer === 0) this.#settled = this.#passes + 1;
    return Math.max(0, Math.min(untilSleep, untilPass, untilTimer));
  }

  /** Whether Bun's loop can end a wait. */
  #hearsHost(): boolean {
    if (this.#core.isInterruptible) return true;
    if (this.#looks >= looksForHost) return false;
    this.#looks++;
    const fd = findHostPoll(this.#options.wakeFd);
    if (fd === undefined) return false;
    try {
      this.#core.interruptBy(fd);
    } catch {
      this.#looks = looksForHost;
      return false;
    }
    return true;
  }

  #isNeeded(): boolean {
    return this.#options.isNeeded?.() !== false;
  }

  #awakeFor(): number {
    if (!this.#core.isInterruptible) return this.#options.pending() === 0 ? blindWaitMs : 0;
    return this.#silence < this.#awakeMs / 2 ? this.#awakeMs : awakeMsMin;
  }

  #sleep(): void {
    if (!this.#isNeeded()) {
      this.stop();
      return;
    }
    const dueMs = this.#core.sleep();
    if (dueMs === -2) {
      this.#schedule();
      return;
    }
    this.#asleep = true;
    if (dueMs >= 0) this.#arm(dueMs);
  }

  #wake(): void {
    this.#asleep = false;
    this.#core.wake();
  }

  /** One timer, moved only when it must fire earlier: being woken for nothing now and then costs less than moving it each time. */
  #arm(dueMs: number): void {
    const due = performance.now() + dueMs;
    if (this.#timer !== undefined && this.#timerDue <= due) return;
    clearTimeout(this.#timer);
    this.#timerDue = due;
    this.#timer = setTimeout(
      () => {
        this.#timer = undefined;
        this.#timerDue = Number.POSITIVE_INFINITY;
        if (this.#asleep) this.#onVisit();
      },
      Math.min(dueMs, 2 ** 31 - 1),
    );
  }
}
