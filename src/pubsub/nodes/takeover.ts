/**
 * Taking topics over from their former owners, without a message lost or handed on twice.
 *
 * Role: the new owner's side; giveaway.ts is the other. Up: ownership.ts.
 *
 *   new owner                          former owner                      every other worker
 *   subscribe, confirmed
 *   holds back what comes
 *   take ────────────────────────────> goes on handing on
 *                                      unsubscribe, confirmed:
 *                                      now it has had all that came before
 *                                      pass ─────────────────────────────> has had all that the former owner handed on
 *   given <─────────────────────────── with its last sequences
 *   passed <───────────────────────────────────────────────────────────────
 *   drops what is not newer, hands on the rest, and from now on all
 *
 * Both subscriptions overlap, so nothing is lost; the sequences tell what has been handed on; the `pass` keeps what the former owner has put into the
 * rings before what the new one puts there.
 *
 * A former owner that dies, or does not answer within seconds, has handed on nobody knows what. It has been told that time and stops then. The new
 * owner throws away what it has held back, and begins with a new subscription: something may have been missed, but nothing comes twice.
 */
import { type Letter, letterBytesMax } from './mail.ts';
import type { HandoverPorts, HeldMessage, OwnedTopic, Taking } from './owned-topic.ts';

/** From asking until going on without an answer: long enough for a worker that is busy, since it would be as slow to hand messages on. */
const answerWithinMs = 5000;
/** From asking until going on although some worker has not said `passed`: its own subscribers may see messages swapped. */
const passWithinMs = 10_000;
/** What is held back of one topic, and of all; the oldest goes first: it is the likeliest to have been handed on by the former owner. */
const heldBytesOfTopicMax = 1 << 20;
const heldBytesMax = 16 << 20;
/** What a held message costs beside its payload. */
const messageBytes = 64;

export interface TakeoverPorts extends HandoverPorts {
  /** Call when the core has had a turn: letters that have come by now have been read. */
  afterTurn(call: () => void): void;
  /** End the subscription and begin another. Resolves when it is confirmed. */
  renew(topic: OwnedTopic): Promise<void>;
  /** Nothing is held back from now on. The messages come in order. `isWhole`: nothing was missed, if a former owner held the topic. */
  release(topic: OwnedTopic, messages: readonly HeldMessage[], isWhole: boolean): void;
  /** Messages that there was no room for. */
  onDropped(count: number): void;
}

/** A `pass` on its way around. */
interface Pass {
  /** Workers that have not said `passed`; undefined until the `given` has come that names them. */
  awaited: Set<number> | undefined;
  /** Those that have said it before. */
  readonly early: Set<number>;
  readonly topics: OwnedTopic[];
  /** When to forget it. */
  readonly untilMs: number;
}

export class Takeover {
  readonly #ports: TakeoverPorts;
  /** To be asked for, by worker. */
  readonly #toAsk = new Map<number, OwnedTopic[]>();
  /** In the order of asking. */
  readonly #asked = new Set<OwnedTopic>();
  readonly #passes = new Map<string, Pass>();
  #bytes = 0;

  constructor(ports: TakeoverPorts) {
    this.#ports = ports;
  }

  get isIdle(): boolean {
    return this.#asked.size === 0 && this.#toAsk.size === 0;
  }

  /** Hold back from now on what comes for a topic; `ask` follows when the subscription stands. `from`: who may have it, at least one. */
  begin(topic: OwnedTopic, from: readonly number[]): void {
    topic.taking = {
      asked: new Set(from),
      askedAtMs: undefined,
      passes: 0,
      isUnanswered: false,
      isRenewing: false,
      wasGiven: false,
      messages: [],
      bytes: 0,
    };
  }

