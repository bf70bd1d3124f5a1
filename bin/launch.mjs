// Runs the gateway under Bun, whatever runs this file: finds the Bun that Ringway is pinned to, hands signals on, passes the exit code back.
// Plain JavaScript, since it must load in Node as well.
import { spawn } from 'node:child_process';
import { readFileSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { constants } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const require = createRequire(import.meta.url);

/** A real Bun has about 100 MB; what stands in its place until the postinstall script has run is a few hundred bytes of shell. */
const placeholderBytesMax = 64 * 1024;

/** @param {string} path */
function isProgram(path) {
  try {
    return statSync(path).size > placeholderBytesMax;
  } catch {
    return false;
  }
}

/**
 * The folder of an installed package, wherever the package manager has put it.
 * @param {string} name @param {NodeJS.Require} from as seen from there
 */
function packageFolder(name, from = require) {
  try {
    return dirname(from.resolve(`${name}/package.json`));
  } catch {
    return undefined;
  }
}

/** Is this system's C library musl, as on Alpine? Asked of this process, since Debian can have musl installed beside its own. */
function isMusl() {
  try {
    return /\/ld-musl-/.test(readFileSync('/proc/self/maps', 'latin1'));
  } catch {
    return false;
  }
}

/**
 * The pinned Bun from npm; else the Bun that runs this file. npm can be set not to run postinstall scripts, and from version 12 does
 * not by default: then package `bun` holds a placeholder, and the program lies in the package of its platform.
 * @returns {string | undefined}
 */
export function findBun() {
  const arch = process.arch === 'arm64' ? 'aarch64' : process.arch;
  const bun = packageFolder('bun');
  const ofPlatform = `@oven/bun-${process.platform}-${arch}${isMusl() ? '-musl' : ''}`;
  const candidates = [
    [bun, 'bin/bun.exe'],
    [packageFolder(ofPlatform), 'bin/bun'],
    // Where a package manager shows a package its own dependencies only, as pnpm does.
    [bun && packageFolder(ofPlatform, createRequire(join(bun, 'package.json'))), 'bin/bun'],
  ];
  for (const [folder, file] of candidates) {
    if (folder !== undefined && file !== undefined && isProgram(join(folder, file))) return join(folder, file);
  }
  return process.versions.bun === undefined ? undefined : process.execPath;
}

/** Once a second Bun looks whether garbage is worth collecting, which is most of what processes that rest do; they collect as they allocate all the same. */
const bunSettings = { BUN_GC_TIMER_INTERVAL: '30000' };

/**
 * Run `ringway` with these arguments until it ends; this process then ends in the same way.
 * @param {string[]} args
 */
export function launch(args) {
  const bun = findBun();
  if (bun === undefined) {
    console.error('ringway: Bun is not installed. Run `npm install` in the folder of your package.json, or install Bun (https://bun.sh).');
    process.exit(1);
  }
  const main = fileURLToPath(new URL('../src/main.ts', import.meta.url));
  // Bun fetches and runs packages that a module imports and no folder has: a name that is misspelt in a config would run a stranger's code.
  const command = ['--no-install', main, ...args];
  // The gateway ends when this process does, however that ends.
  const child = spawn(bun, command, { stdio: 'inherit', env: { ...bunSettings, ...process.env, RINGWAY_LAUNCHER: String(process.pid) } });

  for (const signal of /** @type {const} */ (['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGUSR1', 'SIGUSR2'])) {
    process.on(signal, () => {
      // Ctrl-C goes to every process of the terminal's foreground group, the gateway included. Handing it on would make it two,
      // and the second SIGINT tells the gateway not to drain.
      if (signal === 'SIGINT' && process.stdin.isTTY) return;
      child.kill(signal);
    });
  }
  child.on('error', (error) => {
    console.error(`ringway: cannot run ${bun}: ${error.message}`);
    process.exit(1);
  });
  child.on('exit', (code, signal) => process.exit(signal === null ? (code ?? 1) : 128 + constants.signals[signal]));
}
