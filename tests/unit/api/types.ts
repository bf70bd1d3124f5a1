/** What the compiler takes in a config, and what it refuses: compiled by types.test.ts, never run. */
import {
  defineGateway,
  disconnect,
  type HistoryMessage,
  history,
  onPresence,
  type Published,
  type PublishResult,
  presence,
  type presenceCount,
  publish,
  publishJson,
  type Renewal,
  type RouteParams,
  route,
  type Socket,
  type SubscribeRefusal,
  type SubscribeResult,
  sendJsonToUser,
  sendToUser,
  subscribe,
  type subscribers,
  type User as TokenUser,
  type TopicPolicies,
  type TopicPolicy,
  type topics,
  type WebSocketHandler,
} from '../../../src/index.ts';

/** Compiles only where both are the same type. */
function same<A>() {
  return <B>(..._: (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? [] : [mismatch: [A, B]]) => undefined;
}

// ---------------------------------------------------------------- names that are no options, on every level

// @ts-expect-error
defineGateway({ htp: {} });
// @ts-expect-error
defineGateway({ http: { maxHeader: 1 } });
// @ts-expect-error
defineGateway({ listen: { prt: 1 } });
// @ts-expect-error
defineGateway({ listen: [8080, { prt: 1 }] });
const certificate = { cert: 'a.pem', key: 'b.pem' };
// @ts-expect-error
defineGateway({ listen: { tls: { ...certificate, serverNames: { 'example.org': { cert: 'a', key: 'b', caa: 'c' } } } } });
// @ts-expect-error
defineGateway({ io: { sqpoll: { cpus: 1 } } });
// @ts-expect-error
defineGateway({ redis: { sentinels: { name: 'a', nodes: [], nodse: [] } } });
// @ts-expect-error
defineGateway({ websocket: { '/a': { mesage() {} } } });
// @ts-expect-error
defineGateway({ websocket: { '/a': { compression: { level: 3 } } } });
defineGateway({
  http: { maxHeaders: 1 },
  listen: [8080, { port: 1, tls: { cert: ['a.pem'], key: ['b.pem'] } }],
  io: { sqpoll: { cpu: 1 } },
  websocket: { '/a': { message() {}, compression: { minBytes: 3 } } },
});
// @ts-expect-error
defineGateway({ auth: { jwt: { secrets: 'a' } } });
// @ts-expect-error
defineGateway({ auth: { jwt: { secret: 'a', algorithms: ['none'] } } });
// @ts-expect-error
defineGateway({ auth: { jwt: { secret: 'a' }, from: ['body'] } });
// @ts-expect-error
defineGateway({ websocket: { '/a': { auth: 'maybe' } } });
defineGateway({
  auth: { jwt: { jwks: { url: 'https://login.example.com/keys', maxAge: 60 }, algorithms: ['ES256'] }, from: ['header', 'message'] },
  websocket: {
    '/a': {
      auth: { mode: 'optional', refresh: true },
      open(socket) {
        same<TokenUser | undefined>()<typeof socket.user>();
        same<Promise<Renewal>>()<ReturnType<typeof socket.renew>>();
      },
    },
  },
});
// @ts-expect-error
defineGateway({ workers: '4' });
// @ts-expect-error
defineGateway({ websocket: { '/a': { idleTimeout: '60' } } });

// ---------------------------------------------------------------- socket.data

defineGateway({
  websocket: {
    '/inline': {
      upgrade(request: Request) {
        if (request.url === '') return new Response('Who are you?', { status: 401 });
        return { user: request.url };
      },
      open(socket) {
        same<{ user: string }>()<typeof socket.data>();
        // @ts-expect-error
        socket.data.users;
      },
      message: (socket) => same<{ user: string }>()<typeof socket.data>(),
    },
    '/promise': {
      upgrade: async (request: Request) => (request.url === '' ? new Response(null, { status: 401 }) : { id: 1 }),
      close: (socket) => same<{ id: number }>()<typeof socket.data>(),
    },
    '/sometimes': {
      upgrade: (request: Request) => (request.url === '' ? undefined : { id: 1 }),
      close: (socket) => same<{ id: number } | undefined>()<typeof socket.data>(),
    },
    '/only-refuses': {
      upgrade: (request: Request) => (request.url === '' ? new Response(null, { status: 401 }) : undefined),
      close: (socket) => same<undefined>()<typeof socket.data>(),
    },
    '/none': { open: (socket) => same<unknown>()<typeof socket.data>() },
    ...route('/route/:name', {
      upgrade(request, client) {
        same<Request>()<typeof request>();
        same<RouteParams<'/route/:name'>>()<typeof client.params>();
        if (request.url === '') return new Response('Who are you?', { status: 401 });
        return { user: client.params.name };
      },
      open(socket) {
        same<{ user: string }>()<typeof socket.data>();
        const name: string = socket.params.name;
        socket.subscribe(name);
        // @ts-expect-error
        socket.params.nmae;
      },
    }),
  },
});

interface User {
  readonly name: string;
}
const chat: WebSocketHandler<User> = {
  async upgrade() {
    return { name: 'a' };
  },
  open: (socket) => socket.subscribe(socket.data.name),
};
defineGateway({ websocket: { '/chat/:room': chat, '/again': chat } });
// @ts-expect-error
const wrong: WebSocketHandler<User> = { upgrade: () => ({ nmae: 'a' }) };

// ---------------------------------------------------------------- policies of topics

defineGateway({
  topics: {
    'chat/:room': {
      history: { size: 100, seconds: 300 },
      authorize(client, topic, action) {
        same<RouteParams<'chat/:room'>>()<typeof client.params>();
        same<string>()<typeof topic>();
        // @ts-expect-error
        if (action === 'subcribe') return false;
        // @ts-expect-error
        client.params.rom;
        return action === 'publish' ? client.user !== undefined : client.params.room !== 'secret';
      },
      presence: {
        member(client) {
          same<RouteParams<'chat/:room'>>()<typeof client.params>();
          return { id: client.user?.id ?? client.id, info: { room: client.params.room } };
        },
      },
    },
    'user/:id/of/:place/*': {
      presence: { member: (client) => client.params.id + client.params.place },
      authorize: async (client) => client.user?.id === client.params.id,
    },
    // @ts-expect-error
    plain: { authorize: (client) => client.params.room === 'a' },
    '*': { presence: true, recover: false },
  },
});
/** Policies that stand by themselves. */
const policies: TopicPolicies = { 'a/:b': { authorize: (client) => client.params.b === 'c', presence: { grace: 1 } } };
const policy: TopicPolicy = { history: { size: 1, seconds: 1 } };
defineGateway({ topics: policies, websocket: { '/a': { open: (socket) => same<unknown>()<typeof socket.data>() } } });
defineGateway({
  topics: { ':a': policy, 'b/:c': { token: true } },
  websocket: { ...route('/d', { upgrade: () => ({ e: 1 }), open: (socket) => same<{ e: number }>()<typeof socket.data>() }) },
});
// @ts-expect-error
defineGateway({ topics: { a: { histroy: false } } });
// @ts-expect-error
defineGateway({ topics: { a: { history: { size: 1 } } } });
// @ts-expect-error
defineGateway({ topics: { a: { history: true } } });
// @ts-expect-error
defineGateway({ topics: { a: { presence: { grase: 1 } } } });
// @ts-expect-error
defineGateway({ topics: { a: { presence: { member: () => 5 } } } });
// @ts-expect-error
defineGateway({ topics: { a: { authorize: () => 'yes' } } });
defineGateway({ sse: { '/events': { topics: ['a/*'], origins: ['https://example.com'], heartbeat: 5 } } });
// @ts-expect-error
defineGateway({ sse: { '/events': { topics: 'a/*' } } });
// @ts-expect-error
defineGateway({ sse: { '/events': { topics: ['a'], heartbeet: 5 } } });

// ---------------------------------------------------------------- socket.params

same<RouteParams<'/room/:name/of/:place/*'>>()<Readonly<Record<'name' | 'place', string>>>();
same<RouteParams<string>>()<Readonly<Record<string, string>>>();
defineGateway({
  websocket: {
    '/room/:name': {
      open(socket) {
        const name: string = socket.params.name;
        // @ts-expect-error
        const other = socket.params.nmae;
        tell(socket);
        return [name, other];
      },
    },
    '/plain': {
      // @ts-expect-error
      open: (socket) => socket.params.name,
    },
  },
});

/** A helper that takes any socket. */
function tell(socket: Socket): string | undefined {
  return socket.params.name;
}

// ---------------------------------------------------------------- topics, asked by sockets and programs

async function topicsOfSockets(socket: Socket): Promise<void> {
  same<boolean>()<ReturnType<typeof now>>();
  function now() {
    return socket.subscribe('a');
  }
  const answer = await socket.subscribe('a', { since: { epoch: '00c0ffee00c0ffee', offset: 1 }, token: 'x', presence: true });
  same<SubscribeResult>()<typeof answer>();
  if (!answer.subscribed) same<SubscribeRefusal | undefined>()<typeof answer.reason>();
  await socket.subscribe('a', { since: '00c0ffee00c0ffee:1' });
  // @ts-expect-error
  await socket.subscribe('a', { sincee: '' });
  // @ts-expect-error
  await socket.subscribe('a', { since: 1 });
  // @ts-expect-error
  if (socket.subscribe('a', {}).subscribed) return;
}

async function topicsOfPrograms(): Promise<void> {
  same<PublishResult>()<ReturnType<typeof now>>();
  function now() {
    return publish('a', 'x');
  }
  const { epoch, offset, result } = await publish('a', 'x', { idempotencyKey: 'k' });
  same<string | undefined>()<typeof epoch>();
  same<number | undefined>()<typeof offset>();
  same<PublishResult>()<typeof result>();
  same<Published>()<Awaited<ReturnType<typeof later>>>();
  function later() {
    return publishJson('a', { x: 1 }, {});
  }
  // @ts-expect-error
  await publish('a', 'x', { key: 'k' });
  const { unsubscribe } = await subscribe('a', (message, info) => {
    same<string | Uint8Array>()<typeof message>();
    same<true | undefined>()<typeof info.lost>();
  });
  unsubscribe();
  // @ts-expect-error
  await subscribe('a');
  const past = await history('a', { limit: 1, reverse: true });
  const [first] = past.messages.reverse();
  same<HistoryMessage | undefined>()<typeof first>();
  // @ts-expect-error
  await history('a', { count: 1 });
  const { users } = await presence('a');
  same<unknown>()<(typeof users)[number]['info']>();
  same<number>()<Awaited<ReturnType<typeof presenceCount>>['connections']>();
  await onPresence('a', (event) => {
    if (event.event === 'lost') return;
    same<string>()<typeof event.user>();
  });
  same<number>()<Awaited<ReturnType<typeof subscribers>>>();
  same<string[]>()<Awaited<ReturnType<typeof topics>>>();
  await disconnect({ user: 'ann' }, 4001, 'bye');
  // @ts-expect-error
  await disconnect({ sockets: 'x' });
  same<PublishResult>()<ReturnType<typeof sendToUser>>();
  // @ts-expect-error
  sendToUser('ann', { a: 1 });
  sendJsonToUser('ann', { a: 1 });
}

export { topicsOfPrograms, topicsOfSockets, wrong };
