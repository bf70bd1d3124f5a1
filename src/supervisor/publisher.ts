/**
 * Publishing what comes to the admin listener: the supervisor carries no traffic itself, so it hands the messages to workers.
 *
 * Role: admin-publish.ts → here → IPC → worker/main.ts. Messages of one topic always go through the same worker, in order, so that what is
 * published by one request after another keeps its order too.
 */
import type { PublishedMessage, SupervisorMessage } from './boot.ts';

/** What became of a request to publish. */
export type PublishOutcome =
  | { readonly kind: 'published' }
  /** Too many requests are under way. Nothing was published. */
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
  readonly timer: ReturnType<typeof setTimeout>;
  settle(problem: string | undefined): void;
}

const answerMs = 5000;
/** Of requests that workers have not answered. */
const pendingMax = 1024;
const pendingBytesMax = 64 * 1024 * 1024;

export class Publisher {
  readonly #ready: () => readonly PublishingWorker[];
  readonly #pending = new Map<number, Pending>();
  #pendingBytes = 0;
  #lastId = 0;

  /** `ready`: the workers that may be used now. */
  constructor(ready: () => readonly PublishingWorker[]) {
    this.#ready = ready;
  }

  async publish(messages: readonly PublishedMessage[]): Promise<PublishOutcome> {
    const workers = this.#ready().toSorted((a, b) => a.index - b.index);
    if (workers.length === 0) return { kind: 'no worker' };
    const parts = new Map<PublishingWorker, PublishedMessage[]>();
    for (const message of messages) {
      const worker = workers[hashOf(message.topic) % workers.length] as PublishingWorker;
      const part = parts.get(worker);
      if (part === undefined) parts.set(worker, [message]);
      else part.push(message);
    }
    if (this.#pending.size + parts.size > pendingMax || this.#pendingBytes > pendingBytesMax) return { kind: 'busy' };
    const problems = await Promise.all([...parts].map(([worker, part]) => this.#hand(worker, part)));
    const reason = problems.find((problem) => problem !== undefined);
    return reason === undefined ? { kind: 'published' } : { kind: 'unknown', reason };
  }

  /** A worker has answered. */
  answered(id: number, problem: string | undefined): void {
    this.#pending.get(id)?.settle(problem);
  }

  /** What a worker that has ended was to publish may or may not have gone out. */
  workerGone(index: number): void {
    for (const pending of [...this.#pending.values()]) {
      if (pending.worker === index) pending.settle('the worker that was to publish has ended');
    }
  }

  /** ret: what went wrong, if anything did */
  #hand(worker: PublishingWorker, messages: readonly PublishedMessage[]): Promise<string | undefined> {
    const id = ++this.#lastId;
    const bytes = messages.reduce((sum, { topic, data }) => sum + topic.length + data.length, 0);
    const { promise, resolve } = Promise.withResolvers<string | undefined>();
    const settle = (problem: string | undefined) => {
      clearTimeout(pending.timer);
      if (!this.#pending.delete(id)) return;
      this.#pendingBytes -= bytes;
      resolve(problem);
    };
    const pending: Pending = {
      worker: worker.index,
      bytes,
      timer: setTimeout(() => settle(`a worker has not answered within ${answerMs / 1000} s`), answerMs),
      settle,
    };
    this.#pending.set(id, pending);
    this.#pendingBytes += bytes;
    worker.tell({ type: 'publish', id, messages });
    return promise;
  }
}

/** FNV-1a over the UTF-16 units: it only has to spread topics over workers. */
function hashOf(topic: string): number {
  let hash = 0x811c9dc5;
  for (let at = 0; at < topic.length; at++) hash = Math.imul(hash ^ topic.charCodeAt(at), 0x01000193);
  return hash >>> 0;
}
