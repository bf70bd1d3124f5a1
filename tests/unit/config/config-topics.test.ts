import { describe, expect, test } from 'bun:test';
import { ConfigError } from '../../../src/config/config-error.ts';
import { ssePathsMax, topicPoliciesMax } from '../../../src/config/defaults.ts';
import { resolveConfig } from '../../../src/config/resolve.ts';
import { keepsState } from '../../../src/config/topics.ts';

const resolved = (config: object) => resolveConfig({ websocket: {}, ...config }, {});

function mistakes(config: object): readonly string[] {
  try {
    resolved(config);
  } catch (error) {
    if (error instanceof ConfigError) return error.mistakes;
    throw error;
  }
  return [];
}

const history = { size: 100, seconds: 300 };
const auth = { jwt: { secret: 'correct horse battery staple 0123456789' } };

describe('topics', () => {
  test('without policies there are none, and what is left open gets its default', () => {
    expect([resolved({}).topics, resolved({}).sse]).toEqual([[], []]);
    expect(resolved({ topics: { 'chat/:room': { history }, 'news/*': { presence: true }, x: { history: false } } }).topics).toEqual([
      { pattern: 'chat/:room', history, recover: true, presence: false, authorize: undefined, token: false },
      {
        pattern: 'news/*',
        history: false,
        recover: false,
        presence: { member: undefined, grace: 3, maxInfoBytes: 1024, maxMembers: 10_000 },
        authorize: undefined,
        token: false,
      },
      { pattern: 'x', history: false, recover: false, presence: false, authorize: undefined, token: false },
    ]);
  });

  test('what is written is taken over, and an option written as undefined is left to its default', () => {
    const [policy] = resolved({
      auth,
      topics: {
        a: { history, recover: false, presence: { grace: 0, maxMembers: 5, maxInfoBytes: undefined }, token: true, authorize: undefined },
      },
    }).topics;
    expect(policy).toMatchObject({ recover: false, presence: { grace: 0, maxMembers: 5, maxInfoBytes: 1024 }, token: true });
  });

  test('functions are called as methods of what was given', () => {
    const presence = {
      grace: 5,
      member(client: { id: string }) {
        return `${client.id} ${this.grace}`;
      },
    };
    const policy = {
      token: true,
      presence,
      authorize() {
        return this.token;
      },
    };
    const [settings] = resolved({ auth, topics: { a: policy } }).topics;
    expect(settings?.authorize?.({} as never, 'a', 'subscribe')).toBe(true);
    expect(settings?.presence !== false && settings?.presence.member?.({ id: 'a' } as never)).toBe('a 5');
  });

  test('memory is needed where anything is kept', () => {
    const needs = (topics: object) => keepsState(resolved({ auth, topics }).topics);
    expect([needs({}), needs({ a: { token: true } }), needs({ a: { history } }), needs({ a: { presence: true } })]).toEqual([
      false,
      false,
      true,
      true,
    ]);
  });

  test('patterns that are none say what to write', () => {
    const problem = (pattern: string) => mistakes({ topics: { [pattern]: { history } } });
    const cases: readonly (readonly [string, string])[] = [
      ['', "is empty; write one such as 'chat/:room', or '*' for all topics"],
      ['/chat/:room', "begins with a slash, which patterns of topics do not; write 'chat/:room'"],
      ['//', "begins with a slash, which patterns of topics do not; write '*'"],
      ['chat/{room}', "has '{room}', which is how others write a parameter; write 'chat/:room'"],
      ['[room]', "has '[room]', which is how others write a parameter; write ':room'"],
      ['chat/[...rest]', "has '[...rest]', which is how others write a parameter; write 'chat/*'"],
      ['chat/+/x', "has '+', which is how others write a wildcard; write ':name'"],
      ['chat/#', "has '#', which is how others write a wildcard; write '*'"],
      ['chat/**', "has '**', which is how others write a wildcard; write '*'"],
      ['chat/*/x', "has '*' before its end; write a named parameter such as ':name' there"],
      ['chat/a*', "has '*' within a segment ('a*'); write it alone, as the last segment"],
      ['chat/:', "has the parameter ':'; write a colon, then letters, digits and _ only, such as ':name'"],
      ['chat/:a-b', "has the parameter ':a-b'; write a colon, then letters, digits and _ only, such as ':name'"],
      [':a/:a', "names the parameter ':a' twice; give each its own name"],
      ['\0p', 'holds a NUL character, which no topic does; remove it'],
      ['a\ud800', 'holds half of a surrogate pair, which UTF-8 has no bytes for; remove it'],
      ['ü'.repeat(512), 'is longer than a topic with a policy may be; write at most 1022 bytes of UTF-8'],
    ];
    for (const [pattern, message] of cases) {
      const [mistake, ...more] = problem(pattern);
      expect([pattern, mistake?.slice(mistake.indexOf(': the pattern ') + 14), more]).toEqual([pattern, message, []]);
    }
    for (const pattern of ['*', 'a b?c#d%', 'http://example.com/x', 'ü', ':a', 'a:b', 'a/', 'x{y}z', 'ü'.repeat(511)])
      expect([pattern, problem(pattern)]).toEqual([pattern, []]);
  });

  test('two patterns for the same topics are one too many', () => {
    expect(mistakes({ topics: { 'a/:x': { history }, 'a/:y': { history }, 'a/*': { history } } })).toEqual([
      "topics['a/:y']: matches the same topics as 'a/:x'; remove one of them",
    ]);
  });

  test('mistakes of policies, all at once', () => {
    const presenceInstead = 'write a function member(client) that returns the id of the user, or { id, info }';
    expect(
      mistakes({
        topics: {
          a: { history: true },
          b: { history: { size: 100 }, prescence: true },
          c: { history: { size: 0, seconds: 2_592_001, max: 1 }, recover: 'yes', presence: {}, authorize: true, token: 1 },
          d: { presence: { grace: -1, member: async () => 'a', maxInfoBytes: 1e9, maxMembers: 0, ttl: 1 } },
          e: { presence: { member: 'user' }, *authorize() {} },
          f: { presence: 'yes' },
          g: true,
        },
      }),
    ).toEqual([
      'topics.a.history: is true; write false, or how much to keep, such as { size: 100, seconds: 300 }',
      'topics.b.history.seconds: is undefined; write an integer from 1 to 2592000',
      'topics.b.prescence: is not an option; did you mean presence?',
      'topics.c.history.size: is 0; write an integer from 1 to 100000',
      'topics.c.history.seconds: is 2592001; write an integer from 1 to 2592000',
      'topics.c.history.max: is not an option; write one of size, seconds',
      'topics.c.recover: is "yes"; write true or false',
      'topics.c.presence: is empty; write true',
      'topics.c.authorize: is true; write a function authorize(client, topic, action) that returns true or false, or a promise of it',
      'topics.c.token: is 1; write true or false',
      `topics.d.presence.member: is asynchronous, and who a member is must be known at once; ${presenceInstead}, and find out in upgrade what takes time`,
      'topics.d.presence.grace: is -1; write a number of seconds from 0 to 300 (0: none)',
      'topics.d.presence.maxInfoBytes: is 1000000000; write an integer from 0 to 16384',
      'topics.d.presence.maxMembers: is 0; write an integer from 1 to 1000000',
      'topics.d.presence.ttl: is not an option; write one of member, grace, maxInfoBytes, maxMembers',
      `topics.e.presence.member: is "user"; ${presenceInstead}`,
      'topics.e.authorize: is a generator; write a function authorize(client, topic, action) that returns true or false, or a promise of it',
      'topics.f.presence: is "yes"; write true, false, or an object such as { grace: 3 }',
      'topics.g: is true; write an object such as { history: ... }',
    ]);
    expect(mistakes({ topics: 'chat' })).toEqual([
      `topics: is "chat"; write an object from patterns to policies, such as { 'chat/:room': { history: { size: 100, seconds: 300 } } }`,
    ]);
    expect(mistakes({ limits: { maxTopicMemoryBytes: 1024 } })).toEqual([
      'limits.maxTopicMemoryBytes: is 1024; write an integer from 8388608 to 274877906944',
    ]);
  });

  test('a token is believed where the config says whose', () => {
    const topics = { a: { token: true }, b: { token: false } };
    expect(mistakes({ topics })).toEqual([
      'topics.a.token: needs auth, which says whose tokens are believed; write auth: { jwt: { secret: ... } }, or remove it',
    ]);
    expect(mistakes({ topics, auth })).toEqual([]);
    // What is wrong with it is said, and not that it is missing.
    expect(mistakes({ topics, auth: { jwt: {} } }).filter((line) => line.startsWith('topics'))).toEqual([]);
  });

  test('what contradicts itself, or says nothing', () => {
    expect(mistakes({ topics: { a: { recover: true, presence: true }, b: {}, c: { history: undefined }, d: { history: false } } })).toEqual(
      [
        'topics.a.recover: needs history, from which is recovered; write history: { size: 100, seconds: 300 } beside it, or remove it',
        ...['b', 'c'].map(
          (name) =>
            `topics.${name}: says nothing; write history, presence, authorize or token, or history: false for topics that are to have nothing of a wider pattern`,
        ),
      ],
    );
    const many = Object.fromEntries(Array.from({ length: topicPoliciesMax + 1 }, (_, index) => [`t${index}`, { history }]));
    expect(mistakes({ topics: many })).toEqual([`topics: has ${topicPoliciesMax + 1} policies; write at most ${topicPoliciesMax}`]);
  });
});

