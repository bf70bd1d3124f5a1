/**
 * Ambiguous and malformed messages over a real socket: each is refused and its connection closed, and what follows it, here a
 * perfectly good request, is never served. tests/vectors/http has the same cases for the parser alone.
 */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test';
import { forEachBackend, type Gateway, startGateway } from '../support/gateway.ts';
import { type HttpVector, readVectors } from '../support/http-vectors.ts';
import { parseAll, RawClient } from '../support/raw-client.ts';

// Only to end a test that hangs: `eventually` says more, and sooner.
setDefaultTimeout(60_000);

const config = `
  import { defineGateway } from 'ringway';
  const calls = [];
  export default defineGateway({ $OPTIONS, async fetch(request) {
    const { pathname } = new URL(request.url);
    if (pathname === '/calls') return Response.json(calls.splice(0));
    calls.push(request.method + ' ' + pathname);
    return new Response('read ' + (await request.text()));
  } });
`;

const follower = 'GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n';
const isRefused = (vector: HttpVector) => /^\d+$/.test(vector.result);
const atOnce = 16;

forEachBackend('HTTP that two parsers could read differently', (backend) => {
  let gateway: Gateway;
  beforeAll(async () => {
    gateway = await startGateway({ config, backend });
  });
  afterAll(() => gateway.stop());
  const calls = async () => (await (await fetch(`${gateway.url}/calls`)).json()) as string[];

  /** Send bytes, in pieces of `step`; read until the server closes. ret: status of every response */
  async function statuses(bytes: Buffer, step = bytes.length): Promise<number[]> {
    const client = await RawClient.connect(gateway);
    for (let at = 0; at < bytes.length; at += step) {
      client.write(bytes.subarray(at, at + step));
      if (step < bytes.length) await Bun.sleep(0);
    }
    const responses = parseAll(await client.closed());
    for (const { headers } of responses) expect(headers.connection).toBe('close');
    return responses.map(({ status }) => status);
  }

  async function each(vectors: readonly HttpVector[], message: (vector: HttpVector) => Buffer, step?: number): Promise<void> {
    expect(vectors.length).toBeGreaterThan(20);
    const wrong: string[] = [];
    for (let at = 0; at < vectors.length; at += atOnce) {
      const batch = vectors.slice(at, at + atOnce);
      const found = await Promise.all(batch.map((vector) => statuses(message(vector), step)));
      for (const [i, vector] of batch.entries()) {
        if (String(found[i]) !== vector.result) wrong.push(`${vector.title}: ${found[i]} in place of ${vector.result}`);
      }
    }
    expect(wrong).toEqual([]);
  }

  for (const page of ['smuggling.md', 'malformed.md']) {
    const vectors = readVectors(page).filter(isRefused);
    test(`every head of ${page} is refused before a handler sees it`, async () => {
      await each(vectors, (vector) => Buffer.concat([vector.bytes, Buffer.from(follower)]));
      expect(await calls()).toEqual([]);
    });

    test(`every head of ${page} is refused behind a good request on the same connection`, async () => {
      const first = Buffer.from('GET /first HTTP/1.1\r\nHost: a\r\n\r\n');
      const wrong: string[] = [];
      for (const vector of vectors) {
        const client = await RawClient.connect(gateway);
        client.write(Buffer.concat([first, vector.bytes, Buffer.from(follower)]));
        const found = parseAll(await client.closed()).map(({ status }) => status);
        if (String(found) !== `200,${vector.result}`) wrong.push(`${vector.title}: ${found}`);
      }
      expect(wrong).toEqual([]);
      expect(new Set(await calls())).toEqual(new Set(['GET /first']));
    }, 30_000);
  }

  test('every bad chunked body is refused, and its handler is called once at most', async () => {
    const vectors = readVectors('chunked.md').filter(isRefused);
    const head = 'POST /chunked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n';
    await each(vectors, (vector) => Buffer.concat([Buffer.from(head), vector.bytes, Buffer.from(follower)]));
    const seen = await calls();
    expect(new Set(seen)).toEqual(new Set(['POST /chunked']));
    expect(seen.length).toBe(vectors.length);
  });

  test('the bodies that are well-formed are read one way only', async () => {
    const vectors = readVectors('chunked.md').filter(({ result }) => result === 'end');
    for (const { title, bytes } of vectors) {
      const client = await RawClient.connect(gateway);
      client.write('POST /chunked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n');
      client.write(bytes);
      const response = await client.response();
      expect([title, response.status]).toEqual([title, 200]);
      expect((await client.closed()).length).toBe(0);
    }
    await calls();
  });

  test('splitting a smuggling attempt over many segments changes nothing', async () => {
    const vectors = readVectors('smuggling.md').filter(isRefused);
    await each(vectors, (vector) => Buffer.concat([vector.bytes, Buffer.from(follower)]), 7);
    expect(await calls()).toEqual([]);
  }, 30_000);
});
