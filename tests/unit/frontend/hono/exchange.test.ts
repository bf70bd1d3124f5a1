import { describe, expect, test } from 'bun:test';
import { NativeResponse } from '../../../../src/frontend/http/natives.ts';
import { FakeCore, flags, settle, withLightGlobals } from '../../../support/fake-core.ts';

withLightGlobals();

const chunk = (text: string) => new TextEncoder().encode(text);

describe('a response sent whole', () => {
  test('answers before onRequest returns when the handler is synchronous, and is not listed', () => {
    const core = new FakeCore(() => new Response('hello'));
    const answer = core.request('/');
    expect([answer.state, answer.status, answer.text(), answer.length, core.frontend.pending]).toEqual([
      'complete',
      200,
      'hello',
      undefined,
      0,
    ]);
    expect(answer.headers).toEqual([
      ['content-type', 'text/plain;charset=utf-8'],
      ['content-length', '5'],
    ]);
  });

  test('promises are awaited, and listed until they settle', async () => {
    const core = new FakeCore(async () => {
      await settle();
      return new Response('later');
    });
    const answer = core.request('/');
    expect([answer.state, core.frontend.pending]).toEqual(['none', 1]);
    await answer.done;
    expect([answer.text(), core.frontend.pending]).toEqual(['later', 0]);
  });

  test.each<[string, () => Response, string, string | null]>([
    ['null', () => new Response(null), '', null],
    ['bytes', () => new Response(chunk('bytes')), 'bytes', 'application/octet-stream'],
    ['a buffer', () => new Response(chunk('buffer').buffer), 'buffer', 'application/octet-stream'],
    ['a blob', () => new Response(new Blob(['blob'], { type: 'a/b' })), 'blob', 'a/b'],
    ['a large blob', () => new Response(new Blob(['x'.repeat(70_000)], { type: 'a/b' })), 'x'.repeat(70_000), 'a/b'],
    ['a file', () => new Response(Bun.file(import.meta.path)), 'import ', 'text/javascript;charset=utf-8'],
    ['URLSearchParams', () => new Response(new URLSearchParams('a=b')), 'a=b', 'application/x-www-form-urlencoded;charset=UTF-8'],
    [
      'FormData',
      () => {
        const form = new FormData();
        form.set('a', 'b');
        return new Response(form);
      },
      '--',
      'multipart/form-data',
    ],
    ['a native Response', () => new NativeResponse('native', { headers: { 'content-type': 'a/b' } }), 'native', 'a/b'],
    ['a native Response without body', () => new NativeResponse(null, { status: 202 }), '', null],
    ['its stream wrapped again', () => new Response(new Response('again').body), 'again', 'text/plain;charset=utf-8'],
  ])('%s', async (_name, make, text, type) => {
    const core = new FakeCore(() => make());
    const answer = await core.exchange('/');
    expect(core.errors).toEqual([]);
    expect(answer.text().slice(0, text.length)).toBe(text);
    if (type === null) expect(answer.header('content-type')).toBeNull();
    else expect(answer.header('content-type')).toStartWith(type);
    expect(answer.header('content-length')).toBe(String(Buffer.concat(answer.chunks).byteLength));
    expect([answer.state, core.frontend.pending]).toEqual(['complete', 0]);
  });

  test('several Set-Cookie fields stay apart, and framing fields are left to the core', async () => {
    const headers = new Headers({
      'x-a': '1',
      date: 'x',
      connection: 'upgrade',
      'keep-alive': 'x',
      'transfer-encoding': 'chunked',
      'content-length': '99',
    });
    headers.append('set-cookie', 'a=1; Path=/');
    headers.append('set-cookie', 'b=2');
    for (const init of [{ headers }, { headers: [...headers] as [string, string][] }]) {
      const core = new FakeCore(() => new Response('x', init));
      const answer = await core.exchange('/');
      expect(answer.headers.sort()).toEqual([
        ['content-length', '1'],
        ['content-type', 'text/plain;charset=utf-8'],
        ['set-cookie', 'a=1; Path=/'],
        ['set-cookie', 'b=2'],
        ['x-a', '1'],
      ]);
      expect(answer.close).toBe(false);
    }
  });

  test('Connection: close closes', async () => {
    const core = new FakeCore(
      (request) => new Response(request.url.endsWith('/s') ? new Blob(['x']).stream() : 'x', { headers: { Connection: 'close' } }),
    );
    expect((await core.exchange('/')).close).toBe(true);
    expect((await core.exchange('/s')).close).toBe(true);
  });

  test('204, 205 and 304 have no content, and their streams are cancelled', async () => {
    for (const status of [204, 205, 304]) {
      let cancelled = 0;
      const core = new FakeCore(
        (request) =>
          new Response(
            request.url.endsWith('/s')
              ? new ReadableStream({
                  cancel: () => {
                    cancelled += 1;
                  },
                })
              : 'text',
            {
              status,
              headers: { etag: '"x"' },
            },
          ),
      );
      for (const target of ['/s', '/']) {
        const answer = await core.exchange(target);
        expect([answer.status, answer.text(), answer.header('etag'), answer.header('content-type')]).toEqual([status, '', '"x"', null]);
      }
      expect(cancelled).toBe(1);
    }
  });
});

