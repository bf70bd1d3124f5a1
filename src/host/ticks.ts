/**
 * One timer for all that is looked at once a second, so that a worker at rest wakes once for it.
 * Role: used by what counts and watches in a worker and in a program. Does not keep the process alive.
 */

/** Milliseconds between ticks. */
export const tickMs = 1000;

const calls = new Set<() => void>();
let timer: ReturnType<typeof setInterval> | undefined;

/** Call `call` at each tick, the first of which may come sooner than a second from now. It must not throw. ret: stop */
export function everySecond(call: () => void): () => void {
  calls.add(call);
  timer ??= setInterval(() => {
    for (const each of calls) each();
  }, tickMs).unref();
  return () => {
    calls.delete(call);
    if (calls.size > 0) return;
    clearInterval(timer);
    timer = undefined;
  };
}
