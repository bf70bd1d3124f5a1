import { describe, expect, test } from 'bun:test';
import { native } from '../../../ffi/bindings.ts';
import { statIndex } from '../../../src/core/stat-index.ts';
import { startHeartbeat } from '../../../src/host/heartbeat.ts';
import { Loop } from '../../../src/host/loop.ts';
import { backends, LiveCore } from '../../support/live-core.ts';

const every = (ms: number) => (call: () => void) => {
  const timer = setInterval(call, ms);
  return () => clearInterval(timer);
};

for (const backend of backends) {
  describe(`the heartbeat of a worker (${backend})`, () => {
    const beats = (live: LiveCore) => live.core.readStat(statIndex('heartbeats'));

    test('is there while the loop is idle, and costs it little', async () => {
      const live = new LiveCore(backend);
      const loop = new Loop({ core: live.core, http: live.http, websocket: live.websocket, wakeFd: live.wakeFd, pending: () => 0 });
      const running = loop.run();
      const stop = startHeartbeat(live.core, undefined, every(20));
      while (beats(live) < 5) await Bun.sleep(5);
      const before = { beats: beats(live), sleeps: live.core.readStat(statIndex('sleeps')) };
      while (beats(live) < before.beats + 10) await Bun.sleep(5);
      // One wake-up for each.
      expect(live.core.readStat(statIndex('sleeps')) - before.sleeps).toBeLessThan(30);
      stop();
      loop.stop();
      native.eventfdSignal(live.wakeFd);
      await running;
      live.destroy();
    });

    test('is not there when the core has no turns, although timers come', async () => {
      const live = new LiveCore(backend);
      const stop = startHeartbeat(live.core, undefined, every(5));
      await Bun.sleep(100);
      expect(beats(live)).toBe(0);
      live.turn();
      while (beats(live) === 0) await Bun.sleep(1);
      await Bun.sleep(50);
      expect(beats(live)).toBe(1);
      stop();
      live.destroy();
    });

    test('needs no turns where the core is to have none', async () => {
      const live = new LiveCore(backend);
      const stop = startHeartbeat(live.core, () => false, every(5));
      while (beats(live) < 3) await Bun.sleep(1);
      stop();
      live.destroy();
    });
  });
}
