import { afterEach, beforeEach, describe, expect, test } from 'bun:test';
import { readdirSync, readlinkSync } from 'node:fs';
import { promisify } from 'node:util';
import { native, type SharedStats } from '../../../ffi/bindings.ts';
import type { BackendName, BehaviorOptions } from '../../../src/core/core.ts';
import { hostLayout, type StatName, statIndex } from '../../../src/core/stat-index.ts';
import { watchHostTimers } from '../../../src/host/host-timers.ts';
import { Loop } from '../../../src/host/loop.ts';
import { frame, opcode } from '../../support/frames.mjs';
import { backends, LiveCore } from '../../support/live-core.ts';
import { Wire } from '../../support/wire.ts';

let live: LiveCore;
let loop: Loop;
let running: Promise<void>;
let shmFd: number;
let stats: SharedStats;
let pending: number;
/** Whether the loop is told when Bun has something to do. */
let hearsHost = false;

function counter(name: StatName): number {
  return Number(stats.read(0)[statIndex(name)]);
}

async function eventually<Value>(what: string, check: () => Value | false | undefined): Promise<Value> {
  for (const end = Date.now() + 4000; Date.now() < end; await Bun.sleep(1)) {
    const value = check();
    if (value !== undefined && value !== false) return value;
  }
  throw new Error(`did not happen within 4000 ms: ${what}`);
}

/** Open descriptors of the kinds that a loop and its core open, with what they are. */
function descriptors(): string[] {
  return readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      const target = readlinkSync(`/proc/self/fd/${fd}`);
      return target.startsWith('anon_inode:') || target.startsWith('/memfd:') || target.startsWith('socket:') ? [`${fd} ${target}`] : [];
    } catch {
      // The one that the folder was read through.
      return [];
    }
  });
}

function asleep(): Promise<true> {
  return eventually('the loop sleeps', () => loop.isAsleep);
}

/** Wait until nothing has happened for a while. */
async function settled(): Promise<void> {
  for (let turns = -1; turns !== counter('turns'); await Bun.sleep(300)) turns = counter('turns');
  await asleep();
}

/** Echoes what it gets; 64 messages are always on their way. Its argument is where. */
const floodingClient = `
  const socket = new WebSocket(process.argv.at(-1));
  socket.onopen = () => { for (let at = 0; at < 64; at++) socket.send('x'.repeat(20)); };
  socket.onmessage = (event) => socket.send(event.data);
`;

function begin(backend: BackendName, behavior: Partial<BehaviorOptions> = {}): void {
  shmFd = native.shmCreate(1, 65536, hostLayout);
  stats = native.shmMap(shmFd, hostLayout);
  live = new LiveCore(backend, { behavior, core: { shmFd } });
  pending = 0;
  const { core, http, websocket, wakeFd } = live;
  const timers = hearsHost ? watchHostTimers() : undefined;
  loop = new Loop({ core, http, websocket, wakeFd, timers, pending: () => pending });
  running = loop.run();
}

async function end(): Promise<void> {
  loop.stop();
  await running;
  live.destroy();
  stats.unmap();
  native.fdClose(shmFd);
}

afterEach(end);

async function open(): Promise<Wire> {
  const before = live.log.length;
  const wire = live.keep(await Wire.open(live.port, '/'));
  await eventually('the open event', () => live.log.length > before);
  return wire;
}

const kinds = backends.flatMap((backend) =>
  [false, true].map((hears) => ({ backend, hears, kind: `${hears ? 'hearing' : 'blind'} Loop` })),
);

