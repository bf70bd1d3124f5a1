import { describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import { commandFlag } from '../../../../ffi/layout.ts';
import { type Envelope, isSealed, Opener, readMessages, Sender, sequenceMax } from '../../../../src/pubsub/nodes/envelope.ts';
import { Seal } from '../../../../src/pubsub/nodes/seal.ts';
import { Channels, slotCount, slotOf } from '../../../../src/pubsub/redis/channels.ts';

const node = fc.stringMatching(/^[0-9a-f]{16}$/);
const worker = fc.integer({ min: 0, max: 0xffffffff });
const prefix = fc.stringMatching(/^[a-zA-Zéñ0-9:._-]{1,64}$/);
const payload = fc.oneof(
  fc.uint8Array({ maxLength: 40 }),
  fc.tuple(fc.integer({ min: 65_530, max: 65_540 }), fc.nat(255)).map(([bytes, value]) => new Uint8Array(bytes).fill(value)),
);
const flags = fc.constantFrom(0, commandFlag.sendText, commandFlag.sendCompress, commandFlag.sendText | commandFlag.sendCompress);
/** Text has letters alone. */
const messages = fc.array(
  fc.record({ flags, payload }).map(({ flags, payload }) => ({
    flags,
    payload: flags & commandFlag.sendText ? payload.map((byte) => byte & 0x7f) : payload,
  })),
  { minLength: 1, maxLength: 6 },
);

function seal(sender: Sender, sequence: number, list: readonly { flags: number; payload: Uint8Array }[]): Buffer {
  const payloadBytes = list.reduce((sum, message) => sum + message.payload.byteLength, 0);
  return sender.messages('topic', sequence, list, list.length, payloadBytes);
}

function read(envelope: Envelope) {
  const list: { flags: number; payload: Uint8Array; sequence: number }[] = [];
  readMessages(envelope, Buffer.from('topic'), ({ flags, payload, sequence }) =>
    list.push({ flags, payload: new Uint8Array(payload), sequence }),
  );
  return list;
}

describe('envelope', () => {
  test('what is sealed is opened: publisher, sequences, flags and bytes', () => {
    fc.assert(
      fc.property(node, worker, prefix, messages, fc.integer({ min: 0, max: sequenceMax - 10 }), (node, worker, prefix, list, sequence) => {
        const bytes = seal(new Sender({ node, worker }, prefix), sequence, list);
        const envelope = new Opener().open(bytes) as Envelope;
        expect(envelope.kind).toBe('messages');
        expect(envelope.publisher).toEqual({ node, worker });
        expect(envelope.prefixBytes).toBe(Buffer.byteLength(prefix));
        expect(envelope.count).toBe(list.length);
        const came = read(envelope);
        expect(came.map(({ flags, sequence }) => [flags, sequence])).toEqual(list.map(({ flags }, i) => [flags, sequence + i]));
        for (const [i, { payload }] of came.entries()) expect(Buffer.compare(payload, list[i]?.payload as Uint8Array)).toBe(0);
      }),
    );
  });

  test('flags that only mean something to the sender are left out', () => {
    const bytes = seal(new Sender({ node: '0'.repeat(16), worker: 1 }, 'p'), 1, [
      { flags: commandFlag.sendText | commandFlag.sendOwn | commandFlag.sendFirst, payload: new Uint8Array(1) },
    ]);
    expect(read(new Opener().open(bytes) as Envelope)[0]?.flags).toBe(commandFlag.sendText);
  });

  test('a probe carries its number and no messages', () => {
    const envelope = new Opener().open(new Sender({ node: 'f'.repeat(16), worker: 7 }, 'p').probe(42)) as Envelope;
    expect(envelope).toMatchObject({ kind: 'probe', sequence: 42, count: 0, publisher: { node: 'f'.repeat(16), worker: 7 } });
  });

  test('no bytes whatever make it throw, or hand out what is not in them', () => {
    const opener = new Opener();
    const sealed = fc.tuple(node, worker, messages).map(([node, worker, list]) => seal(new Sender({ node, worker }, 'p'), 5, list));
    const damaged = fc
      .tuple(sealed, fc.array(fc.record({ at: fc.nat(70), value: fc.nat(255) }), { maxLength: 4 }), fc.integer({ min: -40, max: 40 }))
      .map(([bytes, changes, length]) => {
        const out = Buffer.alloc(Math.max(0, bytes.byteLength + length));
        bytes.copy(out);
        for (const { at, value } of changes) if (out.byteLength > 0) out[at % Math.min(out.byteLength, 60)] = value;
        return out;
      });
    const noise = fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes));
    const likely = noise.map((bytes) =>
      bytes.byteLength > 2 ? Buffer.concat([Buffer.from([1, bytes[1] as number & 1]), bytes.subarray(2)]) : bytes,
    );
    fc.assert(
      fc.property(fc.oneof(damaged, noise, likely), (bytes) => {
        const envelope = opener.open(bytes);
        if (envelope === undefined) return;
        const list = read(envelope);
        expect(list.length).toBe(envelope.kind === 'probe' ? 0 : envelope.count);
        const used = list.reduce((sum, message) => sum + 5 + message.payload.byteLength, 23);
        expect(used).toBe(bytes.byteLength);
      }),
      { numRuns: 2000 },
    );
  });

  test('every cut and every longer form of an envelope is opened as nothing', () => {
    const bytes = seal(new Sender({ node: '0123456789abcdef', worker: 3 }, 'p'), 1, [
      { flags: 0, payload: Buffer.from('one') },
      { flags: 1, payload: new Uint8Array() },
    ]);
    const opener = new Opener();
    for (let length = 0; length < bytes.byteLength; length++) expect(opener.open(bytes.subarray(0, length))).toBeUndefined();
    expect(opener.open(Buffer.concat([bytes, Buffer.from([0])]))).toBeUndefined();
    expect(opener.open(bytes)).toBeDefined();
  });

  test('another version, a flag that nobody knows and sequences past the last are opened as nothing', () => {
    const sender = new Sender({ node: '0'.repeat(16), worker: 0 }, 'p');
    const opener = new Opener();
    const changed = (at: number, value: number) => {
      const bytes = seal(sender, 1, [{ flags: 0, payload: Buffer.from('x') }]);
      bytes[at] = value;
      return opener.open(bytes);
    };
    expect(changed(0, 1)).toBeDefined();
    expect(changed(0, 2)).toBeUndefined();
    expect(changed(1, 2)).toBeUndefined();
    expect(changed(23, 4)).toBeUndefined();
    const two = [
      { flags: 0, payload: new Uint8Array() },
      { flags: 0, payload: new Uint8Array() },
    ];
    expect(opener.open(seal(sender, sequenceMax - 1, two))).toBeDefined();
    expect(opener.open(seal(sender, sequenceMax, two))).toBeUndefined();
  });

  test('text that is not UTF-8 is opened as nothing, with all that comes with it', () => {
    const sender = new Sender({ node: '0'.repeat(16), worker: 0 }, 'p');
    const text = (...bytes: number[]) => ({ flags: commandFlag.sendText, payload: new Uint8Array(bytes) });
    const binary = { flags: 0, payload: new Uint8Array([0xff, 0xfe]) };
    const opens = (...list: { flags: number; payload: Uint8Array }[]) => new Opener().open(seal(sender, 1, list)) !== undefined;
    expect(opens(binary, text(0xc3, 0xa4), text())).toBe(true);
    for (const bad of [[0xff], [0xc3], [0xe2, 0x82], [0xed, 0xa0, 0x80], [0xc0, 0x80], [0xf4, 0x90, 0x80, 0x80]]) {
      expect([bad, opens(text(...bad)), opens(text(0x61), text(...bad), binary)]).toEqual([bad, false, false]);
    }
    // Cut within a character, which goes on in the next one.
    expect(opens(text(0xc3), text(0xa4))).toBe(false);
  });

  test('more publishers than are kept stay apart', () => {
    const opener = new Opener();
    for (let worker = 0; worker < 10_000; worker++) {
      const envelope = opener.open(new Sender({ node: '00000000000000aa', worker }, 'p').probe(1));
      expect(envelope?.publisher.worker).toBe(worker);
    }
  });

  test('a node is named by 16 hexadecimal digits', () => {
    expect(() => new Sender({ node: 'short', worker: 1 }, 'p')).toThrow('16 hexadecimal digits');
  });
});

