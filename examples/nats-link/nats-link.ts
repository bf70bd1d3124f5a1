/**
 * Joins gateways through NATS: a NodeLink with one connection for each worker (README.md).
 *
 *   publish ──► outbox ──► a PUB for each batch of a topic, then a PING: its PONG says that the server has them
 *   onMessage ◄── envelopes ◄── a SUB for each topic; in place when the PONG behind it has come
 * What was under way when a connection broke goes out again by the next one, under the numbers that it had.
 */
import { type ConnectionOptions, connect, type NatsConnection, type Subscription } from '@nats-io/transport-node';
import type { LinkOptions, PublishResult } from 'ringway';
import type { Batch, LinkContext, LinkEvents, LinkHealth, LinkState, NodeLink } from 'ringway/link';
import { Envelopes, Lane, Outbox, readMessages, topicBytes, topicKey } from 'ringway/link';

/** Beside what the client takes: `servers`, `user`, `pass`, `token`, `tls`. */
export interface NatsLinkOptions extends ConnectionOptions, Pick<LinkOptions, 'linger' | 'required'> {
  /** What the names of all subjects begin with. Gateways with different ones never hear each other. @default 'ringway' */
  readonly prefix?: string;
  /** Bytes that may wait in a worker while no server can be reached; past it the oldest are dropped. @default 16777216 */
  readonly outboxBytes?: number;
}

/** A value for `link` in gateway.config.ts. */
export function natsLink({ linger, required, ...options }: NatsLinkOptions): LinkOptions {
  return { linger, required, create: (context: LinkContext) => new NatsLink(options, context) };
}

interface Topic {
  readonly key: string;
  subscription: Subscription | undefined;
  /** Waits until the server has confirmed it; undefined: it has. */
  placed: PromiseWithResolvers<void> | undefined;
  wasInterrupted: boolean;
}

const retryMs = 250;
/** Others find back to a server so much later, and what has waited is for them too. */
const holdMs = 1000;

class NatsLink implements NodeLink {
  state: LinkState = 'connecting';
  readonly #options: ConnectionOptions;
  /** Topics are any bytes; subjects know dots, wildcards and spaces. */
  readonly #subjectOf: (key: string) => string;
  readonly #context: LinkContext;
  readonly #envelopes: Envelopes;
  readonly #outbox: Outbox;
  readonly #lane = new Lane(0, () => this.#pump());
  readonly #topics = new Map<string, Topic>();
  #events: LinkEvents | undefined;
  #connection: NatsConnection | undefined;
  /** The same, while what waits may go out by it. */
  #outlet: NatsConnection | undefined;
  #isPumping = false;
  #isClosed = false;
  #lagMs = 0;

  constructor({ prefix = 'ringway', outboxBytes = 16 << 20, ...connection }: NatsLinkOptions, context: LinkContext) {
    const name = `ringway:${context.publisher.node}:${context.publisher.worker}`;
    this.#options = { name, pingInterval: 1000, ...connection, maxReconnectAttempts: -1, reconnectTimeWait: retryMs, noEcho: true };
    this.#subjectOf = (key) => `${prefix}.${Buffer.from(key, 'latin1').toString('base64url')}`;
    this.#context = context;
    this.#envelopes = new Envelopes(context, { prefix });
    this.#outbox = new Outbox({ bytesMax: outboxBytes, whenFull: 'drop-oldest' }, this.#envelopes.sender, context.count);
  }

  start(events: LinkEvents): void {
    this.#events = events;
    void this.#stayConnected();
  }

  publish(topic: Uint8Array, flags: number, payload: Uint8Array): PublishResult {
    return !this.#outbox.add(this.#lane, topicKey(topic), flags, payload) ? 'dropped' : this.state === 'up' ? 'accepted' : 'queued';
  }

