// Makes a checkout ready: Debian packages, npm packages with the pinned Bun, the C core. Does only what is not done yet, so that it
// costs next to nothing the second time. Plain Node (18.17 or later, Debian 12 has 18.19) or Bun, no packages: it is what installs them.
//
//     node scripts/setup.mjs [start | check | test]
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { fetchNewerLibc } from './newer-libc.mjs';
import { ensurePackages } from './packages.mjs';

export const root = fileURLToPath(new URL('..', import.meta.url));
const contract = join(root, 'tests/contract');
export const site = join(root, 'site');
const bunProgram = join(root, 'node_modules/bun/bin/bun.exe');

/** How many compilers may run at once. */
const jobs = availableParallelism?.() ?? cpus().length;

/** Says what went wrong with set-up, in words for the person at the terminal. */
class SetupError extends Error {}

/**
 * Run a program here. Its output goes to stderr, since stdout belongs to the gateway.
 * @param {string} command
 * @param {string[]} args
 * @param {string} [cwd]
 */
function run(command, args, cwd = root) {
  const { status, error } = spawnSync(command, args, { cwd, stdio: ['ignore', 2, 2] });
  if (error !== undefined) throw new SetupError(`cannot run ${command}: ${error.message}`);
  return status === 0;
}

/** @param {string} path @param {string} [folder] */
function readJson(path, folder = root) {
  try {
    return JSON.parse(readFileSync(join(folder, path), 'utf8'));
  } catch {
    return undefined;
  }
}

/**
 * Does node_modules hold what package-lock.json asks for, as far as npm itself noted down? Someone who has run npm install by hand
 * should not see everything installed once more.
 * @param {string} folder of a package.json
 */
function installedByNpm(folder) {
  const wanted = readJson('package-lock.json', folder)?.packages;
  const installed = readJson('node_modules/.package-lock.json', folder)?.packages;
  if (wanted === undefined || installed === undefined) return false;
  return Object.entries(wanted).every(([path, entry]) => {
    if (path === '') return true;
    return installed[path] === undefined ? entry.optional === true : installed[path].version === entry.version;
  });
}

/** @param {string} folder */
const stampFile = (folder) => join(folder, 'node_modules/.ringway-stamp');

/** The two files that say what node_modules should be. @param {string} folder */
function manifestHash(folder) {
  const hash = createHash('sha256');
  for (const file of ['package.json', 'package-lock.json']) hash.update(readFileSync(join(folder, file)));
  return hash.digest('hex');
}

/** @param {string} folder */
function readStamp(folder) {
  try {
    return readFileSync(stampFile(folder), 'utf8');
  } catch {
    return undefined;
  }
}

/** @returns {string | undefined} the version of the Bun in node_modules, when it runs */
function bunVersion() {
  const { status, stdout } = spawnSync(bunProgram, ['--version'], { encoding: 'utf8' });
  return status === 0 ? stdout.trim() : undefined;
}

/** @param {string} folder @param {string[]} options for npm */
function installNodeModules(folder, ...options) {
  const npmWorks = spawnSync('npm', ['--version'], { stdio: 'ignore' }).status === 0;
  if (!npmWorks && process.versions.bun === undefined) throw new SetupError('neither npm nor Bun is here to install npm packages with');
  console.error(`Installing npm packages with ${npmWorks ? 'npm' : 'bun'}`);
  // Not `npm ci`: it refuses a lock that lacks optional packages of other platforms, and Biome names some that not every registry
  // carries. With --no-save, `npm install` keeps to the lock too, versions and checksums, and writes no file but node_modules.
  const done = npmWorks
    ? run('npm', ['install', '--no-save', '--include=dev', '--no-audit', '--no-fund', '--loglevel=error', ...options], folder)
    : run(process.execPath, ['install', '--no-save'], folder);
  if (!done) throw new SetupError('npm packages could not be installed: the messages are above');
}

