import { expect, test } from 'bun:test';
import { formatPosition, parsePosition } from '../../../src/core/position.ts';

test('a position is written as its epoch and offset, and read back', () => {
  const position = { epoch: '00c0ffee00c0ffee', offset: 12 };
  expect(formatPosition(position)).toBe('00c0ffee00c0ffee:12');
  expect(parsePosition('00c0ffee00c0ffee:12')).toEqual(position);
  expect(parsePosition('00c0ffee00c0ffee:0')).toEqual({ epoch: '00c0ffee00c0ffee', offset: 0 });
});

test('what is no position is none', () => {
  for (const text of [
    '',
    ':1',
    '00c0ffee00c0ffee',
    '00c0ffee00c0ffee:',
    '00C0FFEE00C0FFEE:1',
    '0c0ffee00c0ffee:1',
    '0000000000000000:1',
    '00c0ffee00c0ffee:01',
    '00c0ffee00c0ffee:-1',
    '00c0ffee00c0ffee:1.5',
    '00c0ffee00c0ffee:9007199254740992',
    '00c0ffee00c0ffee:1\n',
  ])
    expect(parsePosition(text)).toBeUndefined();
});
