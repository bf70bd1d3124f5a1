/**
 * The load client of topics: subscribers, a publisher over HTTP, members that come and go, clients that come back. It checks every message: its place
 * in the stream, once and whole. Marks and the last line are as those of the load client in C (../load).
 *
 * Commands: publish (the next batch when everybody has the one before), churn (join and leave over open sockets), storm (everybody
 * comes back and has missed some), hold (members that rest, until standard input ends).
 */
import { parseArgs } from 'node:util';
import { type Position, type Protocol, type ProtocolName, protocols } from './protocol.ts';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    protocol: { type: 'string', default: 'ringway' },
    port: { type: 'string' },
    'other-port': { type: 'string' },
    'api-port': { type: 'string' },
    topic: { type: 'string', default: 'logged/bench' },
    /** hold: over so many topics. */
    topics: { type: 'string', default: '1' },
    connections: { type: 'string', default: '1000' },
    'in-flight': { type: 'string', default: '1' },
    payload: { type: 'string', default: '100' },
    missed: { type: 'string', default: '20' },
    'warmup-ms': { type: 'string', default: '2000' },
    seconds: { type: 'string', default: '4' },
  },
});

const number = (name: keyof typeof values) => Number(values[name]);
const protocol: Protocol = protocols[values.protocol as ProtocolName];
const ports = [number('port'), values['other-port'] === undefined ? number('port') : number('other-port')] as const;
const connections = number('connections');
/** Sockets that are being opened at a time. */
const opening = 100;
const stallMs = 20_000;

function fail(sentence: string): never {
  console.error(sentence);
  process.exit(1);
}

/** Within the stall time, or the run ends. */
async function within<Value>(what: string, promise: Promise<Value>): Promise<Value> {
  const timer = setTimeout(() => fail(`${what} has not come within ${stallMs / 1000} s`), stallMs);
  try {
    return await promise;
  } finally {
    clearTimeout(timer);
  }
}

/** Publishes that are under way at the same time are taken in any order: all of them have the same text. */
const isBatch = number('in-flight') > 1;
const numberText = (count: number) => String(count).padStart(8, '0').padEnd(number('payload'), 'x');

/** One client, its place in the stream, and what it waits for. */
class Subscriber {
  position: Position | undefined;
  recovered = false;
  /** Number of the message that is to come next. */
  next = 0;
  onMessage: () => void = () => {};
  #socket: WebSocket | undefined;
  #onDone: () => void = () => {};

  async open(index: number, topic: string, since?: Position): Promise<void> {
    const socket = new WebSocket(`ws://127.0.0.1:${ports[index % 2]}${protocol.path(topic, since)}`);
    this.#socket = socket;
    const subscribed = new Promise<void>((resolve) => {
      socket.onopen = () => {
        const hello = protocol.hello(topic, since);
        if (hello !== undefined) socket.send(hello);
      };
      socket.onmessage = ({ data }) => {
        const { messages, subscribed: place, done, reply, problem } = protocol.read(String(data));
        if (problem !== undefined) fail(`the server says: ${problem}`);
        if (reply !== undefined) socket.send(reply);
        if (place !== undefined) {
          this.position = place;
          this.recovered = place.recovered;
        }
        for (const text of messages) this.#take(text);
        if (done) this.#onDone();
        if (place !== undefined) resolve();
      };
      socket.onerror = () => fail('a connection has failed');
      socket.onclose = () => {
        if (this.#socket === socket) fail('the server has closed a connection');
      };
    });
    await within('a subscription', subscribed);
  }

  #take(text: string): void {
    const wanted = isBatch ? batchText : numberText(this.next);
    if (text !== wanted) fail(`message ${text.slice(0, 8)} came instead of ${wanted.slice(0, 8)}`);
    this.next++;
    this.onMessage();
  }

  /** Ask, and wait until it is done. */
  ask(text: string): Promise<void> {
    this.#socket?.send(text);
    return new Promise((resolve) => {
      this.#onDone = resolve;
    });
  }

  async close(): Promise<void> {
    const socket = this.#socket;
    this.#socket = undefined;
    if (socket === undefined) return;
    const closed = new Promise<void>((resolve) => {
      socket.onclose = () => resolve();
    });
    socket.close();
    await within('the end of a connection', closed);
  }
}

