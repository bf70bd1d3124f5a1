/** The container image does what docs/docker.md says: built here, and run without an engine (container.ts). */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { eventually } from '../support/eventually.ts';
import { freePort } from '../support/free-port.ts';
import { startRedis } from '../support/redis-servers.ts';
import { type Container, descendants, Image, root } from './container.ts';

// Only ends a test that has failed: nothing here is measured in time.
setDefaultTimeout(120_000);
/** Packages are downloaded and the core is compiled. */
const buildMs = 720_000;

const isRoot = process.getuid?.() === 0;
if (!isRoot) console.warn('the image is built and run as root only: its tests are skipped');

const profile = join(root, 'docker/seccomp.json');
/** Ports that the system chooses: other gateways run on this machine. */
const anyPorts = { PORT: '0', ADMIN_PORT: '0', WORKERS: '2' };

interface Health {
  readonly version: string;
  readonly workers: readonly { readonly backend: string; readonly note?: string }[];
}

async function textOf(url: string): Promise<string> {
  return (await fetch(url)).text();
}

async function healthOf(adminPort: number): Promise<Health> {
  return (await fetch(`http://127.0.0.1:${adminPort}/healthz`)).json() as Promise<Health>;
}

/** Resolves with what a WebSocket at `url` gets for a message. */
function answerOf(url: string, message: string): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const socket = new WebSocket(url);
  socket.onopen = () => socket.send(message);
  socket.onmessage = (event) => {
    resolve(String(event.data));
    socket.close();
  };
  socket.onerror = () => reject(new Error(`${url} cannot be reached`));
  return promise;
}

async function openSocket(url: string): Promise<{ socket: WebSocket; received: string[] }> {
  const socket = new WebSocket(url);
  const received: string[] = [];
  socket.onmessage = (event) => received.push(String(event.data));
  await new Promise((resolve, reject) => {
    socket.onopen = resolve;
    socket.onerror = () => reject(new Error(`${url} cannot be reached`));
  });
  return { socket, received };
}

async function stop(container: Container): Promise<number> {
  process.kill(await container.entrypoint(), 'SIGTERM');
  return container.exited;
}

