/**
 * Questions that all workers of all nodes are asked: each answers for itself, the answers are put together.
 *
 *   worker A ── ask ──► \0c ──► every other worker ── answer ──► \0c/A        within a bound of time
 *
 * Role: up: topic-server.ts. Down: two reserved topics that the process listens to, carried as every direct topic is: rings within the node, the link
 * between nodes. Who is expected to answer is known from what workers say of themselves: `hello` when they begin, `here` as the answer to that and, where
 * there are other nodes, now and then; `bye` at the end. One that dies is forgotten when the supervisor says so, or when it has not been heard of for a
 * while; until then a question to all waits for it up to its bound. What is at work at the same time as a question may answer or not.
 */
import type { Listening } from './listeners.ts';

/** What may be asked, by name. `args` and answers are JSON. */
export type Answers = Readonly<Record<string, (args: never) => unknown>>;

export interface ControlPorts {
  /** Of this process among all of all nodes: letters and digits, '-' between. */
  readonly name: string;
  /** Whether there are other nodes. */
  readonly hasNodes: boolean;
  listen(topic: string, onText: (text: string) => void): Listening;
  publish(topic: string, text: string): void;
  answers: Answers;
  /** A question was not answered by all within its time, or what came is no question. */
  count(counter: 'control_incomplete' | 'control_malformed'): void;
  every(ms: number, call: () => void): () => void;
  now(): number;
}

type Letter =
  | { readonly kind: 'hello' | 'here' | 'bye'; readonly from: string }
  | { readonly kind: 'ask'; readonly from: string; readonly id: number; readonly what: string; readonly args: unknown }
  | { readonly kind: 'answer'; readonly from: string; readonly id: number; readonly value: unknown };

const allTopic = '\0c';
const ownTopic = (name: string) => `\0c/${name}`;

/** How often a worker says that it is there, where nodes are joined, and for how long it is believed. */
const hereMs = 10_000;
const forgetMs = 35_000;
const greetAgainMs = 1500;
/** How long a question waits for the last answer. */
const waitMs = 2000;
/** Questions that wait at a time; the rest is refused. */
const waitingMax = 10_000;

interface Question {
  readonly open: Set<string>;
  readonly values: unknown[];
  settle(): void;
}

export class TooManyQuestionsError extends Error {
  readonly code = 'RW_TOPICS_BUSY';
  constructor() {
    super(`${waitingMax} questions to all workers wait for their answers already: ask less often, or for several topics at a time`);
  }
}

export class Control {
  readonly #ports: ControlPorts;
  readonly #listenings: Listening[] = [];
  /** Other workers, and when they were heard of last. */
  readonly #peers = new Map<string, number>();
  readonly #questions = new Map<number, Question>();
  readonly #stops: (() => void)[] = [];
  #lastId = 0;

  constructor(ports: ControlPorts) {
    this.#ports = ports;
  }

  /** Throws as `listen` of the ports does. */
  begin(): void {
    const { listen, name, hasNodes, every } = this.#ports;
    const hear = (text: string) => this.#onLetter(text);
    this.#listenings.push(listen(ownTopic(name), hear), listen(allTopic, hear));
    const greet = () => this.#say({ kind: 'hello', from: name });
    greet();
    if (!hasNodes) return;
    // Answers from other nodes find this one once its subscription is in place, a round trip of the link later.
    const again = setTimeout(greet, greetAgainMs);
    this.#stops.push(
      () => clearTimeout(again),
      every(hereMs, () => {
        this.#say({ kind: 'here', from: name });
        const before = this.#ports.now() - forgetMs;
        for (const [peer, heard] of this.#peers) if (heard < before) this.#forget(peer);
      }),
    );
  }

  get peers(): number {
    return this.#peers.size;
  }

  /** The answers of all, this worker's own first. Rejects with TooManyQuestionsError, or with what its own answer throws. */
  async ask<Answer>(what: string, args: unknown): Promise<Answer[]> {
    const own = this.#answer(what, args) as Answer;
    if (this.#peers.size === 0) return [own];
    if (this.#questions.size >= waitingMax) throw new TooManyQuestionsError();
    const id = ++this.#lastId;
    const values: unknown[] = [own];
    await new Promise<void>((done) => {
      const question: Question = {
        open: new Set(this.#peers.keys()),
        values,
        settle: () => {
          clearTimeout(timer);
          this.#questions.delete(id);
          done();
        },
      };
      const timer = setTimeout(() => {
        this.#ports.count('control_incomplete');
        question.settle();
      }, waitMs);
      this.#questions.set(id, question);
      this.#say({ kind: 'ask', from: this.#ports.name, id, what, args });
    });
    return values as Answer[];
  }

  /** A worker of this node has ended; its name. */
  gone(peer: string): void {
    this.#forget(peer);
  }

  close(): void {
    if (this.#listenings.length === 0) return;
    this.#say({ kind: 'bye', from: this.#ports.name });
    for (const stop of this.#stops.splice(0)) stop();
    for (const listening of this.#listenings.splice(0)) listening.stop();
    for (const question of [...this.#questions.values()]) question.settle();
  }

  #say(letter: Letter, topic = allTopic): void {
    this.#ports.publish(topic, JSON.stringify(letter));
  }

  #forget(peer: string): void {
    this.#peers.delete(peer);
    for (const question of [...this.#questions.values()]) this.#answered(question, peer);
  }

  #answered(question: Question, peer: string): void {
    if (question.open.delete(peer) && question.open.size === 0) question.settle();
  }

  #onLetter(text: string): void {
    const letter = readLetter(text);
    if (letter === undefined) {
      this.#ports.count('control_malformed');
      return;
    }
    const { from, kind } = letter;
    const { name, now } = this.#ports;
    if (from === name) return;
    if (kind === 'bye') {
      this.#forget(from);
      return;
    }
    this.#peers.set(from, now());
    if (kind === 'hello') this.#say({ kind: 'here', from: name }, ownTopic(from));
    else if (kind === 'ask') this.#reply(letter);
    else if (kind === 'answer') this.#onAnswer(letter);
    else kind satisfies 'here';
  }

  #onAnswer({ from, id, value }: Extract<Letter, { readonly kind: 'answer' }>): void {
    const question = this.#questions.get(id);
    if (question?.open.has(from) !== true) return;
    question.values.push(value);
    this.#answered(question, from);
  }

  /** What this release does not know, or cannot answer, is answered with nothing: nobody is to wait for it. */
  #reply({ from, id, what, args }: Extract<Letter, { readonly kind: 'ask' }>): void {
    let value: unknown;
    try {
      value = this.#answer(what, args);
    } catch {
      this.#ports.count('control_malformed');
    }
    this.#say({ kind: 'answer', from: this.#ports.name, id, value: value ?? null }, ownTopic(from));
  }

  #answer(what: string, args: unknown): unknown {
    return Object.hasOwn(this.#ports.answers, what) ? this.#ports.answers[what]?.(args as never) : undefined;
  }
}

function readLetter(text: string): Letter | undefined {
  try {
    const letter = JSON.parse(text) as Partial<Record<string, unknown>> | null;
    const { kind, from, id, what } = letter ?? {};
    if (typeof from !== 'string' || !/^[\w-]{1,64}$/.test(from)) return undefined;
    const isWhole =
      kind === 'hello' ||
      kind === 'here' ||
      kind === 'bye' ||
      (kind === 'ask' && Number.isSafeInteger(id) && typeof what === 'string') ||
      (kind === 'answer' && Number.isSafeInteger(id));
    return isWhole ? (letter as Letter) : undefined;
  } catch {
    return undefined;
  }
}
