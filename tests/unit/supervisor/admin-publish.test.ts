import { beforeEach, describe, expect, test } from 'bun:test';
import { Validator } from '@seriousme/openapi-schema-validator';
import fc from 'fast-check';
import { Hono } from 'hono';
import { Registry } from 'prom-client';
import type { Operation, OperationProblem, OperationResult } from '../../../src/process/operations.ts';
import type { AdminView, ReloadAnswer } from '../../../src/supervisor/admin.ts';
import { adminApp } from '../../../src/supervisor/admin-app.ts';
import { type AdminEnv, readBody } from '../../../src/supervisor/admin-body.ts';
import { describeAdmin } from '../../../src/supervisor/admin-openapi.ts';
import { healthSchema } from '../../../src/supervisor/admin-schemas.ts';

const token = 'a token of the tests'.replaceAll(' ', '-');

let performed: Operation[];
/** Of each operation. */
let resultOf: (operation: Operation, place: number) => OperationResult;
let reloaded: ReloadAnswer;
let app: ReturnType<typeof adminApp>;

function view(more: Partial<AdminView> = {}): AdminView {
  return {
    health: () => ({
      status: 'ok',
      workers: [],
      version: '1.2.3',
      pid: 1,
      generation: 1,
      draining: [],
      reload: { requests: 0, isRunning: false, last: null },
    }),
    notReady: () => undefined,
    metrics: async () => new Registry(),
    perform: async (operations) => {
      performed.push(...operations);
      return operations.map(resultOf);
    },
    reload: async () => reloaded,
    ...more,
  };
}

let defects: unknown[];
const appOf = (shown: AdminView) => adminApp(shown, token, (error) => defects.push(error));

beforeEach(() => {
  defects = [];
  performed = [];
  resultOf = () => ({ answer: {} });
  reloaded = { kind: 'reloaded', generation: 3 };
  app = appOf(view());
});

interface Answer {
  readonly status: number;
  // biome-ignore lint/suspicious/noExplicitAny: whatever came as JSON
  readonly body: any;
  readonly headers: Headers;
}

async function post(
  path: string,
  body: string | Uint8Array<ArrayBuffer> | undefined,
  type: string | undefined,
  shown: string | undefined = token,
): Promise<Answer> {
  const headers = new Headers();
  if (type !== undefined) headers.set('content-type', type);
  if (shown !== '') headers.set('authorization', `Bearer ${shown}`);
  const response = await app.request(path, { method: 'POST', headers, ...(body === undefined ? {} : { body }) });
  return { status: response.status, body: await response.json(), headers: response.headers };
}
const published = () => performed.flatMap((each) => (each.kind === 'publish' ? [each] : []));
const postJson = (value: unknown) => post('/publish', JSON.stringify(value), 'application/json; charset=utf-8');

describe('the token', () => {
  test('is asked for by everything that changes something, and by nothing else', async () => {
    for (const path of ['/publish', '/publish/a', '/publish/a/b', '/reload']) {
      const none = await post(path, 'x', 'text/plain', '');
      expect([none.status, none.headers.get('www-authenticate')]).toEqual([401, 'Bearer']);
      expect(none.body.error).toBe('no token was sent; send Authorization: Bearer <admin.token>');
      expect((await post(path, 'x', 'text/plain', `${token}x`)).body.error).toContain('the token is wrong');
    }
    expect(performed).toEqual([]);
    for (const path of ['/healthz', '/readyz', '/metrics', '/openapi.json']) expect((await app.request(path)).status).toBe(200);
  });

  test('without one nobody gets in, and the answer says what to set', async () => {
    app = adminApp(view(), undefined, () => {});
    const answer = await post('/publish/a', 'x', 'text/plain');
    expect([answer.status, answer.body.error]).toEqual([
      403,
      'this gateway has no token; set admin.token in its config, or ADMIN_TOKEN, and start it again',
    ]);
  });

  test('is told from others whatever the case of the scheme, and by nothing but all of it', async () => {
    const status = async (authorization: string) =>
      (await app.request('/publish/t', { method: 'POST', headers: { authorization }, body: 'x' })).status;
    for (const shown of [`Bearer ${token}`, `bearer ${token}`, `BEARER   ${token}`])
      expect([shown, await status(shown)]).toEqual([shown, 200]);
    for (const shown of [token, `Basic ${token}`, `Bearer${token}`, `Bearer ${token} ${token}`, 'Bearer', `Bearer ${token.slice(1)}`])
      expect([shown, await status(shown)]).toEqual([shown, 401]);
  });

  test('other methods are refused', async () => {
    const response = await app.request('/publish', { method: 'GET' });
    expect([response.status, response.headers.get('allow')]).toEqual([405, 'POST']);
  });
});

