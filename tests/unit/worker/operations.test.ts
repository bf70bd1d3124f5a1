import { describe, expect, test } from 'bun:test';
import { SocketArgumentError } from '../../../src/api/message.ts';
import type { Published, ServerTopics } from '../../../src/api/topics.ts';
import type { PublishOperation } from '../../../src/process/operations.ts';
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
  });
});
