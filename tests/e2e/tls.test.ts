import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test';
import { renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { connect, type TLSSocket } from 'node:tls';
import { type Authority, type Certificate, createAuthority } from '../support/certificates.ts';
import { eventually } from '../support/eventually.ts';
import { type Backend, forEachBackend, type Gateway, startGateway } from '../support/gateway.ts';
import { RawClient } from '../support/raw-client.ts';

// Only ends a test that has failed: nothing here is measured in time.
setDefaultTimeout(120_000);

const root = join(import.meta.dir, '..', '..');
let authority: Authority;
let localhost: Certificate;
let other: Certificate;
let wild: Certificate;

beforeAll(() => {
  authority = createAuthority();
  localhost = authority.issue('localhost', 'DNS:localhost,IP:127.0.0.1', { passphrase: 'of the key' });
  other = authority.issue('exact.test', 'DNS:exact.test');
  wild = authority.issue('wild.test', 'DNS:*.wild.test');
});
afterAll(() => authority?.dispose());

const config = `
import { defineGateway, getTlsInfo } from 'ringway';
const told = (tls) => tls && [tls.protocol, tls.servername ?? null, tls.authorized, tls.peerCertificate?.subject ?? null];
export default defineGateway({
  $OPTIONS,
  fetch: async (request, env) => {
    const { pathname } = new URL(request.url);
    if (pathname === '/pid') return new Response(String(process.pid));
    if (pathname === '/client') return Response.json([told(env.tls()), told(getTlsInfo({ env }))]);
    if (pathname === '/echo') return new Response(await request.arrayBuffer());
    return new Response(request.url);
  },
  websocket: {
    '/echo': { message: (socket, message) => void socket.send(message) },
    '/client': {
      upgrade: (_, client) => ({ at: told(client.tls), address: client.remoteAddress }),
      open: (socket) => void socket.send(JSON.stringify([socket.data, told(socket.tls)])),
    },
    '/mine': { origins: 'same-host', open: (socket) => void socket.send(String(process.pid)) },
  },
});
`;

const listen = (more = '', reloadInterval = 0) => `[
  { port: 0, host: '127.0.0.1', tls: { cert: 'localhost.pem', key: 'localhost.key', passphrase: 'of the key', reloadInterval: ${reloadInterval}, serverNames: {
    'exact.test': { cert: 'other.pem', key: 'other.key' }, '*.wild.test': { cert: 'wild.pem', key: 'wild.key', minVersion: 'TLSv1.3' },
  }${more} } },
  { port: 0, host: '127.0.0.1' },
]`;

const filesOf = (certificates: Readonly<Record<string, Certificate>>) =>
  Object.fromEntries(
    Object.entries(certificates).flatMap(([name, { cert, key }]) => [[`${name}.pem`, cert] as const, [`${name}.key`, key] as const]),
  );

function start(backend: Backend, more = '', workers = 1, reloadInterval = 0): Promise<Gateway> {
  const files = { ...filesOf({ localhost, other, wild }), 'ca.pem': authority.cert };
  return startGateway({ backend, config, listen: listen(more, reloadInterval), files, workers });
}

async function run(...command: string[]): Promise<{ out: string; err: string; code: number }> {
  const child = Bun.spawn(command, { stdin: 'ignore', stdout: 'pipe', stderr: 'pipe', cwd: root });
  const [out, err, code] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text(), child.exited]);
  return { out, err, code };
}
const curl = (...args: string[]) => run('curl', '--silent', '--show-error', '--max-time', '30', '--cacert', authority.file, ...args);
const sClient = async (port: number, ...args: string[]) => {
  const { out, err } = await run('openssl', 's_client', '-connect', `127.0.0.1:${port}`, '-CAfile', authority.file, ...args);
  return out + err;
};
async function underNode(what: string, port: number): Promise<unknown> {
  const { out, err, code } = await run('node', join(import.meta.dir, 'tls-clients', 'node.mjs'), what, String(port), authority.file);
  if (code !== 0) throw new Error(`${what} ended with ${code}: ${err}`);
  return JSON.parse(out);
}
/** The second listener of a gateway. */
async function plainPort(gateway: Gateway): Promise<number> {
  const banner = await eventually('both addresses are named', () => /listening on http:\/\/127\.0\.0\.1:(\d+)/.exec(gateway.output()));
  return Number(banner[1]);
}

