/**
 * The admin listener over several configs: where it is served, and how it moves.
 *
 * Role: a reload prepares the next address while the present one answers, and an upgrade takes the address over from another supervisor.
 * Up: supervisor.ts, reload.ts. Down: admin.ts.
 */
import type { AdminSettings } from '../config/resolve.ts';
import type { Log } from '../log.ts';
import { type AdminServer, type AdminView, serveAdmin } from './admin.ts';
import type { AdminPost } from './handover.ts';
import { applySocketFileMode, socketFileMode } from './socket-file.ts';

/** What a reload means for the admin listener. One of the two is to be called. */
export interface AdminChange {
  commit(): void;
  abandon(): void;
}

/** Whoever asked for the reload at the old address can still read the answer there. */
const graceMs = 3000;
/** And, where both cannot be had at once, at least gets the answer to what is under way. */
const answerMs = 200;
/** An address that another process leaves is tried again so often. */
const retryMs = 100;
/** From then on, somebody else must have it. */
const complainMs = 5000;

export class AdminListener {
  readonly #view: AdminView;
  readonly #log: Log;
  #settings: false | AdminSettings = false;
  #server: AdminServer | undefined;
  readonly #leaving = new Map<AdminServer, ReturnType<typeof setTimeout>>();
  #isStopped = false;

  constructor(view: AdminView, log: Log) {
    this.#view = view;
    this.#log = log;
  }

  /** For people; undefined: there is none. */
  get label(): string | undefined {
    return this.#server?.label;
  }

  /** Where it is, with the port that was chosen when the settings leave it to the system. */
  get #place(): false | AdminSettings {
    const [settings, port] = [this.#settings, this.post?.port];
    return settings !== false && settings.kind === 'tcp' && typeof port === 'number' ? { ...settings, port } : settings;
  }

  /** Where it is, for a supervisor that takes over; null: nowhere. */
  get post(): AdminPost | null {
    if (this.#settings === false || this.#server === undefined) return null;
    const { token: _, ...address } = this.#settings;
    return { address, port: address.kind === 'unix' ? null : Number(/:(\d+)$/.exec(this.#server.label)?.[1] ?? address.port) };
  }

  /** Throws OperatingError when the address cannot be had. */
  async open(settings: false | AdminSettings): Promise<void> {
    this.#settings = settings;
    if (settings !== false) this.#server = await serveAdmin(this.#view, settings, this.#log);
  }

  /**
   * Open it, however long another process may take to leave the address; unless it is to be elsewhere meanwhile. `port`: the one that the
   * system has chosen for the other process, when the settings leave it to the system.
   */
  async openPatiently(settings: false | AdminSettings, port?: number): Promise<void> {
    this.#settings = settings;
    if (settings === false) return;
    const complainAt = performance.now() + complainMs;
    let hasComplained = false;
    const place = settings.kind === 'tcp' && port !== undefined ? { ...settings, port } : settings;
    const isWanted = () => !this.#isStopped && this.#settings === settings;
    while (isWanted()) {
      try {
        const server = await serveAdmin(this.#view, place, this.#log);
        if (isWanted()) this.#server = server;
        else server.stop();
        return;
      } catch (error) {
        if (performance.now() >= complainAt && !hasComplained) {
          hasComplained = true;
          this.#log.error({ err: error }, 'there is no admin listener until its address is free');
        }
        await Bun.sleep(retryMs);
      }
    }
  }

  /** Get ready for what the next config says. Throws OperatingError when the address cannot be had; the present one goes on. */
  async prepare(next: false | AdminSettings): Promise<AdminChange> {
    const now = this.#settings;
    if (isSamePlace(now, next) || isSamePlace(this.#place, next)) {
      const isSame = now === false || next === false || now.token === next.token;
      return { commit: () => this.#stay(next, isSame), abandon() {} };
    }
    let server: AdminServer | undefined;
    try {
      server = next === false ? undefined : await serveAdmin(this.#view, next, this.#log);
    } catch (error) {
      // One port on two addresses cannot be had twice at once: it moves when the reload is certain.
      const here = this.#place;
      if (here === false || next === false || here.kind === 'unix' || next.kind === 'unix' || here.port !== next.port) throw error;
      return { commit: () => this.#moveInPlace(next), abandon() {} };
    }
    return {
      commit: () => {
        const old = this.#server;
        this.#settings = next;
        this.#server = server;
        if (old !== undefined) this.#leave(old);
      },
      abandon: () => server?.stop(),
    };
  }

  /** Load what it has put off until now. */
  async prepareAnswers(): Promise<void> {
    await this.#server?.prepare();
  }

  stop(): void {
    this.#isStopped = true;
    for (const [server, timer] of this.#leaving) {
      clearTimeout(timer);
      server.stop();
    }
    this.#leaving.clear();
    this.#server?.stop();
    this.#server = undefined;
  }

  #stay(next: false | AdminSettings, hasSameToken: boolean): void {
    this.#settings = next;
    if (next === false) return;
    // Whoever still waits for the address does so for other settings.
    if (this.#server === undefined) void this.openPatiently(next);
    else if (!hasSameToken) this.#server.setToken(next.token);
    if (next.kind === 'unix' && this.#server !== undefined) this.#permit(next);
  }

  /** Whoever may connect now was judged with the config, but for what the system says to it. */
  #permit(next: AdminSettings & { readonly kind: 'unix' }): void {
    try {
      const fileMode = socketFileMode(next, 'admin');
      if (fileMode !== undefined) applySocketFileMode(next.path, fileMode, 'admin');
    } catch (error) {
      this.#log.error({ err: error }, 'the socket of the admin listener keeps its mode and group');
    }
  }

  #moveInPlace(next: false | AdminSettings): void {
    const server = this.#server;
    this.#settings = next;
    setTimeout(() => {
      server?.stop();
      if (this.#server === server) this.#server = undefined;
      if (this.#settings === next) void this.openPatiently(next);
    }, answerMs);
  }

  #leave(server: AdminServer): void {
    const timer = setTimeout(() => {
      this.#leaving.delete(server);
      server.stop();
    }, graceMs);
    timer.unref();
    this.#leaving.set(server, timer);
  }
}

export function isSamePlace(a: false | AdminSettings, b: false | AdminSettings): boolean {
  if (a === false || b === false) return a === b;
  if (a.kind === 'unix' || b.kind === 'unix') return a.kind === 'unix' && b.kind === 'unix' && a.path === b.path;
  return a.host === b.host && a.port === b.port;
}
