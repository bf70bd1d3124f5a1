/**
 * The keys that an issuer publishes: fetched before they are needed, again before they are old, and when a token names one that is not known.
 *
 * Role: the KeySource of `jwks`. Up: tokens.ts. What is known stays known while the issuer cannot be reached, for `maxStale`. Bounded: one fetch at
 * a time, its answer and the number of keys limited, and no token can cause more than one fetch within `cooldown`.
 */
import type { JwksSettings } from '../config/auth.ts';
import type { Jose } from './jose.ts';
import { type Found, type KeySource, keysOfSet, matching, type VerifyingKey } from './keys.ts';

export interface JwksHost {
  /** A fetch has ended. */
  fetched(isOk: boolean): void;
  /** Told once when the issuer fails, and once when it is back. */
  warn(sentence: string): void;
  info(sentence: string): void;
  /** Milliseconds of a clock that never jumps. Default: performance.now() */
  now?(): number;
}

/** Of an answer: sets of sixty keys have 30 KB. */
const answerBytesMost = 256 * 1024;
/** Before the first keys are there every client has to wait for them, so they are asked for again soon. */
const retryFirstMs = 1000;
/** All workers of all nodes began at the same time. */
const jitter = 0.2;

export class JwksKeys implements KeySource {
  readonly #jose: Jose;
  readonly #settings: JwksSettings;
  readonly #host: JwksHost;
  readonly #now: () => number;
  /** Without a password, which the config may not have, and without a query. */
  readonly #name: string;
  #keys: readonly VerifyingKey[] | undefined;
  /** When #keys came; when a fetch last ended; and when one began that a token asked for. */
  #keysAt = 0;
  #triedAt = Number.NEGATIVE_INFINITY;
  #askedAt = Number.NEGATIVE_INFINITY;
  #failures = 0;
  #pending: Promise<void> | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #isClosed = false;

  constructor(jose: Jose, settings: JwksSettings, host: JwksHost) {
    this.#jose = jose;
    this.#settings = settings;
    this.#host = host;
    this.#now = host.now?.bind(host) ?? (() => performance.now());
    const { origin, pathname } = new URL(settings.url);
    this.#name = origin + pathname;
  }

  /** Fetch now. ret: when that has ended, well or not, `timeout` at most */
  refresh(): Promise<void> {
    this.#pending ??= this.#fetch().finally(() => {
      this.#pending = undefined;
    });
    return this.#pending;
  }

  find(algorithm: string, kid: string | undefined): Found | Promise<Found> {
    const known = this.#known();
    if (known === undefined) return this.#findFirst(algorithm, kid);
    const found = matching(known, algorithm, kid);
    // A token without a name cannot tell that there is a new key: `renewed` is asked when its signature fits none.
    if (found.length > 0 || kid === undefined) return found;
    return this.renewed().then(() => matching(this.#known() ?? [], algorithm, kid));
  }

  async renewed(): Promise<boolean> {
    const { cooldown } = this.#settings;
    if (this.#pending === undefined && this.#now() - this.#askedAt < cooldown * 1000) return false;
    if (this.#pending === undefined) this.#askedAt = this.#now();
    const before = this.#keys;
    await this.refresh();
    return this.#keys !== before;
  }

  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#timer);
  }

  /** undefined: none, or none that should be believed any more. */
  #known(): readonly VerifyingKey[] | undefined {
    return this.#now() - this.#keysAt <= this.#settings.maxStale * 1000 ? this.#keys : undefined;
  }

  async #findFirst(algorithm: string, kid: string | undefined): Promise<Found> {
    if (this.#pending !== undefined || this.#now() - this.#triedAt >= retryFirstMs) await this.refresh();
    const known = this.#known();
    return known === undefined ? 'unavailable' : matching(known, algorithm, kid);
  }

  async #fetch(): Promise<void> {
    const { url, timeout } = this.#settings;
    try {
      const keys = keysOfSet(this.#jose, JSON.parse(await textOf(url, timeout * 1000)));
      this.#keys = keys;
      this.#keysAt = this.#now();
      if (this.#failures > 0) this.#host.info(`keys of tokens are fetched from ${this.#name} again`);
      this.#failures = 0;
      this.#host.fetched(true);
    } catch (error) {
      this.#failures += 1;
      this.#host.fetched(false);
      if (this.#failures === 1) this.#host.warn(this.#failure(error));
    }
    this.#triedAt = this.#now();
    this.#schedule();
  }

  #failure(error: unknown): string {
    const { timeout, maxStale } = this.#settings;
    const isLate = error instanceof DOMException && error.name === 'TimeoutError';
    const why = isLate ? `no answer within ${timeout} s` : error instanceof Error ? error.message : String(error);
    const then =
      this.#keys === undefined ? 'nobody with a token is let in until they come' : `the last ones are believed for ${maxStale} s at most`;
    return `keys of tokens cannot be fetched from ${this.#name}: ${why}; ${then}`;
  }

  #schedule(): void {
    clearTimeout(this.#timer);
    if (this.#isClosed) return;
    const { maxAge, cooldown } = this.#settings;
    const backoffMs = Math.min(retryFirstMs * 2 ** Math.min(this.#failures - 1, 20), Math.max(cooldown * 1000, retryFirstMs));
    const afterMs = this.#failures === 0 ? maxAge * 1000 : backoffMs;
    this.#timer = setTimeout(() => void this.refresh(), afterMs * (1 - jitter * Math.random())).unref();
  }
}

async function textOf(url: string, timeoutMs: number): Promise<string> {
  const response = await fetch(url, {
    headers: { accept: 'application/jwk-set+json, application/json' },
    // An issuer says where its keys are; whoever can redirect could say that they are elsewhere.
    redirect: 'manual',
    signal: AbortSignal.timeout(timeoutMs),
  });
  if (response.status !== 200) {
    await response.body?.cancel();
    throw new Error(`it answered ${response.status}`);
  }
  const parts: Uint8Array[] = [];
  let bytes = 0;
  for await (const part of response.body ?? []) {
    bytes += part.byteLength;
    if (bytes > answerBytesMost) throw new Error(`its answer has more than ${answerBytesMost} bytes`);
    parts.push(part);
  }
  return new TextDecoder('utf-8', { fatal: true }).decode(Buffer.concat(parts));
}
