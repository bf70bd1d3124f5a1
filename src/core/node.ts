/**
 * A worker among the others of its node: what the core tells of them, and which of them own topics.
 * Role: types between the core and what joins nodes. Implemented by src/core/core.ts.
 */

/** Bytes of a topic's name, as in the core: longer names have no subscribers. */
export const topicBytesMax = 1024;

/** Called inside a turn; must not block. The bytes are copies, to be kept as long as one likes. */
export interface BusEvents {
  /**
   * This worker has begun, or ceased, to have subscribers of a topic; only with `wantsInterest`. Nothing is told of what changes back before
   * it could be told, and the last call about a topic is always true.
   */
  onInterest(topic: Uint8Array, wanted: boolean): void;
  /** What another worker has sent with `mail`, once and in order; only with `wantsMail`. `epoch`: which of the processes at its place. */
  onMail(from: number, epoch: number, bytes: Uint8Array): void;
}

/** 'gone': nobody lives there. 'full': nothing was sent, since it takes nothing at present; try again later. */
export type MailOutcome = 'sent' | 'gone' | 'full';

/**
 * What became of a published message, as far as its worker knows at once. The subscribers of its own node get it in each case.
 * 'accepted': so do those of other nodes, if there are any. 'queued': other nodes cannot be reached now; it waits in the outbox, and goes out when they
 * can be, unless more comes than that holds. 'dropped': other nodes do not get it; the counters tell.
 */
export type PublishResult = 'accepted' | 'queued' | 'dropped';

/** The workers that own topics: those at the places from `first` on. */
export interface NodeView {
  /** How often that has changed. */
  readonly generation: number;
  readonly first: number;
  readonly count: number;
}
