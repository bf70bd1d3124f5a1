/** What one measurement has given. */
export interface Measurement {
  /** cpu: µs per message. latency: µs. memory: bytes per connection. idle: percent of a core. silence: bytes per message. faults: how many. */
  readonly value: number;
  /** Messages, requests or deliveries a second: what the server gave, which is its most only where it kept its CPU busy. */
  readonly perSecond?: number;
  /** Part of its CPU that the server used. */
  readonly busy?: number;
  /** What the value is made of. */
  readonly note?: string;
}
