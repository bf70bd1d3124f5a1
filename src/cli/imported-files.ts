/**
 * The files that a config is made of: what it imports, and what that imports, but for installed packages.
 * Role: pure reading, nothing is run, so that it tells of a config with mistakes as well. Up: dev.ts.
 */
import { readFileSync, realpathSync } from 'node:fs';
import { dirname, extname, resolve } from 'node:path';

type Loader = 'ts' | 'tsx' | 'js' | 'jsx';
const loaders: Readonly<Record<string, Loader>> = {
  '.ts': 'ts',
  '.mts': 'ts',
  '.cts': 'ts',
  '.tsx': 'tsx',
  '.js': 'js',
  '.mjs': 'js',
  '.cjs': 'js',
  '.jsx': 'jsx',
};

export interface ImportedFiles {
  /** Absolute paths, the config's first. */
  readonly files: readonly string[];
  /** Where imports lead that no file is found for: paths as they are written, without what Bun would add to them. */
  readonly missing: readonly string[];
}

/** Never throws: what cannot be read or parsed has no imports. */
export function importedFiles(configPath: string): ImportedFiles {
  const asked = resolve(configPath);
  // Imports of a file that a link leads to are those beside the file.
  const files = new Set([asked, realPath(asked)]);
  const missing = new Set<string>();
  for (const file of files) {
    if (file !== realPath(file)) continue;
    for (const specifier of importsOf(file)) {
      const found = resolveFrom(specifier, dirname(file));
      if (found === undefined) {
        if (specifier.startsWith('.') || specifier.startsWith('/')) missing.add(resolve(dirname(file), specifier));
      } else if (!found.includes('/node_modules/') && found.startsWith('/')) {
        files.add(found);
      }
    }
  }
  return { files: [...files], missing: [...missing] };
}

export function realPath(file: string): string {
  try {
    return realpathSync(file);
  } catch {
    return file;
  }
}

function importsOf(file: string): string[] {
  const loader = loaders[extname(file)];
  if (loader === undefined) return [];
  try {
    return new Bun.Transpiler({ loader }).scanImports(readFileSync(file, 'utf8')).map(({ path }) => path);
  } catch {
    // It is half written: what it imported before is still watched (file-changes.ts), and it is itself.
    return [];
  }
}

/** ret: undefined for a package that is not installed too; 'ringway' itself is provided without being installed */
function resolveFrom(specifier: string, folder: string): string | undefined {
  try {
    return Bun.resolveSync(specifier, folder);
  } catch {
    return undefined;
  }
}