describe('POST /publish', () => {
  test('takes one message, text or bytes', async () => {
    expect((await postJson({ topic: 'room/ä', data: 'hello' })).body).toEqual({ published: 1 });
    expect((await postJson({ topic: 't', data: 'AP8=', encoding: 'base64' })).status).toBe(200);
    expect((await postJson({ topic: 't', data: '', encoding: 'text' })).status).toBe(200);
    const message = (topic: string, data: string, isBinary: boolean) =>
      ({ kind: 'publish', topic, data, isBinary, idempotencyKey: undefined }) as const;
    expect(performed).toEqual([message('room/ä', 'hello', false), message('t', 'AP8=', true), message('t', '', false)]);
  });

  test('takes many, in order', async () => {
    const messages = Array.from({ length: 1000 }, (_, at) => ({ topic: `t${at % 3}`, data: String(at) }));
    expect((await postJson({ messages })).body).toEqual({ published: 1000 });
    expect(published().map(({ data }) => data)).toEqual(messages.map(({ data }) => data));
  });

  test('names every mistake and publishes nothing', async () => {
    const wrong = await postJson({
      messages: [
        { topic: '', data: 'a' },
        { topic: 'é'.repeat(513), data: 'a' },
        { topic: 't', data: 'no base64', encoding: 'base64' },
        { topic: 't', data: 5, extra: 1 },
        { topic: 't', data: 'fine' },
      ],
    });
    expect(wrong.status).toBe(400);
    expect(wrong.body.mistakes).toEqual([
      'messages[0].topic: is empty; write the name of a topic',
      'messages[1].topic: is longer than 1024 bytes of UTF-8; write a shorter name',
      'messages[2].data: is not base64 (RFC 4648 §4, with padding)',
      'messages[3].data: is missing, or not a string; write the message as text, or in base64 with "encoding": "base64"',
      'messages[3].extra: has unknown members (extra); write topic, data, encoding, idempotencyKey',
    ]);
    expect((await postJson({ messages: [] })).body.mistakes).toEqual(['messages: is empty; write at least one message']);
    expect((await postJson([])).body.mistakes).toEqual(['the body: is not an object; write { "topic": ..., "data": ... }']);
    expect((await postJson({ messages: Array(1001).fill({ topic: 't', data: '' }) })).body.mistakes).toEqual([
      'messages: has too many messages; write at most 1000',
    ]);
    expect((await postJson({ topic: 't', data: '\ud800' })).status).toBe(400);
    expect(performed).toEqual([]);
  });

  test('a body that is no JSON', async () => {
    expect((await post('/publish', '{', 'application/json')).body.error).toStartWith('the body is not JSON: ');
    expect((await post('/publish', new Uint8Array([0xff]), 'application/json')).body.error).toStartWith('the body is not UTF-8');
    const untyped = await post('/publish', 'x', 'text/plain');
    expect([untyped.status, untyped.body.error]).toEqual([
      415,
      'the body is text/plain; send application/json, or a raw message to /publish/<topic>',
    ]);
  });

  test('a body that is too large is refused with 413', async () => {
    const answer = await post('/publish/t', 'x'.repeat(8 * 1024 * 1024 + 1), 'text/plain');
    expect([answer.status, answer.body.error]).toEqual([413, 'the body is larger than 8388608 bytes; send several requests']);
    expect(performed).toEqual([]);
  });

  test('answers tell what became of it', async () => {
    const problem = (kind: OperationProblem['kind'], error: string) => (resultOf = () => ({ problem: { kind, error } }));
    problem('busy', 'too much');
    expect(await postJson({ topic: 't', data: '' })).toMatchObject({ status: 503 });
    problem('unavailable', 'no worker is ready; try again');
    const answer = await postJson({ topic: 't', data: '' });
    expect([answer.status, answer.headers.get('retry-after'), answer.body]).toEqual([503, '1', { error: 'no worker is ready; try again' }]);
    problem('unknown', 'the worker that was asked has ended');
    expect(await postJson({ topic: 't', data: '' })).toMatchObject({
      status: 504,
      body: { error: 'the worker that was asked has ended: it may or may not have been done' },
    });
    problem('failed', 'a defect');
    expect((await postJson({ messages: [{ topic: 't', data: '' }] })).body).toEqual({ error: 'a defect' });
    problem('wrong', 'no topic');
    expect((await post('/publish/t', 'x', 'text/plain')).status).toBe(400);
  });
});

