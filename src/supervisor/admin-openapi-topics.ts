/**
 * The part of the OpenAPI description that tells of topics, and of who is on them.
 * Role: a part of admin-openapi.ts. Parameters are described by the schemas that judge them.
 */
import { z } from 'zod';
import {
  batchAnswerSchema,
  batchSchema,
  disconnectAnswerSchema,
  disconnectSchema,
  historyAnswerSchema,
  historySchema,
  presenceAnswerSchema,
  presenceSchema,
  sentSchema,
  subscribersAnswerSchema,
  topicsAnswerSchema,
  topicsSchema,
} from './admin-topic-schemas.ts';

export const topicComponents = {
  History: historyAnswerSchema,
  Presence: presenceAnswerSchema,
  Topics: topicsAnswerSchema,
  Subscribers: subscribersAnswerSchema,
  Disconnect: disconnectSchema,
  Disconnected: disconnectAnswerSchema,
  Sent: sentSchema,
  Batch: batchSchema,
  BatchAnswer: batchAnswerSchema,
} as const;

type Component = keyof typeof topicComponents;

/** How admin-openapi.ts writes what its paths have in common. */
export interface Wording {
  json(description: string, name: Component): object;
  problem(description: string): object;
  reference(name: Component): object;
  /** When the token is not shown. */
  readonly refusals: Readonly<Record<string, object>>;
  readonly security: readonly object[];
}

function queryOf(schema: z.ZodType): object[] {
  const { properties = {} } = z.toJSONSchema(schema, { io: 'input' }) as { properties?: Record<string, { description?: string }> };
  return Object.entries(properties)
    .filter(([name]) => name !== 'topic')
    .map(([name, { description, ...own }]) => ({ name, in: 'query', required: false, description, schema: own }));
}

const topicParameter = {
  name: 'topic',
  in: 'path',
  required: true,
  description: 'Percent-encoded; its slashes may stand as they are.',
  schema: { type: 'string', minLength: 1 },
};

export function describeTopics({ json, problem, reference, refusals, security }: Wording): object {
  const readAnswers = (description: string, name: Component, absent: string) => ({
    '200': json(description, name),
    '400': problem('What was asked for is not in order.'),
    '404': problem(absent),
    '503': problem(
      'No worker is ready, too much is being asked for at once, or a store cannot be reached; try again after Retry-After seconds.',
    ),
  });
  const writeAnswers = (description: string, name: Component) => ({
    '200': json(description, name),
    '400': problem('What was sent is not in order. Nothing was done.'),
    ...refusals,
    '404': problem('What runs here has no topics of its own: a program.'),
    '413': problem('The body is too large. Nothing was done.'),
    '503': problem('No worker is ready, or too much is being asked for at once. Nothing was done; try again after Retry-After seconds.'),
    '504': problem('A worker did not answer: it may or may not have been done.'),
  });
  // What a worker cannot do stands among the results.
  const { '504': _unknown, ...batchAnswers } = writeAnswers('What became of each.', 'BatchAnswer');
  const body = (name: Component) => ({ required: true, content: { 'application/json': { schema: reference(name) } } });
  const notJson = { '415': problem('The body is not application/json. Nothing was done.') };
  const isProgram = 'What runs here does not tell of its topics: a program.';
  return {
    '/topics': {
      get: {
        operationId: 'topics',
        summary: 'The topics that have subscribers, on whichever node.',
        parameters: queryOf(topicsSchema),
        responses: readAnswers('Their names.', 'Topics', isProgram),
      },
    },
    '/topics/{topic}/history': {
      get: {
        operationId: 'history',
        summary: 'What was said on a topic with history.',
        parameters: [topicParameter, ...queryOf(historySchema)],
        responses: readAnswers('Its messages.', 'History', 'The topic has no history, or what runs here is a program.'),
      },
    },
    '/topics/{topic}/presence': {
      get: {
        operationId: 'presence',
        summary: 'Who is on a topic with presence, on whichever node.',
        parameters: [topicParameter, ...queryOf(presenceSchema)],
        responses: readAnswers('Its members.', 'Presence', 'The topic has no presence, or what runs here is a program.'),
      },
    },
    '/topics/{topic}/subscribers': {
      get: {
        operationId: 'subscribers',
        summary: 'How many connections are subscribed to a topic, on whichever node.',
        parameters: [topicParameter],
        responses: readAnswers('How many.', 'Subscribers', isProgram),
      },
    },
    '/disconnect': {
      post: {
        operationId: 'disconnect',
        summary: 'End a connection, all of a user, or all subscribers of a topic, on whichever node.',
        security,
        requestBody: body('Disconnect'),
        responses: { ...writeAnswers('They are ended.', 'Disconnected'), ...notJson },
      },
    },
    '/users/{id}/send': {
      post: {
        operationId: 'send',
        summary: 'Send the body to every connection of a user, on whichever node: text for text/*, JSON and XML types, else binary.',
        security,
        parameters: [{ name: 'id', in: 'path', required: true, description: 'Percent-encoded.', schema: { type: 'string', minLength: 1 } }],
        requestBody: { required: false, content: { 'text/plain': { schema: { type: 'string' } }, 'application/octet-stream': {} } },
        responses: writeAnswers('It is on its way to those connections that there are.', 'Sent'),
      },
    },
    '/batch': {
      post: {
        operationId: 'batch',
        summary: 'Several operations in order: publish, history, presence, topics, subscribers, disconnect, send.',
        security,
        requestBody: body('Batch'),
        responses: { ...batchAnswers, ...notJson },
      },
    },
  };
}
