/**
 * `POST /publish` and `POST /publish/<topic>`: messages from a backend in any language.
 * Role: judges requests and words answers. Up: admin-app.ts. Down: operations.ts, which hands the messages to workers.
 */
import type { Hono } from 'hono';
import type { PublishOperation } from '../process/operations.ts';
import { type Perform, problemAnswer, problemText } from './admin-answers.ts';
import type { AdminEnv } from './admin-body.ts';
import { type Context, judge, Refusal, readJson, readMessage, restOfPath, serve, topicOf } from './admin-input.ts';
import { idempotencyKeySchema, type Message, messageSchema, messagesSchema } from './admin-schemas.ts';

export function addPublishRoutes(app: Hono<AdminEnv>, perform: Perform): void {
  app.post(
    '/publish',
    serve(async (context) => {
      const { messages, isList } = readMessages(context);
      return publish(context, perform, messages.map(publishOperation), isList);
    }),
  );
  app.post(
    '/publish/*',
    serve((context) => {
      const topic = topicOf(restOfPath(context, '/publish/'));
      return publish(context, perform, [{ kind: 'publish', topic, ...readMessage(context), idempotencyKey: keyOf(context) }], false);
    }),
  );
}

export function publishOperation({ topic, data, encoding, idempotencyKey }: Message): PublishOperation {
  return { kind: 'publish', topic, data, isBinary: encoding === 'base64', idempotencyKey };
}

const wrong = 'the messages are not in order; nothing was published';

function readMessages(context: Context): { readonly messages: readonly Message[]; readonly isList: boolean } {
  const body = readJson(context, ', or a raw message to /publish/<topic>');
  const key = keyOf(context);
  if (typeof body === 'object' && body !== null && 'messages' in body) {
    const { messages } = judge(messagesSchema, body, wrong);
    if (key === undefined) return { messages, isList: true };
    throw new Refusal(400, 'the field Idempotency-Key is for one message; write "idempotencyKey" in each of several');
  }
  const message = judge(messageSchema, body, wrong);
  if (key === undefined) return { messages: [message], isList: false };
  if (message.idempotencyKey !== undefined && message.idempotencyKey !== key)
    throw new Refusal(400, 'the field Idempotency-Key and "idempotencyKey" in the body differ; write one of them');
  return { messages: [{ ...message, idempotencyKey: key }], isList: false };
}

/** Of the header field; as a string of RFC 8941 §3.3.3 it stands in quotes. */
function keyOf(context: Context): string | undefined {
  const field = context.req.header('idempotency-key');
  if (field === undefined) return undefined;
  const text = /^"(?:[^"\\]|\\["\\])*"$/.test(field) ? field.slice(1, -1).replaceAll(/\\(.)/g, '$1') : field;
  const judged = idempotencyKeySchema.safeParse(text);
  if (!judged.success) throw new Refusal(400, `the field Idempotency-Key ${judged.error.issues[0]?.message}`);
  return judged.data;
}

async function publish(context: Context, perform: Perform, messages: readonly PublishOperation[], isList: boolean): Promise<Response> {
  const results = await perform(messages);
  const positions = results.map((result) => ('answer' in result && 'epoch' in result.answer ? result.answer : null));
  const problems = results.flatMap((result) => ('problem' in result ? [result.problem] : []));
  const published = results.length - problems.length;
  // What nobody knows of weighs most: who sends that again may send it twice.
  const worst = problems.find(({ kind }) => kind === 'unknown') ?? problems[0];
  if (worst !== undefined) {
    const each = results.map((result, at) => ('problem' in result ? { error: problemText(result.problem) } : (positions[at] ?? {})));
    return problemAnswer(context, worst, published === 0 ? {} : { published, results: each });
  }
  if (!isList) return context.json({ published, ...positions[0] });
  return context.json({ published, ...(positions.some((position) => position !== null) ? { positions } : {}) });
}
