import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { installLightGlobals } from '../../../../src/frontend/hono/index.ts';
import { isLightResponse } from '../../../../src/frontend/hono/response.ts';
import { NativeRequest, NativeResponse } from '../../../../src/frontend/http/natives.ts';

let restore: () => void;
beforeAll(() => {
  restore = installLightGlobals();
});
afterAll(() => restore());

const loose = (value: unknown) => value as never;

/** What a Response shows, or the error that making it throws. */
async function observe(make: (R: typeof Response) => Response, R: typeof Response): Promise<unknown> {
  try {
    const response = make(R);
    return {
      status: response.status,
      statusText: response.statusText,
      ok: response.ok,
      type: response.type,
      url: response.url,
      redirected: response.redirected,
      headers: [...response.headers].map(([name, value]) => [name, value.replace(/boundary=.*/, 'boundary=')]),
      hasBody: response.body !== null,
      text: (await response.text()).replace(/-{4,}\w+/g, 'boundary'),
    };
  } catch (error) {
    return { name: (error as Error).name, message: (error as Error).message };
  }
}

/** The runtime shows the type of a text only on the wire; ours shows it in `headers` too, as the Fetch Standard says. */
function withoutTextType(seen: unknown): unknown {
  const { headers, ...rest } = seen as { headers?: [string, string][] };
  return { ...rest, headers: headers?.filter(([, value]) => value !== 'text/plain;charset=utf-8') };
}

const form = () => {
  const data = new FormData();
  data.set('a', 'b');
  return data;
};