/** The pinned Bun must run. npm may have been told not to run its postinstall script, and left a placeholder. */
function ensureBun() {
  const wanted = readJson('package.json').dependencies.bun;
  let found = bunVersion();
  if (found !== wanted) {
    run(process.execPath, [join(root, 'node_modules/bun/install.js')]);
    found = bunVersion();
  }
  if (found !== wanted)
    throw new SetupError(`node_modules/bun should be Bun ${wanted}, and ${found === undefined ? 'does not run' : `is ${found}`}`);
}

function ensureNodeModules() {
  const stamp = manifestHash(root);
  if (readStamp(root) === stamp) return;
  if (!installedByNpm(root)) installNodeModules(root);
  ensureBun();
  writeFileSync(stampFile(root), stamp);
}

/**
 * A package of its own beside Ringway's, since nothing of it is a dependency of Ringway.
 * @param {string} folder @param {string} what said before it is installed @param {string} without what is so without it
 * @returns {boolean} whether it is there now
 */
function ensureModulesOf(folder, what, without) {
  const stamp = manifestHash(folder);
  if (readStamp(folder) === stamp) return true;
  if (!installedByNpm(folder)) {
    console.error(what);
    try {
      installNodeModules(folder, '--ignore-scripts');
    } catch (error) {
      if (!(error instanceof SetupError)) throw error;
      console.error(`setup: ${error.message}; ${without}`);
      return false;
    }
  }
  writeFileSync(stampFile(folder), stamp);
  return true;
}

/** Without it the other suites can still be run, and the contract suite says what it lacks. */
function ensureContractModules() {
  return ensureModulesOf(
    contract,
    'For the contract suite, into tests/contract/node_modules alone: uWebSockets.js (builds for every platform and its newer typings, ' +
      'some 370 MB on disk), and the programs that are run on it (socket.io, Fastify, graphql-ws, crossws)',
    'the contract suite will fail',
  );
}

export function ensureSiteModules() {
  return ensureModulesOf(
    site,
    'For the site, into site/node_modules alone: its generator, some 100 MB on disk',
    'the site cannot be built',
  );
}

/**
 * Recent builds of uWebSockets.js need a newer C library than Debian 12 has. Where the contract suite cannot get one, an older build is what
 * it compares with, and what only recent ones show is left out.
 */
function ensureNewerLibc() {
  const build = 'uWebSockets.js';
  const folder = join(contract, 'node_modules/.newer-libc');
  if (existsSync(folder) || !existsSync(join(contract, 'node_modules', build))) return;
  if (spawnSync('node', ['-e', `require('${build}')`], { cwd: contract, stdio: 'ignore' }).status === 0) return;
  console.error('For the contract suite, into tests/contract/node_modules alone: the C library of Debian 13');
  try {
    fetchNewerLibc(folder);
  } catch (error) {
    console.error(`setup: ${error instanceof Error ? error.message : error}; the contract suite compares with an older build`);
  }
}

/** make decides what is out of date; when nothing is, it takes some 10 ms. */
function buildCore() {
  if (!run('make', ['--silent', '-C', 'ffi', '-j', String(jobs), 'build']))
    throw new SetupError('the C core could not be built: the messages are above');
}

/**
 * Make everything ready, or say what is wrong and end with exit code 1.
 * @param {import('./packages.mjs').Purpose} purpose
 */
export function setup(purpose) {
  try {
    if (process.platform !== 'linux') throw new SetupError('Ringway runs on Linux only: its core is built on io_uring and epoll');
    if (!ensurePackages(purpose)) process.exit(1);
    ensureNodeModules();
    if (purpose === 'test') {
      ensureContractModules();
      ensureSiteModules();
      ensureNewerLibc();
    }
    buildCore();
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    console.error(`setup: ${error.message}`);
    process.exit(1);
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const purpose = process.argv[2] ?? 'start';
  if (purpose !== 'start' && purpose !== 'check' && purpose !== 'test') {
    console.error('usage: node scripts/setup.mjs [start | check | test]');
    process.exit(64);
  }
  setup(purpose);
}
