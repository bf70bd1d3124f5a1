/**
 * What a subscriber of a logged topic may see: offsets that rise by one, or a break that it is told of.
 *
 * Role: pure; for the models of this folder, whatever carries the messages. A listener outlives its connections: it comes back with where it was.
 */

export interface At {
  readonly epoch: string;
  readonly offset: number;
}

/** As the JSON dialect has it, and events of streams told in its words. */
export interface Said extends At {
  readonly topic: string;
  readonly data?: string;
  readonly lost?: true;
  readonly event?: string;
  readonly user?: string;
}

export interface Answer extends Partial<At> {
  readonly recovered: boolean;
}

export const textOf = ({ epoch, offset }: At) => `${epoch}:${offset}`;

/** All that was heard or answered of one topic: in an epoch a message has one place, and a place one message. */
export class Ledger {
  readonly #topic: string;
  readonly #faults: string[];
  readonly #byPlace = new Map<string, string>();
  readonly #byText = new Map<string, string>();
  /** What publishers were answered, by epoch. */
  readonly accepted = new Map<string, Map<number, string>>();

  constructor(topic: string, faults: string[]) {
    this.#topic = topic;
    this.#faults = faults;
  }

  /** A publisher was told that its message lies there. */
  accept(at: At, text: string): void {
    this.note('a publisher', at, text);
    const ofEpoch = this.accepted.get(at.epoch) ?? new Map<number, string>();
    ofEpoch.set(at.offset, text);
    this.accepted.set(at.epoch, ofEpoch);
  }

  note(who: string, at: At, text: string): void {
    const place = textOf(at);
    const there = this.#byPlace.get(place);
    if (there !== undefined && there !== text) this.#faults.push(`${who}: ${place} of ${this.#topic} is ${text}, and was ${there}`);
    this.#byPlace.set(place, text);
    // A store that has lost its data has lost what it was asked, too: who was not answered asks again, in another epoch.
    const key = `${at.epoch} ${text}`;
    const before = this.#byText.get(key);
    if (before !== undefined && before !== place) this.#faults.push(`${who}: ${text} lies at ${place} of ${this.#topic}, and at ${before}`);
    this.#byText.set(key, place);
  }

  /** The log as a node has it: whole, and with all that was accepted and is young enough. */
  compare(who: string, page: At & { readonly messages: readonly { readonly offset: number; readonly data: string }[] }): void {
    const { epoch, offset, messages } = page;
    for (const [index, message] of messages.entries()) {
      this.note(who, { epoch, offset: message.offset }, message.data);
      if (message.offset !== offset - messages.length + 1 + index)
        this.#faults.push(`${who}: the log of ${this.#topic} has a hole at ${message.offset}`);
    }
    const kept = new Map(messages.map((message) => [message.offset, message.data]));
    const first = messages[0]?.offset ?? offset + 1;
    for (const [at, text] of this.accepted.get(epoch) ?? [])
      if (at >= first && kept.get(at) !== text)
        this.#faults.push(`${who}: ${text} was accepted at ${epoch}:${at} of ${this.#topic}, and is not there`);
  }
}

/** One subscriber of one topic. */
export class Listener {
  readonly #name: string;
  readonly #ledger: Ledger;
  readonly #faults: string[];
  readonly #heard = new Set<string>();
  /** What came before the answer that says where the stream begins: messages are sent by the core, the answer by a handler. */
  #early: Said[] | undefined;
  #since: At | undefined;
  /** Up to where it has heard or was told that it has not. */
  at: At | undefined;
  breaks = 0;
  recovered = 0;

  constructor(name: string, ledger: Ledger, faults: string[]) {
    this.#name = name;
    this.#ledger = ledger;
    this.#faults = faults;
  }

  /** Another connection. ret: where it wants to go on */
  begin(): At | undefined {
    this.#early = [];
    this.#since = this.at !== undefined && /[1-9a-f]/.test(this.at.epoch) ? this.at : undefined;
    return this.#since;
  }