describe('a light Response shows what a native one shows', () => {
  const cases: [name: string, make: (R: typeof Response) => Response][] = [
    ['nothing', (R) => new R()],
    ['null', (R) => new R(null)],
    ['text', (R) => new R('héllo')],
    ['an empty text', (R) => new R('')],
    ['a lone surrogate', (R) => new R('a\ud800b')],
    ['a byte order mark', (R) => new R('\ufeffx')],
    ['bytes', (R) => new R(new Uint8Array([65, 66]))],
    ['a view', (R) => new R(new DataView(new Uint8Array([65, 66, 67]).buffer, 1))],
    ['a buffer', (R) => new R(new Uint8Array([65, 66]).buffer)],
    ['a blob', (R) => new R(new Blob(['x'], { type: 'image/png' }))],
    ['a blob without type', (R) => new R(new Blob(['x']))],
    ['a blob with another type given', (R) => new R(new Blob(['x'], { type: 'image/png' }), { headers: { 'Content-Type': 'a/b' } })],
    ['URLSearchParams', (R) => new R(new URLSearchParams('a=b&c=d'))],
    ['FormData', (R) => new R(form())],
    ['a stream', (R) => new R(new Blob(['streamed']).stream())],
    [
      'an async iterable',
      (R) =>
        new R(
          loose(
            (async function* () {
              yield 'a';
              yield 'b';
            })(),
          ),
        ),
    ],
    ['a number', (R) => new R(loose(5))],
    ['true', (R) => new R(loose(true))],
    ['an object', (R) => new R(loose({ a: 1 }))],
    ['a file', (R) => new R(Bun.file(import.meta.path))],
    ['a symbol', (R) => new R(loose(Symbol('s')))],
    [
      'a locked stream',
      (R) => {
        const stream = new ReadableStream();
        stream.getReader();
        return new R(stream);
      },
    ],
    ['a body with 204', (R) => new R('x', { status: 204 })],
    ['init null', (R) => new R('x', loose(null))],
    ['init a number', (R) => new R('x', loose(5))],
    ['init a string', (R) => new R('x', loose('y'))],
    [
      'init a function',
      (R) =>
        new R(
          'x',
          loose(() => {}),
        ),
    ],
    ['a status text', (R) => new R('x', { status: 404, statusText: 'Nope' })],
    ['headers null', (R) => new R('x', { headers: loose(null) })],
    ['headers a string', (R) => new R('x', { headers: loose('abc') })],
    ['headers a number', (R) => new R('x', { headers: loose(5) })],
    ['headers a map', (R) => new R('x', { headers: loose(new Map([['a', 'b']])) })],
    [
      'headers a list',
      (R) =>
        new R('x', {
          headers: [
            ['a', '1'],
            ['A', '2'],
            ['set-cookie', 'x=1'],
            ['set-cookie', 'y=2'],
          ],
        }),
    ],
    ['headers a bad list', (R) => new R('x', { headers: loose([['a']]) })],
    ['headers a Headers', (R) => new R('x', { headers: new Headers({ a: '1' }) })],
    ['two spellings of a name', (R) => new R('x', { headers: { 'X-A': '1', 'x-a': '2', 'X-B': '3' } })],
    ['a number as value', (R) => new R('x', { headers: loose({ a: 5 }) })],
    ['a list as value', (R) => new R('x', { headers: loose({ a: ['1', '2'] }) })],
    ['undefined as value', (R) => new R('x', { headers: loose({ a: undefined }) })],
    ['space around a value', (R) => new R('x', { headers: { a: '  b c\t' } })],
    ['an empty value', (R) => new R('x', { headers: { a: '' } })],
    ['latin1 in a value', (R) => new R('x', { headers: { a: 'caf\xe9' } })],
    ['a bad name', (R) => new R('x', { headers: { 'a b': 'c' } })],
    ['an empty name', (R) => new R('x', { headers: { '': 'c' } })],
    ['a name with a line end', (R) => new R('x', { headers: { 'a\r\nb': 'c' } })],
    ['a value with a line end', (R) => new R('x', { headers: { a: 'b\r\nc: d' } })],
    ['a value with NUL', (R) => new R('x', { headers: { a: 'b\0c' } })],
    ['a value that is not latin1', (R) => new R('x', { headers: { a: '€' } })],
    ['another Response as init', (R) => new R('x', new R('y', { status: 201, statusText: 'Made', headers: { q: '1' } }))],
    ['a native Response as init', (R) => new R('x', new NativeResponse('y', { status: 201, headers: { q: '1' } }))],
    ['json', (R) => R.json({ a: 1 }, { status: 201, headers: { b: '2' } })],
    ['json with its own type', (R) => R.json({ a: 1 }, { headers: { 'content-type': 'application/problem+json' } })],
    ['json with a status', (R) => R.json([], loose(202))],
    ['json of nothing', (R) => R.json(undefined)],
    ['redirect', (R) => R.redirect('/x')],
    ['redirect 303', (R) => R.redirect('http://a/b', 303)],
    ['redirect 200', (R) => R.redirect('/x', 200)],
    ['error', (R) => R.error()],
    ['clone', (R) => new R('x', { status: 203, headers: { a: 'b' } }).clone() as Response],
    [
      'its own body wrapped again',
      (R) => {
        const inner = new R('x', { headers: { a: 'b' } });
        return new R(inner.body, inner);
      },
    ],
    ['called without new', (R) => (R as unknown as () => Response)()],
    ...[99, 100, 102, 199, 200, 299, 404, 599, 600, 999, 200.5, Number.NaN, -1, 65736, '201', null].map(
      (status): [string, (R: typeof Response) => Response] => [`status ${status}`, (R) => new R(null, { status: loose(status) })],
    ),
  ];

  test.each(cases)('%s', async (_name, make) => {
    const native = await observe(make, NativeResponse);
    const light = await observe(make, Response);
    // an error that names no class of ours
    if (_name === 'called without new') expect(light).toMatchObject({ name: 'TypeError' });
    else expect(withoutTextType(light)).toEqual(withoutTextType(native));
  });
});

