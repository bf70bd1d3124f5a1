/**
 * The order of the folders of src/: what each may import, types and loading at run time included. Biome sees circles of files; a circle of
 * folders takes an arrow upwards, and those are found here.
 */
import { describe, expect, test } from 'bun:test';
import { dirname, join } from 'node:path';
import { Glob, Transpiler } from 'bun';

/**
 * From the ground up: a folder imports from itself and from lines before its own; folders of one line do not know each other. The longest name
 * that fits a file is its place; `*` is any one folder, which is then a place of its own.
 */
const order: readonly (readonly string[])[] = [
  ['ffi/'],
  ['src/exit-codes.ts', 'src/log-repeats.ts', 'src/operating-error.ts', 'src/original-package.ts', 'src/version.ts'],
  ['src/output.ts'],
  ['src/log.ts'],
  ['src/core/'],
  ['src/api/'],
  ['src/process/'],
  ['src/config/'],
  ['src/auth/'],
  ['src/topics/store.ts'],
  ['src/pubsub/'],
  ['src/pubsub/nodes/'],
  ['src/pubsub/redis/'],
  ['src/pubsub/create.ts'],
  ['src/topics/'],
  ['src/host/'],
  ['src/frontend/http/'],
  ['src/frontend/sockets/', 'src/frontend/streams/'],
  ['src/frontend/frontend.ts'],
  ['src/frontend/registry.ts'],
  ['src/frontend/*/'],
  ['src/frontend/'],
  ['src/index.ts', 'src/link.ts', 'src/register.ts'],
  ['src/own-modules.ts'],
  ['src/worker/', 'src/supervisor/'],
  ['src/doctor/', 'src/top/'],
  ['src/cli/'],
  ['src/main.ts'],
];

interface Place {
  readonly name: string;
  readonly line: number;
}

interface Import {
  /** Of the line that names the file, from 1. */
  readonly line: number;
  /** From the root of the repository. */
  readonly file: string;
}

function placeOf(file: string): Place | undefined {
  let found: Place | undefined;
  for (const [line, names] of order.entries())
    for (const name of names) {
      const fits = file.match(new RegExp(`^${name.replaceAll('.', '\\.').replace('*', '[^/]+')}${name.endsWith('/') ? '' : '$'}`))?.[0];
      if (fits !== undefined && fits.length > (found?.name.length ?? 0)) found = { name: fits, line };
    }
  return found;
}

const packageFiles: Readonly<Record<string, string>> = {
  ringway: 'src/index.ts',
  'ringway/uws': 'src/frontend/uws/index.ts',
  'ringway/register': 'src/register.ts',
};

