/**
 * `ringway start`: read the config, run the supervisor until it has stopped.
 *
 * The config is read in a process of its own, at the start as at a reload: what it begins (timers, clients) must not run in the supervisor as
 * well, and still run there when another config serves.
 */
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ConfigError } from '../config/config-error.ts';
import { defaults } from '../config/defaults.ts';
import { isCompiled } from '../core/compile.ts';
import { exitCodes } from '../exit-codes.ts';
import type { Log } from '../log.ts';
import { gatewayWorkers, portVariable } from '../process/boot.ts';
import { onStopSignals } from '../supervisor/drain.ts';
import { Predecessor } from '../supervisor/handover.ts';
import type { ConfigReader, ProbeMessage } from '../supervisor/probe.ts';
import type { NodeSettings } from '../supervisor/settings.ts';
import type { Supervisor } from '../supervisor/supervisor.ts';
import { loadJudge, loadNative } from './core-modules.ts';
import { Launcher } from './launcher.ts';
import { configReader, soundConfig } from './read-config.ts';

export interface StartOptions {
  readonly configPath: string;
  /** Overrides the config and the environment. */
  readonly workers: number | undefined;
  /** Of the first address with a port; overrides the config and the environment. */
  readonly port: number | undefined;
}

/** What runs beside the supervisor; see dev.ts. */
export interface Companion {
  /** The node's settings, when they are to differ from what the config says. */
  settings(read: NodeSettings): NodeSettings;
  /** ret: the first sound config. Throws ConfigError and OperatingError. */
  firstRead(read: ConfigReader): Promise<ProbeMessage>;
  /** ret: how to stop */
  started(supervisor: Supervisor, log: Log): () => void;
}

/** ret: the exit code. Throws ConfigError and OperatingError. */
export async function start(options: StartOptions, companion?: Companion): Promise<number> {
  // Workers load the config as well, and must not stumble over what the command line has overruled.
  if (options.workers !== undefined) process.env.WORKERS = String(options.workers);
  if (options.port !== undefined) process.env[portVariable] = String(options.port);
  const launcher = Launcher.find();
  const predecessor = Predecessor.find();
  try {
    const { firstRead, readConfig, successorCommand } = commandsOf(options, companion);
    const reading = companion?.firstRead(firstRead) ?? firstRead(new AbortController().signal);
    // While another process reads the config. A core that is missing is compiled by that one, which says so once.
    const early = isCompiled() ? import('../supervisor/supervisor.ts') : undefined;
    early?.catch(() => {});
    const logging = import('../log.ts');
    const { settings: config, warnings } = soundConfig(await reading);
    const { createLog } = await logging;
    const log = createLog({ level: config.logLevel ?? defaults.log.level });
    surviveStrayErrors(log);
    for (const warning of warnings ?? []) log.warn(warning);
    const native = await loadNative();
    const { judgeCertificates: judge } = await loadJudge();
    const { Supervisor } = await (early ?? import('../supervisor/supervisor.ts'));
    const kind = gatewayWorkers(resolve(options.configPath), fileURLToPath(new URL('../worker/main.ts', import.meta.url)));
    const supervisor = await Supervisor.start({ config, kind, native, log, judge, predecessor, readConfig, successorCommand });
    launcher?.watch(native, supervisor, log);
    const leave = companion?.started(supervisor, log);
    const exitCode = await untilStopped(supervisor, log, launcher);
    leave?.();
    return exitCode;
  } catch (error) {
    const exitCode = error instanceof ConfigError ? exitCodes.config : exitCodes.failure;
    predecessor?.failed(error instanceof Error ? error.message : String(error), exitCode);
    throw error;
  }
}

/** The command line overrules the config, also when that is read again. */
function withOptions(settings: NodeSettings, { workers }: StartOptions): NodeSettings {
  return workers === undefined ? settings : { ...settings, workers };
}

/** How the config is read, and how another release is started: both with the code that lies on the disk then. */
function commandsOf(options: StartOptions, companion: Companion | undefined) {
  const program = fileURLToPath(new URL('../main.ts', import.meta.url));
  const reader =
    (tell?: (text: string) => void): ConfigReader =>
    async (giveUp) => {
      const verdict = await configReader(options.configPath, tell === undefined ? {} : { tell })(giveUp);
      if (verdict.type !== 'config') return verdict;
      const settings = withOptions(verdict.settings, options);
      return { ...verdict, settings: companion?.settings(settings) ?? settings };
    };
  const own = [
    ...(options.workers === undefined ? [] : ['--workers', String(options.workers)]),
    ...(options.port === undefined ? [] : ['--port', String(options.port)]),
  ];
  return {
    // Nobody has a log yet.
    firstRead: reader((text) => console.error(`ringway: ${text}`)),
    readConfig: reader(),
    successorCommand: [program, 'start', '--config', options.configPath, ...own],
  } as const;
}

/** Let signals govern the node until it has stopped. ret: the exit code */
export async function untilStopped(supervisor: Supervisor, log: Log, launcher: Launcher | undefined): Promise<number> {
  const ignoreSignals = onStopSignals(
    (signal) => {
      if (launcher?.isGone === true) {
        launcher.endAll(supervisor, log);
        return;
      }
      const again = signal === 'SIGINT' ? 'Ctrl+C' : signal;
      const delay = supervisor.delaySeconds(signal);
      const first = delay === 0 ? '' : `serving on for ${delay} s, until load balancers know; then `;
      if (!supervisor.hasHandedOver)
        log.info(
          `${signal}: ${first}finishing what is in progress, for ${supervisor.drainSeconds} s at most; ${again} once more stops at once`,
        );
      void supervisor.drain(signal);
    },
    (exitCode) => void supervisor.kill(exitCode),
  );
  // `systemctl reload`, or a closed terminal, which is no reason to drop every connection.
  const hangUp = () => supervisor.hangUp();
  process.on('SIGHUP', hangUp);
  const exitCode = await supervisor.finished;
  process.off('SIGHUP', hangUp);
  ignoreSignals();
  if (exitCode === exitCodes.ok && !supervisor.hasHandedOver) log.info('stopped');
  return exitCode;
}

/** A defect of the supervisor must not take the workers down, which do without it. */
function surviveStrayErrors(log: Log): void {
  const report = (error: unknown) => log.error({ err: error }, 'this should not happen in the supervisor, please report it');
  process.on('uncaughtException', report);
  process.on('unhandledRejection', report);
}
