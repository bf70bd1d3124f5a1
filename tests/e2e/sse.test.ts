/**
 * Topics as server-sent events, as clients see them that are not ours: curl, npm's EventSource, that of a browser, and through proxies. What they
 * have heard must be complete, in order, and once, whatever has ended meanwhile.
 */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test';
import { existsSync } from 'node:fs';
import { sign } from 'hono/jwt';
import { type Browser, chromium } from 'playwright-core';
import { createAuthority } from '../support/certificates.ts';
import { EventStream } from '../support/event-stream.ts';
import { eventually } from '../support/eventually.ts';
import { forEachBackend, type Gateway, startGateway } from '../support/gateway.ts';
import { type Balancer, hasBalancer, startBalancer } from '../support/haproxy.ts';
import { hasNginx, type Nginx, startNginx } from '../support/nginx.ts';
import { RawClient } from '../support/raw-client.ts';
import { startRedis } from '../support/redis-servers.ts';
import { RunningProgram } from '../support/running-program.ts';

// Only ends a test that has failed: nothing here is measured in time.
setDefaultTimeout(120_000);

const epochs = /^[0-9a-f]{16}$/;
const browserPath = process.env.CHROMIUM ?? '/usr/bin/chromium';

const config = `
import { Hono } from 'hono';
import { defineGateway, disconnect, history, publish, topicEvents } from 'ringway';
const app = new Hono();
app.post('/publish/*', async (c) => {
  const topic = decodeURIComponent(c.req.path.slice('/publish/'.length));
  const body = await c.req.bytes();
  const message = c.req.header('content-type') === 'application/octet-stream' ? body : new TextDecoder().decode(body);
  const key = c.req.header('idempotency-key');
  return c.json(await publish(topic, message, key === undefined ? {} : { idempotencyKey: key }));
});
app.get('/history/*', async (c) => c.json(await history(decodeURIComponent(c.req.path.slice('/history/'.length)), { limit: 1000 })));
app.post('/disconnect/*', async (c) => c.json(await disconnect({ topic: decodeURIComponent(c.req.path.slice('/disconnect/'.length)) }, 4001, 'enough')));
app.get('/route/:topic', (c) => topicEvents(c, c.req.param('topic'), { history: 5, heartbeat: 0, data: { name: c.req.query('name') } }));
const kept = { history: { size: 2000, seconds: 600 } };
export default defineGateway({
  $OPTIONS,
  fetch: app,
  drain: { timeout: 5 },
  http: { writeTimeout: 4, responseHighWaterBytes: 65536 },
  topics: {
    'log/:name': kept,
    'short/:name': { history: { size: 5, seconds: 600 } },
    'room/:name': { ...kept, presence: { grace: 0.2, member: ({ kind, data }) => (kind === 'sse' ? undefined : data) } },
    'closed/*': { ...kept, authorize: ({ kind, data }, topic, action) => kind === 'sse' && (data?.name === 'ann' || (topic === 'closed/past' && action !== 'history')) },
  },
  sse: {
    '/events': { topics: ['log/:name', 'short/:name', 'room/:name', 'closed/*', 'direct/*'], heartbeat: 1, maxTopics: 8 },
    '/shared': { topics: ['log/:name'], origins: ['https://a.example'] },
    '/open': { topics: ['log/:name'], origins: 'any' },
  },
  websocket: {
    '/room/:name': {
      upgrade: (request) => new URL(request.url).searchParams.get('user'),
      open: (socket) => socket.subscribe('room/' + socket.params.name),
    },
  },
});
`;

/** Certificates of a test are nobody's business. */
const insecure = { tls: { rejectUnauthorized: false } } as RequestInit;

interface Published {
  readonly epoch?: string;
  readonly offset?: number;
}

