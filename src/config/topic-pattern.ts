/**
 * Patterns of topics: 'prices', 'chat/:room', 'news/*', '*'.
 * Role: their grammar, for the check of the config and for whoever finds the policy of a topic. A topic has no leading slash, is never
 * percent-encoded, and holds any character but NUL. Down: pattern.ts.
 */
import { topicBytesMax } from '../core/node.ts';
import { foreignParameterProblem, type ParsedPattern, type PatternGrammar, parseSegments } from './pattern.ts';

/** Of a topic that has a policy: what is kept about it lies below its name and two more bytes. */
export const policyTopicBytesMax = topicBytesMax - 2;

/** Wildcards of brokers, when they are a whole segment. */
const foreignWildcards: Readonly<Record<string, string>> = { '+': "':name'", '#': "'*'", '**': "'*'" };

/** Parse a pattern, or say in `problem` what is wrong and what to write. */
export function parseTopicPattern(pattern: string): ParsedPattern {
  if (pattern === '') return { problem: "is empty; write one such as 'chat/:room', or '*' for all topics" };
  if (pattern.includes('\0')) return { problem: 'holds a NUL character, which no topic does; remove it' };
  if (!pattern.isWellFormed()) return { problem: 'holds half of a surrogate pair, which UTF-8 has no bytes for; remove it' };
  if (pattern.startsWith('/')) {
    const bare = pattern.replace(/^\/+/, '');
    return { problem: `begins with a slash, which patterns of topics do not; write '${bare === '' ? '*' : bare}'` };
  }
  if (Buffer.byteLength(pattern) > policyTopicBytesMax)
    return { problem: `is longer than a topic with a policy may be; write at most ${policyTopicBytesMax} bytes of UTF-8` };
  const foreign = foreignParameterProblem(pattern);
  if (foreign !== undefined) return { problem: foreign };
  return parseSegments(pattern.split('/'), (text) => {
    const ours = Object.hasOwn(foreignWildcards, text) ? foreignWildcards[text] : undefined;
    return ours === undefined ? undefined : `has '${text}', which is how others write a wildcard; write ${ours}`;
  });
}

export const topicGrammar: PatternGrammar = {
  parse: parseTopicPattern,
  split: (topic) => topic.split('/'),
  valueOf: (segment) => segment,
};
