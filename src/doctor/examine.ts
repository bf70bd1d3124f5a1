/** All checks, in the order in which they are told. */
import { checkDescriptors, checkFileTable, checkOwnLimit } from './descriptors.ts';
import type { Finding } from './finding.ts';
import type { Goal } from './goal.ts';
import { checkClock, checkIoUring, checkKernel, type RingTrial } from './kernel.ts';
import type { Machine } from './machine.ts';
import { checkHugePages, checkMemory, checkOvercommit, checkSwap } from './memory.ts';
import {
  checkAcceptQueue,
  checkConnectionTracking,
  checkIpv6,
  checkLowPorts,
  checkPortRange,
  checkReservedPorts,
  checkSynQueue,
  checkTcpMemory,
} from './network.ts';
import { type BunVersions, checkBun, checkCpus } from './processors.ts';

export interface Surroundings {
  readonly machine: Machine;
  readonly goal: Goal;
  readonly cpus: readonly number[];
  readonly cpuQuota: number;
  readonly bun: BunVersions;
  /** Undefined: the core is not there to be asked. */
  readonly ring: RingTrial | undefined;
}

/** Checks of what cannot be seen from here have no finding. */
export function examine({ machine, goal, cpus, cpuQuota, bun, ring }: Surroundings): Finding[] {
  const findings = [
    checkKernel(machine),
    ring && checkIoUring(machine, goal, ring),
    checkClock(machine),
    checkBun(bun),
    checkCpus(cpus, cpuQuota, goal),
    checkOwnLimit(goal),
    checkDescriptors(machine, goal),
    checkFileTable(machine, goal),
    checkMemory(machine, goal),
    checkHugePages(machine),
    checkOvercommit(machine, goal),
    checkSwap(machine),
    checkAcceptQueue(machine, goal),
    checkSynQueue(machine, goal),
    checkPortRange(machine),
    checkReservedPorts(machine, goal),
    checkLowPorts(machine, goal),
    checkTcpMemory(machine, goal),
    checkConnectionTracking(machine, goal),
    checkIpv6(machine, goal),
  ];
  return findings.filter((finding) => finding !== undefined);
}
