/**
 * The token that requests which change something must show to the admin listener: the config's, or a random one that lies in a file
 * which only this user can read, so that commands of the same user on the same machine need not be told.
 *
 * Role: written by the supervisor, read by the command line (cli/admin-client.ts).
 */
import { createHash, randomBytes } from 'node:crypto';
import { lstatSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { AdminAddress } from '../config/resolve.ts';
import { errorCode } from '../operating-error.ts';

type Environment = Readonly<Record<string, string | undefined>>;

const groupAndOthers = 0o077;

/** The folder of this user's tokens. */
function tokenFolder(env: Environment, uid: number): string {
  const runtime = env.XDG_RUNTIME_DIR?.trim();
  return runtime ? join(runtime, 'ringway') : join(tmpdir(), `ringway-${uid}`);
}

/** Named by what clients know too: the port, or the path of the socket. */
function tokenFileName(address: AdminPlace): string {
  return 'port' in address
    ? `admin-${address.port}.token`
    : `admin-${createHash('sha256').update(address.path).digest('hex').slice(0, 16)}.token`;
}

/** Where the admin listener is, as far as it names the token's file. */
export type AdminPlace = { readonly port: number } | { readonly path: string };

export function placeOf(address: AdminAddress, port: number): AdminPlace {
  return address.kind === 'unix' ? { path: address.path } : { port };
}

export interface KeptToken {
  readonly token: string;
  /** Remove the file, when it is still ours. */
  remove(): void;
}

/**
 * Make a token and keep it in a file for `readToken`. Replaces what a killed gateway left.
 * Throws when the folder cannot be made, or is not this user's alone.
 */
export function keepToken(place: AdminPlace, env: Environment = process.env): KeptToken {
  const uid = process.getuid?.() ?? 0;
  const folder = tokenFolder(env, uid);
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const problem = folderProblem(folder, uid);
  if (problem !== undefined) throw new Error(problem);
  const token = randomBytes(24).toString('base64url');
  const path = join(folder, tokenFileName(place));
  // Renamed into place, so that nobody reads half of it, and nothing that stood there decides on its mode.
  const fresh = `${path}.${process.pid}`;
  rmSync(fresh, { force: true });
  writeFileSync(fresh, token, { mode: 0o600, flag: 'wx' });
  renameSync(fresh, path);
  return {
    token,
    remove() {
      try {
        if (readFileSync(path, 'utf8') === token) rmSync(path);
      } catch (error) {
        if (errorCode(error) !== 'ENOENT') throw error;
      }
    },
  };
}

/** ret: the token of a gateway of this user on this machine; undefined: there is none that could be trusted */
export function readToken(place: AdminPlace, env: Environment = process.env): string | undefined {
  const uid = process.getuid?.() ?? 0;
  const folder = tokenFolder(env, uid);
  try {
    if (folderProblem(folder, uid) !== undefined) return undefined;
    return readFileSync(join(folder, tokenFileName(place)), 'utf8');
  } catch {
    return undefined;
  }
}

/** Under /tmp another user may have made the folder first, to read what we put there, or to have us send our token elsewhere. */
function folderProblem(folder: string, uid: number): string | undefined {
  const status = lstatSync(folder);
  if (!status.isDirectory()) return `${folder} is not a folder`;
  if (status.uid !== uid) return `${folder} belongs to another user`;
  return (status.mode & groupAndOthers) === 0 ? undefined : `${folder} is open to other users (chmod 700 it)`;
}
