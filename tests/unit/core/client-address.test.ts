import { afterEach, beforeEach, describe, expect, test } from 'bun:test';
import { addressRangeLayout, listenerFlag, proxyHeader } from '../../../ffi/layout.ts';
import { addressText } from '../../../src/core/address.ts';
import { encodeAddressRanges } from '../../../src/core/options.ts';
import { handshake } from '../../support/frames.mjs';
import { backends, LiveCore } from '../../support/live-core.ts';

const v4 = (text: string) => Uint8Array.from([...Array(10).fill(0), 0xff, 0xff, ...text.split('.').map(Number)]);
const loopback = [{ address: v4('127.0.0.0'), prefixBits: 104 }];

describe('addresses as text', () => {
  const cases: readonly (readonly [string, number[]])[] = [
    ['192.0.2.1', [192, 0, 2, 1]],
    ['0.0.0.0', [0, 0, 0, 0]],
    ['2001:db8::1', [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]],
    ['::1', [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]],
    ['::', Array(16).fill(0)],
    ['2001:db8:0:1:1:1:1:1', [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1]],
    ['192.0.2.1', [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1]],
  ];
  for (const [text, bytes] of cases)
    test(`${bytes.length} bytes as ${text}`, () => {
      expect(addressText(Uint8Array.from(bytes))).toBe(text);
    });
});

test('ranges are records one behind the other', () => {
  const ranges = [
    { address: v4('10.0.0.0'), prefixBits: 104 },
    { address: Uint8Array.from([0xfd, ...Array(15).fill(0)]), prefixBits: 8 },
  ];
  const records = encodeAddressRanges(ranges);
  expect(records.length).toBe(2 * addressRangeLayout.bytes);
  const view = new DataView(records.buffer);
  expect([...records.subarray(0, 16)]).toEqual([...v4('10.0.0.0')]);
  expect(view.getUint32(addressRangeLayout.prefixBits, true)).toBe(104);
  expect(records[addressRangeLayout.bytes]).toBe(0xfd);
  expect(view.getUint32(addressRangeLayout.bytes + addressRangeLayout.prefixBits, true)).toBe(8);
  expect(encodeAddressRanges([])).toHaveLength(0);
});

for (const backend of backends) {
  describe(`the client of a connection (${backend})`, () => {
    let live: LiveCore;
    const numbers = { maxConnections: 64, ringEntries: 64, recvBuffers: 64, proxyHeader: proxyHeader.xForwardedFor };
    beforeEach(() => {
      live = new LiveCore(backend, { core: { numbers } });
      live.onRequest = (head) => live.core.respond(head, 200, '', 'ok');
    });
    afterEach(() => live.destroy());

    async function request(wire: Awaited<ReturnType<LiveCore['connect']>>, fields: string): Promise<(typeof live.requests)[number]> {
      const before = live.requests.length;
      wire.write(`GET / HTTP/1.1\r\nHost: a\r\n${fields}\r\n`);
      return live.until('the request', () => live.requests[before]);
    }

    test('without trusted proxies no header moves it', async () => {
      const wire = await live.connect();
      const head = await request(wire, 'X-Forwarded-For: 192.0.2.1\r\n');
      expect(live.core.remoteAddress(head)).toEqual({ address: '127.0.0.1', port: wire.socket.localPort as number });
      expect(live.core.peer(head.slot, head.generation, true)).toEqual({ address: new Uint8Array(0), port: 0 });
    });

    test('with them it is that of the request, as long as it is the latest', async () => {
      live.core.setTrustedProxies(loopback);
      const wire = await live.connect();
      const first = await request(wire, 'X-Forwarded-For: 6.6.6.6, 192.0.2.1, 127.0.0.9\r\n');
      expect(live.core.remoteAddress(first)).toEqual({ address: '192.0.2.1', port: 0 });
      // Answered, and still the latest.
      await live.during(wire.head());
      expect(live.core.remoteAddress(first)).toEqual({ address: '192.0.2.1', port: 0 });
      const second = await request(wire, 'X-Forwarded-For: 2001:db8::2\r\n');
      expect(live.core.remoteAddress(second)).toEqual({ address: '2001:db8::2', port: 0 });
      // Another client's by now.
      expect(live.core.remoteAddress(first)).toBeUndefined();
      expect(live.core.addressOf(first.slot, first.generation)).toEqual({ address: '2001:db8::2', port: 0 });
      const third = await request(wire, '');
      expect(live.core.remoteAddress(third)?.address).toBe('127.0.0.1');
    });

    test('a WebSocket keeps that of its handshake', async () => {
      live.core.setTrustedProxies(loopback);
      const wire = await live.connect();
      await request(wire, 'X-Forwarded-For: 192.0.2.1\r\n');
      wire.write(handshake('/', { 'X-Forwarded-For': '192.0.2.7' }));
      await live.until('the open event', () => live.log.some((line) => line.startsWith('open')));
      const head = live.requests.at(-1) as (typeof live.requests)[number];
      const socket = live.sockets[head.slot];
      expect(socket?.remoteAddress).toBe('192.0.2.7');
      expect(live.core.remoteAddress(head)).toEqual({ address: '192.0.2.7', port: 0 });
      wire.reset();
      await live.until('the close event', () => live.log.some((line) => line.startsWith('close')));
      expect(socket?.remoteAddress).toBe('');
    });

    test('ranges that are replaced hold for new connections', async () => {
      live.core.setTrustedProxies(loopback);
      const before = await live.connect();
      await request(before, '');
      live.core.setTrustedProxies([]);
      expect(live.core.remoteAddress(await request(before, 'X-Forwarded-For: 192.0.2.1\r\n'))?.address).toBe('192.0.2.1');
      const after = await live.connect();
      expect(live.core.remoteAddress(await request(after, 'X-Forwarded-For: 192.0.2.1\r\n'))?.address).toBe('127.0.0.1');
    });

    test('the PROXY protocol tells it, with its port', async () => {
      live.core.setListenerFlags(0, listenerFlag.proxyRequired);
      // What the core is told by `listen` in a worker.
      live.core.setTrustedProxies(loopback);
      const wire = await live.connect();
      wire.write('PROXY TCP6 2001:db8::1 ::1 4711 443\r\n');
      expect(live.core.remoteAddress(await request(wire, ''))).toEqual({ address: '2001:db8::1', port: 4711 });
    });

    test('ranges that make no sense are refused', () => {
      expect(() => live.core.setTrustedProxies([{ address: v4('10.0.0.0'), prefixBits: 129 }])).toThrow('trusted proxies');
    });
  });
}
