import { describe, expect, test } from 'bun:test';
import type { Connection } from '../../../../src/pubsub/redis/connection.ts';
import { type Failure, LinkError } from '../../../../src/pubsub/redis/failure.ts';
import { Script, ScriptCaller, ScriptCalls } from '../../../../src/pubsub/redis/script-calls.ts';

const script = new Script('return ARGV[1]');

/** A server that answers as a test says, in the order of what it was asked. */
class FakeServer {
  readonly asked: string[] = [];
  readonly waiting: ((results: [Error | null, unknown][]) => void)[] = [];

  get connection(): Connection {
    const server = this;
    const redis = {
      pipeline() {
        const words: unknown[] = [];
        return {
          callBuffer(command: string, _name: string, keys: number, ...rest: unknown[]) {
            words.push(rest[keys]);
            server.asked.push(`${command} ${rest[keys]}`);
          },
          exec: () => new Promise<[Error | null, unknown][]>((resolve) => server.waiting.push(resolve)),
        };
      },
    };
    const failureOf = (error: Error): Failure => (error instanceof LinkError ? error.failure : { kind: 'gone', text: error.message });
    return { redis, failureOf } as unknown as Connection;
  }

  async answer(...results: [Error | null, unknown][]): Promise<void> {
    this.waiting.shift()?.(results);
    await turn();
  }
}

const turn = () => new Promise<void>((resolve) => setImmediate(() => setImmediate(resolve)));
const fails = (kind: Failure['kind'], text: string): [Error, undefined] => [new LinkError({ kind, text }), undefined];

class World {
  now = 0;
  readonly parked = new Set<number>();
  readonly events: string[] = [];
  readonly calls: ScriptCalls;
  readonly caller: ScriptCaller;
  readonly outcomes: string[] = [];

  constructor(bytesMax = 1 << 20) {
    this.calls = new ScriptCalls(
      4,
      bytesMax,
      () => this.now,
      () => this.caller.flushSoon(),
    );
    this.caller = new ScriptCaller(this.calls, {
      isParked: (partition) => this.parked.has(partition),
      onMoved: (_, partition) => {
        this.events.push(`moved ${partition}`);
        this.parked.add(partition);
      },
      onFailure: ({ text }) => void this.events.push(`failure ${text}`),
    });
    this.caller.setPartitions([0, 1, 2, 3]);
  }

  call(word: string, partition = 0, bytes = 0): void {
    this.calls.call({ partition, make: () => ({ script, keys: [Buffer.from('k')], words: [word] }), bytes, withinMs: 1000 }).then(
      (answer) => this.outcomes.push(`${word}: ${answer}`),
      (error: unknown) => this.outcomes.push(`${word}! ${(error as Error).message}`),
    );
  }
}

describe('calls of scripts', () => {
  test('go out in the order of their partition, with the text of the script at first, and are answered', async () => {
    const [world, server] = [new World(), new FakeServer()];
    world.call('a');
    world.call('b');
    await turn();
    expect(server.asked).toEqual([]);
    world.caller.begin(server.connection);
    await turn();
    expect(server.asked).toEqual(['EVAL a', 'EVALSHA b']);
    await server.answer([null, '1'], [null, '2']);
    world.call('c');
    await turn();
    await server.answer([null, '3']);
    expect(server.asked.at(-1)).toBe('EVALSHA c');
    expect(world.outcomes).toEqual(['a: 1', 'b: 2', 'c: 3']);
    expect(world.calls.isEmpty).toBe(true);
    expect(world.calls.bytes).toBe(0);
  });

  test('go out again, first of all, when their connection is lost; what came late of it is not heard', async () => {
    const world = new World();
    const [one, two] = [new FakeServer(), new FakeServer()];
    world.caller.begin(one.connection);
    world.call('a');
    world.call('b');
    await turn();
    world.call('c');
    await turn();
    world.caller.end(true);
    world.call('d');
    await one.answer([null, 'late'], [null, 'late']);
    world.caller.begin(two.connection);
    await turn();
    expect(two.asked).toEqual(['EVAL a', 'EVALSHA b', 'EVALSHA c', 'EVALSHA d']);
    await two.answer([null, '1'], [null, '2'], [null, '3'], [null, '4']);
    expect(world.outcomes).toEqual(['a: 1', 'b: 2', 'c: 3', 'd: 4']);
  });

  test('are given up when the connection breaks whenever they are asked', async () => {
    const world = new World();
    world.call('a');
    for (let attempt = 0; attempt < 8; attempt++) {
      world.caller.begin(new FakeServer().connection);
      await turn();
      expect(world.outcomes).toEqual([]);
      world.caller.end(true);
      await turn();
    }
    expect(world.outcomes).toEqual(['a! the connection breaks whenever it is asked']);
    expect(world.calls.bytes).toBe(0);
  });

  test('wait where their slot is on its way, and go on to whoever has it', async () => {
    const [world, server] = [new World(), new FakeServer()];
    world.caller.begin(server.connection);
    world.call('a', 1);
    world.call('b', 2);
    await turn();
    await server.answer(fails('moved', 'MOVED 1'), [null, '2']);
    expect(world.events).toEqual(['moved 1']);
    world.caller.flushSoon();
    await turn();
    expect(server.asked.length).toBe(2);
    world.parked.clear();
    world.caller.flushSoon();
    await turn();
    await server.answer([null, '1']);
    expect(world.outcomes).toEqual(['b: 2', 'a: 1']);
  });

  test('give the script again to who has forgotten it, and end the connection of who cannot now', async () => {
    const [world, server] = [new World(), new FakeServer()];
    world.caller.begin(server.connection);
    world.call('a');
    await turn();
    await server.answer(fails('rejected', 'NOSCRIPT no matching script'));
    await turn();
    await server.answer(fails('later', 'READONLY a replica'));
    expect(server.asked).toEqual(['EVAL a', 'EVAL a']);
    expect(world.events).toEqual(['failure READONLY a replica']);
    expect(world.outcomes).toEqual([]);
  });

  test('are refused for good by what Redis says of them alone: the connection stays', async () => {
    const [world, server] = [new World(), new FakeServer()];
    world.caller.begin(server.connection);
    world.call('a');
    world.call('b');
    await turn();
    await server.answer(fails('refused', 'no right'), [null, '2']);
    expect(world.outcomes).toEqual(['a! no right', 'b: 2']);
    expect(world.events).toEqual([]);
  });

  test('wait for a bounded time, and within bounds', async () => {
    const world = new World(2500);
    world.call('a', 0, 1000);
    world.now = 500;
    world.call('b', 1, 100);
    world.call('c', 2, 1000);
    await turn();
    expect(world.outcomes).toEqual(['c! too much waits for Redis already']);
    world.now = 1000;
    world.calls.tick();
    await turn();
    expect(world.outcomes.slice(1)).toEqual(['a! Redis does not answer']);
    world.calls.close();
    world.call('d');
    await turn();
    expect(world.outcomes.slice(2)).toEqual(['b! this worker is about to end', 'd! this worker is about to end']);
    expect(world.calls.bytes).toBe(0);
  });
});
