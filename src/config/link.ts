/**
 * `link`: what joins nodes when it is not Redis.
 * Role: a part of resolve.ts. Used by pubsub/create.ts, which knows what a link is.
 */
import type { GatewayConfig, LinkOptions } from '../api/define.ts';
import { defaults } from './defaults.ts';
import type { Complain } from './tls.ts';

export interface LinkSettings {
  /** Makes a worker's link; what it is given, and what it must return, are pubsub/link.ts's to say. */
  readonly create: LinkOptions['create'];
  /** Seconds. */
  readonly linger: number;
  readonly required: boolean;
}

/** `redis`: what the config says of it, which does not go with a link. */
export function resolveLink({ link, redis }: Pick<GatewayConfig, 'link' | 'redis'>, complain: Complain): false | LinkSettings {
  if (link === undefined || link === false) return false;
  if (redis !== undefined && redis !== false)
    complain(['link'], 'does not go with redis, since one of them joins nodes; remove one of them');
  return {
    // A method of what was given, which may be an instance of a class.
    create: (context) => link.create(context),
    linger: link.linger ?? defaults.link.linger,
    required: link.required ?? defaults.link.required,
  };
}
