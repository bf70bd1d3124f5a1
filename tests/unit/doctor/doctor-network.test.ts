import { afterAll, describe, expect, test } from 'bun:test';
import {
  checkAcceptQueue,
  checkConnectionTracking,
  checkIpv6,
  checkLowPorts,
  checkPortRange,
  checkReservedPorts,
  checkSynQueue,
  checkTcpMemory,
} from '../../../src/doctor/network.ts';
import { goalOf, machineOf, remediesOf, removeTrees } from '../../support/doctor-trees.ts';

afterAll(removeTrees);

const container = { '/.dockerenv': '' };

describe('queues', () => {
  const accept = (files: Record<string, string>, backlog = 4096) =>
    checkAcceptQueue(
      machineOf(files),
      goalOf({
        config: {
          listen: [
            { port: 8080, backlog },
            { unix: '/run/x.sock', backlog: 16 },
          ],
        },
      }),
    );

  test('somaxconn against the largest backlog', () => {
    expect(accept({ '/proc/sys/net/core/somaxconn': '4096\n' })?.verdict).toBe('ok');
    const cut = accept({ '/proc/sys/net/core/somaxconn': '128\n' });
    expect([cut?.verdict, ...remediesOf(cut)]).toEqual(['advice', 'host sysctl -w net.core.somaxconn=4096']);
    expect(accept({ '/proc/sys/net/core/somaxconn': '128\n' }, 100)?.verdict).toBe('ok');
    expect(accept({})).toBeUndefined();
  });

  test('within a container it is set from outside', () => {
    expect(remediesOf(accept({ ...container, '/proc/sys/net/core/somaxconn': '128\n' }))).toEqual([
      'docker docker run --sysctl net.core.somaxconn=4096',
    ]);
  });

  test('the SYN queue limits only where there are no SYN cookies', () => {
    const syn = (queue: string, cookies: string) =>
      checkSynQueue(machineOf({ '/proc/sys/net/ipv4/tcp_max_syn_backlog': queue, '/proc/sys/net/ipv4/tcp_syncookies': cookies }), goalOf());
    expect(syn('128\n', '1\n')?.verdict).toBe('ok');
    expect(syn('4096\n', '0\n')?.verdict).toBe('ok');
    const lost = syn('128\n', '0\n');
    expect(lost?.verdict).toBe('advice');
    expect(remediesOf(lost)).toEqual(['host sysctl -w net.ipv4.tcp_syncookies=1', 'host sysctl -w net.ipv4.tcp_max_syn_backlog=4096']);
    expect(checkSynQueue(machineOf({}), goalOf())).toBeUndefined();
  });
});

describe('ports', () => {
  const range = (text: string) => ({ '/proc/sys/net/ipv4/ip_local_port_range': text });

  test('the range for outgoing connections is wide, or narrow', () => {
    expect(checkPortRange(machineOf(range('1024\t65535\n')))?.verdict).toBe('ok');
    const narrow = checkPortRange(machineOf(range('60000\t60999\n')));
    expect([narrow?.verdict, ...remediesOf(narrow)]).toEqual(['advice', 'host sysctl -w net.ipv4.ip_local_port_range="32768 60999"']);
    expect(checkPortRange(machineOf({}))).toBeUndefined();
  });

  const own = (port: number, reserved: string) =>
    checkReservedPorts(
      machineOf({ ...range('1024\t65535\n'), '/proc/sys/net/ipv4/ip_local_reserved_ports': reserved }),
      goalOf({ config: { listen: port, admin: { port: 9100 } } }),
    );

  test('own ports lie outside of it, or are reserved', () => {
    expect(checkReservedPorts(machineOf(range('32768\t60999\n')), goalOf())?.verdict).toBe('ok');
    expect(own(8080, '8000-8100,9100\n')?.verdict).toBe('ok');
    expect(checkReservedPorts(machineOf({}), goalOf())).toBeUndefined();
  });

  test('else they are named, and the remedy keeps those that are reserved already', () => {
    const exposed = own(8080, '5000,9000-9200\n');
    expect(exposed).toMatchObject({ verdict: 'advice', what: expect.stringMatching(/^8080: /) });
    expect(remediesOf(exposed)).toEqual(['host sysctl -w net.ipv4.ip_local_reserved_ports=5000,9000-9200,8080']);
  });

  test('ports of the administrator need a capability', () => {
    const low = (status: string, port = 443) =>
      checkLowPorts(
        machineOf({ '/proc/self/status': status, '/proc/sys/net/ipv4/ip_unprivileged_port_start': '1024\n' }),
        goalOf({ config: { listen: [port, 8443] } }),
      );
    expect(low('CapEff:\t0000000000000000\n', 8080)).toBeUndefined();
    expect(low('CapEff:\t0000000000000400\n')?.verdict).toBe('ok');
    const refused = low('CapEff:\t00000000fffffbff\n');
    expect([refused?.verdict, ...remediesOf(refused)]).toEqual([
      'problem',
      'systemd AmbientCapabilities=CAP_NET_BIND_SERVICE',
      'host sysctl -w net.ipv4.ip_unprivileged_port_start=443',
    ]);
  });
});

