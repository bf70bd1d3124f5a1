/** Where a token stands in a request. */
import { describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import { findToken, takeQueryToken } from '../../../src/auth/token-source.ts';
import type { RequestHead } from '../../../src/core/http.ts';
import { requestUrl } from '../../../src/core/request-target.ts';

function headOf(target: string, ...fields: readonly (readonly [string, string])[]): RequestHead {
  const host = 'example.com';
  const lines = fields.map(([name, value]) => `${name}\n${value}\n`).join('');
  const raw = host + target + lines;
  return { slot: 1, generation: 2, request: 3, listener: 0, flags: 0, method: 1, raw, hostBytes: host.length, targetBytes: target.length };
}

const names = { cookie: 'session', subprotocol: 'token', query: 'token' };

describe('a token', () => {
  test.each([
    ['Bearer abc', 'abc'],
    ['bearer abc', 'abc'],
    ['BEARER   abc  ', 'abc'],
    ['Bearer', ''],
    ['Basic abc', undefined],
    ['Bearerabc', undefined],
    ['', undefined],
  ])('in Authorization: %j', (value, expected) => {
    expect(findToken(headOf('/', ['authorization', value]), ['header'], names)).toBe(expected);
  });

  test('in two Authorization fields is none that verifies, but other schemes do not matter', () => {
    expect(findToken(headOf('/', ['authorization', 'Bearer a'], ['authorization', 'Bearer b']), ['header'], names)).toBe('');
    expect(findToken(headOf('/', ['authorization', 'Basic a'], ['authorization', 'Bearer b']), ['header'], names)).toBe('b');
  });

  test.each([
    ['session=abc', 'abc'],
    ['a=1; session=abc; b=2', 'abc'],
    ['session="abc"', 'abc'],
    ['session=a=b', 'a=b'],
    ['SESSION=abc', undefined],
    ['xsession=abc', undefined],
    ['session', undefined],
    ['', undefined],
  ])('in a cookie: %j', (value, expected) => {
    expect(findToken(headOf('/', ['cookie', value]), ['cookie'], names)).toBe(expected);
  });

  test.each([
    ['token.a.b.c', 'a.b.c'],
    ['chat, token.a.b.c', 'a.b.c'],
    ['token, chat', undefined],
    ['tokens.a', undefined],
  ])('in the subprotocols: %j', (value, expected) => {
    expect(findToken(headOf('/', ['sec-websocket-protocol', value]), ['subprotocol'], names)).toBe(expected);
  });

  test('is taken from the first source that has one, and only from those that are asked', () => {
    const head = headOf('/', ['cookie', 'session=c'], ['authorization', 'Bearer h']);
    expect(findToken(head, ['header', 'cookie'], names)).toBe('h');
    expect(findToken(head, ['cookie', 'header'], names)).toBe('c');
    expect(findToken(head, ['subprotocol', 'query', 'message'], names)).toBeUndefined();
  });
});

describe('a token in the query', () => {
  test.each([
    ['/a?token=x', '/a', 'x'],
    ['/a?token=x&b=1', '/a?b=1', 'x'],
    ['/a?b=1&token=x&c=2', '/a?b=1&c=2', 'x'],
    ['/a?t%6Fken=x%2Ey', '/a', 'x.y'],
    ['/a?token=', '/a', ''],
    ['/a?token', '/a', ''],
    ['/a?token=x&token=y', '/a', ''],
    ['/a?token=%zz', '/a', '%zz'],
    ['/a?a=%zz&token=x', '/a?a=%zz', 'x'],
  ])('%s leaves %s', (target, left, expected) => {
    const clean = headOf(target, ['x-other', 'stays']);
    takeQueryToken(clean, 'token');
    expect(requestUrl(clean)).toBe(`http://example.com${left}`);
    expect(clean.raw.endsWith('x-other\nstays\n')).toBe(true);
    expect(findToken(clean, ['query'], names)).toBe(expected);
    expect(JSON.stringify(clean)).not.toContain('token');
  });

  test('is gone from every target, whatever stands beside it, and all else stays', () => {
    const word = fc.stringMatching(/^[\w.~%=?/:@!$+,;-]{0,12}$/);
    fc.assert(
      fc.property(fc.array(word, { maxLength: 4 }), fc.array(word, { maxLength: 4 }), (before, after) => {
        const others = [...before, ...after].filter((pair) => !/^t(?:$|=)/.test(pair));
        const at = before.filter((pair) => others.includes(pair)).length;
        const target = `/a?${[...others.slice(0, at), 't=SECRET', ...others.slice(at)].join('&')}`;
        const clean = headOf(target, ['x-other', 'stays']);
        takeQueryToken(clean, 't');
        expect(clean.raw).toBe(`example.com/a${others.length === 0 ? '' : `?${others.join('&')}`}x-other\nstays\n`);
        expect(findToken(clean, ['query'], names)).toBe('SECRET');
      }),
    );
  });

  test.each(['/a', '/a?', '/a?b=1', '/a?tokens=1', '/token=x', '*'])('%s is left as it is', (target) => {
    const head = headOf(target);
    takeQueryToken(head, 'token');
    expect(head).toEqual(headOf(target));
    expect(findToken(head, ['query'], names)).toBeUndefined();
  });
});