describe('channels', () => {
  const topic = fc.uint8Array({ minLength: 1, maxLength: 60 }).map((bytes) => Buffer.from(bytes).latin1Slice(0, bytes.byteLength));
  const partitions = fc.option(fc.integer({ min: 1, max: slotCount }), { nil: undefined });

  test('a name says its partition and its topic, any bytes', () => {
    fc.assert(
      fc.property(prefix, partitions, topic, (prefix, partitions, key) => {
        const channels = new Channels(prefix, partitions);
        const partition = channels.partitionOf(key);
        const name = channels.nameOf(key, partition);
        const parsed = channels.parse(name);
        expect(parsed?.partition).toBe(partition);
        expect(name.latin1Slice(parsed?.topicAt ?? 0, name.byteLength)).toBe(key);
      }),
    );
  });

  test('names of other prefixes, and no names at all, are not ours', () => {
    const plain = new Channels('shop', undefined);
    const cluster = new Channels('shop', 16);
    for (const name of ['', 'shop', 'sho:x', 'shopping:x', 'other:x']) expect(plain.parse(Buffer.from(name))).toBeUndefined();
    for (const name of [
      'shop:x',
      'shop:{',
      'shop:{}:x',
      'shop:{1}x',
      'shop:{16}:x',
      'shop:{99999999999999999999}:x',
      'shop:{1',
      'shop:{1}',
    ]) {
      expect(cluster.parse(Buffer.from(name))).toBeUndefined();
    }
    expect(cluster.parse(Buffer.from('shop:{15}:'))).toEqual({ partition: 15, topicAt: 10 });
    fc.assert(fc.property(fc.uint8Array({ maxLength: 30 }), (bytes) => void cluster.parse(Buffer.from(bytes))));
  });

  test('hash slots are those of Redis', () => {
    // From the specification of Redis Cluster, and from CLUSTER KEYSLOT of a server.
    expect(slotOf('123456789')).toBe(0x31c3 % slotCount);
    expect([slotOf('0'), slotOf('15'), slotOf('foo'), slotOf('user1000')]).toEqual([13907, 4178, 12182, 3443]);
  });

  test('a topic has the same partition in every release', () => {
    const channels = new Channels('p', 256);
    expect(['a', 'room/1', 'room/2', 'é'].map((key) => channels.partitionOf(key))).toEqual([179, 168, 13, 105]);
  });

  test('topics spread evenly over partitions', () => {
    const channels = new Channels('p', 16);
    const counts = new Array<number>(16).fill(0);
    for (let i = 0; i < 16_000; i++) {
      const partition = channels.partitionOf(`room/${i}`);
      counts[partition] = (counts[partition] as number) + 1;
    }
    expect(Math.min(...counts)).toBeGreaterThan(800);
    expect(Math.max(...counts)).toBeLessThan(1200);
  });
});

