/**
 * Topics over the admin listener of real gateways: where messages lie, what is remembered, who is there, and who is sent away; over workers that die and
 * hang, and over reloads.
 */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test';
import { eventually } from '../support/eventually.ts';
import { type RedisServer, startRedis } from '../support/redis-servers.ts';
import { type Operated, startOperated } from '../support/ringway-command.ts';
import { secret, tokenOf } from '../support/tokens.ts';

// Only ends a test that has failed: nothing here is measured in time.
setDefaultTimeout(90_000);

const configWith = (more = '') => `
import { defineGateway } from 'ringway';
export default defineGateway({
  $OPTIONS,${more}
  fetch: async (request) => {
    // Hangs this worker: for a test.
    if (new URL(request.url).pathname === '/hang') for (const until = Date.now() + 4000; Date.now() < until; );
    return new Response(String(process.pid));
  },
  topics: {
    'room/:name': {
      history: { size: 100, seconds: 300 },
      presence: { grace: 0, member: (client) => client.data.user === 'ann' ? { id: 'ann', info: { from: client.params.name } } : client.data.user },
    },
    'short/:name': { history: { size: 3, seconds: 300 } },
  },
  websocket: {
    '/join': {
      upgrade: (request) => Object.fromEntries(new URL(request.url).searchParams),
      open(socket) {
        socket.subscribe(socket.data.topic);
        socket.sendJson({ id: socket.id, pid: process.pid });
      },
    },
  },
});
`;

const config = configWith();

const json = 'application/json';

interface Client {
  /** Its socket.id. */
  readonly id: string;
  /** Of its worker. */
  readonly pid: number;
  readonly got: string[];
  /** What it was closed with. */
  closed(): readonly [code: number, reason: string] | undefined;
  close(): void;
}

const join = (gateway: Operated, topic: string, user: string) =>
  open(() => new WebSocket(`${gateway.wsUrl}/join?${new URLSearchParams({ topic, user })}`));

async function open(connect: () => WebSocket): Promise<Client> {
  const socket = connect();
  const got: string[] = [];
  let hello: { id: string; pid: number } | undefined;
  let closed: readonly [number, string] | undefined;
  socket.addEventListener('message', ({ data }) => {
    if (hello === undefined) hello = JSON.parse(String(data));
    else got.push(typeof data === 'string' ? data : 'bytes');
  });
  socket.addEventListener('close', ({ code, reason }) => {
    closed = [code, reason];
  });
  await eventually('it has joined', () => hello !== undefined);
  return { ...(hello as { id: string; pid: number }), got, closed: () => closed, close: () => socket.close() };
}

/** Clients of a topic, until every worker has one. */
async function joinAll(gateway: Operated, topic: string, user: string): Promise<Client[]> {
  const pids = await gateway.workerPids();
  const all: Client[] = [];
  while (!pids.every((pid) => all.some((client) => client.pid === pid))) all.push(await join(gateway, topic, user));
  return all;
}

interface Answer {
  readonly status: number;
  // biome-ignore lint/suspicious/noExplicitAny: whatever came as JSON
  readonly body: any;
}
const read = async (gateway: Operated, path: string): Promise<Answer> => {
  const response = await fetch(gateway.adminUrl + path);
  return { status: response.status, body: await response.json() };
};
const write = async (gateway: Operated, path: string, value: unknown): Promise<Answer> => {
  const response = await gateway.post(path, JSON.stringify(value), json);
  return { status: response.status, body: await response.json() };
};
const publish = async (gateway: Operated, topic: string, data: string, key?: string): Promise<Answer> => {
  const response = await fetch(`${gateway.adminUrl}/publish/${topic}`, {
    method: 'POST',
    headers: {
      authorization: `Bearer ${gateway.token()}`,
      'content-type': 'text/plain',
      ...(key === undefined ? {} : { 'idempotency-key': key }),
    },
    body: data,
  });
  return { status: response.status, body: await response.json() };
};

