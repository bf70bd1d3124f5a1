/**
 * Streams of server-sent events: a response that is subscribed to topics as a socket is.
 *
 *   admitted ──► begun ──► subscribed, topic by topic ──► open ──► over
 *      └ refused: a status, before anything was sent
 *
 * Role: up: frontend/sse/, which has the paths of a config, and frontend/hono/ for `topicEvents`. Down: `Topics`, and the core, which has every message
 * on its way without any of this. A stream that cannot go on just ends: its client comes back by itself, and says where it was.
 */
import { randomInt } from 'node:crypto';
import type { Admitted, Presence, SubscribeRefusal, TopicConnection, Topics } from '../../api/topics.ts';
import type { User } from '../../api/user.ts';
import type { ConnectionName } from '../../core/connection.ts';
import type { Core } from '../../core/core.ts';
import type { RequestHead, RequestName } from '../../core/http.ts';
import { inspection, shown } from '../../core/inspection.ts';
import type { statIndex } from '../../core/stat-index.ts';
import type { Place } from './places.ts';

type Metric = Parameters<typeof statIndex>[0];

/** What is needed of the frontends' host (frontend.ts). */
export interface StreamHost {
  readonly core: Core;
  readonly topics: Topics;
  count(metric: Metric): void;
  failed(context: object, sentence: string): void;
}

export interface TopicWish {
  readonly topic: string;
  /** The last position that the client has. */
  readonly since: Place;
  /** Its token, where it has one. */
  readonly token: string | undefined;
}

export interface StreamWishes {
  /** Each once, and names of topics. */
  readonly topics: readonly TopicWish[];
  /** So many of the last messages first, for topics without `since`. */
  readonly history: number;
  /** Who is there, and then who comes and goes. */
  readonly presence: boolean;
  /** Each event is a JSON object that names its topic. Always so with several topics. */
  readonly isJson: boolean;
  /** An event says where the stream begins, for clients that forget an id without data. */
  readonly greets: boolean;
}

/** Whose stream it is. */
export interface StreamClient {
  readonly user: User | undefined;
  readonly data: unknown;
}

/** Why there is no stream. `sentence`: for whoever has asked. */
export interface StreamRefusal {
  readonly status: 401 | 403 | 404 | 500;
  readonly sentence: string;
}

/** Of every stream: nothing on its way may keep it, or change it. nginx holds events back unless it is told not to. */
export const streamHeaders = 'content-type: text/event-stream\r\ncache-control: no-store, no-transform\r\nx-accel-buffering: no\r\n';

/** Milliseconds after which clients come back: spread, since those of one worker are cut off together, and within the grace of presence. */
const retryMs = { least: 500, most: 2000 } as const;
/** When the log of a topic cannot be reached: it is not to be asked by everybody at once. */
const retryUnavailableMs = { least: 3000, most: 10_000 } as const;
/** Longest time that setTimeout takes. */
const timerMsMax = 2 ** 31 - 1;

const View = class TopicStream {};

/** A stream, seen as a connection. */
class Stream implements TopicConnection, RequestName {
  // Leads to the core: nothing that prints or copies this may follow.
  readonly #core: Core;
  readonly slot: number;
  readonly generation: number;
  readonly request: number;
  readonly user: User | undefined;
  readonly data: unknown;
  #id: string | undefined;
  hasBegun = false;
  /** It was ended before it has begun. */
  isUnwanted = false;
  isOver = false;
  timer: ReturnType<typeof setTimeout> | undefined;

  constructor(core: Core, head: RequestHead, { user, data }: StreamClient) {
    this.#core = core;
    // Not the head itself, whose text is ten times as much as all of this.
    this.slot = head.slot;
    this.generation = head.generation;
    this.request = head.request;
    this.user = user;
    this.data = data;
  }

  get kind(): 'sse' {
    return 'sse';
  }

  get id(): string {
    this.#id ??= this.#core.ids.of(this);
    return this.#id;
  }

  get remoteAddress(): string {
    return this.#core.remoteAddress(this)?.address ?? '';
  }

  [inspection](): object {
    const { user, data, remoteAddress, kind } = this;
    return shown(this, View, { user, data, remoteAddress, kind });
  }
}