test('a text has its type in headers, unless it was given another', () => {
  const type = (response: Response) => response.headers.get('content-type');
  expect(type(new Response('x'))).toBe('text/plain;charset=utf-8');
  expect(type(new Response('x', { headers: { a: 'b' } }))).toBe('text/plain;charset=utf-8');
  expect(type(new Response('x', { headers: { 'Content-Type': 'a/b' } }))).toBe('a/b');
  expect(type(new Response(null, new Response('x')))).toBe('text/plain;charset=utf-8');
  expect(type(new Response('x').clone() as Response)).toBe('text/plain;charset=utf-8');
  for (const body of [null, '', new Uint8Array(1), new ReadableStream()]) expect(type(new Response(body))).toBeNull();
  const removed = new Response('x');
  removed.headers.delete('content-type');
  expect(type(removed)).toBeNull();
});

describe('instanceof', () => {
  test('both kinds are Responses to both constructors, and nothing else is', () => {
    const light = new Response('x');
    expect(isLightResponse(light)).toBe(true);
    for (const R of [Response, NativeResponse]) {
      for (const value of [light, new NativeResponse('x'), Response.json(1), Response.error()]) expect(value instanceof R).toBe(true);
      for (const value of [null, undefined, 'x', {}, new NativeRequest('http://x/')]) expect((value as unknown) instanceof R).toBe(false);
    }
  });

  test('a class that extends Response has instances of its own', () => {
    class Special extends Response {}
    const special = new Special('x', { status: 201 });
    expect([special instanceof Special, special instanceof Response, special.status]).toEqual([true, true, 201]);
    expect((new Response('x') as unknown) instanceof Special).toBe(false);
  });

  test('no member of a native Response is left that would reject our object', () => {
    const light = new Response('x') as unknown as Record<string, unknown>;
    for (const name of Object.getOwnPropertyNames(NativeResponse.prototype)) expect(() => light[name]).not.toThrow();
    expect(Object.prototype.toString.call(light)).toBe('[object Response]');
    expect(light.constructor).toBe(Response);
    expect(Response.name).toBe('Response');
  });
});

describe('headers and body are taken over when the Response is made', () => {
  test('later changes to what was given do not show', async () => {
    const headers = new Headers({ a: '1' });
    const record: Record<string, string> = { a: '1' };
    const bytes = new Uint8Array([65]);
    const first = new Response(bytes, { headers });
    const second = new Response('x', { headers: record });
    headers.set('a', '2');
    record.a = '2';
    record.b = '3';
    bytes[0] = 66;
    expect([await first.text(), first.headers.get('a'), second.headers.get('a'), second.headers.get('b')]).toEqual(['A', '1', '1', null]);
  });

  test('changes to res.headers show in it and in what is made from it', () => {
    const response = new Response('x', { headers: { a: '1' } });
    expect(response.headers).toBe(response.headers);
    response.headers.set('a', '2');
    response.headers.append('set-cookie', 'x=1');
    response.headers.append('set-cookie', 'y=2');
    const next = new Response('y', response);
    expect([next.headers.get('a'), next.headers.getSetCookie()]).toEqual(['2', ['x=1', 'y=2']]);
    next.headers.delete('a');
    expect(response.headers.get('a')).toBe('2');
  });

  test('a thousand made-up header names stay right', () => {
    for (let i = 0; i < 1000; i += 1) expect(new Response('x', { headers: { [`x-${i}`]: `${i}` } }).headers.get(`x-${i}`)).toBe(`${i}`);
  });
});

