/** Streams as they begin: who is asked, in which order, and what becomes of one that is ended or fails while somebody thinks about it. */
import { describe, expect, test } from 'bun:test';
import type { Admitted, ProtocolSubscribeOptions, SubscribeResult, Topics } from '../../../../src/api/topics.ts';
import type { User } from '../../../../src/api/user.ts';
import type { RequestHead } from '../../../../src/core/http.ts';
import { type StreamRefusal, Streams, type StreamWishes } from '../../../../src/frontend/streams/streams.ts';

const head: RequestHead = { slot: 3, generation: 5, request: 1, listener: 0, flags: 0, method: 1, raw: '', hostBytes: 0, targetBytes: 0 };
const wishes: StreamWishes = {
  topics: [{ topic: 'a', since: undefined, token: undefined }],
  history: 0,
  presence: false,
  isJson: false,
  greets: false,
};
const subscribed: SubscribeResult = { subscribed: true, recovered: false, epoch: '00c0ffee00c0ffee', offset: 4 };

function made(topics: Partial<Topics> = {}) {
  const said: string[] = [];
  const counted: string[] = [];
  const refusals: StreamRefusal[] = [];
  const failures: string[] = [];
  const core = {
    ids: { of: () => 'id' },
    remoteAddress: () => undefined,
    respondBeginWith: () => said.push('head'),
    respondBeginEvents: (_head: RequestHead, _headers: string, quietMs: number) => said.push(`begin ${quietMs}`),
    respondChunk: (_head: RequestHead, chunk: string) => said.push(chunk.replace(/^[a-z]+: \d+/, 'wait N')),
    respondEvent: (_head: RequestHead, rest: string) => said.push(`event ${JSON.stringify(rest)}`),
    respondPlaces: (_head: RequestHead, places: unknown) => said.push(`places ${JSON.stringify(places)}`),
    respondEnd: (_head: RequestHead, close?: boolean) => said.push(`end${close ? ' and close' : ''}`),
  };
  const host = {
    core: core as never,
    topics: {
      admit: async () => ({}),
      authorize: () => true,
      hasPresence: () => true,
      subscribeWith: async () => subscribed,
      ...topics,
    } as Topics,
    count: (metric: string) => void counted.push(metric),
    failed: (_context: object, sentence: string) => void failures.push(sentence),
  };
  const streams = new Streams(host);
  const open = async (asked: Partial<StreamWishes> = {}, user?: User, isHead = false) => {
    streams.open(head, { ...wishes, ...asked }, { user, data: undefined }, { headers: '', quietMs: 15_000, isHead }, (refusal) =>
      refusals.push(refusal),
    );
    await Bun.sleep(0);
  };
  return { streams, open, said, counted, refusals, failures };
}

/** Something that somebody has yet to say. */
function later<Value>() {
  let resolve: (value: Value) => void = () => {};
  const promise = new Promise<Value>((settle) => {
    resolve = settle;
  });
  return { promise, resolve };
}