describe('sse', () => {
  test('alone it is something to answer with; what is left open gets its default', () => {
    expect(resolveConfig({ sse: { '/events': { topics: ['room/*'] } } }, {}).sse).toEqual([
      { path: '/events', topics: ['room/*'], heartbeat: 15, origins: 'same-host', maxTopics: 32, auth: 'required' },
    ]);
    const written = { topics: ['a', ':b'], heartbeat: 0, origins: ['https://example.com'], maxTopics: 2, auth: false as const };
    expect(resolved({ sse: { '/events': written } }).sse).toEqual([{ path: '/events', ...written }]);
  });

  test('mistakes', () => {
    expect(
      mistakes({
        sse: {
          '/a': {},
          '/b': { topics: [] },
          '/c': { topics: 'room/*', heartbeet: 1 },
          '/d': { topics: [5, 'a'], heartbeat: -1, origins: ['https://a.b/'], maxTopics: 0, auth: true },
        },
      }),
    ).toEqual([
      "sse['/a'].topics: is undefined; write a list such as ['chat/:room']",
      "sse['/b'].topics: is an empty list; write patterns of topics, such as 'chat/:room'",
      `sse['/c'].topics: is "room/*"; write a list such as ['chat/:room']`,
      "sse['/c'].heartbeet: is not an option; did you mean heartbeat?",
      "sse['/d'].topics[0]: is 5; write a pattern of topics such as 'chat/:room'",
      "sse['/d'].heartbeat: is -1; write a number of seconds from 0 to 3600 (0: never)",
      `sse['/d'].origins[0]: is "https://a.b/"; write 'https://a.b'`,
      "sse['/d'].maxTopics: is 0; write an integer from 1 to 1000",
      "sse['/d'].auth: is true; write 'required', 'optional' or false",
    ]);
    expect(mistakes({ sse: { events: { topics: ['/a', 'b/:x', 'b/:y'] }, '/events/:room': { topics: ['a'] } } })).toEqual([
      "sse.events: the path does not begin with a slash; write '/events'",
      "sse.events.topics[0]: the pattern begins with a slash, which patterns of topics do not; write 'a'",
      "sse.events.topics[2]: matches the same topics as 'b/:x'; remove one of them",
      "sse['/events/:room']: the path has a parameter or '*', which streams do not; write a fixed path such as '/events': clients say ?topic=",
    ]);
    expect(mistakes({ sse: '/events' })).toEqual([
      `sse: is "/events"; write an object from paths to streams, such as { '/events': { topics: ['chat/:room'] } }`,
    ]);
    const many = Object.fromEntries(Array.from({ length: ssePathsMax + 1 }, (_, index) => [`/${index}`, { topics: ['a'] }]));
    expect(mistakes({ sse: many })).toEqual([`sse: has ${ssePathsMax + 1} paths; write at most ${ssePathsMax}`]);
  });
});
