/**
 * The binding to the C core: the only file that imports bun:ffi. A move to Node-API touches this file alone.
 *
 * Role: names of the ABI (ffi/include/ringway.h) as TypeScript functions; addresses become typed arrays here and nowhere else.
 * Up: src/core, src/supervisor. Down: libringway.so, which library.ts finds.
 */
import { CString, dlopen, FFIType, type Pointer, ptr, toArrayBuffer } from 'bun:ffi';
import { existsSync } from 'node:fs';
import { constants as osConstants } from 'node:os';
import { abiVersion, result, statsLayout, tlsOptionsLayout } from './layout.ts';
import { compileCore, libraryPaths, workerVariable } from './library.ts';

const { i32, u32, u64, ptr: pointer } = FFIType;

/** Why the file at `path` cannot be the core of this program; undefined: it can. */
function refusal(path: string): string | undefined {
  if (!existsSync(path)) return 'is missing';
  try {
    // Asked for its version before all else: another one may lack functions, and then says only which.
    const library = dlopen(path, { rw_abi_version: { args: [], returns: u32 } });
    const version = library.symbols.rw_abi_version();
    if (version === abiVersion) return undefined;
    // While it is loaded, its path stands for it, whatever file is put there.
    library.close();
    return `has ABI ${version}, this program needs ${abiVersion}`;
  } catch (error) {
    return `cannot be loaded (${error instanceof Error ? error.message : error})`;
  }
}

/** The first library that fits. Where none does, one is compiled, but not by a worker: its supervisor has done so, and they are many. */
function fittingLibrary(): string {
  const refused: string[] = [];
  for (const path of libraryPaths()) {
    const reason = refusal(path);
    if (reason === undefined) return path;
    refused.push(`${path} ${reason}`);
  }
  const all = refused.join('; ');
  if (process.env.RINGWAY_LIBRARY !== undefined)
    throw new Error(`the C core that RINGWAY_LIBRARY names cannot be used: ${all}. Rebuild it with 'make -C ffi', or unset the variable`);
  if (process.env[workerVariable] !== undefined)
    throw new Error(
      `the C core that the node was started with is gone (${all || 'no file is there'}): run 'ringway build', then start it again`,
    );
  console.error(`ringway: no C core for this system is here yet${all === '' ? '' : ` (${all})`}`);
  const path = compileCore();
  const reason = refusal(path);
  if (reason !== undefined) throw new Error(`the C core at ${path}, compiled just now, ${reason}`);
  return path;
}

/** The C core in use. */
export const libraryPath = fittingLibrary();

