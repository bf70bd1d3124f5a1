/**
 * What has come already: for each topic the sequences of each publisher, as far as they tell, so that nothing is handed on twice.
 *
 * Role: below ownership.ts. A message comes twice when its publisher's connection broke before the other side had answered, or when its topic changes
 * its owner. A publisher is remembered for one to two periods after its latest message, whatever the number of topics.
 *
 *   Publishers   all that are known, as small numbers; counts the periods
 *   Sequences    of one topic: recent {publisher → heard}, older {…}; when a period has passed older goes, recent becomes older
 *
 * Sequences count the messages of a publisher to all topics, so those of one topic leap. Messages come from whoever may publish at the other side, and one
 * with a sequence far ahead must not silence its publisher until that has got there. What comes from far below a leap has not come before:
 *
 *   1 ········ before │ unheard │ from ··· last         a message comes from the middle: the leap was false, and `before` goes on from there
 *      heard, or old                 heard
 */
import type { Publisher } from '../link.ts';
import type { Mark } from './mail.ts';

/** Publishers that one topic remembers, at most, in each of its two periods. */
const publishersMax = 1024;
/** All topics together; about 120 bytes each. Past it the present period ends. */
const entriesMax = 1 << 18;

/**
 * So far back nothing comes twice: more than a publisher sends between a message and its repetition, which a broken connection or a
 * new owner cause within seconds. Who is so far behind what was heard of it was not heard, but imitated.
 */
const repeatedWithin = 2 ** 24;

/**
 * A message may be late: read from a broken connection when others of its publisher have come by a new one. It is dropped then, for the
 * order's sake, like one that has come before. From further below a leap nothing is late.
 */
const lateWithin = 2 ** 16;

interface Heard {
  /** Up to here all has come, or will not come any more. */
  before: number;
  /** The latest leap: from here to `last` all has come. */
  from: number;
  last: number;
  /** The latest message came from below the leap. */
  isBelow: boolean;
}

interface Known {
  readonly id: number;
  readonly publisher: Publisher;
  /** When it was last heard of. */
  period: number;
}

export class Publishers {
  readonly #byNode = new Map<string, Map<number, Known>>();
  readonly #byId = new Map<number, Known>();
  #nextId = 0;
  period = 0;
  /** Of all topics. */
  entries = 0;

  idOf({ node, worker }: Publisher): number {
    let workers = this.#byNode.get(node);
    if (workers === undefined) {
      workers = new Map();
      this.#byNode.set(node, workers);
    }
    let known = workers.get(worker);
    if (known === undefined) {
      known = { id: this.#nextId++, publisher: { node, worker }, period: this.period };
      workers.set(worker, known);
      this.#byId.set(known.id, known);
    }
    known.period = this.period;
    return known.id;
  }

  publisherOf(id: number): Publisher | undefined {
    return this.#byId.get(id)?.publisher;
  }

  get size(): number {
    return this.#byId.size;
  }

  get isFull(): boolean {
    return this.entries > entriesMax;
  }

  /** A period has passed. Nobody remembers publishers that were silent for two whole ones. */
  endPeriod(): void {
    this.period++;
    for (const [id, { publisher, period }] of this.#byId) {
      if (period > this.period - 3) continue;
      this.#byId.delete(id);
      const workers = this.#byNode.get(publisher.node);
      workers?.delete(publisher.worker);
      if (workers?.size === 0) this.#byNode.delete(publisher.node);
    }
  }
}

export class Sequences {
  readonly #publishers: Publishers;
  #recent = new Map<number, Heard>();
  #older: Map<number, Heard> | undefined;
  #period: number;

  constructor(publishers: Publishers) {
    this.#publishers = publishers;
    this.#period = publishers.period;
  }

  /** Note a message. ret: false: it has come before */
  take(publisher: number, sequence: number): boolean {
    this.age();
    const heard = this.#heardOf(publisher);
    if (heard === undefined) {
      this.#note(publisher, { before: -1, from: sequence, last: sequence, isBelow: false });
      return true;
    }
    if (!isNew(heard, sequence)) return false;
    this.#note(publisher, heard);
    return true;
  }

  /** The former owner of the topic has handed on all up to here. */
  mark(publisher: number, sequence: number): void {
    this.age();
    const heard = this.#heardOf(publisher) ?? { before: -1, from: sequence, last: sequence, isBelow: false };
    heard.before = Math.max(heard.before, sequence);
    if (sequence >= heard.last) {
      heard.from = sequence;
      heard.last = sequence;
      heard.isBelow = false;
    }
    this.#note(publisher, heard);
  }

  marks(): Mark[] {
    this.age();
    const marks: Mark[] = [];
    const add = (id: number, sequence: number) => {
      const publisher = this.#publishers.publisherOf(id);
      if (publisher !== undefined) marks.push({ publisher, sequence });
    };
    for (const [id, heard] of this.#recent) add(id, heardUpTo(heard));
    for (const [id, heard] of this.#older ?? []) if (!this.#recent.has(id)) add(id, heardUpTo(heard));
    return marks;
  }

  /** Forget what is too old. ret: whether anything is left */
  age(): boolean {
    const passed = this.#publishers.period - this.#period;
    if (passed === 1) this.#turnOver();
    else if (passed > 1) this.clear();
    this.#period = this.#publishers.period;
    return this.#recent.size > 0 || this.#older !== undefined;
  }

  clear(): void {
    this.#publishers.entries -= this.#recent.size + (this.#older?.size ?? 0);
    this.#recent = new Map();
    this.#older = undefined;
  }

  #heardOf(publisher: number): Heard | undefined {
    return this.#recent.get(publisher) ?? this.#older?.get(publisher);
  }

  #note(publisher: number, heard: Heard): void {
    if (this.#recent.has(publisher)) return;
    if (this.#recent.size >= publishersMax) this.#turnOver();
    this.#recent.set(publisher, heard);
    this.#publishers.entries++;
  }

  #turnOver(): void {
    this.#publishers.entries -= this.#older?.size ?? 0;
    this.#older = this.#recent.size > 0 ? this.#recent : undefined;
    this.#recent = new Map();
  }
}

/** Note it, unless it has come before. */
function isNew(heard: Heard, sequence: number): boolean {
  if (sequence > heard.last) {
    if (sequence === heard.last + 1) {
      heard.last = sequence;
    } else {
      // A leap that has turned out to be false says nothing of what came below it.
      if (!heard.isBelow) heard.before = heard.last;
      heard.from = sequence;
      heard.last = sequence;
    }
    heard.isBelow = false;
    return true;
  }
  if (sequence >= heard.from || (!heard.isBelow && heard.from - sequence < lateWithin)) return false;
  if (sequence <= heard.before && heard.before - sequence < repeatedWithin) return false;
  heard.before = sequence;
  heard.isBelow = true;
  return true;
}

function heardUpTo({ before, last, isBelow }: Heard): number {
  return isBelow ? before : last;
}
