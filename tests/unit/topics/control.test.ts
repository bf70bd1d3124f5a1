import { afterEach, describe, expect, test } from 'bun:test';
import { type Answers, Control } from '../../../src/topics/control.ts';
import { eventually } from '../../support/eventually.ts';

type Ear = (text: string) => void;

/** Workers that hear each other, with what they say written down. */
class Air {
  readonly ears = new Map<string, Set<Ear>>();
  readonly said: [topic: string, text: string][] = [];
  readonly counted: string[] = [];
  readonly made: Control[] = [];
  /** Who hears nothing. */
  readonly deaf = new Set<string>();
  now = 0;
  ticks: (() => void)[] = [];

  worker(name: string, answers: Answers = {}, hasNodes = false): Control {
    const control = new Control({
      name,
      hasNodes,
      answers,
      listen: (topic, onText) => {
        const hear: Ear = (text) => {
          if (!this.deaf.has(name)) onText(text);
        };
        const ears = this.ears.get(topic) ?? new Set();
        this.ears.set(topic, ears.add(hear));
        return { stop: () => void ears.delete(hear) };
      },
      // Later, as between processes, and to the speaker as well.
      publish: (topic, text) => {
        this.said.push([topic, text]);
        setImmediate(() => {
          for (const ear of [...(this.ears.get(topic) ?? [])]) ear(text);
        });
      },
      count: (counter) => this.counted.push(counter),
      every: (_, call) => {
        this.ticks.push(call);
        return () => {
          this.ticks = this.ticks.filter((each) => each !== call);
        };
      },
      now: () => this.now,
    });
    this.made.push(control);
    control.begin();
    return control;
  }

  /** Something that a worker has not said. */
  inject(topic: string, text: string): void {
    for (const ear of this.ears.get(topic) ?? []) ear(text);
  }
}

const settled = async () => {
  for (let turn = 0; turn < 6; turn++) await new Promise(setImmediate);
};

describe('questions to all workers', () => {
  let air = new Air();
  afterEach(() => {
    for (const control of air.made) control.close();
    air = new Air();
  });

  test('are answered by each, the asker first, and alone by the asker', async () => {
    const alone = air.worker('n-0-1', { who: () => 'a' });
    expect(await alone.ask<string>('who', {})).toEqual(['a']);
    air.worker('n-1-1', { who: ({ add }: { add: string }) => `b${add}` } as Answers);
    air.worker('m-0-1', { who: () => 'c' });
    await settled();
    const answers = await alone.ask<string>('who', { add: '!' });
    expect(answers[0]).toBe('a');
    expect(answers.slice(1).sort()).toEqual(['b!', 'c']);
  });

  test('those at the same time get their own answers', async () => {
    const echo: Answers = { echo: (args: unknown) => args };
    const [a, b] = [air.worker('a', echo), air.worker('b', echo)];
    await settled();
    const asked = await Promise.all([a.ask('echo', 1), b.ask('echo', 2), a.ask('echo', 3)]);
    expect(asked).toEqual([
      [1, 1],
      [2, 2],
      [3, 3],
    ]);
  });

  test('are not kept waiting by one that says bye, that dies, or that cannot answer', async () => {
    const asker = air.worker('a', { who: () => 1 });
    const leaving = air.worker('b', { who: () => 2 });
    air.worker('c', {
      who: () => {
        throw new Error('no');
      },
    });
    air.worker('d', {});
    await settled();
    expect(asker.peers).toBe(3);
    air.deaf.add('b');
    const answers = asker.ask('who', {});
    leaving.close();
    expect((await answers).toSorted()).toEqual([1, null, null]);
    expect(asker.peers).toBe(2);
    air.deaf.add('c');
    const more = asker.ask('who', {});
    asker.gone('c');
    expect(await more).toEqual([1, null]);
    expect(air.counted).toEqual(['control_malformed']);
  });

  test('have a bound of time, which is counted', async () => {
    const asker = air.worker('a', { who: () => 1 });
    air.worker('b', { who: () => 2 });
    await settled();
    air.deaf.add('b');
    expect(await asker.ask('who', {})).toEqual([1]);
    expect(air.counted).toEqual(['control_incomplete']);
  });

  test('what the asker itself cannot answer rejects', async () => {
    const asker = air.worker('a', {
      who: () => {
        throw new Error('no');
      },
    });
    expect(asker.ask('who', {})).rejects.toThrow('no');
  });

  test('a worker that has not been heard of for a while is forgotten where nodes are joined', async () => {
    const asker = air.worker('a', {}, true);
    const other = air.worker('b', {}, true);
    await settled();
    expect(asker.peers).toBe(1);
    air.now = 30_000;
    for (const tick of air.ticks) tick();
    await settled();
    expect([asker.peers, other.peers]).toEqual([1, 1]);
    air.deaf.add('a');
    air.now = 70_000;
    for (const tick of [...air.ticks]) tick();
    expect(asker.peers).toBe(0);
  });

  test('one that began before others could hear it greets them again', async () => {
    const first = air.worker('a', {}, true);
    air.deaf.add('b');
    const second = air.worker('b', {}, true);
    await settled();
    air.deaf.delete('b');
    await eventually('the second hears of the first', () => second.peers === 1);
    expect(first.peers).toBe(1);
  });

  test('what makes no sense is counted and changes nothing', async () => {
    const asker = air.worker('a', { who: () => 1 });
    const texts = [
      '',
      '{',
      'null',
      '7',
      '[]',
      '{"kind":"hello"}',
      '{"kind":"hello","from":""}',
      '{"kind":"hello","from":"\\u0000"}',
      `{"kind":"hello","from":"${'x'.repeat(65)}"}`,
      '{"kind":"ask","from":"b","id":"1","what":"who"}',
      '{"kind":"ask","from":"b","id":1}',
      '{"kind":"answer","from":"b"}',
      '{"kind":"toString","from":"b","id":1,"what":"who"}',
    ];
    for (const text of texts) air.inject('\0c', text);
    expect(air.counted).toEqual(texts.map(() => 'control_malformed'));
    expect(asker.peers).toBe(0);
    // Known words that nobody has defined are answered with nothing.
    const said = air.said.length;
    air.inject('\0c', '{"kind":"ask","from":"b","id":1,"what":"toString"}');
    expect(air.said.slice(said)).toEqual([['\0c/b', '{"kind":"answer","from":"a","id":1,"value":null}']]);
  });

  test('an answer to no question, or by who was not asked, is of no account', async () => {
    const asker = air.worker('a', { who: () => 1 });
    air.worker('b', { who: () => 2 });
    await settled();
    const answers = asker.ask('who', {});
    air.inject('\0c/a', '{"kind":"answer","from":"z","id":1,"value":9}');
    air.inject('\0c/a', '{"kind":"answer","from":"b","id":77,"value":9}');
    expect(await answers).toEqual([1, 2]);
  });
});
