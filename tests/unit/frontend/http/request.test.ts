import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { installLightGlobals } from '../../../../src/frontend/hono/index.ts';
import { isLightRequest } from '../../../../src/frontend/http/request.ts';
import { FakeCore, flags, type RequestOptions, settle } from '../../../support/fake-core.ts';

let restore: () => void;
beforeAll(() => {
  restore = installLightGlobals();
});
afterAll(() => restore());

/** Run `handler` on one request and give back what it answered. */
async function inHandler<T>(handler: (request: Request) => T | Promise<T>, target = '/', options: RequestOptions = {}): Promise<T> {
  let result!: T;
  const core = new FakeCore(async (request) => {
    result = await handler(request);
    return new Response(null);
  });
  await core.exchange(target, options);
  if (core.errors[0]) throw core.errors[0].error;
  return result;
}

const urlOf = (target: string, options: RequestOptions = {}) => inHandler((request) => request.url, target, options);

describe('url', () => {
  test.each([
    ['/hello', 'http://h/hello'],
    ['/a/../b', 'http://h/b'],
    ['/a/%2e%2E/b', 'http://h/b'],
    ['/a/.b', 'http://h/a/.b'],
    ['/a/./b?c=/../d', 'http://h/a/b?c=/../d'],
    ['/v1.2/file.txt?x=1.5', 'http://h/v1.2/file.txt?x=1.5'],
    ['/%20x%41', 'http://h/%20x%41'],
    ['/a\\b', 'http://h/a/b'],
    ['/?q="<>\'', 'http://h/?q=%22%3C%3E%27'],
    ['//evil/x', 'http://h//evil/x'],
    ['/\xe9', 'http://h/%C3%A9'],
    ['', 'http://h/'],
    ['?a=b', 'http://h/?a=b'],
  ])('target %p gives %p, as the URL parser writes it', async (target, url) => {
    expect(await urlOf(target, { host: 'h' })).toBe(url);
    expect(new URL(url).href).toBe(url);
  });

  test('the host is normalised, and the default port left out', async () => {
    expect(await urlOf('/', { host: 'EXAMPLE.com:80' })).toBe('http://example.com/');
    expect(await urlOf('/', { host: 'example.com:443' })).toBe('http://example.com:443/');
    expect(await urlOf('/', { host: '[::1]:8080' })).toBe('http://[::1]:8080/');
  });

  test('TLS gives https, also for a host seen before without', async () => {
    expect(await urlOf('/x', { host: 'example.com' })).toBe('http://example.com/x');
    expect(await urlOf('/x', { host: 'example.com', flags: flags.tls })).toBe('https://example.com/x');
    expect(await urlOf('/x', { host: 'example.com:443', flags: flags.tls })).toBe('https://example.com/x');
  });

  test('HTTP/1.0 without Host is localhost', async () => {
    expect(await urlOf('/x', { host: '', flags: flags.http10 })).toBe('http://localhost/x');
  });

  test('asterisk-form has a URL too', async () => {
    expect(await urlOf('*', { method: 'OPTIONS', host: 'h', flags: flags.asterisk })).toBe('http://h/*');
  });

  test('a query right after the authority of an absolute-form belongs to the path /', async () => {
    expect(await urlOf('/?x=/', { host: 'h' })).toBe('http://h/?x=/');
  });

  test('CONNECT asks for a tunnel, which no handler can give: 501, and the connection ends', async () => {
    const core = new FakeCore(() => new Response('reached'));
    const answer = await core.exchange('a:443', { method: 'CONNECT', host: 'a:443', flags: flags.authority });
    expect([answer.status, answer.close, answer.text()]).toEqual([501, true, 'Not Implemented: this is no proxy']);
  });

  test.each(['a/b', 'user@host', 'h?x', 'h#x', 'a b', 'h\\x', 'h:99999', 'a%2fb'])(
    'host %p, which no URL can have, is answered 400 and closed',
    async (host) => {
      const core = new FakeCore(() => new Response('reached'));
      const answer = await core.exchange('/', { host });
      expect([answer.status, answer.close]).toEqual([400, true]);
    },
  );

  test('many hosts do not grow the table without bound, and stay right', async () => {
    const core = new FakeCore((request) => new Response(request.url));
    for (let i = 0; i < 400; i += 1) expect((await core.exchange('/', { host: `h${i % 200}` })).text()).toBe(`http://h${i % 200}/`);
  });
});

