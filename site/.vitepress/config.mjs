// `npm run docs` (scripts/docs.mjs) builds in a copy of this folder, with docs/ as its pages/.
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { sidebarOf } from '../sidebar.mjs';

const pages = fileURLToPath(new URL('../pages', import.meta.url));

/** Anchors as GitHub makes them, which the links of the pages are written for. @param {string} heading */
const slugify = (heading) =>
  heading
    .replaceAll('`', '')
    .toLowerCase()
    .replace(/[^\p{L}\p{N}\s_-]/gu, '')
    .trim()
    .replaceAll(' ', '-');

/**
 * On a narrow screen the cells of a row stand below each other (theme/style.css), each with the title of its column.
 * @param {import('vitepress').MarkdownRenderer} md
 */
function labelCells(md) {
  md.core.ruler.push('label_cells', ({ tokens }) => {
    /** @type {string[]} */
    let titles = [];
    let column = 0;
    for (const [at, token] of tokens.entries()) {
      if (token.type === 'thead_open') titles = [];
      else if (token.type === 'th_open') titles.push(tokens[at + 1]?.content.replaceAll('`', '') ?? '');
      else if (token.type === 'tr_open') column = 0;
      else if (token.type === 'td_open') token.attrSet('data-title', titles[column++] ?? '');
    }
  });
}

export default {
  title: 'Ringway',
  description: 'A realtime gateway: WebSockets and HTTP, TypeScript on Bun over a C core on io_uring.',
  lang: 'en',
  head: [['link', { rel: 'icon', href: 'data:,' }]],
  srcDir: pages,
  outDir: join(pages, '../dist'),
  rewrites: { 'README.md': 'index.md', ':folder/README.md': ':folder/index.md' },
  // Opened from any folder of a web server that serves files, with and without rules of its own.
  cleanUrls: false,
  metaChunk: true,
  ignoreDeadLinks: 'localhostLinks',
  markdown: {
    anchor: { slugify },
    config: labelCells,
    languageAlias: { haproxy: 'ini', caddy: 'nginx' },
  },
  themeConfig: {
    search: {
      provider: 'local',
      // Who looks for a word wants to use it; why it is so comes behind.
      options: {
        miniSearch: { searchOptions: { boostDocument: (id) => (/\/(?:decisions|architecture|abi|hacking)\b/.test(id) ? 0.3 : 1) } },
      },
    },
    outline: { level: [2, 3] },
    sidebar: sidebarOf(pages),
    docFooter: { prev: 'Before', next: 'Next' },
  },
};