describe('positions', () => {
  const epoch = '00000000000000ab';
  beforeEach(() => {
    resultOf = (operation, place) => ({ answer: 'topic' in operation && operation.topic === 'direct' ? {} : { epoch, offset: place + 1 } });
  });

  test('of one message stand beside the count, of several in a list, and nowhere when no topic has history', async () => {
    const [logged, direct] = [
      { topic: 'logged', data: '' },
      { topic: 'direct', data: '' },
    ];
    expect((await postJson(logged)).body).toEqual({ published: 1, epoch, offset: 1 });
    expect((await post('/publish/logged', '', 'text/plain')).body).toEqual({ published: 1, epoch, offset: 1 });
    expect((await postJson(direct)).body).toEqual({ published: 1 });
    expect((await postJson({ messages: [logged, direct, logged] })).body).toEqual({
      published: 3,
      positions: [{ epoch, offset: 1 }, null, { epoch, offset: 3 }],
    });
    expect((await postJson({ messages: [logged] })).body).toEqual({ published: 1, positions: [{ epoch, offset: 1 }] });
    expect((await postJson({ messages: [direct, direct] })).body).toEqual({ published: 2 });
  });

  test('of messages that were published stand beside what became of the others', async () => {
    const problems: readonly OperationProblem[] = [
      { kind: 'unavailable', error: 'the log cannot be reached' },
      { kind: 'unknown', error: 'a worker has ended' },
    ];
    resultOf = (_, place) => (problems[place] === undefined ? { answer: { epoch, offset: 7 } } : { problem: problems[place] });
    const answer = await postJson({ messages: Array(3).fill({ topic: 't', data: '' }) });
    expect([answer.status, answer.body]).toEqual([
      504,
      {
        error: 'a worker has ended: it may or may not have been done',
        published: 1,
        results: [
          { error: 'the log cannot be reached' },
          { error: 'a worker has ended: it may or may not have been done' },
          { epoch, offset: 7 },
        ],
      },
    ]);
  });
});