for (const { backend, hears, kind } of kinds) {
  describe(`${kind} on ${backend}`, () => {
    beforeEach(() => {
      hearsHost = hears;
      begin(backend);
    });

    test('a packet wakes it from its sleep', async () => {
      live.onMessage = (socket, message) => socket.send(message);
      const wire = await open();
      for (const text of ['one', 'two']) {
        await asleep();
        wire.write(frame(opcode.text, text));
        expect((await wire.frame())?.payload.toString()).toBe(text);
      }
    });

    test('a command queued from a timer wakes it, also one larger than the data area, and when promises are pending', async () => {
      const wire = await open();
      for (pending = 0; pending < 2; pending++) {
        for (const bytes of [1, 100_000, 2_000_000]) {
          await asleep();
          setTimeout(() => live.sockets[0]?.send(new Uint8Array(bytes)), 1);
          expect((await wire.frame())?.payload.length).toBe(bytes);
        }
      }
    });

    test('idle, with connections open, it takes no turn at all', async () => {
      await open();
      await open();
      // Deadlines of the handshakes, which are over, are still let pass.
      await settled();
      const before = [counter('turns'), counter('sleeps')];
      await Bun.sleep(100);
      expect([counter('turns'), counter('sleeps')]).toEqual(before);
    });

    test('timers and fetch work while a client in another process never stops to send', async () => {
      let echoed = 0;
      live.onMessage = (socket, message) => {
        echoed++;
        socket.send(message);
      };
      const server = Bun.serve({ port: 0, hostname: '127.0.0.1', fetch: () => new Response('fetched') });
      const client = Bun.spawn([process.execPath, '-e', floodingClient, `ws://127.0.0.1:${live.port}/`], {
        stdio: ['ignore', 'ignore', 'ignore'],
      });
      await eventually('traffic', () => echoed > 100);
      for (let at = 0; at < 10; at++) {
        const before = echoed;
        await new Promise((resolve) => setTimeout(resolve, 1));
        expect(await (await fetch(server.url)).text()).toBe('fetched');
        await eventually('traffic goes on', () => echoed > before);
      }
      client.kill('SIGKILL');
      await client.exited;
      await server.stop(true);
    });

    test('a handler that throws out of dispatch does not stop it', async () => {
      const reported: unknown[] = [];
      live.core.onHandlerError = (error) => reported.push(error);
      const thrown = new Error('boom');
      live.onMessage = (socket, message) => {
        if (message.text() === 'throw') throw thrown;
        socket.send(message);
      };
      const wire = await open();
      for (let round = 0; round < 3; round++) {
        wire.write(Buffer.concat([frame(opcode.text, 'throw'), frame(opcode.text, 'same batch')]));
        expect((await wire.frame())?.payload.toString()).toBe('same batch');
        await asleep();
        wire.write(frame(opcode.text, 'after its sleep'));
        expect((await wire.frame())?.payload.toString()).toBe('after its sleep');
      }
      expect(reported).toEqual([thrown, thrown, thrown]);
    });

    test('answers of handlers that await something settled go out in the same visit', async () => {
      live.onMessage = async (socket, message) => {
        message.detach();
        for (let at = 0; at < 5; at++) await undefined;
        socket.send(message);
      };
      const wire = await open();
      await asleep();
      wire.write(frame(opcode.text, 'async'));
      expect((await wire.frame())?.payload.toString()).toBe('async');
    });

    test('after stop it takes no turn and reads its descriptor no more', async () => {
      const wire = await open();
      await asleep();
      loop.stop();
      await running;
      const before = counter('turns');
      wire.write(frame(opcode.text, 'x'));
      live.sockets[0]?.send('y');
      native.eventfdSignal(live.wakeFd);
      await Bun.sleep(20);
      expect(counter('turns')).toBe(before);
    });
  });

  describe(`${kind} with timers of the core on ${backend}`, () => {
    beforeEach(() => {
      hearsHost = hears;
    });

    test('a timer that is due wakes it: pings go out while nothing else happens', async () => {
      begin(backend, { pingIntervalMs: 100 });
      const wire = await open();
      await asleep();
      expect((await wire.frame())?.opcode).toBe(opcode.ping);
      expect((await wire.frame())?.opcode).toBe(opcode.ping);
    });

    test('it gives back its descriptors', async () => {
      begin(backend);
      await open();
      await end();
      await Bun.sleep(5);
      const before = new Set(descriptors());
      for (let at = 0; at < 3; at++) {
        begin(backend);
        await open();
        await asleep();
        await end();
        await Bun.sleep(5);
      }
      const left = descriptors().filter((descriptor) => !before.has(descriptor));
      // For the end behind each test, whether this one fails or not.
      begin(backend);
      // Others in this process may close theirs meanwhile, and Bun may open one; what a loop keeps would be there three times.
      expect(left.length).toBeLessThan(3);
    });
  });
}

