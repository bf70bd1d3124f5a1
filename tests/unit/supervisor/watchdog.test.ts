import { describe, expect, test } from 'bun:test';
import { createLog } from '../../../src/log.ts';
import { Watchdog } from '../../../src/supervisor/watchdog.ts';

/** Workers of a node whose clock and heartbeats are the test's. */
function node(count: number, hangTimeout: number) {
  const lines: { level: string; msg: string; worker: number }[] = [];
  const log = createLog({ level: 'info' }, { write: (line) => void lines.push(JSON.parse(line)) });
  const replaced: number[] = [];
  const beats = Array.from({ length: count }, () => 0);
  const workers = beats.map((_, index) => ({
    index,
    // Of this process, which computes.
    pid: process.pid as number | undefined,
    state: 'ready' as 'ready' | 'starting',
    silentMs: 0,
    isHung: false,
    replace: () => void replaced.push(index),
  }));
  const watchdog = new Watchdog({ workers: () => workers, beats: (place) => beats[place] ?? 0, hangTimeout: () => hangTimeout, log });
  let now = 1000;
  return {
    workers,
    lines,
    replaced,
    /** Seconds, in each of which these workers have a heartbeat. */
    pass(seconds: number, alive: readonly number[]) {
      for (let second = 0; second < seconds; second++) {
        now += 1000;
        for (const worker of alive) beats[worker] = (beats[worker] ?? 0) + 1;
        watchdog.look(now);
      }
    },
    heldUp(seconds: number) {
      now += seconds * 1000;
      watchdog.look(now);
    },
    hung: () => workers.filter(({ isHung }) => isHung).map(({ index }) => index),
  };
}

describe('the watchdog', () => {
  test('leaves alone who has heartbeats', () => {
    const { pass, hung, replaced, lines } = node(2, 30);
    pass(600, [0, 1]);
    expect({ hung: hung(), replaced, lines }).toEqual({ hung: [], replaced: [], lines: [] });
  });

  test('tells of one that does not go on, once, and has it replaced after the configured time', () => {
    const { pass, hung, replaced, lines } = node(2, 30);
    pass(3, [0, 1]);
    pass(4, [0]);
    expect(hung()).toEqual([]);
    pass(1, [0]);
    expect(hung()).toEqual([1]);
    pass(24, [0]);
    expect(lines).toHaveLength(1);
    expect(lines[0]).toMatchObject({ level: 'error', worker: 1 });
    expect(lines[0]?.msg).toMatch(/^worker 1 \(process \d+\) does not go on since 5 s and serves nobody: .*\(hangTimeout\)$/);
    expect(replaced).toEqual([]);
    pass(1, [0]);
    expect(replaced).toEqual([1]);
    expect(lines[1]?.msg).toMatch(/^worker 1 \(process \d+\) is killed: it has not gone on for 30 s$/);
  });

  test('never replaces one when the time is 0', () => {
    const { pass, hung, replaced } = node(1, 0);
    pass(1, [0]);
    pass(100_000, []);
    expect({ hung: hung(), replaced }).toEqual({ hung: [0], replaced: [] });
  });

  test('says that one goes on again', () => {
    const { pass, hung, lines } = node(1, 30);
    pass(1, [0]);
    pass(10, []);
    pass(1, [0]);
    expect(hung()).toEqual([]);
    expect(lines.at(-1)?.msg).toMatch(/goes on, after 11 s$/);
  });

  test('holds nothing against workers when the supervisor itself was held up, as when the machine sleeps', () => {
    const { pass, heldUp, hung } = node(2, 30);
    pass(3, [0, 1]);
    heldUp(3600);
    expect(hung()).toEqual([]);
    pass(3, [0, 1]);
    expect(hung()).toEqual([]);
    heldUp(3600);
    pass(5, [0]);
    expect(hung()).toEqual([1]);
  });

  test('does not judge those that start, and gives each new process its time', () => {
    const { pass, hung, workers, replaced } = node(1, 30);
    const [worker] = workers;
    if (worker === undefined) throw new Error('no worker');
    pass(1, [0]);
    pass(20, []);
    worker.state = 'starting';
    pass(100, []);
    expect(hung()).toEqual([]);
    worker.state = 'ready';
    worker.pid = 1;
    pass(4, []);
    expect({ hung: hung(), replaced }).toEqual({ hung: [], replaced: [] });
  });
});