/** The common name of the certificate that a new connection is shown. */
async function subjectShown(port: number, servername = 'localhost'): Promise<string> {
  const socket = connect({ port, host: '127.0.0.1', servername, rejectUnauthorized: false });
  await new Promise<void>((resolve, reject) => socket.once('secureConnect', resolve).once('error', reject));
  const { CN } = socket.getPeerCertificate().subject;
  socket.destroy();
  return String(CN);
}

/** A kept connection that asks for the path of its last response again and again. */
class KeptClient {
  readonly socket: TLSSocket;
  #text = '';
  constructor(port: number) {
    this.socket = connect({ port, host: '127.0.0.1', servername: 'localhost', ca: authority.cert });
    this.socket.on('data', (data: Buffer) => {
      this.#text += data.toString('latin1');
    });
    this.socket.on('error', () => {});
  }
  async get(path: string): Promise<string> {
    this.#text = '';
    this.socket.write(`GET ${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`);
    const whole = /^HTTP\/1\.1 200 OK\r\n[\s\S]*?content-length: (\d+)[\s\S]*?\r\n\r\n([\s\S]*)$/i;
    return eventually(`an answer to ${path}`, () => {
      if (this.socket.destroyed) throw new Error('the connection has ended');
      const found = whole.exec(this.#text);
      return found !== null && found[2]?.length === Number(found[1]) ? found[2] : undefined;
    });
  }
}

async function openSocket(url: string): Promise<WebSocket> {
  const socket = new WebSocket(url, { tls: { ca: authority.cert } } as unknown as string[]);
  await new Promise((resolve, reject) => {
    socket.onopen = resolve;
    socket.onerror = reject;
  });
  return socket;
}
const echoOf = (socket: WebSocket, text: string) =>
  new Promise<unknown>((resolve, reject) => {
    socket.onmessage = ({ data }) => resolve(data);
    socket.onclose = ({ code }) => reject(new Error(`closed with ${code}`));
    socket.send(text);
  });

forEachBackend('TLS', (backend) => {
  let gateway: Gateway;
  beforeAll(async () => {
    gateway = await start(backend, '', 2);
  });
  afterAll(() => gateway?.stop());

  test('the banner names the scheme of each address', async () => {
    expect(gateway.output()).toContain(`listening on https://127.0.0.1:${gateway.port}`);
    expect(await plainPort(gateway)).toBeGreaterThan(0);
  });

  test('curl speaks both versions, and handlers see https', async () => {
    const url = `https://localhost:${gateway.port}/a?b`;
    for (const [version, ...args] of [
      ['1.2', '--tlsv1.2', '--tls-max', '1.2'],
      ['1.3', '--tlsv1.3'],
    ] as const) {
      const { out, err } = await curl('--resolve', `localhost:${gateway.port}:127.0.0.1`, '--verbose', ...args, url);
      expect([version, out]).toEqual([version, url]);
      expect(err).toContain(`TLSv${version}`);
      expect(err).toMatch(/ALPN:? server accepted (to use )?http\/1\.1/);
    }
  });

  test('versions before 1.2 are refused, and the handshake says so', async () => {
    const said = await sClient(gateway.port, '-tls1_1', '-cipher', 'ALL:@SECLEVEL=0');
    expect(said).toMatch(/alert protocol version|unsupported protocol|no protocols available/);
    expect(said).not.toContain('CONNECTION ESTABLISHED');
  });

  test('of the protocols that a client offers http/1.1 is chosen; one that speaks none of ours is told so', async () => {
    expect(await sClient(gateway.port, '-alpn', 'h2,http/1.1')).toContain('ALPN protocol: http/1.1');
    expect(await sClient(gateway.port, '-alpn', 'h2')).toMatch(/alert no application protocol/);
  });

  test("Node's https: bodies of every size come back on kept connections", async () => {
    expect(await underNode('https', gateway.port)).toEqual({ same: true });
  });

  test('ws under Node: every length of message comes back, and the close is clean', async () => {
    expect(await underNode('ws', gateway.port)).toEqual({ wrong: [], code: 1000 });
  });

  test("Bun's fetch and WebSocket", async () => {
    const tls = { ca: authority.cert };
    const body = 'x'.repeat(300_000);
    const response = await fetch(`https://localhost:${gateway.port}/echo`, { method: 'POST', body, tls });
    expect((await response.text()) === body).toBe(true);
    const socket = await openSocket(`wss://localhost:${gateway.port}/echo`);
    expect(await echoOf(socket, 'over TLS')).toBe('over TLS');
    socket.close();
  });

  test('a session is resumed, on the worker that gave it and on the other', async () => {
    expect(await underNode('resume', gateway.port)).toEqual({
      v12: { other: true, all: true, protocol: 'TLSv1.2' },
      v13: { other: true, all: true, protocol: 'TLSv1.3' },
      // With TLS 1.3 each of them brings a ticket for the next.
      once: { resumed: 19 },
    });
    expect(await gateway.metric('ringway_tls_resumptions_total')).toBeGreaterThan(1);
  });

  test('a client is shown the certificate of the name it asks for', async () => {
    const shown: Record<string, string> = {};
    for (const name of ['localhost', 'exact.test', 'EXACT.test', 'a.wild.test', 'a.b.wild.test', 'wild.test', 'unknown.test'])
      shown[name] = await subjectShown(gateway.port, name);
    expect(shown).toEqual({
      localhost: 'localhost',
      'exact.test': 'exact.test',
      'EXACT.test': 'exact.test',
      'a.wild.test': 'wild.test',
      // RFC 6125 §6.4.3: a wildcard stands for one label
      'a.b.wild.test': 'localhost',
      'wild.test': 'localhost',
      'unknown.test': 'localhost',
    });
  });

  test('a name may ask for a later version than the others', async () => {
    expect(await sClient(gateway.port, '-servername', 'a.wild.test', '-tls1_2')).toMatch(/alert protocol version|unsupported protocol/);
    expect(await sClient(gateway.port, '-servername', 'a.wild.test', '-tls1_3')).toContain('Verify return code: 0 (ok)');
  });

  test('plain HTTP to a TLS port is told so, and counted', async () => {
    const before = await gateway.metric('ringway_tls_plain_requests_total');
    const client = await RawClient.connect({ port: gateway.port });
    client.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
    const { status, text } = await client.response();
    expect(status).toBe(400);
    expect(text).toContain('https');
    await client.closed();
    await eventually('it is counted', async () => (await gateway.metric('ringway_tls_plain_requests_total')) === before + 1);
  });

  test('TLS to a plain port, and noise to a TLS port, harm nobody', async () => {
    expect(await sClient(await plainPort(gateway))).toMatch(/wrong version number|unexpected eof|packet length too long/);
    for (const noise of ['\x16\x03\x01\xff\xff', '\x00'.repeat(4096), '\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00', 'x']) {
      const client = await RawClient.connect({ port: gateway.port });
      client.write(noise);
      client.end();
      await client.closed();
    }
    expect((await curl(`https://127.0.0.1:${gateway.port}/still`)).out).toEndWith('/still');
  });

  test('a page of the same host may open a WebSocket over TLS', async () => {
    const open = (origin: string) =>
      new Promise<boolean>((resolve) => {
        const options = { headers: { origin }, tls: { ca: authority.cert } };
        const socket = new WebSocket(`wss://localhost:${gateway.port}/mine`, options as unknown as string[]);
        socket.onopen = () => resolve(true);
        socket.onerror = () => resolve(false);
      });
    expect(await open(`https://localhost:${gateway.port}`)).toBe(true);
    expect(await open('https://evil.test')).toBe(false);
  });

  test('the admin listener says nothing of files and passphrases', async () => {
    for (const path of ['/healthz', '/readyz', '/metrics']) {
      const text = await (await fetch(gateway.adminUrl + path)).text();
      expect(text).not.toMatch(/\.pem|\.key|of the key/);
    }
    expect(gateway.output()).not.toContain('of the key');
  });
});

forEachBackend('client certificates', (backend) => {
  let gateway: Gateway;
  let stranger: Authority;
  beforeAll(async () => {
    stranger = createAuthority('Stranger');
    gateway = await start(backend, ", ca: 'ca.pem'");
  });
  afterAll(async () => {
    await gateway?.stop();
    stranger?.dispose();
  });

  test('who shows one of the authority is served, all others are refused in the handshake', async () => {
    const url = `https://127.0.0.1:${gateway.port}/in`;
    const known = authority.filesOf(authority.issue('client', 'DNS:client.test'));
    expect((await curl('--cert', known.cert, '--key', known.key, url)).out).toBe(url);
    const unknown = stranger.filesOf(stranger.issue('client', 'DNS:client.test'));
    // A name without a `ca` of its own is as its address.
    const named = `https://exact.test:${gateway.port}/in`;
    const there = ['--resolve', `exact.test:${gateway.port}:127.0.0.1`];
    expect((await curl(...there, '--cert', known.cert, '--key', known.key, named)).out).toBe(named);
    for (const args of [[], ['--cert', unknown.cert, '--key', unknown.key]]) {
      for (const target of [[url], [...there, named]]) {
        const { out, code } = await curl(...args, ...target);
        expect([out, code === 0]).toEqual(['', false]);
      }
    }
  });
});

forEachBackend('client certificates that are optional', (backend) => {
  let gateway: Gateway;
  let stranger: Authority;
  beforeAll(async () => {
    stranger = createAuthority('Stranger');
    gateway = await start(backend, ", ca: 'ca.pem', clientCertificate: 'optional'");
  });
  afterAll(async () => {
    await gateway?.stop();
    stranger?.dispose();
  });

  /** What handlers are told of a request and of a WebSocket. */
  async function told(name: string, shown: Certificate | undefined): Promise<unknown> {
    const tls = { ca: authority.cert, ...shown, serverName: name, checkServerIdentity: () => undefined };
    const files = shown === undefined ? undefined : authority.filesOf(shown);
    const there = ['--resolve', `${name}:${gateway.port}:127.0.0.1`];
    const { out } = await curl(
      ...there,
      ...(files ? ['--cert', files.cert, '--key', files.key] : []),
      `https://${name}:${gateway.port}/client`,
    );
    const options = { headers: { host: `${name}:${gateway.port}` }, tls };
    const socket = new WebSocket(
      `wss://${name === 'localhost' ? name : '127.0.0.1'}:${gateway.port}/client`,
      options as unknown as string[],
    );
    const first = new Promise<unknown>((resolve, reject) => {
      socket.onmessage = ({ data }) => resolve(JSON.parse(String(data)));
      socket.onclose = ({ code, reason }) => reject(new Error(`closed with ${code} ${reason}`));
    });
    const message = await first;
    socket.close();
    return { request: JSON.parse(out), socket: message };
  }

  test('handlers know the server name and the certificate, of requests, handshakes and sockets', async () => {
    const known = authority.issue('device 7', 'DNS:client.test');
    const none = ['TLSv1.3', 'localhost', false, null];
    expect(await told('localhost', undefined)).toEqual({ request: [none, none], socket: [{ at: none, address: '127.0.0.1' }, none] });
    const shown = ['TLSv1.3', 'localhost', true, 'CN=device 7'];
    expect(await told('localhost', known)).toEqual({ request: [shown, shown], socket: [{ at: shown, address: '127.0.0.1' }, shown] });
    const there = `127.0.0.1:${await plainPort(gateway)}`;
    expect(await (await fetch(`http://${there}/client`)).text()).toBe('[null,null]');
  });

  test('TLS 1.2, a resumed session, and a client that asks for no name', async () => {
    const { cert, key } = authority.issue('device 8', 'DNS:client.test');
    const ask = (more: object) =>
      new Promise<{ text: string; reused: boolean; session: Buffer | undefined }>((resolve, reject) => {
        let session: Buffer | undefined;
        let text = '';
        const socket = connect({ port: gateway.port, host: '127.0.0.1', ca: authority.cert, cert, key, ...more });
        socket.once('secureConnect', () => socket.write('GET /client HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n'));
        socket.on('session', (ticket: Buffer) => {
          session = ticket;
        });
        let reused = false;
        socket.on('data', (data: Buffer) => {
          reused = socket.isSessionReused();
          text += data.toString('latin1');
        });
        socket.on('error', reject).on('close', () => resolve({ text: text.split('\r\n\r\n')[1] ?? '', reused, session }));
      });
    const nameless = await ask({ maxVersion: 'TLSv1.2' });
    expect(JSON.parse(nameless.text)[0]).toEqual(['TLSv1.2', null, true, 'CN=device 8']);
    const again = await ask({ maxVersion: 'TLSv1.2', session: nameless.session, servername: 'localhost' });
    expect(again.reused).toBe(true);
    expect(JSON.parse(again.text)[0]).toEqual(['TLSv1.2', 'localhost', true, 'CN=device 8']);
  });

  test('a certificate of another authority is refused, though one is not needed', async () => {
    const unknown = stranger.filesOf(stranger.issue('client', 'DNS:client.test'));
    const { out, code } = await curl('--cert', unknown.cert, '--key', unknown.key, `https://127.0.0.1:${gateway.port}/client`);
    expect([out, code === 0]).toEqual(['', false]);
  });
});

forEachBackend('a name that asks for client certificates', (backend) => {
  test('is not served on a connection that asked for another name: 421', async () => {
    const listenPrivate = listen().replace("'exact.test': {", "'exact.test': { ca: 'ca.pem',");
    const files = { ...filesOf({ localhost, other, wild }), 'ca.pem': authority.cert };
    const gateway = await startGateway({ backend, config, listen: listenPrivate, files, workers: 2 });
    try {
      const url = `https://localhost:${gateway.port}/in`;
      const there = ['--resolve', `localhost:${gateway.port}:127.0.0.1`, '--output', '/dev/null', '--write-out', '%{http_code}'];
      expect((await curl(...there, url)).out).toBe('200');
      expect((await curl(...there, '--header', 'Host: exact.test', url)).out).toBe('421');
      const upgrade = [
        'Connection: Upgrade',
        'Upgrade: websocket',
        'Sec-WebSocket-Version: 13',
        'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
      ];
      expect(
        (
          await curl(
            ...there,
            ...['Host: exact.test', ...upgrade].flatMap((line) => ['--header', line]),
            '--http1.1',
            `${url.slice(0, -2)}echo`,
          )
        ).out,
      ).toBe('421');
    } finally {
      await gateway.stop();
    }
  });
});

forEachBackend('certificates that change', (backend) => {
  let gateway: Gateway;
  let renewed: Certificate;
  beforeAll(() => {
    renewed = authority.issue('renewed', 'DNS:localhost,IP:127.0.0.1');
  });
  afterAll(() => gateway?.stop());

  function replace(name: string, { cert, key }: Certificate): void {
    for (const [file, text] of [
      [`${name}.pem`, cert],
      [`${name}.key`, key],
    ] as const) {
      writeFileSync(join(gateway.folder, `${file}.new`), text);
      renameSync(join(gateway.folder, `${file}.new`), join(gateway.folder, file));
    }
  }

  test('are loaded by themselves; sockets and kept connections stay, requests go on', async () => {
    gateway = await start(backend, '', 2, 0.05);
    expect(await subjectShown(gateway.port)).toBe('localhost');
    const sockets = await Promise.all(Array.from({ length: 8 }, () => openSocket(`wss://localhost:${gateway.port}/echo`)));
    const kept = Array.from({ length: 4 }, () => new KeptClient(gateway.port));
    const pids = await Promise.all(kept.map((client) => client.get('/pid')));
    let stop = false;
    const traffic = kept.map(async (client, index) => {
      let requests = 0;
      for (; !stop; requests++) if ((await client.get('/pid')) !== pids[index]) throw new Error('another worker answers');
      return requests;
    });

    replace('localhost', renewed);
    await eventually('the new one is shown', async () => (await subjectShown(gateway.port)) === 'renewed');
    await eventually('both workers show it', async () => {
      const shown = await Promise.all(Array.from({ length: 16 }, () => subjectShown(gateway.port)));
      return shown.every((subject) => subject === 'renewed');
    });
    expect(await subjectShown(gateway.port, 'exact.test')).toBe('exact.test');
    stop = true;
    expect(Math.min(...(await Promise.all(traffic)))).toBeGreaterThan(0);
    for (const socket of sockets) {
      expect(await echoOf(socket, 'still here')).toBe('still here');
      socket.close();
    }
    for (const { socket } of kept) socket.destroy();
  });

  test('that are of no use change nothing, for any name, and the log says why', async () => {
    writeFileSync(join(gateway.folder, 'other.pem'), localhost.cert);
    replace('localhost', authority.issue('too-early', 'DNS:localhost'));
    await eventually('it is said', () => gateway.output().includes("listen[0].tls.serverNames['exact.test'].key"));
    expect(gateway.output()).toContain('stay as they are');
    expect([await subjectShown(gateway.port), await subjectShown(gateway.port, 'exact.test')]).toEqual(['renewed', 'exact.test']);
    replace('other', other);
    await eventually('put right, they are taken', async () => (await subjectShown(gateway.port)) === 'too-early');
    gateway.kill('SIGTERM');
    expect(await gateway.exited).toBe(0);
    await gateway.stop();
  });

  test('are loaded by a reload too, which changes nothing when one is of no use', async () => {
    gateway = await start(backend, '', 2);
    const reloads = (outcome: string) => gateway.metric('ringway_reloads_total', { outcome });
    writeFileSync(join(gateway.folder, 'other.pem'), localhost.cert);
    replace('localhost', renewed);
    gateway.kill('SIGHUP');
    await eventually('it is refused', async () => (await reloads('wrong_config')) === 1);
    expect(gateway.output()).toContain("listen[0].tls.serverNames['exact.test'].key");
    expect([await subjectShown(gateway.port), await subjectShown(gateway.port, 'exact.test')]).toEqual(['localhost', 'exact.test']);
    replace('other', other);
    gateway.kill('SIGHUP');
    await eventually('it is done', async () => (await reloads('reloaded')) === 1);
    // The old workers accept for a moment more, so that nobody is refused.
    await eventually('every worker shows the new one', async () => {
      const shown = await Promise.all(Array.from({ length: 16 }, () => subjectShown(gateway.port)));
      return shown.every((subject) => subject === 'renewed');
    });
  });
});

forEachBackend('two certificates for a name', (backend) => {
  test('a client takes the one that it can use', async () => {
    const rsa = authority.issue('rsa', 'DNS:localhost', { kind: 'rsa' });
    const files = filesOf({ ec: other, rsa });
    const both = `[{ port: 0, host: '127.0.0.1', tls: { cert: ['ec.pem', 'rsa.pem'], key: ['ec.key', 'rsa.key'] } }]`;
    const gateway = await startGateway({ backend, config, listen: both, files, workers: 2 });
    try {
      const shown = async (sigalgs: string) =>
        /subject=.*CN ?= ?(\S+)/.exec(await sClient(gateway.port, '-tls1_3', '-sigalgs', sigalgs))?.[1];
      expect(await shown('ecdsa_secp256r1_sha256')).toBe('exact.test');
      expect(await shown('rsa_pss_rsae_sha256')).toBe('rsa');
    } finally {
      await gateway.stop();
    }
  });
});

describe('a certificate that cannot be used', () => {
  test('stops the start with 78 and is named with its path, as ringway check does', async () => {
    const files = filesOf({ localhost, other: { cert: other.cert, key: wild.key }, wild });
    await expect(startGateway({ config, listen: listen(), files })).rejects.toThrow(
      /ended with 78:[\s\S]*listen\[0\]\.tls\.serverNames\['exact\.test'\]\.key: the TLS key .*does not match/,
    );
  });
});

test('a handshake that never goes on does not keep a worker from draining', async () => {
  const files = filesOf({ localhost, other, wild });
  const impatient = config.replace('$OPTIONS', 'http: { headTimeout: 0.2 }, $OPTIONS');
  const gateway = await startGateway({ config: impatient, listen: listen(), files });
  const client = await RawClient.connect({ port: gateway.port });
  client.write('\x16\x03\x01');
  gateway.kill('SIGTERM');
  expect(await gateway.exited).toBe(0);
  await client.closed();
  await gateway.stop();
});
