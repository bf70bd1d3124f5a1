// Debian packages: what is needed for what, what is missing here, and how it gets installed.
// Each need is probed by the command or file it is for, not asked of dpkg: that takes microseconds, and holds on a system that has
// the same from elsewhere.
import { spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** What Debian calls this machine's kind in clang's directories. */
const clangArch = process.arch === 'arm64' ? 'aarch64' : 'x86_64';

/** Signs what the Debian archive has. */
export const debianKeyring = '/usr/share/keyrings/debian-archive-keyring.gpg';

/** The compiler for the other kind of machine that the npm package has a core for. */
const crossCompiler =
  process.arch === 'arm64'
    ? { triple: 'x86_64-linux-gnu', gcc: 'gcc-x86-64-linux-gnu', libc: 'libc6-dev-amd64-cross' }
    : { triple: 'aarch64-linux-gnu', gcc: 'gcc-aarch64-linux-gnu', libc: 'libc6-dev-arm64-cross' };

/**
 * What compiling the core takes; the npm package has this list too.
 * @type {{why: string, program?: string, file?: string, debian: string[]}[]}
 */
const buildNeeds = JSON.parse(readFileSync(new URL('../ffi/build-needs.json', import.meta.url), 'utf8'));

/**
 * @typedef {'start' | 'check' | 'test' | 'image' | 'pack'} Purpose what is about to be done
 * @type {{name: string, why: string, from: Purpose, present: () => boolean}[]}
 */
const packages = [
  ...buildNeeds.flatMap(({ debian, why, program, file }) =>
    debian.map((name) => ({
      name,
      why,
      from: /** @type {const} */ ('start'),
      present: () => (file ? existsSync(file) : onPath(program ?? name)),
    })),
  ),
  { name: 'libcmocka-dev', why: 'unit tests of the C core', from: 'check', present: () => existsSync('/usr/include/cmocka.h') },
  { name: 'clang-19', why: 'fuzzing of the C core', from: 'check', present: () => onPath('clang-19') },
  { name: 'clang-format-19', why: 'the format of the C sources', from: 'check', present: () => onPath('clang-format-19') },
  {
    name: 'libclang-rt-19-dev',
    why: 'libFuzzer and its sanitizers',
    from: 'check',
    present: () => existsSync(`/usr/lib/llvm-19/lib/clang/19/lib/linux/libclang_rt.fuzzer-${clangArch}.a`),
  },
  { name: 'curl', why: 'a client of the end-to-end tests', from: 'test', present: () => onPath('curl') },
  { name: 'redis-server', why: 'a bus between nodes, for the end-to-end tests', from: 'test', present: () => onPath('redis-server') },
  { name: 'chromium', why: 'a browser for the end-to-end tests', from: 'test', present: () => onPath('chromium') },
  { name: 'gnutls-bin', why: 'a client of TLS for the end-to-end tests', from: 'test', present: () => onPath('gnutls-cli') },
  { name: 'libnss3-tools', why: 'another one', from: 'test', present: () => onPath('tstclnt') },
  { name: 'libwolfssl-dev', why: 'another one', from: 'test', present: () => existsSync('/usr/include/wolfssl/ssl.h') },
  { name: 'libmbedtls-dev', why: 'another one', from: 'test', present: () => existsSync('/usr/include/mbedtls/ssl.h') },
  { name: 'stunnel4', why: 'another one', from: 'test', present: () => onPath('stunnel4') },
  { name: 'strace', why: 'counts system calls in the end-to-end tests', from: 'test', present: () => onPath('strace') },
  { name: 'haproxy', why: 'a load balancer for the end-to-end tests', from: 'test', present: () => onPath('haproxy') },
  { name: 'nginx-light', why: 'a proxy for the end-to-end tests', from: 'test', present: () => onPath('nginx') },
  { name: 'caddy', why: 'another one', from: 'test', present: () => onPath('caddy') },
  { name: 'apache2-bin', why: 'another one', from: 'test', present: () => onPath('apache2') },
  { name: 'zsh', why: 'a shell that completes ringway', from: 'test', present: () => onPath('zsh') },
  { name: 'fish', why: 'another one', from: 'test', present: () => onPath('fish') },
  { name: 'buildah', why: 'builds the container image', from: 'image', present: () => onPath('buildah') },
  { name: 'debootstrap', why: 'a Debian to build the image on', from: 'image', present: () => onPath('debootstrap') },
  { name: crossCompiler.gcc, why: 'cores of the npm package', from: 'pack', present: () => onPath(`${crossCompiler.triple}-gcc`) },
  {
    name: crossCompiler.libc,
    why: 'headers of the C library for those',
    from: 'pack',
    present: () => existsSync(`/usr/${crossCompiler.triple}/include/stdio.h`),
  },
  { name: 'debian-archive-keyring', why: 'libraries for those', from: 'pack', present: () => existsSync(debianKeyring) },
  { name: 'qemu-user-static', why: 'tries the core for arm64', from: 'test', present: () => onPath('qemu-aarch64-static') },
  { name: 'systemd', why: 'checks the systemd unit', from: 'test', present: () => onPath('systemd-analyze') },
];

/** For each purpose, those whose packages it needs. @type {Readonly<Record<Purpose, readonly Purpose[]>>} */
const needed = {
  start: ['start'],
  check: ['start', 'check'],
  image: ['image'],
  pack: ['start', 'pack'],
  test: ['start', 'check', 'test', 'image', 'pack'],
};

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
  return packages.filter((entry) => needed[purpose].includes(entry.from) && !entry.present());
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
