/**
 * A real nats-server for tests, built from the Go module proxy the first time: kept under node_modules/.cache, since it takes half a minute.
 * Where Go is not present, or the proxy cannot be reached, there is none, and the tests that need it are skipped.
 */
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eventually } from './eventually.ts';
import { freePort } from './free-port.ts';

const version = 'v2.15.3';
/** A proxy that swallows packets must not hold up all tests. */
const buildMs = 180_000;
const cache = join(import.meta.dir, '../../node_modules/.cache');
const program = join(cache, `nats-server-${version}`);

/** ret: whether there is a server to start; why not stands on standard error */
export async function hasNatsServer(): Promise<boolean> {
  const problem = await whyNot();
  if (problem !== undefined) console.error(`skipped: tests with a nats-server, which is built with Go: ${problem}`);
  return problem === undefined;
}

async function whyNot(): Promise<string | undefined> {
  try {
    Bun.resolveSync('@nats-io/transport-node', import.meta.dir);
  } catch {
    return 'its client is not installed either; run npm install';
  }
  if (existsSync(program)) return undefined;
  return Bun.which('go') === null ? 'Go is not installed' : await build();
}

/** ret: why it could not be built */
async function build(): Promise<string | undefined> {
  mkdirSync(cache, { recursive: true });
  const folder = mkdtempSync(join(cache, 'build-'));
  try {
    const words = ['go', 'install', '-trimpath', `github.com/nats-io/nats-server/v2@${version}`];
    const child = Bun.spawn(words, {
      cwd: folder,
      env: { ...process.env, GOBIN: folder, GOFLAGS: '-mod=mod' },
      stdout: 'ignore',
      stderr: 'pipe',
      timeout: buildMs,
    });
    const [said, code] = await Promise.all([child.stderr.text(), child.exited]);
    if (code !== 0) return `it could not be built: ${said.trim().split('\n').at(-1)}`;
    // At once, whoever else builds it too.
    renameSync(join(folder, 'nats-server'), program);
    return undefined;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

export interface NatsServer {
  /** 'nats://HOST:PORT' */
  readonly url: string;
  /** SIGKILL. Resolves when it is gone. */
  kill(): Promise<void>;
  /** Start again after `kill`, on the same port. */
  start(): Promise<void>;
  dispose(): Promise<void>;
}

/** Returns when it answers. `config`: lines of its configuration. */
export async function startNats(config: readonly string[] = []): Promise<NatsServer> {
  const folder = mkdtempSync(join(tmpdir(), 'ringway-nats-'));
  const port = freePort();
  const file = join(folder, 'nats.conf');
  writeFileSync(file, ['host: 127.0.0.1', `port: ${port}`, ...config, ''].join('\n'));
  let child: Bun.Subprocess | undefined;
  const kill = async () => {
    child?.kill('SIGKILL');
    await child?.exited;
  };
  const answers = async () => {
    const socket = await Bun.connect({ hostname: '127.0.0.1', port, socket: { data() {} } }).catch(() => undefined);
    socket?.end();
    return socket !== undefined;
  };
  const start = async () => {
    child = Bun.spawn(['setpriv', '--pdeathsig', 'KILL', program, '-c', file], { stdin: 'ignore', stdout: 'ignore', stderr: 'ignore' });
    await eventually('nats-server answers', answers);
  };
  await start();
  return {
    url: `nats://127.0.0.1:${port}`,
    kill,
    start,
    async dispose() {
      await kill();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
