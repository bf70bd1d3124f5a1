/**
 * The listening sockets of the node: for each address one per worker (SO_REUSEPORT), or one that all share (Unix).
 *
 * Role: the supervisor owns them, so that the accept queue of a worker outlives it. A set of listeners is made for one config; the set of the
 * next config takes over the sockets of the addresses that both have. A socket that anybody may connect to is never closed while its address
 * is wanted, since closing it resets what waits in its queue: with fewer workers than sockets, each worker has several of an address.
 * Up: supervisor.ts, reload.ts. Down: ringway.h rw_listen_socket().
 */
import { lstatSync, unlinkSync } from 'node:fs';
import { keyOf } from '../config/address-key.ts';
import type { ListenAddress, TcpAddress, UnixAddress } from '../config/resolve.ts';
import { listenFlag } from '../core/abi.ts';
import { errorCode, listenProblem, OperatingError } from '../operating-error.ts';
import type { SupervisorNative } from '../process/boot.ts';
import { applySocketFileMode, type SocketFileMode, socketFileMode } from './socket-file.ts';

/** One address, open. */
export interface OpenListener {
  /** Its place in the config. */
  readonly index: number;
  readonly label: string;
  /** As the config has it: port 0 is one that the system has chosen. */
  readonly key: string;
  /** One for each worker at least; a single one on a Unix socket, which all share. */
  readonly fds: readonly number[];
  /** Of `fds`, those from here on take no connections yet. */
  readonly begun: number;
  readonly backlog: number;
  /** As bound; undefined for a Unix socket, as the port. */
  readonly host: string | undefined;
  readonly port: number | undefined;
  readonly unixPath: string | undefined;
  /** Of the socket file that we made: only that one is removed at the end. */
  readonly fileIdentity: string;
  /** Who may connect to a Unix socket; undefined: as its file was made. */
  readonly fileMode?: SocketFileMode | undefined;
}

/** A socket for a worker. */
export interface WorkerSocket {
  readonly fd: number;
  /** Place of its address in the config. */
  readonly index: number;
  readonly key: string;
  readonly label: string;
}

/** Listeners of a core, RW_LISTENERS_MAX of ffi/core/base/limits.h. */
const socketsPerWorkerMax = 256;

export interface OpenOptions {
  /** The listeners of the config before this: sockets of its addresses are used again. */
  readonly before?: readonly OpenListener[];
  /** Take the addresses, but no connections before `begin`. */
  readonly later?: boolean;
}

export class Listeners {
  readonly open: readonly OpenListener[];
  readonly #native: SupervisorNative;
  readonly #workers: number;
  #hasBegun: boolean;

  private constructor(native: SupervisorNative, open: readonly OpenListener[], workers: number, hasBegun: boolean) {
    this.#native = native;
    this.#workers = workers;
    this.#hasBegun = hasBegun;
    this.open = open;
  }

  /** Open every address for `workers`. Throws OperatingError, with nothing changed. */
  static open(native: SupervisorNative, addresses: readonly ListenAddress[], workers: number, options: OpenOptions = {}): Listeners {
    const { before = [], later = false } = options;
    const left = [...before];
    const opened: OpenListener[] = [];
    try {
      const placed = addresses.map((address, index): OpenListener | ListenAddress => {
        const found = left.findIndex((listener) => listener.key === keyOf(address));
        const fileMode = address.kind === 'unix' ? socketFileMode(address, 'listen') : undefined;
        if (found >= 0) return { ...(left.splice(found, 1)[0] as OpenListener), index, backlog: address.backlog, fileMode };
        return address.kind === 'tcp' ? claim(native, address, before) : address;
      });
      for (const [index, place] of placed.entries()) {
        const address = addresses[index] as ListenAddress;
        if (!('kind' in place)) opened.push(widen(native, place, address, workers));
        else
          opened.push(
            place.kind === 'unix' ? openUnix(native, place, index, later) : openTcp(native, place, keyOf(address), index, workers, later),
          );
      }
      checkCount(opened, workers);
    } catch (error) {
      new Listeners(native, opened, workers, !later).closeAllBut(before);
      throw error;
    }
    return new Listeners(native, opened, workers, !later);
  }

