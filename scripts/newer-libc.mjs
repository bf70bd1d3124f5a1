// The C library of a newer Debian in a folder of its own, for the contract suite alone: recent builds of uWebSockets.js need glibc 2.38, and
// Node runs on it by that library's own loader. Nothing of it is installed.
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { cacheFolder, debianArchive, runOrThrow } from './debian-archive.mjs';

const suite = 'trixie';
const packages = ['libc6', 'libgcc-s1', 'libstdc++6'];

/** As Debian calls this kind of machine. */
const machine =
  process.arch === 'arm64' ? { debian: 'arm64', triple: 'aarch64-linux-gnu' } : { debian: 'amd64', triple: 'x86_64-linux-gnu' };

/**
 * Make `target`, a folder with the libraries and their loader, which is there afterwards whole or not at all. Takes apt-get and some 4 MB from
 * the Debian archive. Throws an Error that says what failed.
 * @param {string} target
 */
export function fetchNewerLibc(target) {
  if (existsSync(target)) return;
  const apt = debianArchive({
    cache: cacheFolder('ringway-newer-libc'),
    sources: [`debian ${suite}`],
    architectures: [machine.debian],
    what: `the C library of Debian ${suite} cannot be had from the Debian archive`,
  });
  mkdirSync(dirname(target), { recursive: true });
  const work = mkdtempSync(`${target}-making-`);
  try {
    apt(work, 'update');
    apt(work, 'download', ...packages);
    const tree = join(work, 'tree');
    for (const file of readdirSync(work).filter((name) => name.endsWith('.deb')))
      runOrThrow(`unpacking ${file}`, 'dpkg-deb', ['--extract', join(work, file), tree]);
    const whole = join(work, 'whole');
    const isWanted = (/** @type {string} */ path) => !path.endsWith('/gconv');
    cpSync(join(tree, 'usr/lib', machine.triple), whole, { recursive: true, verbatimSymlinks: true, filter: isWanted });
    try {
      renameSync(whole, target);
    } catch (error) {
      // Another run was first.
      if (!existsSync(target)) throw error;
    }
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}
