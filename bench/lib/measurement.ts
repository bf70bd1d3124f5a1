import { spreadOf } from './statistics.ts';

/** This machine cannot do it; the message says why. */
export class Skipped extends Error {}

/** What one measurement has given. */
export interface Measurement {
  /** cpu: µs per message. connect: µs per connection. latency: µs. memory: bytes per connection. idle: µs a second per connection. silence: bytes per message. faults: how many. commands: how many a second of each node. */
  readonly value: number;
  /** Messages, requests or deliveries a second: what the server gave, which is its most only where it kept its CPU busy. */
  readonly perSecond?: number;
  /** Part of its CPU that the server used. */
  readonly busy?: number;
  /** Latencies, in µs. */
  readonly p50?: number;
  readonly p99?: number;
  readonly p999?: number;
  /** What the value is made of. */
  readonly note?: string;
}

/** Figure by figure, of at least one measurement. */
export function medianOf(slices: readonly Measurement[]): Measurement {
  const median = (figure: 'value' | 'perSecond' | 'busy' | 'p50' | 'p99' | 'p999') => {
    const values = slices.flatMap((slice) => slice[figure] ?? []);
    return values.length === 0 ? {} : { [figure]: spreadOf(values).median };
  };
  return {
    value: Number.NaN,
    ...median('value'),
    ...median('perSecond'),
    ...median('busy'),
    ...median('p50'),
    ...median('p99'),
    ...median('p999'),
  };
}
