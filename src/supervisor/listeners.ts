/**
 * The listening sockets of the node: for each address one per worker (SO_REUSEPORT), or one that all share (Unix).
 *
 * Role: the supervisor owns them, so that the accept queue of a worker outlives it. Down: ringway.h rw_listen_socket().
 */
import { lstatSync, unlinkSync } from 'node:fs';
import { listenFlag } from '../../ffi/layout.ts';
import type { ListenAddress, TcpAddress, UnixAddress } from '../config/resolve.ts';
import { errorCode, listenProblem } from '../operating-error.ts';
import type { SupervisorNative } from './boot.ts';

/** One address, open. */
export interface OpenListener {
  readonly index: number;
  readonly label: string;
  /** A descriptor for each worker; the same one for all on a Unix socket. */
  readonly fds: readonly number[];
  /** Undefined for a Unix socket. */
  readonly port: number | undefined;
  readonly unixPath: string | undefined;
}

export class Listeners {
  readonly open: readonly OpenListener[];
  readonly #native: SupervisorNative;
  /** Identity of each socket file we made: only that one is removed at the end. */
  readonly #files: ReadonlyMap<string, string>;

  private constructor(native: SupervisorNative, open: readonly OpenListener[]) {
    this.#native = native;
    this.open = open;
    this.#files = new Map(open.flatMap(({ unixPath }) => (unixPath === undefined ? [] : [[unixPath, fileIdentity(unixPath)] as const])));
  }

  /** Open every address for `workers`. Throws OperatingError, with nothing left open. */
  static open(native: SupervisorNative, addresses: readonly ListenAddress[], workers: number): Listeners {
    const opened: OpenListener[] = [];
    try {
      const placed = addresses.map((address) => (address.kind === 'tcp' ? probe(native, address) : address));
      for (const [index, address] of placed.entries())
        opened.push(address.kind === 'unix' ? openUnix(native, address, index, workers) : openTcp(native, address, index, workers));
    } catch (error) {
      new Listeners(native, opened).close();
      throw error;
    }
    return new Listeners(native, opened);
  }

  /** What worker `worker` accepts from. */
  of(worker: number): { fd: number; index: number; label: string }[] {
    return this.open.flatMap(({ fds, index, label }) => {
      const fd = fds[worker];
      return fd === undefined ? [] : [{ fd, index, label }];
    });
  }

  close(): void {
    for (const fd of new Set(this.open.flatMap((listener) => listener.fds))) this.#native.fdClose(fd);
    for (const [path, identity] of this.#files) {
      // Somebody may have put another socket in its place since.
      if (identity !== '' && fileIdentity(path) === identity) unlinkSync(path);
    }
  }
}

/**
 * Find out whether the address is free. SO_REUSEPORT alone would let a second gateway of this user in silently, and the kernel
 * would share connections between both.
 */
function probe(native: SupervisorNative, address: TcpAddress): TcpAddress {
  try {
    native.fdClose(native.listenSocket(address.host, address.port, 1, listenFlag.exclusive | ipv6Flag(address)));
    return address;
  } catch (error) {
    const hasNoIpv6 = ['EAFNOSUPPORT', 'EADDRNOTAVAIL'].includes(errorCode(error));
    if (!hasNoIpv6 || address.hostWithoutIpv6 === undefined) throw problem(error, address);
    return probe(native, { ...address, host: address.hostWithoutIpv6, hostWithoutIpv6: undefined });
  }
}

function openTcp(native: SupervisorNative, address: TcpAddress, index: number, workers: number): OpenListener {
  const fds: number[] = [];
  let port = address.port;
  try {
    for (let worker = 0; worker < workers; worker++) {
      const fd = native.listenSocket(address.host, port, address.backlog, ipv6Flag(address));
      fds.push(fd);
      // Port 0: the kernel has chosen one with the first socket; the others join it.
      if (port === 0) port = native.socketPort(fd);
    }
  } catch (error) {
    for (const fd of fds) native.fdClose(fd);
    throw problem(error, address);
  }
  const scheme = address.tls === undefined ? 'http' : 'https';
  return { index, label: `${scheme}://${hostText(address.host)}:${port}`, fds, port, unixPath: undefined };
}

function openUnix(native: SupervisorNative, address: UnixAddress, index: number, workers: number): OpenListener {
  try {
    const fd = native.listenSocket(address.path, undefined, address.backlog, 0);
    return { index, label: `unix:${address.path}`, fds: new Array<number>(workers).fill(fd), port: undefined, unixPath: address.path };
  } catch (error) {
    throw listenProblem(error, `the Unix socket ${address.path}`, 'listen');
  }
}

function problem(error: unknown, address: TcpAddress): Error {
  return listenProblem(error, `${bracketed(address.host)}:${address.port}`, 'listen (or env PORT)');
}

function ipv6Flag(address: TcpAddress): number {
  return address.ipv6Only ? listenFlag.ipv6Only : 0;
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
