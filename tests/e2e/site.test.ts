/** The site is built from docs/: every link leads somewhere, every page is there, and the search has an index. */
import { afterAll, expect, test } from 'bun:test';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { pagesOf, sidebarOf } from '../../site/sidebar.mjs';
import { RunningProgram } from '../support/running-program.ts';

const root = resolve(import.meta.dir, '../..');
const folder = mkdtempSync(join(tmpdir(), 'ringway-site-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const isInstalled = existsSync(join(root, 'site/node_modules/vitepress'));
if (!isInstalled) console.warn('the site is not built: its generator is not installed (npm run docs)');

test.skipIf(!isInstalled)(
  'npm run docs builds every page, with a sidebar and a search',
  async () => {
    const program = new RunningProgram(['node', join(root, 'scripts/docs.mjs'), join(folder, 'dist')]);
    const code = await program.ended();
    expect([code, code === 0 ? '' : program.output()]).toEqual([0, '']);
    const dist = join(folder, 'dist');
    for (const name of pagesOf(join(root, 'docs'))) {
      const path = join(dist, `${name.replace(/(^|\/)README$/, '$1index')}.html`);
      expect([path, existsSync(path)]).toEqual([path, true]);
    }
    const html = readFileSync(join(dist, 'operations.html'), 'utf8');
    for (const { text } of sidebarOf(join(root, 'docs'))) expect(html).toContain(text);
    const names = readdirSync(dist, { recursive: true }).map(String);
    const index = names.find((name) => /localSearchIndex.*\.js$/.test(name)) ?? '';
    expect([index, readFileSync(join(dist, index), 'utf8').includes('/proxies.html#envoy')]).toEqual([index, true]);
    // Nothing is loaded from elsewhere.
    const all = names.filter((name) => /\.(?:html|css)$/.test(name)).map((name) => readFileSync(join(dist, name), 'utf8'));
    expect(all.filter((text) => /<(?:script|link|img)[^>]+(?:src|href)="(?:https?:)?\/\/|url\((?:https?:)?\/\//.test(text))).toEqual([]);
  },
  180_000,
);
