/**
 * The process that has started this one and waits for it (bin/launch.mjs). When it is killed, nobody else knows of the gateway any more: that
 * ends too, rather than hold ports that the next start wants.
 */

import { exitCodes } from '../exit-codes.ts';
import type { Log } from '../log.ts';
import type { Supervisor } from '../supervisor/supervisor.ts';

/** Environment variable that holds its process number. */
const launcherVariable = 'RINGWAY_LAUNCHER';

export class Launcher {
  readonly #pid: number;

  private constructor(pid: number) {
    this.#pid = pid;
  }

  /** undefined: this process was started without. Processes that it starts itself have none. */
  static find(env: Record<string, string | undefined> = process.env): Launcher | undefined {
    const pid = Number(env[launcherVariable]);
    delete env[launcherVariable];
    return Number.isSafeInteger(pid) && pid > 0 ? new Launcher(pid) : undefined;
  }

  /** A process without a parent gets another one. */
  get isGone(): boolean {
    return process.ppid !== this.#pid;
  }

  /** Have SIGTERM sent to this process when it ends, from now on. */
  watch(native: { endWithParent(signal: 'SIGTERM' | 'SIGKILL'): void }, supervisor: Supervisor, log: Log): void {
    native.endWithParent('SIGTERM');
    if (this.isGone) this.endAll(supervisor, log);
  }

  endAll(supervisor: Supervisor, log: Log): void {
    log.error('the process that has started the gateway is gone: it stops at once');
    void supervisor.kill(exitCodes.failure);
  }
}
