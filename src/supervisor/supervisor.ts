/**
 * The supervisor: owns what outlives a worker (sockets, shared memory, eventfds, the admin listener) and the workers themselves.
 * It carries no traffic.
 *
 *   start: admin → sockets → shared memory → workers → banner when all are ready
 *   stop:  drain workers → close everything in reverse
 *
 * Up: cli/start.ts. Down: listeners.ts, worker-process.ts, admin.ts, drain.ts.
 */
import type { SharedStats } from '../../ffi/bindings.ts';
import { statsLayout } from '../../ffi/layout.ts';
import type { ResolvedConfig } from '../config/resolve.ts';
import { exitCodes } from '../exit-codes.ts';
import type { Log } from '../log.ts';
import { errorCode, OperatingError } from '../operating-error.ts';
import { version } from '../version.ts';
import { type AdminServer, type AdminView, serveAdmin, type WorkerHealth } from './admin.ts';
import { layOutDescriptors, type SupervisorNative } from './boot.ts';
import { cgroupCpuQuota, planCpus } from './cpus.ts';
import { drainWorkers } from './drain.ts';
import { Listeners, type OpenListener } from './listeners.ts';
import { createMetrics, type MetricsSource, type StatsField } from './metrics.ts';
import { WorkerProcess } from './worker-process.ts';

export interface SupervisorOptions {
  readonly config: ResolvedConfig;
  /** Absolute; workers load it again. */
  readonly configPath: string;
  readonly native: SupervisorNative;
  readonly log: Log;
  /** The program that workers run. */
  readonly workerProgram: string;
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

  /** Finish what is in progress, then stop: `finished` resolves with 0. */
  async drain(): Promise<void> {
    if (this.#phase === 'draining' || this.#phase === 'stopped') return;
    this.#phase = 'draining';
    // Workers hold the sockets too, and close them when their queues are empty: from then on new connections are refused.
    this.#listeners?.close();
    this.#listeners = undefined;
    await drainWorkers(this.#workers, this.#options.config.drain.timeout, this.#options.log);
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
    const { config, native } = this.#options;
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
      const { descriptors, shmFd, inboxFdFirst, listenerFdFirst } = layOutDescriptors(
        resources.shmFd,
        resources.inboxFds,
        own.map((listener) => listener.fd),
      );
      const boot = {
        index,
        count: plan.workers,
        cpu,
        configPath: this.#options.configPath,
        shmFd,
        inboxFdFirst,
        listeners: own.map((listener, place) => ({ ...listener, fd: listenerFdFirst + place })),
      };
      return new WorkerProcess({ boot, descriptors, program: this.#options.workerProgram }, this.#hooks, this.#options.log);
    });
  }

  readonly #hooks = {
    onReady: (worker: WorkerProcess) => {
      if (this.#phase === 'starting') {
        if (this.#workers.every((each) => each.state === 'ready')) this.#running();
      } else if (worker.restarts > 0) {
        this.#options.log.info({ worker: worker.index }, `worker ${worker.index} serves again`);
      }
    },
    onExit: (worker: WorkerProcess) => this.#resources?.workerGone(worker.index),
    onConfigRefused: () => void this.kill(exitCodes.config),
  };

  #running(): void {
    this.#phase = 'running';
    const { log } = this.#options;
    const backends = [...new Set(this.#workers.map((worker) => worker.backend))].join(' and ');
    const count = this.#workers.length === 1 ? '1 worker' : `${this.#workers.length} workers`;
    for (const listener of this.listeners) {
      log.info(
        `ringway ${version}: listening on ${listener.label} (${count}, ${backends})${this.#admin ? `, admin ${this.#admin.label}` : ''}`,
      );
    }
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
    this.#admin?.stop();
    this.#listeners?.close();
    this.#listeners = undefined;
    this.#resources?.close();
    this.#resources = undefined;
  }

  #notReady(): string | undefined {
    if (this.#phase === 'draining' || this.#phase === 'stopped') return 'draining';
    const absent = this.#workers.filter((worker) => worker.state !== 'ready');
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

const fieldIndex = new Map<StatsField, number>(
  statsLayout.fields.map((field) => [field.name, field.offset / BigUint64Array.BYTES_PER_ELEMENT]),
);

/** Shared memory and the eventfds by which workers wake each other. */
class SharedResources {
  readonly shmFd: number;
  readonly inboxFds: readonly number[];
  readonly #native: SupervisorNative;
  readonly #shared: SharedStats;
  readonly #counters: readonly BigUint64Array[];

  private constructor(native: SupervisorNative, shmFd: number, shared: SharedStats, inboxFds: readonly number[]) {
    this.#native = native;
    this.shmFd = shmFd;
    this.inboxFds = inboxFds;
    this.#shared = shared;
    this.#counters = inboxFds.map((_, worker) => shared.read(worker));
  }

  static create(native: SupervisorNative, workers: number): SharedResources {
    const fds: number[] = [];
    try {
      const shmFd = native.shmCreate(workers, 0);
      fds.push(shmFd);
      for (let worker = 0; worker < workers; worker++) fds.push(native.eventfdCreate());
      return new SharedResources(native, shmFd, native.shmMap(shmFd), fds.slice(1));
    } catch (error) {
      for (const fd of fds) native.fdClose(fd);
      const reason = error instanceof Error ? error.message : String(error);
      throw new OperatingError(
        `cannot set up the memory that workers share: ${reason} (${errorCode(error)}); are memory or descriptors (ulimit -n) exhausted?`,
        { cause: error },
      );
    }
  }

  counter(worker: number, field: StatsField): number {
    const index = fieldIndex.get(field);
    return index === undefined ? 0 : Number(this.#counters[worker]?.[index] ?? 0n);
  }

  workerGone(worker: number): void {
    this.#shared.workerGone(worker);
  }

  /** Nothing may be read afterwards. */
  close(): void {
    this.#shared.unmap();
    for (const fd of [this.shmFd, ...this.inboxFds]) this.#native.fdClose(fd);
  }
}
