import { afterEach, beforeEach, describe, expect, test } from 'bun:test';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { type AdminPlace, keepToken, readToken } from '../../../src/supervisor/admin-token.ts';

let folder: string;
let env: { XDG_RUNTIME_DIR: string };
const place = { host: '127.0.0.1', port: 9100 };

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'ringway-token-'));
  env = { XDG_RUNTIME_DIR: folder };
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const tokenAt = (at: AdminPlace) => readToken([at], env)?.token;
const own = () => join(folder, 'ringway');
const file = () => join(own(), 'admin-127.0.0.1-9100.token');

describe('the token of the admin listener', () => {
  test('is long, new each time, and readable by this user alone', () => {
    const first = keepToken(place, env);
    expect(first.token).toMatch(/^[\w-]{32}$/);
    expect([statSync(own()).mode & 0o777, statSync(file()).mode & 0o777]).toEqual([0o700, 0o600]);
    expect(tokenAt(place)).toBe(first.token);
    const second = keepToken(place, env);
    expect(second.token).not.toBe(first.token);
    expect(tokenAt(place)).toBe(second.token);
    expect(readdirSync(own())).toEqual(['admin-127.0.0.1-9100.token']);
  });

  test('goes with the gateway, but one that another has put there stays', () => {
    const kept = keepToken(place, env);
    const later = keepToken(place, env);
    kept.remove();
    expect(tokenAt(place)).toBe(later.token);
    later.remove();
    expect(existsSync(file())).toBe(false);
    later.remove();
  });

  test('each address has its own', () => {
    const [one, two] = [keepToken({ path: '/run/a.sock' }, env), keepToken({ path: '/run/b.sock' }, env)];
    expect([tokenAt({ path: '/run/a.sock' }), tokenAt({ path: '/run/b.sock' })]).toEqual([one.token, two.token]);
    expect(tokenAt(place)).toBeUndefined();
    const other = keepToken({ host: '::1', port: 9100 }, env);
    const { token } = keepToken(place, env);
    expect([tokenAt({ host: '::1', port: 9100 }), tokenAt(place)]).toEqual([other.token, token]);
  });

  test('of several that a client may mean the newest counts: a killed gateway leaves its own', () => {
    const everywhere = { host: '0.0.0.0', port: 9100 };
    keepToken(place, env);
    utimesSync(file(), 1000, 1000);
    const { token } = keepToken(everywhere, env);
    expect(readToken([place, everywhere, { host: '::', port: 9100 }], env)).toMatchObject({ token, place: everywhere });
    expect(readToken([], env)).toBeUndefined();
  });

  test('a socket has one, however its path is written', () => {
    mkdirSync(join(folder, 'run'));
    symlinkSync(join(folder, 'run'), join(folder, 'var-run'));
    const { token } = keepToken({ path: join(folder, 'run/admin.sock') }, env);
    for (const path of [join(folder, 'var-run/admin.sock'), join(folder, 'run/../run/admin.sock')]) expect(tokenAt({ path })).toBe(token);
    const below = relative(process.cwd(), join(folder, 'run/admin.sock'));
    expect(tokenAt({ path: below })).toBe(token);
  });

  test('what a cleaner has taken away comes back; what another gateway has put there stays', () => {
    const kept = keepToken(place, env);
    utimesSync(file(), 1000, 1000);
    kept.refresh();
    expect(statSync(file()).mtimeMs).toBeGreaterThan(1_000_000);
    rmSync(own(), { recursive: true });
    kept.refresh();
    expect([tokenAt(place), statSync(own()).mode & 0o777]).toEqual([kept.token, 0o700]);
    const later = keepToken(place, env);
    kept.refresh();
    expect(tokenAt(place)).toBe(later.token);
    rmSync(own(), { recursive: true });
    mkdirSync(own(), { mode: 0o755 });
    kept.refresh();
    expect(readdirSync(own())).toEqual([]);
  });

  test('a folder that is gone, or no folder any more, does not keep a gateway from stopping', () => {
    const kept = keepToken(place, env);
    rmSync(own(), { recursive: true });
    kept.remove();
    writeFileSync(own(), '');
    kept.remove();
    expect(existsSync(own())).toBe(true);
  });

  test('a folder that cannot be made is told of', () => {
    writeFileSync(own(), '');
    expect(() => keepToken(place, env)).toThrow();
    expect(tokenAt(place)).toBeUndefined();
    expect(() => keepToken(place, { XDG_RUNTIME_DIR: join(own(), 'below') })).toThrow();
  });

  test('a folder that others may look into is neither written to nor believed', () => {
    mkdirSync(own());
    chmodSync(own(), 0o755);
    expect(() => keepToken(place, env)).toThrow(`${own()} is open to other users (chmod 700 it)`);
    writeFileSync(file(), 'planted');
    expect(tokenAt(place)).toBeUndefined();
  });

  test('neither is a link to a folder', () => {
    const elsewhere = join(folder, 'elsewhere');
    mkdirSync(elsewhere, { mode: 0o700 });
    symlinkSync(elsewhere, own());
    expect(() => keepToken(place, env)).toThrow(`${own()} is not a folder`);
    expect(tokenAt(place)).toBeUndefined();
  });

  test('a file that stood there with another mode is replaced', () => {
    mkdirSync(own(), { mode: 0o700 });
    writeFileSync(file(), 'old', { mode: 0o666 });
    const { token } = keepToken(place, env);
    expect([readFileSync(file(), 'utf8'), statSync(file()).mode & 0o777]).toEqual([token, 0o600]);
  });
});