describe('a stream', () => {
  test('begins when all of its topics let it, and says where it is at the end', async () => {
    const { streams, open, said } = made();
    await open();
    expect(said).toEqual(['begin 15000', 'wait N\n\n', String.raw`event "\n"`]);
    expect(streams.pending).toBe(0);
  });

  test('of several topics tells their places before it subscribes to any, and what is lost of one', async () => {
    const asked: unknown[] = [];
    const { open, said, counted } = made({
      async subscribeWith(_socket, topic, { since }: ProtocolSubscribeOptions) {
        asked.push([topic, since]);
        return subscribed;
      },
    });
    const since = { epoch: '00c0ffee00c0ffee', offset: 2 };
    await open({
      topics: [
        { topic: 'a', since, token: undefined },
        { topic: 'b', since: 'unknown', token: undefined },
      ],
      isJson: true,
      greets: true,
    });
    expect(said[2]).toBe(`places ${JSON.stringify([{ topic: 'a', at: since }, { topic: 'b' }])}`);
    expect(said.slice(3, 5)).toEqual([expect.stringContaining('lost'), expect.stringContaining('lost')]);
    expect(said[5]).toContain('subscribed');
    expect([asked, counted]).toEqual([
      [
        ['a', since],
        ['b', 'unknown'],
      ],
      ['sse_lost', 'sse_lost'],
    ]);
  });

  test.each([
    ['token', 401],
    ['forbidden', 403],
  ] as const)('that a topic refuses for %p is answered with %p, and nothing was sent', async (verdict, status) => {
    const { open, said, refusals, counted } = made({ admit: async () => verdict });
    await open();
    expect([refusals.map((refusal) => refusal.status), said, counted]).toEqual([[status], [], [`sse_refused_${verdict}`]]);
  });

  test('whose presence or history is not for this client is refused', async () => {
    const { open, refusals } = made({ authorize: (_socket, _topic, action) => action === 'subscribe' });
    await open({ history: 3 });
    await open({ presence: true });
    const nowhere = made({ hasPresence: () => false });
    await nowhere.open({ presence: true });
    expect([...refusals, ...nowhere.refusals].map(({ status }) => status)).toEqual([403, 403, 404]);
  });

  test('for HEAD is its head alone', async () => {
    const { open, said } = made();
    await open({}, undefined, true);
    expect(said).toEqual(['head', 'end']);
  });

  test('whose client leaves while somebody thinks about it is forgotten', async () => {
    const { promise, resolve } = later<Admitted>();
    const { streams, open, said, refusals } = made({ admit: () => promise });
    await open();
    expect([streams.pending, streams.onAbort(3, 2), streams.onAbort(3, 1), streams.onAbort(3, 1)]).toEqual([1, false, true, false]);
    resolve({});
    await Bun.sleep(0);
    expect([said, refusals, streams.pending]).toEqual([[], [], 0]);
  });

  test('that is ended while somebody thinks about it is refused, and one that has begun is told why', async () => {
    const { promise, resolve } = later<Admitted>();
    const waiting = made({ admit: () => promise });
    await waiting.open();
    expect(waiting.streams.end(head, 4001, 'enough')).toBe(true);
    resolve({});
    await Bun.sleep(0);
    expect([waiting.said, waiting.refusals.map(({ status }) => status)]).toEqual([[], [403]]);
    const { streams, open, said } = made();
    await open();
    expect(streams.end({ slot: 3, generation: 4 }, 4001, 'enough')).toBe(false);
    expect(streams.end(head, 4001, 'enough')).toBe(true);
    expect(streams.end(head, 4001, 'enough')).toBe(false);
    expect(said.slice(-2)).toEqual([expect.stringContaining('closed'), 'end and close']);
  });

  test('that cannot be had ends, and its client is to wait longer', async () => {
    const { open, said, counted } = made({ subscribeWith: async () => ({ subscribed: false, reason: 'unavailable', recovered: false }) });
    await open();
    expect([said.slice(-2), counted]).toEqual([['wait N\n: unavailable\n\n', 'end and close'], ['sse_given_up']]);
  });

  test('that fails is answered, before its head with 500 and behind it with its end', async () => {
    const broken = () => Promise.reject(new Error('broken'));
    const before = made({ admit: broken });
    await before.open();
    expect([before.refusals.map(({ status }) => status), before.said, before.failures.length]).toEqual([[500], [], 1]);
    const behind = made({ subscribeWith: broken });
    await behind.open();
    expect([behind.refusals, behind.said.at(-1), behind.failures.length]).toEqual([[], 'end and close', 1]);
  });

  test('ends with the token of its user', async () => {
    const { open, said } = made();
    await open({}, { id: 'ann', claims: {}, expiresAt: Date.now() - 1 });
    await Bun.sleep(5);
    expect(said.at(-1)).toBe('end and close');
    const lasting = made();
    await lasting.open({}, { id: 'ann', claims: {}, expiresAt: Date.now() + 2 ** 40 });
    expect(lasting.said.at(-1)).toBe(String.raw`event "\n"`);
    expect(lasting.streams.of('ann')).toHaveLength(1);
    lasting.streams.onAbort(3, 1);
    expect(lasting.streams.of('ann')).toEqual([]);
  });
});