describe('failures', () => {
  const failing: [string, () => unknown, string][] = [
    [
      'throws',
      () => {
        throw new Error('boom');
      },
      'handler',
    ],
    ['rejects', () => Promise.reject(new Error('boom')), 'handler'],
    [
      'throws something odd',
      () => {
        throw undefined;
      },
      'handler',
    ],
    ['returns nothing', () => undefined, 'handler'],
    ['returns a string', () => 'text', 'handler'],
    ['resolves to an object', async () => ({}), 'handler'],
    ['answers 101', () => new Response(null, { status: 101 }), 'response'],
    ['answers with Response.error()', () => Response.error(), 'response'],
    [
      'answers with a used response',
      async () => {
        const used = new Response('x');
        await used.text();
        return used;
      },
      'response',
    ],
    [
      'answers with a used native response',
      async () => {
        const used = new NativeResponse('x');
        await used.text();
        return used;
      },
      'response',
    ],
    [
      'answers with a locked stream',
      () => {
        const stream = new ReadableStream();
        const response = new Response(stream);
        stream.getReader();
        return response;
      },
      'response',
    ],
    ['answers with a file that is not there', () => new Response(Bun.file('/nonexistent/file')), 'response'],
    [
      'answers with a stream that fails at once',
      () =>
        new Response(
          new ReadableStream({
            pull() {
              throw new Error('boom');
            },
          }),
        ),
      'stream',
    ],
    [
      'answers with a stream of objects',
      () =>
        new Response(
          new ReadableStream({
            start(c) {
              c.enqueue({});
            },
          }),
        ),
      'stream',
    ],
  ];
  test.each(failing)('a handler that %s is answered 500, and reported once', async (_name, handler, where) => {
    const core = new FakeCore(handler);
    const answer = await core.exchange('/path?q', { method: 'POST' });
    expect([answer.status, answer.text(), answer.header('content-type'), answer.state]).toEqual([
      500,
      'Internal Server Error',
      'text/plain;charset=utf-8',
      'complete',
    ]);
    expect(core.errors.map(({ context }) => context)).toEqual([
      { where: where as 'handler', method: 'POST', url: 'http://localhost:8080/path?q', requestId: expect.any(String) },
    ]);
    expect(core.frontend.pending).toBe(0);
  });

  test('a response sent twice fails the second time', async () => {
    const shared = new Response('x');
    const core = new FakeCore(() => shared);
    expect((await core.exchange('/')).status).toBe(200);
    expect((await core.exchange('/')).status).toBe(500);
  });

  test('a stream that fails half-way is broken off, and reported', async () => {
    let controller!: ReadableStreamDefaultController;
    const core = new FakeCore(
      () =>
        new Response(
          new ReadableStream({
            start: (c) => {
              controller = c;
            },
          }),
        ),
    );
    const answer = core.request('/');
    controller.enqueue(chunk('part'));
    await settle();
    controller.error(new Error('boom'));
    await answer.done;
    expect([answer.status, answer.text(), answer.state]).toEqual([200, 'part', 'aborted']);
    expect(core.errors.map(({ error, context }) => [(error as Error).message, context.where])).toEqual([['boom', 'stream']]);
  });

  test('a handler that fails after the client left is reported, but not with the AbortError it passes on', async () => {
    for (const [reason, reports] of [
      [undefined, 0],
      [new Error('own'), 1],
    ] as const) {
      const core = new FakeCore(
        (request) => new Promise((_, reject) => request.signal.addEventListener('abort', () => reject(reason ?? request.signal.reason))),
      );
      const sent = core.request('/');
      core.leave(sent);
      await settle();
      expect(core.errors.length).toBe(reports);
    }
  });

  test('a handler that answers after the client left has its stream cancelled', async () => {
    let cancelled = false;
    const { promise, resolve } = Promise.withResolvers<Response>();
    const core = new FakeCore(() => promise);
    core.leave(core.request('/'));
    resolve(
      new Response(
        new ReadableStream({
          cancel: () => {
            cancelled = true;
          },
        }),
      ),
    );
    await settle();
    expect([cancelled, core.errors.length, core.frontend.pending]).toEqual([true, 0, 0]);
  });
});

