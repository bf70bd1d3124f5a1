// The prebuilt cores of the npm package: one for each kind of machine that Bun has for glibc. All are linked with libraries that
// Debian has published for that machine, taken from its archive as they are now, security updates included: apt checks the
// signature of the archive and the checksum of each package. Nothing is installed; they are unpacked into a temporary folder.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { cacheFolder, debianArchive, runOrThrow } from './debian-archive.mjs';

/**
 * Least version of glibc that a prebuilt core may need, which decides where it loads: Debian 12, Ubuntu 22.04, RHEL 9 and later have
 * it. Packing fails when one needs more.
 */
export const glibcLeast = '2.34';

/** Where the static libraries are from: the oldest Debian that is to be served. */
const suite = 'bookworm';
const libraries = ['libssl-dev', 'zlib1g-dev', 'liburing-dev'];

/**
 * @typedef {object} Machine
 * @property {string} arch as Node and Bun call it
 * @property {string} debian as Debian does
 * @property {string} triple prefix of its compiler's tools
 * @property {string} compiler Debian packages with that compiler, where it is a cross compiler
 * @property {string} elf as readelf does
 *
 * @type {Machine[]}
 */
export const machines = [
  {
    arch: 'x64',
    debian: 'amd64',
    triple: 'x86_64-linux-gnu',
    compiler: 'gcc-x86-64-linux-gnu libc6-dev-amd64-cross',
    elf: 'Advanced Micro Devices X86-64',
  },
  { arch: 'arm64', debian: 'arm64', triple: 'aarch64-linux-gnu', compiler: 'gcc-aarch64-linux-gnu libc6-dev-arm64-cross', elf: 'AArch64' },
];

/** @param {Machine} machine @param {string} tool */
function toolOf(machine, tool) {
  const name = `${machine.triple}-${tool}`;
  if (spawnSync(name, ['--version'], { stdio: 'ignore' }).status !== 0)
    throw new Error(`the core for ${machine.arch} takes ${name}: apt-get install -y --no-install-recommends ${machine.compiler}`);
  return name;
}

/**
 * The packages of every machine's static libraries, in the folder `target`. Without network the last ones that were fetched do, and
 * apt says so.
 * @param {string} target
 * @returns {string[]} their file names
 */
function fetchLibraries(target) {
  const cache = cacheFolder('ringway-pack');
  const apt = debianArchive({
    cache,
    sources: [`debian ${suite}`, `debian ${suite}-updates`, `debian-security ${suite}-security`],
    architectures: machines.map(({ debian }) => debian),
    what: 'the static libraries of the prebuilt cores cannot be had from the Debian archive',
  });
  mkdirSync(target);
  const names = machines.flatMap(({ debian }) => libraries.map((name) => `${name}:${debian}`));
  process.stderr.write(apt(target, 'update'));
  const files = [...apt(target, 'download', '--print-uris', ...names).matchAll(/^'[^']+' (\S+\.deb) \d+ SHA\d+:/gm)].map(
    ([, file = '']) => file,
  );
  if (files.length !== names.length) throw new Error(`apt-get names ${files.length} packages instead of ${names.length}`);
  for (const file of files) if (existsSync(join(cache, 'packages', file))) copyFileSync(join(cache, 'packages', file), join(target, file));
  // Fetches what is not there, or is not what the lists say it should be, by checksum.
  process.stderr.write(apt(target, 'download', ...names));
  for (const file of files) copyFileSync(join(target, file), join(cache, 'packages', file));
  return files;
}

