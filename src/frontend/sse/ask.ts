/**
 * What a request for a stream of events asks for.
 *
 *   GET /events?topic=room/tea&topic=news&since=<position>,<position>&presence=1
 *
 * Role: the head of a request → its wishes, or why it is refused. Pure. Up: entry.ts.
 */
import { policyTopicBytesMax } from '../../config/topic-pattern.ts';
import type { SseSettings } from '../../config/topics.ts';
import type { RequestHead } from '../../core/http.ts';
import { headerValues } from '../../core/request-target.ts';
import { type Place, placesOf, rememberedId } from '../streams/places.ts';
import type { StreamWishes } from '../streams/streams.ts';

/** `status`: of the answer, whose body is the sentence. */
export interface Refusal {
  readonly status: 400 | 404 | 406;
  readonly sentence: string;
}

/** What may be asked for: the config's word. */
export interface StreamLimits extends Pick<SseSettings, 'maxTopics'> {
  /** Whether the path has this topic. */
  has(topic: string): boolean;
}

const historyMax = 1000;

export function readWishes(head: RequestHead, limits: StreamLimits): StreamWishes | Refusal {
  if (!acceptsEvents(headerValues(head, 'accept')))
    return { status: 406, sentence: 'Not Acceptable: this is a stream of events; ask for text/event-stream' };
  const query = queryOf(head);
  if (query === undefined) return bad('the query is not percent-encoded UTF-8');
  const names = query.getAll('topic');
  if (names.length === 0) return bad('say which topic: ?topic=name, once for each');
  if (names.length > limits.maxTopics) return bad(`${names.length} topics are too many for one stream: at most ${limits.maxTopics}`);
  const problem = names.map(topicProblem).find((text) => text !== undefined);
  if (problem !== undefined) return bad(problem);
  if (new Set(names).size < names.length) return bad('a topic is named twice: once is enough');
  const foreign = names.find((name) => !limits.has(name));
  if (foreign !== undefined) return { status: 404, sentence: 'Not Found: a topic that is not streamed here' };
  const since = sinceOf(head, query, names.length);
  if (typeof since === 'string') return bad(since);
  const tokens = [...headerValues(head, 'topic-token').flatMap((value) => value.split(',')), ...query.getAll('topicToken')].map((text) =>
    text.trim(),
  );
  if (tokens.length > names.length) return bad('there are more tokens than topics: give one for each, in the order of the topics');
  const history = countOf(query.get('history'));
  if (history === undefined) return bad(`history is how many of the last messages come first, 0 to ${historyMax}`);
  const presence = switchOf(query.get('presence'));
  const greets = switchOf(query.get('subscribed'));
  if (presence === undefined || greets === undefined) return bad('presence and subscribed are 1 or 0');
  const format = query.get('format');
  if (format !== null && format !== 'json' && format !== 'text') return bad("format is 'json' or 'text'");
  if (format === 'text' && names.length > 1) return bad('format=text is for one topic: with several each event says which, as JSON');
  return {
    topics: names.map((topic, index) => ({ topic, since: since[index], token: tokens[index] || undefined })),
    history,
    presence,
    isJson: names.length > 1 || format === 'json',
    greets,
  };
}

function bad(why: string): Refusal {
  return { status: 400, sentence: `Bad Request: ${why}` };
}

/** ret: undefined: text that is not percent-encoded UTF-8, which URLSearchParams would make something else of */
function queryOf({ raw, hostBytes, targetBytes }: RequestHead): URLSearchParams | undefined {
  const target = raw.slice(hostBytes, hostBytes + targetBytes);
  const mark = target.indexOf('?');
  const query = mark < 0 ? '' : target.slice(mark + 1);
  try {
    decodeURIComponent(query);
  } catch {
    return undefined;
  }
  return new URLSearchParams(query);
}

function topicProblem(topic: string): string | undefined {
  if (topic === '') return 'the name of a topic is empty';
  if (topic.charCodeAt(0) === 0) return 'a topic does not begin with NUL';
  if (Buffer.byteLength(topic) > policyTopicBytesMax) return `the name of a topic has more than ${policyTopicBytesMax} bytes of UTF-8`;
  return undefined;
}

/** ret: by topic; or what is wrong with `since`, which a person has written */
function sinceOf(head: RequestHead, query: URLSearchParams, topics: number): readonly Place[] | string {
  const id = rememberedId(head, query.get('lastEventId'));
  if (id !== '') return placesOf(id, topics);
  const written = query.getAll('since').flatMap((value) => value.split(','));
  if (written.length === 0) return [];
  if (written.length !== topics) return `since has ${written.length} positions for ${topics} topics: give one for each, in their order`;
  const places = placesOf(written.join(','), topics);
  return places.includes('unknown') ? 'since is a position such as 00c0ffee00c0ffee:7, an epoch of 16 hex digits and an offset' : places;
}

function countOf(text: string | null): number | undefined {
  if (text === null) return 0;
  const count = /^[0-9]{1,4}$/.test(text) ? Number(text) : historyMax + 1;
  return count <= historyMax ? count : undefined;
}

function switchOf(text: string | null): boolean | undefined {
  if (text === null || text === '0' || text === 'false') return false;
  return text === '' || text === '1' || text === 'true' ? true : undefined;
}

/** RFC 9110 §12.5.1: the most specific range that fits says how welcome it is. No field: anything is. */
export function acceptsEvents(values: readonly string[]): boolean {
  let specificity = -1;
  let isWelcome = values.length === 0;
  for (const range of values.join(',').split(',')) {
    const [type = '', ...parameters] = range.split(';').map((part) => part.trim().toLowerCase());
    const rank = ['*/*', 'text/*', 'text/event-stream'].indexOf(type);
    if (rank < 0 || rank < specificity) continue;
    const weight = parameters.find((parameter) => /^q=/.test(parameter));
    specificity = rank;
    isWelcome = weight === undefined || Number(weight.slice(2)) > 0;
  }
  return isWelcome;
}
