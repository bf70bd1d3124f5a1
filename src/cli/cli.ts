/**
 * The `ringway` command: what it understands, and how errors come out (message on stderr, exit code).
 * Role: citty describes commands and prints their usage; the command line is judged strictly here, because citty itself ignores
 * what it does not know.
 */
import { parseArgs, stripVTControlCharacters } from 'node:util';
import { type ArgsDef, type CommandDef, defineCommand, renderUsage, runCommand } from 'citty';
import { ranges } from '../config/defaults.ts';
import { defaultConfigPath } from '../config/load.ts';
import { ConfigError } from '../config/resolve.ts';
import { nearest } from '../config/suggest.ts';
import { exitCodes } from '../exit-codes.ts';
import { OperatingError } from '../operating-error.ts';
import { version } from '../version.ts';
import { check } from './check.ts';
import { init } from './init.ts';
import { start } from './start.ts';

/** Where the command writes; replaced in tests. */
export interface Terminal {
  out(text: string): void;
  err(text: string): void;
}

const terminal: Terminal = { out: (text) => console.log(text), err: (text) => console.error(text) };

/** The command line is wrong. */
class UsageError extends Error {}

const configArg = { type: 'string', alias: 'c', description: 'The config file', valueHint: 'FILE', default: defaultConfigPath } as const;

/** The commands. Each leaves its exit code in `result`. */
function commands(to: Terminal, result: { exitCode: number }) {
  return {
    start: defineCommand({
      meta: { name: 'start', description: 'Run the gateway' },
      args: {
        config: configArg,
        workers: { type: 'string', description: 'Worker processes, instead of what the config and WORKERS say', valueHint: 'N' },
      },
      async run({ args }) {
        result.exitCode = await start({ configPath: args.config, workers: workerCount(args.workers) });
      },
    }),
    check: defineCommand({
      meta: { name: 'check', description: 'Check the config and say what it means' },
      args: { config: configArg },
      async run({ args }) {
        to.out(await check(args.config));
      },
    }),
    init: defineCommand({
      meta: { name: 'init', description: `Write a starter ${defaultConfigPath} into this folder` },
      args: { force: { type: 'boolean', description: 'Replace one that exists', default: false } },
      run({ args }) {
        to.out(init(process.cwd(), args.force));
      },
    }),
  };
}

/** Run the command line `argv` (without program and script). ret: the exit code; never throws. */
export async function runCli(argv: readonly string[], to: Terminal = terminal): Promise<number> {
  const result = { exitCode: exitCodes.ok as number };
  const subCommands: Readonly<Record<string, CommandDef<ArgsDef>>> = commands(to, result) as unknown as Record<string, CommandDef<ArgsDef>>;
  const main = defineCommand({ meta: { name: 'ringway', version, description: 'A realtime gateway: WebSockets and HTTP' }, subCommands });
  try {
    const [first, ...rest] = argv;
    if (first === '--version' || first === '-v') {
      to.out(version);
    } else if (first === undefined || first === '--help' || first === '-h' || first === 'help') {
      const usage = await usageText(main);
      if (first === undefined) throw new UsageError(`which command?\n\n${usage}`);
      to.out(usage);
    } else {
      const command = Object.hasOwn(subCommands, first) ? subCommands[first] : undefined;
      if (command === undefined) throw new UsageError(unknownCommand(first, Object.keys(subCommands)));
      if (rest.includes('--help') || rest.includes('-h')) {
        to.out(await usageText(command, main));
      } else {
        judgeArguments(first, (command.args ?? {}) as ArgsDef, rest);
        await runCommand(command, { rawArgs: rest });
      }
    }
    return result.exitCode;
  } catch (error) {
    return report(error, to);
  }
}

function report(error: unknown, to: Terminal): number {
  if (error instanceof UsageError) {
    to.err(`ringway: ${error.message}`);
    return exitCodes.usage;
  }
  if (error instanceof ConfigError) {
    to.err(error.message);
    return exitCodes.config;
  }
  if (error instanceof OperatingError) {
    to.err(`ringway: ${error.message}`);
    return exitCodes.failure;
  }
  to.err(`ringway: this should not happen, please report it: ${error instanceof Error ? error.stack : String(error)}`);
  return exitCodes.software;
}

/** Colours only where they are seen. */
async function usageText(command: CommandDef<ArgsDef>, parent?: CommandDef<ArgsDef>): Promise<string> {
  const text = await renderUsage(command, parent);
  return process.stdout.isTTY ? text : stripVTControlCharacters(text);
}

function unknownCommand(word: string, known: readonly string[]): string {
  const near = nearest(word, known);
  const kind = word.startsWith('-') ? 'option' : 'command';
  return `unknown ${kind} '${word}'; ${near === undefined ? `write one of ${known.join(', ')}` : `did you mean '${near}'?`} ('ringway --help' explains)`;
}

/** Throws UsageError for anything that the command does not know, and for options without their value. */
function judgeArguments(command: string, args: ArgsDef, rest: readonly string[]): void {
  const known = Object.entries(args).map(([name, arg]) => ({
    name,
    short: 'alias' in arg ? String(arg.alias) : undefined,
    type: arg.type === 'boolean' ? ('boolean' as const) : ('string' as const),
  }));
  const options = Object.fromEntries(known.map(({ name, short, type }) => [name, short === undefined ? { type } : { type, short }]));
  const explain = `('ringway ${command} --help' explains)`;
  const { tokens } = parseArgs({ args: [...rest], options, strict: false, allowPositionals: true, tokens: true });
  for (const token of tokens) {
    if (token.kind === 'positional') throw new UsageError(`'${token.value}' is one word too many for 'ringway ${command}' ${explain}`);
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
}

function workerCount(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const [least, most] = ranges.workers;
  const count = Number(text);
  if (!/^\d+$/.test(text) || count < least || count > most)
    throw new UsageError(`--workers is '${text}'; write an integer from ${least} to ${most}`);
  return count;
}
