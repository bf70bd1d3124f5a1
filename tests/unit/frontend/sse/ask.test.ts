import { describe, expect, test } from 'bun:test';
import type { RequestHead } from '../../../../src/core/http.ts';
import { acceptsEvents, readWishes } from '../../../../src/frontend/sse/ask.ts';

const epoch = '00c0ffee00c0ffee';
const limits = { maxTopics: 3, has: (topic: string) => topic.startsWith('room/') || topic === 'news' };

function ask(query: string, fields: Readonly<Record<string, string>> = {}) {
  const target = `/events${query}`;
  const lines = Object.entries(fields).map(([name, value]) => `${name}\n${value}\n`);
  const raw = `host${target}${lines.join('')}`;
  const head = { slot: 1, generation: 1, request: 1, listener: 0, flags: 0, method: 1, raw, hostBytes: 4, targetBytes: target.length };
  return readWishes(head satisfies RequestHead, limits);
}

const wishesOf = (query: string, fields?: Readonly<Record<string, string>>) => {
  const wishes = ask(query, fields);
  if ('status' in wishes) throw new Error(wishes.sentence);
  return wishes;
};
const sinceOf = (query: string, fields?: Readonly<Record<string, string>>) => wishesOf(query, fields).topics.map(({ since }) => since);

describe('what is asked of a stream', () => {
  test('one topic, and nothing else', () => {
    expect(wishesOf('?topic=room%2Ftea+time')).toEqual({
      topics: [{ topic: 'room/tea time', since: undefined, token: undefined }],
      history: 0,
      presence: false,
      isJson: false,
      greets: false,
    });
  });

  test('several topics, which are told apart in their events', () => {
    const wishes = wishesOf('?topic=room/a&topic=news&history=20&presence=1&subscribed=true&topicToken=&topicToken=t.2&other=x');
    expect(wishes).toEqual({
      topics: [
        { topic: 'room/a', since: undefined, token: undefined },
        { topic: 'news', since: undefined, token: 't.2' },
      ],
      history: 20,
      presence: true,
      isJson: true,
      greets: true,
    });
    expect(wishesOf('?topic=news&format=json')).toMatchObject({ isJson: true });
    expect(wishesOf('?topic=news', { 'topic-token': 'a.b.c' }).topics[0]?.token).toBe('a.b.c');
  });

  test('where its client was: what the browser sends before what the page has written', () => {
    const at = (offset: number) => ({ epoch, offset });
    expect(sinceOf(`?topic=news&since=${epoch}:4`)).toEqual([at(4)]);
    expect(sinceOf(`?topic=news&since=${epoch}:4&lastEventId=${epoch}:5`)).toEqual([at(5)]);
    expect(sinceOf(`?topic=news&since=${epoch}:4&lastEventId=${epoch}:5`, { 'last-event-id': `${epoch}:6` })).toEqual([at(6)]);
    expect(sinceOf(`?topic=news&topic=room/a&since=${epoch}:4,-`)).toEqual([at(4), undefined]);
    expect(sinceOf(`?topic=news&topic=room/a&since=${epoch}:4&since=${epoch}:0`)).toEqual([at(4), at(0)]);
    expect(sinceOf('?topic=news&topic=room/a', { 'last-event-id': `-, ${epoch}:6` })).toEqual([undefined, at(6)]);
  });

  test.each(['7', 'x', `${epoch}:`, `${epoch}:-1`, `0000000000000000:3`, `${epoch}:1,${epoch}:2`, 'ø'.repeat(9), ','.repeat(70_000)])(
    'an id that it has from elsewhere is a place nobody knows: %p',
    (id) => {
      expect(sinceOf('?topic=news', { 'last-event-id': id })).toEqual(['unknown']);
    },
  );

  test.each<[string, number, RegExp]>([
    ['', 400, /say which topic/],
    ['?topic=', 400, /is empty/],
    ['?topic=%00own', 400, /NUL/],
    ['?topic=%ff', 400, /percent-encoded/],
    [`?topic=room/${'x'.repeat(1020)}`, 400, /1022 bytes/],
    ['?topic=news&topic=news', 400, /twice/],
    ['?topic=room/1&topic=room/2&topic=room/3&topic=room/4', 400, /at most 3/],
    ['?topic=secret', 404, /not streamed here/],
    ['?topic=news&topic=secret', 404, /not streamed here/],
    ['?topic=news&since=7', 400, /position such as/],
    [`?topic=news&since=${epoch}:1,${epoch}:2`, 400, /2 positions for 1 topics/],
    ['?topic=news&history=1001', 400, /0 to 1000/],
    ['?topic=news&history=-1', 400, /0 to 1000/],
    ['?topic=news&history=all', 400, /0 to 1000/],
    ['?topic=news&presence=yes', 400, /1 or 0/],
    ['?topic=news&format=xml', 400, /'json' or 'text'/],
    ['?topic=news&topic=room/a&format=text', 400, /for one topic/],
    ['?topic=news&topicToken=a&topicToken=b', 400, /more tokens than topics/],
  ])('%p is answered with %p', (query, status, sentence) => {
    const refusal = ask(query);
    expect(refusal).toMatchObject({ status, sentence: expect.stringMatching(sentence) });
  });

  test('only who takes events gets them', () => {
    expect(ask('?topic=news', { accept: 'application/json' })).toMatchObject({ status: 406 });
    const welcome = [
      [],
      ['*/*'],
      ['text/event-stream'],
      ['text/html, text/*;q=0.5'],
      ['application/json', '*/*;q=0.1'],
      ['*/*;q=0, text/event-stream'],
    ];
    for (const values of welcome) expect([values, acceptsEvents(values)]).toEqual([values, true]);
    const unwelcome = [['application/json'], ['*/*;q=0'], ['text/event-stream;q=0, */*'], ['text/html'], ['text/event-stream; q=0.000']];
    for (const values of unwelcome) expect([values, acceptsEvents(values)]).toEqual([values, false]);
  });
});
