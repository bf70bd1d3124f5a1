import { describe, expect, test } from 'bun:test';
import { ReceivedMessage, SocketArgumentError, sendBinary, sendText } from '../../../src/api/message.ts';
import { NotInWorkerError, publish, setPublisher } from '../../../src/api/publish.ts';
import type { Core } from '../../../src/core/core.ts';
import { handleFor } from '../../../src/core/handles.ts';
import { RawTopics } from '../../../src/topics/raw-topics.ts';

type Call = readonly [string, ...unknown[]];

/** A core that notes what it is asked, and grants all. */
function noted(): { readonly core: Core; readonly calls: Call[]; readonly topics: RawTopics } {
  const calls: Call[] = [];
  const note =
    (name: string) =>
    (...args: unknown[]) => {
      calls.push([name, ...args]);
      return true;
    };
  const names = ['subscribe', 'unsubscribe', 'isSubscribed', 'publish'];
  const core = Object.fromEntries(names.map((name) => [name, note(name)])) as unknown as Core;
  return { core, calls, topics: new RawTopics(core) };
}

const socket = { slot: 7, generation: 3 };

describe('raw topics', () => {
  test('who asks is subscribed, by the core, under the name of its connection', () => {
    const { topics, calls } = noted();
    expect(topics.subscribe(socket, 'a')).toBe(true);
    expect(topics.isSubscribed(socket, 'a')).toBe(true);
    topics.unsubscribe(socket, 'a');
    expect(calls).toEqual([
      ['subscribe', 7, 3, 'a'],
      ['isSubscribed', 7, 3, 'a'],
      ['unsubscribe', 7, 3, 'a'],
    ]);
  });

  test('a message is published as what it is, and not to the socket that is left out', () => {
    const { topics, calls } = noted();
    const bytes = Uint8Array.from([0, 1, 2, 3]);
    topics.publish('a', 'text', socket);
    topics.publish('a', bytes.subarray(1, 3));
    topics.publish('a', new Uint16Array(bytes.buffer), socket);
    topics.publish('a', bytes.buffer);
    expect(calls).toEqual([
      ['publish', 'a', sendText, 'text', 7, 3],
      ['publish', 'a', sendBinary, Uint8Array.from([1, 2]), undefined, undefined],
      ['publish', 'a', sendBinary, bytes, 7, 3],
      ['publish', 'a', sendBinary, bytes, undefined, undefined],
    ]);
  });

  test('a received message goes on as text or bytes, without a copy', () => {
    const { topics, calls } = noted();
    const batch = { batch: 1, payloadBytes: Uint8Array.from([9, 9, 5, 6, 9]) } as unknown as Core;
    const from = Object.assign(batch, { handle: handleFor(batch) }) as Core;
    topics.publish('a', new ReceivedMessage(from, false, 2, 2, undefined));
    topics.publish('a', new ReceivedMessage(from, true, 2, 2, undefined));
    expect(calls).toEqual([
      ['publish', 'a', sendText, Uint8Array.from([5, 6]), undefined, undefined],
      ['publish', 'a', sendBinary, Uint8Array.from([5, 6]), undefined, undefined],
    ]);
    expect(calls[0]?.[3]).toHaveProperty('buffer', from.payloadBytes.buffer);
  });

  test('what is no name of a topic is refused, and the core not asked', () => {
    const { topics, calls } = noted();
    for (const name of ['', '\0c', 'é'.repeat(513), 'x'.repeat(1025), 3 as unknown as string])
      for (const ask of [
        () => topics.subscribe(socket, name),
        () => topics.unsubscribe(socket, name),
        () => topics.isSubscribed(socket, name),
        () => topics.publish(name, 'x'),
      ])
        expect(ask).toThrow(SocketArgumentError);
    expect(calls).toEqual([]);
    topics.subscribe(socket, 'é'.repeat(512));
    topics.subscribe(socket, 'x'.repeat(1024));
    expect(calls).toHaveLength(2);
  });

  test('publish() goes through the topics that the worker has said, and before that says why not', () => {
    const { topics, calls } = noted();
    expect(() => publish('a', 'x')).toThrow(NotInWorkerError);
    setPublisher(topics);
    publish('a', 'x');
    expect(calls).toEqual([['publish', 'a', sendText, 'x', undefined, undefined]]);
  });
});
