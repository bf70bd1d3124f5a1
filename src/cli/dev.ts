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
import { importedFiles, realPath } from './imported-files.ts';
import { type Companion, type StartOptions, start } from './start.ts';

/** Requests and WebSockets of the code that was before have so long, in seconds: their clients are to meet the new one soon. */
const drainSeconds = 0.5;
/** A reload that takes longer is told to be slow. Not less: on a busy laptop any one may take half of it. */
const promptMs = 1000;
/** One that has not come to an end after so long is given up when a file changes again: it may be the cure. */
const hangsMs = 2000;
const changedAgain = 'a file has changed again';

/** ret: the exit code. Throws OperatingError. */
export function dev(options: StartOptions): Promise<number> {
  process.env[devVariable] = '1';
  return start({ ...options, workers: options.workers ?? 1 }, new DevLoop(options.configPath));
}

class DevLoop implements Companion {
  readonly #configPath: string;
  /** The first change has been seen. */
  #isReloading = false;
  /** What has changed since the config was read, before there was anybody to reload it. */
  #early: readonly string[] | undefined;
  /** When the reload that runs began. */
  #began = 0;
  /** Reloads that have not come to an end. */
  #reloads = 0;
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
      const giveUp = new AbortController();
      this.#whenChanged = () => {
        giveUp.abort(changedAgain);
        changed.resolve();
      };
      this.#watch();
      const verdict = await read(giveUp.signal);
      if (giveUp.signal.aborted) continue;
      if (verdict.type === 'config') {
        this.#whenChanged = (files) => {
          this.#early = files;
        };
        return verdict;
      }
      console.error(verdict.type === 'failed' ? `ringway: ${verdict.reason}` : new ConfigError(verdict.where, verdict.mistakes).message);
      console.error('ringway: waiting for a change');
      await changed.promise;
    }
  };

  readonly started: Companion['started'] = (supervisor, log) => {
    const own = createLog({ level: log.level });
    this.#whenChanged = (files) => {
      // What it says of each step of a reload is for operators; where it listens it says once, when it first serves.
      if (!supervisor.isStarting) {
        log.level = 'warn';
        this.#isReloading = true;
      }
      void this.#reload(supervisor, own, files);
    };
    const imported = new Set(importedFiles(this.#configPath).files.map(realPath)).size - 1;
    const others = imported === 0 ? '' : ` and ${imported === 1 ? 'the file' : `${imported} files`} that it imports`;
    own.info(`watching the config${others}`);
    if (this.#early !== undefined) this.#whenChanged(this.#early);
    return () => this.#changes.close();
  };

  async #reload(supervisor: Supervisor, log: Log, files: readonly string[]): Promise<void> {
    const began = performance.now();
    this.#watch();
    if (this.#reloads === 0) this.#began = began;
    else this.#giveUpLate(supervisor);
    this.#reloads += 1;
    const outcome = await supervisor.reload();
    this.#reloads -= 1;
    this.#began = performance.now();
    const ms = Math.round(performance.now() - began);
    const what = files.length === 0 ? 'a file that was missing' : files.map((file) => relative(process.cwd(), file)).join(', ');
    tell(log, outcome, what, ms);
    // What it imports may be another now.
    this.#watch();
  }

  #giveUpLate(supervisor: Supervisor): void {
    const began = this.#began;
    const giveUp = () => {
      if (this.#began === began && this.#reloads > 0) supervisor.giveUpReload(changedAgain);
    };
    setTimeout(giveUp, Math.max(0, began + hangsMs - performance.now())).unref();
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
