/**
 * The order of the folders of ffi/core/: what each may include, and who may call whom. A header that declares what a folder above defines
 * would be an arrow upwards in disguise, so that is looked for as well.
 */
import { describe, expect, test } from 'bun:test';
import { dirname, join } from 'node:path';
import { Glob } from 'bun';

/** From the ground up: a folder includes from itself and from those before it. `.` is ffi/core/ itself: the turn, and what makes a core. */
const order = ['base', 'ring', 'topics', 'node', 'state', 'connection', 'delivery', 'ws', 'http1', '.'];
/** The ABI, which every file may know. */
const abi = 'ringway.h';

type Sources = ReadonlyMap<string, string>;

const withoutComments = (text: string) => text.replaceAll(/\/\*.*?\*\//gs, (comment) => comment.replaceAll(/[^\n]/g, ' '));

function includesOf(text: string): { file: string; line: number }[] {
  return [...withoutComments(text).matchAll(/^#include "([^"]+)"/gm)].map(({ index, 1: file = '' }) => ({
    file,
    line: text.slice(0, index).split('\n').length,
  }));
}

function arrowsUp(sources: Sources): string[] {
  return [...sources].flatMap(([file, text]) => {
    const from = order.indexOf(dirname(file));
    if (from < 0) return [`${file} is in no folder of the order: give it a place in tests/unit/repository/c-includes.test.ts`];
    return includesOf(text).flatMap(({ file: target, line }) => {
      const says = `${file}:${line} includes ${target}`;
      if (target === abi) return [];
      if (!sources.has(target)) return [`${says}, which is not there: an include names its folder`];
      const to = order.indexOf(dirname(target));
      return to <= from ? [] : [`${says}, but ${order[to]} stands above ${order[from]}`];
    });
  });
}

/** Headers that include each other, which their guards would hide. */
function circles(sources: Sources): string[] {
  const done = new Set<string>();
  const visit = (file: string, path: readonly string[]): string[] => {
    if (path.includes(file)) return [[...path.slice(path.indexOf(file)), file].join(' → ')];
    if (done.has(file)) return [];
    const found = includesOf(sources.get(file) ?? '').flatMap((next) => visit(next.file, [...path, file]));
    done.add(file);
    return found;
  };
  return [...sources.keys()].filter((file) => file.endsWith('.h')).flatMap((file) => visit(file, []));
}

/** Functions and tables that one folder declares and another defines. */
function disguised(sources: Sources): string[] {
  const named = (pattern: RegExp, end: string) =>
    [...sources]
      .filter(([file]) => file.endsWith(end))
      .flatMap(([file, text]) => [...withoutComments(text).matchAll(pattern)].map(({ 1: name = '' }) => [name, dirname(file)] as const));
  const declared = named(/^(?!static|#|typedef)\w[\w *]*?\b(rw_\w+)(?:\([^;{]*\)|\[\w*\])?;/gm, '.h');
  const defined = new Map(named(/^(?!static|#|extern)\w[\w *]*?\b(rw_\w+)(?:\([^;{]*\) \{|(?:\[\w*\])? = )/gm, '.c'));
  return declared.flatMap(([name, folder]) => {
    const where = defined.get(name);
    return where === undefined || where === folder ? [] : [`${name} is declared in ${folder} and defined in ${where}`];
  });
}

/** connection/ reaches what it speaks by the table of connection/protocol.h. */
function namesOfProtocols(sources: Sources): string[] {
  return [...sources]
    .filter(([file]) => dirname(file) === 'connection')
    .flatMap(([file, text]) =>
      [...withoutComments(text).matchAll(/\b(?:rw_(?:http|ws)_\w+\(|RW_(?:HTTP|WS)_PROTOCOL\b)/g)].map(([name]) => `${file}: ${name}`),
    );
}

const mistakesOf = (sources: Sources) => [arrowsUp, circles, disguised, namesOfProtocols].flatMap((check) => check(sources));

describe('the folders of ffi/core/', () => {
  test('include from folders before their own, without circles and disguises', async () => {
    const root = join(import.meta.dir, '../../../ffi/core');
    const files = [...new Glob('**/*.{c,h}').scanSync(root)];
    expect(files.length).toBeGreaterThan(90);
    const texts = await Promise.all(files.map(async (file) => [file, await Bun.file(join(root, file)).text()] as const));
    expect(mistakesOf(new Map(texts))).toEqual([]);
  });

  const samples: readonly (readonly [string, Record<string, string>, string[]])[] = [
    ['an arrow down', { 'ws/a.c': '#include "base/b.h"\n', 'base/b.h': '#include "ringway.h"\n' }, []],
    ['one in a comment', { 'base/a.h': '/* #include "ws/b.h"\n#include "ws/b.h" */\n', 'ws/b.h': '' }, []],
    [
      'an arrow up',
      { 'connection/a.c': '#include <stdint.h>\n#include "ws/b.h"\n', 'ws/b.h': '' },
      ['connection/a.c:2 includes ws/b.h, but ws stands above connection'],
    ],
    ['one to the turn', { 'http1/a.c': '#include "b.h"\n', 'b.h': '' }, ['http1/a.c:1 includes b.h, but . stands above http1']],
    [
      'a file that is not there',
      { 'ws/a.c': '#include "b.h"\n' },
      ['ws/a.c:1 includes b.h, which is not there: an include names its folder'],
    ],
    [
      'a folder without a place',
      { 'misc/a.c': '' },
      ['misc/a.c is in no folder of the order: give it a place in tests/unit/repository/c-includes.test.ts'],
    ],
    [
      'headers that include each other',
      { 'base/a.h': '#include "base/b.h"\n', 'base/b.h': '#include "base/a.h"\n' },
      ['base/a.h → base/b.h → base/a.h'],
    ],
    [
      'a function that a folder above defines',
      {
        'base/a.h': 'int32_t rw_a_do(struct rw_a *a,\n                int b);\n',
        'ws/a.c': 'int32_t rw_a_do(struct rw_a *a, int b) {\n}\n',
      },
      ['rw_a_do is declared in base and defined in ws'],
    ],
    [
      'a table that a folder above defines',
      { 'base/a.h': 'extern const struct rw_a rw_a_table;\n', 'ws/a.c': 'const struct rw_a rw_a_table = {0};\n' },
      ['rw_a_table is declared in base and defined in ws'],
    ],
    ['a protocol called by name', { 'connection/a.c': '    rw_ws_close(core, slot);\n' }, ['connection/a.c: rw_ws_close(']],
    ['and asked for by name', { 'connection/a.c': 'if (protocol == RW_HTTP_PROTOCOL) {}\n' }, ['connection/a.c: RW_HTTP_PROTOCOL']],
  ];
  test.each(samples)('what is said of %s', (_, sources, mistakes) => {
    expect(mistakesOf(new Map(Object.entries(sources)))).toEqual(mistakes);
  });
});
