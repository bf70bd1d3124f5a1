/** What is measured, and what Ringway should reach. */
import { lightWorkloads } from './light-workloads.ts';
import type { LoadProgram } from './load-client.ts';
import { isSpecial, type Mode, type ServerName, serves } from './servers.ts';
import { topicWorkloads } from './topic-workloads.ts';

/**
 * cpu: server CPU per message. connect: server CPU per connection that is made. latency: median time until the answer. memory: PSS per connection. idle: server CPU per connection and second.
 *
 * silence: bytes from Redis per message that nobody waits for. faults: what clients notice of a reload. commands: commands of each node to Redis a second, at rest.
 */
export type WorkloadKind = 'cpu' | 'connect' | 'latency' | 'memory' | 'idle' | 'silence' | 'faults' | 'commands';

/** `value`: what the kind of a workload says. The others are latencies. */
export type Figure = 'value' | 'p50' | 'p99' | 'p999';

export interface Target {
  readonly figure: Figure;
  /** A part of the baseline's in the same round; otherwise in the figure's own unit. */
  readonly relative: boolean;
  readonly most: number;
  /** What its row is about, where the figure's name does not tell. */
  readonly label?: string;
}

/** Servers that are measured in turn, several times in a round. What a round gives is the median of its slices. */
export interface Turns {
  readonly slices: number;
  /** kept: all of them run beside each other for the whole round. together: they are even measured at the same time. fresh: each slice has a process of its own, measured from its beginning on. */
  readonly servers: 'kept' | 'together' | 'fresh';
  /** What those that are kept have done before: a command of the load client and its options. */
  readonly warm?: readonly string[];
}

export interface Workload {
  readonly name: string;
  readonly title: string;
  readonly kind: WorkloadKind;
  /** A command of the load client and its options. */
  readonly load: readonly string[];
  /** @default 'load' */
  readonly program?: LoadProgram;
  /** Messages a second that `load` asks for. Undefined: as many as it gets answers to. */
  readonly rate?: number;
  /** A closed loop. The rate is half of what the baseline reaches with it in the same round. */
  readonly halfOf?: readonly string[];
  /** memory, idle: how many are held. memory: counted are those that come after the first `from`. */
  readonly sockets?: { readonly from?: number; readonly to: number };
  /** Undefined: each server is measured once in a round, in a process of its own. */
  readonly turns?: Turns;
  readonly protocol: 'http' | 'websocket';
  readonly mode?: Mode;
  readonly subject: ServerName;
  /** Undefined: there is nothing to compare it with. */
  readonly baseline: ServerName | undefined;
  /** Measured without being asked for, for information. */
  readonly beside?: readonly ServerName[];
  /** cpu, connect, latency and idle: of the baseline's value in the same round. memory, silence: bytes. faults, commands: how many. Undefined: it is not judged by its value. */
  readonly target?: number;
  readonly also?: readonly Target[];
}

/** These are judged as parts of what the baseline takes in the same round; the others as they are. */
const relativeKinds: readonly WorkloadKind[] = ['cpu', 'connect', 'latency', 'idle'];

/** Each is a row of the result. */
export function targetsOf({ kind, target, also = [] }: Workload): readonly Target[] {
  const value: Target[] = target === undefined ? [] : [{ figure: 'value', relative: relativeKinds.includes(kind), most: target }];
  return [...value, ...also];
}

function echo(connections: number, inFlight: number, payloadBytes = 20): string[] {
  return ['ws-echo', '--connections', String(connections), '--in-flight', String(inFlight), '--payload', String(payloadBytes)];
}

function fanout(messages: number, payloadBytes = 100): string[] {
  return ['ws-fanout', '--connections', '1000', '--in-flight', String(messages), '--payload', String(payloadBytes)];
}

function http(inFlight: number): string[] {
  return ['http', '--path', '/hello', '--connections', '200', '--in-flight', String(inFlight)];
}

const idle = (path = '/echo'): string[] => ['ws-idle', '--path', path];

const gateway = { subject: 'ringway', baseline: 'bun-serve' } as const;
const webSocket = { kind: 'cpu', protocol: 'websocket', ...gateway } as const;