describe('signed envelopes', () => {
  const [key, other] = ['k'.repeat(32), 'o'.repeat(32)] as const;
  const publisher = { node: '0123456789abcdef', worker: 3 };
  const list = [{ flags: commandFlag.sendText, payload: Buffer.from('one') }];
  const sealed = (keys: readonly string[], prefix = 'p') => seal(new Sender(publisher, prefix, new Seal(keys, prefix)), 7, list);
  const open = (bytes: Buffer) => new Opener().open(bytes) as Envelope;

  test('are those of the key, the prefix and the topic, with every bit as it was', () => {
    const ours = new Seal([key], 'p');
    const bytes = sealed([key]);
    expect(read(open(bytes)).map(({ payload, sequence }) => [Buffer.from(payload).toString(), sequence])).toEqual([['one', 7]]);
    expect(isSealed(open(bytes), ours, 'topic')).toBe(true);
    expect(isSealed(open(bytes), ours, 'topi')).toBe(false);
    expect(isSealed(open(bytes), new Seal([key], 'q'), 'topic')).toBe(false);
    expect(isSealed(open(bytes), new Seal([other], 'p'), 'topic')).toBe(false);
    // The prefix and the topic are one behind the other in what is signed.
    expect(isSealed(open(sealed([key], 'pt')), ours, 'opic')).toBe(false);
    for (let bit = 0; bit < bytes.byteLength * 8; bit++) {
      const changed = Buffer.from(bytes);
      changed[bit >> 3] = (changed[bit >> 3] as number) ^ (1 << (bit & 7));
      const envelope = new Opener().open(changed);
      expect([bit, envelope !== undefined && isSealed(envelope, ours, 'topic')]).toEqual([bit, false]);
    }
    for (let length = 0; length < bytes.byteLength; length++) {
      const envelope = new Opener().open(bytes.subarray(0, length));
      expect([length, envelope !== undefined && isSealed(envelope, ours, 'topic')]).toEqual([length, false]);
    }
  });

  test('are RFC 2104: HMAC-SHA-256 of the envelope, the prefix and the topic', () => {
    const bytes = sealed([key]);
    const hasher = new Bun.CryptoHasher('sha256', key);
    hasher.update(Buffer.concat([bytes.subarray(0, -32), Buffer.from('ptopic')]));
    expect(bytes.subarray(-32).toString('hex')).toBe(hasher.digest('hex'));
  });

  test('are signed with the first key, and believed of each', () => {
    const both = new Seal([other, key], 'p');
    expect(isSealed(open(sealed([key])), both, 'topic')).toBe(true);
    expect(isSealed(open(sealed([other, key])), new Seal([other], 'p'), 'topic')).toBe(true);
    expect(isSealed(open(sealed([other, key])), new Seal([key], 'p'), 'topic')).toBe(false);
  });

  test('are opened without a key too, and those without a signature are never believed', () => {
    expect(open(sealed([key])).count).toBe(1);
    const plain = open(seal(new Sender(publisher, 'p'), 7, list));
    expect([plain.signature, isSealed(plain, new Seal([key], 'p'), 'topic')]).toEqual([undefined, false]);
    const probe = open(new Sender(publisher, 'p', new Seal([key], 'p')).probe(5));
    expect([probe.sequence, isSealed(probe, new Seal([key], 'p'), ':probe:whatever')]).toEqual([5, true]);
  });
});
