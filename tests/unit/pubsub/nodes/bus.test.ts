import { describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import { encodeLetter } from '../../../../src/pubsub/nodes/mail.ts';
import { letter } from '../../../support/letters.ts';
import { Chance, SimulatedNode, type SimulatedWorker } from './simulated-node.ts';

/** More of them find rarer interleavings: RUNS=10000 bun test --timeout 600000 tests/unit/pubsub/nodes/bus.test.ts */
const runs = Number(process.env.RUNS ?? 150);

const topics = ['a', 'b', 'c', 'room/1', 'é'];
const topicOf = (number: number) => topics[number % topics.length] as string;

/** A busy handler: shorter than a takeover waits for an answer. */
const pauseMs = 3000;
/** Longer than the linger, what a takeover may take, and every tick together. */
const quietMs = 25_000;

function workerOf(node: SimulatedNode, number: number): SimulatedWorker | undefined {
  const all = [...node.alive.values()];
  return all[number % all.length];
}

/** Places 0..workers-1 and workers..2*workers-1 and so on belong to one generation each. */
function freeGeneration(node: SimulatedNode): number | undefined {
  for (let first = 0; first + node.workers <= node.places; first += node.workers) {
    const places = Array.from({ length: node.workers }, (_, at) => first + at);
    if (first !== node.view.first && places.every((place) => !node.alive.has(place))) return first;
  }
  return undefined;
}

type Action = readonly [
  kind:
    | 'subscribe'
    | 'unsubscribe'
    | 'publish'
    | 'steps'
    | 'time'
    | 'kill'
    | 'restart'
    | 'reload'
    | 'view'
    | 'retire'
    | 'full'
    | 'pause'
    | 'block',
  number: number,
  topic: number,
];

/** ret: the place from which a generation waits for its view, if one does */
async function act(
  node: SimulatedNode,
  [kind, number, topic]: Action,
  chance: Chance,
  waiting: number | undefined,
): Promise<number | undefined> {
  const worker = workerOf(node, number);
  switch (kind) {
    case 'subscribe':
      if (worker?.isRetiring === false) worker.subscribe(topicOf(topic));
      return waiting;
    case 'unsubscribe':
      worker?.unsubscribe(topicOf(topic));
      return waiting;
    case 'publish':
      node.publishRemotely(topicOf(topic), number % 3);
      return waiting;
    case 'steps':
      await node.run(chance, number % 60);
      return waiting;
    case 'time':
      await node.pass(chance, number * 15);
      return waiting;
    case 'kill':
      if (worker !== undefined) node.endWorker(worker);
      return waiting;
    case 'restart':
      restartDead(node);
      return waiting;
    case 'reload': {
      const first = freeGeneration(node);
      if (waiting !== undefined || first === undefined) return waiting;
      node.startGeneration(first);
      return first;
    }
    case 'view':
      if (waiting !== undefined) node.setView(waiting);
      return undefined;
    case 'retire':
      if (worker?.isRetiring === true && !worker.isPaused) node.retire(worker);
      return waiting;
    case 'full': {
      const key = `${number % node.places}>${topic % node.places}`;
      if (!node.full.delete(key)) node.full.add(key);
      return waiting;
    }
    case 'block': {
      // A link that takes its time.
      const way = `to broker ${number % node.places}`;
      if (!node.blocked.delete(way)) node.blocked.add(way);
      return waiting;
    }
    case 'pause':
      if (worker !== undefined) worker.pausedUntilMs = worker.isPaused ? 0 : node.nowMs + pauseMs;
      return waiting;
    default:
      kind satisfies never;
      return waiting;
  }
}

function restartDead(node: SimulatedNode): void {
  for (let place = node.view.first; place < node.view.first + node.view.count; place++) if (!node.alive.has(place)) node.startWorker(place);
}

async function rest(node: SimulatedNode, chance: Chance): Promise<void> {
  node.full.clear();
  node.blocked.clear();
  for (const worker of node.alive.values()) worker.pausedUntilMs = 0;
  restartDead(node);
  await node.pass(chance, quietMs);
}

/** Every topic that is wanted has one subscription, at a worker in the view, and no other has; a message comes to all who want it. */
async function expectOrder(node: SimulatedNode, chance: Chance): Promise<void> {
  const subscriptions = node.subscriptions();
  expect([...subscriptions.keys()].sort()).toEqual([...node.wanted()].sort());
  for (const owners of subscriptions.values()) {
    expect(owners.length).toBe(1);
    expect(owners[0]).toBeGreaterThanOrEqual(node.view.first);
    expect(owners[0]).toBeLessThan(node.view.first + node.view.count);
  }
  for (const topic of node.wanted()) {
    const line = `${topic} ${node.publishRemotely(topic, 7)}`;
    await node.pass(chance, 1);
    for (const worker of node.alive.values())
      expect(worker.received.filter((received) => received === line).length).toBe(worker.subscribed.has(topic) ? 1 : 0);
  }
}

const kinds = (...names: Action[0][]) => fc.tuple(fc.constantFrom(...names), fc.nat(100), fc.nat(20));

async function play(workers: number, seed: number, actions: readonly Action[]): Promise<{ node: SimulatedNode; chance: Chance }> {
  const node = new SimulatedNode(workers * 3, workers);
  const chance = new Chance(seed);
  let waiting: number | undefined;
  for (const action of actions) waiting = await act(node, action, chance, waiting);
  if (waiting !== undefined) node.setView(waiting);
  await rest(node, chance);
  return { node, chance };
}

const churn = kinds(
  ...(['subscribe', 'subscribe', 'unsubscribe', 'publish', 'publish', 'steps', 'steps', 'time'] as const),
  ...(['kill', 'restart', 'reload', 'view', 'retire', 'full', 'pause'] as const),
);
const traffic = fc.oneof(
  { weight: 4, arbitrary: fc.tuple(fc.constant('publish' as const), fc.nat(2), fc.nat(4)) },
  { weight: 3, arbitrary: fc.tuple(fc.constant('steps' as const), fc.nat(30), fc.nat(0)) },
  { weight: 1, arbitrary: fc.tuple(fc.constant('time' as const), fc.nat(3), fc.nat(0)) },
);
const blow = fc.tuple(fc.constantFrom('kill' as const, 'pause' as const, 'pause' as const, 'long' as const), fc.nat(2), fc.nat(20));

/** A node at rest in which each topic has subscribers. */
async function busyNode(workers: number, chance: Chance): Promise<SimulatedNode> {
  const node = new SimulatedNode(workers * 3, workers);
  for (const worker of node.alive.values()) for (const topic of topics) if (chance.below(3) > 0) worker.subscribe(topic);
  await rest(node, chance);
  return node;
}

describe('the workers of a node', () => {
  test('subscribe to what is wanted, once, whatever happens in whatever order', async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 3 }), fc.integer(), fc.array(churn, { maxLength: 60 }), async (workers, seed, actions) => {
        const { node, chance } = await play(workers, seed, actions);
        await expectOrder(node, chance);
      }),
      { numRuns: runs },
    );
  });

  test('hand topics over to the next generation without a message lost, doubled or out of order', async () => {
    const script = fc.array(traffic, { minLength: 10, maxLength: 60 });
    const leaving = fc.array(
      fc.oneof({ weight: 12, arbitrary: traffic }, { weight: 1, arbitrary: kinds('retire', 'subscribe', 'block') }),
      {
        maxLength: 80,
      },
    );
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 3 }), fc.integer(), script, leaving, async (workers, seed, before, after) => {
        const chance = new Chance(seed);
        const node = await busyNode(workers, chance);
        const old = [...node.alive.values()];
        node.startGeneration(workers);
        for (let place = workers; place < 2 * workers; place++) node.alive.get(place)?.subscribe(topicOf(place));
        // They own nothing, and hear all.
        await node.pass(chance, 1000);
        const sent: string[] = [];
        const late = new Set<string>();
        const join = (worker: SimulatedWorker | undefined, topic: string) => {
          if (worker === undefined || worker.subscribed.has(topic)) return;
          late.add(`${worker.index} ${topic}`);
          worker.subscribe(topic);
        };
        const perform = async (actions: readonly Action[]) => {
          for (const [kind, number, topic] of actions) {
            if (kind === 'publish') sent.push(`${topicOf(topic)} ${node.publishRemotely(topicOf(topic), number)}`);
            else if (kind === 'retire') node.retire(old[number % old.length] as SimulatedWorker);
            else if (kind === 'subscribe') join(node.alive.get(workers + (number % workers)), topicOf(topic));
            else await act(node, [kind, number, topic], chance, undefined);
          }
        };
        await perform(before);
        node.setView(workers);
        await perform(after);
        await rest(node, chance);
        for (const worker of node.all) {
          for (const topic of worker.isAlive ? worker.subscribed.keys() : []) {
            for (const publisher of [0, 1, 2]) {
              const of = (lines: readonly string[]) => lines.filter((line) => line.startsWith(`${topic} ${publisher} `));
              const [all, received] = [of(sent), of(worker.received)];
              // Who comes late hears all after the first message that it hears.
              const expected = late.has(`${worker.index} ${topic}`) ? all.slice(all.length - received.length) : all;
              expect(received).toEqual(expected);
            }
          }
          // Those that have left are not there to hear the rest. A topic that only those wanted who are just leaving may count as interrupted.
          if (old.some(({ isLeaving }) => isLeaving)) continue;
          expect(worker.counted.get('drops') ?? 0).toBe(0);
          expect(worker.counted.get('gaps') ?? 0).toBe(0);
        }
        await expectOrder(node, chance);
      }),
      { numRuns: runs },
    );
  });

  test('never hand on a message twice when owners die, or are too busy to answer, while topics change hands', async () => {
    const script = fc.array(fc.oneof({ weight: 9, arbitrary: traffic }, { weight: 1, arbitrary: blow }), { minLength: 10, maxLength: 80 });
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 3 }), fc.integer(), script, script, async (workers, seed, before, after) => {
        const chance = new Chance(seed);
        const node = await busyNode(workers, chance);
        // A worker that does not read its rings for seconds may find the new owner's messages beside those of one that never answered.
        node.keepsOrder = false;
        const old = [...node.alive.values()];
        const perform = async (actions: typeof before) => {
          for (const [kind, number, topic] of actions) {
            const worker = old[number % old.length] as SimulatedWorker;
            // They wake up all of a sudden: what is in their sockets and rings has waited.
            if (kind === 'kill') node.endWorker(worker);
            else if (kind === 'pause') worker.pausedUntilMs = node.nowMs + topic * 500;
            else if (kind === 'long') await node.pass(chance, topic * 500);
            else await act(node, [kind, number, topic], chance, undefined);
          }
        };
        node.startGeneration(workers);
        await perform(before);
        node.setView(workers);
        await perform(after);
        await rest(node, chance);
        await expectOrder(node, chance);
      }),
      { numRuns: runs },
    );
  });

  test('of an old generation stay until the new owners, however slow their link, have taken over what they hold', async () => {
    const chance = new Chance(1);
    const node = new SimulatedNode(2, 1);
    const old = node.alive.get(0) as SimulatedWorker;
    old.subscribe('a');
    await node.pass(chance, 1000);
    node.startGeneration(1);
    await node.pass(chance, 1000);
    const fresh = node.alive.get(1) as SimulatedWorker;
    node.blocked.add('to broker 1');
    node.setView(1);
    fresh.subscribe('a');
    node.publishRemotely('a', 0);
    await node.pass(chance, 500);
    node.retire(old);
    await node.pass(chance, 500);
    node.publishRemotely('a', 0);
    await node.pass(chance, 500);
    expect(old.isAlive).toBe(true);
    node.blocked.clear();
    await node.pass(chance, 500);
    node.publishRemotely('a', 0);
    await node.pass(chance, 500);
    expect(fresh.received).toEqual(['a 0 1', 'a 0 2', 'a 0 3']);
    expect([old.isAlive, fresh.counted.get('gaps')]).toEqual([false, undefined]);
  });

  test('read the letters of one that has ended before it counts as gone: what it has given away is known then', () => {
    const node = new SimulatedNode(2, 2);
    const [one, other] = [...node.alive.values()] as [SimulatedWorker, SimulatedWorker];
    one.bus.workerGone(other.index, other.epoch);
    expect(one.afterTurn.length).toBe(1);
  });

  test('live on, whatever stands in a letter', async () => {
    const bytes = fc.oneof(letter.map(encodeLetter), fc.uint8Array({ maxLength: 100 }));
    const mail = fc.array(fc.tuple(fc.nat(8), fc.nat(2), bytes), { maxLength: 30 });
    await fc.assert(
      fc.asyncProperty(fc.integer(), mail, async (seed, letters) => {
        const chance = new Chance(seed);
        const node = await busyNode(2, chance);
        for (const [at, [from, worker, text]] of letters.entries()) {
          const reader = workerOf(node, worker) as SimulatedWorker;
          // From anybody but itself, as the core tells.
          const sender = (reader.index + 1 + (from % (node.places - 1))) % node.places;
          reader.events?.onMail(sender, 1 + 2 * (at % 3), text);
          await node.run(chance, 5);
        }
        await node.pass(chance, 1000);
      }),
      { numRuns: runs },
    );
  });
});
