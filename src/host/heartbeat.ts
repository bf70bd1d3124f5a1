/**
 * A sign of life that the supervisor sees in shared memory: once a second, when Bun's loop has come to its timers and the core has had a turn
 * since the last one. A handler that never returns, a process that is stopped and a turn that never ends all keep it away.
 *
 * Role: used by a worker of a gateway and by a program. Read by supervisor/watchdog.ts.
 */
import type { Core } from '../core/core.ts';
import { statIndex } from '../core/stat-index.ts';
import { everySecond } from './ticks.ts';

/** `hasTurns`: whether the core is to have turns at all; `every`: what calls it. Does not keep the process alive. ret: stop */
export function startHeartbeat(core: Core, hasTurns: () => boolean = () => true, every = everySecond): () => void {
  const [beats, turns] = [statIndex('heartbeats'), statIndex('turns')];
  let before = core.readStat(turns);
  return every(() => {
    const now = core.readStat(turns);
    const isTurning = hasTurns();
    if (now !== before || !isTurning) core.addStat(beats, 1);
    before = now;
    // A core that sleeps has its turn for this alone.
    if (isTurning) core.onQueued?.();
  });
}
