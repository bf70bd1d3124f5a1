/**
 * What carries published messages to everybody who is subscribed to their topic.
 *
 *   publish() → subscribers of this worker → other workers of the node → other nodes
 *               memory bus                   node bus                    Redis bus
 *
 * Each bus does all that the one before it does. One contract suite (tests/contract) holds for all of them.
 *
 * Guarantee: at most once. A message reaches each subscriber once, or not at all; never twice, never in part, and its publisher only when
 * it is itself subscribed. It is not kept: who subscribes later does not get it.
 * Order: what one worker publishes to one topic arrives in that order. Between publishers, and between topics, there is none.
 * Lost are messages for a client past its backpressure limit; between workers, when the receiver dies or its ring and the outbox are full;
 * between nodes, what the bounded outbox could not hold while Redis was gone, and what was published while a node's subscription was
 * interrupted. Each loss is counted.
 * Interest: a message goes only to workers, and to nodes, that have subscribers of its topic. A subscription counts on other nodes a round trip
 * to Redis later, and stays there for a while after its last subscriber has left.
 */
import type { Payload, Topic } from '../core/core.ts';

export type BusKind = 'memory' | 'node' | 'redis';

/** 'up': every subscription that is wanted is in place. 'lost': other nodes cannot be reached; this one goes on. */
export type BusState = 'connecting' | 'up' | 'lost';

export interface Bus {
  readonly kind: BusKind;
  readonly state: BusState;
  /**
   * Deliver a message to every subscriber of `topic`. Copies what it needs before it returns, and never waits.
   * `flags`: RW_SEND_*. `exceptSlot`, `exceptGeneration`: a subscriber of this worker to leave out.
   */
  publish(topic: Topic, flags: number, payload: Payload, exceptSlot?: number, exceptGeneration?: number): void;
  /** Send what waits, for `deadlineMs` at most, then let go of connections. Publishing afterwards stays on this node. */
  close(deadlineMs: number): Promise<void>;
}
