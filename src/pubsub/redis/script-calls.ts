/**
 * Calls of scripts that wait for Redis, and those under way; the answer, or why there is none.
 *
 * Role: below redis-logs.ts, which calls. A shard sends what its partitions have, over the connection that publishes (shard.ts). Down: connection.ts.
 *
 *   call() ──► waiting, by partition ──next()──► under way ──► answered
 *                       ▲                            │
 *                       └──── connection lost, slot moved: the same call again, before what waits
 *
 * A call may be run twice, when its connection broke before the answer: scripts know it again. What is held is bounded in bytes, and each call waits
 * for a bounded time: then it rejects. One that is under way rejects when the connection is given up, which the shard's probes see to.
 */
import { createHash } from 'node:crypto';
import { LinkUnavailableError } from '../link.ts';
import { type Item, List } from '../nodes/list.ts';
import type { Connection } from './connection.ts';
import { type Failure, LinkError } from './failure.ts';

export class Script {
  readonly text: string;
  /** By which Redis knows it. */
  readonly sha: string;

  constructor(text: string) {
    this.text = text;
    this.sha = createHash('sha1').update(text).digest('hex');
  }
}

export type ScriptWord = Buffer | string | number;

/** Keys first, then arguments. */
export interface Asked {
  readonly script: Script;
  readonly keys: readonly Buffer[];
  readonly words: readonly ScriptWord[];
}

interface NewCall {
  readonly partition: number;
  /** What to ask, made when it is about to be sent; and again when it is sent again. */
  make(): Asked;
  /** That are held for it. */
  readonly bytes: number;
  /** How long it may wait. */
  readonly withinMs: number;
}

export interface Call extends Item<Call> {
  readonly partition: number;
  readonly make: () => Asked;
  asked: Asked | undefined;
  readonly bytes: number;
  readonly untilMs: number;
  /** Connections that broke while it was under way. */
  attempts: number;
  readonly resolve: (answer: unknown) => void;
  readonly reject: (error: unknown) => void;
}

/** A call that was under way so often when its connection broke is what breaks it. */
const attemptsMax = 8;
export const ending = 'this worker is about to end';
export const tooMuch = 'too much waits for Redis already';
/** What a call costs beside its words, about. */
const overheadBytes = 512;
/** Sent to one server before the first of them is answered. */
const callsUnderWayMax = 128;
const bytesUnderWayMax = 1 << 20;
/** In one pipeline. */
const callsAtOnceMax = 32;

export class ScriptCalls {
  readonly #bytesMax: number;
  readonly #now: () => number;
  readonly #onReady: (partition: number) => void;
  readonly #waiting: readonly List<Call>[];
  /** Waiting and under way. */
  bytes = 0;
  #count = 0;
  #isOpen = true;

  /** `onReady`: a partition has something to send. */
  constructor(partitions: number, bytesMax: number, now: () => number, onReady: (partition: number) => void) {
    this.#waiting = Array.from({ length: partitions }, () => new List<Call>());
    this.#bytesMax = bytesMax;
    this.#now = now;
    this.#onReady = onReady;
  }

  get isEmpty(): boolean {
    return this.#count === 0;
  }

