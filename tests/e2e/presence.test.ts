import { afterAll, afterEach, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eventually } from '../support/eventually.ts';
import { type Backend, forEachBackend, type Gateway, startGateway } from '../support/gateway.ts';
import { readPage, writeBlock } from '../support/markdown.ts';

// Only ends a test that has failed: what is measured in time has a grace that no slow machine needs.
setDefaultTimeout(120_000);

/** `/watch/lobby`: sees who is there, and is not seen. `/room/lobby?user=ann`: is ann. */
const configWith = (grace: number) => `
import { Hono } from 'hono';
import { defineGateway, presence, presenceCount } from 'ringway';
const app = new Hono();
app.get('/who/:room', async (c) => c.json(await presence('room/' + c.req.param('room'))));
app.get('/count/:room', async (c) => c.json(await presenceCount('room/' + c.req.param('room'))));
const upgrade = ({ url }) => ({ user: new URL(url, 'http://host').searchParams.get('user') ?? undefined });
const open = async (socket) => {
  const answer = await socket.subscribe('room/' + socket.params.name, { presence: true });
  socket.sendJson({ pid: process.pid, ...answer });
};
export default defineGateway({
  $OPTIONS,
  topics: { 'room/:name': { presence: { grace: ${grace}, member: ({ data }) => data.user && { id: data.user, info: { of: data.user } } } } },
  drain: { timeout: 2 },
  fetch: app,
  websocket: {
    '/room/:name': {
      positions: true,
      upgrade,
      open,
      message: (socket, message) => {
        if (message.text() === 'leave') socket.unsubscribe('room/' + socket.params.name);
        else void open(socket);
      },
    },
  },
});
`;

interface Who {
  readonly epoch: string;
  readonly offset: number;
  readonly count: number;
  readonly users: readonly { id: string; connections: number; info?: unknown }[];
}

interface Change {
  readonly epoch: string;
  readonly offset: number;
  readonly event?: 'join' | 'leave';
  readonly user?: string;
  readonly lost?: true;
}

/** A client that knows who is there from what it was told when it came, and the changes since. */
class Watcher {
  readonly ws: WebSocket;
  /** Of the worker that serves it; 0: not yet. */
  pid = 0;
  there = new Set<string>();
  joins = 0;
  leaves = 0;
  wrong: string[] = [];
  #at: { epoch: string; offset: number } | undefined;
  /** What came before the answer, which may tell of it already: the one is sent by the core, the other by a handler. */
  #early: Change[] = [];
  isOpen = true;

  constructor(gateway: Gateway, room: string, user?: string) {
    this.ws = new WebSocket(`${gateway.wsUrl}/room/${room}${user === undefined ? '' : `?user=${user}`}`);
    this.ws.onmessage = ({ data }) => this.#take(JSON.parse(String(data)));
    this.ws.onclose = () => {
      this.isOpen = false;
    };
  }

