/**
 * Stopping the node: tell every worker to drain, wait, cut off what is left. And the signals that ask for it.
 */
import { exitCodes } from '../exit-codes.ts';
import type { Log } from '../log.ts';
import type { WorkerProcess } from './worker-process.ts';

/** Closes are spread over this part of the drain time; the rest is for their close handshakes. */
const spreadShare = 0.8;

export interface DrainPlan {
  readonly signal: StopSignal;
  /** What WebSockets close with. */
  readonly code: number;
  readonly timeoutSeconds: number;
  /** The option that sets it. */
  readonly timeoutOption: string;
}

/** Resolves when every worker has stopped, by itself or killed at the deadline. */
export async function drainWorkers(workers: readonly WorkerProcess[], plan: DrainPlan, log: Log): Promise<void> {
  const killAll = () => {
    for (const worker of workers) worker.kill();
  };
  const { signal, code, timeoutSeconds } = plan;
  const deadlineMs = timeoutSeconds * 1000;
  const overMs = Math.floor(deadlineMs * spreadShare);
  if (deadlineMs === 0) killAll();
  else for (const worker of workers) worker.drain({ type: 'drain', signal, code, overMs, deadlineMs });
  const deadline = setTimeout(
    () => {
      const late = workers.filter((worker) => worker.state !== 'stopped').length;
      log.warn(`${late} of ${workers.length} workers had connections left after ${timeoutSeconds} s (${plan.timeoutOption}); cut off`);
      killAll();
    },
    Math.max(deadlineMs, 1000),
  );
  await Promise.all(workers.map((worker) => worker.stopped));
  clearTimeout(deadline);
}

const stopSignals = { SIGINT: exitCodes.interrupted, SIGTERM: exitCodes.terminated } as const;
export type StopSignal = keyof typeof stopSignals;

/** A signal so soon after the first is the same wish: `npm start` hands on what the process group has already received. */
const repeatMs = 1000;

/**
 * The first SIGINT or SIGTERM calls `drain`; one that comes a second later or more calls `force` with the exit code that tells of it.
 * Returns how to stop listening.
 */
export function onStopSignals(
  drain: (signal: StopSignal) => void,
  force: (exitCode: number) => void,
  now: () => number = () => performance.now(),
): () => void {
  let askedAt: number | undefined;
  const handlers = (Object.keys(stopSignals) as StopSignal[]).map((signal) => {
    const handler = () => {
      if (askedAt === undefined) {
        askedAt = now();
        drain(signal);
      } else if (now() - askedAt >= repeatMs) {
        force(stopSignals[signal]);
      }
    };
    process.on(signal, handler);
    return () => process.off(signal, handler);
  });
  return () => {
    for (const off of handlers) off();
  };
}
