import { beforeEach, describe, expect, test } from 'bun:test';
import { Validator } from '@seriousme/openapi-schema-validator';
import fc from 'fast-check';
import type { Hono } from 'hono';
import { Registry } from 'prom-client';
import { type AdminView, adminApp, type ReloadAnswer } from '../../src/supervisor/admin.ts';
import { describeAdmin } from '../../src/supervisor/admin-openapi.ts';
import { healthSchema } from '../../src/supervisor/admin-schemas.ts';
import type { PublishedMessage, SupervisorMessage } from '../../src/supervisor/boot.ts';
import { Publisher, type PublishOutcome } from '../../src/supervisor/publisher.ts';

const token = 'a token of the tests'.replaceAll(' ', '-');

let published: PublishedMessage[];
let outcome: PublishOutcome;
let reloaded: ReloadAnswer;
let app: Hono;

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
    metrics: new Registry(),
    publish: async (messages) => {
      published.push(...messages);
      return outcome;
    },
    reload: async () => reloaded,
    ...more,
  };
}

beforeEach(() => {
  published = [];
  outcome = { kind: 'published' };
  reloaded = { kind: 'reloaded', generation: 3 };
  app = adminApp(view(), token);
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
const postJson = (value: unknown) => post('/publish', JSON.stringify(value), 'application/json; charset=utf-8');

describe('the token', () => {
  test('is asked for by everything that changes something, and by nothing else', async () => {
    for (const path of ['/publish', '/publish/a', '/publish/a/b', '/reload']) {
      const none = await post(path, 'x', 'text/plain', '');
      expect([none.status, none.headers.get('www-authenticate')]).toEqual([401, 'Bearer']);
      expect(none.body.error).toBe('no token was sent; send Authorization: Bearer <admin.token>');
      expect((await post(path, 'x', 'text/plain', `${token}x`)).body.error).toContain('the token is wrong');
    }
    expect(published).toEqual([]);
    for (const path of ['/healthz', '/readyz', '/metrics', '/openapi.json']) expect((await app.request(path)).status).toBe(200);
  });

  test('without one nobody gets in, and the answer says what to set', async () => {
    app = adminApp(view(), undefined);
    const answer = await post('/publish/a', 'x', 'text/plain');
    expect([answer.status, answer.body.error]).toEqual([
      403,
      'this gateway has no token; set admin.token in its config, or ADMIN_TOKEN, and start it again',
    ]);
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
    expect(published).toEqual([
      { topic: 'room/ä', data: 'hello', isBinary: false },
      { topic: 't', data: 'AP8=', isBinary: true },
      { topic: 't', data: '', isBinary: false },
    ]);
  });

  test('takes many, in order', async () => {
    const messages = Array.from({ length: 1000 }, (_, at) => ({ topic: `t${at % 3}`, data: String(at) }));
    expect((await postJson({ messages })).body).toEqual({ published: 1000 });
    expect(published.map(({ data }) => data)).toEqual(messages.map(({ data }) => data));
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
      'messages[3].extra: has unknown members (extra); write topic, data, encoding',
    ]);
    expect((await postJson({ messages: [] })).body.mistakes).toEqual(['messages: is empty; write at least one message']);
    expect((await postJson([])).body.mistakes).toEqual(['the body: is not an object; write { "topic": ..., "data": ... }']);
    expect((await postJson({ messages: Array(1001).fill({ topic: 't', data: '' }) })).body.mistakes).toEqual([
      'messages: has too many messages; write at most 1000',
    ]);
    expect((await postJson({ topic: 't', data: '\ud800' })).status).toBe(400);
    expect(published).toEqual([]);
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
    expect(published).toEqual([]);
  });

  test('answers tell what became of it', async () => {
    outcome = { kind: 'busy' };
    expect(await postJson({ topic: 't', data: '' })).toMatchObject({ status: 503 });
    outcome = { kind: 'no worker' };
    const answer = await postJson({ topic: 't', data: '' });
    expect([answer.status, answer.headers.get('retry-after')]).toEqual([503, '1']);
    outcome = { kind: 'unknown', reason: 'the worker that was to publish has ended' };
    expect(await postJson({ topic: 't', data: '' })).toMatchObject({
      status: 504,
      body: { error: 'the worker that was to publish has ended: the messages may or may not have gone out' },
    });
  });
});

describe('POST /publish/<topic>', () => {
  test('the type says whether it is text', async () => {
    await post('/publish/t', 'é', 'text/plain;charset=utf-8');
    await post('/publish/t', '{}', 'application/json');
    await post('/publish/t', '{}', 'application/cloudevents+json');
    await post('/publish/t', new Uint8Array([0, 255]), 'application/octet-stream');
    await post('/publish/t', undefined, undefined);
    expect(published.map(({ data, isBinary }) => [data, isBinary])).toEqual([
      ['é', false],
      ['{}', false],
      ['{}', false],
      ['AP8=', true],
      ['', true],
    ]);
    expect((await post('/publish/t', new Uint8Array([0xc3]), 'text/plain')).body.error).toStartWith('the body is not UTF-8');
  });

  test('any topic can be written in the path', async () => {
    await fc.assert(
      fc.asyncProperty(fc.string({ unit: 'grapheme', minLength: 1, maxLength: 40 }), async (topic) => {
        published = [];
        const { status } = await post(`/publish/${encodeURIComponent(topic)}`, '', 'text/plain');
        // What URLs take out of a path, whoever writes it.
        if (/^\.{1,2}$/.test(topic)) return;
        expect([status, published[0]?.topic]).toEqual([200, topic]);
      }),
      { numRuns: 200 },
    );
    published = [];
    await post('/publish/room/a%2Fb', '', 'text/plain');
    expect(published[0]?.topic).toBe('room/a/b');
  });

  test('a path that is no UTF-8, or too long', async () => {
    expect((await post('/publish/%ff', '', 'text/plain')).body.error).toBe('the topic in the path is not percent-encoded UTF-8');
    expect((await post(`/publish/${'a'.repeat(1025)}`, '', 'text/plain')).body.error).toBe(
      'the topic in the path is longer than 1024 bytes of UTF-8; write a shorter name',
    );
  });
});