describe('a gateway with two workers', () => {
  let gateway: Operated;
  beforeAll(async () => {
    gateway = await startOperated({ workers: 2, config });
  });
  afterAll(() => gateway?.stop());

  test('a message to a topic with history has a position, one to another topic has none', async () => {
    const first = await publish(gateway, 'room/positions', 'one');
    expect(first).toEqual({ status: 200, body: { published: 1, epoch: expect.stringMatching(/^[0-9a-f]{16}$/), offset: 1 } });
    const { epoch } = first.body;
    expect((await publish(gateway, 'room%2Fpositions', 'two')).body).toEqual({ published: 1, epoch, offset: 2 });
    expect((await publish(gateway, 'plain', 'x')).body).toEqual({ published: 1 });
    const many = await write(gateway, '/publish', {
      messages: [
        { topic: 'room/positions', data: 'three' },
        { topic: 'plain', data: 'x' },
        { topic: 'room/positions', data: 'AP8=', encoding: 'base64' },
      ],
    });
    expect(many.body).toEqual({ published: 3, positions: [{ epoch, offset: 3 }, null, { epoch, offset: 4 }] });
    expect((await read(gateway, '/topics/room/positions/history')).body).toEqual({
      epoch,
      offset: 4,
      recovered: true,
      messages: [
        { offset: 1, data: 'one' },
        { offset: 2, data: 'two' },
        { offset: 3, data: 'three' },
        { offset: 4, base64: 'AP8=' },
      ],
    });
  });

  test('history is read from a position on, from its end, and in parts; both ways to write the topic are one', async () => {
    const epoch = (await publish(gateway, 'short/a', '1')).body.epoch as string;
    for (let number = 2; number <= 5; number++) await publish(gateway, 'short/a', String(number));
    const offsets = async (query: string, topic = 'short/a') => {
      const { body } = await read(gateway, `/topics/${topic}/history${query}`);
      return [body.recovered, body.offset, body.messages.map(({ offset }: { offset: number }) => offset)];
    };
    for (const topic of ['short/a', 'short%2Fa', 'short%2fa']) expect(await offsets('', topic)).toEqual([true, 5, [3, 4, 5]]);
    expect(await offsets(`?since=${epoch}:3`)).toEqual([true, 5, [4, 5]]);
    expect(await offsets(`?since=${epoch}:2&limit=1`)).toEqual([true, 5, [3]]);
    expect(await offsets(`?since=${epoch}:5`)).toEqual([true, 5, []]);
    expect(await offsets('?reverse=true&limit=2')).toEqual([true, 5, [5, 4]]);
    expect(await offsets(`?since=${epoch}:5&reverse=true`)).toEqual([true, 5, [4, 3]]);
    expect(await offsets('?limit=0')).toEqual([true, 5, []]);
    // What is gone, of another life, or not there yet.
    expect((await offsets(`?since=${epoch}:1`))[0]).toBe(false);
    expect((await offsets('?since=00000000000000ab:3'))[0]).toBe(false);
    expect((await offsets(`?since=${epoch}:99`))[0]).toBe(false);
    expect((await read(gateway, '/topics/short/never/history')).body).toEqual({
      epoch: '0'.repeat(16),
      offset: 0,
      recovered: true,
      messages: [],
    });
  });

  test('a message with a key is there once, however often and from wherever it is sent', async () => {
    const client = await join(gateway, 'room/keys', 'bob');
    const first = await publish(gateway, 'room/keys', 'once', 'k-1');
    const again = await Promise.all(Array.from({ length: 10 }, () => publish(gateway, 'room/keys', 'once', 'k-1')));
    for (const answer of again) expect(answer).toEqual(first);
    const other = await write(gateway, '/publish', { topic: 'room/keys', data: 'another', idempotencyKey: 'k-2' });
    expect(other.body.offset).toBe(first.body.offset + 1);
    await eventually('both have come', () => client.got.length >= 2);
    expect(client.got).toEqual(['once', 'another']);
    const refused = await publish(gateway, 'plain', 'x', 'k-3');
    expect([refused.status, refused.body.error]).toEqual([400, expect.stringContaining('history')]);
    client.close();
  });

  test('presence counts users over workers, with their connections', async () => {
    const ann = await joinAll(gateway, 'room/presence', 'ann');
    const bob = await join(gateway, 'room/presence', 'bob');
    const { body } = await read(gateway, '/topics/room/presence/presence');
    expect([body.count, body.users.toSorted((a: { id: string }, b: { id: string }) => (a.id < b.id ? -1 : 1))]).toEqual([
      2,
      [
        { id: 'ann', connections: ann.length, info: { from: 'presence' } },
        { id: 'bob', connections: 1 },
      ],
    ]);
    expect((await read(gateway, '/topics/room%2Fpresence/presence?limit=1')).body).toMatchObject({ count: 2, users: [{}] });
    expect((await read(gateway, '/topics/room/presence/subscribers')).body).toEqual({ subscribers: ann.length + 1 });
    for (const client of [...ann, bob]) client.close();
    await eventually('all have left', async () => (await read(gateway, '/topics/room/presence/presence')).body.count === 0);
    expect((await read(gateway, '/topics/room/presence/presence')).body).toEqual({ count: 0, users: [] });
  });

  test('topics that have subscribers are listed, those of the gateway itself never', async () => {
    const clients = [await join(gateway, 'list/b', 'x'), await join(gateway, 'list/a', 'x'), await join(gateway, 'room/list', 'x')];
    expect((await read(gateway, '/topics?prefix=list%2F')).body).toEqual({ topics: ['list/a', 'list/b'] });
    expect((await read(gateway, '/topics?prefix=list/&limit=1')).body).toEqual({ topics: [expect.stringMatching(/^list\/[ab]$/)] });
    const { topics } = (await read(gateway, '/topics')).body as { topics: string[] };
    expect(topics).toEqual(expect.arrayContaining(['list/a', 'list/b', 'room/list']));
    expect(topics.filter((topic) => topic.startsWith('\0'))).toEqual([]);
    for (const client of clients) client.close();
  });

  test('a topic, and one socket, are sent away with a code and a reason; members leave at once', async () => {
    const all = await joinAll(gateway, 'room/away', 'ann');
    const [first, ...others] = all;
    const one = await write(gateway, '/disconnect', { socket: first?.id, code: 4001, reason: 'you' });
    expect(one).toEqual({ status: 200, body: { disconnected: 1 } });
    await eventually('it is closed', () => first?.closed() !== undefined);
    expect(first?.closed()).toEqual([4001, 'you']);
    expect(others.every((client) => client.closed() === undefined)).toBe(true);
    expect((await write(gateway, '/disconnect', { socket: first?.id })).body).toEqual({ disconnected: 0 });
    expect((await write(gateway, '/disconnect', { topic: 'room/away', code: 4002, reason: 'all' })).body).toEqual({
      disconnected: others.length,
    });
    await eventually('all are closed', () => others.every((client) => client.closed() !== undefined));
    expect(others.map((client) => client.closed())).toEqual(others.map(() => [4002, 'all']));
    expect((await read(gateway, '/topics/room/away/presence')).body).toEqual({ count: 0, users: [] });
  });

  test('a batch does all in order, and each sees what those before have done', async () => {
    const client = await join(gateway, 'room/batch', 'bob');
    const { status, body } = await write(gateway, '/batch', {
      operations: [
        { operation: 'publish', topic: 'room/batch', data: 'a' },
        { operation: 'publish', topic: 'room/batch', data: 'b' },
        { operation: 'history', topic: 'room/batch' },
        { operation: 'presence', topic: 'room/batch' },
        { operation: 'history', topic: 'plain' },
        { operation: 'disconnect', socket: client.id, code: 4003 },
        { operation: 'subscribers', topic: 'room/batch' },
        { operation: 'publish', topic: 'room/batch', data: 'c' },
      ],
    });
    const epoch = body.results[0].epoch;
    expect([status, body.results]).toEqual([
      200,
      [
        { published: 1, epoch, offset: 1 },
        { published: 1, epoch, offset: 2 },
        {
          epoch,
          offset: 2,
          recovered: true,
          messages: [
            { offset: 1, data: 'a' },
            { offset: 2, data: 'b' },
          ],
        },
        { count: 1, users: [{ id: 'bob', connections: 1 }] },
        { error: expect.stringContaining('history'), status: 404 },
        { disconnected: 1 },
        { subscribers: 0 },
        { published: 1, epoch, offset: 3 },
      ],
    ]);
    await eventually('it is closed', () => client.closed() !== undefined);
    expect([client.got, client.closed()?.[0]]).toEqual([['a', 'b'], 4003]);
  });

  test('topics outside every policy, and what is not in order', async () => {
    expect(await read(gateway, '/topics/plain/history')).toEqual({
      status: 404,
      body: { error: expect.stringContaining('policy with history') },
    });
    expect(await read(gateway, '/topics/short/a/presence')).toEqual({
      status: 404,
      body: { error: expect.stringContaining('policy with presence') },
    });
    expect((await read(gateway, '/topics/room/a/history?since=5')).status).toBe(400);
    expect((await write(gateway, '/disconnect', {})).status).toBe(400);
    expect((await fetch(`${gateway.adminUrl}/disconnect`, { method: 'POST', body: '{}' })).status).toBe(401);
    expect((await fetch(`${gateway.adminUrl}/batch`, { method: 'POST', body: '{}' })).status).toBe(401);
  });

  test('commands ask the same', async () => {
    const epoch = (await publish(gateway, 'room/cli', 'hällo')).body.epoch as string;
    const client = await join(gateway, 'room/cli', 'ann');
    const run = async (...words: string[]) => {
      const { exitCode, out, err } = await gateway.run(words);
      return [exitCode, out.trimEnd(), err];
    };
    expect(await run('publish', 'room/cli', 'again', '--key', 'k')).toEqual([0, `published to room/cli at ${epoch}:2`, '']);
    expect(await run('publish', 'room/cli', 'again', '--key', 'k')).toEqual([0, `published to room/cli at ${epoch}:2`, '']);
    expect(await run('history', 'room/cli')).toEqual([0, `${epoch}:2\n  1  hällo\n  2  again`, '']);
    expect(await run('presence', 'room/cli')).toEqual([0, '1 user\n  ann  1 connection  {"from":"cli"}', '']);
    expect(await run('topics', 'room/cl')).toEqual([0, 'room/cli', '']);
    expect(await run('subscribers', 'room/cli')).toEqual([0, '1', '']);
    expect(await run('disconnect', '--socket', client.id, '--code', '4004')).toEqual([0, 'disconnected 1 connection', '']);
    await eventually('it is closed', () => client.closed()?.[0] === 4004);
    const [exitCode, , err] = await run('history', 'plain');
    expect([exitCode, err]).toEqual([1, expect.stringContaining('refuses (404)')]);
  });
});

