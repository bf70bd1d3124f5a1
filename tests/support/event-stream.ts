/**
 * A client of server-sent events that keeps all it has got, read as WHATWG HTML §9.2.6 says, with what browsers hide: comments, ids without data, `retry`.
 */
import { eventually } from './eventually.ts';

export interface ReceivedEvent {
  readonly name: string;
  readonly data: string;
  /** The last id that had come by then. */
  readonly id: string;
}

export class EventStream {
  readonly response: Response;
  readonly events: ReceivedEvent[] = [];
  comments = 0;
  /** Milliseconds, as the stream says it. */
  reconnection: number | undefined;
  lastId = '';
  /** All of it, as it came. */
  text = '';
  hasEnded = false;
  readonly #aborter: AbortController;

  private constructor(response: Response, aborter: AbortController) {
    this.response = response;
    this.#aborter = aborter;
    void this.#read();
  }

  /** Resolves when the head of the answer has come, whatever it says. */
  static async open(url: string, init: RequestInit = {}): Promise<EventStream> {
    const aborter = new AbortController();
    return new EventStream(await fetch(url, { ...init, signal: aborter.signal }), aborter);
  }

  async #read(): Promise<void> {
    const decoder = new TextDecoder();
    let rest = '';
    try {
      for await (const bytes of this.response.body ?? []) {
        const text = decoder.decode(bytes, { stream: true });
        this.text += text;
        rest += text;
        for (let end = rest.indexOf('\n\n'); end >= 0; end = rest.indexOf('\n\n')) {
          this.#block(rest.slice(0, end).split('\n'));
          rest = rest.slice(end + 2);
        }
      }
    } catch {
      // It was closed, or broken off.
    }
    this.hasEnded = true;
  }

  #block(lines: readonly string[]): void {
    let name = '';
    const data: string[] = [];
    for (const line of lines) {
      const colon = line.indexOf(':');
      const field = colon < 0 ? line : line.slice(0, colon);
      const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
      if (colon === 0) this.comments += 1;
      else if (field === 'data') data.push(value);
      else if (field === 'event') name = value;
      else if (field === 'id') this.lastId = value;
      else if (field === 'retry') this.reconnection = Number(value);
      else throw new Error(`a field that streams do not have: ${line}`);
    }
    if (data.length > 0) this.events.push({ name, data: data.join('\n'), id: this.lastId });
  }

  /** Data of the events without a name. */
  get messages(): string[] {
    return this.named('');
  }

  named(name: string): string[] {
    return this.events.filter((event) => event.name === name).map(({ data }) => data);
  }

  /** Wait for so many events without a name. ret: their data */
  async has(messages: number): Promise<string[]> {
    await eventually(`${messages} messages, and not ${this.messages.length}`, () => this.messages.length >= messages);
    return this.messages;
  }

  /** Wait for so many with this name. */
  async hasNamed(name: string, count = 1): Promise<string[]> {
    await eventually(`${count} of ${name} in ${JSON.stringify(this.events)}`, () => this.named(name).length >= count);
    return this.named(name);
  }

  async ended(): Promise<void> {
    await eventually('the stream ends', () => this.hasEnded);
  }

  close(): void {
    this.#aborter.abort();
  }
}