const { symbols } = dlopen(libraryPath, {
  rw_core_create: { args: [pointer, pointer, u64], returns: pointer },
  rw_core_destroy: { args: [pointer], returns: FFIType.void },
  rw_core_info: { args: [pointer, pointer], returns: FFIType.void },
  rw_core_behavior: { args: [pointer, u32, pointer], returns: i32 },
  rw_core_listen: { args: [pointer, i32, u32, u32], returns: i32 },
  rw_core_listener_flags: { args: [pointer, u32, u32], returns: i32 },
  rw_core_unlisten: { args: [pointer, u32], returns: i32 },
  rw_core_terminate_listener: { args: [pointer, u32], returns: i32 },
  rw_core_listener_tls: { args: [pointer, u32, pointer, pointer, u64], returns: i32 },
  rw_core_server_name: { args: [pointer, u32, pointer, u32, pointer, pointer, u64], returns: i32 },
  rw_core_trusted_proxies: { args: [pointer, pointer, u32], returns: i32 },
  rw_core_stop_accepting: { args: [pointer], returns: FFIType.void },
  rw_core_interrupt_by: { args: [pointer, FFIType.i32], returns: FFIType.i32 },
  rw_core_drain: { args: [pointer, u32, u32, u32], returns: FFIType.void },
  rw_core_turn: { args: [pointer, u32, u32], returns: i32 },
  rw_core_pace: { args: [pointer, u32], returns: FFIType.void },
  rw_core_flush: { args: [pointer, u32], returns: i32 },
  rw_core_command: { args: [pointer, pointer, pointer, u64], returns: i32 },
  rw_core_sleep: { args: [pointer], returns: i32 },
  rw_core_wake: { args: [pointer], returns: FFIType.void },
  rw_core_remote_address: { args: [pointer, u32, u32, pointer, u32, pointer], returns: i32 },
  rw_core_peer: { args: [pointer, u32, u32, u32, pointer, pointer], returns: i32 },
  rw_core_tls: { args: [pointer, u32, u32, pointer, u32, pointer], returns: i32 },
  rw_core_topics: { args: [pointer, u32, u32, pointer, u32], returns: i32 },
  rw_core_topic_wanted: { args: [pointer, pointer, u32], returns: i32 },
  rw_core_subscribers: { args: [pointer, pointer, u32], returns: u32 },
  rw_core_connections: { args: [pointer], returns: u32 },
  rw_core_presence_join: { args: [pointer, u32, u32, pointer, u32, u32, u32, u32, u32], returns: i32 },
  rw_core_presence_leave: { args: [pointer, u32, u32, pointer, u32], returns: i32 },
  rw_core_presence_count: { args: [pointer, pointer, u32, pointer, pointer], returns: i32 },
  rw_core_presence_list: { args: [pointer, pointer, u32, pointer, u64, pointer, pointer], returns: FFIType.i64_fast },
  rw_core_presence_tick: { args: [pointer], returns: i32 },
  rw_core_presence_take: { args: [pointer, u32, pointer, u64, pointer], returns: i32 },
  rw_core_presence_acknowledge: { args: [pointer, pointer, u32, u32, u64], returns: i32 },
  rw_core_presence_rewrite: { args: [pointer, u32], returns: i32 },
  rw_core_log_append: { args: [pointer, pointer, pointer], returns: i32 },
  rw_core_log_put: { args: [pointer, pointer, pointer], returns: i32 },
  rw_core_log_reset: { args: [pointer, pointer, pointer], returns: i32 },
  rw_core_log_follow: { args: [pointer, pointer, u32, u32], returns: i32 },
  rw_core_log_read: { args: [pointer, pointer, u32, u64, u64, u32, u32, pointer, u64], returns: FFIType.i64_fast },
  rw_core_attach: { args: [pointer, u32, u32, pointer, pointer], returns: i32 },
  rw_core_send_logged: { args: [pointer, u32, u32, pointer, pointer], returns: i32 },
  rw_core_hold: { args: [pointer, pointer, pointer], returns: i32 },
  rw_core_release: { args: [pointer, pointer, u32], returns: i32 },
  rw_core_members: { args: [pointer, pointer, u32, pointer, u32], returns: u32 },
  rw_core_topic_names: { args: [pointer, pointer, u32, u32, pointer, pointer, u32], returns: u32 },
  rw_core_is_subscribed: { args: [pointer, u32, u32, pointer, u32], returns: i32 },
  rw_shm_create: { args: [u32, u32, u32, u64], returns: i32 },
  rw_shm_map: { args: [i32, u32], returns: u64 },
  rw_shm_unmap: { args: [u64], returns: FFIType.void },
  rw_shm_stats: { args: [u64, u32], returns: u64 },
  rw_shm_worker_gone: { args: [u64, u32], returns: FFIType.void },
  rw_shm_view_set: { args: [u64, u32, u32, u32], returns: FFIType.void },
  rw_shm_epoch: { args: [u64, u32], returns: u32 },
  rw_shm_topic_memory: { args: [u64, pointer], returns: i32 },
  rw_listen_socket: { args: [pointer, u32, u32, u32], returns: i32 },
  rw_connect_local: { args: [i32], returns: i32 },
  rw_socket_pair: { args: [pointer], returns: i32 },
  rw_socket_port: { args: [i32], returns: i32 },
  rw_eventfd_create: { args: [], returns: i32 },
  rw_eventfd_signal: { args: [i32], returns: FFIType.void },
  rw_fd_close: { args: [i32], returns: FFIType.void },
  rw_listen_close: { args: [i32], returns: FFIType.void },
  rw_listen_backlog: { args: [i32, u32], returns: i32 },
  rw_end_with_parent: { args: [i32], returns: i32 },
  rw_service_notify: { args: [pointer, pointer], returns: i32 },
  rw_affinity_set: { args: [u32], returns: i32 },
  rw_affinity_get: { args: [pointer, u32], returns: i32 },
});

