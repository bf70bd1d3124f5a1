/** Comments and pages name files as neighbours and places: each must be there. A file that moves, or goes, is named in more places than one looks at. */
import { expect, test } from 'bun:test';
import { readdirSync, readFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';

const root = join(import.meta.dir, '../../..');

/** From the root; without what was installed or built. */
function filesOf(folder: string): string[] {
  return readdirSync(join(root, folder), { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (!entry.isDirectory()) return [path];
    return ['node_modules', 'build', 'results', 'prebuilt', 'types', '.git'].includes(entry.name) ? [] : filesOf(path);
  });
}

/** Headers of others, and what a reader may call a file of theirs. */
const foreign = ['zlib.h', 'zconf.h', 'sysexits.h', 'other.config.ts'];

/** What lines that are comments, or of a page all lines, name. `lines` from 1. */
function namesIn(file: string, text: string): { readonly line: number; readonly name: string }[] {
  const isPage = file.endsWith('.md');
  return text.split('\n').flatMap((content, index) => {
    if (!isPage && !/^\s*(\/?\*|\/\/)/.test(content)) return [];
    return [...content.matchAll(/(?<![\w/.*-])(?:[\w-]+\/)*[a-z][\w-]*(?:\.[\w-]+)*\.(?:ts|c|h|mjs)\b(?!\.\w)/g)].map(([name]) => ({
      line: index + 1,
      name,
    }));
  });
}

/** `name` is a file, or the end of a file's path. */
function isThere(name: string, file: string, files: readonly string[], names: ReadonlySet<string>): boolean {
  if (!name.includes('/')) return names.has(name) || foreign.includes(name);
  return files.includes(join(dirname(file), name)) || files.some((path) => path === name || path.endsWith(`/${name}`));
}

/** Files of a program that a page builds up: the fence of each block says which it is. */
const built = (text: string) => [...text.matchAll(/^```\w+ ([\w./-]+)$/gm)].map(([, path = '']) => path);

function missing(file: string, text: string, tree: readonly string[]): string[] {
  const files = file.endsWith('.md') ? [...tree, ...built(text)] : tree;
  const names = new Set(files.map((path) => basename(path)));
  return namesIn(file, text)
    .filter(({ name }) => !isThere(name, file, files, names))
    .map(({ line, name }) => `${file}:${line} names ${name}, which is not there: name what has taken its place`);
}

test('files that comments and pages name are there', () => {
  const files = filesOf('.');
  const read = files.filter((file) => /^(src\/.*\.ts|ffi\/.*\.(ts|c|h)|docs\/.*\.md|[A-Z]+\.md)$/.test(file) && file !== 'CHANGELOG.md');
  expect(read.length).toBeGreaterThan(300);
  expect(read.flatMap((file) => missing(file, readFileSync(join(root, file), 'utf8'), files))).toEqual([]);
});

test('one that is gone is found, with its line', () => {
  const files = ['src/core/core.ts', 'src/frontend/hono/index.ts', 'ffi/core/core.c'];
  const text =
    '/**\n * Up: core.ts, worker/core.ts and loop.ts. Down: hono/index.ts, core.c.\n */\nimport "./gone.ts"; // not a line of comment\n';
  expect(missing('src/host/ticks.ts', text, files)).toEqual([
    'src/host/ticks.ts:2 names worker/core.ts, which is not there: name what has taken its place',
    'src/host/ticks.ts:2 names loop.ts, which is not there: name what has taken its place',
  ]);
  expect(missing('docs/x.md', 'See `loop.ts` and [core](../src/core/core.ts).', files)).toHaveLength(1);
  expect(missing('docs/x.md', 'In `src/users.ts`:\n\n```ts src/users.ts\n```\nand src/gone.ts', files)).toHaveLength(1);
});
