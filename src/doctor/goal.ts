/** What the machine is judged for: how many connections, in how many workers, on which addresses. */
import { defaults } from '../config/defaults.ts';
import type { AdminAddress, ListenAddress, ResolvedConfig } from '../config/resolve.ts';
import { planCpus } from '../process/cpus.ts';

/** The part of a config that the machine has to bear out. */
export type Wishes = Pick<ResolvedConfig, 'listen' | 'workers' | 'affinity' | 'io'> & {
  readonly admin: false | AdminAddress;
  readonly limits: Pick<ResolvedConfig['limits'], 'maxConnections'>;
};

export interface Goal {
  /** Open at once on this node. */
  readonly connections: number;
  /** Somebody has asked for so many: on the command line, or by `limits.maxConnections`. */
  readonly isAsked: boolean;
  readonly workers: number;
  /** More workers than CPUs, or none pinned: what planCpus has decided. */
  readonly pinned: boolean;
  /** The most that one of them will have. */
  readonly connectionsPerWorker: number;
  /** The config's limit for one worker. */
  readonly maxConnections: number;
  readonly listen: readonly ListenAddress[];
  readonly admin: false | AdminAddress;
  readonly io: ResolvedConfig['io'];
}

/** What a machine is judged for when nobody has said how many. */
export const connectionsAssumed = 50_000;
/** The kernel spreads connections over the workers by a hash: nearly even, not quite. */
const unevenness = 1.05;

/** `asked`: connections of the whole node, from the command line. */
export function setGoal(wishes: Wishes, asked: number | undefined, cpus: readonly number[], cpuQuota: number): Goal {
  const plan = planCpus(wishes.workers, wishes.affinity, cpus, cpuQuota);
  const { maxConnections } = wishes.limits;
  const isLimited = maxConnections !== defaults.limits.maxConnections;
  const connections = asked ?? (isLimited ? maxConnections * plan.workers : connectionsAssumed);
  const share = plan.workers === 1 ? connections : Math.ceil((connections / plan.workers) * unevenness);
  return {
    connections,
    isAsked: asked !== undefined || isLimited,
    workers: plan.workers,
    pinned: plan.cpus.some((cpu) => cpu !== null),
    connectionsPerWorker: asked === undefined && isLimited ? maxConnections : share,
    maxConnections,
    listen: wishes.listen,
    admin: wishes.admin,
    io: wishes.io,
  };
}
