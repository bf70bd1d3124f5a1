/**
 * An upgrade: a supervisor of the release that lies on the disk takes over from the one that runs.
 *
 *   predecessor                                   successor (a child of it)
 *     starts it with the listening sockets ──────> opens the rest, starts workers that hold back
 *     serve <──────────────────────────── ready
 *     ─────────────────────────────────────────── > its workers accept
 *     drains its own workers <─────────── serving
 *     leaves the admin address ── admin-free ────> opens it
 *     nothing runs here that must run once ── released ──> chooses a worker for it
 *     hands signals on; ends as it ends
 *
 * The predecessor stays, small, since its process number is the one that systemd, Docker or npm watch. Nothing is shared but the sockets: the
 * successor has memory and topics of its own.
 * Role: both ends of the channel between the two. Up: supervisor.ts. Down: Bun.spawn.
 */
import { constants } from 'node:os';
import type { Subprocess } from 'bun';
import type { AdminAddress } from '../config/resolve.ts';
import { exitCodes } from '../exit-codes.ts';
import { OperatingError } from '../operating-error.ts';
import type { TrialProblem } from './generation.ts';
import type { OpenListener } from './listeners.ts';

/** Environment variable that holds a `Handover` as JSON. */
const handoverVariable = 'RINGWAY_HANDOVER';
/** Descriptors 0..2 are standard; the sockets come after them. */
const firstFd = 3;
/** Grows when this file changes what it says. A successor that does not know the number declines. */
const protocol = 1;

/** What the successor is given. */
export interface Handover {
  readonly protocol: number;
  /** With the descriptors as the successor finds them. */
  readonly listeners: readonly OpenListener[];
  /** Null: it has no admin listener. */
  readonly admin: AdminPost | null;
  /** Of the workers that serve so far. */
  readonly generation: number;
  /** The last request for a reload that this answers. */
  readonly request: number;
  /** It says `released`; absent from releases before 0.2. */
  readonly tellsRelease?: true;
}

/** Where the predecessor's admin listener is. */
export interface AdminPost {
  /** As its config says. */
  readonly address: AdminAddress;
  /** In use, also where the config leaves it to the system; null: a Unix socket. */
  readonly port: number | null;
}

type SuccessorMessage =
  /** `kept`: which of the listeners it goes on with. */
  | { readonly type: 'ready'; readonly kept: readonly number[] }
  /** `wantsAdmin`: it opens its admin listener at the predecessor's address, once that is free. */
  | { readonly type: 'serving'; readonly wantsAdmin: boolean }
  /** It ends. */
  | { readonly type: 'failed'; readonly reason: string; readonly exitCode: number };

type PredecessorMessage = { readonly type: 'serve' } | { readonly type: 'admin-free' } | { readonly type: 'released' };

/** The longest that a config may take to load and workers to get ready, and some. */
const patienceMs = 150_000;
/** How long a worker of a supervisor that does not tell has to let go of what must run once a node. */
const releaseMs = 1000;
/** From `serve` on nothing is left to wait for. */
const servePatienceMs = 10_000;

/** The supervisor that takes over, seen from the one that runs. */
export class Successor {
  /** Resolves with its exit code, as a shell shows it. */
  readonly exited: Promise<number>;
  readonly #child: Subprocess;
  readonly #ready = Promise.withResolvers<TrialProblem | readonly number[]>();
  readonly #serving = Promise.withResolvers<{ wantsAdmin: boolean } | undefined>();

