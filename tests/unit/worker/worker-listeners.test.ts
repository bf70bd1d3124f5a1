import { beforeEach, describe, expect, test } from 'bun:test';
import { keyOf } from '../../../src/config/address-key.ts';
import { resolveConfig } from '../../../src/config/resolve.ts';
import type { Core } from '../../../src/core/core.ts';
import type { WorkerBoot } from '../../../src/process/boot.ts';
import { WorkerListeners } from '../../../src/worker/listeners.ts';

let calls: string[];
/** What requests are told, by the core's number. */
let names: Map<number, number>;
beforeEach(() => {
  calls = [];
  names = new Map();
});

const core = {
  listen(fd: number, number: number, flags: number, name: number) {
    calls.push(`${fd} as ${number}, ${flags}`);
    names.set(number, name);
  },
} as unknown as Core;
const configOf = (listen: readonly (number | { port: number; proxyProtocol: boolean })[]) =>
  resolveConfig({ fetch: () => new Response(), listen, admin: false }, {});
/** A worker that was given these sockets, by the place of their address in what the supervisor has read. */
function bootOf(listen: Parameters<typeof configOf>[0], sockets: readonly number[]): WorkerBoot {
  const addresses = configOf(listen).listen;
  const listeners = sockets.map((index, at) => ({
    fd: 10 + at,
    index,
    key: keyOf(addresses[index] as (typeof addresses)[number]),
    label: `address ${index}`,
  }));
  return { configPath: 'gateway.config.ts', holdsBack: true, listeners } as unknown as WorkerBoot;
}
/** The addresses that requests say they came to, by the core's number. */
const namesOf = (numbers: readonly number[]) => numbers.map((number) => names.get(number));

describe('the listeners of a worker', () => {
  test('have the numbers of their addresses, and are accepted from once', () => {
    const listeners = new WorkerListeners(
      core,
      bootOf([80, { port: 81, proxyProtocol: true }], [0, 1]),
      configOf([80, { port: 81, proxyProtocol: true }]),
    );
    expect(calls).toEqual([]);
    listeners.accept();
    listeners.accept();
    expect(calls).toEqual(['10 as 0, 0', expect.stringMatching(/^11 as 1, [1-9]/)]);
    expect(namesOf([0, 1])).toEqual([0, 1]);
  });

  test('of one address are told apart in the core, and not for handlers', () => {
    const listeners = new WorkerListeners(core, bootOf([80, 81], [0, 0, 0, 1, 1]), configOf([80, 81]));
    listeners.accept();
    expect(calls).toEqual(['10 as 0, 0', '11 as 2, 0', '12 as 3, 0', '13 as 1, 0', '14 as 4, 0']);
    expect(namesOf([0, 1, 2, 3, 4])).toEqual([0, 1, 0, 0, 1]);
  });

  test('are found again when the config has been edited since the supervisor has read it', () => {
    const listeners = new WorkerListeners(core, bootOf([80, 81, 82], [0, 1, 1]), configOf([90, 81, 80]));
    listeners.accept();
    expect(calls).toEqual(['10 as 2, 0', '11 as 1, 0', '12 as 3, 0']);
    expect(namesOf([2, 1, 3])).toEqual([2, 1, 1]);
  });

  test('never stand for another address', () => {
    expect(() => new WorkerListeners(core, bootOf([80, 81], [0, 1]), configOf([80, 443]))).toThrow(
      "the config does not listen on address 1 any more; run 'ringway reload'",
    );
  });
});
