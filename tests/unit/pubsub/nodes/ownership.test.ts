import { beforeEach, describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import type { Letter } from '../../../../src/pubsub/nodes/mail.ts';
import { Ownership } from '../../../../src/pubsub/nodes/ownership.ts';
import { Publishers, Sequences } from '../../../../src/pubsub/nodes/sequences.ts';

const nodeId = '00000000000000aa';
const farNode = '00000000000000bb';
const view = { generation: 1, first: 0, count: 1 };

/** The link confirms when a test says so. */
class PatientLink {
  readonly asked: string[] = [];
  readonly #waiting = new Map<string, () => void>();

  subscribe(topic: Uint8Array): Promise<void> {
    return this.#ask(`+${Buffer.from(topic)}`);
  }
  unsubscribe(topic: Uint8Array): Promise<void> {
    return this.#ask(`-${Buffer.from(topic)}`);
  }
  #ask(what: string): Promise<void> {
    this.asked.push(what);
    return new Promise((resolve) => this.#waiting.set(what, resolve));
  }
  async confirm(what: string): Promise<void> {
    this.#waiting.get(what)?.();
    for (let i = 0; i < 4; i++) await null;
  }
}

interface Harness {
  readonly ownership: Ownership;
  readonly link: PatientLink;
  readonly delivered: string[];
  readonly letters: { readonly to: number; readonly letter: Letter }[];
  readonly counted: Record<string, number>;
  ms: number;
  /** The core has had a turn. */
  turn(): void;
  arrive(topic: string, sequence: number, payload?: string, worker?: number): void;
  want(topic: string, worker?: number, epoch?: number, again?: boolean): void;
  unwant(topic: string, worker?: number, epoch?: number): void;
}

/** Worker `self` of a node with four places. */
function own(self: number, linger = 1): Harness {
  const link = new PatientLink();
  const delivered: string[] = [];
  const letters: Harness['letters'] = [];
  const counted: Record<string, number> = {};
  const turns: (() => void)[] = [];
  const harness = { ms: 0 };
  const clock = {
    now: () => harness.ms,
    sharedNow: () => harness.ms + 1000,
    every: () => () => {},
    later: () => {},
    soon: (call: () => void) => queueMicrotask(call),
  };
  const ownership = new Ownership(
    {
      self,
      epoch: 1,
      places: 4,
      nodeId,
      lingerMs: linger * 1000,
      clock,
      link,
      send(to, letter) {
        letters.push({ to, letter });
        return 'sent';
      },
      afterTurn: (call) => void turns.push(call),
      deliver: (topic, _, payload) => void delivered.push(`${Buffer.from(topic)} ${Buffer.from(payload)}`),
      count(counter, by) {
        counted[counter] = (counted[counter] ?? 0) + by;
      },
    },
    view,
  );
  return Object.assign(harness, {
    ownership,
    link,
    delivered,
    letters,
    counted,
    turn: () => {
      for (const call of turns.splice(0)) call();
    },
    arrive: (topic: string, sequence: number, payload = String(sequence), worker = 1) =>
      ownership.arrived({
        topic: Buffer.from(topic),
        publisher: { node: farNode, worker },
        sequence,
        flags: 1,
        payload: Buffer.from(payload),
      }),
    want(topic: string, worker = 1, epoch = 1, again = false) {
      ownership.heardOf(worker, epoch);
      ownership.want(worker, epoch, { topic, wanted: true, again });
    },
    unwant: (topic: string, worker = 1, epoch = 1) => ownership.want(worker, epoch, { topic, wanted: false, again: false }),
  });
}

describe('an owner', () => {
  let harness: Harness;
  beforeEach(() => {
    harness = own(0);
  });

  test('subscribes for the first member, and unsubscribes when the last has been gone for the linger', () => {
    const { link } = harness;
    harness.want('a', 1);
    harness.want('a', 2);
    harness.want('a', 2);
    expect(link.asked).toEqual(['+a']);
    harness.unwant('a', 1);
    harness.unwant('a', 1);
    harness.ms += 5000;
    harness.ownership.tick();
    harness.unwant('a', 2);
    harness.ms += 900;
    harness.ownership.tick();
    // Wanted again in time, and given up again.
    harness.want('a', 3);
    harness.unwant('a', 3);
    harness.ms += 900;
    harness.ownership.tick();
    expect(link.asked).toEqual(['+a']);
    harness.ms += 200;
    harness.ownership.tick();
    expect(link.asked).toEqual(['+a', '-a']);
    expect(harness.ownership.size).toBe(0);
  });

  test('lets only so many topics linger: sockets may come to new ones without end', () => {
    const most = 65_536;
    for (let at = 0; at < most + 3; at++) {
      harness.want(`t${at}`);
      harness.unwant(`t${at}`);
    }
    expect(harness.link.asked.filter((each) => each.startsWith('-'))).toEqual(['-t0', '-t1', '-t2']);
    expect(harness.ownership.size).toBe(most);
  });

  test('without a linger lets go at once', () => {
    harness = own(0, 0);
    harness.want('a');
    harness.unwant('a');
    expect(harness.link.asked).toEqual(['+a', '-a']);
  });

  test('hands on what comes, but not what its node has published, nor what has come before', () => {
    harness.want('a');
    for (const sequence of [1, 2, 2, 5, 4, 6]) harness.arrive('a', sequence);
    harness.arrive('a', 1, 'of another', 2);
    harness.arrive('b', 7, 'nobody asked for it');
    const publisher = { node: nodeId, worker: 9 };
    harness.ownership.arrived({ topic: Buffer.from('a'), publisher, sequence: 1, flags: 1, payload: Buffer.from('own') });
    expect(harness.delivered).toEqual(['a 1', 'a 2', 'a 5', 'a 6', 'a of another']);
    expect(harness.counted).toEqual({ messages_in: 5, duplicates: 2, echoes: 1 });
  });

  test('hands on what was not heard, although something came with a sequence far ahead', () => {
    harness.want('a');
    for (const sequence of [1, 2 ** 47, 2, 2, 3, 2 ** 47, 4]) harness.arrive('a', sequence);
    expect(harness.delivered).toEqual(['a 1', `a ${2 ** 47}`, 'a 2', 'a 3', 'a 4']);
    expect(harness.counted).toEqual({ messages_in: 5, duplicates: 2 });
  });

  test('lets go of what dead workers wanted, however late it hears of their deaths', () => {
    harness.want('a', 1, 1);
    harness.want('b', 1, 1);
    harness.want('b', 2, 1);
    // The successor has spoken before the news of the death is here.
    harness.want('c', 1, 3);
    harness.ownership.gone(1, 1);
    harness.ownership.tick();
    harness.ms += 1100;
    harness.ownership.tick();
    expect(harness.link.asked).toEqual(['+a', '+b', '+c', '-a']);
    harness.ownership.gone(1, 3);
    harness.ownership.tick();
    harness.ms += 1100;
    harness.ownership.tick();
    expect(harness.link.asked).toEqual(['+a', '+b', '+c', '-a', '-c']);
    // A letter of the dead, read too late.
    expect(harness.ownership.heardOf(1, 3)).toBe(false);
    expect(harness.ownership.heardOf(1, 5)).toBe(true);
  });

  test('does not begin what it does not own', () => {
    harness = own(3);
    harness.want('a');
    expect([harness.link.asked, harness.ownership.size]).toEqual([[], 0]);
  });

  test('counts once what was interrupted while it had no owner', () => {
    harness.want('a', 1, 1, true);
    harness.want('a', 2, 1, true);
    harness.want('b', 1, 1, false);
    expect(harness.counted).toEqual({ gaps: 1 });
  });

  test('is needed as long as other workers that live want something of it', () => {
    harness.want('a', 0, 1);
    expect(harness.ownership.isNeeded).toBe(false);
    harness.want('a', 2, 1);
    expect(harness.ownership.isNeeded).toBe(true);
    harness.ownership.gone(2, 1);
    expect(harness.ownership.isNeeded).toBe(false);
  });
});

describe('a new owner', () => {
  let harness: Harness;
  beforeEach(async () => {
    harness = own(0);
    harness.ownership.begin([2]);
    harness.want('a', 1, 1, true);
    await harness.link.confirm('+a');
  });
  const given = (held: boolean, sequence: number): Letter => ({
    kind: 'given',
    pass: 1,
    awaited: [3],
    topics: [{ topic: 'a', held, marks: [{ publisher: { node: farNode, worker: 1 }, sequence }] }],
  });
  const answer = (letter: Letter) => letter.kind === 'given' && harness.ownership.given(2, letter);

  test('asks when its subscription is confirmed, and holds back until all that the former owner handed on has come', () => {
    expect(harness.letters).toEqual([{ to: 2, letter: { kind: 'take', atMs: 1000, withinMs: 5000, topics: ['a'] } }]);
    for (const sequence of [3, 4, 5]) harness.arrive('a', sequence);
    answer(given(true, 4));
    expect(harness.delivered).toEqual([]);
    harness.arrive('a', 6);
    harness.ownership.passed({ kind: 'passed', pass: 1, from: 2 }, 3);
    harness.arrive('a', 7);
    expect(harness.delivered).toEqual(['a 5', 'a 6', 'a 7']);
    expect(harness.counted).toEqual({ duplicates: 2, messages_in: 3 });
  });

  test('takes a pass that is quicker than the answer', () => {
    harness.arrive('a', 5);
    harness.ownership.passed({ kind: 'passed', pass: 1, from: 2 }, 3);
    answer(given(true, 4));
    expect(harness.delivered).toEqual(['a 5']);
  });

  test('does not wait for those who had nothing, nor for the dead', () => {
    harness.arrive('a', 5);
    answer(given(false, 0));
    expect(harness.delivered).toEqual(['a 5']);
    // Nobody has kept it going meanwhile.
    expect(harness.counted.gaps).toBe(1);
  });

  test('goes on when a worker that should pass has died', () => {
    harness.arrive('a', 5);
    answer(given(true, 4));
    harness.ownership.gone(3, 1);
    expect([harness.delivered, harness.counted.gaps]).toEqual([['a 5'], undefined]);
  });

  test('goes on after ten seconds when a worker is too busy to pass', () => {
    harness.arrive('a', 5);
    answer(given(true, 4));
    harness.ms += 9900;
    harness.ownership.tick();
    harness.turn();
    expect(harness.delivered).toEqual([]);
    harness.ms += 200;
    harness.ownership.tick();
    harness.turn();
    expect(harness.delivered).toEqual(['a 5']);
  });

  test('begins anew when the former owner dies or does not answer in time, and counts what it had to throw away', async () => {
    harness.ownership.heardOf(2, 1);
    harness.arrive('a', 5);
    harness.arrive('a', 6);
    harness.ms += 5001;
    harness.ownership.tick();
    // The answer might be here already, unread.
    expect(harness.link.asked).toEqual(['+a']);
    harness.turn();
    expect(harness.link.asked).toEqual(['+a', '-a']);
    harness.arrive('a', 7);
    await harness.link.confirm('-a');
    expect(harness.link.asked).toEqual(['+a', '-a', '+a']);
    await harness.link.confirm('+a');
    answer(given(true, 4));
    harness.arrive('a', 8);
    expect(harness.delivered).toEqual(['a 8']);
    expect(harness.counted).toEqual({ drops: 2, gaps: 1, messages_in: 1 });
  });

  test('reads an answer that has come in time, although it was too busy itself', () => {
    harness.arrive('a', 5);
    harness.ms += 9000;
    harness.ownership.tick();
    answer(given(true, 4));
    harness.ownership.passed({ kind: 'passed', pass: 1, from: 2 }, 3);
    harness.turn();
    expect([harness.link.asked, harness.delivered]).toEqual([['+a'], ['a 5']]);
  });

  test('holds back a bounded amount, and drops the oldest', () => {
    const payload = 'x'.repeat(100_000);
    for (let sequence = 1; sequence <= 30; sequence++) harness.arrive('a', sequence, payload);
    // 1 MiB holds ten of them.
    expect(harness.counted).toEqual({ drops: 20 });
    answer(given(true, 20));
    harness.ownership.passed({ kind: 'passed', pass: 1, from: 2 }, 3);
    expect(harness.delivered.length).toBe(10);
    harness.arrive('a', 31);
    expect(harness.delivered.length).toBe(11);
  });

  test('holds back a bounded amount of all topics together', async () => {
    const payload = 'x'.repeat(1_000_000);
    for (let at = 0; at < 40; at++) {
      harness.want(`t${at}`);
      await harness.link.confirm(`+t${at}`);
      harness.arrive(`t${at}`, at + 1, payload);
    }
    expect(harness.counted.drops).toBe(24);
  });

  test('that is not interested any more tells the former owner all the same', async () => {
    harness = own(0, 0);
    harness.ownership.begin([2]);
    harness.want('z');
    harness.unwant('z');
    await null;
    expect(harness.letters.map(({ to, letter }) => [to, letter.kind])).toEqual([[2, 'take']]);
    expect(harness.ownership.size).toBe(0);
  });
});

describe('a former owner', () => {
  let harness: Harness;
  beforeEach(async () => {
    harness = own(0);
    harness.want('a');
    await harness.link.confirm('+a');
    harness.arrive('a', 1);
    for (const worker of [1, 2]) harness.ownership.heardOf(worker, 1);
    harness.ownership.viewChanged({ generation: 2, first: 1, count: 1 }, []);
  });
  const take = (topics: readonly string[], atMs = harness.ms + 1000) =>
    harness.ownership.take(1, { kind: 'take', atMs, withinMs: 1000, topics });
  const answers = () => harness.letters.filter(({ letter }) => letter.kind === 'given').map(({ to, letter }) => ({ to, ...letter }));

  test('hands on until the end is confirmed, then tells how far it got', async () => {
    take(['a', 'unknown']);
    expect(harness.link.asked).toEqual(['+a', '-a']);
    harness.arrive('a', 2);
    harness.turn();
    harness.arrive('a', 3);
    const confirmed = harness.link.confirm('-a');
    await confirmed;
    harness.turn();
    await null;
    harness.arrive('a', 4);
    harness.turn();
    expect(harness.delivered).toEqual(['a 1', 'a 2', 'a 3']);
    const marks = [{ publisher: { node: farNode, worker: 1 }, sequence: 3 }];
    expect(answers()).toEqual([
      { to: 1, kind: 'given', pass: 1, awaited: [], topics: [{ topic: 'unknown', held: false, marks: [] }] },
      { to: 1, kind: 'given', pass: 2, awaited: [2], topics: [{ topic: 'a', held: true, marks }] },
    ]);
    // The pass goes before the answer, to everybody who takes part but the two of them.
    expect(harness.letters.map(({ to, letter }) => `${letter.kind} ${to}`)).toEqual(['given 1', 'pass 2', 'given 1']);
  });

  test('stops when the new owner goes on by itself, whatever the link says', () => {
    take(['a']);
    harness.arrive('a', 2);
    harness.turn();
    harness.ms += 960;
    harness.arrive('a', 3);
    harness.turn();
    expect(harness.delivered).toEqual(['a 1', 'a 2']);
    harness.ownership.tick();
    expect(harness.ownership.size).toBe(0);
  });

  test('that was not running when it was asked hands on nothing more', () => {
    // A message waits in its socket, the letter in its ring; the turn of the core reads the letter before the message goes on.
    harness.arrive('a', 2);
    take(['a'], harness.ms + 1000 - 1500);
    harness.turn();
    expect(harness.delivered).toEqual(['a 1']);
    expect([harness.ownership.size, harness.link.asked]).toEqual([0, ['+a', '-a']]);
  });

  test('answers everybody who asks', async () => {
    take(['a']);
    harness.ownership.take(2, { kind: 'take', atMs: harness.ms + 1000, withinMs: 1000, topics: ['a'] });
    await harness.link.confirm('-a');
    harness.turn();
    await null;
    expect(answers().map(({ to }) => to)).toEqual([1, 2]);
  });

  test('keeps what nobody has asked for, and what it owns by the view', () => {
    harness = own(0);
    harness.want('a');
    take(['a']);
    expect(harness.link.asked).toEqual(['+a']);
    harness.arrive('a', 1);
    expect(harness.delivered).toEqual(['a 1']);
  });
});

describe('sequences', () => {
  const publisher = (worker: number) => ({ node: farNode, worker });

  test('are remembered for one to two periods after the last message, publishers a little longer', () => {
    const publishers = new Publishers();
    const seen = new Sequences(publishers);
    expect(seen.take(publishers.idOf(publisher(1)), 5)).toBe(true);
    publishers.endPeriod();
    expect(seen.take(publishers.idOf(publisher(1)), 5)).toBe(false);
    publishers.endPeriod();
    expect(seen.take(publishers.idOf(publisher(1)), 5)).toBe(true);
    expect(publishers.entries).toBe(1);
    for (let i = 0; i < 3; i++) publishers.endPeriod();
    expect([seen.age(), publishers.entries, publishers.size]).toEqual([false, 0, 0]);
  });

  test('of a talkative publisher outlive a silent one', () => {
    const publishers = new Publishers();
    const seen = new Sequences(publishers);
    seen.take(publishers.idOf(publisher(1)), 1);
    seen.take(publishers.idOf(publisher(2)), 1);
    for (let sequence = 2; sequence < 6; sequence++) {
      publishers.endPeriod();
      expect(seen.take(publishers.idOf(publisher(1)), sequence)).toBe(true);
    }
    expect(seen.marks()).toEqual([{ publisher: publisher(1), sequence: 5 }]);
  });

  test('that are far ahead do not silence their publisher, however often and however far', () => {
    const publishers = new Publishers();
    const id = publishers.idOf(publisher(1));
    for (const leap of [70_000, 2 ** 20, 2 ** 24, 2 ** 40]) {
      const seen = new Sequences(publishers);
      let real = 1000;
      expect(seen.take(id, real)).toBe(true);
      for (let round = 0; round < 5; round++) {
        const far = real + leap * (round + 1) + 10;
        expect([leap, seen.take(id, far)]).toEqual([leap, true]);
        expect([leap, seen.take(id, far)]).toEqual([leap, false]);
        for (let i = 0; i < 3; i++) {
          real += 2;
          expect([leap, round, i, seen.take(id, real)]).toEqual([leap, round, i, true]);
          expect([leap, round, i, seen.take(id, real)]).toEqual([leap, round, i, false]);
        }
        expect(seen.take(id, real - 2)).toBe(false);
        expect(seen.marks()).toEqual([{ publisher: publisher(1), sequence: real }]);
      }
    }
    // Nothing was known of it, or two leaps came one behind the other.
    const seen = new Sequences(publishers);
    for (const far of [2 ** 40, 2 ** 41]) expect(seen.take(id, far)).toBe(true);
    expect([seen.take(id, 7), seen.take(id, 7), seen.take(id, 9)]).toEqual([true, false, true]);
    // Up to the leap, and past it.
    const last = new Sequences(publishers);
    const taken = [1, 70_000, 2, 69_998, 69_999, 70_000, 70_001, 70_000].map((sequence) => last.take(id, sequence));
    expect(taken).toEqual([true, true, true, true, true, false, true, false]);
  });

  test('in order are taken once, whatever comes again', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.integer({ min: 1, max: 1000 }), fc.nat(5)), { minLength: 1, maxLength: 60 }), (steps) => {
        const publishers = new Publishers();
        const seen = new Sequences(publishers);
        const id = publishers.idOf(publisher(1));
        let sequence = 0;
        const taken: number[] = [];
        for (const [step, back] of steps) {
          sequence += step;
          expect(seen.take(id, sequence)).toBe(true);
          taken.push(sequence);
          const again = taken.at(-1 - back);
          if (again !== undefined) expect(seen.take(id, again)).toBe(false);
        }
        // A new owner has heard nothing of it but this.
        const next = new Sequences(publishers);
        for (const mark of seen.marks()) next.mark(publishers.idOf(mark.publisher), mark.sequence);
        for (const again of taken) expect(next.take(id, again)).toBe(false);
        expect(next.take(id, sequence + 1)).toBe(true);
      }),
    );
  });

  test('of one topic are bounded', () => {
    const publishers = new Publishers();
    const seen = new Sequences(publishers);
    for (let worker = 0; worker < 10_000; worker++) expect(seen.take(publishers.idOf(publisher(worker)), 1)).toBe(true);
    expect(publishers.entries).toBeLessThanOrEqual(2048);
    expect(seen.marks().length).toBe(publishers.entries);
    // The latest of them are known.
    expect(seen.take(publishers.idOf(publisher(9_999)), 1)).toBe(false);
    seen.clear();
    expect(publishers.entries).toBe(0);
  });
});
