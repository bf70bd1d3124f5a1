/**
 * The frontend of a config's `fetch`: it takes every request that is left, and so stands last.
 * Role: FetchFrontend (index.ts) as an entry of the registry.
 */
import { SocketExtras } from '../../api/socket.ts';
import { refusalOf } from '../../auth/authentication.ts';
import type { ResolvedConfig } from '../../config/resolve.ts';
import { websocketDefaults } from '../../config/websocket-options.ts';
import type { Frontend, FrontendEntry } from '../frontend.ts';
import { checkOrigin, withoutTokenProtocol } from '../sockets/handshake.ts';
import type { RouteDefinition } from '../sockets/socket-handlers.ts';
import { FetchFrontend, honoWebSocketHandler, watchAppErrors } from './index.ts';

const textHeaders = 'content-type: text/plain;charset=utf-8\r\n';

export const honoFrontend: FrontendEntry<Pick<ResolvedConfig, 'app' | 'fetch'>> = {
  name: 'hono',
  metrics: [
    'handler_errors',
    'refused_origin',
    'sse_refused_request',
    'sse_refused_token',
    'sse_refused_forbidden',
    'sse_lost',
    'sse_given_up',
  ],
  create(host, { app, fetch }): Frontend {
    const { authentication, core, requestIds, sockets } = host;
    const route = sockets.add({
      name: 'upgradeWebSocket',
      handler: honoWebSocketHandler as RouteDefinition['handler'],
      settings: websocketDefaults,
    });
    watchAppErrors(app);
    const requests = new FetchFrontend({
      fetch: fetch ?? ((request) => answerWithoutFetch(request, (path) => host.speaksAt(path))),
      commands: core,
      streams: host.streams,
      requestIds,
      authentication,
      sockets: {
        accept(head, given, data, user) {
          const { settings } = data;
          const refusal = settings === undefined ? undefined : checkOrigin(head, settings.origins);
          if (refusal !== undefined) {
            host.count('refused_origin');
            core.respond(head, 403, textHeaders + requestIds.line(head), refusal);
            return;
          }
          const chosen = settings === undefined ? route : sockets.variantOf(route, settings);
          const headers = authentication === undefined ? given : withoutTokenProtocol(head, given, authentication);
          if (user !== undefined) {
            const extras = new SocketExtras();
            extras.user = user;
            sockets.accept(head, headers, chosen, data, extras);
          } else if (chosen.auth === false || chosen.auth.mode === 'optional') {
            sockets.accept(head, headers, chosen, data);
          } else if (!(chosen.auth.from.includes('message') && sockets.acceptWaiting(head, headers, chosen, undefined, () => data))) {
            // Without: accepted by `c.env.upgrade`, which cannot wait for a token to be verified.
            const reason = chosen.auth.from.includes('message') ? 'full' : 'missing';
            authentication?.refused(reason);
            const answer = refusalOf(reason);
            core.respond(head, answer.status, textHeaders + answer.headers + requestIds.line(head), answer.text);
          }
        },
        forget: (slot) => sockets.forget(slot),
      },
      onError(err, context) {
        const { method, url, where } = context;
        if (where === 'answer') host.failed(context, `${method} ${url} was answered with 500 by its handler`);
        else host.failed({ err, ...context }, `${method} ${url} failed`);
      },
      terminate: (slot, generation) => core.terminate(slot, generation),
    });
    return {
      requests,
      sockets,
      get pending() {
        return requests.pending;
      },
    };
  },
};

/** What HTTP requests get when the config has no `fetch`: 426 where a WebSocket route is, else 404. */
function answerWithoutFetch(request: Request, speaksAt: (path: string) => boolean): Response {
  if (!speaksAt(new URL(request.url).pathname)) return new Response('Not Found', { status: 404 });
  return new Response('Upgrade Required: this path speaks WebSocket', { status: 426, headers: { upgrade: 'websocket' } });
}
