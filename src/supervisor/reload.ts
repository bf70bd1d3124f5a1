/**
 * The steps of a reload, up to the point from which there is no way back.
 *
 *   settings → places → admin address → sockets → workers on trial → all are ready → new addresses listen → to be committed
 *          a step that fails undoes those before it, and nothing has changed
 *
 * Role: prepares; supervisor.ts commits. Sockets of addresses that stay are used by both generations. Those that are added take no connections
 * before all workers are ready, so that closing them again cuts nobody off. Down: generation.ts, listeners.ts, admin-listener.ts.
 */
import { exitCodes } from '../exit-codes.ts';
import type { Log } from '../log.ts';
import { OperatingError } from '../operating-error.ts';
import type { SupervisorNative, WorkerKind } from '../process/boot.ts';
import { type CpuPlan, cgroupCpuQuota, planCpus } from '../process/cpus.ts';
import type { AdminChange, AdminListener } from './admin-listener.ts';
import { type CertificateJudge, CertificateReloads } from './certificates.ts';
import { Generation, type TrialProblem } from './generation.ts';
import { Listeners } from './listeners.ts';
import type { Places } from './places.ts';
import type { ReloadOutcome } from './reload-queue.ts';
import type { NodeSettings } from './settings.ts';
import type { SharedResources } from './shared-resources.ts';
import type { WorkerHooks, WorkerProcess } from './worker-process.ts';

/** What outlives a generation of workers. */
export interface Node {
  readonly kind: WorkerKind;
  readonly native: SupervisorNative;
  readonly log: Log;
  readonly judge: CertificateJudge;
  readonly nodeId: string;
  readonly places: Places;
  readonly resources: SharedResources;
  readonly admin: AdminListener;
  readonly hooks: Omit<WorkerHooks, 'onTrialFailed'>;
  /** Of every generation; those that have stopped for good are not among them. */
  readonly workers: Set<WorkerProcess>;
}

/** A generation with what it serves. */
export interface Setup {
  readonly settings: NodeSettings;
  readonly generation: Generation;
  readonly listeners: Listeners;
  readonly certificates: CertificateReloads;
}

/** Longer than any sound config takes until its workers are ready. */
export const readyPatienceMs = 60_000;

export function cpuPlan(native: SupervisorNative, { workers, affinity }: NodeSettings): CpuPlan {
  return planCpus(workers, affinity, native.affinityGet(), cgroupCpuQuota());
}

interface SetupPlan {
  readonly number: number;
  readonly settings: NodeSettings;
  readonly cpus: CpuPlan;
  readonly firstPlace: number;
  readonly listeners: Listeners;
  readonly holdsBack: boolean;
}

/** Workers that are yet to be started. Their places come free as they stop. */
export function setUp(node: Node, plan: SetupPlan): Setup {
  const { settings, listeners } = plan;
  const sockets = (worker: number) => listeners.of(worker);
  const generation = new Generation({ ...node, ...plan, sockets }, node.hooks, node.log);
  for (const worker of generation.workers) {
    node.workers.add(worker);
    void worker.stopped.then(() => {
      node.workers.delete(worker);
      node.places.free(worker.index, worker.restarts);
    });
  }
  // Here and not later: files that change from now on are seen.
  const certificates = new CertificateReloads({
    listeners: listeners.open.map(({ index, label }) => ({ index, label, tls: settings.listen[index]?.tls })),
    judge: node.judge,
    tell: (indexes) => {
      for (const worker of generation.workers) worker.tell({ type: 'certificates', listeners: indexes });
    },
    log: node.log,
  });
  return { settings, generation, listeners, certificates };
}

/** The next setup, with workers that are ready and hold back. */
export interface Replacement {
  readonly setup: Setup;
  readonly admin: AdminChange;
}

/** ret: what to commit, or why not; then nothing has changed */
export async function prepareReplacement(
  node: Node,
  present: Setup,
  settings: NodeSettings,
  options: { readonly giveUp: AbortSignal; readonly readyTimeoutMs?: number },
): Promise<Replacement | ReloadOutcome> {
  const { giveUp, readyTimeoutMs = readyPatienceMs } = options;
  const cpus = cpuPlan(node.native, settings);
  const firstPlace = node.places.take(cpus.workers);
  if (firstPlace === undefined) return withoutPlaces(node.places, present.generation, cpus.workers);
  // In reverse, when a step fails.
  const undo: Undo[] = [];
  let setup: Setup | undefined;
  try {
    undo.push(() => {
      if (setup === undefined) for (let place = 0; place < cpus.workers; place++) node.places.free(firstPlace + place, 0);
    });
    const admin = await node.admin.prepare(settings.admin);
    undo.push(() => admin.abandon());
    const before = present.listeners.open;
    const listeners = Listeners.open(node.native, settings.listen, cpus.workers, { before, later: true });
    undo.push(() => listeners.closeAllBut(before));
    const number = present.generation.number + 1;
    setup = setUp(node, { number, settings, cpus, firstPlace, listeners, holdsBack: true });
    const { generation, certificates } = setup;
    undo.push(() => {
      certificates.stop();
      generation.kill();
      return generation.stopped;
    });
    generation.start();
    const problem = await generation.untilReady(readyTimeoutMs, giveUp);
    if (problem !== undefined || giveUp.aborted) {
      await undoAll(undo);
      return outcomeOf(problem ?? { reason: String(giveUp.reason), exitCode: undefined });
    }
    for (const error of listeners.begin(before))
      node.log.error(`${error.message}; connections come through the other sockets of this address`);
    return { setup, admin };
  } catch (error) {
    await undoAll(undo);
    if (error instanceof OperatingError) return { kind: 'failed', reason: error.message };
    throw error;
  }
}

/** Of workers that will not serve. */
export function outcomeOf({ reason, exitCode }: TrialProblem): ReloadOutcome {
  return exitCode === exitCodes.config ? { kind: 'wrong config', where: '', mistakes: [reason] } : { kind: 'failed', reason };
}

/** Awaited, when it gives a promise. */
type Undo = () => unknown;

async function undoAll(undo: readonly Undo[]): Promise<void> {
  for (const step of undo.toReversed()) await step();
}

function withoutPlaces(places: Places, { firstPlace, workers, number }: Generation, wanted: number): ReloadOutcome {
  const most = places.longestBeside(firstPlace, workers.length);
  if (wanted > most) {
    return {
      kind: 'failed',
      reason: `${wanted} workers do not fit beside the ${workers.length} that serve: the node was started with ${places.count} places, which leaves ${most} in a row; set workers to at most ${most}, or restart the gateway`,
    };
  }
  return {
    kind: 'postponed',
    reason: `workers of older generations than ${number} are still finishing what is in progress, and there is no room for ${wanted} more; tried again as soon as there is`,
  };
}