async function publish(
  gateway: Pick<Gateway, 'url'>,
  topic: string,
  body: string | Uint8Array,
  headers: Record<string, string> = {},
): Promise<Published> {
  const type = typeof body === 'string' ? 'text/plain' : 'application/octet-stream';
  const url = `${gateway.url}/publish/${encodeURIComponent(topic)}`;
  // As often as it takes: the worker that was asked may just have been killed. The key lets it happen once.
  const key = { 'idempotency-key': crypto.randomUUID() };
  return eventually(`${topic} is published`, async () => {
    const send = topic.startsWith('direct/') ? headers : { ...key, ...headers };
    const response = await fetch(url, {
      ...insecure,
      method: 'POST',
      body: body as string,
      headers: { 'content-type': type, ...send },
    }).catch(() => undefined);
    return response?.status === 200 ? ((await response.json()) as Published) : undefined;
  });
}

const opened: { close(): void }[] = [];
const open = async (url: string, init?: RequestInit) => {
  const stream = await EventStream.open(url, init);
  opened.push(stream);
  return stream;
};
afterAll(() => {
  for (const each of opened) each.close();
});

/** Subscribed: the id alone has come, or the event that says so. */
const ready = (stream: EventStream) =>
  eventually('the stream has begun', () => stream.lastId !== '' || stream.named('subscribed').length > 0);

/** End a worker in the middle of whatever it does, while the other one serves. */
async function killOne(gateway: Gateway): Promise<void> {
  const before = await eventually('both workers serve', async () => {
    const pids = await gateway.workerPids();
    return pids.length === 2 ? pids : undefined;
  });
  // In turn, so that each stream meets it.
  const pid = before[kills++ % 2] as number;
  process.kill(pid, 'SIGKILL');
  await eventually('it is gone', async () => !(await gateway.workerPids()).includes(pid));
}
let kills = 0;

let names = 0;
const fresh = (kind: string) => `${kind}/t${++names}`;
const range = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, index) => `m${from + index}`);

interface NpmEventSource {
  onmessage: ((event: { data: string; lastEventId: string }) => void) | null;
  onopen: (() => void) | null;
  close(): void;
}
/** By a name that the compiler does not look for: who has not run the set-up since it came has it not. */
const npm = (await import('eventsource'.slice()).catch(() => undefined)) as
  | { EventSource: new (url: string) => NpmEventSource }
  | undefined;

