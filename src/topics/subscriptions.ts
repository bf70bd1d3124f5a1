/**
 * Connections come to topics with a policy: they are admitted, attached to the log where they were, and seen if there is presence.
 *
 *   admit ──► attach ──► member, events of presence
 *               │ unfollowed: wait until the store's log has come to this node
 *               └ behind: send what the node has not any more, from the store
 *
 * Role: up: topics.ts. Down: admission.ts, members.ts, the store, and the core, where attaching is one step without a seam. Where nothing must be
 * waited for all of it is done before the call returns.
 */
import type { Admitted, Presence, SubscribeRefusal, SubscribeResult, TopicConnection } from '../api/topics.ts';
import type { Core } from '../core/core.ts';
import type { AttachOutcome, LogCommands, LogLimits, Position } from '../core/log-commands.ts';
import { parsePosition } from '../core/position.ts';
import { presenceTopic } from '../core/presence-commands.ts';
import type { Admission, Verdict } from './admission.ts';
import { type Members, presenceOf } from './members.ts';
import type { FoundPolicy } from './policies.ts';
import { StoreUnavailableError, type TopicStore } from './store.ts';

export type SubscribeCounter = `refused_${Exclude<SubscribeRefusal, 'closed' | 'unsubscribed' | 'limit'>}` | RecoveryCounter;
type RecoveryCounter = 'recovered' | 'recovery_lost' | 'recovery_malformed';

export type SubscribeCore = Pick<Core, 'subscribe' | 'subscribeNow' | 'unsubscribe' | 'isOpen' | 'isSubscribed' | 'buffered'> &
  Pick<LogCommands, 'attach' | 'sendLogged'>;

export interface SubscriptionsPorts {
  readonly core: SubscribeCore;
  readonly store: TopicStore;
  readonly admission: Admission;
  readonly members: Members;
  /** The token of a topic ends: from then on the connection may not stay, unless it subscribes again with another. */
  endsAt(connection: TopicConnection, topic: string, expiresAt: number | undefined): void;
  count(counter: SubscribeCounter): void;
}

/** Messages that are read from the store at a time for one connection. */
const pageSize = 200;
/** How often a connection that takes no more is looked at, in milliseconds. */
const drainPollMs = 20;
/** How long who is there is asked for again, when it and the log of joins and leaves do not agree, and how seldom. */
const watchMs = 10_000;
const watchPollMsMax = 500;

/** A subscription that waits for something. `unsubscribe` calls it off. */
interface Pending {
  count: number;
  isCalledOff: boolean;
}

interface Wishes {
  readonly since: Position | undefined;
  /** Without `since`: so many of the last messages first. */
  readonly history: number;
  readonly presence: boolean;
  readonly onPresence: ((presence: Presence) => void) | undefined;
}

const noWishes: Wishes = { since: undefined, history: 0, presence: false, onPresence: undefined };

export class Subscriptions {
  readonly #ports: SubscriptionsPorts;
  readonly #pending = new Map<string, Pending>();

  constructor(ports: SubscriptionsPorts) {
    this.#ports = ports;
  }

