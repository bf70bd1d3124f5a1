/** `ringway start`: load the config, run the supervisor until it has stopped. */
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { loadConfig } from '../config/load.ts';
import { exitCodes } from '../exit-codes.ts';
import { createLog, type Log } from '../log.ts';
import { gatewayWorkers } from '../supervisor/boot.ts';
import { onStopSignals } from '../supervisor/drain.ts';
import type { Supervisor } from '../supervisor/supervisor.ts';
import { loadJudge, loadNative } from './core-modules.ts';

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

  const native = await loadNative();
  const { checkCertificates, judgeCertificates } = await loadJudge();
  checkCertificates(config, options.configPath);
  const { Supervisor } = await import('../supervisor/supervisor.ts');
  const workerProgram = fileURLToPath(new URL('../worker/main.ts', import.meta.url));
  const kind = gatewayWorkers(resolve(options.configPath), workerProgram);
  const supervisor = await Supervisor.start({ config, kind, native, log, judge: judgeCertificates });
  return untilStopped(supervisor, config.drain.timeout, log);
}

/** Let signals govern the node until it has stopped. ret: the exit code */
export async function untilStopped(supervisor: Supervisor, drainSeconds: number, log: Log): Promise<number> {
  const ignoreSignals = onStopSignals(
    (signal) => {
      const again = signal === 'SIGINT' ? 'Ctrl+C' : signal;
      log.info(`${signal}: finishing what is in progress, for ${drainSeconds} s at most; ${again} once more stops at once`);
      void supervisor.drain(signal);
    },
    (exitCode) => void supervisor.kill(exitCode),
  );
  // `systemctl reload`, or a closed terminal, which is no reason to drop every connection.
  const reload = () => supervisor.reloadCertificates();
  process.on('SIGHUP', reload);
  const exitCode = await supervisor.finished;
  process.off('SIGHUP', reload);
  ignoreSignals();
  if (exitCode === exitCodes.ok) log.info('stopped');
  return exitCode;
}

/** The config runs here as well, to be checked: what its timers or clients throw later must not end the node. */
function surviveStrayErrors(log: Log): void {
  process.on('uncaughtException', (error) => log.error({ err: error }, 'uncaught in the supervisor, most likely by code of the config'));
  process.on('unhandledRejection', (reason) =>
    log.error({ err: reason }, 'unhandled rejection in the supervisor, most likely by code of the config'),
  );
}
