/** A Hono application that uses Hono's own middleware and helpers as its documentation does; the same for every server it runs under. */
import { Hono } from 'hono';
import { basicAuth } from 'hono/basic-auth';
import { bearerAuth } from 'hono/bearer-auth';
import { bodyLimit } from 'hono/body-limit';
import { serveStatic } from 'hono/bun';
import { compress } from 'hono/compress';
import { deleteCookie, getCookie, setCookie, setSignedCookie } from 'hono/cookie';
import { cors } from 'hono/cors';
import { csrf } from 'hono/csrf';
import { etag } from 'hono/etag';
import { HTTPException } from 'hono/http-exception';
import { logger } from 'hono/logger';
import { methodOverride } from 'hono/method-override';
import { poweredBy } from 'hono/powered-by';
import { prettyJSON } from 'hono/pretty-json';
import { cloneRawRequest } from 'hono/request';
import { secureHeaders } from 'hono/secure-headers';
import { stream, streamSSE, streamText } from 'hono/streaming';
import { timeout } from 'hono/timeout';
import { validator } from 'hono/validator';

export interface SampleApp {
  app: Hono;
  /** What the logger wrote. */
  log: string[];
}

export function makeSampleApp(): SampleApp {
  const app = new Hono();
  const log: string[] = [];

  app.get('/hello', (c) => c.text('Hello from Ringway'));
  app.get('/json', (c) => c.json({ message: 'Hello from Ringway' }));
  app.get('/html', (c) => c.html('<h1>é</h1>', 201));
  app.get('/raw', () => new Response('raw'));
  app.get('/bytes', (c) => c.body(new Uint8Array([1, 2, 3])));
  app.get('/empty', (c) => c.body(null, 204));
  app.get('/created', (c) => c.text('made', 201, { 'X-Two': ['a', 'b'] }));
  app.get('/redirect', (c) => c.redirect('/hello?a=é', 301));
  app.get('/headers', (c) => {
    c.header('X-A', '1');
    c.header('X-A', '2', { append: true });
    c.status(418);
    return c.text('short and stout');
  });
  app.get('/late-header', (c) => {
    const response = c.text('x');
    c.header('X-Late', '1');
    return response;
  });
  app.get('/params/:id/:rest{.+}', (c) =>
    c.json({ ...c.req.param(), query: c.req.query(), all: c.req.queries('q') ?? null, agent: c.req.header('user-agent') ?? null }),
  );
  app.get('/not-found', (c) => c.notFound());
  app.get('/throws', () => {
    throw new HTTPException(409, { message: 'conflict' });
  });
  app.get('/fails', () => {
    throw new Error('secret');
  });
  app.get('/rejects', async () => {
    throw new HTTPException(403, { res: new Response('custom', { status: 403, headers: { 'X-Why': 'because' } }) });
  });

  app.post('/echo', (c) =>
    c.body(c.req.raw.body as ReadableStream, 200, { 'Content-Type': c.req.header('content-type') ?? 'application/octet-stream' }),
  );
  app.post('/text', async (c) => c.text(await c.req.text()));
  app.post('/parse', async (c) => {
    const body = await c.req.parseBody({ all: true });
    const shown = await Promise.all(
      Object.entries(body).map(async ([name, value]) => [name, value instanceof File ? `${value.name} ${await value.text()}` : value]),
    );
    return c.json(shown);
  });
  app.post(
    '/validated',
    validator('json', (value: { name?: unknown }, c) => (typeof value.name === 'string' ? value : c.text('bad name', 400))),
    async (c) => {
      const copy = await cloneRawRequest(c.req);
      return c.json({ valid: c.req.valid('json'), again: await c.req.json(), copy: await copy.json() });
    },
  );
  app.post(
    '/form',
    validator('form', (value) => value),
    (c) => c.json(c.req.valid('form')),
  );
  app.post('/clone', async (c) => {
    const copy = c.req.raw.clone();
    return c.json([await c.req.raw.text(), await copy.text()]);
  });
  app.post('/twice', async (c) => {
    await c.req.raw.text();
    return c.text(await c.req.raw.text().catch((error: Error) => error.name));
  });

  app.use('/cors/*', cors({ origin: 'http://a.example', allowMethods: ['PUT'], exposeHeaders: ['X-E'], credentials: true, maxAge: 60 }));
  app.all('/cors/x', (c) => c.text('cors'));
  app.use('/etag/*', etag());
  app.get('/etag/text', (c) => c.text('tagged'));
  app.get('/etag/json', (c) => c.json({ tagged: true }));
  app.use('/compress/*', compress({ threshold: 0 }));
  app.get('/compress/text', (c) => c.text('compress me '.repeat(200)));
  app.get('/compress/html', etag(), (c) => c.html('compress me '.repeat(200)));
  app.use('/bearer/*', bearerAuth({ token: 'sesame' }));
  app.get('/bearer/x', (c) => c.text('in'));
  app.use('/basic/*', basicAuth({ username: 'u', password: 'p' }));
  app.get('/basic/x', (c) => c.text('in'));
  app.post('/limited', bodyLimit({ maxSize: 10 }), async (c) => c.text(await c.req.text()));
  app.get('/slow', timeout(30), async (c) => {
    await Bun.sleep(5000);
    return c.text('too late');
  });
  app.use(
    '/log/*',
    logger((line: string) => void log.push(Bun.stripANSI(line).replace(/ \d+m?s$/, ''))),
  );
  app.get('/log/x', (c) => c.text('logged'));
  app.use('/static/*', serveStatic({ root: './', rewriteRequestPath: (path) => path.replace('/static/', '') }));
  app.use('/secure/*', secureHeaders());
  app.get('/secure/x', (c) => c.text('secure'));
  app.get('/cookies', async (c) => {
    setCookie(c, 'a', getCookie(c, 'in') ?? 'none', { httpOnly: true });
    setCookie(c, 'b', 'é');
    deleteCookie(c, 'gone');
    await setSignedCookie(c, 's', 'v', 'secret');
    return c.json(getCookie(c));
  });
  app.use('/csrf/*', csrf({ origin: 'http://localhost' }));
  app.post('/csrf/x', (c) => c.text('safe'));
  app.use('/after/*', async (c, next) => {
    await next();
    c.header('Cache-Control', 'no-store');
    c.res.headers.append('Vary', 'Accept');
    c.res.headers.append('Vary', 'Origin');
  });
  app.use('/after/*', poweredBy(), prettyJSON());
  app.get('/after/json', (c) => c.json({ a: [1] }));
  app.get('/after/stream', (c) =>
    c.body(
      new ReadableStream({
        pull(controller) {
          controller.enqueue(new Uint8Array([0x61]));
          controller.close();
        },
      }),
    ),
  );
  app.use('/replace/*', async (c, next) => {
    await next();
    c.res = new Response(`${await c.res.text()} replaced`, c.res);
  });
  app.get('/replace/x', (c) => c.text('text', { headers: { 'X-Kept': '1' } }));
  app.use('/override', methodOverride({ app }));
  app.delete('/override', (c) => c.text('deleted'));

  app.get('/sse', (c) =>
    streamSSE(c, async (sse) => {
      for (let id = 0; id < 3; id += 1) {
        await sse.writeSSE({ data: `line ${id}\nmore`, event: 'tick', id: String(id) });
        await sse.sleep(2);
      }
    }),
  );
  app.get('/stream', (c) =>
    stream(c, async (out) => {
      await out.write(new Uint8Array([0x41, 0x42]));
      await out.pipe(new Blob(['piped']).stream());
    }),
  );
  app.get('/stream-text', (c) =>
    streamText(c, async (out) => {
      await out.writeln('one');
      await out.sleep(2);
      await out.write('two');
    }),
  );
  app.get('/body-stream', (c) =>
    c.body(
      new ReadableStream({
        start(controller) {
          controller.enqueue(new Uint8Array([0x61]));
          controller.enqueue(new Uint8Array([0x62]));
          controller.close();
        },
      }),
      200,
      { 'Content-Type': 'text/x' },
    ),
  );

  const mounted = async (request: Request) => new Response(`${request.method} ${new URL(request.url).pathname} ${await request.text()}`);
  app.mount('/mounted', mounted);
  const inner = new Hono().get('/y', (c) => c.text(`inner ${c.req.path}`)).onError((_error, c) => c.text('inner error', 500));
  inner.get('/fails', () => {
    throw new Error('inner');
  });
  app.route('/sub', inner);
  app.notFound((c) => c.text(`nothing at ${c.req.path}`, 404));
  app.onError((error, c) =>
    error instanceof HTTPException ? error.getResponse() : c.json({ error: error.message === 'secret' ? 'internal' : error.message }, 500),
  );
  return { app, log };
}
