/**
 * What passes between the supervisor and a worker: the boot data in its environment, descriptors by number, and messages
 * over Bun's IPC channel (JSON).
 */
import { isatty } from 'node:tty';
import type { SharedStats } from '../core/native.ts';
import type { BackendName } from '../core/options.ts';
import type { PairNative } from './child-output.ts';
import type { Operation, OperationResult } from './operations.ts';

/** A listening socket as the worker finds it. */
export interface WorkerListener {
  readonly fd: number;
  /** Index into `ResolvedConfig.listen`; comes back in requests. */
  readonly index: number;
  /** Which address it is, as `keyOf` in config/address-key.ts says: the config may have been edited since. */
  readonly key: string;
  /** For people, such as 'http://localhost:8080'. */
  readonly label: string;
}

/** A worker's place on its node. */
export interface NodePlace {
  readonly index: number;
  /** Places for workers in the shared memory of this node; more than one generation may be at work. */
  readonly places: number;
  /** Workers of its own generation. */
  readonly workers: number;
  /** CPU to pin itself to; null: none. */
  readonly cpu: number | null;
  readonly shmFd: number;
  /** The inbox eventfd of place i is `inboxFdFirst + i`. */
  readonly inboxFdFirst: number;
  /** Counts the processes that have had this index, from 0. */
  readonly generation: number;
  /** Names the node among all that share a Redis: 16 hexadecimal digits, random at every start of the supervisor. */
  readonly nodeId: string;
}

/** Everything that a worker of a gateway must know beside its config. */
export interface WorkerBoot extends NodePlace {
  readonly configPath: string;
  readonly listeners: readonly WorkerListener[];
  /** Accept nothing until told to `serve`: an older generation still does. */
  readonly holdsBack: boolean;
  /** People read the log: what the worker itself writes to is a pipe. Absent from supervisors before 0.2. */
  readonly isTerminal?: boolean;
}

/** Everything that a worker of `ringway run` must know. */
export interface ProgramBoot extends NodePlace {
  /** The file in which the workers agree on ports, see worker/shared-ports.ts. */
  readonly portsFd: number;
}

/** What the workers of a node run. */
export interface WorkerKind {
  /** What Bun is started with. */
  readonly args: readonly string[];
  /** Handed over to every worker, behind those of its place. */
  readonly descriptors: readonly number[];
  /** What it must know beside its place. `fdFirst`: where it finds `descriptors`. */
  boot(
    listeners: readonly WorkerListener[],
    fdFirst: number,
    holdsBack: boolean,
  ): Omit<WorkerBoot, keyof NodePlace> | Omit<ProgramBoot, keyof NodePlace>;
  /** Written by others: it listens when it likes, may end by itself, and may handle signals. */
  readonly isProgram: boolean;
}
/** What a node is asked to stop by. */
export type StopSignal = 'SIGINT' | 'SIGTERM';

export type WorkerMessage =
  /** It accepts connections. `note`: why it runs on this backend, when that is not the first choice. `where`: a program's first address. */
  | { readonly type: 'ready'; readonly backend: BackendName; readonly note?: string; readonly where?: string }
  /** It has finished draining and is about to exit. */
  | { readonly type: 'drained' }
  /** It was `chosen`, drains, and has cleaned up what it did for all. */
  | { readonly type: 'released' }
  /** The answer to `perform`: a result for each operation. */
  | { readonly type: 'performed'; readonly id: number; readonly results: readonly OperationResult[] }
  /** It cannot start and is about to exit with `exitCode`; 78 on the first start stops the node, all else is tried again. */
  | { readonly type: 'failed'; readonly message: string; readonly exitCode: number };

export interface DrainMessage {
  readonly type: 'drain';
  /** What the node was asked by; SIGHUP: others take its place. */
  readonly signal: StopSignal | 'SIGHUP';
  /** WebSocket close code to send. */
  readonly code: number;
  /** Spread the closes over this time. */
  readonly overMs: number;
  /** Keep-alive connections close once they have been idle for so long. */
  readonly idleMs: number;
  /** Nobody else accepts from some of its sockets: what waits there is its to serve before it closes them. */
  readonly servesQueues: boolean;
  /** From now; then the supervisor kills what is left. */
  readonly deadlineMs: number;
}

