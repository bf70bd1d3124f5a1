// Typings for the npm package: what tsc says of the entries, reduced to the declarations that people can reach. tsc emits whole files,
// with all that they declare; of that, most is internal, and some names types of Bun that a consumer may not have.
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';

/**
 * A declaration, import or export of a file of typings, with the comment before it.
 * @typedef {object} Statement
 * @property {string} text
 * @property {string} code without comments
 * @property {string[]} declares
 * @property {boolean} exported
 * @property {Reference | undefined} from what it imports or exports of another file
 * @property {boolean} needed
 *
 * @typedef {object} Reference
 * @property {string} path of a file of typings, or the name of a package
 * @property {string} before what stands before the names, and behind them
 * @property {string} behind
 * @property {Map<string, {there: string, text: string}> | 'all'} names by the name here: the name over there, and both as written
 * @property {Set<string>} needed those of them that are
 * @property {boolean} reExports
 */

/** @param {string} file as one imports it @param {string} importer */
function resolveTypes(file, importer) {
  return file.startsWith('.') ? join(dirname(importer), file.replace(/\.ts$/, '.d.ts')) : file;
}

/** @param {string} code @param {string} file @returns {Reference | undefined} */
function reference(code, file) {
  const match = /^((?:import|export) (?:type )?)(?:\{([^}]*)\}|\*)( from ['"]([^'"]+)['"];)/s.exec(code);
  if (match === null) return undefined;
  const [, before = '', list, behind = '', path = ''] = match;
  const names = new Map();
  for (const item of list?.split(',') ?? []) {
    const [, text, there, here = there] = /^\s*((?:type )?(\w+)(?: as (\w+))?)\s*$/.exec(item) ?? [];
    if (there !== undefined) names.set(here, { there, text });
  }
  const what = { before, behind, path: resolveTypes(path, file), reExports: before.startsWith('export') };
  return { ...what, names: list === undefined ? 'all' : names, needed: new Set() };
}

/**
 * tsc begins each statement at the start of a line and indents what is inside.
 * @param {string} source @param {string} file @returns {Statement[]}
 */
function parse(source, file) {
  const pieces = source.split(/^(?=[^\s}])/m);
  const statements = [];
  let comment = '';
  for (const piece of pieces) {
    // A comment within a union begins its line; what is behind it belongs to the statement before.
    const last = statements.at(-1);
    if (last !== undefined && /^(?:\/\*.*?\*\/\s*)+\|/s.test(piece)) {
      last.text += piece;
      last.code += piece.replace(/\/\*.*?\*\//gs, '');
      continue;
    }
    if (piece.startsWith('/*')) {
      comment += piece;
      continue;
    }
    const code = piece.replace(/\/\*.*?\*\//gs, '');
    const declared = /^(?:export )?(?:declare )?(?:abstract )?(?:const|let|function|class|interface|type|namespace) (\w+)/.exec(code);
    statements.push({
      text: comment + piece,
      code,
      declares: declared?.[1] === undefined ? [] : [declared[1]],
      exported: code.startsWith('export '),
      from: reference(code, file),
      needed: false,
    });
    comment = '';
  }
  return statements;
}

class Typings {
  /** @type {Map<string, Statement[]>} by file */
  files = new Map();

  /** @param {string} file */
  statements(file) {
    let found = this.files.get(file);
    if (found === undefined) {
      found = parse(readFileSync(file, 'utf8'), file);
      this.files.set(file, found);
    }
    return found;
  }

  /** All that a file exports. @param {string} file */
  needAll(file) {
    for (const statement of this.statements(file)) {
      if (statement.exported && statement.from === undefined) this.#take(statement, file);
      else if (statement.from?.reExports) this.#follow(statement);
    }
  }

  /** One name of a file, however it comes by it. ret: whether it has it @param {string} file @param {string} name @returns {boolean} */
  need(file, name) {
    let found = false;
    for (const statement of this.statements(file)) {
      if (statement.declares.includes(name)) {
        this.#take(statement, file);
        found = true;
      } else if (statement.from?.names !== 'all' && statement.from?.names.has(name)) {
        this.#follow(statement, name);
        found = true;
      } else if (statement.from?.names === 'all' && !found && this.need(statement.from.path, name)) {
        statement.needed = true;
        found = true;
      }
    }
    return found;
  }

  /** @param {Statement} statement @param {string} [only] */
  #follow(statement, only) {
    statement.needed = true;
    const { path, names, needed } = /** @type {Reference} */ (statement.from);
    const isOurs = path.endsWith('.d.ts');
    if (names === 'all') {
      if (isOurs) this.needAll(path);
      return;
    }
    for (const [here, { there }] of names) {
      if (only !== undefined && only !== here) continue;
      needed.add(here);
      if (isOurs) this.need(path, there);
    }
  }

  /** @param {Statement} statement @param {string} file */
  #take(statement, file) {
    if (statement.needed) return;
    statement.needed = true;
    for (const [, path = '', name = ''] of statement.code.matchAll(/\bimport\(['"]([^'"]+)['"]\)\.(\w+)/g)) {
      const target = resolveTypes(path, file);
      if (target.endsWith('.d.ts')) this.need(target, name);
    }
    for (const [word] of statement.code.matchAll(/(?<![.\w])[A-Za-z_]\w*/g)) this.need(file, word);
  }
}

