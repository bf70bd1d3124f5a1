/**
 * Who may reload when: one at a time, and requests that come meanwhile are answered together by one more.
 *
 *   request ──> running ──> outcome, told to all who asked before it began
 *                 └─ postponed ──retry()──> running
 *
 * Role: pure, knows nothing of what a reload does. Up: supervisor.ts.
 */
/** What became of a reload. */
export type ReloadOutcome =
  /** `upgraded`: by another supervisor, with the code that lies on the disk. */
  | { readonly kind: 'reloaded'; readonly generation: number; readonly upgraded: boolean }
  /** Nothing has changed. `where`: the config. */
  | { readonly kind: 'wrong config'; readonly where: string; readonly mistakes: readonly string[] }
  /** Nothing has changed. */
  | { readonly kind: 'failed'; readonly reason: string }
  /** Nothing has changed yet: it is tried again by itself when older workers have stopped. */
  | { readonly kind: 'postponed'; readonly reason: string };

/** How often each outcome came, by its name in metrics. */
export interface ReloadCounts {
  reloaded: number;
  wrong_config: number;
  failed: number;
  postponed: number;
}

export interface ReloadHealth {
  /** How often a reload was asked for since the node was started, upgrades included. */
  readonly requests: number;
  readonly isRunning: boolean;
  /** Null: none has ended. */
  readonly last: LastReload | null;
}

export type LastReload = ReloadOutcome & {
  /** It answers this request, and all before it. */
  readonly request: number;
  /** When it ended, as ISO 8601. */
  readonly at: string;
};

export class ReloadQueue {
  readonly #reload: (request: number) => Promise<ReloadOutcome>;
  readonly #onOutcome: (outcome: ReloadOutcome) => void;
  #requests: number;
  #last: LastReload | null;
  #running: Promise<ReloadOutcome> | undefined;
  /** The reload after the running one, when somebody has asked for it. */
  #next: PromiseWithResolvers<ReloadOutcome> | undefined;
  #isClosed = false;
  readonly counts: ReloadCounts = { reloaded: 0, wrong_config: 0, failed: 0, postponed: 0 };

  /**
   * `reload` is called with the number of the last request that it answers; when it throws, that is a failure. `before`: what another
   * supervisor of this node has done.
   */
  constructor(
    reload: (request: number) => Promise<ReloadOutcome>,
    onOutcome: (outcome: ReloadOutcome) => void,
    before: { readonly requests: number; readonly last: LastReload | null } = { requests: 0, last: null },
  ) {
    this.#reload = reload;
    this.#onOutcome = onOutcome;
    this.#requests = before.requests;
    this.#last = before.last;
  }

  get health(): ReloadHealth {
    return { requests: this.#requests, isRunning: this.#running !== undefined, last: this.#last };
  }

  /** Reload with the config as it is now or later. Requests while one is running share the next one. */
  request(): Promise<ReloadOutcome> {
    this.#requests += 1;
    return this.#enqueue();
  }

  /** Older workers have stopped: what was postponed for them may go now. */
  retry(): void {
    if (this.#last?.kind === 'postponed' && this.#running === undefined) void this.#enqueue();
  }

  /** None is begun any more. ret: resolves when the one that runs has ended */
  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#running;
  }

  #enqueue(): Promise<ReloadOutcome> {
    if (this.#running === undefined) return this.#begin();
    this.#next ??= Promise.withResolvers<ReloadOutcome>();
    return this.#next.promise;
  }

  #begin(): Promise<ReloadOutcome> {
    this.#running = this.#run();
    return this.#running;
  }

  async #run(): Promise<ReloadOutcome> {
    const request = this.#requests;
    const outcome = await this.#attempt(request);
    this.#last = { ...outcome, request, at: new Date().toISOString() };
    this.#running = undefined;
    this.counts[outcome.kind === 'wrong config' ? 'wrong_config' : outcome.kind] += 1;
    this.#onOutcome(outcome);
    const next = this.#next;
    this.#next = undefined;
    next?.resolve(this.#begin());
    return outcome;
  }

  async #attempt(request: number): Promise<ReloadOutcome> {
    if (this.#isClosed) return { kind: 'failed', reason: 'the node is stopping' };
    try {
      return await this.#reload(request);
    } catch (error) {
      return { kind: 'failed', reason: error instanceof Error ? error.message : String(error) };
    }
  }
}
