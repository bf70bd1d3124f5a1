/** `ringway start`: load the config, run the supervisor until it has stopped. */
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { loadConfig } from '../config/load.ts';
import { exitCodes } from '../exit-codes.ts';
import { createLog, type Log } from '../log.ts';
import { OperatingError } from '../operating-error.ts';
import { onStopSignals } from '../supervisor/drain.ts';

export interface StartOptions {
  readonly configPath: string;
  /** Overrides the config and the environment. */
  readonly workers: number | undefined;
}

/** ret: the exit code. Throws ConfigError and OperatingError. */
export async function start(options: StartOptions): Promise<number> {
  // Workers load the config as well, and must not stumble over a WORKERS that the command line has overruled.
  if (options.workers !== undefined) process.env.WORKERS = String(options.workers);
  const loaded = await loadConfig(options.configPath);
  const config = { ...loaded, workers: options.workers ?? loaded.workers };
  const log = createLog({ level: config.log.level });
  surviveStrayErrors(log);

  const native = await loadCore();
  const { Supervisor } = await import('../supervisor/supervisor.ts');
  const workerProgram = fileURLToPath(new URL('../worker/main.ts', import.meta.url));
  const supervisor = await Supervisor.start({ config, configPath: resolve(options.configPath), native, log, workerProgram });
  const ignoreSignals = onStopSignals(
    (signal) => {
      const again = signal === 'SIGINT' ? 'Ctrl+C' : signal;
      log.info(`${signal}: finishing what is in progress, for ${config.drain.timeout} s at most; ${again} once more stops at once`);
      void supervisor.drain();
    },
    (exitCode) => void supervisor.kill(exitCode),
  );
  // A closed terminal, or `systemctl reload`: neither is a reason to drop every connection.
  process.on('SIGHUP', () => log.warn('SIGHUP: this version does not reload its config; restart it to apply a change'));
  const exitCode = await supervisor.finished;
  ignoreSignals();
  if (exitCode === exitCodes.ok) log.info('stopped');
  return exitCode;
}

/** Loading it maps the C core, which may not be there yet; other commands do without. */
async function loadCore() {
  try {
    return (await import('../../ffi/bindings.ts')).native;
  } catch (error) {
    throw new OperatingError(error instanceof Error ? error.message : String(error), { cause: error });
  }
}

/** The config runs here as well, to be checked: what its timers or clients throw later must not end the node. */
function surviveStrayErrors(log: Log): void {
  process.on('uncaughtException', (error) => log.error({ err: error }, 'uncaught in the supervisor, most likely by code of the config'));
  process.on('unhandledRejection', (reason) =>
    log.error({ err: reason }, 'unhandled rejection in the supervisor, most likely by code of the config'),
  );
}