export class Streams {
  readonly #host: StreamHost;
  readonly #core: Core;
  /** By slot: streams that have not ended, and those that are about to begin. */
  readonly #streams = new Map<number, Stream>();
  #pending = 0;

  constructor(host: StreamHost) {
    this.#host = host;
    this.#core = host.core;
  }

  /** Those that wait for somebody's word. */
  get pending(): number {
    return this.#pending;
  }

  /**
   * Answer a request with a stream. `headers`: a block, with those of every stream; `quietMs`: as of `Core.respondBeginEvents`. `refuse` answers
   * when there is none; it is not called once the client has left.
   */
  open(
    head: RequestHead,
    wishes: StreamWishes,
    client: StreamClient,
    options: { readonly headers: string; readonly quietMs: number; readonly isHead: boolean },
    refuse: (refusal: StreamRefusal) => void,
  ): void {
    const stream = new Stream(this.#core, head, client);
    this.#streams.set(head.slot, stream);
    this.#pending += 1;
    this.#run(stream, wishes, options, refuse)
      .catch((err: unknown) => {
        // A name that a topic of this policy cannot have, or a defect, since those who are asked do not reject. No client is to wait for it.
        this.#host.failed({ err }, 'a stream of events failed');
        if (stream.hasBegun || stream.isOver) {
          this.#end(stream);
          return;
        }
        this.#forget(stream);
        refuse({ status: 500, sentence: 'Internal Server Error' });
      })
      .finally(() => {
        this.#pending -= 1;
      });
  }

  /** The client has come when somebody cannot be asked about it: it is to come back. */
  turnAway(head: RequestHead, headers: string): void {
    const core = this.#core;
    this.#host.count('sse_given_up');
    core.respondBegin(head, 200, headers, -1);
    core.respondChunk(head, laterText('unavailable'));
    core.respondEnd(head);
  }

  /** The same promise; while it has not settled Bun's loop gets its turns. */
  async waitFor<Value>(promise: Promise<Value>): Promise<Value> {
    this.#pending += 1;
    try {
      return await promise;
    } finally {
      this.#pending -= 1;
    }
  }

  /** The core has ended the request. ret: whether it was a stream */
  onAbort(slot: number, request: number): boolean {
    const stream = this.#streams.get(slot);
    if (stream?.request !== request) return false;
    this.#forget(stream);
    return true;
  }

  /** End a stream at once, and say why, as a WebSocket's close frame would. ret: false: the connection is none */
  end({ slot, generation }: ConnectionName, code: number, reason: string): boolean {
    const stream = this.#streams.get(slot);
    if (stream?.generation !== generation) return false;
    if (!stream.hasBegun) {
      stream.isUnwanted = true;
      return true;
    }
    if (!stream.isOver) this.#core.respondEvent(stream, eventText('closed', { code, reason }));
    this.#end(stream);
    return true;
  }

  /** Those of a user. */
  of(user: string): ConnectionName[] {
    return [...this.#streams.values()].filter((stream) => stream.user?.id === user);
  }

  async #run(
    stream: Stream,
    wishes: StreamWishes,
    { headers, quietMs, isHead }: { readonly headers: string; readonly quietMs: number; readonly isHead: boolean },
    refuse: (refusal: StreamRefusal) => void,
  ): Promise<void> {
    const core = this.#core;
    const admitted = await this.#admit(stream, wishes);
    // The client may have left meanwhile: its slot may be another's by now.
    if (stream.isOver) return;
    const refusal = stream.isUnwanted ? this.#refused('forbidden', 403, 'Forbidden: the connection was ended') : admitted;
    if ('status' in refusal) {
      this.#forget(stream);
      refuse(refusal);
      return;
    }
    if (isHead) {
      this.#forget(stream);
      core.respondBeginWith(stream, 200, '', headers, -1, 0);
      core.respondEnd(stream);
      return;
    }
    stream.hasBegun = true;
    core.respondBeginEvents(stream, headers, quietMs);
    core.respondChunk(stream, `retry: ${randomInt(retryMs.least, retryMs.most)}\n\n`);
    if (wishes.isJson)
      core.respondPlaces(
        stream,
        wishes.topics.map(({ topic, since }) => ({ topic, at: since === 'unknown' ? undefined : since })),
      );
    this.#endWithUser(stream);
    await this.#subscribe(stream, wishes, refusal);
  }

  /** ret: of each topic, or why not */
  async #admit(stream: Stream, wishes: StreamWishes): Promise<readonly Admitted[] | StreamRefusal> {
    const { topics } = this.#host;
    const admitted: Admitted[] = [];
    for (const { topic, token } of wishes.topics) {
      if (wishes.presence && !topics.hasPresence(topic))
        return this.#refused('request', 404, 'Not Found: nobody keeps who is on this topic');
      const verdict = await topics.admit(stream, topic, token);
      if (verdict === 'token') return this.#refused('token', 401, 'Unauthorized: a token for the topic is missing, wrong or over');
      if (verdict === 'forbidden') return this.#refused('forbidden', 403, 'Forbidden: this topic is not for you');
      if (wishes.history > 0 && !(await topics.authorize(stream, topic, 'history')))
        return this.#refused('forbidden', 403, 'Forbidden: the history of this topic is not for you');
      if (wishes.presence && !(await topics.authorize(stream, topic, 'presence')))
        return this.#refused('forbidden', 403, 'Forbidden: who is on this topic is not for you to know');
      admitted.push(verdict);
    }
    return admitted;
  }