  /** What worker `worker` accepts from: together the workers have every socket. */
  of(worker: number): WorkerSocket[] {
    return this.open.flatMap(({ fds, index, key, label, unixPath }) =>
      fds.flatMap((fd, place) => (unixPath !== undefined || place % this.#workers === worker ? [{ fd, index, key, label }] : [])),
    );
  }

  /**
   * Let connections come to what was opened for later, and apply backlogs that have changed. Addresses that are new come first: until one
   * of those fails nobody has connected to anything. Throws OperatingError when a new address is not to be had after all.
   * ret: problems of the others, which go on with the sockets that they had
   */
  begin(before: readonly OpenListener[] = []): OperatingError[] {
    if (this.#hasBegun) return [];
    const problems: OperatingError[] = [];
    const isNew = ({ begun }: OpenListener) => begun === 0;
    for (const listener of this.open.filter(isNew)) this.#listen(listener, listener.fds);
    for (const listener of this.open.filter((each) => !isNew(each))) {
      const had = before.find(({ key, fds }) => key === listener.key && fds[0] === listener.fds[0]);
      try {
        if (listener.unixPath !== undefined && listener.fileMode !== undefined)
          applySocketFileMode(listener.unixPath, listener.fileMode, 'listen');
        this.#listen(listener, had?.backlog === listener.backlog ? listener.fds.slice(listener.begun) : listener.fds);
      } catch (error) {
        if (!(error instanceof OperatingError)) throw error;
        problems.push(error);
      }
    }
    this.#hasBegun = true;
    return problems;
  }

  /** Close all, except the sockets that `others` have too. */
  closeAllBut(others: readonly OpenListener[]): void {
    const kept = new Set(others.flatMap(({ fds }) => fds));
    for (const fd of new Set(this.open.flatMap(({ fds }) => fds))) if (!kept.has(fd)) this.#native.fdClose(fd);
    this.#removeFiles(others);
  }

  /** Close all. `others`: what another process goes on with. */
  close(others: readonly OpenListener[] = []): void {
    for (const fd of new Set(this.open.flatMap(({ fds }) => fds))) this.#native.fdClose(fd);
    this.#removeFiles(others);
  }

  #removeFiles(others: readonly OpenListener[]): void {
    const kept = new Set(others.flatMap(({ unixPath }) => unixPath ?? []));
    for (const { unixPath, fileIdentity: identity } of this.open) {
      // Somebody may have put another socket in its place since.
      if (unixPath !== undefined && !kept.has(unixPath) && identity !== '' && fileIdentity(unixPath) === identity) unlinkSync(unixPath);
    }
  }

  #listen({ label, backlog }: OpenListener, fds: readonly number[]): void {
    try {
      for (const fd of fds) this.#native.listenBacklog(fd, backlog);
    } catch (error) {
      throw listenProblem(error, label, 'listen (or env PORT)');
    }
  }
}

/** Whether every address of `after` that `before` has is one whose sockets it has taken over, and none is missing. */
export function keepsAll(before: readonly OpenListener[], after: readonly OpenListener[]): boolean {
  const kept = new Set(after.flatMap(({ fds }) => fds));
  return before.every(({ fds }) => fds.every((fd) => kept.has(fd)));
}

function checkCount(opened: readonly OpenListener[], workers: number): void {
  const each = opened.reduce((sum, { fds }) => sum + Math.ceil(fds.length / workers), 0);
  if (each > socketsPerWorkerMax) {
    const listeners = workers === 1 ? 'a single worker' : `${workers} workers`;
    throw new OperatingError(
      `${each} listening sockets of more workers than now would fall to each of ${listeners}, which take ${socketsPerWorkerMax}: restart the gateway to go so low, or lower the number of workers less`,
    );
  }
}

/**
 * Find out whether the address is free. SO_REUSEPORT alone would let a second gateway of this user in silently, and the kernel
 * would share connections between both. ret: the address, or what stands in for it on this system
 */
function claim(native: SupervisorNative, address: TcpAddress, before: readonly OpenListener[]): TcpAddress {
  // Where we have the port ourselves, under another address, nobody else can have it but another gateway of this user.
  const isOurs = address.port !== 0 && before.some(({ port }) => port === address.port);
  const flags = (isOurs ? listenFlag.later : listenFlag.exclusive) | ipv6Flag(address);
  try {
    native.fdClose(native.listenSocket(address.host, address.port, 1, flags));
    return address;
  } catch (error) {
    const hasNoIpv6 = ['EAFNOSUPPORT', 'EADDRNOTAVAIL'].includes(errorCode(error));
    if (!hasNoIpv6 || address.hostWithoutIpv6 === undefined) throw problem(error, address);
    return claim(native, { ...address, host: address.hostWithoutIpv6, hostWithoutIpv6: undefined }, before);
  }
}

function openTcp(native: SupervisorNative, address: TcpAddress, key: string, index: number, workers: number, later: boolean): OpenListener {
  const fds: number[] = [];
  const flags = ipv6Flag(address) | (later ? listenFlag.later : 0);
  let port = address.port;
  addSockets(native, fds, workers, address, () => {
    const fd = native.listenSocket(address.host, port, address.backlog, flags);
    // Port 0: the kernel has chosen one with the first socket; the others join it.
    if (port === 0) port = native.socketPort(fd);
    return fd;
  });
  const { backlog, host } = address;
  const label = labelOf(address, port);
  return { index, label, key, fds, begun: later ? 0 : workers, backlog, host, port, unixPath: undefined, fileIdentity: '' };
}

/** Add sockets until there are as many as workers. */
function widen(native: SupervisorNative, listener: OpenListener, address: ListenAddress, workers: number): OpenListener {
  const begun = listener.fds.length;
  if (address.kind === 'unix') return { ...listener, begun };
  const port = listener.port ?? address.port;
  const fds = [...listener.fds];
  const placed = { ...address, host: listener.host ?? address.host };
  const flags = ipv6Flag(address) | listenFlag.later;
  addSockets(native, fds, workers, placed, () => native.listenSocket(placed.host, port, address.backlog, flags));
  return { ...listener, label: labelOf(placed, port), fds, begun };
}

/** Call `open` until `fds` has `count`. Throws OperatingError, and then has closed those that it has added. */
function addSockets(native: SupervisorNative, fds: number[], count: number, address: TcpAddress, open: () => number): void {
  const had = fds.length;
  try {
    while (fds.length < count) fds.push(open());
  } catch (error) {
    for (const fd of fds.slice(had)) native.fdClose(fd);
    throw problem(error, address);
  }
}

function openUnix(native: SupervisorNative, address: UnixAddress, index: number, later: boolean): OpenListener {
  const { path, backlog } = address;
  try {
    const fileMode = socketFileMode(address, 'listen');
    const isLater = later || fileMode !== undefined;
    const fd = native.listenSocket(path, undefined, backlog, isLater ? listenFlag.later : 0);
    const identity = fileIdentity(path);
    try {
      if (fileMode !== undefined) applySocketFileMode(path, fileMode, 'listen');
      if (isLater && !later) native.listenBacklog(fd, backlog);
    } catch (error) {
      native.fdClose(fd);
      if (fileIdentity(path) === identity && identity !== '') unlinkSync(path);
      throw error;
    }
    return {
      index,
      label: `unix:${path}`,
      key: keyOf(address),
      fds: [fd],
      begun: later ? 0 : 1,
      backlog,
      host: undefined,
      port: undefined,
      unixPath: path,
      fileIdentity: identity,
      fileMode,
    };
  } catch (error) {
    if (error instanceof OperatingError) throw error;
    throw listenProblem(error, `the Unix socket ${path}`, 'listen', path);
  }
}

function problem(error: unknown, address: TcpAddress): Error {
  return listenProblem(error, `${bracketed(address.host)}:${address.port}`, 'listen (or env PORT)');
}

function ipv6Flag(address: TcpAddress): number {
  return address.ipv6Only ? listenFlag.ipv6Only : 0;
}

function labelOf(address: TcpAddress, port: number): string {
  return `${address.tls === undefined ? 'http' : 'https'}://${hostText(address.host)}:${port}`;
}

/** The host to show in a URL: one that can be clicked. */
export function hostText(host: string): string {
  return host === '::' || host === '0.0.0.0' ? 'localhost' : bracketed(host);
}

function bracketed(host: string): string {
  return host.includes(':') ? `[${host}]` : host;
}

function fileIdentity(path: string): string {
  try {
    const { dev, ino } = lstatSync(path);
    return `${dev}:${ino}`;
  } catch {
    return '';
  }
}