describe('head', () => {
  test('methods have their names, unknown ones too', async () => {
    for (const method of ['GET', 'DELETE', 'PATCH', 'PURGE', 'M-SEARCH']) {
      expect(await inHandler((request) => request.method, '/', { method })).toBe(method);
    }
  });

  test('headers are a real Headers object, repeated fields combined, cookies with a semicolon', async () => {
    const headers = await inHandler((request) => request.headers, '/', {
      method: 'PURGE',
      headers: [
        ['X-A', '1'],
        ['x-a', '2'],
        ['Cookie', 'a=1'],
        ['Cookie', 'b=2'],
        ['X-Empty', ''],
        ['X-Latin', 'caf\xe9'],
      ],
    });
    expect(headers).toBeInstanceOf(Headers);
    expect(Object.fromEntries(headers)).toEqual({
      host: 'localhost:8080',
      'x-a': '1, 2',
      cookie: 'a=1; b=2',
      'x-empty': '',
      'x-latin': 'caf\xe9',
    });
  });

  test('it is a Request, with the properties of one, and the same headers object each time', async () => {
    await inHandler((request) => {
      expect(request).toBeInstanceOf(Request);
      expect(request.headers).toBe(request.headers);
      const native = new Request('http://localhost:8080/');
      for (const name of [
        'cache',
        'credentials',
        'destination',
        'integrity',
        'mode',
        'redirect',
        'referrer',
        'referrerPolicy',
        'bodyUsed',
        'body',
      ] as const) {
        expect([name, request[name]]).toEqual([name, native[name]]);
      }
      expect(Object.prototype.toString.call(request)).toBe('[object Request]');
      expect(request.constructor.name).toBe('Request');
    });
  });

  test('no getter or method of a native Request is left that would reject our object', async () => {
    await inHandler(async (request) => {
      const names = Object.getOwnPropertyNames(Object.getPrototypeOf(new Request('http://x/')));
      for (const name of names) expect(() => (request as unknown as Record<string, unknown>)[name]).not.toThrow();
      expect((request as unknown as { textStream(): unknown }).textStream()).toBeInstanceOf(ReadableStream);
    });
  });
});