forEachBackend('topics as server-sent events', (backend) => {
  let gateway: Gateway;
  beforeAll(async () => {
    gateway = await startGateway({ backend, workers: 2, config });
  });
  afterAll(() => gateway?.stop());
  const events = (...topics: string[]) => `${gateway.url}/events?${topics.map((topic) => `topic=${encodeURIComponent(topic)}`).join('&')}`;

  test('every message comes with its position, whatever it is made of', async () => {
    const topic = fresh('log');
    const stream = await open(events(topic));
    expect(stream.response.headers.get('content-type')).toBe('text/event-stream');
    expect(stream.response.headers.get('cache-control')).toContain('no-store');
    expect(stream.response.headers.get('x-accel-buffering')).toBe('no');
    await ready(stream);
    const texts = ['hello', '', 'two\nlines', 'id: 7\n\nevent: x', ' space', 'ñandú 🎉', 'x'.repeat(100_000)];
    for (const text of texts) expect(await publish(gateway, topic, text)).toMatchObject({ epoch: expect.stringMatching(epochs) });
    await publish(gateway, topic, new Uint8Array([0, 1, 2, 255]));
    expect(await stream.has(texts.length)).toEqual(texts);
    expect(await stream.hasNamed('base64')).toEqual(['AAEC/w==']);
    const [epoch] = stream.lastId.split(':');
    expect(stream.events.map(({ id }) => id)).toEqual(range(1, 8).map((name) => `${epoch}:${name.slice(1)}`));
    expect(stream.reconnection).toBeGreaterThanOrEqual(500);
    await eventually('a comment', () => stream.comments > 0);
  });

  test('lines end as a client reads them', async () => {
    const topic = fresh('direct');
    const stream = await open(`${events(topic)}&subscribed=1`);
    await stream.hasNamed('subscribed');
    await publish(gateway, topic, 'a\r\nb\rc\n\r\nd');
    expect(await stream.has(1)).toEqual(['a\nb\nc\n\nd']);
    expect(stream.lastId).toBe('');
  });

  test('who comes back goes on where it was, by the header, the query, or what the page has written', async () => {
    const topic = fresh('log');
    for (const text of range(1, 5)) await publish(gateway, topic, text);
    const all = await open(`${events(topic)}&history=1000`);
    await all.has(5);
    const third = all.events[2]?.id as string;
    expect(third).toEndWith(':3');
    const again = await Promise.all([
      open(events(topic), { headers: { 'last-event-id': third } }),
      open(`${events(topic)}&lastEventId=${third}`),
      open(`${events(topic)}&since=${third}`),
      open(`${events(topic)}&since=${all.events[0]?.id}`, { headers: { 'last-event-id': third } }),
      open(`${events(topic)}&history=2`),
    ]);
    await publish(gateway, topic, 'm6');
    for (const stream of again) expect(await stream.has(3)).toEqual(range(4, 6));
    expect(await all.has(6)).toEqual(range(1, 6));
  });

  test('what is gone is told of, and never passed over in silence', async () => {
    const topic = fresh('short');
    for (const text of range(1, 12)) await publish(gateway, topic, text);
    const last = (await publish(gateway, topic, 'm13')) as Required<Published>;
    const at = (offset: number, epoch = last.epoch) => open(events(topic), { headers: { 'last-event-id': `${epoch}:${offset}` } });
    const late = await at(3);
    expect(JSON.parse((await late.hasNamed('lost'))[0] as string)).toMatchObject({ topic, lost: true });
    for (const stream of await Promise.all([
      at(99),
      at(3, 'ffffffffffffffff'),
      open(events(topic), { headers: { 'last-event-id': 'from elsewhere' } }),
    ])) {
      expect(JSON.parse((await stream.hasNamed('lost'))[0] as string)).toMatchObject({ topic, epoch: last.epoch, lost: true });
      await ready(stream);
      const before = stream.messages.length;
      await publish(gateway, topic, 'next');
      await eventually('the stream goes on', () => stream.messages.length > before);
      expect(stream.messages.at(-1)).toBe('next');
    }
    expect((await at(13)).named('lost')).toEqual([]);
    expect(await gateway.metric('ringway_sse_lost_total')).toBeGreaterThanOrEqual(4);
  });

  test('several topics on one stream: each event says which, and the id has the places of all', async () => {
    const [one, two, direct] = [fresh('log'), fresh('log'), fresh('direct')];
    for (const text of range(1, 3)) await publish(gateway, two, text);
    const stream = await open(`${events(one, two, direct)}&history=2&subscribed=1`);
    const [begun] = (await stream.hasNamed('subscribed')).map((data) => JSON.parse(data));
    expect(begun.topics.map(({ topic }: { topic: string }) => topic)).toEqual([one, two, direct]);
    await publish(gateway, one, 'a\nb');
    await publish(gateway, direct, 'c');
    await publish(gateway, two, 'm4');
    const messages = (await stream.has(5)).map((data) => JSON.parse(data));
    expect(messages.map(({ topic, offset, data }) => [topic, offset, data])).toEqual([
      [two, 2, 'm2'],
      [two, 3, 'm3'],
      [one, 1, 'a\nb'],
      [direct, undefined, 'c'],
      [two, 4, 'm4'],
    ]);
    const places = stream.lastId.split(',');
    expect(places.map((place) => place.split(':')[1])).toEqual(['1', '4', undefined]);
    stream.close();
    await publish(gateway, one, 'm2');
    await publish(gateway, two, 'm5');
    const back = await open(events(one, two, direct), { headers: { 'last-event-id': stream.lastId } });
    const missed = (await back.has(2)).map((data) => JSON.parse(data));
    expect(missed.map(({ topic, data }) => [topic, data])).toEqual([
      [one, 'm2'],
      [two, 'm5'],
    ]);
    // While it came back to the first, it did not forget where it was in the second.
    expect(back.events.map(({ id }) => id.split(',').map((place) => place.split(':')[1]))).toEqual([
      ['2', '4', undefined],
      ['2', '5', undefined],
    ]);
  });

  test('who is there, and then who comes and goes', async () => {
    const topic = fresh('room');
    const connect = async (user: string) => {
      const socket = new WebSocket(`${gateway.wsUrl}/${topic}?user=${user}`);
      await new Promise((resolve) => socket.addEventListener('open', resolve, { once: true }));
      return socket;
    };
    const ann = await connect('ann');
    const stream = await eventually('she is there', async () => {
      const found = await open(`${events(topic)}&presence=1`);
      const { users } = JSON.parse((await found.hasNamed('presence'))[0] as string) as { users: unknown[] };
      return users.length === 1 ? found : undefined;
    });
    expect(JSON.parse(stream.named('presence')[0] as string)).toEqual({ topic, count: 1, users: [{ id: 'ann', connections: 1 }] });
    const bob = await connect('bob');
    expect((await stream.hasNamed('join')).map((data) => JSON.parse(data))).toMatchObject([{ topic, event: 'join', user: 'bob' }]);
    ann.close();
    expect((await stream.hasNamed('leave')).map((data) => JSON.parse(data))).toMatchObject([{ topic, event: 'leave', user: 'ann' }]);
    await publish(gateway, topic, 'hello');
    expect(await stream.has(1)).toEqual(['hello']);
    expect(stream.lastId).toEndWith(':1');
    bob.close();
  });

  test('who may not have it is told so, and why', async () => {
    const answer = async (query: string, init: RequestInit = {}) => {
      const response = await fetch(`${gateway.url}${query}`, init);
      const { status } = response;
      const text = await response.text();
      return [status, text] as const;
    };
    expect(await answer('/events')).toEqual([400, expect.stringContaining('say which topic')]);
    expect(await answer('/events?topic=secret')).toEqual([404, expect.stringContaining('not streamed here')]);
    expect(await answer('/events?topic=log/a&presence=1')).toEqual([404, expect.stringContaining('who is on this topic')]);
    expect(await answer('/events?topic=closed/a')).toEqual([403, expect.stringContaining('not for you')]);
    expect(await answer('/events?topic=log/a&topic=closed/a')).toEqual([403, expect.stringContaining('not for you')]);
    expect(await answer('/events?topic=closed/past&history=1')).toEqual([403, expect.stringContaining('history')]);
    expect(await answer('/route/closed%2Fa')).toEqual([403, expect.stringContaining('not for you')]);
    expect(await answer('/events?topic=log/a', { headers: { accept: 'text/html' } })).toEqual([
      406,
      expect.stringContaining('text/event-stream'),
    ]);
    expect(await answer('/events?topic=log/a', { method: 'POST', body: 'x' })).toEqual([405, expect.any(String)]);
    expect(await answer('/events?topic=log/a', { headers: { origin: 'https://evil.example' } })).toEqual([
      403,
      expect.stringContaining('Forbidden'),
    ]);
    const many = Array.from({ length: 9 }, (_, index) => `topic=log/${index}`).join('&');
    expect(await answer(`/events?${many}`)).toEqual([400, expect.stringContaining('at most 8')]);
    expect(await answer(`/events?topic=log/${'x'.repeat(1019)}`)).toEqual([400, expect.any(String)]);
    await eventually('nothing is left of them', async () => (await gateway.metric('ringway_sse_refused_total')) >= 10);
  });

  test('pages of other hosts read it where the config lets them', async () => {
    const headers = { origin: 'https://a.example' };
    const shared = await open(`${gateway.url}/shared?topic=log/a`, { headers });
    expect(shared.response.headers.get('access-control-allow-origin')).toBe('https://a.example');
    expect(shared.response.headers.get('access-control-allow-credentials')).toBe('true');
    expect(shared.response.headers.get('vary')).toBe('origin');
    expect((await open(`${gateway.url}/open?topic=log/a`, { headers })).response.headers.get('access-control-allow-origin')).toBe('*');
    const refused = await fetch(`${gateway.url}/shared?topic=log/a`, { headers: { origin: 'https://b.example' } });
    expect([refused.status, refused.headers.get('access-control-allow-origin')]).toEqual([403, null]);
    const preflight = await fetch(`${gateway.url}/shared`, {
      method: 'OPTIONS',
      headers: { ...headers, 'access-control-request-method': 'GET', 'access-control-request-headers': 'last-event-id' },
    });
    expect([preflight.status, preflight.headers.get('access-control-allow-headers')]).toEqual([
      204,
      expect.stringContaining('last-event-id'),
    ]);
  });

  test('a route streams a topic to whom its policy lets in', async () => {
    const topic = fresh('closed');
    for (const text of range(1, 7)) await publish(gateway, topic, text);
    const stream = await open(`${gateway.url}/route/${encodeURIComponent(topic)}?name=ann`);
    await stream.has(5);
    await publish(gateway, topic, 'm8');
    expect(await stream.has(6)).toEqual(range(3, 8));
  });

  test('a program ends the streams of a topic, over all workers, and says why', async () => {
    const [topic, other] = [fresh('log'), fresh('log')];
    const streams = await Promise.all([1, 2, 3, 4].map(() => open(events(topic))));
    const spared = await open(events(other));
    for (const stream of [...streams, spared]) await ready(stream);
    const response = await fetch(`${gateway.url}/disconnect/${encodeURIComponent(topic)}`, { method: 'POST' });
    expect(await response.json()).toBe(4);
    for (const stream of streams) {
      await stream.ended();
      expect(stream.named('closed').map((data) => JSON.parse(data))).toEqual([{ code: 4001, reason: 'enough' }]);
    }
    await publish(gateway, other, 'm1');
    expect(await spared.has(1)).toEqual(['m1']);
  });

  test('HEAD says what GET would be, and HTTP/1.0 streams until its connection ends', async () => {
    const topic = fresh('log');
    const path = `/events?topic=${topic}`;
    const client = await RawClient.connect({ port: gateway.port });
    client.write(`HEAD ${path} HTTP/1.1\r\nHost: a\r\n\r\nGET /history/${topic} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`);
    const text = (await client.closed()).toString();
    expect(text).toStartWith('HTTP/1.1 200 OK\r\n');
    expect(text.match(/HTTP\/1\.1 200 OK/g)).toHaveLength(2);
    const old = await RawClient.connect({ port: gateway.port });
    old.write(`GET ${path} HTTP/1.0\r\nHost: a\r\n\r\n`);
    await eventually('it has begun', () => old.received.includes('cache-control'));
    await eventually('it is subscribed', async () => (await gateway.metric('ringway_subscriptions')) >= 1);
    await publish(gateway, topic, 'plain');
    await eventually('the message', () => old.received.includes('\ndata: plain\n\n'));
    expect(old.received.toString()).not.toContain('chunked');
    old.destroy();
  });

  test('curl -N prints each event as it comes', async () => {
    const topic = fresh('log');
    const curl = new RunningProgram(['curl', '--silent', '--no-buffer', events(topic)]);
    await curl.finds(/id: [0-9a-f]{16}:0\n/);
    await publish(gateway, topic, 'over the wire\nin two lines');
    await curl.finds(/id: [0-9a-f]{16}:1\ndata: over the wire\ndata: in two lines\n\n/);
    await curl.stop();
  });

  test.skipIf(npm === undefined)(
    'what EventSource of npm hears is complete, in order and once, however often its worker is killed',
    async () => {
      const topic = fresh('log');
      const heard: string[] = [];
      const source = new (npm as NonNullable<typeof npm>).EventSource(events(topic));
      source.onmessage = ({ data }) => void heard.push(data);
      opened.push(source);
      await eventually('it is subscribed', async () => (await gateway.metric('ringway_sse_streams')) >= 1);
      let published = 0;
      const say = async (count: number) => {
        for (let i = 0; i < count; i++) await publish(gateway, topic, `m${++published}`);
      };
      await say(10);
      for (let killed = 0; killed < 4; killed++) {
        await killOne(gateway);
        await say(10);
      }
      await eventually(`all of ${published} have come, not ${heard.length}`, () => heard.length >= published, 60_000);
      expect(heard).toEqual(range(1, published));
    },
  );

  test('a reload ends streams in time, and their clients miss nothing', async () => {
    const topic = fresh('log');
    const streams = await Promise.all(range(1, 6).map(() => open(events(topic))));
    for (const stream of streams) await ready(stream);
    await publish(gateway, topic, 'm1');
    gateway.kill('SIGHUP');
    for (const stream of streams) await stream.ended();
    for (const text of range(2, 4)) await publish(gateway, topic, text);
    for (const stream of streams) {
      expect(stream.messages).toEqual(['m1']);
      const back = await open(events(topic), { headers: { 'last-event-id': stream.lastId } });
      expect(await back.has(3)).toEqual(range(2, 4));
    }
  });

  test('one that reads slowly gets all of it, and holds nobody up', async () => {
    const [topic, quick] = [fresh('log'), fresh('log')];
    const slow = await RawClient.connect({ port: gateway.port });
    slow.write(`GET /events?topic=${topic} HTTP/1.1\r\nHost: a\r\n\r\n`);
    await eventually('it has begun', () => slow.received.includes(':0\n\n'));
    slow.pause();
    const other = await open(events(topic, quick));
    await ready(other);
    const filler = 'x'.repeat(20_000);
    for (const text of range(1, 600)) await publish(gateway, topic, `${text} ${filler}`);
    await other.has(600);
    slow.resume();
    await eventually('the last one', () => slow.received.includes('data: m600 '), 60_000);
    const heard = [...slow.received.toString('latin1').matchAll(/data: (m\d+) /g)].map(([, name]) => name);
    expect(heard).toEqual(range(1, 600));
    slow.destroy();
  });

  test('one that reads nothing is given up', async () => {
    const topic = fresh('log');
    const stuck = await RawClient.connect({ port: gateway.port });
    stuck.write(`GET /events?topic=${topic} HTTP/1.1\r\nHost: a\r\n\r\n`);
    await eventually('it has begun', () => stuck.received.includes(':0\n\n'));
    stuck.pause();
    const before = await gateway.metric('ringway_timeouts_total', { kind: 'write' });
    const filler = 'y'.repeat(100_000);
    for (let i = 0; i < 120; i++) await publish(gateway, topic, filler);
    await eventually('it has run out of time', async () => (await gateway.metric('ringway_timeouts_total', { kind: 'write' })) > before);
    stuck.destroy();
  });
});

