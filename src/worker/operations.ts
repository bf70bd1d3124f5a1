/**
 * What the supervisor has this worker do with topics, for whoever asks the admin listener.
 * Role: up: worker/main.ts, which takes the messages. Down: the functions that handlers call too (api/topics.ts).
 */
import type { HistoryMessage, ServerTopics } from '../api/topics.ts';
import type {
  CarriedMessage,
  HistoryOperation,
  Operation,
  OperationProblem,
  OperationResult,
  PresenceOperation,
  PublishOperation,
  TopicsOperation,
} from '../process/operations.ts';

type Answer = Readonly<Record<string, unknown>>;

/** Messages that are read first of a history; how many more follows from how large these are. */
const firstPart = 32;

export type OperatedTopics = Pick<
  ServerTopics,
  'publishWith' | 'history' | 'presence' | 'subscribers' | 'topics' | 'disconnect' | 'sendToUser'
>;

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

  #perform(operation: Operation): Promise<Answer> {
    switch (operation.kind) {
      case 'publish':
        return this.#publish(operation);
      case 'history':
        return this.#history(operation);
      case 'presence':
        return this.#presence(operation);
      case 'topics':
        return this.#listTopics(operation);
      case 'subscribers':
        return this.#subscribers(operation.topic);
      case 'disconnect':
        return this.#disconnect(operation.target, operation.code, operation.reason);
      case 'send':
        return this.#send(operation.user, operation);
      default:
        return operation satisfies never;
    }
  }

  async #publish(operation: PublishOperation): Promise<Answer> {
    const { topic, idempotencyKey } = operation;
    const options = idempotencyKey === undefined ? {} : { idempotencyKey };
    const { epoch, offset } = await this.#topics.publishWith(topic, messageOf(operation), options);
    return epoch === undefined ? {} : { epoch, offset };
  }

  /** Read in parts, so that a worker holds little more than it answers, however large messages are. */
  async #history({ topic, since, limit, reverse, bytesMax }: HistoryOperation): Promise<Answer> {
    let asked = Math.min(limit, firstPart);
    const { epoch, offset, recovered, messages } = await this.#topics.history(topic, { since, limit: asked, reverse });
    const all = [...messages];
    let bytes = sizeOf(messages);
    let part = messages;
    while (part.length === asked && all.length < limit && bytes < bytesMax) {
      const last = all.at(-1)?.offset;
      if (last === undefined || last >= offset) break;
      asked = Math.min(limit - all.length, Math.ceil((bytesMax - bytes) / Math.max(1, bytes / all.length)));
      const more = await this.#topics.history(topic, { since: { epoch, offset: last }, limit: asked, reverse });
      // What was read before is gone meanwhile, and with it the rest.
      if (more.epoch !== epoch || !more.recovered) break;
      part = more.messages;
      // What came meanwhile is not part of the answer, which says where it ends.
      all.push(...(reverse ? part : part.filter((message) => message.offset <= offset)));
      bytes += sizeOf(part);
    }
    return { epoch, offset, recovered, messages: within(bytesMax, all, bytesOf).map(shownMessage) };
  }

  async #presence({ topic, limit, bytesMax }: PresenceOperation): Promise<Answer> {
    const { count, users } = await this.#topics.presence(topic);
    return { count, users: within(bytesMax, users.slice(0, limit), (user) => Buffer.byteLength(JSON.stringify(user))) };
  }

  async #listTopics({ prefix, limit, bytesMax }: TopicsOperation): Promise<Answer> {
    const names = await this.#topics.topics(prefix, { limit });
    return { topics: within(bytesMax, names, (name) => Buffer.byteLength(name)) };
  }

  async #subscribers(topic: string): Promise<Answer> {
    return { subscribers: await this.#topics.subscribers(topic) };
  }

  async #disconnect(...[target, code, reason]: Parameters<OperatedTopics['disconnect']>): Promise<Answer> {
    return { disconnected: await this.#topics.disconnect(target, code, reason) };
  }

  async #send(user: string, message: CarriedMessage): Promise<Answer> {
    this.#topics.sendToUser(user, messageOf(message));
    return { sent: 1 };
  }
}

/** As many from the first on as have so many bytes together; one at least, so that whoever asks for the rest gets on. */
function within<Item>(bytesMax: number, items: readonly Item[], bytesOf: (item: Item) => number): readonly Item[] {
  let bytes = 0;
  const end = items.findIndex((item, index) => {
    bytes += bytesOf(item);
    return bytes > bytesMax && index > 0;
  });
  return end < 0 ? items : items.slice(0, end);
}

const bytesOf = ({ data }: HistoryMessage) => (typeof data === 'string' ? Buffer.byteLength(data) : data.byteLength);
const sizeOf = (messages: readonly HistoryMessage[]) => messages.reduce((sum, message) => sum + bytesOf(message), 0);

function shownMessage({ offset, data }: HistoryMessage): Answer {
  return typeof data === 'string' ? { offset, data } : { offset, base64: Buffer.from(data).toString('base64') };
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
