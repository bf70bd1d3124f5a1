import { describe, expect, test } from 'bun:test';
import { Hono } from 'hono';
import { upgradeWebSocket as upgradeForBun } from 'hono/bun';
import type { WSContext } from 'hono/ws';
import type { RingwayBindings } from '../../../../src/api/bindings.ts';
import type { SubscribeResult } from '../../../../src/api/topics.ts';
import type { Message, SendResult, Socket } from '../../../../src/api/websocket.ts';
import { type HonoSocketData, honoWebSocketHandler, upgradeWebSocket } from '../../../../src/frontend/hono/index.ts';
import { FakeCore, flags, type Recorded, type RequestOptions } from '../../../support/fake-core.ts';

/** A socket that records what is done to it. */
class FakeSocket implements Socket<HonoSocketData> {
  readonly id = 'an id';
  sendJson(value: unknown): SendResult {
    return this.send(JSON.stringify(value));
  }
  readonly user = undefined;
  async renew() {
    return { renewed: false, reason: 'anonymous' } as const;
  }
  readonly params = {};
  readonly bufferedAmount = 0;
  readonly remoteAddress = '192.0.2.7';
  readonly tls = undefined;
  readonly protocol = '';
  readonly signal = new AbortController().signal;
  isOpen = true;
  data: HonoSocketData;
  readonly sent: unknown[] = [];
  closed: [number | undefined, string | undefined] | undefined;
  constructor(data: HonoSocketData) {
    this.data = data;
  }
  send(message: unknown): SendResult {
    this.sent.push(message);
    return 'sent';
  }
  close(code?: number, reason?: string): void {
    this.closed = [code, reason];
    this.isOpen = false;
  }
  ping(): void {}
  terminate(): void {}
  subscribe(topic: string): boolean;
  subscribe(topic: string, options: object): Promise<SubscribeResult>;
  subscribe(_: string, options?: object): boolean | Promise<SubscribeResult> {
    return options === undefined ? true : Promise.resolve({ subscribed: true, recovered: false });
  }
  unsubscribe(): void {}
  isSubscribed(): boolean {
    return false;
  }
  publish() {
    return 'accepted' as const;
  }
  pause(): void {}
  resume(): void {}
}

const message = (payload: string | Uint8Array): Message => ({
  isBinary: typeof payload !== 'string',
  byteLength: payload.length,
  text: () => payload.toString(),
  bytes: () => new Uint8Array(payload as Uint8Array),
  json: () => JSON.parse(payload.toString()),
});

const handshake = (headers: Record<string, string> = {}): RequestOptions => ({
  flags: flags.upgrade,
  headers: { upgrade: 'websocket', connection: 'Upgrade', ...headers },
});

function socketOf(answer: Recorded): FakeSocket {
  expect(answer.state).toBe('upgraded');
  return new FakeSocket(answer.upgrade?.data as HonoSocketData);
}

const serve = (app: Hono<{ Bindings: RingwayBindings }>) => new FakeCore(app.fetch);

describe('upgradeWebSocket', () => {
  test('accepts a handshake at the index of the Hono handler, and sends no response', async () => {
    const app = new Hono<{ Bindings: RingwayBindings }>();
    app.use(async (c, next) => {
      await next();
      c.res.headers.set('x-late', '1');
    });
    app.get(
      '/ws/:id',
      upgradeWebSocket((c) => ({ onOpen: (_event, ws) => ws.send(`hello ${c.req.param('id')}`) })),
    );
    const core = serve(app);
    const answer = await core.exchange('/ws/42', handshake());
    await Bun.sleep(0);
    expect([answer.upgrade?.headers, core.frontend.pending, core.errors.length]).toEqual(['', 0, 0]);
    const socket = socketOf(answer);
    await honoWebSocketHandler.open?.(socket);
    expect(socket.sent).toEqual(['hello 42']);
  });

  test('a request that is no handshake goes on to the next handler', async () => {
    const app = new Hono<{ Bindings: RingwayBindings }>();
    app.get(
      '/ws',
      upgradeWebSocket(() => ({})),
      (c) => c.text('a page'),
    );
    app.get(
      '/only',
      upgradeWebSocket(() => ({})),
    );
    const core = serve(app);
    expect((await core.exchange('/ws')).text()).toBe('a page');
    expect((await core.exchange('/only')).status).toBe(404);
  });

  test('it can be called inside a handler, where a request that is no handshake is an error', async () => {
    const app = new Hono<{ Bindings: RingwayBindings }>();
    app.onError((error, c) => c.text(error.message, 426));
    app.get('/ws', (c) => upgradeWebSocket(c, {}));
    const core = serve(app);
    expect((await core.exchange('/ws', handshake())).state).toBe('upgraded');
    const refused = await core.exchange('/ws');
    expect([refused.status, refused.text()]).toEqual([426, 'Failed to upgrade WebSocket']);
  });

  test('without our env it says what is missing', async () => {
    const app = new Hono();
    app.onError((error, c) => c.text(error.message, 500));
    app.get(
      '/ws',
      upgradeWebSocket(() => ({})),
    );
    expect(await (await app.request('/ws')).text()).toInclude('env that Ringway passes');
  });

  test.each([
    [undefined, 'chat', ''],
    ['chat', undefined, ''],
    ['chat', 'other, chat', 'chat'],
    ['chat', 'other', ''],
    [['v2', 'v1'], 'v1,v2', 'v2'],
    [['v3', 'v1'], 'v1,v2', 'v1'],
  ] as const)('protocol %p, offered %p, agrees on %p', async (protocol, offered, agreed) => {
    const app = new Hono<{ Bindings: RingwayBindings }>();
    let ws!: WSContext;
    app.get(
      '/ws',
      upgradeWebSocket(
        () => ({
          onOpen: (_event, context) => {
            ws = context;
          },
        }),
        protocol === undefined ? {} : { protocol },
      ),
    );
    const answer = await serve(app).exchange('/ws', handshake(offered === undefined ? {} : { 'sec-websocket-protocol': offered }));
    expect(answer.upgrade?.headers).toBe(agreed === '' ? '' : `Sec-WebSocket-Protocol: ${agreed}\r\n`);
    await honoWebSocketHandler.open?.(socketOf(answer));
    expect(ws.protocol).toBe(agreed || null);
  });

  test("hono/bun's own helper works, with the first protocol that the client offers", async () => {
    const app = new Hono();
    app.get(
      '/ws',
      upgradeForBun(() => ({ onMessage: (event, ws) => ws.send(`got ${event.data}`) })),
      (c) => c.text('a page'),
    );
    const core = new FakeCore(app.fetch);
    const answer = await core.exchange('/ws', handshake({ 'sec-websocket-protocol': 'graphql-ws, other' }));
    expect(answer.upgrade?.headers).toBe('Sec-WebSocket-Protocol: graphql-ws\r\n');
    const socket = socketOf(answer);
    await honoWebSocketHandler.message?.(socket, message('x'));
    expect(socket.sent).toEqual(['got x']);
    expect((await core.exchange('/ws')).text()).toBe('a page');
  });
});

