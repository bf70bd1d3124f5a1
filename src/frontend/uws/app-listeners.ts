/**
 * The listening sockets of an app: what they accept with, and for whom.
 *
 * Role: up: app.ts. Down: runtime.ts, listen.ts, tls.ts; threads.ts for children in other threads, which accept in the app's place.
 */
import { native } from '../../../ffi/bindings.ts';
import { listenerFlag } from '../../../ffi/layout.ts';
import { TlsError } from '../../core/connection.ts';
import type { AppConnections } from './connections.ts';
import { ListenSocket } from './listen.ts';
import type { Runtime } from './runtime.ts';
import { offer, type ThreadChild, withdraw } from './threads.ts';
import type { Certificates } from './tls.ts';

export class AppListeners implements ThreadChild {
  readonly #runtime: Runtime;
  readonly #connections: AppConnections;
  /** undefined: plain. */
  readonly #certificates: Certificates | undefined;
  /** A listener that has the certificates, and is not in use yet. */
  #reserved: number | undefined;
  readonly #sockets = new Set<ListenSocket>();
  /** Children in other threads, by descriptor. */
  readonly #foreign = new Set<number>();
  /** Which of them accept from a socket of ours. */
  readonly #takers = new Map<ListenSocket, Set<number>>();
  /** Sockets of other threads that this app accepts from: by descriptor, our listener. */
  readonly #taken = new Map<number, number>();

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
      process.stderr.write(`SSLApp: ${error.message}\n`);
      throw new Error('App construction failed', { cause: error });
    }
  }

  /** Accept from `fd`, which is ours from now on. ret: false when no connections can be accepted; why is on stderr */
  open(fd: number, port: number): ListenSocket | false {
    const socket = new ListenSocket(fd, port, (closed) => this.#close(closed));
    try {
      this.#accept(socket);
    } catch (error) {
      native.fdClose(fd);
      process.stderr.write(`cannot listen: ${error instanceof Error ? error.message : error}\n`);
      return false;
    }
    this.#sockets.add(socket);
    for (const child of this.#foreign) this.#handOver(socket, child);
    return socket;
  }

  #accept(socket: ListenSocket): void {
    socket.index = this.#listen(socket.fd, socket);
  }

  /** ret: our listener for `fd` */
  #listen(fd: number, socket: { close(): void }): number {
    const index = this.#reserved ?? this.#reserve();
    this.#reserved = undefined;
    this.#runtime.listen(fd, index, this.#flags(), socket);
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
    yield* this.#taken.values();
  }

  /** Close all listening sockets. */
  close(): void {
    for (const socket of this.#sockets) socket.close();
    for (const fd of this.#taken.keys()) this.leave(fd);
  }

  #close(socket: ListenSocket): void {
    this.#sockets.delete(socket);
    this.#suspend(socket);
    this.#runtime.release(socket);
    // While another thread accepts from it, its number must not become that of another descriptor.
    const takers = this.#takers.get(socket) ?? [];
    this.#takers.delete(socket);
    void Promise.all(Array.from(takers, (child) => withdraw(child, socket.fd))).then(() => native.fdClose(socket.fd));
  }

  #suspend(socket: ListenSocket): void {
    if (socket.index !== undefined) this.#runtime.unlisten(socket.index);
    socket.index = undefined;
  }

  // ---------------------------------------------------------------- other threads

  /** Let a child in another thread accept from our sockets, which we do no more as soon as it does. */
  addForeign(child: number): void {
    this.#foreign.add(child);
    for (const socket of this.#sockets) this.#handOver(socket, child);
  }

  #handOver(socket: ListenSocket, child: number): void {
    const onTaken = () => {
      if (!this.#sockets.has(socket) || !this.#foreign.has(child)) {
        void withdraw(child, socket.fd);
        return;
      }
      this.#takers.set(socket, new Set(this.#takers.get(socket)).add(child));
      this.#runtime.hold(socket);
      this.#suspend(socket);
    };
    void offer(child, socket.fd).then(onTaken);
  }

  removeForeign(child: number): void {
    this.#foreign.delete(child);
    for (const [socket, takers] of this.#takers) {
      if (takers.delete(child)) void withdraw(child, socket.fd);
      if (takers.size > 0) continue;
      this.#takers.delete(socket);
      this.#accept(socket);
      this.#runtime.release(socket);
    }
  }

  take(fd: number): boolean {
    if (this.#taken.has(fd)) return true;
    try {
      this.#taken.set(fd, this.#listen(fd, { close: () => this.leave(fd) }));
      return true;
    } catch (error) {
      this.#runtime.report(error, 'accepting for an app of another thread');
      return false;
    }
  }

  leave(fd: number): void {
    const index = this.#taken.get(fd);
    if (index === undefined) return;
    this.#taken.delete(fd);
    this.#runtime.unlisten(index);
  }
}
