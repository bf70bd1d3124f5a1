/**
 * The `ringway` command: what it understands, and how errors come out (message on stderr, exit code).
 * Role: citty describes commands and prints their usage; the command line is judged strictly here, because citty itself ignores
 * what it does not know. Each command is loaded when it is asked for: what it needs is most of the time that a short one takes.
 */
import { stripVTControlCharacters } from 'node:util';
import { type ArgsDef, type CommandDef, defineCommand, renderUsage, runCommand } from 'citty';
import { ConfigError } from '../config/config-error.ts';
import { defaultConfigPath } from '../config/defaults.ts';
import { nearest } from '../config/suggest.ts';
import { exitCodes } from '../exit-codes.ts';
import { OperatingError } from '../operating-error.ts';
import { version } from '../version.ts';
import { adminArgs, adminClient } from './admin-client.ts';
import { connectionCount, judgeArguments, runArguments, startOptions, tokenSeconds, UsageError } from './arguments.ts';
import { completion, shells } from './completion.ts';
import { helpBelow } from './help.ts';
import { platformNote, platformProblem } from './platform.ts';
import type { Told } from './topics.ts';

/** Where the command writes; replaced in tests. */
export interface Terminal {
  out(text: string): void;
  err(text: string): void;
}

const terminal: Terminal = { out: (text) => console.log(text), err: (text) => console.error(text) };

const configArg = { type: 'string', alias: 'c', description: 'The config file', valueHint: 'FILE', default: defaultConfigPath } as const;

const serveArgs = {
  file: { type: 'positional', description: 'The config file, as with --config', required: false, valueHint: 'FILE' },
  config: configArg,
  port: { type: 'string', description: 'Port of the first address, instead of what the config and PORT say', valueHint: 'N' },
  workers: { type: 'string', description: 'Worker processes, instead of what the config and WORKERS say', valueHint: 'N' },
} as const;

const jsonArg = { type: 'boolean', description: 'Print JSON', default: false } as const;