/** A call into the core or the kernel failed. `code` is stable: an errno name such as EADDRINUSE, or one of ours (RW_ERR_STALE). */
export class SystemError extends Error {
  readonly code: string;
  constructor(what: string, code: number) {
    const name = errorName(code);
    super(`${what}: ${name}`);
    this.code = name;
  }
}

function errorName(code: number): string {
  for (const [name, value] of Object.entries(result)) if (value === code && code < -4095) return `RW_ERR_${name.toUpperCase()}`;
  for (const [name, value] of Object.entries(osConstants.errno)) if (value === -code) return name;
  return `errno ${-code}`;
}

function check(what: string, code: number): number {
  if (code < 0) throw new SystemError(what, code);
  return code;
}

const encoder = new TextEncoder();
const cString = (text: string): Uint8Array => encoder.encode(`${text}\0`);

/** What topics of a node take of its memory. */
export interface TopicMemory {
  /** For logs and members, in all, and of them in use. */
  readonly bytes: number;
  readonly usedBytes: number;
  readonly logs: number;
  /** Since the node began: logs dropped for want of room; deaths in the middle of a change; parts emptied because they were damaged. */
  readonly evicted: number;
  readonly recovered: number;
  readonly damaged: number;
}

/** Counters of all workers, read live from shared memory. */
export interface SharedStats {
  /** Places for workers, whether anybody is there or not. */
  readonly places: number;
  /** A live view of one worker's block; src/core/stat-index.ts knows its words. */
  read(worker: number): BigUint64Array;
  /** Say that a worker has exited: others stop writing to it, its gauges go to zero. */
  workerGone(worker: number): void;
  /** Say which workers own topics: those at places `first` to `first + count - 1`. `generation`: how often that has changed. */
  viewSet(generation: number, first: number, count: number): void;
  /** The process at a place: odd while one lives there, 0 when none ever has. */
  epoch(worker: number): number;
  /** What topics take of the memory that is theirs; undefined: they remember nothing. */
  topicMemory(): TopicMemory | undefined;
  unmap(): void;
}

function mapShared(fd: number, hostLayout: number): SharedStats {
  const address = BigInt(symbols.rw_shm_map(fd, hostLayout));
  if (address === 0n)
    throw new Error('the shared memory of the node cannot be mapped: it was laid out by another version, or memory is short');
  let places = 0;
  while (BigInt(symbols.rw_shm_stats(address, places)) !== 0n) places += 1;
  return {
    places,
    read(worker) {
      const at = Number(symbols.rw_shm_stats(address, worker));
      return new BigUint64Array(toArrayBuffer(at as Pointer, 0, statsLayout.bytes));
    },
    workerGone: (worker) => symbols.rw_shm_worker_gone(address, worker),
    viewSet: (generation, first, count) => symbols.rw_shm_view_set(address, generation, first, count),
    epoch: (worker) => symbols.rw_shm_epoch(address, worker),
    topicMemory() {
      const words = new BigUint64Array(6);
      if (symbols.rw_shm_topic_memory(address, ptr(words)) < 0) return undefined;
      const [bytes = 0, usedBytes = 0, logs = 0, evicted = 0, recovered = 0, damaged = 0] = Array.from(words, Number);
      return { bytes, usedBytes, logs, evicted, recovered, damaged };
    },
    unmap: () => symbols.rw_shm_unmap(address),
  };
}

/** Unix sockets have no port; the ABI says so with this value. */
const unixPort = 0xffffffff;

