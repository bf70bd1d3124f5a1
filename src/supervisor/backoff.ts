/**
 * When to start a worker again after it crashed: at once the first time, later and later while it keeps crashing.
 * Pure: told the time, it never reads a clock.
 */

/** A worker that has been ready for so long is healthy: earlier crashes are forgiven. */
export const healthyMs = 10_000;
const firstDelayMs = 100;
const longestDelayMs = 10_000;
/** So many crashes within `loopWindowMs` are a crash loop. */
export const loopCrashes = 5;
const loopWindowMs = 30_000;

export interface Restart {
  readonly delayMs: number;
  /** This crash has just made it a crash loop. */
  readonly loopBegins: boolean;
}

export class RestartBackoff {
  readonly #random: () => number;
  #crashes: number[] = [];
  /** Crashes in a row, none of them after a healthy time. */
  #inRow = 0;
  #looping = false;

  constructor(random: () => number = Math.random) {
    this.#random = random;
  }

  /** Whether it is in a crash loop: from the crash that made it one until it is healthy. */
  isLooping(now: number, readySince: number | undefined): boolean {
    return this.#looping && !isHealthy(now, readySince);
  }

  /** The worker has exited. `readySince`: when it became ready, if it did. */
  crashed(now: number, readySince: number | undefined): Restart {
    if (isHealthy(now, readySince)) {
      this.#inRow = 0;
      this.#crashes = [];
      this.#looping = false;
    }
    this.#crashes = [...this.#crashes.filter((time) => now - time < loopWindowMs), now];
    const delayMs = this.#delay(this.#inRow);
    this.#inRow += 1;
    const loopBegins = !this.#looping && this.#crashes.length >= loopCrashes;
    this.#looping ||= loopBegins;
    return { delayMs, loopBegins };
  }

  #delay(crashesBefore: number): number {
    if (crashesBefore === 0) return 0;
    // Jitter keeps workers that fail together (a database gone) from coming back together.
    const jitter = 0.75 + this.#random() * 0.5;
    const exponential = firstDelayMs * 2 ** Math.min(crashesBefore - 1, 16);
    return Math.min(longestDelayMs, Math.round(exponential * jitter));
  }
}

function isHealthy(now: number, readySince: number | undefined): boolean {
  return readySince !== undefined && now - readySince >= healthyMs;
}