/** The commands. Each leaves its exit code in `result`. `platform`: as in process.platform. */
function commands(to: Terminal, result: { exitCode: number }, platform: string) {
  const tell = ({ answer, text }: Told, json: boolean) => {
    if (json) to.out(JSON.stringify(answer));
    // A list of nothing has no lines, which matters to whoever counts them.
    else if (text !== '') to.out(text);
  };
  return {
    start: defineCommand({
      meta: { name: 'start', description: 'Run the gateway' },
      args: serveArgs,
      async run({ args }) {
        const { start } = await import('./start.ts');
        result.exitCode = await start(startOptions(args));
      },
    }),
    dev: defineCommand({
      meta: { name: 'dev', description: 'Run the gateway, and reload it whenever the config or what it imports changes' },
      args: { ...serveArgs, workers: { ...serveArgs.workers, description: 'Worker processes. Default: 1' } },
      async run({ args }) {
        const { dev } = await import('./dev.ts');
        result.exitCode = await dev(startOptions(args));
      },
    }),
    run: defineCommand({
      meta: { name: 'run', description: 'Run a program for uWebSockets.js, once on every CPU' },
      args: {
        program: { type: 'positional', description: 'The program; words behind it are its own', valueHint: 'FILE' },
        workers: { type: 'string', description: "Processes, or 'auto': one for each CPU. Default: WORKERS, else 'auto'", valueHint: 'N' },
        'drain-delay': {
          type: 'string',
          description: 'Seconds to serve on after SIGTERM. Default: 2 if somebody asks /readyz, else 0',
          valueHint: 'N',
        },
        'drain-timeout': { type: 'string', description: 'Seconds that a stop may take. Default: 30', valueHint: 'N' },
        'drain-close-code': { type: 'string', description: 'What WebSockets close with then. Default: 1001', valueHint: 'CODE' },
        'admin-port': { type: 'string', description: 'Health and metrics. Default: ADMIN_PORT, else none', valueHint: 'N' },
      },
    }),
    check: defineCommand({
      meta: { name: 'check', description: 'Check the config and say what it means' },
      args: { config: configArg, json: jsonArg },
      async run({ args }) {
        const { check, checkJson } = await import('./check.ts');
        const options = { tell: (text: string) => to.err(`ringway: ${text}`) };
        if (args.json) {
          const { text, exitCode } = await checkJson(args.config, options);
          to.out(text);
          result.exitCode = exitCode;
        } else {
          to.out(await check(args.config, options));
        }
        const note = platformNote(platform);
        if (note !== undefined) to.err(`ringway: ${note}`);
      },
    }),
    publish: defineCommand({
      meta: { name: 'publish', description: 'Publish a message to the subscribers of a topic' },
      args: {
        topic: { type: 'positional', description: 'The topic', valueHint: 'TOPIC' },
        data: { type: 'positional', description: 'The message. Default, and -: standard input', required: false, valueHint: 'DATA' },
        file: { type: 'string', description: 'Read the message from a file', valueHint: 'FILE' },
        binary: { type: 'boolean', description: 'Publish a binary message instead of text', default: false },
        key: { type: 'string', description: 'Names the message: published again with the same key, it is there once', valueHint: 'KEY' },
        json: jsonArg,
        ...adminArgs,
      },
      async run({ args }) {
        const { publish } = await import('./publish.ts');
        const { topic = '', data, file, binary, key, json } = args;
        const published = await publish(adminClient(args), { topic, data, file, isBinary: binary, key });
        const { epoch, offset } = published;
        to.out(json ? JSON.stringify(published) : `published to ${topic}${epoch === undefined ? '' : ` at ${epoch}:${offset}`}`);
      },
    }),
    history: defineCommand({
      meta: { name: 'history', description: 'Show what was said on a topic with history' },
      args: {
        topic: { type: 'positional', description: 'The topic', valueHint: 'TOPIC' },
        since: { type: 'string', description: 'Only what came after this position; with --reverse, before it', valueHint: 'EPOCH:OFFSET' },
        limit: { type: 'string', description: 'Messages at most. Default: 100', valueHint: 'N' },
        reverse: { type: 'boolean', description: 'The latest first', default: false },
        json: jsonArg,
        ...adminArgs,
      },
      async run({ args }) {
        const { history } = await import('./topics.ts');
        const { topic = '', since, limit, reverse, json } = args;
        tell(await history(adminClient(args), { topic, since, limit, reverse }), json);
      },
    }),
    presence: defineCommand({
      meta: { name: 'presence', description: 'Show who is on a topic with presence' },
      args: { topic: { type: 'positional', description: 'The topic', valueHint: 'TOPIC' }, json: jsonArg, ...adminArgs },
      async run({ args }) {
        const { presence } = await import('./topics.ts');
        tell(await presence(adminClient(args), args.topic ?? ''), args.json);
      },
    }),
    topics: defineCommand({
      meta: { name: 'topics', description: 'List the topics that have subscribers' },
      args: {
        prefix: { type: 'positional', description: 'What they begin with. Default: all', required: false, valueHint: 'PREFIX' },
        limit: { type: 'string', description: 'Topics at most. Default: 1000', valueHint: 'N' },
        json: jsonArg,
        ...adminArgs,
      },
      async run({ args }) {
        const { topics } = await import('./topics.ts');
        tell(await topics(adminClient(args), args.prefix, args.limit), args.json);
      },
    }),
    subscribers: defineCommand({
      meta: { name: 'subscribers', description: 'Count the connections that are subscribed to a topic' },
      args: { topic: { type: 'positional', description: 'The topic', valueHint: 'TOPIC' }, json: jsonArg, ...adminArgs },
      async run({ args }) {
        const { subscribers } = await import('./topics.ts');
        tell(await subscribers(adminClient(args), args.topic ?? ''), args.json);
      },
    }),
    disconnect: defineCommand({
      meta: { name: 'disconnect', description: 'End a connection, those of a user, or those of a topic' },
      args: {
        socket: { type: 'string', description: 'The connection with this socket.id', valueHint: 'ID' },
        user: { type: 'string', description: 'All connections of this user', valueHint: 'ID' },
        topic: { type: 'string', description: 'All subscribers of this topic', valueHint: 'TOPIC' },
        code: { type: 'string', description: 'Close code of WebSockets. Default: 1000', valueHint: 'CODE' },
        reason: { type: 'string', description: 'Why, for the clients', valueHint: 'TEXT' },
        json: jsonArg,
        ...adminArgs,
      },
      async run({ args }) {
        const { disconnect } = await import('./topics.ts');
        const { socket, user, topic, code, reason, json } = args;
        tell(await disconnect(adminClient(args), { socket, user, topic, code, reason }), json);
      },
    }),
    send: defineCommand({
      meta: { name: 'send', description: 'Send a message to every connection of a user' },
      args: {
        user: { type: 'positional', description: 'The id of the user', valueHint: 'USER' },
        data: { type: 'positional', description: 'The message. Default, and -: standard input', required: false, valueHint: 'DATA' },
        file: { type: 'string', description: 'Read the message from a file', valueHint: 'FILE' },
        binary: { type: 'boolean', description: 'Send a binary message instead of text', default: false },
        json: jsonArg,
        ...adminArgs,
      },
      async run({ args }) {
        const { send } = await import('./topics.ts');
        const { user = '', data, file, binary, json } = args;
        tell(await send(adminClient(args), user, { data, file, isBinary: binary }), json);
      },
    }),
    token: defineCommand({
      meta: { name: 'token', description: 'Make a token for tests, signed with the secret of the config' },
      args: {
        user: { type: 'positional', description: 'Whose it is: the claim sub', required: false, valueHint: 'USER' },
        config: configArg,
        'secret-file': { type: 'string', description: 'A file with the secret, instead of a config', valueHint: 'FILE' },
        expires: { type: 'string', description: 'Seconds until it ends. Default: 3600', valueHint: 'SECONDS' },
        topic: { type: 'string', description: 'A topic that it is for: then it is no token to connect with', valueHint: 'TOPIC' },
        claims: { type: 'string', description: 'More claims, a JSON object', valueHint: 'JSON' },
      },
      async run({ args }) {
        const { token } = await import('./token.ts');
        const { user, config: configPath, expires, topic, claims, 'secret-file': secretFile } = args;
        to.out(await token({ user, configPath, secretFile, expiresIn: tokenSeconds(expires), topic, claims }));
      },
    }),
    top: defineCommand({
      meta: { name: 'top', description: 'Show what a gateway on this machine does, live' },
      args: {
        pid: { type: 'string', description: 'Its supervisor. Default: as its admin listener tells', valueHint: 'PID' },
        interval: { type: 'string', description: 'Seconds between two looks. Default: 1', valueHint: 'SECONDS' },
        once: { type: 'boolean', description: 'Show once, and end', default: false },
        json: { type: 'boolean', description: 'One JSON object a line', default: false },
        ...adminArgs,
      },
      async run({ args }) {
        const { top, topInterval, topPid } = await import('./top.ts');
        const options = { pid: topPid(args.pid), intervalMs: topInterval(args.interval), isOnce: args.once, isJson: args.json };
        await top(
          () => adminClient(args),
          options,
          (text) => void process.stdout.write(text),
        );
      },
    }),
    reload: defineCommand({
      meta: { name: 'reload', description: 'Let a gateway on this machine serve its config as it is now, without losing a connection' },
      args: {
        pid: { type: 'string', description: 'Its supervisor. Default: as its admin listener tells', valueHint: 'PID' },
        ...adminArgs,
      },
      async run({ args }) {
        const [{ reload }, { topPid }] = await Promise.all([import('./reload.ts'), import('./top.ts')]);
        to.out(await reload(adminClient(args), { pid: topPid(args.pid), tell: (text) => to.err(`ringway: ${text}`) }));
      },
    }),
    health: defineCommand({
      meta: { name: 'health', description: 'Say whether a gateway is alive: exit code 0 or 1' },
      args: { ready: { type: 'boolean', description: 'Whether it is ready to serve', default: false }, ...adminArgs },
      async run({ args }) {
        const { health } = await import('./health.ts');
        const { text, exitCode } = await health(adminClient(args), args.ready);
        to.out(text);
        result.exitCode = exitCode;
      },
    }),
    build: defineCommand({
      meta: { name: 'build', description: 'Compile the C core on this machine' },
      args: {},
      async run() {
        const { build } = await import('./build.ts');
        to.out(await build());
      },
    }),
    doctor: defineCommand({
      meta: { name: 'doctor', description: 'Judge this machine and say what to change; exit code 1 when there is a problem' },
      args: {
        config: {
          type: 'string',
          alias: 'c',
          description: `The config file. Default: ${defaultConfigPath}, if there is one`,
          valueHint: 'FILE',
        },
        connections: { type: 'string', description: 'Connections that this node is to hold', valueHint: 'N' },
        json: jsonArg,
      },
      async run({ args }) {
        const { doctor } = await import('./doctor.ts');
        const { config: configPath, connections, json } = args;
        const { text, exitCode } = await doctor({
          configPath,
          connections: connectionCount(connections),
          json,
          tell: (text) => to.err(`ringway: ${text}`),
        });
        to.out(text);
        result.exitCode = exitCode;
      },
    }),
    init: defineCommand({
      meta: { name: 'init', description: `Make a project in a new folder, or write a starter ${defaultConfigPath} into this one` },
      args: {
        name: {
          type: 'positional',
          description: `The new folder. Default: ${defaultConfigPath} alone, here`,
          required: false,
          valueHint: 'NAME',
        },
        'skip-install': { type: 'boolean', description: 'Do not run npm install in the new folder', default: false },
        force: { type: 'boolean', description: `Replace a ${defaultConfigPath} that exists`, default: false },
      },
      async run({ args }) {
        const [{ init }, { initProject, npmInstall }] = await Promise.all([import('./init.ts'), import('./init-project.ts')]);
        const { name, force, 'skip-install': skipsInstall } = args;
        if (name !== undefined && force) throw new UsageError("'--force' does not go with a new folder");
        to.out(name === undefined ? init(process.cwd(), force) : initProject(process.cwd(), name, skipsInstall ? undefined : npmInstall));
      },
    }),
  };
}