/** The functions of the ABI. @param {string} root */
function exportedFunctions(root) {
  const header = readFileSync(join(root, 'ffi/include/ringway.h'), 'utf8');
  return [...header.matchAll(/^RW_EXPORT [^(]*?(rw_\w+)\(/gm)].map(([, name = '']) => name).sort();
}

/**
 * A core that a package may carry: for that machine, with every function of the ABI and nothing else, needing nothing but a C library
 * that is old enough. Throws with what is wrong.
 * @param {Machine} machine @param {string} path @param {string[]} functions
 */
function inspect(machine, path, functions) {
  const readelf = toolOf(machine, 'readelf');
  const said = runOrThrow('inspecting a core', readelf, ['--wide', '--file-header', '--dynamic', '--dyn-syms', path]);
  const refuse = (/** @type {string} */ what) => {
    throw new Error(`the core for ${machine.arch} ${what}`);
  };
  const elf = /^ *Machine: +(.+)$/m.exec(said)?.[1];
  if (elf !== machine.elf) refuse(`is for another machine: ${elf}`);
  const needed = [...said.matchAll(/\(NEEDED\) +Shared library: \[(.+)\]/g)].map(([, name = '']) => name);
  const extra = needed.filter((name) => !/^(?:libc\.so\.6|ld-linux-.*)$/.test(name));
  if (extra.length > 0) refuse(`needs libraries that may not be installed: ${extra.join(', ')}`);
  const symbols = [...said.matchAll(/^ *\d+: \w+ +\d+ \w+ +(?:GLOBAL|WEAK) +DEFAULT +(\w+) ([\w.]+)(?:@+GLIBC_([\d.]+))?/gm)];
  const defined = symbols.filter(([, section]) => section !== 'UND').map(([, , name = '']) => name);
  if (defined.sort().join() !== functions.join()) refuse(`exports ${defined.join(', ')}`);
  const versions = symbols.flatMap(([, , , version]) => (version === undefined ? [] : [version]));
  const newer = versions.filter((version) => version.localeCompare(glibcLeast, 'en', { numeric: true }) > 0);
  if (newer.length > 0) refuse(`needs glibc ${newer.join(', ')}, not ${glibcLeast} at most: pack on Debian 12`);
}

/**
 * Compile a core for each machine, into `target`/linux-ARCH-glibc/, with the licences of what is linked into them.
 * @param {string} root @param {string} target
 */
export function packCores(root, target) {
  const work = mkdtempSync(join(tmpdir(), 'ringway-cores-'));
  try {
    const packages = fetchLibraries(join(work, 'packages'));
    const functions = exportedFunctions(root);
    rmSync(target, { recursive: true, force: true });
    for (const machine of machines) {
      const tree = join(work, machine.debian);
      for (const file of packages.filter((name) => name.endsWith(`_${machine.debian}.deb`)))
        runOrThrow(`unpacking ${file}`, 'dpkg-deb', ['--extract', join(work, 'packages', file), tree]);
      const usr = join(tree, 'usr');
      const include = join(usr, 'include');
      const compiler = `${toolOf(machine, 'gcc')} -isystem ${include} -isystem ${join(include, machine.triple)} -L${join(usr, 'lib', machine.triple)}`;
      const build = join(work, `build-${machine.arch}`);
      const jobs = String(availableParallelism?.() ?? cpus().length);
      runOrThrow(`compiling the core for ${machine.arch}`, 'make', [
        '--silent',
        '-C',
        join(root, 'ffi'),
        '-j',
        jobs,
        `CC=${compiler}`,
        `BUILD=${build}`,
        'build',
      ]);
      const folder = join(target, `linux-${machine.arch}-glibc`);
      mkdirSync(folder, { recursive: true });
      const path = join(folder, 'libringway.so');
      // Names of functions stay, for profilers.
      runOrThrow('stripping a core', toolOf(machine, 'strip'), ['--strip-debug', '-o', path, join(build, 'libringway.so')]);
      inspect(machine, path, functions);
      const bytes = readFileSync(path);
      console.error(`${path}: ${bytes.length} bytes, sha256 ${createHash('sha256').update(bytes).digest('hex')}`);
    }
    writeFileSync(join(target, 'LICENSES.txt'), licences(join(work, machines[0]?.debian ?? ''), packages));
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

/** What the licences of the linked libraries ask to be handed on. @param {string} tree @param {string[]} packages */
function licences(tree, packages) {
  const texts = libraries.map(
    (name) => `${'='.repeat(80)}\n${name}\n\n${readFileSync(join(tree, 'usr/share/doc', name, 'copyright'), 'utf8')}`,
  );
  return [
    'The libringway.so beside this file contain OpenSSL, zlib and liburing (under its MIT licence), unchanged, as Debian has built them:\n',
    ...[...packages].sort().map((file) => `  ${decodeURIComponent(file)}\n`),
    '\nWhat Debian says of their copyright and licences follows, then the Apache License.\n\n',
    ...texts,
    `${'='.repeat(80)}\n${readFileSync('/usr/share/common-licenses/Apache-2.0', 'utf8')}`,
  ].join('');
}