/** The example gateway, against Bun.serve. */
const gatewayWorkloads: readonly Workload[] = [
  { ...webSocket, name: 'echo', title: 'echo 20 B, 200 connections, 1 in flight', load: echo(200, 1), target: 0.78 },
  { ...webSocket, name: 'echo-16', title: 'echo 20 B, 200 connections, 16 in flight', load: echo(200, 16), target: 0.58 },
  { ...webSocket, name: 'fanout', title: 'fan-out 100 B to 1,000, 1 message', load: fanout(1), target: 0.8 },
  { ...webSocket, name: 'fanout-16', title: 'fan-out 100 B to 1,000, 16 messages', load: fanout(16), target: 0.62 },
  {
    ...gateway,
    name: 'hello',
    title: 'GET /hello through Hono, 200 connections, 1 in flight',
    kind: 'cpu',
    load: http(1),
    protocol: 'http',
    target: 0.85,
  },
  {
    ...gateway,
    name: 'hello-16',
    title: 'GET /hello through Hono, 200 connections, 16 pipelined',
    kind: 'cpu',
    load: http(16),
    protocol: 'http',
    target: 0.4,
  },
  { ...webSocket, name: 'latency-1', title: 'p50 of echo, 1 connection', kind: 'latency', load: echo(1, 1), target: 1.1 },
  { ...webSocket, name: 'latency-10', title: 'p50 of echo, 10 connections', kind: 'latency', load: echo(10, 1), target: 1.1 },
  {
    ...webSocket,
    name: 'open-loop',
    title: "echo 20 B over 200 connections, open loop at half of the baseline's highest rate",
    kind: 'latency',
    load: echo(200, 1),
    halfOf: echo(200, 1),
    turns: { servers: 'kept', slices: 3, warm: echo(200, 1) },
    also: [
      { figure: 'p99', relative: true, most: 0.9 },
      { figure: 'p999', relative: true, most: 0.9 },
    ],
  },
  {
    ...webSocket,
    name: 'connect',
    title: 'connect and upgrade, 100 at once',
    kind: 'connect',
    load: ['ws-open', '--opening', '100', '--connections', '10000'],
    turns: { servers: 'kept', slices: 3, warm: ['ws-open', '--opening', '100', '--connections', '5000'] },
    target: 0.8,
  },
  {
    ...webSocket,
    name: 'memory',
    title: 'memory per idle WebSocket, 12,000 of them',
    kind: 'memory',
    load: idle(),
    sockets: { to: 12_000 },
    target: 400,
  },
  {
    ...webSocket,
    name: 'memory-slope',
    title: 'memory per idle WebSocket, from 4,000 to 18,000 of them',
    kind: 'memory',
    load: idle(),
    sockets: { from: 4000, to: 18_000 },
    target: 256,
  },
  {
    ...webSocket,
    name: 'memory-300k',
    title: 'memory per idle WebSocket, from 60,000 to 300,000 of them, 18 workers',
    kind: 'memory',
    load: idle(),
    sockets: { from: 60_000, to: 300_000 },
    subject: 'ringway-many',
    baseline: undefined,
    target: 256,
  },
  {
    ...webSocket,
    name: 'idle-cpu',
    title: 'CPU with 10,000 idle WebSockets, each pinged once in 30 s',
    kind: 'idle',
    load: idle(),
    sockets: { to: 10_000 },
    turns: { servers: 'together', slices: 1 },
    target: 1.5,
    also: [{ figure: 'value', relative: false, most: 0.3, label: 'each socket' }],
  },
];

const floor = { ...webSocket, baseline: 'floor' } as const;

/** The example gateway, against what the kernel alone costs. */
const floorWorkloads: readonly Workload[] = [
  { ...floor, name: 'floor-echo', title: 'above the floor: echo 20 B, 200 connections, 1 in flight', load: echo(200, 1), target: 1.15 },
  {
    ...floor,
    name: 'floor-echo-16',
    title: 'above the floor: echo 20 B, 200 connections, 16 in flight',
    load: echo(200, 16),
    target: 1.35,
  },
  { ...floor, name: 'floor-fanout', title: 'above the floor: fan-out 100 B to 1,000, 1 message', load: fanout(1), target: 1.15 },
  { ...floor, name: 'floor-fanout-16', title: 'above the floor: fan-out 100 B to 1,000, 16 messages', load: fanout(16), target: 1.35 },
];

const uws = { kind: 'cpu', protocol: 'websocket', subject: 'ringway-uws', baseline: 'uws' } as const;

