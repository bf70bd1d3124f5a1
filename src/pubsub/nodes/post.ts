/**
 * Letters to the other workers of the node, for those that must not be lost when a ring is full for a while.
 *
 * Role: between interest.ts, takeover.ts, giveaway.ts, bus.ts and core.mail(). Letters to one worker leave in order. What waits is bounded: past it a letter is
 * thrown away, and the handover it belongs to ends by its deadline.
 */
import type { MailOutcome } from '../../core/node.ts';
import type { Clock } from './clock.ts';
import { encodeLetter, type Letter } from './mail.ts';

const waitingBytesMax = 4 << 20;
const retryMs = 10;

interface Waiting {
  readonly letters: Uint8Array[];
  bytes: number;
}

export class Post {
  readonly #mail: (to: number, bytes: Uint8Array) => MailOutcome;
  readonly #clock: Clock;
  readonly #waiting = new Map<number, Waiting>();
  #isRetrying = false;
  /** Letters thrown away so far. */
  lost = 0;

  constructor(mail: (to: number, bytes: Uint8Array) => MailOutcome, clock: Clock) {
    this.#mail = mail;
    this.#clock = clock;
  }

  /** Send, or keep for later. ret: 'gone' when nobody lives there */
  send(to: number, letter: Letter): 'sent' | 'gone' {
    const bytes = encodeLetter(letter);
    const queue = this.#waiting.get(to);
    if (queue === undefined) {
      const outcome = this.#mail(to, bytes);
      if (outcome !== 'full') return outcome;
    }
    this.#keep(to, queue, bytes);
    return 'sent';
  }

  /** Send now or not at all: for what its sender keeps anyway. */
  trySend(to: number, letter: Letter): MailOutcome {
    return this.#waiting.has(to) ? 'full' : this.#mail(to, encodeLetter(letter));
  }

  #keep(to: number, found: Waiting | undefined, bytes: Uint8Array): void {
    const queue = found ?? { letters: [], bytes: 0 };
    if (queue.bytes + bytes.byteLength > waitingBytesMax) {
      this.lost++;
      return;
    }
    queue.letters.push(bytes);
    queue.bytes += bytes.byteLength;
    this.#waiting.set(to, queue);
    if (this.#isRetrying) return;
    this.#isRetrying = true;
    this.#clock.later(retryMs, () => this.#retry());
  }

  #retry(): void {
    for (const [to, queue] of this.#waiting) {
      let sent = 0;
      let outcome: MailOutcome = 'sent';
      while (outcome === 'sent' && sent < queue.letters.length) {
        const letter = queue.letters[sent] as Uint8Array;
        outcome = this.#mail(to, letter);
        if (outcome !== 'sent') break;
        sent++;
        queue.bytes -= letter.byteLength;
      }
      queue.letters.splice(0, sent);
      // Who lives there next is asked and told anew.
      if (outcome === 'gone' || queue.letters.length === 0) this.#waiting.delete(to);
    }
    this.#isRetrying = this.#waiting.size > 0;
    if (this.#isRetrying) this.#clock.later(retryMs, () => this.#retry());
  }
}
