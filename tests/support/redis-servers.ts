/**
 * Real Redis servers for tests: one alone, a primary with replica and Sentinels, a Cluster; to be killed, stopped, cut off and failed over.
 *
 * Role: used by tests of the link and of the bus. Every server has a port of its own that was free, a temporary folder, and dies with this
 * process, whatever becomes of it. `dispose()` ends what was started; each start returns only when the servers answer.
 *
 *   const redis = await startRedis();                        await redis.kill(); await redis.start(); redis.freeze(); redis.thaw();
 *   const sentinels = await startSentinels({ sentinels: 3 });  await sentinels.primary.kill();
 *   const cluster = await startCluster();                    await cluster.migrate(slot, to);
 *   const network = createNetwork();                         const far = await startRedis({ network }); network.cut(); network.heal();
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eventually } from './eventually.ts';
import { freePort } from './free-port.ts';
import type { Network } from './networks.ts';

export interface RedisOptions {
  /** Lines of redis.conf, such as 'requirepass secret'. They stand last, so they win. */
  readonly config?: readonly string[];
  /** TLS on `tlsPort` beside the plain port: PEM files. Clients need no certificate. */
  readonly tls?: { readonly cert: string; readonly key: string; readonly ca: string };
  /** Runs in this network namespace, where `host` is its address. */
  readonly network?: Network;
  /** What redis-cli logs in with, when the config asks for it: ['--user', name, '--pass', password]. */
  readonly login?: readonly string[];
}

export interface RedisServer {
  readonly host: string;
  readonly port: number;
  /** 'redis://HOST:PORT' */
  readonly url: string;
  readonly tlsPort: number;
  /** A Unix socket on which it listens too. */
  readonly socketPath: string;
  readonly pid: number;
  /** Send a command with redis-cli. ret: the answer, an array as lines; an error answer rejects. */
  command(...words: string[]): Promise<string>;
  /** A number out of INFO, such as 'total_commands_processed', or of COMMANDSTATS: 'cmdstat_publish:calls'. 0 when it is not there. */
  stat(name: string): Promise<number>;
  /** SIGKILL. Resolves when it is gone; does nothing when it is. */
  kill(): Promise<void>;
  /** Start again after `kill`, on the same ports. */
  start(): Promise<void>;
  /** SIGSTOP: connections stay, nothing is answered. */
  freeze(): void;
  /** SIGCONT */
  thaw(): void;
  dispose(): Promise<void>;
}

const host = '127.0.0.1';
/** A process that dies with this one. */
function spawn(words: readonly string[]) {
  return Bun.spawn(['setpriv', '--pdeathsig', 'KILL', ...words], { stdin: 'ignore', stdout: 'pipe', stderr: 'pipe' });
}

