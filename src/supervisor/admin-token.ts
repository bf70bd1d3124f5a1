/**
 * The token that requests which change something must show to the admin listener: the config's, or a random one that lies in a file
 * which only this user can read, so that commands of the same user on the same machine need not be told.
 *
 * Role: written by the supervisor, read by the command line (cli/admin-client.ts).
 */
import { createHash, randomBytes } from 'node:crypto';
import { lstatSync, mkdirSync, readFileSync, realpathSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';

type Environment = Readonly<Record<string, string | undefined>>;

const groupAndOthers = 0o077;

/** The folder of this user's tokens. */
function tokenFolder(env: Environment, uid: number): string {
  const runtime = env.XDG_RUNTIME_DIR?.trim();
  return runtime ? join(runtime, 'ringway') : join(tmpdir(), `ringway-${uid}`);
}

/** Where the admin listener is, as far as it names the token's file. `host`: as it is bound. */
export type AdminPlace = { readonly host: string; readonly port: number } | { readonly path: string };

/** Named by what clients know too: address and port, or the path of the socket. */
function tokenFileName(place: AdminPlace): string {
  if ('port' in place) return `admin-${place.host.replaceAll('/', '_')}-${place.port}.token`;
  return `admin-${createHash('sha256').update(settledPath(place.path)).digest('hex').slice(0, 16)}.token`;
}

/** However a socket is written, it has one name: not relative, and its folder without links. */
function settledPath(path: string): string {
  const absolute = resolve(path);
  return join(attempt(() => realpathSync(dirname(absolute))) ?? dirname(absolute), basename(absolute));
}

export interface KeptToken {
  readonly token: string;
  /** Programs that clean folders for temporary files take away what is old: call this now and then. Never throws. */
  refresh(): void;
  /** Remove the file, when it is still ours. Never throws: what stays is a token that opens nothing. */
  remove(): void;
}

/**
 * Make a token and keep it in a file for `readToken`. Replaces what a killed gateway left.
 * Throws when the folder cannot be made, or is not this user's alone.
 */
export function keepToken(place: AdminPlace, env: Environment = process.env): KeptToken {
  const uid = process.getuid?.() ?? 0;
  const folder = tokenFolder(env, uid);
  const token = randomBytes(24).toString('base64url');
  const path = join(folder, tokenFileName(place));
  const write = () => {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    const problem = folderProblem(folder, uid);
    if (problem !== '') throw new Error(problem);
    // Renamed into place, so that nobody reads half of it, and nothing that stood there decides on its mode.
    const fresh = `${path}.${process.pid}`;
    rmSync(fresh, { force: true });
    writeFileSync(fresh, token, { mode: 0o600, flag: 'wx' });
    renameSync(fresh, path);
  };
  const written = () => attempt(() => readFileSync(path, 'utf8'));
  write();
  return {
    token,
    refresh() {
      const found = written();
      // One that another gateway has put there is its own to look after.
      if (found === undefined || found === token) attempt(write);
    },
    remove() {
      if (written() === token) attempt(() => rmSync(path));
    },
  };
}

/** ret: undefined when it throws */
function attempt<Result>(work: () => Result): Result | undefined {
  try {
    return work();
  } catch {
    return undefined;
  }
}

export interface FoundToken {
  readonly token: string;
  readonly place: AdminPlace;
}

/**
 * `places`: where a gateway of this user on this machine may be.
 * ret: undefined: there is no token that could be trusted; of several the newest, since a gateway that was killed leaves its own behind
 */
export function readToken(places: readonly AdminPlace[], env: Environment = process.env): FoundToken | undefined {
  const uid = process.getuid?.() ?? 0;
  const folder = tokenFolder(env, uid);
  if (attempt(() => folderProblem(folder, uid)) !== '') return undefined;
  let newest: (FoundToken & { readonly at: number }) | undefined;
  for (const place of places) {
    const path = join(folder, tokenFileName(place));
    const found = attempt(() => ({ token: readFileSync(path, 'utf8'), at: lstatSync(path).mtimeMs, place }));
    if (found !== undefined && (newest === undefined || found.at > newest.at)) newest = found;
  }
  return newest;
}

/** ret: '': none. Under /tmp another user may have made the folder first, to read what we put there, or to have us send our token elsewhere. */
function folderProblem(folder: string, uid: number): string {
  const status = lstatSync(folder);
  if (!status.isDirectory()) return `${folder} is not a folder`;
  if (status.uid !== uid) return `${folder} belongs to another user`;
  return (status.mode & groupAndOthers) === 0 ? '' : `${folder} is open to other users (chmod 700 it)`;
}
