/**
 * Time and turns as the bus sees them; tests put their own in place.
 * Role: below interest.ts, ownership.ts, takeover.ts, giveaway.ts, bus.ts. All times are monotonic.
 */
import { readFileSync } from 'node:fs';

export interface Clock {
  /** Milliseconds since some moment of this process. */
  now(): number;
  /** Milliseconds since some moment that is the same for all processes of this machine; or 0 when the system does not tell. */
  sharedNow(): number;
  /** Call again and again. ret: ends it */
  every(ms: number, call: () => void): () => void;
  later(ms: number, call: () => void): void;
  /** When what runs now has returned: several of one kind become one. */
  soon(call: () => void): void;
}

export const systemClock: Clock = {
  now: () => performance.now(),
  sharedNow() {
    // Bun's process.hrtime() counts from the start of the process. proc_uptime(5): seconds since boot, in hundredths.
    try {
      return Math.round(Number.parseFloat(readFileSync('/proc/uptime', 'latin1')) * 1000);
    } catch {
      return 0;
    }
  },
  every(ms, call) {
    const timer = setInterval(call, ms);
    return () => clearInterval(timer);
  },
  later(ms, call) {
    setTimeout(call, ms);
  },
  soon(call) {
    queueMicrotask(call);
  },
};
