// `npm run docs [-- FOLDER]`: the site from docs/, built into site/dist/ or FOLDER, which any web server can serve. The generator is
// installed with npm the first time; after that nothing of the network is needed.
import { spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { pagesOf, titleOf } from '../site/sidebar.mjs';
import { ensureSiteModules, root, site } from './setup.mjs';

const docs = join(root, 'docs');

/**
 * Folders and files of the tree have no place in the site: what links to one becomes its words. A link whose words are the name of a
 * page has the page's title here.
 * @param {string} name @param {string} text
 */
function withinSite(name, text) {
  return text.replace(/\[([^\]]+)\]\(([^)\s#]+)(#[^)\s]*)?\)/g, (link, words, path, anchor = '') => {
    if (/^[a-z]+:/.test(path)) return link;
    const target = resolve(docs, dirname(name), path);
    if (relative(docs, target).startsWith('..') || !target.endsWith('.md')) return words;
    return words.endsWith('.md') ? `[${titleOf(readFileSync(target, 'utf8'))}](${path}${anchor})` : link;
  });
}

const out = resolve(process.argv[2] ?? join(site, 'dist'));
if (!ensureSiteModules()) process.exit(1);
// Two that build at once must not meet; node_modules is found from within.
const work = mkdtempSync(join(site, 'build-'));
try {
  for (const name of ['.vitepress', 'sidebar.mjs', 'package.json']) cpSync(join(site, name), join(work, name), { recursive: true });
  const pages = join(work, 'pages');
  cpSync(docs, pages, { recursive: true });
  for (const name of pagesOf(pages)) {
    const path = join(pages, `${name}.md`);
    writeFileSync(path, withinSite(`${name}.md`, readFileSync(path, 'utf8')));
  }
  const vitepress = join(site, 'node_modules/vitepress/bin/vitepress.js');
  const { status } = spawnSync(process.execPath, [vitepress, 'build'], { cwd: work, stdio: ['ignore', 2, 2] });
  if (status === 0) {
    rmSync(out, { recursive: true, force: true });
    try {
      renameSync(join(work, 'dist'), out);
    } catch {
      // Another file system.
      cpSync(join(work, 'dist'), out, { recursive: true });
    }
    console.log(`The site is in ${out}: copy it to any web server`);
  } else {
    console.error('docs: the site was not built: the messages are above');
    process.exitCode = 1;
  }
} finally {
  rmSync(work, { recursive: true, force: true });
}
