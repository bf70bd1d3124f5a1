/** The sidebar of the site has every page of docs/, once, under a title of its own. That it builds: tests/e2e/site.test.ts. */
import { expect, test } from 'bun:test';
import { join, resolve } from 'node:path';
import { pagesOf, sidebarOf } from '../../../site/sidebar.mjs';

const docs = resolve(import.meta.dir, '../../../docs');

test('every page of docs/ stands in the sidebar (site/sidebar.mjs), and no page twice', () => {
  const items = sidebarOf(docs).flatMap((group) => group.items);
  const links = pagesOf(docs).map((name) => (name === 'README' ? '/' : `/${name.replace(/(^|\/)README$/, '$1')}`));
  expect(items.map(({ link }) => link).toSorted()).toEqual(links.toSorted());
  expect(items.filter(({ text }) => text === '')).toEqual([]);
  expect(new Set(items.map(({ text }) => text)).size).toBe(items.length);
});

test('a page that nobody has given a place is found', () => {
  expect(sidebarOf(join(import.meta.dir, '../../../tests/support')).flatMap((group) => group.items)).toEqual([
    { text: 'What tests share', link: '/' },
  ]);
});
