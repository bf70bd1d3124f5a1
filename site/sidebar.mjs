// The sidebar of the site: the order of docs/README.md, so that a page has its place in one list.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** @param {string} folder @returns {string[]} its pages and those of its folders, without `.md` */
export function pagesOf(folder) {
  return readdirSync(folder, { recursive: true })
    .map(String)
    .filter((name) => name.endsWith('.md'))
    .map((name) => name.slice(0, -'.md'.length))
    .sort();
}

/** @param {string} text of a page @returns {string} its title, without Markdown */
export function titleOf(text) {
  return (/^# (.+)$/m.exec(text)?.[1] ?? '').replaceAll('`', '');
}

/**
 * A group for each heading of its README.md, with the pages that are linked there; decisions have one of their own, which is closed at first.
 * @param {string} folder with the pages
 * @returns {import('./sidebar.mjs').SidebarGroup[]} as VitePress takes it
 */
export function sidebarOf(folder) {
  const index = readFileSync(join(folder, 'README.md'), 'utf8');
  /** @param {string} name */
  const item = (name) => ({
    text: titleOf(readFileSync(join(folder, `${name}.md`), 'utf8')),
    link: name === 'README' ? '/' : `/${name}`,
  });
  const isDecision = (/** @type {string} */ name) => name.startsWith('decisions/');
  const groups = index
    .split(/^## /m)
    .slice(1)
    .map((section) => ({
      text: section.slice(0, section.indexOf('\n')),
      items: [...section.matchAll(/\]\((?!\.\.)([\w./-]+)\.md(?:#[^)]*)?\)/g)]
        .map(([, name = '']) => name)
        .filter((name) => !isDecision(name))
        .map(item),
    }));
  const decisions = pagesOf(folder).filter(isDecision).map(item);
  return [
    ...groups.map((group, place) => (place === 0 ? { ...group, items: [item('README'), ...group.items] } : group)),
    ...(decisions.length === 0 ? [] : [{ text: 'Decisions', collapsed: true, items: decisions }]),
  ];
}
