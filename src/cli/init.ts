/** `ringway init`: write a starter config. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { defaultConfigPath } from '../config/load.ts';
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
  return `wrote ${path}\nNow run 'ringway start', then open http://localhost:8080`;
}
