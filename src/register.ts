/**
 * `ringway/register`: makes `import` and `require` of uWebSockets.js give Ringway's implementation, so that its programs run unedited.
 *
 * Role: a preload (`bun --preload ringway/register app.js`). It must be loaded before the program is: an `import` beside one of
 * uWebSockets.js in the same file comes too late. Down: frontend/uws/index.ts, loaded when a program first asks for it.
 */

import { createRequire, syncBuiltinESMExports } from 'node:module';
import { plugin } from 'bun';
import { meansOriginal, originalFiles, originalPackages } from './original-package.ts';

const require = createRequire(import.meta.url);

/** What programs get: the same members by name and as default, which is also what `require` gives. Synchronous, since a `require` is. */
function loadModule(): Record<string, unknown> {
  const { uws } = require('./frontend/uws/index.ts') as typeof import('./frontend/uws/index.ts');
  return { ...uws, default: uws };
}

plugin({
  name: 'ringway-register',
  setup(build) {
    for (const name of originalPackages) build.module(name, () => ({ exports: loadModule(), loader: 'object' }));
    build.onResolve({ filter: originalFiles }, ({ path, importer }) =>
      meansOriginal(path, importer) ? { path: 'uWebSockets.js', namespace: '' } : undefined,
    );
  },
});

type WorkerConstructor = new (script: string | URL, options?: { preload?: string | string[] }) => object;

/** Bun hands its preloads on to child processes, but not to threads. */
function preloadInThreads<Constructor extends WorkerConstructor>(worker: Constructor): Constructor {
  const Base: WorkerConstructor = worker;
  class Worker extends Base {
    constructor(script: string | URL, options: { preload?: string | string[] } = {}) {
      super(script, { ...options, preload: [import.meta.path, ...[options.preload ?? []].flat()] });
    }
  }
  return Worker as unknown as Constructor;
}

const threads = require('node:worker_threads') as { Worker: WorkerConstructor };
threads.Worker = preloadInThreads(threads.Worker);
globalThis.Worker = preloadInThreads(globalThis.Worker as unknown as WorkerConstructor) as unknown as typeof globalThis.Worker;
syncBuiltinESMExports();
