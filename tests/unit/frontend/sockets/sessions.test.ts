/** Sessions of sockets with a token: what they hold, and what a message has to be to bring a token. */
import { afterEach, describe, expect, setSystemTime, test } from 'bun:test';
import { GatewaySocket, type Route, SocketExtras } from '../../../../src/api/socket.ts';
import type { User } from '../../../../src/api/user.ts';
import { firstToken, newerToken, type Session, Sessions } from '../../../../src/frontend/sockets/sessions.ts';
import { inSeconds, secret, startTokens, tokenOf } from '../../../support/tokens.ts';

const asks = { mode: 'required', from: ['message'], refresh: true } as const;

async function make() {
  const { tokens, counts } = await startTokens({ jwt: { secret, clockTolerance: 0 }, grace: 5 });
  const closed: [number, number][] = [];
  const sent: string[] = [];
  const core = {
    isOpen: (slot: number) => !closed.some(([each]) => each === slot),
    close: (slot: number, _generation: number, code: number) => void closed.push([slot, code]),
    send: (_slot: number, _generation: number, _flags: number, text: string) => {
      sent.push(text);
      return 'sent' as const;
    },
    addStat: () => {},
  };
  const route = { core } as unknown as Route;
  const sessions = new Sessions(tokens, core as never);
  let slots = 0;
  const socketOf = (user?: User) => {
    const extras = new SocketExtras();
    extras.user = user;
    return new GatewaySocket(route, slots++, 1, undefined, extras);
  };
  const sessionOf = (socket: GatewaySocket) => GatewaySocket.extrasOf(socket)?.session as Session;
  return { sessions, tokens, counts, closed, sent, socketOf, sessionOf };
}

const userOf = (expiresAt: number | undefined): User => ({ id: 'ann', claims: {}, expiresAt });

afterEach(() => void setSystemTime());

describe('sockets that wait for their token', () => {
  test('hold a bounded number of bytes of handshakes, and give back what they held', async () => {
    const { sessions, socketOf, sessionOf } = await make();
    const sockets: GatewaySocket[] = [];
    while (sessions.hasRoom(16_000)) {
      const socket = socketOf();
      sockets.push(socket);
      sessions.wait(socket, asks, 16_000, () => undefined);
    }
    expect(sockets.length).toBeGreaterThan(3000);
    expect(sockets.length).toBeLessThan(5000);
    const [admitted, left, both] = sockets as [GatewaySocket, GatewaySocket, GatewaySocket];
    sessions.verifying(sessionOf(admitted));
    expect(sessions.hasRoom(16_000)).toBe(false);
    sessions.admitted(sessionOf(admitted), userOf(undefined));
    expect(sessions.hasRoom(16_000)).toBe(true);
    expect(sessions.hasRoom(40_000)).toBe(false);
    sessions.end(sessionOf(left));
    for (let twice = 0; twice < 2; twice++) sessions.end(sessionOf(both));
    expect([sessions.hasRoom(40_000), sessions.hasRoom(60_000)]).toEqual([true, false]);
    expect([admitted, left].map((socket) => sessionOf(socket).admission)).toEqual([undefined, undefined]);
  });
});

describe('sockets with a user', () => {
  test('are closed when their token has ended and its grace too, whenever the clock gets there', async () => {
    const { sessions, closed, socketOf } = await make();
    const start = Date.now();
    const [short, longer, forEver] = [userOf(start + 10_000), userOf(start + 3_600_000), userOf(undefined)].map((user) => {
      const socket = socketOf(user);
      sessions.begin(socket, asks, user);
      return socket.slot;
    }) as [number, number, number];
    for (const [seconds, expected] of [
      [9, []],
      [14, []],
      [17, [[short, 4401]]],
      // Set back, and then ahead by a year.
      [-5000, [[short, 4401]]],
      [
        31_536_000,
        [
          [short, 4401],
          [longer, 4401],
        ],
      ],
    ] as const) {
      setSystemTime(start + seconds * 1000);
      sessions.tick();
      expect([seconds, closed]).toEqual([seconds, expected as never]);
    }
    expect(closed.some(([slot]) => slot === forEver)).toBe(false);
  });

  test('a newer token moves the end, also to an earlier time; one of a socket that has ended moves nothing', async () => {
    const { sessions, closed, socketOf, sessionOf } = await make();
    const start = Date.now();
    const [one, gone] = [0, 1].map(() => {
      const socket = socketOf(userOf(start + 60_000));
      sessions.begin(socket, asks, userOf(start + 60_000));
      return socket;
    }) as [GatewaySocket, GatewaySocket];
    expect(await one.renew(await tokenOf({ exp: inSeconds(20) }))).toMatchObject({ renewed: true });
    sessions.end(sessionOf(gone));
    setSystemTime(start + 30_000);
    sessions.tick();
    expect(closed).toEqual([[one.slot, 4401]]);
    expect(await one.renew(await tokenOf())).toEqual({ renewed: false, reason: 'closed' });
    setSystemTime(start + 120_000);
    sessions.tick();
    expect(closed).toHaveLength(1);
  });

  test('have one token of a message verified at a time', async () => {
    const { sessions, sent, socketOf, sessionOf } = await make();
    const socket = socketOf(userOf(undefined));
    sessions.begin(socket, asks, userOf(undefined));
    const token = await tokenOf({ exp: inSeconds(60) });
    await Promise.all([1, 2, 3].map(() => sessions.renewByMessage(sessionOf(socket), token)));
    await sessions.renewByMessage(sessionOf(socket), token);
    const taken = `{"type":"token","expiresAt":${socket.user?.expiresAt}}`;
    const busy = '{"type":"token","error":"busy"}';
    expect(sent.toSorted()).toEqual([busy, busy, taken, taken]);
  });

  test('what is no string is no token', async () => {
    const { sessions, socketOf } = await make();
    const socket = socketOf(userOf(undefined));
    sessions.begin(socket, asks, userOf(undefined));
    for (const wrong of [undefined, null, 7, {}])
      expect(await socket.renew(wrong as never)).toEqual({ renewed: false, reason: 'malformed' });
  });
});

test.each([
  ['{"token":"a"}', 'a', undefined],
  ['{"type":"token","token":"a"}', 'a', 'a'],
  [' { "token" : "a" , "type" : "token" } ', 'a', 'a'],
  ['{"type":"token","token":""}', '', ''],
  ['{"type":"other","token":"a"}', undefined, undefined],
  ['{"type":"token","token":"a","more":1}', undefined, undefined],
  ['{"type":"token"}', undefined, undefined],
  ['{"token":["a"]}', undefined, undefined],
  ['["token"]', undefined, undefined],
  ['"token"', undefined, undefined],
  ['{"token":"a"', undefined, undefined],
  ['{"token":"a"}{"token":"b"}', undefined, undefined],
  ['', undefined, undefined],
])('%s as the first message: %p, as a later one: %p', (text, first, later) => {
  expect([firstToken(text), newerToken(text)]).toEqual([first, later]);
});
