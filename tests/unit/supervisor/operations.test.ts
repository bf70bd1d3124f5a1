import { describe, expect, test } from 'bun:test';
import type { SupervisorMessage } from '../../../src/process/boot.ts';
import type { HistoryOperation, Operation, OperationResult, PublishOperation } from '../../../src/process/operations.ts';
import { Operations } from '../../../src/supervisor/operations.ts';
import { eventually } from '../../support/eventually.ts';

class FakeWorker {
  readonly told: Extract<SupervisorMessage, { type: 'perform' }>[] = [];
  readonly index: number;
  constructor(index: number) {
    this.index = index;
  }
  tell(message: SupervisorMessage): void {
    if (message.type === 'perform') this.told.push(message);
  }
  topics(at = 0): string[] {
    return (this.told[at]?.operations ?? []).map((each) => ('topic' in each ? each.topic : ''));
  }
}

const message = (topic: string, data = '', idempotencyKey?: string): PublishOperation => ({
  kind: 'publish',
  topic,
  data,
  isBinary: false,
  idempotencyKey,
});
const history = (topic: string): HistoryOperation => ({ kind: 'history', topic, limit: 1, reverse: false, bytesMax: 1 });
const fine: OperationResult = { answer: {} };
const answer = (operations: Operations, worker: FakeWorker | undefined, at = -1, result: OperationResult = fine) => {
  const told = worker?.told.at(at);
  operations.answered(told?.id ?? 0, Array(told?.operations.length ?? 0).fill(result));
};
const kindOf = (result: OperationResult | undefined) => (result === undefined || 'answer' in result ? 'done' : result.problem.kind);
const busy = { problem: { kind: 'busy', error: 'too much is being asked for at once; try again' } } as const;

describe('who is asked', () => {
  test('what concerns one topic goes through one worker, in order', async () => {
    const workers = [new FakeWorker(1), new FakeWorker(0), new FakeWorker(2)];
    const operations = new Operations(() => workers);
    const asked: Operation[] = Array.from({ length: 300 }, (_, at) =>
      at % 3 === 0 ? history(`t${at % 20}`) : message(`t${at % 20}`, String(at)),
    );
    const done = operations.perform(asked);
    expect(workers.every(({ told }) => told.length === 1)).toBe(true);
    for (let topic = 0; topic < 20; topic++) {
      const own = (operation: Operation) => 'topic' in operation && operation.topic === `t${topic}`;
      const through = workers.filter(({ told }) => told[0]?.operations.some(own));
      expect(through.length).toBe(1);
      expect(through[0]?.told[0]?.operations.filter(own)).toEqual(asked.filter(own));
    }
    for (const worker of workers) {
      const told = worker.told[0];
      operations.answered(
        told?.id ?? 0,
        (told?.operations ?? []).map((operation) => ({ answer: { operation } })),
      );
    }
    // Each at its own place, whichever worker has done it.
    expect(await done).toEqual(asked.map((operation) => ({ answer: { operation } })));
  });

  test('without a worker nothing is done', async () => {
    expect(await new Operations(() => []).perform([message('t'), history('t')])).toEqual(
      Array(2).fill({ problem: { kind: 'unavailable', error: 'no worker is ready; try again' } }),
    );
  });

  test('what has no topic has a worker as well', async () => {
    const worker = new FakeWorker(0);
    const operations = new Operations(() => [worker]);
    const done = operations.perform([
      { kind: 'topics', prefix: 'a', limit: 1, bytesMax: 1 },
      { kind: 'send', user: 'ann', data: 'x', isBinary: false },
      { kind: 'disconnect', target: { user: 'ann' }, code: 4000, reason: '' },
    ]);
    answer(operations, worker);
    expect(await done).toEqual([fine, fine, fine]);
  });
});