test('a user is sent to, and sent away, wherever they are connected, and nobody else', async () => {
  const gateway = await startOperated({
    workers: 2,
    config: `
import { defineGateway } from 'ringway';
export default defineGateway({
  $OPTIONS,
  auth: { jwt: { secret: '${secret}' } },
  websocket: { '/': { open: (socket) => socket.sendJson({ id: socket.id, pid: process.pid }) } },
});
`,
  });
  const connect = async (user: string) => {
    const token = await tokenOf({ sub: user });
    return open(() => new WebSocket(gateway.wsUrl, { headers: { authorization: `Bearer ${token}` } } as never));
  };
  try {
    const pids = await gateway.workerPids();
    const ann: Client[] = [];
    while (!pids.every((pid) => ann.some((client) => client.pid === pid))) ann.push(await connect('ann/é'));
    const bob = await connect('bob');
    const path = `/users/${encodeURIComponent('ann/é')}/send`;
    const sent = await gateway.post(path, 'hällo', 'text/plain');
    expect([sent.status, await sent.json()]).toEqual([200, { sent: 1 }]);
    expect((await gateway.post(path, new Uint8Array([0, 255]), 'application/octet-stream')).status).toBe(200);
    const batch = await write(gateway, '/batch', { operations: [{ operation: 'send', user: 'ann/é', data: 'last' }] });
    expect(batch.body).toEqual({ results: [{ sent: 1 }] });
    expect((await gateway.post('/users/nobody/send', 'x', 'text/plain')).status).toBe(200);
    await eventually('all have it', () => ann.every(({ got }) => got.length >= 3));
    expect(ann.map(({ got }) => got.toSorted())).toEqual(ann.map(() => ['bytes', 'hällo', 'last']));
    expect((await gateway.run(['send', 'bob', 'from a terminal'])).out).toBe('sent to bob\n');
    await eventually('bob has it', () => bob.got.length > 0);
    expect(bob.got).toEqual(['from a terminal']);
    expect((await write(gateway, '/disconnect', { user: 'ann/é', code: 4001, reason: 'signed out' })).body).toEqual({
      disconnected: ann.length,
    });
    await eventually('all are closed', () => ann.every((client) => client.closed() !== undefined));
    expect(ann.map((client) => client.closed())).toEqual(ann.map(() => [4001, 'signed out']));
    expect(bob.closed()).toBeUndefined();
  } finally {
    await gateway.stop();
  }
});

