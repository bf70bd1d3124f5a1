/**
 * A program under test: a process of Node with the original or of Bun with Ringway, or a client beside it, as what it prints.
 *
 * Role: every wait of the contract suite for a process goes through it, and every process of it is stopped by it.
 */
import { existsSync, realpathSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { patienceMs } from '../support/eventually.ts';
import { RunningProgram } from '../support/running-program.ts';

export const here = import.meta.dir;
const register = join(here, '../../src/register.ts');

/** `older`: the original in an older build, for what no longer works in the newer one. */
export type Side = 'original' | 'older' | 'ringway';

/** What the C library of a newer Debian is started by, where set-up has fetched one: see scripts/newer-libc.mjs. */
const newerLibc = join(here, 'node_modules/.newer-libc');
const loader = join(newerLibc, process.arch === 'arm64' ? 'ld-linux-aarch64.so.1' : 'ld-linux-x86-64.so.2');

type Build = 'newer' | 'older';

interface Original {
  readonly build: Build;
  /** Node, and the hooks that put the build in place. */
  readonly command: readonly string[];
}

function hooksOf(build: Build): string {
  return `${pathToFileURL(join(here, 'original.mjs'))}${build === 'older' ? '?older' : ''}`;
}

/** Ways to run the original, the best first: where two builds differ, the newer is the reference. */
function ways(): Original[] {
  const node = Bun.which('node');
  if (node === null) return [];
  const way = (build: Build, ...command: string[]) => ({ build, command: [...command, '--no-warnings', '--import', hooksOf(build)] });
  const ofNewerLibc = existsSync(loader) ? [way('newer', loader, '--library-path', newerLibc, realpathSync(node))] : [];
  return [...ofNewerLibc, way('newer', node), way('older', node)];
}

/** ret: what it said that kept it from running, or undefined */
function failureOf({ command }: Original): string | undefined {
  const program = 'process.exit(typeof require("uWebSockets.js").App === "function" ? 0 : 1)';
  const { success, stderr } = Bun.spawnSync([...command, '-e', program], { cwd: here });
  return success ? undefined : stderr.toString();
}

const failures: string[] = [];
const original = ways().find((way) => {
  const failure = failureOf(way);
  if (failure !== undefined) failures.push(failure);
  return failure === undefined;
});

/** Why nothing can be compared here, or undefined. */
export const whyNot =
  original === undefined ? `the original does not run under Node here: ${failures.join('\n') || 'there is no Node'}` : undefined;

/** Why what only newer builds of the original show cannot be compared here, or undefined. */
export const whyNotNewer =
  original?.build === 'newer' ? undefined : `a newer build of the original does not run here: ${failures.join('\n')}`;

/** How a server program is started on either side. `preload`: a module that is loaded before it. */
export function commandLine(side: Side, program: string, args: readonly string[] = [], preload?: string): string[] {
  const preloaded = (word: string) => (preload === undefined ? [] : [word, preload]);
  if (side === 'ringway') return [process.execPath, '--preload', register, ...preloaded('--preload'), program, ...args];
  const way = side === 'older' ? ways().find(({ build }) => build === 'older') : original;
  return [...(way?.command ?? ['node']), ...preloaded('--import'), program, ...args];
}

export interface ProgramOptions {
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** Called for each line of its output as it comes. */
  readonly onLine?: (line: string) => void;
}

export class Program extends RunningProgram {
  readonly lines: string[] = [];
  readonly #onLine: ((line: string) => void) | undefined;
  readonly #waiting: (() => void)[] = [];
  #begun = '';
  #isOver = false;

  constructor(command: readonly string[], options: ProgramOptions = {}) {
    const env = { ...process.env, NODE_ENV: 'test', NO_COLOR: '1', ...options.env };
    super(command, { cwd: options.cwd ?? here, env, stdin: 'pipe' });
    this.#onLine = options.onLine;
  }

  protected override heard(name: 'out' | 'err', text: string): void {
    super.heard(name, text);
    if (name === 'out') this.#split(text);
    this.#notify();
  }

  /** The end of its output comes before the kernel tells of its exit. */
  protected override closed(name: 'out' | 'err'): void {
    if (name === 'out') this.#isOver = true;
    this.#notify();
  }

  #split(text: string): void {
    const lines = (this.#begun + text).split('\n');
    this.#begun = lines.pop() ?? '';
    for (const line of lines) {
      this.lines.push(line);
      this.#onLine?.(line);
    }
  }

  #notify(): void {
    for (const notify of this.#waiting.splice(0)) notify();
  }

  get isAlive(): boolean {
    return !this.#isOver;
  }

  /** Wait for something that the process says; its end ends the wait. */
  async until(what: string, isTrue: () => boolean): Promise<void> {
    const said = () => `${what}\n${this.err}\n${this.lines.slice(-20).join('\n')}`;
    const deadline = Date.now() + patienceMs;
    while (!isTrue()) {
      if (this.#isOver) throw new Error(`the process ended before: ${said()}`);
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      this.#waiting.push(resolve);
      const timer = setTimeout(() => reject(new Error(`did not come: ${said()}`)), Math.max(0, deadline - Date.now()));
      await promise.finally(() => clearTimeout(timer));
    }
  }

  /** Wait for a line that matches. ret: the match */
  async line(pattern: RegExp): Promise<RegExpExecArray> {
    const find = () => {
      for (const line of this.lines) {
        const match = pattern.exec(line);
        if (match !== null) return match;
      }
      return undefined;
    };
    await this.until(String(pattern), () => find() !== undefined);
    return find() as RegExpExecArray;
  }

  write(line: string): void {
    const { stdin } = this.child;
    if (stdin === undefined) throw new Error('it has no standard input');
    stdin.write(`${line}\n`);
    stdin.flush();
  }

  /** Wait until it has ended by itself. ret: its exit code, or the signal it died of */
  async outcome(): Promise<number | string> {
    await this.until('the end of the process', () => this.#isOver);
    await this.ended();
    return this.child.signalCode ?? this.child.exitCode ?? 'nothing';
  }

  /** End the process. ret: how it had ended by itself, or 'lives' */
  async halt(): Promise<string> {
    const lives = !this.#isOver;
    await this.stop();
    return lives ? 'lives' : `ended with ${this.child.signalCode ?? this.child.exitCode}`;
  }
}
