/** What part of a file a Range and an If-Range mean. */
import { describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import { isUnchanged, rangeOf } from '../../../../src/frontend/hono/byte-range.ts';

describe('rangeOf', () => {
  test.each([
    ['bytes=0-3', { start: 0, end: 4 }],
    ['BYTES= 2- ', { start: 2, end: 10 }],
    ['bytes=9-9', { start: 9, end: 10 }],
    ['bytes=0-999', { start: 0, end: 10 }],
    ['bytes=-3', { start: 7, end: 10 }],
    ['bytes=-999', { start: 0, end: 10 }],
    ['bytes=10-', 'unsatisfiable'],
    ['bytes=999999999999999-', 'unsatisfiable'],
    ['bytes=-0', 'unsatisfiable'],
    ['bytes=5-2', undefined],
    ['bytes=0-0,2-3', undefined],
    ['bytes=', undefined],
    ['bytes=-', undefined],
    ['bytes=a-b', undefined],
    ['bytes=1', undefined],
    ['bytes=1234567890123456-', undefined],
    ['lines=0-3', undefined],
    [null, undefined],
  ] as const)('%p of ten bytes is %p', (value, expected) => {
    expect(rangeOf(value, 10)).toEqual(expected as never);
  });

  test('of an empty file every range is unsatisfiable', () => {
    for (const value of ['bytes=0-', 'bytes=0-0', 'bytes=-1']) expect(rangeOf(value, 0)).toBe('unsatisfiable');
  });

  test('whatever is asked for, the part is not empty and lies within the file', () => {
    fc.assert(
      fc.property(fc.string(), fc.nat(), fc.nat(), fc.nat(), (text, first, last, size) => {
        for (const value of [text, `bytes=${text}`, `bytes=${first}-${last}`, `bytes=-${last}`, `bytes=${first}-`]) {
          const range = rangeOf(value, size);
          if (typeof range !== 'object') continue;
          expect(range.start).toBeGreaterThanOrEqual(0);
          expect(range.start).toBeLessThan(range.end);
          expect(range.end).toBeLessThanOrEqual(size);
        }
      }),
    );
  });
});

describe('isUnchanged', () => {
  const date = 'Wed, 21 Oct 2015 07:28:00 GMT';
  test.each([
    [null, null, null, true],
    ['"a"', '"a"', null, true],
    ['"a"', '"b"', null, false],
    ['"a"', null, null, false],
    ['W/"a"', 'W/"a"', null, false],
    ['"a"', 'W/"a"', null, false],
    [date, null, date, true],
    [date, '"a"', null, false],
    ['Wed, 21 Oct 2015 07:28:01 GMT', null, date, false],
  ] as const)('If-Range %p, ETag %p, Last-Modified %p: %p', (condition, etag, modified, expected) => {
    expect(isUnchanged(condition, etag, modified)).toBe(expected);
  });
});