describe('through proxies', () => {
  let gateway: Gateway;
  let nginx: Nginx | undefined;
  let balancer: Balancer | undefined;
  beforeAll(async () => {
    gateway = await startGateway({ config, workers: 2 });
  });
  afterAll(async () => {
    await nginx?.stop();
    await balancer?.stop();
    await gateway?.stop();
  });

  /** Two streams of one proxy: events come as they happen, and again from where a client was. */
  async function streams(url: string): Promise<void> {
    const topic = fresh('log');
    const stream = await open(`${url}/events?topic=${topic}`);
    await ready(stream);
    for (const text of range(1, 3)) {
      await publish(gateway, topic, text);
      await eventually(`${text} is there`, () => stream.messages.includes(text));
    }
    await eventually('comments come through', () => stream.comments > 0);
    stream.close();
    await publish(gateway, topic, 'm4');
    const back = await open(`${url}/events?topic=${topic}`, { headers: { 'last-event-id': stream.lastId } });
    expect(await back.has(1)).toEqual(['m4']);
    back.close();
    await eventually('it is gone at the gateway', async () => (await gateway.metric('ringway_sse_streams')) === 0);
  }

  test.skipIf(!hasNginx())('nginx', async () => {
    nginx = await startNginx({
      plain: { lines: ['location / {', '  proxy_http_version 1.1;', `  proxy_pass http://127.0.0.1:${gateway.port};`, '}'] },
      old: { lines: ['location / {', `  proxy_pass http://127.0.0.1:${gateway.port};`, '}'] },
    });
    await streams(`http://127.0.0.1:${nginx.ports.plain}`);
    await streams(`http://127.0.0.1:${nginx.ports.old}`);
  });

  test.skipIf(!hasBalancer())('haproxy', async () => {
    balancer = await startBalancer({ http: { mode: 'http', server: `127.0.0.1:${gateway.port}` } });
    await streams(`http://127.0.0.1:${balancer.ports.http}`);
  });
});