/** Over all of them, so many at a time. */
async function forAll(subscribers: readonly Subscriber[], act: (subscriber: Subscriber, index: number) => Promise<void>): Promise<void> {
  let next = 0;
  const work = async () => {
    for (let index = next++; index < subscribers.length; index = next++) await act(subscribers[index] as Subscriber, index);
  };
  await Promise.all(Array.from({ length: opening }, work));
}

const makeSubscribers = () => Array.from({ length: connections }, () => new Subscriber());

const batchText = numberText(0);
let published = 0;
async function publishNext(topic: string): Promise<void> {
  const { url, init } = protocol.publish(number('api-port'), topic, isBatch ? batchText : numberText(published++));
  const response = await fetch(url, init);
  const answer = await response.text();
  if (!response.ok || answer.includes('"error"')) fail(`a publish was answered with ${response.status} ${answer.slice(0, 200)}`);
}

/** ret: how many messages in how many seconds */
async function forSeconds(batch: () => Promise<number>): Promise<{ messages: number; seconds: number }> {
  for (const until = performance.now() + number('warmup-ms'); performance.now() < until; ) await batch();
  console.log('measure-begin');
  const began = performance.now();
  let messages = 0;
  while (performance.now() - began < number('seconds') * 1000) messages += await batch();
  const seconds = (performance.now() - began) / 1000;
  console.log('measure-end');
  return { messages, seconds };
}

async function publish(): Promise<void> {
  const topic = values.topic;
  const subscribers = makeSubscribers();
  await forAll(subscribers, (subscriber, index) => subscriber.open(index, topic));
  let outstanding = 0;
  let onAll: () => void = () => {};
  for (const subscriber of subscribers)
    subscriber.onMessage = () => {
      if (--outstanding === 0) onAll();
    };
  const size = number('in-flight');
  const { messages, seconds } = await forSeconds(async () => {
    outstanding = size * connections;
    const all = new Promise<void>((resolve) => {
      onAll = resolve;
    });
    await Promise.all(Array.from({ length: size }, () => publishNext(topic)));
    await within('a batch', all);
    return size;
  });
  console.log(JSON.stringify({ messages, deliveries: messages * connections, per_second: messages / seconds, seconds }));
  process.exit(0);
}

async function churn(): Promise<void> {
  const subscribers = makeSubscribers();
  await forAll(subscribers, (subscriber, index) => subscriber.open(index, 'plain/bench'));
  const { messages, seconds } = await forSeconds(async () => {
    await within('a join', Promise.all(subscribers.map((subscriber) => subscriber.ask(protocol.join(values.topic)))));
    await within('a leave', Promise.all(subscribers.map((subscriber) => subscriber.ask(protocol.leave(values.topic)))));
    return connections;
  });
  console.log(JSON.stringify({ messages, per_second: messages / seconds, seconds }));
  process.exit(0);
}

async function storm(): Promise<void> {
  const topic = values.topic;
  const subscribers = makeSubscribers();
  await forAll(subscribers, (subscriber, index) => subscriber.open(index, topic));
  await forAll(subscribers, (subscriber) => subscriber.close());
  const missed = number('missed');
  for (let count = 0; count < missed; count++) await publishNext(topic);
  await Bun.sleep(1000);
  console.log('measure-begin');
  const began = performance.now();
  await forAll(subscribers, async (subscriber, index) => {
    await subscriber.open(index, topic, subscriber.position);
    if (!subscriber.recovered) fail('a client that came back has not recovered');
    if (subscriber.next < missed)
      await within(
        'what was missed',
        new Promise<void>((resolve) => {
          subscriber.onMessage = () => {
            if (subscriber.next === missed) resolve();
          };
        }),
      );
  });
  const seconds = (performance.now() - began) / 1000;
  console.log('measure-end');
  console.log(JSON.stringify({ messages: connections, per_second: connections / seconds, seconds }));
  process.exit(0);
}

async function hold(): Promise<void> {
  const subscribers = makeSubscribers();
  const topics = number('topics');
  await forAll(subscribers, (subscriber, index) =>
    subscriber.open(index, topics === 1 ? values.topic : `${values.topic}-${(index >> 1) % topics}`),
  );
  console.log(`open ${connections}`);
  for await (const _ of Bun.stdin.stream()) {
    // Until it ends.
  }
  console.log(JSON.stringify({ open: connections, lost: 0 }));
  process.exit(0);
}

const commands: Readonly<Record<string, () => Promise<void>>> = { publish, churn, storm, hold };
await (commands[positionals[0] ?? ''] ?? (() => fail('say publish, churn, storm or hold')))();
