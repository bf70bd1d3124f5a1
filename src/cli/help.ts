/**
 * What a command's help says besides its options: how it is used, and which page tells more.
 * Role: data. Up: cli.ts.
 */
import { join } from 'node:path';

export interface CommandHelp {
  /** Command lines behind `ringway`, each with what it does. */
  readonly examples: readonly (readonly [words: string, does: string])[];
  /** A page of docs/, with a heading. */
  readonly page: string;
}

export const commandHelp = {
  start: {
    examples: [
      ['start', 'gateway.config.ts, on every CPU'],
      ['start other.config.ts --port 3000', 'another config, on another port'],
    ],
    page: 'operations.md#signals-and-draining',
  },
  dev: {
    examples: [
      ['dev', 'serve, and serve each change as soon as it is saved'],
      ['dev --port 3000', 'on another port'],
    ],
    page: 'install.md#with-npm',
  },
  run: {
    examples: [
      ['run app.js', 'once on every CPU'],
      ['run --workers 2 app.js --verbose', 'twice; what stands behind the program is its own'],
    ],
    page: 'uws.md#running-a-program',
  },
  check: {
    examples: [
      ['check', 'every mistake at once; exit code 78 when there is one'],
      ['check --json -c other.config.ts', 'for a program to read'],
    ],
    page: 'configuration.md#loading',
  },
  publish: {
    examples: [
      ["publish room/lobby 'hello'", 'to everybody in the room'],
      ['publish prices --file prices.json', 'the content of a file'],
      ['publish prices < prices.json', 'standard input'],
      ["publish orders 'paid' --key order-17", 'once, however often it is run'],
    ],
    page: 'publishing.md',
  },
  history: {
    examples: [
      ['history room/lobby', 'the first 100 messages that are kept'],
      ['history room/lobby --limit 10 --reverse', 'the last ten'],
      ['history room/lobby --since 6fe02d1dbf0a13c9:42', 'what came after that position'],
    ],
    page: 'publishing.md#what-topics-remember-and-who-is-on-them',
  },
  presence: {
    examples: [['presence room/lobby', 'who is there, over all nodes']],
    page: 'publishing.md#what-topics-remember-and-who-is-on-them',
  },
  topics: {
    examples: [
      ['topics', 'all that have subscribers'],
      ['topics room/', 'those that begin so'],
    ],
    page: 'publishing.md#what-topics-remember-and-who-is-on-them',
  },
  subscribers: {
    examples: [['subscribers room/lobby', 'how many']],
    page: 'publishing.md#what-topics-remember-and-who-is-on-them',
  },
  disconnect: {
    examples: [
      ["disconnect --user ann --code 4001 --reason 'signed out'", 'wherever ann is connected'],
      ['disconnect --topic room/lobby', 'everybody in the room'],
    ],
    page: 'publishing.md#users-and-connections',
  },
  send: {
    examples: [["send ann 'hello'", 'to every connection of ann']],
    page: 'publishing.md#users-and-connections',
  },
  token: {
    examples: [
      ['token ann', 'of the user ann, good for an hour'],
      ['token ann --expires 60 --claims \'{"role":"admin"}\'', 'with more claims'],
      ['token ann --topic room/secret', 'for a topic alone'],
    ],
    page: 'tokens.md#with-a-secret',
  },
  top: {
    examples: [
      ['top', 'live, until q'],
      ['top --once --json', 'one look, for a program to read'],
    ],
    page: 'operations.md#ringway-top',
  },
  reload: {
    examples: [
      ['reload', 'the gateway of this machine'],
      ['reload --admin 9101', 'the one whose admin listener is there'],
    ],
    page: 'operations.md#reload',
  },
  health: {
    examples: [
      ['health', 'is it alive?'],
      ['health --ready', 'does it serve?'],
    ],
    page: 'operations.md#health-and-readiness',
  },
  build: { examples: [['build', 'compile the core of this package']], page: 'install.md#the-c-core' },
  doctor: {
    examples: [
      ['doctor', 'for what the config asks'],
      ['doctor --connections 100000', 'for so many connections'],
    ],
    page: 'sizing.md',
  },
  init: {
    examples: [
      ['init my-app', 'a project in a new folder'],
      ['init', 'a config in this one'],
    ],
    page: 'install.md#with-npm',
  },
  completion: {
    examples: [
      ['completion bash > ~/.local/share/bash-completion/completions/ringway', 'for bash'],
      ['completion zsh > "$fpath[1]/_ringway"', 'for zsh'],
      ['completion fish > ~/.config/fish/completions/ringway.fish', 'for fish'],
    ],
    page: 'install.md#completion',
  },
} as const satisfies Readonly<Record<string, CommandHelp>>;

/** `command`: a name of a command. ret: what stands below its usage; empty for a command that has none */
export function helpBelow(command: string, folder = join(import.meta.dir, '../../docs')): string {
  const help: CommandHelp | undefined = Object.hasOwn(commandHelp, command) ? commandHelp[command as keyof typeof commandHelp] : undefined;
  if (help === undefined) return '';
  const width = Math.max(...help.examples.map(([words]) => words.length));
  const lines = help.examples.map(([words, does]) => `  ringway ${words.padEnd(width)}  ${does}`);
  return ['EXAMPLES', '', ...lines, '', `MORE  ${join(folder, help.page)}`, ''].join('\n');
}
