import { beforeEach, describe, expect, test } from 'bun:test';
import type { MailOutcome, NodeView } from '../../../../src/core/node.ts';
import type { Clock } from '../../../../src/pubsub/nodes/clock.ts';
import { Interest } from '../../../../src/pubsub/nodes/interest.ts';
import { type Letter, letterBytesMax, type Want } from '../../../../src/pubsub/nodes/mail.ts';
import { ownerOf, topicHash } from '../../../../src/pubsub/nodes/owners.ts';
import { Post } from '../../../../src/pubsub/nodes/post.ts';

/** Nothing happens by itself. */
class StillClock implements Clock {
  ms = 0;
  readonly #soon: (() => void)[] = [];
  readonly #later: { readonly at: number; readonly call: () => void }[] = [];
  now = () => this.ms;
  sharedNow = () => this.ms;
  every = () => () => {};
  soon = (call: () => void) => void this.#soon.push(call);
  later = (ms: number, call: () => void) => void this.#later.push({ at: this.ms + ms, call });

  settle(): void {
    for (let call = this.#soon.shift(); call !== undefined; call = this.#soon.shift()) call();
  }

  pass(ms: number): void {
    const end = this.ms + ms;
    for (;;) {
      this.settle();
      const due = this.#later.filter(({ at }) => at <= end).sort((a, b) => a.at - b.at)[0];
      if (due === undefined) break;
      this.#later.splice(this.#later.indexOf(due), 1);
      this.ms = Math.max(this.ms, due.at);
      due.call();
    }
    this.ms = end;
  }

  get isIdle(): boolean {
    return this.#soon.length === 0 && this.#later.length === 0;
  }
}

const twoWorkers: NodeView = { generation: 1, first: 0, count: 2 };
const self = 0;
const topicsOf = (owner: number, count: number, view = twoWorkers) => {
  const topics: string[] = [];
  for (let at = 0; topics.length < count; at++) if (ownerOf(`topic ${at}`, view) === owner) topics.push(`topic ${at}`);
  return topics;
};

describe('owners', () => {
  test('are the same in every release: the hash of a topic never changes', () => {
    expect(['', 'a', 'room/1', 'ÿ\u0000', 'x'.repeat(1024)].map(topicHash)).toEqual([
      0xab3e7c0b, 0x1a80b1b3, 0x3870bca8, 0xd63edccf, 0x7e62ef62,
    ]);
  });

  test('have about as many topics each, for any number of workers', () => {
    for (const count of [2, 3, 8, 60, 256]) {
      const shares = Array.from({ length: count }, () => 0);
      for (let at = 0; at < 1000 * count; at++) {
        const owner = ownerOf(`room/${at}`, { generation: 1, first: 0, count });
        shares[owner] = (shares[owner] ?? 0) + 1;
      }
      expect(Math.min(...shares)).toBeGreaterThan(850);
      expect(Math.max(...shares)).toBeLessThan(1150);
    }
  });

  test('are at the places of the view', () => {
    for (let at = 0; at < 100; at++) expect([5, 6, 7]).toContain(ownerOf(`t${at}`, { generation: 9, first: 5, count: 3 }));
  });
});

describe('interest', () => {
  let clock: StillClock;
  let letters: { readonly to: number; readonly letter: Letter }[];
  let own: Want[];
  let outcome: (to: number) => MailOutcome;
  let interest: Interest;
  beforeEach(() => {
    clock = new StillClock();
    letters = [];
    own = [];
    outcome = () => 'sent';
    const trySend = (to: number, letter: Letter) => {
      const result = outcome(to);
      if (result === 'sent') letters.push({ to, letter });
      return result;
    };
    interest = new Interest({ self, clock, trySend, tellSelf: (want) => void own.push(want) }, twoWorkers);
  });
  /** What `to` has been told, in order, and no more. */
  const told = (to: number) =>
    letters.splice(0).flatMap((each) => (each.to === to && each.letter.kind === 'want' ? each.letter.wants : []));

  test('is told to the owner in one letter for all that changes in a tick', () => {
    const topics = topicsOf(1, 50);
    for (const topic of topics) interest.set(topic, true);
    clock.settle();
    expect(letters.length).toBe(1);
    expect(told(1)).toEqual(topics.map((topic) => ({ topic, wanted: true, again: false })));
    expect(own).toEqual([]);
    expect(clock.isIdle).toBe(true);
  });

  test('of topics that this worker owns goes to nobody else', () => {
    const [topic = ''] = topicsOf(0, 1);
    interest.set(topic, true);
    interest.set(topic, false);
    interest.set(topic, true);
    clock.settle();
    interest.set(topic, false);
    clock.settle();
    expect(own).toEqual([
      { topic, wanted: true, again: false },
      { topic, wanted: false, again: false },
    ]);
    expect([letters.length, interest.size]).toEqual([0, 0]);
  });

  test('that comes and goes within a tick is never told, and leaves nothing behind', () => {
    const [topic = ''] = topicsOf(1, 1);
    interest.set(topic, true);
    interest.set(topic, true);
    interest.set(topic, false);
    interest.set(topic, false);
    clock.settle();
    expect([letters.length, interest.size]).toEqual([0, 0]);
  });

  test('of many topics goes in letters of bounded length', () => {
    const topics = topicsOf(1, 8000);
    for (const topic of topics) interest.set(topic, true);
    clock.settle();
    expect(letters.length).toBeGreaterThan(1);
    for (const { letter } of letters) {
      const bytes = letter.kind === 'want' ? letter.wants.reduce((sum, { topic }) => sum + topic.length + 3, 0) : 0;
      expect(bytes).toBeLessThan(letterBytesMax + 1100);
    }
    expect(told(1).map(({ topic }) => topic)).toEqual(topics);
  });

  test('waits while the ring is full, and then tells what is true then', () => {
    const [one = '', two = '', three = ''] = topicsOf(1, 3);
    interest.set(one, true);
    clock.settle();
    expect(told(1).length).toBe(1);
    outcome = () => 'full';
    interest.set(one, false);
    interest.set(two, true);
    interest.set(three, true);
    clock.pass(35);
    interest.set(two, false);
    clock.pass(35);
    expect(letters).toEqual([]);
    outcome = () => 'sent';
    clock.pass(35);
    expect(told(1)).toEqual([
      { topic: one, wanted: false, again: false },
      { topic: three, wanted: true, again: false },
    ]);
    expect([interest.size, clock.isIdle]).toEqual([1, true]);
  });

  test('churning while an owner takes nothing for minutes does not grow', () => {
    outcome = () => 'full';
    for (let at = 0; at < 5000; at++) {
      const topic = `short-lived ${at}`;
      interest.set(topic, true);
      clock.pass(1);
      interest.set(topic, false);
    }
    clock.settle();
    expect(interest.size).toBe(0);
  });

  test('is told again to an owner that has been replaced, which then knows that something may be missing', () => {
    const topics = topicsOf(1, 3000);
    for (const topic of topics) interest.set(topic, true);
    clock.settle();
    told(1);
    interest.greeted(1);
    clock.pass(100);
    expect(told(1)).toEqual(topics.map((topic) => ({ topic, wanted: true, again: true })));
    interest.greeted(0);
    clock.pass(100);
    expect([letters.length, own.length]).toEqual([0, 0]);
  });

  test('is told to the first process at a place without such doubts', () => {
    outcome = () => 'gone';
    const [topic = ''] = topicsOf(1, 1);
    interest.set(topic, true);
    clock.pass(100);
    expect(clock.isIdle).toBe(true);
    outcome = () => 'sent';
    interest.greeted(1);
    clock.pass(100);
    expect(told(1)).toEqual([{ topic, wanted: true, again: false }]);
  });

  test('moves to the owners of a new view', () => {
    const topics = [...topicsOf(0, 40), ...topicsOf(1, 40)];
    for (const topic of topics) interest.set(topic, true);
    clock.settle();
    told(1);
    own.length = 0;
    const view = { generation: 2, first: 2, count: 3 };
    interest.viewChanged(view);
    clock.pass(100);
    const all = letters.flatMap(({ to, letter }) => (letter.kind === 'want' ? letter.wants.map((want) => ({ to, ...want })) : []));
    expect(all.length).toBe(topics.length);
    for (const { to, topic, wanted, again } of all) expect([to, wanted, again]).toEqual([ownerOf(topic, view), true, true]);
    expect(own).toEqual([]);
    letters.length = 0;
    for (const topic of topics) interest.set(topic, false);
    clock.settle();
    expect(letters.every(({ to }) => to >= 2)).toBe(true);
    expect(interest.size).toBe(0);
  });

  test('that ends while it moves is told to the new owner, so that the former one is asked to let go', () => {
    const [topic = ''] = topicsOf(1, 1);
    interest.set(topic, true);
    clock.settle();
    told(1);
    const view = { generation: 2, first: 2, count: 1 };
    interest.viewChanged(view);
    interest.set(topic, false);
    clock.pass(100);
    expect(told(2)).toEqual([{ topic, wanted: false, again: true }]);
    expect(interest.size).toBe(0);
  });

  test('of a hundred thousand topics is told anew in slices of a millisecond or so', () => {
    const count = 100_000;
    for (let at = 0; at < count; at++) interest.set(`many ${at}`, true);
    clock.settle();
    own.length = 0;
    letters.length = 0;
    let most = 0;
    interest.viewChanged({ generation: 2, first: 2, count: 1 });
    let before = 0;
    for (let ms = 0; ms < 1000; ms++) {
      clock.pass(1);
      const now = letters.reduce((sum, { letter }) => sum + (letter.kind === 'want' ? letter.wants.length : 0), 0);
      most = Math.max(most, now - before);
      before = now;
    }
    expect(before).toBe(count);
    expect(most).toBeLessThanOrEqual(1000);
  });
});

describe('post', () => {
  test('keeps letters for a full ring, in order, sends them when there is room, and forgets those for the dead', () => {
    const clock = new StillClock();
    const sent: string[] = [];
    let outcome: MailOutcome = 'full';
    const mail = (to: number, bytes: Uint8Array) => {
      if (outcome === 'sent') sent.push(`${to} ${bytes.byteLength}`);
      return outcome;
    };
    const post = new Post(mail, clock);
    expect(post.send(1, { kind: 'hello' })).toBe('sent');
    expect(post.send(1, { kind: 'pass', pass: 1, to: 2 })).toBe('sent');
    expect(post.trySend(1, { kind: 'look' })).toBe('full');
    clock.pass(50);
    outcome = 'sent';
    // What waits goes first.
    expect(post.send(1, { kind: 'take', atMs: 1, withinMs: 1, topics: [] })).toBe('sent');
    expect(sent).toEqual([]);
    clock.pass(50);
    expect(sent).toEqual(['1 2', '1 8', '1 16']);
    expect(post.trySend(1, { kind: 'look' })).toBe('sent');
    outcome = 'full';
    post.send(1, { kind: 'hello' });
    outcome = 'gone';
    clock.pass(50);
    outcome = 'sent';
    clock.pass(50);
    expect(sent.length).toBe(4);
    outcome = 'gone';
    expect(post.send(1, { kind: 'hello' })).toBe('gone');
    expect(clock.isIdle).toBe(true);
  });

  test('holds a bounded amount for a worker that takes nothing', () => {
    const post = new Post(() => 'full', new StillClock());
    const topics = ['x'.repeat(1000)];
    for (let at = 0; at < 10_000; at++) post.send(1, { kind: 'take', atMs: 0, withinMs: 0, topics });
    // 4 MiB of them.
    expect(10_000 - post.lost).toBe(Math.floor((4 << 20) / 1018));
  });
});
