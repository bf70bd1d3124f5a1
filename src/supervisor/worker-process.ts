/**
 * One worker's place on the node: starts its process, notices its end, starts the next one with backoff.
 *
 *   starting → ready → draining → stopped
 *       ↘        ↓ exit                ↑
 *        waiting (backoff) → starting  | drain or kill while starting or waiting; end of one on trial
 *
 * One that holds back is on trial: it gets ready without accepting, while others serve, until it is told to serve. When it ends before, no
 * other is started.
 *
 * Role: knows processes, not sockets. Up: supervisor.ts. Down: Bun.spawn, backoff.ts.
 */
import { constants } from 'node:os';
import type { Subprocess } from 'bun';
import type { BackendName } from '../core/options.ts';
import { exitCodes } from '../exit-codes.ts';
import type { Log } from '../log.ts';
import { outputTo, relay } from '../output.ts';
import {
  bootVariable,
  type DrainMessage,
  type NodePlace,
  type SupervisorMessage,
  type WorkerKind,
  type WorkerListener,
  type WorkerMessage,
} from '../process/boot.ts';
import { type ChildOutput, openChildOutput, type PairNative } from '../process/child-output.ts';
import type { OperationResult } from '../process/operations.ts';
import { healthyMs, loopCrashes, RestartBackoff } from './backoff.ts';

export type WorkerState = 'starting' | 'ready' | 'waiting' | 'draining' | 'stopped';

export interface WorkerHooks {
  onReady(worker: WorkerProcess): void;
  /** The process has exited; called before a successor is started. */
  onExit(worker: WorkerProcess): void;
  /** Its first process refuses the config: starting it again would not help. */
  onConfigRefused(worker: WorkerProcess): void;
  /** It was on trial, and has ended. `reason`: in a sentence. `exitCode`: as a shell shows it. */
  onTrialFailed(worker: WorkerProcess, reason: string, exitCode: number): void;
  /** It has crashed often in a short time. `exitCode`: of its last process, as a shell shows it. */
  onCrashLoop(worker: WorkerProcess, exitCode: number): void;
  /** It does not do any more what must be done once a node. */
  onReleased?(worker: WorkerProcess): void;
  /** It has answered a `perform`. */
  onPerformed?(id: number, results: readonly OperationResult[]): void;
  /** A program has ended by itself and with success; no other is started. */
  onFinished(worker: WorkerProcess): void;
}

export interface WorkerPlan {
  readonly place: Omit<NodePlace, 'generation'>;
  /** Number of the next process at its place. */
  nextProcess(): number;
  /** As it finds them. */
  readonly listeners: readonly WorkerListener[];
  /** Where it finds the descriptors of its kind. */
  readonly kindFdFirst: number;
  /** Handed over from number 3 on, in this order. */
  readonly descriptors: readonly number[];
  readonly kind: WorkerKind;
  /** Begin on trial. */
  readonly holdsBack: boolean;
  readonly native: PairNative;
}

/** Longer than any sound start; what hangs then is most likely the config's own top-level await. */
const slowStartMs = 15_000;

/** As a shell shows it: 128 and the signal's number for a process that a signal has ended. */
function shellCode(code: number | null, signal: SignalName | null): number {
  // Real-time signals have no name there.
  return code ?? 128 + (signal === null ? 0 : (constants.signals[signal] ?? 0));
}

type SignalName = keyof typeof constants.signals;

