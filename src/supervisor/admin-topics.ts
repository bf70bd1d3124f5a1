/**
 * What backends may ask of topics, and of whoever is on them: histories, presence, names; to disconnect, and to send to a user. One by one, or several
 * in one request.
 * Role: judges requests and words answers. Up: admin-app.ts. Down: operations.ts, which asks workers.
 */
import type { Hono } from 'hono';
import type { z } from 'zod';
import type { DisconnectOperation, Operation, OperationResult } from '../process/operations.ts';
import { answerOf, type Perform, problemStatus, problemText } from './admin-answers.ts';
import type { AdminEnv } from './admin-body.ts';
import { type Context, decoded, judge, Refusal, readJson, readMessage, restOfPath, serve, topicOf } from './admin-input.ts';
import { publishOperation } from './admin-publish.ts';
import {
  type AskedOperation,
  batchSchema,
  disconnectSchema,
  historySchema,
  presenceSchema,
  subscribersSchema,
  topicsSchema,
  userSchema,
} from './admin-topic-schemas.ts';

/** Of what is listed in one answer: messages, users or names. */
const listBytesMax = 2 ** 20;
/** The same for all answers of a batch together. */
const batchListBytesMax = 8 * 2 ** 20;
/** Of all answers of a batch, as they are sent: one message of each history may be larger than its share. */
const batchBytesMax = 32 * 2 ** 20;
/** Reads of a batch that are at work at the same time. */
const readsMax = 16;
/** Operations of a batch that were not begun by then are not begun any more. */
const batchMs = 8000;

export function addTopicReads(app: Hono<AdminEnv>, perform: Perform): void {
  const one = async (context: Context, operation: AskedOperation) =>
    answerOf(context, (await perform([operationOf(operation, listBytesMax)]))[0]);
  app.get(
    '/topics',
    serve((context) => one(context, { operation: 'topics', ...query(context, topicsSchema, {}) })),
  );
  app.get(
    '/topics/*',
    serve((context) => {
      const rest = restOfPath(context, '/topics/');
      const slash = rest.lastIndexOf('/');
      const [name, what] = [rest.slice(0, Math.max(0, slash)), rest.slice(slash + 1)];
      switch (what) {
        case 'history':
          return one(context, { operation: 'history', ...query(context, historySchema, { topic: topicOf(name) }) });
        case 'presence':
          return one(context, { operation: 'presence', ...query(context, presenceSchema, { topic: topicOf(name) }) });
        case 'subscribers':
          return one(context, { operation: 'subscribers', ...query(context, subscribersSchema, { topic: topicOf(name) }) });
        default:
          throw new Refusal(404, 'the path does not say what of the topic; write /topics/<topic>/history, /presence or /subscribers');
      }
    }),
  );
}

export function addTopicWrites(app: Hono<AdminEnv>, perform: Perform): void {
  app.post(
    '/disconnect',
    serve(async (context) => {
      const asked = judge(disconnectSchema, readJson(context), 'whom to disconnect is not in order; nobody was disconnected');
      return answerOf(context, (await perform([disconnectOperation(asked)]))[0]);
    }),
  );
  app.post(
    '/users/*',
    serve(async (context) => {
      const rest = restOfPath(context, '/users/');
      if (!rest.endsWith('/send')) throw new Refusal(404, 'the path does not say what to do; write /users/<id>/send');
      const judged = userSchema.safeParse(decoded(rest.slice(0, -'/send'.length), 'user'));
      if (!judged.success) throw new Refusal(400, `the user in the path ${judged.error.issues[0]?.message}`);
      return answerOf(context, (await perform([{ kind: 'send', user: judged.data, ...readMessage(context) }]))[0]);
    }),
  );
  app.post(
    '/batch',
    serve(async (context) => {
      const { operations } = judge(batchSchema, readJson(context), 'the operations are not in order; nothing was done');
      return context.json({ results: await performAll(operations, perform) });
    }),
  );
}

