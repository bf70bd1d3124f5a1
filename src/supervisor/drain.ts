/**
 * Draining workers, when the node stops or others take their place: tell each of them, wait, cut off what is left. And the signals that ask for
 * a stop.
 */
import { exitCodes } from '../exit-codes.ts';
import type { Log } from '../log.ts';
import { devVariable, type StopSignal } from '../process/boot.ts';
import type { WorkerProcess } from './worker-process.ts';

/** Closes are spread over this part of the drain time; the rest is for their close handshakes. */
const spreadShare = 0.8;

/**
 * How long a keep-alive connection may be idle before it is closed, by what was asked for. A client may be sending its next request just when
 * its connection closes; within this time it is answered, and told to close. Load balancers send the next one soon; SIGINT comes from somebody
 * who waits at a terminal.
 */
const idleMs = { SIGHUP: 5000, SIGTERM: 2000, SIGINT: 0 } as const;

export interface DrainPlan {
  /** SIGHUP: others take their place. */
  readonly signal: StopSignal | 'SIGHUP';
  /** What WebSockets close with. */
  readonly code: number;
  readonly timeoutSeconds: number;
  /** The option that sets it. */
  readonly timeoutOption: string;
  /** See DrainMessage. */
  readonly servesQueues: boolean;
}

/** Resolves when every worker has stopped, by itself or killed at the deadline. One that drains already goes on with the new times. */
export async function drainWorkers(workers: readonly WorkerProcess[], plan: DrainPlan, log: Log): Promise<void> {
  const killAll = () => {
    for (const worker of workers) worker.kill();
  };
  const { signal, code, timeoutSeconds, servesQueues } = plan;
  const deadlineMs = timeoutSeconds * 1000;
  // `ringway dev` gives half a second, and a browser that has an idle connection closes its side later: that is no news, at every change.
  const level = process.env[devVariable] === undefined ? 'warn' : 'debug';
  const overMs = Math.floor(deadlineMs * spreadShare);
  if (deadlineMs === 0) killAll();
  else {
    const message = { type: 'drain', signal, code, overMs, idleMs: Math.min(idleMs[signal], overMs), servesQueues, deadlineMs } as const;
    for (const worker of workers) worker.drain(message);
  }
  const deadline = setTimeout(
    () => {
      const late = workers.filter((worker) => worker.state !== 'stopped').length;
      log[level](`${late} of ${workers.length} workers had connections left after ${timeoutSeconds} s (${plan.timeoutOption}); cut off`);
      killAll();
    },
    Math.max(deadlineMs, 1000),
  );
  await Promise.all(workers.map((worker) => worker.stopped));
  clearTimeout(deadline);
}

const stopSignals = { SIGINT: exitCodes.interrupted, SIGTERM: exitCodes.terminated } as const satisfies Record<StopSignal, number>;

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
