/** The order in which routes of the uWebSockets.js API are tried, by hand and against the rule written down as plainly as it goes. */
import { describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import { methodNames } from '../../../../src/core/http.ts';
import { parameterNamesOf, Router } from '../../../../src/frontend/uws/router.ts';

interface Given {
  readonly method: string;
  readonly pattern: string;
  readonly isUpgrade?: boolean;
}

const methodOf = (name: string) => methodNames.indexOf(name as 'GET');

function routerOf(...routes: readonly (Given | string)[]): Router<string, undefined, undefined> {
  const router = new Router<string, undefined, undefined>();
  for (const route of routes) {
    const { method, pattern, isUpgrade = false } = typeof route === 'string' ? { method: 'GET', pattern: route } : route;
    router.add(method, pattern, `${isUpgrade ? 'upgrade ' : ''}${method} ${pattern}`, isUpgrade);
  }
  return router;
}

/** Everything that is tried for a path, when each passes the request on. */
function tried(router: Router<string, undefined, undefined>, path: string, method = 'GET'): string[] {
  const names: string[] = [];
  const took = router.route(
    methodOf(method),
    path,
    (target, parameters) => {
      names.push([target, ...parameters].join(' '));
      return false;
    },
    undefined,
    undefined,
  );
  expect(took).toBe(false);
  return names;
}

const first = (router: Router<string, undefined, undefined>, path: string, method = 'GET') => tried(router, path, method)[0];

describe('Router', () => {
  test('a segment of its own name comes before a parameter, a parameter before a wildcard, whatever was added first', () => {
    const patterns = ['/*', '/a/*', '/a/:x', '/a/b', '/:x/b', '/:x/:y'];
    const expected = ['GET /a/b', 'GET /a/:x b', 'GET /a/*', 'GET /:x/b a', 'GET /:x/:y a b', 'GET /*'];
    expect(tried(routerOf(...patterns), '/a/b')).toEqual(expected);
    expect(tried(routerOf(...patterns.reverse()), '/a/b')).toEqual(expected);
  });

  test('routes of the method come before those of any, and routes of another method never', () => {
    const router = routerOf({ method: '*', pattern: '/a' }, { method: 'POST', pattern: '/a' }, { method: 'GET', pattern: '/*' });
    expect(tried(router, '/a')).toEqual(['GET /*', '* /a']);
    expect(tried(router, '/a', 'POST')).toEqual(['POST /a', '* /a']);
    expect(tried(router, '/a', 'HEAD')).toEqual(['* /a']);
  });

  test('a method without a name of its own has the routes of any', () => {
    expect(tried(routerOf('/a', { method: '*', pattern: '/a' }), '/a', 'OTHER')).toEqual(['* /a']);
  });

  test('upgrade routes come before all others, a wildcard among them too', () => {
    const router = routerOf('/a', { method: 'GET', pattern: '/*', isUpgrade: true });
    expect(tried(router, '/a')).toEqual(['upgrade GET /*', 'GET /a']);
  });

  test('the search ends with the first that takes the request', () => {
    const names: string[] = [];
    const took = routerOf('/a', '/*').route(
      methodOf('GET'),
      '/a',
      (target) => {
        names.push(target);
        return true;
      },
      undefined,
      undefined,
    );
    expect([took, names]).toEqual([true, ['GET /a']]);
  });

  test('a parameter takes no empty segment; a wildcard takes one, and any number of them', () => {
    const router = routerOf('/:x', '/a/*');
    expect(tried(router, '/')).toEqual([]);
    expect(tried(router, '/a/')).toEqual(['GET /a/*']);
    expect(tried(router, '/a/b/c')).toEqual(['GET /a/*']);
    expect(tried(router, '/a')).toEqual(['GET /:x a']);
  });

  test('a slash at the end makes another path', () => {
    const router = routerOf('/a', '/b/');
    expect(tried(router, '/a/')).toEqual([]);
    expect(tried(router, '/b')).toEqual([]);
    expect(tried(router, '/b/')).toEqual(['GET /b/']);
  });

  test('what stands behind a wildcard is of no account', () => {
    expect(tried(routerOf('/a/*tail/more'), '/a/x')).toEqual([]);
    expect(tried(routerOf('/a/*tail'), '/a/x/y')).toEqual(['GET /a/*tail']);
  });

  test('a route that is added again is replaced, by whatever name its parameters go', () => {
    const router = routerOf('/a/:x');
    router.add('GET', '/a/:other', 'the second');
    expect(tried(router, '/a/b')).toEqual(['the second b']);
  });

  test('routes may come and go after a path has been asked for', () => {
    const router = routerOf('/a');
    expect(tried(router, '/a')).toEqual(['GET /a']);
    router.add('*', '/a', 'any');
    expect(tried(router, '/a')).toEqual(['GET /a', 'any']);
    router.remove('GET', '/a');
    expect(tried(router, '/a')).toEqual(['any']);
    router.remove('GET', '/never/added');
    router.remove('*', '/a');
    expect(tried(router, '/a')).toEqual([]);
  });

  test('a path ends with its hundredth segment', () => {
    const deep = '/s'.repeat(100);
    const router = routerOf(deep);
    expect(first(router, deep)).toBe(`GET ${deep}`);
    expect(first(router, `${deep}/more`)).toBe(`GET ${deep}`);
    expect(first(router, '/s'.repeat(99))).toBeUndefined();
  });

  test('names of properties are paths like others', () => {
    const router = routerOf('/constructor', '/__proto__/:x');
    expect(tried(router, '/constructor')).toEqual(['GET /constructor']);
    expect(tried(router, '/__proto__/y')).toEqual(['GET /__proto__/:x y']);
    expect(tried(router, '/toString')).toEqual([]);
  });

  test('every search gives what trying all patterns in the order of the rule gives', () => {
    const segment = fc.constantFrom('a', 'b', ':x', ':y', '*', '');
    const pattern = fc.array(segment, { minLength: 1, maxLength: 4 }).map((segments) => `/${segments.join('/')}`);
    const route = fc.record({ method: fc.constantFrom('GET', 'POST', '*'), pattern, isUpgrade: fc.constant(false) });
    const path = fc.array(fc.constantFrom('a', 'b', 'c', ''), { minLength: 1, maxLength: 5 }).map((segments) => `/${segments.join('/')}`);
    fc.assert(
      fc.property(fc.array(route, { maxLength: 12 }), path, fc.constantFrom('GET', 'POST'), (routes, asked, method) => {
        expect(tried(routerOf(...routes), asked, method)).toEqual(expectedFor(routes, asked, method));
      }),
    );
  });
});

/** Rank every pattern that fits by its segments from the left: own name, parameter, wildcard. */
function expectedFor(routes: readonly Given[], path: string, method: string): string[] {
  const anonymous = (pattern: string) => pattern.replaceAll(/:[^/]*/g, ':');
  // The last of those that differ only in the names of parameters counts.
  const distinct = new Map(routes.map((route) => [`${route.method} ${anonymous(route.pattern)}`, route]));
  const fitting = [...distinct.values()]
    .filter((route) => route.method === method || route.method === '*')
    .flatMap((route) => {
      const fit = fitOf(route.pattern, path);
      return fit === undefined ? [] : [{ ...fit, route }];
    });
  fitting.sort((a, b) => Number(a.route.method === '*') - Number(b.route.method === '*') || (a.rank < b.rank ? -1 : 1));
  return fitting.map(({ route, parameters }) => [`${route.method} ${route.pattern}`, ...parameters].join(' '));
}

function fitOf(pattern: string, path: string): { rank: string; parameters: string[] } | undefined {
  const wanted = pattern.slice(1).split('/');
  const given = path.slice(1).split('/');
  const parameters: string[] = [];
  let rank = '';
  for (const [index, segment] of wanted.entries()) {
    const own = given[index];
    if (own === undefined) return undefined;
    if (segment.startsWith('*')) return index === wanted.length - 1 ? { rank: `${rank}2`, parameters } : undefined;
    if (segment.startsWith(':')) {
      if (own === '') return undefined;
      parameters.push(own);
      rank += '1';
    } else {
      if (own !== segment) return undefined;
      rank += '0';
    }
  }
  return given.length === wanted.length ? { rank, parameters } : undefined;
}

test('parameters have the names that stand behind their colons', () => {
  expect(parameterNamesOf('/a/:id/b/:name/*')).toEqual(['id', 'name']);
  expect(parameterNamesOf('/a')).toEqual([]);
  expect(parameterNamesOf('/:/:x')).toEqual(['', 'x']);
});