export class WorkerProcess {
  readonly index: number;
  state: WorkerState = 'stopped';
  backend: BackendName | undefined;
  note: string | undefined;
  /** A program's first address, for people. */
  where: string | undefined;
  /** Of its last process once it has stopped by itself; 0 when we have cut it off. */
  exitCode: number = exitCodes.ok;
  /** Starts after the first. */
  restarts = 0;
  /** On the monotonic clock, in milliseconds. */
  readySince: number | undefined;
  /** Since its last heartbeat, as the watchdog has seen it. */
  silentMs = 0;
  /** It runs, and does not go on. */
  isHung = false;
  readonly #plan: WorkerPlan;
  readonly #hooks: WorkerHooks;
  readonly #log: Log;
  readonly #backoff = new RestartBackoff();
  readonly #stopped = Promise.withResolvers<void>();
  #process: Subprocess | undefined;
  #wasEverReady = false;
  #holdsBack: boolean;
  /** What its process has said before it ended. */
  #lastWords: string | undefined;
  #wasHealthy = false;
  #startedAt = 0;
  #isCutOff = false;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(plan: WorkerPlan, hooks: WorkerHooks, log: Log) {
    this.index = plan.place.index;
    this.#plan = plan;
    this.#holdsBack = plan.holdsBack;
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
    return this.#backoff.isLooping(now, this.#since);
  }

  /** Whether a process of this worker has ever run long enough to count as sound. */
  wasHealthy(now: number): boolean {
    return this.#wasHealthy || (this.#since !== undefined && now - this.#since >= healthyMs);
  }

  /** From when on it counts as running: a program need not listen. */
  get #since(): number | undefined {
    if (!this.#plan.kind.isProgram) return this.readySince;
    return this.#process === undefined ? undefined : this.#startedAt;
  }

  start(): void {
    this.state = 'starting';
    const { kind, place, listeners, kindFdFirst, native } = this.#plan;
    const boot = { ...place, generation: this.#plan.nextProcess(), ...kind.boot(listeners, kindFdFirst, this.#holdsBack) };
    this.#startedAt = performance.now();
    this.#lastWords = undefined;
    const outputs: ChildOutput[] = [];
    try {
      // A worker must not wait for whoever reads the log, whatever its handlers write and by which way. A program's output is its own.
      if (!kind.isProgram) for (let count = 0; count < 2; count++) outputs.push(openChildOutput(native));
      this.#process = Bun.spawn({
        // Nothing is ever fetched from a registry while the gateway runs.
        cmd: [process.execPath, '--no-install', ...kind.args],
        // A signal of the terminal goes to its whole process group; a program is to get each once, from us.
        detached: kind.isProgram,
        env: { ...process.env, [bootVariable]: JSON.stringify(boot) },
        stdio: ['ignore', outputs[0]?.childFd ?? 'inherit', outputs[1]?.childFd ?? 'inherit', ...this.#plan.descriptors],
        serialization: 'json',
        ipc: (message: WorkerMessage, from) => {
          if (from === this.#process) this.#onMessage(message);
        },
        onExit: (from, code, signal) => {
          // Bun gives the name, whatever its types say.
          if (from === this.#process) this.#onExit(code, signal as unknown as SignalName | null);
        },
      });
    } catch (error) {
      this.#process = undefined;
      this.#log.error(
        { err: error, worker: this.index },
        'cannot start a worker process; are memory or process limits (ulimit -u) exhausted?',
      );
      if (this.#isOnTrial) this.#failTrial('a worker process cannot be started', exitCodes.failure);
      else this.#restartLater(undefined, exitCodes.failure);
      return;
    } finally {
      for (const output of outputs) output.handedOver();
    }
    outputs.forEach(({ bytes }, at) => void relay(bytes, outputTo(at === 0 ? 1 : 2)));
    this.#timer = setTimeout(() => {
      this.#log.warn(
        { worker: this.index },
        kind.isProgram
          ? `the program of worker ${this.index} does not listen after ${slowStartMs / 1000} s`
          : `worker ${this.index} is not ready after ${slowStartMs / 1000} s; does the config wait for something (a top-level await)?`,
      );
    }, slowStartMs);
  }

  /** The trial is over: accept connections. */
  serve(): void {
    if (!this.#holdsBack) return;
    this.#holdsBack = false;
    this.tell({ type: 'serve' });
  }

  /** Finish what is in progress, then stop; again: with other times. One that is not ready has nothing to finish, unless it is a program. */
  drain(message: DrainMessage): void {
    if (this.state === 'ready' || this.state === 'draining' || (this.state === 'starting' && this.#plan.kind.isProgram)) {
      clearTimeout(this.#timer);
      this.state = 'draining';
      this.#send(message);
    } else {
      this.kill();
    }
  }

  /** Tell it, if it runs. A process that is not ready does what it is told when it is. */
  tell(message: SupervisorMessage): void {
    if (this.state === 'ready' || this.state === 'starting' || this.state === 'draining') this.#send(message);
  }

  /** Kill its process, so that another one takes its place. */
  replace(): void {
    this.#process?.kill('SIGKILL');
  }

  /** It does what a worker is for. */
  get serves(): boolean {
    return this.state === 'ready' && !this.isHung;
  }

  /** Stop now, for good. */
  kill(): void {
    clearTimeout(this.#timer);
    if (this.state === 'stopped') return;
    this.#isCutOff = true;
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
        this.readySince = performance.now();
        this.backend = message.backend;
        this.note = message.note;
        this.where = message.where;
        this.#wasEverReady = true;
        this.#hooks.onReady(this);
        return;
      case 'drained':
        this.#log.debug({ worker: this.index }, 'drained');
        return;
      case 'released':
        this.#hooks.onReleased?.(this);
        return;
      case 'performed':
        this.#hooks.onPerformed?.(message.id, message.results);
        return;
      case 'failed':
        this.#lastWords = message.message;
        this.#log.error({ worker: this.index }, message.message);
        return;
      default:
        message satisfies never;
    }
  }

  #onExit(code: number | null, signal: SignalName | null): void {
    clearTimeout(this.#timer);
    const { isProgram } = this.#plan.kind;
    const isExpected = this.state === 'draining';
    const since = this.#since;
    this.#wasHealthy = this.wasHealthy(performance.now());
    this.#process = undefined;
    this.#hooks.onExit(this);
    const how = signal === null ? `with code ${code}` : `by signal ${signal}`;
    if (isExpected) {
      if (!this.#isCutOff) this.exitCode = shellCode(code, signal);
      if (this.exitCode !== exitCodes.ok && !isProgram)
        this.#log.error({ worker: this.index }, `worker ${this.index} ended ${how} while it drained; its connections were cut`);
      this.#stop();
      return;
    }
    if (this.#isOnTrial) {
      this.#failTrial(
        this.#lastWords ?? `a new worker ended ${how}${this.readySince === undefined ? ' before it was ready' : ''}`,
        shellCode(code, signal),
      );
      return;
    }
    if (isProgram && code === 0) {
      this.#stop();
      this.#hooks.onFinished(this);
      return;
    }
    if (!isProgram && code === exitCodes.config && !this.#wasEverReady) {
      this.#stop();
      this.#hooks.onConfigRefused(this);
      return;
    }
    const early = isProgram || this.readySince !== undefined ? '' : ' before it was ready';
    this.#log.warn({ worker: this.index }, `worker ${this.index} ended ${how}${early}; starting it again`);
    this.#restartLater(since, shellCode(code, signal));
  }

  get #isOnTrial(): boolean {
    return this.#holdsBack && !this.#plan.kind.isProgram;
  }

  #failTrial(reason: string, exitCode: number): void {
    this.#stop();
    this.#hooks.onTrialFailed(this, reason, exitCode);
  }

  #stop(): void {
    this.state = 'stopped';
    this.readySince = undefined;
    this.#stopped.resolve();
  }

  #restartLater(since: number | undefined, exitCode: number): void {
    const { delayMs, loopBegins } = this.#backoff.crashed(performance.now(), since);
    this.readySince = undefined;
    this.backend = undefined;
    this.state = 'waiting';
    if (loopBegins) {
      const causes = this.#plan.kind.isProgram ? 'an exception that nothing catches' : 'an exception while the config is loaded';
      this.#log.error(
        { worker: this.index },
        `worker ${this.index} has crashed ${loopCrashes} times in a row; restarts are slowed until it runs ${healthyMs / 1000} s. Look at its errors above: ${causes}, memory, or a crash in a native module`,
      );
      this.#hooks.onCrashLoop(this, exitCode);
      // The node may have been given up.
      if (this.state !== 'waiting') return;
    }
    const restart = () => {
      this.restarts += 1;
      this.start();
    };
    if (delayMs === 0) restart();
    else this.#timer = setTimeout(restart, delayMs);
  }
}
