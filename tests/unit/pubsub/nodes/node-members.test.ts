import { describe, expect, test } from 'bun:test';
import type { DirtyUser } from '../../../../src/core/presence-commands.ts';
import { type Lease, type LinkMembers, LinkUnavailableError, type MemberChange } from '../../../../src/pubsub/link.ts';
import type { Clock } from '../../../../src/pubsub/nodes/clock.ts';
import { NodeMembers } from '../../../../src/pubsub/nodes/node-members.ts';

/** Users of a core, as far as writing them goes. */
class FakeCore {
  dirty: DirtyUser[] = [];
  readonly acked: string[] = [];
  readonly rewrites: number[] = [];
  isBusy = false;

  change(topic: string, user: string, count: number, version: number): void {
    this.dirty.push({ topic: Buffer.from(topic), user, info: new Uint8Array(), count, version });
  }

  presenceTakeDirty(max: number): DirtyUser[] {
    return this.dirty.splice(0, max);
  }

  presenceAcked(topic: unknown, user: string, version: number): void {
    this.acked.push(`${Buffer.from(topic as Uint8Array)} ${user} ${version}`);
  }

  presenceRewrite(cursor: number): number {
    if (this.isBusy) throw new Error('busy');
    this.rewrites.push(cursor);
    return (cursor + 1) % 4;
  }
}

class FakeMembers implements LinkMembers {
  partitions = 4;
  readonly written: string[] = [];
  readonly renewed: string[] = [];
  readonly swept: string[] = [];
  readonly kept: number[] = [];
  /** Writes that wait, when they are held back. */
  readonly held: (() => void)[] = [];
  holdsBack = false;
  fails = false;
  readonly down = new Set<number>();
  hadIt = true;
  lease: Lease = { hadIt: true, held: 1, gone: [] };

  isUp(partition: number): boolean {
    return !this.down.has(partition);
  }

  /** 'p2…' lies in partition 2. */
  partitionOf(topic: Uint8Array): number {
    return Number(Buffer.from(topic).toString()[1]);
  }

  async write(topic: Uint8Array, changes: readonly MemberChange[], leaseMs: number): Promise<boolean> {
    this.written.push(`${Buffer.from(topic)} ${changes.map(({ user, count }) => `${user} ${count}`).join()} ${leaseMs}`);
    if (this.holdsBack) await new Promise<void>((resolve) => this.held.push(resolve));
    if (this.fails) throw new LinkUnavailableError('away');
    return this.hadIt;
  }

  list = () => Promise.reject(new Error('not asked here'));
  count = () => Promise.reject(new Error('not asked here'));

  async renew(partition: number, leaseMs: number): Promise<Lease> {
    this.renewed.push(`${partition} ${leaseMs}`);
    if (this.fails) throw new LinkUnavailableError('away');
    return this.lease;
  }

  async sweep(partition: number, node: string): Promise<void> {
    this.swept.push(`${partition} ${node}`);
  }

  async keep(partition: number): Promise<void> {
    this.kept.push(partition);
  }
}

class World {
  readonly core = new FakeCore();
  readonly members = new FakeMembers();
  readonly told: string[] = [];
  isUp = true;
  now = 0;
  #ticks: { ms: number; call: () => void }[] = [];
  readonly node: NodeMembers;

  constructor(self = 0, workers = 1, { epoch = 1, view = { generation: 1, first: 0 } } = {}) {
    const clock = {
      now: () => this.now,
      every: (ms: number, call: () => void) => {
        const tick = { ms, call };
        this.#ticks.push(tick);
        return () => {
          this.#ticks = this.#ticks.filter((one) => one !== tick);
        };
      },
    } as unknown as Clock;
    this.node = new NodeMembers({
      self,
      epoch,
      clock,
      core: this.core,
      members: this.members,
      isUp: () => this.isUp,
      view: () => ({ ...view, count: workers }),
      tell: (worker, partitions) => void this.told.push(`${worker}: ${partitions.join()}`),
    });
  }

