/** What every link promises (src/pubsub/link.ts), asked of each by itself: no worker, no core. What comes again is thrown away as nodes/ does it. */
import { afterAll, afterEach, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test';
import { sendBinary, sendText } from '../../src/api/message.ts';
import type { PublishResult } from '../../src/core/node.ts';
import type { LinkState, NodeLink } from '../../src/pubsub/link.ts';
import { eventually } from '../support/eventually.ts';
import { links, type OtherSide } from './links.ts';

// Only ends a test that has failed.
setDefaultTimeout(60_000);

let nodes = 0;

/** A link, and all that it tells. */
class Node {
  readonly link: NodeLink;
  readonly heard: string[] = [];
  readonly states: LinkState[] = [];
  readonly counted: Record<string, number> = {};
  gaps = 0;
  readonly #last = new Map<string, number>();

  constructor(other: OtherSide) {
    const log = { info: () => {}, warn: () => {}, error: () => {} };
    const count = (counter: string, by: number) => {
      this.counted[counter] = (this.counted[counter] ?? 0) + by;
    };
    this.link = other.create({ publisher: { node: (0x1000_0000 + nodes++).toString(16).repeat(2), worker: 1 }, log, count });
    this.link.start({
      onMessage: ({ topic, publisher, sequence, flags, payload }) => {
        const key = `${publisher.node} ${Buffer.from(topic).toString('hex')}`;
        if (sequence <= (this.#last.get(key) ?? 0)) return;
        this.#last.set(key, sequence);
        this.heard.push(`${Buffer.from(topic)} ${flags === sendText ? '' : 'bytes '}${Buffer.from(payload)}`);
      },
      onGap: (topics) => {
        this.gaps += topics;
      },
      onState: (state) => void this.states.push(state),
    });
  }

  publish(topic: string, text: string): PublishResult {
    return this.link.publish(Buffer.from(topic), sendText, Buffer.from(text));
  }

  subscribe(topic: string): Promise<void> {
    return this.link.subscribe(Buffer.from(topic));
  }

  unsubscribe(topic: string): Promise<void> {
    return this.link.unsubscribe(Buffer.from(topic));
  }

  async hears(...lines: string[]): Promise<void> {
    await eventually(`${lines.length} messages`, () => this.heard.length >= lines.length);
    expect(this.heard.splice(0)).toEqual(lines);
  }
}

const numbers = (count: number) => Array.from({ length: count }, (_, at) => at);

for (const [name, startOther] of links) {
  describe(`a link ${name}`, () => {
    let other: OtherSide;
    const started: Node[] = [];
    const start = async () => {
      const node = new Node(other);
      started.push(node);
      await eventually('it is up', () => node.link.state === 'up');
      return node;
    };
    const pair = () => Promise.all([start(), start()]);
    beforeAll(async () => {
      other = await startOther();
    });
    afterEach(async () => {
      await Promise.all(started.splice(0).map(({ link }) => link.close(1000)));
    });
    afterAll(() => other.dispose());

    test('tells when it is up, and carries to who is subscribed, once its subscription is in place', async () => {
      const [one, two] = await pair();
      expect([one.states, two.states]).toEqual([['up'], ['up']]);
      await two.subscribe('a');
      expect([one.publish('a', '1'), one.publish('b', '2')]).toEqual(['accepted', 'accepted']);
      one.link.publish(Buffer.from('a'), sendBinary, Buffer.from('3'));
      await two.hears('a 1', 'a bytes 3');
      expect(one.heard).toEqual([]);
      // At once, when it stands.
      await two.subscribe('a');
    });

    test('keeps the order of each topic, however much is published at once', async () => {
      const [one, two] = await pair();
      await Promise.all([two.subscribe('a'), two.subscribe('b')]);
      for (const at of numbers(5000)) for (const topic of ['a', 'b']) one.publish(topic, String(at));
      await eventually('all have come', () => two.heard.length === 10_000);
      for (const topic of ['a', 'b'])
        expect(two.heard.filter((line) => line.startsWith(topic))).toEqual(numbers(5000).map((at) => `${topic} ${at}`));
      await eventually('nothing waits', () => one.link.health().outboxMessages === 0);
      expect(one.counted).toMatchObject({ messages_out: 10_000 });
      expect(one.counted.drops ?? 0).toBe(0);
      expect(two.counted.bytes_in).toBe(one.counted.bytes_out);
    });

    test('brings all that was published before a subscription ended, and nothing after it; who wants it again gets it', async () => {
      const [one, two] = await pair();
      await two.subscribe('a');
      expect(two.link.health().topics).toBe(1);
      for (const at of numbers(100)) one.publish('a', String(at));
      await eventually('they are out', () => one.counted.messages_out === 100);
      await two.unsubscribe('a');
      await two.hears(...numbers(100).map((at) => `a ${at}`));
      expect(two.link.health().topics).toBe(0);
      one.publish('a', 'unheard');
      await eventually('it is out', () => one.counted.messages_out === 101);
      const ending = two.unsubscribe('a');
      await Promise.all([two.subscribe('a'), ending]);
      const left = two.unsubscribe('a');
      await Promise.all([two.subscribe('a'), left]);
      one.publish('a', 'heard');
      await two.hears('a heard');
    });

    test('keeps what is published while it is down, in order, and tells what may have been missed', async () => {
      const [one, two] = await pair();
      await two.subscribe('a');
      await one.subscribe('b');
      one.publish('a', 'before');
      await two.hears('a before');
      await other.cut();
      await eventually('both know', () => one.link.state === 'lost' && two.link.state === 'lost');
      const results = numbers(500).map((at) => one.publish('a', String(at)));
      expect(new Set(results)).toEqual(new Set(['queued']));
      expect(one.link.health()).toMatchObject({ outboxMessages: 500, topics: 1 });
      // Neither waits for what is gone.
      const placed = two.subscribe('c');
      await one.unsubscribe('b');
      await other.mend();
      await Promise.all([placed, eventually('both are back', () => one.link.state === 'up' && two.link.state === 'up')]);
      await two.hears(...numbers(500).map((at) => `a ${at}`));
      expect(one.publish('c', 'new')).toBe('accepted');
      await two.hears('c new');
      expect([two.gaps, one.gaps, one.counted.drops ?? 0]).toEqual([1, 0, 0]);
      expect(two.states).toEqual(['up', 'lost', 'up']);
      // Of each connection.
      expect(two.counted.reconnects).toBeGreaterThanOrEqual(1);
    });

    test('sends what waits before it closes; afterwards it takes nothing and tells nothing', async () => {
      const [one, two] = await pair();
      const three = await start();
      await Promise.all([one, two, three].map((node) => node.subscribe('a')));
      for (const at of numbers(200)) one.publish('a', String(at));
      await one.link.close(5000);
      await two.hears(...numbers(200).map((at) => `a ${at}`));
      const told = [one.heard.length, one.states.length];
      expect(one.publish('a', 'late')).toBe('dropped');
      two.publish('a', 'the end');
      await three.hears(...numbers(200).map((at) => `a ${at}`), 'a the end');
      expect([one.heard.length, one.states.length]).toEqual(told);
      await one.link.close(1000);
    });
  });
}
