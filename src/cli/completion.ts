/**
 * `ringway completion SHELL`: a script that completes commands, their options and their files.
 * Role: pure; made from the definitions of the commands, so that it knows what they know. Up: cli.ts.
 */
import type { ArgsDef } from 'citty';
import { UsageError } from './arguments.ts';

export const shells = ['bash', 'zsh', 'fish'] as const;
type Shell = (typeof shells)[number];

/** What of a command is completed. */
export interface CompletedCommand {
  readonly name: string;
  readonly description: string;
  readonly args: ArgsDef;
}

interface Option {
  readonly name: string;
  readonly description: string;
  readonly takesValue: boolean;
}

/** Values that are files: by what their help calls them. */
const fileHints = new Set(['FILE', 'WHERE']);

/** Throws UsageError. */
export function completion(shell: string | undefined, commands: readonly CompletedCommand[]): string {
  if (!shells.includes(shell as Shell)) throw new UsageError(`which shell? Write 'ringway completion ${shells.join('|')}'`);
  return scripts[shell as Shell](commands);
}

function optionsOf(args: ArgsDef): Option[] {
  return [
    ...Object.entries(args)
      .filter(([, arg]) => arg.type !== 'positional')
      .map(([name, arg]) => ({ name: `--${name}`, description: String(arg.description ?? ''), takesValue: arg.type === 'string' })),
    { name: '--help', description: 'Explain the command', takesValue: false },
  ];
}

/** Whether a word of the command, or the value of an option, may be a file. */
function takesFiles(args: ArgsDef): boolean {
  return Object.values(args).some((arg) => 'valueHint' in arg && fileHints.has(String(arg.valueHint)));
}

function wordsOf({ name, args }: CompletedCommand): string[] {
  return name === 'completion' ? [...shells] : optionsOf(args).map((option) => option.name);
}

/** Within single quotes of a shell. */
const quoted = (text: string) => `'${text.replaceAll("'", "'\\''")}'`;

const scripts: Readonly<Record<Shell, (commands: readonly CompletedCommand[]) => string>> = {
  bash: (commands) =>
    [
      '_ringway() {',
      `  local word="\${COMP_WORDS[COMP_CWORD]}" words="" files=""`,
      '  if ((COMP_CWORD == 1)); then',
      `    words=${quoted(commands.map(({ name }) => name).join(' '))}`,
      '  else',
      `    case "\${COMP_WORDS[1]}" in`,
      ...commands.map(
        (command) => `      ${command.name}) words=${quoted(wordsOf(command).join(' '))}${takesFiles(command.args) ? ' files=yes' : ''} ;;`,
      ),
      '    esac',
      '  fi',
      '  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")',
      '  if [[ -n "$files" && "$word" != -* ]]; then',
      '    compopt -o filenames 2>/dev/null',
      '    mapfile -t COMPREPLY < <(compgen -f -- "$word")',
      '  fi',
      '}',
      'complete -F _ringway ringway',
    ].join('\n'),
  zsh: (commands) =>
    [
      '#compdef ringway',
      '_ringway() {',
      '  if ((CURRENT == 2)); then',
      '    local -a commands',
      `    commands=(${commands.map(({ name, description }) => quoted(`${name}:${description.replaceAll(':', '\\:')}`)).join(' ')})`,
      "    _describe 'command' commands",
      '    return',
      '  fi',
      '  local -a options',
      '  case "$words[2]" in',
      ...commands.map((command) => {
        const described =
          command.name === 'completion'
            ? shells.map((shell) => quoted(`${shell}:for ${shell}`))
            : optionsOf(command.args).map(({ name, description }) => quoted(`${name}:${description.replaceAll(':', '\\:')}`));
        const files = takesFiles(command.args) ? '; _files' : '';
        return `    ${command.name}) options=(${described.join(' ')}); _describe 'option' options${files} ;;`;
      }),
      '  esac',
      '}',
      // Both ways in which it may come: from a file of fpath, or through eval.
      'if [[ "$funcstack[1]" == _ringway ]]; then _ringway "$@"; else compdef _ringway ringway; fi',
    ].join('\n'),
  fish: (commands) =>
    [
      'complete -c ringway -f',
      ...commands.flatMap((command) => {
        const seen = quoted(`__fish_seen_subcommand_from ${command.name}`);
        return [
          `complete -c ringway -n __fish_use_subcommand -a ${command.name} -d ${quoted(command.description)}`,
          ...(command.name === 'completion' ? [`complete -c ringway -n ${seen} -a ${quoted(shells.join(' '))}`] : []),
          ...(takesFiles(command.args) ? [`complete -c ringway -n ${seen} -F`] : []),
          ...optionsOf(command.args).map(
            ({ name, description, takesValue }) =>
              `complete -c ringway -n ${seen} -l ${name.slice(2)}${takesValue ? ' -r' : ''} -d ${quoted(description)}`,
          ),
        ];
      }),
    ].join('\n'),
};