/** Statements, re-exports, `import()` of values and types, and `require`. Whole lines of comment are no code. */
function importsOf(file: string, text: string): Import[] {
  const code = text.replaceAll(/^[ \t]*(\/\/|\/?\*).*$/gm, '');
  return [...code.matchAll(/\b(?:from|import|require|resolve)\s*\(?\s*(['"`])((?:\.|ringway)[^'"`\n]*)\1/g)].flatMap(
    ({ index, 2: name = '' }) => {
      const target = name.startsWith('.') ? join(dirname(file), name) : packageFiles[name];
      return target?.endsWith('.ts') ? [{ line: code.slice(0, index).split('\n').length, file: target }] : [];
    },
  );
}

/** What is wrong with the imports of a file, each with its line and what to do. */
function arrowsOf(file: string, text: string): string[] {
  const from = placeOf(file);
  if (from === undefined) return [`${file} is in no folder of the order: give it a line in tests/unit/repository/folders.test.ts`];
  return importsOf(file, text).flatMap(({ line, file: target }) => {
    const to = placeOf(target);
    const says = `${file}:${line} imports ${target}`;
    if (to === undefined) return [`${says}, which is in no folder of the order: only src/ and ffi/ are there at run time`];
    if (to.name === 'ffi/' && from.name !== 'ffi/' && from.name !== 'src/core/')
      return [`${says}: only src/core/ does; take it from src/core/abi.ts or src/core/native.ts, or export it there`];
    if (to.line < from.line || to.name === from.name) return [];
    if (to.line === from.line)
      return [`${says}, but ${from.name} and ${to.name} are not to know each other: move what both need into a folder before them`];
    return [
      `${says}, but ${to.name} stands above ${from.name}: move what is needed into ${from.name} or a folder before it, or have it handed over by whoever makes both`,
    ];
  });
}

describe('the order of folders', () => {
  test('every file of src/ and ffi/ imports from folders before its own', async () => {
    const root = join(import.meta.dir, '../../..');
    // What is built is not ours, and other tests write there meanwhile.
    const files = [...new Glob('{src,ffi}/**/*.ts').scanSync(root)].filter((file) => !file.startsWith('ffi/build/'));
    expect(files.length).toBeGreaterThan(200);
    const texts = await Promise.all(files.map((file) => Bun.file(join(root, file)).text()));
    expect(files.flatMap((file, index) => arrowsOf(file, texts[index] ?? ''))).toEqual([]);
  });

  test('no import escapes the reading that Bun finds', async () => {
    const transpiler = new Transpiler({ loader: 'ts' });
    const root = join(import.meta.dir, '../../..');
    for (const file of new Glob('src/**/*.ts').scanSync(root)) {
      const text = await Bun.file(join(root, file)).text();
      const read = new Set(importsOf(file, text).map((each) => each.file));
      const found = transpiler
        .scanImports(text.replace(/^#!.*/, ''))
        .flatMap(({ path }) => (path.startsWith('.') ? [join(dirname(file), path)] : []));
      expect(found.filter((each) => each.endsWith('.ts') && !read.has(each))).toEqual([]);
    }
  });

  const upwards = 'stands above src/api/: move what is needed into src/api/ or a folder before it';
  const samples: readonly (readonly [string, string])[] = [
    ['a statement', "import { Exchange } from '../frontend/hono/exchange.ts';"],
    ['a type', "import type { Exchange } from '../frontend/hono/exchange.ts';"],
    ['an import for its effect', "import '../frontend/hono/exchange.ts';"],
    ['a statement of several lines', "import {\n  type Exchange,\n  hostOf,\n} from '../frontend/hono/exchange.ts';"],
    ['a re-export', "export { Exchange } from '../frontend/hono/exchange.ts';"],
    ['a re-export of all', "export * from '../frontend/hono/exchange.ts';"],
    ['a re-export of a type', "export type { Exchange } from '../frontend/hono/exchange.ts';"],
    ['a dynamic import', "const load = () => import('../frontend/hono/exchange.ts');"],
    ['a dynamic import on lines of its own', "await import(\n  '../frontend/hono/exchange.ts'\n);"],
    ['the type of a module', "let loaded: typeof import('../frontend/hono/exchange.ts');"],
    ['require', "const { Exchange } = require('../frontend/hono/exchange.ts');"],
    ['a file named for later', "const where = import.meta.resolve('../frontend/hono/exchange.ts');"],
    ['other quotes', 'import { Exchange } from "../frontend/hono/exchange.ts";'],
  ];
  for (const [what, text] of samples)
    test(`an arrow upwards is found: ${what}`, () => {
      const [problem, ...more] = arrowsOf('src/api/define.ts', `/** A type. */\n\n${text}\n`);
      expect(problem).toMatch(/^src\/api\/define\.ts:[3-6] imports src\/frontend\/hono\/exchange\.ts, but src\/frontend\/hono\/ /);
      expect(problem).toContain(upwards);
      expect(more).toEqual([]);
    });

  test('the package by its own name is a file like others', () => {
    expect(arrowsOf('src/config/load.ts', "const load = () => import('ringway/uws');")[0]).toContain(
      'src/frontend/uws/ stands above src/config/',
    );
  });

  test('of a circle of folders, the arrow that closes it is found', () => {
    const config = arrowsOf('src/config/load.ts', "import { uws } from '../frontend/uws/index.ts';");
    const uws = arrowsOf('src/frontend/uws/index.ts', "import { defaults } from '../../config/defaults.ts';");
    expect([config.length, uws.length]).toEqual([1, 0]);
  });

  test('folders of one line do not know each other; a frontend to come is such a folder', () => {
    expect(arrowsOf('src/worker/listeners.ts', "import { x } from '../supervisor/listeners.ts';")[0]).toContain('not to know each other');
    expect(arrowsOf('src/supervisor/drain.ts', "import { x } from '../worker/main.ts';")[0]).toContain('not to know each other');
    expect(arrowsOf('src/frontend/pusher/index.ts', "import { x } from '../hono/index.ts';")[0]).toContain(
      'src/frontend/pusher/ and src/frontend/hono/ are not to know each other',
    );
    expect(arrowsOf('src/frontend/pusher/index.ts', "import { x } from '../http/thenable.ts';")).toEqual([]);
    expect(arrowsOf('src/frontend/http/thenable.ts', "import { x } from '../pusher/index.ts';")).toHaveLength(1);
  });

  test('only core/ imports ffi/', () => {
    expect(arrowsOf('src/config/tls.ts', "import type { TlsFiles } from '../../ffi/bindings.ts';")[0]).toContain('only src/core/ does');
    expect(arrowsOf('src/core/core.ts', "import { coreCalls } from '../../ffi/bindings.ts';")).toEqual([]);
    expect(arrowsOf('ffi/bindings.ts', "import { Core } from '../src/core/core.ts';")).toHaveLength(1);
  });

  test('a file without a place, and one that is not shipped, are found', () => {
    expect(arrowsOf('src/misc/text.ts', '')).toEqual([expect.stringContaining('in no folder of the order')]);
    expect(arrowsOf('src/api/define.ts', "import { x } from '../../tests/support/x.ts';")[0]).toContain('only src/ and ffi/ are there');
  });

  test('packages, files of data and comments are no arrows, nor is what points down', () => {
    const text = [
      "import { join } from 'node:path';",
      "import { inspection } from '../core/inspection.ts';",
      "import manifest from '../../package.json';",
      '/**',
      " * See import('../frontend/hono/exchange.ts').",
      ' */',
      "// import { Exchange } from '../frontend/hono/exchange.ts';",
    ].join('\n');
    expect(arrowsOf('src/api/define.ts', text)).toEqual([]);
  });
});
