/** `ringway init`: write a starter config. */
import { existsSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { defaultConfigPath } from '../config/defaults.ts';
import { errorCode, OperatingError } from '../operating-error.ts';
import { starterConfig } from './starter.ts';

/** Write gateway.config.ts into `folder`; replaces one only with `force`. ret: what to print. Throws OperatingError. */
export function init(folder: string, force: boolean): string {
  const path = join(folder, defaultConfigPath);
  try {
    // wx: fails when it exists, without a moment between looking and writing.
    writeFileSync(path, starterConfig, { flag: force ? 'w' : 'wx' });
  } catch (error) {
    if (errorCode(error) === 'EEXIST') throw new OperatingError(`${path} exists already; 'ringway init --force' replaces it`);
    throw new OperatingError(`cannot write ${path}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
  }
  const absent = ['ringway', 'hono'].filter((name) => !isInstalled(name, folder));
  // It runs all the same: what it imports is provided.
  const hint = absent.length === 0 ? '' : `\nYour editor shows types once ${absent.join(' and ')} can be imported from there (npm install)`;
  // npx finds what is no command of the shell.
  const npx = process.env.npm_command === 'exec' ? 'npx ' : '';
  return `wrote ${path}\nNow run '${npx}ringway start', then open http://localhost:8080${hint}`;
}

function isInstalled(name: string, folder: string): boolean {
  for (let at = resolve(folder); ; at = dirname(at)) {
    if (existsSync(join(at, 'node_modules', name, 'package.json'))) return true;
    if (dirname(at) === at) return false;
  }
}
