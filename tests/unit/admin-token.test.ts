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
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { keepToken, readToken } from '../../src/supervisor/admin-token.ts';

let folder: string;
let env: { XDG_RUNTIME_DIR: string };
const place = { port: 9100 };

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'ringway-token-'));
  env = { XDG_RUNTIME_DIR: folder };
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const own = () => join(folder, 'ringway');
const file = () => join(own(), 'admin-9100.token');

describe('the token of the admin listener', () => {
  test('is long, new each time, and readable by this user alone', () => {
    const first = keepToken(place, env);
    expect(first.token).toMatch(/^[\w-]{32}$/);
    expect([statSync(own()).mode & 0o777, statSync(file()).mode & 0o777]).toEqual([0o700, 0o600]);
    expect(readToken(place, env)).toBe(first.token);
    const second = keepToken(place, env);
    expect(second.token).not.toBe(first.token);
    expect(readToken(place, env)).toBe(second.token);
    expect(readdirSync(own())).toEqual(['admin-9100.token']);
  });

  test('goes with the gateway, but one that another has put there stays', () => {
    const kept = keepToken(place, env);
    const later = keepToken(place, env);
    kept.remove();
    expect(readToken(place, env)).toBe(later.token);
    later.remove();
    expect(existsSync(file())).toBe(false);
    later.remove();
  });

  test('each address has its own', () => {
    const [one, two] = [keepToken({ path: '/run/a.sock' }, env), keepToken({ path: '/run/b.sock' }, env)];
    expect([readToken({ path: '/run/a.sock' }, env), readToken({ path: '/run/b.sock' }, env)]).toEqual([one.token, two.token]);
    expect(readToken(place, env)).toBeUndefined();
  });

  test('a folder that others may look into is neither written to nor believed', () => {
    mkdirSync(own());
    chmodSync(own(), 0o755);
    expect(() => keepToken(place, env)).toThrow(`${own()} is open to other users (chmod 700 it)`);
    writeFileSync(file(), 'planted');
    expect(readToken(place, env)).toBeUndefined();
  });

  test('neither is a link to a folder', () => {
    const elsewhere = join(folder, 'elsewhere');
    mkdirSync(elsewhere, { mode: 0o700 });
    symlinkSync(elsewhere, own());
    expect(() => keepToken(place, env)).toThrow(`${own()} is not a folder`);
    expect(readToken(place, env)).toBeUndefined();
  });

  test('a file that stood there with another mode is replaced', () => {
    mkdirSync(own(), { mode: 0o700 });
    writeFileSync(file(), 'old', { mode: 0o666 });
    const { token } = keepToken(place, env);
    expect([readFileSync(file(), 'utf8'), statSync(file()).mode & 0o777]).toEqual([token, 0o600]);
  });
});
