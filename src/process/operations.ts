/**
 * What the admin listener has workers do with topics, and what they answer: plain values, as they pass between the processes.
 * Role: supervisor/operations.ts hands them out, worker/operations.ts does them.
 */

/** A message as it came: text as it is, bytes as base64. */
export interface CarriedMessage {
  readonly data: string;
  readonly isBinary: boolean;
}

export interface PublishOperation extends CarriedMessage {
  readonly kind: 'publish';
  readonly topic: string;
  /** 1 to 128 bytes of UTF-8; refused for topics that do not know keys. */
  readonly idempotencyKey?: string | undefined;
}

export interface HistoryOperation {
  readonly kind: 'history';
  readonly topic: string;
  /** A position as text. */
  readonly since?: string | undefined;
  readonly limit: number;
  readonly reverse: boolean;
  /** Of what messages hold, beyond the first one. */
  readonly bytesMax: number;
}

export interface PresenceOperation {
  readonly kind: 'presence';
  readonly topic: string;
  /** Users at most. */
  readonly limit: number;
  /** Of what is said of users, beyond the first one. */
  readonly bytesMax: number;
}

export interface TopicsOperation {
  readonly kind: 'topics';
  readonly prefix: string;
  readonly limit: number;
  /** Of names, beyond the first one. */
  readonly bytesMax: number;
}

export interface SubscribersOperation {
  readonly kind: 'subscribers';
  readonly topic: string;
}

export interface DisconnectOperation {
  readonly kind: 'disconnect';
  readonly target: { readonly socket: string } | { readonly user: string } | { readonly topic: string };
  readonly code: number;
  readonly reason: string;
}

export interface SendOperation extends CarriedMessage {
  readonly kind: 'send';
  readonly user: string;
}

export type Operation =
  | PublishOperation
  | HistoryOperation
  | PresenceOperation
  | TopicsOperation
  | SubscribersOperation
  | DisconnectOperation
  | SendOperation;

/**
 * 'wrong': what was asked for is not in order. 'absent': there is no such thing. 'unavailable': nothing was done; try again. 'busy': the same, too much is
 * being asked at once. 'unknown': it may or may not have been done. 'failed': a defect.
 */
export interface OperationProblem {
  readonly kind: 'wrong' | 'absent' | 'unavailable' | 'busy' | 'unknown' | 'failed';
  /** For people. */
  readonly error: string;
}

/** `answer`: as the admin listener sends it. */
export type OperationResult = { readonly answer: Readonly<Record<string, unknown>> } | { readonly problem: OperationProblem };