describe('body', () => {
  const post = (body: RequestOptions['body'], headers: Record<string, string> = {}): RequestOptions => ({
    method: 'POST',
    body: body as string,
    headers,
  });

  test('text, json, bytes, arrayBuffer and blob read it whole, in one part or several', async () => {
    for (const parts of [
      ['{"a":"é"}'],
      ['{"a":', Buffer.from('é').subarray(0, 0), '"é"', '}'],
      ['{"a":"', Buffer.from('é').subarray(0, 1), Buffer.from('é').subarray(1), '"}', ''],
    ]) {
      const options = post(parts, { 'content-type': 'application/json' });
      expect(await inHandler((r) => r.text(), '/', options)).toBe('{"a":"é"}');
      expect(await inHandler((r) => r.json(), '/', options)).toEqual({ a: 'é' });
      expect(Buffer.from(await inHandler((r) => r.bytes(), '/', options)).toString()).toBe('{"a":"é"}');
      expect(Buffer.from(await inHandler((r) => r.arrayBuffer(), '/', options)).toString()).toBe('{"a":"é"}');
      const blob = await inHandler((r) => r.blob(), '/', options);
      expect([blob.type, await blob.text()]).toEqual(['application/json;charset=utf-8', '{"a":"é"}']);
    }
  });

  test('formData reads urlencoded and multipart bodies', async () => {
    const form = await inHandler((r) => r.formData(), '/', post('a=1&b=%C3%A9', { 'content-type': 'application/x-www-form-urlencoded' }));
    expect([form.get('a'), form.get('b')]).toEqual(['1', 'é']);
    const upload = new FormData();
    upload.set('file', new File(['content'], 'name.txt', { type: 'text/plain' }));
    const encoded = new Request('http://x/', { method: 'POST', body: upload });
    const type = encoded.headers.get('content-type') as string;
    const bytes = await encoded.bytes();
    const parsed = await inHandler((r) => r.formData(), '/', post([bytes.subarray(0, 30), bytes.subarray(30)], { 'content-type': type }));
    const file = parsed.get('file') as unknown as File;
    expect([file.name, await file.text()]).toEqual(['name.txt', 'content']);
  });

  test('what cannot be parsed rejects as it does natively', async () => {
    await expect(inHandler((r) => r.json(), '/', post('{bad'))).rejects.toThrow(SyntaxError);
    await expect(inHandler((r) => r.formData(), '/', post('x'))).rejects.toThrow(TypeError);
    await expect(inHandler((r) => r.formData())).rejects.toThrow(TypeError);
  });

  test('a second read is a TypeError, whatever the first was', async () => {
    for (const first of ['text', 'json', 'bytes', 'arrayBuffer', 'blob'] as const) {
      await inHandler(
        async (request) => {
          expect(request.bodyUsed).toBe(false);
          await request[first]();
          expect(request.bodyUsed).toBe(true);
          for (const second of ['text', 'json', 'arrayBuffer'] as const)
            await expect(request[second]()).rejects.toThrow('Body already used');
          expect(() => request.clone()).toThrow(TypeError);
        },
        '/',
        post('{}'),
      );
    }
  });

  test('without a body, reading gives nothing, again and again', async () => {
    await inHandler(async (request) => {
      expect([request.body, await request.text(), await request.text(), request.bodyUsed]).toEqual([null, '', '', false]);
      expect((await request.arrayBuffer()).byteLength).toBe(0);
      await expect(request.json()).rejects.toThrow(SyntaxError);
    });
  });

  test.each(['GET', 'HEAD', 'DELETE', 'PURGE'])('%s has the body that its client sends', async (method) => {
    let seen: unknown;
    const core = new FakeCore(async (request) => {
      seen = [request.body !== null, await request.text()];
      return new Response();
    });
    await core.exchange('/', { method, body: 'x' });
    expect(seen).toEqual([true, 'x']);
  });

  test('the stream gives every part, and acknowledges one when it is taken', async () => {
    let reader!: ReadableStreamDefaultReader<Uint8Array>;
    const core = new FakeCore((request) => {
      reader = request.body?.getReader() as typeof reader;
      return new Promise(() => {});
    });
    const sent = core.request('/', { method: 'POST', flags: flags.hasBody });
    core.body(sent, 'one', false);
    core.body(sent, 'second', false);
    await settle();
    expect(sent.acknowledged).toBe(0);
    expect(Buffer.from((await reader.read()).value as Uint8Array).toString()).toBe('one');
    expect(sent.acknowledged).toBe(3);
    expect(Buffer.from((await reader.read()).value as Uint8Array).toString()).toBe('second');
    const third = reader.read();
    await settle();
    core.body(sent, 'third', true);
    expect(Buffer.from((await third).value as Uint8Array).toString()).toBe('third');
    expect(sent.acknowledged).toBe(14);
    expect((await reader.read()).done).toBe(true);
    core.leave(sent);
  });

  test('an empty last part ends a read that waits', async () => {
    for (const mode of ['default', 'byob'] as const) {
      let read!: Promise<{ done: boolean }>;
      const core = new FakeCore((request) => {
        const body = request.body as ReadableStream<Uint8Array>;
        read = mode === 'byob' ? body.getReader({ mode: 'byob' }).read(new Uint8Array(8)) : body.getReader().read();
        return new Promise(() => {});
      });
      const sent = core.request('/', { method: 'POST', flags: flags.hasBody });
      await settle();
      core.body(sent, '', true);
      expect((await read).done).toBe(true);
      core.leave(sent);
    }
  });

  test('nothing is acknowledged for a body that nobody reads', async () => {
    const core = new FakeCore(() => new Promise(() => {}));
    const sent = core.request('/', { method: 'POST', body: ['aaa', 'bbb'] });
    await settle();
    expect(sent.acknowledged).toBe(0);
    core.leave(sent);
  });

  test('reading whole acknowledges as parts arrive, so that bodies larger than the window pass', async () => {
    const core = new FakeCore(async (request) => new Response(await request.text()));
    const sent = core.request('/', { method: 'POST', flags: flags.hasBody });
    for (let i = 1; i <= 5; i += 1) {
      core.body(sent, 'x'.repeat(1000), false);
      expect(sent.acknowledged).toBe(i * 1000);
    }
    core.body(sent, '', true);
    await sent.done;
    expect(sent.text().length).toBe(5000);
  });

  test('text() works after .body was looked at but not read', async () => {
    expect(
      await inHandler(
        (request) => {
          expect(request.body).toBe(request.body);
          expect(request.bodyUsed).toBe(false);
          return request.text();
        },
        '/',
        post(['one', 'two']),
      ),
    ).toBe('onetwo');
  });

  test('a cancelled stream counts as used, and later parts are dropped', async () => {
    await inHandler(
      async (request) => {
        await request.body?.cancel();
        expect(request.bodyUsed).toBe(true);
        await expect(request.text()).rejects.toThrow(TypeError);
      },
      '/',
      post(['one', 'two']),
    );
  });

  test('a pending read of the whole body rejects with an AbortError when the client leaves', async () => {
    let read!: Promise<unknown>;
    const core = new FakeCore((request) => {
      read = request.text().catch((error: unknown) => error);
      return new Promise(() => {});
    });
    const sent = core.request('/', { method: 'POST', flags: flags.hasBody });
    core.body(sent, 'part', false);
    core.leave(sent);
    expect(await read).toMatchObject({ name: 'AbortError' });
  });

  test('a waiting stream read rejects with an AbortError when the client leaves', async () => {
    let read!: Promise<unknown>;
    const core = new FakeCore((request) => {
      read = (request.body as ReadableStream)
        .getReader()
        .read()
        .catch((error: unknown) => error);
      return new Promise(() => {});
    });
    const sent = core.request('/', { method: 'POST', flags: flags.hasBody });
    await settle();
    core.leave(sent);
    expect(await read).toMatchObject({ name: 'AbortError' });
  });

  test('a read that is still pending when the response is complete rejects, and later parts are ignored', async () => {
    let read!: Promise<unknown>;
    const core = new FakeCore((request) => {
      read = request.text().catch((error: unknown) => error);
      return new Response('early');
    });
    const sent = core.request('/', { method: 'POST', flags: flags.hasBody });
    core.body(sent, 'late', true);
    expect(sent.text()).toBe('early');
    expect(await read).toMatchObject({ name: 'AbortError' });
    expect([sent.acknowledged, core.frontend.pending]).toEqual([0, 0]);
  });
});

