/**
 * Members of topics in Redis: what nodes write of their users, who is there over all nodes, leases, and what is left of nodes that are gone.
 *
 * Role: the `members` of a Redis link. Up: redis-link.ts. Down: script-calls.ts carries what is asked, member-scripts.ts is what Redis does with it.
 * Joins and leaves are entries of a log, which Redis cannot sign: who asks for a change sends along what the entry would be.
 */
import type { Position } from '../../core/log-commands.ts';
import { encodePresenceEntry, presenceTopic } from '../../core/presence-commands.ts';
import { entryFlag, type Lease, type LinkMembers, LinkUnavailableError, type MemberChange, type StoredMember } from '../link.ts';
import { topicKey } from '../nodes/mail.ts';
import type { KeyKind } from './channels.ts';
import { countScript, heldScript, keepScript, listScript, renewScript, sweepScript, writeScript } from './member-scripts.ts';
import { type LogsHost, newEpoch, noEpoch, unavailable, waitMs } from './redis-logs.ts';
import { Script, type ScriptWord } from './script-calls.ts';

/** What a presence log keeps, as the core does in a node alone. */
export const presenceLimits = { size: 1000, seconds: 300 } as const;
/** Users in one step: Redis does nothing else meanwhile. */
const usersAtOnce = 200;
/** Topics of a node that is gone that are swept at once, and of one's own that are kept. */
const topicsAtOnce = 100;
/** Nobody else is told of the same nodes meanwhile. */
const sweepMs = 5000;
/** They expire after an hour. */
const expireEveryMs = 10 * 60_000;
/** A list that has users of nodes that are gone is asked for again when they have left, so often. */
const listsMax = 3;

const scripts = {
  write: new Script(writeScript),
  list: new Script(listScript),
  count: new Script(countScript),
  renew: new Script(renewScript),
  held: new Script(heldScript),
  keep: new Script(keepScript),
  sweep: new Script(sweepScript),
};

interface Entry {
  /** 16 hex digits. */
  readonly node: string;
  readonly connections: number;
}

interface User {
  readonly name: string;
  readonly info: Buffer;
  readonly entries: readonly Entry[];
}

interface List {
  readonly position: Position;
  readonly alive: ReadonlySet<string>;
  readonly users: readonly User[];
}

export class RedisMembers implements LinkMembers {
  readonly #host: LogsHost;
  readonly #node: string;
  #sequence = 1;
  /** When the keys of a partition's leases were last given their expiry. */
  readonly #expiredAtMs = new Map<number, number>();

  constructor(host: LogsHost) {
    this.#host = host;
    this.#node = host.envelopes.sender.publisher.node;
  }

  get partitions(): number {
    return this.#host.channels.partitions;
  }

  partitionOf(topic: Uint8Array): number {
    return this.#host.channels.partitionOf(topicKey(topic));
  }

  isUp(partition: number): boolean {
    return this.#host.isUp(partition);
  }

