/**
 * Which Ringway this is: workers are started with the code on the disk, so a supervisor of another release must not go on leading them.
 * Role: compared by the supervisor with what the process says that has read the config anew (probe.ts).
 */
import { abiVersion } from '../core/abi.ts';
import { version } from '../version.ts';

export interface Release {
  readonly version: string;
  /** Of the core. */
  readonly abi: number;
  readonly bun: string;
}

export const ownRelease: Release = { version, abi: abiVersion, bun: Bun.version };

export function isSameRelease(a: Release, b: Release): boolean {
  return a.version === b.version && a.abi === b.abi && a.bun === b.bun;
}

/** 'ringway 1.2.3 (ABI 4, Bun 1.4.5)' */
export function releaseText({ version: number, abi, bun }: Release): string {
  return `ringway ${number} (ABI ${abi}, Bun ${bun})`;
}
