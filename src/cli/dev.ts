/**
 * `ringway dev`: the gateway, and a reload whenever a file of the config changes.
 *
 * Role: `ringway start` with one worker, readable lines and short drains, and file-changes.ts beside it. What a reload does is what it does in
 * production: the config is read in a process of its own, and one with mistakes changes nothing. Down: start.ts, imported-files.ts.
 */
import { relative } from 'node:path';
import { ConfigError } from '../config/config-error.ts';
import { createLog, type Log } from '../log.ts';
import { devVariable } from '../process/boot.ts';
import type { ReloadOutcome } from '../supervisor/reload-queue.ts';
import type { Supervisor } from '../supervisor/supervisor.ts';
import { FileChanges } from './file-changes.ts';
import { importedFiles } from './imported-files.ts';
import { type Companion, type StartOptions, start } from './start.ts';

/** Requests and WebSockets of the code that was before have so long, in seconds: their clients are to meet the new one soon. */
const drainSeconds = 0.5;
/** A reload that takes longer is told to be slow. */
const promptMs = 300;

/** ret: the exit code. Throws OperatingError. */
export function dev(options: StartOptions): Promise<number> {
  process.env[devVariable] = '1';
  return start({ ...options, workers: options.workers ?? 1 }, new DevLoop(options.configPath));
}

class DevLoop implements Companion {
  readonly #configPath: string;
  /** The first change has been seen. */
  #isReloading = false;
  #whenChanged: (files: readonly string[]) => void = () => {};
  readonly #changes = new FileChanges((files) => this.#whenChanged(files));

  constructor(configPath: string) {
    this.#configPath = configPath;
  }

  readonly settings: Companion['settings'] = (read) => ({
    ...read,
    drain: { ...read.drain, delay: 0, timeout: Math.min(read.drain.timeout, drainSeconds) },
    // A debugger stops a worker for longer than any time that would do here.
    hangTimeout: 0,
    // Of the supervisor alone.
    ...(this.#isReloading ? { logLevel: 'warn' } : {}),
  });

  readonly firstRead: Companion['firstRead'] = async (read) => {
    for (;;) {
      const changed = Promise.withResolvers<void>();
      this.#whenChanged = () => changed.resolve();
      this.#watch();
      const verdict = await read(new AbortController().signal);
      if (verdict.type === 'config') return verdict;
      console.error(verdict.type === 'failed' ? `ringway: ${verdict.reason}` : new ConfigError(verdict.where, verdict.mistakes).message);
      console.error('ringway: waiting for a change');
      await changed.promise;
    }
  };

  readonly started: Companion['started'] = (supervisor, log) => {
    const own = createLog({ level: log.level });
    this.#whenChanged = (files) => {
      // What it says of each step of a reload is for operators.
      log.level = 'warn';
      this.#isReloading = true;
      void this.#reload(supervisor, own, files);
    };
    const { files } = importedFiles(this.#configPath);
    const imported = files.length - 1;
    const others = imported === 0 ? '' : ` and ${imported === 1 ? 'the file' : `${imported} files`} that it imports`;
    own.info(`watching the config${others}`);
    return () => this.#changes.close();
  };

  async #reload(supervisor: Supervisor, log: Log, files: readonly string[]): Promise<void> {
    const began = performance.now();
    this.#watch();
    const outcome = await supervisor.reload();
    const ms = Math.round(performance.now() - began);
    const what = files.length === 0 ? 'a file that was missing' : files.map((file) => relative(process.cwd(), file)).join(', ');
    tell(log, outcome, what, ms);
    // What it imports may be another now.
    this.#watch();
  }

  #watch(): void {
    const { files, missing } = importedFiles(this.#configPath);
    this.#changes.watch(files, missing);
  }
}

function tell(log: Log, outcome: ReloadOutcome, what: string, ms: number): void {
  if (outcome.kind === 'reloaded') {
    const slow = ms > promptMs ? `, which is slow: does the config wait for something while it loads?` : '';
    log.info(`${what} changed: reloaded in ${ms} ms${slow}`);
  } else {
    // Why, the supervisor has said.
    log.warn(`${what} changed: not reloaded; what was served before is still served`);
  }
}
