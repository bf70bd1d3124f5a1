import { beforeEach, describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import { Registry } from 'prom-client';
import type { Operation, OperationResult } from '../../../src/process/operations.ts';
import type { AdminView } from '../../../src/supervisor/admin.ts';
import { adminApp } from '../../../src/supervisor/admin-app.ts';
import {
  batchAnswerSchema,
  disconnectAnswerSchema,
  historyAnswerSchema,
  presenceAnswerSchema,
  sentSchema,
  subscribersAnswerSchema,
  topicsAnswerSchema,
} from '../../../src/supervisor/admin-topic-schemas.ts';

const token = 'of-the-tests-and-of-nothing-else';
const epoch = '6fe02d1dbf0a13c9';

/** What workers were asked, request by request. */
let asked: (readonly Operation[])[];
let resultOf: (operation: Operation) => OperationResult | Promise<OperationResult>;
let app: ReturnType<typeof adminApp>;

/** What workers answer when nothing is wrong. */
const answers: Readonly<Record<Operation['kind'], OperationResult>> = {
  publish: { answer: { epoch, offset: 3 } },
  history: {
    answer: {
      epoch,
      offset: 2,
      recovered: true,
      messages: [
        { offset: 1, data: 'a' },
        { offset: 2, base64: 'AP8=' },
      ],
    },
  },
  presence: { answer: { count: 1, users: [{ id: 'ann', connections: 2, info: { from: 'here' } }] } },
  topics: { answer: { topics: ['a', 'b'] } },
  subscribers: { answer: { subscribers: 4 } },
  disconnect: { answer: { disconnected: 2 } },
  send: { answer: { sent: 1 } },
};

const view = (perform: AdminView['perform']): AdminView => ({
  health: () => ({ version: '1' }) as never,
  notReady: () => undefined,
  metrics: async () => new Registry(),
  perform,
  reload: undefined,
});

beforeEach(() => {
  asked = [];
  resultOf = ({ kind }) => answers[kind];
  const perform = async (operations: readonly Operation[]) => {
    asked.push(operations);
    return Promise.all(operations.map(resultOf));
  };
  app = adminApp(view(perform), token, (error) => {
    throw error;
  });
});

interface Answer {
  readonly status: number;
  // biome-ignore lint/suspicious/noExplicitAny: whatever came as JSON
  readonly body: any;
}
async function request(path: string, init: RequestInit = {}): Promise<Answer> {
  const response = await app.request(path, init);
  return { status: response.status, body: await response.json() };
}
const get = (path: string) => request(path);
const post = (path: string, body: string | Uint8Array<ArrayBuffer>, type: string | undefined = 'application/json', shown = token) =>
  request(path, {
    method: 'POST',
    body,
    headers: { authorization: `Bearer ${shown}`, ...(type === undefined ? {} : { 'content-type': type }) },
  });
const postJson = (path: string, value: unknown) => post(path, JSON.stringify(value));

describe('reads', () => {
  test('are asked of workers, and answered as they say', async () => {
    const history = await get(`/topics/room/x/history?since=${epoch}:4&limit=7&reverse=true`);
    expect([history.status, history.body]).toEqual([200, (answers.history as { answer: object }).answer]);
    expect(historyAnswerSchema.safeParse(history.body).error).toBeUndefined();
    const presence = await get('/topics/room/x/presence');
    expect(presenceAnswerSchema.safeParse(presence.body).error).toBeUndefined();
    expect(topicsAnswerSchema.safeParse((await get('/topics?prefix=room%2F&limit=5')).body).error).toBeUndefined();
    expect(topicsAnswerSchema.safeParse((await get('/topics')).body).error).toBeUndefined();
    expect(subscribersAnswerSchema.safeParse((await get('/topics/a/subscribers')).body).error).toBeUndefined();
    expect(asked).toEqual([
      [{ kind: 'history', topic: 'room/x', since: `${epoch}:4`, limit: 7, reverse: true, bytesMax: 2 ** 20 }],
      [{ kind: 'presence', topic: 'room/x', limit: 10_000, bytesMax: 2 ** 20 }],
      [{ kind: 'topics', prefix: 'room/', limit: 5, bytesMax: 2 ** 20 }],
      [{ kind: 'topics', prefix: '', limit: 1000, bytesMax: 2 ** 20 }],
      [{ kind: 'subscribers', topic: 'a' }],
    ]);
  });

  test('defaults, and the ways to say true and false', async () => {
    for (const text of ['', '?limit=100', '?reverse=false', '?reverse=0']) await get(`/topics/a/history${text}`);
    for (const text of ['?reverse', '?reverse=1', '?reverse=true']) await get(`/topics/a/history${text}`);
    const bare = { kind: 'history', topic: 'a', since: undefined, limit: 100, bytesMax: 2 ** 20 } as const;
    expect(asked).toEqual([...Array(4).fill([{ ...bare, reverse: false }]), ...Array(3).fill([{ ...bare, reverse: true }])]);
  });

  test('any topic can stand in the path, its slashes encoded or not', async () => {
    await fc.assert(
      fc.asyncProperty(fc.string({ unit: 'grapheme', minLength: 1, maxLength: 40 }), async (topic) => {
        asked = [];
        const encoded = encodeURIComponent(topic);
        expect((await get(`/topics/${encoded}/history`)).status).toBe(200);
        // What URLs take out of a path, whoever writes it.
        if (/^\.{1,2}$/.test(topic)) return;
        expect(asked[0]?.[0]).toMatchObject({ topic });
        // Parts that are nothing but dots would be taken out as well.
        if (topic.split('/').some((part) => /^\.{0,2}$/.test(part))) return;
        await get(`/topics/${encoded.replaceAll('%2F', '/')}/history`);
        expect(asked[1]?.[0]).toMatchObject({ topic });
      }),
      { numRuns: 200 },
    );
    asked = [];
    for (const path of ['a/history/history', 'a%2Fhistory/history', 'a//b/presence', 'presence/presence', 'a%2F/subscribers'])
      await get(`/topics/${path}`);
    expect(asked.map(([operation]) => operation !== undefined && 'topic' in operation && operation.topic)).toEqual([
      'a/history',
      'a/history',
      'a//b',
      'presence',
      'a/',
    ]);
  });

  test('that are not in order say what to write, and nobody is asked', async () => {
    const mistakes = async (path: string) => {
      const { status, body } = await get(path);
      return [status, body.mistakes ?? body.error];
    };
    const since = 'since: is no position; write "<epoch>:<offset>" as answers say it, such as "6fe02d1dbf0a13c9:42"';
    for (const text of [
      '5',
      `${epoch}:-1`,
      `${epoch}:1.5`,
      `${epoch.toUpperCase()}:1`,
      '0000000000000000:1',
      `${epoch}:99999999999999999`,
      '',
    ])
      expect([text, await mistakes(`/topics/a/history?since=${text}`)]).toEqual([text, [400, [since]]]);
    const limit = 'limit: is no number of messages; write a whole number from 0 to 1000';
    for (const text of ['-1', '1001', '1.5', 'x', '', '1e2', '9'.repeat(30)])
      expect([text, await mistakes(`/topics/a/history?limit=${text}`)]).toEqual([text, [400, [limit]]]);
    expect(await mistakes('/topics/a/history?reverse=maybe')).toEqual([400, ['reverse: is neither true nor false']]);
    expect(await mistakes('/topics/a/presence?limit=10001')).toEqual([
      400,
      ['limit: is no number of users; write a whole number from 0 to 10000'],
    ]);
    expect(await mistakes('/topics?limit=0&prefx=a')).toEqual([
      400,
      ['limit: is no number of topics; write a whole number from 1 to 10000', 'prefx: has unknown members (prefx); write prefix, limit'],
    ]);
    expect(await mistakes('/topics?prefix=%00p')).toEqual([400, ['prefix: is what no topic begins with; write another one']]);
    expect(await mistakes('/topics/a/history?limit=1&limit=2')).toEqual([400, 'the query says limit 2 times; write it once']);
    expect(await mistakes('/topics/a/history?topic=b')).toEqual([400, 'the query says topic, which the path says already; leave it out']);
    for (const path of ['/topics/a', '/topics/a/', '/topics/a/histroy', '/topics/history'])
      expect([path, await mistakes(path)]).toEqual([
        path,
        path === '/topics/history'
          ? [400, 'the topic in the path is empty; write the name of a topic']
          : [404, 'the path does not say what of the topic; write /topics/<topic>/history, /presence or /subscribers'],
      ]);
    expect(await mistakes('/topics/%ff/history')).toEqual([400, 'the topic in the path is not percent-encoded UTF-8']);
    expect(await mistakes('/topics/%00p/history')).toEqual([
      400,
      'the topic in the path begins with a NUL character, as topics of the gateway itself do; write another name',
    ]);
    expect(await mistakes(`/topics/${'a'.repeat(1025)}/history`)).toEqual([
      400,
      'the topic in the path is longer than 1024 bytes of UTF-8; write a shorter name',
    ]);
    expect(asked).toEqual([]);
  });

  test('what workers cannot do has a status each', async () => {
    const statuses: unknown[] = [];
    for (const kind of ['wrong', 'absent', 'unavailable', 'busy', 'unknown', 'failed'] as const) {
      resultOf = () => ({ problem: { kind, error: 'so it is' } });
      const response = await app.request('/topics/a/history');
      statuses.push([response.status, response.headers.get('retry-after'), ((await response.json()) as { error: string }).error]);
    }
    expect(statuses).toEqual([
      [400, null, 'so it is'],
      [404, null, 'so it is'],
      [503, '1', 'so it is'],
      [503, '1', 'so it is'],
      [504, null, 'so it is: it may or may not have been done'],
      [500, null, 'so it is'],
    ]);
  });

  test('need no token; other methods are refused', async () => {
    expect((await app.request('/topics/a/presence')).status).toBe(200);
    for (const path of ['/topics', '/topics/a/history']) {
      const response = await app.request(path, { method: 'POST' });
      expect([response.status, response.headers.get('allow')]).toEqual([405, 'GET, HEAD']);
    }
    for (const path of ['/disconnect', '/users/a/send', '/batch']) {
      const response = await app.request(path);
      expect([response.status, response.headers.get('allow')]).toEqual([405, 'POST']);
    }
  });
});

describe('POST /disconnect', () => {
  test('says whom, with which code, and why', async () => {
    const answer = await postJson('/disconnect', { user: 'ann', code: 4001, reason: 'enough' });
    expect([answer.status, disconnectAnswerSchema.safeParse(answer.body).error]).toEqual([200, undefined]);
    await postJson('/disconnect', { socket: 'abc' });
    await postJson('/disconnect', { topic: 'room/x' });
    const bare = { kind: 'disconnect', code: 1000, reason: '' } as const;
    expect(asked).toEqual([
      [{ kind: 'disconnect', target: { user: 'ann' }, code: 4001, reason: 'enough' }],
      [{ ...bare, target: { socket: 'abc' } }],
      [{ ...bare, target: { topic: 'room/x' } }],
    ]);
  });

  test('what is not in order ends nobody', async () => {
    const mistakes = async (value: unknown) => (await postJson('/disconnect', value)).body.mistakes;
    const oneTarget = ['the body: says not one of socket, user and topic; write whom to disconnect, once'];
    expect(await mistakes({})).toEqual(oneTarget);
    expect(await mistakes({ user: 'a', topic: 'b' })).toEqual(oneTarget);
    expect(await mistakes([])).toEqual(['the body: is not an object; write { "user": ... }']);
    expect(await mistakes({ usr: 'a' })).toEqual(['usr: has unknown members (usr); write socket, user, topic, code, reason', ...oneTarget]);
    expect(await mistakes({ user: '', socket: 5, topic: '\0u', code: 1005, reason: 'é'.repeat(62) })).toEqual([
      'socket: is not a string; write the id of a socket',
      'user: is empty; write the id of a user',
      'topic: begins with a NUL character, as topics of the gateway itself do; write another name',
      'code: may not be sent; write 1000 to 1003, 1007 to 1014, or 3000 to 4999',
      'reason: is longer than 123 bytes of UTF-8, or not well-formed; write a shorter one',
    ]);
    expect((await post('/disconnect', 'x', 'text/plain')).status).toBe(415);
    expect((await post('/disconnect', '{"user":"a"}', 'application/json', `${token}x`)).status).toBe(401);
    expect(asked).toEqual([]);
  });
});

describe('POST /users/<id>/send', () => {
  test('sends the body, as text or bytes by its type', async () => {
    const answer = await post('/users/ann/send', '{"a":1}');
    expect([answer.status, sentSchema.safeParse(answer.body).error]).toEqual([200, undefined]);
    await post('/users/a%2Fb/send', new Uint8Array([0, 255]), 'application/octet-stream');
    await post('/users/a/b/send', 'é', 'text/plain');
    await post('/users/send/send', '', 'text/plain');
    expect(asked.flat()).toEqual([
      { kind: 'send', user: 'ann', data: '{"a":1}', isBinary: false },
      { kind: 'send', user: 'a/b', data: 'AP8=', isBinary: true },
      { kind: 'send', user: 'a/b', data: 'é', isBinary: false },
      { kind: 'send', user: 'send', data: '', isBinary: false },
    ]);
  });

  test('what is not in order is sent to nobody', async () => {
    expect(await post('/users/ann', 'x', 'text/plain')).toEqual({
      status: 404,
      body: { error: 'the path does not say what to do; write /users/<id>/send' },
    });
    expect((await post('/users//send', 'x', 'text/plain')).body.error).toBe('the user in the path is empty; write the id of a user');
    expect((await post('/users/%ff/send', 'x', 'text/plain')).body.error).toBe('the user in the path is not percent-encoded UTF-8');
    expect((await post(`/users/${'u'.repeat(1023)}/send`, 'x', 'text/plain')).status).toBe(400);
    expect((await post('/users/ann/send', new Uint8Array([0xff]), 'text/plain')).status).toBe(400);
    expect((await post('/users/ann/send', 'x', 'text/plain', 'wrong')).status).toBe(401);
    expect(asked).toEqual([]);
  });
});

describe('POST /batch', () => {
  const all = [
    { operation: 'publish', topic: 'a', data: 'x', idempotencyKey: 'k' },
    { operation: 'send', user: 'ann', data: 'AP8=', encoding: 'base64' },
    { operation: 'history', topic: 'a', limit: 5 },
    { operation: 'presence', topic: 'a' },
    { operation: 'topics', prefix: 'a' },
    { operation: 'subscribers', topic: 'a' },
    { operation: 'disconnect', user: 'ann', code: 4000 },
    { operation: 'publish', topic: 'b', data: 'y' },
  ];

  test('does all in order: what can go together does, and what comes after waits for it', async () => {
    let atWork = 0;
    resultOf = async ({ kind }) => {
      atWork++;
      await Bun.sleep(1);
      atWork--;
      return answers[kind];
    };
    const waited: number[] = [];
    const perform = async (operations: readonly Operation[]) => {
      waited.push(atWork);
      asked.push(operations);
      return Promise.all(operations.map(resultOf));
    };
    app = adminApp(view(perform), token, () => {});
    const { status, body } = await postJson('/batch', { operations: all });
    expect([status, batchAnswerSchema.safeParse(body).error]).toEqual([200, undefined]);
    const position = { epoch, offset: 3 };
    expect(body.results).toEqual([
      { published: 1, ...position },
      { sent: 1 },
      ...(['history', 'presence', 'topics', 'subscribers', 'disconnect'] as const).map(
        (kind) => (answers[kind] as { answer: object }).answer,
      ),
      { published: 1, ...position },
    ]);
    expect(asked.map((each) => each.map(({ kind }) => kind))).toEqual([
      ['publish', 'send'],
      ['history', 'presence', 'topics', 'subscribers'],
      ['disconnect'],
      ['publish'],
    ]);
    expect(waited).toEqual([0, 0, 0, 0]);
    expect(asked[0]).toEqual([
      { kind: 'publish', topic: 'a', data: 'x', isBinary: false, idempotencyKey: 'k' },
      { kind: 'send', user: 'ann', data: 'AP8=', isBinary: true },
    ]);
  });

  test('what fails of it has its error and status, and the rest is done', async () => {
    resultOf = (operation) =>
      'topic' in operation && operation.topic === 'bad' ? { problem: { kind: 'absent', error: 'no history' } } : answers[operation.kind];
    const { status, body } = await postJson('/batch', {
      operations: [
        { operation: 'history', topic: 'bad' },
        { operation: 'subscribers', topic: 'a' },
      ],
    });
    expect([status, body.results]).toEqual([200, [{ error: 'no history', status: 404 }, { subscribers: 4 }]]);
  });

  test('what many reads answer together is bounded, and so is how many are at work at the same time', async () => {
    const kinds = ['history', 'presence', 'topics'] as const;
    await postJson('/batch', {
      operations: Array.from({ length: 999 }, (_, at) => {
        const operation = kinds[at % 3];
        return operation === 'topics' ? { operation } : { operation, topic: 'a' };
      }),
    });
    const bytes = asked.flat().map((operation) => ('bytesMax' in operation ? operation.bytesMax : 0));
    expect(bytes.length).toBe(999);
    expect(bytes.reduce((sum, each) => sum + each, 0)).toBeLessThanOrEqual(8 * 2 ** 20);
    expect(new Set(bytes).size).toBe(1);
    expect(Math.max(...asked.map(({ length }) => length))).toBe(16);
  });

  test('reads behind answers that are long enough are refused, and what is written is still done', async () => {
    const large = { answer: { epoch, offset: 1, recovered: true, messages: [{ offset: 1, data: 'x'.repeat(3 * 2 ** 20) }] } };
    resultOf = (operation) => (operation.kind === 'history' ? large : answers[operation.kind]);
    const { body } = await postJson('/batch', {
      operations: [...Array(20).fill({ operation: 'history', topic: 'a' }), { operation: 'publish', topic: 'a', data: 'x' }],
    });
    const refused = { error: 'the answers of those before it are long enough already: ask for it in another request', status: 503 };
    expect(body.results.slice(16)).toEqual([...Array(4).fill(refused), { published: 1, epoch, offset: 3 }]);
    expect(body.results.slice(0, 16).every((result: object) => 'messages' in result)).toBe(true);
  });

  test('one mistake, and nothing is done', async () => {
    const mistakes = async (value: unknown) => (await postJson('/batch', value)).body.mistakes;
    const which = 'says no operation; write "operation" as one of publish, history, presence, topics, subscribers, disconnect, send';
    expect(
      await mistakes({
        operations: [
          { operation: 'publish', topic: 'a', data: 'no base64', encoding: 'base64' },
          { operation: 'histroy', topic: 'a' },
          {},
          { operation: 'disconnect', code: 4000 },
          { operation: 'history', topic: '', limit: 5000, since: 'x' },
          { operation: 'send', user: 'a', data: 'fine', topic: 'b' },
        ],
      }),
    ).toEqual([
      'operations[0].data: is not base64 (RFC 4648 §4, with padding)',
      `operations[1].operation: ${which}`,
      `operations[2].operation: ${which}`,
      'operations[3]: says not one of socket, user and topic; write whom to disconnect, once',
      'operations[4].topic: is empty; write the name of a topic',
      'operations[4].since: is no position; write "<epoch>:<offset>" as answers say it, such as "6fe02d1dbf0a13c9:42"',
      'operations[4].limit: is no number of messages; write a whole number from 0 to 1000',
      'operations[5].topic: has unknown members (topic); write operation, user, data, encoding',
    ]);
    expect(await mistakes({ operations: [] })).toEqual(['operations: is empty; write at least one operation']);
    expect(await mistakes({ operations: Array(1001).fill({ operation: 'subscribers', topic: 'a' }) })).toEqual([
      'operations: has too many operations; write at most 1000',
    ]);
    expect(await mistakes({ messages: [] })).toEqual([
      'operations: is not a list; write a list of operations',
      'messages: has unknown members (messages); write operations',
    ]);
    expect((await post('/batch', '{"operations":[]}', 'application/json', 'wrong')).status).toBe(401);
    expect(asked).toEqual([]);
  });
});

test('a program has no topics to tell of', async () => {
  app = adminApp(view(undefined), token, () => {});
  const statuses = [
    ...(await Promise.all(['/topics', '/topics/a/history'].map(get))),
    ...(await Promise.all(['/disconnect', '/users/a/send', '/batch'].map((path) => post(path, '{}')))),
  ].map(({ status }) => status);
  expect(statuses).toEqual([404, 404, 404, 404, 404]);
});
