import { describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import { abortCause, eventFlag } from '../../../ffi/layout.ts';
import type { RequestHead } from '../../../src/core/http.ts';
import { RequestIds } from '../../../src/host/request-ids.ts';
import { RequestLog } from '../../../src/host/request-log.ts';
import { createLog } from '../../../src/log.ts';
import { FakeCore } from '../../support/fake-core.ts';

function headOf(target: string, fields: readonly (readonly [string, string])[] = [], more: Partial<RequestHead> = {}): RequestHead {
  const host = 'example.com';
  const raw = host + target + fields.map(([name, value]) => `${name}\n${value}\n`).join('');
  return {
    slot: 1,
    generation: 1,
    request: 1,
    listener: 0,
    flags: 0,
    method: 1,
    raw,
    hostBytes: host.length,
    targetBytes: target.length,
    ...more,
  };
}

const uuid = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

describe('RequestIds', () => {
  const ids = new RequestIds('x-request-id');

  test('takes over an id that is fit for a log, else makes one and keeps to it', () => {
    expect(
      ids.of(
        headOf('/', [
          ['host', 'a'],
          ['x-request-id', 'from:the/proxy=1+2.3_-'],
        ]),
      ),
    ).toBe('from:the/proxy=1+2.3_-');
    for (const unfit of ['', 'a b', 'a"b', 'ä', 'x'.repeat(129)]) {
      const head = headOf('/', [['x-request-id', unfit]]);
      const id = ids.of(head);
      expect(id).toMatch(uuid);
      expect(ids.of(head)).toBe(id);
      expect(ids.given(head)).toBe('');
    }
    expect(ids.of(headOf('/'))).not.toBe(ids.of(headOf('/')));
  });

  test('without a header every id is made here', () => {
    expect(
      new RequestIds(false).of(
        headOf('/', [
          ['x-request-id', 'a'],
          ['', 'b'],
        ]),
      ),
    ).toMatch(uuid);
  });

  test('finds the field wherever it is, and takes no value for its name', () => {
    const word = fc.constantFrom('x-request-id', 'a', 'x', 'request-id', 'ax-request-id', 'x-request-id2');
    fc.assert(
      fc.property(fc.array(fc.tuple(word, word), { maxLength: 6 }), fc.constantFrom('/', '/x-request-id'), (fields, target) => {
        const expected = fields.find(([name]) => name === 'x-request-id')?.[1] ?? '';
        expect(ids.given(headOf(target, fields))).toBe(expected);
      }),
    );
  });
});

describe('the id in responses', () => {
  const requestIds = new RequestIds('x-request-id');
  const fetch = (request: Request, env: { requestId: string }) => {
    const { pathname } = new URL(request.url);
    if (pathname === '/asks') return new Response(env.requestId);
    if (pathname === '/own') return new Response('x', { headers: { 'X-Request-Id': 'of the handler' } });
    if (pathname === '/stream') return new Response(new Blob(['streamed']).stream());
    if (pathname === '/none') return new Response(null, { status: 204 });
    if (pathname === '/throws') throw new Error('on purpose');
    return new Response('plain');
  };
  const named = { 'x-request-id': 'abc' };

  test.each(['/', '/stream', '/none', '/asks', '/throws'])('%s: one that came goes back', async (path) => {
    for (const method of ['GET', 'HEAD']) {
      const core = new FakeCore(fetch, { requestIds });
      expect((await core.exchange(path, { headers: named, method })).header('x-request-id')).toBe('abc');
    }
  });

  test('one that nobody asks for is not made', async () => {
    const core = new FakeCore(fetch, { requestIds });
    expect((await core.exchange('/')).header('x-request-id')).toBeNull();
  });

  test('a handler that asks finds the id that its response carries', async () => {
    const answer = await new FakeCore(fetch, { requestIds }).exchange('/asks');
    expect(answer.text()).toMatch(uuid);
    expect(answer.header('x-request-id')).toBe(answer.text());
  });

  test('a failure is reported under the id that the client sees', async () => {
    const core = new FakeCore(fetch, { requestIds });
    const answer = await core.exchange('/throws');
    expect(answer.header('x-request-id')).toMatch(uuid);
    expect(core.errors[0]?.context.requestId).toBe(answer.header('x-request-id') ?? '');
  });

  test('what the handler sets stays; without a header none is shown; one that somebody else asks for is', async () => {
    expect((await new FakeCore(fetch, { requestIds }).exchange('/own', { headers: named })).header('x-request-id')).toBe('of the handler');
    expect((await new FakeCore(fetch).exchange('/throws', { headers: named })).header('x-request-id')).toBeNull();
    const asks = (_: Request, env: unknown) => new Response(requestIds.of((env as { head: RequestHead }).head));
    const answer = await new FakeCore(asks, { requestIds }).exchange('/');
    expect(answer.header('x-request-id')).toMatch(uuid);
    expect(answer.header('x-request-id')).toBe(answer.text());
  });
});

describe('RequestLog', () => {
  function setUp() {
    const lines: Record<string, unknown>[] = [];
    const log = createLog({ level: 'info' }, { write: (line) => void lines.push(JSON.parse(line)) });
    let now = 1000;
    const requestLog = new RequestLog(
      new RequestIds('x-request-id'),
      log,
      () => '192.0.2.1',
      () => now,
    );
    /** As the core tells of a whole response. */
    const respond = (head: RequestHead, status: number) => {
      requestLog.responseBegan(head, status);
      requestLog.responseEnded(head, true);
    };
    const pass = (ms: number) => {
      now += ms;
    };
    return { lines, requestLog, respond, pass };
  }
  const shown = (line: Record<string, unknown> | undefined) => {
    const { time: _time, level: _level, ...rest } = line ?? {};
    return rest;
  };

  test('a request has one line, without its query', () => {
    const { lines, requestLog, respond, pass } = setUp();
    const head = headOf('/path?secret=1', [['x-request-id', 'id-1']]);
    requestLog.requestBegan(head);
    pass(12.34);
    respond(head, 404);
    expect(lines.map(shown)).toEqual([
      { requestId: 'id-1', method: 'GET', path: '/path', status: 404, ms: 12.3, address: '192.0.2.1', msg: 'GET /path 404' },
    ]);
    respond(head, 404);
    expect(lines.length).toBe(1);
  });

  test('of a WebSocket handshake that is refused the line says what it was', () => {
    const { lines, requestLog, respond } = setUp();
    const flags = eventFlag.requestUpgrade;
    const refused = headOf('/chta', [], { flags });
    requestLog.requestBegan(refused);
    respond(refused, 404);
    const accepted = headOf('/chat', [], { flags, request: 2 });
    requestLog.requestBegan(accepted);
    requestLog.socketOpened(accepted);
    expect(lines.map(({ msg }) => msg)).toEqual(['GET /chta 404 to a WebSocket handshake', 'GET /chat 101']);
  });

  test('a path is written in ASCII, whatever octets came', () => {
    const { lines, requestLog, respond } = setUp();
    const head = headOf('/\x9b31m\xc3\xa4%0a\x7f?\x9b');
    requestLog.requestBegan(head);
    respond(head, 200);
    expect(lines.map(({ path, msg }) => [path, msg])).toEqual([['/%9B31m%C3%A4%0a%7F', 'GET /%9B31m%C3%A4%0a%7F 200']]);
  });

  test('a streamed response has its line at its end, whole or broken off', () => {
    const { lines, requestLog, pass } = setUp();
    for (const request of [1, 2]) requestLog.requestBegan(headOf('/s', [], { request }));
    const [first, second] = [headOf('/s', [], { request: 1 }), headOf('/s', [], { request: 2 })];
    requestLog.responseBegan(first, 200);
    requestLog.responseBegan(second, 206);
    expect(lines).toEqual([]);
    pass(5);
    requestLog.responseEnded(first, true);
    requestLog.responseEnded(second, false);
    expect(lines.map(({ status, problem, ms }) => [status, problem, ms])).toEqual([
      [200, undefined, 5],
      [206, 'the response was broken off', 5],
    ]);
  });

  test('a client that leaves is told of; what is answered later is not', () => {
    const { lines, requestLog, respond } = setUp();
    const head = headOf('/', [], { slot: 9 });
    requestLog.requestBegan(head);
    requestLog.requestAborted({ slot: 9, generation: 1, request: 1 }, abortCause.peerGone, 0);
    respond(head, 200);
    expect(lines.map(({ status, problem, msg }) => [status, problem, msg])).toEqual([[0, 'the client left', 'GET / -']]);
  });

  test('what the core has ended is told of with its cause, and with the status that the client was given', () => {
    const { lines, requestLog } = setUp();
    const end = (cause: number, status: number, begun = 0) => {
      const head = headOf('/', [], { slot: 9 });
      requestLog.requestBegan(head);
      if (begun > 0) requestLog.responseBegan(head, begun);
      requestLog.requestAborted({ slot: 9, generation: 1, request: 1 }, cause, status);
    };
    end(abortCause.refused, 408);
    end(abortCause.refused, 413);
    end(abortCause.refused, 400);
    end(abortCause.refused, 408, 200);
    end(abortCause.writeTimeout, 0, 200);
    end(abortCause.byHost, 0, 200);
    end(abortCause.length, 0, 200);
    end(abortCause.noMemory, 0, 200);
    expect(lines.map(({ status, problem }) => [status, problem])).toEqual([
      [408, 'the body of the request did not come in time (http.bodyTimeout)'],
      [413, 'the body of the request is too large (http.maxBodyBytes)'],
      [400, 'the body of the request was refused with status 400'],
      [200, 'the body of the request did not come in time (http.bodyTimeout)'],
      [200, 'the client took nothing of the response for too long (http.writeTimeout)'],
      [200, 'the response was broken off'],
      [200, 'the body of the response did not have the length that it had announced'],
      [200, 'there was no memory for the response'],
    ]);
  });

  test('a slot that another connection has now does not confuse it', () => {
    const { lines, requestLog, respond } = setUp();
    requestLog.requestBegan(headOf('/old', [], { generation: 1 }));
    requestLog.requestBegan(headOf('/new', [], { generation: 2 }));
    respond(headOf('/old', [], { generation: 1 }), 200);
    respond(headOf('/new', [], { generation: 2 }), 201);
    expect(lines.map(({ path, status }) => [path, status])).toEqual([['/new', 201]]);
  });

  test('a WebSocket has a line when it opens and one when it closes', () => {
    const { lines, requestLog, pass } = setUp();
    const head = headOf('/room/1?token=x', [['x-request-id', 'id-2']], { slot: 4, generation: 7 });
    requestLog.requestBegan(head);
    requestLog.socketOpened(head);
    pass(1500);
    requestLog.socketClosed(4, 6, 1006);
    requestLog.socketClosed(4, 7, 1000);
    requestLog.socketClosed(4, 7, 1000);
    expect(lines.map(({ requestId, status, code, ms, msg }) => ({ requestId, status, code, ms, msg }))).toEqual([
      { requestId: 'id-2', status: 101, code: undefined, ms: 0, msg: 'GET /room/1 101' },
      { requestId: 'id-2', status: undefined, code: 1000, ms: 1500, msg: 'WebSocket /room/1 closed with 1000' },
    ]);
  });
});
