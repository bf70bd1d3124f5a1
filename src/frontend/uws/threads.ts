/**
 * Child apps in other threads of the process.
 *
 * Role: lets a child accept from its parent's listening sockets. Up: app.ts. Down: BroadcastChannel.
 * Threads share descriptors but no JavaScript, and each has a core of its own; a connection cannot change its core. So the children
 * accept in their parent's place, and the kernel shares connections out among them.
 *
 *   parent ── take: accept from this descriptor ──> child
 *          <── taken: the parent may stop ─────────
 *          ── leave: do so no more ───────────────>
 *          <── left: the descriptor may be closed ─
 */
import { BroadcastChannel, isMainThread, threadId } from 'node:worker_threads';

/** Descriptors of apps in different threads differ. */
const appsPerThread = 2 ** 20;

/** To all threads of the process; who has the child acts on take and leave, who has the parent on their answers. */
interface Message {
  readonly kind: 'take' | 'taken' | 'leave' | 'left';
  /** Descriptor of the child. */
  readonly child: number;
  readonly fd: number;
}

/** An app that other threads may name. */
export interface ThreadChild {
  /** Accept from a socket that belongs to another thread. ret: whether that is so now */
  take(fd: number): boolean;
  leave(fd: number): void;
}

const children = new Map<number, ThreadChild>();
/** What waits for an answer, by all that is in it. */
const waiting = new Map<string, () => void>();
let channel: BroadcastChannel | undefined;

function opened(): BroadcastChannel {
  if (channel !== undefined) return channel;
  channel = new BroadcastChannel(`ringway/uws ${process.pid}`);
  channel.onmessage = (event: unknown) => receive((event as { data: Message }).data);
  // A thread that has children of another one has nothing else to live for; the process ends when its main thread does.
  if (isMainThread) (channel as unknown as { unref(): void }).unref();
  return channel;
}

function receive(message: Message): void {
  const { kind, child, fd } = message;
  if (kind === 'taken' || kind === 'left') {
    const key = keyOf(message);
    waiting.get(key)?.();
    waiting.delete(key);
    return;
  }
  const app = children.get(child);
  if (app === undefined) return;
  if (kind === 'leave') app.leave(fd);
  else if (!app.take(fd)) return;
  opened().postMessage({ kind: kind === 'take' ? 'taken' : 'left', child, fd } satisfies Message);
}

const keyOf = ({ kind, child, fd }: Message) => `${kind} ${child} ${fd}`;

function ask(question: Message, answer: Message['kind']): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  waiting.set(keyOf({ ...question, kind: answer }), resolve);
  opened().postMessage(question);
  return promise;
}

/** ret: a name for an app of this thread. `app`: its number within the thread */
export function describe(app: number, child: ThreadChild): number {
  const descriptor = threadId * appsPerThread + app + 1;
  children.set(descriptor, child);
  opened();
  return descriptor;
}

/** Whether a descriptor can be one of another thread. */
export function isForeign(descriptor: unknown): descriptor is number {
  return Number.isSafeInteger(descriptor) && Math.floor((descriptor as number) / appsPerThread) !== threadId;
}

/** ret: settles once the child accepts from `fd`; never when there is no such child */
export function offer(child: number, fd: number): Promise<void> {
  return ask({ kind: 'take', child, fd }, 'taken');
}

/** ret: settles once the child does so no more */
export function withdraw(child: number, fd: number): Promise<void> {
  return ask({ kind: 'leave', child, fd }, 'left');
}
