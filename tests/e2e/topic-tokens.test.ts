/** Tokens for topics: who has one may subscribe, and nobody else; it lets nobody connect. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test';
import { frame, opcode } from '../support/frames.mjs';
import { forEachBackend, type Gateway, startGateway } from '../support/gateway.ts';
import { inSeconds, secret, tokenOf } from '../support/tokens.ts';
import { Wire } from '../support/wire.ts';

// Only ends a test that has failed: nothing here is measured in time.
setDefaultTimeout(60_000);

const config = `
import { defineGateway, publish, route } from 'ringway';
export default defineGateway({
  $OPTIONS,
  auth: { jwt: { secret: '${secret}', clockTolerance: 0 } },
  topics: { 'room/:name': { token: true } },
  fetch(request) {
    publish(decodeURIComponent(new URL(request.url).pathname.slice(1)), 'news');
    return new Response('ok');
  },
  websocket: {
    ...route('/chat', {
      auth: 'optional',
      async message(socket, message) {
        const { topic, token } = message.json();
        const { subscribed, reason } = await socket.subscribe(topic, token === undefined ? {} : { token });
        socket.sendJson({ subscribed, reason: reason ?? null });
      },
    }),
  },
});
`;

forEachBackend('tokens for topics', (backend) => {
  let gateway: Gateway;
  beforeAll(async () => {
    gateway = await startGateway({ backend, config });
  });
  afterAll(() => gateway?.stop());

  const client = async (token?: string) =>
    Wire.open(gateway.port, '/chat', token === undefined ? {} : { authorization: `Bearer ${token}` });
  const next = async (wire: Wire) => (await wire.frame())?.payload.toString() ?? '';
  async function ask(wire: Wire, topic: string, token?: string): Promise<unknown> {
    wire.write(frame(opcode.text, JSON.stringify({ topic, token })));
    return JSON.parse(await next(wire));
  }

  test('let in whom they are for, to the topics that they name', async () => {
    const ann = await client(await tokenOf());
    const refused = { subscribed: false, reason: expect.any(String) };
    const before = await gateway.metric('ringway_auth_refusals_total', { reason: 'topic' });
    expect(await ask(ann, 'room/a')).toEqual(refused);
    expect(await ask(ann, 'room/a', 'garbage')).toEqual(refused);
    expect(await ask(ann, 'room/a', await tokenOf())).toEqual(refused);
    expect(await ask(ann, 'room/a', await tokenOf({ topic: 'room/b' }))).toEqual(refused);
    expect(await ask(ann, 'room/a', await tokenOf({ topic: 'room/a', sub: 'bob' }))).toEqual(refused);
    expect(await ask(ann, 'room/a', await tokenOf({ topic: 'room/a', exp: 1 }))).toEqual(refused);
    expect(await gateway.metric('ringway_auth_refusals_total', { reason: 'topic' })).toBe(before + 2);
    await fetch(`${gateway.url}/room%2Fa`);
    expect(await ask(ann, 'room/a', await tokenOf({ topic: 'room/a' }))).toEqual({ subscribed: true, reason: null });
    const nobody = await client();
    expect(await ask(nobody, 'room/a')).toEqual(refused);
    expect(await ask(nobody, 'room/a', await tokenOf({ topics: ['room/:any'], sub: undefined as never }))).toEqual({
      subscribed: true,
      reason: null,
    });
    await fetch(`${gateway.url}/room%2Fa`);
    expect([await next(ann), await next(nobody)]).toEqual(['news', 'news']);
    for (const wire of [ann, nobody]) wire.end();
  });

  test('end what they have let in, unless a newer one has come', async () => {
    const [left, renewed] = [await client(await tokenOf()), await client(await tokenOf())] as const;
    const short = await tokenOf({ topic: 'room/c', exp: inSeconds(2) });
    for (const wire of [left, renewed]) expect(await ask(wire, 'room/c', short)).toMatchObject({ subscribed: true });
    expect(await ask(renewed, 'room/c', await tokenOf({ topic: 'room/c' }))).toMatchObject({ subscribed: true });
    const end = await left.frame();
    expect([end?.opcode, end?.payload.readUInt16BE(0), end?.payload.subarray(2).toString()]).toEqual([
      opcode.close,
      4401,
      'the token of a topic has ended',
    ]);
    expect(await gateway.metric('ringway_topic_tokens_ended_total')).toBe(1);
    await fetch(`${gateway.url}/room%2Fc`);
    expect(await next(renewed)).toBe('news');
    for (const wire of [left, renewed]) wire.end();
  });
});