describe('events', () => {
  async function connect(events: HonoSocketData['events']): Promise<FakeSocket> {
    const app = new Hono<{ Bindings: RingwayBindings }>();
    app.get(
      '/ws',
      upgradeWebSocket(() => events),
    );
    return socketOf(await serve(app).exchange('/ws?x=1', handshake()));
  }

  test('messages are strings or array buffers, in MessageEvents', async () => {
    const received: unknown[] = [];
    const socket = await connect({
      onMessage: (event, ws) => {
        expect(event).toBeInstanceOf(MessageEvent);
        received.push(event.data);
        ws.send(event.data as string);
      },
    });
    await honoWebSocketHandler.message?.(socket, message('text'));
    await honoWebSocketHandler.message?.(socket, {
      ...message(''),
      isBinary: true,
      bytes: () => new Uint8Array([0, 1, 2, 3]).subarray(1, 3),
    });
    expect(received[0]).toBe('text');
    expect(received[1]).toBeInstanceOf(ArrayBuffer);
    expect([...new Uint8Array(received[1] as ArrayBuffer)]).toEqual([1, 2]);
    expect(socket.sent).toEqual(received);
  });

  test('the context is the same in all events, and follows the socket through its states', async () => {
    const seen: unknown[] = [];
    const contexts = new Set<unknown>();
    const look = (event: Event, ws: WSContext<unknown>) => {
      contexts.add(ws);
      seen.push([event.type, ws.readyState]);
    };
    const socket = await connect({
      onOpen: (event, ws) => {
        look(event, ws);
        expect([ws.raw === socket, ws.url?.href, ws.binaryType]).toEqual([true, 'http://localhost:8080/ws?x=1', 'arraybuffer']);
      },
      onMessage: (event, ws) => {
        look(event, ws);
        ws.close(4001, 'bye');
        seen.push(ws.readyState);
      },
      onClose: (event, ws) => {
        look(event, ws);
        seen.push([event.code, event.reason, event.wasClean]);
      },
    });
    await honoWebSocketHandler.open?.(socket);
    await honoWebSocketHandler.message?.(socket, message('x'));
    expect(socket.closed).toEqual([4001, 'bye']);
    await honoWebSocketHandler.close?.(socket, 4001, 'bye');
    expect(seen).toEqual([['open', 1], ['message', 1], 2, ['close', 3], [4001, 'bye', true]]);
    expect(contexts.size).toBe(1);
  });

  test('no close frame is an unclean close', async () => {
    let clean: boolean | undefined;
    const socket = await connect({
      onClose: (event) => {
        clean = event.wasClean;
      },
    });
    await honoWebSocketHandler.close?.(socket, 1006, '');
    expect(clean).toBe(false);
  });

  test('errors go to onError, thrown or rejected', async () => {
    const errors: unknown[] = [];
    const socket = await connect({
      onOpen: () => {
        throw new Error('thrown');
      },
      onMessage: (async () => {
        throw new Error('rejected');
      }) as () => void,
      onError: (event) => void errors.push([event.type, (event as unknown as { error: Error }).error.message]),
    });
    await honoWebSocketHandler.open?.(socket);
    await honoWebSocketHandler.message?.(socket, message('x'));
    expect(errors).toEqual([
      ['error', 'thrown'],
      ['error', 'rejected'],
    ]);
  });

  test('without onError they go up, to whoever closes with 1011', async () => {
    const socket = await connect({
      onOpen: () => {
        throw new Error('thrown');
      },
      onMessage: (async () => {
        throw new Error('rejected');
      }) as () => void,
    });
    expect(() => honoWebSocketHandler.open?.(socket)).toThrow('thrown');
    await expect(honoWebSocketHandler.message?.(socket, message('x')) as Promise<void>).rejects.toThrow('rejected');
  });

  test('events that nobody listens to do nothing', async () => {
    const socket = await connect({});
    await honoWebSocketHandler.open?.(socket);
    await honoWebSocketHandler.message?.(socket, message('x'));
    await honoWebSocketHandler.close?.(socket, 1000, '');
    expect(socket.sent).toEqual([]);
  });
});
