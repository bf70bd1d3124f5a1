/**
 * What TypeScript counts, declared once: the name by which it is counted, kind, labels, and what `/metrics` shows of it.
 *
 * Role: a line here is all that a new counter takes; `core.addStat(statIndex('its_name'), 1)` counts it. The words lie in shared memory
 * beside the counters of the core, and mean what stands here, in this order. Up: stat-index.ts, supervisor/metrics.ts.
 */
import { by, counter, type Family, gauge, one, type Source } from './metric-family.ts';

/** Counters that a family of the core shows with its own. */
export interface Joined<Field extends string = string> {
  readonly kind: Family['kind'];
  /** The family, by its name in `/metrics`. */
  readonly joins: string;
  readonly sources: readonly Source<Field>[];
}

/** Of no family: shown in a form of its own. */
export interface Apart<Field extends string = string> {
  readonly kind: Family['kind'];
  readonly shownBy: string;
  readonly sources: readonly Source<Field>[];
}

const joined = <const Field extends string>(name: string, sources: readonly Source<Field>[]): Joined<Field> => ({
  kind: 'counter',
  joins: `${name}_total`,
  sources,
});
const apart = <const Field extends string>(shownBy: string, field: Field): Apart<Field> => ({
  kind: 'gauge',
  shownBy,
  sources: one(field),
});

/** Values of `redis_state`. */
export const redisStates = { none: 0, connecting: 1, up: 2, lost: 3 } as const;

