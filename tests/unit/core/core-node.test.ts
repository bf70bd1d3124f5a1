import { afterEach, beforeEach, describe, expect, test } from 'bun:test';
import { native, type SharedStats, SystemError } from '../../../ffi/bindings.ts';
import { sendBinary, sendText } from '../../../src/api/message.ts';
import type { BackendName, PublishResult, Topic } from '../../../src/core/core.ts';
import { hostLayout, statIndex } from '../../../src/core/stat-index.ts';
import { backends, LiveCore } from '../../support/live-core.ts';
import type { Frame, Wire } from '../../support/wire.ts';

const workers = 3;

let shmFd: number;
let shared: SharedStats;
let lives: LiveCore[];

function start(backend: BackendName, workerIndex: number, wants = true): LiveCore {
  const place = { shmFd, workerIndex, workerCount: workers, wantsInterest: wants, wantsMail: wants };
  const live = new LiveCore(backend, { core: place });
  lives.push(live);
  return live;
}

/** Everybody turns until `check` holds. */
async function together(what: string, check: () => boolean): Promise<void> {
  const first = lives[0] as LiveCore;
  await first.until(what, () => {
    for (const live of lives) live.turn();
    return check();
  });
}

/** Some turns for whatever may still be under way. */
async function settle(): Promise<void> {
  let turns = 0;
  await together('some turns', () => turns++ > 20);
}

async function frames(wire: Wire, count: number): Promise<string[]> {
  const got: string[] = [];
  let failed: unknown;
  const take = async () => {
    while (got.length < count) {
      const next: Frame | undefined = await wire.frame();
      got.push(next === undefined ? 'the end' : `${next.opcode} ${next.payload}`);
    }
  };
  take().catch((error) => {
    failed = error;
  });
  await together('the frames', () => failed !== undefined || got.length === count);
  if (failed !== undefined) throw failed;
  return got;
}

beforeEach(() => {
  shmFd = native.shmCreate(workers, 65536, hostLayout);
  shared = native.shmMap(shmFd, hostLayout);
  lives = [];
});
afterEach(() => {
  for (const live of lives) live.destroy();
  shared.unmap();
  native.fdClose(shmFd);
});

