import { describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import { topicBytesMax } from '../../../../src/core/node.ts';
import { decodeLetter, encodeLetter, topicBytes, topicKey } from '../../../../src/pubsub/nodes/mail.ts';
import { letter } from '../../../support/letters.ts';

describe('letters between workers', () => {
  test('are read as they were written', () => {
    fc.assert(fc.property(letter, (written) => expect(decodeLetter(encodeLetter(written))).toEqual(written)));
  });

  test('of large batches and of the longest topics are whole', () => {
    const topics = Array.from({ length: 3000 }, (_, at) => topicKey(Buffer.alloc(at % 7 === 0 ? topicBytesMax : 30, `${at} `)));
    const wants = topics.map((each, at) => ({ topic: each, wanted: at % 2 === 0, again: at % 3 === 0 }));
    expect(decodeLetter(encodeLetter({ kind: 'want', wants }))).toEqual({ kind: 'want', wants });
  });

  test('that end too early, or go on too long, are nothing', () => {
    fc.assert(
      fc.property(letter, fc.nat(), fc.uint8Array({ minLength: 1, maxLength: 9 }), (written, cut, more) => {
        const bytes = encodeLetter(written);
        expect(decodeLetter(bytes.subarray(0, cut % bytes.byteLength))).toBeUndefined();
        expect(decodeLetter(Buffer.concat([bytes, more]))).toBeUndefined();
      }),
    );
  });

  test('of another version, or of an unknown kind, are nothing', () => {
    const bytes = Buffer.from(encodeLetter({ kind: 'hello' }));
    for (const version of [0, 2, 255]) expect(decodeLetter(Buffer.from([version, ...bytes.subarray(1)]))).toBeUndefined();
    for (const kind of [0, 8, 255]) expect(decodeLetter(Buffer.from([bytes[0] as number, kind]))).toBeUndefined();
    expect(decodeLetter(new Uint8Array(0))).toBeUndefined();
  });

  test('that are any bytes never throw, and what is read of them is within bounds', () => {
    const check = (bytes: Uint8Array) => {
      const read = decodeLetter(bytes);
      if (read === undefined) return;
      const topics =
        read.kind === 'want' || read.kind === 'given'
          ? (read.kind === 'want' ? read.wants : read.topics).map((each) => each.topic)
          : read.kind === 'take'
            ? read.topics
            : [];
      for (const each of topics) {
        expect(each.length).toBeGreaterThan(0);
        expect(each.length).toBeLessThanOrEqual(topicBytesMax);
      }
      // What was read can be written, and says the same.
      expect(decodeLetter(encodeLetter(read))).toEqual(read);
    };
    fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), check));
    // Almost right: a kind that exists, counts that claim too much.
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 7 }), fc.uint8Array({ maxLength: 80 }), (kind, rest) => check(Buffer.from([1, kind, ...rest]))),
    );
    fc.assert(
      fc.property(letter, fc.nat(), fc.nat(255), (written, at, value) => {
        const bytes = Buffer.from(encodeLetter(written));
        bytes[at % bytes.length] = value;
        check(bytes);
      }),
    );
  });

  test('that claim billions of topics cost no more than their bytes', () => {
    const claim = Buffer.from([1, 3, 0xff, 0xff, 0xff, 0xff, 1, 1, 0, 0x61]);
    const began = process.memoryUsage.rss();
    for (let i = 0; i < 1000; i++) expect(decodeLetter(claim)).toBeUndefined();
    expect(process.memoryUsage.rss() - began).toBeLessThan(64 << 20);
  });
});

test('a topic is the same bytes after it was a key', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 1024 }), (bytes) => expect(Buffer.from(topicBytes(topicKey(bytes))).equals(bytes)).toBe(true)),
  );
  // A view into a larger buffer.
  expect(topicKey(Buffer.from('abcdef').subarray(2, 4))).toBe('cd');
});
