/**
 * Clients of real gateways that remember where they were: over WebSocket, as members who watch the others, or by a stream of events.
 *
 * Role: for nodes.test.ts. One client is on one topic. It connects when it is told to, to whichever node, and goes on where it was.
 */
import { eventually } from '../support/eventually.ts';
import type { Gateway } from '../support/gateway.ts';
import { type Answer, type At, type Ledger, Listener, Observer, type Said, textOf } from './listener.ts';

interface Told extends Said {
  readonly answer?: Answer & {
    readonly subscribed: boolean;
    readonly reason?: string;
    readonly isMember?: boolean;
    readonly presence?: At & { readonly users: readonly { readonly id: string }[] };
  };
}

export interface Client {
  readonly name: string;
  readonly listener: Listener;
  readonly node: number;
  /** Subscribed, as far as it knows. */
  readonly isOn: boolean;
  /** Ask for it; what comes of it is seen later. */
  connect(node: number, gateway: Gateway): void;
  /** `rudely`: without a close. */
  disconnect(rudely: boolean): void;
  /** It is subscribed, or has failed to be. */
  settled(): Promise<void>;
}

export class SocketClient implements Client {
  readonly name: string;
  readonly user: string;
  readonly listener: Listener;
  node = 0;
  observer: Observer | undefined;
  isMember = false;
  reason = '';
  readonly #topic: string;
  readonly #faults: string[];
  #socket: WebSocket | undefined;
  #state: 'off' | 'waiting' | 'on' = 'off';

  constructor(name: string, user: string, topic: string, ledger: Ledger, faults: string[]) {
    this.name = name;
    this.user = user;
    this.#topic = topic;
    this.#faults = faults;
    this.listener = new Listener(name, ledger, faults);
  }

  get isOn(): boolean {
    return this.#state === 'on';
  }

  connect(node: number, gateway: Gateway): void {
    this.disconnect(false);
    this.node = node;
    const socket = new WebSocket(`${gateway.wsUrl}/ws?user=${this.user}`);
    this.#socket = socket;
    this.#state = 'waiting';
    const since = this.listener.begin();
    const observer = new Observer(this.name, this.#faults);
    this.observer = observer;
    const isOurs = () => this.#socket === socket && this.#state !== 'off';
    socket.onopen = () => socket.send(JSON.stringify({ topic: this.#topic, presence: true, ...(since && { since: textOf(since) }) }));
    socket.onmessage = ({ data }) => {
      if (!isOurs()) return;
      const told = JSON.parse(String(data)) as Told;
      if (told.answer !== undefined) this.#answered(told.answer, observer);
      else if (told.event !== undefined) observer.take(told);
      else this.listener.take(told);
    };
    socket.onclose = () => {
      if (isOurs()) this.#off();
    };
    socket.onerror = () => {};
  }

  #answered(answer: NonNullable<Told['answer']>, observer: Observer): void {
    if (!answer.subscribed) {
      this.reason = answer.reason ?? '';
      this.disconnect(false);
      return;
    }
    this.#state = 'on';
    this.isMember = answer.isMember === true;
    if (!this.isMember) this.#faults.push(`${this.name} is subscribed, and no member`);
    this.listener.begun(answer);
    if (answer.presence === undefined) this.#faults.push(`${this.name} was not told who is there`);
    else observer.begun(answer.presence);
  }

  #off(): void {
    this.#state = 'off';
    this.isMember = false;
  }

  /** Stay connected, and hear no more. */
  leave(): void {
    if (this.#state !== 'on') return;
    this.#socket?.send(JSON.stringify({ topic: this.#topic, leave: true }));
    this.#off();
  }

  disconnect(rudely: boolean): void {
    this.#off();
    const socket = this.#socket;
    this.#socket = undefined;
    if (rudely) socket?.terminate();
    else socket?.close();
  }

  async settled(): Promise<void> {
    await eventually(`${this.name} is subscribed, or is not`, () => this.#state !== 'waiting').catch((error) => {
      throw new Error(
        `${error.message}; ready state ${this.#socket?.readyState}, on ${this.#socket?.url}, had said where it was: ${this.listener.at && textOf(this.listener.at)}`,
      );
    });
  }
}

export class StreamClient implements Client {
  readonly name: string;
  readonly listener: Listener;
  node = 0;
  readonly #topic: string;
  readonly #faults: string[];
  #abort: AbortController | undefined;
  #state: 'off' | 'waiting' | 'on' = 'off';

  constructor(name: string, topic: string, ledger: Ledger, faults: string[]) {
    this.name = name;
    this.#topic = topic;
    this.#faults = faults;
    this.listener = new Listener(name, ledger, faults);
  }

  get isOn(): boolean {
    return this.#state === 'on';
  }

  connect(node: number, gateway: Gateway): void {
    this.disconnect();
    this.node = node;
    const abort = new AbortController();
    this.#abort = abort;
    this.#state = 'waiting';
    const since = this.listener.begin();
    const headers = since === undefined ? {} : { 'last-event-id': textOf(since) };
    void this.#read(`${gateway.url}/events?topic=${this.#topic}&subscribed=1`, headers, abort)
      .catch(() => {})
      .finally(() => {
        if (this.#abort === abort) this.#state = 'off';
      });
  }

  async #read(url: string, headers: Record<string, string>, abort: AbortController): Promise<void> {
    const response = await fetch(url, { headers, signal: abort.signal, keepalive: false });
    if (!response.ok || response.body === null) throw new Error(`${url}: ${response.status}`);
    const decoder = new TextDecoder();
    let rest = '';
    for await (const chunk of response.body) {
      const events = (rest + decoder.decode(chunk, { stream: true })).split('\n\n');
      rest = events.pop() ?? '';
      for (const event of events) if (this.#abort === abort) this.#take(event);
    }
  }

  #take(event: string): void {
    const fields = new Map(event.split('\n').map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 2)]));
    const data = fields.get('data');
    const kind = fields.get('event');
    if (data === undefined) return;
    if (kind === 'subscribed') {
      this.#state = 'on';
      this.listener.begun((JSON.parse(data) as { topics: [Answer] }).topics[0]);
      return;
    }
    const [epoch = '', offset = ''] = (fields.get('id') ?? '').split(':');
    const at = { topic: this.#topic, epoch, offset: Number(offset) };
    if (kind === undefined) this.listener.take({ ...at, data });
    // Before it has begun it is what the greeting says, too.
    else if (kind !== 'lost') this.#faults.push(`${this.name} heard ${event}`);
    else if (this.#state === 'on') this.listener.take({ ...at, ...(JSON.parse(data) as At), lost: true });
  }

  disconnect(): void {
    this.#state = 'off';
    this.#abort?.abort();
    this.#abort = undefined;
  }

  async settled(): Promise<void> {
    await eventually(`${this.name} is subscribed, or is not`, () => this.#state !== 'waiting');
  }
}
