/**
 * A program that a test has started, and what it has written.
 *
 * Role: every process that tests watch is one: gateways, commands, proxies, containers, servers under comparison. Who starts one ends it.
 */
import { native } from '../../ffi/bindings.ts';
import { openChildOutput } from '../../src/process/child-output.ts';
import { eventually, patienceMs } from './eventually.ts';

export interface RunOptions {
  readonly cwd?: string;
  /** Its whole environment; that of the tests without it. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly stdin?: 'ignore' | 'pipe';
  /** Descriptors here that it has as 3 and on. */
  readonly descriptors?: readonly number[];
}

export class RunningProgram {
  out = '';
  err = '';
  readonly child: Bun.Subprocess<'ignore' | 'pipe', number, number>;
  readonly #collected: Promise<unknown>;
  #output = '';

  constructor(words: readonly string[], { cwd, env = process.env, stdin = 'ignore', descriptors = [] }: RunOptions = {}) {
    const [out, err] = [openChildOutput(native), openChildOutput(native)];
    try {
      this.child = Bun.spawn([...words], {
        ...(cwd === undefined ? {} : { cwd }),
        env: { ...env },
        stdio: [stdin, out.childFd, err.childFd, ...descriptors],
      });
    } finally {
      out.handedOver();
      err.handedOver();
    }
    this.#collected = Promise.all([this.#collect('out', out.bytes), this.#collect('err', err.bytes)]);
  }

  async #collect(name: 'out' | 'err', stream: ReadableStream<Uint8Array>): Promise<void> {
    const decoder = new TextDecoder();
    for await (const chunk of stream) this.heard(name, decoder.decode(chunk, { stream: true }));
    this.closed(name);
  }

  /** It has written this. */
  protected heard(name: 'out' | 'err', text: string): void {
    this[name] += text;
    this.#output += text;
  }

  /** It has closed this, as it does when it ends. */
  protected closed(_name: 'out' | 'err'): void {}

  get pid(): number {
    return this.child.pid;
  }

  get hasEnded(): boolean {
    return this.child.exitCode !== null || this.child.signalCode !== null;
  }

  /** Everything that it has written so far, to either, in the order in which it came. */
  output(): string {
    return this.#output;
  }

  /** Wait for something in what it has written; its end ends the wait. */
  async finds(pattern: RegExp, limitMs = patienceMs): Promise<RegExpExecArray> {
    return eventually(
      `it says ${pattern}`,
      async () => {
        const found = pattern.exec(this.#output);
        if (found !== null || !this.hasEnded) return found;
        // What it said last is still on its way; unless a process that it has left behind holds the pipe.
        await Promise.race([this.#collected, Bun.sleep(1000)]);
        const last = pattern.exec(this.#output);
        if (last === null) throw new Error(`it has ended with ${this.child.exitCode ?? this.child.signalCode}:`);
        return last;
      },
      limitMs,
    ).catch((error) => {
      throw new Error(`${error}\n${this.#output}`);
    });
  }

  /** The same. ret: the first group, or all that matched */
  async says(pattern: RegExp, limitMs?: number): Promise<string> {
    const found = await this.finds(pattern, limitMs);
    return found[1] ?? found[0];
  }

  kill(signal: NodeJS.Signals): void {
    this.child.kill(signal);
  }

  /** Wait until it has ended, and all that it wrote has been read. ret: its exit code */
  async ended(): Promise<number> {
    const code = await this.child.exited;
    await this.#collected;
    return code;
  }

  /** SIGKILL, if it still runs. */
  async stop(): Promise<void> {
    if (!this.hasEnded) this.child.kill('SIGKILL');
    await this.ended();
  }
}
