/**
 * `topics` and `sse`: policies and streams with their defaults, and what is wrong with several values together.
 * Role: a part of resolve.ts. Up: topics/policies.ts, which finds the policy of a topic, and frontend/sse/.
 */
import type { SseOptions, TopicPolicy } from '../api/topic-policy.ts';
import { defaults, ssePathsMax, topicPoliciesMax } from './defaults.ts';
import { patternShape } from './pattern.ts';
import { parsePattern } from './route-pattern.ts';
import type { Complain } from './tls.ts';
import { parseTopicPattern } from './topic-pattern.ts';

export interface PresenceSettings {
  /** Asked as a method of what was given. undefined: the user's id, else the connection's. */
  readonly member: NonNullable<Exclude<TopicPolicy['presence'], boolean>>['member'];
  /** Seconds. */
  readonly grace: number;
  readonly maxInfoBytes: number;
  /** Connections of one topic. */
  readonly maxMembers: number;
}

/** A policy with its defaults. */
export interface TopicPolicySettings {
  readonly pattern: string;
  readonly history: false | { readonly size: number; readonly seconds: number };
  readonly recover: boolean;
  readonly presence: false | PresenceSettings;
  /** undefined: all is allowed. */
  readonly authorize: TopicPolicy['authorize'];
  readonly token: boolean;
}

/** A stream of events with its defaults. */
export interface SseSettings {
  readonly path: string;
  readonly topics: readonly string[];
  /** Seconds; 0: never. */
  readonly heartbeat: number;
  readonly origins: 'any' | 'same-host' | readonly string[];
  readonly maxTopics: number;
  /** Where the config has `auth`. */
  readonly auth: 'required' | 'optional' | false;
}

/** Whether anything is kept about topics of these policies: then the workers need memory in common. */
export function keepsState(policies: readonly TopicPolicySettings[]): boolean {
  return policies.some(({ history, presence }) => history !== false || presence !== false);
}

/** ret: in the order of the config */
export function resolveTopics(topics: Readonly<Record<string, TopicPolicy>>, complain: Complain): TopicPolicySettings[] {
  const patterns = Object.keys(topics);
  if (patterns.length > topicPoliciesMax) complain(['topics'], `has ${patterns.length} policies; write at most ${topicPoliciesMax}`);
  checkTopicPatterns(patterns, (pattern) => ['topics', pattern], complain);
  return Object.entries(topics).map(([pattern, policy]) => {
    const at = (...path: PropertyKey[]) => ['topics', pattern, ...path];
    const { history = defaults.topics.history, presence = defaults.topics.presence, token = defaults.topics.token } = policy;
    if (Object.values(policy).every((value) => value === undefined))
      complain(
        at(),
        'says nothing; write history, presence, authorize or token, or history: false for topics that are to have nothing of a wider pattern',
      );
    if (policy.recover === true && history === false)
      complain(at('recover'), 'needs history, from which is recovered; write history: { size: 100, seconds: 300 } beside it, or remove it');
    return {
      pattern,
      history: history === false ? false : { size: history.size, seconds: history.seconds },
      recover: history !== false && (policy.recover ?? true),
      presence: resolvePresence(presence),
      authorize: policy.authorize?.bind(policy),
      token,
    };
  });
}

/** For a config without `auth`: nobody's token would be believed, so that nobody could subscribe. */
export function refuseTokens(policies: readonly TopicPolicySettings[], complain: Complain): void {
  for (const { pattern, token } of policies)
    if (token)
      complain(
        ['topics', pattern, 'token'],
        'needs auth, which says whose tokens are believed; write auth: { jwt: { secret: ... } }, or remove it',
      );
}

function resolvePresence(presence: NonNullable<TopicPolicy['presence']>): false | PresenceSettings {
  if (presence === false) return false;
  if (presence === true) return { ...defaults.topicPresence, member: undefined };
  const { grace, maxInfoBytes, maxMembers } = defaults.topicPresence;
  return {
    member: presence.member?.bind(presence),
    grace: presence.grace ?? grace,
    maxInfoBytes: presence.maxInfoBytes ?? maxInfoBytes,
    maxMembers: presence.maxMembers ?? maxMembers,
  };
}

/** ret: in the order of the config */
export function resolveSse(sse: Readonly<Record<string, SseOptions>>, complain: Complain): SseSettings[] {
  const paths = Object.keys(sse);
  if (paths.length > ssePathsMax) complain(['sse'], `has ${paths.length} paths; write at most ${ssePathsMax}`);
  return Object.entries(sse).map(([path, { topics, heartbeat, origins, maxTopics, auth }]) => {
    const problem = ssePathProblem(path);
    if (problem !== undefined) complain(['sse', path], `the path ${problem}`);
    checkTopicPatterns(topics, (_, index) => ['sse', path, 'topics', index], complain);
    return {
      path,
      topics,
      heartbeat: heartbeat ?? defaults.sse.heartbeat,
      origins: origins ?? defaults.sse.origins,
      maxTopics: maxTopics ?? defaults.sse.maxTopics,
      auth: auth ?? defaults.sse.auth,
    };
  });
}

function ssePathProblem(path: string): string | undefined {
  const parsed = parsePattern(path);
  if ('problem' in parsed) return parsed.problem;
  const isFixed = parsed.segments.every(({ kind }) => kind === 'text');
  return isFixed ? undefined : "has a parameter or '*', which streams do not; write a fixed path such as '/events': clients say ?topic=";
}

function checkTopicPatterns(patterns: readonly string[], at: (pattern: string, index: number) => PropertyKey[], complain: Complain): void {
  const seen = new Map<string, string>();
  for (const [index, pattern] of patterns.entries()) {
    const parsed = parseTopicPattern(pattern);
    if ('problem' in parsed) {
      complain(at(pattern, index), `the pattern ${parsed.problem}`);
      continue;
    }
    const shape = patternShape(parsed.segments);
    const earlier = seen.get(shape);
    if (earlier !== undefined) complain(at(pattern, index), `matches the same topics as '${earlier}'; remove one of them`);
    seen.set(shape, pattern);
  }
}
