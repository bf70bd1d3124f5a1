/**
 * What happens to a response: parts of its request's body, drains, the end of its client, and handlers that fail.
 * Role: events of the frontend → what the program has attached. Up: runtime.ts, connections.ts. Down: response-state.ts.
 */
import { behind } from '../../core/handles.ts';
import { isThenable } from '../http/thenable.ts';
import { runMicrotasks } from './microtasks.ts';
import { latestRequest } from './request.ts';
import type { BodySink } from './request-body.ts';
import { closeFlagOf } from './response-sending.ts';
import { attached, begun, conclude, hostOf, is, made, nameOf, type ResponseState, state, tellAborted } from './response-state.ts';

const unanswered = 'Returning from a request handler without responding or attaching an abort handler is forbidden!';

/** A part of the request's body; `bytes` lie in the payload area. */
export function deliverBody(response: ResponseState, bytes: Uint8Array, end: boolean): void {
  const host = behind(response[hostOf]);
  const extras = response[attached];
  // A part that nobody asks for is lost: a handler is attached before the first await.
  if (extras?.body !== undefined) {
    give(response, extras.body, bytes, end);
    if (end) extras.body = undefined;
  }
  if (bytes.byteLength > 0 && !(response[state] & is.dead)) host.core.bodyAck(nameOf(response), bytes.byteLength, extras?.keepsBody);
}

/** The client has left before the response was complete. */
export function deliverAbort(response: ResponseState): void {
  if (response[state] & is.dead) return;
  const onAborted = response[attached]?.onAborted;
  conclude(response);
  tellAborted(behind(response[hostOf]), onAborted);
  runMicrotasks();
}

/** What was queued for the client has drained. */
export function deliverWritable(response: ResponseState): void {
  const extras = response[attached];
  if (response[state] & is.dead || extras?.onWritable === undefined) return;
  try {
    watch(response, extras.onWritable(extras.offset));
  } catch (error) {
    failHandler(response, error);
  }
  runMicrotasks();
}

/** The route handler has returned, and what it has queued has run. The request must not have expired yet. */
export function afterHandler(response: ResponseState): void {
  const extras = response[attached];
  if (!(response[state] & is.dead) && extras?.onAborted === undefined) {
    refuseSilence(response);
    return;
  }
  // A request without body has an empty last part.
  if (extras?.body === undefined || response[state] & is.withBody) return;
  give(response, extras.body, behind(response[hostOf]).core.payloadBytes.subarray(0, 0), true);
  extras.body = undefined;
}

/** A handler has thrown or rejected. */
export function failHandler(response: ResponseState, error: unknown): void {
  behind(response[hostOf]).report(error, 'an HTTP handler');
  answerFailure(response);
}

function give(response: ResponseState, sink: BodySink, bytes: Uint8Array, end: boolean): void {
  try {
    watch(response, sink(behind(response[hostOf]).core, bytes, end));
  } catch (error) {
    failHandler(response, error);
  }
}

/** A handler that is async fails when its promise rejects, or when what it has returned cannot even be asked for `then`. */
export function watch(response: ResponseState, result: unknown): void {
  try {
    if (isThenable(result)) result.then(undefined, (error: unknown) => failHandler(response, error));
  } catch (error) {
    failHandler(response, error);
  }
}

function refuseSilence(response: ResponseState): void {
  const request = made.latest === response ? latestRequest() : undefined;
  const about = request && `\n\tMethod: "${request.getCaseSensitiveMethod()}"\n\tURL: "${request.getUrl()}"`;
  behind(response[hostOf]).report(new Error(unanswered + (about ?? '')), 'an HTTP handler');
  answerFailure(response);
}

/** 500 when nothing has gone out; else the client can tell by the end of the connection. */
function answerFailure(response: ResponseState): void {
  const bits = response[state];
  if (bits & is.dead) return;
  const host = behind(response[hostOf]);
  if (!(bits & begun)) {
    const reason = 'Internal Server Error';
    host.core.respondWith(nameOf(response), 500, '', 'Content-Type: text/plain\r\n', reason, closeFlagOf(response));
    conclude(response);
    return;
  }
  const onAborted = response[attached]?.onAborted;
  host.core.respondAbort(nameOf(response));
  conclude(response);
  tellAborted(host, onAborted);
}
