/**
 * How commands read a config: in a process of its own (supervisor/probe.ts), so that one that never finishes loading, or ends its process, is
 * told of.
 * Role: used by check, doctor and start. Down: supervisor/probe.ts, probe.ts.
 */
import { fileURLToPath } from 'node:url';
import { ConfigError } from '../config/config-error.ts';
import { OperatingError } from '../operating-error.ts';
import { type ConfigReader, type ProbeMessage, readPatienceMs, readThrough } from '../supervisor/probe.ts';
import { probeWord } from './probe-word.ts';

/** Longer than most configs take. */
const slowMs = 10_000;

export interface ReadOptions {
  /** The core is not needed unless there are certificates to be judged by it. */
  readonly withoutCore?: boolean;
  /** Told when it takes long. */
  readonly tell?: (text: string) => void;
  /** For tests. */
  readonly timeoutMs?: number;
  readonly slowMs?: number;
}

/** Reads the config at `path` with the code that lies on the disk then. */
export function configReader(path: string, options: ReadOptions = {}): ConfigReader {
  const program = fileURLToPath(new URL('../main.ts', import.meta.url));
  const words = options.withoutCore === true ? [path, 'without-core'] : [path];
  const { tell } = options;
  const slow = tell === undefined ? undefined : { afterMs: options.slowMs ?? slowMs, tell };
  return readThrough([program, probeWord, ...words], options.timeoutMs ?? readPatienceMs, slow);
}

export type ReadConfig = Extract<ProbeMessage, { readonly type: 'config' }>;

/** Throws ConfigError, and OperatingError when the config could not be judged. */
export function soundConfig(verdict: ProbeMessage): ReadConfig {
  if (verdict.type === 'mistakes') throw new ConfigError(verdict.where, verdict.mistakes);
  if (verdict.type === 'failed') throw new OperatingError(verdict.reason);
  return verdict;
}