describe('memory of TCP', () => {
  const check = (pages: number, connections: number, more = {}) =>
    checkTcpMemory(machineOf({ '/proc/sys/net/ipv4/tcp_mem': `1\t2\t${pages}\n`, ...more }), goalOf({ connections }));

  test('a page for each connection, or less', () => {
    expect(check(100_000, 100_000)?.verdict).toBe('ok');
    const tight = check(99_999, 100_000);
    expect([tight?.verdict, ...remediesOf(tight)]).toEqual(['advice', 'host sysctl -w net.ipv4.tcp_mem="50000 75000 100000"']);
    expect(checkTcpMemory(machineOf({}), goalOf())).toBeUndefined();
  });

  test("pages are the machine's own, and the setting is the host's, also in a container", () => {
    const large = { ...container, '/proc/self/smaps': 'KernelPageSize:       64 kB\n' };
    expect(check(100_000, 100_000, large)?.what).toContain('6.1 GiB');
    expect(remediesOf(check(1000, 100_000, large))[0]).toStartWith('host sysctl -w');
  });
});

describe('connection tracking', () => {
  const check = (most: number, used: number, connections?: number) =>
    checkConnectionTracking(
      machineOf({ '/proc/sys/net/netfilter/nf_conntrack_max': `${most}\n`, '/proc/sys/net/netfilter/nf_conntrack_count': `${used}\n` }),
      goalOf(connections === undefined ? {} : { connections }),
    );

  test('a table that is not there, not used, or large enough is right', () => {
    expect(checkConnectionTracking(machineOf({}), goalOf())?.verdict).toBe('ok');
    expect(check(1000, 0, 100_000)?.verdict).toBe('ok');
    expect(check(262_144, 1000, 100_000)?.verdict).toBe('ok');
  });

  test('a small one is a problem for what was asked for, else advice', () => {
    const small = check(65_536, 1000, 100_000);
    expect([small?.verdict, ...remediesOf(small)]).toEqual(['problem', 'host sysctl -w net.netfilter.nf_conntrack_max=126000']);
    expect(check(10_000, 1000)?.verdict).toBe('advice');
  });
});

describe('IPv6', () => {
  const there = { '/proc/net/if_inet6': '', '/proc/sys/net/ipv6/conf/all/disable_ipv6': '0\n' };

  test('there', () => {
    expect(checkIpv6(machineOf(there), goalOf()).verdict).toBe('ok');
  });

  test('not there: the default address does without, an address of the config does not', () => {
    for (const files of [{}, { ...there, '/proc/sys/net/ipv6/conf/all/disable_ipv6': '1\n' }]) {
      expect(checkIpv6(machineOf(files), goalOf()).verdict).toBe('advice');
      const refused = checkIpv6(machineOf(files), goalOf({ config: { listen: { host: '::1' } } }));
      expect(refused).toMatchObject({ verdict: 'problem', what: expect.stringContaining('::1') });
      expect(checkIpv6(machineOf(files), goalOf({ config: { listen: { host: '0.0.0.0' } } })).verdict).toBe('ok');
    }
  });
});
