/**
 * Entries of presence logs, as handlers are told of them.
 * Role: pure. Up: topic-server.ts.
 */
import type { PresenceEvent } from '../api/topics.ts';
import { commandFlag } from '../core/abi.ts';
import { decodePresenceEntry } from '../core/presence-commands.ts';
import { memberInfo } from './members.ts';

/** ret: undefined: it is no entry of a presence log, or one that makes no sense */
export function presenceEventOf(topic: string, flags: number, payload: Uint8Array): PresenceEvent | undefined {
  const kind = flags & (commandFlag.entryJoin | commandFlag.entryLeave);
  const entry = decodePresenceEntry(payload);
  if (entry === undefined || (kind !== commandFlag.entryJoin && kind !== commandFlag.entryLeave)) return undefined;
  return { event: kind === commandFlag.entryJoin ? 'join' : 'leave', topic, user: entry.user, ...memberInfo(entry.info) };
}
