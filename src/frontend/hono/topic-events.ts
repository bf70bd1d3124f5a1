/**
 * Topics as server-sent events from a route: `app.get('/feed', (c) => topicEvents(c, 'news'))`.
 *
 * Role: a Response that stands for a stream; when it is sent, streams/ answers in its place. What is told apart is its body, which middleware hands on
 * when it makes another Response of it.
 */
import type { Context } from 'hono';
import { SocketArgumentError } from '../../api/message.ts';
import type { Position } from '../../api/topics.ts';
import type { User } from '../../api/user.ts';
import { formatPosition, parsePosition } from '../../core/position.ts';
import { checkTopic } from '../../topics/raw-topics.ts';
import { placesOf, rememberedId } from '../streams/places.ts';
import type { StreamClient, StreamWishes } from '../streams/streams.ts';
import type { Exchange } from './exchange.ts';

export interface TopicEventsOptions {
  /**
   * Where the client was, unless it says so itself by Last-Event-ID: the id of an event, or the position of the topic. @default from now on
   */
  readonly since?: Position | string | undefined;
  /** So many of the last messages first, where nothing is known of where the client was: 0 to 1000; of topics with history. @default 0 */
  readonly history?: number | undefined;
  /** Who is there first, then who comes and goes; for topics with presence. @default false */
  readonly presence?: boolean | undefined;
  /** 'json': each event is an object that names its topic, as with several topics it always is. @default 'text' for one topic */
  readonly format?: 'text' | 'json' | undefined;
  /** Seconds without an event after which a comment keeps the stream open; 0: never. @default 15 */
  readonly heartbeat?: number | undefined;
  /** Whose stream it is, for the policies of the topics: `client.user`. @default nobody's */
  readonly user?: User | undefined;
  /** For the policies of the topics: `client.data`. */
  readonly data?: unknown;
  /** Tokens of the topics, in their order, where policies ask for them. */
  readonly tokens?: readonly string[] | undefined;
}

/** What is asked of a stream, until its response is sent. */
export interface PlannedStream {
  readonly wishes: StreamWishes;
  readonly client: StreamClient;
  readonly quietMs: number;
}

const topicsMax = 1000;
const historyMax = 1000;
const heartbeatMax = 3600;
const planned = new WeakMap<ReadableStream, PlannedStream>();

/** Of the body of a response, when it is that of a stream. */
export function plannedStream(body: ReadableStream): PlannedStream | undefined {
  return planned.get(body);
}

/**
 * Answer with a stream of the messages of topics, as server-sent events; a client that comes back goes on where it was. The policies of the topics decide
 * whether the client may have it: who may not gets 401 or 403. Return the response as it is, or with other headers.
 * Throws SocketArgumentError for what is no topic or no option.
 */
export function topicEvents(c: Context, topics: string | readonly string[], options: TopicEventsOptions = {}): Response {
  const exchange = c.env as Partial<Exchange> | undefined;
  const head = exchange?.head;
  if (head === undefined) throw new TypeError('topicEvents() needs the env that Ringway passes to fetch() as its second argument');
  const names = typeof topics === 'string' ? [topics] : topics;
  if (!Array.isArray(names) || names.length === 0 || names.length > topicsMax)
    throw new SocketArgumentError(`topicEvents: topics are a name, or a list of 1 to ${topicsMax}`);
  for (const name of names) checkTopic(name);
  if (new Set(names).size < names.length) throw new SocketArgumentError('topicEvents: a topic is named twice');
  const { presence = false, format = 'text', user, data, tokens = [] } = options;
  if (format !== 'text' && format !== 'json') throw new SocketArgumentError("topicEvents: format is 'text' or 'json'");
  const history = numberIn('history', options.history ?? 0, historyMax);
  const quietMs = numberIn('heartbeat', options.heartbeat ?? 15, heartbeatMax) * 1000;
  const places = placesOf(rememberedId(head, c.req.query('lastEventId') ?? null) || sinceText(options.since, names.length), names.length);
  const body = new ReadableStream({
    pull() {
      throw new TypeError('the response of topicEvents() is no stream to be read: return it as it is');
    },
  });
  planned.set(body, {
    wishes: {
      topics: names.map((topic, index) => ({ topic, since: places[index], token: tokens[index] })),
      history,
      presence,
      isJson: names.length > 1 || format === 'json',
      greets: false,
    },
    client: { user, data },
    quietMs,
  });
  return new Response(body, { headers: { 'content-type': 'text/event-stream', 'cache-control': 'no-store, no-transform' } });
}

function numberIn(name: string, value: number, most: number): number {
  if (Number.isInteger(value) && value >= 0 && value <= most) return value;
  throw new SocketArgumentError(`topicEvents: ${name} is an integer from 0 to ${most}`);
}

function sinceText(since: Position | string | undefined, topics: number): string {
  if (since === undefined) return '';
  const text = typeof since === 'string' ? since : formatPosition(since);
  if (typeof since !== 'string' && (topics > 1 || parsePosition(text) === undefined))
    throw new SocketArgumentError('topicEvents: since is a position of the one topic, or the id of an event');
  return text;
}