  /** ret: as Topics.subscribe */
  subscribe(connection: TopicConnection, topic: string, found: FoundPolicy): boolean {
    const { core, admission } = this.#ports;
    if (!core.isOpen(connection.slot, connection.generation)) return false;
    const verdict = admission.admit(connection, topic, found, undefined);
    if (verdict instanceof Promise) {
      hold(connection, this.#later(connection, topic, found, noWishes, verdict));
      return true;
    }
    const refusal = this.#refusalOf(verdict);
    if (refusal !== undefined) return false;
    if (found.policy.history === false) return this.#enter(connection, topic, found).subscribed;
    const outcome = this.#attach(connection, topic, undefined);
    if (outcome.kind === 'unfollowed' || outcome.kind === 'behind') {
      hold(connection, this.#later(connection, topic, found, noWishes, verdict));
      return true;
    }
    return this.#settle(connection, topic, found, outcome, undefined).subscribed;
  }

  /** ret: as Topics.subscribeWith. Never rejects. */
  async subscribeWith(
    connection: TopicConnection,
    topic: string,
    found: FoundPolicy,
    wishes: Omit<Wishes, 'since'> & {
      readonly since: Position | string | undefined;
      readonly token: string | undefined;
      readonly admitted: Admitted | undefined;
    },
  ): Promise<SubscribeResult> {
    const { core, admission } = this.#ports;
    if (!core.isOpen(connection.slot, connection.generation)) return refused('closed');
    const since = typeof wishes.since === 'string' ? parsePosition(wishes.since) : wishes.since;
    if (wishes.since !== undefined && since === undefined) this.#ports.count('recovery_malformed');
    const verdict = wishes.admitted ?? admission.admit(connection, topic, found, wishes.token);
    return this.#later(connection, topic, found, { ...wishes, since }, verdict);
  }

  /** Whatever waits for this connection to be subscribed is called off. */
  callOff(connection: { readonly slot: number; readonly generation: number }, topic: string): void {
    if (this.#pending.size === 0) return;
    const key = pendingKey(connection, topic);
    const pending = this.#pending.get(key);
    if (pending === undefined) return;
    pending.isCalledOff = true;
    this.#pending.delete(key);
  }

  async #later(
    connection: TopicConnection,
    topic: string,
    found: FoundPolicy,
    wishes: Wishes,
    verdict: Verdict | Promise<Verdict>,
  ): Promise<SubscribeResult> {
    const key = pendingKey(connection, topic);
    const pending = this.#pending.get(key) ?? { count: 0, isCalledOff: false };
    pending.count++;
    this.#pending.set(key, pending);
    try {
      const settled = await verdict;
      const refusal = this.#refusalOf(settled);
      if (refusal !== undefined) return refused(refusal);
      const result = await this.#come(connection, topic, found, wishes, pending);
      if (result.subscribed && typeof settled === 'object') this.#ports.endsAt(connection, topic, settled.expiresAt);
      return result;
    } catch {
      // Of the store alone: all else answers.
      this.#ports.count('refused_unavailable');
      return refused('unavailable');
    } finally {
      if (--pending.count === 0 && this.#pending.get(key) === pending) this.#pending.delete(key);
    }
  }

  async #come(connection: TopicConnection, topic: string, found: FoundPolicy, wishes: Wishes, pending: Pending): Promise<SubscribeResult> {
    const { store } = this.#ports;
    const { history, recover, presence } = found.policy;
    let result: SubscribeResult;
    if (history === false) result = pending.isCalledOff ? refused('unsubscribed') : this.#enter(connection, topic, found);
    else {
      let since = recover ? (wishes.since ?? (await this.#before(topic, history, wishes.history))) : undefined;
      // Another node may have told this client more than has come to this one.
      if (since !== undefined) await store.reach(topic, since, history);
      for (;;) {
        if (pending.isCalledOff) return refused('unsubscribed');
        const outcome = this.#attach(connection, topic, since);
        if (outcome.kind === 'unfollowed') await store.follow(topic, history);
        else if (outcome.kind === 'behind' && since !== undefined) since = await this.#feed(connection, topic, found, since, pending);
        else {
          result = this.#settle(connection, topic, found, outcome, recover ? wishes.since : undefined);
          break;
        }
      }
    }
    if (!result.subscribed || !wishes.presence || presence === false) return result;
    try {
      return await this.#watch(connection, topic, result, wishes, pending);
    } catch (error) {
      // It is told that it is not subscribed: then it is not.
      this.#leave(connection, topic);
      throw error;
    }
  }

  /** The place before the last messages, so many. ret: undefined: there are none */
  async #before(topic: string, limits: LogLimits, messages: number): Promise<Position | undefined> {
    if (messages === 0) return undefined;
    const page = await this.#ports.store.read(topic, { limit: messages, reverse: true }, limits);
    const oldest = page.messages.at(-1);
    return oldest && { epoch: page.position.epoch, offset: oldest.offset - 1 };
  }

  /** Send what came after `since` and this node has not any more. ret: up to where it was sent; undefined: some of it is gone */
  async #feed(
    connection: TopicConnection,
    topic: string,
    found: FoundPolicy,
    since: Position,
    pending: Pending,
  ): Promise<Position | undefined> {
    const { core, store } = this.#ports;
    const { slot, generation } = connection;
    const limits = found.policy.history;
    if (limits === false) return undefined;
    const page = await store.read(topic, { since, limit: pageSize }, limits);
    if (!page.recovered || page.messages.length === 0) return undefined;
    let at = since;
    for (const { offset, flags, payload } of page.messages) {
      const position = { epoch: page.position.epoch, offset };
      while (!pending.isCalledOff && core.sendLogged(slot, generation, topic, position, flags, payload) === 'dropped')
        await this.#drained(slot, generation, pending);
      if (pending.isCalledOff || !core.isOpen(slot, generation)) return at;
      at = position;
    }
    return at;
  }

  /** Until the connection has room again, or is gone. */
  async #drained(slot: number, generation: number, pending: Pending): Promise<void> {
    const { core } = this.#ports;
    const enough = core.buffered(slot, generation) / 2;
    while (!pending.isCalledOff && core.isOpen(slot, generation) && core.buffered(slot, generation) > enough) await Bun.sleep(drainPollMs);
  }

  #attach(connection: TopicConnection, topic: string, since: Position | undefined): AttachOutcome {
    const { core, store } = this.#ports;
    if (!store.isAtHand(topic) && core.isOpen(connection.slot, connection.generation)) return { kind: 'unfollowed' };
    return core.attach(connection.slot, connection.generation, topic, { since });
  }

