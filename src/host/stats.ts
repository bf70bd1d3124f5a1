/**
 * Counters that the host writes beside those of the core: errors of handlers, lost lines of the log, and how late the event loop is.
 * Role: used by a worker of a gateway and by a program.
 */
import type { Core } from '../core/core.ts';
import { statIndex } from '../core/stat-index.ts';
import { outputTo } from '../output.ts';
import { everySecond, tickMs } from './ticks.ts';

/** How late a timer comes is how long the event loop was busy with something else. Does not keep the process alive. */
export function measureLag(core: Core): void {
  const latest = statIndex('loop_lag_us');
  const worst = statIndex('loop_lag_max_us');
  let max = 0;
  let expected = performance.now() + tickMs;
  everySecond(() => {
    const lag = Math.max(0, performance.now() - expected);
    expected = performance.now() + tickMs;
    max = Math.max(max, lag);
    core.setStat(latest, Math.round(lag * 1000));
    core.setStat(worst, Math.round(max * 1000));
  });
}

/** Lines of the log that were lost until now, and those that will be. */
export function countLogLosses(core: Core): void {
  const losses = statIndex('log_losses');
  const output = outputTo(1);
  core.addStat(losses, output.lost);
  output.onLoss = (lines) => core.addStat(losses, lines);
}
