/**
 * TLS with clients of other makers, over two workers: each comes back with its sessions, and is resumed every time that it may be.
 * A client that this machine lacks is skipped, and the name of its test says so.
 */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Authority, createAuthority } from '../support/certificates.ts';
import { eventually } from '../support/eventually.ts';
import { forEachBackend, type Gateway, startGateway } from '../support/gateway.ts';

// Only ends a test that has failed. A first `go run` compiles Go's library.
setDefaultTimeout(300_000);

const clients = join(import.meta.dir, 'tls-clients');
const requestText = 'GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n';
let authority: Authority;
let folder: string;

beforeAll(() => {
  authority = createAuthority();
  folder = mkdtempSync(join(tmpdir(), 'ringway-interop-'));
  writeFileSync(join(folder, 'request'), requestText);
});
afterAll(() => {
  authority?.dispose();
  rmSync(folder, { recursive: true, force: true });
});

async function run(command: readonly string[], input = ''): Promise<string> {
  const child = Bun.spawn([...command], { stdin: Buffer.from(input), stdout: 'pipe', stderr: 'pipe', cwd: folder });
  const [out, err, code] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text(), child.exited]);
  if (code !== 0) throw new Error(`${command.join(' ')} ended with ${code}: ${out}${err}`);
  return out;
}

/** Compiled for this run. */
async function runC(name: string, libraries: readonly string[], port: number): Promise<void> {
  const program = join(mkdtempSync(join(folder, 'c-')), name);
  await run(['cc', '-O1', join(clients, `${name}.c`), '-o', program, ...libraries.map((library) => `-l${library}`)]);
  await run([program, String(port), authority.file]);
}

interface Client {
  readonly name: string;
  /** What it needs: a program, or the path of a file. */
  readonly needs: string;
  /** Sessions that it resumes. */
  readonly resumed: number;
  connect(port: number): Promise<unknown>;
}

const clientList: readonly Client[] = [
  {
    name: 'GnuTLS',
    needs: 'gnutls-cli',
    resumed: 2,
    async connect(port) {
      for (const priority of ['NORMAL:-VERS-ALL:+VERS-TLS1.2', 'NORMAL:-VERS-ALL:+VERS-TLS1.3']) {
        const command = [
          'gnutls-cli',
          '--x509cafile',
          authority.file,
          '--priority',
          priority,
          '--resume',
          '--port',
          String(port),
          'localhost',
        ];
        expect(await run(command, requestText)).toContain('HTTP/1.1 200 OK');
      }
    },
  },
  {
    name: 'NSS',
    needs: 'tstclnt',
    resumed: 10,
    async connect(port) {
      const database = `sql:${mkdtempSync(join(folder, 'nss-'))}`;
      await run(['certutil', '-N', '-d', database, '--empty-password']);
      await run(['certutil', '-A', '-d', database, '-n', 'authority', '-t', 'C,,', '-i', authority.file]);
      for (const version of ['tls1.2', 'tls1.3']) {
        const where = ['-4', '-h', '127.0.0.1', '-a', 'localhost', '-p', String(port), '-d', database];
        // -u: tickets; -L: so many connections
        expect(await run(['tstclnt', ...where, '-u', '-L', '6', '-A', 'request', '-V', `${version}:${version}`])).toContain(
          'HTTP/1.1 200 OK',
        );
      }
    },
  },
  {
    name: 'stunnel',
    needs: 'stunnel4',
    resumed: 9,
    async connect(port) {
      // A port that was free a moment ago.
      const probe = Bun.listen({ hostname: '127.0.0.1', port: 0, socket: { data() {} } });
      const own = probe.port;
      probe.stop(true);
      const lines = ['foreground = yes', 'pid =', '[out]', 'client = yes', `accept = 127.0.0.1:${own}`, `connect = 127.0.0.1:${port}`];
      writeFileSync(
        join(folder, 'stunnel.conf'),
        [...lines, `CAfile = ${authority.file}`, 'verifyChain = yes', 'sni = localhost', ''].join('\n'),
      );
      const child = Bun.spawn(['stunnel4', 'stunnel.conf'], { stdin: 'ignore', stdout: 'ignore', stderr: 'ignore', cwd: folder });
      try {
        const get = () =>
          fetch(`http://127.0.0.1:${own}/`, { headers: { connection: 'close', host: 'localhost' } }).then((response) => response.status);
        await eventually('stunnel listens', () => get().catch(() => undefined));
        for (let i = 1; i < 10; i++) expect(await get()).toBe(200);
      } finally {
        child.kill();
        await child.exited;
      }
    },
  },
  {
    name: 'Go',
    needs: 'go',
    resumed: 38,
    connect: (port) => run(['go', 'run', join(clients, 'resume.go'), String(port), authority.file]),
  },
  {
    name: 'Java',
    needs: 'javac',
    resumed: 38,
    connect: (port) => run(['java', join(clients, 'Resume.java'), String(port), authority.file]),
  },
  { name: 'wolfSSL', needs: '/usr/include/wolfssl/ssl.h', resumed: 38, connect: (port) => runC('wolfssl', ['wolfssl'], port) },
  {
    name: 'mbedTLS',
    needs: '/usr/include/mbedtls/ssl.h',
    resumed: 19,
    connect: (port) => runC('mbedtls', ['mbedtls', 'mbedx509', 'mbedcrypto'], port),
  },
];

forEachBackend('TLS with others', (backend) => {
  let gateway: Gateway;
  beforeAll(async () => {
    const { cert, key } = authority.issue('localhost', 'DNS:localhost,IP:127.0.0.1');
    const listen = "[{ port: 0, host: '127.0.0.1', tls: { cert: 'cert.pem', key: 'key.pem' } }]";
    const config =
      "import { defineGateway } from 'ringway';\nexport default defineGateway({ $OPTIONS, fetch: () => new Response('ok') });\n";
    gateway = await startGateway({ backend, config, listen, files: { 'cert.pem': cert, 'key.pem': key }, workers: 2 });
  });
  afterAll(() => gateway?.stop());

  for (const { name, needs, resumed, connect } of clientList) {
    const isHere = needs.startsWith('/') ? existsSync(needs) : Bun.which(needs) !== null;
    test.skipIf(!isHere)(`${name} is served and resumed${isHere ? '' : `: skipped, there is no ${needs}`}`, async () => {
      const resumptions = () => gateway.metric('ringway_tls_resumptions_total');
      const before = await resumptions();
      await connect(gateway.port);
      // stunnel may try more than once until it listens.
      await eventually('it was resumed', async () => (await resumptions()) - before >= resumed);
      expect(await gateway.metric('ringway_tls_errors_total')).toBe(0);
    });
  }
});
