/**
 * Gives memory back to the system when a burst of connections is over.
 *
 * Role: used by a worker of a gateway and by a program. Accepting a connection leaves garbage between the objects that stay, and pages
 * that Bun's allocators keep for the next burst: measured with 12,000 sockets, a third of what each seems to cost. `Bun.shrink()` returns
 * them, but stops the world for some milliseconds and drops compiled code, so it is called once after many connections have come, and
 * only while next to nothing happens.
 */
import type { Core } from '../core/core.ts';
import { statIndex } from '../core/stat-index.ts';
import { everySecond } from './ticks.ts';

/** Connections that have come since memory was last given back. */
const acceptsWorthwhile = 500;
/** As many messages and requests within a tick count as quiet: pings of idle sockets are not among them. */
const quietEvents = 50;
/** Ticks in a row that must be quiet. */
const quietTicks = 3;

/** Watch the counters of `core`, at each call that `every` makes. Does not keep the process alive. ret: stop watching */
export function releaseMemoryWhenQuiet(core: Core, release: () => void = Bun.shrink, every = everySecond): () => void {
  const accepts = statIndex('accepts');
  const activity = (['accepts', 'requests', 'ws_messages_in', 'ws_messages_out'] as const).map(statIndex);
  const sum = () => activity.reduce((total, index) => total + core.readStat(index), 0);
  let released = core.readStat(accepts);
  let before = sum();
  let quiet = 0;
  return every(() => {
    const now = sum();
    quiet = now - before <= quietEvents ? quiet + 1 : 0;
    before = now;
    if (quiet < quietTicks || core.readStat(accepts) - released < acceptsWorthwhile) return;
    released = core.readStat(accepts);
    release();
  });
}
