/**
 * Modules of this package, and Hono's, by the names that configs import them under.
 * Role: handed to config/load.ts by whoever loads a config. Down: index.ts, frontend/uws/index.ts, loaded when a config asks for them.
 */
import { readFileSync } from 'node:fs';

const ownModules: Readonly<Record<string, () => Promise<object>>> = {
  ringway: () => import('./index.ts'),
  'ringway/link': () => import('./link.ts'),
  'ringway/uws': () => import('./frontend/uws/index.ts'),
};

let provided = false;

/**
 * Let a config import 'ringway', and 'hono' where its folder has none, from wherever it lies: a config mounted into a container
 * has no node_modules beside it, and Bun would look for the packages on the network.
 */
export function provideModules(folder: string): void {
  if (provided) return;
  provided = true;
  const modules = new Map(Object.entries(ownModules));
  if (!canResolve('hono', folder))
    for (const name of honoModules()) modules.set(name, () => import(Bun.resolveSync(name, import.meta.dir)));
  Bun.plugin({
    name: 'ringway-modules',
    setup(build) {
      for (const [name, load] of modules) build.module(name, async () => ({ exports: { ...(await load()) }, loader: 'object' }));
    },
  });
}

function canResolve(name: string, folder: string): boolean {
  try {
    Bun.resolveSync(name, folder);
    return true;
  } catch {
    return false;
  }
}

function honoModules(): string[] {
  const manifest: { exports: Record<string, unknown> } = JSON.parse(
    readFileSync(Bun.resolveSync('hono/package.json', import.meta.dir), 'utf8'),
  );
  return Object.keys(manifest.exports)
    .filter((path) => !path.includes('*') && !path.endsWith('.json'))
    .map((path) => `hono${path.slice(1)}`);
}
