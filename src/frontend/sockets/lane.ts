/**
 * The order of one socket's handlers: what waits while one of them has not settled, and when the client is held back for it.
 *
 * Role: made by socket-handlers.ts when a handler returns a promise that is pending, and gone when nothing is pending any more: a socket whose
 * handlers answer at once never has one. Down: core.ts, PAUSE and RESUME.
 *
 *   message ──a handler is unsettled──> queue ──it settles──> handler
 *                                         │ past `waitingMost`: PAUSE, and from then on RESUME with a window of what there is room for
 *
 * Invariants: what waits has its own copy of its payload; it counts as `capacity.windowEventBytes` and its payload, as the core counts; past
 * `waitingMost` the queue grows only by what the core had delivered by then, and by one message that is larger than all of it.
 */

import type { ReceivedMessage } from '../../api/message.ts';
import { GatewaySocket, type HandlerOrder } from '../../api/socket.ts';
import { capacity } from '../../core/abi.ts';
import type { Core } from '../../core/core.ts';
import { statIndex } from '../../core/stat-index.ts';

/** Bytes that may wait for one socket's handlers before it is not read from any more. */
export const waitingMost = 64 * 1024;
/** It is read from again when no more than this waits. */
const waitingLow = waitingMost / 2;

/** Places of a queue that are kept before they are given back, so that taking one costs the same however many wait. */
const placesKept = 64;

/** A ping or a pong that waits. */
export interface WaitingControl {
  readonly event: 'ping' | 'pong';
  readonly data: Uint8Array;
  readonly byteLength: number;
}
export type Waiting = ReceivedMessage | WaitingControl;

const pauses = statIndex('pauses_handlers');
const drops = statIndex('drops_unhandled');
const pendingGauge = statIndex('ws_handlers_pending');
const waitingGauge = statIndex('ws_messages_waiting');
const waitingBytesGauge = statIndex('ws_waiting_bytes');

/** What all lanes of a worker hold together, for its gauges. */
export class LaneTotals {
  readonly core: Core;
  #pending = 0;
  #waiting = 0;
  #waitingBytes = 0;

  constructor(core: Core) {
    this.core = core;
  }

  /** Promises of handlers that have not settled. */
  get pending(): number {
    return this.#pending;
  }

  addPending(more: 1 | -1): void {
    this.#pending += more;
    this.core.setGauge(pendingGauge, this.#pending);
  }

  addWaiting(messages: number, bytes: number): void {
    this.#waiting += messages;
    this.#waitingBytes += bytes;
    this.core.setGauge(waitingGauge, this.#waiting);
    this.core.setGauge(waitingBytesGauge, this.#waitingBytes);
  }
}

export class Lane implements HandlerOrder {
  readonly socket: GatewaySocket;
  readonly #core: Core;
  readonly #totals: LaneTotals;
  readonly #concurrency: number;
  /** Handlers that have not settled. */
  #unsettled = 0;
  /** One of them is `open`, beside which none begins. */
  #isOpening = false;
  /** In order from #next on. */
  #queue: (Waiting | undefined)[] = [];
  #next = 0;
  /** What waits, as the core counts it. */
  #cost = 0;
  /** PAUSE was sent, so the core counts what it delivers from RESUME on. */
  #hasWindow = false;
  /** Something has come since RESUME, so that the window may be used up. */
  #mayBeUsedUp = false;
  /** What `close` is to be told, when its time has come. */
  closing: { readonly code: number; readonly reason: string } | undefined;

  constructor(socket: GatewaySocket, concurrency: number, totals: LaneTotals) {
    this.socket = socket;
    this.#concurrency = concurrency;
    this.#core = totals.core;
    this.#totals = totals;
  }

  /** Whether nothing waits and nothing is unsettled. */
  get isIdle(): boolean {
    return this.#unsettled === 0 && this.#next === this.#queue.length;
  }

  /** Whether a handler may begin. */
  get #hasRoom(): boolean {
    return this.#unsettled < this.#concurrency && !this.#isOpening;
  }

  /** Something has come. ret: whether its handler may begin at once; else it must `wait` */
  admit(): boolean {
    this.#mayBeUsedUp = true;
    return this.#hasRoom && this.#next === this.#queue.length;
  }

  wait(item: Waiting): void {
    this.#queue.push(item);
    this.#cost += item.byteLength + capacity.windowEventBytes;
    this.#totals.addWaiting(1, item.byteLength);
    if (this.#hasWindow || this.#cost < waitingMost) return;
    this.#hasWindow = true;
    this.#core.addStat(pauses, 1);
    this.#core.pause(this.socket.slot, this.socket.generation);
  }

  /** Take what may begin now, if anything. */
  take(): Waiting | undefined {
    if (!this.#hasRoom || this.#next === this.#queue.length) return undefined;
    const item = this.#queue[this.#next] as Waiting;
    this.#queue[this.#next++] = undefined;
    this.#letGo();
    this.#cost -= item.byteLength + capacity.windowEventBytes;
    this.#totals.addWaiting(-1, -item.byteLength);
    return item;
  }

  began(isOpen: boolean): void {
    this.#unsettled += 1;
    if (isOpen) this.#isOpening = true;
    this.#totals.addPending(1);
  }

  settled(isOpen: boolean): void {
    this.#unsettled -= 1;
    if (isOpen) this.#isOpening = false;
    this.#totals.addPending(-1);
  }

  /** Let the client send again, as far as there is room. To be called when less waits, or less is unsettled, than before. */
  regulate(): void {
    if (!this.#hasWindow || GatewaySocket.extrasOf(this.socket)?.isPaused) return;
    const { slot, generation } = this.socket;
    if (this.isIdle) {
      this.#hasWindow = false;
      this.#core.resume(slot, generation);
    } else if (this.#mayBeUsedUp && this.#cost <= waitingLow) {
      this.#mayBeUsedUp = false;
      this.#core.resume(slot, generation, waitingMost - this.#cost);
    }
  }

  resume(): void {
    const { slot, generation } = this.socket;
    this.#mayBeUsedUp = true;
    if (this.#hasWindow) this.regulate();
    else this.#core.resume(slot, generation);
  }

  abandon(): void {
    const count = this.#queue.length - this.#next;
    if (count === 0) return;
    let bytes = 0;
    for (const item of this.#queue) bytes += item?.byteLength ?? 0;
    this.#clear();
    this.#cost = 0;
    this.#totals.addWaiting(-count, -bytes);
    this.#core.addStat(drops, count);
  }

  #clear(): void {
    this.#queue.length = 0;
    this.#next = 0;
  }

  /** Of the places that were taken from. A queue that is never empty must not grow by them. */
  #letGo(): void {
    if (this.#next === this.#queue.length) {
      this.#clear();
    } else if (this.#next >= placesKept && this.#next * 2 >= this.#queue.length) {
      this.#queue.splice(0, this.#next);
      this.#next = 0;
    }
  }
}
