/**
 * Runs what a handler has queued, as soon as it has returned.
 *
 * Role: what a handler is lent (a request, a message, a part of a body) is taken back when it returns, and an answer is missed then. In
 * the original both happen after the microtasks and the `process.nextTick` callbacks that the handler has queued, and those that these
 * queue, since Node runs them whenever native code has called JavaScript: programs read a request after an `await` of what is there
 * already, and give it to libraries that put things off by a tick. Up: connections.ts, request-body.ts, response.ts, websocket.ts.
 *
 * For handlers that an event of the core has called, and only there: a handler that is called from within the program (`close` by
 * `ws.end()`, `open` by `res.upgrade()`, `dropped` by `ws.send()`, a `cork`) returns to the program, and what it has queued waits, as in
 * Node, until that is done too.
 */
import { drainMicrotasks } from 'bun:jsc';

/** Microtasks first, then ticks, until there are none. 12 ns when there are none. Throws nothing; rejections are looked at later. */
export const runMicrotasks: () => void = drainMicrotasks;