describe('clone, new Request and fetch', () => {
  const options: RequestOptions = { method: 'POST', body: ['one', 'two'], headers: { 'x-a': '1' } };

  test('clone gives two requests with the whole body each', async () => {
    await inHandler(
      async (request) => {
        const copy = request.clone();
        expect([copy.method, copy.url, copy.headers.get('x-a')]).toEqual(['POST', 'http://localhost:8080/c', '1']);
        expect(await Promise.all([request.text(), copy.text()])).toEqual(['onetwo', 'onetwo']);
        expect([request.bodyUsed, copy.bodyUsed]).toEqual([true, true]);
      },
      '/c',
      options,
    );
  });

  test('a clone without a body has its own headers and the same signal', async () => {
    await inHandler((request) => {
      request.headers.set('x-mine', '1');
      const copy = request.clone();
      copy.headers.set('x-theirs', '1');
      expect([request.headers.get('x-theirs'), copy.headers.get('x-mine'), copy.signal === request.signal]).toEqual([null, '1', true]);
    });
  });

  test('new Request(request) takes over everything, and init has precedence', async () => {
    await inHandler(
      async (request) => {
        const next = new Request(request, { headers: { 'x-b': '2' } });
        expect([isLightRequest(next), next.method, next.url, next.headers.get('x-a'), next.headers.get('x-b')]).toEqual([
          false,
          'POST',
          'http://localhost:8080/c',
          null,
          '2',
        ]);
        expect(await next.text()).toBe('onetwo');
      },
      '/c',
      options,
    );
  });

  test('new Request(request, { body }) leaves the read body of the input alone', async () => {
    await inHandler(
      async (request) => {
        await request.text();
        const next = new Request(request, { body: 'three' });
        expect([next.method, next.headers.get('x-a'), await next.text()]).toEqual(['POST', '1', 'three']);
        expect(() => new Request(request)).toThrow(TypeError);
      },
      '/c',
      options,
    );
  });

  test('new Request(url, request) uses it as init', async () => {
    await inHandler(
      async (request) => {
        const next = new Request('http://other/x', request);
        expect([next.url, next.method, next.headers.get('x-a'), await next.text()]).toEqual(['http://other/x', 'POST', '1', 'onetwo']);
      },
      '/c',
      options,
    );
  });

  test('fetch(request) sends it', async () => {
    using server = Bun.serve({
      port: 0,
      fetch: async (r) => new Response(`${r.method} ${new URL(r.url).pathname} ${r.headers.get('x-a')} ${await r.text()}`),
    });
    const core = new FakeCore((request) => fetch(request));
    const answer = await core.exchange('/to', { ...options, host: `localhost:${server.port}` });
    expect(answer.text()).toBe('POST /to 1 onetwo');
  });
});

describe('signal', () => {
  test('it aborts with an AbortError when the client leaves, whether asked for before or after', async () => {
    let request!: Request;
    const core = new FakeCore((r) => {
      request = r;
      return new Promise(() => {});
    });
    const first = core.request('/');
    const signal = request.signal;
    expect(signal.aborted).toBe(false);
    core.leave(first);
    expect([signal.aborted, (signal.reason as DOMException).name]).toEqual([true, 'AbortError']);
    const second = core.request('/');
    core.leave(second);
    expect([request.signal.aborted, (request.signal.reason as DOMException).name]).toEqual([true, 'AbortError']);
    expect(core.frontend.pending).toBe(0);
  });

  test('it does not abort when the response completes', async () => {
    let signal!: AbortSignal;
    const core = new FakeCore((request) => {
      signal = request.signal;
      return new Response('x');
    });
    await core.exchange('/', { method: 'POST', flags: flags.hasBody });
    expect(signal.aborted).toBe(false);
  });
});