  async write(name: Uint8Array, changes: readonly MemberChange[], leaseMs: number): Promise<boolean> {
    const topic = topicKey(name);
    const partition = this.#host.channels.partitionOf(topic);
    const key = (kind: KeyKind, of = topic) => this.#host.channels.keyOf(kind, of, partition);
    const minute = Math.floor(Date.now() / 60_000);
    const keys = [
      key('users'),
      key('nodes'),
      key('held', this.#node),
      key('leases', ''),
      ...this.#logKeys(topic, partition),
      key('gone', `${minute % 8}:${topic}`),
      key('gone', `${(minute + 7) % 8}:${topic}`),
    ];
    let hadIt = true;
    for (let at = 0; at < changes.length; at += usersAtOnce) {
      const words: ScriptWord[] = [...this.#logWords(topic, partition, this.#node), leaseMs];
      for (const { user, info, count, version } of changes.slice(at, at + usersAtOnce)) {
        const flags = count > 0 ? entryFlag.join : entryFlag.leave;
        words.push(user, version, count, Buffer.from(info), this.#entry(topic, flags, user, info));
      }
      if ((await this.#ask(partition, scripts.write, keys, words)) !== 1) hadIt = false;
    }
    return hadIt;
  }

  async list(name: Uint8Array): Promise<{ readonly position: Position; readonly members: readonly StoredMember[] }> {
    const topic = topicKey(name);
    for (let round = 1; ; round++) {
      const { position, alive, users } = await this.#list(topic);
      const gone = new Set(users.flatMap(({ entries }) => entries.map(({ node }) => node).filter((node) => !alive.has(node))));
      // Who follows the log from here on would hear leaves of users that are not in the list.
      if (gone.size > 0 && round < listsMax) {
        for (const node of gone) await this.#sweepTopic(topic, node, users);
        continue;
      }
      const members = users.flatMap(({ name, info, entries }) => {
        let connections = 0;
        for (const entry of entries) if (alive.has(entry.node)) connections += entry.connections;
        return connections === 0 ? [] : [{ user: name, info, connections }];
      });
      return { position, members };
    }
  }

  async #list(topic: string): Promise<List> {
    const { channels } = this.#host;
    const partition = channels.partitionOf(topic);
    const keys = [channels.keyOf('users', topic, partition), channels.keyOf('leases', '', partition), ...this.#logKeys(topic, partition)];
    const answer = await this.#ask(partition, scripts.list, keys, [newEpoch(), presenceLimits.size, presenceLimits.seconds]);
    const [epoch, offset, count, ...rest] = answer as [Buffer, Buffer, Buffer, ...Buffer[]];
    const usersAt = Number(count);
    const alive = new Set(rest.slice(0, usersAt).map((node) => node.toString('hex')));
    const users: User[] = [];
    for (let at = usersAt; at + 1 < rest.length; at += 2) {
      const user = parseUser(rest[at] as Buffer, rest[at + 1] as Buffer);
      if (user !== undefined) users.push(user);
    }
    return { position: { epoch: epoch.byteLength === 8 ? epoch.toString('hex') : noEpoch, offset: Number(offset) }, alive, users };
  }

  async count(name: Uint8Array): Promise<{ readonly users: number; readonly connections: number }> {
    const { channels } = this.#host;
    const topic = topicKey(name);
    const partition = channels.partitionOf(topic);
    const keys = [
      channels.keyOf('users', topic, partition),
      channels.keyOf('nodes', topic, partition),
      channels.keyOf('leases', '', partition),
    ];
    const [users, connections] = (await this.#ask(partition, scripts.count, keys, [])) as [number, number];
    return { users, connections };
  }

  async renew(partition: number, leaseMs: number): Promise<Lease> {
    const { channels } = this.#host;
    const keys = [
      channels.keyOf('leases', '', partition),
      channels.keyOf('sweep', '', partition),
      channels.keyOf('held', this.#node, partition),
    ];
    const now = this.#host.now();
    const isDue = now - (this.#expiredAtMs.get(partition) ?? Number.NEGATIVE_INFINITY) > expireEveryMs;
    const answer = await this.#ask(partition, scripts.renew, keys, [Buffer.from(this.#node, 'hex'), leaseMs, sweepMs, isDue ? 1 : 0]);
    if (isDue) this.#expiredAtMs.set(partition, now);
    const [hadIt, held, ...gone] = answer as [number, number, ...Buffer[]];
    return { hadIt: hadIt === 1, held, gone: gone.map((node) => node.toString('hex')).filter((node) => /^[0-9a-f]{16}$/.test(node)) };
  }

  async sweep(partition: number, node: string): Promise<void> {
    for (;;) {
      const topics = await this.#held(partition, node, true);
      if (topics.length === 0) return;
      for (const topic of topics) await this.#sweepTopic(topic, node, (await this.#list(topic)).users);
    }
  }

  async keep(partition: number): Promise<void> {
    const { channels } = this.#host;
    const topics = await this.#held(partition, this.#node, false);
    for (let at = 0; at < topics.length; at += topicsAtOnce) {
      const keys = topics.slice(at, at + topicsAtOnce).flatMap((topic) => [
        channels.keyOf('users', topic, partition),
        channels.keyOf('nodes', topic, partition),
        // Of a quiet topic: who follows its presence log is not to be told that something was lost.
        channels.keyOf('meta', presenceTopic(topic), partition),
      ]);
      await this.#ask(partition, scripts.keep, keys, []);
    }
  }

  async #held(partition: number, node: string, isGone: boolean): Promise<string[]> {
    const { channels } = this.#host;
    const keys = [channels.keyOf('leases', '', partition), channels.keyOf('held', node, partition)];
    const answer = await this.#ask(partition, scripts.held, keys, [Buffer.from(node, 'hex'), topicsAtOnce, isGone ? 1 : 0]);
    return (answer as Buffer[]).map((topic) => topic.toString('latin1'));
  }

  async #sweepTopic(topic: string, node: string, users: readonly User[]): Promise<void> {
    const { channels } = this.#host;
    const partition = channels.partitionOf(topic);
    const keys = [
      channels.keyOf('users', topic, partition),
      channels.keyOf('nodes', topic, partition),
      channels.keyOf('held', node, partition),
      channels.keyOf('leases', '', partition),
      ...this.#logKeys(topic, partition),
    ];
    const those = users.filter(({ entries }) => entries.some((entry) => entry.node === node));
    let at = 0;
    do {
      const some = those.slice(at, at + usersAtOnce);
      at += usersAtOnce;
      const words: ScriptWord[] = [...this.#logWords(topic, partition, node), at >= those.length ? 1 : 0];
      for (const { name, info } of some) words.push(name, this.#entry(topic, entryFlag.leave, name, info));
      await this.#ask(partition, scripts.sweep, keys, words);
    } while (at < those.length);
  }

  #entry(topic: string, flags: number, user: string, info: Uint8Array): Buffer {
    this.#sequence += 1;
    return this.#host.envelopes.sender.entry(presenceTopic(topic), this.#sequence, { flags, payload: encodePresenceEntry({ user, info }) });
  }

  #logKeys(topic: string, partition: number): [Buffer, Buffer] {
    const { channels } = this.#host;
    const log = presenceTopic(topic);
    return [channels.keyOf('log', log, partition), channels.keyOf('meta', log, partition)];
  }

  /** What scripts that append to a presence log begin with. */
  #logWords(topic: string, partition: number, node: string): ScriptWord[] {
    const { channels, isSharded, prefixBytes } = this.#host;
    return [
      channels.nameOf(presenceTopic(topic), partition),
      isSharded ? 'SPUBLISH' : 'PUBLISH',
      prefixBytes,
      Buffer.from(node, 'hex'),
      Buffer.from(topic, 'latin1'),
      newEpoch(),
      presenceLimits.size,
      presenceLimits.seconds,
    ];
  }

  async #ask(partition: number, script: Script, keys: readonly Buffer[], words: readonly ScriptWord[]): Promise<unknown> {
    let bytes = 0;
    for (const word of words) bytes += typeof word === 'number' ? 8 : word.length;
    try {
      const answer = await this.#host.calls.call({ partition, make: () => ({ script, keys, words }), bytes, withinMs: waitMs });
      this.#host.count('member_steps', 1);
      return answer;
    } catch (error) {
      this.#host.count('member_failures', 1);
      throw error instanceof LinkUnavailableError ? error : unavailable(this.#host, error);
    }
  }
}

/** ret: undefined: somebody else has written it */
function parseUser(name: Buffer, value: Buffer): User | undefined {
  const count = value[0] ?? 0;
  const infoAt = 1 + count * 18;
  if (count === 0 || infoAt > value.byteLength) return undefined;
  const entries: Entry[] = [];
  for (let at = 1; at < infoAt; at += 18)
    entries.push({ node: value.toString('hex', at, at + 8), connections: value.readUInt32BE(at + 14) });
  return { name: name.toString(), info: value.subarray(infoAt), entries };
}
