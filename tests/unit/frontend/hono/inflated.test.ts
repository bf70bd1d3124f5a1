/** `return fetch(upstream)`: the body was inflated on the way, so the answer must not say otherwise. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { FakeCore, withLightGlobals } from '../../../support/fake-core.ts';

withLightGlobals();

const text = 'hello '.repeat(1000);
const zipped = Bun.gzipSync(Buffer.from(text));

describe('the answer of an upstream that compresses', () => {
  let upstream: Bun.Server<undefined>;
  beforeAll(() => {
    upstream = Bun.serve({
      port: 0,
      hostname: '127.0.0.1',
      fetch: (request) => {
        if (request.url.endsWith('/plain')) return new Response(text);
        return new Response(zipped, { headers: { 'content-encoding': 'gzip', etag: '"x"' } });
      },
    });
  });
  afterAll(() => upstream.stop(true));

  const ask = async (handler: () => unknown, method = 'GET') => {
    const core = new FakeCore(handler as never);
    const answer = await core.exchange('/', { method });
    expect(core.errors).toEqual([]);
    return answer;
  };

  test('is passed on inflated, without the coding and the length of before', async () => {
    for (const handler of [
      () => fetch(upstream.url),
      async () => (await fetch(upstream.url)).clone(),
      async () => {
        const response = await fetch(upstream.url);
        return new Response(response.body, response);
      },
    ]) {
      const answer = await ask(handler);
      expect([answer.state, answer.text(), answer.header('content-encoding'), answer.header('etag')]).toEqual([
        'complete',
        text,
        null,
        '"x"',
      ]);
    }
  });

  test('is passed on as it came when it was asked for so', async () => {
    const raw = () => fetch(upstream.url, { decompress: false } as RequestInit);
    for (const handler of [raw, async () => (await raw()).clone()]) {
      const answer = await ask(handler);
      expect([answer.header('content-encoding'), Buffer.concat(answer.chunks)]).toEqual(['gzip', Buffer.from(zipped)]);
    }
  });

  test('of one that does not compress keeps its length', async () => {
    const answer = await ask(() => fetch(new URL('/plain', upstream.url)));
    expect(answer.text()).toBe(text);
  });
});
