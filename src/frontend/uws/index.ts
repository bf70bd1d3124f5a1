/**
 * The module `ringway/uws`: the API of uWebSockets.js over Ringway's core.
 * Role: exports by the original's names. Down: app.ts, listen.ts. Also the default export of programs that import it as CommonJS.
 */
import { HttpApp } from './app.ts';
import * as constants from './constants.ts';
import { DeclarativeResponse } from './declarative-response.ts';
import { ListenSocket } from './listen.ts';
import { getParts } from './multipart.ts';
import type { AppOptions, TemplatedApp, us_listen_socket, us_socket } from './types.ts';

export * from './constants.ts';
export { DeclarativeResponse } from './declarative-response.ts';
export { getParts } from './multipart.ts';
export type * from './types.ts';

/** Plain HTTP and WebSocket. */
export function App(options?: AppOptions): TemplatedApp {
  return new HttpApp(options, false) as unknown as TemplatedApp;
}

/** HTTP and WebSocket over TLS. err: Error 'App construction failed' when the certificates cannot be used; why is on stderr */
export function SSLApp(options: AppOptions): TemplatedApp {
  return new HttpApp(options, true) as unknown as TemplatedApp;
}

/** Stop listening. Connections live on. */
export function us_listen_socket_close(listenSocket: us_listen_socket): void {
  if (listenSocket instanceof ListenSocket) listenSocket.close();
}

/** ret: -1 for a closed socket, or a Unix socket */
export function us_socket_local_port(socket: us_socket): number {
  return socket instanceof ListenSocket ? socket.port : -1;
}

/** Settings of the original that change nothing that can be observed here. */
export function _cfg(): void {}

/** What `require('uWebSockets.js')` gives. */
export const uws = { App, SSLApp, us_listen_socket_close, us_socket_local_port, _cfg, getParts, DeclarativeResponse, ...constants };