  #take(told: Change & { pid?: number; presence?: Who }): void {
    if (told.pid !== undefined) {
      this.pid = told.pid;
      if (told.presence === undefined) return;
      this.there = new Set(told.presence.users.map(({ id }) => id));
      this.#at = told.presence;
      const { offset } = told.presence;
      for (const early of this.#early.splice(0)) if (early.offset > offset) this.#change(early);
      return;
    }
    if (this.#at === undefined) this.#early.push(told);
    else this.#change(told);
  }

  #change(told: Change): void {
    const { epoch, offset, event, user = '' } = told;
    if (epoch !== this.#at?.epoch || offset !== this.#at.offset + 1)
      this.wrong.push(`${epoch}:${offset} after ${JSON.stringify(this.#at)}`);
    this.#at = { epoch, offset };
    if (event === 'join') {
      this.joins += 1;
      if (this.there.has(user)) this.wrong.push(`${user} has joined twice`);
      this.there.add(user);
    } else if (event === 'leave') {
      this.leaves += 1;
      if (!this.there.delete(user)) this.wrong.push(`${user} has left twice`);
    } else this.wrong.push(JSON.stringify(told));
  }

  static async open(gateway: Gateway, room: string, user?: string): Promise<Watcher> {
    const watcher = new Watcher(gateway, room, user);
    await eventually('the answer to the subscription', () => watcher.pid !== 0 || !watcher.isOpen);
    if (watcher.pid === 0) throw new Error('the socket was closed at once');
    return watcher;
  }

  /** On the worker `pid`. The kernel spreads connections, so some are opened and closed. */
  static async openOn(pid: number, gateway: Gateway, room: string, user?: string): Promise<Watcher> {
    for (;;) {
      const probe = await Watcher.open(gateway, `probe-${pid}`);
      const isThere = probe.pid === pid;
      if (isThere) {
        const watcher = await Watcher.open(gateway, room, user);
        if (watcher.pid === pid) {
          probe.ws.close();
          return watcher;
        }
        watcher.ws.send('leave');
        watcher.ws.close();
      }
      probe.ws.close();
    }
  }
}

forEachBackend('presence', (backend: Backend) => {
  let gateway: Gateway;
  afterEach(() => gateway?.stop());

  const start = async (grace: number) => {
    gateway = await startGateway({ backend, workers: 2, config: configWith(grace) });
    return (await gateway.workerPids()) as [number, number];
  };
  const who = async (room = 'lobby') => (await (await fetch(`${gateway.url}/who/${room}`)).json()) as Who;
  const names = async (room?: string) => (await who(room)).users.map(({ id, connections }) => `${id}*${connections}`).sort();
  const agreesWith = async (watcher: Watcher, expected: readonly string[]) =>
    eventually(
      `${watcher.pid} sees ${expected}`,
      () => watcher.there.size === expected.length && expected.every((user) => watcher.there.has(user)),
    );
  const exact = (...watchers: readonly Watcher[]) => {
    for (const watcher of watchers) expect(watcher.wrong).toEqual([]);
  };

  test('members on both workers are seen from both, each join and each leave once and in order', async () => {
    const [one, two] = await start(0);
    const watchers = [await Watcher.openOn(one, gateway, 'lobby'), await Watcher.openOn(two, gateway, 'lobby')] as const;
    const ann = await Watcher.openOn(one, gateway, 'lobby', 'ann');
    const annToo = await Watcher.openOn(two, gateway, 'lobby', 'ann');
    const bob = await Watcher.openOn(two, gateway, 'lobby', 'bob');
    expect(await names()).toEqual(['ann*2', 'bob*1']);
    expect((await who()).users.find(({ id }) => id === 'ann')?.info).toEqual({ of: 'ann' });
    expect(await (await fetch(`${gateway.url}/count/lobby`)).json()).toEqual({ users: 2, connections: 3 });
    for (const watcher of watchers) await agreesWith(watcher, ['ann', 'bob']);
    ann.ws.close();
    await eventually('one tab less', async () => (await names()).includes('ann*1'));
    bob.ws.send('leave');
    for (const watcher of watchers) await agreesWith(watcher, ['ann']);
    annToo.ws.close();
    for (const watcher of watchers) await agreesWith(watcher, []);
    exact(...watchers);
    for (const { joins, leaves } of watchers) expect(leaves).toBe(joins);
    expect(await names()).toEqual([]);
  });

  test('who is back within the grace has never been away', async () => {
    await start(300);
    const watcher = await Watcher.open(gateway, 'lobby');
    const first = await Watcher.open(gateway, 'lobby', 'ann');
    await agreesWith(watcher, ['ann']);
    const { offset } = await who();
    first.ws.close();
    await eventually('the end of the socket', () => !first.isOpen);
    expect(await names()).toEqual(['ann*1']);
    const second = await Watcher.open(gateway, 'lobby', 'ann');
    expect(await names()).toEqual(['ann*1']);
    expect((await who()).offset).toBe(offset);
    second.ws.send('leave');
    await agreesWith(watcher, []);
    exact(watcher);
  });

  test('members of a worker that is killed leave after their grace, once, and nobody else does', async () => {
    const [one, two] = await start(1);
    const watcher = await Watcher.openOn(two, gateway, 'lobby');
    const killed = await Promise.all(['ann', 'bob', 'eve'].map((user) => Watcher.openOn(one, gateway, 'lobby', user)));
    const kept = await Watcher.openOn(two, gateway, 'lobby', 'kim');
    const both = await Watcher.openOn(two, gateway, 'lobby', 'eve');
    await agreesWith(watcher, ['ann', 'bob', 'eve', 'kim']);
    const { leaves } = watcher;
    process.kill(one, 'SIGKILL');
    await agreesWith(watcher, ['eve', 'kim']);
    expect(watcher.leaves).toBe(leaves + 2);
    await eventually('the worker is back', async () => (await gateway.workerPids()).every((pid) => pid > 0 && pid !== one));
    expect(await names()).toEqual(['eve*1', 'kim*1']);
    const again = await Watcher.open(gateway, 'lobby', 'ann');
    await agreesWith(watcher, ['ann', 'eve', 'kim']);
    exact(watcher, kept, both, again);
    expect(killed.every(({ isOpen }) => !isOpen)).toBe(true);
  });

  test('a reload in the middle: who comes back to the new workers has never been away', async () => {
    const pids = await start(300);
    const users = Array.from({ length: 12 }, (_, n) => `user-${n}`);
    let sockets = await Promise.all(users.map((user) => Watcher.open(gateway, 'lobby', user)));
    const before = await who();
    expect(before.count).toBe(12);
    gateway.kill('SIGHUP');
    sockets = await Promise.all(
      sockets.map(async (socket, n) => {
        await eventually('the end of the socket', () => !socket.isOpen);
        return Watcher.open(gateway, 'lobby', users[n]);
      }),
    );
    await eventually('other workers', async () => (await gateway.workerPids()).every((pid) => !pids.includes(pid)));
    const after = await who();
    expect(after).toEqual(before); // also where the log of joins and leaves stands: nothing was added to it
    for (const socket of sockets) socket.ws.send('leave');
    await eventually('that all have left', async () => (await who()).count === 0);
    expect((await who()).offset).toBe(before.offset + 12);
    exact(...sockets);
  });

  test('workers killed and replaced while users come and go: what watchers know is what is, and nobody stays', async () => {
    const [, kept] = await start(0.2);
    const steady = await Watcher.openOn(kept, gateway, 'lobby');
    const users = Array.from({ length: 10 }, (_, n) => `user-${n}`);
    let isOver = false;
    const live = async (user: string) => {
      while (!isOver) {
        const watcher = new Watcher(gateway, 'lobby', user);
        await eventually('an answer, or the end', () => watcher.pid !== 0 || !watcher.isOpen || isOver);
        await Bun.sleep(Math.random() * 60);
        exact(watcher);
        if (Math.random() < 0.3 && watcher.pid !== 0 && watcher.isOpen) watcher.ws.send('leave');
        watcher.ws.close();
      }
    };
    const load = Promise.all(users.map(live));
    const othersThan = async (pids: readonly number[]) =>
      eventually('other workers', async () => {
        const now = await gateway.workerPids();
        return now.length === 2 && now.every((pid) => pid > 0 && !pids.includes(pid));
      });
    for (let kills = 0; kills < 3; kills++) {
      await Bun.sleep(300);
      const [victim = 0] = await gateway.workerPids();
      process.kill(victim, 'SIGKILL');
      await othersThan([victim]);
    }
    // One that stayed connected has been told of everything, once and in order.
    await eventually('some joins', () => steady.joins > 10);
    expect(steady.isOpen).toBe(true);
    const before = await gateway.workerPids();
    gateway.kill('SIGHUP');
    await othersThan(before);
    await eventually('the end of the socket', () => !steady.isOpen);
    exact(steady);
    const watcher = await Watcher.open(gateway, 'lobby');
    await Bun.sleep(200);
    isOver = true;
    await load;
    await eventually('that nobody is there', async () => (await who()).count === 0);
    await agreesWith(watcher, []);
    exact(watcher);
    expect(await gateway.metric('ringway_presence_members')).toBe(0);
    expect(gateway.output()).not.toContain('Assertion');
  });
});

describe('docs/presence.md', () => {
  interface People {
    begin(here: Who): void;
    take(message: object): void;
    end(): void;
  }
  type MakePeople = (show: (users: ReadonlyMap<string, unknown>) => void, ask: () => void) => People;
  const page = readPage('docs/presence.md');
  let folder: string;
  let people: MakePeople;
  let gateway: Gateway;

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'ringway-presence-'));
    for (const block of page.blocks) if (block.path !== undefined) writeBlock(folder, block);
    ({ people } = (await import(join(folder, 'people.mjs'))) as { people: MakePeople });
    const { text: source = '' } = page.blocks.find((block) => block.path === 'gateway.config.ts') ?? {};
    gateway = await startGateway({ workers: 2, config: source.replace('defineGateway({', 'defineGateway({ $OPTIONS,') });
  });
  afterAll(async () => {
    await gateway.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  test('a page knows who is there and hears what is said, on one socket', async () => {
    const open: WebSocket[] = [];
    const enter = (name: string) => {
      const seen = {
        users: [] as string[],
        lists: 0,
        said: [] as string[],
        since: '',
        socket: new WebSocket(`${gateway.wsUrl}/chat/tea?name=${name}`),
      };
      open.push(seen.socket);
      const here = people(
        (users) => (seen.users = [...users.keys()].sort()),
        () => seen.socket.send(''),
      );
      seen.socket.onmessage = ({ data }) => {
        const message = JSON.parse(String(data));
        if (message.subscribed) {
          seen.lists += 1;
          seen.since = message.since;
          here.begin(message.here);
        } else if (message.event !== undefined) here.take(message);
        else seen.said.push(message.data);
      };
      return seen;
    };
    const ann = enter('ann');
    await eventually('ann is there', () => ann.users.join() === 'ann');
    const bob = enter('bob');
    await eventually('both see both', () => [ann, bob].every(({ users }) => users.join() === 'ann,bob'));
    bob.socket.send('hello');
    await eventually('it is heard', () => ann.said.join() === 'hello' && bob.said.join() === 'hello');
    ann.socket.send('');
    await eventually('the list comes again when it is asked for', () => ann.lists === 2);
    expect(ann.users).toEqual(['ann', 'bob']);
    expect(ann.since).toEndWith(':1');
    bob.socket.close();
    await eventually('bob has left', () => ann.users.join() === 'ann');
    for (const socket of open) socket.close();
  });

  test('changes that overtake the list count once, and a list is asked for where changes are lost', () => {
    const shown: string[][] = [];
    let asked = 0;
    const here = people(
      (users) => shown.push([...users.keys()].sort()),
      () => asked++,
    );
    const change = (offset: number, event: string, user: string) => ({ topic: 't', epoch: 'e', offset, event, user });
    const list = (offset: number, ...ids: string[]) => ({
      epoch: 'e',
      offset,
      count: ids.length,
      users: ids.map((id) => ({ id, connections: 1 })),
    });
    here.take(change(2, 'leave', 'bob'));
    here.take(change(3, 'join', 'bob'));
    here.take(change(4, 'join', 'eve'));
    // The list was made between the second change and the third.
    here.begin(list(3, 'ann', 'bob'));
    expect(shown).toEqual([['ann', 'bob', 'eve']]);
    here.take(change(5, 'leave', 'ann'));
    expect(shown.at(-1)).toEqual(['bob', 'eve']);
    here.take({ topic: 't', epoch: 'e', offset: 9, event: 'presence', lost: true });
    expect(asked).toBe(1);
    here.take(change(10, 'join', 'dan'));
    here.begin(list(9, 'ann'));
    expect(shown.at(-1)).toEqual(['ann', 'dan']);
    here.end();
    here.begin({ ...list(1, 'flo'), epoch: 'f' });
    expect(shown.at(-1)).toEqual(['flo']);
  });
});
