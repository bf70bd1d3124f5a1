/** What UWS_HTTP_MAX_HEADERS_SIZE means. That the core keeps to it is in tests/contract/scenarios/request.mjs. */
import { describe, expect, test } from 'bun:test';
import { headLimitOf } from '../../../../src/frontend/uws/head-limit.ts';

describe('UWS_HTTP_MAX_HEADERS_SIZE', () => {
  test('leaves the default where it says nothing', () => {
    expect(headLimitOf(undefined)).toBeUndefined();
    expect(headLimitOf('')).toBeUndefined();
  });

  test('is a number of bytes, and the core takes 65535 at most', () => {
    expect(headLimitOf('1')).toBe(1);
    expect(headLimitOf('20000')).toBe(20_000);
    expect(headLimitOf('65536')).toBe(65_535);
    expect(headLimitOf('650000')).toBe(65_535);
  });

  test('is refused with what to write when it is no such number', () => {
    for (const value of ['0', '-5', '4k', '1.5', 'Infinity', 'nonsense'])
      expect(() => headLimitOf(value)).toThrow(
        `UWS_HTTP_MAX_HEADERS_SIZE is "${value}"; write the most bytes that the head of a request may have, up to 65535`,
      );
  });
});
