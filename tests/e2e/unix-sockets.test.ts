/** Who may connect to a Unix socket of the gateway: mode and group of its file, from the first moment and after a reload. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test';
import { chmodSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eventually } from '../support/eventually.ts';
import { type Gateway, startGateway } from '../support/gateway.ts';

// Only ends a test that has failed: nothing here is measured in time.
setDefaultTimeout(60_000);

const isRoot = process.getuid?.() === 0;
/** A group that this process may give files to, and is not its own where it may choose. */
const group = isRoot ? 65534 : (process.getgid?.() ?? 0);

let folder: string;
let gateway: Gateway;
const paths = () => ({ open: join(folder, 'open.sock'), shared: join(folder, 'shared.sock'), admin: join(folder, 'admin.sock') });
const seen = (path: string) => {
  const { mode, gid } = statSync(path);
  return [(mode & 0o777).toString(8), gid];
};

const config = (sharedMode: string) => `
  import { defineGateway } from 'ringway';
  export default defineGateway({
    $OPTIONS,
    fetch: () => new Response('ok ${sharedMode}'),
  });
`;
const options = (sharedMode: string) => ({
  listen: `[{ port: 0, host: '127.0.0.1' }, { unix: '${paths().open}', mode: 0o666 }, { unix: '${paths().shared}', group: ${group}${sharedMode} }]`,
  admin: `{ unix: '${paths().admin}', group: ${group} }`,
});

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'ringway-socket-'));
  chmodSync(folder, 0o755);
  gateway = await startGateway({ config: config(''), ...options('') });
});
afterAll(async () => {
  await gateway?.stop();
  rmSync(folder, { recursive: true, force: true });
});

test('a socket file has the mode and the group that the config says; with a group alone, the group may connect', () => {
  expect(seen(paths().open)).toEqual(['666', statSync(folder).gid]);
  expect(seen(paths().shared)).toEqual(['660', group]);
  expect(seen(paths().admin)).toEqual(['660', group]);
});

test('all of them serve', async () => {
  for (const path of [paths().open, paths().shared]) expect(await (await fetch('http://any/', { unix: path })).text()).toBe('ok ');
  expect((await fetch('http://any/readyz', { unix: paths().admin })).status).toBe(200);
});

test.skipIf(!isRoot || Bun.which('setpriv') === null || Bun.which('curl') === null)(
  'another user may connect where the file lets it, and nowhere else',
  async () => {
    const asNobody = async (path: string, gid: number) => {
      const child = Bun.spawn(
        ['setpriv', '--reuid=65533', `--regid=${gid}`, '--clear-groups', 'curl', '-s', '-m', '20', '--unix-socket', path, 'http://any/'],
        { stdout: 'pipe' },
      );
      return await new Response(child.stdout).text();
    };
    expect(await asNobody(paths().open, 65533)).toBe('ok ');
    expect(await asNobody(paths().shared, group)).toBe('ok ');
    expect(await asNobody(paths().shared, 65533)).toBe('');
  },
);

test('a reload applies another mode to the same socket', async () => {
  const before = statSync(paths().shared).ino;
  const { listen, admin } = options(', mode: 0o600');
  const text = config('again').replace('$OPTIONS', `listen: ${listen}, admin: ${admin}, workers: 1, affinity: false`);
  writeFileSync(join(gateway.folder, 'gateway.config.ts'), text);
  gateway.kill('SIGHUP');
  await eventually('the new config serves', async () => (await (await fetch('http://any/', { unix: paths().open })).text()) === 'ok again');
  await eventually('the mode is that of the new config', () => seen(paths().shared)[0] === '600');
  expect(statSync(paths().shared).ino).toBe(before);
});

test('a group that is not there ends the start with what to write', async () => {
  const failed = await startGateway({ config: config(''), listen: `{ unix: '${join(folder, 'x.sock')}', group: 'no-such-group' }` }).then(
    () => '',
    (error) => String(error),
  );
  expect(failed).toContain('listen.group: there is no group "no-such-group" on this machine');
});
