/**
 * The listening sockets of an app: what they accept with, and for whom.
 *
 * Role: up: app.ts. Down: runtime.ts, listen.ts, tls.ts.
 */

import { listenerFlag } from '../../core/abi.ts';
import { native, TlsError } from '../../core/native.ts';
import { outputTo } from '../../output.ts';
import type { AppConnections } from './connections.ts';
import { ListenSocket } from './listen.ts';
import type { Runtime } from './runtime.ts';
import type { Certificates } from './tls.ts';

export class AppListeners {
  readonly #runtime: Runtime;
  readonly #connections: AppConnections;
  /** undefined: plain. */
  readonly #certificates: Certificates | undefined;
  /** A listener that has the certificates, and is not in use yet. */
  #reserved: number | undefined;
  readonly #sockets = new Set<ListenSocket>();

  constructor(runtime: Runtime, connections: AppConnections, certificates: Certificates | undefined) {
    this.#runtime = runtime;
    this.#connections = connections;
    this.#certificates = certificates;
  }

  /** Try the certificates, and keep a listener that has them. err: Error 'App construction failed'; why is on stderr */
  prepare(): void {
    try {
      this.#reserved = this.#reserve();
    } catch (error) {
      if (!(error instanceof TlsError)) throw error;
      outputTo(2).write(`SSLApp: ${error.message}\n`);
      throw new Error('App construction failed', { cause: error });
    }
  }

  /** Accept from `fd`, which is ours from now on. ret: false when no connections can be accepted; why is on stderr */
  open(fd: number, port: number): ListenSocket | false {
    const socket = new ListenSocket(fd, port, (closed) => this.#close(closed));
    try {
      socket.index = this.#listen(socket);
    } catch (error) {
      native.fdClose(fd);
      outputTo(2).write(`cannot listen: ${error instanceof Error ? error.message : error}\n`);
      return false;
    }
    this.#sockets.add(socket);
    return socket;
  }

  #listen(socket: ListenSocket): number {
    const index = this.#reserved ?? this.#reserve();
    this.#reserved = undefined;
    this.#runtime.listen(socket.fd, index, this.#flags(), socket);
    return index;
  }

  /** ret: a listener that has the certificates, if there are any. err: TlsError */
  #reserve(): number {
    const index = this.#runtime.reserveListener(this.#connections);
    try {
      this.#certificates?.apply(index);
    } catch (error) {
      this.#runtime.returnListener(index);
      throw error;
    }
    return index;
  }

  #flags(): number {
    const { filters, hasChildren, missingServerName } = this.#connections;
    return (
      listenerFlag.proxyProtocol |
      listenerFlag.abortAtFin |
      (filters.length > 0 || hasChildren ? listenerFlag.wantsConnect : 0) |
      (missingServerName === undefined ? 0 : listenerFlag.wantsServerName)
    );
  }

  /** Filters, children or the handler for missing names have changed. */
  update(): void {
    for (const index of this.#listening()) this.#runtime.core.setListenerFlags(index, this.#flags());
  }

  /** Listeners that have the certificates. */
  *indexes(): Generator<number> {
    if (this.#reserved !== undefined) yield this.#reserved;
    yield* this.#listening();
  }

  *#listening(): Generator<number> {
    for (const { index } of this.#sockets) if (index !== undefined) yield index;
  }

  /** Close all listening sockets. */
  close(): void {
    for (const socket of this.#sockets) socket.close();
  }

  #close(socket: ListenSocket): void {
    this.#sockets.delete(socket);
    if (socket.index !== undefined) this.#runtime.unlisten(socket.index);
    native.listenClose(socket.fd);
  }
}