  #refused(reason: 'request' | 'token' | 'forbidden', status: StreamRefusal['status'], sentence: string): StreamRefusal {
    this.#host.count(`sse_refused_${reason}`);
    return { status, sentence };
  }

  async #subscribe(stream: Stream, wishes: StreamWishes, admitted: readonly Admitted[]): Promise<void> {
    const { topics } = this.#host;
    const core = this.#core;
    const begun: object[] = [];
    for (const [index, { topic, since }] of wishes.topics.entries()) {
      const result = await topics.subscribeWith(stream, topic, {
        since,
        history: wishes.history,
        admitted: admitted[index],
        presence: wishes.presence,
        onPresence: wishes.presence ? (presence) => this.#tellPresence(stream, topic, presence) : undefined,
      });
      if (stream.isOver) return;
      if (!result.subscribed) {
        this.#giveUp(stream, result.reason);
        return;
      }
      const { recovered, epoch, offset } = result;
      begun.push({ topic, epoch, offset, recovered });
      if (since !== undefined && !recovered) {
        this.#host.count('sse_lost');
        core.respondEvent(stream, eventText('lost', { topic, epoch, offset, lost: true }));
      }
    }
    // The id alone: a client that is cut off before the first message must know where it was.
    core.respondEvent(stream, wishes.greets ? eventText('subscribed', { topics: begun }) : '\n');
  }

  #tellPresence(stream: Stream, topic: string, { count, users }: Presence): void {
    this.#core.respondEvent(stream, eventText('presence', { topic, count, users }));
  }

  /** It cannot be what was asked for. A status is too late; what a client does of itself is to come back. */
  #giveUp(stream: Stream, reason: SubscribeRefusal | undefined): void {
    this.#host.count('sse_given_up');
    this.#core.respondChunk(stream, laterText(reason ?? 'closed'));
    this.#end(stream);
  }

  /** Who has come with a token that ends has no stream beyond it: the client comes back with a newer one. */
  #endWithUser(stream: Stream): void {
    const expiresAt = stream.user?.expiresAt;
    if (expiresAt === undefined) return;
    const left = expiresAt - Date.now();
    const isOver = left <= timerMsMax;
    stream.timer = setTimeout(() => (isOver ? this.#end(stream) : this.#endWithUser(stream)), Math.max(0, Math.min(left, timerMsMax)));
  }

  #end(stream: Stream): void {
    if (stream.isOver) return;
    this.#forget(stream);
    // With its connection: whatever still waits to subscribe it must not find the next request of the same client in its place.
    this.#core.respondEnd(stream, true);
  }

  #forget(stream: Stream): void {
    stream.isOver = true;
    clearTimeout(stream.timer);
    const { slot } = stream;
    if (this.#streams.get(slot) === stream) this.#streams.delete(slot);
  }
}

/** Come back, but not at once. */
function laterText(why: string): string {
  return `retry: ${randomInt(retryUnavailableMs.least, retryUnavailableMs.most)}\n: ${why}\n\n`;
}

/** An event behind its id, whose data is one line of JSON. */
function eventText(name: string, data: object): string {
  return `event: ${name}\ndata: ${JSON.stringify(data)}\n\n`;
}
