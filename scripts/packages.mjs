// Debian packages: what is needed for what, what is missing here, and how it gets installed.
// Each need is probed by the command or file it is for, not asked of dpkg: that takes microseconds, and holds on a system that has
// the same from elsewhere.
import { spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync } from 'node:fs';
import { join } from 'node:path';

/** What Debian calls this machine's kind in clang's directories. */
const clangArch = process.arch === 'arm64' ? 'aarch64' : 'x86_64';

/**
 * @typedef {'start' | 'check' | 'test'} Purpose what is about to be done; each needs all that the one before it needs
 * @type {{name: string, why: string, from: Purpose, present: () => boolean}[]}
 */
const packages = [
  { name: 'gcc', why: 'compiles the C core', from: 'start', present: () => onPath('gcc') },
  { name: 'libc6-dev', why: 'headers of the C library', from: 'start', present: () => existsSync('/usr/include/stdio.h') },
  { name: 'make', why: 'builds the C core', from: 'start', present: () => onPath('make') },
  { name: 'liburing-dev', why: 'io_uring, linked statically', from: 'start', present: () => existsSync('/usr/include/liburing.h') },
  { name: 'libssl-dev', why: 'TLS, linked statically', from: 'start', present: () => existsSync('/usr/include/openssl/ssl.h') },
  { name: 'zlib1g-dev', why: 'compression, linked statically', from: 'start', present: () => existsSync('/usr/include/zlib.h') },
  { name: 'libcmocka-dev', why: 'unit tests of the C core', from: 'check', present: () => existsSync('/usr/include/cmocka.h') },
  { name: 'clang-19', why: 'fuzzing of the C core', from: 'check', present: () => onPath('clang-19') },
  {
    name: 'libclang-rt-19-dev',
    why: 'libFuzzer and its sanitizers',
    from: 'check',
    present: () => existsSync(`/usr/lib/llvm-19/lib/clang/19/lib/linux/libclang_rt.fuzzer-${clangArch}.a`),
  },
  { name: 'curl', why: 'a client of the end-to-end tests', from: 'test', present: () => onPath('curl') },
  { name: 'redis-server', why: 'a bus between nodes, for the end-to-end tests', from: 'test', present: () => onPath('redis-server') },
  { name: 'chromium', why: 'a browser for the end-to-end tests', from: 'test', present: () => onPath('chromium') },
];

/** @type {Purpose[]} */
const purposes = ['start', 'check', 'test'];

/** @param {string} command */
function onPath(command) {
  return (process.env.PATH ?? '').split(':').some((folder) => {
    try {
      accessSync(join(folder, command), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/** @param {Purpose} purpose */
export function missingPackages(purpose) {
  const level = purposes.indexOf(purpose);
  return packages.filter((entry) => purposes.indexOf(entry.from) <= level && !entry.present());
}

/**
 * The words that put a command under root's rights, or nothing when there is no way that asks nobody for a password.
 * @returns {string[] | undefined}
 */
function rootPrefix() {
  if (!onPath('apt-get')) return undefined;
  const environment = ['env', 'DEBIAN_FRONTEND=noninteractive'];
  if (process.getuid?.() === 0) return environment;
  if (onPath('sudo') && spawnSync('sudo', ['-n', 'true'], { stdio: 'ignore' }).status === 0) return ['sudo', '-n', ...environment];
  return undefined;
}

/**
 * Name what is missing, then install it, or say what to install.
 * @param {Purpose} purpose
 * @returns {boolean} whether all is there now
 */
export function ensurePackages(purpose) {
  const missing = missingPackages(purpose);
  if (missing.length === 0) return true;

  const names = missing.map((entry) => entry.name);
  const list = missing.map((entry) => `  ${entry.name.padEnd(20)}${entry.why}`).join('\n');
  const prefix = rootPrefix();
  if (prefix === undefined) {
    console.error(`Ringway needs these Debian packages, and may not install them here:\n${list}\n`);
    console.error(
      `Install them as root, then try again:\n  apt-get update && apt-get install -y --no-install-recommends ${names.join(' ')}`,
    );
    return false;
  }

  console.error(`Installing these Debian packages with apt-get:\n${list}`);
  /** @param {string[]} words */
  const aptGet = (...words) => {
    // Somebody else's apt-get may hold the lock: unattended upgrades do on a machine just started.
    const [command = '', ...rest] = [...prefix, 'apt-get', '-q', '-o', 'DPkg::Lock::Timeout=300', ...words];
    // What apt-get prints goes to stderr: stdout belongs to the gateway.
    return spawnSync(command, rest, { stdio: ['ignore', 2, 2] }).status === 0;
  };
  const install = ['install', '-y', '--no-install-recommends', ...names];
  // A fresh system has no package lists, an old one has stale lists that name files gone from the mirror.
  const known = spawnSync('apt-get', ['-s', '-qq', ...install], { stdio: 'ignore' }).status === 0;
  const installed = (known && aptGet(...install)) || (aptGet('update') && aptGet(...install));
  const left = missingPackages(purpose);
  if (installed && left.length === 0) return true;
  console.error(
    `apt-get did not bring ${(left.length > 0 ? left : missing).map((entry) => entry.name).join(', ')}: its messages are above.`,
  );
  return false;
}
