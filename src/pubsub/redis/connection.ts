/**
 * One connection to one Redis server or Sentinel, through ioredis with all that it would do by itself switched off: it neither reconnects, nor
 * queues, nor subscribes again, nor sends anything twice. Who made it decides.
 *
 * Role: up: shard.ts, sentinel.ts, topology.ts. Down: ioredis, failure.ts.
 * Errors of ioredis hold the arguments of commands: they are turned into failures here, and never logged.
 */
import { Redis } from 'ioredis';
import type { RedisLogin, RedisSettings, RedisTlsSettings } from '../../config/redis.ts';
import { type Address, connectorOf, type Progress, silent, type Way } from './connector.ts';
import { type Failure, type Failures, LinkError } from './failure.ts';

interface ConnectionSettings extends Way {
  /** Shown by CLIENT LIST. */
  readonly name: string;
  readonly timeoutMs: number;
}

/** What a server says of itself; undefined where it is too old to tell. */
export interface ServerTraits {
  readonly mode: string | undefined;
  readonly role: string | undefined;
}

export function addressText(address: Address): string {
  if ('path' in address) return address.path;
  return address.host.includes(':') ? `[${address.host}]:${address.port}` : `${address.host}:${address.port}`;
}

export class Connection {
  readonly redis: Redis;
  readonly address: Address;
  /** Resolves once commands can be sent; rejects with a LinkError. */
  readonly ready: Promise<void>;
  readonly #failures: Failures;
  readonly #onLost: (failure: Failure) => void;
  readonly #progress: Progress = { step: 'connect' };
  #isReady = false;
  #isOver = false;
  #lastError: unknown;

  /** `onLost`: it was ready and broke; not after `destroy`. */
  constructor(settings: ConnectionSettings, failures: Failures, onLost: (failure: Failure) => void) {
    this.#failures = failures;
    this.#onLost = onLost;
    this.address = settings.address;
    this.redis = new Redis({
      Connector: connectorOf(settings, this.#progress),
      connectionName: settings.name,
      // Maps as lists, as `traits` reads them.
      replyMapping: 'legacy',
      lazyConnect: true,
      retryStrategy: () => null,
      enableOfflineQueue: false,
      autoResubscribe: false,
      autoResendUnfulfilledCommands: false,
      maxRetriesPerRequest: 0,
      // INFO needs a right that pub/sub does not, and a server that loads its data answers pub/sub already.
      enableReadyCheck: false,
      disableClientInfo: true,
    });
    // Without a listener ioredis would print its errors.
    this.redis.on('error', (error) => {
      this.#lastError ??= error;
    });
    for (const event of ['close', 'end']) this.redis.on(event, () => this.#closed());
    this.ready = this.#connect(settings.timeoutMs);
    this.ready.catch(() => {});
  }

  failureOf(error: unknown): Failure {
    // Of a connection that broke, its first error tells why; what follows is that it is closed.
    const isAnswer = error instanceof Error && error.name === 'ReplyError';
    return this.#failures.of(isAnswer ? error : (this.#lastError ?? error));
  }

  /** Bytes received so far: it lives while they grow. */
  get bytesRead(): number {
    return this.redis.stream?.bytesRead ?? 0;
  }

  async traits(): Promise<ServerTraits> {
    // Without arguments HELLO changes nothing. It is open to every user, whatever their rights.
    const answer: unknown = await this.redis.call('HELLO').catch((error: unknown) => {
      if (error instanceof Error && error.name === 'ReplyError') return [];
      throw error;
    });
    const list = Array.isArray(answer) ? answer : [];
    const traitOf = (name: string): string | undefined => {
      const at = list.indexOf(name);
      return at % 2 === 0 ? String(list[at + 1]) : undefined;
    };
    return { mode: traitOf('mode'), role: traitOf('role') };
  }

  /** End it at once. Commands under way reject. */
  destroy(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    for (const event of ['messageBuffer', 'smessageBuffer', 'moved']) this.redis.removeAllListeners(event);
    this.redis.disconnect();
  }

  async #connect(timeoutMs: number): Promise<void> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new LinkError(silent(timeoutMs, this.#progress.step))), timeoutMs);
    });
    try {
      await Promise.race([this.redis.connect(), late]);
      if (this.#isOver) throw new LinkError({ kind: 'gone', text: 'the connection was given up' });
      this.#isReady = true;
    } catch (error) {
      const failure = this.failureOf(error);
      this.destroy();
      throw new LinkError(failure);
    } finally {
      clearTimeout(timer);
    }
  }

  #closed(): void {
    if (this.#isOver || !this.#isReady) return;
    this.destroy();
    this.#onLost(this.failureOf(new LinkError({ kind: 'gone', text: 'the server closed the connection' })));
  }
}

/** What every connection of a link shares. */
export function connectionFactory(settings: RedisSettings, failures: Failures, name: string) {
  const timeoutMs = settings.timeout * 1000;
  return {
    failures,
    toServer: (address: Address, purpose: string, onLost: (failure: Failure) => void): Connection =>
      new Connection({ address, login: settings.login, tls: settings.tls, name: `${name}:${purpose}`, timeoutMs }, failures, onLost),
    toSentinel: (address: Address, login: RedisLogin, tls: RedisTlsSettings | undefined): Connection =>
      new Connection({ address, login, tls, name: `${name}:locate`, timeoutMs: Math.min(timeoutMs, 2000) }, failures, () => {}),
  };
}

export type ConnectionFactory = ReturnType<typeof connectionFactory>;
