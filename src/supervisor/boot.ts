/**
 * What passes between the supervisor and a worker: the WorkerBoot in its environment, descriptors by number, and messages
 * over Bun's IPC channel (JSON).
 */
import type { SharedStats } from '../../ffi/bindings.ts';

/** A listening socket as the worker finds it. */
export interface WorkerListener {
  readonly fd: number;
  /** Index into `ResolvedConfig.listen`; comes back in requests. */
  readonly index: number;
  /** For people, such as 'http://localhost:8080'. */
  readonly label: string;
}

/** Everything a worker must know beside its config. */
export interface WorkerBoot {
  readonly index: number;
  /** Workers of this node. */
  readonly count: number;
  /** CPU to pin itself to; null: none. */
  readonly cpu: number | null;
  readonly configPath: string;
  readonly shmFd: number;
  /** Worker i's inbox eventfd is `inboxFdFirst + i`. */
  readonly inboxFdFirst: number;
  readonly listeners: readonly WorkerListener[];
  /** Counts the processes that have had this index, from 0. */
  readonly generation: number;
}

export type BackendName = 'io_uring' | 'epoll';

export type WorkerMessage =
  /** It accepts connections. `note`: why it runs on this backend, when that is not the first choice. */
  | { readonly type: 'ready'; readonly backend: BackendName; readonly note?: string }
  /** It has finished draining and is about to exit. */
  | { readonly type: 'drained' }
  /** It cannot start and is about to exit with `exitCode`; 78 on the first start stops the node, all else is tried again. */
  | { readonly type: 'failed'; readonly message: string; readonly exitCode: number };

export type SupervisorMessage = {
  readonly type: 'drain';
  /** WebSocket close code to send. */
  readonly code: number;
  /** Spread the closes over this time. */
  readonly overMs: number;
  /** From now; then the supervisor kills what is left. */
  readonly deadlineMs: number;
};

/** Descriptors 0..2 are standard; the first of ours is 3 (spawn's stdio list). Bun puts its IPC channel after the last one. */
const firstFd = 3;

/** Environment variable that holds the WorkerBoot as JSON. */
export const bootVariable = 'RINGWAY_WORKER';

/** The descriptors to hand over in order, and where the worker finds them. */
export function layOutDescriptors(shmFd: number, inboxFds: readonly number[], listenerFds: readonly number[]) {
  const inboxFdFirst = firstFd + 1;
  const listenerFdFirst = inboxFdFirst + inboxFds.length;
  return { descriptors: [shmFd, ...inboxFds, ...listenerFds], shmFd: firstFd, inboxFdFirst, listenerFdFirst };
}

/** In a worker: what it was started with. Throws when this process was not started by a supervisor. */
export function readBoot(env: Readonly<Record<string, string | undefined>>): WorkerBoot {
  const text = env[bootVariable];
  if (text === undefined) throw new Error(`${bootVariable} is not set: workers are started by 'ringway start'`);
  return JSON.parse(text) as WorkerBoot;
}

/** What the supervisor needs of the core; ffi/bindings.ts has it as `native`. */
export interface SupervisorNative {
  shmCreate(workers: number, ringBytes: number): number;
  shmMap(fd: number): SharedStats;
  listenSocket(host: string, port: number | undefined, backlog: number, flags: number): number;
  socketPort(fd: number): number;
  eventfdCreate(): number;
  fdClose(fd: number): void;
  affinityGet(): number[];
}
