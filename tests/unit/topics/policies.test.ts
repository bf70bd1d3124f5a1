import { describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import type { TopicPolicy } from '../../../src/api/topic-policy.ts';
import { resolveTopics } from '../../../src/config/topics.ts';
import { Policies } from '../../../src/topics/policies.ts';

const history = { size: 1, seconds: 1 };

function policiesOf(patterns: readonly string[], remembered?: number): Policies {
  const topics: Record<string, TopicPolicy> = Object.fromEntries(patterns.map((pattern) => [pattern, { history }]));
  const settings = resolveTopics(topics, (path, message) => {
    throw new Error(`${path.join(' ')}: ${message}`);
  });
  return new Policies(settings, remembered);
}

const patternOf = (policies: Policies, topic: string) => policies.find(topic)?.policy.pattern;

describe('Policies', () => {
  test('the most specific pattern wins, in whatever order they are written', () => {
    const patterns = ['*', 'chat/*', 'chat/:room', 'chat/lobby', 'chat/:room/typing', ':any/lobby'];
    for (const order of [patterns, patterns.toReversed()]) {
      const policies = policiesOf(order);
      const found = Object.fromEntries(
        ['chat/lobby', 'chat/a', 'chat/a/typing', 'chat/a/b', 'chat', 'chat/', 'news/lobby', 'news'].map((topic) => [
          topic,
          patternOf(policies, topic),
        ]),
      );
      expect(found).toEqual({
        'chat/lobby': 'chat/lobby',
        'chat/a': 'chat/:room',
        'chat/a/typing': 'chat/:room/typing',
        'chat/a/b': 'chat/*',
        chat: 'chat/*',
        'chat/': 'chat/*',
        'news/lobby': ':any/lobby',
        news: '*',
      });
    }
  });

  test('parameters are what stands in the topic, letter by letter', () => {
    const policies = policiesOf(['chat/:room/:user', 'plain']);
    expect({ ...policies.find('chat/a%2Fb/ü?#')?.params }).toEqual({ room: 'a%2Fb', user: 'ü?#' });
    expect({ ...policies.find('plain')?.params }).toEqual({});
    const { params } = policies.find('chat/a/b') ?? {};
    expect([Object.isFrozen(params), Object.getPrototypeOf(params), 'toString' in (params ?? {})]).toEqual([true, null, false]);
    expect(policiesOf([':toString']).find('x')?.params.toString as unknown).toBe('x');
  });

  test('topics without one, of the gateway itself, and with empty segments', () => {
    const policies = policiesOf(['chat/:room', 'a//b']);
    expect(['chat', 'chat/', 'chat/a/', '/chat/a', 'Chat/a', '', 'a/b'].map((topic) => policies.find(topic))).toEqual(
      Array.from({ length: 7 }, () => undefined),
    );
    expect(patternOf(policies, 'a//b')).toBe('a//b');
    expect(patternOf(policiesOf(['*']), '\0ptopic')).toBeUndefined();
    expect([policiesOf([]).any, policiesOf([]).find('a'), policies.any]).toEqual([false, undefined, true]);
  });

  test('names of members of objects are topics like others', () => {
    const policies = policiesOf(['constructor', ':any/x']);
    expect(['constructor', '__proto__', '__proto__/x', 'hasOwnProperty'].map((topic) => patternOf(policies, topic))).toEqual([
      'constructor',
      undefined,
      ':any/x',
      undefined,
    ]);
  });

  test('what was found is remembered, within bounds, and what is in use longest', () => {
    const policies = policiesOf(['chat/:room'], 10);
    const first = policies.find('chat/first');
    for (let i = 0; i < 1000; i++) {
      policies.find(`chat/${i}`);
      policies.find(`none/${i}`);
      expect(policies.find('chat/first')).toBe(first as NonNullable<typeof first>);
      expect(policies.remembered).toBeLessThanOrEqual(20);
    }
    expect(policies.find('chat/0')?.params.room).toBe('0');
    expect(policies.find('none/0')).toBeUndefined();
  });

  test('it agrees with trying every pattern, whether remembered or not', () => {
    const segment = fc.constantFrom('a', 'b', ':x', 'c');
    const pattern = fc
      .tuple(fc.array(segment, { minLength: 1, maxLength: 3 }), fc.boolean())
      .map(([texts, isOpen]) => [...texts.map((text, index) => (text === ':x' ? `:x${index}` : text)), ...(isOpen ? ['*'] : [])].join('/'));
    const topic = fc.array(fc.constantFrom('a', 'b', 'd', ''), { minLength: 1, maxLength: 4 }).map((texts) => texts.join('/'));
    const shape = (text: string) => text.replaceAll(/:x\d/g, ':');
    fc.assert(
      fc.property(
        fc.uniqueArray(pattern, { selector: shape, maxLength: 8 }),
        fc.array(topic, { minLength: 1, maxLength: 30 }),
        (patterns, topics) => {
          const policies = policiesOf(patterns, 4);
          for (const name of topics) expect(patternOf(policies, name)).toBe(best(patterns, name) as string);
        },
      ),
    );
  });
});

/** By regular expressions; of those that match, the one whose segments sort first. */
function best(patterns: readonly string[], topic: string): string | undefined {
  const rank = (segment: string) => (segment === '*' ? '3' : segment.startsWith(':') ? '2' : '1');
  const order = (pattern: string) => pattern.split('/').map(rank).join('');
  const expression = (pattern: string) => new RegExp(`^${pattern.replaceAll(/:x\d/g, '[^/]+').replace(/\/\*$/, '(/.*)?')}$`);
  const fitting = patterns.filter((pattern) => expression(pattern).test(topic));
  return fitting.toSorted((a, b) => (order(a) < order(b) ? -1 : 1))[0];
}