test('a client that comes back to another node goes on where it was, in all of its topics', async () => {
  const redis = await startRedis();
  const start = () => startGateway({ config, workers: 2, env: { REDIS_URL: redis.url } });
  const [near, far] = await Promise.all([start(), start()]);
  try {
    const [one, two] = [fresh('log'), fresh('log')];
    const query = `/events?topic=${one}&topic=${two}&subscribed=1`;
    const heard: string[] = [];
    let stream = await open(`${far.url}${query}`);
    await stream.hasNamed('subscribed');
    const said: string[] = [];
    const say = async (count: number) => {
      for (let i = 0; i < count; i++) {
        const text = `m${said.length + 1}`;
        said.push(text);
        await publish(near, said.length % 2 === 0 ? one : two, text);
      }
    };
    const texts = () => stream.messages.map((data) => (JSON.parse(data) as { data: string }).data);
    await say(10);
    await stream.has(10);
    heard.push(...texts());
    // The node is gone with all of its processes.
    await far.stop();
    await stream.ended();
    await say(10);
    stream = await open(`${near.url}${query}`, { headers: { 'last-event-id': stream.lastId } });
    await say(10);
    await stream.has(20);
    heard.push(...texts());
    const ofTopic = (which: number) => (text: string) => Number(text.slice(1)) % 2 === which;
    // Each topic in its order, and once.
    for (const which of [0, 1]) expect(heard.filter(ofTopic(which))).toEqual(said.filter(ofTopic(which)));
    expect(stream.named('lost')).toEqual([]);
  } finally {
    await Promise.all([near.stop(), far.stop()]);
    await redis.dispose();
  }
});

