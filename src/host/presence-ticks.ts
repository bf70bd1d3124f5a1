/**
 * The clock of presence: users leave when their grace is over, and members of workers that are gone begin theirs.
 * Role: drives `core.presenceTick`, in every worker, so that some worker does it whichever dies. Used by worker/main.ts.
 */
import type { Core } from '../core/core.ts';
import { everySecond } from './ticks.ts';

/** Until the rest of a tick that did all that it may: others have their turn between. */
const pauseMs = 10;

export interface PresenceTicks {
  /** Now, and not at the next tick: something has happened, such as the end of a worker. */
  tick(): void;
  stop(): void;
}

export function startPresenceTicks(core: Pick<Core, 'presenceTick'>, every = everySecond): PresenceTicks {
  let rest: ReturnType<typeof setTimeout> | undefined;
  const tick = () => {
    if (rest !== undefined) return;
    if (!core.presenceTick()) return;
    rest = setTimeout(() => {
      rest = undefined;
      tick();
    }, pauseMs).unref();
  };
  const stop = every(tick);
  return {
    tick,
    stop() {
      stop();
      clearTimeout(rest);
      rest = undefined;
    },
  };
}