  /** Of a topic with history: what came of attaching. `since`: what was asked for, if anything. */
  #settle(
    connection: TopicConnection,
    topic: string,
    found: FoundPolicy,
    outcome: AttachOutcome,
    since: Position | undefined,
  ): SubscribeResult {
    if (outcome.kind === 'full') return this.#full(connection, topic);
    if (outcome.kind !== 'attached') return refused('closed');
    const { recovered, epoch, offset } = outcome;
    if (since !== undefined) this.#ports.count(recovered ? 'recovered' : 'recovery_lost');
    return { subscribed: true, recovered, epoch, offset, ...this.#join(connection, topic, found) };
  }

  /** A topic without history. */
  #enter(connection: TopicConnection, topic: string, found: FoundPolicy): SubscribeResult {
    const { core } = this.#ports;
    const { slot, generation } = connection;
    // A member needs its subscription at once; all others may wait for the end of the turn.
    const isIn =
      found.policy.presence === false ? core.subscribe(slot, generation, topic) : core.subscribeNow(slot, generation, topic) >= 0;
    if (!isIn) return refused(core.isOpen(slot, generation) ? 'limit' : 'closed');
    return { subscribed: true, recovered: false, ...this.#join(connection, topic, found) };
  }

  #join(connection: TopicConnection, topic: string, found: FoundPolicy): { readonly isMember?: boolean } {
    const { presence } = found.policy;
    return presence === false ? {} : { isMember: this.#ports.members.join(connection, topic, found, presence) };
  }

  /** The client is told of joins and leaves from now on; the answer says who is there by then. */
  async #watch(
    connection: TopicConnection,
    topic: string,
    result: SubscribeResult,
    wishes: Wishes,
    pending: Pending,
  ): Promise<SubscribeResult> {
    const { core, store } = this.#ports;
    const began = performance.now();
    for (let rounds = 1; ; rounds++) {
      const page = await store.presence(topic);
      // What this node has may be older than the list, or another log, or not follow yet: a list that is told must be one that goes on here.
      await store.reach(presenceTopic(topic), page.position, presenceLogLimits);
      if (pending.isCalledOff) return refused('unsubscribed');
      const presence = presenceOf(page);
      wishes.onPresence?.(presence);
      const outcome = core.attach(connection.slot, connection.generation, topic, { since: page.position, isPresence: true });
      if (outcome.kind === 'attached' && outcome.recovered) return { ...result, presence };
      if (outcome.kind === 'closed') return refused('closed');
      if (outcome.kind === 'full') return this.#full(connection, topic);
      core.unsubscribe(connection.slot, connection.generation, presenceTopic(topic));
      if (performance.now() - began > watchMs) throw new StoreUnavailableError('its joins and leaves do not come to this node');
      // A log that has begun anew elsewhere is not waited for: whoever follows it may not have seen that yet.
      if (rounds > 1) await Bun.sleep(Math.min(rounds * drainPollMs, watchPollMsMax));
    }
  }

  /** As many topics as may be, or no memory for another log. Nothing stays half done. */
  #full(connection: TopicConnection, topic: string): SubscribeResult {
    this.#leave(connection, topic);
    this.#ports.count('refused_full');
    return refused('full');
  }

  #leave({ slot, generation }: TopicConnection, topic: string): void {
    this.#ports.core.unsubscribe(slot, generation, topic);
    this.#ports.core.unsubscribe(slot, generation, presenceTopic(topic));
  }

  #refusalOf(verdict: Verdict): 'forbidden' | 'token' | undefined {
    if (typeof verdict === 'object') return undefined;
    this.#ports.count(`refused_${verdict}`);
    return verdict;
  }
}

/** What the core keeps of joins and leaves. */
export const presenceLogLimits = { size: 1000, seconds: 300 } as const;

/** `subscribed` never rejects. */
function hold(connection: TopicConnection, subscribed: Promise<unknown>): void {
  connection.holdUntil?.(subscribed);
}

function refused(reason: SubscribeRefusal): SubscribeResult {
  return { subscribed: false, reason, recovered: false };
}

function pendingKey({ slot, generation }: { readonly slot: number; readonly generation: number }, topic: string): string {
  return `${slot} ${generation} ${topic}`;
}
