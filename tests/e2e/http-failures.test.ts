/** What goes wrong in handlers, or with their clients: thrown errors, lost clients, a blocked worker. The gateway serves on. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test';
import { request } from '../../node_modules/undici/index.js';
import { eventually } from '../support/eventually.ts';
import { forEachBackend, type Gateway, startGateway } from '../support/gateway.ts';
import { RawClient } from '../support/raw-client.ts';

// Only to end a test that hangs: `eventually` says more, and sooner.
setDefaultTimeout(60_000);

const config = `
  import { Hono } from 'hono';
  import { streamSSE } from 'hono/streaming';
  import { defineGateway } from 'ringway';
  const seen = [];
  const note = (what) => { seen.push(what); };
  const app = new Hono();
  const bad = new Hono();
  bad.get('/', () => { throw new Error('thrown in a handler'); });
  app.route('/hono', bad);
  app.get('/pid', (c) => c.text(String(process.pid)));
  app.get('/seen', (c) => c.json(seen.splice(0)));
  app.get('/block/:ms', (c) => {
    const end = performance.now() + Number(c.req.param('ms'));
    while (performance.now() < end);
    return c.text('unblocked');
  });
  app.get('/slow', async (c) => { await Bun.sleep(600); return c.text('slow'); });
  app.post('/text', async (c) => c.text('got ' + (await c.req.text()).length));
  app.get('/wait', async (c) => {
    note('waits');
    c.req.raw.signal.addEventListener('abort', () => note('aborted: ' + c.req.raw.signal.reason.name));
    await new Promise((resolve) => c.req.raw.signal.addEventListener('abort', resolve));
    return c.text('nobody reads this');
  });
  app.post('/upload', async (c) => {
    note('reads');
    try { await c.req.arrayBuffer(); note('read all'); } catch (error) { note('upload failed: ' + error.name); throw error; }
    return c.text('whole');
  });
  app.get('/sse', (c) => streamSSE(c, async (stream) => {
    stream.onAbort(() => note('stream aborted'));
    note('streams');
    for (let id = 0; !stream.aborted; id++) { await stream.writeSSE({ data: String(id) }); await stream.sleep(20); }
    note('stream over');
  }));
  app.get('/silent', (c) => {
    c.req.raw.signal.addEventListener('abort', () => note('signal'));
    return new Response(new ReadableStream({
      start(controller) { controller.enqueue('x'); note('silent'); },
      cancel(reason) { note('cancelled: ' + reason.name); },
    }));
  });
  const raw = {
    throws() { throw new Error('thrown bare'); },
    async rejects() { await null; throw new Error('rejected bare'); },
    nothing() {},
    text() { return 'not a response'; },
    throwsText() { throw 'a string is thrown'; },
    throwsUndefined() { throw undefined; },
    'bad-status'() { return Response.error(); },
    pull() { return new Response(new ReadableStream({ pull() { throw new Error('thrown in pull'); } })); },
    start() { return new Response(new ReadableStream({ start() { return Promise.reject(new Error('rejected in start')); } })); },
    later() {
      let pulls = 0;
      return new Response(new ReadableStream({ async pull(controller) {
        await Bun.sleep(1);
        if (++pulls > 3) throw new Error('thrown in a later pull');
        controller.enqueue('part ' + pulls);
      } }));
    },
    'wrong-chunk'() { return new Response(new ReadableStream({ start(controller) { controller.enqueue({ not: 'bytes' }); controller.close(); } })); },
    'listener'(request) {
      request.signal.addEventListener('abort', () => { throw new Error('thrown in an abort listener'); });
      note('listens');
      return new Promise(() => {});
    },
    'cancel'() {
      return new Response(new ReadableStream({ start(controller) { controller.enqueue('x'); note('cancel waits'); }, cancel() { note('cancel called'); throw new Error('thrown in cancel'); } }));
    },
    'stray-rejection'() { Promise.reject(new Error('stray rejection')); return new Response('fine'); },
    'stray-throw'() { setTimeout(() => { throw new Error('stray throw'); }, 0); return new Response('fine'); },
    'used-body'() { const response = new Response('x'); response.text(); return response; },
    'missing-file'() { return new Response(Bun.file('/nonexistent/file')); },
  };
  export default defineGateway({ $OPTIONS, http: { headTimeout: 1, bodyTimeout: 1, keepAliveTimeout: 1 }, fetch(request, env) {
    const name = new URL(request.url).pathname.replace('/raw/', '');
    return name in raw ? raw[name](request) : app.fetch(request, env);
  } });
`;

const get = (target: string) => `GET ${target} HTTP/1.1\r\nHost: a\r\n\r\n`;

forEachBackend('handlers and clients that fail', (backend) => {
  let gateway: Gateway;
  let pid: string;
  beforeAll(async () => {
    gateway = await startGateway({ config, backend });
    pid = await (await fetch(`${gateway.url}/pid`)).text();
  });
  afterAll(async () => {
    expect(await (await fetch(`${gateway.url}/pid`)).text()).toBe(pid);
    await gateway.stop();
  });
  const seen: string[] = [];
  /** Wait until handlers have noted this. */
  const noted = (...expected: string[]) =>
    eventually(`handlers note ${expected}, having noted ${seen}`, async () => {
      seen.push(...((await (await fetch(`${gateway.url}/seen`)).json()) as string[]));
      if (!expected.every((what) => seen.includes(what))) return false;
      seen.length = 0;
      return true;
    });
  const errors = () => gateway.metric('ringway_handler_errors_total');
  /** Run, and wait until the failure is counted and logged, with its stack. */
  async function failing(message: string, body: () => Promise<void>): Promise<void> {
    const before = await errors();
    await body();
    await eventually(`"${message}" is counted`, async () => (await errors()) > before);
    await eventually(`"${message}" is logged`, () => gateway.output().includes(message));
  }

  describe('a handler', () => {
    const whole: readonly [path: string, message: string, stack: boolean][] = [
      ['/raw/throws', 'thrown bare', true],
      ['/raw/rejects', 'rejected bare', true],
      ['/raw/nothing', 'received undefined', true],
      ['/raw/text', 'received a string', true],
      ['/raw/throwsText', 'a string is thrown', false],
      ['/raw/throwsUndefined', '/raw/throwsUndefined failed', false],
      ['/raw/pull', 'thrown in pull', true],
      ['/raw/start', 'rejected in start', true],
      ['/raw/wrong-chunk', 'can hold only strings and bytes', true],
      ['/raw/used-body', 'Body already used', true],
    ];
    for (const [path, message, stack] of whole) {
      test(`that fails at ${path} is answered with 500, logged and counted; the connection goes on`, () =>
        failing(message, async () => {
          const client = await RawClient.connect(gateway);
          const response = await client.exchange(get(path));
          expect([response.status, response.text]).toEqual([500, 'Internal Server Error']);
          expect((await client.exchange(get('/pid'))).text).toBe(pid);
          client.destroy();
          await eventually('the log has it', () => gateway.output().includes(message));
          const line = gateway
            .output()
            .split('\n')
            .find((each) => each.includes(message)) as string;
          if (stack) expect(JSON.parse(line).err.stack).toContain('    at ');
        }));
    }

    test('of Hono that throws is answered by Hono with 500, with the id under which it is logged', () =>
      failing('thrown in a handler', async () => {
        const response = await fetch(`${gateway.url}/hono`);
        expect([response.status, await response.text()]).toEqual([500, 'Internal Server Error']);
        const id = response.headers.get('x-request-id') ?? 'none';
        await eventually('the log has the id', () => gateway.output().includes(`"requestId":"${id}"`));
      }));

    test('whose stream fails half-way has its connection broken off, so that the client can tell', () =>
      failing('thrown in a later pull', async () => {
        const client = await RawClient.connect(gateway);
        client.write(get('/raw/later'));
        const bytes = (await client.closed()).toString();
        expect(bytes).toContain('part 3');
        expect(bytes).not.toContain('\r\n0\r\n');
        await expect(request(`${gateway.url}/raw/later`).then(({ body }) => body.text())).rejects.toThrow();
      }));

    test('that leaves rejections and exceptions behind does not end the worker', async () => {
      await failing('stray rejection', async () => expect(await (await fetch(`${gateway.url}/raw/stray-rejection`)).text()).toBe('fine'));
      await failing('stray throw', async () => expect(await (await fetch(`${gateway.url}/raw/stray-throw`)).text()).toBe('fine'));
    });

    test('that answers with a file that is not there, or an error response, is answered with 500', async () => {
      for (const path of ['/raw/missing-file', '/raw/bad-status']) expect((await fetch(gateway.url + path)).status).toBe(500);
    });

    test('whose abort listener throws does not end the worker', () =>
      failing('thrown in an abort listener', async () => {
        const client = await RawClient.connect(gateway);
        client.write(get('/raw/listener'));
        await noted('listens');
        client.destroy();
      }));

    test('whose stream throws in cancel does not end the worker', async () => {
      const client = await RawClient.connect(gateway);
      client.write(get('/raw/cancel'));
      await noted('cancel waits');
      client.destroy();
      await noted('cancel called');
    });
  });

  describe('a client that leaves', () => {
    test('while a handler works aborts its signal, and is counted', async () => {
      const before = await gateway.metric('ringway_http_aborts_total');
      const client = await RawClient.connect(gateway);
      client.write(get('/wait'));
      await noted('waits');
      client.destroy();
      await noted('aborted: AbortError');
      expect(await gateway.metric('ringway_http_aborts_total')).toBe(before + 1);
    });

    test('by way of fetch and AbortController aborts the signal', async () => {
      const controller = new AbortController();
      const answer = fetch(`${gateway.url}/wait`, { signal: controller.signal }).catch((error) => error.name);
      await noted('waits');
      controller.abort();
      expect(await answer).toBe('AbortError');
      await noted('aborted: AbortError');
    });

    test('by a reset aborts the signal', async () => {
      const client = await RawClient.connect(gateway);
      client.write(get('/wait'));
      await noted('waits');
      client.socket.resetAndDestroy();
      await noted('aborted: AbortError');
    });

    test('in the middle of its upload fails the reading of it', async () => {
      const client = await RawClient.connect(gateway);
      client.write('POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nsome');
      await noted('reads');
      client.destroy();
      await noted('upload failed: AbortError');
    });

    test('during a stream of events ends the stream', async () => {
      const client = await RawClient.connect(gateway);
      client.write(get('/sse'));
      await eventually('events', () => client.received.includes('data: 3'));
      client.destroy();
      await noted('streams', 'stream aborted', 'stream over');
    });

    test('during a silent stream cancels it', async () => {
      const client = await RawClient.connect(gateway);
      client.write(get('/silent'));
      await noted('silent');
      client.destroy();
      await noted('cancelled: AbortError', 'signal');
    });

    test('with pipelined requests waiting has none of them served', async () => {
      const client = await RawClient.connect(gateway);
      client.write(get('/wait') + get('/wait') + get('/wait'));
      await noted('waits');
      client.socket.resetAndDestroy();
      await noted('aborted: AbortError');
      await eventually('the connection ends', async () => (await gateway.metric('ringway_connections', { protocol: 'http' })) <= 2);
      expect(await (await fetch(`${gateway.url}/seen`)).json()).toEqual([]);
    });
  });
});

