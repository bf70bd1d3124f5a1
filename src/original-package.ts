/**
 * Tells whether an import means uWebSockets.js, by whatever name or path.
 * Role: pure but for looking at the file system. Up: register.ts.
 */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, isAbsolute, join, resolve } from 'node:path';

/** The original, and the copy of it that npm has. */
export const originalPackages: readonly string[] = ['uWebSockets.js', 'uwebsockets'];

/** Specifiers that are worth asking `meansOriginal` about: paths of the module's own files. */
export const originalFiles = /(?:^|\/)(?:uws(?:\.js)?|ESM_wrapper\.mjs)$/;

/** Where the original's own examples look for it: in a build that only its developers have. */
const developmentBuild = /(?:^|\/)dist\/uws(?:\.js)?$/;

/**
 * Does `specifier`, which matches `originalFiles` and is imported by the file `importer`, name the module of a uWebSockets.js package? An
 * app's own file of that name does not.
 */
export function meansOriginal(specifier: string, importer: string): boolean {
  const isPath = specifier.startsWith('.') || isAbsolute(specifier);
  if (!isPath) return originalPackages.some((name) => specifier.startsWith(`${name}/`));
  const target = resolve(dirname(importer), specifier);
  const owner = packageOf(dirname(target));
  if (owner !== undefined && originalPackages.includes(owner)) return true;
  return developmentBuild.test(specifier) && !existsSync(target) && !existsSync(`${target}.js`);
}

/** The name of the package that a folder belongs to. The folder need not exist. */
function packageOf(folder: string): string | undefined {
  for (let at = folder; ; at = dirname(at)) {
    const name = nameIn(join(at, 'package.json'));
    if (name !== undefined) return name;
    if (dirname(at) === at) return undefined;
  }
}

/** ret: undefined as well for a manifest without a name, such as one that only says which kind of modules a folder holds */
function nameIn(manifest: string): string | undefined {
  try {
    const { name } = JSON.parse(readFileSync(manifest, 'utf8')) as { readonly name?: unknown };
    return typeof name === 'string' ? name : undefined;
  } catch {
    return undefined;
  }
}
