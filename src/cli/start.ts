/** `ringway start`: load the config, run the supervisor until it has stopped. */
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { loadConfig } from '../config/load.ts';
import { ConfigError } from '../config/resolve.ts';
import { exitCodes } from '../exit-codes.ts';
import { createLog, type Log } from '../log.ts';
import { gatewayWorkers } from '../supervisor/boot.ts';
import { onStopSignals } from '../supervisor/drain.ts';
import { Predecessor } from '../supervisor/handover.ts';
import { type ConfigReader, readThrough } from '../supervisor/probe.ts';
import { type NodeSettings, nodeSettings } from '../supervisor/settings.ts';
import type { Supervisor } from '../supervisor/supervisor.ts';
import { loadJudge, loadNative } from './core-modules.ts';
import { probeWord } from './probe.ts';

export interface StartOptions {
  readonly configPath: string;
  /** Overrides the config and the environment. */
  readonly workers: number | undefined;
}

/** ret: the exit code. Throws ConfigError and OperatingError. */
export async function start(options: StartOptions): Promise<number> {
  // Workers load the config as well, and must not stumble over a WORKERS that the command line has overruled.
  if (options.workers !== undefined) process.env.WORKERS = String(options.workers);
  const predecessor = Predecessor.find();
  try {
    const loaded = await loadConfig(options.configPath);
    const log = createLog({ level: loaded.log.level });
    surviveStrayErrors(log);

    const native = await loadNative();
    const { checkCertificates, judgeCertificates } = await loadJudge();
    checkCertificates(loaded, options.configPath);
    const { Supervisor } = await import('../supervisor/supervisor.ts');
    const kind = gatewayWorkers(resolve(options.configPath), fileURLToPath(new URL('../worker/main.ts', import.meta.url)));
    const config = withOptions(nodeSettings(loaded), options);
    const again = reloadCommands(options);
    const supervisor = await Supervisor.start({ config, kind, native, log, judge: judgeCertificates, predecessor, ...again });
    return await untilStopped(supervisor, log);
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

/** How the config is read anew, and how another release is started: both with the code that lies on the disk then. */
function reloadCommands(options: StartOptions): { readConfig: ConfigReader; successorCommand: readonly string[] } {
  const program = fileURLToPath(new URL('../main.ts', import.meta.url));
  const read = readThrough([program, probeWord, options.configPath]);
  const workers = options.workers === undefined ? [] : ['--workers', String(options.workers)];
  return {
    async readConfig(giveUp) {
      const verdict = await read(giveUp);
      return verdict.type === 'config' ? { ...verdict, settings: withOptions(verdict.settings, options) } : verdict;
    },
    successorCommand: [program, 'start', '--config', options.configPath, ...workers],
  };
}

/** Let signals govern the node until it has stopped. ret: the exit code */
export async function untilStopped(supervisor: Supervisor, log: Log): Promise<number> {
  const ignoreSignals = onStopSignals(
    (signal) => {
      const again = signal === 'SIGINT' ? 'Ctrl+C' : signal;
      if (!supervisor.hasHandedOver)
        log.info(`${signal}: finishing what is in progress, for ${supervisor.drainSeconds} s at most; ${again} once more stops at once`);
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

/** The config runs here as well, to be checked: what its timers or clients throw later must not end the node. */
function surviveStrayErrors(log: Log): void {
  process.on('uncaughtException', (error) => log.error({ err: error }, 'uncaught in the supervisor, most likely by code of the config'));
  process.on('unhandledRejection', (reason) =>
    log.error({ err: reason }, 'unhandled rejection in the supervisor, most likely by code of the config'),
  );
}
