/**
 * Which Ringway this is: workers are started with the code on the disk, so a supervisor of another release must not go on leading them.
 * Role: compared by the supervisor with what the process says that has read the config anew (probe.ts).
 */
import { abiVersion } from '../core/abi.ts';
import { hostLayout } from '../core/stat-index.ts';
import { version } from '../version.ts';

export interface Release {
  readonly version: string;
  /** Of the core. */
  readonly abi: number;
  readonly bun: string;
  /** What TypeScript counts in shared memory; absent from releases before 0.2. */
  readonly counters?: number;
}

export const ownRelease: Release = { version, abi: abiVersion, bun: Bun.version, counters: hostLayout };

export function isSameRelease(a: Release, b: Release): boolean {
  return a.version === b.version && a.abi === b.abi && a.bun === b.bun && a.counters === b.counters;
}

/** 'ringway 1.2.3 (ABI 4, Bun 1.4.5)' */
export function releaseText({ version: number, abi, bun }: Release): string {
  return `ringway ${number} (ABI ${abi}, Bun ${bun})`;
}
