/**
 * What requests to the admin listener hold, read and judged.
 * Role: between admin-body.ts and the routes. A request that cannot be served as it is throws Refusal, which `serve` words.
 */
import { isUtf8 } from 'node:buffer';
import type { Context as HonoContext } from 'hono';
import type { z } from 'zod';
import { mistakesOf, pathText } from '../config/mistakes.ts';
import type { AdminEnv } from './admin-body.ts';
import { topicSchema } from './admin-schemas.ts';

export type Context = HonoContext<AdminEnv>;

/** A request that cannot be served as it is. */
export class Refusal extends Error {
  readonly status: 400 | 404 | 415;
  readonly mistakes: readonly string[];
  constructor(status: 400 | 404 | 415, message: string, mistakes: readonly string[] = []) {
    super(message);
    this.status = status;
    this.mistakes = mistakes;
  }
}

/** A handler whose refusals are answered. */
export const serve = (handle: (context: Context) => Promise<Response>) => async (context: Context) => {
  try {
    return await handle(context);
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    return context.json({ error: error.message, ...(error.mistakes.length > 0 ? { mistakes: error.mistakes } : {}) }, error.status);
  }
};

/** The body as JSON. `instead`: what may be sent in another form, and where. */
export function readJson(context: Context, instead = ''): unknown {
  const type = mediaType(context);
  if (type !== 'application/json')
    throw new Refusal(415, `the body is ${type === '' ? 'of no type' : type}; send application/json${instead}`);
  try {
    return JSON.parse(utf8(context.get('body')));
  } catch (error) {
    if (error instanceof Refusal) throw error;
    throw new Refusal(400, `the body is not JSON: ${error instanceof Error ? error.message : error}`);
  }
}

/** `what`: what is wrong when anything is, in a sentence. `whole`: what the value is. */
export function judge<Schema extends z.ZodType>(schema: Schema, value: unknown, what: string, whole = 'the body'): z.output<Schema> {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const lines = mistakesOf(parsed.error.issues).map(({ path, message }) => `${path.length === 0 ? whole : pathText(path)}: ${message}`);
  throw new Refusal(400, what, lines);
}

/** What curl, Python's urllib and others write when they were told no type: it says nothing of the body. */
const unsaidType = 'application/x-www-form-urlencoded';

/** The body as it is carried to a worker. With a type of text it is text, else bytes; where the client has chosen no type, text if it can be. */
export function readMessage(context: Context): { readonly data: string; readonly isBinary: boolean } {
  const bytes = context.get('body');
  const type = mediaType(context);
  const isText = type.startsWith('text/') || /^application\/(?:.+\+)?(?:json|xml)$/.test(type) || (type === unsaidType && isUtf8(bytes));
  return isText ? { data: utf8(bytes), isBinary: false } : { data: Buffer.from(bytes).toString('base64'), isBinary: true };
}

export function mediaType(context: Context): string {
  return (context.req.header('content-type') ?? '').split(';', 1)[0]?.trim().toLowerCase() ?? '';
}

/** Of the path, not decoded: what stands behind `prefix`. */
export function restOfPath(context: Context, prefix: string): string {
  return new URL(context.req.url).pathname.slice(prefix.length);
}

/** A topic in a path: it may hold slashes, encoded or not. Hono leaves what it cannot decode as it is, and the topic would be another. */
export function topicOf(encoded: string): string {
  const judged = topicSchema.safeParse(decoded(encoded, 'topic'));
  if (!judged.success) throw new Refusal(400, `the topic in the path ${judged.error.issues[0]?.message}`);
  return judged.data;
}

export function decoded(encoded: string, what: string): string {
  try {
    return decodeURIComponent(encoded);
  } catch {
    // Octets that are not encoded, the core has refused.
    throw new Refusal(400, `the ${what} in the path is not percent-encoded UTF-8`);
  }
}

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

function utf8(bytes: Uint8Array): string {
  try {
    return decoder.decode(bytes);
  } catch {
    throw new Refusal(400, 'the body is not UTF-8; send bytes as application/octet-stream to /publish/<topic>, or in base64');
  }
}
