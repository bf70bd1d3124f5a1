/**
 * Hands what the admin listener is asked for to workers: the supervisor serves no traffic itself, and has no topics.
 *
 * Role: admin-publish.ts, admin-topics.ts → here → IPC → worker/operations.ts. What concerns one topic always goes through the same worker, in order, so
 * that what is asked by one request after another keeps its order too. Where that worker ends or does not answer, what may be done twice is asked of
 * another one.
 */
import type { SupervisorMessage } from '../process/boot.ts';
import type { Operation, OperationProblem, OperationResult } from '../process/operations.ts';
import { topicHash } from '../pubsub/nodes/owners.ts';

/** A worker that is ready. */
export interface OperatingWorker {
  readonly index: number;
  tell(message: SupervisorMessage): void;
}

interface Pending {
  readonly worker: number;
  readonly bytes: number;
  settle(answer: readonly OperationResult[] | string): void;
}

/** What a worker has been given and has not answered. */
interface Load {
  requests: number;
  bytes: number;
}

/** By place in the request; or why there is no answer. */
type Heard = ReadonlyMap<number, OperationResult> | string;

const answerMs = 5000;
/** Of the time for an answer, where another worker could give one as well. Questions to all workers take 2 s when one of them hangs. */
const patienceShare = 0.5;
/** Of one worker. A request that is larger than this by itself waits until nothing else does. */
const loadMax: Readonly<Load> = { requests: 1024, bytes: 32 * 1024 * 1024 };
/** Of an operation, beside what it holds. */
const operationBytes = 64;
/** Of an answer that lists messages or users: what there is on average, and not at most. */
const answerBytes = 64 * 1024;

const busy: OperationProblem = { kind: 'busy', error: 'too much is being asked for at once; try again' };
const noWorker: OperationProblem = { kind: 'unavailable', error: 'no worker is ready; try again' };

export class Operations {
  readonly #ready: () => readonly OperatingWorker[];
  readonly #answerMs: number;
  /** By number, until the worker answers or ends: also those whose requests were told that they have waited long enough. */
  readonly #pending = new Map<number, Pending>();
  readonly #loads = new Map<number, Load>();
  #lastId = 0;

  /** `ready`: the workers that may be used now. `waitMs`: for an answer. */
  constructor(ready: () => readonly OperatingWorker[], waitMs = answerMs) {
    this.#ready = ready;
    this.#answerMs = waitMs;
  }

