/**
 * `topics` and `sse` of a config, one value at a time.
 * Role: a part of schema.ts. What concerns several values is topics.ts.
 */
import { z } from 'zod';
import type { TopicPolicy, TopicPresenceOptions } from '../api/topic-policy.ts';
import { ranges } from './defaults.ts';
import { show } from './show.ts';
import { boolean, integer, options, type RawIssue, sayInstead, seconds } from './values.ts';
import { origins } from './websocket-options.ts';

type Member = NonNullable<TopicPresenceOptions['member']>;
type Authorize = NonNullable<TopicPolicy['authorize']>;

const isFunction = (value: unknown) => typeof value === 'function';
/** As far as that can be seen without calling it. */
const kindOf = (value: unknown) => Object.getPrototypeOf(value)?.constructor?.name as string | undefined;
const isGenerator = (value: unknown) => isFunction(value) && /Generator/.test(kindOf(value) ?? '');

const memberInstead = 'a function member(client) that returns the id of the user, or { id, info }';
const member = z.custom<Member>((value) => isFunction(value) && !isGenerator(value) && kindOf(value) !== 'AsyncFunction', {
  error: ({ input }: RawIssue) => {
    if (!isFunction(input)) return `is ${show(input)}; write ${memberInstead}`;
    const what = isGenerator(input) ? 'is a generator' : 'is asynchronous, and who a member is must be known at once';
    return `${what}; write ${memberInstead}, and find out in upgrade what takes time`;
  },
});
const authorize = z.custom<Authorize>((value) => isFunction(value) && !isGenerator(value), {
  error: ({ input }: RawIssue) =>
    `${isGenerator(input) ? 'is a generator' : `is ${show(input)}`}; write a function authorize(client, topic, action) that returns true or false, or a promise of it`,
});

const historyInstead = 'false, or how much to keep, such as { size: 100, seconds: 300 }';
const history = z.union([z.literal(false), options({ size: integer(ranges.historySize), seconds: integer(ranges.historySeconds) })], {
  error: sayInstead(historyInstead),
});

const presence = z.union(
  [
    boolean(),
    options({
      member: member.optional(),
      grace: seconds(ranges.presenceGrace, ' (0: none)').optional(),
      maxInfoBytes: integer(ranges.presenceInfoBytes).optional(),
      maxMembers: integer(ranges.presenceMembers).optional(),
    }).refine((given) => Object.values(given).some((value) => value !== undefined), { error: 'is empty; write true' }),
  ],
  { error: sayInstead('true, false, or an object such as { grace: 3 }') },
);

const policy = options({
  history: history.optional(),
  recover: boolean().optional(),
  presence: presence.optional(),
  authorize: authorize.optional(),
  token: boolean().optional(),
});

export const topicsSchema = z.record(z.string(), policy, {
  error: sayInstead("an object from patterns to policies, such as { 'chat/:room': { history: { size: 100, seconds: 300 } } }"),
});

const sse = options({
  topics: z
    .array(z.string({ error: sayInstead("a pattern of topics such as 'chat/:room'") }), {
      error: sayInstead("a list such as ['chat/:room']"),
    })
    .min(1, { error: "is an empty list; write patterns of topics, such as 'chat/:room'" })
    .readonly(),
  heartbeat: seconds(ranges.heartbeat, ' (0: never)').optional(),
  origins: origins.optional(),
  maxTopics: integer(ranges.sseTopics).optional(),
  auth: z
    .union([z.literal('required'), z.literal('optional'), z.literal(false)], { error: sayInstead("'required', 'optional' or false") })
    .optional(),
});
export const sseSchema = z
  .record(z.string(), sse, { error: sayInstead("an object from paths to streams, such as { '/events': { topics: ['chat/:room'] } }") })
  .readonly();