describe.skipIf(!isRoot)('the image', () => {
  let folder: string;
  let image: Image;

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'ringway-image-test-'));
    // As an engine sees it: the user of the container is not the one who wrote it.
    chmodSync(folder, 0o755);
    image = await Image.build();
  }, buildMs);
  afterAll(async () => {
    await image?.remove();
    rmSync(folder, { recursive: true, force: true });
  });

  /** ret: path of the folder `name` with these files */
  function write(name: string, files: Readonly<Record<string, string>>): string {
    for (const [path, text] of Object.entries(files)) {
      const file = join(folder, name, path);
      mkdirSync(dirname(file), { recursive: true });
      writeFileSync(file, text);
    }
    return join(folder, name);
  }

  test('says how it is run', () => {
    const { config } = image;
    const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
    expect(config).toMatchObject({ WorkingDir: '/app', StopSignal: 'SIGTERM', Cmd: ['start'] });
    // A number other than root's, so that Kubernetes can tell (runAsNonRoot).
    expect(config.User).toMatch(/^[1-9]\d*:[1-9]\d*$/);
    expect(Object.keys(config.ExposedPorts).toSorted()).toEqual(['8080/tcp', '9100/tcp']);
    expect(config.Healthcheck.Test).toEqual(['CMD', 'ringway', 'health']);
    expect(config.Labels).toMatchObject({ 'org.opencontainers.image.title': 'Ringway', 'org.opencontainers.image.version': version });
  });

  test('holds what runs, and neither compilers, nor tests, nor what only development needs', async () => {
    const script = `
      for name in gcc cc make strip node npm python3; do command -v "$name" && echo "has $name"; done
      ls /opt/ringway /opt/ringway/ffi/build /opt/ringway/node_modules
      find / -xdev '(' -name '*.test.ts' -o -name .git -o -name typescript -o -name '@biomejs' ')' -printf 'has %p\\n'
      find /opt/ringway /usr/local /app -xdev -writable -printf 'can write %p\\n'
      bun --version`;
    const { code, out } = await image.output(['sh', '-c', script]);
    const lines = out.split('\n');
    expect(lines.filter((line) => /^(?:has|can write) /.test(line))).toEqual([]);
    for (const name of ['src', 'libringway.so', 'hono', 'pino']) expect(lines).toContain(name);
    const { dependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
    expect([code, lines.at(-2)]).toEqual([0, dependencies.bun]);
    // Bun is half of it.
    expect(image.sizeBytes).toBeLessThan(240e6);
    expect(image.sizeBytes).toBeGreaterThan(100e6);
  });

  test('serves the example on io_uring with the profile, as nobody special, and stops well', async () => {
    const container = image.run({ env: anyPorts, seccomp: profile });
    const { port, adminPort } = await container.ports();
    expect(await textOf(`http://127.0.0.1:${port}/hello`)).toBe('Hello from Ringway');
    expect(await textOf(`http://127.0.0.1:${port}/`)).toContain('<title>');
    expect(await answerOf(`ws://127.0.0.1:${port}/echo`, 'there and back')).toBe('there and back');
    expect(await answerOf(`ws://127.0.0.1:${port}/room/lobby`, 'to all')).toBe('to all');
    const { version, workers } = await healthOf(adminPort);
    expect(version).toBe(image.config.Labels['org.opencontainers.image.version'] ?? '');
    expect(workers.map(({ backend }) => backend)).toEqual(['io_uring', 'io_uring']);

    const entrypoint = await container.entrypoint();
    const processes = [entrypoint, ...descendants(entrypoint)];
    expect(processes.length).toBeGreaterThanOrEqual(4);
    for (const pid of processes) expect(readFileSync(`/proc/${pid}/status`, 'utf8')).toMatch(/^Uid:\t10001\t10001\t10001\t10001$/m);

    // The image's health check, which looks where ADMIN_PORT says.
    const check = { command: image.config.Healthcheck.Test.slice(1), env: { ADMIN_PORT: String(adminPort) } };
    expect(await image.run(check).exited).toBe(0);
    expect(await stop(container)).toBe(0);
    expect(container.output()).toContain('"msg":"stopped"');
    expect(await image.run(check).exited).toBe(1);
  });

  test("runs on epoll by itself with Docker's own profile, and says so in log, health and metrics", async () => {
    const { syscalls, ...rest } = JSON.parse(readFileSync(profile, 'utf8'));
    const own = write('profiles', { 'docker.json': JSON.stringify({ ...rest, syscalls: syscalls.slice(0, -1) }) });
    const container = image.run({ env: anyPorts, seccomp: join(own, 'docker.json') });
    const { port, adminPort } = await container.ports();
    expect(await answerOf(`ws://127.0.0.1:${port}/echo`, 'all the same')).toBe('all the same');
    expect(await container.says(/2 workers, epoll/)).toBe('2 workers, epoll');
    expect(await container.says(/"level":"warn".*"msg":"io_uring: forbidden[^"]*seccomp/)).toContain('seccomp');
    for (const { backend, note } of (await healthOf(adminPort)).workers) {
      expect(backend).toBe('epoll');
      expect(note).toContain('seccomp');
    }
    const metrics = await textOf(`http://127.0.0.1:${adminPort}/metrics`);
    expect(metrics).toMatch(/^ringway_io_backend_info\{[^}]*backend="epoll"[^}]*\} 1$/m);
    expect(await stop(container)).toBe(0);
  });

  const greeting = `
import { Hono } from 'hono';
import { defineGateway } from 'ringway';
import { greet } from './parts/greet.ts';
const app = new Hono();
app.get('/hello', (c) => c.text(greet('mounted')));
// A shell that ends at once leaves a child to whoever is the first process.
app.post('/orphan', async (c) => c.text(await new Response(Bun.spawn(['sh', '-c', 'sleep 0.2 >/dev/null & echo $!']).stdout).text()));
app.get('/processes', async (c) => c.text(await new Response(Bun.spawn(['sh', '-c', 'cat /proc/[0-9]*/stat']).stdout).text()));
app.get('/writable', async (c) => {
  const folders = ['/', '/app', '/opt/ringway', '/tmp', '/usr/local/bin'];
  return c.json(folders.filter((folder) => Bun.spawnSync(['touch', folder + '/file'], { stderr: 'ignore' }).exitCode === 0));
});
export default defineGateway({ fetch: app, drain: { timeout: 30 }, websocket: { '/echo': { message: (socket, message) => void socket.send(message) } } });
`;
  /** A gateway of somebody's own, with a file and a package beside it. */
  const ownFiles = {
    'gateway.config.ts': greeting,
    'parts/greet.ts': `import { shout } from 'shout';\nexport const greet = (who: string) => shout('hello from ' + who);\n`,
    'node_modules/shout/package.json': '{ "name": "shout", "version": "1.0.0", "type": "module", "main": "index.js" }',
    'node_modules/shout/index.js': 'export const shout = (text) => text.toUpperCase();\n',
  };

  test('runs a folder that is mounted, with its own modules and packages', async () => {
    const container = image.run({ env: anyPorts, volumes: { '/app': write('own', ownFiles) } });
    const { port } = await container.ports();
    expect(await textOf(`http://127.0.0.1:${port}/hello`)).toBe('HELLO FROM MOUNTED');
    expect(await stop(container)).toBe(0);
  });

  test('is where a machine without Linux develops: ringway dev serves a mounted folder, and what is changed in it', async () => {
    const app = write('dev', { ...ownFiles });
    const container = image.run({ env: anyPorts, command: [...image.config.Entrypoint, 'dev'], volumes: { '/app': app } });
    const { port } = await container.ports();
    const hello = `http://127.0.0.1:${port}/hello`;
    expect(await textOf(hello)).toBe('HELLO FROM MOUNTED');
    write('dev', { 'gateway.config.ts': greeting.replace("'mounted'", "'changed'") });
    await eventually('the change is served', async () => (await textOf(hello).catch(() => '')) === 'HELLO FROM CHANGED');
    process.kill(await container.entrypoint(), 'SIGINT');
    expect(await container.exited).toBe(0);
  });

  test('runs a single config that is mounted over the example', async () => {
    const config = `
import { Hono } from 'hono';
import { cors } from 'hono/cors';
import { defineGateway } from 'ringway';
export default defineGateway({ fetch: new Hono().use(cors()).get('/hello', (c) => c.text('one file')) });`;
    const file = join(write('single', { 'mine.ts': config }), 'mine.ts');
    const container = image.run({ env: anyPorts, volumes: { '/app/gateway.config.ts': file } });
    const { port } = await container.ports();
    const response = await fetch(`http://127.0.0.1:${port}/hello`);
    expect([await response.text(), response.headers.get('access-control-allow-origin')]).toEqual(['one file', '*']);
    expect(await stop(container)).toBe(0);
  });

  test('refuses a wrong config with exit code 78, and other commands run too', async () => {
    const wrong = write('wrong', { 'gateway.config.ts': `export default { workers: 'two' };` });
    const volumes = { '/app': wrong };
    const refused = await image.output([...image.config.Entrypoint, 'start'], { volumes });
    expect(refused.out).toContain('workers: is "two"; write \'auto\' or an integer from 1 to 256');
    expect(refused.code).toBe(78);
    expect((await image.output([...image.config.Entrypoint, 'check'])).code).toBe(0);
  });

  describe('as the first process of a container, without capabilities, its root file system read-only', () => {
    test('serves, waits for orphans, drains on SIGTERM and ends with 0', async () => {
      const container = image.runAsEngine({ env: anyPorts, volumes: { '/app': write('engine', ownFiles) } });
      const { port } = await container.ports();
      const url = `http://127.0.0.1:${port}`;
      expect(await textOf(`${url}/hello`)).toBe('HELLO FROM MOUNTED');
      const pid = await container.entrypoint();
      expect(readFileSync(`/proc/${pid}/status`, 'utf8')).toMatch(/^NSpid:\t\d+\t1$/m);
      expect(readFileSync(`/proc/${pid}/status`, 'utf8')).toMatch(/^CapBnd:\t0+$/m);

      const orphans = await Promise.all(
        Array.from({ length: 10 }, async () => Number(await (await fetch(`${url}/orphan`, { method: 'POST' })).text())),
      );
      expect(new Set(orphans).size).toBe(10);
      await eventually('no orphan is left, not even as a zombie', async () => {
        const pids = [...(await textOf(`${url}/processes`)).matchAll(/^(\d+) \(/gm)].map(([, each]) => Number(each));
        expect(pids).toContain(1);
        return !orphans.some((orphan) => pids.includes(orphan));
      });

      expect(await (await fetch(`${url}/writable`)).json()).toEqual(['/tmp']);
      const socket = new WebSocket(`${url.replace('http', 'ws')}/echo`);
      const closed = new Promise<number>((resolve) => {
        socket.onclose = ({ code }) => resolve(code);
      });
      await new Promise((resolve) => {
        socket.onopen = resolve;
      });
      expect(await stop(container)).toBe(0);
      expect(await closed).toBe(1001);
    });
  });

  test('two of them are joined by REDIS_URL', async () => {
    const redis = await startRedis();
    try {
      const nodes = [1, 2].map(() => image.run({ env: { ...anyPorts, REDIS_URL: redis.url } }));
      const ports = await Promise.all(nodes.map((node) => node.ports()));
      const [speaker, listener] = await Promise.all(ports.map(({ port }) => openSocket(`ws://127.0.0.1:${port}/room/joined`)));
      if (speaker === undefined || listener === undefined) throw new Error('there are two');
      // A room is there on the other node once its interest is known in Redis: until then nobody is owed anything.
      let said = 0;
      await eventually('the other node hears it', () => {
        if (listener.received.length === 0) speaker.socket.send(`message ${said++}`);
        return listener.received.length > 0;
      });
      speaker.socket.send('the last');
      // Each hears it by its own node.
      await eventually('all has come', () => [speaker, listener].every(({ received }) => received.includes('the last')));
      expect(listener.received).toEqual(speaker.received.slice(-listener.received.length));
      speaker.socket.close();
      listener.socket.close();
      for (const node of nodes) expect(await stop(node)).toBe(0);
    } finally {
      await redis.dispose();
    }
  });

  test('two of them serve behind the load balancer of compose.yml, and no request fails when one is stopped', async () => {
    const [first, second] = [image.run({ env: anyPorts }), image.run({ env: anyPorts })];
    const balancer = await Balancer.start(folder, (await first.ports()).port, (await second.ports()).port);
    try {
      const { port } = balancer;
      const status = async (path: string) => (await fetch(`http://127.0.0.1:${port}${path}`, { headers: { connection: 'close' } })).status;
      await eventually('the balancer serves', () =>
        status('/hello').then(
          (code) => code === 200,
          () => false,
        ),
      );
      for (const word of ['one', 'two', 'three', 'four']) expect(await answerOf(`ws://127.0.0.1:${port}/echo`, word)).toBe(word);
      expect(await balancer.health()).toBe(200);

      let isOver = false;
      const ended = stop(first).finally(() => {
        isOver = true;
      });
      for (let after = 0; after < 20; after += isOver ? 1 : 0) expect(await status('/hello')).toBe(200);
      expect(await ended).toBe(0);
      expect(await answerOf(`ws://127.0.0.1:${port}/echo`, 'on the other')).toBe('on the other');
      expect(await stop(second)).toBe(0);
      await eventually('the balancer knows that there is no node left', async () => (await balancer.health()) === 503);
    } finally {
      await balancer.stop();
    }
  });
});