test('over nodes too a stream is told once who is there, whether it is a member itself or not', async () => {
  const redis = await startRedis();
  const ofMembers = config.replace("kind === 'sse' ? undefined : data", "kind === 'sse' ? 'stream' : data");
  expect(ofMembers).not.toBe(config);
  const start = (config: string) => startGateway({ config, workers: 1, env: { REDIS_URL: redis.url } });
  const nodes = await Promise.all([start(config), start(ofMembers)]);
  try {
    for (const [index, node] of nodes.entries()) {
      const topic = fresh('room');
      const stream = await open(`${node.url}/events?topic=${topic}&presence=1&subscribed=1`);
      await stream.hasNamed('subscribed');
      const lists = stream.named('presence').map((data) => (JSON.parse(data) as { count: number }).count);
      expect(lists).toEqual([index]);
    }
  } finally {
    for (const node of nodes) await node.stop();
    await redis.dispose();
  }
});

test('who must show a token has a stream as long as that', async () => {
  const secret = 'a secret of thirty-two bytes, at least';
  const gateway = await startGateway({
    config: `
      import { defineGateway } from 'ringway';
      export default defineGateway({
        $OPTIONS,
        auth: { jwt: { secret: ${JSON.stringify(secret)} }, cookie: 'token' },
        topics: { 'log/:name': { history: { size: 10, seconds: 60 }, authorize: ({ user }) => user?.id !== 'mallory' }, 'own/:name': { token: true } },
        sse: {
          '/events': { topics: ['log/:name', 'own/:name'] },
          '/some': { topics: ['log/:name'], auth: 'optional' },
          '/all': { topics: ['log/:name'], auth: false },
        },
      });
    `,
  });
  try {
    const now = Math.floor(Date.now() / 1000);
    const token = (sub: string, more: object = {}) => sign({ sub, exp: now + 600, ...more }, secret, 'HS256');
    const status = async (path: string, headers: Record<string, string> = {}) => {
      const stream = await open(`${gateway.url}${path}`, { headers });
      return stream.response.status;
    };
    const bearer = async (sub: string, more?: object) => ({ authorization: `Bearer ${await token(sub, more)}` });
    expect(await status('/events?topic=log/a')).toBe(401);
    expect(await status('/events?topic=log/a', { authorization: 'Bearer nonsense' })).toBe(401);
    expect(await status('/events?topic=log/a', await bearer('ann'))).toBe(200);
    expect(await status('/events?topic=log/a', { cookie: `token=${await token('ann')}` })).toBe(200);
    expect(await status('/events?topic=log/a', await bearer('mallory'))).toBe(403);
    expect(await status('/some?topic=log/a')).toBe(200);
    expect(await status('/some?topic=log/a', { authorization: 'Bearer nonsense' })).toBe(401);
    expect(await status('/all?topic=log/a', { authorization: 'Bearer nonsense' })).toBe(200);
    expect(await status('/events?topic=own/a', await bearer('ann'))).toBe(401);
    const ofTopic = await token('ann', { topics: ['own/a'] });
    expect(await status('/events?topic=own/a', { ...(await bearer('ann')), 'topic-token': ofTopic })).toBe(200);
    expect(await status(`/events?topic=own/a&topicToken=${ofTopic}`, await bearer('ann'))).toBe(200);
    expect(await status(`/events?topic=own/b&topicToken=${ofTopic}`, await bearer('ann'))).toBe(401);
    const short = await open(`${gateway.url}/events?topic=log/a`, {
      headers: await bearer('ann', { exp: Math.ceil(Date.now() / 1000) + 2 }),
    });
    expect(short.response.status).toBe(200);
    await short.ended();
    expect(gateway.output()).not.toContain(ofTopic);
  } finally {
    await gateway.stop();
  }
});

