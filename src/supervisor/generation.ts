/**
 * A generation: the workers of one config. While one serves, others may be draining behind it, and the next one be on trial.
 *
 *   on trial ──all are ready──> serving ──the next one serves──> draining ──> stopped
 *
 * Role: knows its workers and where they are on the node. Up: supervisor.ts, reload.ts. Down: worker-process.ts, drain.ts.
 */
import type { Log } from '../log.ts';
import { layOutDescriptors, type NodePlace, type WorkerKind } from '../process/boot.ts';
import type { PairNative } from '../process/child-output.ts';
import type { CpuPlan } from '../process/cpus.ts';
import { type DrainPlan, drainWorkers } from './drain.ts';
import type { WorkerSocket } from './listeners.ts';
import type { Places } from './places.ts';
import type { SharedResources } from './shared-resources.ts';
import { type WorkerHooks, type WorkerPlan, WorkerProcess } from './worker-process.ts';

export interface GenerationPlan {
  /** Counts the configs that have served, from 1. */
  readonly number: number;
  readonly cpus: CpuPlan;
  readonly places: Places;
  /** Its workers have the places from here on. */
  readonly firstPlace: number;
  readonly native: PairNative;
  readonly resources: SharedResources;
  readonly nodeId: string;
  readonly kind: WorkerKind;
  /** Begin on trial, without accepting. */
  readonly holdsBack: boolean;
  /** What its worker number `worker` accepts from. */
  sockets(worker: number): readonly WorkerSocket[];
}

/** Why a generation does not serve. `exitCode`: of the worker that has ended, as a shell shows it. */
export interface TrialProblem {
  readonly reason: string;
  readonly exitCode: number | undefined;
}

export class Generation {
  readonly number: number;
  readonly firstPlace: number;
  readonly workers: readonly WorkerProcess[];
  readonly #trial = Promise.withResolvers<TrialProblem | undefined>();
  readonly #log: Log;

  constructor(plan: GenerationPlan, hooks: Omit<WorkerHooks, 'onTrialFailed'>, log: Log) {
    this.number = plan.number;
    this.firstPlace = plan.firstPlace;
    this.#log = log;
    const all: WorkerHooks = {
      ...hooks,
      onReady: (worker) => {
        if (this.isReady) this.#trial.resolve(undefined);
        hooks.onReady(worker);
      },
      onTrialFailed: (_, reason, exitCode) => this.#trial.resolve({ reason, exitCode }),
    };
    this.workers = plan.cpus.cpus.map((cpu, worker) => new WorkerProcess(workerPlan(plan, worker, cpu), all, log));
  }

  start(): void {
    for (const worker of this.workers) worker.start();
  }

  get isReady(): boolean {
    return this.workers.every(({ state }) => state === 'ready');
  }

  /** Wait until all workers on trial are ready. ret: why they will not be */
  async untilReady(timeoutMs: number, giveUp: AbortSignal): Promise<TrialProblem | undefined> {
    const end = (reason: string) => this.#trial.resolve({ reason, exitCode: undefined });
    const timer = setTimeout(() => {
      const late = this.workers.filter(({ state }) => state !== 'ready').length;
      end(
        `${late} of ${this.workers.length} new workers were not ready after ${timeoutMs / 1000} s; does the config wait for something (a top-level await)?`,
      );
    }, timeoutMs);
    const stop = () => end(String(giveUp.reason));
    if (giveUp.aborted) stop();
    giveUp.addEventListener('abort', stop);
    try {
      const problem = await this.#trial.promise;
      if (problem !== undefined || this.isReady) return problem;
      return { reason: 'a new worker ended right after it was ready', exitCode: undefined };
    } finally {
      clearTimeout(timer);
      giveUp.removeEventListener('abort', stop);
    }
  }

  /** The trial is over: accept. */
  serve(): void {
    for (const worker of this.workers) worker.serve();
  }

  /** Resolves when all have stopped. */
  drain(plan: DrainPlan): Promise<void> {
    return drainWorkers(this.workers, plan, this.#log);
  }

  kill(): void {
    for (const worker of this.workers) worker.kill();
  }

  /** Resolves when all have stopped for good. */
  get stopped(): Promise<unknown> {
    return Promise.all(this.workers.map((worker) => worker.stopped));
  }
}

function workerPlan(plan: GenerationPlan, worker: number, cpu: number | null): WorkerPlan {
  const { native, resources, kind, holdsBack, nodeId, cpus, places, firstPlace, sockets } = plan;
  const index = firstPlace + worker;
  const own = sockets(worker);
  const { descriptors, shmFd, inboxFdFirst, kindFdFirst, listenerFdFirst } = layOutDescriptors(
    resources.shmFd,
    resources.inboxFds,
    kind.descriptors,
    own.map(({ fd }) => fd),
  );
  const place: Omit<NodePlace, 'generation'> = {
    index,
    places: resources.inboxFds.length,
    workers: cpus.workers,
    cpu,
    shmFd,
    inboxFdFirst,
    nodeId,
  };
  const listeners = own.map((socket, at) => ({ ...socket, fd: listenerFdFirst + at }));
  const nextProcess = () => places.nextProcess(index);
  return { place, nextProcess, listeners, kindFdFirst, descriptors, kind, holdsBack, native };
}
