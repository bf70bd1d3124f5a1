/**
 * Requests that fail: each has a status, an id that its answer and its log line share, and one report.
 *
 * Role: whoever answers a request, or lets an application answer it, comes here when that fails. Up: index.ts, response-sender.ts,
 * response-stream.ts, app-errors.ts. Down: the worker's log and its counter, by `ExchangeHost.report`.
 */
import { type ErrorContext, type Exchange, exchangeState, hostOf } from './exchange.ts';
import { textType } from './response.ts';

const textLine = `content-type: ${textType}\r\n`;

/** Exchanges whose failure is known already. */
const reported = new WeakSet<Exchange>();

/** Tell of it, once for each request. `error`: undefined when nothing is known but the status. */
export function reportFailure(exchange: Exchange, error: unknown, where: ErrorContext['where']): void {
  if (reported.has(exchange)) return;
  reported.add(exchange);
  hostOf(exchange).report(error, exchange, where);
}

/** An error that handlers pass on when their client has left, or the core has ended the request: it was to be expected. */
export function isOfLeaving(exchange: Exchange, error: unknown): boolean {
  return exchange.state !== exchangeState.open && error instanceof DOMException && error.name === 'AbortError';
}

/** Answer 500 and report why. Only for an exchange that has no response yet. */
export function sendFailure(exchange: Exchange, error: unknown, where: ErrorContext['where']): void {
  const { commands, requestIds } = hostOf(exchange);
  // The report will name it: whoever sees the answer can find the report.
  const { requestId } = exchange;
  const headers = requestIds.header === '' ? textLine : `${textLine}${requestIds.header}: ${requestId}\r\n`;
  commands.respond(exchange.head, 500, headers, 'Internal Server Error');
  exchange.finish();
  reportFailure(exchange, error, where);
}