describe('idempotency keys', () => {
  const keys = () => published().map(({ idempotencyKey }) => idempotencyKey);
  const postWith = (key: string, path: string, body: string, type: string) =>
    app.request(path, {
      method: 'POST',
      body,
      headers: { authorization: `Bearer ${token}`, 'content-type': type, 'idempotency-key': key },
    });

  test('are taken from the field, as it is or as a string of RFC 8941, or from the body', async () => {
    await postWith('a-1', '/publish/t', 'x', 'text/plain');
    await postWith('"8e03978e \\"q\\""', '/publish/t', 'x', 'text/plain');
    await postWith('b', '/publish', JSON.stringify({ topic: 't', data: '' }), 'application/json');
    await postWith('c', '/publish', JSON.stringify({ topic: 't', data: '', idempotencyKey: 'c' }), 'application/json');
    await postJson({ messages: ['d', undefined, 'e'].map((idempotencyKey) => ({ topic: 't', data: '', idempotencyKey })) });
    expect(keys()).toEqual(['a-1', '8e03978e "q"', 'b', 'c', 'd', undefined, 'e']);
  });

  test('that are none, too long or two are refused', async () => {
    const told = async (response: Response | Promise<Response>) => {
      const answer = await response;
      return [answer.status, ((await answer.json()) as { error: string }).error];
    };
    const long = 'k'.repeat(129);
    expect(await told(postWith(long, '/publish/t', 'x', 'text/plain'))).toEqual([
      400,
      'the field Idempotency-Key is longer than 128 bytes of UTF-8; write a shorter one',
    ]);
    expect(await told(postWith('""', '/publish/t', 'x', 'text/plain'))).toEqual([
      400,
      'the field Idempotency-Key is empty; write a text of your own that names this message, or leave it out',
    ]);
    expect(
      await told(postWith('a', '/publish', JSON.stringify({ topic: 't', data: '', idempotencyKey: 'b' }), 'application/json')),
    ).toEqual([400, 'the field Idempotency-Key and "idempotencyKey" in the body differ; write one of them']);
    expect(await told(postWith('a', '/publish', JSON.stringify({ messages: [{ topic: 't', data: '' }] }), 'application/json'))).toEqual([
      400,
      'the field Idempotency-Key is for one message; write "idempotencyKey" in each of several',
    ]);
    expect((await postJson({ topic: 't', data: '', idempotencyKey: long })).body.mistakes).toEqual([
      'idempotencyKey: is longer than 128 bytes of UTF-8; write a shorter one',
    ]);
    expect((await postJson({ topic: 't', data: '', idempotencyKey: 5 })).body.mistakes).toEqual([
      'idempotencyKey: is not a string; write a text of your own that names this message',
    ]);
    expect(performed).toEqual([]);
  });
});

describe('POST /publish/<topic>', () => {
  test('the type says whether it is text', async () => {
    await post('/publish/t', 'é', 'text/plain;charset=utf-8');
    await post('/publish/t', '{}', 'application/json');
    await post('/publish/t', '{}', 'application/cloudevents+json');
    await post('/publish/t', new Uint8Array([0, 255]), 'application/octet-stream');
    await post('/publish/t', undefined, undefined);
    // curl --data, without a word about the type.
    await post('/publish/t', 'é', 'application/x-www-form-urlencoded');
    await post('/publish/t', new Uint8Array([0, 255]), 'application/x-www-form-urlencoded');
    expect(published().map(({ data, isBinary }) => [data, isBinary])).toEqual([
      ['é', false],
      ['{}', false],
      ['{}', false],
      ['AP8=', true],
      ['', true],
      ['é', false],
      ['AP8=', true],
    ]);
    expect((await post('/publish/t', new Uint8Array([0xc3]), 'text/plain')).body.error).toStartWith('the body is not UTF-8');
  });

  test('any topic can be written in the path', async () => {
    await fc.assert(
      fc.asyncProperty(fc.string({ unit: 'grapheme', minLength: 1, maxLength: 40 }), async (topic) => {
        performed = [];
        const { status } = await post(`/publish/${encodeURIComponent(topic)}`, '', 'text/plain');
        // What URLs take out of a path, whoever writes it.
        if (/^\.{1,2}$/.test(topic)) return;
        expect([status, published()[0]?.topic]).toEqual([200, topic]);
      }),
      { numRuns: 200 },
    );
    performed = [];
    await post('/publish/%EF%BF%BD%20', '', 'text/plain');
    expect(published()[0]?.topic).toBe('\ufffd ');
    performed = [];
    await post('/publish/room/a%2Fb', '', 'text/plain');
    expect(published()[0]?.topic).toBe('room/a/b');
  });

  test('a path that is no UTF-8, empty, or too long', async () => {
    // The last: what Bun makes of an octet that is not encoded.
    for (const path of ['/publish/%ff', '/publish/%zz', '/publish/a%ED%A0%80'])
      expect((await post(path, '', 'text/plain')).body.error).toBe('the topic in the path is not percent-encoded UTF-8');
    const empty = await post('/publish/', 'x', 'text/plain');
    expect([empty.status, empty.body.error]).toEqual([400, 'the topic in the path is empty; write the name of a topic']);
    expect((await app.request('/publish/')).status).toBe(405);
    expect((await post(`/publish/${'a'.repeat(1025)}`, '', 'text/plain')).body.error).toBe(
      'the topic in the path is longer than 1024 bytes of UTF-8; write a shorter name',
    );
  });
});

