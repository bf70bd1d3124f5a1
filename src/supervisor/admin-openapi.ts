/**
 * The OpenAPI description of the admin listener. Its schemas are those that requests are judged by.
 */
import { z } from 'zod';
import { describeTopics, topicComponents } from './admin-openapi-topics.ts';
import {
  healthSchema,
  messageSchema,
  messagesSchema,
  problemSchema,
  publishedSchema,
  readySchema,
  reloadedSchema,
} from './admin-schemas.ts';

const schemas = {
  Message: messageSchema,
  Messages: messagesSchema,
  Published: publishedSchema,
  ...topicComponents,
  Problem: problemSchema,
  Reloaded: reloadedSchema,
  Ready: readySchema,
  Health: healthSchema,
} as const;
type SchemaName = keyof typeof schemas;

const reference = (name: SchemaName) => ({ $ref: `#/components/schemas/${name}` });
const json = (description: string, name: SchemaName) => ({ description, content: { 'application/json': { schema: reference(name) } } });
const problem = (description: string) => json(description, 'Problem');

const refusals = {
  '401': problem('The token is missing or wrong.'),
  '403': problem('The gateway has no token, so that nobody can show it.'),
};
const publishAnswers = {
  '200': json('Every message was published.', 'Published'),
  '400': problem('What was sent is not in order. Nothing was published.'),
  ...refusals,
  '404': problem('What runs here takes no messages from outside: a program.'),
  '413': problem('The body is too large. Nothing was published.'),
  '503': problem(
    'No worker is ready, too much is being published at once, or a log cannot be reached. Nothing was published unless it says so; try again after Retry-After seconds.',
  ),
  '504': problem('A worker did not answer: the messages may or may not have gone out.'),
};
const idempotencyKey = {
  name: 'Idempotency-Key',
  in: 'header',
  required: false,
  description: 'Names the one message of the request; as "idempotencyKey" in JSON.',
  schema: { type: 'string', minLength: 1 },
};
const security = [{ token: [] }];

/** ret: an OpenAPI 3.1 document */
export function describeAdmin(version: string): object {
  return {
    openapi: '3.1.0',
    info: {
      title: 'Ringway admin listener',
      version,
      description: 'Health, metrics, topics, publishing and reloading of one gateway node.',
      license: { name: 'MIT', identifier: 'MIT' },
    },
    servers: [{ url: '/' }],
    paths: {
      '/publish': {
        post: {
          operationId: 'publish',
          summary: 'Publish one message, or several in order, to the subscribers of their topics on every node.',
          security,
          parameters: [idempotencyKey],
          requestBody: {
            required: true,
            content: { 'application/json': { schema: { oneOf: [reference('Message'), reference('Messages')] } } },
          },
          responses: { ...publishAnswers, '415': problem('The body is not application/json. Nothing was published.') },
        },
      },
      '/publish/{topic}': {
        post: {
          operationId: 'publishRaw',
          summary: 'Publish the body as one message: text for text/*, JSON and XML types, else binary.',
          security,
          parameters: [
            { name: 'topic', in: 'path', required: true, description: 'Percent-encoded.', schema: { type: 'string', minLength: 1 } },
            idempotencyKey,
          ],
          requestBody: { required: false, content: { 'text/plain': { schema: { type: 'string' } }, 'application/octet-stream': {} } },
          responses: publishAnswers,
        },
      },
      ...describeTopics({ json, problem, reference, refusals, security }),
      '/reload': {
        post: {
          operationId: 'reload',
          summary: 'Load the configuration again, and replace the workers without closing a listening socket.',
          security,
          responses: {
            '200': json('The new configuration serves.', 'Reloaded'),
            ...refusals,
            '404': problem('What runs here has no configuration: a program.'),
            '409': problem('It cannot be reloaded now, or the new workers did not start. The old configuration serves on.'),
            '422': problem('The new configuration is wrong. The old one serves on.'),
          },
        },
      },
      '/healthz': {
        get: {
          operationId: 'health',
          summary: 'Whether the node is alive, and how it is.',
          responses: { '200': json('It is alive.', 'Health') },
        },
      },
      '/readyz': {
        get: {
          operationId: 'ready',
          summary: 'Whether the node wants traffic.',
          responses: { '200': json('It does.', 'Ready'), '503': json('It does not: it starts or stops.', 'Ready') },
        },
      },
      '/metrics': {
        get: {
          operationId: 'metrics',
          summary: 'Prometheus metrics.',
          responses: {
            '200': { description: 'Text in the format of Prometheus.', content: { 'text/plain': { schema: { type: 'string' } } } },
          },
        },
      },
      '/openapi.json': {
        get: {
          operationId: 'describe',
          summary: 'This description.',
          responses: { '200': { description: 'An OpenAPI document.', content: { 'application/json': { schema: { type: 'object' } } } } },
        },
      },
    },
    components: {
      securitySchemes: { token: { type: 'http', scheme: 'bearer', description: 'admin.token of the config, or ADMIN_TOKEN.' } },
      schemas: describeSchemas(),
    },
  };
}

/** Each by its name; where one stands within another, it is referred to. */
function describeSchemas(): object {
  const registry = z.registry<{ id: string }>();
  for (const [id, schema] of Object.entries(schemas)) registry.add(schema, { id });
  const described = z.toJSONSchema(registry, { io: 'input', uri: (id) => `#/components/schemas/${id}` });
  return Object.fromEntries(
    Object.entries(described.schemas).map(([name, schema]) => {
      const { $schema: _dialect, $id: _place, ...own } = schema as Record<string, unknown>;
      return [name, own];
    }),
  );
}
