/**
 * Where the C core may lie, and how it is compiled where none of them fits.
 *
 * Role: files and processes, nothing native: bindings.ts tries to load what this finds. Up: bindings.ts, src/cli/build.ts.
 * Down: compile.sh, build-needs.json.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { accessSync, constants, existsSync, mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { availableParallelism, homedir } from 'node:os';
import { delimiter, join } from 'node:path';
import needs from './build-needs.json';

const fileName = 'libringway.so';
const buildFolder = join(import.meta.dir, 'build');
const prebuiltFolder = join(import.meta.dir, '..', 'prebuilt');
/** An image may have left them out. */
const hasSources = () => existsSync(join(import.meta.dir, 'core'));

/** Set in the workers of a node, which a supervisor has started; as in src/process/boot.ts. */
export const workerVariable = 'RINGWAY_WORKER';

/**
 * Files that may be a core for this process, best first: the one that RINGWAY_LIBRARY names, which excludes all others; one compiled
 * here; one that came with the package.
 */
export function* libraryPaths(): Generator<string, void> {
  const given = process.env.RINGWAY_LIBRARY;
  if (given !== undefined) return yield given;
  const compiled = join(buildFolder, fileName);
  if (existsSync(compiled)) yield compiled;
  const root = cacheRoot();
  // Its name takes reading all sources: only where anything was ever compiled into the cache.
  if (root !== undefined && existsSync(root) && hasSources()) {
    const cached = join(cacheFolder(root), fileName);
    if (isOurs(cached)) yield cached;
  }
  const prebuilt = join(prebuiltFolder, `linux-${process.arch}-glibc`, fileName);
  if (existsSync(prebuilt) && !isMusl()) yield prebuilt;
}

/** Is this process one of musl, such as Bun on Alpine? Asked of the process: either C library may be installed beside the other. */
function isMusl(): boolean {
  return /\/ld-musl-/.test(readFileSync('/proc/self/maps', 'latin1'));
}

function cacheRoot(): string | undefined {
  // XDG Base Directory Specification: a relative path is to be ignored.
  const given = process.env.XDG_CACHE_HOME;
  if (given?.startsWith('/')) return join(given, 'ringway');
  const home = homedir();
  return home.startsWith('/') && home !== '/' ? join(home, '.cache', 'ringway') : undefined;
}

/** Where a core is put that cannot be put into the package: named by what it is made from, and for. */
function cacheFolder(root: string): string {
  return join(root, `core-${process.arch}-${isMusl() ? 'musl' : 'glibc'}-${sourceHash()}`);
}

function sourceHash(): string {
  const hash = createHash('sha256');
  for (const folder of ['', 'include', 'core']) {
    const recursive = folder !== '';
    for (const file of readdirSync(join(import.meta.dir, folder), { recursive })
      .map(String)
      .sort()) {
      if (!/\.[ch]$|^Makefile$/.test(file)) continue;
      hash.update(`${file}\0`).update(readFileSync(join(import.meta.dir, folder, file)));
    }
  }
  return hash.digest('hex').slice(0, 16);
}

/** May this file be loaded as code? Not when somebody else could have put it there. */
function isOurs(path: string): boolean {
  const found = statSync(path, { throwIfNoEntry: false });
  return found !== undefined && (found.uid === 0 || found.uid === process.geteuid?.()) && (found.mode & 0o022) === 0;
}

/** Make a folder, unless it is there. ret: whether a core can be put into it */
function canWrite(folder: string, mode: number): boolean {
  try {
    mkdirSync(folder, { recursive: true, mode });
    accessSync(folder, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

/** Where a core that is compiled here goes; undefined: this user may write nowhere. */
function targetFolder(): string | undefined {
  if (canWrite(buildFolder, 0o755)) return buildFolder;
  const root = cacheRoot();
  if (root === undefined) return undefined;
  const folder = cacheFolder(root);
  return canWrite(folder, 0o700) ? folder : undefined;
}

/**
 * Compile the core, into the package or, where that may not be written to, into the user's cache. What it does it says on standard error.
 * Waits for another process that does the same, and then uses what that has made. Blocks for some 10 to 60 s.
 * ret: the library's path. Throws Error, which says what is missing.
 */
export function compileCore(): string {
  if (process.platform !== 'linux') throw new Error(`Ringway runs on Linux only, and this is ${process.platform}`);
  if (!hasSources()) throw new Error(`the C core cannot be compiled: its sources are not in ${import.meta.dir}`);
  const missing = needs.filter((need) => !isThere(need));
  if (missing.length > 0) throw new Error(`to compile the C core, these are missing:\n${packageList(missing)}`);
  const folder = targetFolder();
  if (folder === undefined)
    throw new Error(
      `neither ${buildFolder} nor a cache folder may be written to: run 'ringway build' once as a user who may, or set XDG_CACHE_HOME to a folder for it`,
    );
  const path = join(folder, fileName);
  console.error(`ringway: compiling the C core into ${path}; this is done once and takes less than a minute`);
  const script = join(import.meta.dir, 'compile.sh');
  // Standard output may be a program's own.
  const { status, error } = spawnSync('sh', [script, path, String(availableParallelism())], { stdio: ['ignore', 2, 2] });
  if (status !== 0)
    throw new Error(
      `the C core could not be compiled (${error?.message ?? 'the messages of make are above'}). It takes these packages:\n${packageList(needs)}`,
    );
  return path;
}

type Need = (typeof needs)[number];

function isThere({ program, file }: Need): boolean {
  if (file !== undefined) return existsSync(file);
  return (process.env.PATH ?? '').split(delimiter).some((folder) => {
    try {
      accessSync(join(folder, program ?? ''), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

function packageList(list: readonly Need[]): string {
  const reasons = list.map((need) => `  ${need.program ?? need.file}: ${need.why}`);
  const all = (system: 'debian' | 'alpine') => list.flatMap((need) => need[system]).join(' ');
  return [
    ...reasons,
    'On Debian and Ubuntu, as root:',
    `  apt-get update && apt-get install -y --no-install-recommends ${all('debian')}`,
    'On Alpine, as root:',
    `  apk add ${all('alpine')}`,
  ].join('\n');
}
