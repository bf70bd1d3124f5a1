/**
 * This process as a subscriber of topics: functions that hear messages, and what the gateway says to itself.
 *
 * Role: holds of the core → functions. Up: topic-server.ts, control.ts. A topic is held once, however many listen. Of a topic with history each listener
 * hears rising offsets without a hole, or is told of one: who comes with a position reads the store up to what comes live.
 */
import type { LogCommands, LogEntry, LogLimits, Position } from '../core/log-commands.ts';
import type { TopicStore } from './store.ts';

/** What was heard. `payload`: a copy. `position`: of topics with history. */
export interface Heard {
  readonly flags: number;
  readonly payload: Uint8Array;
  readonly position: Position | undefined;
}

export interface Ear {
  onMessage(heard: Heard): void;
  /** Messages were lost. `position`: of the last one, of topics with history. */
  onLost(position: Position | undefined): void;
}

export interface Listening {
  stop(): void;
}

export interface StreamListening extends Listening {
  /** Whether all after `since` is heard, without `since` false. */
  readonly recovered: boolean;
  /** Where the stream began. */
  readonly position: Position | undefined;
}

export type ListenCore = Pick<LogCommands, 'hold' | 'release' | 'onTopicMessage' | 'logEnd'>;

/** Messages that wait while a listener reads what it has missed; with more they are read from the store too. */
const waitingMax = 1024;
const pageSize = 500;

/** The worker has all the topics that it may have, or no memory for another. */
export class TopicsFullError extends Error {
  readonly code = 'RW_TOPICS_FULL';
  constructor(topic: string) {
    super(
      `the worker cannot listen to ${JSON.stringify(topic)}: it has as many topics as limits.maxTopics allows, or limits.maxTopicMemoryBytes is used up`,
    );
  }
}

export class Listeners {
  readonly #core: ListenCore;
  readonly #ears = new Map<string, Set<Ear>>();

  constructor(core: ListenCore) {
    this.#core = core;
    core.onTopicMessage = (topic, flags, payload, position, lost) => this.#onMessage(topic, flags, payload, position, lost);
  }

  /** Topics that are listened to. */
  get size(): number {
    return this.#ears.size;
  }

  /** Hear what comes from now on. `isLogged`: it has history, whether or not anything was said yet. Throws TopicsFullError. */
  listen(topic: string, ear: Ear, isLogged = false): Listening {
    let ears = this.#ears.get(topic);
    if (ears === undefined) {
      if (!this.#core.hold(topic, isLogged ? 'end' : undefined)) throw new TopicsFullError(topic);
      ears = new Set();
      this.#ears.set(topic, ears);
    }
    ears.add(ear);
    return { stop: () => this.#stop(topic, ear) };
  }

  /** The same for a topic with a log, from a position on. Rejects with TopicsFullError, or as the store does; then nothing is heard. */
  async listenFrom(topic: string, limits: LogLimits, since: Position | undefined, store: TopicStore, ear: Ear): Promise<StreamListening> {
    await store.follow(topic, limits);
    if (since === undefined) {
      const { stop } = this.listen(topic, ear, true);
      return { stop, recovered: false, position: this.#core.logEnd(topic) };
    }
    const late = new LateEar(ear, since);
    const { stop } = this.listen(topic, late, true);
    const read = (from: Position) => store.read(topic, { since: from, limit: pageSize }, limits);
    try {
      const recovered = await late.catchUp(read);
      return { stop, recovered, position: recovered ? since : late.at };
    } catch (error) {
      stop();
      throw error;
    }
  }

  /** Nobody hears anything any more. */
  close(): void {
    for (const topic of this.#ears.keys()) this.#core.release(topic);
    this.#ears.clear();
  }

  #stop(topic: string, ear: Ear): void {
    const ears = this.#ears.get(topic);
    if (ears?.delete(ear) !== true || ears.size > 0) return;
    this.#ears.delete(topic);
    this.#core.release(topic);
  }

  #onMessage(topicBytes: Uint8Array, flags: number, payload: Uint8Array, position: Position | undefined, lost: boolean): void {
    const topic = Buffer.from(topicBytes.buffer, topicBytes.byteOffset, topicBytes.byteLength).toString();
    const ears = this.#ears.get(topic);
    if (ears === undefined) return;
    const heard = { flags, payload: payload.slice(), position };
    // Of a copy: an ear may stop itself, and others.
    for (const ear of [...ears]) {
      if (lost) ear.onLost(position);
      else ear.onMessage(heard);
    }
  }
}

type Read = (since: Position) => Promise<{
  readonly position: Position;
  readonly recovered: boolean;
  readonly messages: readonly LogEntry[];
}>;

/** Hears what it has missed first: what comes live waits until then. */
class LateEar implements Ear {
  readonly #ear: Ear;
  /** The last position that was heard; what comes live at or before it has been heard. */
  at: Position;
  /** undefined: it has caught up. */
  #waiting: Heard[] | undefined = [];

  constructor(ear: Ear, since: Position) {
    this.#ear = ear;
    this.at = since;
  }

  onMessage(heard: Heard): void {
    if (this.#waiting === undefined) this.#hear(heard);
    else {
      if (this.#waiting.length === waitingMax) this.#waiting.length = 0;
      this.#waiting.push(heard);
    }
  }

  onLost(position: Position | undefined): void {
    // While it reads, it finds that out by itself.
    if (this.#waiting === undefined) this.#lost(position);
  }

  /** ret: whether all after `since` was, or is going to be, heard */
  async catchUp(read: Read): Promise<boolean> {
    let recovered = true;
    for (;;) {
      const page = await read(this.at);
      if (!page.recovered) {
        recovered = false;
        this.#lost(page.messages[0] === undefined ? page.position : { epoch: page.position.epoch, offset: page.messages[0].offset - 1 });
      }
      for (const { offset, flags, payload } of page.messages)
        this.#hear({ flags, payload, position: { epoch: page.position.epoch, offset } });
      if (page.messages.length === 0 && this.#goLive()) return recovered;
    }
  }

  /** ret: false: between what was read and what waits something is missing, which the store has by now */
  #goLive(): boolean {
    const waiting = this.#waiting ?? [];
    const first = waiting.find(({ position }) => position !== undefined && this.#isNew(position))?.position;
    if (first !== undefined && first.epoch === this.at.epoch && first.offset > this.at.offset + 1) return false;
    this.#waiting = undefined;
    for (const heard of waiting) this.#hear(heard);
    return true;
  }

  #isNew({ epoch, offset }: Position): boolean {
    return epoch !== this.at.epoch || offset > this.at.offset;
  }

  #lost(position: Position | undefined): void {
    if (position !== undefined) this.at = position;
    this.#ear.onLost(position);
  }

  #hear(heard: Heard): void {
    if (heard.position !== undefined) {
      if (!this.#isNew(heard.position)) return;
      this.at = heard.position;
    }
    this.#ear.onMessage(heard);
  }
}
