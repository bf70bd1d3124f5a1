/**
 * What the supervisor has this worker do with topics, for whoever asks the admin listener.
 * Role: up: worker/main.ts, which takes the messages. Down: the functions that handlers call too (api/topics.ts).
 */
import type { ServerTopics } from '../api/topics.ts';
import type { CarriedMessage, Operation, OperationProblem, OperationResult, PublishOperation } from '../process/operations.ts';
import type { Policies } from '../topics/policies.ts';

type Answer = Readonly<Record<string, unknown>>;

/** Told of apart from what went wrong by itself. */
class Refusal extends Error {
  readonly kind: OperationProblem['kind'];
  constructor(kind: OperationProblem['kind'], message: string) {
    super(message);
    this.kind = kind;
  }
}

export type OperatedTopics = Pick<ServerTopics, 'publishWith'>;

export class Operations {
  readonly #topics: OperatedTopics;
  readonly #policies: Pick<Policies, 'find'>;

  constructor(topics: OperatedTopics, policies: Pick<Policies, 'find'>) {
    this.#topics = topics;
    this.#policies = policies;
  }

  /** All are begun before this returns, in order: messages to one topic keep theirs. Never rejects. ret: a result for each */
  perform(operations: readonly Operation[]): Promise<readonly OperationResult[]> {
    return Promise.all(
      operations.map(async (operation): Promise<OperationResult> => {
        try {
          return { answer: await this.#perform(operation) };
        } catch (error) {
          return { problem: problemOf(error) };
        }
      }),
    );
  }

  async #perform(operation: Operation): Promise<Answer> {
    if (operation.kind !== 'publish') throw new Refusal('absent', `workers do not know ${operation.kind}`);
    return this.#publish(operation);
  }

  async #publish(operation: PublishOperation): Promise<Answer> {
    const { topic, idempotencyKey } = operation;
    if (operation.isRepeat === true && !this.#remembers(topic))
      throw new Refusal(
        'unknown',
        'the worker that was asked does not answer, and the topic has no history, by which a repeated message is known',
      );
    const options = idempotencyKey === undefined ? {} : { idempotencyKey };
    const { epoch, offset } = await this.#topics.publishWith(topic, messageOf(operation), options);
    return epoch === undefined ? {} : { epoch, offset };
  }

  #remembers(topic: string): boolean {
    const found = this.#policies.find(topic);
    return found !== undefined && found.policy.history !== false;
  }
}

function messageOf({ data, isBinary }: CarriedMessage): string | Buffer {
  return isBinary ? Buffer.from(data, 'base64') : data;
}

/** By code: errors of the functions that handlers call have one each. */
const kindOfCode: Readonly<Record<string, OperationProblem['kind']>> = {
  RW_INVALID_ARGUMENT: 'wrong',
  RW_TOPIC_STORE_UNAVAILABLE: 'unavailable',
};

function problemOf(error: unknown): OperationProblem {
  if (error instanceof Refusal) return { kind: error.kind, error: error.message };
  const code = typeof error === 'object' && error !== null && 'code' in error ? String(error.code) : '';
  const kind = Object.hasOwn(kindOfCode, code) ? kindOfCode[code] : undefined;
  return { kind: kind ?? 'failed', error: error instanceof Error ? error.message : String(error) };
}
