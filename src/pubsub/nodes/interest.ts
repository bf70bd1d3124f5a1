/**
 * A worker as a member of its node: which topics it has subscribers for, and what their owners know of it.
 *
 * Role: the core tells when a topic gets its first subscriber and loses its last; the owners are told, in batches. Up: bus.ts. Down: post.ts, and the
 * worker's own ownership.ts.
 * What is told is the state, not a change, so it may be told again: when a ring is full (later), when an owner has been replaced (`greeted`), when
 * topics have other owners (`viewChanged`). Memory: an entry for each topic that is wanted, or of which an owner must still hear that it is not.
 */
import type { MailOutcome, NodeView } from '../../core/node.ts';
import type { Clock } from './clock.ts';
import { type Letter, letterBytesMax, type Want } from './mail.ts';
import { ownerOf } from './owners.ts';

export interface InterestPorts {
  readonly self: number;
  readonly clock: Clock;
  trySend(to: number, letter: Letter): MailOutcome;
  /** For topics that this worker owns itself. */
  tellSelf(want: Want): void;
}

/** An entry is a number: the owner's index from bit 3 on, and these. */
const wantedBit = 1;
/** The owner has been told. */
const toldBit = 2;
/** An owner had been told before the present one. */
const againBit = 4;
const ownerShift = 3;

/** Entries looked at in one go, and the pause until the next: 100,000 topics are told anew in a fifth of a second. */
const sweepEntries = 1000;
const sweepPauseMs = 2;
const retryMs = 10;
/** Bytes of a want in a letter beside its topic's. */
const wantBytes = 3;

/** A walk through all entries. `greeted`: the owner that knows nothing; undefined: those that own something else now. */
interface Sweep {
  readonly entries: Iterator<[string, number]>;
  readonly greeted: number | undefined;
}

export class Interest {
  readonly #ports: InterestPorts;
  #view: NodeView;
  readonly #entries = new Map<string, number>();
  /** By owner: topics it has to be told of. */
  readonly #untold = new Map<number, Set<string>>();
  #sweeps: Sweep[] = [];
  #isTelling = false;
  #isSweeping = false;

  constructor(ports: InterestPorts, view: NodeView) {
    this.#ports = ports;
    this.#view = view;
  }

  /** Topics in memory. */
  get size(): number {
    return this.#entries.size;
  }

  isWanted(topic: string): boolean {
    return ((this.#entries.get(topic) ?? 0) & wantedBit) !== 0;
  }

  set(topic: string, isWanted: boolean): void {
    const entry = this.#entries.get(topic);
    if (entry === undefined) {
      if (isWanted) this.#mark(topic, ownerOf(topic, this.#view), wantedBit);
      return;
    }
    if (((entry & wantedBit) !== 0) === isWanted) return;
    const owner = entry >> ownerShift;
    if (isWanted || (entry & (toldBit | againBit)) !== 0) {
      this.#mark(topic, owner, (entry & (toldBit | againBit)) | (isWanted ? wantedBit : 0));
    } else {
      // Nobody has heard of it.
      this.#entries.delete(topic);
      this.#untold.get(owner)?.delete(topic);
    }
  }

  /** Other workers own the topics from now on: tell them, and forget what the former owners were told. */
  viewChanged(view: NodeView): void {
    this.#view = view;
    this.#sweeps = this.#sweeps.filter((sweep) => sweep.greeted !== undefined);
    this.#sweep(undefined);
  }

  /** A process has begun at the place `worker` and knows nothing yet. */
  greeted(worker: number): void {
    this.#sweep(worker);
  }

  #mark(topic: string, owner: number, bits: number): void {
    this.#entries.set(topic, (owner << ownerShift) | bits);
    const untold = this.#untold.get(owner);
    if (untold === undefined) this.#untold.set(owner, new Set([topic]));
    else untold.add(topic);
    if (this.#isTelling) return;
    this.#isTelling = true;
    this.#ports.clock.soon(() => this.#tell());
  }

  // ---------------------------------------------------------------- telling

  #tell(): void {
    this.#isTelling = false;
    let isAllTold = true;
    for (const [owner, topics] of this.#untold) {
      if (owner === this.#ports.self) this.#tellSelf(topics);
      else isAllTold = this.#tellOwner(owner, topics) && isAllTold;
      if (topics.size === 0) this.#untold.delete(owner);
    }
    if (isAllTold || this.#isTelling) return;
    this.#isTelling = true;
    this.#ports.clock.later(retryMs, () => this.#tell());
  }

  #tellSelf(topics: Set<string>): void {
    for (const topic of topics) {
      topics.delete(topic);
      const want = this.#want(topic);
      this.#noteTold(topic);
      this.#ports.tellSelf(want);
    }
  }

  /** ret: false: the owner's ring is full */
  #tellOwner(owner: number, topics: Set<string>): boolean {
    while (topics.size > 0) {
      const wants: Want[] = [];
      let bytes = 0;
      for (const topic of topics) {
        wants.push(this.#want(topic));
        bytes += wantBytes + topic.length;
        if (bytes >= letterBytesMax) break;
      }
      const outcome = this.#ports.trySend(owner, { kind: 'want', wants });
      if (outcome === 'full') return false;
      for (const { topic } of wants) {
        topics.delete(topic);
        if (outcome === 'sent') this.#noteTold(topic);
        // Its successor greets, and is told then; what only the dead one knew is gone with it.
        else if (((this.#entries.get(topic) ?? 0) & (wantedBit | againBit)) === 0) this.#entries.delete(topic);
      }
    }
    return true;
  }

  #want(topic: string): Want {
    const entry = this.#entries.get(topic) ?? 0;
    return { topic, wanted: (entry & wantedBit) !== 0, again: (entry & againBit) !== 0 };
  }

  #noteTold(topic: string): void {
    const entry = this.#entries.get(topic) ?? 0;
    if ((entry & wantedBit) === 0) this.#entries.delete(topic);
    else this.#entries.set(topic, (entry & ~againBit) | toldBit);
  }

  // ---------------------------------------------------------------- telling anew

  #sweep(greeted: number | undefined): void {
    this.#sweeps.push({ entries: this.#entries.entries(), greeted });
    if (this.#isSweeping) return;
    this.#isSweeping = true;
    this.#sweepSome();
  }

  /** Entries that are added meanwhile are met too, and are right already. */
  #sweepSome(): void {
    let left = sweepEntries;
    while (left > 0) {
      const sweep = this.#sweeps[0];
      if (sweep === undefined) break;
      const next = sweep.entries.next();
      if (next.done === true) this.#sweeps.shift();
      else this.#tellAnew(sweep.greeted, ...next.value);
      left--;
    }
    this.#isSweeping = this.#sweeps.length > 0;
    if (this.#isSweeping) this.#ports.clock.later(sweepPauseMs, () => this.#sweepSome());
  }

  #tellAnew(greeted: number | undefined, topic: string, entry: number): void {
    const before = entry >> ownerShift;
    const owner = ownerOf(topic, this.#view);
    if (greeted === undefined ? owner === before : owner !== greeted || before !== greeted) return;
    this.#untold.get(before)?.delete(topic);
    // One that is not wanted any more is told too, so that its former owner does not keep it.
    const again = (entry & (toldBit | againBit)) === 0 ? 0 : againBit;
    this.#mark(topic, owner, (entry & wantedBit) | again);
  }
}
