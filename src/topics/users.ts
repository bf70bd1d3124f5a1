/**
 * All connections of a user, on whichever worker and node: a reserved topic that each of them is subscribed to as soon as it is known whose it is.
 * Role: up: frontends, which say whose a connection is; topic-server.ts, which sends to a user and disconnects one. Down: the core.
 */
import type { ConnectionName } from '../core/connection.ts';
import type { Core } from '../core/core.ts';

/** Longest id of a user that has such a topic, in bytes; others are reached by nobody. */
export const userIdBytesMax = 1022;

export function userTopic(id: string): string {
  return `\0u${id}`;
}

/** Whether there is a topic for this user. */
export function isUserId(id: unknown): id is string {
  return typeof id === 'string' && id !== '' && Buffer.byteLength(id) <= userIdBytesMax;
}

/** This connection, which was accepted, is that user's. */
export function bindUser(core: Pick<Core, 'subscribe'>, { slot, generation }: ConnectionName, id: string): void {
  if (isUserId(id)) core.subscribe(slot, generation, userTopic(id));
}
