/**
 * Runs the `ringway` command as a person at a shell does, and gateways whose tokens are theirs alone.
 *
 * Role: used by end-to-end tests of operations. `startOperated` gives each gateway an XDG_RUNTIME_DIR of its own; commands find its token by
 * that, as they do on a real machine.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Gateway, type GatewayOptions, startGateway } from './gateway.ts';
import { RunningProgram } from './running-program.ts';

const root = join(import.meta.dir, '..', '..');
const program = [process.execPath, join(root, 'src', 'main.ts')] as const;

export interface CommandOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  readonly input?: string | Uint8Array<ArrayBuffer>;
}

export interface CommandResult {
  readonly exitCode: number;
  readonly out: string;
  readonly err: string;
}

/** What this shell has set must not be found by commands that tests run. */
const nothingSet = { ADMIN_HOST: '', ADMIN_PORT: '', ADMIN_TOKEN: '', HTTP_PROXY: '', http_proxy: '', NO_COLOR: '1' };

function environment(env: CommandOptions['env'] = {}) {
  return { ...process.env, ...nothingSet, ...env };
}

/** The command, to be watched while it runs. */
export function watchRingway(words: readonly string[], { cwd = root, env }: CommandOptions = {}): RunningProgram {
  return new RunningProgram([...program, ...words], { cwd, env: environment(env) });
}

export function startRingway(words: readonly string[], options: CommandOptions = {}) {
  return Bun.spawn([...program, ...words], {
    cwd: options.cwd ?? root,
    env: environment(options.env),
    stdin: options.input === undefined ? 'ignore' : Buffer.from(options.input as string),
    stdout: 'pipe',
    stderr: 'pipe',
  });
}

export async function ringway(words: readonly string[], options: CommandOptions = {}): Promise<CommandResult> {
  const child = startRingway(words, options);
  const [out, err, exitCode] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return { exitCode, out, err };
}

/** A command in a terminal. */
export class TerminalCommand {
  readonly exited: Promise<number>;
  readonly #child: Bun.Subprocess;
  #shown = '';

  constructor(words: readonly string[], env: Readonly<Record<string, string>>, size: { readonly cols: number; readonly rows: number }) {
    const decoder = new TextDecoder();
    this.#child = Bun.spawn([...program, ...words], {
      cwd: root,
      env: environment(env),
      terminal: {
        ...size,
        data: (_, bytes) => {
          this.#shown += decoder.decode(bytes, { stream: true });
        },
      },
    });
    this.exited = this.#child.exited;
  }

  /** Everything that was written to the terminal so far. */
  get shown(): string {
    return this.#shown;
  }

  /** Every byte of the terminal has been read when this resolves. ret: the exit code */
  async end(): Promise<number> {
    const exitCode = await this.exited;
    // What was written last may still be on its way through the terminal.
    for (let seen = -1; seen !== this.#shown.length; await Bun.sleep(50)) seen = this.#shown.length;
    this.#child.terminal?.close();
    return exitCode;
  }

  press(keys: string): void {
    this.#child.terminal?.write(keys);
  }

  resize(cols: number, rows: number): void {
    this.#child.terminal?.resize(cols, rows);
  }

  terminate(): void {
    this.#child.kill('SIGTERM');
  }

  kill(): void {
    this.#child.kill('SIGKILL');
  }
}

export interface Operated extends Gateway {
  /** For `ringway`: how its commands find this gateway and its token. */
  readonly env: Readonly<Record<string, string>>;
  /** Where its token lies. */
  readonly runtimeFolder: string;
  /** Of the file; throws when there is none. */
  token(): string;
  /** `ringway`, for this gateway. */
  run(words: readonly string[], options?: CommandOptions): Promise<CommandResult>;
  /** POST to the admin listener with the token. */
  post(path: string, body: string | Uint8Array<ArrayBuffer>, type?: string): Promise<Response>;
}

/** A gateway whose token lies where no other's does. */
export async function startOperated(options: GatewayOptions): Promise<Operated> {
  const runtimeFolder = mkdtempSync(join(tmpdir(), 'ringway-run-'));
  const own = { XDG_RUNTIME_DIR: runtimeFolder };
  const gateway = await startGateway({ ...options, env: { ADMIN_TOKEN: '', ...own, ...options.env } }).catch((error) => {
    rmSync(runtimeFolder, { recursive: true, force: true });
    throw error;
  });
  const env = { ...own, ...(Number.isNaN(gateway.adminPort) ? {} : { ADMIN_PORT: String(gateway.adminPort) }) };
  const token = () => {
    const folder = join(runtimeFolder, 'ringway');
    const [name = '', ...more] = readdirSync(folder);
    if (more.length > 0) throw new Error(`more than one token in ${folder}`);
    return readFileSync(join(folder, name), 'utf8');
  };
  return {
    ...gateway,
    env,
    runtimeFolder,
    token,
    run: (words, more = {}) => ringway(words, { ...more, env: { ...env, ...more.env } }),
    post: (path, body, type = 'text/plain') =>
      fetch(gateway.adminUrl + path, { method: 'POST', headers: { authorization: `Bearer ${token()}`, 'content-type': type }, body }),
    async stop() {
      await gateway.stop();
      rmSync(runtimeFolder, { recursive: true, force: true });
    },
  };
}

/** The lines of its log so far that are JSON, in order. */
export function logLines(gateway: Gateway): Record<string, unknown>[] {
  return gateway
    .output()
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line) as Record<string, unknown>);
}
