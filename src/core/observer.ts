/**
 * What may be watched of a core, whichever frontend serves it: requests, their responses, WebSockets.
 *
 * Role: told by event-batch.ts and http-commands.ts where these pass, so that no frontend has to forward anything and none can forget to. Implemented
 * by host/request-log.ts. Without an observer (`Core.observe`) nothing is spent on it but the question whether there is one.
 */
import type { RequestHead, RequestName } from './http.ts';

/** Called inside a turn, before the frontend is told, or when it has spoken. None may throw or block; names are borrowed for the call. */
export interface Observer {
  /** A frontend is about to be given this request. What the core refuses by itself never comes here. */
  requestBegan?(head: RequestHead): void;
  /** The head of its response was queued; that of a whole response, whose end is told next, too. May come after `requestAborted`. */
  responseBegan?(request: RequestName, status: number): void;
  /** All of its response was queued. `isWhole`: false when the frontend has broken it off. */
  responseEnded?(request: RequestName, isWhole: boolean): void;
  /** The core has ended it before its response was complete. `cause`: of `abortCause`; `status`: what the core has answered, else 0. */
  requestAborted?(request: RequestName, cause: number, status: number): void;
  /** The handshake that this request is was accepted. */
  socketOpened?(request: RequestName): void;
  /** `cause`: of `closeCause`. */
  socketClosed?(slot: number, generation: number, code: number, cause: number): void;
}
