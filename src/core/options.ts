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
}

/** A range of addresses. An IPv4 address is written as IPv6 (::ffff:a.b.c.d), its prefix with 96 bits more. */
export interface AddressRange {
  /** 16 bytes in network order. */
  readonly address: Uint8Array;
  /** 0 to 128. */
  readonly prefixBits: number;
}

export interface BehaviorOptions {
  readonly maxPayloadBytes: number;
  readonly maxBackpressureBytes: number;
  readonly idleTimeoutMs: number;
  readonly pingIntervalMs: number;
  readonly maxLifetimeMs: number;
  readonly closeTimeoutMs: number;
  readonly closeOnBackpressure: boolean;
  readonly wantsPing: boolean;
  readonly wantsPong: boolean;
  readonly wantsDropped: boolean;
  readonly wantsDrain: boolean;
  /** The payload of each message that a publish drops. */
  readonly wantsDroppedPayload?: boolean;
  /** The limit counts what waits before a message, and what is sent meets the kernel 16 KiB at a time. */
  readonly limitsBefore?: boolean;
  /** permessage-deflate as `struct rw_behavior` has it; 0: none. */
  readonly deflate?: number;
  /** Shorter messages are not compressed. */
  readonly deflateMinBytes?: number;
  /** What a peer may send in a second on average, twice as much at once; 0: no limit. */
  readonly messagesPerSecond?: number;
  readonly bytesPerSecond?: number;
  /** Past it: receive no more for a while, instead of closing with 1008. */
  readonly pauseOnRate?: boolean;
  /** From the first byte of a message to its last; 0: for ever. */
  readonly messageTimeoutMs?: number;
}

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
  const flags = (options.wantsInterest ? coreFlag.wantsInterest : 0) | (options.wantsMail ? coreFlag.wantsMail : 0);
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
  view.setUint32(behaviorLayout.maxPayloadBytes, options.maxPayloadBytes, true);
  view.setUint32(behaviorLayout.maxBackpressureBytes, options.maxBackpressureBytes, true);
  view.setUint32(behaviorLayout.idleTimeoutMs, options.idleTimeoutMs, true);
  view.setUint32(behaviorLayout.pingIntervalMs, options.pingIntervalMs, true);
  view.setUint32(behaviorLayout.maxLifetimeMs, options.maxLifetimeMs, true);
  view.setUint32(behaviorLayout.closeTimeoutMs, options.closeTimeoutMs, true);
  let flags = 0;
  if (options.closeOnBackpressure) flags |= behaviorFlag.closeOnBackpressure;
  if (options.wantsPing) flags |= behaviorFlag.wantsPing;
  if (options.wantsPong) flags |= behaviorFlag.wantsPong;
  if (options.wantsDropped) flags |= behaviorFlag.wantsDropped;
  if (options.wantsDrain) flags |= behaviorFlag.wantsDrain;
  if (options.wantsDroppedPayload) flags |= behaviorFlag.wantsDroppedPayload;
  if (options.limitsBefore) flags |= behaviorFlag.limitBefore;
  if (options.pauseOnRate) flags |= behaviorFlag.pauseOnRate;
  view.setUint32(behaviorLayout.messagesPerSecond, options.messagesPerSecond ?? 0, true);
  view.setUint32(behaviorLayout.bytesPerSecond, options.bytesPerSecond ?? 0, true);
  view.setUint32(behaviorLayout.messageTimeoutMs, options.messageTimeoutMs ?? 0, true);
  view.setUint32(behaviorLayout.deflate, options.deflate ?? 0, true);
  view.setUint32(behaviorLayout.deflateMinBytes, options.deflateMinBytes ?? 0, true);
  view.setUint32(behaviorLayout.flags, flags, true);
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
