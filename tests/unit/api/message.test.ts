import { afterEach, beforeEach, describe, expect, test } from 'bun:test';
import { randomBytes } from 'node:crypto';
import { MessageExpiredError, type ReceivedMessage } from '../../../src/api/message.ts';
import type { GatewaySocket } from '../../../src/api/socket.ts';
import type { Outcome } from '../../../src/core/core.ts';
import { frame, opcode } from '../../support/frames.mjs';
import { backends, LiveCore } from '../../support/live-core.ts';

let live: LiveCore;
afterEach(() => live.destroy());

for (const backend of backends)
  describe(`a received message on ${backend}`, () => {
    beforeEach(() => {
      live = new LiveCore(backend);
    });

    /** Send frames and take what the handler makes of each message. */
    async function received<Value>(frames: Buffer[], read: (message: ReceivedMessage, socket: GatewaySocket) => Value): Promise<Value[]> {
      const { wire } = await live.open();
      const values: Value[] = [];
      live.onMessage = (socket, message) => values.push(read(message, socket));
      wire.write(Buffer.concat(frames));
      await live.until('every message', () => values.length >= frames.length);
      return values;
    }

    test('is forwarded with its bytes and its opcode, whatever its size', async () => {
      const { wire } = await live.open();
      const outcomes: Outcome[] = [];
      live.onMessage = (socket, message) => outcomes.push(socket.send(message));
      for (const bytes of [0, 1, 125, 126, 65535, 65536, 65537, 200_000, 1_500_000]) {
        const payload = Buffer.alloc(bytes, 'é');
        for (const code of [opcode.text, opcode.binary]) {
          // A text must be UTF-8 to its end.
          const content = code === opcode.text && bytes % 2 === 1 ? Buffer.concat([payload.subarray(1, -1), Buffer.from('!')]) : payload;
          const sent = code === opcode.text ? Buffer.from(content.toString().replaceAll('\ufffd', '')) : content;
          wire.write(frame(code, sent));
          const answer = await live.during(wire.frame());
          expect(answer?.opcode).toBe(code);
          expect(answer?.payload.equals(sent)).toBeTrue();
        }
      }
      expect(new Set(outcomes)).toEqual(new Set(['sent']));
    });

    test('gives its text, its JSON and its bytes', async () => {
      const large = { list: Array.from({ length: 20_000 }, (_, at) => `nø ${at}`) };
      const read = (message: ReceivedMessage) => [message.isBinary, message.byteLength, message.text(), message.bytes().byteLength];
      const [small, binary, empty] = await received(
        [frame(opcode.text, '{"a":"é€😀"}'), frame(opcode.binary, Buffer.from([1, 2, 255])), frame(opcode.text, '')],
        read,
      );
      expect(small).toEqual([false, 17, '{"a":"é€😀"}', 17]);
      expect(binary).toEqual([true, 3, '\u0001\u0002\ufffd', 3]);
      expect(empty).toEqual([false, 0, '', 0]);
      const json = await received(
        [frame(opcode.text, '{"a":1}'), frame(opcode.text, JSON.stringify(large))],
        (message) => message.json() as unknown,
      );
      expect(json).toEqual([{ a: 1 }, large]);
    });

    test('is its text where a string or JSON is made of it', async () => {
      const read = (message: ReceivedMessage) => [`said ${message}`, JSON.stringify({ text: message })];
      const [said] = await received([frame(opcode.text, 'hé"llo')], read);
      expect(said).toEqual(['said hé"llo', '{"text":"hé\\"llo"}']);
    });

    test('that is no JSON throws a SyntaxError from json()', async () => {
      const [error] = await received([frame(opcode.text, '{')], (message) => {
        try {
          return message.json();
        } catch (thrown) {
          return thrown;
        }
      });
      expect(error).toBeInstanceOf(SyntaxError);
    });

    for (const bytes of [5, 100_000]) {
      test(`bytes() is a copy of its own (${bytes} bytes)`, async () => {
        const payload = randomBytes(bytes);
        const [pair] = await received([frame(opcode.binary, payload)], (message) => {
          const first = message.bytes();
          first.fill(0);
          return [first, message.bytes()] as const;
        });
        for (let turns = 0; turns < 3; turns++) live.turn();
        expect(pair?.[0].every((byte) => byte === 0)).toBeTrue();
        expect(payload.equals(pair?.[1] as Uint8Array)).toBeTrue();
        expect(pair?.[1].buffer.byteLength).toBe(bytes);
      });

      test(`throws RW_MESSAGE_EXPIRED after its turn, unless detached (${bytes} bytes)`, async () => {
        const text = 'x'.repeat(bytes);
        const kept: ReceivedMessage[] = [];
        const [socket] = await received([frame(opcode.text, text), frame(opcode.text, text)], (message, from) => {
          if (kept.push(message) === 2) {
            message.detach();
            message.detach();
          }
          return from;
        });
        live.turn();
        const [expired, detached] = kept as [ReceivedMessage, ReceivedMessage];
        const reads = [
          () => expired.text(),
          () => expired.bytes(),
          () => expired.json(),
          () => expired.borrow(),
          () => expired.detach(),
          () => socket?.send(expired),
          () => socket?.publish('topic', expired),
        ];
        for (const read of reads) expect(read).toThrow(MessageExpiredError);
        expect(new MessageExpiredError()).toMatchObject({ code: 'RW_MESSAGE_EXPIRED' });
        expect([expired.byteLength, expired.isBinary]).toEqual([bytes, false]);
        expect(detached.text()).toBe(text);
        expect(detached.bytes().byteLength).toBe(bytes);
        expect(socket?.send(detached)).toBe('sent');
      });
    }

    test('is published to others without being copied by its handler', async () => {
      const { wire: reader, socket } = await live.open();
      socket.subscribe('t');
      const { wire } = await live.open();
      live.onMessage = (from, message) => from.publish('t', message);
      for (const [code, payload] of [
        [opcode.text, 'small'],
        [opcode.binary, 'x'.repeat(100_000)],
        [opcode.text, 'y'.repeat(1_200_000)],
      ] as const) {
        wire.write(frame(code, payload));
        const answer = await live.during(reader.frame());
        expect([answer?.opcode, answer?.payload.toString() === payload]).toEqual([code, true]);
      }
    });
  });
