import { afterEach, beforeEach, describe, expect, test } from 'bun:test';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import type { ListenAddress, TcpAddress, UnixAddress } from '../../../src/config/resolve.ts';
import { keepsAll, Listeners } from '../../../src/supervisor/listeners.ts';
import { FakeNative } from '../../support/fake-native.ts';

let native: FakeNative;
let folder: string;
beforeEach(() => {
  native = new FakeNative();
  folder = mkdtempSync(join(tmpdir(), 'ringway-listeners-'));
});
afterEach(() => {
  native.dispose();
  rmSync(folder, { recursive: true });
});

const common = { backlog: 16, tls: undefined, proxyProtocol: false };

function tcp(host: string, port: number, more: Partial<TcpAddress> = {}): TcpAddress {
  return { ...common, kind: 'tcp', host, port, hostWithoutIpv6: undefined, ipv6Only: false, ...more };
}
/** Its file is there, as the core would have made it. */
function unix(name: string): UnixAddress {
  const path = join(folder, name);
  if (!existsSync(path)) writeFileSync(path, '');
  return { ...common, kind: 'unix', path };
}
const fdsOf = (listeners: Listeners, workers: number) =>
  Array.from({ length: workers }, (_, worker) => listeners.of(worker).map(({ fd }) => fd));
/** As a reload does: prepare, begin, drop what is not wanted any more. */
function change(before: Listeners, addresses: readonly ListenAddress[], workers: number): Listeners {
  const next = Listeners.open(native, addresses, workers, { before: before.open, later: true });
  expect(next.begin(before.open)).toEqual([]);
  before.closeAllBut(next.open);
  return next;
}
/** What happened since the last call. */
function news(): string[] {
  return native.events.splice(0);
}

