/**
 * Pages of the documentation, and their blocks of code.
 *
 * Role: what a page shows is what tests run. A fence is `LANGUAGE`, `LANGUAGE no-test REASON`, or `LANGUAGE PATH` for a file of a program that the
 * page builds up; the test of that page writes it there.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

const root = join(import.meta.dir, '..', '..');

export interface Block {
  readonly file: string;
  readonly line: number;
  readonly language: string;
  /** What follows the language. */
  readonly info: string;
  readonly text: string;
  /** What `info` says: the file that this is, in a program that the page builds up. */
  readonly path: string | undefined;
  /** The heading above it. */
  readonly heading: string;
}

export interface Page {
  readonly file: string;
  readonly text: string;
  /** Lines outside of code blocks. */
  readonly prose: string;
  readonly blocks: readonly Block[];
}

/** file: relative to the tree. Throws for a block without end. */
export function readPage(file: string): Page {
  const text = readFileSync(join(root, file), 'utf8');
  const blocks: Block[] = [];
  const prose: string[] = [];
  let heading = '';
  let open: { line: number; language: string; info: string; lines: string[] } | undefined;
  for (const [index, line] of text.split('\n').entries()) {
    const fence = /^```(\S*)\s*(.*)$/.exec(line);
    if (fence === null) {
      (open?.lines ?? prose).push(line);
      if (open === undefined) heading = /^#+ (.+)$/.exec(line)?.[1] ?? heading;
    } else if (open === undefined) {
      open = { line: index + 1, language: fence[1] ?? '', info: fence[2] ?? '', lines: [] };
    } else {
      const { language, info } = open;
      const path = /^[\w./-]+\.\w+$/.test(info) ? info : undefined;
      blocks.push({ file, line: open.line, language, info, text: open.lines.join('\n'), path, heading });
      open = undefined;
    }
  }
  if (open !== undefined) throw new Error(`${file}:${open.line}: this code block has no end`);
  return { file, text, prose: prose.join('\n'), blocks };
}

/** Write a block where it says it belongs. */
export function writeBlock(folder: string, { path, text }: Block): void {
  if (path === undefined) throw new Error('this block does not say which file it is');
  mkdirSync(dirname(join(folder, path)), { recursive: true });
  writeFileSync(join(folder, path), `${text}\n`);
}
