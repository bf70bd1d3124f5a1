/** What docs/hacking.md says of all tests, as far as it can be seen in their files. */
import { describe, expect, test } from 'bun:test';
import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

const tests = resolve(import.meta.dir, '../..');
const files = readdirSync(tests, { recursive: true, encoding: 'utf8' }).filter(
  (name) => /\.(?:ts|mjs)$/.test(name) && !name.includes('node_modules/') && name !== 'unit/repository/tests.test.ts',
);
const source = (name: string) => readFileSync(join(tests, name), 'utf8');
const suites = readFileSync(resolve(tests, '../scripts/suites.mjs'), 'utf8');

/** Of bun test: to run a test again until it passes, to leave others out, or to take a failure for the rule. */
const notAllowed = /\b(?:retry|repeats):|--retry\b|--rerun-each\b|\b(?:test|it|describe)\.(?:only|failing|todo)\b/;

describe('tests', () => {
  test('are not run again when they fail, and none is left out for good', () => {
    expect(files.length).toBeGreaterThan(150);
    expect(files.filter((name) => notAllowed.test(source(name)))).toEqual([]);
    expect(suites).not.toMatch(notAllowed);
    for (const wrong of ["test('a', body, { retry: 2 })", "test.only('a', body)", "test('a', body, { repeats: 5 })"])
      expect(wrong).toMatch(notAllowed);
  });

  test('import from each other nothing but what tests/support has, or what lies beside them', () => {
    const foreign = files.flatMap((name) => {
      const [suite = ''] = name.split('/');
      if (suite === 'support') return [];
      const others = ['unit', 'e2e', 'contract', 'image'].filter((other) => other !== suite).join('|');
      const found = new RegExp(`from '(?:\\.\\./)+(?:${others})/[^']*'`).exec(source(name));
      return found === null ? [] : [`${name} ${found[0]}`];
    });
    expect(foreign).toEqual([]);
  });

  test('find each file of tests/support on its page', () => {
    const page = source('support/README.md');
    const shared = files
      .filter((name) => name.startsWith('support/') && !name.endsWith('.d.mts'))
      .map((name) => name.slice('support/'.length));
    expect(shared.length).toBeGreaterThan(20);
    expect(shared.filter((name) => !page.includes(`\`${name}\``))).toEqual([]);
    const named = [...page.matchAll(/`([\w-]+\.(?:ts|mjs))`/g)].map(([, name = '']) => name);
    expect(named.filter((name) => !shared.includes(name))).toEqual([]);
  });
});
