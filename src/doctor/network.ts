/** Checks of the kernel's network: queues, ports, memory for TCP, connection tracking, IPv6. */
import { isIPv6 } from 'node:net';
import type { TcpAddress } from '../config/resolve.ts';
import { advice, count, type Finding, ok, problem, short, size } from './finding.ts';
import type { Goal } from './goal.ts';
import type { Machine } from './machine.ts';

function backlogOf(goal: Goal): number {
  return Math.max(...goal.listen.map(({ backlog }) => backlog), 1);
}

function tcpAddresses(goal: Goal): TcpAddress[] {
  return goal.listen.flatMap((address) => (address.kind === 'tcp' ? [address] : []));
}

/** Ports that the gateway listens on, those of the administrator included; 0, which the system chooses, is none. */
function portsOf(goal: Goal): number[] {
  const admin = goal.admin !== false && goal.admin.kind === 'tcp' ? [goal.admin.port] : [];
  return [...new Set([...tcpAddresses(goal).map(({ port }) => port), ...admin])].filter((port) => port > 0).sort((a, b) => a - b);
}

export function checkAcceptQueue(machine: Machine, goal: Goal): Finding | undefined {
  const cap = machine.sysctl('net.core.somaxconn');
  if (cap === undefined) return undefined;
  const backlog = backlogOf(goal);
  if (cap >= backlog) return ok('accept-queue', `net.core.somaxconn is ${count(cap)}; backlog is ${count(backlog)} for each worker`);
  return advice(
    'accept-queue',
    `net.core.somaxconn is ${count(cap)} and cuts backlog (${count(backlog)}): connections are lost when many come at once`,
    machine.setSysctl('net.core.somaxconn', backlog),
  );
}

/** With SYN cookies the kernel answers past the queue as well, and tcp_max_syn_backlog limits nothing. */
export function checkSynQueue(machine: Machine, goal: Goal): Finding | undefined {
  const queue = machine.sysctl('net.ipv4.tcp_max_syn_backlog');
  const cookies = machine.sysctl('net.ipv4.tcp_syncookies');
  if (queue === undefined || cookies === undefined) return undefined;
  const backlog = backlogOf(goal);
  const what = `net.ipv4.tcp_max_syn_backlog is ${count(queue)}, SYN cookies are ${cookies === 0 ? 'off' : 'on'}`;
  if (cookies !== 0 || queue >= backlog) return ok('syn-queue', what);
  return advice(
    'syn-queue',
    `${what}: handshakes are lost when many clients come at once`,
    machine.setSysctl('net.ipv4.tcp_syncookies', 1),
    machine.setSysctl('net.ipv4.tcp_max_syn_backlog', backlog),
  );
}

/** The kernel's own default, 32768 to 60999. */
const portsDefault = 28_232;

export function checkPortRange(machine: Machine): Finding | undefined {
  const [from, to] = machine.numbers('/proc/sys/net/ipv4/ip_local_port_range') ?? [];
  if (from === undefined || to === undefined) return undefined;
  const ports = Math.max(0, to - from + 1);
  const what = `${from} to ${to}: ${count(ports)} connections from here to one address, such as of a proxy on this machine to the gateway`;
  if (ports >= portsDefault) return ok('port-range', what);
  return advice('port-range', what, machine.setSysctl('net.ipv4.ip_local_port_range', '32768 60999'));
}

/** A port of ours within the range of ephemeral ones may be taken by any outgoing connection while the gateway is down. */
export function checkReservedPorts(machine: Machine, goal: Goal): Finding | undefined {
  const [from, to] = machine.numbers('/proc/sys/net/ipv4/ip_local_port_range') ?? [];
  if (from === undefined || to === undefined) return undefined;
  const text = machine.text('/proc/sys/net/ipv4/ip_local_reserved_ports') ?? '';
  const reserved = text.split(',').filter(Boolean);
  const isReserved = (port: number) =>
    reserved.some((range) => {
      const [first = Number.NaN, last = first] = range.split('-').map(Number);
      return port >= first && port <= last;
    });
  const exposed = portsOf(goal).filter((port) => port >= from && port <= to && !isReserved(port));
  if (exposed.length === 0) return ok('own-ports', `${portsOf(goal).join(', ') || 'none'}: no outgoing connection can take them`);
  return advice(
    'own-ports',
    `${exposed.join(', ')}: within net.ipv4.ip_local_port_range, so an outgoing connection may hold it when the gateway starts`,
    machine.setSysctl('net.ipv4.ip_local_reserved_ports', [...reserved, ...exposed].join(',')),
  );
}