for (const backend of backends) {
  describe(`Loop that waits in the core on ${backend}`, () => {
    // Long enough that whatever waits for it fails the test.
    const longestWaitMs = 3000;
    const promptMs = 1000;

    beforeEach(async () => {
      hearsHost = true;
      shmFd = native.shmCreate(1, 65536, hostLayout);
      stats = native.shmMap(shmFd, hostLayout);
      live = new LiveCore(backend, { core: { shmFd } });
      pending = 0;
      const { core, http, websocket, wakeFd } = live;
      loop = new Loop({ core, http, websocket, wakeFd, timers: watchHostTimers(), longestWaitMs, awakeMs: 4000, pending: () => pending });
      running = loop.run();
      live.onMessage = (socket, message) => socket.send(message);
      const wire = await open();
      wire.write(frame(opcode.text, 'awake'));
      expect((await wire.frame())?.payload.toString()).toBe('awake');
      await eventually('the loop hears Bun', () => core.isInterruptible);
    });

    async function isPrompt(what: () => Promise<unknown>): Promise<void> {
      for (let at = 0; at < 3; at++) {
        const began = performance.now();
        await what();
        expect(performance.now() - began).toBeLessThan(promptMs);
        expect(loop.isAsleep).toBe(false);
      }
    }

    test('timers of every kind are served when they are due', async () => {
      const { setTimeout: wait, setInterval: ticks, scheduler } = await import('node:timers/promises');
      await isPrompt(() => new Promise((resolve) => setTimeout(resolve, 5)));
      await isPrompt(() => new Promise((resolve) => setTimeout(resolve)));
      await isPrompt(() => Bun.sleep(5));
      await isPrompt(() => wait(5));
      await isPrompt(() => promisify(setTimeout)(5));
      await isPrompt(() => scheduler.wait(5));
      await isPrompt(async () => {
        let count = 0;
        for await (const _ of ticks(5)) if (++count === 3) break;
      });
      await isPrompt(() => new Promise((resolve) => AbortSignal.timeout(5).addEventListener('abort', resolve)));
      await isPrompt(async () => {
        let count = 0;
        const three = Promise.withResolvers<void>();
        const timer = setInterval(() => {
          if (++count === 3) three.resolve();
        }, 5);
        await three.promise;
        clearInterval(timer);
      });
    });

    test('a timer that is begun again is served when it is due again', async () => {
      await isPrompt(async () => {
        const fired = Promise.withResolvers<void>();
        const timer = setTimeout(fired.resolve, 40);
        await Bun.sleep(20);
        timer.refresh();
        await fired.promise;
      });
    });

    test('immediates run one after the other, whoever sets them', async () => {
      await isPrompt(async () => {
        for (let at = 0; at < 20; at++) await new Promise((resolve) => setImmediate(resolve));
      });
      await isPrompt(async () => {
        await Bun.sleep(1);
        await new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
      });
    });

    test('descriptors of Bun, its threads and child processes end a wait', async () => {
      const server = Bun.serve({ port: 0, hostname: '127.0.0.1', fetch: () => new Response('fetched') });
      await isPrompt(async () => expect(await (await fetch(server.url)).text()).toBe('fetched'));
      await isPrompt(() => Bun.file(import.meta.path).text());
      await isPrompt(() => crypto.subtle.digest('SHA-256', new Uint8Array(100_000)));
      await server.stop(true);
      const child = Bun.spawn(['true']);
      expect(await Promise.race([child.exited, Bun.sleep(promptMs).then(() => 'late')])).toBe(0);
    });

    test('what a handler awaits is served although it is begun within a turn', async () => {
      const wire = await open();
      const awaits: (() => Promise<unknown>)[] = [
        () => new Promise((resolve) => setTimeout(resolve, 2)),
        () => new Promise((resolve) => setImmediate(resolve)),
        () => Bun.file(import.meta.path).text(),
      ];
      for (const once of awaits) {
        live.onMessage = async (socket, message) => {
          message.detach();
          pending++;
          await once();
          pending--;
          socket.send(message);
        };
        await isPrompt(async () => {
          wire.write(frame(opcode.text, 'awaited'));
          expect((await wire.frame())?.payload.toString()).toBe('awaited');
        });
      }
    });

    test('a timer that is due when a packet is at hand does not wait for the next wait to end', async () => {
      const [wire, other] = [await open(), await open()];
      let fired = Promise.withResolvers<void>();
      // Nothing is sent back: what comes to a client in this process would end the wait.
      live.onMessage = (_, message) => {
        if (message.text() !== 'first') return;
        setTimeout(fired.resolve, 1);
        other.write(frame(opcode.text, 'second'));
        // Longer than the timer, shorter than a visit.
        for (const end = performance.now() + 1.4; performance.now() < end; );
      };
      for (let at = 0; at < 10; at++) {
        fired = Promise.withResolvers();
        const began = performance.now();
        wire.write(frame(opcode.text, 'first'));
        await fired.promise;
        expect(performance.now() - began).toBeLessThan(promptMs);
      }
    });

    test('a timer due within a wait that a packet has ended is served all the same', async () => {
      const wire = await open();
      for (let at = 0; at < 10; at++) {
        const began = performance.now();
        const fired = new Promise((resolve) => setTimeout(resolve, 10));
        wire.write(frame(opcode.text, 'between'));
        await wire.frame();
        await fired;
        expect(performance.now() - began).toBeLessThan(promptMs);
      }
    });
  });
}
