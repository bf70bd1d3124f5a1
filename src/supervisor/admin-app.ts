/**
 * What the admin listener answers: health and metrics, publishing and reloading for whoever has the token, and the description of all this.
 * Role: turns the state of the node into HTTP. Up: admin.ts, which loads this file and what it needs beside the start of the node. Down:
 * admin-publish.ts, admin-openapi.ts, and the view of the node.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import { type Context, Hono, type MiddlewareHandler } from 'hono';
import type { AdminView, ReloadAnswer } from './admin.ts';
import { type AdminEnv, readBody } from './admin-body.ts';
import { describeAdmin } from './admin-openapi.ts';
import { addPublishRoutes } from './admin-publish.ts';
import { addTopicReads, addTopicWrites } from './admin-topics.ts';

const readPaths = ['/healthz', '/readyz', '/metrics', '/openapi.json'];
/** Of topics: what they show, as the others above do, to everybody. */
const topicReadPaths = ['/topics', '/topics/*'];
const topicWritePaths = ['/publish/*', '/disconnect', '/users/*', '/batch'];
const writePaths = [...topicWritePaths, '/reload'];
/** As people write them. */
const paths = [
  ...readPaths,
  ...['/topics', '/topics/<topic>/history', '/topics/<topic>/presence', '/topics/<topic>/subscribers'],
  ...['/publish', '/publish/<topic>', '/disconnect', '/users/<id>/send', '/batch', '/reload'],
];

/**
 * `token`: what requests that change something must show; undefined: nobody can. `onDefect`: told of what went wrong without being anybody's
 * mistake but ours.
 */
export function adminApp(view: AdminView, token: string | undefined, onDefect: (error: unknown) => void): Hono<AdminEnv> {
  const app = new Hono<AdminEnv>();
  // Alive is all that this says: degraded is for people and alerts, a restart by the orchestrator would cut healthy workers.
  app.get('/healthz', (context) => context.json(view.health()));
  app.get('/readyz', (context) => {
    const reason = view.notReady();
    if (reason !== undefined) return context.json({ status: 'not ready', reason }, 503);
    const { redis } = view.health();
    return context.json({ status: 'ready', ...(redis === undefined ? {} : { redis: redis.state }) });
  });
  app.get('/metrics', async (context) => {
    const registry = await view.metrics();
    return context.body(await registry.metrics(), 200, { 'content-type': registry.contentType });
  });
  app.get('/openapi.json', (context) => context.json(describeAdmin(view.health().version)));
  const { perform, reload } = view;
  const absent = (error: string) => (context: Context) => context.json({ error }, 404);
  if (perform !== undefined) addTopicReads(app, perform);
  else for (const path of topicReadPaths) app.get(path, absent('what runs here does not tell of its topics: it is a program'));
  for (const path of [...readPaths, ...topicReadPaths])
    app.all(path, (context) => context.json({ error: 'method not allowed' }, 405, { allow: 'GET, HEAD' }));

  // Before the token: programs have none.
  if (perform === undefined)
    for (const path of topicWritePaths) app.post(path, absent('what runs here takes no messages from outside: it is a program'));
  if (reload === undefined) app.post('/reload', absent('there is no config here to be loaded again'));
  for (const path of writePaths) app.post(path, requireToken(token));
  if (perform !== undefined) {
    // One for all of them: what is held is counted together.
    const body = readBody();
    for (const path of topicWritePaths) app.post(path, body);
    addPublishRoutes(app, perform);
    addTopicWrites(app, perform);
  }
  if (reload !== undefined) addReloadRoute(app, reload);
  for (const path of writePaths) app.all(path, (context) => context.json({ error: 'method not allowed' }, 405, { allow: 'POST' }));

  app.notFound((context) => context.json({ error: 'not found', paths }, 404));
  app.onError((error, context) => {
    // Nobody reads the answer to a client that has left in the middle of its request.
    if (!context.req.raw.signal.aborted) onDefect(error);
    return context.json({ error: 'the gateway has failed to answer; its log says why' }, 500);
  });
  return app;
}

function addReloadRoute(app: Hono<AdminEnv>, reload: () => Promise<ReloadAnswer>): void {
  app.post('/reload', async (context) => {
    const answer = await reload();
    if (answer.kind === 'reloaded') return context.json({ generation: answer.generation });
    if (answer.kind === 'failed') return context.json({ error: answer.reason }, 409);
    return context.json({ error: 'the config is wrong; the old one serves on', mistakes: answer.mistakes }, 422);
  });
}

function requireToken(token: string | undefined): MiddlewareHandler {
  const wanted = token === undefined ? undefined : digest(token);
  return async (context, next) => {
    if (wanted === undefined)
      return context.json({ error: 'this gateway has no token; set admin.token in its config, or ADMIN_TOKEN, and start it again' }, 403);
    const header = context.req.header('authorization') ?? '';
    // RFC 9110 §11.1: the name of a scheme is written in any case.
    const shown = /^bearer +(\S+)$/i.exec(header)?.[1];
    // Digests are of equal length, so that the comparison tells nothing about the token.
    if (shown !== undefined && timingSafeEqual(digest(shown), wanted)) return next();
    const what = header === '' ? 'no token was sent' : 'the token is wrong';
    return context.json({ error: `${what}; send Authorization: Bearer <admin.token>` }, 401, { 'www-authenticate': 'Bearer' });
  };
}

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