export function checkLowPorts(machine: Machine, goal: Goal): Finding | undefined {
  const first = machine.sysctl('net.ipv4.ip_unprivileged_port_start') ?? 1024;
  const low = portsOf(goal).filter((port) => port < first);
  if (low.length === 0) return undefined;
  if (machine.mayBindLowPorts) return ok('low-ports', `${low.join(', ')}: this process may listen on them`);
  return problem(
    'low-ports',
    `${low.join(', ')}: below ${first}, and this process lacks the capability CAP_NET_BIND_SERVICE`,
    { where: 'systemd', change: 'AmbientCapabilities=CAP_NET_BIND_SERVICE' },
    machine.setSysctl('net.ipv4.ip_unprivileged_port_start', low[0] as number),
  );
}

export function checkTcpMemory(machine: Machine, goal: Goal): Finding | undefined {
  const pages = machine.numbers('/proc/sys/net/ipv4/tcp_mem')?.[2];
  if (pages === undefined) return undefined;
  const limit = pages * machine.pageBytes;
  const needed = goal.connections * machine.pageBytes;
  const what = `net.ipv4.tcp_mem allows ${size(limit)} for what TCP has queued`;
  if (limit >= needed) return ok('tcp-memory', what);
  const most = Math.ceil(needed / machine.pageBytes);
  return advice(
    'tcp-memory',
    `${what}: less than one page for each of ${count(goal.connections)} connections, so a message to all of them may stall them`,
    machine.setSysctl('net.ipv4.tcp_mem', `${Math.ceil(most * 0.5)} ${Math.ceil(most * 0.75)} ${most}`),
  );
}

export function checkConnectionTracking(machine: Machine, goal: Goal): Finding | undefined {
  const most = machine.sysctl('net.netfilter.nf_conntrack_max');
  const used = machine.sysctl('net.netfilter.nf_conntrack_count') ?? 0;
  // The module may be loaded, and no rule ask for it.
  if (most === undefined || used === 0) return ok('conntrack', 'the firewall tracks no connections at present');
  const what = `net.netfilter.nf_conntrack_max is ${count(most)}, ${count(used)} are in use`;
  // Closed connections stay in the table for minutes.
  const needed = used + Math.ceil(goal.connections * 1.25);
  if (most >= needed) return ok('conntrack', what);
  const asked = `${count(goal.connections)} are ${goal.isAsked ? 'asked for' : 'assumed'}`;
  const remedy = machine.setSysctl('net.netfilter.nf_conntrack_max', needed);
  return short(goal.isAsked, 'conntrack', `${what}, ${asked}: past it the kernel drops new connections`, remedy);
}

export function checkIpv6(machine: Machine, goal: Goal): Finding {
  const isThere = machine.has('/proc/net/if_inet6') && machine.sysctl('net.ipv6.conf.all.disable_ipv6') !== 1;
  if (isThere) return ok('ipv6', 'there');
  const enable = machine.setSysctl('net.ipv6.conf.all.disable_ipv6', 0);
  const asked = tcpAddresses(goal).find(({ host, hostWithoutIpv6 }) => isIPv6(host) && hostWithoutIpv6 === undefined);
  if (asked !== undefined)
    return problem('ipv6', `this system has none, and the config listens on ${asked.host}`, enable, {
      where: 'config',
      change: "listen: { host: '0.0.0.0' }",
    });
  if (tcpAddresses(goal).some(({ host }) => isIPv6(host)))
    return advice('ipv6', 'this system has none: the gateway takes IPv4 only', enable);
  return ok('ipv6', 'this system has none, and the config does not listen on it');
}
