/**
 * Which topics a token is for: its claim `topic`, a name, or `topics`, patterns as those of the config's `topics`.
 * Role: pure. Up: tokens.ts.
 */
import { PatternTable } from '../config/pattern.ts';
import { parseTopicPattern, topicGrammar } from '../config/topic-pattern.ts';
import type { Claims } from './verifier.ts';

/** Patterns of one token that are looked at. */
const patternsMost = 100;

/** Whether a token says anything of topics: then it is for these, and lets nobody in. */
export function isOfTopics({ topic, topics }: Claims): boolean {
  return topic !== undefined || topics !== undefined;
}

export function allowsTopic({ topic, topics }: Claims, name: string): boolean {
  if (typeof topic === 'string' && topic === name) return true;
  return Array.isArray(topics) && topics.slice(0, patternsMost).some((each: unknown) => typeof each === 'string' && fits(each, name));
}

function fits(pattern: string, name: string): boolean {
  return !('problem' in parseTopicPattern(pattern)) && new PatternTable(topicGrammar, [[pattern, true]]).match(name) !== undefined;
}
