/**
 * What stands on the command line, judged: citty itself ignores what it does not know.
 * Role: pure. Up: cli.ts.
 */
import { parseArgs } from 'node:util';
import type { ArgsDef } from 'citty';
import { defaultConfigPath, defaults, drainCloseCodeText, isDrainCloseCode, ranges } from '../config/defaults.ts';
import type { ResolvedConfig } from '../config/resolve.ts';
import { nearest } from '../config/suggest.ts';
import type { StartOptions } from './start.ts';

/** The command line is wrong. */
export class UsageError extends Error {}

/** Throws UsageError for anything that the command does not know, and for options without their value. */
export function judgeArguments(command: string, args: ArgsDef, rest: readonly string[]): void {
  const words = Object.entries(args).filter(([, arg]) => arg.type === 'positional');
  const known = Object.entries(args)
    .filter(([, arg]) => arg.type !== 'positional')
    .map(([name, arg]) => ({
      name,
      short: 'alias' in arg ? String(arg.alias) : undefined,
      type: arg.type === 'boolean' ? ('boolean' as const) : ('string' as const),
    }));
  const options = Object.fromEntries(known.map(({ name, short, type }) => [name, short === undefined ? { type } : { type, short }]));
  const explain = `('ringway ${command} --help' explains)`;
  const { tokens } = parseArgs({ args: [...rest], options, strict: false, allowPositionals: true, tokens: true });
  let given = 0;
  for (const token of tokens) {
    if (token.kind === 'positional' && ++given > words.length)
      throw new UsageError(`'${token.value}' is one word too many for 'ringway ${command}' ${explain}`);
    if (token.kind !== 'option') continue;
    const option = known.find(({ name }) => name === token.name);
    if (option === undefined) {
      const near = nearest(
        token.name,
        known.map(({ name }) => name),
      );
      throw new UsageError(
        `unknown option '${token.rawName}' of 'ringway ${command}'${near === undefined ? '' : `; did you mean '--${near}'?`} ${explain}`,
      );
    }
    const hasValue = token.value !== undefined && token.value !== '' && !(token.inlineValue === false && token.value.startsWith('-'));
    if (option.type === 'string' && !hasValue) throw new UsageError(`'${token.rawName}' needs a value ${explain}`);
    if (option.type === 'boolean' && token.value !== undefined) throw new UsageError(`'${token.rawName}' takes no value ${explain}`);
  }
  const [missing] = words.find(([, arg], place) => place >= given && !('required' in arg && arg.required === false)) ?? [];
  if (missing !== undefined) throw new UsageError(`which ${missing}? ${explain}`);
}

/** Of `ringway start` and `ringway dev`. `config` has its default. Throws UsageError. */
export function startOptions(args: {
  readonly file?: string | undefined;
  readonly config: string;
  readonly port?: string | undefined;
  readonly workers?: string | undefined;
}): StartOptions {
  const { file, config, port, workers } = args;
  if (file !== undefined && config !== defaultConfigPath)
    throw new UsageError(`two config files, '${file}' and '${config}': write one of them`);
  return {
    configPath: file ?? config,
    port: port === undefined ? undefined : integer('--port', port, ranges.port),
    workers: workers === undefined ? undefined : integer('--workers', workers, ranges.workers),
  };
}

/** Of a whole node, in as many workers as there may be. */
export function connectionCount(text: string | undefined): number | undefined {
  return text === undefined ? undefined : integer('--connections', text, [1, ranges.workers[1] * ranges.connections[1]]);
}

/** Seconds that a token is good for. Throws UsageError. */
export function tokenSeconds(text: string | undefined): number {
  return text === undefined ? 3600 : integer('--expires', text, [1, 31_536_000]);
}

/** Throws UsageError. */
export function integer(name: string, text: string, [least, most]: readonly [number, number], also = ''): number {
  const value = Number(text);
  if (!/^\d+$/.test(text) || value < least || value > most)
    throw new UsageError(`${name} is '${text}'; write ${also}an integer from ${least} to ${most}`);
  return value;
}