for (const backend of backends) {
  describe(`interest on ${backend}`, () => {
    function listen(live: LiveCore): string[] {
      const told: string[] = [];
      const onInterest = (topic: Uint8Array, wanted: boolean) =>
        void told.push(`${wanted ? '+' : '-'}${Buffer.from(topic).toString('hex')}`);
      live.core.busEvents = { onInterest, onMail: () => {} };
      return told;
    }
    const hex = (text: string) => Buffer.from(text).toString('hex');

    test('the first subscriber of a topic and the end of the last one are told, with the name as bytes', async () => {
      const live = start(backend, 0);
      const told = listen(live);
      const one = await live.open();
      const two = await live.open();
      one.socket.subscribe('räume/1');
      live.core.subscribe(two.socket.slot, two.socket.generation, new Uint8Array([0, 255, 10]));
      live.turn();
      expect(told.splice(0).sort()).toEqual([`+${hex('räume/1')}`, '+00ff0a'].sort());
      two.socket.subscribe('räume/1');
      one.socket.unsubscribe('räume/1');
      live.turn();
      expect(told).toEqual([]);
      two.wire.destroy();
      await live.until('the end of both topics', () => told.length === 2);
      expect(told.sort()).toEqual([`-${hex('räume/1')}`, '-00ff0a'].sort());
    });

    test('what changes back before the next turn is not told', async () => {
      const live = start(backend, 0);
      const told = listen(live);
      const { socket } = await live.open();
      socket.subscribe('t');
      socket.unsubscribe('t');
      live.turn();
      expect(told).toEqual([]);
      socket.subscribe('t');
      live.turn();
      socket.unsubscribe('t');
      socket.subscribe('t');
      live.turn();
      expect(told).toEqual([`+${hex('t')}`]);
    });

    test('a worker that has something to tell does not sleep', async () => {
      const live = start(backend, 0);
      const told = listen(live);
      const { socket } = await live.open();
      await live.until('nothing to do', () => {
        const slept = live.core.sleep() !== -2;
        live.core.wake();
        return slept;
      });
      live.core.subscribeNow(socket.slot, socket.generation, 't');
      expect(live.core.sleep()).toBe(-2);
      live.turn();
      expect(told).toEqual([`+${hex('t')}`]);
    });

    test('without asking for it nothing is told', async () => {
      const live = start(backend, 0, false);
      const told = listen(live);
      const { socket } = await live.open();
      socket.subscribe('t');
      live.turn();
      live.turn();
      expect(told).toEqual([]);
    });
  });

  describe(`mail on ${backend}`, () => {
    interface Letter {
      readonly from: number;
      readonly epoch: number;
      readonly bytes: Uint8Array;
    }
    function listen(live: LiveCore): Letter[] {
      const letters: Letter[] = [];
      live.core.busEvents = { onInterest: () => {}, onMail: (from, epoch, bytes) => void letters.push({ from, epoch, bytes }) };
      return letters;
    }

    test('arrives once, in order, and as a copy that stays', async () => {
      const [one, two] = [start(backend, 0), start(backend, 2)];
      const letters = listen(two);
      const sizes = [0, 1, 7, 65_535, 65_536, 65_537, 1_000_000, 3];
      const sent = sizes.map((bytes, at) => Buffer.alloc(bytes, at + 1));
      for (const bytes of sent) expect(one.core.mail(2, bytes)).toBe('sent');
      await together('all letters', () => letters.length === sizes.length);
      await settle();
      expect(letters.map(({ bytes }) => bytes.byteLength)).toEqual(sizes);
      for (const [at, { bytes }] of letters.entries()) expect(Buffer.compare(bytes, sent[at] as Buffer)).toBe(0);
      expect(letters.every(({ from, epoch }) => from === 0 && epoch === one.core.epoch)).toBeTrue();
    });

    test('stands behind what was published before it', async () => {
      const [one, two] = [start(backend, 0), start(backend, 1)];
      const { wire, socket } = await two.open();
      socket.subscribe('t');
      two.turn();
      two.core.busEvents = { onInterest: () => {}, onMail: (_, __, bytes) => void socket.send(Buffer.from(bytes).toString()) };
      one.topics.publish('t', 'published first');
      one.core.mail(1, Buffer.from('mailed second'));
      one.topics.publish('t', 'published third');
      // The host answers mail in the turn after the core has given a publish to its subscribers: only what came before is certain.
      const got = await frames(wire, 3);
      expect(got.indexOf('1 published first')).toBeLessThan(got.indexOf('1 mailed second'));
      expect(got.toSorted()).toEqual(['1 mailed second', '1 published first', '1 published third']);
    });

    test("to nobody it is 'gone', to oneself a mistake, and past all room 'full' until there is some", async () => {
      const [one, two] = [start(backend, 0), start(backend, 1)];
      const letters = listen(two);
      expect(one.core.mail(2, new Uint8Array(1))).toBe('gone');
      expect(one.core.mail(77, new Uint8Array(1))).toBe('gone');
      expect(() => one.core.mail(0, new Uint8Array(1))).toThrow(SystemError);
      expect(() => one.core.mail(1, new Uint8Array(64 << 20))).toThrow('cannot send 67108864 bytes to worker 1: RW_ERR_INVALID');
      const bytes = new Uint8Array(1 << 20);
      let sent = 0;
      while (one.core.mail(1, bytes) === 'sent') sent++;
      expect(sent).toBeGreaterThanOrEqual(15);
      expect(one.core.mail(1, bytes)).toBe('full');
      await together('what was sent', () => letters.length === sent);
      expect(one.core.mail(1, bytes)).toBe('sent');
      await together('one more', () => letters.length === sent + 1);
      shared.workerGone(1);
      expect(one.core.mail(1, bytes)).toBe('gone');
    });

    test('who has not asked for mail gets none', async () => {
      const [one, two] = [start(backend, 0), start(backend, 1, false)];
      const letters = listen(two);
      expect(one.core.mail(1, new Uint8Array(10))).toBe('sent');
      await settle();
      expect(letters).toEqual([]);
    });
  });

  describe(`publishing with other nodes about, on ${backend}`, () => {
    test('what another node has published goes to both workers, is counted as remote, and comes back to no hook', async () => {
      const [one, two] = [start(backend, 0), start(backend, 1)];
      const hooked: string[] = [];
      const hook = (topic: Topic): PublishResult => {
        hooked.push(String(topic));
        return 'accepted';
      };
      one.core.onPublish = hook;
      two.core.onPublish = hook;
      const here = await one.open();
      const there = await two.open();
      here.socket.subscribe('t');
      there.socket.subscribe('t');
      one.turn();
      two.turn();
      one.core.publishRemote(Buffer.from('t'), sendText, Buffer.from('text'));
      one.core.publishRemote(Buffer.from('t'), sendBinary, Buffer.from('bytes'));
      const large = Buffer.alloc(2 << 20, 'l');
      one.core.publishRemote(Buffer.from('t'), sendText, large);
      for (const wire of [here.wire, there.wire]) expect(await frames(wire, 3)).toEqual(['1 text', '2 bytes', `1 ${large}`]);
      const count = (live: LiveCore, name: Parameters<typeof statIndex>[0]) => live.core.readStat(statIndex(name));
      expect([count(one, 'publishes'), count(one, 'publishes_remote'), count(two, 'publishes'), count(two, 'publishes_remote')]).toEqual([
        0, 3, 0, 3,
      ]);
      expect(hooked).toEqual([]);
    });

    test('the hook is called for every publish of this worker, whatever it is made of, behind its command', async () => {
      const live = start(backend, 0);
      const { wire, socket } = await live.open();
      socket.subscribe('t');
      live.turn();
      const hooked: [string, number, number][] = [];
      live.core.onPublish = (topic, flags, payload) => {
        hooked.push([String(topic), flags, payload.length]);
        // Behind the message that the hook is about.
        if (hooked.length === 1) live.core.publishRemote(Buffer.from('t'), sendText, Buffer.from('behind'));
        return 'queued';
      };
      // What the hook says is what is answered.
      expect(live.topics.publish('t', 'text')).toBe('queued');
      live.topics.publish('t', new Uint8Array([49, 50]));
      socket.publish('t', 'not to myself');
      live.topics.publish('nobody', 'wants this');
      live.topics.publish('t', 'x'.repeat(2 << 20));
      expect(hooked).toEqual([
        ['t', sendText, 4],
        ['t', sendBinary, 2],
        ['t', sendText, 13],
        ['nobody', sendText, 10],
        ['t', sendText, 2 << 20],
      ]);
      expect(await frames(wire, 4)).toEqual(['1 text', '1 behind', '2 12', `1 ${'x'.repeat(2 << 20)}`]);
      live.core.onPublish = undefined;
      live.topics.publish('t', 'unheard');
      expect(hooked.length).toBe(5);
      expect(await frames(wire, 1)).toEqual(['1 unheard']);
    });
  });

  describe(`the view on ${backend}`, () => {
    test('is what the supervisor has set, at once, and the same object until it changes', () => {
      const live = start(backend, 1);
      expect(live.core.view()).toBeUndefined();
      shared.viewSet(1, 0, 2);
      const first = live.core.view();
      expect(first).toEqual({ generation: 1, first: 0, count: 2 });
      expect(live.core.view()).toBe(first as NonNullable<typeof first>);
      shared.viewSet(0xffff_ffff, 2, 1);
      expect(live.core.view()).toEqual({ generation: 0xffff_ffff, first: 2, count: 1 });
    });

    test('epochs tell the processes of a place apart', () => {
      expect(shared.epoch(1)).toBe(0);
      const live = start(backend, 1);
      expect(live.core.epoch).toBe(1);
      expect(shared.epoch(1)).toBe(1);
      shared.workerGone(1);
      expect(shared.epoch(1)).toBe(2);
      expect(start(backend, 1).core.epoch).toBe(3);
      expect(shared.epoch(1)).toBe(3);
      expect(shared.epoch(99)).toBe(0);
    });

    test('without shared memory there is neither', () => {
      const live = new LiveCore(backend);
      lives.push(live);
      expect(live.core.view()).toBeUndefined();
      expect(live.core.epoch).toBe(0);
      expect(live.core.mail(1, new Uint8Array(1))).toBe('gone');
    });
  });

  test(`a drain with a time to be idle answers what still comes, on ${backend}`, async () => {
    const live = start(backend, 0);
    live.onRequest = (head) => live.core.respond(head, 200, '', 'served');
    const wire = await live.connect();
    wire.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
    expect(await live.during(wire.head())).not.toContain('Connection: close');
    await live.until('the body', () => wire.received.length >= 6);
    live.core.drain(1012, 0, 3_600_000);
    await settle();
    expect(wire.ended).toBeUndefined();
    wire.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
    await live.until('the last response', () => wire.received.includes('Connection: close'));
    await live.until('the end', () => wire.ended === 'end');
    expect(wire.received.toString()).toEndWith('served');
    await live.until('no connection', () => live.core.connections() === 0);
  });

  test(`a drain without one ends idle connections at once, on ${backend}`, async () => {
    const live = start(backend, 0);
    const wire = await live.connect();
    await live.until('the connection', () => live.core.connections() === 1);
    live.core.drain(1012, 0);
    await live.until('the end', () => wire.ended === 'end');
  });
}