test('TLS', async () => {
  const authority = createAuthority();
  const { cert, key } = authority.issue('localhost', 'DNS:localhost');
  const listen = `{ port: 0, host: '127.0.0.1', tls: { cert: 'cert.pem', key: 'key.pem' } }`;
  const gateway = await startGateway({ config, listen, files: { 'cert.pem': cert, 'key.pem': key } });
  try {
    const https = { url: `https://localhost:${gateway.port}` };
    const topic = fresh('log');
    const stream = await open(`${https.url}/events?topic=${topic}`, insecure);
    await ready(stream);
    const long = 'z'.repeat(300_000);
    for (const text of ['m1', long, 'm3']) await publish(https, topic, text);
    expect(await stream.has(3)).toEqual(['m1', long, 'm3']);
    await eventually('a comment', () => stream.comments > 0);
  } finally {
    await gateway.stop();
    authority.dispose();
  }
});

describe.skipIf(!existsSync(browserPath))('the EventSource of a browser', () => {
  let gateway: Gateway;
  let browser: Browser;
  beforeAll(async () => {
    gateway = await startGateway({ config, workers: 2 });
    browser = await chromium.launch({
      executablePath: browserPath,
      args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic'],
    });
  });
  afterAll(async () => {
    await browser?.close();
    await gateway?.stop();
  });

  test('hears everything once while its workers are killed and a reload passes', async () => {
    const topic = fresh('log');
    const page = await browser.newPage();
    await page.goto(`${gateway.url}/history/${topic}`);
    // As text: it is the browser's EventSource, and not the one that this process knows.
    await page.evaluate(`new Promise((resolve) => {
      globalThis.heard = [];
      const source = new EventSource('/events?topic=${encodeURIComponent(topic)}');
      source.onmessage = ({ data, lastEventId }) => heard.push([data, lastEventId]);
      source.addEventListener('lost', () => heard.push(['lost', '']));
      source.onopen = () => resolve();
    })`);
    const heard = () => page.evaluate('heard') as Promise<[string, string][]>;
    let published = 0;
    const say = async (count: number) => {
      for (let i = 0; i < count; i++) await publish(gateway, topic, `m${++published}`);
    };
    await say(5);
    for (let killed = 0; killed < 3; killed++) {
      await killOne(gateway);
      await say(5);
    }
    gateway.kill('SIGHUP');
    await say(10);
    await eventually('all have come', async () => (await heard()).length >= published, 60_000);
    const all = await heard();
    expect(all.map(([data]) => data)).toEqual(range(1, published));
    expect(all.map(([, id]) => Number(id.split(':')[1]))).toEqual(all.map((_, index) => index + 1));
    await page.close();
  });
});