  async pass(ms: number): Promise<void> {
    for (const until = this.now + ms; this.now < until; ) {
      this.now += 50;
      for (const tick of this.#ticks) if (this.now % tick.ms === 0) tick.call();
      await settle();
    }
  }
}

async function settle(): Promise<void> {
  for (let i = 0; i < 20; i++) await Promise.resolve();
}

describe('members of a node', () => {
  test('that have changed are written, those of a topic together, and acknowledged', async () => {
    const world = new World();
    world.core.change('p1', 'ann', 1, 1);
    world.core.change('p2', 'ann', 1, 2);
    world.core.change('p1', 'bob', 2, 3);
    await world.pass(50);
    expect(world.members.written).toEqual(['p1 ann 1,bob 2 10000', 'p2 ann 1 10000']);
    expect(world.core.acked).toEqual(['p1 ann 1', 'p1 bob 3', 'p2 ann 2']);
  });

  test('of one topic are written one step after the other, while others go on', async () => {
    const world = new World();
    world.members.holdsBack = true;
    world.core.change('p1', 'ann', 1, 1);
    await world.pass(50);
    world.core.change('p1', 'ann', 0, 2);
    world.core.change('p2', 'ann', 1, 3);
    await world.pass(50);
    world.core.change('p1', 'ann', 1, 4);
    const flushed = world.node.flush();
    await settle();
    expect(world.members.written.length).toBe(2);
    for (let i = 0; i < 3; i++) {
      for (const release of world.members.held.splice(0)) release();
      await settle();
    }
    await flushed;
    expect(world.members.written.slice(2)).toEqual(['p1 ann 0,ann 1 10000']);
    expect(world.core.acked).toEqual(['p1 ann 1', 'p2 ann 3', 'p1 ann 2', 'p1 ann 4']);
  });

  test('are not acknowledged when they could not be written, and not taken while the link is away; all are written anew when it is back', async () => {
    const world = new World();
    await world.pass(1000);
    expect(world.core.rewrites).toEqual([]);
    world.members.fails = true;
    world.core.change('p1', 'ann', 1, 1);
    await world.pass(50);
    expect(world.core.acked).toEqual([]);
    world.members.fails = false;
    world.isUp = false;
    for (const partition of [0, 1, 2, 3]) world.members.down.add(partition);
    world.core.change('p1', 'bob', 1, 2);
    await world.pass(500);
    expect(world.core.dirty.length).toBe(1);
    world.core.isBusy = true;
    world.isUp = true;
    world.members.down.clear();
    await world.pass(100);
    expect(world.core.rewrites).toEqual([]);
    world.core.isBusy = false;
    await world.pass(1000);
    expect(world.core.rewrites).toEqual([0, 1, 2, 3]);
    expect(world.core.acked).toEqual(['p1 bob 2']);
  });

  test('are written, and leases renewed, where the other side can be reached, while a part of it cannot', async () => {
    const world = new World();
    world.node.told([1, 2]);
    world.isUp = false;
    world.members.down.add(1);
    world.core.change('p2', 'ann', 1, 1);
    await world.pass(1000);
    expect(world.core.acked).toEqual(['p2 ann 1']);
    expect(world.members.renewed).toEqual(['2 10000']);
  });

  test('that are many are taken so many at a time', async () => {
    const world = new World();
    world.members.holdsBack = true;
    for (let i = 0; i < 5000; i++) world.core.change(`p${i % 4}`, `user ${i}`, 1, i);
    await world.pass(100);
    expect(world.core.dirty.length).toBe(3000);
  });

  test('have a lease for each partition, renewed by one worker, however many they are', async () => {
    const world = new World(0, 2);
    for (let i = 0; i < 100; i++) world.core.change(`p${i % 4}`, `user ${i}`, 1, i);
    await world.pass(500);
    // Workers 0 and 1 take turns.
    expect(world.told).toEqual(['1: 1', '1: 3']);
    expect(world.members.renewed.map((line) => line.split(' ')[0])).toEqual(['0', '2']);
    world.members.renewed.length = 0;
    await world.pass(30_000);
    expect(world.members.renewed.length).toBe(20);
  });

  test('keep the leases of partitions that others tell of, until nobody does and nothing is there', async () => {
    const world = new World();
    world.node.told([2, 99]);
    await world.pass(3500);
    expect(world.members.renewed).toEqual(['2 10000', '2 10000']);
    world.members.lease = { hadIt: true, held: 0, gone: [] };
    await world.pass(60_000);
    const { length } = world.members.renewed;
    await world.pass(30_000);
    expect(world.members.renewed.length).toBe(length);
  });

  test('renew the lease of partitions in which a presence log is followed', async () => {
    const world = new World();
    world.members.lease = { hadIt: true, held: 0, gone: [] };
    world.node.observe(Buffer.from('p3'), true);
    await world.pass(120_000);
    expect(world.members.renewed.length).toBe(40);
    world.node.observe(Buffer.from('p3'), false);
    await world.pass(60_000);
    expect(world.members.renewed.length).toBeLessThan(55);
  });

  test('sweep nodes that are gone, and keep what they hold from expiring', async () => {
    const world = new World();
    world.members.lease = { hadIt: true, held: 3, gone: ['ab'] };
    world.node.told([1]);
    await world.pass(500);
    world.members.lease = { ...world.members.lease, gone: [] };
    await world.pass(30 * 60_000);
    expect(world.members.swept).toEqual(['1 ab']);
    expect(world.members.kept).toEqual([1, 1]);
  });

  test('are all written again when a lease had ended', async () => {
    const world = new World();
    world.core.change('p1', 'ann', 1, 1);
    await world.pass(1000);
    world.core.rewrites.length = 0;
    world.members.lease = { hadIt: false, held: 0, gone: [] };
    await world.pass(3500);
    expect(world.core.rewrites).toEqual([0, 1, 2, 3]);
    world.members.lease = { ...world.members.lease, hadIt: true };
    await world.pass(10_000);
    expect(world.core.rewrites.length).toBe(4);
  });

  test('are written again by who comes after another process, which may have been about to', async () => {
    const restarted = new World(1, 2, { epoch: 3 });
    const reloaded = new World(2, 2, { view: { generation: 2, first: 2 } });
    const other = new World(3, 2, { view: { generation: 2, first: 2 } });
    for (const world of [restarted, reloaded, other]) {
      world.isUp = false;
      await world.pass(200);
      expect(world.core.rewrites).toEqual([]);
      world.isUp = true;
      await world.pass(1000);
    }
    expect([restarted, reloaded, other].map(({ core }) => core.rewrites)).toEqual([[0, 1, 2, 3], [0, 1, 2, 3], []]);
  });

  test('are all written once more when they are lost again while they are written', async () => {
    const world = new World();
    world.isUp = true;
    await world.pass(50);
    world.isUp = false;
    await world.pass(50);
    world.isUp = true;
    await world.pass(100);
    expect(world.core.rewrites).toEqual([0, 1]);
    world.isUp = false;
    await world.pass(50);
    world.isUp = true;
    await world.pass(1000);
    expect(world.core.rewrites).toEqual([0, 1, 2, 3, 0, 1, 2]);
  });

  test('take leases longer, rather than to renew them more often than Redis is to be asked', async () => {
    const world = new World();
    world.members.partitions = 256;
    world.node.told(Array.from({ length: 256 }, (_, at) => at));
    await world.pass(64_000);
    expect(world.node.leaseMs).toBe(97_000);
    expect(world.members.renewed.length).toBeLessThanOrEqual(3 * 256);
  });

  test('end with their worker', async () => {
    const world = new World();
    world.node.close();
    world.core.change('p1', 'ann', 1, 1);
    await world.pass(10_000);
    expect(world.members.written).toEqual([]);
  });
});