describe('a worker that ends', () => {
  test('leaves open what was published through it, and says so', async () => {
    const worker = new FakeWorker(4);
    const operations = new Operations(() => [worker]);
    const first = operations.perform([message('t')]);
    operations.workerGone(3);
    operations.workerGone(4);
    expect(await first).toEqual([{ problem: { kind: 'unknown', error: 'the worker that was asked has ended' } }]);
    const second = operations.perform([message('t')]);
    answer(operations, worker, -1, { problem: { kind: 'wrong', error: 'no topic' } });
    answer(operations, worker);
    expect(await second).toEqual([{ problem: { kind: 'wrong', error: 'no topic' } }]);
  });

  test('is stood in for by another one, for what is only read and for messages with a key', async () => {
    const workers = [new FakeWorker(0), new FakeWorker(1)];
    const operations = new Operations(() => workers);
    const asked = [
      history('t'),
      message('t', 'with', 'key'),
      message('t', 'without'),
      { kind: 'presence', topic: 't', limit: 1, bytesMax: 1 } as const,
    ];
    const done = operations.perform(asked);
    const [first, other] = workers[0]?.told.length === 1 ? workers : workers.toReversed();
    operations.workerGone(first?.index ?? -1);
    await eventually('another one is asked', () => other?.told.length === 1);
    expect(other?.told[0]?.operations).toEqual([asked[0], asked[1], asked[3]] as Operation[]);
    answer(operations, other);
    expect((await done).map(kindOf)).toEqual(['done', 'done', 'unknown', 'done']);
  });

  test('and has nobody to stand in: what is read is refused, and may be tried again', async () => {
    const workers = [new FakeWorker(0), new FakeWorker(1)];
    const operations = new Operations(() => workers);
    const done = operations.perform([history('t'), message('t', '', 'key')]);
    for (const worker of [0, 1]) {
      await eventually('one is asked', () => workers.some(({ told }) => told.length > 0));
      workers.splice(
        workers.findIndex(({ told }) => told.length > 0),
        1,
      );
      operations.workerGone(worker);
      operations.workerGone(1 - worker);
    }
    expect(await done).toEqual([
      { problem: { kind: 'unavailable', error: 'the worker that was asked has ended; try again' } },
      { problem: { kind: 'unknown', error: 'the worker that was asked has ended' } },
    ]);
  });
});

describe('a worker that hangs', () => {
  test('is stood in for before the time is over; what it was given alone may still be answered by it', async () => {
    const workers = [new FakeWorker(0), new FakeWorker(1)];
    const operations = new Operations(() => workers, 1000);
    const done = operations.perform([history('t'), message('t')]);
    const [first, other] = workers[0]?.told.length === 1 ? workers : workers.toReversed();
    await eventually('another one is asked', () => other?.told.length === 1);
    expect(other?.told[0]?.operations).toEqual([history('t')]);
    answer(operations, other, -1, { answer: { from: 'other' } });
    answer(operations, first, -1, { answer: { from: 'first' } });
    expect(await done).toEqual([{ answer: { from: 'other' } }, { answer: { from: 'first' } }]);
  });

  test('is not given more and more, and is used again when it answers', async () => {
    const worker = new FakeWorker(0);
    const operations = new Operations(() => [worker], 1);
    const results = await Promise.all(Array.from({ length: 1024 }, () => operations.perform([message('t')])));
    const problem = { kind: 'unknown', error: 'a worker has not answered within 0.001 s' } as const;
    expect(results).toEqual(Array(1024).fill([{ problem }]));
    expect([await operations.perform([message('t')]), worker.told.length]).toEqual([[busy], 1024]);
    for (let at = 0; at < 1024; at++) answer(operations, worker, at);
    const after = operations.perform([message('t')]);
    answer(operations, worker);
    expect(await after).toEqual([fine]);
  });
});

describe('bounds', () => {
  test('what waits for a worker is bounded; others take theirs', async () => {
    const workers = [new FakeWorker(0), new FakeWorker(1)];
    const operations = new Operations(() => workers);
    const topics = Array.from({ length: 20 }, (_, at) => `t${at}`);
    for (const topic of topics) void operations.perform([message(topic)]);
    const [mine = ''] = workers[0]?.topics() ?? [];
    const [other = ''] = workers[1]?.topics() ?? [];
    operations.workerGone(0);
    const waiting = Array.from({ length: 1024 }, () => operations.perform([message(mine)]));
    expect(await operations.perform([message(mine)])).toEqual([busy]);
    // All or nothing.
    const toldOther = workers[1]?.told.length ?? 0;
    expect(await operations.perform([message(other), message(mine)])).toEqual([busy, busy]);
    expect(workers[1]?.told.length).toBe(toldOther);
    const done = operations.perform([message(other)]);
    answer(operations, workers[1]);
    expect(await done).toEqual([fine]);
    answer(operations, workers[0]);
    const next = operations.perform([message(mine)]);
    operations.workerGone(0);
    expect((await Promise.all([...waiting, next])).filter(([result]) => kindOf(result) === 'done').length).toBe(1);
  });

  test('bytes are bounded too, those of answers as well, but a large request is not refused for good', async () => {
    const worker = new FakeWorker(0);
    const operations = new Operations(() => [worker]);
    const large = message('t', 'x'.repeat(33 * 1024 * 1024));
    const first = operations.perform([large]);
    expect(await operations.perform([message('t')])).toEqual([busy]);
    answer(operations, worker);
    expect(await first).toEqual([fine]);
    const kinds = async (asked: () => Operation) => {
      const waiting = Array.from({ length: 600 }, () => operations.perform([asked()]));
      operations.workerGone(0);
      const all = (await Promise.all(waiting)).map(([result]) => kindOf(result));
      return all.filter((kind) => kind !== 'busy').length;
    };
    expect(await kinds(() => message('t', 'x'.repeat(1024 * 1024)))).toBe(31);
    expect(await kinds(() => history('t'))).toBeWithin(400, 513);
  });
});