  async subscribe(name: Uint8Array): Promise<void> {
    const key = topicKey(name);
    const topic = this.#topics.get(key) ?? { key, subscription: undefined, placed: Promise.withResolvers<void>(), wasInterrupted: false };
    if (!this.#topics.has(key) && this.#connection !== undefined) this.#place([topic]).catch(() => {});
    this.#topics.set(key, topic);
    await topic.placed?.promise;
  }

  async unsubscribe(name: Uint8Array): Promise<void> {
    const topic = this.#topics.get(topicKey(name));
    if (topic === undefined) return;
    this.#topics.delete(topic.key);
    topic.placed?.resolve();
    // Drained means: all that came before the server heard of it has been told. It fails when the connection breaks.
    if (this.state === 'up') await topic.subscription?.drain().catch(() => {});
    else topic.subscription?.unsubscribe();
  }

  health(): LinkHealth {
    return { topics: this.#topics.size, outboxMessages: this.#outbox.messages, outboxBytes: this.#outbox.bytes, lagMs: this.#lagMs };
  }

  async close(deadlineMs: number): Promise<void> {
    this.#isClosed = true;
    this.#outbox.isOpen = false;
    this.#outlet = this.#connection;
    this.#pump();
    const endMs = performance.now() + deadlineMs;
    while (this.#outbox.messages > 0 && performance.now() < endMs) await Bun.sleep(5);
    this.#events = undefined;
    // Whoever waits for the end of a subscription gets it by this.
    await Promise.race([this.#connection?.drain().catch(() => {}), Bun.sleep(Math.max(0, endMs - performance.now()))]);
    await this.#connection?.close();
    this.#outbox.clear();
    for (const { placed } of this.#topics.values()) placed?.resolve();
  }

  async #stayConnected(): Promise<void> {
    for (; !this.#isClosed; await Bun.sleep(retryMs)) {
      try {
        this.#connection = await connect(this.#options);
        const changes = this.#connection.status();
        await this.#cameUp(this.#connection);
        for await (const { type } of changes) {
          if (type === 'disconnect') this.#wentDown('the connection is broken');
          else if (type === 'reconnect') this.#cameUp(this.#connection).catch(() => {});
        }
        throw (await this.#connection.closed()) ?? new Error('the client has given up');
      } catch (error) {
        this.#wentDown(error instanceof Error ? error.message : String(error));
        await this.#connection?.close();
        for (const topic of this.#topics.values()) topic.subscription = undefined;
      }
    }
  }

  async #cameUp(connection: NatsConnection): Promise<void> {
    await this.#place([...this.#topics.values()]);
    const isBack = this.state === 'lost';
    this.#tell('up', { server: connection.getServer() }, isBack ? 'NATS is back, and every subscription with it' : 'connected to NATS');
    if (isBack) this.#context.count('reconnects', 1);
    if (isBack) await Bun.sleep(holdMs);
    if (this.state === 'up') this.#outlet = connection;
    this.#pump();
  }

  #wentDown(reason: string): void {
    this.#outlet = undefined;
    for (const topic of this.#topics.values())
      if (topic.placed === undefined) Object.assign(topic, { placed: Promise.withResolvers(), wasInterrupted: true });
    this.#tell('lost', { reason }, 'NATS cannot be used: messages reach only this node; trying again');
  }

  #tell(state: LinkState, fields: object, text: string): void {
    if (this.state === state || this.#isClosed) return;
    this.state = state;
    this.#context.log[state === 'up' ? 'info' : 'warn'](fields, text);
    this.#events?.onState(state);
  }

  async #place(topics: readonly Topic[]): Promise<void> {
    for (const topic of topics) {
      const callback = (_: Error | null, { data }: { data: Uint8Array }) => this.#arrived(topic.key, data);
      topic.subscription ??= this.#connection?.subscribe(this.#subjectOf(topic.key), { callback });
    }
    this.#lagMs = (await this.#connection?.rtt()) ?? 0;
    const interrupted = topics.filter(({ wasInterrupted }) => wasInterrupted).length;
    for (const topic of topics) {
      topic.placed?.resolve();
      Object.assign(topic, { placed: undefined, wasInterrupted: false });
    }
    if (interrupted > 0) this.#events?.onGap(interrupted);
  }

  #arrived(key: string, data: Uint8Array): void {
    const envelope = this.#envelopes.open(data, key);
    if (envelope === undefined) return;
    this.#context.count('bytes_in', data.byteLength);
    readMessages(envelope, topicBytes(key), (message) => this.#events?.onMessage(message));
  }

  #pump(): void {
    if (this.#isPumping) return;
    this.#isPumping = true;
    setImmediate(async () => {
      while (this.#outlet !== undefined && this.#lane.isReady) await this.#publishRound(this.#outlet);
      this.#isPumping = false;
    });
  }

  async #publishRound(connection: NatsConnection): Promise<void> {
    const round: Batch[] = [];
    for (let batch = this.#outbox.take(this.#lane); batch !== undefined; batch = this.#outbox.take(this.#lane)) {
      if (batch.envelope.byteLength > (connection.info?.max_payload ?? Number.POSITIVE_INFINITY)) this.#outbox.discard(batch);
      else round.push(batch);
    }
    try {
      for (const { key, envelope } of round) connection.publish(this.#subjectOf(key), envelope);
      this.#lagMs = await connection.rtt();
    } catch {
      for (const batch of round.reverse()) this.#outbox.back(batch, true);
      return Bun.sleep(retryMs);
    }
    for (const batch of round) this.#outbox.done(batch);
  }
}
