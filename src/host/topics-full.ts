/**
 * Says that a subscription was refused, once of each kind in the life of a process: a client can bring it about as often as it likes.
 * Role: used by a worker of a gateway and by a program. Every refusal is counted by the core.
 */
import type { Core } from '../core/core.ts';

/** `options`: where a limit can be changed, for the sentence; undefined: nowhere. */
export function tellTopicsFull(
  core: Core,
  options: { readonly socket: string; readonly worker: string } | undefined,
  say: (sentence: string) => void,
): void {
  const said = new Set<string>();
  core.onTopicsFull = (whose, most) => {
    if (said.has(whose)) return;
    said.add(whose);
    const limit = whose === 'socket' ? `a WebSocket may have ${most} topics` : `a worker may have ${most} topics`;
    const where = options === undefined ? '' : ` (${options[whose]})`;
    say(`subscribe() returned false: ${limit}${where}; this is said once, and ringway_subscriptions_refused_total counts further ones`);
  };
}
