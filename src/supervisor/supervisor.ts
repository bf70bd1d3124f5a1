/**
 * The supervisor: owns what outlives a worker (sockets, shared memory, eventfds, the admin listener) and the workers themselves.
 * It carries no traffic.
 *
 *   start:   admin → sockets → shared memory → workers → banner when all are ready
 *   reload:  config read anew → next generation on trial (reload.ts) → it serves → the one before drains
 *   upgrade: another supervisor takes over (handover.ts) → all workers here drain → signals are handed on to it
 *   stop:    drain workers → close everything in reverse
 *
 * Up: cli/start.ts, cli/run.ts. Down: reload.ts, reload-queue.ts, handover.ts, generation.ts, listeners.ts, admin-listener.ts, shared-resources.ts.
 */
import { randomBytes } from 'node:crypto';
import { defaults } from '../config/defaults.ts';
import { exitCodes } from '../exit-codes.ts';
import type { Log } from '../log.ts';
import type { StopSignal, SupervisorNative, WorkerKind } from '../process/boot.ts';
import { topicMemoryBytesOf } from '../process/memory.ts';
import type { OperationResult } from '../process/operations.ts';
import type { ReloadAnswer } from './admin.ts';
import { AdminListener } from './admin-listener.ts';
import type { CertificateJudge } from './certificates.ts';
import { ChosenWorker } from './chosen-worker.ts';
import { type DrainPlan, drainWorkers } from './drain.ts';
import type { Generation } from './generation.ts';
import type { Predecessor, Successor } from './handover.ts';
import { keepsAll, Listeners, type OpenListener } from './listeners.ts';
import { logBanner, logListeners, logOutcome } from './node-log.ts';
import { absentWorkers, type NodeState, type Phase, viewOf } from './node-view.ts';
import { Operations } from './operations.ts';
import { Places, placesFor } from './places.ts';
import type { ConfigReader } from './probe.ts';
import { isSameRelease, ownRelease, type Release, releaseText } from './release.ts';
import { cpuPlan, type Node, prepareReplacement, type Replacement, readyPatienceMs, type Setup, setUp } from './reload.ts';
import { type ReloadOutcome, ReloadQueue } from './reload-queue.ts';
import { ServiceManager } from './service-manager.ts';
import type { NodeSettings } from './settings.ts';
import { SharedResources } from './shared-resources.ts';
import { handOver, type Served, takeOver } from './upgrade.ts';
import { Watchdog } from './watchdog.ts';
import type { WorkerProcess } from './worker-process.ts';

/** Whoever asked for the upgrade gets the answer, before the address is left to the successor. */
const adminAnswerMs = 200;
/** Where the address is no longer wanted, the outcome can be read there for a while. */
const adminGraceMs = 3000;
/** Why a reload, or a take-over, is given up. */
const isStopping = 'the node is stopping';
/** How long a successor that is to stop at once may take. */
const successorEndMs = 2000;

export interface SupervisorOptions {
  readonly config: NodeSettings;
  /** What the workers run. */
  readonly kind: WorkerKind;
  readonly native: SupervisorNative;
  readonly log: Log;
  /** Judges certificates before workers are told to load them again. */
  readonly judge: CertificateJudge;
  /** Undefined: what runs here cannot be reloaded. */
  readonly readConfig?: ConfigReader;
  /** What Bun is started with for a supervisor of another release that takes over. */
  readonly successorCommand?: readonly string[];
  /** The supervisor that this one takes over from. */
  readonly predecessor?: Predecessor | undefined;
  /** For tests: how long a generation may take to get ready. */
  readonly readyTimeoutMs?: number;
  /** For tests: what this process says it is. */
  readonly release?: Release;
}

/** A balancer that asks `/readyz` does so every few seconds, and gives up on a node after an answer or two. */
const noticeWithinMs = 30_000;
const noticeSeconds = 2;