describe('bodies', () => {
  /** A body that comes in parts, when the test wants. */
  function slowBody() {
    let push: (bytes: number) => void = () => {};
    let end: () => void = () => {};
    let isCancelled = false;
    const stream = new ReadableStream<Uint8Array>({
      start(controller) {
        push = (bytes) => controller.enqueue(new Uint8Array(bytes));
        end = () => controller.close();
      },
      cancel() {
        isCancelled = true;
      },
    });
    return { stream, push: (bytes: number) => push(bytes), end: () => end(), wasCancelled: () => isCancelled };
  }
  const bounded = (bytes: number) =>
    new Hono<AdminEnv>().post('/', readBody(bytes), (context) => context.text(`${context.get('body').length}`));
  const send = (to: Hono<AdminEnv>, body: NonNullable<RequestInit['body']>, headers: Record<string, string> = {}) =>
    to.request('/', { method: 'POST', body, headers, duplex: 'half' } as RequestInit);

  test('are whole, in one part or many, or none', async () => {
    const to = bounded(1000);
    const slow = slowBody();
    const answer = send(to, slow.stream);
    for (const bytes of [1, 0, 400, 2]) slow.push(bytes);
    slow.end();
    expect(await (await answer).text()).toBe('403');
    expect(await (await to.request('/', { method: 'POST' })).text()).toBe('0');
  });

  test('that do not fit with the others are refused before more of them is read, and what they held is given back', async () => {
    const to = bounded(100);
    const first = slowBody();
    const waiting = send(to, first.stream);
    first.push(60);
    await Bun.sleep(1);
    const second = slowBody();
    const refused = send(to, second.stream);
    second.push(41);
    const answer = await refused;
    expect([answer.status, answer.headers.get('retry-after'), second.wasCancelled()]).toEqual([503, '1', true]);
    expect((await send(to, 'x', { 'content-length': '41' })).status).toBe(503);
    expect((await send(to, 'x', { 'content-length': '40' })).status).toBe(200);
    first.end();
    expect(await (await waiting).text()).toBe('60');
    expect((await send(to, 'x'.repeat(100))).status).toBe(200);
    expect((await send(to, 'x'.repeat(101))).status).toBe(503);
    expect((await send(to, 'x'.repeat(100))).status).toBe(200);
  });

  test('of a client that leaves, and of a handler that throws, are given back', async () => {
    const to = bounded(100).post('/throws', readBody(100), () => {
      throw new Error('a defect');
    });
    to.onError((_, context) => context.text('', 500));
    for (let turn = 0; turn < 3; turn++) {
      const broken = new ReadableStream({
        start(controller) {
          controller.enqueue(new Uint8Array(100));
          controller.error(new DOMException('gone', 'AbortError'));
        },
      });
      expect((await send(to, broken)).status).toBe(500);
      expect((await to.request('/throws', { method: 'POST', body: 'x'.repeat(100) })).status).toBe(500);
    }
    expect((await send(to, 'x'.repeat(100))).status).toBe(200);
  });

  test('a length that is none counts for nothing', async () => {
    const to = bounded(100);
    for (const length of ['abc', '-5', '1e9', '']) expect((await send(to, 'x', { 'content-length': length })).status).toBe(200);
    expect((await send(to, 'x'.repeat(101))).status).toBe(503);
  });
});

describe('what goes wrong in the gateway itself', () => {
  test('is told to the log, and not when the client has left', async () => {
    const failing = () => Promise.reject(new Error('a defect'));
    app = appOf(view({ perform: failing }));
    const answer = await post('/publish/t', 'x', 'text/plain');
    expect([answer.status, answer.body.error]).toEqual([500, 'the gateway has failed to answer; its log says why']);
    expect(defects).toEqual([new Error('a defect')]);
    const left = new AbortController();
    left.abort();
    const headers = { authorization: `Bearer ${token}` };
    await app.request(new Request('http://x/publish/t', { method: 'POST', headers, signal: left.signal }));
    expect(defects.length).toBe(1);
  });
});