export type SupervisorMessage =
  | DrainMessage
  /** Accept connections from now on; only to workers that hold back. */
  | { readonly type: 'serve' }
  /** Do what must be done once a node, until you drain. */
  | { readonly type: 'chosen' }
  /** The process at this place has ended; `epoch`: which of those that have lived there, as the shared memory counts them. */
  | { readonly type: 'worker-gone'; readonly worker: number; readonly epoch: number }
  /** Do these, begun in this order, and answer with `performed`. */
  | { readonly type: 'perform'; readonly id: number; readonly operations: readonly Operation[] }
  /** Load the certificates of these listeners again, or, in a program, those of all. */
  | { readonly type: 'certificates'; readonly listeners: readonly number[] };

/** Descriptors 0..2 are standard; the first of ours is 3 (spawn's stdio list). Bun puts its IPC channel after the last one. */
const firstFd = 3;

/** Environment variable with what `--port` says, for every process that reads the config. */
export const portVariable = 'RINGWAY_PORT';
/** Environment variable that `ringway dev` sets, for every process that reads the config. */
export const devVariable = 'RINGWAY_DEV';
/** Environment variable that holds the boot data as JSON. */
export const bootVariable = 'RINGWAY_WORKER';

/** The descriptors to hand over in order, and where the worker finds them. */
export function layOutDescriptors(shmFd: number, inboxFds: readonly number[], kindFds: readonly number[], listenerFds: readonly number[]) {
  const inboxFdFirst = firstFd + 1;
  const kindFdFirst = inboxFdFirst + inboxFds.length;
  const listenerFdFirst = kindFdFirst + kindFds.length;
  return { descriptors: [shmFd, ...inboxFds, ...kindFds, ...listenerFds], shmFd: firstFd, inboxFdFirst, kindFdFirst, listenerFdFirst };
}

/** In a worker: what it was started with. Throws when this process was not started by a supervisor. */
export function readBoot<Boot extends NodePlace = WorkerBoot>(env: Readonly<Record<string, string | undefined>>): Boot {
  const text = env[bootVariable];
  if (text === undefined) throw new Error(`${bootVariable} is not set: workers are started by 'ringway start' and 'ringway run'`);
  return JSON.parse(text) as Boot;
}

/** Workers that serve a config with `program`. */
export function gatewayWorkers(configPath: string, program: string): WorkerKind {
  return {
    args: [program],
    descriptors: [],
    boot: (listeners, _, holdsBack) => ({ configPath, listeners, holdsBack, isTerminal: isatty(1) }),
    isProgram: false,
  };
}

/** What the supervisor needs of the core; core/native.ts has it as `native`. */
export interface SupervisorNative extends PairNative {
  shmCreate(workers: number, ringBytes: number, hostLayout: number, stateBytes: number): number;
  shmMap(fd: number, hostLayout: number): SharedStats;
  listenSocket(host: string, port: number | undefined, backlog: number, flags: number): number;
  /** Begin to listen, or change how many connections may wait. */
  listenBacklog(fd: number, backlog: number): void;
  socketPort(fd: number): number;
  eventfdCreate(): number;
  affinityGet(): number[];
  notify(socket: string, text: string): void;
}

export interface ProgramPlan {
  /** Loaded before the program. */
  readonly preload: string;
  readonly program: string;
  readonly args: readonly string[];
  readonly portsFd: number;
}

/** Workers that run a program written to uWebSockets.js. */
export function programWorkers({ preload, program, args, portsFd }: ProgramPlan): WorkerKind {
  return {
    args: ['--preload', preload, program, ...args],
    descriptors: [portsFd],
    boot: (_, fdFirst) => ({ portsFd: fdFirst }),
    isProgram: true,
  };
}
