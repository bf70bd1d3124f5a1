// The order of the pages: by what a reader is about to do. A page of docs/ that stands nowhere here fails a test.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/**
 * Names of pages without `.md`; `folder/*` is every page of that folder by name. What is not there is left out.
 * @type {readonly { text: string, pages: readonly string[], collapsed?: boolean }[]}
 */
const groups = [
  { text: 'Start', pages: ['README', 'tutorial', 'install'] },
  {
    text: 'Guides',
    pages: ['guides/*', 'clients', 'publishing', 'nodes', 'proxies', 'docker', 'security'],
  },
  { text: 'Moving to Ringway', pages: ['migrating/*', 'uws'] },
  { text: 'Reference', pages: ['configuration', 'socket', 'command', 'responses', 'limits', 'errors'] },
  { text: 'Operating', pages: ['operations', 'troubleshooting', 'sizing', 'benchmarks'] },
  { text: 'Internals', pages: ['architecture', 'hacking', 'abi'] },
  { text: 'Decisions', pages: ['decisions/*'], collapsed: true },
];

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
 * @param {string} folder with the pages
 * @returns {import('./sidebar.mjs').SidebarGroup[]} as VitePress takes it
 */
export function sidebarOf(folder) {
  const all = pagesOf(folder);
  return groups.flatMap(({ text, pages, collapsed }) => {
    const names = pages.flatMap((page) =>
      page.endsWith('/*') ? all.filter((name) => name.startsWith(page.slice(0, -1))) : all.filter((name) => name === page),
    );
    const items = names.map((name) => ({
      text: titleOf(readFileSync(join(folder, `${name}.md`), 'utf8')),
      link: name === 'README' ? '/' : `/${name.replace(/(^|\/)README$/, '$1')}`,
    }));
    return items.length === 0 ? [] : [{ text, ...(collapsed === undefined ? {} : { collapsed }), items }];
  });
}