export class Supervisor {
  /** When `/readyz` was asked last. */
  #readinessAsked = Number.NEGATIVE_INFINITY;
  /** Resolves with the exit code when everything has stopped. */
  readonly finished: Promise<number>;
  readonly #options: SupervisorOptions;
  readonly #finish: (code: number) => void;
  readonly #giveUp = new AbortController();
  /** Of the reload that runs. */
  #giveUpReload = new AbortController();
  readonly #reloads: ReloadQueue;
  readonly #admin: AdminListener;
  readonly #state: NodeState = this.#readState();
  readonly #operations = new Operations(() => this.#workers.filter(({ serves }) => serves));
  readonly #chosen = new ChosenWorker(() => (this.#mayChoose ? this.#workers : []));
  readonly #service: ServiceManager | undefined;
  readonly #watchdog: Watchdog;
  #phase: Phase = 'starting';
  /** Workers of a predecessor may still do what is for one alone. */
  #awaitsRelease = false;
  #exitCode: number = exitCodes.ok;
  #listeners: Listeners | undefined;
  #resources: SharedResources | undefined;
  #node: Node | undefined;
  /** What serves, or is to. */
  #setup: Setup | undefined;
  /** Generations before it. */
  readonly #draining = new Set<Generation>();
  #successor: Successor | undefined;

