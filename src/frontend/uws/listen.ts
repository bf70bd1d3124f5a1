/**
 * Listening sockets of apps.
 * Role: reads the arguments of `listen`, opens sockets, closes them. Up: app.ts, index.ts. Down: ffi/bindings.ts, runtime.ts.
 */
import { isIP } from 'node:net';
import { listenFlag } from '../../core/abi.ts';
import { native } from '../../core/native.ts';
import { LIBUS_LISTEN_EXCLUSIVE_PORT } from './constants.ts';
import type { Runtime } from './runtime.ts';
import { textOfArgument } from './strings.ts';

/** As the original asks of the kernel. */
const backlog = 512;

/** Every address: IPv6 and IPv4, or IPv4 alone where the system has no IPv6. */
const everywhere = ['::', '0.0.0.0'];

/** What programs are given, and give back to close it. */
export class ListenSocket {
  readonly fd: number;
  /** The listener that accepts from it; undefined: none. */
  index: number | undefined;
  #port: number;
  #isOpen = true;
  readonly #onClose: (socket: ListenSocket) => void;

  /** `port`: -1 for a Unix socket. `onClose` closes the descriptor, once it can be. */
  constructor(fd: number, port: number, onClose: (socket: ListenSocket) => void) {
    this.fd = fd;
    this.#port = port;
    this.#onClose = onClose;
  }

  /** -1: closed, or a Unix socket. */
  get port(): number {
    return this.#isOpen ? this.#port : -1;
  }

  /** Connections live on. */
  close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.#onClose(this);
  }
}

export interface ListenRequest {
  readonly host: string;
  readonly port: number;
  readonly options: number;
  readonly callback: (socket: ListenSocket | false) => unknown;
}

/** [host], port, [options], callback. err: Error when there are fewer than two, or the host is no text */
export function readListenArguments(values: readonly unknown[]): ListenRequest {
  if (values.length < 2) throw new Error('Function requires at least 2 arguments.');
  const callback = values[values.length - 1] as ListenRequest['callback'];
  const middle = values.slice(0, -1);
  const host = typeof middle[0] === 'number' ? '' : textOfArgument(middle.shift());
  return { host, port: Number(middle[0] ?? 0) >>> 0, options: Number(middle[1] ?? 0) >>> 0, callback };
}

/** A TCP socket, or undefined when no address of the host can be listened on. */
export function openTcp(runtime: Runtime, { host, port, options }: ListenRequest): { fd: number; port: number } | undefined {
  if (port > 0xffff) return undefined;
  const flags = options & LIBUS_LISTEN_EXCLUSIVE_PORT ? listenFlag.exclusive : 0;
  for (const address of addressesOf(host)) {
    const fd = open(address, port, flags);
    if (fd === undefined) continue;
    const opened = native.socketPort(fd);
    const shared = port === 0 ? runtime.shareAnyPort(opened) : opened;
    if (shared === opened) return { fd, port: opened };
    native.fdClose(fd);
    const other = open(address, shared, flags);
    if (other !== undefined) return { fd: other, port: shared };
  }
  return undefined;
}

/** A Unix socket, or undefined when there can be none. */
export function openUnix(path: string): number | undefined {
  return open(path, undefined, 0);
}

function open(host: string, port: number | undefined, flags: number): number | undefined {
  try {
    return native.listenSocket(host, port, backlog, flags);
  } catch {
    // Whatever the reason, the callback of the program is given `false`.
    return undefined;
  }
}

/** The addresses of a host, best first. */
function addressesOf(host: string): readonly string[] {
  if (host === '') return everywhere;
  return isIP(host) !== 0 ? [host] : lookUp(host);
}

/** `listen` answers before it returns, and getaddrinfo(3) can be had at once only from the system's own program for it. */
function lookUp(name: string): readonly string[] {
  try {
    const { stdout } = Bun.spawnSync(['getent', 'ahosts', name]);
    const found = [
      ...new Set(
        stdout
          .toString()
          .split('\n')
          .map((line) => line.split(/\s/, 1)[0] as string),
      ),
    ];
    const addresses = found.filter((address) => isIP(address) !== 0);
    if (addresses.length > 0) return addresses;
  } catch {
    // There is no such program: a name that every system has is known without.
  }
  return name === 'localhost' ? ['127.0.0.1'] : [];
}
