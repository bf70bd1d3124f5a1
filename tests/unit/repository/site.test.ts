/** The sidebar of the site has every page of docs/, once, in the order of docs/README.md. That it builds: tests/e2e/site.test.ts. */
import { expect, test } from 'bun:test';
import { resolve } from 'node:path';
import { pagesOf, sidebarOf } from '../../../site/sidebar.mjs';

const docs = resolve(import.meta.dir, '../../../docs');

test('every page of docs/ stands in the sidebar, and no page twice', () => {
  const items = sidebarOf(docs).flatMap((group) => group.items);
  const links = pagesOf(docs).map((name) => (name === 'README' ? '/' : `/${name}`));
  expect(items.map(({ link }) => link).toSorted()).toEqual(links.toSorted());
  expect(items.filter(({ text }) => text === '')).toEqual([]);
  expect(new Set(items.map(({ text }) => text)).size).toBe(items.length);
});

test('its groups are the headings of the index, and the decisions', () => {
  const groups = sidebarOf(docs);
  expect(groups.map(({ text }) => text)).toEqual([
    'Start here',
    'Guides',
    'Moving to Ringway',
    'Reference',
    'Operating',
    'Internals',
    'Decisions',
  ]);
  expect(groups.filter(({ items }) => items.length === 0)).toEqual([]);
  expect(groups[0]?.items.slice(0, 2).map(({ link }) => link)).toEqual(['/', '/tutorial']);
  expect(groups.filter(({ collapsed }) => collapsed).map(({ text }) => text)).toEqual(['Decisions']);
});