/** What the supervisor needs of the core: shared memory, sockets, eventfds, CPUs. */
export const native = {
  /**
   * A memfd for `workers`; `ringBytes` per ordered pair, 0 for the default; `hostLayout`: stands for what TypeScript counts in it;
   * `stateBytes`: for what topics remember, 8 MiB to 256 GiB, 0 for topics that remember nothing.
   */
  shmCreate: (workers: number, ringBytes: number, hostLayout: number, stateBytes = 0): number =>
    check('cannot create shared memory', symbols.rw_shm_create(workers, ringBytes, hostLayout, stateBytes)),
  shmMap: mapShared,
  /** A listening socket; without `port`, `host` is the path of a Unix socket. */
  listenSocket: (host: string, port: number | undefined, backlog: number, flags: number): number =>
    check(
      `cannot listen on ${port === undefined ? host : `${host} port ${port}`}`,
      symbols.rw_listen_socket(ptr(cString(host)), port ?? unixPort, backlog, flags),
    ),
  /** A connection to a listening Unix socket of this process: a non-blocking descriptor, to be closed. */
  connectLocal: (listeningFd: number): number => check('cannot connect to a socket of this process', symbols.rw_connect_local(listeningFd)),
  /** Two connected sockets, blocking, not inherited, to be closed. */
  socketPair(): [number, number] {
    const fds = new Int32Array(2);
    check('cannot make a pair of sockets', symbols.rw_socket_pair(ptr(fds)));
    return [fds[0] as number, fds[1] as number];
  },
  socketPort: (fd: number): number => check('cannot read the port of a socket', symbols.rw_socket_port(fd)),
  eventfdCreate: (): number => check('cannot create an eventfd', symbols.rw_eventfd_create()),
  eventfdSignal: (fd: number): void => symbols.rw_eventfd_signal(fd),
  fdClose: (fd: number): void => symbols.rw_fd_close(fd),
  /** Change how many connections may wait in the queue of a listening socket. */
  listenBacklog(fd: number, backlog: number): void {
    check('cannot change the backlog of a socket', symbols.rw_listen_backlog(fd, backlog));
  },
  /** Close a listening socket that nobody else is to accept from. */
  listenClose: (fd: number): void => symbols.rw_listen_close(fd),
  /** This process gets the signal when the one that has started it ends. */
  endWithParent(signal: 'SIGTERM' | 'SIGKILL'): void {
    check('cannot follow the parent process', symbols.rw_end_with_parent(osConstants.signals[signal]));
  },
  /** A datagram to the Unix socket of a service manager. */
  notify(socket: string, text: string): void {
    check(`cannot write to ${socket}`, symbols.rw_service_notify(ptr(cString(socket)), ptr(cString(text))));
  },
  affinitySet: (cpu: number): number => check(`cannot pin to CPU ${cpu}`, symbols.rw_affinity_set(cpu)),
  /** The CPUs this process may run on. */
  affinityGet(): number[] {
    const out = new Uint32Array(1024);
    const count = check('cannot read the CPU affinity', symbols.rw_affinity_get(ptr(out), out.length));
    return [...out.subarray(0, Math.min(count, out.length))];
  },
} as const;

/** What a TLS listener or server name is given; paths of PEM files. As `struct rw_tls_options`. */
export interface TlsFiles {
  readonly keyFile?: string | undefined;
  readonly certFile?: string | undefined;
  readonly caFile?: string | undefined;
  readonly passphrase?: string | undefined;
  readonly dhParamsFile?: string | undefined;
  readonly ciphers?: string | undefined;
  readonly crlFile?: string | undefined;
  /** DER. */
  readonly ocspFile?: string | undefined;
  /** A certificate with another kind of key for the same name: its `certFile`, `keyFile`, `passphrase`, `ocspFile` and `also` count. */
  readonly also?: TlsFiles | undefined;
  /** 0x0303 (TLS 1.2) or 0x0304 (TLS 1.3); 0: the core's default. */
  readonly minVersion?: number | undefined;
  /** `RW_TLS_*` bits. */
  readonly flags?: number | undefined;
}

/** Certificates could not be used; the message names the file and what is wrong with it. */
export class TlsError extends Error {
  readonly code = 'RW_TLS';
}

/** Call with the options as the C struct, whose strings live until the call returns; throws TlsError with the core's own words. */
function withTlsOptions(files: TlsFiles, call: (record: Pointer, error: Pointer, errorBytes: number) => number): void {
  const strings: Uint8Array[] = [];
  const records: BigUint64Array[] = [];
  const record = tlsRecord(files, strings, records);
  const error = new Uint8Array(512);
  const code = call(ptr(record), ptr(error), error.length);
  // Read after the call: until here the strings are in use.
  if (code < 0)
    throw new TlsError(
      new CString(ptr(error)).toString() || `TLS options refused: ${errorName(code)} (${strings.length} given in ${records.length})`,
    );
}

