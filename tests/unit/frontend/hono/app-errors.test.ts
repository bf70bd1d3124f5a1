/** Handlers that fail inside a Hono application: what the client gets stays Hono's, and the failure is told of. */
import { describe, expect, spyOn, test } from 'bun:test';
import { Hono } from 'hono';
import { HTTPException } from 'hono/http-exception';
import { watchAppErrors } from '../../../../src/frontend/hono/index.ts';
import { RequestIds } from '../../../../src/host/request-ids.ts';
import { FakeCore, withLightGlobals } from '../../../support/fake-core.ts';

withLightGlobals();

async function ask(app: Hono, path: string, fetch = (request: Request, env: object) => app.fetch(request, env)) {
  watchAppErrors(app);
  const core = new FakeCore(fetch as never, { requestIds: new RequestIds('x-request-id') });
  const stderr = spyOn(console, 'error').mockImplementation(() => {});
  try {
    const answer = await core.exchange(path);
    const errors = core.errors.map(({ error, context }) => ({ message: (error as Error | undefined)?.message, ...context }));
    return { status: answer.status, text: answer.text(), id: answer.header('x-request-id'), errors, said: stderr.mock.calls.length };
  } finally {
    stderr.mockRestore();
  }
}

function boom(): never {
  throw new Error('boom');
}

describe('a Hono application', () => {
  test('whose handler throws or rejects is answered with 500, its id and a report, and nothing on stderr', async () => {
    const app = new Hono();
    const inner = new Hono();
    inner.get('/', boom);
    app.get('/sync', boom);
    app.get('/async', async () => {
      await null;
      boom();
    });
    app.use('/middleware/*', async (_, next) => {
      await next();
      boom();
    });
    app.get('/middleware/x', (c) => c.text('ok'));
    app.route('/inner', inner);
    for (const path of ['/sync', '/async', '/middleware/x', '/inner']) {
      const { status, text, id, errors, said } = await ask(app, path);
      expect([path, status, text, said]).toEqual([path, 500, 'Internal Server Error', 0]);
      expect(errors).toEqual([
        { message: 'boom', where: 'handler', method: 'GET', url: `http://localhost:8080${path}`, requestId: id ?? '' },
      ]);
      expect(id).toMatch(/^[\da-f-]{36}$/);
    }
  });

  test('with a handler of errors of its own keeps its answers; from 500 on they are reported with their error', async () => {
    const app = new Hono();
    app.get('/:status', (c) => {
      throw new Error(`for ${c.req.param('status')}`);
    });
    app.onError(async (error, c) => {
      await null;
      return c.text(`own: ${error.message}`, Number(error.message.slice(-3)) as 500);
    });
    expect(await ask(app, '/404')).toMatchObject({ status: 404, text: 'own: for 404', errors: [], id: null });
    expect(await ask(app, '/503')).toMatchObject({ status: 503, text: 'own: for 503', errors: [{ message: 'for 503' }] });
  });

  test('answers an HTTPException as it says', async () => {
    const app = new Hono();
    app.get('/:status', (c) => {
      throw new HTTPException(Number(c.req.param('status')) as 500, { message: 'as it says' });
    });
    expect(await ask(app, '/401')).toMatchObject({ status: 401, text: 'as it says', errors: [] });
    expect(await ask(app, '/502')).toMatchObject({ status: 502, text: 'as it says', errors: [{ message: 'as it says' }] });
  });

  test('whose handler of errors fails too is reported once', async () => {
    const app = new Hono();
    app.get('/', boom);
    app.onError(() => {
      throw new Error('boom again');
    });
    expect(await ask(app, '/')).toMatchObject({ status: 500, errors: [{ message: 'boom again' }] });
  });

  test('that cannot be reached is reported by its status', async () => {
    const app = new Hono();
    app.get('/', () => new Response('I have failed', { status: 500 }));
    const { id, ...rest } = await ask(app, '/');
    expect(rest).toMatchObject({ status: 500, text: 'I have failed', errors: [{ message: undefined, where: 'answer', requestId: id }] });
  });

  test('is left alone when it is no application', () => {
    for (const nothing of [undefined, null, 1, {}, () => {}, { errorHandler: 1 }]) watchAppErrors(nothing);
  });
});
