/**
 * When topic tokens end: whoever has not brought a newer one by then has to leave.
 * Role: up: subscriptions.ts notes ends, create.ts says what leaving is. A walk over all that is noted goes on a little each second, and drops what belongs
 * to connections that have ended by themselves, of which nobody tells.
 */
import type { ConnectionName } from '../core/connection.ts';

export interface TokenEndsPorts {
  /** Milliseconds as of Date.now(). */
  now(): number;
  /** Whether the connection is still subscribed. */
  isSubscribed(connection: ConnectionName, topic: string): boolean;
  /** The token of a connection that is still subscribed is over. */
  onEnd(connection: ConnectionName, topic: string): void;
}

interface Noted extends ConnectionName {
  readonly topic: string;
  readonly expiresAt: number;
}

const tickMs = 1000;
/** Looked at in a tick; or a tenth of them, if that is more. */
const lookedAt = 2000;

export class TokenEnds {
  readonly #ports: TokenEndsPorts;
  readonly #noted = new Map<string, Noted>();
  #walk: MapIterator<[string, Noted]> | undefined;
  #timer: Timer | undefined;

  constructor(ports: TokenEndsPorts) {
    this.#ports = ports;
  }

  /** Subscriptions whose tokens end some time. */
  get size(): number {
    return this.#noted.size;
  }

  /** `expiresAt` undefined: it does not end, whatever an earlier token said. */
  note({ slot, generation }: ConnectionName, topic: string, expiresAt: number | undefined): void {
    const key = `${slot} ${generation} ${topic}`;
    if (expiresAt === undefined) this.#noted.delete(key);
    else {
      this.#noted.set(key, { slot, generation, topic, expiresAt });
      this.#timer ??= setInterval(() => this.tick(), tickMs);
    }
  }

  tick(): void {
    const now = this.#ports.now();
    const most = Math.max(lookedAt, this.#noted.size / 10);
    for (let looked = 0; looked < most; looked++) {
      this.#walk ??= this.#noted.entries();
      const next = this.#walk.next();
      if (next.done === true) {
        this.#walk = undefined;
        break;
      }
      const [key, noted] = next.value;
      const isOver = noted.expiresAt <= now;
      const isSubscribed = this.#ports.isSubscribed(noted, noted.topic);
      if (isOver || !isSubscribed) this.#noted.delete(key);
      if (isOver && isSubscribed) this.#ports.onEnd(noted, noted.topic);
    }
    if (this.#noted.size === 0) this.close();
  }

  close(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
    this.#walk = undefined;
  }
}
