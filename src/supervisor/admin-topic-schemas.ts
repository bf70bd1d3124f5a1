/**
 * What the admin listener takes and answers about topics and who is on them, as zod schemas: judged by admin-topics.ts, described by admin-openapi.ts.
 */
import { z } from 'zod';
import { controlBytesMax, isCloseCode } from '../core/frame-rules.ts';
import { parsePosition } from '../core/position.ts';
import { epochSchema, isEncoded, messageShape, notEncoded, offsetSchema, strictly, topicSchema } from './admin-schemas.ts';

/** Operations of one request. */
export const operationsMax = 1000;
/** Of one answer. */
export const historyMax = 1000;
const historyDefault = 100;
export const topicsMax = 10_000;
const topicsDefault = 1000;
export const usersMax = 10_000;
/** RFC 6455 §5.5.1: the code comes first. */
const reasonBytesMax = controlBytesMax - 2;
const userBytesMax = 1022;

const count = (least: number, most: number, fallback: number, what: string) => {
  const error = `is no number of ${what}; write a whole number from ${least} to ${most}`;
  return z.int({ error }).min(least, { error }).max(most, { error }).default(fallback);
};

const sinceSchema = z
  .string({ error: 'is not a string; write a position as "<epoch>:<offset>"' })
  .refine((text) => parsePosition(text) !== undefined, {
    error: 'is no position; write "<epoch>:<offset>" as answers say it, such as "6fe02d1dbf0a13c9:42"',
  })
  .optional()
  .describe('A position, "<epoch>:<offset>": only what came after it; with reverse, before it.');

const historyShape = {
  topic: topicSchema,
  since: sinceSchema,
  limit: count(0, historyMax, historyDefault, 'messages').describe('Messages at most; 0: the position alone.'),
  reverse: z.boolean({ error: 'is neither true nor false' }).default(false).describe('The latest first.'),
};
const presenceShape = { topic: topicSchema, limit: count(0, usersMax, usersMax, 'users').describe('Users at most.') };
const topicsShape = {
  prefix: z
    .string({ error: 'is not a string; write what the topics begin with' })
    .refine((prefix) => prefix.isWellFormed() && !prefix.startsWith('\0'), { error: 'is what no topic begins with; write another one' })
    .default('')
    .describe('What they begin with; default: anything.'),
  limit: count(1, topicsMax, topicsDefault, 'topics').describe('Topics at most.'),
};
const subscribersShape = { topic: topicSchema };

export const userSchema = z
  .string({ error: 'is missing, or not a string; write the id of a user' })
  .min(1, { error: 'is empty; write the id of a user' })
  .refine((user) => user.isWellFormed(), { error: 'is not well-formed Unicode' })
  .refine((user) => Buffer.byteLength(user) <= userBytesMax, {
    error: `is longer than ${userBytesMax} bytes of UTF-8; no user has such an id`,
  });

const disconnectShape = {
  socket: z
    .string({ error: 'is not a string; write the id of a socket' })
    .min(1, { error: 'is empty; write the id of a socket' })
    .max(256, { error: 'is longer than the id of a socket can be' })
    .optional()
    .describe('One connection, by its socket.id.'),
  user: userSchema.optional().describe('All connections of a user.'),
  topic: topicSchema.optional().describe('All subscribers of a topic.'),
  code: z
    .int({ error: 'is no close code; write 1000 to 1003, 1007 to 1014, or 3000 to 4999' })
    .refine(isCloseCode, { error: 'may not be sent; write 1000 to 1003, 1007 to 1014, or 3000 to 4999' })
    .default(1000)
    .describe('Of WebSockets (RFC 6455 §7.4).'),
  reason: z
    .string({ error: 'is not a string; write a few words, or leave it out' })
    .refine((reason) => reason.isWellFormed() && Buffer.byteLength(reason) <= reasonBytesMax, {
      error: `is longer than ${reasonBytesMax} bytes of UTF-8, or not well-formed; write a shorter one`,
    })
    .default('')
    .describe(`Of WebSockets, at most ${reasonBytesMax} bytes of UTF-8.`),
};
type Named = { readonly socket?: string | undefined; readonly user?: string | undefined; readonly topic?: string | undefined };
const hasOneTarget = ({ socket, user, topic }: Named) => [socket, user, topic].filter((name) => name !== undefined).length === 1;
const oneTarget = { error: 'says not one of socket, user and topic; write whom to disconnect, once' };

