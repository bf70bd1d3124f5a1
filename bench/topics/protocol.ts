/**
 * What a client of topics says to each server, and how it reads the answers: topics.config.ts of Ringway, and Centrifugo's JSON protocol.
 * Messages are numbered texts of a fixed length, so that whoever receives them can tell whether one is missing, twice, or late.
 */

/** Where a stream stands. */
export interface Position {
  readonly epoch: string;
  readonly offset: number;
}

/** What has come in one WebSocket message. */
export interface Arrival {
  /** Texts of messages, in order. */
  readonly messages: readonly string[];
  /** The subscription has begun: from here on. */
  readonly subscribed?: Position & { readonly recovered: boolean };
  /** What was asked for, `join` or `leave`, is done. */
  readonly done?: boolean;
  /** To be sent back. */
  readonly reply?: string;
  /** The server refuses something. */
  readonly problem?: string;
}

export interface Protocol {
  /** `since`: what was seen last. */
  path(topic: string, since?: Position): string;
  /** Said once the socket is open. */
  hello(topic: string, since?: Position): string | undefined;
  read(text: string): Arrival;
  join(topic: string): string;
  leave(topic: string): string;
  /** How one message is published over HTTP. */
  publish(apiPort: number, topic: string, text: string): { readonly url: string; readonly init: RequestInit };
}

const adminToken = 'token-of-the-bench';

/** Topics of the bench are a kind and a name: logged/x, direct/x, present/x. */
const ringway: Protocol = {
  path: (topic, since) => `/${topic}${since === undefined ? '' : `?since=${since.epoch}:${since.offset}`}`,
  hello: () => undefined,
  read(text) {
    const value = JSON.parse(text);
    if (value.subscribed !== undefined) return { messages: [], subscribed: value.subscribed };
    if (value.done !== undefined) return { messages: [], done: true };
    if (value.lost === true) return { messages: [], problem: 'messages were lost' };
    return { messages: value.data === undefined ? [] : [value.data] };
  },
  join: (topic) => `+${topic}`,
  leave: (topic) => `-${topic}`,
  publish: (apiPort, topic, text) => ({
    url: `http://127.0.0.1:${apiPort}/publish/${topic}`,
    init: { method: 'POST', body: text, headers: { authorization: `Bearer ${adminToken}`, 'content-type': 'text/plain' } },
  }),
};

interface CentrifugoReply {
  readonly error?: { readonly message: string };
  readonly subscribe?: {
    readonly epoch?: string;
    readonly offset?: number;
    readonly recovered?: boolean;
    readonly publications?: readonly { readonly data: string }[];
  };
  readonly unsubscribe?: object;
  readonly push?: { readonly pub?: { readonly data: string } };
  readonly connect?: object;
}

const channelOf = (topic: string) => topic.replace('/', ':');

const centrifugo: Protocol = {
  path: () => '/connection/websocket',
  hello: (topic, since) =>
    `{"id":1,"connect":{}}${topic === '' ? '' : `\n${JSON.stringify({ id: 2, subscribe: { channel: channelOf(topic), ...(since === undefined ? {} : { recover: true, ...since }) } })}`}`,
  read(text) {
    if (text === '{}') return { messages: [], reply: '{}' };
    const messages: string[] = [];
    let rest: Partial<Arrival> = {};
    for (const line of text.split('\n')) {
      if (line === '') continue;
      if (line === '{}') {
        rest = { ...rest, reply: '{}' };
        continue;
      }
      const { error, subscribe, unsubscribe, push } = JSON.parse(line) as CentrifugoReply;
      if (error !== undefined) return { messages: [], problem: error.message };
      if (push?.pub !== undefined) messages.push(push.pub.data);
      if (unsubscribe !== undefined) rest = { ...rest, done: true };
      if (subscribe === undefined) continue;
      for (const { data } of subscribe.publications ?? []) messages.push(data);
      const { epoch = '', offset = 0, recovered = false } = subscribe;
      rest = { ...rest, done: true, subscribed: { epoch, offset, recovered } };
    }
    return { messages, ...rest };
  },
  join: (topic) => JSON.stringify({ id: 3, subscribe: { channel: channelOf(topic) } }),
  leave: (topic) => JSON.stringify({ id: 4, unsubscribe: { channel: channelOf(topic) } }),
  publish: (apiPort, topic, text) => ({
    url: `http://127.0.0.1:${apiPort}/api/publish`,
    init: {
      method: 'POST',
      body: JSON.stringify({ channel: channelOf(topic), data: text }),
      headers: { 'content-type': 'application/json' },
    },
  }),
};

export const protocols = { ringway, centrifugo } as const;
export type ProtocolName = keyof typeof protocols;
