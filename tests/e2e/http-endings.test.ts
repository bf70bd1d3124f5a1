/** How responses and connections end: framing is never the handler's, early answers arrive, resets leave nothing behind. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test';
import { randomFillSync } from 'node:crypto';
import { eventually } from '../support/eventually.ts';
import { forEachBackend, type Gateway, startGateway } from '../support/gateway.ts';
import { cpuSeconds, descriptorCount } from '../support/process-state.ts';
import { RawClient } from '../support/raw-client.ts';

// Only to end a test that hangs: `eventually` says more, and sooner.
setDefaultTimeout(60_000);

const config = `
  import { defineGateway } from 'ringway';
  const streamOf = (...parts) => new ReadableStream({
    async pull(controller) { await Bun.sleep(1); const part = parts.shift(); part === undefined ? controller.close() : controller.enqueue(part); },
  });
  const with_ = (headers, body) => new Response(body, { headers });
  const handlers = {
    large: () => with_({ 'x-latin': 'caf\\u00e9' }, '\\u00e9\\u4e16'.repeat(700_000)),
    'large-bytes': () => with_({ 'x-latin': 'caf\\u00e9' }, new Uint8Array(5_000_000).fill(7)),
    'long-field': () => with_({ 'x-long': 'v'.repeat(2_000_000) }, 'x'),
    'long-field-streamed': () => with_({ 'x-long': 'v'.repeat(2_000_000) }, streamOf('x', 'y')),
    'length-lies': () => with_({ 'content-length': '1' }, 'three'),
    'coding-lies': () => with_({ 'transfer-encoding': 'gzip', trailer: 'x' }, 'plain'),
    'stream-too-long': () => with_({ 'content-length': '4' }, streamOf('abc', 'def')),
    'stream-too-short': () => with_({ 'content-length': '40' }, streamOf('abc', 'def')),
    'stream-right': () => with_({ 'content-length': '6' }, streamOf('abc', 'def')),
    closes: () => with_({ connection: 'close' }, 'bye'),
    status: () => new Response('custom', { status: 299, statusText: 'Not\\u00a0shown' }),
    two: () => { const response = new Response('x'); response.headers.append('set-cookie', 'a=1'); response.headers.append('set-cookie', 'b=2'); return response; },
    refuse: () => new Response('no', { status: 403 }),
    echo: (request) => new Response(request.body),
    slow: async () => { await Bun.sleep(300); return new Response('slow'); },
    'block-later': () => { setTimeout(() => { const end = performance.now() + 2000; while (performance.now() < end); }, 150); return new Response('soon'); },
    flood: () => new Response(new ReadableStream({ pull(controller) { controller.enqueue(new Uint8Array(65536)); } })),
    never: () => new Promise(() => {}),
    silent: () => new Response(new ReadableStream({ start(controller) { controller.enqueue('x'); } })),
    unread: async (request) => { request.body.getReader(); await new Promise(() => {}); },
    well: () => new Response('well'),
  };
  export default defineGateway({ $OPTIONS, http: { headTimeout: 1, bodyTimeout: 1 }, fetch: (request) => handlers[new URL(request.url).pathname.slice(1)](request) });
`;

const get = (target: string) => `GET /${target} HTTP/1.1\r\nHost: a\r\n\r\n`;

forEachBackend('endings', (backend) => {
  let gateway: Gateway;
  beforeAll(async () => {
    gateway = await startGateway({ config, backend });
  });
  afterAll(() => gateway.stop());
  const connect = () => RawClient.connect(gateway);
  const isWell = async () => expect(await (await fetch(`${gateway.url}/well`)).text()).toBe('well');

  test('a text of megabytes is whole, whatever alphabet it and its fields are in', async () => {
    const client = await connect();
    const response = await client.exchange(get('large'));
    expect([response.headers['x-latin'], response.headers['content-length']]).toEqual(['caf\u00e9', '3500000']);
    expect(response.text === '\u00e9\u4e16'.repeat(700_000)).toBe(true);
    const bytes = await client.exchange(get('large-bytes'));
    expect([bytes.headers['x-latin'], bytes.body.length, bytes.body.every((byte) => byte === 7)]).toEqual(['caf\u00e9', 5_000_000, true]);
    expect((await client.exchange(get('well'))).text).toBe('well');
    client.destroy();
  });

  test('a field of megabytes is sent, whole and streamed', async () => {
    for (const target of ['long-field', 'long-field-streamed']) {
      const client = await connect();
      const response = await client.exchange(get(target));
      expect([response.status, response.headers['x-long']?.length, response.text]).toEqual([
        200,
        2_000_000,
        target === 'long-field' ? 'x' : 'xy',
      ]);
      expect((await client.exchange(get('well'))).text).toBe('well');
      client.destroy();
    }
  });

  test('framing is what the body is, not what the handler says of it', async () => {
    const client = await connect();
    const lies = await client.exchange(get('length-lies'));
    expect([lies.headers['content-length'], lies.text]).toEqual(['5', 'three']);
    const coding = await client.exchange(get('coding-lies'));
    expect([coding.headers['transfer-encoding'], coding.text]).toEqual([undefined, 'plain']);
    const right = await client.exchange(get('stream-right'));
    expect([right.headers['content-length'], right.headers['transfer-encoding'], right.text]).toEqual(['6', undefined, 'abcdef']);
    const custom = await client.exchange(get('status'));
    expect([custom.status, custom.text]).toEqual([299, 'custom']);
    expect((await client.exchange(get('two'))).headers['set-cookie']).toBe('a=1, b=2');
    const last = await client.exchange(get('closes') + get('well'));
    expect([last.text, last.headers.connection]).toEqual(['bye', 'close']);
    expect((await client.closed()).length).toBe(0);
  });

  test('a stream that is longer than it promised is cut there, and what follows is the next response', async () => {
    const client = await connect();
    client.write(get('stream-too-long') + get('well'));
    expect((await client.response()).body.toString()).toBe('abcd');
    expect((await client.response()).body.toString()).toBe('well');
    client.destroy();
    await isWell();
  });

  test('a stream that is shorter than it promised is broken off, and nothing follows that reads as a response', async () => {
    const client = await connect();
    client.write(get('stream-too-short') + get('well'));
    const bytes = (await client.closed()).toString();
    expect(bytes.match(/HTTP\/1\.1/g)?.length).toBe(1);
    expect(bytes).not.toContain('well');
    await isWell();
  });

  test('an answer given before the upload is over reaches the client', async () => {
    const body = Buffer.alloc(16_000_000, 'u');
    for (const encoding of ['sized', 'chunked']) {
      const more = encoding === 'chunked' ? ['-H', 'Transfer-Encoding: chunked'] : [];
      const child = Bun.spawn(
        ['curl', '-s', '-w', ' %{http_code}', '-H', 'Expect:', ...more, '--data-binary', '@-', `${gateway.url}/refuse`],
        { stdin: body },
      );
      expect(await new Response(child.stdout).text()).toBe('no 403');
    }
    await isWell();
  });

  test('a client that uploads, half-closes and is slow to read gets all of its echo', async () => {
    const body = randomFillSync(Buffer.alloc(5_000_000));
    const client = await connect();
    client.write(`POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: ${body.length}\r\n\r\n`);
    client.write(body);
    client.end();
    client.socket.pause();
    await Bun.sleep(300);
    client.socket.resume();
    expect((await client.response()).body.equals(body)).toBe(true);
    await client.closed();
  });

  test('a timer that blocks a sleeping worker makes no deadline missed that was met', async () => {
    const [slow, head, body] = (await Promise.all([connect(), connect(), connect()])) as [RawClient, RawClient, RawClient];
    expect(await (await fetch(`${gateway.url}/block-later`)).text()).toBe('soon');
    slow.write(get('slow'));
    head.write('GET /well HT');
    body.write('POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345');
    await Bun.sleep(400);
    head.write('TP/1.1\r\nHost: a\r\n\r\n');
    body.write('67890');
    expect((await head.response()).text).toBe('well');
    expect((await body.response()).text).toBe('1234567890');
    expect((await slow.response()).text).toBe('slow');
    for (const client of [slow, head, body]) client.destroy();
  });

  test('connections that are held back, by either side, cost no CPU', async () => {
    const [pid] = (await gateway.workerPids()) as [number];
    const upload = `POST /unread HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\n${'u'.repeat(2_000_000)}`;
    const chunked = `POST /unread HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n${`8000\r\n${'u'.repeat(32768)}\r\n`.repeat(60)}`;
    const messages = [get('never'), get('never') + get('well').repeat(5000), get('silent'), get('flood'), upload, chunked, 'GET /we'];
    const clients = await Promise.all([...messages, ...messages].map(connect));
    for (const [i, client] of clients.entries()) {
      client.socket.pause();
      client.write(messages[i % messages.length] as string);
    }
    for (const client of clients.slice(0, messages.length)) client.end();
    await Bun.sleep(500);
    const before = cpuSeconds(pid);
    const began = performance.now();
    await Bun.sleep(1000);
    expect((cpuSeconds(pid) - before) / ((performance.now() - began) / 1000)).toBeLessThan(0.2);
    // The end of a stream would queue behind what is held back; a reset is seen at once, or when the clock asks.
    for (const client of clients) client.socket.resetAndDestroy();
    await eventually('all are seen to have left', async () => (await gateway.metric('ringway_connections', { protocol: 'http' })) <= 2);
    await isWell();
  });

  test('resets at every stage leave no connection and no descriptor behind', async () => {
    const [pid] = (await gateway.workerPids()) as [number];
    const descriptors = () => descriptorCount(pid);
    const open = () => gateway.metric('ringway_connections', { protocol: 'http' });
    const settled = () => eventually('few connections are left', async () => (await open()) <= 2);
    await settled();
    const before = descriptors();
    const stages = [
      '',
      'GET /we',
      get('well'),
      get('slow'),
      get('flood'),
      'POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\nsome',
      get('slow').repeat(3),
    ];
    for (let round = 0; round < 6; round++) {
      const clients = await Promise.all(Array.from({ length: 70 }, connect));
      for (const [i, client] of clients.entries()) client.write(stages[i % stages.length] as string);
      await Bun.sleep(round * 4);
      for (const [i, client] of clients.entries()) i % 2 ? client.socket.resetAndDestroy() : client.destroy();
    }
    await settled();
    const accepted = await gateway.metric('ringway_connections_accepted_total');
    await eventually(
      'closes match opens',
      async () => accepted - (await gateway.metric('ringway_connections_closed_total')) === (await open()),
    );
    await eventually('descriptors are back', () => descriptors() <= before + 2);
    expect(await gateway.metric('ringway_backpressure_connections')).toBe(0);
    expect(await gateway.workerPids()).toEqual([pid]);
    await isWell();
  });
});