describe('a streamed response', () => {
  test('one chunk and the end go out in one piece', async () => {
    const core = new FakeCore(
      () =>
        new Response(
          new ReadableStream({
            start(c) {
              c.enqueue(chunk('only'));
              c.close();
            },
          }),
        ),
    );
    const answer = core.request('/');
    await answer.done;
    expect([answer.length, answer.text(), answer.header('content-length')]).toEqual([undefined, 'only', '4']);
  });

  test('an empty stream is an empty response', async () => {
    const core = new FakeCore(() => new Response(new ReadableStream({ start: (c) => c.close() })));
    const answer = await core.exchange('/');
    expect([answer.length, answer.header('content-length')]).toEqual([undefined, '0']);
  });

  test('chunks are strings or any kind of bytes; empty ones are left out', async () => {
    const core = new FakeCore(
      () =>
        new Response(
          new ReadableStream({
            start(c) {
              for (const value of ['a', '', chunk('b'), chunk(''), chunk('c').buffer, new DataView(chunk('xd').buffer, 1)])
                c.enqueue(value);
              c.close();
            },
          }),
        ),
    );
    const answer = await core.exchange('/');
    expect([answer.length, answer.chunks.map((bytes) => Buffer.from(bytes).toString())]).toEqual([-1, ['a', 'b', 'c', 'd']]);
  });

  test('the header goes out before the first chunk when that takes its time', async () => {
    let controller!: ReadableStreamDefaultController;
    const core = new FakeCore(
      () =>
        new Response(
          new ReadableStream({
            start: (c) => {
              controller = c;
            },
          }),
          { headers: { 'content-type': 'text/event-stream' } },
        ),
    );
    const answer = core.request('/');
    expect(answer.state).toBe('none');
    await settle();
    expect([answer.state, answer.length, answer.header('content-type')]).toEqual(['streaming', -1, 'text/event-stream']);
    controller.enqueue(chunk('data: 1\n\n'));
    await settle();
    expect(answer.text()).toBe('data: 1\n\n');
    controller.close();
    await answer.done;
    expect([answer.state, core.frontend.pending]).toEqual(['complete', 0]);
  });

  test('a stream of events tells proxies not to hold it, unless the handler says otherwise; HEAD tells the same', async () => {
    const events = (headers: Record<string, string>) => () =>
      new Response(new ReadableStream({ start: (c) => c.enqueue(chunk('data: 1\n\n')) }), { headers });
    for (const [headers, expected] of [
      [{ 'content-type': 'text/event-stream' }, 'no'],
      [{ 'content-type': 'Text/Event-Stream; charset=utf-8' }, 'no'],
      [{ 'content-type': 'text/event-stream', connection: 'close' }, 'no'],
      [{ 'content-type': 'text/event-stream', 'X-Accel-Buffering': 'yes' }, 'yes'],
      [{ 'content-type': 'text/event-streams' }, undefined],
      [{ 'content-type': 'text/plain' }, undefined],
    ] as [Record<string, string>, string | undefined][]) {
      const core = new FakeCore(events(headers));
      for (const method of ['GET', 'HEAD']) {
        const answer = core.request('/', { method });
        await settle();
        expect([method, headers, answer.headers.filter(([name]) => name.toLowerCase() === 'x-accel-buffering').map(([, v]) => v)]).toEqual([
          method,
          headers,
          expected === undefined ? [] : [expected],
        ]);
      }
    }
    const whole = new FakeCore(() => new Response('data: 1\n\n', { headers: { 'content-type': 'text/event-stream' } }));
    expect((await whole.exchange('/')).header('x-accel-buffering')).toBeNull();
  });

  test('Content-Length becomes the length; of one that is wrong the client gets what can be had, and it is reported', async () => {
    for (const [length, state, text, problem] of [
      ['4', 'complete', 'abcd', undefined],
      ['3', 'complete', 'abc', 'The body is longer than its Content-Length of 3: it has 4 bytes or more, and was cut off'],
      ['5', 'aborted', 'abcd', 'The body has 4 bytes and its Content-Length says 5: the response was broken off'],
      ['0', 'complete', '', 'The body is longer than its Content-Length of 0: it has 2 bytes or more, and was cut off'],
      ['x', 'complete', 'abcd', undefined],
    ] as const) {
      const core = new FakeCore(
        () =>
          new Response(
            new ReadableStream({
              start(c) {
                c.enqueue('ab');
                c.enqueue('cd');
                c.close();
              },
            }),
            { headers: { 'content-length': length } },
          ),
      );
      const answer = await core.exchange('/');
      expect([length, answer.state, answer.length, answer.text()]).toEqual([length, state, length === 'x' ? -1 : Number(length), text]);
      expect(core.errors.map(({ error, context }) => [(error as Error).message, context.where])).toEqual(
        problem === undefined ? [] : [[problem, 'response']],
      );
      expect(core.frontend.pending).toBe(0);
      const single = new FakeCore(
        () =>
          new Response(
            new ReadableStream({
              start(c) {
                c.enqueue('abcd');
                c.close();
              },
            }),
            { headers: { 'content-length': length } },
          ),
      );
      const whole = await single.exchange('/');
      expect([whole.state, whole.text()]).toEqual(['complete', 'abcd']);
      expect(single.errors).toHaveLength(problem === undefined ? 0 : 1);
    }
  });

  test('past the high-water mark the source is not read until the client has drained', async () => {
    let pulls = 0;
    const core = new FakeCore(
      () =>
        new Response(
          new ReadableStream(
            {
              pull(c) {
                pulls += 1;
                if (pulls > 50) c.close();
                else c.enqueue(new Uint8Array(1000));
              },
            },
            { highWaterMark: 0 },
          ),
        ),
      { highWater: 4000 },
    );
    core.slow = true;
    const answer = core.request('/');
    let turns = 0;
    for (; answer.state !== 'complete' && turns < 50; turns += 1) {
      await settle();
      expect(core.queued).toBeLessThanOrEqual(5000);
      core.take(answer);
    }
    await answer.done;
    expect([Buffer.concat(answer.chunks).byteLength, turns >= 9]).toEqual([50_000, true]);
  });

  test('a client that leaves cancels the source, with the reason, whether it waits, writes or has backpressure', async () => {
    for (const slow of [false, true]) {
      let reason: unknown;
      let signal!: AbortSignal;
      const core = new FakeCore(
        (request) => {
          signal = request.signal;
          return new Response(
            new ReadableStream(
              {
                pull: (c) => (slow ? c.enqueue(new Uint8Array(100)) : new Promise(() => {})),
                cancel: (why) => {
                  reason = why;
                },
              },
              { highWaterMark: 0 },
            ),
          );
        },
        { highWater: 50 },
      );
      core.slow = slow;
      const answer = core.request('/');
      await settle();
      core.leave(answer);
      await settle();
      expect([(reason as DOMException).name, signal.aborted, core.frontend.pending, core.errors.length]).toEqual([
        'AbortError',
        true,
        0,
        0,
      ]);
    }
  });

  test.each([
    ['at once', (c: ReadableStreamDefaultController) => c.enqueue(chunk('x'))],
    ['soon', async (c: ReadableStreamDefaultController) => c.enqueue(chunk('x'))],
  ])('an endless source that answers %s lets the news through that the client left', async (_name, pull) => {
    const core = new FakeCore(() => new Response(new ReadableStream({ pull })));
    const answer = core.request('/');
    await settle();
    expect(answer.chunks.length).toBeGreaterThan(64);
    core.leave(answer);
    await settle();
    const { length } = answer.chunks;
    await settle();
    expect([answer.chunks.length, core.frontend.pending]).toEqual([length, 0]);
  });

  test('a source whose cancel fails does no harm', async () => {
    const core = new FakeCore(
      () => new Response(new ReadableStream({ pull: () => new Promise(() => {}), cancel: () => Promise.reject(new Error('no')) })),
    );
    const answer = core.request('/');
    await settle();
    core.leave(answer);
    await settle();
    expect(core.frontend.pending).toBe(0);
  });

  test('the request body streamed back is an echo, with nothing lost', async () => {
    const core = new FakeCore((request) => new Response(request.body));
    const sent = core.request('/', { method: 'POST', flags: flags.hasBody });
    let expected = '';
    for (let i = 0; i < 20; i += 1) {
      const part = `${i}-`.repeat(i + 1);
      expected += part;
      core.body(sent, part, i === 19);
      if (i % 3 === 0) await settle();
    }
    await sent.done;
    expect([sent.text() === expected, sent.acknowledged]).toEqual([true, expected.length]);
  });

  test('fetch() responses are passed on', async () => {
    using server = Bun.serve({
      port: 0,
      fetch: () => new NativeResponse('from afar', { status: 203, headers: { 'x-a': 'b', 'set-cookie': 'c=d' } }),
    });
    const core = new FakeCore(() => fetch(server.url));
    const answer = await core.exchange('/');
    expect([answer.status, answer.header('x-a'), answer.header('set-cookie'), answer.text()]).toEqual([203, 'b', 'c=d', 'from afar']);
  });
});