describe('reading', () => {
  test('each method reads it once', async () => {
    const make: Record<string, () => Response> = {
      text: () => new Response('{"a":1}'),
      bytes: () => new Response(Buffer.from('{"a":1}')),
      stream: () => new Response(new Blob(['{"a":1}']).stream()),
    };
    for (const [kind, create] of Object.entries(make)) {
      for (const method of ['text', 'json', 'bytes', 'arrayBuffer', 'blob'] as const) {
        const response = create();
        expect([kind, method, response.bodyUsed]).toEqual([kind, method, false]);
        const value = await response[method]();
        if (method === 'json') expect(value).toEqual({ a: 1 });
        expect(response.bodyUsed).toBe(true);
        await expect(response.text()).rejects.toThrow('Body already used');
        expect(() => response.clone()).toThrow('Body is disturbed or locked');
      }
    }
  });

  test('blob and formData know the content type', async () => {
    expect((await new Response('x', { headers: { 'content-type': 'image/png' } }).blob()).type).toBe('image/png');
    expect((await new Response(form()).formData()).get('a')).toBe('b');
    expect((await new Response(new URLSearchParams('a=b')).formData()).get('a')).toBe('b');
  });

  test('the stream of a plain body gives its bytes, and counts as used once read', async () => {
    for (const body of ['text', Buffer.from('text'), new Blob(['text'])]) {
      const response = new Response(body);
      expect(response.body).toBe(response.body);
      expect(response.bodyUsed).toBe(false);
      expect(await new NativeResponse(response.body).text()).toBe('text');
      expect(response.bodyUsed).toBe(true);
      await expect(response.text()).rejects.toThrow(TypeError);
    }
  });

  test('a stream that was read through another Response cannot be taken again', async () => {
    const inner = new Response('x');
    const outer = new Response(inner.body, inner);
    expect(await outer.text()).toBe('x');
    expect(outer.bodyUsed).toBe(true);
    const reader = (new Response('x').body as ReadableStream).getReader();
    expect(await reader.read()).toMatchObject({ done: false });
  });

  test('clones are independent, of streams as well', async () => {
    for (const body of ['abc', new Blob(['abc']), new Blob(['abc']).stream()]) {
      const response = new Response(body);
      const copy = response.clone();
      expect([await response.text(), await copy.text()]).toEqual(['abc', 'abc']);
    }
  });

  test('a cancelled body is used', async () => {
    const response = new Response('x');
    await response.body?.cancel();
    expect(response.bodyUsed).toBe(true);
  });
});

describe('doors into the runtime', () => {
  test('Bun.serve, its routes and its error handler may answer with a light Response', async () => {
    using server = Bun.serve({
      port: 0,
      routes: {
        '/route': new Response('static'),
        '/dynamic': () => new Response('dynamic', { status: 201 }),
        '/methods': { POST: async () => new Response('posted') },
      },
      fetch(request) {
        if (request.url.endsWith('/throw')) throw new Error('no');
        return new Response('fallback', { headers: { a: 'b' } });
      },
      error: () => new Response('handled', { status: 500 }),
    });
    const get = async (path: string, init?: RequestInit) => {
      const response = await fetch(`${server.url}${path}`, init);
      return [response.status, await response.text()];
    };
    expect(await get('route')).toEqual([200, 'static']);
    expect(await get('dynamic')).toEqual([201, 'dynamic']);
    expect(await get('methods', { method: 'POST' })).toEqual([200, 'posted']);
    expect(await get('else')).toEqual([200, 'fallback']);
    expect(await get('throw')).toEqual([500, 'handled']);
  });

  test('HTMLRewriter and Bun.write take one', async () => {
    const rewriter = new HTMLRewriter().on('b', { element: (element) => void element.setInnerContent('new') });
    expect(await rewriter.transform(new Response('<b>old</b>')).text()).toBe('<b>new</b>');
    const path = `${process.env.TMPDIR ?? '/tmp'}/ringway-write-${process.pid}`;
    await Bun.write(path, new Response('written'));
    expect(await Bun.file(path).text()).toBe('written');
    await Bun.file(path).delete();
  });

  test('everything is put back on request', () => {
    restore();
    expect([globalThis.Response === NativeResponse, globalThis.Request === NativeRequest]).toEqual([true, true]);
    restore = installLightGlobals();
    expect(globalThis.Response as unknown).not.toBe(NativeResponse);
  });
});
