/** Runs the load client (bench/load) and hears its marks. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

const folder = join(import.meta.dir, '..', 'load');

/** Its line of JSON. Which numbers it has depends on the command. */
export interface LoadReport {
  readonly messages?: number;
  readonly per_second?: number;
  readonly seconds?: number;
  readonly p50_us?: number;
  readonly p90_us?: number;
  readonly p99_us?: number;
  readonly max_us?: number;
  readonly p999_us?: number;
  /** ws-fanout */
  readonly deliveries?: number;
  readonly publisher_deliveries?: number;
  /** ws-idle */
  readonly open?: number;
  readonly lost?: number;
  readonly pings?: number;
  /** reload: what has happened, and what has failed, by kind. */
  readonly opened?: number;
  readonly visits?: number;
  readonly requests?: number;
  readonly http_ended?: number;
  readonly closed_1001?: number;
  readonly closed_1012?: number;
  readonly closed_other?: number;
  readonly failed_connects?: number;
  readonly failed_handshakes?: number;
  readonly failed_echoes?: number;
  readonly lost_requests?: number;
  readonly cut?: number;
}

/** make decides whether they are out of date. */
export const buildLoadClient = (): void => build(folder);
export const buildFloor = (): void => build(join(folder, '../floor'));

function build(source: string): void {
  execFileSync('make', ['--silent', '-C', source], { stdio: ['ignore', 2, 2] });
}

/** load: ../load, in C. topics: ../topics/client.ts. */
export type LoadProgram = 'load' | 'topics';

export interface LoadOptions {
  /** @default 'load' */
  readonly program?: LoadProgram;
  /** A command of the load client and its options. */
  readonly args: readonly string[];
  readonly port: number;
  readonly cpu: number;
}

const programs: Readonly<Record<LoadProgram, readonly string[]>> = {
  load: [join(folder, 'build/load')],
  topics: [process.execPath, join(folder, '../topics/client.ts')],
};
const running = new Set<ChildProcess>();

export function killLoadClients(): void {
  for (const child of running) child.kill('SIGKILL');
}

export class LoadClient {
  readonly #child: ChildProcess;
  readonly #lines: string[] = [];
  readonly #ended: Promise<void>;
  #hasEnded = false;
  #errors = '';
  #onChange: () => void = () => {};

  constructor({ program = 'load', args, port, cpu }: LoadOptions) {
    const command = ['-c', String(cpu), ...programs[program], ...args, '--port', String(port)];
    const child = spawn('taskset', command, { stdio: ['pipe', 'pipe', 'pipe'] });
    this.#child = child;
    running.add(child);
    child.stderr.on('data', (chunk) => {
      this.#errors += chunk;
    });
    // One that has ended by itself no longer listens.
    child.stdin.on('error', () => {});
    createInterface({ input: child.stdout }).on('line', (line) => {
      this.#lines.push(line);
      this.#onChange();
    });
    this.#ended = new Promise((resolve) => {
      const end = () => {
        running.delete(child);
        this.#hasEnded = true;
        this.#onChange();
        resolve();
      };
      child.once('error', (error) => {
        this.#errors += error.message;
        end();
      });
      child.once('close', end);
    });
  }

  /** Resolves when it has printed a line that begins so. Throws when it ends before. */
  async line(prefix: string): Promise<void> {
    while (!this.#lines.some((line) => line.startsWith(prefix))) {
      if (this.#hasEnded) throw this.#failure();
      await new Promise<void>((resolve) => {
        this.#onChange = resolve;
      });
    }
  }

  /** Let go of connections that are held. */
  release(): void {
    this.#child.stdin?.end();
  }

  /** Its report, when it has ended. Throws when anything was not as it should be. */
  async report(): Promise<LoadReport> {
    await this.#ended;
    const last = this.#lines.at(-1);
    if (this.#child.exitCode !== 0 || last === undefined || !last.startsWith('{')) throw this.#failure();
    return JSON.parse(last) as LoadReport;
  }

  #failure(): Error {
    const how = this.#child.signalCode ?? `exit code ${this.#child.exitCode}`;
    return new Error(this.#errors.trim() || `the load client ended early, ${how}`);
  }
}
