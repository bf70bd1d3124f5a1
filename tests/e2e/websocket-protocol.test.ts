import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test';
import { eventually } from '../support/eventually.ts';
import { closePayload, frame, opcode } from '../support/frames.mjs';
import { forEachBackend, type Gateway, startGateway } from '../support/gateway.ts';
import { residentBytes } from '../support/process-state.ts';
import { Wire } from '../support/wire.ts';

// Only ends a test that has failed: nothing here is measured in time.
setDefaultTimeout(60_000);

const config = `
import { defineGateway } from 'ringway';
const closes = [];
export default defineGateway({
  $OPTIONS,
  fetch: () => Response.json(closes.splice(0)),
  websocket: {
    '/echo': {
      message: (socket, message) => void socket.send(message),
      close: (_socket, code, reason) => void closes.push([code, reason]),
    },
    '/length': {
      message: (socket, message) => void socket.send(String(message.byteLength)),
      maxPayloadBytes: 4_000_000,
    },
    '/small': { message: (socket, message) => void socket.send(message), maxPayloadBytes: 1000 },
    '/rated': { message: (socket, message) => void socket.send(message), maxMessagesPerSecond: 5 },
  },
});
`;

forEachBackend('a WebSocket against the protocol', (backend) => {
  let gateway: Gateway;
  let worker: number;
  beforeAll(async () => {
    gateway = await startGateway({ backend, config });
    [worker] = (await gateway.workerPids()) as [number];
  });
  afterAll(() => gateway?.stop());

  /** Write the pieces, each in a segment of its own, and expect the close code; the client never says another thing. */
  async function closedWith(pieces: readonly Uint8Array[], path = '/echo'): Promise<number> {
    const wire = await Wire.open(gateway.port, path);
    for (const piece of pieces) await wire.writeAll(piece);
    const code = await wire.closeCode();
    await wire.untilEnded();
    wire.destroy();
    return code;
  }

  test('closes with 1002 for every violation of framing', async () => {
    const before = await gateway.metric('ringway_websocket_errors_total', { reason: 'protocol' });
    const violations: Record<string, Uint8Array[]> = {
      'not masked': [frame(opcode.text, 'x', { masked: false })],
      'continuation of nothing': [frame(opcode.continuation, 'x')],
      'continuation of nothing, not the last': [frame(opcode.continuation, 'x', { fin: false })],
      'text inside a message': [frame(opcode.text, 'a', { fin: false }), frame(opcode.text, 'b')],
      'binary inside a message': [frame(opcode.text, 'a', { fin: false }), frame(opcode.binary, 'b')],
      'continuation after the end': [frame(opcode.text, 'a', { fin: false }), Buffer.concat([frame(0, 'b'), frame(0, 'c')])],
      'a length of two bytes for 125': [frame(opcode.text, 'x'.repeat(125), { lengthBytes: 2 })],
      'a length of eight bytes for 65535': [frame(opcode.text, 'x'.repeat(65535), { lengthBytes: 8 })],
      'a length with the highest bit set': [frame(opcode.binary, '', { claim: 2n ** 63n, lengthBytes: 8 })],
      'a ping in fragments': [frame(opcode.ping, 'x', { fin: false })],
      'a close in fragments': [frame(opcode.close, closePayload(1000), { fin: false })],
      'a ping of 126 bytes': [frame(opcode.ping, 'x'.repeat(126))],
      'a close of 126 bytes': [frame(opcode.close, closePayload(1000, 'x'.repeat(124)))],
      'a close of one byte': [frame(opcode.close, 'x')],
    };
    for (const rsv of [1, 2, 3, 4, 7]) violations[`reserved bits ${rsv}`] = [frame(opcode.text, 'x', { rsv })];
    for (const code of [3, 4, 5, 6, 7, 11, 12, 13, 14, 15]) violations[`reserved opcode ${code}`] = [frame(code, 'x')];
    for (const code of [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535]) {
      violations[`close code ${code}`] = [frame(opcode.close, closePayload(code))];
    }
    for (const [what, pieces] of Object.entries(violations)) expect([what, await closedWith(pieces)]).toEqual([what, 1002]);
    const after = await gateway.metric('ringway_websocket_errors_total', { reason: 'protocol' });
    expect(after - before).toBe(Object.keys(violations).length);
  });

  test('answers a close frame with its code, for every code that may be sent', async () => {
    for (const code of [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999]) {
      expect(await closedWith([frame(opcode.close, closePayload(code, 'because'))])).toBe(code);
    }
    expect(await closedWith([frame(opcode.close)])).toBe(1005);
    await fetch(gateway.url);
    await closedWith([frame(opcode.close, closePayload(4321, 'réason'))]);
    expect(await (await fetch(gateway.url)).json()).toEqual([[4321, 'réason']]);
  });

  test('hears nothing after a close frame, and answers what was said before it', async () => {
    const wire = await Wire.open(gateway.port, '/echo');
    wire.write(
      Buffer.concat([
        frame(opcode.text, 'before'),
        frame(opcode.text, 'half a mess', { fin: false }),
        frame(opcode.close, closePayload(1000)),
        frame(opcode.continuation, 'age'),
        frame(opcode.text, 'after'),
        frame(3, 'not even valid'),
      ]),
    );
    const frames = await wire.frames();
    expect(frames.map((each) => each.opcode)).toEqual([opcode.text, opcode.close]);
    expect(String(frames[0]?.payload)).toBe('before');
    expect(frames[1]?.payload.readUInt16BE()).toBe(1000);
  });

  test('answers what was said before a frame that it refuses, in one segment', async () => {
    const refused: [number, string, Buffer][] = [
      [1002, '/echo', frame(3, 'x')],
      [1007, '/echo', frame(opcode.text, Buffer.from([0xff]))],
      [1009, '/small', frame(opcode.binary, '', { claim: 1001n })],
      [1008, '/rated', Buffer.concat(Array.from({ length: 50 }, () => frame(opcode.text, 'x')))],
    ];
    for (const [code, path, bad] of refused) {
      const wire = await Wire.open(gateway.port, path);
      wire.write(Buffer.concat([frame(opcode.text, 'before'), bad]));
      const frames = await wire.frames();
      const last = frames.at(-1);
      expect([path, String(frames[0]?.payload), last?.opcode, last?.payload.readUInt16BE()]).toEqual([path, 'before', opcode.close, code]);
    }
  });

  test('closes with 1009 at the header of a message that is too long, and allocates nothing for it', async () => {
    await closedWith([frame(opcode.text, 'warm')].concat(frame(opcode.close)));
    const before = residentBytes(worker);
    const wires: Wire[] = [];
    for (let i = 0; i < 64; i++) {
      const wire = await Wire.open(gateway.port, '/echo');
      wire.write(frame(opcode.binary, '', { claim: 2n ** 63n - 1n, lengthBytes: 8 }));
      wires.push(wire);
    }
    for (const wire of wires) expect(await wire.closeCode()).toBe(1009);
    expect(residentBytes(worker) - before).toBeLessThan(16 * 1024 * 1024);
    for (const wire of wires) wire.destroy();
    expect(await closedWith([frame(opcode.text, '', { claim: 1001n })], '/small')).toBe(1009);
    expect(
      await closedWith([frame(opcode.text, 'x'.repeat(1000), { fin: false }), frame(0, '', { fin: false, claim: 1n })], '/small'),
    ).toBe(1009);
  });

  test('takes a claimed length for nothing until the bytes come', async () => {
    const before = residentBytes(worker);
    const wires: Wire[] = [];
    for (let i = 0; i < 100; i++) {
      const wire = await Wire.open(gateway.port, '/echo');
      await wire.writeAll(frame(opcode.binary, 'tiny', { claim: 1024n * 1024n }));
      wires.push(wire);
    }
    // 100 claims of 1 MiB each.
    expect(residentBytes(worker) - before).toBeLessThan(30 * 1024 * 1024);
    for (const wire of wires) wire.destroy();
  });

  test('takes messages of exactly the limit, whole and in fragments', async () => {
    const wire = await Wire.open(gateway.port, '/small');
    wire.write(frame(opcode.binary, new Uint8Array(1000)));
    expect((await wire.frame())?.payload.length).toBe(1000);
    wire.write(Buffer.concat([frame(opcode.binary, new Uint8Array(999), { fin: false }), frame(0, 'x')]));
    expect((await wire.frame())?.payload.length).toBe(1000);
    wire.destroy();
  });

  test('takes 65,536 fragments a message, and a million of one byte or none, in linear time and bounded memory', async () => {
    const before = residentBytes(worker);
    const many = async (payload: string, count: number) => {
      const wire = await Wire.open(gateway.port, '/length');
      const thousand = Buffer.concat(Array.from({ length: 1024 }, () => frame(opcode.continuation, payload, { fin: false })));
      await wire.writeAll(frame(opcode.binary, payload, { fin: false }));
      for (let sent = 0; sent < count; sent += 1024) await wire.writeAll(thousand);
      await wire.writeAll(frame(opcode.continuation, payload));
      const answer = await wire.frame();
      wire.destroy();
      return String(answer?.payload);
    };
    expect(await many('x', 65536)).toBe(String(65536 + 2));
    expect(await many('', 1024 * 1024)).toBe('0');
    expect(await many('x', 1024 * 1024)).toBe(String(1024 * 1024 + 2));
    expect(residentBytes(worker) - before).toBeLessThan(64 * 1024 * 1024);
  }, 60_000);

  test('answers floods of pings without growing when nobody reads the pongs, and serves others meanwhile', async () => {
    const before = residentBytes(worker);
    const wire = await Wire.open(gateway.port, '/echo');
    wire.socket.pause();
    const flood = Buffer.concat(Array.from({ length: 1000 }, () => frame(opcode.ping, 'x'.repeat(125))));
    // 26 MB of pongs: more than the buffers of both sockets hold, so most must be dropped.
    const dropped = () => gateway.metric('ringway_messages_dropped_total', { reason: 'control' });
    const other = await Wire.open(gateway.port, '/echo');
    for (let i = 0; i < 400 && (i < 200 || (await dropped()) === 0); i++) {
      await wire.writeAll(flood);
      if (i % 50 !== 0) continue;
      other.write(frame(opcode.text, `still ${i}`));
      expect(String((await other.frame())?.payload)).toBe(`still ${i}`);
    }
    expect(await dropped()).toBeGreaterThan(0);
    expect(await gateway.metric('ringway_backpressure_bytes')).toBeLessThan(1024 * 1024);
    expect(residentBytes(worker) - before).toBeLessThan(32 * 1024 * 1024);
    // Pongs that nobody asked for are only counted.
    for (let i = 0; i < 20; i++) await other.writeAll(Buffer.concat(Array.from({ length: 1000 }, () => frame(opcode.pong, 'x'))));
    other.write(frame(opcode.text, 'done'));
    expect(String((await other.frame())?.payload)).toBe('done');
    expect(await gateway.metric('ringway_websocket_pongs_received_total')).toBeGreaterThanOrEqual(20_000);
    // Reading again, the latest pings are answered.
    wire.socket.resume();
    await eventually('the pongs that were queued arrive', () => wire.received.length > 10_000);
    wire.destroy();
    other.destroy();
  }, 60_000);

  test('closes with 1007 at the first octet that is not UTF-8, before the message ends', async () => {
    // Each ends with the first octet that no valid text can have there (RFC 3629 §4).
    const bad = [
      '80',
      'bf',
      'c0',
      'c1',
      'f5',
      'ff',
      'c328',
      'e080',
      'e28228',
      'eda0',
      'f08f',
      'f490',
      'f0288c',
      'f09f98 28'.replace(' ', ''),
    ];
    for (const hex of bad) {
      const octets = Buffer.from(hex, 'hex');
      const text = Buffer.concat([Buffer.from('κόσμε '), octets]);
      const unfinished = frame(opcode.text, text, { claim: BigInt(text.length + 50) });
      for (let cut = unfinished.length - octets.length; cut < unfinished.length; cut++) {
        const pieces = [unfinished.subarray(0, cut), unfinished.subarray(cut)];
        expect([hex, cut, await closedWith(pieces)]).toEqual([hex, cut, 1007]);
      }
      const split = [frame(opcode.text, text.subarray(0, -1), { fin: false }), frame(0, text.subarray(-1), { fin: false })];
      expect([hex, 'fragments', await closedWith(split)]).toEqual([hex, 'fragments', 1007]);
      expect([hex, 'whole', await closedWith([frame(opcode.text, text)])]).toEqual([hex, 'whole', 1007]);
    }
  });

  test('closes with 1007 for a text that ends within a character, and for a close reason that is not UTF-8', async () => {
    expect(await closedWith([frame(opcode.text, Buffer.from('e282', 'hex'))])).toBe(1007);
    expect(await closedWith([frame(opcode.text, Buffer.from('f09f98', 'hex'), { fin: false }), frame(0)])).toBe(1007);
    expect(await closedWith([frame(opcode.close, closePayload(1000, Buffer.from('e282', 'hex')))])).toBe(1007);
  });

  test('does not look at binary messages', async () => {
    const wire = await Wire.open(gateway.port, '/echo');
    wire.write(frame(opcode.binary, Buffer.from('80ffc0', 'hex')));
    expect((await wire.frame())?.payload.toString('hex')).toBe('80ffc0');
    wire.destroy();
  });

  test('sends nothing more after its close frame, and closes the connection first', async () => {
    const wire = await Wire.open(gateway.port, '/echo');
    wire.write(Buffer.concat([frame(3, 'bad'), frame(opcode.text, 'ignored'), frame(opcode.ping, 'ignored')]));
    const frames = await wire.frames();
    expect(frames.map((each) => each.opcode)).toEqual([opcode.close]);
    expect(wire.ended).toBe('end');
  });

  test('random bytes, zeros and HTTP in the place of frames end that connection only', async () => {
    for (const junk of [Buffer.alloc(4096), Buffer.alloc(4096, 0xff), Buffer.from('GET / HTTP/1.1\r\nHost: x\r\n\r\n')]) {
      expect(await closedWith([junk])).toBe(1002);
    }
    for (let i = 0; i < 100; i++) {
      const wire = await Wire.open(gateway.port, '/echo');
      wire.write(crypto.getRandomValues(new Uint8Array(200)));
      wire.socket.end();
      await wire.untilEnded();
    }
    expect(await gateway.workerPids()).toEqual([worker]);
  });
});
