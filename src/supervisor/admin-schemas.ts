/**
 * What the admin listener takes and answers, as zod schemas: judged by admin.ts, described by admin-openapi.ts.
 */
import { z } from 'zod';
import { topicBytesMax } from '../core/node.ts';

/** Messages of one request. */
export const messagesMax = 1000;

export const topicSchema = z
  .string({ error: 'is missing, or not a string; write the name of a topic' })
  .min(1, { error: 'is empty; write the name of a topic' })
  .refine((topic) => Buffer.byteLength(topic) <= topicBytesMax, {
    error: `is longer than ${topicBytesMax} bytes of UTF-8; write a shorter name`,
  })
  .refine((topic) => !topic.startsWith('\0'), {
    error: 'begins with a NUL character, as topics of the gateway itself do; write another name',
  })
  // Half of a surrogate pair: it has no UTF-8.
  .refine((topic) => topic.isWellFormed(), { error: 'is not well-formed Unicode' })
  .describe(`The topic, 1 to ${topicBytesMax} bytes of UTF-8.`);

/** Bytes of UTF-8; as in PublishOptions. */
const idempotencyKeyBytesMax = 128;

export const idempotencyKeySchema = z
  .string({ error: 'is not a string; write a text of your own that names this message' })
  .min(1, { error: 'is empty; write a text of your own that names this message, or leave it out' })
  .refine((key) => key.isWellFormed(), { error: 'is not well-formed Unicode' })
  .refine((key) => Buffer.byteLength(key) <= idempotencyKeyBytesMax, {
    error: `is longer than ${idempotencyKeyBytesMax} bytes of UTF-8; write a shorter one`,
  })
  .describe(
    `Names this message, 1 to ${idempotencyKeyBytesMax} bytes of UTF-8: to a topic with history, a repeated publish with the same one within two minutes adds nothing, and answers the position of the first.`,
  );

const base64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;

export const messageShape = {
  topic: topicSchema,
  data: z
    .string({ error: 'is missing, or not a string; write the message as text, or in base64 with "encoding": "base64"' })
    .refine((data) => data.isWellFormed(), { error: 'is not well-formed Unicode' })
    .describe('The message: text as it is, or bytes in base64.'),
  encoding: z
    .enum(['text', 'base64'], { error: 'is not an encoding; write "text" or "base64", or leave it out' })
    .optional()
    .describe('"text" (default): subscribers get a text message. "base64": they get these bytes as a binary message.'),
  idempotencyKey: idempotencyKeySchema.optional(),
};

/** An object without other members than these. */
export function strictly<Shape extends z.ZodRawShape>(shape: Shape, example: string) {
  return z.strictObject(shape, {
    error: (issue) =>
      issue.code === 'unrecognized_keys'
        ? `has unknown members (${(issue.keys as string[]).join(', ')}); write ${Object.keys(shape).join(', ')}`
        : `is not an object; write ${example}`,
  });
}

type Encoded = { readonly data: string; readonly encoding?: 'text' | 'base64' | undefined };
/** Of objects with `data` and `encoding`: arguments of `refine`. */
export const isEncoded = ({ data, encoding }: Encoded) => encoding !== 'base64' || base64.test(data);
export const notEncoded = { path: ['data'], error: 'is not base64 (RFC 4648 §4, with padding)' };

export const messageSchema = strictly(messageShape, '{ "topic": ..., "data": ... }').refine(isEncoded, notEncoded);

export type Message = z.output<typeof messageSchema>;

export const messagesSchema = z.strictObject(
  {
    messages: z
      .array(messageSchema, { error: 'is not a list; write a list of messages' })
      .min(1, { error: 'is empty; write at least one message' })
      .max(messagesMax, { error: `has too many messages; write at most ${messagesMax}` }),
  },
  {
    error: (issue) =>
      issue.code === 'unrecognized_keys' ? `has unknown members (${issue.keys.join(', ')}); write messages alone` : 'is not an object',
  },
);

export const epochSchema = z
  .string()
  .regex(/^[0-9a-f]{16}$/)
  .describe("Of the log's life: another one whenever its past is gone.");
export const offsetSchema = z.int().min(0).describe('In its epoch: 1, 2, 3 …; 0: before the first.');
export const positionSchema = z.strictObject({ epoch: epochSchema, offset: offsetSchema });

export const publishedSchema = z.strictObject({
  published: z.int().min(1).describe('How many messages were published.'),
  epoch: epochSchema.optional().describe('Of one message to a topic with history: where it lies.'),
  offset: offsetSchema.optional(),
  positions: z
    .array(positionSchema.nullable())
    .optional()
    .describe('Of several messages, when any of their topics has history: where each lies, in their order; null: its topic has none.'),
});

export const problemSchema = z.strictObject({
  error: z.string().describe('What is wrong, and what to do.'),
  mistakes: z.array(z.string()).optional().describe('Each mistake in what was sent, with its place.'),
  published: z.int().optional().describe('Of several messages: how many were published all the same.'),
  results: z
    .array(z.strictObject({ epoch: epochSchema.optional(), offset: offsetSchema.optional(), error: z.string().optional() }))
    .optional()
    .describe('Of several messages, when some were published: what became of each.'),
});

export const reloadedSchema = z.strictObject({ generation: z.int().min(0).describe('Counts the configurations that have served.') });

const redisStateSchema = z.enum(['connecting', 'up', 'lost']).describe('Of the worker that is worst off.');

export const readySchema = z.object({
  status: z.enum(['ready', 'not ready']),
  reason: z.string().optional().describe('Why it is not.'),
  redis: redisStateSchema.optional(),
});

const workersSchema = z.array(
  z.object({
    index: z.int().describe('Its place on the node.'),
    pid: z.int().nullable(),
    state: z.enum(['starting', 'ready', 'waiting', 'draining', 'stopped']),
    backend: z.enum(['io_uring', 'epoll']).nullable(),
    note: z.string().optional().describe('Why it runs on this backend, when that is not the first choice.'),
    hungSeconds: z.int().optional().describe('It is ready and does not go on: how long.'),
    restarts: z.int(),
    uptimeSeconds: z.int(),
  }),
);

export const healthSchema = z.object({
  status: z.enum(['ok', 'degraded']),
  version: z.string(),
  pid: z.int().describe('Of the supervisor.'),
  generation: z.int().describe('Counts the configurations that have served.'),
  workers: workersSchema,
  draining: z
    .array(z.object({ generation: z.int(), workers: workersSchema }))
    .describe('Workers of earlier configurations that finish what is in progress.'),
  redis: z
    .object({
      state: redisStateSchema,
      lagSeconds: z.number(),
      topics: z.int(),
      outboxMessages: z.int(),
      outboxBytes: z.int(),
      gaps: z.int(),
      drops: z.int(),
    })
    .optional()
    .describe('Absent without Redis.'),
  reload: z
    .object({ requests: z.int(), isRunning: z.boolean(), last: z.looseObject({ kind: z.string(), at: z.string() }).nullable() })
    .describe('Reloads so far.'),
});
