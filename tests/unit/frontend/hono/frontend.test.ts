import { describe, expect, test } from 'bun:test';
import { FakeCore, flags, settle, withLightGlobals } from '../../../support/fake-core.ts';

withLightGlobals();

const chunk = (text: string) => new TextEncoder().encode(text);

describe('which request an event is for', () => {
  test('several requests of one connection are told apart', async () => {
    const core = new FakeCore(async (request) => new Response(await request.text()));
    const sent = [1, 2, 3].map((request) => core.request('/', { method: 'POST', slot: 5, request, flags: flags.hasBody }));
    expect(core.frontend.pending).toBe(3);
    for (const index of [1, 0, 2]) {
      core.body(sent[index] as (typeof sent)[0], `body ${index}`, true);
      await sent[index]?.done;
    }
    expect(sent.map((answer) => answer.text())).toEqual(['body 0', 'body 1', 'body 2']);
    expect(core.frontend.pending).toBe(0);
  });

  test('events for requests that are over, or never were, do nothing', async () => {
    const core = new FakeCore(() => new Response('x'));
    const sent = await core.exchange('/', { method: 'POST', slot: 5, flags: flags.hasBody });
    core.body(sent, 'late', true);
    core.frontend.onAbort(5, 1, 0, 0);
    core.frontend.onResponseDrain(5, 1);
    core.frontend.onBody(77, 3, chunk('x'), true);
    core.frontend.onAbort(77, 3, 0, 0);
    expect([sent.acknowledged, core.frontend.pending]).toEqual([0, 0]);
  });

  test('a read that the handler did not wait for, and that cannot be served any more, troubles nobody', async () => {
    const core = new FakeCore((request) => {
      void request.text();
      return new Response('early');
    });
    const sent = core.request('/', { method: 'POST', flags: flags.hasBody });
    core.body(sent, 'late', true);
    await settle();
    expect([sent.text(), core.errors]).toEqual(['early', []]);
  });

  test('a reused slot never delivers to the connection before', async () => {
    const texts: unknown[] = [];
    const core = new FakeCore((request) => {
      request.text().then(
        (text) => texts.push(text),
        (error: DOMException) => texts.push(error.name),
      );
      return new Promise(() => {});
    });
    core.request('/', { method: 'POST', slot: 5, generation: 1, flags: flags.hasBody });
    const next = core.request('/', { method: 'POST', slot: 5, generation: 2, flags: flags.hasBody });
    core.body(next, 'new', true);
    await settle();
    expect([texts.sort(), core.frontend.pending]).toEqual([['AbortError', 'new'], 1]);
    core.leave(next);
  });
});
