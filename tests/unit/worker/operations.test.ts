import { describe, expect, test } from 'bun:test';
import { SocketArgumentError } from '../../../src/api/message.ts';
import type { HistoryMessage, Published, ServerTopics } from '../../../src/api/topics.ts';
import type { HistoryOperation, Operation, PublishOperation } from '../../../src/process/operations.ts';
import { StoreUnavailableError } from '../../../src/topics/store.ts';
import { Operations } from '../../../src/worker/operations.ts';

const epoch = '00000000000000ab';
const message = (more: Partial<PublishOperation> = {}): PublishOperation => ({
  kind: 'publish',
  topic: 'room/a',
  data: 'x',
  isBinary: false,
  ...more,
});

function operationsOf(topics: Partial<ServerTopics>): Operations {
  return new Operations(topics as ServerTopics);
}

describe('publish', () => {
  test('is begun for each in order, and answers where each lies', async () => {
    const given: unknown[][] = [];
    const waiting: ((published: Published) => void)[] = [];
    const operations = operationsOf({
      publishWith(...args) {
        given.push(args);
        return new Promise((resolve) => waiting.push(resolve));
      },
    });
    const done = operations.perform([
      message({ data: 'ä' }),
      message({ data: 'AP8=', isBinary: true, idempotencyKey: 'k' }),
      message({ topic: 'x' }),
    ]);
    expect(given).toEqual([
      ['room/a', 'ä', {}],
      ['room/a', Buffer.from([0, 255]), { idempotencyKey: 'k' }],
      ['x', 'x', {}],
    ]);
    for (const [at, resolve] of [...waiting.entries()].toReversed())
      resolve(at === 2 ? { result: 'accepted' } : { result: 'accepted', epoch, offset: at + 1 });
    expect(await done).toEqual([{ answer: { epoch, offset: 1 } }, { answer: { epoch, offset: 2 } }, { answer: {} }]);
  });

  test('what goes wrong is of a kind, and keeps nothing else from being done', async () => {
    const errors: unknown[] = [
      new SocketArgumentError('a topic is a string that is not empty'),
      new StoreUnavailableError('a test'),
      new Error('a defect'),
      'thrown',
      Object.assign(new Error('no policy'), { code: 'RW_TOPIC_POLICY' }),
      Object.assign(new Error('asked too often'), { code: 'RW_TOPICS_BUSY' }),
    ];
    const operations = operationsOf({
      publishWith: async (topic) => {
        if (topic !== 'fine') throw errors[Number(topic)];
        return { result: 'accepted' };
      },
      presence: async () => {
        throw errors[4];
      },
    });
    const results = await operations.perform(['0', '1', '2', '3', '4', '5', 'fine'].map((topic) => message({ topic })));
    expect(results.map((result) => ('problem' in result ? [result.problem.kind, result.problem.error] : 'done'))).toEqual([
      ['wrong', 'a topic is a string that is not empty'],
      ['unavailable', expect.stringContaining('cannot be reached (a test)')],
      ['failed', 'a defect'],
      ['failed', 'thrown'],
      // A key for a topic that knows none.
      ['wrong', 'no policy'],
      ['busy', 'asked too often'],
      'done',
    ]);
    const [absent] = await operations.perform([{ kind: 'presence', topic: 'a', limit: 1, bytesMax: 1000 }]);
    expect(absent).toEqual({ problem: { kind: 'absent', error: 'no policy' } });
  });
});

describe('history', () => {
  const ask = (more: Partial<HistoryOperation> = {}): HistoryOperation => ({
    kind: 'history',
    topic: 'room/a',
    limit: 100,
    reverse: false,
    bytesMax: 1000,
    ...more,
  });
  const message = (offset: number, data: string | Uint8Array): HistoryMessage => ({ offset, data, time: 1 });

  test('is asked for as it was asked, text is text and bytes are base64', async () => {
    const given: unknown[][] = [];
    const operations = operationsOf({
      async history(...args) {
        given.push(args);
        return { epoch, offset: 2, recovered: true, messages: [message(1, 'ä'), message(2, new Uint8Array([0, 255]))] };
      },
    });
    const [result] = await operations.perform([ask({ since: `${epoch}:0`, limit: 2, reverse: true })]);
    expect(result).toEqual({
      answer: {
        epoch,
        offset: 2,
        recovered: true,
        messages: [
          { offset: 1, data: 'ä' },
          { offset: 2, base64: 'AP8=' },
        ],
      },
    });
    expect(given).toEqual([['room/a', { since: `${epoch}:0`, limit: 2, reverse: true }]]);
  });

  test('holds as much as goes into an answer, and one message at least', async () => {
    const operations = operationsOf({
      history: async () => ({ epoch, offset: 9, recovered: true, messages: [1, 2, 3].map((offset) => message(offset, 'é'.repeat(50))) }),
    });
    const counts = async (bytesMax: number) => {
      const [result] = await operations.perform([ask({ bytesMax })]);
      return result !== undefined && 'answer' in result ? (result.answer.messages as unknown[]).length : -1;
    };
    expect(await Promise.all([0, 99, 199, 200, 300].map(counts))).toEqual([1, 1, 1, 2, 3]);
  });
});

