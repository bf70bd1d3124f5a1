/**
 * Publishing what comes to the admin listener: the supervisor carries no traffic itself, so it hands the messages to workers.
 *
 * Role: admin-publish.ts → here → IPC → worker/main.ts. Messages of one topic always go through the same worker, in order, so that what is
 * published by one request after another keeps its order too.
 */
import type { PublishedMessage, SupervisorMessage } from '../process/boot.ts';
import { topicHash } from '../pubsub/nodes/owners.ts';

/** What became of a request to publish. */
export type PublishOutcome =
  | { readonly kind: 'published' }
  /** Too much waits for a worker. Nothing was published. */
  | { readonly kind: 'busy' }
  /** No worker is ready. Nothing was published. */
  | { readonly kind: 'no worker' }
  /** A worker has ended, or has not answered in time: the messages may or may not have gone out. */
  | { readonly kind: 'unknown'; readonly reason: string };

/** A worker that is ready. */
export interface PublishingWorker {
  readonly index: number;
  tell(message: SupervisorMessage): void;
}

interface Pending {
  readonly worker: number;
  readonly bytes: number;
  settle(problem: string | undefined): void;
}

/** What a worker has been given and has not answered. */
interface Load {
  requests: number;
  bytes: number;
}

const answerMs = 5000;
/** Of one worker. A request that is larger than this by itself waits until nothing else does. */
const loadMax: Readonly<Load> = { requests: 1024, bytes: 32 * 1024 * 1024 };
/** Of a message, beside its topic and data. */
const messageBytes = 64;

export class Publisher {
  readonly #ready: () => readonly PublishingWorker[];
  readonly #answerMs: number;
  /** By number, until the worker answers or ends: also those whose requests were told that they have waited long enough. */
  readonly #pending = new Map<number, Pending>();
  readonly #loads = new Map<number, Load>();
  #lastId = 0;

  /** `ready`: the workers that may be used now. `waitMs`: for an answer. */
  constructor(ready: () => readonly PublishingWorker[], waitMs = answerMs) {
    this.#ready = ready;
    this.#answerMs = waitMs;
  }

  async publish(messages: readonly PublishedMessage[]): Promise<PublishOutcome> {
    const workers = this.#ready().toSorted((a, b) => a.index - b.index);
    if (workers.length === 0) return { kind: 'no worker' };
    const parts = new Map<PublishingWorker, PublishedMessage[]>();
    for (const message of messages) {
      const worker = workers[topicHash(message.topic) % workers.length] as PublishingWorker;
      const part = parts.get(worker);
      if (part === undefined) parts.set(worker, [message]);
      else part.push(message);
    }
    const hands = [...parts].map(([worker, part]) => ({ worker, part, bytes: bytesOf(part) }));
    if (hands.some(({ worker, bytes }) => !this.#hasRoom(worker, bytes))) return { kind: 'busy' };
    const problems = await Promise.all(hands.map(({ worker, part, bytes }) => this.#hand(worker, part, bytes)));
    const reason = problems.find((problem) => problem !== undefined);
    return reason === undefined ? { kind: 'published' } : { kind: 'unknown', reason };
  }

  /** A worker has answered. */
  answered(id: number, problem: string | undefined): void {
    this.#over(id, problem);
  }

  /** What a worker that has ended was to publish may or may not have gone out. */
  workerGone(index: number): void {
    for (const [id, { worker }] of [...this.#pending]) if (worker === index) this.#over(id, 'the worker that was to publish has ended');
  }

  #hasRoom(worker: PublishingWorker, bytes: number): boolean {
    const load = this.#loads.get(worker.index);
    return load === undefined || (load.requests < loadMax.requests && load.bytes + bytes <= loadMax.bytes);
  }

  /** ret: what went wrong, if anything did */
  async #hand(worker: PublishingWorker, messages: readonly PublishedMessage[], bytes: number): Promise<string | undefined> {
    const id = ++this.#lastId;
    const { promise, resolve } = Promise.withResolvers<string | undefined>();
    const timer = setTimeout(() => resolve(`a worker has not answered within ${this.#answerMs / 1000} s`), this.#answerMs);
    const load = this.#loads.get(worker.index) ?? { requests: 0, bytes: 0 };
    load.requests += 1;
    load.bytes += bytes;
    this.#loads.set(worker.index, load);
    this.#pending.set(id, { worker: worker.index, bytes, settle: resolve });
    worker.tell({ type: 'publish', id, messages });
    const problem = await promise;
    clearTimeout(timer);
    return problem;
  }

  /** What a request took is given back now and not when it stops waiting: a worker that hangs must not be given more and more. */
  #over(id: number, problem: string | undefined): void {
    const pending = this.#pending.get(id);
    if (pending === undefined) return;
    this.#pending.delete(id);
    const load = this.#loads.get(pending.worker);
    if (load !== undefined) {
      load.requests -= 1;
      load.bytes -= pending.bytes;
      if (load.requests === 0) this.#loads.delete(pending.worker);
    }
    pending.settle(problem);
  }
}

function bytesOf(messages: readonly PublishedMessage[]): number {
  return messages.reduce((sum, { topic, data }) => sum + messageBytes + topic.length + data.length, 0);
}