/** HAProxy with docker/haproxy.cfg, but for the addresses. */
class Balancer {
  readonly port: number;
  readonly #healthSocket: string;
  readonly #child: Bun.Subprocess;

  private constructor(port: number, healthSocket: string, child: Bun.Subprocess) {
    this.port = port;
    this.#healthSocket = healthSocket;
    this.#child = child;
  }

  static async start(folder: string, ...nodes: readonly number[]): Promise<Balancer> {
    const healthSocket = join(folder, 'balancer-health.sock');
    const file = join(folder, 'haproxy.cfg');
    // A free port may be taken by another before it is bound here.
    for (let attempt = 0; attempt < 10; attempt++) {
      const port = freePort();
      const changes = {
        'bind :8080': `bind 127.0.0.1:${port}`,
        'bind 127.0.0.1:8404': `bind unix@${healthSocket}`,
        // Its two descriptors for each connection may be more than there are here.
        'maxconn 100000': 'maxconn 100',
      };
      let text = readFileSync(join(root, 'docker/haproxy.cfg'), 'utf8');
      for (const [index, node] of nodes.entries()) Object.assign(changes, { [` node-${index + 1}:8080`]: ` 127.0.0.1:${node}` });
      for (const [from, to] of Object.entries(changes)) {
        expect(text).toContain(from);
        text = text.replace(from, to);
      }
      writeFileSync(file, text);
      const child = Bun.spawn(['haproxy', '-db', '-q', '-f', file], { stdin: 'ignore', stdout: 'ignore', stderr: 'inherit' });
      const balancer = new Balancer(port, healthSocket, child);
      const listens = await eventually('the balancer listens or ends', async () => {
        if (child.exitCode !== null) return 'no';
        return balancer.health().then(
          () => 'yes',
          () => undefined,
        );
      });
      if (listens === 'yes') return balancer;
    }
    throw new Error(`haproxy does not start with ${readFileSync(file, 'utf8')}`);
  }

  async health(): Promise<number> {
    return (await fetch('http://localhost/healthz', { unix: this.#healthSocket })).status;
  }

  async stop(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#child.exited;
  }
}
