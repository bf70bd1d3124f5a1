/** Installs what the bench measures against, into a node_modules of the bench's own. */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

const folder = join(import.meta.dir, '..');

interface Manifest {
  readonly dependencies: Readonly<Record<string, string>>;
  /**
   * Packages that are too heavy to install unasked, each as a version or as npm's alias of another package. Not peerDependencies: npm
   * does not install an optional one of those even when it is told to.
   */
  readonly onDemand: Readonly<Record<string, string>>;
}

/** `heavy`: those of `onDemand` that are measured now. */
export function ensurePackages(heavy: readonly string[]): void {
  const { dependencies, onDemand } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as Manifest;
  const isMissing = ([name, wanted]: readonly [string, string]) => installedVersion(name) !== wanted.slice(wanted.lastIndexOf('@') + 1);
  const wanted = heavy.map((name) => [name, onDemand[name] ?? ''] as const);
  if (!Object.entries(dependencies).some(isMissing) && !wanted.some(isMissing)) return;
  const extra = wanted.map(([name, version]) => `${name}@${version}`);
  console.error(`Installing the bench's npm packages${extra.length === 0 ? '' : `, ${extra.join(' and ')} among them`}`);
  execFileSync('npm', ['install', '--no-save', '--no-audit', '--no-fund', ...extra], { cwd: folder, stdio: ['ignore', 2, 2] });
}

function installedVersion(name: string): string | undefined {
  const manifest = join(folder, 'node_modules', name, 'package.json');
  return existsSync(manifest) ? (JSON.parse(readFileSync(manifest, 'utf8')) as { version: string }).version : undefined;
}
