// `npm pack` and `npm publish` run this before they pack (prepack), and `pack.mjs clean` after (postpack): the typings and the prebuilt
// cores are made for the package and are in no commit. What it says goes to standard error, since standard output belongs to npm.
import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { packCores } from './pack-cores.mjs';
import { packTypes } from './pack-types.mjs';
import { ensurePackages } from './packages.mjs';
import { root } from './setup.mjs';

const types = join(root, 'types');
const prebuilt = join(root, 'prebuilt');

if (process.argv[2] === 'clean') {
  // A core that stayed would be loaded one day instead of a newer one that does not compile.
  for (const folder of [types, prebuilt]) rmSync(folder, { recursive: true, force: true });
} else {
  if (!ensurePackages('pack')) process.exit(1);
  try {
    if (!existsSync(join(root, 'node_modules/typescript'))) throw new Error("the npm packages are not installed: run 'npm run setup'");
    packTypes(root, types, ['src/index.ts', 'src/link.ts', 'src/frontend/uws/index.ts', 'src/register.ts']);
    packCores(root, prebuilt);
  } catch (error) {
    console.error(`pack: ${error instanceof Error ? error.message : error}`);
    process.exit(1);
  }
}