describe('two nodes that share a Redis', () => {
  let redis: RedisServer;
  let nodes: readonly [Operated, Operated];
  beforeAll(async () => {
    redis = await startRedis();
    const joined = configWith(`\n  redis: { url: '${redis.url}', linger: 1, probeInterval: 0.2 },`);
    nodes = await Promise.all([startOperated({ config: joined }), startOperated({ config: joined })]);
    for (const { adminUrl } of nodes)
      await eventually('it reaches Redis', async () => (await (await fetch(`${adminUrl}/readyz`)).text()).includes('"redis":"up"'));
  });
  afterAll(async () => {
    await Promise.all((nodes ?? []).map((node) => node.stop()));
    await redis?.dispose();
  });

  test('positions, histories and keys are the same on both', async () => {
    const [first, second] = nodes;
    const { epoch } = (await publish(first, 'room/both', 'one', 'k-1')).body;
    expect((await publish(second, 'room/both', 'two')).body).toEqual({ published: 1, epoch, offset: 2 });
    expect((await publish(second, 'room/both', 'one', 'k-1')).body).toEqual({ published: 1, epoch, offset: 1 });
    for (const node of nodes)
      expect((await read(node, `/topics/room/both/history?since=${epoch}:0`)).body).toEqual({
        epoch,
        offset: 2,
        recovered: true,
        messages: [
          { offset: 1, data: 'one' },
          { offset: 2, data: 'two' },
        ],
      });
  });

  test('who is there, who is subscribed, and which topics there are, is told by either; and whom one of them sends away has left', async () => {
    const [first, second] = nodes;
    const clients = [
      await join(first, 'room/there', 'ann'),
      await join(second, 'room/there', 'ann'),
      await join(second, 'room/there', 'bob'),
    ];
    const users = [
      { id: 'ann', connections: 2, info: { from: 'there' } },
      { id: 'bob', connections: 1 },
    ];
    for (const node of nodes) {
      await eventually('all are there', async () => {
        const { body } = await read(node, '/topics/room/there/presence');
        const connections = (body.users as { connections: number }[]).reduce((sum, user) => sum + user.connections, 0);
        return connections === 3;
      });
      const { body } = await read(node, '/topics/room/there/presence');
      expect([body.count, body.users.toSorted((a: { id: string }, b: { id: string }) => (a.id < b.id ? -1 : 1))]).toEqual([2, users]);
      await eventually('both nodes answer', async () => (await read(node, '/topics/room/there/subscribers')).body.subscribers === 3);
      expect((await read(node, '/topics?prefix=room/there')).body).toEqual({ topics: ['room/there'] });
    }
    expect((await write(first, '/disconnect', { topic: 'room/there', code: 4005 })).body).toEqual({ disconnected: 3 });
    await eventually('all are closed', () => clients.every((client) => client.closed() !== undefined));
    expect(clients.map((client) => client.closed()?.[0])).toEqual([4005, 4005, 4005]);
    for (const node of nodes)
      await eventually('all have left', async () => (await read(node, '/topics/room/there/presence')).body.count === 0);
  });

  test('without Redis nothing is said to be published that is not, what it does not keep goes on, and all does when it is back', async () => {
    const [first] = nodes;
    expect((await publish(first, 'room/gone', 'before')).body.offset).toBe(1);
    await redis.kill();
    const [keyed, plain, history, direct] = await Promise.all([
      publish(first, 'room/gone', 'meanwhile', 'k'),
      publish(first, 'room/gone', 'meanwhile'),
      read(first, '/topics/room/gone/history'),
      publish(first, 'plain', 'x'),
    ]);
    // Not at all, or nobody can know yet.
    for (const { status, body } of [keyed, plain]) {
      expect([503, 504]).toContain(status);
      expect(body.error).toMatch(status === 503 ? /try again/ : /may or may not/);
    }
    expect([200, 503]).toContain(history.status);
    expect(direct.status).toBe(200);
    await redis.start();
    let again: Answer | undefined;
    await eventually('it is published', async () => {
      again = await publish(first, 'room/gone', 'meanwhile', 'k');
      return again.status === 200;
    });
    const { body } = await read(first, '/topics/room/gone/history');
    const at = body.messages.findIndex(({ offset }: { offset: number }) => offset === again?.body.offset);
    expect([body.epoch, body.messages[at]?.data]).toEqual([again?.body.epoch, 'meanwhile']);
    // With the key once, and once without it, if it was stored after all.
    expect(body.messages.filter(({ data }: { data: string }) => data === 'meanwhile').length).toBeLessThanOrEqual(2);
  });
});

