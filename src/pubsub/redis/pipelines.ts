/**
 * What a shard publishes: batches of its lanes, by turns, some pipelines at a time.
 *
 * Role: below shard.ts. Down: outbox.ts, connection.ts. Each answer of Redis ends one batch; what has none when the connection is lost goes
 * back into the outbox. One pipeline is made in a turn of the event loop, so that a full outbox holds nothing up.
 */

import type { Batch, Lane } from '../nodes/outbox.ts';
import type { Connection } from './connection.ts';
import type { Failure } from './failure.ts';
import type { ShardHost } from './shard.ts';

const pipelineBatchesMax = 128;
const pipelineBytesMax = 256 * 1024;
/** Sent before the first of them is answered. */
const pipelinesMax = 4;

export interface PipelineEvents {
  onMoved(failure: Failure, partition: number): void;
  /** The connection is of no use any more. */
  onFailure(failure: Failure): void;
}

export class Pipelines {
  readonly #host: ShardHost;
  readonly #isSharded: boolean;
  readonly #events: PipelineEvents;
  /** Where to; undefined: nowhere now. */
  #connection: Connection | undefined;
  #lanes: readonly Lane[] = [];
  #turn = 0;
  readonly #underWay = new Set<readonly Batch[]>();
  #isFlushDue = false;
  /**
   * Nothing is sent for so long: what waited while the server was gone is for nodes that are only just coming back, and would be lost on
   * those that take a moment longer.
   */
  #holdMs = 0;
  /** Under way. */
  bytes = 0;

  constructor(host: ShardHost, isSharded: boolean, events: PipelineEvents) {
    this.#host = host;
    this.#isSharded = isSharded;
    this.#events = events;
  }

  setLanes(lanes: readonly Lane[]): void {
    this.#lanes = lanes;
  }

  begin(connection: Connection, holdMs: number): void {
    this.#connection = connection;
    this.hold(holdMs);
  }

  /** The connection is given up. `isBroken`: what was under way may have broken it. */
  end(isBroken: boolean): void {
    this.#connection = undefined;
    const batches = [...this.#underWay].flat();
    this.#underWay.clear();
    this.bytes = 0;
    // The oldest comes to stand in front.
    for (const batch of batches.reverse()) this.#host.outbox.back(batch, isBroken);
  }

  tick(ms: number): void {
    if (this.#holdMs > 0) this.hold(this.#holdMs - ms);
  }

  hold(ms: number): void {
    this.#holdMs = ms;
    this.flushSoon();
  }

  flushSoon(): void {
    if (this.#isFlushDue || !this.#maySend) return;
    this.#isFlushDue = true;
    setImmediate(() => {
      this.#isFlushDue = false;
      this.#flush();
    });
  }

  get #maySend(): boolean {
    return this.#connection !== undefined && this.#holdMs <= 0 && this.#underWay.size < pipelinesMax;
  }

  #flush(): void {
    if (!this.#maySend) return;
    const batches: Batch[] = [];
    let bytes = 0;
    let idleLanes = 0;
    while (idleLanes < this.#lanes.length && batches.length < pipelineBatchesMax && bytes < pipelineBytesMax) {
      this.#turn = (this.#turn + 1) % this.#lanes.length;
      const batch = this.#takeFrom(this.#lanes[this.#turn] as Lane);
      if (batch === undefined) {
        idleLanes += 1;
        continue;
      }
      idleLanes = 0;
      bytes += batch.envelope.byteLength;
      batches.push(batch);
    }
    if (batches.length === 0) return;
    this.#send(this.#connection as Connection, batches, bytes);
    this.flushSoon();
  }

  #takeFrom(lane: Lane): Batch | undefined {
    return lane.isReady && !this.#host.isParked(lane.partition) ? this.#host.outbox.take(lane) : undefined;
  }

  #send(connection: Connection, batches: readonly Batch[], bytes: number): void {
    const pipeline = connection.redis.pipeline();
    for (const { key, lane, envelope } of batches) {
      const name = this.#host.channels.nameOf(key, lane.partition);
      if (this.#isSharded) pipeline.spublish(name, envelope as Buffer);
      else pipeline.publish(name, envelope as Buffer);
    }
    this.#underWay.add(batches);
    this.bytes += bytes;
    pipeline.exec().then(
      (results) => {
        if (connection === this.#connection) this.#sent(connection, batches, bytes, results ?? []);
      },
      (error: unknown) => {
        if (connection === this.#connection) this.#events.onFailure(connection.failureOf(error));
      },
    );
  }

  #sent(connection: Connection, batches: readonly Batch[], bytes: number, results: readonly [Error | null, unknown][]): void {
    const { outbox } = this.#host;
    let worst: Failure | undefined;
    this.#underWay.delete(batches);
    this.bytes -= bytes;
    batches.forEach((batch, i) => {
      const error = results[i]?.[0];
      if (error === null) {
        outbox.done(batch);
        return;
      }
      const failure = connection.failureOf(error);
      if (failure.kind === 'moved') {
        this.#events.onMoved(failure, batch.lane.partition);
        outbox.back(batch, false);
      } else if (failure.kind === 'rejected') {
        this.#host.onError(failure);
        outbox.discard(batch);
      } else {
        outbox.back(batch, failure.kind === 'gone');
        worst = failure;
      }
    });
    this.#host.onPublished();
    if (worst !== undefined) this.#events.onFailure(worst);
    else this.flushSoon();
  }
}
