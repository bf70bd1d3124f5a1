/**
 * The worker's loop: poll → dispatch → flush, in turns, inside Bun's event loop.
 *
 * Role: drives the core. Up: worker/main.ts. Down: core/core.ts.
 *
 *   asleep ──wake_fd readable, timer due, or a command queued──> awake: visits of several turns ──quiet for a while──> asleep
 *
 * Bun's loop stays master: a visit is bounded in time, and between visits timers, fetch and Redis are served. While awake and
 * without work a turn waits in the kernel for a short time, which costs no CPU and answers the next packet sooner than a sleep would;
 * not so while promises of handlers are pending, because what they wait for comes through Bun's loop.
 */
import { drainMicrotasks } from 'bun:jsc';
import { capacity } from '../../ffi/layout.ts';
import type { Core, WebSocketEvents } from '../core/core.ts';
import type { HttpEvents } from '../core/http.ts';
import { Pace } from './pace.ts';

/** Longest visit to the core before Bun's loop gets a turn. */
const visitMs = 2;
const turnsPerVisit = 32;
/** One wait in the kernel; also how late Bun's own timers may be served because of it. */
const waitUs = 200;
/** How long after the last event the worker stays awake. */
const stayAwakeMs = 1;

export interface LoopOptions {
  readonly core: Core;
  readonly http: HttpEvents;
  readonly websocket: WebSocketEvents;
  /** The eventfd given to the core as wakeFd. */
  readonly wakeFd: number;
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
  #asleep = false;
  #scheduled = false;
  #stopped = false;
  #lastEvent = 0;
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

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
    void this.#wakes?.cancel();
    this.#options.onStopped?.();
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(this.#visit);
  }

  #onVisit(): void {
    this.#scheduled = false;
    if (this.#stopped) return;
    if (this.#asleep) this.#wake();
    const core = this.#core;
    const began = performance.now();
    let now = began;
    let idle = false;
    for (let turns = 0; turns < turnsPerVisit && now - began < visitMs; turns++) {
      const count = core.turn(this.#options.pending() === 0 ? waitUs : 0);
      if (count > 0) {
        const given = performance.now();
        core.dispatch(count, this.#http, this.#websocket);
        // Handlers that await something already settled answer within this visit.
        drainMicrotasks();
        now = performance.now();
        if (this.#pace.note(count, now - given)) core.pace(this.#pace.limit);
      } else {
        now = performance.now();
      }
      if (count > 0 || core.hasCommands) {
        this.#lastEvent = now;
        idle = false;
      } else if (idle) {
        break;
      } else {
        idle = true;
      }
    }
    if (!idle || now - this.#lastEvent < this.#awakeFor()) this.#schedule();
    else this.#sleep();
  }

  #awakeFor(): number {
    return this.#options.pending() === 0 ? stayAwakeMs : 0;
  }

  #sleep(): void {
    if (this.#options.isNeeded?.() === false) {
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