/** What stays of a file. @param {Statement[]} statements */
function print(statements) {
  const lines = statements
    .filter((statement) => statement.needed)
    .map(({ text, from }) => {
      if (from === undefined || from.names === 'all') return text;
      const names = [...from.names].filter(([here]) => from.needed.has(here)).map(([, name]) => name.text);
      return `${from.before}{ ${names.join(', ')} }${from.behind}\n`;
    });
  // Every way of resolving modules finds x.d.ts by './x.js'; few by './x.ts'. A file without exports would not be a module.
  const text = lines.join('').replace(/((?:from |import\()['"]\.[^'"]*)\.ts(['"])/g, '$1.js$2');
  return /^export /m.test(text) ? text : `${text}export {};\n`;
}

/**
 * Write the typings of `entries` (sources, relative to the tree) into `target`, in the shape of the tree.
 * @param {string} root @param {string} target @param {string[]} entries
 */
export function packTypes(root, target, entries) {
  const work = mkdtempSync(join(tmpdir(), 'ringway-types-'));
  try {
    const compilerOptions = {
      noEmit: false,
      declaration: true,
      emitDeclarationOnly: true,
      stripInternal: true,
      rootDir: root,
      outDir: work,
      // So that the entries find @types/bun, wherever this configuration lies.
      typeRoots: [join(root, 'node_modules/@types')],
    };
    const files = [...entries, 'src/core/buffer-methods.d.ts'].map((path) => join(root, path));
    compile(root, work, { extends: join(root, 'tsconfig.json'), compilerOptions, include: [], files });

    const typings = new Typings();
    for (const entry of entries) typings.needAll(join(work, entry.replace(/\.ts$/, '.d.ts')));
    rmSync(target, { recursive: true, force: true });
    for (const [file, statements] of typings.files) {
      const isEntry = entries.includes(relative(work, file).replace(/\.d\.ts$/, '.ts'));
      if (!isEntry && !statements.some((statement) => statement.needed)) continue;
      const path = join(target, relative(work, file));
      mkdirSync(dirname(path), { recursive: true });
      writeFileSync(path, print(statements));
    }

    // As strict a consumer as there can be, who has no types but TypeScript's own.
    const strictest = { noEmit: true, strict: true, skipLibCheck: false, types: [], lib: ['esnext', 'dom'], target: 'esnext' };
    const consumer = { ...strictest, module: 'nodenext', moduleResolution: 'nodenext', exactOptionalPropertyTypes: true };
    compile(root, work, { compilerOptions: consumer, include: [join(target, '**/*.d.ts')] });
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

/** @param {string} root @param {string} work @param {object} settings */
function compile(root, work, settings) {
  const project = join(work, 'tsconfig.json');
  writeFileSync(project, JSON.stringify(settings));
  const args = [join(root, 'node_modules/typescript/bin/tsc'), '-p', project];
  const { status, error } = spawnSync(process.execPath, args, { stdio: ['ignore', 2, 2] });
  if (status !== 0) throw new Error(`the typings could not be made (${error?.message ?? 'the messages of tsc are above'})`);
}
