/**
 * `ringway init NAME`: a folder with everything that a new project needs.
 * Role: copies packaging/project, and writes what depends on where this package lies. Up: cli.ts.
 */
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { basename, join, relative, resolve, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { errorCode, OperatingError } from '../operating-error.ts';

const ownFolder = fileURLToPath(new URL('../..', import.meta.url));
const template = join(ownFolder, 'packaging/project');
/** npm leaves such files out of packages, or reads them as its own. */
const dotFiles = ['gitignore', 'dockerignore'] as const;

interface OwnManifest {
  readonly version: string;
  readonly dependencies: Readonly<Record<string, string>>;
  readonly devDependencies: Readonly<Record<string, string>>;
}

/** Installs what package.json lists. ret: whether that went well */
export type Install = (folder: string) => boolean;

export const npmInstall: Install = (folder) => {
  try {
    const { success } = Bun.spawnSync(['npm', 'install', '--no-audit', '--no-fund'], {
      cwd: folder,
      stdio: ['ignore', 'inherit', 'inherit'],
    });
    return success;
  } catch {
    console.error('npm is not here to install packages with');
    return false;
  }
};

/**
 * Make the project `name` in `parent`; a path is as good as a name. ret: what to print. Throws OperatingError; then nothing is written but
 * for folders and what had been written before the fault.
 */
export function initProject(parent: string, name: string, install: Install | undefined): string {
  const folder = resolve(parent, name);
  try {
    if (existsSync(folder) && readdirSync(folder).length > 0)
      throw new OperatingError(`${folder} is not empty; write another name, or empty it first`);
    mkdirSync(folder, { recursive: true });
    cpSync(template, folder, { recursive: true });
    for (const file of dotFiles) renameSync(join(folder, file), join(folder, `.${file}`));
    for (const [file, value] of Object.entries(written(folder))) writeFileSync(join(folder, file), `${JSON.stringify(value, null, 2)}\n`);
  } catch (error) {
    if (error instanceof OperatingError) throw error;
    const what = errorCode(error) === 'ENOTDIR' || errorCode(error) === 'EEXIST' ? 'is a file, or lies in one' : (error as Error).message;
    throw new OperatingError(`cannot make ${folder}: ${what}`, { cause: error });
  }
  const isInstalled = install?.(folder) ?? false;
  const steps = [`cd ${relative(parent, folder) || '.'}`, ...(isInstalled ? [] : ['npm install']), 'npm run dev'];
  return [
    `wrote ${folder}`,
    ...(install !== undefined && !isInstalled ? ['its packages could not be installed: the messages are above'] : []),
    'Now:',
    ...steps.map((step) => `  ${step}`),
    'then open http://localhost:8080',
  ].join('\n');
}

/** By name: what is JSON. */
function written(folder: string): Readonly<Record<string, object>> {
  const own: OwnManifest = JSON.parse(readFileSync(join(ownFolder, 'package.json'), 'utf8'));
  return {
    'package.json': {
      name: packageName(basename(folder)),
      private: true,
      type: 'module',
      scripts: { dev: 'ringway dev', start: 'ringway start', check: 'ringway check && tsc' },
      dependencies: { hono: own.dependencies.hono, ringway: whereFrom(folder, own.version) },
      devDependencies: { '@types/bun': own.devDependencies['@types/bun'], typescript: own.devDependencies.typescript },
    },
    'tsconfig.json': {
      compilerOptions: {
        target: 'esnext',
        lib: ['esnext', 'dom', 'dom.iterable'],
        module: 'preserve',
        moduleResolution: 'bundler',
        types: ['bun'],
        allowJs: true,
        checkJs: true,
        allowImportingTsExtensions: true,
        noEmit: true,
        strict: true,
        noUncheckedIndexedAccess: true,
        skipLibCheck: true,
      },
      include: ['gateway.config.ts', 'src', 'public'],
    },
  };
}

/** As this package itself was installed: from a registry, from a file; or it is a checkout. */
function whereFrom(folder: string, version: string): string {
  const at = ownFolder.lastIndexOf(`${sep}node_modules${sep}`);
  if (at < 0) return `file:${relative(folder, ownFolder)}`;
  const project = ownFolder.slice(0, at);
  const asked = readManifest(join(project, 'package.json'))?.dependencies?.ringway;
  return asked?.startsWith('file:') ? `file:${relative(folder, resolve(project, asked.slice('file:'.length)))}` : `^${version}`;
}

function readManifest(path: string): Partial<OwnManifest> | undefined {
  try {
    return JSON.parse(readFileSync(path, 'utf8'));
  } catch {
    return undefined;
  }
}

/** As npm wants it: lower case, and nothing that a URL would escape. */
function packageName(name: string): string {
  return (
    name
      .toLowerCase()
      .replace(/[^a-z0-9._-]+/g, '-')
      .replace(/^[._-]+/, '') || 'gateway'
  );
}
