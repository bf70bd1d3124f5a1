/** What is measured, and what Ringway should reach. */
import { type ServerName, servesHttp, servesWebSocket } from './servers.ts';

/** cpu: server CPU per message. latency: median time until the answer. memory: PSS per connection. idle: CPU of doing nothing. */
export type WorkloadKind = 'cpu' | 'latency' | 'memory' | 'idle';

export interface Workload {
  readonly name: string;
  readonly title: string;
  readonly kind: WorkloadKind;
  /** A command of the load client and its options. */
  readonly load: readonly string[];
  readonly protocol: 'http' | 'websocket';
  /** cpu and latency: of Bun.serve's value in the same round. memory: bytes. idle: percent of a core. */
  readonly target: number;
}

export const idleSockets = { memory: 12_000, idle: 10_000 } as const;

function echo(connections: number, inFlight: number): string[] {
  return ['ws-echo', '--connections', String(connections), '--in-flight', String(inFlight), '--payload', '20'];
}

function fanout(messages: number): string[] {
  return ['ws-fanout', '--connections', '1000', '--in-flight', String(messages), '--payload', '100'];
}

function http(inFlight: number): string[] {
  return ['http', '--path', '/hello', '--connections', '200', '--in-flight', String(inFlight)];
}

const idle = (connections: number): string[] => ['ws-idle', '--connections', String(connections)];

export const workloads: readonly Workload[] = [
  { name: 'echo', title: 'echo 20 B, 200 connections, 1 in flight', kind: 'cpu', load: echo(200, 1), protocol: 'websocket', target: 0.75 },
  {
    name: 'echo-16',
    title: 'echo 20 B, 200 connections, 16 in flight',
    kind: 'cpu',
    load: echo(200, 16),
    protocol: 'websocket',
    target: 0.8,
  },
  { name: 'fanout', title: 'fan-out 100 B to 1,000, 1 message', kind: 'cpu', load: fanout(1), protocol: 'websocket', target: 0.8 },
  { name: 'fanout-16', title: 'fan-out 100 B to 1,000, 16 messages', kind: 'cpu', load: fanout(16), protocol: 'websocket', target: 0.8 },
  {
    name: 'hello',
    title: 'GET /hello through Hono, 200 connections, 1 in flight',
    kind: 'cpu',
    load: http(1),
    protocol: 'http',
    target: 0.85,
  },
  {
    name: 'hello-16',
    title: 'GET /hello through Hono, 200 connections, 16 pipelined',
    kind: 'cpu',
    load: http(16),
    protocol: 'http',
    target: 0.4,
  },
  { name: 'latency-1', title: 'p50 of echo, 1 connection', kind: 'latency', load: echo(1, 1), protocol: 'websocket', target: 1.1 },
  { name: 'latency-10', title: 'p50 of echo, 10 connections', kind: 'latency', load: echo(10, 1), protocol: 'websocket', target: 1.1 },
  {
    name: 'memory',
    title: 'memory per idle WebSocket, 12,000 of them',
    kind: 'memory',
    load: idle(idleSockets.memory),
    protocol: 'websocket',
    target: 400,
  },
  {
    name: 'idle',
    title: 'CPU with 10,000 idle WebSockets, 30 s',
    kind: 'idle',
    load: idle(idleSockets.idle),
    protocol: 'websocket',
    target: 1,
  },
];

/** Is there something to measure? */
export function canRun(workload: Workload, server: ServerName): boolean {
  return workload.protocol === 'http' ? servesHttp(server) : servesWebSocket(server);
}
