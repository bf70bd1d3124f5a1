import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'bun:test';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { adminClient } from '../../../src/cli/admin-client.ts';
import { UsageError } from '../../../src/cli/arguments.ts';
import { OperatingError } from '../../../src/operating-error.ts';
import { keepToken } from '../../../src/supervisor/admin-token.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'ringway-client-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));
const env = (more: Record<string, string> = {}) => ({ XDG_RUNTIME_DIR: folder, ...more });
function hasIpv6(): boolean {
  try {
    Bun.listen({ hostname: '::1', port: 0, socket: { data() {} } }).stop(true);
    return true;
  } catch {
    return false;
  }
}
const labelOf = (admin: string | undefined, more: Record<string, string> = {}) => adminClient({ admin }, env(more)).label;

describe('where the admin listener is', () => {
  test('as --admin says', () => {
    expect(
      ['9100', '10.0.0.5:9100', 'http://[::1]:9100/any/path', 'https://gateway.example.com', '/run/a.sock', 'unix:/a', './a'].map((admin) =>
        labelOf(admin),
      ),
    ).toEqual([
      'http://127.0.0.1:9100',
      'http://10.0.0.5:9100',
      'http://[::1]:9100',
      'https://gateway.example.com',
      'unix:/run/a.sock',
      'unix:/a',
      'unix:./a',
    ]);
    for (const admin of ['0', 'http://', 'ftp://a', '1:2:3', 'http://a b', '65536'])
      expect(() => labelOf(admin)).toThrow(
        new UsageError(`--admin is '${admin}'; write a port such as 9100, a URL such as http://127.0.0.1:9100, or the path of a socket`),
      );
  });

  test('else where a gateway with the same environment listens', () => {
    const at = (host: string, port = '') => labelOf(undefined, { ADMIN_HOST: host, ADMIN_PORT: port });
    expect([at(''), at('', '9200'), at('0.0.0.0'), at('::'), at('::1', '1'), at('10.0.0.5')]).toEqual([
      'http://127.0.0.1:9100',
      'http://127.0.0.1:9200',
      'http://127.0.0.1:9100',
      'http://[::1]:9100',
      'http://[::1]:1',
      'http://10.0.0.5:9100',
    ]);
    for (const port of ['0', '65536', 'x', '-1']) expect(() => at('', port)).toThrow(`env ADMIN_PORT is '${port}'`);
  });
});

describe('what it shows', () => {
  test('the token of this user, at addresses where a gateway of this machine may be, and nowhere else', () => {
    const hasToken = (admin: string) => adminClient({ admin }, env()).hasToken;
    const bound = [
      ['127.0.0.1', { '127.0.0.1': true, localhost: true, '[::1]': false, '10.0.0.5': false, 'example.com': false }],
      ['0.0.0.0', { '127.0.0.1': true, localhost: true, '[::1]': false, '10.0.0.5': false, 'example.com': false }],
      ['::', { '127.0.0.1': true, localhost: true, '[::1]': true, '10.0.0.5': false, 'example.com': false }],
      ['10.0.0.5', { '127.0.0.1': false, localhost: false, '[::1]': false, '10.0.0.5': true, 'example.com': false }],
    ] as const;
    for (const [host, expected] of bound) {
      const kept = keepToken({ host, port: 9100 }, env());
      const found = Object.fromEntries(Object.keys(expected).map((name) => [name, hasToken(`${name}:9100`)]));
      expect([host, found]).toEqual([host, expected]);
      expect(hasToken('127.0.0.1:9101')).toBe(false);
      kept.remove();
    }
  });

  test('what is given goes before what lies there, and must be one', () => {
    expect(adminClient({ token: 'given' }, env()).hasToken).toBe(true);
    expect(adminClient({}, env({ ADMIN_TOKEN: ' of-the-environment ' })).hasToken).toBe(true);
    expect(adminClient({}, env({ ADMIN_TOKEN: ' ' })).hasToken).toBe(false);
    expect(() => adminClient({ token: 'two words' }, env())).toThrow('--token is no token');
    expect(() => adminClient({}, env({ ADMIN_TOKEN: 'a\nb' }))).toThrow('env ADMIN_TOKEN is no token');
  });
});

describe('requests', () => {
  let server: Bun.Server<undefined>;
  beforeAll(() => {
    server = Bun.serve({
      hostname: '127.0.0.1',
      port: 0,
      fetch: (request) =>
        new URL(request.url).pathname === '/moved'
          ? Response.redirect(`http://127.0.0.1:${server.port}/elsewhere`)
          : Response.json({ path: new URL(request.url).pathname, token: request.headers.get('authorization') }),
    });
  });
  afterAll(() => server.stop(true));

  test.skipIf(!hasIpv6())("go to the address whose token is shown, though 'localhost' has others too", async () => {
    const { token } = keepToken({ host: '127.0.0.1', port: server.port ?? 0 }, env());
    const other = Bun.serve({ hostname: '::1', port: server.port ?? 0, fetch: () => new Response('stolen') });
    try {
      const client = adminClient({ admin: `localhost:${server.port}` }, env());
      for (let at = 0; at < 5; at++) expect(await (await client.request('/a')).json()).toEqual({ path: '/a', token: `Bearer ${token}` });
    } finally {
      await other.stop(true);
    }
  });

  test('do not follow to elsewhere', async () => {
    const client = adminClient({ admin: String(server.port), token: 'secret' }, env());
    expect((await client.request('/moved')).status).toBe(302);
  });

  test('nobody there is an operating error', async () => {
    await expect(adminClient({ admin: join(folder, 'no.sock') }, env()).request('/')).rejects.toThrow(OperatingError);
  });
});