/** One program for uWebSockets.js, on Ringway and on the original. */
const uwsWorkloads: readonly Workload[] = [
  { ...uws, name: 'uws-echo', title: 'uWS API: echo 20 B, 200 connections, 1 in flight', load: echo(200, 1), target: 0.7 },
  { ...uws, name: 'uws-echo-16', title: 'uWS API: echo 20 B, 200 connections, 16 in flight', load: echo(200, 16), target: 0.5 },
  { ...uws, name: 'uws-fanout', title: 'uWS API: fan-out 100 B to 1,000, 1 message', load: fanout(1), target: 0.75 },
  { ...uws, name: 'uws-fanout-16', title: 'uWS API: fan-out 100 B to 1,000, 16 messages', load: fanout(16), target: 0.75 },
  { ...uws, name: 'uws-get', title: 'uWS API: GET, 18 B, 200 connections, 1 in flight', load: http(1), protocol: 'http', target: 0.85 },
  { ...uws, name: 'uws-get-16', title: 'uWS API: GET, 18 B, 200 connections, 16 pipelined', load: http(16), protocol: 'http', target: 0.7 },
  {
    ...uws,
    name: 'uws-memory',
    title: 'uWS API: memory per idle WebSocket with an open handler and user data, 12,000 of them',
    kind: 'memory',
    load: idle('/user'),
    sockets: { to: 12_000 },
    mode: 'user-data',
    target: 450,
  },
  {
    ...uws,
    name: 'uws-tls-echo',
    title: 'uWS API: echo 1 KB over TLS, 200 connections, 1 in flight',
    load: [...echo(200, 1, 1024), '--tls'],
    mode: 'tls',
    target: 0.85,
  },
  {
    ...uws,
    name: 'uws-deflate-fanout',
    title: 'uWS API: fan-out of 1 KB of JSON to 1,000, compressed, 1 message',
    load: [...fanout(1, 1024), '--json', '--deflate'],
    mode: 'deflate',
    baseline: 'ws',
    beside: ['uws'],
    target: 0.5,
  },
];

const cross = { ...webSocket, subject: 'ringway-cross', baseline: 'ringway-same', target: 1.3 } as const;
const nodes = { ...webSocket, subject: 'ringway-nodes', baseline: 'socket-io' } as const;
/** Until Redis has confirmed what both nodes subscribe to. */
const nodesSettle = ['--settle-ms', '2000'];

/** 1,000 subscribers on each of two nodes. */
const nodesFanout = (messages: number) => [
  'ws-fanout',
  '--connections',
  '2000',
  '--in-flight',
  String(messages),
  '--payload',
  '100',
  ...nodesSettle,
];

/** Workers of a node among each other, nodes among each other, and a node that is reloaded. */
const nodeWorkloads: readonly Workload[] = [
  { ...cross, name: 'cross-worker', title: 'fan-out 100 B to 1,000 on another worker, 1 message', load: fanout(1) },
  { ...cross, name: 'cross-worker-16', title: 'fan-out 100 B to 1,000 on another worker, 16 messages', load: fanout(16) },
  { ...nodes, name: 'redis-fanout', title: 'fan-out 100 B to 1,000 on each of two nodes, 1 message', load: nodesFanout(1), target: 0.4 },
  {
    ...nodes,
    name: 'redis-fanout-16',
    title: 'fan-out 100 B to 1,000 on each of two nodes, 16 messages',
    load: nodesFanout(16),
    target: 0.4,
  },
  {
    ...nodes,
    name: 'redis-silent',
    title: 'bytes from Redis to the nodes, per message that has no subscriber',
    kind: 'silence',
    load: [],
    target: 0,
  },
  {
    name: 'reload',
    title: 'reload: failed connects, lost requests, cut sockets; 5,000 open, 500 opening a second',
    kind: 'faults',
    load: ['reload', '--connections', '5000', '--http-connections', '50', '--http-interval-ms', '10', '--opens-per-second', '500'],
    protocol: 'websocket',
    subject: 'ringway-reload',
    baseline: undefined,
    target: 0,
  },
];

export const workloads: readonly Workload[] = [
  ...gatewayWorkloads,
  ...lightWorkloads,
  ...floorWorkloads,
  ...uwsWorkloads,
  ...nodeWorkloads,
  ...topicWorkloads,
];

/** Is it NAME itself, or does its name begin with NAME and a dash? So `light-20` does not mean `light-200` too. */
export function isMeant({ name }: Workload, asked: string): boolean {
  return name === asked || name.startsWith(`${asked}-`);
}

/** The servers of one workload, in the order in which they are measured. */
export function serversOf({ subject, baseline, beside = [], protocol, mode }: Workload, asked: readonly ServerName[]): ServerName[] {
  const peers = isSpecial(subject) ? [] : asked.filter((name) => serves(name, protocol, mode));
  return [...new Set([subject, ...(baseline === undefined ? [] : [baseline]), ...beside, ...peers])];
}
