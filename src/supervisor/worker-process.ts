/**
 * One worker's place on the node: starts its process, notices its end, starts the next one with backoff.
 *
 *   starting → ready → draining → stopped
 *       ↘        ↓ exit                ↑
 *        waiting (backoff) → starting  | drain or kill while starting or waiting
 *
 * Role: knows processes, not sockets. Up: supervisor.ts. Down: Bun.spawn, backoff.ts.
 */
import type { Subprocess } from 'bun';
import { exitCodes } from '../exit-codes.ts';
import type { Log } from '../log.ts';
import { healthyMs, loopCrashes, RestartBackoff } from './backoff.ts';
import { type BackendName, bootVariable, type SupervisorMessage, type WorkerBoot, type WorkerMessage } from './boot.ts';

export type WorkerState = 'starting' | 'ready' | 'waiting' | 'draining' | 'stopped';

export interface WorkerHooks {
  onReady(worker: WorkerProcess): void;
  /** The process has exited; called before a successor is started. */
  onExit(worker: WorkerProcess): void;
  /** Its first process refuses the config: starting it again would not help. */
  onConfigRefused(worker: WorkerProcess): void;
}

export interface WorkerPlan {
  readonly boot: Omit<WorkerBoot, 'generation'>;
  /** Handed over from number 3 on, in this order. */
  readonly descriptors: readonly number[];
  /** The program that a worker runs. */
  readonly program: string;
}

/** Longer than any sound start; what hangs then is most likely the config's own top-level await. */
const slowStartMs = 15_000;

export class WorkerProcess {
  readonly index: number;
  state: WorkerState = 'stopped';
  backend: BackendName | undefined;
  note: string | undefined;
  /** Starts after the first. */
  restarts = 0;
  readySince: number | undefined;
  readonly #plan: WorkerPlan;
  readonly #hooks: WorkerHooks;
  readonly #log: Log;
  readonly #backoff = new RestartBackoff();
  readonly #stopped = Promise.withResolvers<void>();
  #process: Subprocess | undefined;
  #generation = 0;
  #wasEverReady = false;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(plan: WorkerPlan, hooks: WorkerHooks, log: Log) {
    this.index = plan.boot.index;
    this.#plan = plan;
    this.#hooks = hooks;
    this.#log = log;
  }

  get pid(): number | undefined {
    return this.#process?.pid;
  }

  /** Resolves when it has stopped for good. */
  get stopped(): Promise<void> {
    return this.#stopped.promise;
  }

  isLooping(now: number): boolean {
    return this.#backoff.isLooping(now, this.readySince);
  }

  start(): void {
    this.state = 'starting';
    const boot: WorkerBoot = { ...this.#plan.boot, generation: this.#generation++ };
    try {
      const process_ = Bun.spawn({
        // Nothing is ever fetched from a registry while the gateway runs.
        cmd: [process.execPath, '--no-install', this.#plan.program],
        env: { ...process.env, [bootVariable]: JSON.stringify(boot) },
        stdio: ['ignore', 'inherit', 'inherit', ...this.#plan.descriptors],
        serialization: 'json',
        ipc: (message: WorkerMessage, from) => {
          if (from === this.#process) this.#onMessage(message);
        },
        onExit: (from, code, signal) => {
          if (from === this.#process) this.#onExit(code, signal === null ? `with code ${code}` : `by signal ${signal}`);
        },
      });
      this.#process = process_;
    } catch (error) {
      this.#process = undefined;
      this.#log.error(
        { err: error, worker: this.index },
        'cannot start a worker process; are memory or process limits (ulimit -u) exhausted?',
      );
      this.#restartLater();
      return;
    }
    this.#timer = setTimeout(() => {
      this.#log.warn(
        { worker: this.index },
        `worker ${this.index} is not ready after ${slowStartMs / 1000} s; does the config wait for something (a top-level await)?`,
      );
    }, slowStartMs);
  }

  /** Finish what is in progress, then stop. One that is not ready has nothing to finish. */
  drain(message: SupervisorMessage): void {
    if (this.state === 'ready') {
      this.state = 'draining';
      this.#send(message);
    } else {
      this.kill();
    }
  }

  /** Stop now, for good. */
  kill(): void {
    clearTimeout(this.#timer);
    if (this.state === 'stopped') return;
    const hasProcess = this.state !== 'waiting';
    this.state = hasProcess ? 'draining' : 'stopped';
    if (hasProcess) this.#process?.kill('SIGKILL');
    else this.#stopped.resolve();
  }

  #send(message: SupervisorMessage): void {
    try {
      this.#process?.send(message);
    } catch (error) {
      // It has just exited; onExit follows.
      this.#log.debug({ err: error, worker: this.index }, 'a message to a worker came too late');
    }
  }

  #onMessage(message: WorkerMessage): void {
    switch (message.type) {
      case 'ready':
        if (this.state !== 'starting') return;
        clearTimeout(this.#timer);
        this.state = 'ready';
        this.readySince = Date.now();
        this.backend = message.backend;
        this.note = message.note;
        this.#wasEverReady = true;
        this.#hooks.onReady(this);
        return;
      case 'drained':
        this.#log.debug({ worker: this.index }, 'drained');
        return;
      case 'failed':
        this.#log.error({ worker: this.index }, message.message);
        return;
      default:
        message satisfies never;
    }
  }

  #onExit(code: number | null, how: string): void {
    clearTimeout(this.#timer);
    const isExpected = this.state === 'draining';
    this.#process = undefined;
    this.#hooks.onExit(this);
    if (isExpected) {
      this.state = 'stopped';
      this.readySince = undefined;
      this.#stopped.resolve();
      return;
    }
    if (code === exitCodes.config && !this.#wasEverReady) {
      this.state = 'stopped';
      this.#stopped.resolve();
      this.#hooks.onConfigRefused(this);
      return;
    }
    this.#log.warn(
      { worker: this.index },
      `worker ${this.index} ended ${how}${this.readySince === undefined ? ' before it was ready' : ''}; starting it again`,
    );
    this.#restartLater();
  }

  #restartLater(): void {
    const { delayMs, loopBegins } = this.#backoff.crashed(Date.now(), this.readySince);
    this.readySince = undefined;
    this.backend = undefined;
    this.state = 'waiting';
    if (loopBegins) {
      this.#log.error(
        { worker: this.index },
        `worker ${this.index} has crashed ${loopCrashes} times in a row; restarts are slowed until it runs ${healthyMs / 1000} s. Look at its errors above: an exception while the config is loaded, memory, or a crash in a native module`,
      );
    }
    const restart = () => {
      this.restarts += 1;
      this.start();
    };
    if (delayMs === 0) restart();
    else this.#timer = setTimeout(restart, delayMs);
  }
}
