import { expect, test } from 'bun:test';
import { startPresenceTicks } from '../../../src/host/presence-ticks.ts';
import { eventually } from '../../support/eventually.ts';

function start(rounds: number) {
  let left = rounds;
  const core = {
    ticks: 0,
    presenceTick() {
      core.ticks += 1;
      left -= 1;
      return left > 0;
    },
  };
  const second: (() => void)[] = [];
  const ticks = startPresenceTicks(core, (call) => {
    second.push(call);
    return () => second.splice(0);
  });
  return { core, ticks, second };
}

test('a tick a second is enough while there is little to do', () => {
  const { core, ticks, second } = start(0);
  second[0]?.();
  second[0]?.();
  expect(core.ticks).toBe(2);
  ticks.tick();
  expect(core.ticks).toBe(3);
  ticks.stop();
  expect(second).toEqual([]);
});

test('what one tick may not do is done a moment later, others in between', async () => {
  const { core, ticks } = start(5);
  ticks.tick();
  expect(core.ticks).toBe(1);
  ticks.tick(); // the rest comes anyway
  expect(core.ticks).toBe(1);
  await eventually('the rest', () => core.ticks === 5);
  ticks.tick();
  expect(core.ticks).toBe(6);
  ticks.stop();
});

test('what is stopped does not tick again', async () => {
  const { core, ticks } = start(1000);
  ticks.tick();
  ticks.stop();
  await Bun.sleep(50);
  expect(core.ticks).toBe(1);
});
