/**
 * Connections whatever they speak: what listeners that ask for it tell, and how TLS names them.
 * Role: types between the core and frontends. Implemented by src/core/core.ts.
 */
import type { TlsFiles } from '../../ffi/bindings.ts';

/** Names a connection; stale once it has ended, and then nothing comes of a call. */
export interface ConnectionName {
  readonly slot: number;
  readonly generation: number;
}

/** Told of by listeners with the flags WANTS_CONNECT and WANTS_SERVER_NAME. Called inside a turn; must not block. */
export interface ConnectionEvents {
  /** The first event of a connection. */
  onConnect(slot: number, generation: number, listener: number): void;
  /** The last event of a connection. */
  onDisconnect(slot: number, generation: number, listener: number): void;
  /** A handshake asks for a name without certificate, and waits for `continueHandshake`. */
  onServerName(slot: number, generation: number, listener: number, name: string): void;
}

/** A certificate for a server name. */
export interface ServerName {
  /** Exact, or with `*.` for one label. */
  readonly name: string;
  /** 1 to 65535; comes back in request records. */
  readonly context: number;
  readonly files: TlsFiles;
}
