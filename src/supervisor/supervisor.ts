/**
 * The supervisor: owns what outlives a worker (sockets, shared memory, eventfds, the admin listener) and the workers themselves.
 * It carries no traffic.
 *
 *   start: admin → sockets → shared memory → workers → banner when all are ready
 *   stop:  drain workers → close everything in reverse
 *
 * Up: cli/start.ts, cli/run.ts. Down: listeners.ts, worker-process.ts, admin.ts, drain.ts, certificates.ts, shared-resources.ts.
 */
import type { ResolvedConfig } from '../config/resolve.ts';
import { exitCodes } from '../exit-codes.ts';
import type { Log } from '../log.ts';
import { version } from '../version.ts';
import { type AdminServer, type AdminView, serveAdmin, type WorkerHealth } from './admin.ts';
import { layOutDescriptors, type SupervisorNative, type WorkerKind } from './boot.ts';
import { type CertificateJudge, CertificateReloads } from './certificates.ts';
import { cgroupCpuQuota, planCpus } from './cpus.ts';
import { drainWorkers, type StopSignal } from './drain.ts';
import { Listeners, type OpenListener } from './listeners.ts';
import { createMetrics, type MetricsSource } from './metrics.ts';
import { SharedResources } from './shared-resources.ts';
import { WorkerProcess } from './worker-process.ts';

/** What a node is set up with. */
export type NodeSettings = Pick<ResolvedConfig, 'listen' | 'admin' | 'workers' | 'affinity' | 'drain'>;

export interface SupervisorOptions {
  readonly config: NodeSettings;
  /** What the workers run. */
  readonly kind: WorkerKind;
  readonly native: SupervisorNative;
  readonly log: Log;
  /** Judges certificates before workers are told to load them again. */
  readonly judge: CertificateJudge;
}

type Phase = 'starting' | 'running' | 'draining' | 'stopped';

export class Supervisor {
  /** Resolves with the exit code when everything has stopped. */
  readonly finished: Promise<number>;
  readonly #options: SupervisorOptions;
  readonly #finish: (code: number) => void;
  readonly #startedAtMs = Date.now();
  #phase: Phase = 'starting';
  #exitCode: number = exitCodes.ok;
  #workers: WorkerProcess[] = [];
  #admin: AdminServer | undefined;
  #listeners: Listeners | undefined;
  #resources: SharedResources | undefined;
  #certificates: CertificateReloads | undefined;

  private constructor(options: SupervisorOptions) {
    this.#options = options;
    const { promise, resolve } = Promise.withResolvers<number>();
    this.finished = promise;
    this.#finish = resolve;
  }

