/**
 * Publishing over the admin listener into real gateways: every answer, order, and what holds while workers die or are replaced.
 */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test';
import { existsSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { eventually } from '../support/eventually.ts';
import { RawClient } from '../support/raw-client.ts';
import { logLines, type Operated, startOperated } from '../support/ringway-command.ts';

// Only ends a test that has failed: nothing here is measured in time.
setDefaultTimeout(90_000);

const config = `
import { defineGateway } from 'ringway';
export default defineGateway({
  $OPTIONS,
  io: { backend: 'auto' },
  fetch: () => new Response('ok'),
  websocket: {
    '/join': {
      open(socket) {
        for (const topic of ['é/1', 't', 'large', ...Array.from({ length: 16 }, (_, at) => 't' + at)]) socket.subscribe(topic);
        socket.send(String(process.pid));
      },
    },
  },
});
`;

const json = 'application/json';

/** A client that keeps what it gets. */
interface Subscriber {
  readonly pid: number;
  /** Text as it is, bytes in hexadecimal behind '0x'. */
  readonly got: string[];
  readonly isOpen: () => boolean;
  close(): void;
}

async function subscribe(gateway: Operated): Promise<Subscriber> {
  const socket = new WebSocket(`${gateway.wsUrl}/join`);
  socket.binaryType = 'arraybuffer';
  const got: string[] = [];
  let pid = 0;
  socket.addEventListener('message', ({ data }) => {
    if (pid === 0) pid = Number(data);
    else got.push(typeof data === 'string' ? data : `0x${Buffer.from(data as ArrayBuffer).toString('hex')}`);
  });
  await eventually('it has joined', () => pid !== 0 || socket.readyState === WebSocket.CLOSED);
  return { pid, got, isOpen: () => socket.readyState === WebSocket.OPEN, close: () => socket.close() };
}

/** Subscribers on every worker that serves: the kernel spreads connections, so open until it has. */
async function subscribeAll(gateway: Operated): Promise<Subscriber[]> {
  const all: Subscriber[] = [];
  const pids = await gateway.workerPids();
  while (!pids.every((pid) => all.some((each) => each.pid === pid))) {
    const each = await subscribe(gateway);
    if (pids.includes(each.pid)) all.push(each);
    else each.close();
  }
  return all;
}

async function untilAllHave(all: readonly Subscriber[], count: number): Promise<void> {
  await eventually(`all have ${count} messages`, () => all.every(({ got }) => got.length >= count));
}

/** By topic, in the order they came; messages are 'topic number'. */
function numbersByTopic(got: readonly string[]): Map<string, number[]> {
  const byTopic = new Map<string, number[]>();
  for (const message of got) {
    const [topic = '', number] = message.split(' ');
    const list = byTopic.get(topic) ?? [];
    byTopic.set(topic, list);
    list.push(Number(number));
  }
  return byTopic;
}

const twice = (numbers: readonly number[]) => numbers.filter((number, at) => numbers.indexOf(number) !== at);

describe('publishing over HTTP', () => {
  let gateway: Operated;
  let all: Subscriber[];
  beforeAll(async () => {
    gateway = await startOperated({ workers: 2, config });
    all = await subscribeAll(gateway);
  });
  afterAll(() => gateway?.stop());
  const emptied = () => {
    for (const { got } of all) got.length = 0;
  };

  test('one message, text and bytes, as JSON and as it is', async () => {
    const answers = [
      await gateway.post('/publish', JSON.stringify({ topic: 'é/1', data: 'hällo' }), json),
      await gateway.post('/publish', JSON.stringify({ topic: 't', data: 'AP/+', encoding: 'base64' }), json),
      await gateway.post(`/publish/${encodeURIComponent('é/1')}`, 'raw ä', 'text/plain; charset=utf-8'),
      await gateway.post('/publish/é/1', 'with a slash of its own'),
      await gateway.post('/publish/t', new Uint8Array([0, 255, 10]), 'application/octet-stream'),
      await gateway.post('/publish/t', '{"a":1}', json),
      await gateway.post('/publish/t', ''),
    ];
    for (const answer of answers) expect([answer.status, await answer.json()]).toEqual([200, { published: 1 }]);
    await untilAllHave(all, answers.length);
    for (const { got } of all) {
      expect(got.toSorted()).toEqual(['hällo', '0x00fffe', 'raw ä', 'with a slash of its own', '0x00ff0a', '{"a":1}', ''].toSorted());
    }
    emptied();
  });

  test('many in one request: each subscriber on each worker gets each of them once, those of a topic in order', async () => {
    const messages = Array.from({ length: 1000 }, (_, at) => ({ topic: `t${at % 16}`, data: `t${at % 16} ${at}` }));
    const answer = await gateway.post('/publish', JSON.stringify({ messages }), json);
    expect([answer.status, await answer.json()]).toEqual([200, { published: 1000 }]);
    await untilAllHave(all, 1000);
    for (const { got } of all) {
      expect(got.length).toBe(1000);
      for (const [topic, numbers] of numbersByTopic(got))
        expect(numbers).toEqual(messages.flatMap((message, at) => (message.topic === topic ? [at] : [])));
    }
    emptied();
  });

  test('requests one after the other keep their order', async () => {
    for (let at = 0; at < 50; at++) expect((await gateway.post('/publish/t', `t ${at}`)).status).toBe(200);
    await untilAllHave(all, 50);
    for (const { got } of all) expect(numbersByTopic(got).get('t')).toEqual(Array.from({ length: 50 }, (_, at) => at));
    emptied();
  });

  test('a message of megabytes reaches the other worker too', async () => {
    const answer = await gateway.post('/publish/large', 'x'.repeat(6_000_000));
    expect(answer.status).toBe(200);
    const dropped = async () =>
      (await gateway.metric('ringway_messages_dropped_total')) + (await gateway.metric('ringway_backpressure_closes_total'));
    // It is more than a socket may have waiting: whoever cannot take it at once is told of in a counter.
    await eventually('everybody has it or is counted', async () => {
      const have = all.filter(({ got }) => got.some((message) => message.length === 6_000_000)).length;
      return have + (await dropped()) === all.length;
    });
    expect(await gateway.metric('ringway_messages_dropped_total', { reason: 'bus' })).toBe(0);
    emptied();
  });

  test('1,000 requests at the same time: each is answered, and what was taken comes once', async () => {
    const headers = `Host: localhost\r\nAuthorization: Bearer ${gateway.token()}\r\nContent-Type: text/plain\r\nConnection: close\r\n`;
    const send = async (at: number) => {
      const client = await RawClient.connect({ port: gateway.adminPort });
      const body = `t${at % 16} ${at}`;
      client.write(`POST /publish/t${at % 16} HTTP/1.1\r\n${headers}Content-Length: ${body.length}\r\n\r\n${body}`);
      const { status } = await client.response();
      client.destroy();
      return status;
    };
    const statuses = await Promise.all(Array.from({ length: 1000 }, (_, at) => send(at)));
    expect(statuses.filter((status) => status !== 200 && status !== 503)).toEqual([]);
    const taken = statuses.flatMap((status, at) => (status === 200 ? [at] : []));
    expect(taken.length).toBeGreaterThan(500);
    await untilAllHave(all, taken.length);
    for (const { got } of all) expect(got.map((message) => Number(message.split(' ')[1])).toSorted((a, b) => a - b)).toEqual(taken);
    emptied();
  });

  test('a client that leaves in the middle of its body leaves no trace', async () => {
    const before = logLines(gateway).length;
    for (const framing of ['Content-Length: 100\r\n\r\nabc', 'Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n']) {
      const client = await RawClient.connect({ port: gateway.adminPort });
      client.write(`POST /publish/t HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ${gateway.token()}\r\n${framing}`);
      await Bun.sleep(50);
      client.destroy();
    }
    expect((await gateway.post('/publish/t', 't 1')).status).toBe(200);
    await untilAllHave(all, 1);
    expect(all.map(({ got }) => got)).toEqual(all.map(() => ['t 1']));
    expect(gateway.output()).not.toContain('AbortError');
    expect(logLines(gateway).length).toBe(before);
    emptied();
  });

  test('a body that is too large is refused, told or in parts, before it is held', async () => {
    const over = new Uint8Array(8 * 1024 * 1024 + 1);
    expect((await gateway.post('/publish/t', over)).status).toBe(413);
    const client = await RawClient.connect({ port: gateway.adminPort });
    client.write(
      `POST /publish/t HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ${gateway.token()}\r\nTransfer-Encoding: chunked\r\n\r\n`,
    );
    const part = Buffer.concat([Buffer.from('100000\r\n'), Buffer.alloc(0x100000), Buffer.from('\r\n')]);
    for (let at = 0; at < 9; at++) client.write(part);
    expect((await client.response()).status).toBe(413);
    client.destroy();
    expect(all.flatMap(({ got }) => got)).toEqual([]);
  });

  test('topics whose path is no UTF-8 are refused, encoded or not', async () => {
    for (const path of ['/publish/%ff', '/publish/a\xff', '/publish/%zz', '/publish/']) {
      const client = await RawClient.connect({ port: gateway.adminPort });
      const head = `POST ${path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ${gateway.token()}\r\nContent-Length: 0\r\n\r\n`;
      client.write(Buffer.from(head, 'latin1'));
      const { status, text } = await client.response();
      // The core refuses an octet that no target may have (RFC 3986 §2) before anybody reads the path.
      const told = path.includes('\xff') ? expect.stringContaining('Bad Request') : expect.stringContaining('the topic in the path is');
      expect([path, status, text]).toEqual([path, 400, told]);
      client.destroy();
    }
  });

  test('HEAD answers as GET does, without the content', async () => {
    const get = await fetch(`${gateway.adminUrl}/openapi.json`);
    const length = String((await get.bytes()).length);
    const head = await fetch(`${gateway.adminUrl}/openapi.json`, { method: 'HEAD' });
    expect([head.status, head.headers.get('content-length'), head.headers.get('content-type')]).toEqual([
      200,
      length,
      get.headers.get('content-type'),
    ]);
    expect((await fetch(`${gateway.adminUrl}/publish`, { method: 'HEAD' })).status).toBe(405);
  });
});

describe('the token', () => {
  test('is made, for this user alone, asked for, and gone when the gateway is', async () => {
    const gateway = await startOperated({ config });
    try {
      const folder = join(gateway.runtimeFolder, 'ringway');
      const [name = ''] = readdirSync(folder);
      const mode = (path: string) => statSync(path).mode & 0o777;
      expect([name, mode(folder), mode(join(folder, name))]).toEqual([`admin-127.0.0.1-${gateway.adminPort}.token`, 0o700, 0o600]);
      const post = (authorization?: string) =>
        fetch(`${gateway.adminUrl}/publish/t`, {
          method: 'POST',
          body: 'x',
          ...(authorization === undefined ? {} : { headers: { authorization } }),
        });
      expect((await post()).status).toBe(401);
      expect((await post(`Bearer ${gateway.token()}x`)).status).toBe(401);
      expect((await post(`Bearer ${gateway.token()}`)).status).toBe(200);
      gateway.kill('SIGTERM');
      expect(await gateway.exited).toBe(0);
      expect(existsSync(join(folder, name))).toBe(false);
    } finally {
      await gateway.stop();
    }
  });

  test('comes from ADMIN_TOKEN, and then lies nowhere', async () => {
    const gateway = await startOperated({ config, env: { ADMIN_TOKEN: 'a-token-of-the-tests' } });
    try {
      expect(existsSync(join(gateway.runtimeFolder, 'ringway'))).toBe(false);
      const own = await gateway.run(['publish', 't', 'x']);
      expect([own.exitCode, own.err]).toEqual([
        1,
        `ringway: http://127.0.0.1:${gateway.adminPort} refuses (401): it wants a token, and this user has none here for it; say its admin.token with --token or ADMIN_TOKEN\n`,
      ]);
      expect((await gateway.run(['publish', 't', 'x'], { env: { ADMIN_TOKEN: 'a-token-of-the-tests' } })).exitCode).toBe(0);
      expect((await gateway.run(['publish', 't', 'x', '--token', 'a-token-of-the-tests'])).exitCode).toBe(0);
      const wrong = await gateway.run(['publish', 't', 'x', '--token', 'another-token-of-them']);
      expect([wrong.exitCode, wrong.err]).toEqual([1, expect.stringContaining('refuses (401): the token is wrong')]);
    } finally {
      await gateway.stop();
    }
  });

  test('of the config is changed by a reload, where it is; and one that is taken out is made', async () => {
    const settings = (token: string) => `export const token = ${token};`;
    const gateway = await startOperated({
      config: config.replace('export default', "import { token } from './settings.ts';\nexport default"),
      admin: '{ port: 0, token }',
      files: { 'settings.ts': settings("'the-first-of-the-tokens'") },
    });
    const post = async (path: string, token: string) =>
      (await fetch(gateway.adminUrl + path, { method: 'POST', body: 'x', headers: { authorization: `Bearer ${token}` } })).status;
    try {
      expect(await post('/publish/t', 'the-first-of-the-tokens')).toBe(200);
      writeFileSync(join(gateway.folder, 'settings.ts'), settings("'the-second-of-the-tokens'"));
      expect(await post('/reload', 'the-first-of-the-tokens')).toBe(200);
      expect([await post('/publish/t', 'the-first-of-the-tokens'), await post('/publish/t', 'the-second-of-the-tokens')]).toEqual([
        401, 200,
      ]);
      writeFileSync(join(gateway.folder, 'settings.ts'), settings('undefined'));
      expect(await post('/reload', 'the-second-of-the-tokens')).toBe(200);
      expect([await post('/publish/t', 'the-second-of-the-tokens'), await post('/publish/t', gateway.token())]).toEqual([401, 200]);
    } finally {
      await gateway.stop();
    }
  });

  test('where none can be kept, the gateway serves, nobody may publish, and the log says what to set', async () => {
    const gateway = await startOperated({ config, env: { XDG_RUNTIME_DIR: '/dev/null/nowhere' } });
    try {
      expect((await fetch(gateway.url)).status).toBe(200);
      expect((await fetch(`${gateway.adminUrl}/publish/t`, { method: 'POST', body: 'x' })).status).toBe(403);
      expect(gateway.output()).toContain('is refused until admin.token or ADMIN_TOKEN is set');
      gateway.kill('SIGTERM');
      expect(await gateway.exited).toBe(0);
    } finally {
      await gateway.stop();
    }
  });

  test('two gateways of one user have each their own', async () => {
    const first = await startOperated({ config });
    const second = await startOperated({ config, env: { XDG_RUNTIME_DIR: first.runtimeFolder } });
    try {
      const names = readdirSync(join(first.runtimeFolder, 'ringway')).toSorted();
      expect(names).toEqual([first, second].map(({ adminPort }) => `admin-127.0.0.1-${adminPort}.token`).toSorted());
      for (const { adminPort } of [first, second]) {
        const run = await first.run(['publish', 't', 'x', '--admin', String(adminPort)]);
        expect([run.exitCode, run.out]).toEqual([0, 'published to t\n']);
        const told = await first.run(['publish', 't', 'añ', '--json', '--admin', String(adminPort)]);
        expect([told.exitCode, JSON.parse(told.out)]).toEqual([0, { topic: 't', bytes: 3 }]);
      }
      second.kill('SIGTERM');
      await second.exited;
      expect((await first.run(['publish', 't', 'x'])).exitCode).toBe(0);
    } finally {
      await Promise.all([first.stop(), second.stop()]);
    }
  });
});

describe('while workers come and go', () => {
  /** Publishes 't0 0', 't1 0', … from several places at once until told to stop; what each got for an answer. */
  function publishOnAndOn(gateway: Operated) {
    const answers: { readonly topic: string; readonly number: number; readonly status: number }[] = [];
    let isOver = false;
    const lane = async (topic: string) => {
      for (let number = 0; !isOver; number++) {
        const { status } = await gateway.post(`/publish/${topic}`, `${topic} ${number}`);
        answers.push({ topic, number, status });
      }
    };
    const lanes = Promise.all(Array.from({ length: 8 }, (_, at) => lane(`t${at}`)));
    return {
      answers,
      async stop() {
        isOver = true;
        await lanes;
      },
    };
  }

  test('a worker is killed: only 200, 503 and 504, and each 200 came once to those on the other', async () => {
    const gateway = await startOperated({ workers: 2, config });
    try {
      const [survivor, ...others] = await subscribeAll(gateway);
      if (survivor === undefined) throw new Error('nobody has subscribed');
      const publishing = publishOnAndOn(gateway);
      for (let kill = 1; kill <= 3; kill++) {
        const enough = publishing.answers.length + 100;
        await eventually('some are published', () => publishing.answers.length >= enough);
        const victim = (await gateway.workerPids()).find((pid) => pid !== survivor.pid && pid !== null);
        if (victim !== undefined) process.kill(victim, 'SIGKILL');
        await eventually('both serve again', async () => {
          const health = (await (await fetch(`${gateway.adminUrl}/healthz`)).json()) as { workers: { state: string; restarts: number }[] };
          return health.workers.every(({ state }) => state === 'ready') && health.workers.some(({ restarts }) => restarts >= kill);
        });
      }
      const enough = publishing.answers.length + 100;
      await eventually('some more are published', () => publishing.answers.length >= enough);
      await publishing.stop();
      expect(survivor.isOpen()).toBe(true);
      expect([...new Set(publishing.answers.map(({ status }) => status))].filter((status) => ![200, 503, 504].includes(status))).toEqual(
        [],
      );
      const came = () => numbersByTopic(survivor.got);
      const published = publishing.answers.filter(({ status }) => status === 200);
      await eventually('all that was published has come', () => {
        const byTopic = came();
        return published.every(({ topic, number }) => byTopic.get(topic)?.includes(number));
      });
      for (const numbers of came().values()) expect(twice(numbers)).toEqual([]);
      // What was answered with 503 was never published.
      const refused = publishing.answers.filter(({ status }) => status === 503);
      for (const { topic, number } of refused) expect(came().get(topic) ?? []).not.toContain(number);
      for (const other of others) other.close();
    } finally {
      await gateway.stop();
    }
  });

  test('a reload: nothing but 200, and each socket misses nothing and gets nothing twice for as long as it is open', async () => {
    const gateway = await startOperated({ workers: 2, config });
    try {
      const old = await Promise.all(Array.from({ length: 60 }, () => subscribe(gateway)));
      const publishing = publishOnAndOn(gateway);
      await eventually('some are published', () => publishing.answers.length >= 50);
      const reloaded = await gateway.post('/reload', '');
      expect([reloaded.status, await reloaded.json()]).toEqual([200, { generation: 2 }]);
      const fresh = await subscribeAll(gateway);
      await eventually('the old workers have gone', () => old.every((each) => !each.isOpen()));
      const enough = publishing.answers.length + 100;
      await eventually('some more are published', () => publishing.answers.length >= enough);
      await publishing.stop();
      expect(publishing.answers.filter(({ status }) => status !== 200)).toEqual([]);
      const last = new Map<string, number>();
      for (const { topic, number } of publishing.answers) last.set(topic, Math.max(number, last.get(topic) ?? 0));
      await eventually('the new subscribers have the last of each topic', () =>
        fresh.every(({ got }) => [...last].every(([topic, number]) => numbersByTopic(got).get(topic)?.includes(number))),
      );
      for (const { got } of [...old, ...fresh]) {
        for (const numbers of numbersByTopic(got).values()) {
          const sorted = numbers.toSorted((a, b) => a - b);
          const first = sorted[0] ?? 0;
          expect(sorted).toEqual(Array.from(sorted, (_, at) => first + at));
        }
      }
      expect(old.some(({ got }) => got.length > 0)).toBe(true);
    } finally {
      await gateway.stop();
    }
  });
});