forEachBackend('a handler that blocks its worker', (backend) => {
  let gateway: Gateway;
  beforeAll(async () => {
    gateway = await startGateway({ config, backend, workers: 2 });
  });
  afterAll(() => gateway.stop());

  /** One connection to each worker, and to the first a few more. */
  async function connections() {
    const byPid = new Map<string, RawClient[]>();
    await eventually('connections to both workers', async () => {
      const client = await RawClient.connect(gateway);
      const { text } = await client.exchange(get('/pid'));
      byPid.set(text, [...(byPid.get(text) ?? []), client]);
      return byPid.size === 2 && [...byPid.values()].some((clients) => clients.length >= 6);
    });
    const [most, least] = [...byPid.values()].sort((a, b) => b.length - a.length) as [RawClient[], RawClient[]];
    return { most, least };
  }

  test('leaves the other worker alone, and no deadline is missed for it that was met', async () => {
    const { most, least } = await connections();
    const [blocker, slow, head, body, idle] = most as [RawClient, RawClient, RawClient, RawClient, RawClient];
    const other = least[0] as RawClient;
    // Requests in every state: waiting for its handler, in the middle of its head, in the middle of its body.
    slow.write(get('/slow'));
    head.write('GET /pid HTT');
    body.write('POST /text HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345');
    await Bun.sleep(100);
    blocker.write(get('/block/2500'));
    let meanwhile = 0;
    await Bun.sleep(100);
    // What these clients send in time lies in the kernel until the worker looks; their deadlines of 1 s pass in the meantime.
    head.write('P/1.1\r\nHost: a\r\n\r\n');
    body.write('67890');
    idle.write(get('/pid'));
    while (!blocker.received.includes('unblocked')) {
      if (other.isClosed) break;
      expect((await other.exchange(get('/pid'))).status).toBe(200);
      meanwhile++;
      await Bun.sleep(10);
    }
    expect(meanwhile).toBeGreaterThan(5);
    expect((await blocker.response()).text).toBe('unblocked');
    expect((await slow.response()).text).toBe('slow');
    expect((await head.response()).status).toBe(200);
    expect((await body.response()).text).toBe('got 10');
    expect((await idle.response()).status).toBe(200);
    for (const client of [...most, ...least]) client.destroy();
  });
});
