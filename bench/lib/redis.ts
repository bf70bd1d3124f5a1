/** A redis-server of the bench's own, and what it has counted. */
import { type ChildProcess, spawn } from 'node:child_process';
import { connect, type Socket } from 'node:net';
import { freePort } from './free-port.ts';

/** What clients have asked of Redis and exchanged with it since it began, without what the bench asks. */
export interface RedisCounts {
  /** Calls by command, in lower case. */
  readonly calls: ReadonlyMap<string, number>;
  /** From clients to Redis, and from Redis to clients. */
  readonly receivedBytes: number;
  readonly sentBytes: number;
}

export interface RedisServer {
  readonly url: string;
  counts(): Promise<RedisCounts>;
  stop(): Promise<void>;
}

const readyMs = 10_000;
const running = new Set<ChildProcess>();

/** Nothing is written to disk. Throws when there is no redis-server. */
export async function startRedis(cpu: number): Promise<RedisServer> {
  const port = await freePort();
  const options = ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--daemonize', 'no'];
  const child = spawn('taskset', ['-c', String(cpu), 'redis-server', ...options], { stdio: ['ignore', 'ignore', 'pipe'] });
  running.add(child);
  let errors = '';
  child.stderr.on('data', (chunk) => {
    errors += chunk;
  });
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve())).then(() => void running.delete(child));
  let asker: Asker | undefined;
  for (const deadline = performance.now() + readyMs; asker === undefined; ) {
    asker = await Asker.connect(port).catch(() => undefined);
    if (asker !== undefined) break;
    if (child.exitCode !== null || performance.now() > deadline)
      throw new Error(`redis-server does not run (Debian has it in the package redis-server): ${errors.trim()}`);
    await Bun.sleep(25);
  }
  const own = asker;
  return {
    url: `redis://127.0.0.1:${port}`,
    counts: () => own.counts(),
    async stop() {
      own.end();
      child.kill('SIGKILL');
      await ended;
    },
  };
}

export function killRedis(): void {
  for (const child of running) child.kill('SIGKILL');
}

/** A connection that asks one thing, and knows to the byte what it has exchanged itself. */
class Asker {
  readonly #socket: Socket;
  #sent = 0;
  #received = 0;
  #buffered = '';
  #onData: () => void = () => {};

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', (chunk: Buffer) => {
      this.#received += chunk.length;
      this.#buffered += chunk.toString('latin1');
      this.#onData();
    });
    socket.on('error', () => {});
  }

  static connect(port: number): Promise<Asker> {
    return new Promise((resolve, reject) => {
      const socket = connect(port, '127.0.0.1', () => resolve(new Asker(socket)));
      socket.once('error', reject);
    });
  }

  async counts(): Promise<RedisCounts> {
    // Redis counts a reply when it has written it: this one is not yet among its numbers, the question is.
    const receivedBefore = this.#received;
    const text = await this.#ask('INFO', 'everything');
    const number = (name: string) => Number(new RegExp(`^${name}:(\\d+)\\r$`, 'm').exec(text)?.[1] ?? Number.NaN);
    const calls = [...text.matchAll(/^cmdstat_(\S+):calls=(\d+),/gm)].map(([, name = '', count]) => [name, Number(count)] as const);
    return {
      calls: new Map(calls.filter(([name]) => name !== 'info')),
      receivedBytes: number('total_net_input_bytes') - this.#sent,
      sentBytes: number('total_net_output_bytes') - receivedBefore,
    };
  }

  end(): void {
    this.#socket.destroy();
  }

  /** ret: the bulk string that is the reply */
  async #ask(...words: string[]): Promise<string> {
    const question = `*${words.length}\r\n${words.map((word) => `$${word.length}\r\n${word}\r\n`).join('')}`;
    this.#sent += question.length;
    this.#socket.write(question);
    for (;;) {
      const head = /^\$(\d+)\r\n/.exec(this.#buffered);
      const end = head === null ? Number.POSITIVE_INFINITY : head[0].length + Number(head[1]);
      if (this.#buffered.length >= end + 2) {
        const reply = this.#buffered.slice(head?.[0].length, end);
        this.#buffered = this.#buffered.slice(end + 2);
        return reply;
      }
      await new Promise<void>((resolve) => {
        this.#onData = resolve;
      });
    }
  }
}
