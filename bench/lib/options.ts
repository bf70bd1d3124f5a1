/** The command line of the bench. */
import { parseArgs } from 'node:util';
import { peers, type ServerName } from './servers.ts';
import { isMeant, workloads } from './workloads.ts';

export interface BenchOptions {
  readonly rounds: number;
  readonly seconds: number;
  /** Names of workloads, or their beginnings before a dash; empty: all. */
  readonly only: readonly string[];
  readonly peers: readonly ServerName[];
  readonly backend: 'io_uring' | 'epoll' | undefined;
  readonly json: string | undefined;
  readonly markdown: boolean;
}

export class UsageError extends Error {}

export const usage = `usage: npm run bench -- [options]

  --rounds N          how often each workload runs (3)
  --seconds S         how long each run measures (5)
  --only NAME         only the workload NAME and those that begin with NAME-; may be repeated
  --peer NAME         measure this server too; may be repeated, 'all' for every one
  --backend NAME      io_uring or epoll, for the example gateway (what Ringway chooses)
  --json FILE         write every number to FILE
  --markdown          print the result as a Markdown table
  --help

workloads: ${workloads.map(({ name }) => name).join(', ')}
peers:     ${peers.map(({ name, about }) => `${name} (${about})`).join('\n           ')}
Workloads that begin with 'uws' are a program for uWebSockets.js, against the original on Node, which installs 257 MB when it is not
there; compressed fan-out is against ws. Those that begin with 'redis' are two nodes, against Socket.IO, and need redis-server;
'cross-worker' is Ringway against itself, 'reload' has no peer. The others are the example gateway, against bun-serve.`;

/** ret: undefined when help was asked for. Throws UsageError. */
export function parseOptions(args: readonly string[]): BenchOptions | undefined {
  const values = parse(args);
  if (values.help) return undefined;
  const { backend } = values;
  if (backend !== undefined && backend !== 'io_uring' && backend !== 'epoll')
    throw new UsageError(`--backend is io_uring or epoll, not ${backend}`);
  const only = values.only ?? [];
  for (const part of only) {
    if (!workloads.some((workload) => isMeant(workload, part)))
      throw new UsageError(`--only ${part}: no workload has this name, or one that begins with ${part}-`);
  }
  return {
    rounds: number('rounds', values.rounds, 1, 100) ?? 3,
    seconds: number('seconds', values.seconds, 1, 600) ?? 5,
    only,
    peers: chosenPeers(values.peer ?? []),
    backend,
    json: values.json,
    markdown: values.markdown ?? false,
  };
}

function parse(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      options: {
        rounds: { type: 'string' },
        seconds: { type: 'string' },
        only: { type: 'string', multiple: true },
        peer: { type: 'string', multiple: true },
        backend: { type: 'string' },
        json: { type: 'string' },
        markdown: { type: 'boolean' },
        help: { type: 'boolean', short: 'h' },
      },
    }).values;
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
}

function number(name: string, text: string | undefined, least: number, most: number): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (!Number.isInteger(value) || value < least || value > most)
    throw new UsageError(`--${name} is an integer from ${least} to ${most}, not ${text}`);
  return value;
}

function chosenPeers(names: readonly string[]): ServerName[] {
  if (names.includes('all')) return peers.map(({ name }) => name);
  return names.map((name) => {
    const found = peers.find((peer) => peer.name === name);
    if (found === undefined) throw new UsageError(`--peer ${name}: write one of ${peers.map((peer) => peer.name).join(', ')}, or all`);
    return found.name;
  });
}