/** The C struct. What it points to is added to `strings` and `records`, which must live as long as it. */
function tlsRecord(files: TlsFiles, strings: Uint8Array[], records: BigUint64Array[]): BigUint64Array {
  const record = new BigUint64Array(tlsOptionsLayout.bytes / 8);
  records.push(record);
  const put = (offset: number, text: string | undefined) => {
    if (text === undefined) return;
    const bytes = cString(text);
    strings.push(bytes);
    record[offset / 8] = BigInt(ptr(bytes));
  };
  put(tlsOptionsLayout.keyFile, files.keyFile);
  put(tlsOptionsLayout.certFile, files.certFile);
  put(tlsOptionsLayout.caFile, files.caFile);
  put(tlsOptionsLayout.passphrase, files.passphrase);
  put(tlsOptionsLayout.dhParamsFile, files.dhParamsFile);
  put(tlsOptionsLayout.ciphers, files.ciphers);
  put(tlsOptionsLayout.crlFile, files.crlFile);
  put(tlsOptionsLayout.ocspFile, files.ocspFile);
  if (files.also !== undefined) record[tlsOptionsLayout.also / 8] = BigInt(ptr(tlsRecord(files.also, strings, records)));
  const words = new Uint32Array(record.buffer);
  words[tlsOptionsLayout.minVersion / 4] = files.minVersion ?? 0;
  words[tlsOptionsLayout.flags / 4] = files.flags ?? 0;
  return record;
}

/** Names the core in every call; opaque. */
export type CoreHandle = Pointer;

