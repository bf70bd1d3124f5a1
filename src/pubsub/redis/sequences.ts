/**
 * What has come already: for each topic the last sequence of each publisher, so that nothing is handed on twice.
 *
 * Role: below ownership.ts. A message comes twice when its publisher's connection broke before Redis had answered, or when its topic changes
 * its owner. A publisher is remembered for one to two periods after its latest message, whatever the number of topics.
 *
 *   Publishers   all that are known, as small numbers; counts the periods
 *   Sequences    of one topic: recent {publisher → sequence}, older {…}; when a period has passed older goes, recent becomes older
 */
import type { Publisher } from './link.ts';
import type { Mark } from './mail.ts';

/** Publishers that one topic remembers, at most, in each of its two periods. */
const publishersMax = 1024;
/** All topics together; about 60 bytes each. Past it the present period ends. */
const entriesMax = 1 << 18;

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
  #recent = new Map<number, number>();
  #older: Map<number, number> | undefined;
  #period: number;

  constructor(publishers: Publishers) {
    this.#publishers = publishers;
    this.#period = publishers.period;
  }

  /** Note a message. ret: false: it has come before */
  take(publisher: number, sequence: number): boolean {
    this.age();
    const last = this.#recent.get(publisher) ?? this.#older?.get(publisher) ?? -1;
    if (sequence <= last) return false;
    this.#note(publisher, sequence);
    return true;
  }

  marks(): Mark[] {
    this.age();
    const marks: Mark[] = [];
    const add = (id: number, sequence: number) => {
      const publisher = this.#publishers.publisherOf(id);
      if (publisher !== undefined) marks.push({ publisher, sequence });
    };
    for (const [id, sequence] of this.#recent) add(id, sequence);
    for (const [id, sequence] of this.#older ?? []) if (!this.#recent.has(id)) add(id, sequence);
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

  #note(publisher: number, sequence: number): void {
    if (this.#recent.size >= publishersMax && !this.#recent.has(publisher)) this.#turnOver();
    const before = this.#recent.size;
    this.#recent.set(publisher, sequence);
    if (this.#recent.size !== before) this.#publishers.entries++;
  }

  #turnOver(): void {
    this.#publishers.entries -= this.#older?.size ?? 0;
    this.#older = this.#recent.size > 0 ? this.#recent : undefined;
    this.#recent = new Map();
  }
}
