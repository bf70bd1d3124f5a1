/**
 * Runs what an async handler does before it really waits, while the handler is still being called.
 *
 * Role: what a handler is lent (a request, a message, a part of a body) is taken back when it returns. The original takes it back after the
 * microtasks that the handler has caused, since Node runs them when native code has called JavaScript: programs read a request after an
 * `await` of what is there already. Up: connections.ts, request-body.ts, websocket.ts.
 */
import { drainMicrotasks } from 'bun:jsc';

function ignore(): void {}

/** `result`: what a handler has returned. Costs nothing unless it is a promise. */
export function runMicrotasks(result: unknown): void {
  if (!(result instanceof Promise)) return;
  // Whoever watches it does so later: until then a rejection must not count as one that nobody handles.
  result.catch(ignore);
  drainMicrotasks();
}