/** What a shell completes of each command. */
function completed(subCommands: Readonly<Record<string, CommandDef<ArgsDef>>>) {
  return Object.entries(subCommands).map(([name, { meta, args }]) => ({
    name,
    description: String((meta as { description?: string } | undefined)?.description ?? ''),
    args: (args ?? {}) as ArgsDef,
  }));
}

/** Run the command line `argv` (without program and script). `platform`: as in process.platform. ret: the exit code; never throws. */
export async function runCli(argv: readonly string[], to: Terminal = terminal, platform: string = process.platform): Promise<number> {
  const result = { exitCode: exitCodes.ok as number };
  const known = {
    ...commands(to, result, platform),
    completion: defineCommand({
      meta: { name: 'completion', description: 'Print a script by which a shell completes this command' },
      args: { shell: { type: 'positional', description: shells.join(', '), valueHint: 'SHELL' } },
      run({ args }) {
        to.out(completion(args.shell, completed(subCommands)));
      },
    }),
  };
  const subCommands: Readonly<Record<string, CommandDef<ArgsDef>>> = known as unknown as Record<string, CommandDef<ArgsDef>>;
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
      // What stands behind a program is the program's own.
      const own = command === subCommands.run ? rest.slice(0, 1) : rest;
      const problem = platformProblem(platform, first);
      if (own.includes('--help') || own.includes('-h')) {
        to.out(`${await usageText(command, main)}\n${helpBelow(first)}`.trimEnd());
      } else if (problem !== undefined) {
        throw new OperatingError(problem);
      } else if (command === subCommands.run) {
        const { run } = await import('./run.ts');
        result.exitCode = await run(runArguments(rest, process.env));
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