export const hostCounters = [
  joined('websocket_upgrades_refused', by('reason', { origin: 'refused_origin' })),
  gauge('websocket_handlers_pending', 'Handlers of WebSockets whose promise has not settled.', one('ws_handlers_pending')),
  gauge(
    'websocket_messages_waiting',
    'Messages, pings and pongs received that wait for a handler before them.',
    one('ws_messages_waiting'),
  ),
  gauge('websocket_waiting_bytes', 'Payload of those messages.', one('ws_waiting_bytes')),
  counter(
    'websocket_handler_pauses',
    'Times a WebSocket was not read from because its messages waited for its handlers.',
    one('pauses_handlers'),
  ),
  // Redis: its outbox was full. Unhandled: they waited for a handler when their socket was closed by this side.
  joined('messages_dropped', by('reason', { redis: 'redis_drops', unhandled: 'drops_unhandled' })),
  apart('redis_up', 'redis_state'),
  counter('redis_publishes', 'PUBLISH and SPUBLISH commands that Redis has answered.', one('redis_publishes')),
  counter(
    'redis_messages',
    'Messages published through Redis, and messages of other nodes received.',
    by('direction', { out: 'redis_messages_out', in: 'redis_messages_in' }),
  ),
  counter(
    'redis_bytes',
    'Bytes of those messages, with their envelopes.',
    by('direction', { out: 'redis_bytes_out', in: 'redis_bytes_in' }),
  ),
  counter(
    'redis_messages_discarded',
    'Messages received from Redis and not delivered: published by this node, received before, of no sense, or not signed as they should be.',
    by('reason', { echo: 'redis_echoes', duplicate: 'redis_duplicates', malformed: 'redis_malformed', unsigned: 'redis_unsigned' }),
  ),
  counter('redis_gaps', 'Subscriptions that were interrupted: messages may have been missed.', one('redis_gaps')),
  counter('redis_reconnects', 'Connections to Redis made again after one was lost.', one('redis_reconnects')),
  counter(
    'redis_log_steps',
    'Steps of logs of topics that Redis has answered: messages appended, and reads.',
    by('kind', { append: 'redis_log_appends', read: 'redis_log_reads' }),
  ),
  counter(
    'redis_log_failures',
    'Steps of logs of topics that were given up: Redis was away for too long or refused them, or too much waited.',
    one('redis_log_failures'),
  ),
  counter(
    'redis_log_repairs',
    'Times a log that the node follows was read, since entries had not come or its subscription was interrupted.',
    one('redis_log_repairs'),
  ),
  counter('redis_log_breaks', 'Times such a log went on without entries that were gone: subscribers are told.', one('redis_log_breaks')),
  counter('redis_log_full', 'Entries of such logs that the memory of the node had no room for at first.', one('redis_log_full')),
  counter('redis_log_damaged', 'Steps of logs and members for which a key in Redis held something else.', one('redis_log_damaged')),
  counter(
    'redis_member_steps',
    'Steps of members of topics: what Redis has answered, and what was given up.',
    by('outcome', { answered: 'redis_member_steps', failed: 'redis_member_failures' }),
  ),
  counter('redis_errors', 'Error answers of Redis.', one('redis_errors')),
  gauge('redis_topics', 'Topics that the worker holds a subscription for.', one('redis_topics')),
  gauge('redis_outbox_messages', 'Messages that wait for Redis.', one('redis_outbox_messages')),
  gauge('redis_outbox_bytes', 'Bytes of those messages.', one('redis_outbox_bytes')),
  gauge('redis_lag_seconds', 'Latest time from publishing a probe until it came back.', one('redis_lag_us'), { scale: 1e-6, node: 'max' }),
  counter(
    'handler_errors',
    'Handlers that threw or rejected, answered 500, or gave a body that did not fit its Content-Length.',
    one('handler_errors'),
  ),
  counter(
    'topic_subscriptions_refused',
    'Subscriptions to topics with a policy that were refused, by what the client lacked or the gateway could not give.',
    by('reason', {
      forbidden: 'topic_refused_forbidden',
      token: 'topic_refused_token',
      full: 'topic_refused_full',
      unavailable: 'topic_refused_unavailable',
    }),
  ),
  counter(
    'topic_recoveries',
    'Subscriptions that asked for what they had missed, by what came of it: all of it, not all of it, or what was asked from is no position.',
    by('result', { recovered: 'topic_recovered', lost: 'topic_recovery_lost', malformed: 'topic_recovery_malformed' }),
  ),
  counter(
    'sse_refused',
    'Streams of server-sent events that were refused: what was asked for is none (400, 404, 405, 406), by the page that asked, a token, or a policy.',
    by('reason', {
      request: 'sse_refused_request',
      origin: 'sse_refused_origin',
      token: 'sse_refused_token',
      forbidden: 'sse_refused_forbidden',
    }),
  ),
  counter(
    'sse_lost',
    'Streams that were told of messages lost when they began: they said where they were, and the log had not all of it.',
    one('sse_lost'),
  ),
  counter(
    'sse_given_up',
    'Streams that were ended as they began, since a topic could not be had: as many as may be, or its log out of reach.',
    one('sse_given_up'),
  ),
  counter(
    'topic_publishes_failed',
    'Messages to topics with history that nobody got, since their log could not be reached, or the memory for it is full.',
    by('reason', { full: 'topic_publishes_full', unavailable: 'topic_publishes_unavailable' }),
  ),
  counter(
    'topic_members_refused',
    'Connections that are subscribed to a topic with presence and not seen there, by why.',
    by('reason', { full: 'topic_members_full', invalid: 'topic_member_invalid' }),
  ),
  counter('topic_tokens_ended', 'Subscriptions that ended because the token for the topic did.', one('topic_tokens_ended')),
  counter(
    'topic_control_failures',
    'Questions to all workers that not all answered in time, and letters between workers that made no sense.',
    by('reason', { incomplete: 'topic_control_incomplete', malformed: 'topic_control_malformed' }),
  ),
  counter(
    'auth_refusals',
    'Tokens that were not believed, and clients that were refused because they had none.',
    by('reason', {
      missing: 'auth_missing',
      malformed: 'auth_malformed',
      algorithm: 'auth_algorithm',
      key: 'auth_key',
      signature: 'auth_signature',
      expired: 'auth_expired',
      early: 'auth_early',
      issuer: 'auth_issuer',
      audience: 'auth_audience',
      claims: 'auth_claims',
      user: 'auth_user',
      topic: 'auth_topic',
      timeout: 'auth_timeout',
      full: 'auth_full',
      unavailable: 'auth_unavailable',
    }),
  ),
  counter('auth_renewals', 'Newer tokens that WebSockets have taken in place of theirs.', one('auth_renewals')),
  counter('auth_expirations', 'WebSockets closed because their token had ended.', one('auth_expirations')),
  counter(
    'auth_key_fetches',
    'Fetches of what an issuer publishes as its keys.',
    by('result', { ok: 'auth_fetches', failed: 'auth_fetch_failures' }),
  ),
  counter('heartbeats', 'Signs that the event loop goes on, about one a second.', one('heartbeats')),
  counter('log_lines_lost', 'Lines of its log that the worker could not write.', one('log_losses')),
  gauge('event_loop_lag_seconds', 'Latest delay of the event loop.', one('loop_lag_us'), { scale: 1e-6, node: 'max' }),
  gauge('event_loop_lag_max_seconds', 'Worst delay of the event loop since the worker started.', one('loop_lag_max_us'), {
    scale: 1e-6,
    node: 'max',
  }),
] as const;

export type HostCounter = (typeof hostCounters)[number]['sources'][number][0];