describe('while workers come and go', () => {
  test('a worker is killed: what was answered is in the log once, with a key in any case, and reads are answered', async () => {
    const gateway = await startOperated({ workers: 2, config });
    try {
      const topics = Array.from({ length: 8 }, (_, at) => `room/killed-${at}`);
      const positions = new Map<string, Map<string, string>>(topics.map((topic) => [topic, new Map()]));
      const unexpected: unknown[] = [];
      let isOver = false;
      const lane = async (topic: string) => {
        for (let number = 0; !isOver && number < 90; number++) {
          const key = `${topic} ${number}`;
          // Until it is known to be there: that is what the key is for.
          for (let answer: Answer | undefined; answer?.status !== 200; ) {
            answer = await publish(gateway, topic, key, key);
            if (answer.status === 200) positions.get(topic)?.set(key, `${answer.body.epoch}:${answer.body.offset}`);
            else if (answer.status === 503 || answer.status === 504) await Bun.sleep(20);
            else unexpected.push(answer);
            if (unexpected.length > 0) return;
          }
          const { status } = await read(gateway, `/topics/${topic}/history?limit=1&reverse=true`);
          if (status !== 200 && status !== 503) unexpected.push(status);
        }
      };
      const lanes = Promise.all(topics.map(lane));
      for (let kill = 1; kill <= 2; kill++) {
        const enough = kill * 30;
        await eventually('some are published', () => [...positions.values()].every((each) => each.size >= enough));
        process.kill((await gateway.workerPids())[kill % 2] as number, 'SIGKILL');
      }
      await eventually('some more are published', () => [...positions.values()].every((each) => each.size >= 80));
      isOver = true;
      await lanes;
      expect(unexpected).toEqual([]);
      for (const topic of topics) {
        const { body } = await read(gateway, `/topics/${topic}/history`);
        const told = [...(positions.get(topic) ?? [])];
        expect(body.messages.map(({ offset, data }: { offset: number; data: string }) => [data, `${body.epoch}:${offset}`])).toEqual(told);
      }
    } finally {
      await gateway.stop();
    }
  });

  test('a worker hangs: what only reads, and messages with a key, are served by the other one', async () => {
    const gateway = await startOperated({ workers: 2, config });
    try {
      const topics = Array.from({ length: 16 }, (_, at) => `room/hung-${at}`);
      for (const topic of topics) expect((await publish(gateway, topic, 'before')).status).toBe(200);
      const hung = fetch(`${gateway.url}/hang`);
      await Bun.sleep(300);
      const reads = await Promise.all(topics.map((topic) => read(gateway, `/topics/${topic}/history`)));
      expect(reads.map(({ status, body }) => [status, body.messages?.length])).toEqual(topics.map(() => [200, 1]));
      const writes = await Promise.all(topics.map((topic) => publish(gateway, topic, 'with a key', 'k')));
      expect(writes.map(({ status, body }) => [status, body.offset])).toEqual(topics.map(() => [200, 2]));
      await hung;
      // What the one that hung was given at first is done by it as well, and adds nothing.
      await eventually('both serve again', async () => (await publish(gateway, topics[0] as string, 'with a key', 'k')).body.offset === 2);
      for (const topic of topics) expect((await read(gateway, `/topics/${topic}/history?limit=0`)).body.offset).toBe(2);
    } finally {
      await gateway.stop();
    }
  });

  test('a reload: the log goes on, and so does who is there', async () => {
    const gateway = await startOperated({ workers: 2, config });
    try {
      const { epoch } = (await publish(gateway, 'room/reload', 'before')).body;
      const client = await join(gateway, 'room/reload', 'ann');
      expect((await gateway.post('/reload', '')).status).toBe(200);
      expect((await publish(gateway, 'room/reload', 'after')).body).toEqual({ published: 1, epoch, offset: 2 });
      const { messages } = (await read(gateway, '/topics/room/reload/history')).body as { messages: { data: string }[] };
      expect(messages.map(({ data }) => data)).toEqual(['before', 'after']);
      await eventually('it is sent away, to come back', () => client.closed() !== undefined);
      const back = await join(gateway, 'room/reload', 'ann');
      expect((await read(gateway, '/topics/room/reload/presence')).body.count).toBe(1);
      back.close();
    } finally {
      await gateway.stop();
    }
  });
});
