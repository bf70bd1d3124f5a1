/**
 * A NodeLink without a network: joins several nodes that live in one process of a test. It can be cut off and mended.
 *
 *   const network = new InProcessNetwork();      config: { link: network.link() }      network.cut(); network.mend();
 */
import type { LinkOptions } from '../../src/api/define.ts';
import type { PublishResult } from '../../src/core/node.ts';
import type { LinkContext, LinkEvents, LinkHealth, LinkState, NodeLink } from '../../src/pubsub/link.ts';
import { Envelopes, readMessages } from '../../src/pubsub/nodes/envelope.ts';
import { topicBytes, topicKey } from '../../src/pubsub/nodes/mail.ts';
import { Lane, Outbox } from '../../src/pubsub/nodes/outbox.ts';

export class InProcessNetwork {
  readonly links = new Set<InProcessLink>();
  isUp = true;

  link(options: Pick<LinkOptions, 'linger' | 'required'> = {}): LinkOptions & { create(context: LinkContext): NodeLink } {
    return { ...options, create: (context: LinkContext) => new InProcessLink(this, context) };
  }

  /** What has not been read yet is lost, as are all subscriptions. */
  cut(): void {
    this.isUp = false;
    for (const link of this.links) link.wentDown();
  }

  mend(): void {
    this.isUp = true;
    for (const link of this.links) link.cameUp();
    for (const link of this.links) link.flush();
  }
}

interface Topic {
  isWanted: boolean;
  /** Subscribed at the network, on the present connection. */
  isInPlace: boolean;
  wasInterrupted: boolean;
  readonly waiters: (() => void)[];
}

class InProcessLink implements NodeLink {
  state: LinkState = 'connecting';
  readonly #network: InProcessNetwork;
  readonly #context: LinkContext;
  readonly #envelopes: Envelopes;
  readonly #outbox: Outbox;
  readonly #lane = new Lane(0, () => setImmediate(() => this.flush()));
  readonly #topics = new Map<string, Topic>();
  /** What the network has for this link, in order; read between turns of the event loop. */
  #inbox: (() => void)[] = [];
  #events: LinkEvents | undefined;

  constructor(network: InProcessNetwork, context: LinkContext) {
    this.#network = network;
    this.#context = context;
    this.#envelopes = new Envelopes(context, { prefix: 'ringway' });
    this.#outbox = new Outbox({ bytesMax: 16 << 20, whenFull: 'drop-oldest' }, this.#envelopes.sender, context.count);
  }

  start(events: LinkEvents): void {
    this.#events = events;
    this.#network.links.add(this);
    if (this.#network.isUp) setImmediate(() => this.cameUp());
  }

  publish(topic: Uint8Array, flags: number, payload: Uint8Array): PublishResult {
    const isTaken = this.#outbox.add(this.#lane, topicKey(topic), flags, payload);
    return !isTaken ? 'dropped' : this.state === 'up' ? 'accepted' : 'queued';
  }

  subscribe(name: Uint8Array): Promise<void> {
    const key = topicKey(name);
    const topic = this.#topics.get(key) ?? { isWanted: true, isInPlace: false, wasInterrupted: false, waiters: [] };
    this.#topics.set(key, topic);
    topic.isWanted = true;
    if (topic.isInPlace) return Promise.resolve();
    const placed = new Promise<void>((resolve) => topic.waiters.push(resolve));
    if (this.state === 'up') setImmediate(() => this.#place(topic));
    return placed;
  }

  unsubscribe(name: Uint8Array): Promise<void> {
    const key = topicKey(name);
    const topic = this.#topics.get(key);
    if (topic === undefined) return Promise.resolve();
    topic.isWanted = false;
    for (const waiter of topic.waiters.splice(0)) waiter();
    return new Promise((resolve) => {
      const end = () => {
        if (!topic.isWanted && this.#topics.get(key) === topic) this.#topics.delete(key);
        resolve();
      };
      if (this.state === 'up') this.#receive(end);
      else end();
    });
  }

  health(): LinkHealth {
    return { topics: this.#topics.size, outboxMessages: this.#outbox.messages, outboxBytes: this.#outbox.bytes, lagMs: 0 };
  }

  async close(_deadlineMs: number): Promise<void> {
    this.#outbox.isOpen = false;
    this.flush();
    this.#network.links.delete(this);
    this.#events = undefined;
    this.#outbox.clear();
    for (const { waiters } of this.#topics.values()) for (const waiter of waiters.splice(0)) waiter();
  }

  flush(): void {
    if (this.state !== 'up') return;
    for (let batch = this.#outbox.take(this.#lane); batch !== undefined; batch = this.#outbox.take(this.#lane)) {
      const { key, envelope } = batch;
      for (const link of this.#network.links) if (link.#topics.get(key)?.isInPlace) link.#receive(() => link.#arrived(key, envelope));
      this.#outbox.done(batch);
    }
  }

  cameUp(): void {
    let gaps = 0;
    for (const topic of this.#topics.values()) {
      if (topic.wasInterrupted) gaps++;
      topic.wasInterrupted = false;
      this.#place(topic);
    }
    if (this.state === 'lost') this.#context.count('reconnects', 1);
    this.#tell('up');
    if (gaps > 0) this.#events?.onGap(gaps);
  }

  wentDown(): void {
    this.#inbox = [];
    for (const topic of this.#topics.values()) {
      topic.wasInterrupted ||= topic.isInPlace;
      topic.isInPlace = false;
    }
    this.#tell('lost');
  }

  #tell(state: LinkState): void {
    this.state = state;
    this.#events?.onState(state);
  }

  #place(topic: Topic): void {
    if (!this.#network.isUp) return;
    topic.isInPlace = true;
    for (const waiter of topic.waiters.splice(0)) waiter();
  }

  #receive(read: () => void): void {
    if (this.#inbox.push(read) > 1) return;
    setImmediate(() => {
      const all = this.#inbox;
      this.#inbox = [];
      for (const each of all) each();
    });
  }

  #arrived(key: string, bytes: Uint8Array): void {
    const envelope = this.#envelopes.open(bytes, key);
    if (envelope === undefined || this.#events === undefined) return;
    this.#context.count('bytes_in', bytes.byteLength);
    readMessages(envelope, topicBytes(key), (message) => this.#events?.onMessage(message));
  }
}