async function run(...words: string[]): Promise<string> {
  const child = spawn(words);
  const [output, errors, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  if (code !== 0) throw new Error(`${words.join(' ')} ended with ${code}: ${errors}${output}`);
  return output.trimEnd();
}

/** Words before a program that make it run in a network. */
const inside = (network: Network | undefined): string[] => (network === undefined ? [] : ['ip', 'netns', 'exec', network.name]);

interface Program {
  readonly ports: readonly number[];
  readonly config: readonly string[];
  readonly network: Network | undefined;
  readonly login: readonly string[];
  readonly sentinel?: boolean;
}

/** One process of redis-server, in a folder of its own. */
class Server implements RedisServer {
  readonly host: string;
  readonly port: number;
  readonly tlsPort: number;
  readonly folder = mkdtempSync(join(tmpdir(), 'ringway-redis-'));
  readonly #program: Program;
  #child: ReturnType<typeof spawn> | undefined;
  #output = '';

  constructor(program: Program) {
    this.#program = program;
    this.host = program.network?.host ?? host;
    this.port = program.ports[0] ?? 0;
    this.tlsPort = program.ports[1] ?? 0;
    const common = [`port ${this.port}`, `unixsocket ${this.socketPath}`, `dir ${this.folder}`, 'daemonize no', 'logfile ""'];
    // Without a password it would answer nobody who is not on its loopback.
    const open = program.network === undefined ? [] : ['protected-mode no'];
    writeFileSync(this.#configPath, [`bind ${this.host}`, ...common, ...open, ...program.config, ''].join('\n'));
  }

  get #configPath(): string {
    return join(this.folder, 'redis.conf');
  }

  get socketPath(): string {
    return join(this.folder, 'redis.sock');
  }

  get url(): string {
    return `redis://${this.host}:${this.port}`;
  }

  get pid(): number {
    return this.#child?.pid ?? 0;
  }

  async start(): Promise<void> {
    await this.kill();
    await eventually('redis-server starts', () => this.#tryStart());
  }

  /** ret: whether it runs; not when its port has been taken meanwhile, which passes where it was a passing connection. */
  async #tryStart(): Promise<boolean> {
    this.#output = '';
    const sentinel = this.#program.sentinel === true ? ['--sentinel'] : [];
    const child = spawn([...inside(this.#program.network), 'redis-server', this.#configPath, ...sentinel]);
    this.#child = child;
    void this.#collect(child);
    const ready = await eventually('redis-server answers', async () => {
      if (child.exitCode !== null || child.signalCode !== null) return 'ended';
      return (await this.command('PING').catch(() => '')) === 'PONG' ? 'up' : undefined;
    });
    if (ready === 'up') return true;
    await child.exited;
    if (/Address already in use/.test(this.#output)) return false;
    throw new Error(`redis-server ended at once:\n${this.#output}`);
  }

  async #collect(child: ReturnType<typeof spawn>): Promise<void> {
    const decoder = new TextDecoder();
    for await (const chunk of child.stdout) this.#output = (this.#output + decoder.decode(chunk)).slice(-10_000);
  }

  async command(...words: string[]): Promise<string> {
    // Its socket answers whatever becomes of the network, and in protected mode.
    return await run('redis-cli', '-s', this.socketPath, '-e', '--raw', '--no-auth-warning', ...this.#program.login, ...words);
  }

  async stat(name: string): Promise<number> {
    const [line, field] = name.split(':');
    const info = await this.command('INFO', 'everything');
    const found = new RegExp(`^${line}:(.*)$`, 'm').exec(info)?.[1] ?? '';
    return Number(field === undefined ? found : (new RegExp(`(?:^|,)${field}=([\\d.]+)`).exec(found)?.[1] ?? 0));
  }

  async kill(): Promise<void> {
    this.#child?.kill('SIGKILL');
    await this.#child?.exited;
    this.#child = undefined;
  }

  freeze(): void {
    this.#child?.kill('SIGSTOP');
  }

  thaw(): void {
    this.#child?.kill('SIGCONT');
  }

  async dispose(): Promise<void> {
    await this.kill();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Start one with ports that nobody has; when another process is quicker, with others. */
async function startServer(make: (ports: readonly number[]) => Program, portCount: number): Promise<Server> {
  for (let attempt = 0; ; attempt++) {
    const server = new Server(make(Array.from({ length: portCount }, freePort)));
    try {
      await server.start();
      return server;
    } catch (error) {
      await server.dispose();
      if (attempt === 3) throw error;
    }
  }
}

const notSaved = ['save ""', 'appendonly no'];

/** One server: standalone, empty, nothing saved. */
export async function startRedis(options: RedisOptions = {}): Promise<RedisServer> {
  const { tls, network, login = [], config = [] } = options;
  const make = (ports: readonly number[]): Program => ({
    ports,
    network,
    login,
    config: [...notSaved, ...(tls === undefined ? [] : tlsLines(tls, ports[1] ?? 0)), ...config],
  });
  return await startServer(make, 2);
}

function tlsLines(tls: NonNullable<RedisOptions['tls']>, port: number): string[] {
  return [`tls-port ${port}`, `tls-cert-file ${tls.cert}`, `tls-key-file ${tls.key}`, `tls-ca-cert-file ${tls.ca}`, 'tls-auth-clients no'];
}

export interface SentinelGroup {
  /** What the Sentinels call it. */
  readonly name: string;
  readonly downAfterMs: number;
  /** As it was at the start. */
  readonly primary: RedisServer;
  readonly replica: RedisServer;
  readonly sentinels: readonly RedisServer[];
  /** 'redis://HOST:PORT' of each Sentinel. */
  readonly urls: readonly string[];
  /** The port of the primary as the Sentinels see it now. */
  primaryPort(): Promise<number>;
  dispose(): Promise<void>;
}

/** A primary, its replica, and Sentinels that fail over once most of them have not reached the primary for `downAfterMs`. */
export async function startSentinels(options: { sentinels?: number; downAfterMs?: number } = {}): Promise<SentinelGroup> {
  const { sentinels: count = 1, downAfterMs = 1000 } = options;
  const name = 'group';
  const primary = await startRedis();
  const follow = { config: [`replicaof ${primary.host} ${primary.port}`, 'repl-diskless-sync-delay 0'] };
  const replica = await startRedis(follow);
  await eventually('the replica follows', async () => (await replica.command('INFO', 'replication')).includes('master_link_status:up'));
  const monitor = [
    `sentinel monitor ${name} ${primary.host} ${primary.port} ${Math.floor(count / 2) + 1}`,
    `sentinel down-after-milliseconds ${name} ${downAfterMs}`,
    `sentinel failover-timeout ${name} 10000`,
  ];
  const sentinels = await Promise.all(
    Array.from({ length: count }, () =>
      startServer((ports) => ({ ports, config: monitor, network: undefined, login: [], sentinel: true }), 1),
    ),
  );
  const first = sentinels[0] as Server;
  await eventually('the Sentinels know each other and the replica', async () => {
    const views = await Promise.all(sentinels.map((sentinel) => sentinel.command('SENTINEL', 'MASTER', name)));
    return views.every((view) => field(view, 'num-slaves') === '1' && field(view, 'num-other-sentinels') === String(count - 1));
  });
  return {
    name,
    downAfterMs,
    primary,
    replica,
    sentinels,
    urls: sentinels.map(({ url }) => url),
    primaryPort: async () => Number((await first.command('SENTINEL', 'GET-MASTER-ADDR-BY-NAME', name)).split('\n')[1]),
    dispose: async () => void (await Promise.all([...sentinels, primary, replica].map((server) => server.dispose()))),
  };
}

/** Of an answer that lists names and values by turns. */
function field(lines: string, name: string): string | undefined {
  const list = lines.split('\n');
  return list[list.indexOf(name) + 1];
}

export interface RedisCluster {
  /** The primaries first, as they were at the start, then the replicas in the order of their primaries, where there are any. */
  readonly servers: readonly RedisServer[];
  readonly primaries: readonly RedisServer[];
  readonly replicas: readonly RedisServer[];
  /** 'redis://HOST:PORT' of each server. */
  readonly urls: readonly string[];
  /** The server that has a hash slot now, as `asked` sees it. */
  ownerOf(slot: number, asked?: RedisServer): Promise<RedisServer>;
  /** Give a slot and its keys to another primary, as redis-cli's resharding does. Names of keys must be text of one line. */
  migrate(slot: number, to: RedisServer): Promise<void>;
  /** The server that has a slot lets go of it and takes it back in one moment: its subscribers lose their channels, and nobody sees it go. */
  flicker(slot: number): Promise<void>;
  /** Make a replica the primary of its shard; `force`: without asking the one that it follows. */
  failover(replica: RedisServer, force?: boolean): Promise<void>;
  dispose(): Promise<void>;
}

/** A Cluster of three primaries, each with its replica. A primary counts as gone after `nodeTimeoutMs`. `config`: lines of redis.conf. */
export async function startCluster(
  options: { replicas?: boolean; nodeTimeoutMs?: number; config?: readonly string[] } = {},
): Promise<RedisCluster> {
  const { replicas: hasReplicas = true, nodeTimeoutMs = 2000, config = [] } = options;
  const lines = ['cluster-enabled yes', `cluster-node-timeout ${nodeTimeoutMs}`, 'repl-diskless-sync-delay 0', ...notSaved];
  const make = (ports: readonly number[]): Program => ({
    ports: ports.slice(0, 1),
    network: undefined,
    login: [],
    config: [...lines, `cluster-port ${ports[1]}`, ...config],
  });
  const started = await Promise.all(Array.from({ length: hasReplicas ? 6 : 3 }, () => startServer(make, 2)));
  await run(
    'redis-cli',
    '--cluster',
    'create',
    ...started.map(({ port }) => `${host}:${port}`),
    '--cluster-replicas',
    hasReplicas ? '1' : '0',
    '--cluster-yes',
  );
  const ids = new Map<RedisServer, string>();
  for (const server of started) ids.set(server, await server.command('CLUSTER', 'MYID'));
  const byPort = (port: string | undefined) => {
    const server = started.find((candidate) => String(candidate.port) === port);
    if (server === undefined) throw new Error(`no server of this cluster has port ${port}`);
    return server;
  };
  /** As CLUSTER NODES lists them: id, address, flags, the id of the primary. */
  const nodesSeenBy = async (server: RedisServer) =>
    (await server.command('CLUSTER', 'NODES')).split('\n').map((line) => {
      const [id = '', address = '', flags = '', primary = ''] = line.split(' ');
      return { id, server: byPort(/:(\d+)@/.exec(address)?.[1]), isPrimary: flags.includes('master'), primary };
    });
  await eventually('every server sees the whole cluster', async () => {
    const views = await Promise.all(
      started.map(async (server) => [await server.command('CLUSTER', 'INFO'), await nodesSeenBy(server)] as const),
    );
    const wanted = hasReplicas ? 3 : 0;
    return views.every(
      ([info, nodes]) => info.includes('cluster_state:ok') && nodes.filter(({ isPrimary }) => !isPrimary).length === wanted,
    );
  });
  if (hasReplicas) {
    await eventually('the replicas follow', async () => {
      const infos = await Promise.all(started.map((server) => server.command('INFO', 'replication')));
      return infos.every((info) => info.includes('role:master') || info.includes('master_link_status:up'));
    });
  }
  const nodes = await nodesSeenBy(started[0] as Server);
  const primaries = nodes.filter(({ isPrimary }) => isPrimary);
  const replicas = primaries.flatMap(({ id }) => nodes.filter((node) => !node.isPrimary && node.primary === id));
  const servers = [...primaries, ...replicas].map(({ server }) => server);
  const ownerOf = async (slot: number, asked: RedisServer = servers[0] as RedisServer) => {
    const lines = (await asked.command('CLUSTER', 'SLOTS')).split('\n');
    // Each range: its first slot, its last, then each node as address, port, id and what else there is; the primary first.
    for (let at = 0; at + 3 < lines.length; at++) {
      const isRange = /^\d+$/.test(lines[at] ?? '') && /^\d+$/.test(lines[at + 1] ?? '') && lines[at + 2] === host;
      if (isRange && slot >= Number(lines[at]) && slot <= Number(lines[at + 1])) return byPort(lines[at + 3]);
    }
    throw new Error(`nobody has slot ${slot}`);
  };
  return {
    servers,
    primaries: servers.slice(0, 3),
    replicas: servers.slice(3),
    urls: servers.map(({ url }) => url),
    ownerOf,
    async migrate(slot, to) {
      const from = await ownerOf(slot, to);
      if (from === to) return;
      await to.command('CLUSTER', 'SETSLOT', String(slot), 'IMPORTING', ids.get(from) ?? '');
      await from.command('CLUSTER', 'SETSLOT', String(slot), 'MIGRATING', ids.get(to) ?? '');
      for (;;) {
        const keys = (await from.command('CLUSTER', 'GETKEYSINSLOT', String(slot), '100')).split('\n').filter((key) => key !== '');
        if (keys.length === 0) break;
        await from.command('MIGRATE', to.host, String(to.port), '', '0', '5000', 'KEYS', ...keys);
      }
      await to.command('CLUSTER', 'SETSLOT', String(slot), 'NODE', ids.get(to) ?? '');
      await from.command('CLUSTER', 'SETSLOT', String(slot), 'NODE', ids.get(to) ?? '');
    },
    async flicker(slot) {
      const child = Bun.spawn(['redis-cli', '-p', String((await ownerOf(slot)).port)], {
        stdin: Buffer.from(`MULTI\nCLUSTER DELSLOTS ${slot}\nCLUSTER ADDSLOTS ${slot}\nEXEC\n`),
        stdout: 'pipe',
      });
      const said = await child.stdout.text();
      if (!/QUEUED\nQUEUED\nOK\nOK/.test(said)) throw new Error(`CLUSTER DELSLOTS and ADDSLOTS: ${said}`);
    },
    failover: async (replica, force = false) => void (await replica.command('CLUSTER', 'FAILOVER', ...(force ? ['TAKEOVER'] : []))),
    dispose: async () => void (await Promise.all(started.map((server) => server.dispose()))),
  };
}
