/** What processes load before they serve: packages that only some need, or that are needed later, are not among it. */
import { expect, test } from 'bun:test';
import { relative } from 'node:path';

const root = new URL('../../../', import.meta.url).pathname;

/** Names of the packages that come with `entry` before its first line runs. */
async function packagesOf(entry: string): Promise<string[]> {
  const { metafile } = await Bun.build({ entrypoints: [`${root}${entry}`], root, target: 'bun', metafile: true });
  if (metafile === undefined) throw new Error('Bun tells no imports');
  const inputs = new Map(
    Object.entries(metafile.inputs).map(([path, { imports }]) => [relative(root, `${process.cwd()}/${path}`), imports]),
  );
  const here = (path: string) => relative(root, `${process.cwd()}/${path}`);
  const found = new Set<string>();
  const waiting = [entry];
  for (let path = waiting.pop(); path !== undefined; path = waiting.pop()) {
    const imports = inputs.get(path);
    if (found.has(path) || imports === undefined) continue;
    found.add(path);
    for (const each of imports) if (each.kind !== 'dynamic-import') waiting.push(here(each.path));
  }
  expect(found.size).toBeGreaterThan(1);
  const packages = [...found].map((path) => /node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(path)?.[1]).filter((name) => name !== undefined);
  return [...new Set(packages)];
}

test.each([
  // The client of Redis is loaded where the config names one, and what verifies tokens where it asks for them.
  ['a worker', 'src/worker/main.ts', ['pino', 'zod'], ['ioredis', 'jose', 'prom-client', 'citty']],
  // What the admin listener answers with is loaded when it is asked, or the node serves.
  ['a supervisor', 'src/supervisor/supervisor.ts', [], ['prom-client', '@opentelemetry/api', 'ioredis', 'jose', 'citty']],
  // Before the process that reads the config has been started.
  ['ringway start', 'src/cli/start.ts', [], ['pino', 'zod', 'prom-client', 'ioredis', 'jose']],
  ['the process that reads the config', 'src/cli/probe.ts', ['zod'], ['pino', 'citty', 'prom-client', 'ioredis', 'jose']],
])('%s loads nothing that it can do without', async (_, entry, needed, absent) => {
  const packages = await packagesOf(entry);
  expect(packages).toEqual(expect.arrayContaining(needed));
  expect(packages.filter((name) => absent.includes(name))).toEqual([]);
});
