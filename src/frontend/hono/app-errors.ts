/**
 * Errors that a Hono application answers by itself: its handler for them stands between the handlers that fail and us.
 *
 * Role: called once by a worker for an application that the config gives as a whole. What is answered stays as it is; where Hono's own handler
 * would write to standard error, the report takes its place. An application that is called within a function of the config's own, and those
 * mounted into another with a handler of their own, are out of reach: of them a status of 500 is reported (response-sender.ts).
 */
import { isThenable } from '../http/thenable.ts';
import { Exchange } from './exchange.ts';
import { isOfLeaving, reportFailure } from './failure.ts';

/** What is used of Hono's Context. */
interface HonoContext {
  readonly env: unknown;
  text(text: string, status: number): Response;
}

type ErrorHandler = (error: Error, context: HonoContext) => Response | Promise<Response>;

interface HonoApp {
  errorHandler: ErrorHandler;
}

export function watchAppErrors(app: unknown): void {
  if (!isHonoApp(app)) return;
  const inner = app.errorHandler;
  const isDefault = inner === defaultHandler(app);
  const judge = (response: Response, error: Error, { env }: HonoContext) => {
    // Less is an answer that was meant, as by HTTPException.
    if (response.status >= 500) report(env, error);
    return response;
  };
  app.errorHandler = (error, context) => {
    if (isDefault && !('getResponse' in error) && context.env instanceof Exchange) {
      report(context.env, error);
      return context.text('Internal Server Error', 500);
    }
    const answer: unknown = inner.call(app, error, context);
    if (isThenable(answer)) return Promise.resolve(answer).then((response) => judge(response as Response, error, context));
    return judge(answer as Response, error, context);
  };
}

function report(env: unknown, error: Error): void {
  if (env instanceof Exchange && !isOfLeaving(env, error)) reportFailure(env, error, 'handler');
}

function isHonoApp(app: unknown): app is HonoApp {
  return typeof app === 'object' && app !== null && typeof (app as Partial<HonoApp>).errorHandler === 'function';
}

/** The one that an application has to begin with, of the same copy of Hono. */
function defaultHandler(app: object): unknown {
  try {
    return new (app.constructor as new () => HonoApp)().errorHandler;
  } catch {
    return undefined;
  }
}