/** Text of a query as the values that JSON would have. Throws Refusal. */
function query<Schema extends z.ZodType>(context: Context, schema: Schema, own: object): z.output<Schema> {
  const values: Record<string, unknown> = { ...own };
  for (const [name, texts] of Object.entries(context.req.queries())) {
    if (texts.length > 1) throw new Refusal(400, `the query says ${name} ${texts.length} times; write it once`);
    if (Object.hasOwn(own, name)) throw new Refusal(400, `the query says ${name}, which the path says already; leave it out`);
    const [text = ''] = texts;
    values[name] = name === 'limit' && /^\d{1,15}$/.test(text) ? Number(text) : name === 'reverse' ? (truths.get(text) ?? text) : text;
  }
  return judge(schema, values, 'the query is not in order', 'the query');
}

const truths: ReadonlyMap<string, boolean> = new Map([
  ['', true],
  ['1', true],
  ['true', true],
  ['0', false],
  ['false', false],
]);

/** `bytesMax`: of what it lists. */
function operationOf(asked: AskedOperation, bytesMax: number): Operation {
  switch (asked.operation) {
    case 'publish':
      return publishOperation(asked);
    case 'history': {
      const { topic, since, limit, reverse } = asked;
      return { kind: 'history', topic, since, limit, reverse, bytesMax };
    }
    case 'presence':
      return { kind: 'presence', topic: asked.topic, limit: asked.limit, bytesMax };
    case 'topics':
      return { kind: 'topics', prefix: asked.prefix, limit: asked.limit, bytesMax };
    case 'subscribers':
      return { kind: 'subscribers', topic: asked.topic };
    case 'disconnect':
      return disconnectOperation(asked);
    case 'send':
      return { kind: 'send', user: asked.user, data: asked.data, isBinary: asked.encoding === 'base64' };
    default:
      return asked satisfies never;
  }
}

function disconnectOperation({ socket, user, topic, code, reason }: z.output<typeof disconnectSchema>): DisconnectOperation {
  const target = socket !== undefined ? { socket } : user !== undefined ? { user } : { topic: topic ?? '' };
  return { kind: 'disconnect', target, code, reason };
}

/** What may be at work at the same time. */
const groupOf = {
  publish: 'say',
  send: 'say',
  history: 'look',
  presence: 'look',
  topics: 'look',
  subscribers: 'look',
  disconnect: 'end',
} as const;

const tooLate: OperationResult = {
  problem: { kind: 'unavailable', error: 'those before it took too long: it was not begun; send it again' },
};
const tooLong: OperationResult = {
  problem: { kind: 'unavailable', error: 'the answers of those before it are long enough already: ask for it in another request' },
};

/** In order: neighbours of a kind that do not disturb each other go together, others wait for those before them. */
async function performAll(asked: readonly AskedOperation[], perform: Perform): Promise<object[]> {
  const lists = asked.filter(({ operation }) => operation === 'history' || operation === 'presence' || operation === 'topics').length;
  const bytesMax = Math.min(listBytesMax, Math.floor(batchListBytesMax / Math.max(1, lists)));
  const until = performance.now() + batchMs;
  const shown: object[] = [];
  let bytes = 0;
  while (shown.length < asked.length) {
    const first = shown.length;
    const group = groupOf[(asked[first] as AskedOperation).operation];
    const most = group === 'look' ? first + readsMax : asked.length;
    let end = first + 1;
    while (end < Math.min(asked.length, most) && groupOf[(asked[end] as AskedOperation).operation] === group) end++;
    const operations = asked.slice(first, end).map((each) => operationOf(each, bytesMax));
    const refusal = performance.now() >= until ? tooLate : group === 'look' && bytes > batchBytesMax ? tooLong : undefined;
    const results = refusal === undefined ? await perform(operations) : operations.map(() => refusal);
    for (const [index, operation] of operations.entries()) {
      const result = shownResult(operation, results[index]);
      if (group === 'look') bytes += JSON.stringify(result).length;
      shown.push(result);
    }
  }
  return shown;
}

function shownResult(operation: Operation, result: OperationResult | undefined): object {
  if (result === undefined) throw new Error('a worker has answered less than it was asked');
  if ('problem' in result) return { error: problemText(result.problem), status: problemStatus(result.problem) };
  return operation.kind === 'publish' ? { published: 1, ...result.answer } : result.answer;
}