  /** Open everything and start the workers. Throws OperatingError, with nothing left open. */
  static async start(options: SupervisorOptions): Promise<Supervisor> {
    const supervisor = new Supervisor(options);
    try {
      await supervisor.#open();
    } catch (error) {
      supervisor.#close();
      throw error;
    }
    for (const worker of supervisor.#workers) worker.start();
    return supervisor;
  }

  /** Addresses in use, in the order of the config. */
  get listeners(): readonly OpenListener[] {
    return this.#listeners?.open ?? [];
  }

  /** Where the admin listener is; undefined: there is none. */
  get adminLabel(): string | undefined {
    return this.#admin?.label;
  }

  /** Load the certificates of every listener again. What is wrong is logged, and the old ones stay in use. */
  reloadCertificates(): void {
    if (this.#options.kind.isProgram) this.#tellCertificates([]);
    else this.#certificates?.reload();
  }

  /** Finish what is in progress, then stop: `finished` resolves with 0, or with what a program has ended with. */
  async drain(signal: StopSignal): Promise<void> {
    if (this.#phase === 'draining' || this.#phase === 'stopped') return;
    this.#phase = 'draining';
    this.#certificates?.stop();
    // Workers hold the sockets too, and close them when their queues are empty: from then on new connections are refused.
    this.#listeners?.close();
    this.#listeners = undefined;
    const { config, kind, log } = this.#options;
    const timeoutOption = kind.isProgram ? '--drain-timeout' : 'drain.timeout';
    await drainWorkers(this.#workers, { signal, code: kind.drainCode, timeoutSeconds: config.drain.timeout, timeoutOption }, log);
    // A program that has handlers of its own for the signal decides how it ends.
    if (kind.isProgram && this.#phase === 'draining' && this.#exitCode === exitCodes.ok)
      this.#exitCode = this.#workers.find((worker) => worker.exitCode !== 0)?.exitCode ?? exitCodes.ok;
    this.#stopped();
  }

  /** Stop at once, also while draining: `finished` resolves with `exitCode`. Connections are cut. */
  async kill(exitCode: number): Promise<void> {
    if (this.#phase === 'stopped') return;
    this.#phase = 'draining';
    this.#exitCode = exitCode;
    for (const worker of this.#workers) worker.kill();
    // A process that the kernel cannot end right now (in uninterruptible sleep) must not hold us up.
    await Promise.race([Promise.all(this.#workers.map((worker) => worker.stopped)), Bun.sleep(1000)]);
    this.#stopped();
  }

  async #open(): Promise<void> {
    const { config, kind, native } = this.#options;
    const plan = planCpus(config.workers, config.affinity, native.affinityGet(), cgroupCpuQuota());
    const source = this.#metricsSource(plan.workers);
    // First, so that it tells that the node is starting; and a second gateway on this machine fails here, early.
    if (config.admin !== false) this.#admin = await serveAdmin(this.#adminView(source), config.admin);
    const listeners = Listeners.open(native, config.listen, plan.workers);
    this.#listeners = listeners;
    const resources = SharedResources.create(native, plan.workers);
    this.#resources = resources;
    this.#workers = plan.cpus.map((cpu, index) => {
      const own = listeners.of(index);
      const { descriptors, shmFd, inboxFdFirst, kindFdFirst, listenerFdFirst } = layOutDescriptors(
        resources.shmFd,
        resources.inboxFds,
        kind.descriptors,
        own.map((listener) => listener.fd),
      );
      const accepts = own.map((listener, place) => ({ ...listener, fd: listenerFdFirst + place }));
      const boot = { index, count: plan.workers, cpu, shmFd, inboxFdFirst, ...kind.boot(accepts, kindFdFirst) };
      return new WorkerProcess({ boot, descriptors, kind }, this.#hooks, this.#options.log);
    });
    this.#certificates = new CertificateReloads({
      listeners: listeners.open.map(({ index, label }) => ({ index, label, tls: config.listen[index]?.tls })),
      judge: this.#options.judge,
      tell: (indexes) => this.#tellCertificates(indexes),
      log: this.#options.log,
    });
  }

  readonly #hooks = {
    onReady: (worker: WorkerProcess) => {
      if (this.#phase === 'starting') {
        this.#runIfReady();
      } else if (worker.restarts > 0) {
        this.#options.log.info({ worker: worker.index }, `worker ${worker.index} serves again`);
      }
    },
    onExit: (worker: WorkerProcess) => this.#resources?.workerGone(worker.index),
    onConfigRefused: () => void this.kill(exitCodes.config),
    onCrashLoop: (worker: WorkerProcess, exitCode: number) => {
      const now = Date.now();
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

  #tellCertificates(listeners: readonly number[]): void {
    for (const worker of this.#workers) worker.tell({ type: 'certificates', listeners });
  }

  /** The last that was awaited is ready, or has ended by itself: a program may leave a port to the first process that gets it. */
  #runIfReady(): void {
    if (this.#phase === 'starting' && this.#absent().length === 0) this.#running();
  }

  /** Workers that are to serve, and do not. */
  #absent(): readonly WorkerProcess[] {
    return this.#workers.filter(({ state }) => state !== 'ready' && !(this.#options.kind.isProgram && state === 'stopped'));
  }

  #running(): void {
    this.#phase = 'running';
    const { log } = this.#options;
    const backends = [...new Set(this.#workers.flatMap((worker) => worker.backend ?? []))].join(' and ');
    const serving = this.#workers.filter((worker) => worker.state === 'ready').length;
    const count = serving === 1 ? '1 worker' : `${serving} workers`;
    const places = this.#options.kind.isProgram
      ? [this.#workers.find(({ where }) => where !== undefined)?.where ?? '']
      : this.listeners.map((listener) => listener.label);
    for (const place of places)
      log.info(`ringway ${version}: listening on ${place} (${count}, ${backends})${this.#admin ? `, admin ${this.#admin.label}` : ''}`);
    const notes = this.#workers.flatMap((worker) => worker.note ?? []);
    for (const note of new Set(notes)) log.warn(note);
  }

  #stopped(): void {
    if (this.#phase === 'stopped') return;
    this.#phase = 'stopped';
    this.#close();
    this.#finish(this.#exitCode);
  }

  #close(): void {
    this.#certificates?.stop();
    this.#admin?.stop();
    this.#listeners?.close();
    this.#listeners = undefined;
    this.#resources?.close();
    this.#resources = undefined;
  }

  #notReady(): string | undefined {
    if (this.#phase === 'draining' || this.#phase === 'stopped') return 'draining';
    const absent = this.#absent();
    if (this.#workers.length > 0 && absent.length === 0) return undefined;
    const states = absent.map((worker) => `worker ${worker.index} is ${worker.state}`).join(', ');
    return this.#phase === 'starting' ? `starting: ${states}` : states;
  }

  #adminView(source: MetricsSource): AdminView {
    return {
      metrics: createMetrics(source),
      notReady: () => this.#notReady(),
      health: () => {
        const now = Date.now();
        const isDegraded = this.#workers.some((worker) => worker.isLooping(now));
        return { status: isDegraded ? 'degraded' : 'ok', workers: this.#workers.map((worker) => workerHealth(worker, now)), version };
      },
    };
  }

  #metricsSource(workers: number): MetricsSource {
    const supervisor = this;
    return {
      startedAtMs: this.#startedAtMs,
      version,
      get workers() {
        return Array.from({ length: workers }, (_, index) => {
          const worker = supervisor.#workers[index];
          return { isReady: worker?.state === 'ready', restarts: worker?.restarts ?? 0 };
        });
      },
      read: (worker, field) => supervisor.#resources?.counter(worker, field) ?? 0,
    };
  }
}

function workerHealth(worker: WorkerProcess, now: number): WorkerHealth {
  return {
    index: worker.index,
    pid: worker.pid ?? null,
    state: worker.state,
    backend: worker.backend ?? null,
    ...(worker.note === undefined ? {} : { note: worker.note }),
    restarts: worker.restarts,
    uptimeSeconds: worker.readySince === undefined ? 0 : Math.round((now - worker.readySince) / 1000),
  };
}
