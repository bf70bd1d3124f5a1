/**
 * What a core and its behaviors are set up with, and the records of that.
 * Role: pure; TypeScript's names and units onto `struct rw_core_config` and `struct rw_behavior`. Up: core.ts. Down: ffi/layout.ts.
 */
import { abiVersion, addressRangeLayout, backend, behaviorFlag, behaviorLayout, coreConfigLayout, coreFlag } from '../../ffi/layout.ts';
import { hostLayout } from './stat-index.ts';

export type BackendName = 'io_uring' | 'epoll';

/** What to set up; times in milliseconds, sizes in bytes, as in `struct rw_core_config`. Missing numbers mean the core's defaults. */
export interface CoreOptions {
  readonly backend: 'auto' | BackendName;
  readonly wakeFd: number;
  readonly inboxFdFirst: number;
  readonly shmFd: number;
  readonly workerIndex: number;
  readonly workerCount: number;
  readonly numbers: Partial<Record<Exclude<keyof typeof coreConfigLayout, 'bytes'>, number>>;
  readonly maxBodyBytes?: number;
  /** `busEvents.onInterest` is called. */
  readonly wantsInterest?: boolean;
  /** `busEvents.onMail` is called; else mail is thrown away. */
  readonly wantsMail?: boolean;
  /** Logs and members of topics are another store's, of which this node has copies: see `logReset` and `presenceTakeDirty`. */
  readonly followsLogs?: boolean;
}

/** A range of addresses. An IPv4 address is written as IPv6 (::ffff:a.b.c.d), its prefix with 96 bits more. */
export interface AddressRange {
  /** 16 bytes in network order. */
  readonly address: Uint8Array;
  /** 0 to 128. */
  readonly prefixBits: number;
}

type BehaviorNumber = Exclude<keyof typeof behaviorLayout, 'bytes' | 'flags'>;
/** `struct rw_behavior`, its fields and its flags by name; what is missing is 0. */
export type BehaviorOptions = { readonly [Field in BehaviorNumber]?: number } & { readonly [Flag in keyof typeof behaviorFlag]?: boolean };

export function encodeConfig(options: CoreOptions): Uint8Array {
  const record = new Uint8Array(coreConfigLayout.bytes);
  const view = new DataView(record.buffer);
  const { bytes: _bytes, ...fields } = coreConfigLayout;
  for (const [name, offset] of Object.entries(fields))
    view.setUint32(offset, (options.numbers[name as keyof typeof fields] ?? 0) >>> 0, true);
  const backends = { auto: backend.auto, io_uring: backend.ioUring, epoll: backend.epoll };
  view.setUint32(coreConfigLayout.abiVersion, abiVersion, true);
  view.setUint32(coreConfigLayout.backend, backends[options.backend], true);
  view.setInt32(coreConfigLayout.wakeFd, options.wakeFd, true);
  view.setInt32(coreConfigLayout.inboxFdFirst, options.inboxFdFirst, true);
  view.setInt32(coreConfigLayout.shmFd, options.shmFd, true);
  view.setUint32(coreConfigLayout.workerIndex, options.workerIndex, true);
  view.setUint32(coreConfigLayout.workerCount, options.workerCount, true);
  const flags =
    (options.wantsInterest ? coreFlag.wantsInterest : 0) |
    (options.wantsMail ? coreFlag.wantsMail : 0) |
    (options.followsLogs ? coreFlag.followsLogs : 0);
  view.setUint32(coreConfigLayout.flags, flags, true);
  view.setUint32(coreConfigLayout.hostLayout, hostLayout, true);
  const body = options.maxBodyBytes ?? 0;
  view.setUint32(coreConfigLayout.maxBodyBytesLo, body >>> 0, true);
  view.setUint32(coreConfigLayout.maxBodyBytesHi, Math.floor(body / 0x1_0000_0000), true);
  return record;
}

export function encodeBehavior(options: BehaviorOptions): Uint8Array {
  const record = new Uint8Array(behaviorLayout.bytes);
  const view = new DataView(record.buffer);
  const { bytes: _bytes, flags: flagsAt, ...fields } = behaviorLayout;
  for (const [name, offset] of Object.entries(fields)) view.setUint32(offset, options[name as BehaviorNumber] ?? 0, true);
  const flags = Object.entries(behaviorFlag).reduce(
    (set, [name, bit]) => (options[name as keyof typeof behaviorFlag] ? set | bit : set),
    0,
  );
  view.setUint32(flagsAt, flags, true);
  return record;
}

export function encodeAddressRanges(ranges: readonly AddressRange[]): Uint8Array {
  const records = new Uint8Array(ranges.length * addressRangeLayout.bytes);
  const view = new DataView(records.buffer);
  for (const [index, { address, prefixBits }] of ranges.entries()) {
    const at = index * addressRangeLayout.bytes;
    records.set(address, at + addressRangeLayout.address);
    view.setUint32(at + addressRangeLayout.prefixBits, prefixBits, true);
  }
  return records;
}