describe('POST /reload', () => {
  test('answers what became of it', async () => {
    expect(await post('/reload', undefined, undefined)).toMatchObject({ status: 200, body: { generation: 3 } });
    reloaded = { kind: 'wrong config', mistakes: ['listen: is 5'] };
    expect(await post('/reload', undefined, undefined)).toMatchObject({ status: 422, body: { mistakes: ['listen: is 5'] } });
    reloaded = { kind: 'failed', reason: 'a worker did not start' };
    expect(await post('/reload', undefined, undefined)).toMatchObject({ status: 409, body: { error: 'a worker did not start' } });
    app = adminApp(view({ reload: undefined }), token);
    expect((await post('/reload', undefined, undefined)).status).toBe(404);
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
    app = adminApp(view({ health: () => ({ ...view().health(), redis }) }), token);
    expect(healthSchema.strict().safeParse(await (await app.request('/healthz')).json()).error).toBeUndefined();
    expect(await (await app.request('/readyz')).json()).toEqual({ status: 'ready', redis: 'lost' });
  });

  test('describes every path there is, with its methods, and every status that is answered', async () => {
    const { paths } = await described();
    const listed = ((await (await app.request('/nothing')).json()) as { paths: string[] }).paths.map((path) =>
      path.replace('<topic>', '{topic}'),
    );
    expect(Object.keys(paths).toSorted()).toEqual(listed.toSorted());
    const requests: [path: string, answer: Answer][] = [
      ['/publish', await postJson({ topic: 't', data: '' })],
      ['/publish', await postJson({})],
      ['/publish', await post('/publish', '', 'text/plain')],
      ['/publish/{topic}', await post('/publish/t', '', 'text/plain', '')],
      ['/reload', await post('/reload', undefined, undefined)],
    ];
    for (const [path, { status }] of requests) expect(Object.keys(paths[path].post.responses)).toContain(String(status));
  });
});

describe('Publisher', () => {
  class FakeWorker {
    readonly told: Extract<SupervisorMessage, { type: 'publish' }>[] = [];
    readonly index: number;
    constructor(index: number) {
      this.index = index;
    }
    tell(message: SupervisorMessage): void {
      if (message.type === 'publish') this.told.push(message);
    }
  }
  const message = (topic: string, data = ''): PublishedMessage => ({ topic, data, isBinary: false });

  test('messages of one topic go through one worker, in order', async () => {
    const workers = [new FakeWorker(1), new FakeWorker(0), new FakeWorker(2)];
    const publisher = new Publisher(() => workers);
    const messages = Array.from({ length: 300 }, (_, at) => message(`t${at % 20}`, String(at)));
    const done = publisher.publish(messages);
    expect(workers.every(({ told }) => told.length === 1)).toBe(true);
    for (let topic = 0; topic < 20; topic++) {
      const through = workers.filter(({ told }) => told[0]?.messages.some((each) => each.topic === `t${topic}`));
      expect(through.length).toBe(1);
      const numbers = through[0]?.told[0]?.messages.filter((each) => each.topic === `t${topic}`).map(({ data }) => Number(data)) ?? [];
      expect(numbers).toEqual(numbers.toSorted((a, b) => a - b));
    }
    for (const { told } of workers) publisher.answered(told[0]?.id ?? 0, undefined);
    expect(await done).toEqual({ kind: 'published' });
  });

  test('without a worker nothing is published', async () => {
    expect(await new Publisher(() => []).publish([message('t')])).toEqual({ kind: 'no worker' });
  });

  test('a worker that ends, or says no, leaves it open', async () => {
    const worker = new FakeWorker(4);
    const publisher = new Publisher(() => [worker]);
    const first = publisher.publish([message('t')]);
    publisher.workerGone(3);
    publisher.workerGone(4);
    expect(await first).toEqual({ kind: 'unknown', reason: 'the worker that was to publish has ended' });
    const second = publisher.publish([message('t')]);
    publisher.answered(worker.told[1]?.id ?? 0, 'no topic');
    publisher.answered(worker.told[1]?.id ?? 0, undefined);
    expect(await second).toEqual({ kind: 'unknown', reason: 'no topic' });
  });

  test('what waits is bounded', async () => {
    const worker = new FakeWorker(0);
    const publisher = new Publisher(() => [worker]);
    const waiting = Array.from({ length: 1024 }, () => publisher.publish([message('t')]));
    expect(await publisher.publish([message('t')])).toEqual({ kind: 'busy' });
    publisher.answered(worker.told[0]?.id ?? 0, undefined);
    const next = publisher.publish([message('t')]);
    expect(worker.told.length).toBe(1025);
    publisher.workerGone(0);
    expect((await Promise.all([...waiting, next])).filter(({ kind }) => kind === 'published').length).toBe(1);
  });
});
