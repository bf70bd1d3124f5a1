// Makes a checkout ready: Debian packages, npm packages with the pinned Bun, the C core. Does only what is not done yet, so that it
// costs next to nothing the second time. Plain Node (18.17 or later, Debian 12 has 18.19) or Bun, no packages: it is what installs them.
//
//     node scripts/setup.mjs [start | check | test]
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ensurePackages } from './packages.mjs';

export const root = fileURLToPath(new URL('..', import.meta.url));
const stampFile = join(root, 'node_modules/.ringway-stamp');
const bunProgram = join(root, 'node_modules/bun/bin/bun.exe');

/** How many compilers may run at once. */
const jobs = availableParallelism?.() ?? cpus().length;

/** Says what went wrong with set-up, in words for the person at the terminal. */
class SetupError extends Error {}

/**
 * Run a program here. Its output goes to stderr, since stdout belongs to the gateway.
 * @param {string} command
 * @param {string[]} args
 */
function run(command, args) {
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: ['ignore', 2, 2] });
  if (error !== undefined) throw new SetupError(`cannot run ${command}: ${error.message}`);
  return status === 0;
}

/** @param {string} path */
function readJson(path) {
  try {
    return JSON.parse(readFileSync(join(root, path), 'utf8'));
  } catch {
    return undefined;
  }
}

/**
 * Does node_modules hold what package-lock.json asks for, as far as npm itself noted down? Someone who has run npm install by hand
 * should not see everything installed once more.
 */
function installedByNpm() {
  const wanted = readJson('package-lock.json')?.packages;
  const installed = readJson('node_modules/.package-lock.json')?.packages;
  if (wanted === undefined || installed === undefined) return false;
  return Object.entries(wanted).every(([path, entry]) => {
    if (path === '') return true;
    return installed[path] === undefined ? entry.optional === true : installed[path].version === entry.version;
  });
}

/** The two files that say what node_modules should be. */
function manifestHash() {
  const hash = createHash('sha256');
  for (const file of ['package.json', 'package-lock.json']) hash.update(readFileSync(join(root, file)));
  return hash.digest('hex');
}

function readStamp() {
  try {
    return readFileSync(stampFile, 'utf8');
  } catch {
    return undefined;
  }
}

/** @returns {string | undefined} the version of the Bun in node_modules, when it runs */
function bunVersion() {
  const { status, stdout } = spawnSync(bunProgram, ['--version'], { encoding: 'utf8' });
  return status === 0 ? stdout.trim() : undefined;
}

function installNodeModules() {
  const npmWorks = spawnSync('npm', ['--version'], { stdio: 'ignore' }).status === 0;
  if (!npmWorks && process.versions.bun === undefined) throw new SetupError('neither npm nor Bun is here to install npm packages with');
  console.error(`Installing npm packages with ${npmWorks ? 'npm' : 'bun'}`);
  // Not `npm ci`: it refuses a lock that lacks optional packages of other platforms, and Biome names some that not every registry
  // carries. With --no-save, `npm install` keeps to the lock too, versions and checksums, and writes no file but node_modules.
  const done = npmWorks
    ? run('npm', ['install', '--no-save', '--include=dev', '--no-audit', '--no-fund'])
    : run(process.execPath, ['install', '--no-save']);
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
  const stamp = manifestHash();
  if (readStamp() === stamp) return;
  if (!installedByNpm()) installNodeModules();
  ensureBun();
  writeFileSync(stampFile, stamp);
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
