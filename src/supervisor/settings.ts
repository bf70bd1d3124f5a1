/**
 * The part of a config that the supervisor acts on; all else is for the workers, who read the config themselves.
 * Role: made from a config in this process, or in another one that sends it as JSON (probe.ts).
 */
import type { ResolvedConfig } from '../config/resolve.ts';

export type NodeSettings = Pick<ResolvedConfig, 'listen' | 'admin' | 'workers' | 'affinity' | 'drain'> & {
  /** Seconds after which a worker that does not go on is replaced; 0, or undefined: never. */
  readonly hangTimeout?: number;
  /** Level of the supervisor's own lines; undefined: as it is. */
  readonly logLevel?: string;
  /** Whether the node is ready only while it reaches Redis, or what the config has in its place. */
  readonly needsRedis?: boolean;
  /** Bytes that the workers share for what topics remember, from the start on; undefined: as 'auto'. */
  readonly topicMemoryBytes?: 'auto' | number;
};

export function nodeSettings({
  listen,
  admin,
  workers,
  affinity,
  drain,
  hangTimeout,
  limits,
  log,
  redis,
  link,
}: ResolvedConfig): NodeSettings {
  return {
    listen,
    admin,
    workers,
    affinity,
    drain,
    hangTimeout,
    logLevel: log.level,
    needsRedis: (redis !== false && redis.required) || (link !== false && link.required),
    topicMemoryBytes: limits.maxTopicMemoryBytes,
  };
}
