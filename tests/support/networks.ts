/**
 * Network namespaces with one link to each, to be cut, healed and slowed.
 * Role: for what only a network can do to a connection. Needs root and iproute2.
 */
import { existsSync } from 'node:fs';

export interface Network {
  /** Of the namespace. */
  readonly name: string;
  /** Address of servers in it, as seen from outside. */
  readonly host: string;
  /** Take the link down: packets vanish, no connection is reset. */
  cut(): void;
  heal(): void;
  /** Let no more than this through, in each direction. */
  slow(megabitsPerSecond: number): void;
  dispose(): void;
}

/** Whether this process may make network namespaces. Where it may not, a test that needs one must say so. */
export const mayCreateNetworks = process.getuid?.() === 0;

/** Namespaces do not end with the process that made them: those of processes that are gone are taken away. */
function sweepNetworks(): void {
  for (const line of String(Bun.spawnSync(['ip', 'netns', 'list']).stdout).split('\n')) {
    const [name, pid] = /^ringway-(\d+)-\d+/.exec(line) ?? [];
    if (name !== undefined && !existsSync(`/proc/${pid}`)) Bun.spawnSync(['ip', 'netns', 'del', name]);
  }
}

/** A network namespace with one link to it. Needs root and iproute2. */
export function createNetwork(): Network {
  sweepNetworks();
  for (let attempt = 0; ; attempt++) {
    const number = Math.floor(Math.random() * 2 ** 14);
    const name = `ringway-${process.pid}-${number}`;
    // Of 198.18.0.0/15, which is set aside for tests of networks (RFC 2544): four addresses for each.
    const address = (last: number) => `198.18.${number >> 6}.${((number & 63) << 2) | last}`;
    const [outer, inner] = [`rwo${number}`, `rwi${number}`];
    try {
      ip('netns', 'add', name);
    } catch (error) {
      if (attempt === 3) throw new Error(`cannot make a network namespace; run this as root, with iproute2 installed: ${error}`);
      continue;
    }
    ip('link', 'add', outer, 'type', 'veth', 'peer', 'name', inner, 'netns', name);
    ip('addr', 'add', `${address(1)}/30`, 'dev', outer);
    ip('link', 'set', outer, 'up');
    ip('-n', name, 'addr', 'add', `${address(2)}/30`, 'dev', inner);
    ip('-n', name, 'link', 'set', inner, 'up');
    ip('-n', name, 'link', 'set', 'lo', 'up');
    return {
      name,
      host: address(2),
      // The far end: the near one keeps its address and route, so that packets go out and are lost.
      cut: () => ip('-n', name, 'link', 'set', inner, 'down'),
      heal: () => ip('-n', name, 'link', 'set', inner, 'up'),
      slow(megabitsPerSecond) {
        const shape = ['root', 'tbf', 'rate', `${megabitsPerSecond}mbit`, 'burst', '64kb', 'latency', '2s'];
        runNow('tc', 'qdisc', 'replace', 'dev', outer, ...shape);
        runNow('tc', '-n', name, 'qdisc', 'replace', 'dev', inner, ...shape);
      },
      dispose: () => ip('netns', 'del', name),
    };
  }
}

function ip(...words: string[]): void {
  runNow('ip', ...words);
}

function runNow(...words: string[]): void {
  const { exitCode, stderr } = Bun.spawnSync(words);
  if (exitCode !== 0) throw new Error(`${words.join(' ')}: ${stderr}`);
}
