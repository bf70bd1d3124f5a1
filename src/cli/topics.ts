/**
 * `ringway history|presence|topics|subscribers|disconnect|send`: what topics remember, who is on them, and what can be done to connections.
 * Role: requests to the admin listener of a gateway that runs, and their answers for people or programs.
 */
import { parsePosition } from '../core/position.ts';
import { historyMax, topicsMax } from '../supervisor/admin-topic-schemas.ts';
import type { AdminClient } from './admin-client.ts';
import { integer, UsageError } from './arguments.ts';
import { type GivenMessage, type Input, messageBody, standardInput } from './message-body.ts';

/** What a command prints: `answer` with --json. */
export interface Told {
  readonly answer: object;
  readonly text: string;
}

export interface HistoryAsked {
  readonly topic: string;
  readonly since: string | undefined;
  readonly limit: string | undefined;
  readonly reverse: boolean;
}

interface HistoryAnswer {
  readonly epoch: string;
  readonly offset: number;
  readonly recovered: boolean;
  readonly messages: readonly { readonly offset: number; readonly data?: string; readonly base64?: string }[];
}

/** Each of these throws UsageError and OperatingError. */
export async function history(client: AdminClient, { topic, since, limit, reverse }: HistoryAsked): Promise<Told> {
  if (since !== undefined && parsePosition(since) === undefined)
    throw new UsageError(`--since is '${since}'; write a position as 'ringway history ${topic}' shows it, such as 6fe02d1dbf0a13c9:42`);
  const query = queryOf({
    since,
    limit: limit === undefined ? undefined : String(integer('--limit', limit, [0, historyMax])),
    reverse: reverse ? 'true' : undefined,
  });
  const answer = await client.answer<HistoryAnswer>(topicPath(topic, 'history') + query);
  const { epoch, offset, recovered, messages } = answer;
  const width = String(Math.max(0, ...messages.map((message) => message.offset))).length;
  const lines = messages.map(
    (message) =>
      `  ${String(message.offset).padStart(width)}  ${message.data === undefined ? `base64 ${message.base64}` : shown(message.data)}`,
  );
  const missing = recovered ? [] : [`what came after ${since} is not all there any more`];
  return { answer, text: [`${epoch}:${offset}`, ...missing, ...lines].join('\n') };
}

interface PresenceAnswer {
  readonly count: number;
  readonly users: readonly { readonly id: string; readonly connections: number; readonly info?: unknown }[];
}

export async function presence(client: AdminClient, topic: string): Promise<Told> {
  const answer = await client.answer<PresenceAnswer>(topicPath(topic, 'presence'));
  const lines = answer.users.map(
    ({ id, connections, info }) =>
      `  ${shown(id)}  ${counted(connections, 'connection')}${info === undefined ? '' : `  ${JSON.stringify(info)}`}`,
  );
  return { answer, text: [counted(answer.count, 'user'), ...lines].join('\n') };
}

export async function topics(client: AdminClient, prefix: string | undefined, limit: string | undefined): Promise<Told> {
  const most = limit === undefined ? undefined : String(integer('--limit', limit, [1, topicsMax]));
  const answer = await client.answer<{ readonly topics: readonly string[] }>(`/topics${queryOf({ prefix, limit: most })}`);
  return { answer, text: answer.topics.map(shown).join('\n') };
}

export async function subscribers(client: AdminClient, topic: string): Promise<Told> {
  const answer = await client.answer<{ readonly subscribers: number }>(topicPath(topic, 'subscribers'));
  return { answer, text: String(answer.subscribers) };
}

export interface DisconnectAsked {
  readonly socket: string | undefined;
  readonly user: string | undefined;
  readonly topic: string | undefined;
  readonly code: string | undefined;
  readonly reason: string | undefined;
}

export async function disconnect(client: AdminClient, { code, ...asked }: DisconnectAsked): Promise<Told> {
  if ([asked.socket, asked.user, asked.topic].filter((name) => name !== undefined).length !== 1)
    throw new UsageError('whom? Write one of --socket, --user and --topic');
  const body = { ...asked, ...(code === undefined ? {} : { code: integer('--code', code, [1000, 4999]) }) };
  const answer = await client.answer<{ readonly disconnected: number }>('/disconnect', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
  return { answer, text: `disconnected ${counted(answer.disconnected, 'connection')}` };
}

export async function send(client: AdminClient, user: string, message: GivenMessage, input: Input = standardInput): Promise<Told> {
  checkPart('user', user);
  const { body, type } = await messageBody(message, input);
  const path = `/users/${encodeURIComponent(user)}/send`;
  const answer = await client.answer<object>(path, { method: 'POST', headers: { 'content-type': type }, body });
  return { answer, text: `sent to ${user}` };
}

function topicPath(topic: string, what: string): string {
  checkPart('topic', topic);
  return `/topics/${encodeURIComponent(topic)}/${what}`;
}

/** What URLs take out of a path, however it is written. Throws UsageError. */
function checkPart(what: string, name: string): void {
  if (name === '.' || name === '..')
    throw new UsageError(`the ${what} '${name}' cannot stand in a URL; send it as JSON to POST /batch of the admin listener`);
}

function queryOf(values: Readonly<Record<string, string | undefined>>): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) if (value !== undefined) query.set(name, value);
  return query.size === 0 ? '' : `?${query}`;
}

const counted = (count: number, what: string) => `${count} ${what}${count === 1 ? '' : 's'}`;

/** Of others: what would move a terminal's cursor, or more, is shown as JSON. */
function shown(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: those are what is looked for
  return /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/.test(text)
    ? JSON.stringify(text).replaceAll(/[\u007f-\u009f\u2028\u2029]/g, escaped)
    : text;
}

const escaped = (letter: string) => `\\u${letter.charCodeAt(0).toString(16).padStart(4, '0')}`;
