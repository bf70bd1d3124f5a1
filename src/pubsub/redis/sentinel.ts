/**
 * Asks Sentinels for the primary of a group.
 * Role: below redis-link.ts. Above connection.ts. Each search begins with another Sentinel: one that is cut off from the others goes on naming the
 * old primary.
 */
import type { RedisAddress, RedisServers } from '../../config/redis.ts';
import { addressText, type ConnectionFactory } from './connection.ts';
import { silent } from './connector.ts';
import { type Failure, LinkError } from './failure.ts';

type SentinelServers = Extract<RedisServers, { kind: 'sentinel' }>;

const answerMs = 2000;

export class Sentinels {
  readonly #servers: SentinelServers;
  readonly #connect: ConnectionFactory;
  #turn: number;

  constructor(servers: SentinelServers, connect: ConnectionFactory, random: () => number) {
    this.#servers = servers;
    this.#connect = connect;
    this.#turn = Math.floor(random() * servers.nodes.length);
  }

  /** Rejects with a LinkError when no Sentinel tells. */
  async findPrimary(): Promise<RedisAddress> {
    const { nodes, name } = this.#servers;
    const first = this.#turn++;
    let worst: Failure | undefined;
    for (let i = 0; i < nodes.length; i++) {
      const address = nodes[(first + i) % nodes.length] as RedisAddress;
      const answer = await this.#ask(address);
      if (!('kind' in answer)) return answer;
      const failure = { ...answer, text: `Sentinel ${addressText(address)}: ${answer.text}` };
      // What somebody must change is worth more than that another is not there.
      if (worst === undefined || failure.kind === 'refused') worst = failure;
    }
    throw new LinkError(worst ?? { kind: 'refused', text: `no Sentinel is named for the group '${name}'` });
  }

  async #ask(address: RedisAddress): Promise<RedisAddress | Failure> {
    const { login, tls, name } = this.#servers;
    let connection: ReturnType<ConnectionFactory['toSentinel']> | undefined;
    let timer: ReturnType<typeof setTimeout> | undefined;
    try {
      connection = this.#connect.toSentinel(address, login, tls);
      await connection.ready;
      const late = new Promise<never>((_, reject) => {
        timer = setTimeout(() => reject(new LinkError(silent(answerMs))), answerMs);
      });
      const answer: unknown = await Promise.race([connection.redis.call('SENTINEL', 'GET-MASTER-ADDR-BY-NAME', name), late]);
      if (Array.isArray(answer) && answer.length === 2) return { host: String(answer[0]), port: Number(answer[1]) };
      return { kind: 'refused', text: `it knows no group '${name}'; correct redis.sentinels.name` };
    } catch (error) {
      return connection?.failureOf(error) ?? this.#connect.failures.of(error);
    } finally {
      clearTimeout(timer);
      connection?.destroy();
    }
  }
}
