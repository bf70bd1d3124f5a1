/**
 * Draining a core: serve what is there, take nothing new, end when no connection is left.
 * Role: the steps, for a worker of a gateway and for a program. Up: worker/main.ts, worker/program.ts.
 */
import type { Core } from '../core/core.ts';

const stepMs = 20;

/**
 * Begin to drain; WebSockets close with `code`, spread over `overMs`. `closeSockets` closes the listening sockets; `onDone` is called
 * once, when no connection is left.
 */
export function drainCore(core: Core, code: number, overMs: number, closeSockets: () => void, onDone: () => void): void {
  core.drain(code, overMs);
  // Connections that are in the accept queue already are served; then the sockets close, so that later ones are refused and go elsewhere.
  setTimeout(() => {
    core.stopAccepting();
    core.onQueued?.();
    setTimeout(closeSockets, stepMs);
  }, stepMs);
  setTimeout(() => {
    const timer = setInterval(() => {
      if (core.connections() > 0) return;
      clearInterval(timer);
      onDone();
    }, stepMs);
  }, stepMs * 3);
  // The loop may be asleep: what the drain has queued goes out in the next turn.
  core.onQueued?.();
}
