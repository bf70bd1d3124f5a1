// `npm run image`: builds the container image with buildah, which needs no engine that runs, tags it ringway:<version> and tells its
// size. Without a registry to take Debian from, it makes a Debian itself. What the image is, docker/Dockerfile says.
//
//     npm run image -- [--tag NAME] [--base IMAGE | --base debootstrap] [--storage FOLDER]
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { debianBase, suite } from './debian-base.mjs';
import { ensurePackages } from './packages.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
/** @type {{version: string}} */
const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
const registryBase = 'docker.io/library/debian:12-slim';
/** As the word after --base: make one. */
const debootstrap = 'debootstrap';
/** A registry that has not answered by then is out of reach. */
const pullMsMax = 300_000;

/** Says what is missing or went wrong, in words for the person at the terminal. */
class ImageError extends Error {}

/** @param {string} what */
const say = (what) => console.error(`image: ${what}`);

function readOptions() {
  try {
    return parseArgs({ options: { tag: { type: 'string' }, base: { type: 'string' }, storage: { type: 'string' } } }).values;
  } catch (error) {
    console.error(`image: ${error instanceof Error ? error.message : error}`);
    console.error('usage: npm run image -- [--tag NAME] [--base IMAGE | --base debootstrap] [--storage FOLDER]');
    return process.exit(64);
  }
}

/** buildah, on the images of this machine or on those in one folder. */
class Buildah {
  #storage;
  #env;
  /** @param {string | undefined} folder */
  constructor(folder) {
    this.#storage = folder === undefined ? [] : ['--root', join(folder, 'images'), '--runroot', join(folder, 'run')];
    this.#env = process.env;
    if (folder === undefined) return;
    const temporary = join(folder, 'tmp');
    mkdirSync(temporary, { recursive: true });
    this.#env = { ...process.env, TMPDIR: temporary };
  }

  /** @param {string[]} words @param {number} [timeout] milliseconds */
  succeeds(words, timeout) {
    return spawnSync('buildah', [...this.#storage, ...words], { stdio: ['ignore', 2, 2], env: this.#env, timeout }).status === 0;
  }

  /** @param {string[]} words @returns {string | undefined} undefined when it fails */
  output(words) {
    const { status, stdout } = spawnSync('buildah', [...this.#storage, ...words], { encoding: 'utf8', env: this.#env });
    return status === 0 ? stdout.trim() : undefined;
  }
}

/**
 * The image that every stage begins with.
 * @param {Buildah} buildah
 * @param {string | undefined} wanted
 */
function baseImage(buildah, wanted) {
  if (wanted !== debootstrap) {
    const name = wanted ?? registryBase;
    // The newest, else the one that is here.
    if (buildah.succeeds(['pull', '--quiet', '--policy', 'always', name], pullMsMax)) return name;
    if (buildah.output(['images', '--quiet', name]) !== undefined) return name;
    if (wanted !== undefined) throw new ImageError(`${name} could not be pulled: buildah's messages are above`);
    say(`no registry has given ${name}`);
  }
  const folder = debianBase(say);
  const name = `localhost/ringway-base:${suite}-${new Date().toISOString().slice(0, 10)}`;
  if (buildah.output(['images', '--quiet', name]) !== undefined) return name;
  const recipe = join(root, 'docker/Dockerfile.base');
  if (!buildah.succeeds(['bud', '--quiet', '--format', 'docker', '-f', recipe, '-t', name, folder]))
    throw new ImageError('the Debian made with debootstrap could not be turned into an image: the messages are above');
  return name;
}

/** The commit that this is built from, when git knows it and nothing is changed. */
function revision() {
  /** @param {string[]} words */
  const git = (...words) => spawnSync('git', ['-C', root, ...words], { encoding: 'utf8' });
  const status = git('status', '--porcelain');
  return status.status === 0 && status.stdout === '' ? git('rev-parse', 'HEAD').stdout.trim() : '';
}

/** Authorities that this shell trusts beside the usual ones are trusted while packages are fetched. */
function certificates() {
  const file = process.env.NODE_EXTRA_CA_CERTS ?? process.env.SSL_CERT_FILE;
  return file === undefined || file === '' ? [] : ['--secret', `id=certificates,src=${resolve(file)}`];
}

function main() {
  const options = readOptions();
  if (process.getuid?.() !== 0)
    throw new ImageError(
      'needs root: buildah builds in a chroot, and debootstrap makes a root file system. Run it as root, or with an engine: docker build -f docker/Dockerfile -t ringway .',
    );
  if (!ensurePackages('image')) throw new ImageError('cannot build without these packages');

  const started = Date.now();
  const tag = options.tag ?? `ringway:${version}`;
  const buildah = new Buildah(options.storage);
  const base = baseImage(buildah, options.base);
  say(`building ${tag} on ${base}`);
  const build = ['bud', '--isolation', 'chroot', '--format', 'docker', '--jobs', '2', '--pull=false', ...certificates()];
  const values = { BASE: base, VERSION: version, REVISION: revision() };
  for (const [name, value] of Object.entries(values)) build.push('--build-arg', `${name}=${value}`);
  if (!buildah.succeeds([...build, '-f', join(root, 'docker/Dockerfile'), '-t', tag, root]))
    throw new ImageError('the image could not be built: the messages are above');

  const [entry] = JSON.parse(buildah.output(['images', '--json', tag]) ?? '[]');
  console.log(`${tag}: ${entry.size}, built in ${Math.round((Date.now() - started) / 1000)} s`);
}

try {
  main();
} catch (error) {
  say(error instanceof Error ? error.message : String(error));
  process.exitCode = 1;
}