describe('HEAD', () => {
  test('has the length of the body that GET would have, and no body', async () => {
    for (const make of [
      () => new Response('hello'),
      () => new Response(chunk('hello')),
      () => new Response(new Blob(['hello'])),
      () => new Response(null, new Response('hello')),
    ]) {
      const core = new FakeCore(make);
      const answer = await core.exchange('/', { method: 'HEAD' });
      expect([answer.header('content-length'), answer.text(), answer.state]).toEqual(['5', '', 'complete']);
    }
  });

  test('has the length of a body that is there, whatever the handler says: GET would send that one', async () => {
    for (const body of ['x', new Uint8Array(1), new Blob(['x'])]) {
      const core = new FakeCore(() => new Response(body, { headers: { 'content-length': '1234' } }));
      const answer = await core.exchange('/', { method: 'HEAD' });
      expect([answer.header('content-length'), answer.text()]).toEqual(['1', '']);
    }
  });

  test('keeps the Content-Length that the handler gave where there is no body to measure', async () => {
    for (const body of [null, new ReadableStream()]) {
      const core = new FakeCore(() => new Response(body, { headers: { 'content-length': '1234' } }));
      const answer = await core.exchange('/', { method: 'HEAD' });
      expect([answer.header('content-length'), answer.length, answer.text()]).toEqual(['1234', 1234, '']);
    }
  });

  test('does not read a stream but cancels it, also one that the response was made from', async () => {
    for (const wrap of [(r: Response) => r, (r: Response) => new Response(null, r)]) {
      let pulled = false;
      let cancelled = false;
      const core = new FakeCore(() =>
        wrap(
          new Response(
            new ReadableStream(
              {
                pull: () => {
                  pulled = true;
                },
                cancel: () => {
                  cancelled = true;
                },
              },
              { highWaterMark: 0 },
            ),
            { headers: { 'x-a': '1' } },
          ),
        ),
      );
      const answer = await core.exchange('/', { method: 'HEAD' });
      expect([answer.length, answer.header('x-a'), pulled, cancelled, answer.state]).toEqual([-1, '1', false, true, 'complete']);
    }
  });
});
