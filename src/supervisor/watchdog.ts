/**
 * Finds workers that are there and do not go on: their heartbeat in shared memory stands still.
 *
 *   beats ──none for some seconds──> hung: told, the node is not ready ──none for hangTimeout──> killed, and started again
 *     ^──────────one more──────────────┘
 *
 * Role: judges by the supervisor's own clock, and only while that goes on itself. Up: supervisor.ts. Down: worker-process.ts.
 */
import { readFileSync } from 'node:fs';
import type { Log } from '../log.ts';
import type { WorkerProcess } from './worker-process.ts';

/** A supervisor that has nothing else to do wakes for this alone. */
const intervalMs = 2000;
/** Heartbeats come once a second; a long pause of the garbage collector, or a busy machine, is shorter than this. */
const hungAfterMs = 5000;
/** When this process was held up for so long, so were the others, most likely. */
const heldUpMs = 4000;

type Watched = Pick<WorkerProcess, 'index' | 'pid' | 'state' | 'silentMs' | 'isHung' | 'replace'>;

export interface WatchdogOptions {
  /** Those of every generation. */
  workers(): Iterable<Watched>;
  /** How many heartbeats the workers at a place have had. */
  beats(place: number): number;
  /** Seconds; 0: never replace one. */
  hangTimeout(): number;
  readonly log: Log;
  /** For tests. */
  readonly hungAfterMs?: number;
}

interface Pulse {
  readonly pid: number;
  beats: number;
  /** When they last grew. */
  at: number;
}

export class Watchdog {
  readonly #options: WatchdogOptions;
  readonly #pulses = new Map<number, Pulse>();
  #timer: ReturnType<typeof setInterval> | undefined;
  #lookedAt: number | undefined;

  constructor(options: WatchdogOptions) {
    this.#options = options;
  }

  start(): void {
    this.#timer = setInterval(() => this.look(performance.now()), intervalMs);
    this.#timer.unref();
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  /** `now`: on a clock that never jumps, in milliseconds */
  look(now: number): void {
    const gap = now - (this.#lookedAt ?? now);
    this.#lookedAt = now;
    if (gap > heldUpMs) for (const pulse of this.#pulses.values()) pulse.at += gap;
    const places = new Set<number>();
    for (const worker of this.#options.workers()) {
      if (worker.state !== 'ready' || worker.pid === undefined) {
        worker.silentMs = 0;
        worker.isHung = false;
        continue;
      }
      places.add(worker.index);
      this.#judge(worker, worker.pid, now);
    }
    for (const place of this.#pulses.keys()) if (!places.has(place)) this.#pulses.delete(place);
  }

  #judge(worker: Watched, pid: number, now: number): void {
    const { log } = this.#options;
    const beats = this.#options.beats(worker.index);
    const pulse = this.#pulses.get(worker.index);
    const name = `worker ${worker.index} (process ${pid})`;
    if (pulse === undefined || pulse.pid !== pid || pulse.beats !== beats) {
      if (worker.isHung && pulse?.pid === pid) log.warn({ worker: worker.index }, `${name} goes on, after ${seconds(now - pulse.at)} s`);
      worker.silentMs = 0;
      worker.isHung = false;
      this.#pulses.set(worker.index, { pid, beats, at: now });
      return;
    }
    worker.silentMs = now - pulse.at;
    const timeoutMs = this.#options.hangTimeout() * 1000;
    const limitMs = this.#options.hungAfterMs ?? hungAfterMs;
    if (worker.silentMs < (timeoutMs === 0 ? limitMs : Math.min(limitMs, timeoutMs))) return;
    if (!worker.isHung) {
      worker.isHung = true;
      const next = timeoutMs === 0 ? '' : `; it is killed and started again when it does not within ${timeoutMs / 1000} s (hangTimeout)`;
      log.error(
        { worker: worker.index },
        `${name} does not go on since ${seconds(worker.silentMs)} s and serves nobody: ${reasonOf(pid)}${next}`,
      );
    }
    if (timeoutMs > 0 && worker.silentMs >= timeoutMs) {
      log.error({ worker: worker.index }, `${name} is killed: it has not gone on for ${seconds(worker.silentMs)} s`);
      worker.replace();
    }
  }
}

function seconds(ms: number): number {
  return Math.round(ms / 1000);
}

/** Why a process does not go on, as far as the kernel knows (proc_pid_stat(5), the field behind the name). */
function reasonOf(pid: number): string {
  let state = '';
  try {
    state = /\) (\w)/.exec(readFileSync(`/proc/${pid}/stat`, 'latin1'))?.[1] ?? '';
  } catch {
    return 'it cannot be looked at';
  }
  if (state === 'T' || state === 't') return 'it was stopped by a signal, or by a debugger';
  if (state === 'D') return 'it waits for a disk';
  return state === 'R'
    ? 'it computes, most likely in a handler that does not return'
    : 'it waits within a handler, most likely for a lock or a file';
}
