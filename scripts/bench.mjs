// `npm run bench`: set-up, then bench/run.ts in the pinned Bun, with the same arguments (npm run bench -- --help).
import { spawn } from 'node:child_process';
import { constants } from 'node:os';
import { join, resolve } from 'node:path';
import { findBun } from '../bin/launch.mjs';
import { root, setup } from './setup.mjs';

setup('start');

const bun = findBun() ?? process.execPath;
const given = process.argv.slice(2);
const child = spawn(bun, [join(root, 'bench/run.ts'), ...given], { cwd: resolve('.'), stdio: 'inherit' });
for (const signal of /** @type {const} */ (['SIGTERM', 'SIGINT', 'SIGHUP'])) {
  // Ctrl-C reaches the bench by itself: it goes to the whole foreground group of the terminal.
  process.on(signal, () => (signal === 'SIGINT' && process.stdin.isTTY ? undefined : child.kill(signal)));
}
child.on('exit', (code, signal) => process.exit(signal === null ? (code ?? 1) : 128 + constants.signals[signal]));
