// Packages of the Debian archive as files, whatever this machine has installed and where from: apt checks the signature of the archive and
// the checksum of each package, and nothing is installed.
import { spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { debianKeyring } from './packages.mjs';

const mirror = 'http://deb.debian.org';

/** A folder of the user's cache, to be made by who writes there. @param {string} name */
export function cacheFolder(name) {
  const given = process.env.XDG_CACHE_HOME;
  return join(given?.startsWith('/') ? given : join(homedir(), '.cache'), name);
}

/**
 * ret: standard output. Standard error is the terminal's, since standard output belongs to npm. Throws with what could not be done.
 * @param {string} what @param {string} command @param {string[]} args @param {string} [cwd]
 */
export function runOrThrow(what, command, args, cwd) {
  const { status, stdout, error } = spawnSync(command, args, { cwd, stdio: ['ignore', 'pipe', 2], encoding: 'utf8', maxBuffer: 1 << 26 });
  if (status !== 0) throw new Error(`${what}: ${error?.message ?? `${command} failed, its messages are above`}`);
  return stdout;
}

/**
 * apt-get with lists of its own, which stay in `cache`: the next time only what has changed is fetched.
 * ret: runs it in a folder with words, and gives its standard output; throws an Error that begins with `what`
 * @param {{ cache: string, sources: readonly string[], architectures: readonly string[], what: string }} archive `sources`: 'debian trixie'
 * @returns {(cwd: string, ...args: string[]) => string}
 */
export function debianArchive({ cache, sources, architectures, what }) {
  const list = join(cache, 'sources.list');
  for (const folder of ['state/lists/partial', 'archives/partial', 'packages']) mkdirSync(join(cache, folder), { recursive: true });
  const kinds = architectures.join(',');
  writeFileSync(list, sources.map((source) => `deb [signed-by=${debianKeyring} arch=${kinds}] ${mirror}/${source} main\n`).join(''));
  const options = {
    'Dir::State': join(cache, 'state'),
    'Dir::State::status': '/dev/null',
    'Dir::Cache': cache,
    'Dir::Etc::sourcelist': list,
    'Dir::Etc::sourceparts': '/dev/null',
    'Dir::Etc::preferences': '/dev/null',
    'Dir::Etc::preferencesparts': '/dev/null',
    'APT::Architectures': kinds,
    'Acquire::Languages': 'none',
    'Acquire::IndexTargets::deb::DEP-11::DefaultEnabled': 'false',
    'Acquire::Retries': '3',
    // Its own user may not write into folders of this one.
    'APT::Sandbox::User': 'root',
  };
  const words = Object.entries(options).flatMap(([name, value]) => ['-o', `${name}=${value}`]);
  // One at a time: they share the lists.
  return (cwd, ...args) => runOrThrow(what, 'flock', [join(cache, 'lock'), 'apt-get', '-q', ...words, ...args], cwd);
}