  ask(topic: OwnedTopic): void {
    const { taking } = topic;
    if (taking === undefined) return;
    if (this.#toAsk.size === 0) this.#ports.soon(() => this.#sendAsks());
    for (const worker of taking.asked) {
      const topics = this.#toAsk.get(worker);
      if (topics === undefined) this.#toAsk.set(worker, [topic]);
      else topics.push(topic);
    }
    taking.askedAtMs = this.#ports.now();
    this.#asked.add(topic);
  }

  hold({ taking }: OwnedTopic, message: HeldMessage): void {
    if (taking === undefined || taking.isRenewing) return;
    const bytes = message.payload.byteLength + messageBytes;
    taking.messages.push(message);
    taking.bytes += bytes;
    this.#bytes += bytes;
    let dropped = 0;
    while (taking.bytes > heldBytesOfTopicMax || this.#bytes > heldBytesMax) {
      const oldest = taking.messages[dropped];
      if (oldest === undefined) break;
      dropped++;
      taking.bytes -= oldest.payload.byteLength + messageBytes;
      this.#bytes -= oldest.payload.byteLength + messageBytes;
    }
    if (dropped === 0) return;
    taking.messages.splice(0, dropped);
    this.#ports.onDropped(dropped);
  }

  /** The topic is not wanted any more. Former owners are told to let go all the same, if they have not been. */
  abandon(topic: OwnedTopic): void {
    const { taking } = topic;
    if (taking === undefined) return;
    if (taking.askedAtMs === undefined) this.ask(topic);
    this.#end(topic);
  }

  given(from: number, letter: Extract<Letter, { kind: 'given' }>, find: (key: string) => OwnedTopic | undefined, note: NoteMarks): void {
    const pass = this.#passOf(from, letter.pass);
    pass.awaited ??= new Set(letter.awaited.filter((worker) => worker !== this.#ports.self && !pass.early.has(worker)));
    for (const given of letter.topics) {
      const topic = find(given.topic);
      if (topic?.taking?.asked.delete(from) !== true) continue;
      note(topic, given.marks);
      if (given.held) {
        topic.taking.wasGiven = true;
        if (pass.awaited.size > 0) {
          topic.taking.passes++;
          pass.topics.push(topic);
        }
      }
      this.#releaseIfDone(topic);
    }
  }

  passed(owner: number, number: number, by: number): void {
    const pass = this.#passOf(owner, number);
    if (pass.awaited === undefined) pass.early.add(by);
    else if (pass.awaited.delete(by)) this.#endPassIfDone(pass);
  }

  /** A worker has died, or does not take part: it answers nothing any more. */
  gone(worker: number): void {
    for (const topic of [...this.#asked]) this.#expectNothing(topic, worker);
    for (const pass of this.#passes.values()) {
      pass.early.add(worker);
      if (pass.awaited?.delete(worker) === true) this.#endPassIfDone(pass);
    }
  }

  /** Go on with topics whose time is over. */
  tick(): void {
    const now = this.#ports.now();
    for (const [key, pass] of this.#passes) if (pass.untilMs <= now) this.#passes.delete(key);
    // This process may have been busy itself: the answers may be here.
    if (this.#late(now).next().done !== true) this.#ports.afterTurn(() => this.#goOn(now));
  }

  #goOn(now: number): void {
    for (const topic of [...this.#late(now)]) {
      for (const worker of topic.taking?.asked ?? []) this.#expectNothing(topic, worker);
      const { taking } = topic;
      if (taking?.askedAtMs === undefined || taking.askedAtMs + passWithinMs > now) continue;
      taking.passes = 0;
      this.#releaseIfDone(topic);
    }
  }

  *#late(now: number): Generator<OwnedTopic> {
    for (const topic of this.#asked) {
      const { taking } = topic;
      if (taking?.askedAtMs === undefined || taking.askedAtMs + answerWithinMs > now) return;
      if (taking.asked.size > 0 || taking.askedAtMs + passWithinMs <= now) yield topic;
    }
  }

  #expectNothing(topic: OwnedTopic, worker: number): void {
    if (topic.taking?.asked.delete(worker) !== true) return;
    topic.taking.isUnanswered = true;
    this.#releaseIfDone(topic);
  }

  #sendAsks(): void {
    const lists = [...this.#toAsk];
    this.#toAsk.clear();
    const atMs = this.#ports.sharedNow();
    for (const [worker, topics] of lists) {
      for (let at = 0; at < topics.length; ) {
        const part: OwnedTopic[] = [];
        for (let bytes = 0; at < topics.length && bytes < letterBytesMax; at++) {
          const topic = topics[at] as OwnedTopic;
          part.push(topic);
          bytes += topic.key.length + 2;
        }
        const letter: Letter = { kind: 'take', atMs, withinMs: answerWithinMs, topics: part.map(({ key }) => key) };
        if (this.#ports.send(worker, letter) === 'sent') continue;
        for (const topic of part) this.#expectNothing(topic, worker);
      }
    }
  }

  #passOf(owner: number, number: number): Pass {
    const key = `${owner} ${number}`;
    const found = this.#passes.get(key);
    if (found !== undefined) return found;
    const pass = { awaited: undefined, early: new Set<number>(), topics: [], untilMs: this.#ports.now() + 2 * passWithinMs };
    this.#passes.set(key, pass);
    return pass;
  }

  #endPassIfDone(pass: Pass): void {
    if (pass.awaited === undefined || pass.awaited.size > 0) return;
    for (const topic of pass.topics.splice(0)) {
      if (topic.taking === undefined) continue;
      topic.taking.passes--;
      this.#releaseIfDone(topic);
    }
  }

  #releaseIfDone(topic: OwnedTopic): void {
    const { taking } = topic;
    if (taking === undefined || taking.isRenewing || taking.asked.size > 0 || taking.passes > 0) return;
    if (taking.isUnanswered) this.#renew(topic, taking);
    else this.#release(topic, taking.wasGiven);
  }

  #renew(topic: OwnedTopic, taking: Taking): void {
    taking.isRenewing = true;
    this.#asked.delete(topic);
    this.#bytes -= taking.bytes;
    taking.bytes = 0;
    const dropped = taking.messages.splice(0).length;
    // When nobody is left who wants the topic, nobody misses them.
    if (dropped > 0 && topic.members.length > 0) this.#ports.onDropped(dropped);
    void this.#ports.renew(topic).then(() => {
      if (topic.taking === taking) this.#release(topic, false);
    });
  }

  #release(topic: OwnedTopic, isWhole: boolean): void {
    const taking = this.#end(topic);
    if (taking !== undefined) this.#ports.release(topic, taking.messages, isWhole);
  }

  #end(topic: OwnedTopic) {
    const { taking } = topic;
    this.#asked.delete(topic);
    if (taking !== undefined) this.#bytes -= taking.bytes;
    topic.taking = undefined;
    return taking;
  }
}

/** The former owner's sequences join those of the topic. */
export type NoteMarks = (topic: OwnedTopic, marks: readonly { publisher: { node: string; worker: number }; sequence: number }[]) => void;