const sendShape = { user: userSchema, data: messageShape.data, encoding: messageShape.encoding };

export const historySchema = strictly(historyShape, '{ "topic": ... }');
export const presenceSchema = strictly(presenceShape, '{ "topic": ... }');
export const topicsSchema = strictly(topicsShape, '{ "prefix": ... }');
export const subscribersSchema = strictly(subscribersShape, '{ "topic": ... }');
export const disconnectSchema = strictly(disconnectShape, '{ "user": ... }').refine(hasOneTarget, oneTarget);

const named = <Name extends string, Shape extends z.ZodRawShape>(name: Name, shape: Shape) =>
  strictly({ operation: z.literal(name), ...shape }, '{ "operation": ... }');
const operationNames = ['publish', 'history', 'presence', 'topics', 'subscribers', 'disconnect', 'send'] as const;

export const operationSchema = z.discriminatedUnion(
  'operation',
  [
    named('publish', messageShape).refine(isEncoded, notEncoded),
    named('history', historyShape),
    named('presence', presenceShape),
    named('topics', topicsShape),
    named('subscribers', subscribersShape),
    named('disconnect', disconnectShape).refine(hasOneTarget, oneTarget),
    named('send', sendShape).refine(isEncoded, notEncoded),
  ],
  { error: `says no operation; write "operation" as one of ${operationNames.join(', ')}` },
);

export const batchSchema = strictly(
  {
    operations: z
      .array(operationSchema, { error: 'is not a list; write a list of operations' })
      .min(1, { error: 'is empty; write at least one operation' })
      .max(operationsMax, { error: `has too many operations; write at most ${operationsMax}` }),
  },
  '{ "operations": [...] }',
);
export type AskedOperation = z.output<typeof operationSchema>;

export const historyAnswerSchema = z.strictObject({
  epoch: epochSchema,
  offset: offsetSchema.describe('Of the latest message there is; 0, in an epoch of zeros: nothing was said yet, or all is long gone.'),
  recovered: z.boolean().describe('Nothing is missing between since and the first of messages; true without since.'),
  messages: z
    .array(
      z.strictObject({
        offset: z.int().min(1),
        data: z.string().optional().describe('Of a text message.'),
        base64: z.string().optional().describe('Of a binary message: its bytes.'),
      }),
    )
    .describe('As many as were asked for, or as go into one answer: ask for the rest with since.'),
});
export const presenceAnswerSchema = z.strictObject({
  count: z.int().min(0).describe('Users, also beyond those that are listed.'),
  users: z.array(
    z.strictObject({
      id: z.string(),
      connections: z.int().min(1).describe('Over all nodes.'),
      info: z.unknown().optional().describe('What the policy says of the user.'),
    }),
  ),
});
export const topicsAnswerSchema = z.strictObject({
  topics: z.array(z.string()).describe('Those that have subscribers, in alphabetical order.'),
});
export const subscribersAnswerSchema = z.strictObject({ subscribers: z.int().min(0).describe('Connections, over all nodes.') });
export const disconnectAnswerSchema = z.strictObject({ disconnected: z.int().min(0).describe('Connections.') });
export const sentSchema = z.strictObject({ sent: z.int().min(1).describe('Messages.') });
export const batchAnswerSchema = z.strictObject({
  results: z
    .array(
      z.looseObject({ error: z.string().optional(), status: z.int().optional().describe('With error: as that of a request of its own.') }),
    )
    .describe('Of each operation, in order: what a request of its own would answer.'),
});