/** The core's own functions, one to one. Typed arrays passed here are borrowed for the call. */
export const coreCalls = {
  /** `note`: why io_uring was not taken, or empty. */
  create(config: Uint8Array): { core: CoreHandle; note: string } {
    const error = new Uint8Array(512);
    const core = symbols.rw_core_create(ptr(config), ptr(error), error.length);
    const note = new CString(ptr(error)).toString();
    if (core === null) throw new Error(note);
    return { core: core as CoreHandle, note };
  },
  destroy: symbols.rw_core_destroy,
  info: (core: CoreHandle, out: Uint8Array): void => symbols.rw_core_info(core, ptr(out)),
  behavior: (core: CoreHandle, index: number, record: Uint8Array): number =>
    check('behavior refused', symbols.rw_core_behavior(core, index, ptr(record))),
  listen: (core: CoreHandle, fd: number, index: number, flags: number): number =>
    check('cannot accept', symbols.rw_core_listen(core, fd, index, flags)),
  listenerFlags: (core: CoreHandle, index: number, flags: number): number =>
    check('listener flags refused', symbols.rw_core_listener_flags(core, index, flags)),
  unlisten: (core: CoreHandle, index: number): number => check('cannot stop accepting', symbols.rw_core_unlisten(core, index)),
  terminateListener: (core: CoreHandle, index: number): number => symbols.rw_core_terminate_listener(core, index),
  listenerTls: (core: CoreHandle, index: number, files: TlsFiles): void =>
    withTlsOptions(files, (record, error, bytes) => symbols.rw_core_listener_tls(core, index, record, error, bytes)),
  serverName(core: CoreHandle, index: number, name: string, context: number, files: TlsFiles | undefined): void {
    const cName = cString(name);
    if (files === undefined) symbols.rw_core_server_name(core, index, ptr(cName), context, null, null, 0);
    else
      withTlsOptions(files, (record, error, bytes) => symbols.rw_core_server_name(core, index, ptr(cName), context, record, error, bytes));
  },
  stopAccepting: symbols.rw_core_stop_accepting,
  interruptBy(core: CoreHandle, fd: number): void {
    const code = symbols.rw_core_interrupt_by(core, fd);
    if (code < 0) throw new SystemError(`waits cannot be ended by descriptor ${fd}`, code);
  },
  drain: symbols.rw_core_drain,
  turn: symbols.rw_core_turn,
  pace: symbols.rw_core_pace,
  flush: symbols.rw_core_flush,
  command: (core: CoreHandle, record: Uint8Array, data: Uint8Array): number =>
    symbols.rw_core_command(core, ptr(record), data.byteLength === 0 ? null : ptr(data), data.byteLength),
  sleep: symbols.rw_core_sleep,
  wake: symbols.rw_core_wake,
  remoteAddress(core: CoreHandle, slot: number, generation: number): { address: string; port: number } | undefined {
    const out = new Uint8Array(64);
    const port = new Uint32Array(1);
    const length = symbols.rw_core_remote_address(core, slot, generation, ptr(out), out.length, ptr(port));
    return length > 0 ? { address: Buffer.from(out.buffer, 0, length).latin1Slice(0, length), port: port[0] ?? 0 } : undefined;
  },
  /** The peer's address in network order: 4 or 16 bytes; empty for a Unix socket or when no proxy told one; undefined once it is gone. */
  peer(core: CoreHandle, slot: number, generation: number, proxied: boolean): { address: Uint8Array; port: number } | undefined {
    const out = new Uint8Array(16);
    const port = new Uint32Array(1);
    const length = symbols.rw_core_peer(core, slot, generation, proxied ? 1 : 0, ptr(out), ptr(port));
    return length < 0 ? undefined : { address: out.slice(0, length), port: port[0] ?? 0 };
  },
  /** The version of TLS, the server name that was asked for, or '', and the client's certificate (DER), if any; undefined: no TLS, or it has ended. */
  tls(
    core: CoreHandle,
    slot: number,
    generation: number,
  ): { version: number; serverName: string; certificate: Uint8Array | undefined } | undefined {
    const version = new Uint32Array(1);
    let out = new Uint8Array(4096);
    let length = symbols.rw_core_tls(core, slot, generation, ptr(out), out.length, ptr(version));
    if (length > out.length) {
      out = new Uint8Array(length);
      length = symbols.rw_core_tls(core, slot, generation, ptr(out), out.length, ptr(version));
    }
    if (length <= 0) return undefined;
    const nameEnd = 2 + new DataView(out.buffer).getUint16(0, true);
    const serverName = Buffer.from(out.buffer).latin1Slice(2, nameEnd);
    return { version: version[0] ?? 0, serverName, certificate: nameEnd < length ? out.slice(nameEnd, length) : undefined };
  },
  /** `ranges`: records of struct rw_address_range, copied. */
  trustedProxies(core: CoreHandle, ranges: Uint8Array, count: number): void {
    const code = symbols.rw_core_trusted_proxies(core, count === 0 ? null : ptr(ranges), count);
    if (code < 0) throw new SystemError('the ranges of trusted proxies cannot be set', code);
  },
  /** The topics of a connection as u16 lengths and names, or undefined once it is gone. */
  topics(core: CoreHandle, slot: number, generation: number): Uint8Array | undefined {
    let out = new Uint8Array(4096);
    let needed = symbols.rw_core_topics(core, slot, generation, ptr(out), out.length);
    if (needed > out.length) {
      out = new Uint8Array(needed);
      needed = symbols.rw_core_topics(core, slot, generation, ptr(out), out.length);
    }
    return needed < 0 ? undefined : out.subarray(0, needed);
  },
  topicWanted: (core: CoreHandle, topic: Uint8Array): boolean => symbols.rw_core_topic_wanted(core, ptr(topic), topic.length) > 0,
  subscribers: (core: CoreHandle, topic: Uint8Array): number => symbols.rw_core_subscribers(core, ptr(topic), topic.length),
  isSubscribed: (core: CoreHandle, slot: number, generation: number, topic: Uint8Array): boolean =>
    symbols.rw_core_is_subscribed(core, slot, generation, ptr(topic), topic.length) > 0,
  /** `call`: a struct rw_log_call; `bytes`: what it names. What is told back is written into it. */
  logAppend: (core: CoreHandle, call: Uint8Array, bytes: Uint8Array): number => symbols.rw_core_log_append(core, ptr(call), ptr(bytes)),
  logPut: (core: CoreHandle, call: Uint8Array, bytes: Uint8Array): number => symbols.rw_core_log_put(core, ptr(call), ptr(bytes)),
  logReset: (core: CoreHandle, call: Uint8Array, bytes: Uint8Array): number => symbols.rw_core_log_reset(core, ptr(call), ptr(bytes)),
  logFollow: (core: CoreHandle, topic: Uint8Array, follows: boolean): number =>
    symbols.rw_core_log_follow(core, ptr(topic), topic.length, follows ? 1 : 0),
  logRead: (core: CoreHandle, topic: Uint8Array, epoch: bigint, after: number, max: number, reverse: boolean, out: Uint8Array): number =>
    Number(symbols.rw_core_log_read(core, ptr(topic), topic.length, epoch, after, max, reverse ? 1 : 0, ptr(out), out.length)),
  attach: (core: CoreHandle, slot: number, generation: number, call: Uint8Array, bytes: Uint8Array): number =>
    symbols.rw_core_attach(core, slot, generation, ptr(call), ptr(bytes)),
  sendLogged: (core: CoreHandle, slot: number, generation: number, call: Uint8Array, bytes: Uint8Array): number =>
    symbols.rw_core_send_logged(core, slot, generation, ptr(call), ptr(bytes)),
  hold: (core: CoreHandle, call: Uint8Array, bytes: Uint8Array): number => symbols.rw_core_hold(core, ptr(call), ptr(bytes)),
  release: (core: CoreHandle, topic: Uint8Array): number => symbols.rw_core_release(core, ptr(topic), topic.length),
  /** Fills `out` with pairs. ret: how many there are */
  members: (core: CoreHandle, topic: Uint8Array, out: Uint32Array): number =>
    symbols.rw_core_members(core, ptr(topic), topic.length, ptr(out), out.length >>> 1),
  /** `cursor`: one word, 0 at first and after the last. ret: bytes written */
  topicNames: (core: CoreHandle, prefix: Uint8Array, max: number, cursor: Uint32Array, out: Uint8Array): number =>
    symbols.rw_core_topic_names(core, prefix.length === 0 ? null : ptr(prefix), prefix.length, max, ptr(cursor), ptr(out), out.length),
  connections: symbols.rw_core_connections,
  /** `data`: topic, user and info. ret: 1, 0 or a negative result */
  presenceJoin: (
    core: CoreHandle,
    slot: number,
    generation: number,
    data: Uint8Array,
    topicBytes: number,
    userBytes: number,
    infoBytes: number,
    graceMs: number,
    membersMax: number,
  ): number => symbols.rw_core_presence_join(core, slot, generation, ptr(data), topicBytes, userBytes, infoBytes, graceMs, membersMax),
  presenceLeave: (core: CoreHandle, slot: number, generation: number, topic: Uint8Array): number =>
    symbols.rw_core_presence_leave(core, slot, generation, ptr(topic), topic.length),
  presenceCount(core: CoreHandle, topic: Uint8Array): { users: number; connections: number } {
    const counts = new Uint32Array(2);
    const at = ptr(counts);
    check('members cannot be counted', symbols.rw_core_presence_count(core, ptr(topic), topic.length, at, (at + 4) as Pointer));
    return { users: counts[0] ?? 0, connections: counts[1] ?? 0 };
  },
  /** Records as in ringway.h, and the position. */
  presenceList(core: CoreHandle, topic: Uint8Array): { records: Uint8Array; epoch: bigint; offset: bigint } {
    const position = new BigUint64Array(2);
    const at = ptr(position);
    for (let out = new Uint8Array(16384); ; ) {
      const needed = Number(symbols.rw_core_presence_list(core, ptr(topic), topic.length, ptr(out), out.length, at, (at + 8) as Pointer));
      check('members cannot be listed', needed);
      if (needed <= out.length) return { records: out.subarray(0, needed), epoch: position[0] ?? 0n, offset: position[1] ?? 0n };
      // Others may join meanwhile.
      out = new Uint8Array(needed + (needed >> 3));
    }
  },
  presenceTick: (core: CoreHandle): boolean => symbols.rw_core_presence_tick(core) > 0,
  /** Into `out`. ret: how many, and the bytes of their records */
  presenceTake(core: CoreHandle, max: number, out: Uint8Array): { count: number; bytes: number } {
    const used = new BigUint64Array(1);
    const count = check('members cannot be taken', symbols.rw_core_presence_take(core, max, ptr(out), out.length, ptr(used)));
    return { count, bytes: Number(used[0]) };
  },
  /** `data`: topic and user. */
  presenceAcknowledge: (core: CoreHandle, data: Uint8Array, topicBytes: number, userBytes: number, version: number): number =>
    symbols.rw_core_presence_acknowledge(core, ptr(data), topicBytes, userBytes, version),
  presenceRewrite: (core: CoreHandle, cursor: number): number => symbols.rw_core_presence_rewrite(core, cursor),
  /** Memory of the core as a typed view: no copy, valid as long as the core. */
  view: (address: number, bytes: number): ArrayBuffer => toArrayBuffer(address as Pointer, 0, bytes),
} as const;