  /** Rejects with a LinkUnavailableError, or the LinkError that Redis has answered with. */
  call({ partition, make, bytes: words, withinMs }: NewCall): Promise<unknown> {
    const bytes = words + overheadBytes;
    if (!this.#isOpen) return Promise.reject(new LinkUnavailableError(ending));
    if (this.bytes + bytes > this.#bytesMax) return Promise.reject(new LinkUnavailableError(tooMuch));
    return new Promise((resolve, reject) => {
      const untilMs = this.#now() + withinMs;
      const call: Call = {
        partition,
        make,
        asked: undefined,
        bytes,
        untilMs,
        attempts: 0,
        resolve,
        reject,
        before: undefined,
        after: undefined,
      };
      this.bytes += bytes;
      this.#count += 1;
      this.#waiting[partition]?.push(call);
      this.#onReady(partition);
    });
  }

  isReady(partition: number): boolean {
    return this.#waiting[partition]?.first !== undefined;
  }

  take(partition: number): Call | undefined {
    const waiting = this.#waiting[partition];
    const call = waiting?.first;
    if (call !== undefined) waiting?.remove(call);
    return call;
  }

  /** They go first again, in this order. `isAttempt`: they may have been what broke the connection. */
  back(calls: readonly Call[], isAttempt: boolean): void {
    for (const call of [...calls].reverse()) {
      call.asked = undefined;
      if (isAttempt) call.attempts += 1;
      if (!this.#isOpen) this.fail(call, new LinkUnavailableError(ending));
      else if (call.attempts >= attemptsMax) this.fail(call, new LinkUnavailableError('the connection breaks whenever it is asked'));
      else this.#waiting[call.partition]?.unshift(call);
    }
  }

  done(call: Call, answer: unknown): void {
    this.#end(call);
    call.resolve(answer);
  }

  fail(call: Call, error: unknown): void {
    this.#end(call);
    call.reject(error);
  }

  #end(call: Call): void {
    this.bytes -= call.bytes;
    this.#count -= 1;
  }

  /** Calls whose time is over wait no longer. */
  tick(): void {
    if (this.#count === 0) return;
    const now = this.#now();
    for (const waiting of this.#waiting) {
      for (let call = waiting.first; call !== undefined; ) {
        const next: Call | undefined = call.after;
        if (call.untilMs <= now) {
          waiting.remove(call);
          this.fail(call, new LinkUnavailableError('Redis does not answer'));
        }
        call = next;
      }
    }
  }

  /** Nothing waits, and nothing will. */
  close(): void {
    this.#isOpen = false;
    for (const waiting of this.#waiting) {
      for (let call = waiting.first; call !== undefined; call = waiting.first) {
        waiting.remove(call);
        this.fail(call, new LinkUnavailableError(ending));
      }
    }
  }
}

export interface CallerEvents {
  isParked(partition: number): boolean;
  onMoved(failure: Failure, partition: number): void;
  /** The connection is of no use any more. */
  onFailure(failure: Failure): void;
}

/** Those of one server. */
export class ScriptCaller {
  readonly #calls: ScriptCalls;
  readonly #events: CallerEvents;
  #connection: Connection | undefined;
  /** Scripts that this server has been given in the present connection. */
  readonly #known = new Set<Script>();
  #partitions: readonly number[] = [];
  #turn = 0;
  /** In the order of sending. */
  readonly #underWay = new Set<Call>();
  #bytes = 0;
  #isDue = false;

  constructor(calls: ScriptCalls, events: CallerEvents) {
    this.#calls = calls;
    this.#events = events;
  }

  setPartitions(partitions: readonly number[]): void {
    this.#partitions = partitions;
  }

  begin(connection: Connection): void {
    this.#connection = connection;
    this.flushSoon();
  }

  /** The connection is given up. `isBroken`: what was under way may have broken it. */
  end(isBroken: boolean): void {
    this.#connection = undefined;
    this.#known.clear();
    const calls = [...this.#underWay];
    this.#underWay.clear();
    this.#bytes = 0;
    this.#calls.back(calls, isBroken);
  }

  flushSoon(): void {
    if (this.#isDue || this.#connection === undefined || this.#isFull) return;
    this.#isDue = true;
    // Behind what the present turn still has to call.
    setImmediate(() => {
      this.#isDue = false;
      this.#flush();
    });
  }

  get #isFull(): boolean {
    return this.#underWay.size >= callsUnderWayMax || this.#bytes >= bytesUnderWayMax;
  }

  #flush(): void {
    const connection = this.#connection;
    if (connection === undefined) return;
    const calls: Call[] = [];
    for (let idle = 0; idle < this.#partitions.length && calls.length < callsAtOnceMax && !this.#isFull; ) {
      this.#turn = (this.#turn + 1) % this.#partitions.length;
      const partition = this.#partitions[this.#turn] as number;
      const call = this.#events.isParked(partition) ? undefined : this.#calls.take(partition);
      if (call === undefined) {
        idle += 1;
        continue;
      }
      idle = 0;
      this.#underWay.add(call);
      call.asked ??= call.make();
      this.#bytes += bytesOf(call.asked);
      calls.push(call);
    }
    if (calls.length === 0) return;
    this.#send(connection, calls);
    this.flushSoon();
  }

  #send(connection: Connection, calls: readonly Call[]): void {
    const pipeline = connection.redis.pipeline();
    for (const { asked } of calls) {
      const { script, keys, words } = asked as Asked;
      const isKnown = this.#known.has(script);
      this.#known.add(script);
      pipeline.callBuffer(isKnown ? 'EVALSHA' : 'EVAL', isKnown ? script.sha : script.text, keys.length, ...keys, ...words);
    }
    pipeline.exec().then(
      (results) => {
        if (connection === this.#connection) this.#answered(connection, calls, results ?? []);
      },
      (error: unknown) => {
        if (connection === this.#connection) this.#events.onFailure(connection.failureOf(error));
      },
    );
  }

  #answered(connection: Connection, calls: readonly Call[], results: readonly [Error | null, unknown][]): void {
    let worst: Failure | undefined;
    for (const [i, call] of calls.entries()) {
      const [error, answer] = results[i] ?? [new LinkError({ kind: 'gone', text: 'no answer' }), undefined];
      const failure = error === null ? undefined : connection.failureOf(error);
      if (failure?.kind === 'gone') {
        // Stays under way, until the connection is given up.
        worst = failure;
        continue;
      }
      this.#underWay.delete(call);
      this.#bytes -= bytesOf(call.asked as Asked);
      if (failure === undefined) this.#calls.done(call, answer);
      else if (!this.#goesBack(failure, call)) this.#calls.fail(call, new LinkError(failure));
      else if (failure.kind === 'later') worst ??= failure;
    }
    if (worst !== undefined) this.#events.onFailure(worst);
    else this.flushSoon();
  }

  /** ret: false: it will never do. What a script may not do must not take the messages of other topics along: the connection stays. */
  #goesBack(failure: Failure, call: Call): boolean {
    const isUnknown = /^NOSCRIPT\b/.test(failure.text);
    if (failure.kind !== 'moved' && failure.kind !== 'later' && !isUnknown) return false;
    // SCRIPT FLUSH.
    if (isUnknown) this.#known.delete((call.asked as Asked).script);
    this.#calls.back([call], false);
    if (failure.kind === 'moved') this.#events.onMoved(failure, call.partition);
    return true;
  }
}

function bytesOf({ keys, words }: Asked): number {
  let bytes = overheadBytes;
  for (const key of keys) bytes += key.byteLength;
  for (const word of words) bytes += typeof word === 'number' ? 8 : word.length;
  return bytes;
}
