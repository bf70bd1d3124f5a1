import { afterEach, beforeEach, describe, expect, test } from 'bun:test';
import type { ListenAddress, TcpAddress } from '../../../src/config/resolve.ts';
import { OperatingError } from '../../../src/operating-error.ts';
import { Listeners } from '../../../src/supervisor/listeners.ts';
import { FakeNative } from '../../support/fake-native.ts';

let native: FakeNative;
beforeEach(() => {
  native = new FakeNative();
});
afterEach(() => native.dispose());

function tcp(host: string, port: number, more: Partial<TcpAddress> = {}): TcpAddress {
  return {
    kind: 'tcp',
    host,
    port,
    hostWithoutIpv6: undefined,
    ipv6Only: false,
    backlog: 16,
    tls: undefined,
    proxyProtocol: false,
    ...more,
  };
}
function refusal(addresses: readonly ListenAddress[]): string {
  try {
    Listeners.open(native, addresses, 2).close();
  } catch (error) {
    if (error instanceof OperatingError) return error.message;
    throw error;
  }
  return 'opened';
}

describe('Listeners', () => {
  test('each worker has its own socket for an address; first the address is claimed alone', () => {
    const listeners = Listeners.open(native, [tcp('127.0.0.1', 80)], 2);
    expect(native.events).toEqual(['listen 127.0.0.1 80 flags 2', 'listen 127.0.0.1 80 flags 0', 'listen 127.0.0.1 80 flags 0']);
    const [zero, one] = [listeners.of(0), listeners.of(1)];
    expect(zero[0]?.fd).not.toBe(one[0]?.fd);
    expect(zero).toMatchObject([{ index: 0, label: 'http://127.0.0.1:80' }]);
    listeners.close();
    expect(native.openFds.size).toBe(0);
  });

  test('with port 0 all workers share the port that the first one got', () => {
    const listeners = Listeners.open(native, [tcp('::', 0)], 3);
    expect(native.events.slice(1)).toEqual(['listen :: 0 flags 0', 'listen :: 54321 flags 0', 'listen :: 54321 flags 0']);
    expect(listeners.open[0]).toMatchObject({ port: 54321, label: 'http://localhost:54321' });
    listeners.close();
  });

  test('a Unix socket is one descriptor for all workers, closed once', () => {
    const listeners = Listeners.open(
      native,
      [{ kind: 'unix', path: '/nowhere/a.sock', backlog: 16, tls: undefined, proxyProtocol: false }],
      3,
    );
    expect(new Set([0, 1, 2].map((worker) => listeners.of(worker)[0]?.fd)).size).toBe(1);
    listeners.close();
    expect(native.openFds.size).toBe(0);
  });

  test('without IPv6 the default address falls back to IPv4, one named in the config does not', () => {
    native.refuse = (host) => (host === '::' ? 'EAFNOSUPPORT' : undefined);
    const listeners = Listeners.open(native, [tcp('::', 80, { hostWithoutIpv6: '0.0.0.0' })], 1);
    expect(native.events.at(-1)).toBe('listen 0.0.0.0 80 flags 0');
    listeners.close();
    expect(refusal([tcp('::', 80)])).toContain('this system has no IPv6');
  });

  test('ipv6Only reaches the socket', () => {
    Listeners.open(native, [tcp('::', 80, { ipv6Only: true })], 1).close();
    expect(native.events).toEqual(['listen :: 80 flags 3', 'listen :: 80 flags 1']);
  });

  test('a refused address is explained, and what was open already is closed', () => {
    const codes = {
      EADDRINUSE: 'another process listens there already',
      EACCES: 'CAP_NET_BIND_SERVICE',
      EADDRNOTAVAIL: 'no such address',
      EWHATEVER: 'cannot listen: EWHATEVER',
    };
    for (const [code, words] of Object.entries(codes)) {
      native.refuse = (_, port, flags) => (port === 443 && flags === 0 ? code : undefined);
      const message = refusal([tcp('::1', 80), tcp('::1', 443)]);
      expect(message).toStartWith('cannot listen on [::1]:443: ');
      expect(message).toContain(words);
      expect(message).toEndWith(`(${code})`);
      expect(native.openFds.size).toBe(0);
    }
  });
});
