/**
 * A topic that this worker owns: who wants it, what has come, and whether it is on its way from or to another owner.
 * Role: the record that ownership.ts, takeover.ts and giveaway.ts share.
 */
import type { Given, Letter } from './mail.ts';
import type { Sequences } from './sequences.ts';

/** A message that cannot be handed on yet; the bytes are its own. */
export interface HeldMessage {
  /** The publisher's number, see sequences.ts. */
  readonly publisher: number;
  readonly sequence: number;
  readonly flags: number;
  readonly payload: Uint8Array;
}

/** Other workers may still hand the topic on: what comes is held back until they have let go, or have had their time. */
export interface Taking {
  /** Workers that have not answered. */
  readonly asked: Set<number>;
  askedAtMs: number | undefined;
  /** Answers whose `pass` has not gone around. */
  passes: number;
  /** One of them will never answer: what it has handed on is not known. */
  isUnanswered: boolean;
  /** Therefore what comes is thrown away until another subscription has begun. */
  isRenewing: boolean;
  /** One of them has held the topic and let go of it. */
  wasGiven: boolean;
  readonly messages: HeldMessage[];
  bytes: number;
}

/** Other workers want the topic. */
export interface Giving {
  readonly to: Set<number>;
  /** From then on they hand it on, whatever has been answered. */
  untilMs: number;
  isLeaving: boolean;
}

export interface OwnedTopic {
  readonly key: string;
  /** Workers with subscribers, as `memberOf` numbers them. */
  readonly members: number[];
  /** A member had it from an owner before: it has missed something, unless that owner gave it. */
  wasInterrupted: boolean;
  /** Its former owner has let go of it when asked: nothing was missed. */
  isWhole: boolean;
  /** Absent until something has come. */
  seen: Sequences | undefined;
  taking: Taking | undefined;
  giving: Giving | undefined;
}

/** More than there are places in a node's shared memory. */
const placesMax = 512;

/** A worker's process as one number: a successor at its place is another member. */
export function memberOf(worker: number, epoch: number): number {
  return epoch * placesMax + worker;
}

export function workerOf(member: number): number {
  return member % placesMax;
}

/** What handing topics over needs of the world; see ownership.ts. */
export interface HandoverPorts {
  readonly self: number;
  /** All places of the node. */
  readonly places: number;
  now(): number;
  sharedNow(): number;
  soon(call: () => void): void;
  send(to: number, letter: Letter): 'sent' | 'gone';
}

export function costOf(given: Given): number {
  return 8 + given.topic.length + given.marks.length * 18;
}
