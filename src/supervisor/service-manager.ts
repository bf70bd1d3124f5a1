/**
 * Tells systemd how the node is: ready, stopping, and, where the unit has WatchdogSec, that the supervisor goes on.
 * Role: sd_notify(3) without its library: a datagram to the socket that NOTIFY_SOCKET names. Up: supervisor.ts.
 */

import type { Log } from '../log.ts';
import { errorCode } from '../operating-error.ts';

/** sd_watchdog_enabled(3) recommends half of the time. */
const watchdogShare = 2;

export interface ServiceNative {
  /** ret: 0 or a negated errno */
  notify(socket: string, text: string): void;
}

export class ServiceManager {
  readonly #native: ServiceNative;
  readonly #log: Log;
  readonly #socket: string;
  readonly #watchdogMs: number;
  #timer: ReturnType<typeof setInterval> | undefined;
  #hasComplained = false;

  private constructor(native: ServiceNative, log: Log, socket: string, watchdogMs: number) {
    this.#native = native;
    this.#log = log;
    this.#socket = socket;
    this.#watchdogMs = watchdogMs;
  }

  /**
   * The one that has started this process; undefined: none has. WATCHDOG_PID is not asked for: it names the launcher, which waits for this
   * process and has nothing to tell of its own.
   */
  static find(env: Readonly<Record<string, string | undefined>>, native: ServiceNative, log: Log): ServiceManager | undefined {
    const { NOTIFY_SOCKET: socket = '', WATCHDOG_USEC: period = '' } = env;
    if (!/^[/@]./.test(socket)) return undefined;
    const watchdogMs = /^\d+$/.test(period) ? Number(period) / 1000 / watchdogShare : 0;
    return new ServiceManager(native, log, socket, watchdogMs);
  }

  ready(): void {
    this.#tell('READY=1');
    if (this.#watchdogMs < 1 || this.#timer !== undefined) return;
    this.#tell('WATCHDOG=1');
    this.#timer = setInterval(() => this.#tell('WATCHDOG=1'), this.#watchdogMs);
    this.#timer.unref();
  }

  /** Another supervisor leads, and goes on telling. */
  leave(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  /** It stops; the watchdog is served until the end. */
  stopping(): void {
    this.#tell('STOPPING=1');
  }

  #tell(text: string): void {
    try {
      this.#native.notify(this.#socket, text);
    } catch (error) {
      if (this.#hasComplained) return;
      this.#hasComplained = true;
      this.#log.warn(`systemd cannot be told ${text} at ${this.#socket} (${errorCode(error)}): does the unit have NotifyAccess=all?`);
    }
  }
}