describe('listeners of the next config', () => {
  test('have the sockets of the addresses that stay, and nothing is done to those', () => {
    const before = Listeners.open(native, [tcp('127.0.0.1', 80), unix('a')], 2);
    news();
    const next = Listeners.open(native, [unix('a'), tcp('127.0.0.1', 80)], 2, { before: before.open, later: true });
    expect(next.of(0)).toEqual(
      before
        .of(0)
        .toReversed()
        .map((each, index) => ({ ...each, index })),
    );
    expect(keepsAll(before.open, next.open)).toBe(true);
    expect(next.begin(before.open)).toEqual([]);
    before.closeAllBut(next.open);
    expect(news()).toEqual([]);
    next.close();
    expect(native.openFds.size).toBe(0);
  });

  test('with more workers have more sockets, which take connections only when all is certain', () => {
    const before = Listeners.open(native, [tcp('127.0.0.1', 0)], 1);
    news();
    const next = Listeners.open(native, [tcp('127.0.0.1', 0)], 3, { before: before.open, later: true });
    expect(news()).toEqual(['listen 127.0.0.1 54321 flags 4', 'listen 127.0.0.1 54321 flags 4']);
    expect(next.open[0]).toMatchObject({ label: 'http://127.0.0.1:54321', port: 54321 });
    expect(fdsOf(next, 3).map((fds) => fds.length)).toEqual([1, 1, 1]);
    expect(next.begin(before.open)).toEqual([]);
    expect(news()).toEqual(['begin 127.0.0.1 54321 backlog 16', 'begin 127.0.0.1 54321 backlog 16']);
    // Once is enough.
    expect(next.begin(before.open)).toEqual([]);
    expect(news()).toEqual([]);
  });

  test('with fewer workers give each several: no queue is left without anybody who serves it', () => {
    const four = Listeners.open(native, [tcp('127.0.0.1', 80), tcp('127.0.0.1', 81), unix('a')], 4);
    const three = change(four, [tcp('127.0.0.1', 80), tcp('127.0.0.1', 81), unix('a')], 3);
    expect(fdsOf(three, 3).map((fds) => fds.length)).toEqual([5, 3, 3]);
    const one = change(three, [tcp('127.0.0.1', 80), tcp('127.0.0.1', 81), unix('a')], 1);
    expect(new Set(one.of(0).map(({ fd }) => fd))).toEqual(native.openFds);
    expect(one.of(0).map(({ index }) => index)).toEqual([0, 0, 0, 0, 1, 1, 1, 1, 2]);
    expect(news().filter((event) => event.includes('flags 4'))).toEqual([]);
  });

  test('of an address that goes are closed, and its socket file removed', () => {
    const before = Listeners.open(native, [tcp('127.0.0.1', 80), unix('a'), unix('b')], 2);
    const next = change(before, [unix('b')], 2);
    expect(native.openFds.size).toBe(1);
    expect([existsSync(join(folder, 'a')), existsSync(join(folder, 'b'))]).toEqual([false, true]);
    expect(keepsAll(before.open, next.open)).toBe(false);
    next.close();
    expect(existsSync(join(folder, 'b'))).toBe(false);
  });

  test('of a new address are claimed alone first, and begin before any other', () => {
    const before = Listeners.open(native, [tcp('127.0.0.1', 80)], 1);
    news();
    const next = Listeners.open(native, [tcp('127.0.0.1', 80), tcp('127.0.0.1', 81)], 2, { before: before.open, later: true });
    next.begin(before.open);
    expect(news()).toEqual([
      'listen 127.0.0.1 81 flags 2',
      'listen 127.0.0.1 80 flags 4',
      'listen 127.0.0.1 81 flags 4',
      'listen 127.0.0.1 81 flags 4',
      'begin 127.0.0.1 81 backlog 16',
      'begin 127.0.0.1 81 backlog 16',
      'begin 127.0.0.1 80 backlog 16',
    ]);
  });

  test('of another address on a port that is ours are not refused for that', () => {
    const before = Listeners.open(native, [tcp('127.0.0.1', 80)], 1);
    native.refuse = (_, port, flags) => (port === 80 && (flags & 2) !== 0 ? 'EADDRINUSE' : undefined);
    const next = change(before, [tcp('0.0.0.0', 80)], 1);
    expect(next.open[0]?.label).toBe('http://localhost:80');
    expect(native.openFds.size).toBe(1);
  });

  test('get another backlog when the config says so', () => {
    const before = Listeners.open(native, [tcp('127.0.0.1', 80), tcp('127.0.0.1', 81)], 2);
    news();
    change(before, [tcp('127.0.0.1', 80, { backlog: 99 }), tcp('127.0.0.1', 81)], 2);
    expect(news()).toEqual(['begin 127.0.0.1 80 backlog 99', 'begin 127.0.0.1 80 backlog 99']);
  });

  test('speak TLS or not as the new config says', () => {
    const tls = { path: ['listen', 'tls'], files: {}, serverNames: [], reloadInterval: 0 };
    const before = Listeners.open(native, [tcp('127.0.0.1', 80)], 1);
    expect(change(before, [tcp('127.0.0.1', 80, { tls })], 1).open[0]?.label).toBe('https://127.0.0.1:80');
  });

  test('fall back to IPv4 once, and stay there', () => {
    native.refuse = (host) => (host === '::' ? 'EAFNOSUPPORT' : undefined);
    const wanted = tcp('::', 80, { hostWithoutIpv6: '0.0.0.0' });
    const before = Listeners.open(native, [wanted], 1);
    news();
    change(before, [wanted], 2);
    expect(news()).toEqual(['listen 0.0.0.0 80 flags 4', 'begin 0.0.0.0 80 backlog 16']);
  });

  test('that cannot be had leave all as it was', () => {
    const before = Listeners.open(native, [tcp('127.0.0.1', 80), unix('a')], 1);
    const had = new Set(native.openFds);
    for (const isRefused of [
      (port: number | undefined, flags: number) => port === 81 && flags === 2,
      (port: number | undefined, flags: number) => port === 81 && flags === 4,
      (port: number | undefined, flags: number) => port === 80 && flags === 4,
    ]) {
      native.refuse = (_, port, flags) => (isRefused(port, flags) ? 'EADDRINUSE' : undefined);
      const attempt = () =>
        Listeners.open(native, [tcp('127.0.0.1', 80), unix('b'), tcp('127.0.0.1', 81)], 3, { before: before.open, later: true });
      expect(attempt).toThrow('another process listens there already');
      expect(native.openFds).toEqual(had);
      expect(existsSync(join(folder, 'a'))).toBe(true);
    }
  });

  test('that somebody else has got meanwhile leave all as it was', () => {
    const before = Listeners.open(native, [tcp('127.0.0.1', 80)], 1);
    const had = new Set(native.openFds);
    native.refuseBegin = (_, port) => (port === 81 ? 'EADDRINUSE' : undefined);
    const next = Listeners.open(native, [tcp('127.0.0.1', 80), tcp('127.0.0.1', 81)], 2, { before: before.open, later: true });
    news();
    expect(() => next.begin(before.open)).toThrow('cannot listen on http://127.0.0.1:81: another process listens there already');
    expect(news()).toEqual(['begin 127.0.0.1 81 backlog 16']);
    next.closeAllBut(before.open);
    expect(native.openFds).toEqual(had);
  });

  test('that cannot be widened go on with the sockets that they have', () => {
    const before = Listeners.open(native, [tcp('127.0.0.1', 80)], 1);
    native.refuseBegin = () => 'ENOBUFS';
    const next = Listeners.open(native, [tcp('127.0.0.1', 80)], 2, { before: before.open, later: true });
    expect(next.begin(before.open).map(({ message }) => message)).toEqual([
      'cannot listen on http://127.0.0.1:80: cannot listen: ENOBUFS (ENOBUFS)',
    ]);
  });

  test('are refused when a worker would have more than its core takes', () => {
    const ports = [80, 81, 82].map((port) => tcp('127.0.0.1', port));
    const before = Listeners.open(native, ports, 100);
    const had = new Set(native.openFds);
    expect(() => Listeners.open(native, ports, 1, { before: before.open, later: true })).toThrow(
      '300 listening sockets of more workers than now would fall to each of a single worker',
    );
    expect(native.openFds).toEqual(had);
    change(before, ports, 2);
  });

  test('through any number of changes every socket that takes connections has somebody who serves it', () => {
    const step = fc.record({
      ports: fc.uniqueArray(fc.integer({ min: 80, max: 84 }), { minLength: 1 }),
      workers: fc.integer({ min: 1, max: 5 }),
    });
    fc.assert(
      fc.property(fc.array(step, { minLength: 1, maxLength: 8 }), (steps) => {
        const own = new FakeNative();
        let now: Listeners | undefined;
        for (const { ports, workers } of steps) {
          const addresses = ports.map((port) => tcp('127.0.0.1', port));
          const next: Listeners = Listeners.open(own, addresses, workers, now === undefined ? {} : { before: now.open, later: true });
          const kept = (now?.open ?? []).filter(({ port }) => ports.includes(port ?? 0)).flatMap(({ fds }) => fds);
          next.begin(now?.open);
          now?.closeAllBut(next.open);
          now = next;
          const served = fdsOf(next, workers).flat();
          expect(new Set(served)).toEqual(own.openFds);
          expect(served).toHaveLength(own.openFds.size);
          expect(kept.every((fd) => own.openFds.has(fd))).toBe(true);
          // Each worker accepts from every address.
          for (let worker = 0; worker < workers; worker++)
            expect(new Set(next.of(worker).map(({ index }) => index)).size).toBe(addresses.length);
        }
        now?.close();
        expect(own.openFds.size).toBe(0);
        own.dispose();
      }),
      { numRuns: 50 },
    );
  });
});