describe('a long history is read in parts', () => {
  /** A log of messages of this size; what was read of it. */
  function logOf(count: number, size: number) {
    const reads: number[] = [];
    let end = count;
    const operations = operationsOf({
      async history(_, { since, limit = 0, reverse = false }) {
        const from = typeof since === 'object' ? since.offset : reverse ? end + 1 : 0;
        const offsets = Array.from({ length: end }, (_, at) => at + 1).filter((offset) => (reverse ? offset < from : offset > from));
        const messages = (reverse ? offsets.toReversed() : offsets)
          .slice(0, limit)
          .map((offset) => ({ offset, data: 'x'.repeat(size), time: 1 }));
        reads.push(messages.length);
        const answer = { epoch, offset: end, recovered: true, messages };
        // Others publish meanwhile.
        end += 1;
        return answer;
      },
    });
    const ask = async (limit: number, reverse: boolean, bytesMax: number) => {
      reads.length = 0;
      end = count;
      const [result] = await operations.perform([{ kind: 'history', topic: 'room/a', limit, reverse, bytesMax }]);
      if (result === undefined || 'problem' in result) throw new Error('it failed');
      return (result.answer.messages as { offset: number }[]).map(({ offset }) => offset);
    };
    return { ask, reads };
  }
  const numbers = (first: number, last: number): number[] =>
    first <= last ? Array.from({ length: last - first + 1 }, (_, at) => first + at) : numbers(last, first).toReversed();

  test('all of it, once and in order, up to where it ended when it was asked for', async () => {
    const { ask, reads } = logOf(500, 10);
    expect(await ask(1000, false, 2 ** 20)).toEqual(numbers(1, 500));
    expect(await ask(300, false, 2 ** 20)).toEqual(numbers(1, 300));
    expect([...reads]).toEqual([32, 268]);
    expect(await ask(100, true, 2 ** 20)).toEqual(numbers(500, 401));
    expect(await ask(20, false, 2 ** 20)).toEqual(numbers(1, 20));
    expect([...reads]).toEqual([20]);
    expect(await logOf(32, 10).ask(1000, false, 2 ** 20)).toEqual(numbers(1, 32));
    expect(await logOf(0, 10).ask(1000, false, 2 ** 20)).toEqual([]);
    expect(await logOf(40, 0).ask(1000, true, 100)).toEqual(numbers(40, 1));
  });

  test('and of large messages little more than is answered', async () => {
    const { ask, reads } = logOf(500, 10_000);
    expect(await ask(1000, false, 1_000_000)).toEqual(numbers(1, 100));
    expect(reads.reduce((sum, each) => sum + each, 0)).toBe(100);
    expect(await ask(1000, true, 50_000)).toEqual(numbers(500, 496));
    expect([...reads]).toEqual([32]);
  });

  test('a log that begins anew in between is answered as far as it was read', async () => {
    let reads = 0;
    const operations = operationsOf({
      history: async (_, { limit = 0 }) => {
        const messages = numbers(1, limit).map((offset) => ({ offset, data: 'x', time: 1 }));
        return { epoch: reads++ === 0 ? epoch : '00000000000000cd', offset: 1000, recovered: true, messages };
      },
    });
    const [result] = await operations.perform([{ kind: 'history', topic: 'room/a', limit: 1000, reverse: false, bytesMax: 1000 }]);
    expect(result).toMatchObject({ answer: { epoch, offset: 1000, messages: { length: 32 } } });
  });
});

test('presence holds as many users as go into an answer, one at least, and counts all', async () => {
  const users = ['ann', 'bob', 'cid'].map((id) => ({ id, connections: 1, info: 'é'.repeat(50) }));
  const operations = operationsOf({ presence: async () => ({ epoch, offset: 1, count: 3, users }) });
  const counts = async (bytesMax: number) => {
    const [result] = await operations.perform([{ kind: 'presence', topic: 'room/a', limit: 10, bytesMax }]);
    return result !== undefined && 'answer' in result ? [result.answer.count, (result.answer.users as unknown[]).length] : [];
  };
  expect(await Promise.all([0, 199, 400, 1000].map(counts))).toEqual([
    [3, 1],
    [3, 1],
    [3, 2],
    [3, 3],
  ]);
});

test('all else is asked of the functions that handlers have, and answered in one form', async () => {
  const given: unknown[][] = [];
  const heard =
    <Value>(name: string, value: Value) =>
    async (...args: unknown[]) => {
      given.push([name, ...args]);
      return value;
    };
  const users = ['ann', 'bob', 'cid'].map((id) => ({ id, connections: 1 }));
  const operations = operationsOf({
    presence: heard('presence', { epoch, offset: 7, count: 3, users }),
    topics: heard('topics', ['a', 'b']),
    subscribers: heard('subscribers', 4),
    disconnect: heard('disconnect', 2),
    sendToUser(...args) {
      given.push(['sendToUser', ...args]);
      return 'accepted';
    },
  } as Partial<ServerTopics>);
  const asked: readonly Operation[] = [
    { kind: 'presence', topic: 'room/a', limit: 2, bytesMax: 1000 },
    { kind: 'topics', prefix: 'ro', limit: 5, bytesMax: 1000 },
    { kind: 'subscribers', topic: 'room/a' },
    { kind: 'disconnect', target: { user: 'ann' }, code: 4000, reason: 'enough' },
    { kind: 'send', user: 'ann', data: 'AP8=', isBinary: true },
  ];
  expect(await operations.perform(asked)).toEqual([
    { answer: { count: 3, users: users.slice(0, 2) } },
    { answer: { topics: ['a', 'b'] } },
    { answer: { subscribers: 4 } },
    { answer: { disconnected: 2 } },
    { answer: { sent: 1 } },
  ]);
  expect(given).toEqual([
    ['presence', 'room/a'],
    ['topics', 'ro', { limit: 5 }],
    ['subscribers', 'room/a'],
    ['disconnect', { user: 'ann' }, 4000, 'enough'],
    ['sendToUser', 'ann', Buffer.from([0, 255])],
  ]);
});
