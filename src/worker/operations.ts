/**
 * What the supervisor has this worker do with topics, for whoever asks the admin listener.
 * Role: up: worker/main.ts, which takes the messages. Down: the functions that handlers call too (api/topics.ts).
 */
import type { ServerTopics } from '../api/topics.ts';
import type { CarriedMessage, Operation, OperationProblem, OperationResult, PublishOperation } from '../process/operations.ts';

type Answer = Readonly<Record<string, unknown>>;

export type OperatedTopics = Pick<ServerTopics, 'publishWith'>;

export class Operations {
  readonly #topics: OperatedTopics;

  constructor(topics: OperatedTopics) {
    this.#topics = topics;
  }

  /** All are begun before this returns, in order: messages to one topic keep theirs. Never rejects. ret: a result for each */
  perform(operations: readonly Operation[]): Promise<readonly OperationResult[]> {
    return Promise.all(
      operations.map(async (operation): Promise<OperationResult> => {
        try {
          return { answer: await this.#perform(operation) };
        } catch (error) {
          return { problem: problemOf(operation, error) };
        }
      }),
    );
  }

  async #perform(operation: Operation): Promise<Answer> {
    if (operation.kind !== 'publish')
      throw Object.assign(new Error(`workers do not know ${operation.kind} yet`), { code: 'RW_TOPIC_POLICY' });
    return this.#publish(operation);
  }

  async #publish(operation: PublishOperation): Promise<Answer> {
    const { topic, idempotencyKey } = operation;
    const options = idempotencyKey === undefined ? {} : { idempotencyKey };
    const { epoch, offset } = await this.#topics.publishWith(topic, messageOf(operation), options);
    return epoch === undefined ? {} : { epoch, offset };
  }
}

function messageOf({ data, isBinary }: CarriedMessage): string | Buffer {
  return isBinary ? Buffer.from(data, 'base64') : data;
}

/** By code: errors of the functions that handlers call have one each. */
const kindOfCode: Readonly<Record<string, OperationProblem['kind']>> = {
  RW_INVALID_ARGUMENT: 'wrong',
  RW_TOPIC_POLICY: 'absent',
  RW_TOPIC_STORE_UNAVAILABLE: 'unavailable',
  RW_TOPICS_BUSY: 'busy',
};

function problemOf(operation: Operation, error: unknown): OperationProblem {
  const code = typeof error === 'object' && error !== null && 'code' in error ? String(error.code) : '';
  const known = Object.hasOwn(kindOfCode, code) ? kindOfCode[code] : undefined;
  // A key for a message to a topic that knows none: it is not the topic that is missing.
  const kind = known === 'absent' && operation.kind === 'publish' ? 'wrong' : known;
  return { kind: kind ?? 'failed', error: error instanceof Error ? error.message : String(error) };
}
