import { afterEach, describe, expect, test } from 'bun:test';
import { native } from '../../../../ffi/bindings.ts';
import { GatewaySocket } from '../../../../src/api/socket.ts';
import type { WebSocketHandler } from '../../../../src/api/websocket.ts';
import { websocketDefaults } from '../../../../src/config/websocket-options.ts';
import { hostLayout } from '../../../../src/core/stat-index.ts';
import { Frontends } from '../../../../src/frontend/registry.ts';
import { webSocketFrontend } from '../../../../src/frontend/websocket/entry.ts';
import { RequestIds } from '../../../../src/host/request-ids.ts';
import { publishDirect } from '../../../../src/topics/raw-topics.ts';
import { userTopic } from '../../../../src/topics/users.ts';
import { backends, LiveCore } from '../../../support/live-core.ts';
import type { Wire } from '../../../support/wire.ts';

let live: LiveCore;
afterEach(() => live.destroy());

const handshake = (path: string, host = 'a') =>
  `GET ${path} HTTP/1.1\r\nHost: ${host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n`;

/** A frontend with one route, '/ws', and what it says of failures. */
function serve(
  backend: (typeof backends)[number],
  upgrade: NonNullable<WebSocketHandler<unknown>['upgrade']>,
  { shmFd, ...functions }: Omit<WebSocketHandler<unknown>, 'upgrade'> & { readonly shmFd?: number } = {},
) {
  live = new LiveCore(backend, shmFd === undefined ? {} : { core: { shmFd } });
  const failures: [context: object, sentence: string][] = [];
  const frontends = new Frontends({
    topics: live.topics,
    core: live.core,
    requestIds: new RequestIds('x-request-id'),
    onFailure: (context, sentence) => void failures.push([context, sentence]),
  });
  const websocket = [{ pattern: '/ws', handler: { upgrade, ...functions }, settings: websocketDefaults }];
  const frontend = frontends.add(webSocketFrontend, { websocket });
  Object.assign(live, frontends.events());
  return { frontend, frontends, failures };
}

async function ask(bytes: string): Promise<Wire> {
  const wire = await live.connect();
  wire.write(bytes);
  return wire;
}

const statusOf = async (wire: Wire) => (await live.during(wire.head())).slice(9, 12);

describe.each([...backends])('handshakes by path on %s', (backend) => {
  test('what is no handshake, has no route, or a host that no URL can have, is left', async () => {
    const { frontend } = serve(backend, () => ({}));
    const answers = [];
    for (const bytes of ['GET /ws HTTP/1.1\r\nHost: a\r\n\r\n', handshake('/other'), handshake('/ws', 'a@b'), handshake('/ws')])
      answers.push(await statusOf(await ask(bytes)));
    // 404 is what the registry says of requests that nobody takes.
    expect(answers).toEqual(['404', '404', expect.stringMatching(/^40[04]$/), '101']);
    expect([frontend.speaksAt('/ws'), frontend.speaksAt('/other')]).toEqual([true, false]);
  });

  test('a handler that takes its time hears of a client that leaves, and is waited for', async () => {
    const signals: AbortSignal[] = [];
    const { promise, resolve } = Promise.withResolvers<object>();
    const { frontends } = serve(backend, (request) => {
      signals.push(request.signal);
      return promise;
    });
    const left = await ask(handshake('/ws'));
    const stays = await ask(handshake('/ws'));
    await live.until('both handshakes', () => signals.length === 2);
    expect([frontends.pending, frontends.outliving]).toEqual([2, 2]);
    left.destroy();
    await live.until('the signal', () => signals.some(({ aborted }) => aborted));
    resolve({});
    expect(await statusOf(stays)).toBe('101');
    expect([signals.filter(({ aborted }) => aborted).length, frontends.pending]).toEqual([1, 0]);
  });

  test('a handler is told what the log of a topic has lost before a socket could be sent it', async () => {
    const shmFd = native.shmCreate(1, 65536, hostLayout, 16 << 20);
    try {
      const told: unknown[] = [];
      const { promise: opened, resolve } = Promise.withResolvers<GatewaySocket>();
      serve(backend, () => ({}), {
        shmFd,
        open: (socket) => resolve(socket as unknown as GatewaySocket),
        lost: (socket, topic, position) => void told.push([socket instanceof GatewaySocket, topic, position]),
      });
      expect(await statusOf(await ask(handshake('/ws')))).toBe('101');
      const { slot, generation } = await live.during(opened);
      const attached = live.core.attach(slot, generation, 'chät', {});
      if (attached.kind !== 'attached') throw new Error(attached.kind);
      live.core.logReset('chät', { epoch: attached.epoch, offset: 7 }, false);
      await live.until('it is told', () => told.length === 1);
      expect(told).toEqual([[true, 'chät', { epoch: attached.epoch, offset: 7 }]]);
      live.core.terminate(slot, generation);
      live.turn();
    } finally {
      native.fdClose(shmFd);
    }
  });

  test('a handler that throws or rejects is told of under the id of its request, and answered with 500', async () => {
    let fails: () => never | Promise<never> = () => Promise.reject(new Error('later'));
    const { failures } = serve(backend, () => fails());
    const later = await ask(handshake('/ws'));
    expect(await statusOf(later)).toBe('500');
    fails = () => {
      throw new Error('at once');
    };
    const wire = await ask(handshake('/ws'));
    const head = await live.during(wire.head());
    const id = /^x-request-id: (.*)$/im.exec(head)?.[1]?.trim();
    expect(head.slice(9, 12)).toBe('500');
    expect(failures.map(([, sentence]) => sentence)).toEqual(Array(2).fill('the upgrade handler of /ws failed'));
    expect(failures[1]?.[0]).toMatchObject({ event: 'upgrade', route: '/ws', requestId: id as string });
    expect(failures.map(([context]) => (context as { err: Error }).err.message)).toEqual(['later', 'at once']);
  });

  test('whose socket it is, upgrade may say: all of a user are found by its id', async () => {
    const ids: unknown[] = ['ann', 'ann', 'bob', undefined, '', 7, 'x'.repeat(1023)];
    const { failures } = serve(backend, (_, client) => {
      const id = ids.shift() as string;
      if (id !== undefined) client.user = { id, claims: {}, expiresAt: undefined };
      expect(client.user?.id).toBe(id);
    });
    const wires: Wire[] = [];
    for (const status of ['101', '101', '101', '101', '500', '500', '500']) {
      const wire = await ask(handshake('/ws'));
      expect(await statusOf(wire)).toBe(status);
      wires.push(wire);
    }
    expect(failures.map(([context]) => (context as { err: { code: string } }).err.code)).toEqual(Array(3).fill('RW_INVALID_ARGUMENT'));
    for (const [user, text] of Object.entries({ ann: 'for ann', bob: 'for bob' })) publishDirect(live.core, userTopic(user), text);
    const heard: string[] = [];
    for (const wire of wires.slice(0, 3)) heard.push(...(await live.texts(wire, 1)));
    expect(heard).toEqual(['for ann', 'for ann', 'for bob']);
  });
});
