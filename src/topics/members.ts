/**
 * Who a connection is on a topic with presence, and that it is there as long as it is subscribed.
 *
 * Role: policies → members of the core, which binds each to its subscription: nothing is called when a connection ends. Up: subscriptions.ts,
 * topic-server.ts. Who cannot be a member stays subscribed, unseen: counted, and said where the config is to blame.
 */
import type { Presence, TopicConnection } from '../api/topics.ts';
import type { PresenceSettings } from '../config/topics.ts';
import type { PresenceCommands } from '../core/presence-commands.ts';
import type { FoundPolicy } from './policies.ts';
import type { PresencePage } from './store.ts';
import { PolicyClient } from './topic-client.ts';

/** Longest name of a user, as in the core. */
const userBytesMax = 1024;
const noInfo = new Uint8Array();

interface Member {
  readonly user: string;
  readonly info: Uint8Array;
}

export type MemberRefusal = 'members_full' | 'member_invalid';

export interface MembersPorts {
  readonly core: Pick<PresenceCommands, 'presenceJoin'>;
  /** The function of the config has failed, or gave what is no member. Counted, and said. */
  failed(context: object, sentence: string): void;
  count(refusal: MemberRefusal): void;
}

export class Members {
  readonly #ports: MembersPorts;

  constructor(ports: MembersPorts) {
    this.#ports = ports;
  }

  /** A connection that is subscribed joins. ret: whether it is seen there */
  join(connection: TopicConnection, topic: string, found: FoundPolicy, presence: PresenceSettings): boolean {
    const member = this.#memberOf(connection, topic, found, presence);
    if (member === 'unseen') return false;
    if (member === undefined) {
      this.#ports.count('member_invalid');
      return false;
    }
    const { slot, generation } = connection;
    const { grace, maxMembers } = presence;
    const outcome = this.#ports.core.presenceJoin(slot, generation, topic, member.user, member.info, grace * 1000, maxMembers);
    if (outcome === 'full') this.#ports.count('members_full');
    return outcome === 'joined' || outcome === 'again';
  }

  #memberOf(connection: TopicConnection, topic: string, found: FoundPolicy, presence: PresenceSettings): Member | 'unseen' | undefined {
    try {
      if (presence.member === undefined) return { user: connection.user?.id ?? connection.id, info: noInfo };
      const value = presence.member(new PolicyClient(connection, found.params));
      return value === undefined ? 'unseen' : memberFrom(value, presence.maxInfoBytes);
    } catch (err) {
      const { pattern } = found.policy;
      this.#ports.failed({ err, topic, policy: pattern }, `member of the topics ${pattern} failed: the client is subscribed, and not seen`);
      return undefined;
    }
  }
}

/** Throws what is to be said of it. */
function memberFrom(value: unknown, maxInfoBytes: number): Member {
  const { id, info } = typeof value === 'object' && value !== null ? (value as { id?: unknown; info?: unknown }) : { id: value };
  if (typeof id !== 'string' || id === '' || Buffer.byteLength(id) > userBytesMax)
    throw new TypeError(`a member is the id of a user, a string of 1 to ${userBytesMax} bytes of UTF-8, or { id, info }`);
  if (info === undefined) return { user: id, info: noInfo };
  const text = JSON.stringify(info);
  if (text === undefined) throw new TypeError('JSON cannot say the info of the member');
  const bytes = Buffer.from(text);
  if (bytes.byteLength > maxInfoBytes)
    throw new RangeError(`the info of the member has ${bytes.byteLength} bytes as JSON, and maxInfoBytes is ${maxInfoBytes}`);
  return { user: id, info: bytes };
}

export function presenceOf({ position, members }: PresencePage): Presence {
  const users = members.map(({ user, info, connections }) => ({ id: user, connections, ...memberInfo(info) }));
  return { epoch: position.epoch, offset: position.offset, count: users.length, users };
}

/** `info`: JSON, or nothing. What another node has written and is no JSON is left out. */
export function memberInfo(info: Uint8Array): { readonly info?: unknown } {
  if (info.byteLength === 0) return {};
  try {
    return { info: JSON.parse(Buffer.from(info).toString()) as unknown };
  } catch {
    return {};
  }
}
