/**
 * Responses of every kind that users give to Bun.serve, by path. Loaded by Bun.serve itself and by a gateway, see bun-serve.test.ts.
 * The folder $TEST_FILES has the files that are sent.
 */
const here = `${process.env.TEST_FILES}/`;
const enc = new TextEncoder();
const stream = (...parts: string[]) =>
  new ReadableStream({
    async start(c) {
      for (const p of parts) {
        c.enqueue(enc.encode(p));
        await 0;
      }
      c.close();
    },
  });
const slow = (...parts: string[]) =>
  new ReadableStream({
    async pull(c) {
      await Bun.sleep(5);
      const p = parts.shift();
      if (p === undefined) c.close();
      else c.enqueue(enc.encode(p));
    },
  });
export const routes: Record<string, (request: Request) => Response | Promise<Response>> = {
  '/text': () => new Response('héllo'),
  '/empty': () => new Response(),
  '/null': () => new Response(null),
  '/empty-string': () => new Response(''),
  '/undefined': () => new Response(undefined),
  '/html': () => new Response('<p>', { headers: { 'content-type': 'text/html' } }),
  '/json': () => Response.json({ a: 1 }),
  '/json-status': () => Response.json({ a: 1 }, { status: 201, headers: { 'content-type': 'application/vnd.x+json' } }),
  '/bytes': () => new Response(new Uint8Array([1, 2, 3])),
  '/buffer': () => new Response(Buffer.from('abc')),
  '/arraybuffer': () => new Response(new Uint8Array([1, 2]).buffer),
  '/dataview': () => new Response(new DataView(new Uint8Array([1, 2, 3, 4]).buffer, 1, 2)),
  '/blob': () => new Response(new Blob(['blob'])),
  '/blob-typed': () => new Response(new Blob(['blob'], { type: 'text/css' })),
  '/blob-empty': () => new Response(new Blob([])),
  '/blob-big': () => new Response(new Blob(['x'.repeat(200000)], { type: 'text/x' })),
  '/blob-slice': () => new Response(new Blob(['0123456789']).slice(2, 5)),
  '/file-object': () => new Response(new File(['file'], 'a.txt', { type: 'text/plain' })),
  '/formdata': () => {
    const f = new FormData();
    f.append('a', '1');
    f.append('b', new File(['x'], 'x.txt', { type: 'text/plain' }));
    return new Response(f);
  },
  '/params': () => new Response(new URLSearchParams({ a: '1 2', b: 'é' })),
  '/number': () => new Response(5 as never),
  '/object': () => new Response({ toString: () => 'obj' } as never),
  '/stream': () => new Response(stream('a', 'b')),
  '/stream-one': () => new Response(stream('only')),
  '/stream-empty': () => new Response(stream()),
  '/stream-slow': () => new Response(slow('one', 'two')),
  '/stream-length': () => new Response(slow('one', 'two'), { headers: { 'content-length': '6' } }),
  '/stream-events': () => new Response(slow('data: 1\n\n', 'data: 2\n\n'), { headers: { 'content-type': 'text/event-stream' } }),
  '/stream-type': () => new Response(slow('x'), { headers: { 'content-type': 'text/plain' } }),
  '/async-iterable': () =>
    new Response(
      (async function* () {
        yield 'a';
        yield 'b';
      })() as never,
    ),
  '/direct': () =>
    new Response(
      new ReadableStream({
        type: 'direct',
        async pull(c: { write(text: string): void; flush(): Promise<void>; close(): void }) {
          c.write('di');
          c.write('rect');
          c.close();
        },
      } as never),
    ),
  '/direct-slow': () =>
    new Response(
      new ReadableStream({
        type: 'direct',
        async pull(c: { write(text: string): void; flush(): Promise<void>; close(): void }) {
          c.write('di');
          await c.flush();
          await Bun.sleep(5);
          c.write('rect');
          c.close();
        },
      } as never),
    ),
  '/file': () => new Response(Bun.file(`${here}small.txt`)),
  '/file-big': () => new Response(Bun.file(`${here}big.txt`)),
  '/file-html': () => new Response(Bun.file(`${here}page.html`)),
  '/file-json': () => new Response(Bun.file(`${here}data.json`)),
  '/file-bin': () => new Response(Bun.file(`${here}data.bin`)),
  '/file-empty': () => new Response(Bun.file(`${here}empty.txt`)),
  '/file-slice': () => new Response(Bun.file(`${here}small.txt`).slice(1, 4)),
  '/file-slice-big': () => new Response(Bun.file(`${here}big.txt`).slice(100, 200000)),
  '/file-status': () => new Response(Bun.file(`${here}small.txt`), { status: 201 }),
  '/file-404': () => new Response(Bun.file(`${here}small.txt`), { status: 404 }),
  '/file-typed': () => new Response(Bun.file(`${here}small.txt`), { headers: { 'content-type': 'x/y' } }),
  '/file-type-option': () => new Response(Bun.file(`${here}small.txt`, { type: 'a/b' })),
  '/file-lm': () =>
    new Response(Bun.file(`${here}small.txt`), { headers: { 'last-modified': 'Wed, 21 Oct 2015 07:28:00 GMT', etag: '"e"' } }),
  '/file-range-own': () =>
    new Response(Bun.file(`${here}small.txt`).slice(0, 4), { status: 206, headers: { 'content-range': 'bytes 0-3/10' } }),
  '/file-missing': () => new Response(Bun.file(`${here}none.txt`)),
  '/file-folder': () => new Response(Bun.file(here)),
  '/file-stream': () => new Response(Bun.file(`${here}small.txt`).stream()),
  '/file-disposition': () => new Response(Bun.file(`${here}small.txt`), { headers: { 'content-disposition': 'attachment' } }),
  '/file-length': () => new Response(Bun.file(`${here}small.txt`), { headers: { 'content-length': '3' } }),
  '/204': () => new Response(null, { status: 204 }),
  '/204-body': () => new Response('x', { status: 204 }),
  '/205': () => new Response(null, { status: 205 }),
  '/205-body': () => new Response('x', { status: 205 }),
  '/304': () => new Response(null, { status: 304, headers: { etag: '"x"' } }),
  '/304-body': () => new Response('x', { status: 304 }),
  '/304-length': () => new Response(null, { status: 304, headers: { 'content-length': '5' } }),
  '/204-stream': () => new Response(slow('x'), { status: 204 }),
  '/200-length-null': () => new Response(null, { headers: { 'content-length': '5' } }),
  '/status-599': () => new Response('x', { status: 599 }),
  '/status-299': () => new Response('x', { status: 299 }),
  '/status-418': () => new Response('x', { status: 418 }),
  '/status-text': () => new Response('x', { status: 404, statusText: 'Nope' }),
  '/status-text-200': () => new Response('x', { statusText: 'Fine' }),
  '/status-101': () => new Response(null, { status: 101 }),
  '/redirect': () => Response.redirect('http://x/y'),
  '/redirect-301': () => Response.redirect('http://x/y z', 301),
  '/redirect-relative': () => Response.redirect('/there?a=b', 303),
  '/redirect-dots': () => Response.redirect('../up'),
  '/redirect-init': () => Response.redirect('http://x/', { status: 307, headers: { a: 'b' } } as never),
  '/redirect-bad': () => Response.redirect('http://x/', 200),
  '/location-relative': () => new Response(null, { status: 302, headers: { location: '/a/../b' } }),
  '/error': () => Response.error() as unknown as Response,
  '/cookies': () =>
    new Response('x', {
      headers: [
        ['set-cookie', 'a=1'],
        ['set-cookie', 'b=2; Path=/'],
        ['x', '1'],
        ['x', '2'],
      ],
    }),
  '/cookies-append': () => {
    const r = new Response('x');
    r.headers.append('Set-Cookie', 'a=1');
    r.headers.append('Set-Cookie', 'b=2');
    return r;
  },
  '/header-case': () => new Response('x', { headers: { 'X-MiXed': 'V', ETag: '"a"' } }),
  '/header-latin1': () => new Response('x', { headers: { 'x-l': 'caf\u00e9' } }),
  '/header-empty': () => new Response('x', { headers: { 'x-e': '' } }),
  '/header-space': () => new Response('x', { headers: { 'x-s': '  a  ' } }),
  '/own-length': () => new Response('hello', { headers: { 'content-length': '5' } }),
  '/own-length-wrong': () => new Response('hello', { headers: { 'content-length': '3' } }),
  '/own-length-long': () => new Response('hello', { headers: { 'content-length': '30' } }),
  '/own-te': () => new Response('hello', { headers: { 'transfer-encoding': 'chunked' } }),
  '/own-date': () => new Response('hello', { headers: { date: 'Wed, 21 Oct 2015 07:28:00 GMT' } }),
  '/own-connection': () => new Response('hello', { headers: { connection: 'close' } }),
  '/own-keep-alive': () => new Response('hello', { headers: { connection: 'keep-alive', 'keep-alive': 'timeout=5' } }),
  '/stream-close': () => new Response(slow('a', 'b'), { headers: { connection: 'close' } }),
  '/etag-text': () => new Response('hello', { headers: { etag: '"abc"', 'last-modified': 'Wed, 21 Oct 2015 07:28:00 GMT' } }),
  '/clone': () => {
    const r = new Response('cl');
    const c = r.clone() as unknown as Response;
    return c;
  },
  '/used': async () => {
    const r = new Response('x');
    await r.text();
    return r;
  },
  '/used-stream': async () => {
    const r = new Response(stream('x'));
    await r.text();
    return r;
  },
  '/locked': () => {
    const r = new Response(stream('x'));
    r.body?.getReader();
    return r;
  },
  '/throw': () => {
    throw new Error('boom');
  },
  '/not-a-response': () => 'text' as never,
  '/nothing': () => undefined as never,
  '/echo': async (r) => new Response(await r.text(), { headers: { 'x-method': r.method } }),
  '/echo-stream': (r) => new Response(r.body),
  '/echo-blob': async (r) => new Response(await r.blob()),
  '/echo-form': async (r) => {
    const f = await r.formData();
    return Response.json([...f.keys()]);
  },
  '/url': (r) => Response.json([r.url, r.method, [...r.headers]]),
};
export const handler = (request: Request): Response | Promise<Response> => {
  const route = routes[new URL(request.url).pathname];
  return route === undefined ? new Response('none', { status: 404 }) : route(request);
};