  private constructor(options: SupervisorOptions) {
    this.#options = options;
    const { promise, resolve } = Promise.withResolvers<number>();
    this.finished = promise;
    this.#finish = resolve;
    const view = viewOf(this.#state, {
      perform: options.kind.isProgram ? undefined : (operations) => this.#operations.perform(operations),
      reload: options.readConfig === undefined ? undefined : () => this.#answerReload(),
    });
    const notReady = () => {
      this.#readinessAsked = performance.now();
      return view.notReady();
    };
    this.#admin = new AdminListener({ ...view, notReady }, options.log);
    this.#service = ServiceManager.find(process.env, options.native, options.log);
    this.#watchdog = new Watchdog({
      workers: () => this.#node?.workers ?? [],
      beats: (place) => this.#resources?.counter(place, 'heartbeats') ?? 0,
      hangTimeout: () => (this.#setup?.settings ?? options.config).hangTimeout ?? 0,
      log: options.log,
    });
    this.#reloads = new ReloadQueue(
      (request) => this.#reload(request),
      (outcome) => logOutcome(options.log, outcome, this.#workers.length, this.drainSeconds),
      reloadsBefore(options.predecessor),
    );
  }

  /** Open everything and start the workers. Throws OperatingError, with nothing left open. */
  static async start(options: SupervisorOptions): Promise<Supervisor> {
    const supervisor = new Supervisor(options);
    try {
      const { generation } = await supervisor.#open();
      generation.start();
    } catch (error) {
      supervisor.#close();
      throw error;
    }
    if (options.predecessor !== undefined) void supervisor.#takeOver(options.predecessor);
    return supervisor;
  }

  /** Addresses in use, in the order of the config. */
  get listeners(): readonly OpenListener[] {
    return this.#setup?.listeners.open ?? [];
  }

  /** Where the admin listener is; undefined: there is none. */
  get adminLabel(): string | undefined {
    return this.#admin.label;
  }

  /** Another supervisor has taken over: signals are handed on to it, and the log is its own. */
  get hasHandedOver(): boolean {
    return this.#successor !== undefined;
  }

  /** It has not served yet. */
  get isStarting(): boolean {
    return this.#phase === 'starting';
  }

  /** Seconds that a drain may take by the config that is in use. */
  get drainSeconds(): number {
    return this.#drainOptions.timeout;
  }

  /**
   * Seconds that this signal leaves balancers to notice, in which everything is served. SIGINT comes from somebody who waits at a terminal, and to
   * one that has not been ready nobody has sent anything.
   */
  delaySeconds(signal: StopSignal): number {
    if (signal !== 'SIGTERM' || this.#phase !== 'running') return 0;
    const { delay } = this.#drainOptions;
    if (delay !== 'auto') return delay;
    return performance.now() - this.#readinessAsked < noticeWithinMs ? noticeSeconds : 0;
  }

  /** SIGHUP. */
  hangUp(): void {
    if (this.#options.kind.isProgram) for (const worker of this.#workers) worker.tell({ type: 'certificates', listeners: [] });
    else void this.reload();
  }

  /**
   * Serve the config as it is now with new workers, on the same sockets; the old ones finish what is in progress. What is wrong is logged, and
   * then nothing has changed.
   */
  async reload(): Promise<ReloadOutcome> {
    if (this.#successor === undefined) return this.#reloads.request();
    this.#successor.signal('SIGHUP');
    return { kind: 'failed', reason: 'another supervisor has taken over; it was asked' };
  }

  /** Of the reload that runs, if one does: nothing has changed then, unless it is past that. `reason`: in words. */
  giveUpReload(reason: string): void {
    this.#giveUpReload.abort(reason);
  }

  /** Serve on for as long as the config delays it, finish what is in progress, then stop: `finished` resolves with 0, or with what a program has ended with. */
  async drain(signal: StopSignal): Promise<void> {
    if (this.#phase === 'draining' || this.#phase === 'stopped') return;
    const delaySeconds = this.delaySeconds(signal);
    if (this.#phase !== 'handed over') {
      this.#phase = 'draining';
      this.#service?.stopping();
      this.#giveUp.abort(isStopping);
      // One that has just handed over is past stopping.
      await this.#reloads.close();
    }
    if (this.#successor !== undefined) {
      this.#successor.signal(signal);
      return;
    }
    // Balancers ask now and then whether we are ready, and send connections until they have asked.
    if (delaySeconds > 0) await Promise.race([Bun.sleep(delaySeconds * 1000), this.finished]);
    if (this.#isStopped) return;
    this.#setup?.certificates.stop();
    // Workers hold the sockets too, and close them when their queues are empty: from then on new connections are refused.
    this.#listeners?.close();
    this.#listeners = undefined;
    const { kind, log } = this.#options;
    const workers = [...(this.#node?.workers ?? [])];
    await drainWorkers(workers, this.#drainPlan(signal, true), log);
    // A program that has handlers of its own for the signal decides how it ends.
    if (kind.isProgram && this.#phase === 'draining' && this.#exitCode === exitCodes.ok)
      this.#exitCode = this.#workers.find((worker) => worker.exitCode !== 0)?.exitCode ?? exitCodes.ok;
    this.#stopped();
  }

  /** Stop at once, also while draining: `finished` resolves with `exitCode`. Connections are cut. */
  async kill(exitCode: number): Promise<void> {
    if (this.#phase === 'stopped') return;
    const workers = [...(this.#node?.workers ?? [])];
    for (const worker of workers) worker.kill();
    if (this.#successor !== undefined) {
      await this.#killSuccessor(this.#successor, exitCode);
      return;
    }
    this.#phase = 'draining';
    this.#exitCode = exitCode;
    this.#giveUp.abort(isStopping);
    // A process that the kernel cannot end right now (in uninterruptible sleep) must not hold us up.
    const all = [this.#reloads.close(), ...workers.map((worker) => worker.stopped)];
    await Promise.race([Promise.all(all), Bun.sleep(1000)]);
    this.#stopped();
  }

  get #isStopped(): boolean {
    return this.#phase === 'stopped';
  }

  get #drainOptions(): NodeSettings['drain'] {
    return (this.#setup?.settings ?? this.#options.config).drain;
  }

  async #open(): Promise<Setup> {
    const { config, kind, native, judge, log, predecessor } = this.#options;
    const cpus = cpuPlan(native, config);
    // First, so that it tells that the node is starting; and a second gateway on this machine fails here, early.
    if (!this.#awaitsAdmin) await this.#admin.open(config.admin);
    const before = predecessor?.handover.listeners;
    const listeners = Listeners.open(native, config.listen, cpus.workers, before === undefined ? {} : { before, later: true });
    this.#listeners = listeners;
    const count = kind.isProgram ? cpus.workers : placesFor(cpus.workers, native.affinityGet().length);
    // Also without a policy of topics: a reload may bring one, and what is not used costs nothing.
    const stateBytes = kind.isProgram ? 0 : topicMemoryBytesOf(config.topicMemoryBytes ?? defaults.limits.maxTopicMemoryBytes);
    const resources = SharedResources.create(native, count, stateBytes);
    this.#resources = resources;
    const places = new Places(count);
    const nodeId = randomBytes(8).toString('hex');
    const admin = this.#admin;
    const node: Node = { kind, native, log, judge, nodeId, places, resources, admin, hooks: this.#hooks, workers: new Set() };
    this.#node = node;
    const number = (predecessor?.handover.generation ?? 0) + 1;
    const firstPlace = places.take(cpus.workers) ?? 0;
    const holdsBack = predecessor !== undefined;
    this.#watchdog.start();
    const setup = setUp(node, { number, settings: config, cpus, firstPlace, listeners, holdsBack });
    this.#setup = setup;
    if (!holdsBack) resources.setView(number, firstPlace, cpus.workers);
    return setup;
  }

  readonly #hooks = {
    onReleased: (worker: WorkerProcess) => this.#chosen.gone(worker),
    onReady: (worker: WorkerProcess) => {
      this.#chosen.look();
      if (this.#phase === 'starting') {
        this.#runIfReady();
      } else if (worker.restarts > 0) {
        this.#options.log.info({ worker: worker.index }, `worker ${worker.index} serves again`);
      }
    },
    onExit: (worker: WorkerProcess) => {
      this.#chosen.gone(worker);
      this.#operations.workerGone(worker.index);
      const epoch = this.#resources?.workerGone(worker.index) ?? 0;
      for (const other of this.#node?.workers ?? []) if (other !== worker) other.tell({ type: 'worker-gone', worker: worker.index, epoch });
    },
    onPerformed: (id: number, results: readonly OperationResult[]) => this.#operations.answered(id, results),
    onConfigRefused: () => void this.kill(exitCodes.config),
    onCrashLoop: (worker: WorkerProcess, exitCode: number) => {
      const now = performance.now();
      if (!this.#options.kind.isProgram || this.#workers.some((each) => each.wasHealthy(now))) return;
      this.#options.log.error({ worker: worker.index }, `the program never runs for long: giving up, with its exit code ${exitCode}`);
      void this.kill(exitCode);
    },
    onFinished: (worker: WorkerProcess) => {
      this.#options.log.info({ worker: worker.index }, `the program of worker ${worker.index} has ended by itself`);
      if (this.#phase === 'draining') return;
      if (this.#workers.every((each) => each.state === 'stopped')) this.#stopped();
      else this.#runIfReady();
    },
  };

  /** Not before a predecessor has let go, nor on trial, nor once this node ends. */
  get #mayChoose(): boolean {
    return this.#phase === 'running' && !this.#options.kind.isProgram && !this.#awaitsRelease;
  }

  // ---------------------------------------------------------------- reload

  async #reload(request: number): Promise<ReloadOutcome> {
    const { readConfig, log } = this.#options;
    const [node, present] = [this.#node, this.#setup];
    if (readConfig === undefined || node === undefined || present === undefined)
      return { kind: 'failed', reason: 'there is no config here to be loaded again' };
    log.info('reload: reading the config');
    this.#giveUpReload = new AbortController();
    const giveUp = AbortSignal.any([this.#giveUp.signal, this.#giveUpReload.signal]);
    const verdict = await readConfig(giveUp);
    if (verdict.type === 'mistakes') return { kind: 'wrong config', where: verdict.where, mistakes: verdict.mistakes };
    if (verdict.type === 'failed') return { kind: 'failed', reason: verdict.reason };
    const own = this.#options.release ?? ownRelease;
    if (!isSameRelease(own, verdict.release)) {
      log.info(`reload: the disk has ${releaseText(verdict.release)}, and this is ${releaseText(own)}: another supervisor is to take over`);
      return this.#handOver(present, request, giveUp);
    }
    const prepared = await prepareReplacement(node, present, verdict.settings, {
      giveUp,
      readyTimeoutMs: this.#options.readyTimeoutMs ?? readyPatienceMs,
    });
    return 'kind' in prepared ? prepared : this.#commit(node, present, prepared);
  }

  /** From here on there is no way back, and nothing that could fail. */
  #commit(node: Node, present: Setup, { setup, admin }: Replacement): ReloadOutcome {
    const { generation, listeners, settings } = setup;
    node.resources.setView(generation.number, generation.firstPlace, generation.workers.length);
    generation.serve();
    this.#setup = setup;
    this.#listeners = listeners;
    present.certificates.stop();
    admin.commit();
    if (settings.logLevel !== undefined) this.#options.log.level = settings.logLevel;
    if (settings.topicMemoryBytes !== present.settings.topicMemoryBytes)
      this.#options.log.warn('limits.maxTopicMemoryBytes is another one now: it will be used when the gateway is started again');
    const [before, after] = [present.listeners.open, listeners.open];
    present.listeners.closeAllBut(after);
    if (this.#phase === 'starting') this.#running();
    else logListeners(this.#options.log, before, after);
    void this.#retire(present.generation, !keepsAll(before, after));
    this.#chosen.look();
    return { kind: 'reloaded', generation: generation.number, upgraded: false };
  }

  /** Others serve instead. Resolves when all of its workers have stopped. */
  async #retire(generation: Generation, servesQueues: boolean): Promise<void> {
    this.#draining.add(generation);
    await generation.drain(this.#drainPlan('SIGHUP', servesQueues));
    this.#draining.delete(generation);
    this.#options.log.info(`the workers of generation ${generation.number} have stopped`);
    this.#reloads.retry();
  }

  #drainPlan(signal: DrainPlan['signal'], servesQueues: boolean): DrainPlan {
    const { timeout, closeCode } = this.#drainOptions;
    const timeoutOption = this.#options.kind.isProgram ? '--drain-timeout' : 'drain.timeout';
    return { signal, code: closeCode, timeoutSeconds: timeout, timeoutOption, servesQueues };
  }

  // ---------------------------------------------------------------- upgrade

  async #handOver(present: Setup, request: number, giveUp: AbortSignal): Promise<ReloadOutcome> {
    const { successorCommand, log } = this.#options;
    if (successorCommand === undefined) return { kind: 'failed', reason: 'this process cannot hand over to another release: restart it' };
    const served = await handOver(successorCommand, { present, admin: this.#admin.post, request }, giveUp);
    if ('kind' in served) return served;
    this.#successor = served.successor;
    this.#phase = 'handed over';
    this.#service?.leave();
    log.info(`process ${served.successor.pid} serves instead, and this one hands signals on to it`);
    void this.#watch(present, served);
    return { kind: 'reloaded', generation: present.generation.number + 1, upgraded: true };
  }

  /** Finish what is in progress here, and end as the successor ends. */
  async #watch(present: Setup, { successor, kept, wantsAdmin }: Served): Promise<void> {
    present.certificates.stop();
    this.#listeners?.close(kept);
    this.#listeners = undefined;
    setTimeout(
      () => {
        this.#admin.stop();
        successor.leaveAdmin();
      },
      wantsAdmin ? adminAnswerMs : adminGraceMs,
    );
    const drained = this.#retire(present.generation, kept.length < present.listeners.open.length);
    // The chosen one lets go as it begins to drain, when its cleanup is over.
    void this.#chosen.none().then(() => successor.released());
    const exitCode = await successor.exited;
    // One that was told to stop ends with 0 when it has drained; these here are to have the same time. Else nobody serves any more.
    if (exitCode !== exitCodes.ok) for (const worker of this.#node?.workers ?? []) worker.kill();
    await drained;
    await Promise.all([...(this.#node?.workers ?? [])].map((worker) => worker.stopped));
    this.#exitCode = exitCode;
    this.#stopped();
  }

  async #killSuccessor(successor: Successor, exitCode: number): Promise<void> {
    successor.signal(exitCode === exitCodes.interrupted ? 'SIGINT' : 'SIGTERM');
    await Promise.race([successor.exited, Bun.sleep(successorEndMs)]);
    successor.kill();
  }

  /** Its admin listener is at our address, so ours opens when it has left. */
  get #awaitsAdmin(): boolean {
    const { config, predecessor } = this.#options;
    return predecessor?.hasAdminAt(config.admin) ?? false;
  }

  async #takeOver(predecessor: Predecessor): Promise<void> {
    const { config, log, readyTimeoutMs = readyPatienceMs } = this.#options;
    const [setup, resources] = [this.#setup, this.#resources];
    if (setup === undefined || resources === undefined) return;
    predecessor.onGone(() => {
      log.error('the supervisor that watched this one is gone: this one stops');
      void this.kill(exitCodes.failure);
    });
    const problem = await takeOver(predecessor, setup, { log, readyTimeoutMs, giveUp: this.#giveUp.signal });
    if (problem !== undefined) {
      const { reason, exitCode = exitCodes.failure } = problem;
      predecessor.failed(reason, exitCode);
      return this.kill(exitCode);
    }
    const { generation } = setup;
    resources.setView(generation.number, generation.firstPlace, generation.workers.length);
    generation.serve();
    this.#running();
    const awaitsAdmin = this.#awaitsAdmin;
    await predecessor.serving(awaitsAdmin);
    if (awaitsAdmin) await this.#admin.openPatiently(config.admin, predecessor.handover.admin?.port ?? undefined);
  }

  // ---------------------------------------------------------------- state

  get #workers(): readonly WorkerProcess[] {
    return this.#setup?.generation.workers ?? [];
  }

  /** The last that was awaited is ready, or has ended by itself: a program may leave a port to the first process that gets it. */
  #runIfReady(): void {
    // One that takes over serves when it is told to.
    const isAsked = this.#options.predecessor === undefined;
    if (this.#phase === 'starting' && isAsked && absentWorkers(this.#state).length === 0) this.#running();
  }

  #running(): void {
    this.#phase = 'running';
    this.#awaitsRelease = this.#options.predecessor !== undefined;
    this.#chosen.look();
    void this.#options.predecessor?.released().then(() => {
      this.#awaitsRelease = false;
      this.#chosen.look();
    });
    const { log, kind } = this.#options;
    const program = this.#workers.find(({ where }) => where !== undefined)?.where ?? '';
    const places = kind.isProgram ? [program] : this.listeners.map(({ label }) => label);
    logBanner(log, places, this.#workers, this.#admin.label);
    this.#service?.ready();
    this.#admin.prepareAnswers().catch((error: unknown) => log.error({ err: error }, 'the admin listener cannot answer'));
  }

  #stopped(): void {
    if (this.#phase === 'stopped') return;
    this.#phase = 'stopped';
    this.#close();
    this.#finish(this.#exitCode);
  }

  #close(): void {
    this.#watchdog.stop();
    this.#setup?.certificates.stop();
    this.#admin.stop();
    const isHeldBack = this.#options.predecessor !== undefined && this.#phase === 'starting';
    this.#listeners?.close(isHeldBack ? this.#options.predecessor?.handover.listeners : []);
    this.#listeners = undefined;
    this.#resources?.close();
    this.#resources = undefined;
  }

  async #answerReload(): Promise<ReloadAnswer> {
    const outcome = await this.reload();
    return outcome.kind === 'postponed' ? { kind: 'failed', reason: `postponed: ${outcome.reason}` } : outcome;
  }

  /** What is read of it is as it is then. */
  #readState(): NodeState {
    const supervisor = this;
    return {
      startedAtMs: Date.now(),
      get isProgram() {
        return supervisor.#options.kind.isProgram;
      },
      get phase() {
        return supervisor.#phase;
      },
      get settings() {
        return supervisor.#setup?.settings ?? supervisor.#options.config;
      },
      get generation() {
        return supervisor.#setup?.generation;
      },
      get draining() {
        return [...supervisor.#draining];
      },
      get places() {
        return supervisor.#node?.places;
      },
      get workers() {
        return supervisor.#node?.workers ?? [];
      },
      get reload() {
        return supervisor.#reloads.health;
      },
      get reloads() {
        return supervisor.#reloads.counts;
      },
      counter: (place, field) => supervisor.#resources?.counter(place, field) ?? 0,
      topicMemory: () => supervisor.#resources?.topicMemory(),
    };
  }
}

/** What is told of reloads in a supervisor that has taken over. */
function reloadsBefore(predecessor: Predecessor | undefined) {
  if (predecessor === undefined) return undefined;
  const { request, generation } = predecessor.handover;
  const at = new Date().toISOString();
  return { requests: request, last: { kind: 'reloaded', generation: generation + 1, upgraded: true, request, at } } as const;
}
