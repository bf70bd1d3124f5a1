/**
 * `POST /publish` and `POST /publish/<topic>`: messages from a backend in any language.
 * Role: judges requests and words answers. Up: admin.ts. Down: publisher.ts, which hands the messages to workers.
 */
import type { Hono, Context as HonoContext } from 'hono';
import { mistakesOf, pathText } from '../config/mistakes.ts';
import type { PublishedMessage } from '../process/boot.ts';
import type { AdminEnv } from './admin-body.ts';
import { messageSchema, messagesSchema, topicSchema } from './admin-schemas.ts';
import type { PublishOutcome } from './publisher.ts';

type Context = HonoContext<AdminEnv>;

export type Publish = (messages: readonly PublishedMessage[]) => Promise<PublishOutcome>;

/** A request that cannot be served as it is. */
class Refusal extends Error {
  readonly status: 400 | 415;
  readonly mistakes: readonly string[];
  constructor(status: 400 | 415, message: string, mistakes: readonly string[] = []) {
    super(message);
    this.status = status;
    this.mistakes = mistakes;
  }
}

export function addPublishRoutes(app: Hono<AdminEnv>, publish: Publish): void {
  const serve = (read: (context: Context) => readonly PublishedMessage[]) => async (context: Context) => {
    try {
      const messages = read(context);
      return answer(context, await publish(messages), messages.length);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      return context.json({ error: error.message, ...(error.mistakes.length > 0 ? { mistakes: error.mistakes } : {}) }, error.status);
    }
  };
  app.post('/publish', serve(readJson));
  app.post('/publish/*', serve(readRaw));
}

function readJson(context: Context): readonly PublishedMessage[] {
  const type = mediaType(context);
  if (type !== 'application/json')
    throw new Refusal(415, `the body is ${type === '' ? 'of no type' : type}; send application/json, or a raw message to /publish/<topic>`);
  let body: unknown;
  try {
    body = JSON.parse(utf8(context.get('body')));
  } catch (error) {
    if (error instanceof Refusal) throw error;
    throw new Refusal(400, `the body is not JSON: ${error instanceof Error ? error.message : error}`);
  }
  const isMany = typeof body === 'object' && body !== null && 'messages' in body;
  const parsed = isMany ? messagesSchema.safeParse(body) : messageSchema.safeParse(body);
  if (!parsed.success) {
    const lines = mistakesOf(parsed.error.issues).map(
      ({ path, message }) => `${path.length === 0 ? 'the body' : pathText(path)}: ${message}`,
    );
    throw new Refusal(400, 'the messages are not in order; nothing was published', lines);
  }
  const messages = 'messages' in parsed.data ? parsed.data.messages : [parsed.data];
  return messages.map(({ topic, data, encoding }) => ({ topic, data, isBinary: encoding === 'base64' }));
}

function readRaw(context: Context): readonly PublishedMessage[] {
  const judged = topicSchema.safeParse(topicOf(context.req.url));
  if (!judged.success) throw new Refusal(400, `the topic in the path ${judged.error.issues[0]?.message}`);
  const topic = judged.data;
  const bytes = context.get('body');
  const type = mediaType(context);
  const isText = type.startsWith('text/') || /^application\/(?:.+\+)?(?:json|xml)$/.test(type);
  return isText
    ? [{ topic, data: utf8(bytes), isBinary: false }]
    : [{ topic, data: Buffer.from(bytes).toString('base64'), isBinary: true }];
}

/** The rest of the path: it may hold slashes, encoded or not. Hono leaves what it cannot decode as it is, and the topic would be another. */
function topicOf(url: string): string {
  try {
    return decodeURIComponent(new URL(url).pathname.slice('/publish/'.length));
  } catch {
    // Octets that are not encoded, the core has refused.
    throw new Refusal(400, 'the topic in the path is not percent-encoded UTF-8');
  }
}

function mediaType(context: Context): string {
  return (context.req.header('content-type') ?? '').split(';', 1)[0]?.trim().toLowerCase() ?? '';
}

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

function utf8(bytes: Uint8Array): string {
  try {
    return decoder.decode(bytes);
  } catch {
    throw new Refusal(400, 'the body is not UTF-8; send bytes as application/octet-stream to /publish/<topic>, or in base64');
  }
}

function answer(context: Context, outcome: PublishOutcome, count: number): Response {
  switch (outcome.kind) {
    case 'published':
      return context.json({ published: count });
    case 'busy':
      return context.json({ error: 'too much is being published at once; try again' }, 503, { 'retry-after': '1' });
    case 'no worker':
      return context.json({ error: 'no worker is ready; try again' }, 503, { 'retry-after': '1' });
    case 'unknown':
      return context.json({ error: `${outcome.reason}: the messages may or may not have gone out` }, 504);
    default:
      return outcome satisfies never;
  }
}
