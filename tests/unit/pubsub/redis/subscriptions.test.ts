import { describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import { type Ask, Holder, type Partition, Subscriptions } from '../../../../src/pubsub/redis/subscriptions.ts';

const never = () => false;

/** A connection with the channels that the server holds for it, and the commands that it has not answered. */
class Connection {
  readonly holder = new Holder(() => {});
  readonly channels = new Set<string>();
  underWay: Ask[] = [];

  ask(topicsMax = 4, isParked: (partition: Partition) => boolean = never): number {
    if (this.underWay.length > 0) return 0;
    this.underWay = this.holder.next(topicsMax, isParked);
    const asked = this.underWay.flatMap(({ subscriptions }) => subscriptions);
    expect(new Set(asked).size).toBe(asked.length);
    expect(asked.length).toBeLessThanOrEqual(topicsMax);
    return this.underWay.length;
  }

  /** The server answers the command. `owns`: it has the slot. */
  answer(index: number, owns: boolean): void {
    const [ask] = this.underWay.splice(index % this.underWay.length, 1) as [Ask];
    if (owns)
      for (const { key } of ask.subscriptions)
        ask.kind === 'subscribe' ? this.channels.add(name(ask.partition, key)) : this.channels.delete(name(ask.partition, key));
    this.holder.settle(ask, owns);
  }

  answerAll(): void {
    while (this.underWay.length > 0) this.answer(0, true);
  }

  /** Ask and answer until there is nothing left. */
  run(): void {
    this.answerAll();
    for (let turns = 0; this.holder.hasWork(never); turns++) {
      if (turns > 10_000) throw new Error('it never comes to an end');
      this.ask();
      this.answerAll();
    }
  }
}

const name = (partition: Partition, key: string) => `${partition.index} ${key}`;

function connect(subscriptions: Subscriptions): Connection {
  const connection = new Connection();
  for (const partition of subscriptions.partitions) subscriptions.give(partition, connection.holder);
  return connection;
}

function lose(subscriptions: Subscriptions, connection: Connection): void {
  for (const ask of connection.underWay.splice(0)) connection.holder.settle(ask, false);
  for (const partition of subscriptions.partitions) if (partition.holder === connection.holder) subscriptions.give(partition, undefined);
}

async function isPending(promise: Promise<void>): Promise<boolean> {
  const later = new Promise<string>((resolve) => setImmediate(() => resolve('pending')));
  return (await Promise.race([promise.then(() => 'done'), later])) === 'pending';
}

describe('subscriptions', () => {
  test('whatever happens between, in the end exactly what is wanted stands, and nobody waits', async () => {
    const topic = fc.nat(5);
    const operation = fc.oneof(
      { weight: 5, arbitrary: fc.record({ do: fc.constantFrom('want' as const, 'unwant' as const), topic }) },
      {
        weight: 4,
        arbitrary: fc.record({
          do: fc.constantFrom('ask' as const, 'answer' as const, 'refuse' as const),
          which: fc.nat(1),
          index: fc.nat(3),
        }),
      },
      {
        weight: 2,
        arbitrary: fc.record({ do: fc.constantFrom('give' as const, 'lose' as const), which: fc.nat(1), partition: fc.nat(2) }),
      },
    );
    await fc.assert(
      fc.asyncProperty(fc.array(operation, { maxLength: 120, size: 'max' }), async (operations) => {
        const subscriptions = new Subscriptions(3);
        const partitions = subscriptions.partitions;
        const connections = [new Connection(), new Connection()];
        const wanted = new Set<number>();
        const promises: Promise<void>[] = [];
        for (const each of operations) {
          switch (each.do) {
            case 'want':
              wanted.add(each.topic);
              promises.push(subscriptions.want(each.topic % 3, `t${each.topic}`));
              break;
            case 'unwant':
              wanted.delete(each.topic);
              promises.push(subscriptions.unwant(each.topic % 3, `t${each.topic}`));
              break;
            case 'ask':
              connections[each.which]?.ask(1 + each.index);
              break;
            case 'answer':
            case 'refuse': {
              const connection = connections[each.which] as Connection;
              if (connection.underWay.length > 0) connection.answer(each.index, each.do === 'answer');
              break;
            }
            case 'give': {
              // The server that had it drops its channels, as Redis does when a slot moves away.
              const partition = partitions[each.partition] as Partition;
              const to = connections[each.which] as Connection;
              for (const { channels } of connections)
                for (const channel of channels) if (channel.startsWith(`${each.partition} `)) channels.delete(channel);
              subscriptions.give(partition, to.holder);
              break;
            }
            case 'lose':
              lose(subscriptions, connections[each.which] as Connection);
              connections[each.which] = new Connection();
          }
          expect(subscriptions.count).toBe(wanted.size);
        }
        for (const connection of connections) lose(subscriptions, connection);
        const connection = connect(subscriptions);
        connection.run();
        const names = [...wanted].map((topic) => `${topic % 3} t${topic}`);
        expect([...connection.channels].sort()).toEqual(names.sort());
        expect(connection.holder.standing).toBe(wanted.size);
        expect(connection.holder.isRestoring).toBe(false);
        await Promise.all(promises);
        expect(partitions.reduce((sum, { byKey }) => sum + byKey.size, 0)).toBe(wanted.size);
      }),
      { numRuns: 400 },
    );
  }, 60_000);

  test('subscribe resolves when Redis has confirmed, at once when it stands', async () => {
    const subscriptions = new Subscriptions(1);
    const connection = connect(subscriptions);
    const first = subscriptions.want(0, 'a');
    expect(subscriptions.want(0, 'a')).toBe(first);
    expect(connection.ask()).toBe(1);
    expect(await isPending(first)).toBe(true);
    connection.answerAll();
    await first;
    expect(await isPending(subscriptions.want(0, 'a'))).toBe(false);
  });

  test('unsubscribe resolves when Redis has confirmed; until then the topic is heard', async () => {
    const subscriptions = new Subscriptions(1);
    const connection = connect(subscriptions);
    void subscriptions.want(0, 'a');
    connection.run();
    const ended = subscriptions.unwant(0, 'a');
    expect(subscriptions.isHeard(0, 'a')).toBe(true);
    connection.ask();
    expect(await isPending(ended)).toBe(true);
    connection.answerAll();
    await ended;
    expect(subscriptions.isHeard(0, 'a')).toBe(false);
    expect(connection.channels.size).toBe(0);
  });

  test('unsubscribe resolves at once where nothing is connected, and when the connection is lost', async () => {
    const subscriptions = new Subscriptions(1);
    void subscriptions.want(0, 'a');
    await subscriptions.unwant(0, 'a');
    const connection = connect(subscriptions);
    void subscriptions.want(0, 'a');
    connection.run();
    const ended = subscriptions.unwant(0, 'a');
    connection.ask();
    lose(subscriptions, connection);
    await ended;
  });

  test('who subscribes while the topic is being unsubscribed has it in the end', async () => {
    const subscriptions = new Subscriptions(1);
    const connection = connect(subscriptions);
    void subscriptions.want(0, 'a');
    connection.run();
    const ended = subscriptions.unwant(0, 'a');
    connection.ask();
    const again = subscriptions.want(0, 'a');
    await ended;
    connection.answerAll();
    expect(connection.channels.size).toBe(0);
    expect(await isPending(again)).toBe(true);
    connection.run();
    await again;
    expect(connection.channels.size).toBe(1);
  });

  test('only topics that stood before count as gaps', () => {
    const subscriptions = new Subscriptions(2);
    const first = connect(subscriptions);
    for (let i = 0; i < 10; i++) void subscriptions.want(i % 2, `t${i}`);
    first.run();
    expect(first.holder.gaps).toBe(0);
    lose(subscriptions, first);
    void subscriptions.want(0, 'new');
    void subscriptions.unwant(0, 't0');
    const second = connect(subscriptions);
    second.run();
    expect(second.holder.gaps).toBe(9);
    expect(second.holder.standing).toBe(10);
  });

  test('a round has as many topics as allowed, and a walk over what stands asks nothing', () => {
    const subscriptions = new Subscriptions(1);
    const connection = connect(subscriptions);
    for (let i = 0; i < 1000; i++) void subscriptions.want(0, `t${i}`);
    connection.ask(256);
    expect(connection.underWay[0]?.subscriptions.length).toBe(256);
    connection.run();
    expect(connection.holder.standing).toBe(1000);
    expect(connection.ask(256)).toBe(0);
  });

  test('a parked partition is left alone, the others go on', () => {
    const subscriptions = new Subscriptions(2);
    const connection = connect(subscriptions);
    void subscriptions.want(0, 'a');
    void subscriptions.want(1, 'b');
    const isParked = ({ index }: Partition) => index === 0;
    expect(connection.ask(10, isParked)).toBe(1);
    connection.answerAll();
    expect(connection.ask(10, isParked)).toBe(0);
    expect(connection.holder.hasWork(isParked)).toBe(false);
    expect([...connection.channels]).toEqual(['1 b']);
    connection.run();
    expect([...connection.channels].sort()).toEqual(['0 a', '1 b']);
  });

  test('a partition that moves away takes its topics along, and they count as a gap where it arrives', () => {
    const subscriptions = new Subscriptions(2);
    const from = connect(subscriptions);
    const to = new Connection();
    for (let i = 0; i < 4; i++) void subscriptions.want(i % 2, `t${i}`);
    from.run();
    subscriptions.give(subscriptions.partitions[1] as Partition, to.holder);
    expect(from.holder.standing).toBe(2);
    expect(to.holder.isRestoring).toBe(true);
    to.run();
    expect([to.holder.standing, to.holder.gaps, to.holder.isRestoring]).toEqual([2, 2, false]);
  });

  test('all who wait are released at the end', async () => {
    const subscriptions = new Subscriptions(1);
    const stands = subscriptions.want(0, 'a');
    subscriptions.releaseAll();
    await stands;
  });
});