function integerOr(fallback: number, name: string, text: string | undefined, range: readonly [number, number]): number {
  return text === undefined ? fallback : integer(name, text, range);
}

function closeCode(text: string): number {
  if (!/^\d+$/.test(text) || !isDrainCloseCode(Number(text)))
    throw new UsageError(`--drain-close-code is '${text}'; write ${drainCloseCodeText}`);
  return Number(text);
}

/** What `ringway run` was asked for. */
export interface RunOptions {
  readonly program: string;
  /** The program's own. */
  readonly args: readonly string[];
  readonly workers: 'auto' | number;
  readonly drain: ResolvedConfig['drain'];
  /** undefined: no admin listener. */
  readonly adminPort: number | undefined;
}

const runOptions = ['workers', 'drain-delay', 'drain-timeout', 'drain-close-code', 'admin-port'] as const;
type RunOption = (typeof runOptions)[number];

/**
 * The words behind `ringway run`. Ringway's own options may stand on either side of the program, up to a `--`; all else behind the
 * program is the program's. Throws UsageError.
 */
export function runArguments(words: readonly string[], env: Readonly<Record<string, string | undefined>>): RunOptions {
  const given: Partial<Record<RunOption, string>> = {};
  const args: string[] = [];
  let program: string | undefined;
  for (let at = 0; at < words.length; at++) {
    const word = words[at] as string;
    const [name = '', inline] = splitOption(word);
    const own = runOptions.find((option) => name === `--${option}`);
    if (word === '--') {
      const [first, ...rest] = words.slice(at + 1);
      if (program === undefined) program = first;
      else if (first !== undefined) args.push(first);
      args.push(...rest);
      break;
    }
    if (own !== undefined) {
      const value = inline ?? words[++at];
      if (value === undefined || value === '' || (inline === undefined && value.startsWith('-')))
        throw new UsageError(`'--${own}' needs a value ('ringway run --help' explains)`);
      given[own] = value;
    } else if (program !== undefined) args.push(word);
    else if (word.startsWith('-')) throw new UsageError(unknownRunOption(name));
    else program = word;
  }
  if (program === undefined) throw new UsageError("which program? Write 'ringway run app.js' ('ringway run --help' explains)");
  return {
    program,
    args,
    workers: runWorkers(given.workers, env.WORKERS),
    drain: {
      delay: given['drain-delay'] === undefined ? defaults.drain.delay : integerOr(0, '--drain-delay', given['drain-delay'], ranges.drain),
      timeout: integerOr(defaults.drain.timeout, '--drain-timeout', given['drain-timeout'], ranges.drain),
      closeCode: given['drain-close-code'] === undefined ? defaults.drain.closeCode : closeCode(given['drain-close-code']),
    },
    adminPort: adminPort(given['admin-port'], env.ADMIN_PORT),
  };
}

function splitOption(word: string): readonly [string, string | undefined] {
  const at = word.startsWith('--') ? word.indexOf('=') : -1;
  return at < 0 ? [word, undefined] : [word.slice(0, at), word.slice(at + 1)];
}

function unknownRunOption(name: string): string {
  const near = nearest(name.replace(/^-+/, ''), runOptions);
  return `unknown option '${name}' of 'ringway run'${near === undefined ? '' : `; did you mean '--${near}'?`} ('ringway run --help' explains)`;
}

function runWorkers(given: string | undefined, environment: string | undefined): 'auto' | number {
  const text = given ?? (environment?.trim() || 'auto');
  return text === 'auto' ? 'auto' : integer(given === undefined ? 'env WORKERS' : '--workers', text, ranges.workers, "'auto' or ");
}

function adminPort(given: string | undefined, environment: string | undefined): number | undefined {
  const text = given ?? environment?.trim();
  if (text === undefined || text === '') return undefined;
  return integer(given === undefined ? 'env ADMIN_PORT' : '--admin-port', text, ranges.port);
}