describe('POST /reload', () => {
  test('answers what became of it', async () => {
    expect(await post('/reload', undefined, undefined)).toMatchObject({ status: 200, body: { generation: 3 } });
    reloaded = { kind: 'wrong config', mistakes: ['listen: is 5'] };
    expect(await post('/reload', undefined, undefined)).toMatchObject({ status: 422, body: { mistakes: ['listen: is 5'] } });
    reloaded = { kind: 'failed', reason: 'a worker did not start' };
    expect(await post('/reload', undefined, undefined)).toMatchObject({ status: 409, body: { error: 'a worker did not start' } });
    app = appOf(view({ reload: undefined, perform: undefined }));
    expect((await post('/reload', undefined, undefined)).status).toBe(404);
    expect((await post('/publish/t', 'x', 'text/plain')).status).toBe(404);
    expect((await postJson({ topic: 't', data: '' })).status).toBe(404);
  });
});

describe('GET /openapi.json', () => {
  // biome-ignore lint/suspicious/noExplicitAny: a document of many shapes
  const described = async (): Promise<any> => (await app.request('/openapi.json')).json();

  test('is a valid OpenAPI 3.1 document', async () => {
    const result = await new Validator().validate(await described());
    expect([result.valid, result.errors]).toEqual([true, undefined]);
    expect(await described()).toEqual(JSON.parse(JSON.stringify(describeAdmin('1.2.3'))));
  });

  test('health is as it is described', async () => {
    expect(healthSchema.strict().safeParse(await (await app.request('/healthz')).json()).error).toBeUndefined();
    const redis = { state: 'lost', lagSeconds: 0.1, topics: 1, outboxMessages: 2, outboxBytes: 3, gaps: 4, drops: 5 } as const;
    app = appOf(view({ health: () => ({ ...view().health(), redis }) }));
    expect(healthSchema.strict().safeParse(await (await app.request('/healthz')).json()).error).toBeUndefined();
    expect(await (await app.request('/readyz')).json()).toEqual({ status: 'ready', redis: 'lost' });
  });

  test('describes every path there is, with its methods, and every status that is answered', async () => {
    const { paths } = await described();
    const listed = ((await (await app.request('/nothing')).json()) as { paths: string[] }).paths.map((path) =>
      path.replaceAll(/<(\w+)>/g, '{$1}'),
    );
    expect(Object.keys(paths).toSorted()).toEqual(listed.toSorted());
    const requests: [path: string, answer: Answer][] = [
      ['/publish', await postJson({ topic: 't', data: '' })],
      ['/publish', await postJson({})],
      ['/publish', await post('/publish', '', 'text/plain')],
      ['/publish/{topic}', await post('/publish/t', '', 'text/plain', '')],
      ['/reload', await post('/reload', undefined, undefined)],
    ];
    for (const path of ['/disconnect', '/users/{id}/send', '/batch']) {
      const url = path.replace('{id}', 'ann');
      requests.push([path, await post(url, '{', 'application/json')], [path, await post(url, 'x', 'text/plain', '')]);
    }
    for (const kind of ['wrong', 'absent', 'unavailable', 'busy', 'unknown'] as const) {
      resultOf = () => ({ problem: { kind, error: '' } });
      requests.push(['/disconnect', await post('/disconnect', '{"user":"a"}', 'application/json')]);
      if (kind !== 'unknown') {
        const { status } = await app.request('/topics/a/history');
        expect(Object.keys(paths['/topics/{topic}/history'].get.responses)).toContain(String(status));
      }
      requests.push(['/publish/{topic}', await post('/publish/t', '', 'text/plain')]);
    }
    for (const [path, { status }] of requests) expect(Object.keys(paths[path].post.responses)).toContain(String(status));
  });
});
