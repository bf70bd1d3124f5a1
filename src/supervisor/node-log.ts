/**
 * What the log says of the life of a node: where it listens, and what became of reloads.
 * Role: words only. Up: supervisor.ts.
 */
import type { Log } from '../log.ts';
import { version } from '../version.ts';
import type { OpenListener } from './listeners.ts';
import type { ReloadOutcome } from './reload-queue.ts';
import type { WorkerProcess } from './worker-process.ts';

/** `places`: where it listens, for people. `admin`: its admin listener, if there is one. */
export function logBanner(log: Log, places: readonly string[], workers: readonly WorkerProcess[], admin: string | undefined): void {
  const backends = [...new Set(workers.flatMap((worker) => worker.backend ?? []))].join(' and ');
  const count = countText(workers.filter(({ state }) => state === 'ready').length);
  for (const place of places)
    log.info(`ringway ${version}: listening on ${place} (${count}, ${backends})${admin === undefined ? '' : `, admin ${admin}`}`);
  const notes = workers.flatMap((worker) => worker.note ?? []);
  for (const note of new Set(notes)) log.warn(note);
}

/** Addresses that came and went with a reload. */
export function logListeners(log: Log, before: readonly OpenListener[], after: readonly OpenListener[]): void {
  const isIn = (list: readonly OpenListener[], { fds }: OpenListener) => list.some((each) => each.fds[0] === fds[0]);
  for (const listener of after.filter((each) => !isIn(before, each))) log.info(`listening on ${listener.label}`);
  for (const listener of before.filter((each) => !isIn(after, each))) log.info(`no longer listening on ${listener.label}`);
}

/** `workers`: how many serve. `drainSeconds`: how long older ones may take. */
export function logOutcome(log: Log, outcome: ReloadOutcome, workers: number, drainSeconds: number): void {
  switch (outcome.kind) {
    case 'reloaded':
      if (!outcome.upgraded)
        log.info(
          `reload: generation ${outcome.generation} serves (${countText(workers)}); older workers finish what is in progress, for ${drainSeconds} s at most`,
        );
      return;
    case 'wrong config':
      log.error(`reload: the config is wrong, the old one serves on:\n${outcome.mistakes.join('\n')}`);
      return;
    case 'failed':
      log.error(`reload: nothing has changed: ${outcome.reason}`);
      return;
    case 'postponed':
      log.warn(`reload: postponed: ${outcome.reason}`);
      return;
    default:
      outcome satisfies never;
  }
}

function countText(workers: number): string {
  return workers === 1 ? '1 worker' : `${workers} workers`;
}