  /** It is subscribed. */
  begun({ recovered, epoch, offset }: Answer): void {
    const early = this.#early ?? [];
    this.#early = undefined;
    if (epoch === undefined || offset === undefined) {
      this.#fault(`was answered no position: ${JSON.stringify({ recovered, epoch, offset })}`);
      return;
    }
    const since = this.#since;
    if (since !== undefined && recovered) {
      this.recovered += 1;
      if (since.epoch !== epoch || since.offset > offset) this.#fault(`recovered from ${textOf(since)} to ${epoch}:${offset}`);
      for (const said of early) this.#deliver(said);
      return;
    }
    if (recovered) this.#fault('recovered, and had not said from where');
    // What the store gave before it turned out that the rest is gone. What is told of breaks came later, though it was here before the answer.
    let fed = 0;
    const isFed = ({ epoch: of, offset: at, data }: Said) =>
      since !== undefined && data !== undefined && of === since.epoch && at === since.offset + 1 + fed && (of !== epoch || at <= offset);
    for (const said of early) {
      if (!isFed(said)) break;
      this.#deliver(said);
      fed += 1;
    }
    if (since !== undefined) this.breaks += 1;
    this.#jump({ epoch, offset });
    for (const said of early.slice(fed)) this.#deliver(said);
  }

  take(said: Said): void {
    if (this.#early === undefined) this.#deliver(said);
    else this.#early.push(said);
  }

  #deliver(said: Said): void {
    const { epoch, offset, data, lost } = said;
    if (lost === true) {
      this.breaks += 1;
      this.#jump({ epoch, offset });
      return;
    }
    if (data === undefined) {
      this.#fault(`heard ${JSON.stringify(said)}`);
      return;
    }
    const follows = this.at !== undefined && (epoch === this.at.epoch ? offset === this.at.offset + 1 : offset === 1);
    if (!follows) this.#fault(`heard ${textOf(said)} (${data}) after ${this.at && textOf(this.at)}, and was told nothing`);
    const key = `${epoch} ${data}`;
    if (this.#heard.has(key)) this.#fault(`heard ${data} twice, now at ${textOf(said)}`);
    this.#heard.add(key);
    this.#ledger.note(this.#name, said, data);
    this.at = { epoch, offset };
  }

  #jump(to: At): void {
    if (this.at !== undefined && to.epoch === this.at.epoch && to.offset < this.at.offset)
      this.#fault(`was at ${textOf(this.at)}, and is told to go on at ${textOf(to)}`);
    this.at = to;
  }

  #fault(what: string): void {
    this.#faults.push(`${this.#name} ${what}`);
  }
}

/** One that is told who comes and who goes, and had the list when it came. */
export class Observer {
  readonly #name: string;
  readonly #faults: string[];
  #early: Said[] | undefined = [];
  #at: At | undefined;
  there = new Set<string>();
  /** It has been told that it missed some. */
  isLost = false;

  constructor(name: string, faults: string[]) {
    this.#name = name;
    this.#faults = faults;
  }

  begun(list: At & { readonly users: readonly { readonly id: string }[] }): void {
    this.#at = { epoch: list.epoch, offset: list.offset };
    this.there = new Set(list.users.map(({ id }) => id));
    const early = this.#early ?? [];
    this.#early = undefined;
    for (const said of early) if (said.epoch !== list.epoch || said.offset > list.offset) this.#change(said);
  }

  take(said: Said): void {
    if (this.#early === undefined) this.#change(said);
    else this.#early.push(said);
  }

  #change(said: Said): void {
    if (this.isLost) return;
    const { epoch, offset, event, user = '' } = said;
    const at = this.#at;
    if (said.lost === true || epoch !== at?.epoch) {
      // An epoch of its own begins with nobody: who is there must be asked.
      this.isLost = true;
      return;
    }
    if (offset !== at.offset + 1) this.#fault(`heard of ${event} ${user} at ${textOf(said)} after ${textOf(at)}, and was told nothing`);
    this.#at = { epoch, offset };
    if (event === 'join' && this.there.has(user)) this.#fault(`heard that ${user} has come twice, at ${textOf(said)}`);
    if (event === 'leave' && !this.there.has(user)) this.#fault(`heard that ${user} has gone, who was not there, at ${textOf(said)}`);
    if (event === 'join') this.there.add(user);
    else this.there.delete(user);
  }

  #fault(what: string): void {
    this.#faults.push(`${this.#name} ${what}`);
  }
}
