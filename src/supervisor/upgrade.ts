/**
 * The steps of an upgrade, on both sides, up to the point where the successor serves.
 * Role: reload.ts for the case that the disk has another release. Up: supervisor.ts. Down: handover.ts, the channel between the two.
 */
import type { Log } from '../log.ts';
import type { TrialProblem } from './generation.ts';
import { type AdminPost, type Predecessor, Successor } from './handover.ts';
import type { OpenListener } from './listeners.ts';
import { outcomeOf, type Setup } from './reload.ts';
import type { ReloadOutcome } from './reload-queue.ts';

/** A successor that serves. */
export interface Served {
  readonly successor: Successor;
  /** The listeners that it goes on with. */
  readonly kept: readonly OpenListener[];
  /** It opens its admin listener at the address of ours, once that is free. */
  readonly wantsAdmin: boolean;
}

export interface Offer {
  readonly present: Setup;
  readonly admin: AdminPost | null;
  /** The last request for a reload that this answers. */
  readonly request: number;
}

/** As predecessor. `command`: what Bun is started with. ret: why nobody has taken over, or who has. Throws OperatingError */
export async function handOver(
  command: readonly string[],
  { present, admin, request }: Offer,
  giveUp: AbortSignal,
): Promise<Served | ReloadOutcome> {
  const { open } = present.listeners;
  const successor = Successor.start(command, { listeners: open, admin, generation: present.generation.number, request });
  const ready = await successor.untilReady(giveUp);
  const isStopping = giveUp.aborted ? { reason: String(giveUp.reason), exitCode: undefined } : undefined;
  const problem = 'reason' in ready ? ready : isStopping;
  const serving = problem === undefined ? await successor.serve() : undefined;
  if (serving === undefined || 'reason' in ready) {
    successor.kill();
    await successor.exited;
    return outcomeOf(problem ?? { reason: 'the new supervisor ended before it served', exitCode: undefined });
  }
  return { successor, kept: ready.flatMap((index) => open[index] ?? []), wantsAdmin: serving.wantsAdmin };
}

/** As successor: wait until the workers are ready, then for the predecessor's word. ret: why this process must not serve */
export async function takeOver(
  predecessor: Predecessor,
  { generation, listeners }: Setup,
  options: { readonly log: Log; readonly giveUp: AbortSignal; readonly readyTimeoutMs: number },
): Promise<TrialProblem | undefined> {
  const before = predecessor.handover.listeners;
  const isKept = ({ fds }: OpenListener) => listeners.open.some((each) => each.fds[0] === fds[0]);
  try {
    const problem = await generation.untilReady(options.readyTimeoutMs, options.giveUp);
    if (problem !== undefined) return problem;
    await predecessor.ready(before.flatMap((listener, index) => (isKept(listener) ? [index] : [])));
    for (const { message } of listeners.begin(before)) options.log.error(message);
    return undefined;
  } catch (error) {
    return { reason: error instanceof Error ? error.message : String(error), exitCode: undefined };
  }
}
