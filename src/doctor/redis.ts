/**
 * The Redis of the config: is it there, and does it let this user do what the gateway does with it?
 * Role: asks the server itself, in the order in which a worker does. Up: cli/doctor.ts, which loads it only where the config has a Redis.
 */
import type { RedisSettings } from '../config/redis.ts';
import { addressText, type Connection, connectionFactory } from '../pubsub/redis/connection.ts';
import { silent } from '../pubsub/redis/connector.ts';
import { type Failure, Failures, LinkError } from '../pubsub/redis/failure.ts';
import { Sentinels } from '../pubsub/redis/sentinel.ts';
import { trialScript } from '../pubsub/redis/trial-script.ts';
import { type Finding, ok, problem } from './finding.ts';

/** `remembers`: topics of the config have history or presence. Never rejects: what fails is the finding. */
export async function checkRedis(settings: RedisSettings, remembers = false): Promise<Finding> {
  const failures = new Failures(settings);
  const connect = connectionFactory(settings, failures, 'ringway:doctor');
  const { servers } = settings;
  let where = 'Redis';
  let connection: Connection | undefined;
  try {
    const address =
      servers.kind === 'sentinel'
        ? await new Sentinels(servers, connect, Math.random).findPrimary()
        : servers.kind === 'cluster'
          ? servers.nodes[0]
          : servers;
    if (address === undefined) return problem('redis', 'no server is named');
    where = `Redis ${addressText(address)}`;
    connection = connect.toServer(address, 'doctor', () => {});
    await connection.ready;
    const failure = await refusal(connection, settings, remembers);
    if (failure !== undefined) return problem('redis', `${where}: ${failure.text}`);
    const keeps = remembers ? ', and keep what topics remember' : '';
    return ok('redis', `${where} lets this user publish and subscribe below ${settings.prefix}:${keeps}`);
  } catch (error) {
    return problem('redis', `${where}: ${(connection?.failureOf(error) ?? failures.of(error)).text}`);
  } finally {
    connection?.destroy();
  }
}

/** ret: why a command that the gateway needs does not work there, or nothing */
async function refusal(
  connection: Connection,
  { servers, prefix, timeout }: RedisSettings,
  remembers: boolean,
): Promise<Failure | undefined> {
  // Nobody is subscribed to it, and nothing stands in the message.
  const channel = `${prefix}:doctor`;
  const kind = servers.kind === 'cluster' ? 's' : '';
  for (const words of [
    [`${kind}publish`, channel, ''],
    [`${kind}subscribe`, channel],
    [`${kind}unsubscribe`, channel],
    ...(remembers ? [['eval', trialScript, '1', `${prefix}:{0}:doctor`, `${prefix}:{0}:doctor`, `${kind}publish`] as const] : []),
  ] as const) {
    const [command, ...args] = words;
    const { promise: late, reject } = Promise.withResolvers<never>();
    const timer = setTimeout(() => reject(new LinkError(silent(timeout))), timeout * 1000);
    try {
      await Promise.race([connection.redis.call(command, ...args), late]);
    } catch (error) {
      const failure = connection.failureOf(error);
      // Another server of the Cluster has that slot: the right is there.
      if (failure.kind !== 'moved') return failure;
    } finally {
      clearTimeout(timer);
    }
  }
  return undefined;
}