  /** All at the same time, those of one topic in order. ret: a result for each; when one cannot be begun now, none is */
  async perform(operations: readonly Operation[]): Promise<readonly OperationResult[]> {
    const workers = this.#workers();
    if (workers.length === 0) return operations.map(() => ({ problem: noWorker }));
    const parts = new Map<OperatingWorker, number[]>();
    for (const [place, operation] of operations.entries()) {
      const worker = workers[topicHash(keyOf(operation)) % workers.length] as OperatingWorker;
      const places = parts.get(worker);
      if (places === undefined) parts.set(worker, [place]);
      else places.push(place);
    }
    for (const [worker, places] of parts)
      if (!this.#hasRoom(worker, bytesOf(places.map((place) => operations[place] as Operation))))
        return operations.map(() => ({ problem: busy }));
    const results = new Array<OperationResult>(operations.length);
    await Promise.all([...parts].map(([worker, places]) => this.#serve(worker, places, operations, results)));
    return results;
  }

  /** A worker has answered. */
  answered(id: number, results: readonly OperationResult[]): void {
    this.#over(id, results);
  }

  /** What a worker that has ended was to do may or may not have been done. */
  workerGone(index: number): void {
    for (const [id, { worker }] of [...this.#pending]) if (worker === index) this.#over(id, 'the worker that was asked has ended');
  }

  #workers(): OperatingWorker[] {
    return this.#ready().toSorted((a, b) => a.index - b.index);
  }

  #hasRoom(worker: OperatingWorker, bytes: number): boolean {
    const load = this.#loads.get(worker.index);
    return load === undefined || (load.requests < loadMax.requests && load.bytes + bytes <= loadMax.bytes);
  }

  /** Fills `results` at these places. */
  async #serve(
    worker: OperatingWorker,
    places: readonly number[],
    operations: readonly Operation[],
    results: OperationResult[],
  ): Promise<void> {
    const until = performance.now() + this.#answerMs;
    const left = () => until - performance.now();
    const parts = new Map(places.map((place) => [place, operations[place] as Operation]));
    const answer = this.#ask(worker, parts);
    const settle = async (own: ReadonlyMap<number, Operation>, heard: Promise<Heard>) => {
      if (own.size === 0) return;
      const from = await heard;
      for (const [place, operation] of own)
        results[place] = typeof from === 'string' ? problemOf(operation, from) : (from.get(place) as OperationResult);
    };
    const again = new Map([...parts].flatMap(([place, operation]) => (mayRepeat(operation) ? [[place, operation] as const] : [])));
    const once = new Map([...parts].filter(([place]) => !again.has(place)));
    const firstOrOther = async (): Promise<Heard> => {
      const first = await this.#within(answer, this.#otherThan(worker) === undefined ? left() : this.#answerMs * patienceShare);
      if (typeof first !== 'string') return first;
      const other = this.#otherThan(worker);
      return this.#within(other === undefined || !this.#hasRoom(other, bytesOf(again.values())) ? answer : this.#ask(other, again), left());
    };
    await Promise.all([settle(once, this.#within(answer, left())), settle(again, firstOrOther())]);
  }

  #otherThan(worker: OperatingWorker): OperatingWorker | undefined {
    return this.#workers().find(({ index }) => index !== worker.index);
  }

  /** ret: what the worker answers, or why it does not; pending for as long as it neither answers nor ends */
  #ask(worker: OperatingWorker, parts: ReadonlyMap<number, Operation>): Promise<Heard> {
    const id = ++this.#lastId;
    const { promise, resolve } = Promise.withResolvers<Heard>();
    const places = [...parts.keys()];
    const bytes = bytesOf(parts.values());
    const load = this.#loads.get(worker.index) ?? { requests: 0, bytes: 0 };
    load.requests += 1;
    load.bytes += bytes;
    this.#loads.set(worker.index, load);
    const settle = (answer: readonly OperationResult[] | string) =>
      resolve(typeof answer === 'string' ? answer : new Map(places.map((place, index) => [place, answer[index] as OperationResult])));
    this.#pending.set(id, { worker: worker.index, bytes, settle });
    worker.tell({ type: 'perform', id, operations: [...parts.values()] });
    return promise;
  }

  async #within(answer: Promise<Heard>, ms: number): Promise<Heard> {
    const { promise, resolve } = Promise.withResolvers<string>();
    const timer = setTimeout(() => resolve(`a worker has not answered within ${this.#answerMs / 1000} s`), Math.max(0, ms));
    const heard = await Promise.race([answer, promise]);
    clearTimeout(timer);
    return heard;
  }

  /** What a request took is given back now and not when it stops waiting: a worker that hangs must not be given more and more. */
  #over(id: number, answer: readonly OperationResult[] | string): void {
    const pending = this.#pending.get(id);
    if (pending === undefined) return;
    this.#pending.delete(id);
    const load = this.#loads.get(pending.worker);
    if (load !== undefined) {
      load.requests -= 1;
      load.bytes -= pending.bytes;
      if (load.requests === 0) this.#loads.delete(pending.worker);
    }
    pending.settle(answer);
  }
}

function isRead({ kind }: Operation): boolean {
  return kind === 'history' || kind === 'presence' || kind === 'topics' || kind === 'subscribers';
}

/** Whether a worker may do it that does not know whether another one has done it: topics that know no keys refuse a message that has one. */
function mayRepeat(operation: Operation): boolean {
  return isRead(operation) || (operation.kind === 'publish' && operation.idempotencyKey !== undefined);
}

function problemOf(operation: Operation, reason: string): OperationResult {
  return { problem: isRead(operation) ? { kind: 'unavailable', error: `${reason}; try again` } : { kind: 'unknown', error: reason } };
}

/** What it concerns: of the same, one worker is asked. */
function keyOf(operation: Operation): string {
  switch (operation.kind) {
    case 'topics':
      return operation.prefix;
    case 'send':
      return operation.user;
    case 'disconnect':
      return Object.values(operation.target)[0] ?? '';
    default:
      return operation.topic;
  }
}

function bytesOf(operations: Iterable<Operation>): number {
  let sum = 0;
  for (const operation of operations)
    sum += operationBytes + keyOf(operation).length + (isRead(operation) ? answerBytes : 'data' in operation ? operation.data.length : 0);
  return sum;
}
