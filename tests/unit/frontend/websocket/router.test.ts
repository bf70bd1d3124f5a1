import { describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import { patternShape } from '../../../../src/config/pattern.ts';
import { parsePattern } from '../../../../src/config/route-pattern.ts';
import { Router } from '../../../../src/frontend/websocket/router.ts';

function router(...patterns: string[]): Router<string> {
  return new Router(patterns.map((pattern) => [pattern, pattern] as const));
}

/** The pattern that takes a path, with its parameters if it has any. */
function taken(routes: Router<string>, path: string): unknown {
  const match = routes.match(path);
  return match?.params === undefined ? match?.target : [match.target, { ...match.params }];
}

describe('Router', () => {
  test('a fixed path wins over a parameter, a parameter over *, whatever the order they are given in', () => {
    const patterns = ['*', '/a/*', '/a/:x', '/a/b', '/:x/b', '/:x/:y'];
    for (const order of [patterns, [...patterns].reverse()]) {
      const routes = router(...order);
      expect(taken(routes, '/a/b')).toBe('/a/b');
      expect(taken(routes, '/a/c')).toEqual(['/a/:x', { x: 'c' }]);
      expect(taken(routes, '/a/b/c')).toEqual(['/a/*', {}]);
      expect(taken(routes, '/z/b')).toEqual(['/:x/b', { x: 'z' }]);
      expect(taken(routes, '/z/c')).toEqual(['/:x/:y', { x: 'z', y: 'c' }]);
      expect(taken(routes, '/z')).toEqual(['*', {}]);
    }
  });

  test('segments are compared from the left: /a/* is before /:x/b', () => {
    expect(taken(router('/:x/b', '/a/*'), '/a/b')).toEqual(['/a/*', {}]);
  });

  test('a pattern that ends wins over the same with *', () => {
    const routes = router('/:x/*', '/:x', '/a/*', '/a');
    expect(taken(routes, '/a')).toBe('/a');
    expect(taken(routes, '/b')).toEqual(['/:x', { x: 'b' }]);
    expect(taken(routes, '/b/')).toEqual(['/:x/*', { x: 'b' }]);
  });

  test('* takes the rest, also when there is none', () => {
    const routes = router('/files/*');
    for (const path of ['/files', '/files/', '/files/a', '/files/a/b/']) expect(taken(routes, path)).toEqual(['/files/*', {}]);
    for (const path of ['/', '/file', '/filesystem']) expect(routes.match(path)).toBeUndefined();
    for (const path of ['/', '/x', '/x/y', '//']) expect(taken(router('*'), path)).toEqual(['*', {}]);
  });

  test('a parameter takes exactly one segment, which is not empty', () => {
    const routes = router('/room/:name');
    for (const path of ['/room', '/room/', '/room/a/', '/room/a/b', '/room//']) expect(routes.match(path)).toBeUndefined();
  });

  test('a slash at the end makes another path', () => {
    expect(router('/echo').match('/echo/')).toBeUndefined();
    expect(router('/echo/').match('/echo')).toBeUndefined();
    expect(taken(router('/echo/'), '/echo/')).toBe('/echo/');
    expect(taken(router('/'), '/')).toBe('/');
  });

  test('parameters are decoded once; what is no percent-encoded UTF-8 matches nothing', () => {
    const routes = router('/room/:name');
    expect(taken(routes, '/room/caf%C3%A9')).toEqual(['/room/:name', { name: 'café' }]);
    expect(taken(routes, '/room/a%2Fb')).toEqual(['/room/:name', { name: 'a/b' }]);
    expect(taken(routes, '/room/%2525')).toEqual(['/room/:name', { name: '%25' }]);
    expect(taken(routes, '/room/a+b')).toEqual(['/room/:name', { name: 'a+b' }]);
    for (const text of ['%', '%2', '%zz', '%ff', '%ED%A0%80']) expect(routes.match(`/room/${text}`)).toBeUndefined();
  });

  test('a path that is not decodable still reaches a route that does not decode it', () => {
    expect(taken(router('/room/:name', '/room/*'), '/room/%ff')).toEqual(['/room/*', {}]);
  });

  test('parameters may have the names of members of Object.prototype, and those not given are not there', () => {
    const params = router('/:__proto__/:constructor').match('/a/b')?.params;
    expect(Object.entries(params ?? {})).toEqual([
      ['__proto__', 'a'],
      ['constructor', 'b'],
    ]);
    expect(router('/:x').match('/a')?.params?.toString).toBeUndefined();
  });

  test('a bad pattern is refused, and named', () => {
    expect(() => router('/a/*/b')).toThrow("the pattern /a/*/b has '*' before its end");
  });

  test('without routes nothing matches', () => {
    expect(router().match('/')).toBeUndefined();
  });

  test('it agrees with trying every pattern, best first', () => {
    const word = fc.constantFrom('a', 'b', 'c');
    const pattern = fc
      .tuple(fc.array(fc.oneof(word, fc.constantFrom(':x', ':y')), { maxLength: 3 }), fc.constantFrom('', '/*', '/'))
      .map(
        ([segments, end]) => `${segments.map((segment, at) => `/${segment}${segment.startsWith(':') ? at : ''}`).join('')}${end}` || '/',
      );
    const path = fc
      .array(fc.constantFrom('a', 'b', 'c', '', '%61', '%ff'), { minLength: 1, maxLength: 4 })
      .map((segments) => `/${segments.join('/')}`);
    fc.assert(
      fc.property(fc.uniqueArray(pattern, { selector: shapeOf, maxLength: 8 }), fc.array(path, { maxLength: 8 }), (patterns, paths) => {
        const routes = router(...patterns);
        for (const each of paths) expect(routes.match(each)?.target).toBe(naive(patterns, each));
      }),
    );
  });
});

function shapeOf(pattern: string): string {
  const parsed = parsePattern(pattern);
  return 'segments' in parsed ? patternShape(parsed.segments) : '';
}

/** Every pattern as a regular expression; of those that match, the one whose segments are most exact, from the left. */
function naive(patterns: readonly string[], path: string): string | undefined {
  const matching = patterns.filter((pattern) => {
    const expression = pattern.replace(/\/\*$/, '(?:/.*)?').replace(/:\w+/g, '(?:%61|[abc])');
    return new RegExp(`^${expression}$`).test(path);
  });
  const kinds = (pattern: string) =>
    pattern
      .slice(1)
      .split('/')
      .map((segment) => (segment === '*' ? 2 : segment.startsWith(':') ? 1 : 0))
      .join('');
  return matching.sort((a, b) => (kinds(a) < kinds(b) ? -1 : 1))[0];
}
