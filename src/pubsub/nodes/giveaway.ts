/**
 * Giving topics away to their new owners: the other side of takeover.ts, which tells the whole story.
 *
 * Role: what a former owner does when it is asked. Up: ownership.ts. It goes on handing on until the link has confirmed that it is unsubscribed, since what was published
 * before the new owner subscribed comes only here; but not past the time at which the new owner goes on by itself.
 */
import type { Given, Letter, Mark } from './mail.ts';
import { letterBytesMax } from './mail.ts';
import { costOf, type HandoverPorts, type OwnedTopic } from './owned-topic.ts';

/** Stops so long before the new owner begins: the clocks that both look at differ by a hundredth of a second at most. */
const marginMs = 50;

export interface GiveawayPorts extends HandoverPorts {
  /** Whether it has ever written a letter: one without a link answers none. */
  takesPart(worker: number): boolean;
  find(key: string): OwnedTopic | undefined;
  /** Unsubscribe, and call back when all that came before has been handed on. */
  leave(topic: OwnedTopic, onLeft: () => void): void;
  /** Forget the topic. */
  remove(topic: OwnedTopic): void;
}

export class Giveaway {
  readonly #ports: GiveawayPorts;
  readonly #answers = new Map<number, Given[]>();
  readonly #giving = new Set<OwnedTopic>();
  #pass = 0;

  constructor(ports: GiveawayPorts) {
    this.#ports = ports;
  }

  take(from: number, { atMs, withinMs, topics }: Extract<Letter, { kind: 'take' }>): void {
    const sharedNow = this.#ports.sharedNow();
    // Where the system has no common clock, the letter is taken for a fresh one.
    const age = atMs === 0 || sharedNow === 0 ? 0 : Math.max(0, sharedNow - atMs);
    const untilMs = this.#ports.now() + withinMs - age - marginMs;
    for (const key of topics) {
      const topic = this.#ports.find(key);
      if (topic === undefined) {
        this.#answer(from, { topic: key, held: false, marks: [] });
        continue;
      }
      topic.giving ??= { to: new Set(), untilMs, isLeaving: false };
      topic.giving.to.add(from);
      topic.giving.untilMs = Math.min(topic.giving.untilMs, untilMs);
      this.#giving.add(topic);
      this.proceed(topic);
    }
  }

  /** Whether a topic may still be handed on by this worker. */
  mayHandOn({ giving }: OwnedTopic): boolean {
    return giving === undefined || this.#ports.now() < giving.untilMs;
  }

  /** Leave a topic that others want, unless it is only being taken over itself: then as soon as that is done. */
  proceed(topic: OwnedTopic): void {
    const { giving } = topic;
    if (giving === undefined) return;
    if (this.#ports.now() >= giving.untilMs) {
      this.#giveUp(topic);
    } else if (!giving.isLeaving && topic.taking === undefined) {
      giving.isLeaving = true;
      this.#ports.leave(topic, () => this.#give(topic));
    }
  }

  /** Stop with topics whose time is over. */
  tick(): void {
    for (const topic of this.#giving) this.proceed(topic);
  }

  #give(topic: OwnedTopic): void {
    if (!this.#giving.has(topic)) return;
    this.#finish(topic, true, topic.seen?.marks() ?? []);
  }

  /** The new owner goes on by itself already, or is about to. */
  #giveUp(topic: OwnedTopic): void {
    if (topic.giving?.isLeaving === false) this.#ports.leave(topic, () => {});
    // What was held back meanwhile has not been handed on by anybody.
    this.#finish(topic, topic.taking === undefined, topic.seen?.marks() ?? []);
  }

  #finish(topic: OwnedTopic, held: boolean, marks: readonly Mark[]): void {
    this.#giving.delete(topic);
    this.#ports.remove(topic);
    for (const to of topic.giving?.to ?? []) this.#answer(to, { topic: topic.key, held, marks });
  }

  #answer(to: number, given: Given): void {
    if (this.#answers.size === 0) this.#ports.soon(() => this.#sendAnswers());
    const list = this.#answers.get(to);
    if (list === undefined) this.#answers.set(to, [given]);
    else list.push(given);
  }

  #sendAnswers(): void {
    const lists = [...this.#answers];
    this.#answers.clear();
    for (const [to, topics] of lists) {
      this.#pass = (this.#pass + 1) >>> 0;
      const pass = this.#pass;
      const awaited = topics.some(({ held }) => held) ? this.#sendAround(pass, to) : [];
      for (let at = 0; at < topics.length; ) {
        const part: Given[] = [];
        for (let bytes = 0; at < topics.length && bytes < letterBytesMax; at++) {
          const given = topics[at] as Given;
          part.push(given);
          bytes += costOf(given);
        }
        this.#ports.send(to, { kind: 'given', pass, awaited, topics: part });
      }
    }
  }

  /** ret: the workers that it has gone to */
  #sendAround(pass: number, to: number): number[] {
    const awaited: number[] = [];
    for (let worker = 0; worker < this.#ports.places; worker++) {
      if (worker === this.#ports.self || worker === to || !this.#ports.takesPart(worker)) continue;
      if (this.#ports.send(worker, { kind: 'pass', pass, to }) === 'sent') awaited.push(worker);
    }
    return awaited;
  }
}
