// A Debian to build the image on where no registry can be reached: made with debootstrap, and as slim as the one of the registries.
// Kept for a day as a file in the user's cache folder, under its name only once it is whole.
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';

export const suite = 'bookworm';
const mirror = 'http://deb.debian.org';
const suites = [
  [`${mirror}/debian`, suite],
  [`${mirror}/debian`, `${suite}-updates`],
  [`${mirror}/debian-security`, `${suite}-security`],
];
const keptDays = 7;

/** Not under /var/tmp or /tmp, where another user could have put a file of that name. */
const cacheFolder = join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'ringway');

/** What a container never reads. Licenses (`copyright`) stay. */
const slimming = `
set -eu
cd "$1"
printf 'force-unsafe-io\\n' > etc/dpkg/dpkg.cfg.d/unsafe-io
{
  for folder in doc groff info linda lintian locale man; do printf 'path-exclude /usr/share/%s/*\\n' "$folder"; done
  printf 'path-include /usr/share/doc/*/copyright\\n'
} > etc/dpkg/dpkg.cfg.d/slim
find usr/share/doc -type f ! -name copyright -delete
find usr/share/doc -depth -type d -empty -delete
find usr/share/groff usr/share/info usr/share/linda usr/share/lintian usr/share/locale usr/share/man -mindepth 1 -delete 2>/dev/null || true
rm -rf var/lib/apt/lists/* var/cache/apt/* var/cache/debconf/*-old var/log/* tmp/* etc/machine-id etc/hostname
: > etc/resolv.conf
`;

/**
 * Run a program as root of namespaces of its own: what it mounts is gone with it, however it ends. Its output goes to `log`.
 * @param {string} log
 * @param {string[]} command
 */
function runIsolated(log, command) {
  const { status, stdout, stderr, error } = spawnSync('unshare', ['--mount', ...command], { encoding: 'utf8', maxBuffer: 2 ** 26 });
  writeFileSync(log, `${stdout ?? ''}${stderr ?? ''}`, { flag: 'a' });
  if (status === 0) return;
  const last = readFileSync(log, 'utf8').trimEnd().split('\n').slice(-8).join('\n  ');
  throw new Error(`${command[0]} failed${error === undefined ? '' : ` (${error.message})`}; its last lines:\n  ${last}`);
}

/** @param {string} folder an empty one @returns {string} a tar file in it */
function make(folder) {
  const log = join(folder, 'log');
  const tree = join(folder, 'tree');
  runIsolated(log, ['debootstrap', '--variant=minbase', suite, tree, `${mirror}/debian`]);
  writeFileSync(join(tree, 'etc/apt/sources.list'), suites.map(([url, name]) => `deb ${url} ${name} main\n`).join(''));
  runIsolated(log, ['chroot', tree, 'apt-get', '-q', 'update']);
  runIsolated(log, ['chroot', tree, 'env', 'DEBIAN_FRONTEND=noninteractive', 'apt-get', '-q', '-y', 'dist-upgrade']);
  runIsolated(log, ['sh', '-c', slimming, 'sh', tree]);
  const file = join(folder, 'base.tar');
  runIsolated(log, ['tar', '--one-file-system', '--numeric-owner', '-C', tree, '-cf', file, '.']);
  return file;
}

/** Files of past days, and folders that a run which was killed has left. */
function removeOld() {
  const oldest = Date.now() - keptDays * 86_400_000;
  for (const name of readdirSync(cacheFolder)) {
    const path = join(cacheFolder, name);
    if (/^debian-/.test(name) && (statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? Infinity) < oldest)
      rmSync(path, { recursive: true, force: true });
  }
}

/**
 * Needs root, debootstrap and Debian's mirror; takes half a minute when today's is not there yet. Throws an Error that says what failed.
 * @param {(what: string) => void} say
 * @returns {string} a folder with the root file system as base.tar
 */
export function debianBase(say) {
  mkdirSync(cacheFolder, { recursive: true, mode: 0o700 });
  const kept = join(cacheFolder, `debian-${suite}-${process.arch}-${new Date().toISOString().slice(0, 10)}`);
  if (existsSync(kept)) return kept;
  removeOld();
  say(`making a Debian ${suite} with debootstrap`);
  const work = mkdtempSync(join(cacheFolder, 'debian-making-'));
  try {
    const whole = join(work, 'whole');
    mkdirSync(whole);
    renameSync(make(work), join(whole, 'base.tar'));
    chmodSync(whole, 0o700);
    try {
      renameSync(whole, kept);
    } catch (error) {
      // Another run was first.
      if (!existsSync(kept)) throw error;
    }
    return kept;
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}