  private constructor(command: readonly string[], handover: Handover, fds: readonly number[]) {
    const { promise, resolve } = Promise.withResolvers<number>();
    this.exited = promise;
    this.#child = Bun.spawn({
      cmd: [process.execPath, '--no-install', ...command],
      env: { ...process.env, [handoverVariable]: JSON.stringify(handover) },
      stdio: ['ignore', 'inherit', 'inherit', ...fds],
      serialization: 'json',
      ipc: (message: SuccessorMessage) => this.#onMessage(message),
      onExit: (_, code, signal) => {
        const how = signal === null ? `with code ${code}` : `by signal ${signal}`;
        const name = signal as unknown as keyof typeof constants.signals | null;
        const exitCode = code ?? 128 + (name === null ? 0 : (constants.signals[name] ?? 0));
        this.#ready.resolve({ reason: `the new supervisor ended ${how} before it was ready`, exitCode });
        this.#serving.resolve(undefined);
        resolve(exitCode);
      },
    });
  }

  /** Throws OperatingError when no process can be started. */
  static start(command: readonly string[], handover: Omit<Handover, 'protocol' | 'tellsRelease'>): Successor {
    // Each descriptor once, however many listeners share it.
    const fds = [...new Set(handover.listeners.flatMap((listener) => listener.fds))];
    const listeners = handover.listeners.map((listener) => ({ ...listener, fds: listener.fds.map((fd) => firstFd + fds.indexOf(fd)) }));
    try {
      return new Successor(command, { ...handover, listeners, protocol, tellsRelease: true }, fds);
    } catch (error) {
      throw new OperatingError(`the new supervisor cannot be started: ${error instanceof Error ? error.message : String(error)}`, {
        cause: error,
      });
    }
  }

  get pid(): number {
    return this.#child.pid;
  }

  /** Wait until its workers are ready. ret: which of the listeners it goes on with, or why it will not be */
  async untilReady(giveUp: AbortSignal, timeoutMs = patienceMs): Promise<readonly number[] | TrialProblem> {
    const end = (reason: string) => this.#ready.resolve({ reason, exitCode: undefined });
    const timer = setTimeout(() => end(`the new supervisor was not ready after ${timeoutMs / 1000} s`), timeoutMs);
    const stop = () => end(String(giveUp.reason));
    if (giveUp.aborted) stop();
    giveUp.addEventListener('abort', stop);
    try {
      return await this.#ready.promise;
    } finally {
      clearTimeout(timer);
      giveUp.removeEventListener('abort', stop);
    }
  }

  /** Let its workers accept. ret: what it wants then; undefined: it has ended */
  async serve(): Promise<{ readonly wantsAdmin: boolean } | undefined> {
    this.#send({ type: 'serve' });
    const timer = setTimeout(() => this.kill(), servePatienceMs);
    const serving = await this.#serving.promise;
    clearTimeout(timer);
    return serving;
  }

  /** The address of the admin listener is free. */
  leaveAdmin(): void {
    this.#send({ type: 'admin-free' });
  }

  /** What must run once a node does not run here any more. */
  released(): void {
    this.#send({ type: 'released' });
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** Its workers notice and stop. */
  kill(): void {
    this.#child.kill('SIGKILL');
  }

  #send(message: PredecessorMessage): void {
    try {
      this.#child.send(message);
    } catch {
      // It has just ended; onExit follows.
    }
  }

  #onMessage(message: SuccessorMessage): void {
    switch (message.type) {
      case 'ready':
        this.#ready.resolve(message.kept);
        return;
      case 'serving':
        this.#serving.resolve(message);
        return;
      case 'failed':
        this.#ready.resolve(message);
        return;
      default:
        message satisfies never;
    }
  }
}

/** The supervisor that is to be replaced, seen from the one that takes over. */
export class Predecessor {
  readonly handover: Handover;
  readonly #serve = Promise.withResolvers<void>();
  readonly #adminFree = Promise.withResolvers<void>();
  readonly #released = Promise.withResolvers<void>();

  private constructor(handover: Handover) {
    this.handover = handover;
    process.on('message', (message: PredecessorMessage) => {
      if (message.type === 'serve') this.#serve.resolve();
      else if (message.type === 'admin-free') this.#adminFree.resolve();
      else if (message.type === 'released') this.#released.resolve();
    });
  }

  /** ret: undefined: this process was not started to take over. Throws OperatingError when it cannot. */
  static find(env: Record<string, string | undefined> = process.env): Predecessor | undefined {
    const text = env[handoverVariable];
    // Workers of this process are not to think that it is for them.
    delete env[handoverVariable];
    if (text === undefined) return undefined;
    const handover = JSON.parse(text) as Handover;
    if (handover.protocol !== protocol)
      throw new OperatingError(
        `the gateway that runs (handover ${handover.protocol}) is too old or too new to hand over to this release (${protocol}): restart it`,
      );
    return new Predecessor(handover);
  }

  /** Whether its admin listener is in the way of one at this address. */
  hasAdminAt(settings: false | AdminAddress): boolean {
    const address = this.handover.admin?.address;
    if (settings === false || address === undefined) return false;
    if (settings.kind === 'unix' || address.kind === 'unix')
      return settings.kind === 'unix' && address.kind === 'unix' && settings.path === address.path;
    return settings.port === address.port;
  }

  /** Workers are ready. Resolves when they are to serve. `kept`: which of the listeners are still wanted. */
  async ready(kept: readonly number[]): Promise<void> {
    this.#tell({ type: 'ready', kept });
    await this.#serve.promise;
  }

  /** Workers serve. Resolves when the address of the admin listener is free. */
  async serving(wantsAdmin: boolean): Promise<void> {
    this.#tell({ type: 'serving', wantsAdmin });
    await this.#adminFree.promise;
  }

  /** Workers serve. Resolves when what must run once a node does not run there any more. */
  async released(): Promise<void> {
    if (this.handover.tellsRelease === true) await this.#released.promise;
    else await Bun.sleep(releaseMs);
  }

  /** This process will not take over, and is about to end. */
  failed(reason: string, exitCode: number = exitCodes.failure): void {
    this.#tell({ type: 'failed', reason, exitCode });
  }

  /** It has ended, and nobody watches this process any more. */
  onGone(callback: () => void): void {
    process.on('disconnect', callback);
  }

  #tell(message: SuccessorMessage): void {
    process.send?.(message);
  }
}
