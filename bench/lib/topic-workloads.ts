/** Topics that remember and know who is there, against Centrifugo and against topics that do not. */
import type { Workload } from './workloads.ts';

const topics = { kind: 'cpu', protocol: 'websocket', subject: 'ringway-topics', baseline: 'centrifugo' } as const;
const client = { ...topics, program: 'topics' } as const;
const room = (messages: number) => ['ws-fanout', '--connections', '1000', '--in-flight', String(messages), '--payload', '100'];
const publish = (topic: string, connections: number, inFlight: number) => [
  'publish',
  '--topic',
  topic,
  '--connections',
  String(connections),
  '--in-flight',
  String(inFlight),
];
const nodes = { ...client, subject: 'ringway-topics-nodes', baseline: 'centrifugo-nodes' } as const;

export const topicWorkloads: readonly Workload[] = [
  ...[1, 16].map(
    (messages): Workload => ({
      ...topics,
      name: `topics-fanout-${messages}`,
      title: `fan-out 100 B to 1,000, a topic with history in memory against one without, ${messages} at a time`,
      load: room(messages),
      baseline: 'ringway-topics-direct',
      target: 1.1,
    }),
  ),
  ...[1, 16].map(
    (messages): Workload => ({
      ...nodes,
      name: `topics-redis-${messages}`,
      title: `publish over HTTP with history in Redis to 1,000 on each of two nodes, ${messages} at a time`,
      load: publish('logged/bench', 2000, messages),
      target: 0.5,
    }),
  ),
  {
    ...nodes,
    name: 'topics-redis-idle',
    title: 'commands to Redis a second and node, 10,000 members on 100 topics at rest',
    kind: 'commands',
    load: ['hold', '--topic', 'present/bench', '--topics', '100', '--connections', '10000'],
    target: 10,
  },
  {
    ...client,
    name: 'topics-join',
    title: 'join and leave, presence in memory, 100 connections',
    load: ['churn', '--topic', 'present/bench', '--connections', '100'],
    target: 0.5,
  },
  {
    ...client,
    name: 'topics-storm',
    title: '10,000 clients come back, 20 messages missed each',
    kind: 'connect',
    load: ['storm', '--topic', 'logged/bench', '--connections', '10000', '--missed', '20'],
    target: 0.5,
  },
  {
    ...topics,
    name: 'topics-memory',
    title: 'memory per idle WebSocket that is subscribed and present, 12,000 of them',
    kind: 'memory',
    baseline: undefined,
    load: ['ws-idle', '--path', '/resting/bench'],
    sockets: { to: 12_000 },
    target: 600,
  },
  ...[1, 16].map(
    (messages): Workload => ({
      ...client,
      name: `topics-publish-${messages}`,
      title: `publish over HTTP without history to 1,000, ${messages} at a time`,
      load: publish('direct/bench', 1000, messages),
      target: 0.5,
    }),
  ),
];
